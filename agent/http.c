/* One POST with libcurl; see http.h. */
#include "agent/http.h"

#include <linux/sockios.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define HEADER_VALUE_SIZE 128
/* Bytes on the line that nobody counts for us, as they usually are. */
#define CONNECT_COST 250
#define HANDSHAKE_COST 5500
#define REQUEST_COST 400

/* libcurl hands over this much at once, CURLOPT_UPLOAD_BUFFERSIZE(3), and under a limit of
 * speed waits then until that much may have gone: the older ones for all of it. */
#define UPLOAD_CHUNK 65536

struct http {
	CURL *easy;
	CURLU *url;
	struct curl_slist headers[3], pinned;
	char key_header[96], pin[64];
	char retry_after[HEADER_VALUE_SIZE], date[HEADER_VALUE_SIZE];
	char error[CURL_ERROR_SIZE];
	char detail[CURL_ERROR_SIZE + 64];
	int64_t timeout; /* without any progress, ms */
	void *owner, *ticket;
	size_t upload_size, header_bytes;
	int64_t progress, progress_at; /* bytes that curl took, and when anything last moved */
	int64_t arrived, arrives_at;   /* on its connection: acknowledged; and when its own are */
	curl_socket_t socket;
	int64_t handshake; /* bytes that opening a connection is likely to cost */
	bool cut;
	bool headed; /* the final answer's header block came to its end */
	bool interim; /* and is not the final answer's yet */
	bool framed; /* by HTTP/2, or in chunks */
	bool closes; /* its connection is not used again */
	size_t body_size, body_room;
	char *body; /* grows as the answer does, up to HTTP_BODY_MAX */
};

/* Most answers are a few bytes, and what one long one took is not kept for all others. */
#define BODY_ROOM 1024

static bool make_room(struct http *http, size_t size)
{
	if (size <= http->body_room)
		return true;
	size_t room = http->body_room > 0 ? http->body_room : BODY_ROOM;
	while (room < size)
		room *= 2;
	char *grown = realloc(http->body, room);
	if (grown == NULL)
		return false;
	http->body = grown;
	http->body_room = room;
	return true;
}

static size_t keep_body(char *data, size_t one, size_t size, void *context)
{
	struct http *http = context;
	(void)one;
	if (size == 0)
		return 0;
	if (size > HTTP_BODY_MAX - http->body_size) {
		http->cut = true;
		return 0; /* ends the transfer: an answer is never this long */
	}
	if (!make_room(http, http->body_size + size))
		return 0; /* likewise; the record is sent again */
	memcpy(http->body + http->body_size, data, size);
	http->body_size += size;
	return size;
}

static void keep_value(char *into, const char *line, size_t size, const char *name)
{
	size_t length = strlen(name);
	if (size <= length || strncasecmp(line, name, length) != 0)
		return;
	line += length;
	size -= length;
	while (size > 0 && (*line == ' ' || *line == '\t')) {
		line++;
		size--;
	}
	while (size > 0 && (line[size - 1] == '\r' || line[size - 1] == '\n' ||
	                    line[size - 1] == ' '))
		size--;
	if (size >= HEADER_VALUE_SIZE)
		return; /* longer than any date: not one we understand */
	memcpy(into, line, size);
	into[size] = '\0';
}

static size_t keep_headers(char *line, size_t one, size_t size, void *context)
{
	struct http *http = context;
	char value[HEADER_VALUE_SIZE];
	const char *status;
	value[0] = '\0';
	(void)one;
	http->header_bytes += size;
	if (http->header_bytes > HTTP_HEADERS_MAX)
		return 0;
	if (http->headed && !http->interim)
		return size; /* behind the last chunk: none of these counts */
	switch (line[0]) {
	case 'H':
		if (size <= 5 || strncmp(line, "HTTP/", 5) != 0)
			break;
		/* A further status line: what stood in an interim answer does not count. */
		http->retry_after[0] = http->date[0] = '\0';
		http->headed = false;
		http->framed = line[5] > '1';
		status = memchr(line, ' ', size);
		http->interim = status != NULL && status + 1 < line + size && status[1] == '1';
		break;
	case '\r':
	case '\n':
		http->headed = true;
		break;
	case 'T':
	case 't':
		keep_value(value, line, size, "Transfer-Encoding:");
		http->framed = http->framed || strcasestr(value, "chunked") != NULL;
		break;
	case 'R':
	case 'r':
		keep_value(http->retry_after, line, size, "Retry-After:");
		break;
	case 'D':
	case 'd':
		keep_value(http->date, line, size, "Date:");
		break;
	default:
		break;
	}
	return size;
}

static bool is_https(const struct config *config)
{
	return strncasecmp(config->url, "https:", 6) == 0;
}

static bool set_security(CURL *easy, const struct config *config)
{
	bool ok = true;
#if LIBCURL_VERSION_NUM >= 0x075500
	ok = curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK;
#else
	ok = curl_easy_setopt(easy, CURLOPT_PROTOCOLS, CURLPROTO_HTTP | CURLPROTO_HTTPS) == CURLE_OK;
#endif
	ok = curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) ==
	             CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK && ok;
	if (config->ca_file != NULL)
		ok = curl_easy_setopt(easy, CURLOPT_CAINFO, config->ca_file) == CURLE_OK && ok;
	if (config->client_cert != NULL)
		ok = curl_easy_setopt(easy, CURLOPT_SSLCERT, config->client_cert) == CURLE_OK && ok;
	if (config->client_key != NULL)
		ok = curl_easy_setopt(easy, CURLOPT_SSLKEY, config->client_key) == CURLE_OK && ok;
	/* Plain http is for this machine alone, so it never goes through a proxy. */
	const char *proxy = config->proxy != NULL && is_https(config) ? config->proxy : "";
	if (strcmp(proxy, "environment") != 0)
		ok = curl_easy_setopt(easy, CURLOPT_PROXY, proxy) == CURLE_OK && ok;
	return ok;
}

static bool set_transfer(struct http *http, const struct config *config)
{
	CURL *easy = http->easy;
	bool ok = curl_easy_setopt(easy, CURLOPT_CURLU, http->url) == CURLE_OK;
	ok = curl_easy_setopt(easy, CURLOPT_PRIVATE, http) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, http->error) == CURLE_OK && ok;
	/* A libcurl that was built without HTTP/2 says so here, and speaks HTTP/1.1. */
	CURLcode version = curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_2TLS);
	ok = (version == CURLE_OK || version == CURLE_UNSUPPORTED_PROTOCOL) && ok;
	/* One HTTP/2 connection for all; a plain http one is not waited for, since whether
	 * it can be shared shows only with its first answer. */
	ok = curl_easy_setopt(easy, CURLOPT_PIPEWAIT, is_https(config) ? 1L : 0L) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)config->timeout) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_USERAGENT, "reconify-agent/" RECONIFY_VERSION) ==
	             CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_BUFFERSIZE, 4096L) == CURLE_OK && ok; /* answers are short */
	ok = curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, keep_body) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_WRITEDATA, http) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, keep_headers) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_HEADERDATA, http) == CURLE_OK && ok;
	ok = curl_easy_setopt(easy, CURLOPT_HTTPHEADER, &http->headers[0]) == CURLE_OK && ok;
	/* The limits count a record as a whole; a large one must not take all of the line. */
	ok = curl_easy_setopt(easy, CURLOPT_MAX_SEND_SPEED_LARGE,
	                      (curl_off_t)config->limits.bandwidth) == CURLE_OK && ok;
#if LIBCURL_VERSION_NUM >= 0x075700
	/* A resolver that hangs must not hold up the end of the program. */
	ok = curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK && ok;
#endif
	return ok;
}

static bool set_sockets(CURL *easy, const struct http_sockets *sockets)
{
	return curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, sockets->open) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, sockets->context) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, sockets->close) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, sockets->context) == CURLE_OK;
}

/* Plain http is for this machine alone, whatever a resolver says of "localhost"; newer
 * versions of libcurl see to it themselves. */
static bool pin_localhost(struct http *http)
{
	char *host = NULL, *port = NULL;
	bool ok = curl_url_get(http->url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
	          curl_url_get(http->url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK;
	if (ok && strcasecmp(host, "localhost") == 0) {
		(void)snprintf(http->pin, sizeof http->pin, "localhost:%s:127.0.0.1,[::1]", port);
		http->pinned = (struct curl_slist){ http->pin, NULL };
		ok = curl_easy_setopt(http->easy, CURLOPT_RESOLVE, &http->pinned) == CURLE_OK;
	}
	curl_free(host);
	curl_free(port);
	return ok;
}

struct http *http_new(const struct config *config, const struct http_sockets *sockets,
                      void *owner, const char **error)
{
	static char content_type[] = "Content-Type: application/json";
	static char no_expect[] = "Expect:"; /* would cost a second's wait for nothing */
	struct http *http = calloc(1, sizeof *http);
	*error = "no memory for a connection";
	if (http == NULL)
		return NULL;
	http->owner = owner;
	http->timeout = config->timeout;
	if (config->limits.bandwidth > 0)
		http->timeout += UPLOAD_CHUNK * 1000 / config->limits.bandwidth;
	http->handshake = is_https(config) ? HANDSHAKE_COST : CONNECT_COST;
	http->headers[0] = (struct curl_slist){ content_type, &http->headers[1] };
	http->headers[1] = (struct curl_slist){ http->key_header, &http->headers[2] };
	http->headers[2] = (struct curl_slist){ no_expect, NULL };
	http->easy = curl_easy_init();
	http->url = curl_url();
	if (http->easy == NULL || http->url == NULL) {
		http_free(http);
		return NULL;
	}
	*error = "the endpoint's url cannot be used by libcurl";
	if (curl_url_set(http->url, CURLUPART_URL, config->url, 0) != CURLUE_OK) {
		http_free(http);
		return NULL;
	}
	*error = "libcurl refused an option; it may be built without TLS, or a file that [endpoint] "
	         "names cannot be used";
	if (!set_security(http->easy, config) || !set_transfer(http, config) ||
	    (sockets != NULL && !set_sockets(http->easy, sockets)) || (!is_https(config) && !pin_localhost(http))) {
		http_free(http);
		return NULL;
	}
	*error = NULL;
	return http;
}

void http_free(struct http *http)
{
	if (http == NULL)
		return;
	curl_easy_cleanup(http->easy);
	curl_url_cleanup(http->url);
	free(http->body);
	free(http);
}

CURL *http_start(struct http *http, const struct ship_post *post, int64_t now)
{
	(void)snprintf(http->key_header, sizeof http->key_header, "Idempotency-Key: \"%s\"",
	               post->uuid);
	if (http->body_room > BODY_ROOM) {
		free(http->body);
		http->body = NULL;
		http->body_room = 0;
	}
	if (http->closes)
		http->closes = curl_easy_setopt(http->easy, CURLOPT_FORBID_REUSE, 0L) != CURLE_OK;
	http->ticket = post->ticket;
	http->upload_size = post->size;
	http->header_bytes = http->body_size = 0;
	http->cut = http->headed = http->interim = http->framed = false;
	http->retry_after[0] = http->date[0] = http->error[0] = '\0';
	http->progress = INT64_MIN;
	http->socket = CURL_SOCKET_BAD;
	http->progress_at = now;
	if (curl_easy_setopt(http->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)post->size) !=
	            CURLE_OK ||
	    curl_easy_setopt(http->easy, CURLOPT_POSTFIELDS, post->payload) != CURLE_OK)
		return NULL;
	return http->easy;
}

CURL *http_easy(const struct http *http)
{
	return http->easy;
}

void http_on_socket(struct http *http, curl_socket_t socket)
{
	http->socket = socket;
}

void *http_owner(const struct http *http)
{
	return http->owner;
}

void *http_ticket(const struct http *http)
{
	return http->ticket;
}

/* How many bytes the other side has acknowledged, and how many it has not yet. */
static bool read_queue(curl_socket_t socket, int64_t *acknowledged, int64_t *queued)
{
	struct tcp_info info;
	socklen_t size = sizeof info;
	int unsent = 0;
	memset(&info, 0, sizeof info);
	if (socket == CURL_SOCKET_BAD || ioctl(socket, SIOCOUTQ, &unsent) != 0 ||
	    getsockopt(socket, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
		return false;
	*acknowledged = (int64_t)info.tcpi_bytes_acked;
	*queued = unsent;
	return true;
}

int64_t http_handed_over(curl_socket_t socket)
{
	int64_t acknowledged, queued;
	return read_queue(socket, &acknowledged, &queued) ? acknowledged + queued : -1;
}

bool http_is_stuck(struct http *http, curl_socket_t shared, int64_t now)
{
	curl_off_t uploaded = 0;
	int64_t acknowledged = 0, queued = 0;
	/* Not CURLINFO_ACTIVESOCKET: that names the last connection, not the present. */
	if (!read_queue(http->socket != CURL_SOCKET_BAD ? http->socket : shared, &acknowledged, &queued))
		acknowledged = queued = 0;
	(void)curl_easy_getinfo(http->easy, CURLINFO_SIZE_UPLOAD_T, &uploaded);
	/* What curl has handed to the kernel may wait there for minutes on a slow link,
	 * with HTTP/2 also behind others' data: until all that was in the queue then has
	 * arrived, whatever arrives is progress. */
	if ((int64_t)uploaded != http->progress) {
		http->progress = (int64_t)uploaded;
		http->progress_at = now;
		http->arrives_at = acknowledged + queued;
		http->arrived = acknowledged;
	} else if (acknowledged > http->arrived && http->arrived < http->arrives_at) {
		http->progress_at = now;
		http->arrived = acknowledged;
	}
	return now - http->progress_at >= http->timeout;
}

static enum answer_kind kind_of(const struct http *http, CURLcode code)
{
	curl_off_t connected = 0;
	switch (code) {
	case CURLE_OK:
		return ANSWER_HTTP;
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_CONNECT:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_INTERFACE_FAILED:
		return ANSWER_NO_CONNECTION;
	case CURLE_OPERATION_TIMEDOUT:
		(void)curl_easy_getinfo(http->easy, CURLINFO_PRETRANSFER_TIME_T, &connected);
		return connected > 0 ? ANSWER_TIMEOUT : ANSWER_NO_CONNECTION;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return ANSWER_CERTIFICATE;
	case CURLE_OUT_OF_MEMORY:
	case CURLE_FAILED_INIT:
	case CURLE_BAD_FUNCTION_ARGUMENT:
		return ANSWER_LOCAL;
	default:
		return ANSWER_BROKEN;
	}
}

/* As well as it can be known; see budget_cost(). */
static int64_t traffic_of(const struct http *http)
{
	curl_off_t uploaded = 0, ready = 0;
	long connects = 0;
	(void)curl_easy_getinfo(http->easy, CURLINFO_SIZE_UPLOAD_T, &uploaded);
	(void)curl_easy_getinfo(http->easy, CURLINFO_PRETRANSFER_TIME_T, &ready);
	(void)curl_easy_getinfo(http->easy, CURLINFO_NUM_CONNECTS, &connects);
	int64_t bytes = (int64_t)uploaded + (int64_t)http->header_bytes + (int64_t)http->body_size;
	if (ready > 0)
		bytes += REQUEST_COST;
	bytes += connects > 0 ? connects * http->handshake : 0;
	return bytes + bytes / 25 + (ready > 0 ? REQUEST_COST / 4 : CONNECT_COST);
}

void http_result(struct http *http, CURLcode code, bool stuck, struct answer *answer)
{
	long status = 0;
	curl_off_t length = -1;
	*answer = (struct answer){ .kind = kind_of(http, code), .traffic = traffic_of(http) };
	(void)curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &status);
	if (stuck) {
		/* With HTTP/2 it would be kept, and every retry go to a connection that is dead. While
		 * others share it, it stays. */
		http->closes = curl_easy_setopt(http->easy, CURLOPT_FORBID_REUSE, 1L) == CURLE_OK;
		answer->kind = ANSWER_TIMEOUT;
		answer->detail = "no progress, or no complete answer, within the timeout";
		return;
	}
	long connect = 0;
	(void)curl_easy_getinfo(http->easy, CURLINFO_HTTP_CONNECTCODE, &connect);
	if (code != CURLE_OK && status == 0 && connect == 407) {
		answer->kind = ANSWER_HTTP; /* the proxy's, before there was any connection */
		answer->status = (int)connect;
		answer->body = "";
		return;
	}
	if (http->cut && status > 0)
		answer->kind = ANSWER_HTTP; /* it was ended here, the answer being too long */
	if (answer->kind == ANSWER_HTTP && !http->headed) {
		/* libcurl takes an answer that breaks off within its headers for a complete
		 * one without a body, which would count as delivered. */
		answer->kind = ANSWER_BROKEN;
		answer->detail = "the answer broke off within its headers";
		return;
	}
	if (answer->kind == ANSWER_HTTP) {
		answer->status = (int)status;
		answer->body = http->body_size > 0 ? http->body : "";
		answer->body_size = http->body_size;
		answer->body_cut = http->cut;
		/* RFC 9112, 6.3; the length is what libcurl goes by, which is not all that is sent. */
		(void)curl_easy_getinfo(http->easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
		answer->open_ended = !http->framed && length < 0 && status != 204;
		answer->retry_after = http->retry_after[0] != '\0' ? http->retry_after : NULL;
		answer->date = http->date[0] != '\0' ? http->date : NULL;
		return;
	}
	(void)snprintf(http->detail, sizeof http->detail, "%s",
	               http->error[0] != '\0' ? http->error : curl_easy_strerror(code));
	answer->detail = http->detail;
}
