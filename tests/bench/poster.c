/* The baseline: what libuv and libcurl cost by themselves, POSTing one static body of
 * 2 KB from memory, N times over C connections.
 *
 *   --usual  as libcurl's example multi-uv.c has it: the socket is polled, stopped and
 *            polled again; URL and header list are made for each request
 *   --lean   the least that libcurl allows: one epoll registration a connection, a URL
 *            parsed once, handles and header lists made once, no turn of the loop to start
 *
 * It must stay free of all that shipping needs (a queue, a verdict, a retry): it is the
 * limit against which the agent is measured, with the agent's headers (agent/http.c).
 */
#include <curl/curl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>
#include <uv.h>

#define CONNECTIONS_MAX 256
#define SOCKETS_MAX 1024 /* descriptors */

struct poster;

struct transfer {
	CURL *easy;
	struct curl_slist *made;      /* usual: of this request */
	struct curl_slist headers[3]; /* lean: for ever */
	char key[64];
};

struct watched {
	uv_poll_t poll;
	struct poster *poster;
	curl_socket_t socket;
	int events; /* lean: those that are polled for */
};

struct poster {
	uv_loop_t loop;
	uv_timer_t timer;
	CURLM *multi;
	CURLU *parsed;
	const char *url;
	bool lean, due;
	long wanted, started, ended, failed;
	size_t size;
	char *body;
	struct transfer transfers[CONNECTIONS_MAX];
	struct watched *sockets[SOCKETS_MAX]; /* lean: libcurl forgets what was assigned to one */
};

static void fail(const char *what)
{
	fprintf(stderr, "poster: %s\n", what);
	exit(EX_SOFTWARE);
}

static size_t pass_over(char *data, size_t one, size_t size, void *context)
{
	(void)data;
	(void)context;
	return one * size;
}

/* As easy as a uuid, and distinct. */
static void write_key(struct transfer *transfer, long number)
{
	static const char digits[] = "0123456789abcdef";
	char *end = transfer->key + sizeof "Idempotency-Key: \"" - 1 + 32;
	for (int i = 0; i < 16; i++, number >>= 4)
		*--end = digits[number & 15];
}

static void set(CURLcode code)
{
	if (code != CURLE_OK)
		fail(curl_easy_strerror(code));
}

static void start(struct poster *poster, struct transfer *transfer)
{
	write_key(transfer, poster->started++);
	if (!poster->lean) {
		curl_slist_free_all(transfer->made);
		transfer->made = curl_slist_append(NULL, "Content-Type: application/json");
		transfer->made = curl_slist_append(transfer->made, transfer->key);
		transfer->made = curl_slist_append(transfer->made, "Expect:");
		set(curl_easy_setopt(transfer->easy, CURLOPT_URL, poster->url));
		set(curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, transfer->made));
		set(curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)poster->size));
		set(curl_easy_setopt(transfer->easy, CURLOPT_POSTFIELDS, poster->body));
	}
	if (curl_multi_add_handle(poster->multi, transfer->easy) != CURLM_OK)
		fail("a transfer could not be started");
}

static void drain_messages(struct poster *poster)
{
	CURLMsg *message;
	int left;
	while ((message = curl_multi_info_read(poster->multi, &left)) != NULL) {
		CURL *easy = message->easy_handle;
		CURLcode code = message->data.result;
		long status = 0;
		char *private = NULL;
		(void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		(void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
		(void)curl_multi_remove_handle(poster->multi, easy);
		poster->ended++;
		poster->failed += code != CURLE_OK || status != 200;
		if (poster->started < poster->wanted)
			start(poster, (struct transfer *)(void *)private);
	}
	if (poster->ended == poster->wanted)
		uv_stop(&poster->loop);
}

static void act_on(struct poster *poster, curl_socket_t socket, int events)
{
	int running;
	(void)curl_multi_socket_action(poster->multi, socket, events, &running);
	drain_messages(poster);
	/* What was started begins now, not in the loop's next turn. */
	while (poster->due) {
		poster->due = false;
		(void)curl_multi_socket_action(poster->multi, CURL_SOCKET_TIMEOUT, 0, &running);
		drain_messages(poster);
	}
}

static void on_timer(uv_timer_t *timer)
{
	act_on(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

static int set_timer(CURLM *multi, long wait, void *context)
{
	struct poster *poster = context;
	(void)multi;
	poster->due = poster->lean && wait == 0;
	if (poster->due)
		return 0;
	if (wait < 0)
		(void)uv_timer_stop(&poster->timer);
	else
		(void)uv_timer_start(&poster->timer, on_timer, (uint64_t)wait, 0);
	return 0;
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
	struct watched *watched = poll->data;
	int flags = status < 0 ? CURL_CSELECT_ERR : 0;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	act_on(watched->poster, watched->socket, flags);
}

static void on_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static struct watched *watch_new(struct poster *poster, curl_socket_t socket)
{
	struct watched *watched = calloc(1, sizeof *watched);
	if (watched == NULL || uv_poll_init_socket(&poster->loop, &watched->poll, socket) != 0)
		fail("a socket cannot be watched");
	watched->poster = poster;
	watched->socket = socket;
	watched->poll.data = watched;
	return watched;
}

static int events_of(int what)
{
	switch (what) {
	case CURL_POLL_IN:
		return UV_READABLE;
	case CURL_POLL_OUT:
		return UV_WRITABLE;
	default:
		return UV_READABLE | UV_WRITABLE;
	}
}

static int watch_as_usual(CURL *easy, curl_socket_t socket, int what, void *context,
                          void *attached)
{
	struct poster *poster = context;
	struct watched *watched = attached;
	(void)easy;
	if (what != CURL_POLL_REMOVE) {
		if (watched == NULL)
			watched = watch_new(poster, socket);
		(void)curl_multi_assign(poster->multi, socket, watched);
		(void)uv_poll_start(&watched->poll, events_of(what), on_socket);
	} else if (watched != NULL) {
		(void)uv_poll_stop(&watched->poll);
		uv_close((uv_handle_t *)&watched->poll, on_closed);
		(void)curl_multi_assign(poster->multi, socket, NULL);
	}
	return 0;
}

/* Between two requests libcurl takes its socket out and puts it in again: it stays in. */
static int watch_lazily(CURL *easy, curl_socket_t socket, int what, void *context,
                        void *attached)
{
	struct poster *poster = context;
	(void)easy;
	(void)attached;
	if (what == CURL_POLL_REMOVE)
		return 0;
	if (socket >= SOCKETS_MAX)
		fail("too many descriptors");
	struct watched *watched = poster->sockets[socket];
	if (watched == NULL)
		watched = poster->sockets[socket] = watch_new(poster, socket);
	if (events_of(what) != watched->events) {
		watched->events = events_of(what);
		(void)uv_poll_start(&watched->poll, watched->events, on_socket);
	}
	return 0;
}

static curl_socket_t open_socket(void *context, curlsocktype purpose,
                                 struct curl_sockaddr *address)
{
	(void)context;
	(void)purpose;
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

static int close_socket(void *context, curl_socket_t socket)
{
	struct poster *poster = context;
	struct watched *watched = socket < SOCKETS_MAX ? poster->sockets[socket] : NULL;
	if (watched != NULL) {
		(void)uv_poll_stop(&watched->poll);
		uv_close((uv_handle_t *)&watched->poll, on_closed);
		poster->sockets[socket] = NULL;
	}
	return close(socket);
}

static void make_lean(struct poster *poster, struct transfer *transfer)
{
	static char type[] = "Content-Type: application/json", expect[] = "Expect:";
	CURL *easy = transfer->easy;
	transfer->headers[0] = (struct curl_slist){ type, &transfer->headers[1] };
	transfer->headers[1] = (struct curl_slist){ transfer->key, &transfer->headers[2] };
	transfer->headers[2] = (struct curl_slist){ expect, NULL };
	set(curl_easy_setopt(easy, CURLOPT_CURLU, poster->parsed));
	set(curl_easy_setopt(easy, CURLOPT_HTTPHEADER, &transfer->headers[0]));
	set(curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)poster->size));
	set(curl_easy_setopt(easy, CURLOPT_POSTFIELDS, poster->body));
	set(curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket));
	set(curl_easy_setopt(easy, CURLOPT_CLOSESOCKETFUNCTION, close_socket));
	set(curl_easy_setopt(easy, CURLOPT_CLOSESOCKETDATA, poster));
}

static void make(struct poster *poster, struct transfer *transfer)
{
	CURL *easy = transfer->easy = curl_easy_init();
	if (easy == NULL)
		fail("no memory");
	(void)snprintf(transfer->key, sizeof transfer->key, "Idempotency-Key: \"%032d\"", 0);
	set(curl_easy_setopt(easy, CURLOPT_PRIVATE, transfer));
	set(curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L));
	set(curl_easy_setopt(easy, CURLOPT_PROXY, ""));
	set(curl_easy_setopt(easy, CURLOPT_USERAGENT, "reconify-agent/" RECONIFY_VERSION));
	set(curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, pass_over));
	if (poster->lean)
		make_lean(poster, transfer);
}

static void open_all(struct poster *poster, long connections)
{
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK || uv_loop_init(&poster->loop) != 0 ||
	    uv_timer_init(&poster->loop, &poster->timer) != 0)
		fail("no loop");
	poster->timer.data = poster;
	poster->multi = curl_multi_init();
	poster->parsed = curl_url();
	if (poster->multi == NULL || poster->parsed == NULL ||
	    curl_url_set(poster->parsed, CURLUPART_URL, poster->url, 0) != CURLUE_OK)
		fail("the URL cannot be used");
	(void)curl_multi_setopt(poster->multi, CURLMOPT_SOCKETFUNCTION,
	                        poster->lean ? watch_lazily : watch_as_usual);
	(void)curl_multi_setopt(poster->multi, CURLMOPT_SOCKETDATA, poster);
	(void)curl_multi_setopt(poster->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	(void)curl_multi_setopt(poster->multi, CURLMOPT_TIMERDATA, poster);
	(void)curl_multi_setopt(poster->multi, CURLMOPT_MAXCONNECTS, connections);
}

static void close_all(struct poster *poster, long connections)
{
	for (long i = 0; i < connections; i++) {
		curl_easy_cleanup(poster->transfers[i].easy);
		curl_slist_free_all(poster->transfers[i].made);
	}
	(void)curl_multi_cleanup(poster->multi);
	curl_url_cleanup(poster->parsed);
	uv_close((uv_handle_t *)&poster->timer, NULL);
	(void)uv_run(&poster->loop, UV_RUN_DEFAULT);
	if (uv_loop_close(&poster->loop) != 0)
		fail("the loop did not close");
	curl_global_cleanup();
	free(poster->body);
}

static double cpu_seconds(void)
{
	struct rusage usage;
	if (getrusage(RUSAGE_SELF, &usage) != 0)
		return 0;
	return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
	       (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "usual", no_argument, NULL, 'u' },       { "lean", no_argument, NULL, 'l' },
		{ "posts", required_argument, NULL, 'n' }, { "connections", required_argument, NULL, 'c' },
		{ "size", required_argument, NULL, 's' },  { NULL, 0, NULL, 0 }
	};
	static struct poster poster;
	long connections = 32;
	poster.wanted = 100000;
	poster.size = 2048;
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (option == 'u' || option == 'l')
			poster.lean = option == 'l';
		else if (option == 'n')
			poster.wanted = strtol(optarg, NULL, 10);
		else if (option == 'c')
			connections = strtol(optarg, NULL, 10);
		else if (option == 's')
			poster.size = strtoul(optarg, NULL, 10);
		else
			optind = argc + 1;
	}
	if (optind != argc - 1 || connections < 1 || connections > CONNECTIONS_MAX ||
	    poster.wanted < connections || poster.size < 8) {
		fprintf(stderr, "usage: poster --usual|--lean [--posts N] [--connections C] "
		                "[--size BYTES] URL\n");
		return EX_USAGE;
	}
	poster.url = argv[optind];
	poster.body = malloc(poster.size);
	if (poster.body == NULL)
		fail("no memory");
	memset(poster.body, 'x', poster.size);
	memcpy(poster.body, "{\"x\":\"", 6);
	memcpy(poster.body + poster.size - 2, "\"}", 2);

	open_all(&poster, connections);
	double cpu = cpu_seconds();
	uint64_t begun = uv_hrtime();
	for (long i = 0; i < connections; i++) {
		make(&poster, &poster.transfers[i]);
		start(&poster, &poster.transfers[i]);
	}
	act_on(&poster, CURL_SOCKET_TIMEOUT, 0);
	(void)uv_run(&poster.loop, UV_RUN_DEFAULT);
	double seconds = (double)(uv_hrtime() - begun) / 1e9;
	printf("{\"posts\":%ld,\"failed\":%ld,\"seconds\":%.6f,\"rate\":%.0f,\"cpu\":%.6f}\n",
	       poster.ended, poster.failed, seconds, (double)poster.ended / seconds,
	       cpu_seconds() - cpu);
	close_all(&poster, connections);
	return poster.failed == 0 ? EX_OK : EX_UNAVAILABLE;
}
