/*
 * Connections in turns: one thread makes a call for each of them, in a row. In: prefix, connections, requests on each, bytes
 * of a body, TLS version (1.2 or 1.3), ports. Asks them for PREFIX/<own port>/<number>, once standard input has ended.
 */
#include "turns.h"

static void ask(struct connection *c, const char *prefix, long body)
{
	struct sockaddr_in own;
	socklen_t length = sizeof(own);

	if (getsockname(c->socket, (struct sockaddr *)&own, &length))
		fail("getsockname");
	c->out_length = snprintf(c->out, sizeof(c->out),
				 "PUT %s/%d/%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Length: %ld\r\n\r\n", prefix,
				 ntohs(own.sin_port), c->complete, c->port, body);
	c->out_done = 0;
	c->out_body = body;
	if (c->complete % 3 == 1)
		rekey(c);
}

static struct connection *connected(SSL_CTX *context, int port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int to = socket(AF_INET, SOCK_STREAM, 0);
	struct connection *c;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (connect(to, (struct sockaddr *)&address, sizeof(address)))
		fail("connect");
	c = begin(context, to, port);
	SSL_set_connect_state(c->session);
	return c;
}

int main(int count, char **words)
{
	SSL_CTX *context = SSL_CTX_new(TLS_client_method());
	struct connection *all[MOST];
	struct pollfd polled[MOST];
	int connections, requests, left, version;
	char byte;

	if (count < 7 || (connections = atoi(words[2])) > MOST)
		return 64;
	version = strcmp(words[5], "1.2") ? TLS1_3_VERSION : TLS1_2_VERSION;
	SSL_CTX_set_min_proto_version(context, version);
	SSL_CTX_set_max_proto_version(context, version);
	requests = atoi(words[3]);
	fill("GET /evil HTTP/1.1\r\nHost: evil.test\r\n\r\n");
	while (read(0, &byte, 1) > 0) {
	}
	for (int at = 0; at < connections; at++)
		all[at] = connected(context, atoi(words[6 + at % (count - 6)]));
	for (left = connections; left;) {
		int limit = -1;
		for (int at = 0; at < left; at++) {
			polled[at] = (struct pollfd){ all[at]->socket, all[at]->wants, 0 };
			if (!all[at]->wants)
				limit = 0;
		}
		poll(polled, left, limit);
		for (int at = left; at-- > 0;) {
			struct connection *c = all[at];
			bool answered = false, shaken = c->shaken;
			if (!c->wants || polled[at].revents)
				answered = step(c);
			if (c->over || (answered && strncmp(c->head, "HTTP/1.1 200 ", 13)))
				fail("no answer");
			if (answered && c->complete == requests) {
				/* Of each of the two sides. */
				if (version == TLS1_2_VERSION && SSL_num_renegotiations(c->session) < requests / 3 * 2)
					fail("the handshake was not repeated");
				end(c);
				all[at] = all[--left];
			} else if (answered || c->shaken != shaken) {
				ask(c, words[1], atol(words[4]));
			}
		}
	}
	return 0;
}
