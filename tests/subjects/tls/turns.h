/*
 * A TLS connection that moves on by single calls of OpenSSL, each made when its turn comes. A head is read byte by byte, a
 * body in records of 16 KB; heads of requests are written in pieces. Bodies look like heads. In every third exchange each side has the
 * keys changed: with TLS 1.2 by another handshake, with 1.3 by an update.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST 128
#define RECORD 16384

enum rekeys { NO, ASKS, LOOKS };

struct connection {
	SSL *session;
	int socket, port;
	bool shaken, over;
	enum rekeys rekeys;
	short wants; /* what has to come before its next call; 0: nothing */
	/* What is read: a head so far, then what is left of the body. */
	char head[1024];
	size_t held;
	long body;
	/* What is written: a head, then what is left of the body. */
	char out[256];
	size_t out_length, out_done;
	long out_body;
	int complete; /* messages read */
};

static char lookalikes[20000];

static inline void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, ERR_error_string(ERR_get_error(), NULL));
	exit(1);
}

static inline struct connection *begin(SSL_CTX *context, int socket, int port)
{
	struct connection *c = calloc(1, sizeof(*c));
	int small = 4096;

	if (socket < 0 || !c)
		fail("connection");
	/* Many writes find no room. */
	setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	fcntl(socket, F_SETFL, O_NONBLOCK);
	c->session = SSL_new(context);
	SSL_set_fd(c->session, socket);
	SSL_set_mode(c->session, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	c->socket = socket;
	c->port = port;
	return c;
}

static inline void end(struct connection *c)
{
	SSL_shutdown(c->session);
	SSL_free(c->session);
	close(c->socket);
	free(c);
}

static inline void fill(const char *with)
{
	for (size_t at = 0; at < sizeof(lookalikes); at++)
		lookalikes[at] = with[at % strlen(with)];
}

/* Whether a call has done something; else the connection waits, or is over. */
static inline bool did(struct connection *c, int result)
{
	if (result > 0)
		return true;
	switch (SSL_get_error(c->session, result)) {
	case SSL_ERROR_WANT_READ:
		c->wants = POLLIN;
		break;
	case SSL_ERROR_WANT_WRITE:
		c->wants = POLLOUT;
		break;
	default:
		c->over = true;
	}
	return false;
}

static inline void rekey(struct connection *c)
{
	bool again = SSL_version(c->session) == TLS1_2_VERSION;

	if (!(again ? SSL_renegotiate(c->session) : SSL_key_update(c->session, SSL_KEY_UPDATE_REQUESTED)))
		fail("changing the keys");
	/* A client's next write does it all. */
	if (again && SSL_is_server(c->session))
		c->rekeys = ASKS;
}

/* As servers do it that want a certificate for some paths: they ask for another handshake, then look until it is done. */
static inline void handshake_again(struct connection *c)
{
	char byte;

	if (c->rekeys == ASKS) {
		if (did(c, SSL_do_handshake(c->session)))
			c->rekeys = LOOKS;
		return;
	}
	did(c, SSL_peek(c->session, &byte, 1));
	if (!SSL_renegotiate_pending(c->session)) {
		c->rekeys = NO;
		c->wants = 0;
	}
}

/* Whether there is something to write; if so, a call has been made. */
static inline bool written(struct connection *c)
{
	size_t rest = c->out_length - c->out_done;
	int result;

	if (rest) {
		result = SSL_write(c->session, c->out + c->out_done, rest / 2 + 1);
		if (did(c, result))
			c->out_done += result;
		return true;
	}
	if (c->out_body) {
		long most = sizeof(lookalikes);
		result = SSL_write(c->session, lookalikes, c->out_body < most ? c->out_body : most);
		if (did(c, result))
			c->out_body -= result;
		return true;
	}
	return false;
}

/* A call that reads. Whether a message is complete. */
static inline bool read_on(struct connection *c)
{
	char body[RECORD], *length;
	int result;

	if (c->body) {
		result = SSL_read(c->session, body, c->body < RECORD ? c->body : RECORD);
		if (!did(c, result))
			return false;
		c->body -= result;
		return !c->body;
	}
	if (c->held == sizeof(c->head) - 1)
		fail("a long head");
	result = SSL_read(c->session, c->head + c->held, 1);
	if (!did(c, result))
		return false;
	c->head[++c->held] = 0;
	if (c->held < 4 || strcmp(c->head + c->held - 4, "\r\n\r\n"))
		return false;
	length = strstr(c->head, "Content-Length: ");
	c->body = length ? atol(length + 16) : 0;
	c->held = 0;
	return !c->body;
}

/* One call. Whether it has completed a message that is read. */
static inline bool step(struct connection *c)
{
	ERR_clear_error();
	c->wants = 0;
	if (!c->shaken)
		c->shaken = did(c, SSL_do_handshake(c->session));
	else if (c->rekeys)
		handshake_again(c);
	else if (!written(c) && read_on(c))
		return ++c->complete;
	return false;
}
