/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asks for paths on one connection, with OpenSSL inside: static_client PORT PATH… Stripped, nothing of the library is
 * left but its code.
 */
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	struct sockaddr_in server = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int socket_fd = socket(AF_INET, SOCK_STREAM, 0), i, len;
	char buffer[4096];
	SSL *ssl;

	server.sin_port = htons(argc > 1 ? atoi(argv[1]) : 0);
	ssl = SSL_new(SSL_CTX_new(TLS_client_method()));
	if (!ssl || connect(socket_fd, (struct sockaddr *)&server, sizeof(server)) || !SSL_set_fd(ssl, socket_fd))
		return 1;
	SSL_set_connect_state(ssl);
	if (SSL_do_handshake(ssl) != 1)
		return 1;
	for (i = 2; i < argc; i++) {
		len = snprintf(buffer, sizeof(buffer), "GET %s HTTP/1.1\r\nhost: localhost\r\nconnection: %s\r\n\r\n", argv[i],
			       i + 1 < argc ? "keep-alive" : "close");
		if (SSL_write(ssl, buffer, len) != len)
			return 1;
	}
	while ((len = SSL_read(ssl, buffer, sizeof(buffer))) > 0)
		fwrite(buffer, 1, len, stdout);
	SSL_free(ssl);
	return 0;
}
