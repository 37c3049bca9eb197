/* reconify-sink: a local stand-in for the endpoint, for the demo, the tests and
 * people who have no account yet.
 *
 * It is stricter than the real endpoint: what departs from the documented
 * payload is refused with a sentence that says where. It must never alter what
 * it records, answer before it recorded, or print the texts of people: only
 * names, numbers and uuids leave it. One thread serves all connections; the
 * main thread waits for signals and wakes the answers that are to come late.
 */
#include <cjson/cJSON.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <microhttpd.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "agent/sink_judge.h"

/* A record of 64 MB whose every byte must be escaped is six times as long. */
#define BODY_MAX ((size_t)512 << 20)
#define HUGE_SIZE ((size_t)8 << 20)
#define TRUNCATED_SIZE 1000
#define UUID_SIZE 32
#define JSON_TYPE "application/json"
#define ERROR_BODY "{\"status\":\"error\",\"message\":\"scripted\"}"
#define COUNT(array) (sizeof(array) / sizeof *(array))

enum manner { MANNER_ANSWER, MANNER_HANG, MANNER_RESET_BEFORE, MANNER_RESET_AFTER };

/* One step of the script: how to treat a request that keeps to the contract. */
struct step {
	enum manner manner;
	unsigned status;
	bool accepts;                  /* the body counts as taken, and is recorded */
	int64_t delay;                 /* ms before the answer */
	int64_t date_in;               /* Retry-After as a date so many seconds ahead; -1: none */
	uint64_t times;
	struct MHD_Response *response; /* shared by all requests of this step */
};

struct sink {
	struct step *steps;
	size_t step_count, step_now;
	uint64_t step_used;
	bool quiet;
	int folder; /* of --record; -1: none */
	FILE *log;
	uint64_t sequence;
	uintptr_t connections;
	pthread_t main_thread;
	pthread_mutex_t lock;      /* guards what follows */
	struct request *suspended; /* late answers; their connections are suspended */
	bool closing;
};

struct request {
	struct MHD_Connection *connection;
	const struct step *step;
	char uuid[UUID_SIZE + 1]; /* "-": none that is well-formed */
	char *body;               /* followed by a NUL */
	size_t size, capacity;
	bool too_large, logged;
	unsigned status;               /* of the answer; 0: none will be given */
	struct MHD_Response *response; /* owned, for an answer of this request alone */
	int64_t due;
	struct request *next; /* in sink.suspended */
};

static const struct option long_options[] = {
	{"listen", required_argument, NULL, 'l'}, {"record", required_argument, NULL, 'r'},
	{"script", required_argument, NULL, 's'}, {"cert", required_argument, NULL, 'c'},
	{"key", required_argument, NULL, 'k'},    {"quiet", no_argument, NULL, 'q'},
	{"help", no_argument, NULL, 'h'},         {"version", no_argument, NULL, 'V'},
	{NULL, 0, NULL, 0},
};

static const char help[] =
	"reconify-sink --listen ADDR:PORT [--record DIR] [--script STEP,STEP...]\n"
	"              [--cert FILE --key FILE] [--quiet]\n"
	"\n"
	"A local stand-in for the endpoint. It takes what keeps to the documented payload\n"
	"and refuses anything else with 400 and a sentence that says what is wrong.\n"
	"\n"
	"  --listen ADDR:PORT  where to listen, e.g. 127.0.0.1:8080 or [::1]:8080; port 0:\n"
	"                      any free one. The address is printed once it is open.\n"
	"  --record DIR        write each accepted body as DIR/NNNNNN-UUID.json before it is\n"
	"                      answered, and a line for every request to DIR/log.tsv: number,\n"
	"                      time of arrival (ms since 1970), uuid, status answered (0: no\n"
	"                      answer), number of the connection, bytes of the body\n"
	"  --script STEPS      how to answer, one step a request; the last one repeats\n"
	"  --cert, --key FILE  serve https with this certificate and key (PEM)\n"
	"  --quiet             no line for each request\n"
	"  --help, --version\n"
	"\n"
	"Steps (the body is recorded for those marked with +):\n"
	"  ok                + 200 with {\"status\":\"ok\"}; what is done without a script\n"
	"  empty             + 200 without a body\n"
	"  array             + 200 with []\n"
	"  huge              + 200 with a JSON body of 8 MB\n"
	"  slow=TIME         + ok, after TIME: 5s, 300ms, 2m\n"
	"  reset-after       + no answer: the connection is reset once the body is recorded\n"
	"  NUMBER            + that status: 2xx as ok (204, 205: no body); any other with a\n"
	"                      JSON error, and then nothing is recorded\n"
	"  NUMBER;retry-after=SECONDS   with the header Retry-After in seconds, or, written\n"
	"  NUMBER;retry-after=@SECONDS  with an @, as a date that far ahead\n"
	"  status=error        200 with {\"status\":\"error\"}\n"
	"  html                200 with the page of a captive portal\n"
	"  truncated           200, less body than announced, then the connection closes\n"
	"  redirect=URL        301 to URL (without a comma)\n"
	"  hang                no answer, ever\n"
	"  reset-before        the connection is reset before the body is read\n"
	"  STEP*N              the step N times, e.g. 503*3,ok\n"
	"\n"
	"A request that departs from the payload uses up its step and is answered with 400.\n";

static int64_t now_ms(clockid_t clock)
{
	struct timespec now;
	if (clock_gettime(clock, &now) != 0)
		return 0;
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static const char *header(struct MHD_Connection *connection, const char *name)
{
	const char *value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, name);
	return value != NULL ? value : "";
}

static bool judge_headers(struct sink_fault *fault, const struct request *request,
                          const char *method)
{
	struct MHD_Connection *connection = request->connection;
	static const char agent[] = "reconify-agent/";

	if (strcmp(method, "POST") != 0)
		return sink_blame(fault, "the method is not POST");
	if (strcmp(header(connection, "Content-Type"), JSON_TYPE) != 0)
		return sink_blame(fault, "Content-Type is not " JSON_TYPE);
	const char *name = header(connection, "User-Agent");
	if (strncmp(name, agent, strlen(agent)) != 0 || name[strlen(agent)] == '\0')
		return sink_blame(fault, "User-Agent is not reconify-agent/VERSION");
	if (strcmp(request->uuid, "-") == 0)
		return sink_blame(fault, "Idempotency-Key is not 32 lower-case hex digits in quotes");
	if (*header(connection, "Content-Length") == '\0' &&
	    strcasecmp(header(connection, "Transfer-Encoding"), "chunked") != 0)
		return sink_blame(fault, "there is neither Content-Length nor a chunked body");
	if (*header(connection, "Content-Encoding") != '\0')
		return sink_blame(fault, "Content-Encoding is not understood");
	return true;
}

/* ---- Recording ---- */

static bool write_all(int file, const char *bytes, size_t size)
{
	while (size > 0) {
		ssize_t written = write(file, bytes, size);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return false;
		bytes += written;
		size -= (size_t)written;
	}
	return true;
}

/* A name that ends in .json is always a whole body: readers may come at any time. */
static bool record_body(const struct sink *sink, const struct request *request)
{
	static const char unfinished[] = ".unfinished";
	char name[64];

	if (sink->folder < 0)
		return true;
	snprintf(name, sizeof name, "%06" PRIu64 "-%s.json", sink->sequence + 1, request->uuid);
	int file = openat(sink->folder, unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	bool good = file >= 0 && write_all(file, request->body, request->size);
	good = (file < 0 || close(file) == 0) && good &&
		renameat(sink->folder, unfinished, sink->folder, name) == 0;
	if (!good)
		warnx("%s was not recorded: %s. The client is told to try again; make room or "
		      "check the folder of --record", name, strerror(errno));
	return good;
}

/* Every request is logged exactly once, before its answer. */
static void log_request(struct sink *sink, struct request *request)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	uintptr_t connection = info != NULL ? (uintptr_t)info->socket_context : 0;

	request->logged = true;
	sink->sequence++;
	if (sink->log != NULL) {
		fprintf(sink->log, "%" PRIu64 "\t%" PRId64 "\t%s\t%u\t%" PRIuPTR "\t%zu\n",
		        sink->sequence, now_ms(CLOCK_REALTIME), request->uuid, request->status,
		        connection, request->size);
		if (fflush(sink->log) != 0)
			warnx("log.tsv lacks request %" PRIu64 ": %s", sink->sequence,
			      strerror(errno));
	}
	if (!sink->quiet)
		printf("%" PRIu64 " %s %u %zu bytes\n", sink->sequence, request->uuid,
		       request->status, request->size);
}

/* Opens the folder and goes on counting where an earlier run left off. */
static bool open_record(struct sink *sink, const char *folder)
{
	if (mkdir(folder, 0700) != 0 && errno != EEXIST)
		return false;
	sink->folder = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int log = sink->folder < 0 ? -1
		: openat(sink->folder, "log.tsv", O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	sink->log = log < 0 ? NULL : fdopen(log, "a+");
	DIR *names = opendir(folder);
	if (sink->log == NULL || names == NULL) {
		if (names != NULL)
			closedir(names);
		return false;
	}
	char *line = NULL;
	size_t room = 0;
	rewind(sink->log);
	while (getline(&line, &room, sink->log) > 0) {
		uint64_t number = strtoull(line, NULL, 10);
		sink->sequence = number > sink->sequence ? number : sink->sequence;
	}
	free(line);
	for (struct dirent *entry = readdir(names); entry != NULL; entry = readdir(names)) {
		uint64_t number = strtoull(entry->d_name, NULL, 10);
		sink->sequence = number > sink->sequence ? number : sink->sequence;
	}
	closedir(names);
	return fseek(sink->log, 0, SEEK_END) == 0;
}

/* ---- Answers ---- */

static struct MHD_Response *new_response(const char *body, const char *type)
{
	struct MHD_Response *response = MHD_create_response_from_buffer(
		strlen(body), (void *)(uintptr_t)body, MHD_RESPMEM_MUST_COPY);
	if (response != NULL && *body != '\0')
		MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type);
	return response;
}

static struct MHD_Response *new_complaint(const char *message)
{
	cJSON *object = cJSON_CreateObject();
	cJSON_AddStringToObject(object, "status", "error");
	cJSON_AddStringToObject(object, "message", message);
	char *text = cJSON_PrintUnformatted(object);
	cJSON_Delete(object);
	struct MHD_Response *response = new_response(text != NULL ? text : ERROR_BODY, JSON_TYPE);
	cJSON_free(text);
	return response;
}

static struct MHD_Response *new_huge_response(void)
{
	static const char head[] = "{\"status\":\"ok\",\"padding\":\"", tail[] = "\"}";
	char *body = malloc(HUGE_SIZE + 1);
	if (body == NULL)
		return NULL;
	memset(body, 'x', HUGE_SIZE);
	memcpy(body, head, strlen(head));
	memcpy(body + HUGE_SIZE - strlen(tail), tail, sizeof tail);
	struct MHD_Response *response = new_response(body, JSON_TYPE);
	free(body);
	return response;
}

static ssize_t read_truncated(void *unused, uint64_t position, char *out, size_t room)
{
	static const char part[] = "{\"status\":\"o";
	(void)unused;
	if (position > 0 || room < strlen(part))
		return (ssize_t)MHD_CONTENT_READER_END_WITH_ERROR;
	memcpy(out, part, strlen(part));
	return (ssize_t)strlen(part);
}

static struct MHD_Response *new_dated_response(const struct step *step)
{
	char text[64];
	struct tm parts;
	time_t then = time(NULL) + (time_t)step->date_in;
	struct MHD_Response *response = new_response(ERROR_BODY, JSON_TYPE);
	if (response == NULL || gmtime_r(&then, &parts) == NULL)
		return response;
	strftime(text, sizeof text, "%a, %d %b %Y %H:%M:%S GMT", &parts);
	MHD_add_response_header(response, MHD_HTTP_HEADER_RETRY_AFTER, text);
	return response;
}

/* A FIN would pass for an orderly end: dissolving the association sends RST. */
static enum MHD_Result reset(struct MHD_Connection *connection)
{
	const struct sockaddr nobody = {.sa_family = AF_UNSPEC};
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	if (info == NULL || connect(info->connect_fd, &nobody, sizeof nobody) != 0)
		warnx("a connection was closed where it should have been reset");
	return MHD_NO;
}

/* Puts the request off; the handler is called for it again when it is due. */
static enum MHD_Result put_off(struct sink *sink, struct request *request, int64_t due)
{
	enum MHD_Result result = MHD_NO;
	pthread_mutex_lock(&sink->lock);
	if (!sink->closing) {
		MHD_suspend_connection(request->connection);
		request->due = due;
		request->next = sink->suspended;
		sink->suspended = request;
		pthread_kill(sink->main_thread, SIGUSR1);
		result = MHD_YES;
	}
	pthread_mutex_unlock(&sink->lock);
	return result;
}

/* Resumes what is due (all of it when closing); ms until the next one, or -1. */
static int64_t resume_due(struct sink *sink, bool closing)
{
	int64_t now = now_ms(CLOCK_MONOTONIC), first = INT64_MAX;
	pthread_mutex_lock(&sink->lock);
	sink->closing = closing;
	for (struct request **link = &sink->suspended; *link != NULL;) {
		struct request *request = *link;
		if (closing || request->due <= now) {
			*link = request->next;
			MHD_resume_connection(request->connection);
			continue;
		}
		first = request->due < first ? request->due : first;
		link = &request->next;
	}
	pthread_mutex_unlock(&sink->lock);
	return first == INT64_MAX ? -1 : first - now;
}

static const struct step *take_step(struct sink *sink)
{
	const struct step *step = &sink->steps[sink->step_now];
	if (++sink->step_used >= step->times && sink->step_now + 1 < sink->step_count) {
		sink->step_now++;
		sink->step_used = 0;
	}
	return step;
}

/* ---- Requests ---- */

static struct request *begin_request(struct sink *sink, struct MHD_Connection *connection)
{
	struct request *request = calloc(1, sizeof *request);
	if (request == NULL)
		return NULL;
	request->connection = connection;
	request->step = take_step(sink);
	const char *key = header(connection, "Idempotency-Key");
	bool good = strlen(key) == UUID_SIZE + 2 && key[0] == '"' && key[UUID_SIZE + 1] == '"' &&
		strspn(key + 1, "0123456789abcdef") == UUID_SIZE;
	snprintf(request->uuid, sizeof request->uuid, "%s", good ? key + 1 : "-");
	return request;
}

static bool take_bytes(struct request *request, const char *bytes, size_t size)
{
	request->too_large = request->too_large || size > BODY_MAX - request->size;
	if (request->too_large)
		return true;
	if (request->size + size >= request->capacity) {
		size_t capacity = (request->size + size) * 2 + 4096;
		char *body = realloc(request->body, capacity);
		if (body == NULL)
			return false;
		request->body = body;
		request->capacity = capacity;
	}
	memcpy(request->body + request->size, bytes, size);
	request->size += size;
	request->body[request->size] = '\0';
	return true;
}

/* Decides on the answer to a request that is read to its end. */
static void settle(struct sink *sink, struct request *request, const char *method)
{
	const struct step *step = request->step;
	struct sink_fault fault = {""};

	if (request->too_large) {
		request->status = 413;
		(void)sink_blame(&fault, "the body is larger than %zu MB", BODY_MAX >> 20);
	} else if (!judge_headers(&fault, request, method) ||
	           !sink_judge_body(&fault, request->body, request->size)) {
		request->status = MHD_HTTP_BAD_REQUEST;
	} else if (step->accepts && !record_body(sink, request)) {
		request->status = MHD_HTTP_SERVICE_UNAVAILABLE;
		(void)sink_blame(&fault, "the body could not be recorded");
	} else {
		request->status = step->manner == MANNER_ANSWER ? step->status : 0;
	}
	if (fault.text[0] != '\0') {
		warnx("refused request %" PRIu64 " (%s): %s", sink->sequence + 1, request->uuid,
		      fault.text);
		request->response = new_complaint(fault.text);
	} else if (request->status != 0 && step->date_in >= 0) {
		request->response = new_dated_response(step);
	}
	log_request(sink, request);
}

static enum MHD_Result handle(void *context, struct MHD_Connection *connection,
                              const char *url, const char *method, const char *version,
                              const char *bytes, size_t *size, void **slot)
{
	struct sink *sink = context;
	struct request *request = *slot;
	(void)url;
	(void)version;

	if (request == NULL) {
		*slot = request = begin_request(sink, connection);
		if (request == NULL)
			return MHD_NO;
		if (request->step->manner == MANNER_RESET_BEFORE) {
			log_request(sink, request);
			return reset(connection);
		}
		return MHD_YES;
	}
	if (*size > 0) {
		bool taken = take_bytes(request, bytes, *size);
		*size = 0;
		return taken ? MHD_YES : MHD_NO;
	}
	bool first = !request->logged;
	if (first)
		settle(sink, request, method);
	/* A refusal has its own response and is given at once, whatever the step. */
	if (request->response == NULL && request->step->manner == MANNER_RESET_AFTER)
		return reset(connection);
	if (request->response == NULL && request->step->manner == MANNER_HANG)
		return put_off(sink, request, INT64_MAX);
	if (request->response == NULL && request->step->delay > 0 && first)
		return put_off(sink, request, now_ms(CLOCK_MONOTONIC) + request->step->delay);
	struct MHD_Response *response =
		request->response != NULL ? request->response : request->step->response;
	return MHD_queue_response(connection, request->status, response);
}

static void end_request(void *context, struct MHD_Connection *connection, void **slot,
                        enum MHD_RequestTerminationCode how)
{
	struct sink *sink = context;
	struct request *request = *slot;
	(void)connection;
	(void)how;

	if (request == NULL)
		return;
	if (!request->logged)
		log_request(sink, request); /* the client went away in mid body */
	if (request->response != NULL)
		MHD_destroy_response(request->response);
	free(request->body);
	free(request);
	*slot = NULL;
}

static void note_connection(void *context, struct MHD_Connection *connection, void **slot,
                            enum MHD_ConnectionNotificationCode what)
{
	struct sink *sink = context;
	(void)connection;
	if (what == MHD_CONNECTION_NOTIFY_STARTED)
		*slot = (void *)++sink->connections;
}

/* ---- The script ---- */

static bool parse_time(const char *text, int64_t *out)
{
	char *end;
	errno = 0;
	unsigned long number = strtoul(text, &end, 10);
	if (end == text || text[0] == '-' || errno != 0 || number > 1000000)
		return false;
	int64_t unit = strcmp(end, "ms") == 0 ? 1 : strcmp(end, "s") == 0 ? 1000
		: strcmp(end, "m") == 0 ? 60000 : 0;
	*out = (int64_t)number * unit;
	return unit != 0;
}

static bool parse_count(const char *text, uint64_t *out)
{
	char *end;
	errno = 0;
	*out = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0' && strspn(text, "0123456789") > 0 && *out <= 1000000000;
}

static bool parse_status(char *word, struct step *step)
{
	static const char after[] = "retry-after=";
	char *option = strchr(word, ';');
	uint64_t number, wait = 0;

	if (option != NULL)
		*option++ = '\0';
	if (!parse_count(word, &number) || number < 200 || number > 599)
		return false;
	step->status = (unsigned)number;
	step->accepts = number < 300;
	step->response = new_response(number == 204 || number == 205 || number == 304 ? ""
	                              : number < 300 ? "{\"status\":\"ok\"}" : ERROR_BODY,
	                              JSON_TYPE);
	if (option == NULL)
		return step->response != NULL;
	if (strncmp(option, after, strlen(after)) != 0)
		return false;
	option += strlen(after);
	if (!parse_count(option + (*option == '@'), &wait))
		return false;
	if (*option == '@') {
		step->date_in = (int64_t)wait;
		return true;
	}
	return step->response != NULL &&
		MHD_add_response_header(step->response, MHD_HTTP_HEADER_RETRY_AFTER, option) == MHD_YES;
}

static bool parse_step(char *word, struct step *step)
{
	static const struct {
		const char *name, *body, *type;
		enum manner manner;
		bool accepts;
	} fixed[] = {
		{"ok", "{\"status\":\"ok\"}", JSON_TYPE, MANNER_ANSWER, true},
		{"empty", "", JSON_TYPE, MANNER_ANSWER, true},
		{"array", "[]", JSON_TYPE, MANNER_ANSWER, true},
		{"status=error", "{\"status\":\"error\"}", JSON_TYPE, MANNER_ANSWER, false},
		{"html", "<!DOCTYPE html><html><title>Welcome</title><p>Sign in to use this network.\n",
		 "text/html", MANNER_ANSWER, false},
		{"hang", "", JSON_TYPE, MANNER_HANG, false},
		{"reset-before", "", JSON_TYPE, MANNER_RESET_BEFORE, false},
		{"reset-after", "", JSON_TYPE, MANNER_RESET_AFTER, true},
	};
	char *star = strrchr(word, '*');

	*step = (struct step){.manner = MANNER_ANSWER, .status = 200, .date_in = -1, .times = 1};
	if (star != NULL && parse_count(star + 1, &step->times))
		*star = '\0';
	if (step->times == 0)
		return false;
	for (size_t i = 0; i < COUNT(fixed); i++) {
		if (strcmp(word, fixed[i].name) != 0)
			continue;
		step->manner = fixed[i].manner;
		step->accepts = fixed[i].accepts;
		step->response = new_response(fixed[i].body, fixed[i].type);
		return step->response != NULL;
	}
	if (strncmp(word, "slow=", 5) == 0) {
		step->accepts = true;
		step->response = new_response("{\"status\":\"ok\"}", JSON_TYPE);
		return parse_time(word + 5, &step->delay) && step->response != NULL;
	}
	if (strncmp(word, "redirect=", 9) == 0) {
		step->status = MHD_HTTP_MOVED_PERMANENTLY;
		step->response = new_response(ERROR_BODY, JSON_TYPE);
		return step->response != NULL &&
			MHD_add_response_header(step->response, "Location", word + 9) == MHD_YES;
	}
	if (strcmp(word, "huge") == 0) {
		step->accepts = true;
		step->response = new_huge_response();
		return step->response != NULL;
	}
	if (strcmp(word, "truncated") == 0) {
		step->response = MHD_create_response_from_callback(TRUNCATED_SIZE, 4096, read_truncated,
		                                                   NULL, NULL);
		return step->response != NULL &&
			MHD_add_response_header(step->response, "Content-Type", JSON_TYPE) == MHD_YES;
	}
	return parse_status(word, step);
}

static int parse_script(struct sink *sink, const char *script)
{
	char *copy = strdup(script), *rest = copy, *word;
	size_t room = 1;
	int code = 0;

	for (const char *at = script; *at != '\0'; at++)
		room += *at == ',';
	sink->steps = calloc(room, sizeof *sink->steps);
	if (copy == NULL || sink->steps == NULL) {
		warnx("no memory for the script");
		code = EX_OSERR;
	}
	while (code == 0 && (word = strsep(&rest, ",")) != NULL) {
		struct step *step = &sink->steps[sink->step_count++];
		if (!parse_step(word, step)) {
			warnx("step %zu of --script is none: see --help for the steps",
			      sink->step_count);
			code = EX_USAGE;
		}
	}
	free(copy);
	return code;
}

/* ---- The program ---- */

/* A listening socket, or -1 and a complaint. Stores the URL that leads there. */
static int open_socket(const char *where, bool tls, char *url, size_t room)
{
	const char *colon = strrchr(where, ':');
	struct addrinfo wanted = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
	                          .ai_flags = AI_NUMERICSERV | AI_PASSIVE}, *address = NULL;
	char host[256], port[16];
	int one = 1;

	if (colon == NULL || colon == where) {
		warnx("--listen %s is not ADDR:PORT, such as 127.0.0.1:8080", where);
		return -1;
	}
	/* getaddrinfo() would take a larger one modulo 65536. */
	char *end;
	long number = strtol(colon + 1, &end, 10);
	if (colon[1] < '0' || colon[1] > '9' || *end != '\0' || number > 65535) {
		warnx("--listen %s: the port is not a number from 0 to 65535", where);
		return -1;
	}
	bool bracketed = where[0] == '[' && colon[-1] == ']';
	snprintf(host, sizeof host, "%.*s", (int)(colon - where) - 2 * bracketed,
	         where + bracketed);
	int error = getaddrinfo(host, colon + 1, &wanted, &address);
	if (error != 0) {
		warnx("cannot listen on %s: %s", where, gai_strerror(error));
		return -1;
	}
	struct sockaddr_storage bound;
	socklen_t size = sizeof bound;
	int listener = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (listener < 0 ||
	    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) != 0 ||
	    bind(listener, address->ai_addr, address->ai_addrlen) != 0 ||
	    listen(listener, 1024) != 0 ||
	    getsockname(listener, (struct sockaddr *)&bound, &size) != 0 ||
	    getnameinfo((struct sockaddr *)&bound, size, host, sizeof host, port, sizeof port,
	                NI_NUMERICHOST | NI_NUMERICSERV) != 0) {
		warnx("cannot listen on %s: %s", where, strerror(errno));
		if (listener >= 0)
			close(listener);
		listener = -1;
	} else {
		bool six = bound.ss_family == AF_INET6;
		snprintf(url, room, "http%s://%s%s%s:%s", tls ? "s" : "", six ? "[" : "", host,
		         six ? "]" : "", port);
	}
	freeaddrinfo(address);
	return listener;
}

static char *read_file(const char *path)
{
	char *text = NULL;
	size_t room = 0;
	FILE *file = fopen(path, "re");
	if (file == NULL || getdelim(&text, &room, '\0', file) <= 0) {
		warnx("cannot read %s: %s", path, file == NULL ? strerror(errno) : "it is empty");
		free(text);
		text = NULL;
	}
	if (file != NULL)
		fclose(file);
	return text;
}

/* Serves until a signal ends it. `certificate` and `key` are NULL for http. */
static int serve(struct sink *sink, const char *where, char *certificate, char *key)
{
	/* Not epoll: with libmicrohttpd 0.9.75 its edges get lost, and connections hang. */
	unsigned flags = MHD_USE_POLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;
	struct MHD_OptionItem tls[] = {{MHD_OPTION_HTTPS_MEM_CERT, 0, certificate},
	                               {MHD_OPTION_HTTPS_MEM_KEY, 0, key},
	                               {MHD_OPTION_END, 0, NULL}};
	sigset_t signals;
	char url[320];

	if (certificate != NULL)
		flags |= MHD_USE_TLS;
	else
		tls[0].option = MHD_OPTION_END;
	int listener = open_socket(where, certificate != NULL, url, sizeof url);
	if (listener < 0)
		return EX_UNAVAILABLE;
	/* Blocked before the server's thread starts, which inherits the mask. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGUSR1);
	if (pthread_sigmask(SIG_BLOCK, &signals, NULL) != 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return EX_OSERR;
	sink->main_thread = pthread_self();
	struct MHD_Daemon *daemon = MHD_start_daemon(
		flags, 0, NULL, NULL, handle, sink, MHD_OPTION_LISTEN_SOCKET, listener,
		MHD_OPTION_NOTIFY_COMPLETED, end_request, sink, MHD_OPTION_NOTIFY_CONNECTION,
		note_connection, sink, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)128 * 1024,
		MHD_OPTION_CONNECTION_LIMIT, 10000u,
#if MHD_VERSION >= 0x00097205
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
#endif
		MHD_OPTION_ARRAY, tls, MHD_OPTION_END);
	if (daemon == NULL) {
		warnx("the server did not start%s", certificate == NULL ? ""
		      : ": see whether --cert and --key are PEM files that belong together");
		close(listener);
		return EX_UNAVAILABLE;
	}
	printf("listening on %s\n", url);
	int got = SIGUSR1;
	while (got == SIGUSR1) {
		int64_t wait = resume_due(sink, false);
		struct timespec pause = {.tv_sec = wait / 1000, .tv_nsec = wait % 1000 * 1000000};
		got = sigtimedwait(&signals, NULL, wait < 0 ? NULL : &pause);
		if (got < 0 && (errno == EAGAIN || errno == EINTR))
			got = SIGUSR1;
	}
	resume_due(sink, true);
	MHD_stop_daemon(daemon);
	return 0;
}

int main(int argc, char **argv)
{
	const char *where = NULL, *folder = NULL, *script = "ok", *cert_file = NULL, *key_file = NULL;
	struct sink sink = {.folder = -1, .lock = PTHREAD_MUTEX_INITIALIZER};
	char *certificate = NULL, *key = NULL;
	int option, code;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (option) {
		case 'l': where = optarg; break;
		case 'r': folder = optarg; break;
		case 's': script = optarg; break;
		case 'c': cert_file = optarg; break;
		case 'k': key_file = optarg; break;
		case 'q': sink.quiet = true; break;
		case 'h': return fputs(help, stdout) < 0 ? EX_IOERR : 0;
		case 'V': return puts("reconify-sink " RECONIFY_VERSION) < 0 ? EX_IOERR : 0;
		default: return EX_USAGE;
		}
	}
	if (where == NULL || optind != argc || (cert_file == NULL) != (key_file == NULL)) {
		warnx("%s: see --help", where == NULL ? "--listen ADDR:PORT is needed"
		      : optind != argc ? "there are arguments that are no options"
		      : "--cert and --key are given together or not at all");
		return EX_USAGE;
	}
	code = parse_script(&sink, script);
	if (code == 0 && folder != NULL && !open_record(&sink, folder)) {
		warnx("cannot record into %s: %s", folder, strerror(errno));
		code = EX_CANTCREAT;
	}
	if (code == 0 && cert_file != NULL) {
		certificate = read_file(cert_file);
		key = read_file(key_file);
		code = certificate == NULL || key == NULL ? EX_NOINPUT : 0;
	}
	if (code == 0)
		code = serve(&sink, where, certificate, key);
	for (size_t i = 0; i < sink.step_count; i++)
		if (sink.steps[i].response != NULL)
			MHD_destroy_response(sink.steps[i].response);
	free(sink.steps);
	free(certificate);
	free(key);
	if (sink.log != NULL && fclose(sink.log) != 0)
		warnx("log.tsv may lack its last lines: %s", strerror(errno));
	if (sink.folder >= 0)
		close(sink.folder);
	return code;
}
