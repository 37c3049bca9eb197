/* A neutral endpoint to measure against: HTTP/1.1 with keep-alive, one thread, epoll.
 *
 * Exists because reconify-sink judges every body, which costs more than what is to be
 * measured. This one reads the head and the length of a request, passes over the body
 * and answers {"status":"ok"}. It must never be the judge of anything but counts and
 * times: no check of the payload belongs here.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS 1024 /* descriptors */
#define ROOM 65536       /* bytes of a connection's buffer; a head must fit */
#define LOOKED_AT 1024   /* bytes of a body in which --fail looks for its text */
#define LATE 4096        /* answers that wait for their time; a power of two */
#define BODY_OK "{\"status\":\"ok\"}"
#define BODY_FAIL "{\"status\":\"error\"}"

static const char answer_ok[] = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                                "Content-Length: 15\r\n\r\n" BODY_OK;
static const char answer_fail[] = "HTTP/1.1 503 Service Unavailable\r\n"
                                  "Content-Type: application/json\r\n"
                                  "Content-Length: 18\r\n\r\n" BODY_FAIL;

struct connection {
	bool open, in_body, fails;
	unsigned life; /* tells a late answer's connection from one that has its descriptor */
	size_t size;
	uint64_t body_left;
	char *buffer;
};

struct late {
	int64_t due;
	int socket;
	unsigned life;
	bool fails;
};

struct endpoint {
	int epoll, timer, arrivals;
	int64_t latency; /* ns */
	const char *fail;
	struct connection connections[CONNECTIONS];
	struct late late[LATE];
	size_t late_first, late_count;
	uint64_t posts, failed, accepted, distinct;
	uint64_t timed; /* so many posts are timed, 0: all */
	int64_t first, last;
	uint64_t *keys; /* a set of hashes: 0 is an empty place; NULL: keys are not counted */
	size_t key_room;
};

static int64_t now(void)
{
	struct timespec time;
	(void)clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static void give_up(const char *what)
{
	fprintf(stderr, "endpoint: %s: %s\n", what, strerror(errno));
	exit(EX_OSERR);
}

static bool add_key(uint64_t *keys, size_t room, uint64_t hash)
{
	size_t at = hash & (room - 1);
	while (keys[at] != 0 && keys[at] != hash)
		at = (at + 1) & (room - 1);
	bool added = keys[at] == 0;
	keys[at] = hash;
	return added;
}

static void count_key(struct endpoint *endpoint, const char *key, size_t size)
{
	uint64_t hash = 14695981039346656037ULL; /* FNV-1a */
	for (size_t i = 0; i < size; i++)
		hash = (hash ^ (unsigned char)key[i]) * 1099511628211ULL;
	hash = hash != 0 ? hash : 1;
	if (endpoint->distinct * 2 >= endpoint->key_room) {
		size_t room = endpoint->key_room * 2;
		uint64_t *grown = calloc(room, sizeof *grown);
		if (grown == NULL)
			give_up("keys");
		for (size_t i = 0; i < endpoint->key_room; i++)
			if (endpoint->keys[i] != 0)
				(void)add_key(grown, room, endpoint->keys[i]);
		free(endpoint->keys);
		endpoint->keys = grown;
		endpoint->key_room = room;
	}
	if (add_key(endpoint->keys, endpoint->key_room, hash))
		endpoint->distinct++;
}

static void hang_up(struct endpoint *endpoint, int socket)
{
	endpoint->connections[socket].open = false;
	endpoint->connections[socket].life++;
	(void)close(socket);
}

/* A peer that does not even take these bytes is not one to be measured. */
static void answer(struct endpoint *endpoint, int socket, bool fails)
{
	const char *text = fails ? answer_fail : answer_ok;
	size_t size = fails ? sizeof answer_fail - 1 : sizeof answer_ok - 1;
	if (send(socket, text, size, MSG_NOSIGNAL) != (ssize_t)size)
		hang_up(endpoint, socket);
}

static void wake_for_late(const struct endpoint *endpoint)
{
	int64_t due = endpoint->late_count > 0 ? endpoint->late[endpoint->late_first].due : 0;
	struct itimerspec at = { .it_value = { due / 1000000000, due % 1000000000 } };
	if (timerfd_settime(endpoint->timer, TFD_TIMER_ABSTIME, &at, NULL) != 0)
		give_up("timer");
}

static void answer_late(struct endpoint *endpoint)
{
	uint64_t times;
	(void)!read(endpoint->timer, &times, sizeof times);
	int64_t time = now();
	while (endpoint->late_count > 0 && endpoint->late[endpoint->late_first].due <= time) {
		struct late late = endpoint->late[endpoint->late_first];
		endpoint->late_first = (endpoint->late_first + 1) & (LATE - 1);
		endpoint->late_count--;
		if (endpoint->connections[late.socket].open &&
		    endpoint->connections[late.socket].life == late.life)
			answer(endpoint, late.socket, late.fails);
	}
	wake_for_late(endpoint);
}

static void request_ended(struct endpoint *endpoint, int socket)
{
	struct connection *connection = &endpoint->connections[socket];
	int64_t time = now();
	connection->in_body = false;
	endpoint->failed += connection->fails;
	endpoint->posts += !connection->fails;
	endpoint->first = endpoint->first != 0 ? endpoint->first : time;
	if (endpoint->timed == 0 || endpoint->posts <= endpoint->timed)
		endpoint->last = time;
	if (endpoint->latency == 0) {
		answer(endpoint, socket, connection->fails);
		return;
	}
	if (endpoint->late_count == LATE)
		give_up("too many requests at once");
	size_t place = (endpoint->late_first + endpoint->late_count++) & (LATE - 1);
	endpoint->late[place] = (struct late){ time + endpoint->latency, socket, connection->life,
	                                       connection->fails };
	if (endpoint->late_count == 1)
		wake_for_late(endpoint);
}

static void read_head(struct endpoint *endpoint, struct connection *connection,
                      const char *head, const char *end)
{
	for (const char *line = head; line < end; line = strchr(line, '\n') + 1) {
		if (strncasecmp(line, "Content-Length:", 15) == 0)
			connection->body_left = strtoull(line + 15, NULL, 10);
		if (strncasecmp(line, "Idempotency-Key:", 16) == 0) {
			int size = (int)strcspn(line + 16, "\r\n");
			if (endpoint->keys != NULL)
				count_key(endpoint, line + 16, (size_t)size);
			if (endpoint->arrivals >= 0)
				(void)dprintf(endpoint->arrivals, "%" PRId64 "%.*s\n", now(), size, line + 16);
		}
	}
}

/* Takes what is whole out of the buffer; returns how many bytes that was. */
static size_t take_requests(struct endpoint *endpoint, int socket)
{
	struct connection *connection = &endpoint->connections[socket];
	size_t at = 0;
	while (connection->open) {
		size_t left = connection->size - at;
		if (connection->in_body) {
			size_t part = connection->body_left < left ? (size_t)connection->body_left : left;
			connection->body_left -= part;
			at += part;
			if (connection->body_left > 0)
				break;
			request_ended(endpoint, socket);
			continue;
		}
		char *head = connection->buffer + at;
		char *end = memmem(head, left, "\r\n\r\n", 4);
		if (end == NULL)
			break;
		end += 4;
		connection->body_left = 0;
		const char past = *end; /* there is room for one byte behind what was read */
		*end = '\0';
		read_head(endpoint, connection, head, end);
		*end = past;
		size_t there = left - (size_t)(end - head);
		if (endpoint->fail != NULL) {
			size_t wanted = connection->body_left < LOOKED_AT ? (size_t)connection->body_left
			                                                  : LOOKED_AT;
			if (there < wanted)
				break; /* the head is read again when more has come */
			connection->fails = memmem(end, wanted, endpoint->fail, strlen(endpoint->fail)) != NULL;
		}
		connection->in_body = true;
		at += (size_t)(end - head);
	}
	return at;
}

static void receive(struct endpoint *endpoint, int socket)
{
	struct connection *connection = &endpoint->connections[socket];
	ssize_t size = recv(socket, connection->buffer + connection->size, ROOM - connection->size, 0);
	if (size < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (size <= 0) {
		hang_up(endpoint, socket);
		return;
	}
	connection->size += (size_t)size;
	size_t taken = take_requests(endpoint, socket);
	connection->size -= taken;
	memmove(connection->buffer, connection->buffer + taken, connection->size);
	if (connection->open && connection->size == ROOM)
		hang_up(endpoint, socket); /* a head of this size is nobody's */
}

static void watch(const struct endpoint *endpoint, int file)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = file };
	if (file < 0 || epoll_ctl(endpoint->epoll, EPOLL_CTL_ADD, file, &event) != 0)
		give_up("a descriptor cannot be watched");
}

static void accept_one(struct endpoint *endpoint, int server)
{
	const int on = 1;
	int socket = accept4(server, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	if (socket < 0)
		return;
	if (socket >= CONNECTIONS) {
		(void)close(socket);
		return;
	}
	struct connection *connection = &endpoint->connections[socket];
	if (connection->buffer == NULL && (connection->buffer = malloc(ROOM + 1)) == NULL)
		give_up("connection");
	(void)setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	connection->open = true;
	connection->in_body = connection->fails = false;
	connection->size = 0;
	endpoint->accepted++;
	watch(endpoint, socket);
}

static int open_server(uint16_t port)
{
	const int on = 1;
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port),
	                               .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t size = sizeof address;
	int server = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (server < 0 || setsockopt(server, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) != 0 ||
	    bind(server, (struct sockaddr *)&address, size) != 0 || listen(server, 512) != 0 ||
	    getsockname(server, (struct sockaddr *)&address, &size) != 0)
		give_up("cannot listen on 127.0.0.1");
	printf("listening on http://127.0.0.1:%u\n", ntohs(address.sin_port));
	(void)fflush(stdout);
	return server;
}

/* Turns until SIGTERM or SIGINT. */
static void serve(struct endpoint *endpoint, int server, int signals)
{
	struct epoll_event events[128];
	for (;;) {
		int count = epoll_wait(endpoint->epoll, events, 128, -1);
		for (int i = 0; i < count; i++) {
			int file = events[i].data.fd;
			if (file == signals)
				return;
			if (file == server)
				accept_one(endpoint, server);
			else if (file == endpoint->timer)
				answer_late(endpoint);
			else
				receive(endpoint, file);
		}
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "port", required_argument, NULL, 'p' },    { "latency", required_argument, NULL, 'l' },
		{ "fail", required_argument, NULL, 'f' },    { "keys", no_argument, NULL, 'k' },
		{ "arrivals", required_argument, NULL, 'a' }, { "timed", required_argument, NULL, 't' },
		{ NULL, 0, NULL, 0 }
	};
	static struct endpoint endpoint = { .arrivals = -1 };
	uint16_t port = 0;
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		if (option == 'p')
			port = (uint16_t)strtoul(optarg, NULL, 10);
		else if (option == 'l')
			endpoint.latency = strtoll(optarg, NULL, 10) * 1000000;
		else if (option == 'f')
			endpoint.fail = optarg;
		else if (option == 'k')
			endpoint.keys = calloc(endpoint.key_room = 1 << 16, sizeof *endpoint.keys);
		else if (option == 't')
			endpoint.timed = strtoull(optarg, NULL, 10);
		else if (option == 'a')
			endpoint.arrivals = open(optarg, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
		else {
			fprintf(stderr, "usage: endpoint [--port N] [--latency MS] [--fail TEXT] [--keys] "
			                "[--arrivals FILE] [--timed POSTS]\n");
			return EX_USAGE;
		}
	}
	/* Never in front of those that are measured: else each of their sends on loopback
	 * switches to here and back, and what they do in batches is not seen. */
	const struct sched_param none = { 0 };
	(void)sched_setscheduler(0, SCHED_BATCH, &none);
	sigset_t wanted;
	(void)sigemptyset(&wanted);
	(void)sigaddset(&wanted, SIGTERM);
	(void)sigaddset(&wanted, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &wanted, NULL);
	endpoint.epoll = epoll_create1(EPOLL_CLOEXEC);
	endpoint.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	int signals = signalfd(-1, &wanted, SFD_CLOEXEC);
	int server = open_server(port);
	watch(&endpoint, signals);
	watch(&endpoint, endpoint.timer);
	watch(&endpoint, server);
	serve(&endpoint, server, signals);
	printf("{\"posts\":%" PRIu64 ",\"failed\":%" PRIu64 ",\"connections\":%" PRIu64
	       ",\"keys\":%" PRIu64 ",\"first_ns\":%" PRId64 ",\"last_ns\":%" PRId64 "}\n",
	       endpoint.posts, endpoint.failed, endpoint.accepted, endpoint.distinct, endpoint.first,
	       endpoint.last);
	return EX_OK;
}
