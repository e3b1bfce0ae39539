/* One connection after the other, by OpenSSL. In: port, certificate, key. Answers "ok" to everything. */
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

static void serve(SSL *session)
{
	char request[4096];
	size_t held = 0;

	while (held < sizeof(request)) {
		int count = SSL_read(session, request + held, 1);
		if (count <= 0)
			return;
		held += count;
		if (held < 4 || memcmp(request + held - 4, "\r\n\r\n", 4))
			continue;
		held = 0;
		if (SSL_write(session, answer, sizeof(answer) - 1) <= 0)
			return;
	}
}

int main(int count, char **words)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	int listening = socket(AF_INET, SOCK_STREAM, 0), one = 1, accepted;
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());

	if (count != 4 || SSL_CTX_use_certificate_chain_file(context, words[2]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(context, words[3], SSL_FILETYPE_PEM) != 1)
		return 64;
	signal(SIGPIPE, SIG_IGN);
	address.sin_port = htons(atoi(words[1]));
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (bind(listening, (struct sockaddr *)&address, sizeof(address)) || listen(listening, 100))
		return 69;
	while ((accepted = accept(listening, NULL, NULL)) >= 0) {
		SSL *session = SSL_new(context);
		SSL_set_fd(session, accepted);
		if (SSL_accept(session) == 1)
			serve(session);
		SSL_shutdown(session);
		SSL_free(session);
		close(accepted);
	}
	return 1;
}
