/*
 * Connections that change threads: each call for one is made by another of four threads than the last. In: port, certificate,
 * key. Answers everything with as long a body as it came with.
 */
#include "turns.h"
#include <pthread.h>
#include <signal.h>

#define THREADS 4

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct connection *given[THREADS];
} desk = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, { NULL } };

static void turn(struct connection *c)
{
	char *length;

	if (!step(c))
		return;
	length = strstr(c->head, "Content-Length: ");
	c->out_body = length ? atol(length + 16) : 0;
	c->out_length = snprintf(c->out, sizeof(c->out), "HTTP/1.1 200 OK\r\nContent-Length: %ld\r\n\r\n", c->out_body);
	c->out_done = 0;
	if (c->complete % 3 == 0)
		rekey(c);
}

static void *work(void *number)
{
	struct connection **own = &desk.given[(long)number];

	pthread_mutex_lock(&desk.lock);
	for (;;) {
		while (!*own)
			pthread_cond_wait(&desk.changed, &desk.lock);
		pthread_mutex_unlock(&desk.lock);
		turn(*own);
		pthread_mutex_lock(&desk.lock);
		*own = NULL;
		pthread_cond_broadcast(&desk.changed);
	}
	return NULL;
}

/* A call for each of these, at the same time; the first thread is another one each time. */
static void turns(struct connection **ready, int count)
{
	static long first;

	first++;
	pthread_mutex_lock(&desk.lock);
	for (int at = 0; at < count; at++)
		desk.given[(first + at) % THREADS] = ready[at];
	pthread_cond_broadcast(&desk.changed);
	for (int at = 0; at < THREADS; at++)
		while (desk.given[at])
			pthread_cond_wait(&desk.changed, &desk.lock);
	pthread_mutex_unlock(&desk.lock);
}

static void serve(SSL_CTX *context, int listening)
{
	struct connection *all[MOST], *ready[THREADS];
	struct pollfd polled[MOST + 1];
	int count = 0;

	for (;;) {
		int known = count, taken = 0, limit = -1;
		for (int at = 0; at < count; at++) {
			polled[at + 1] = (struct pollfd){ all[at]->socket, all[at]->wants, 0 };
			if (!all[at]->wants)
				limit = 0;
		}
		polled[0] = (struct pollfd){ listening, count < MOST ? POLLIN : 0, 0 };
		poll(polled, count + 1, limit);
		for (int at = 0; at < known; at++) {
			if (!all[at]->wants || polled[at + 1].revents)
				ready[taken++] = all[at];
			if (taken == THREADS || at == known - 1) {
				turns(ready, taken);
				taken = 0;
			}
		}
		for (int at = known; at-- > 0;) {
			if (all[at]->over) {
				end(all[at]);
				all[at] = all[--count];
			}
		}
		if (polled[0].revents) {
			all[count] = begin(context, accept(listening, NULL, NULL), 0);
			SSL_set_accept_state(all[count++]->session);
		}
	}
}

int main(int count, char **words)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	int listening = socket(AF_INET, SOCK_STREAM, 0), one = 1;
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	pthread_t thread;

	if (count != 4 || SSL_CTX_use_certificate_chain_file(context, words[2]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(context, words[3], SSL_FILETYPE_PEM) != 1)
		return 64;
#ifdef SSL_OP_ALLOW_CLIENT_RENEGOTIATION
	SSL_CTX_set_options(context, SSL_OP_ALLOW_CLIENT_RENEGOTIATION);
#endif
	signal(SIGPIPE, SIG_IGN);
	fill("HTTP/1.1 500 Evil\r\nContent-Length: 0\r\n\r\n");
	address.sin_port = htons(atoi(words[1]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listening, (struct sockaddr *)&address, sizeof(address)) || listen(listening, 100))
		return 69;
	for (long number = 0; number < THREADS; number++)
		pthread_create(&thread, NULL, work, (void *)number);
	serve(context, listening);
}
