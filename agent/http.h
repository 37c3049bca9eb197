/* One POST: an easy handle, and all memory that curl borrows while it runs.
 *
 * Only https, TLS 1.2 or newer, verified; plain http only where the
 * configuration let it pass (loopback). Redirects are never followed, no proxy
 * is taken from the environment unasked. What the server sends is capped.
 */
#ifndef AGENT_HTTP_H
#define AGENT_HTTP_H

#include <curl/curl.h>

#include "agent/config.h"
#include "agent/policy.h"
#include "agent/ship.h"

/* Of an answer's body, this much is kept; a longer answer is cut off. */
#define HTTP_BODY_MAX 65536
#define HTTP_HEADERS_MAX 262144

struct http;

/* Who opens and closes the connections' sockets (CURLOPT_OPENSOCKETFUNCTION). */
struct http_sockets {
	curl_opensocket_callback open;
	curl_closesocket_callback close;
	void *context;
};

/* A handle for many POSTs, one after another, to the configured endpoint, that
 * http_owner() tells apart from others. `config` and `sockets` (NULL: libcurl's own)
 * are borrowed only during the call. NULL: no memory, or a file that the configuration names cannot be
 * used; `*error` is then a sentence (static). */
struct http *http_new(const struct config *config, const struct http_sockets *sockets,
                      void *owner, const char **error);
void *http_owner(const struct http *http);

/* Frees; the easy handle must not be in a multi handle. NULL is allowed. */
void http_free(struct http *http);

/* Readies the handle for this post and returns the easy handle, to be added to a
 * multi handle. `post` is borrowed until the transfer has ended. `now`: monotonic
 * ms. CURLINFO_PRIVATE of the handle is this struct. */
CURL *http_start(struct http *http, const struct ship_post *post, int64_t now);

/* The handle's easy handle. */
CURL *http_easy(const struct http *http);

/* The socket that libcurl uses for this transfer. */
void http_on_socket(struct http *http, curl_socket_t socket);

/* How many bytes were ever handed to the kernel to be sent on this connection; -1: not known. */
int64_t http_handed_over(curl_socket_t socket);

/* The ticket of the post under way. */
void *http_ticket(const struct http *http);

/* True when the transfer has made no progress for the configured timeout: no byte
 * left this host, or everything did and no complete answer came. An upload that
 * moves, however slowly, is never stuck. `shared`: a socket to look at where
 * libcurl named none for this transfer (several share one in HTTP/2). */
bool http_is_stuck(struct http *http, curl_socket_t shared, int64_t now);

/* What the transfer came to: `code` as curl gave it, `stuck` when it was ended
 * because of http_is_stuck(). `*answer` borrows from `http` until its next
 * start. */
void http_result(struct http *http, CURLcode code, bool stuck, struct answer *answer);

#endif
