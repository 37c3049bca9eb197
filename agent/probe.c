/* A look at the endpoint; see probe.h. */
#include "agent/probe.h"

#include <curl/curl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <time.h>

#include "agent/http.h"
#include "agent/payload.h"
#include "agent/secret.h"

/* A server that refuses this host's certificate, or the lack of one, says so only
 * after the handshake (TLS 1.3): so long it is listened for. */
#define LISTEN_MS 300

static void copy_text(char *into, size_t size, const char *text)
{
	(void)snprintf(into, size, "%s", text != NULL ? text : "");
}

static int64_t milliseconds(CURL *easy, CURLINFO what)
{
	curl_off_t microseconds = 0;
	if (curl_easy_getinfo(easy, what, &microseconds) != CURLE_OK || microseconds <= 0)
		return 0;
	return ((int64_t)microseconds + 999) / 1000;
}

/* --- The certificate ---------------------------------------------------- */

static int64_t read_date(const char *text)
{
	time_t time = curl_getdate(text, NULL);
	return time == (time_t)-1 ? -1 : (int64_t)time;
}

/* The value of a line "NAME:VALUE", or NULL. */
static const char *value_of(const char *line, const char *name)
{
	size_t size = strlen(name);
	return strncmp(line, name, size) == 0 && line[size] == ':' ? line + size + 1 : NULL;
}

static void read_certificate(CURL *easy, struct probe_certificate *certificate)
{
	struct curl_certinfo *chain = NULL;
	if (curl_easy_getinfo(easy, CURLINFO_CERTINFO, &chain) != CURLE_OK || chain == NULL ||
	    chain->num_of_certs < 1)
		return;
	certificate->starts = certificate->ends = -1;
	for (const struct curl_slist *line = chain->certinfo[0]; line != NULL; line = line->next) {
		const char *value;
		if ((value = value_of(line->data, "Subject")) != NULL)
			copy_text(certificate->subject, sizeof certificate->subject, value);
		else if ((value = value_of(line->data, "Issuer")) != NULL)
			copy_text(certificate->issuer, sizeof certificate->issuer, value);
		else if ((value = value_of(line->data, "Start date")) != NULL)
			certificate->starts = read_date(value);
		else if ((value = value_of(line->data, "Expire date")) != NULL)
			certificate->ends = read_date(value);
	}
	certificate->known = true;
}

/* --- Connecting --------------------------------------------------------- */

/* Called at the start of a handshake: newer versions of libcurl tell nothing else of a
 * connection before all of it stands. */
static CURLcode note_handshake(CURL *easy, void *tls_context, void *begun)
{
	(void)easy;
	(void)tls_context;
	*(bool *)begun = true;
	return CURLE_OK;
}

static enum probe_step step_of(CURL *easy, CURLcode code, const struct probe *probe, bool begun)
{
	long proxy_code = 0;
	(void)curl_easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, &proxy_code);
	if (code != CURLE_OK && proxy_code >= 300)
		return PROBE_PROXY;
	switch (code) {
	case CURLE_OK:
		return PROBE_DONE;
	case CURLE_COULDNT_RESOLVE_PROXY:
		return PROBE_PROXY_NAME;
	case CURLE_COULDNT_RESOLVE_HOST:
		return PROBE_NAME;
	case CURLE_COULDNT_CONNECT:
	case CURLE_INTERFACE_FAILED:
		return PROBE_TCP;
	case CURLE_PROXY:
		return PROBE_PROXY;
	case CURLE_OPERATION_TIMEDOUT:
		return probe->name_ms == 0                    ? PROBE_NAME
		       : begun || probe->address[0] != '\0' ? PROBE_TLS
		                                             : PROBE_TCP;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_INVALIDCERTSTATUS:
		return PROBE_CERTIFICATE;
	case CURLE_OUT_OF_MEMORY:
	case CURLE_FAILED_INIT:
	case CURLE_BAD_FUNCTION_ARGUMENT:
		return PROBE_SETUP;
	default:
		return PROBE_TLS;
	}
}

static bool set_options(CURL *easy, const struct config *config)
{
	/* HTTP/1.1: with HTTP/2, libcurl would open with a preface. */
	return curl_easy_setopt(easy, CURLOPT_CONNECT_ONLY, 1L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_CERTINFO, 1L) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
	       curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)config->timeout) == CURLE_OK;
}

/* Whether the server ends the connection with an alert, of its own accord. */
static CURLcode listen_for_refusal(CURL *easy)
{
	curl_socket_t socket = CURL_SOCKET_BAD;
	char byte;
	size_t got = 0;
	if (curl_easy_getinfo(easy, CURLINFO_ACTIVESOCKET, &socket) != CURLE_OK ||
	    socket == CURL_SOCKET_BAD)
		return CURLE_OK;
	struct pollfd ready = { .fd = socket, .events = POLLIN };
	/* Twice: first come the session's tickets, which are no news. */
	for (int i = 0; i < 2 && poll(&ready, 1, LISTEN_MS) > 0; i++) {
		CURLcode code = curl_easy_recv(easy, &byte, 1, &got);
		if (code != CURLE_AGAIN)
			return code == CURLE_OK ? CURLE_OK : code;
	}
	return CURLE_OK;
}

/* What a certificate that was refused says of itself: only looked at, nothing is sent,
 * and no certificate of ours is shown. */
static void look_at_refused(const struct config *config, struct probe_certificate *certificate)
{
	struct config bare = *config;
	const char *why;
	bare.client_cert = bare.client_key = NULL;
	struct http *http = http_new(&bare, NULL, NULL, &why);
	if (http == NULL)
		return;
	CURL *easy = http_easy(http);
	if (set_options(easy, config) &&
	    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 0L) == CURLE_OK &&
	    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 0L) == CURLE_OK &&
	    curl_easy_perform(easy) == CURLE_OK)
		read_certificate(easy, certificate);
	http_free(http);
}

static void read_place(const struct config *config, struct probe *probe)
{
	CURLU *url = curl_url();
	char *host = NULL, *port = NULL;
	if (url != NULL && curl_url_set(url, CURLUPART_URL, config->url, 0) == CURLUE_OK &&
	    curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
	    curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK) {
		copy_text(probe->host, sizeof probe->host, host);
		copy_text(probe->port, sizeof probe->port, port);
	}
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(url);
}

static void connect_with(const struct config *config, struct http *http, struct probe *probe)
{
	CURL *easy = http_easy(http);
	char error[CURL_ERROR_SIZE] = "";
	char *text = NULL;
	long proxy_code = 0;
	bool begun = false;
	if (!set_options(easy, config) ||
	    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, error) != CURLE_OK) {
		copy_text(probe->detail, sizeof probe->detail, "libcurl refused an option");
		return;
	}
	/* Not every TLS library that libcurl is built with has this. */
	(void)curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, &begun);
	(void)curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, note_handshake);
	CURLcode code = curl_easy_perform(easy);
	(void)curl_easy_setopt(easy, CURLOPT_SSL_CTX_DATA, NULL);
	(void)curl_easy_setopt(easy, CURLOPT_SSL_CTX_FUNCTION, NULL);
	if (curl_easy_getinfo(easy, CURLINFO_PRIMARY_IP, &text) == CURLE_OK)
		copy_text(probe->address, sizeof probe->address, text);
	probe->name_ms = milliseconds(easy, CURLINFO_NAMELOOKUP_TIME_T);
	probe->connect_ms = milliseconds(easy, CURLINFO_CONNECT_TIME_T);
	probe->tls_ms = milliseconds(easy, CURLINFO_APPCONNECT_TIME_T);
	(void)curl_easy_getinfo(easy, CURLINFO_HTTP_CONNECTCODE, &proxy_code);
	probe->proxied = proxy_code != 0;
	probe->failed = step_of(easy, code, probe, begun);
	/* Of a proxy that the environment names, libcurl does not tell whether it was used. */
	if (probe->failed == PROBE_TCP && probe->tls && config->proxy != NULL &&
	    config->proxy[0] != '\0' && strcmp(config->proxy, "environment") != 0)
		probe->failed = PROBE_PROXY_TCP;
	if (code == CURLE_OK && probe->tls) {
		read_certificate(easy, &probe->certificate);
		code = listen_for_refusal(easy);
		if (code != CURLE_OK)
			probe->failed = PROBE_TLS;
	}
	if (code != CURLE_OK)
		copy_text(probe->detail, sizeof probe->detail,
		          error[0] != '\0' ? error : curl_easy_strerror(code));
	(void)curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, NULL);
	if (probe->failed == PROBE_CERTIFICATE)
		look_at_refused(config, &probe->certificate);
}

void probe_connect(const struct config *config, struct probe *probe)
{
	const char *why = "libcurl cannot be used";
	*probe = (struct probe){ .failed = PROBE_SETUP,
		                 .tls = strncasecmp(config->url, "https:", 6) == 0 };
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		copy_text(probe->detail, sizeof probe->detail, why);
		return;
	}
	read_place(config, probe);
	struct http *http = http_new(config, NULL, NULL, &why);
	if (http != NULL)
		connect_with(config, http, probe);
	else
		copy_text(probe->detail, sizeof probe->detail, why);
	http_free(http);
	curl_global_cleanup();
}

/* --- One marked record -------------------------------------------------- */

static bool make_uuid(char uuid[33])
{
	unsigned char bytes[16];
	if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
		return false;
	for (size_t i = 0; i < sizeof bytes; i++)
		(void)snprintf(uuid + 2 * i, 3, "%02x", bytes[i]);
	return true;
}

static struct text text_of(const char *string)
{
	return (struct text){ string, strlen(string) };
}

/* Whoever reads it in the account must see what it is, and where it came from. */
static struct record test_record(const char *uuid, int64_t now)
{
	static const char request[] = "{\"prompt\":\"This is a test record of 'reconify-agent check "
	                              "--send'. Nobody said this.\"}";
	static const char response[] = "{\"completion\":\"This is a test record of 'reconify-agent "
	                               "check --send'. No model said this.\"}";
	return (struct record){
		.model_id = text_of("reconify-agent.check-test-record"),
		.request_body = text_of(request), .response_body = text_of(response),
		.request_at = { NUMBER_SET, now }, .response_at = { NUMBER_SET, now },
		.session = text_of("reconify-agent check"), .app = text_of("default"),
		.format = text_of("bedrock"), .type = text_of("chat"), .uuid = text_of(uuid),
		.spooled_at = { NUMBER_SET, now },
	};
}

static bool post_payload(const struct config *config, const struct ship_post *post, int64_t now,
                         struct probe_sent *sent, const char **why)
{
	struct answer answer;
	struct http *http = http_new(config, NULL, NULL, why);
	CURL *easy = http != NULL ? http_start(http, post, 0) : NULL;
	bool ready = easy != NULL &&
	             curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)config->timeout) == CURLE_OK;
	if (ready) {
		http_result(http, curl_easy_perform(easy), false, &answer);
		sent->status = answer.kind == ANSWER_HTTP ? answer.status : 0;
		sent->judgement = policy_judge(&answer, now);
		copy_text(sent->detail, sizeof sent->detail, answer.detail);
	}
	http_free(http);
	return ready;
}

bool probe_send(const struct config *config, const struct config_app *app,
                struct probe_sent *sent, const char **why)
{
	struct timespec time;
	*why = "no random numbers, or no clock";
	if (!make_uuid(sent->uuid) || clock_gettime(CLOCK_REALTIME, &time) != 0)
		return false;
	int64_t now = (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
	struct record record = test_record(sent->uuid, now);
	struct payload_frame frame = { text_of(app->app_key), text_of(app->api_key),
		                       config_find_format(config, "bedrock", 7) };
	const struct payload_fault *fault = payload_judge(&record);
	*why = fault != NULL ? fault->sentence : "no memory";
	size_t size = fault == NULL ? payload_write(&record, &frame, NULL, 0) : 0;
	char *payload = fault == NULL ? malloc(size) : NULL;
	if (payload == NULL || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
		free(payload);
		return false;
	}
	(void)payload_write(&record, &frame, payload, size);
	struct ship_post post = { NULL, payload, size, sent->uuid };
	bool tried = post_payload(config, &post, now, sent, why);
	secret_free(payload, size);
	curl_global_cleanup();
	return tried;
}
