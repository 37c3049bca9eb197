/* The daemon's turning; see loop.h.
 *
 * Close order, once and for all: the flow stops; transfers that are still on
 * their way are taken out of the multi handle; the multi handle is cleaned up;
 * all libuv handles close; the loop closes; the worker ends; the flow is freed;
 * the spool is closed.
 */
#include "agent/loop.h"

#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>
#include <uv.h>

#include "agent/hook.h"
#include "agent/http.h"
#include "agent/job.h"
#include "agent/netlink.h"
#include "agent/ship.h"

/* Microseconds, for which libuv's own timers are too coarse; see on_recheck(). */
#define RECHECK_FIRST 250
#define RECHECK_LAST 256000
#define SAFETY_POLL 90000     /* ms */
#define STUCK_CHECK 1000      /* ms */
#define ANSWER_GRACE 3000     /* ms for answers that are on their way, at the end */
#define DRAIN_LOCK_PATIENCE 20000 /* ms; what was delivered meanwhile is to be settled */
#define STOP_LIMIT 8000       /* ms until the end comes whatever happens */
/* From the news of a network to the try: others of the fleet hear them at the same
 * moment, and an address often comes a little before its route. Then no further try
 * of this kind for some time, however often a link flaps. All in ms. */
#define NETWORK_WAIT 300
#define NETWORK_JITTER 1700
#define NETWORK_REST 5000
#define REQUEST_SIZE 32
#define VISITORS_MAX 16
#define TURN_ROUNDS 8
#define TOGETHER 8     /* answers at most before what they make due is done: a crowd that is
                          answered together would else stay together */
#define WATCHED_BUCKETS 512
#define WRITES_IN_VAIN 16 /* ready to be written to so often in a row, with nothing to write, */
#define WRITE_REST 100    /* a socket is left alone for so many ms */
#define HOOK_LIMIT 60000      /* ms that a person's command may take, */
#define HOOK_END 1000         /* and at the agent's end */
#define EVENTS_MAX 256        /* that wait for their command */
/* One more than transfers: the slot whose answer is being looked at is not free. */
#define SLOTS (256 + 1)

struct loop;

/* A transfer's slot. Idle ones are kept, with their connection settings. */
struct slot {
	struct http *http;
	bool flying;
	bool stale; /* of a configuration that was replaced while it flew */
	struct slot *next_free;
};

struct watched {
	uv_poll_t poll;
	curl_socket_t socket;
	bool lasting;       /* a connection's own, watched until it is closed */
	int wanted, polled; /* events: libcurl's wish, and what the kernel was told */
	unsigned writable;  /* so often in a row, and nothing else */
	int64_t handed_over;
	struct loop *loop;
	struct watched *next;
};

/* A person's program asking over the socket. */
struct visitor {
	uv_pipe_t pipe;
	uv_write_t write;
	struct loop *loop;
	char request[REQUEST_SIZE];
	size_t size;
	char *answer;
	struct visitor *next;
};

/* An event that waits for its command. */
struct pending {
	struct event event;
	char app[REPORT_NAME_SIZE], reason[REPORT_REASON_SIZE];
	struct pending *next;
};

struct loop {
	const struct loop_options *options;
	struct config *config;
	struct config *next_config; /* waits for a moment at which no job runs */
	bool next_for_keys;         /* it was read since a key had changed, nobody asked */
	struct ship *ship;
	uv_loop_t uv;
	bool has_loop, has_locks;
	int code;

	CURLM *multi;
	struct watched *watched[WATCHED_BUCKETS];
	curl_socket_t last_socket;
	struct slot slots[SLOTS], *free_slots;
	uv_timer_t curl_timer, stuck_timer, rest_timer;
	uv_prepare_t turn;
	unsigned answered;
	bool curl_due; /* to be seen to before the loop waits again */

	uv_timer_t alarm, poll_timer, stop_timer, tick;
	uv_timer_t network_timer;
	int network_file; /* -1: none is to be had */
	uv_poll_t network;
	bool network_open;
	int recheck_file; /* a timerfd */
	int64_t recheck_delay;
	uv_poll_t recheck;
	int notify_file;
	uv_poll_t notify;
	bool notify_open;
	int spool_watch;
	bool keys_beside_spool; /* one watch serves both */
	char *spool_name;
	uv_signal_t signals[5];

	uv_pipe_t server;
	bool serving;
	int folder; /* O_PATH of the spool's folder */
	struct visitor *visitors;

	/* The worker and its one job. */
	uv_thread_t worker;
	bool has_worker;
	uv_mutex_t mutex;
	uv_cond_t wanted;
	uv_async_t done;
	bool busy;            /* as the loop's own thread knows it, */
	int64_t busy_since;   /* since then */
	struct job *job;      /* given, not yet done */
	struct job *done_job; /* done, not yet taken */
	bool tidying;         /* the worker is at what nobody waits for */
	bool quit;
	struct spool *spool;

	/* The command that runs for an event, 0: none; and those to come. */
	pid_t hook;
	uv_timer_t hook_timer;
	struct pending *events;
	size_t event_count;
	bool hook_failed; /* which was said, and is not again before one goes well */
	enum event_kind hook_event;

	int64_t wrong_since; /* when something was first seen to be wrong, 0: nothing is */
	bool stopping, cancelled, timers_open;
	uint64_t told; /* the news that the service manager knows */
	int64_t stop_at, drain_until;
};

/* --- The world, as the flow sees it ------------------------------------- */

static int64_t world_now(void *self)
{
	(void)self;
	return (int64_t)(uv_hrtime() / 1000000);
}

/* The flow's: when this turn of the loop began, or when a timer was last set. It asks a few
 * times for each record, which would cost more than what it asks for. */
static int64_t turn_now(void *self)
{
	const struct loop *loop = self;
	return (int64_t)uv_now(&loop->uv);
}

static int64_t world_wall(void *self)
{
	struct timespec time;
	(void)self;
	if (clock_gettime(CLOCK_REALTIME, &time) != 0)
		return 0;
	return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static int64_t world_zone(void *self, int64_t wall)
{
	time_t seconds = (time_t)(wall / 1000);
	struct tm parts;
	(void)self;
	tzset(); /* the host may have been moved since */
	return localtime_r(&seconds, &parts) != NULL ? (int64_t)parts.tm_gmtoff * 1000 : 0;
}

static uint64_t world_random(void *self)
{
	uint64_t number = 0;
	(void)self;
	if (getrandom(&number, sizeof number, GRND_NONBLOCK) != (ssize_t)sizeof number)
		number = uv_hrtime() * 0x9E3779B97F4A7C15ULL; /* early at boot: jitter, no secret */
	return number;
}

static void world_say(void *self, enum config_log_level level, const char *sentence)
{
	const struct loop *loop = self;
	log_line(&loop->options->log, level, sentence);
}

static void complain(const struct loop *loop, enum config_log_level level, const char *what,
                     const char *reason)
{
	char sentence[640];
	(void)snprintf(sentence, sizeof sentence, "%s: %s", what, reason);
	log_line(&loop->options->log, level, sentence);
}

/* --- A person's command --------------------------------------------------- */

static void run_hooks(struct loop *loop);

static void hook_failed(struct loop *loop, enum event_kind kind, const char *outcome)
{
	char sentence[256];
	if (!loop->hook_failed) {
		(void)snprintf(sentence, sizeof sentence, "[notify] command for %s %s; it is not repeated, "
		               "and further failures are not said until one goes well",
		               events_name(kind), outcome);
		log_line(&loop->options->log, LOG_WARNING, sentence);
	}
	loop->hook_failed = true;
}

static void on_hook_limit(uv_timer_t *timer)
{
	const struct loop *loop = timer->data;
	if (loop->hook > 0)
		(void)kill(-loop->hook, SIGKILL);
}

/* Takes in the end of the command, where it has ended. */
static void reap_hook(struct loop *loop)
{
	char outcome[64];
	int status = 0;
	siginfo_t about = { .si_pid = 0 };
	if (loop->hook <= 0 ||
	    waitid(P_PID, (id_t)loop->hook, &about, WEXITED | WNOHANG | WNOWAIT) != 0 ||
	    about.si_pid != loop->hook)
		return;
	/* Whoever it left behind; before its number can be another's. */
	(void)kill(-loop->hook, SIGKILL);
	(void)waitpid(loop->hook, &status, 0);
	loop->hook = 0;
	(void)uv_timer_stop(&loop->hook_timer);
	if (hook_outcome(status, outcome, sizeof outcome) != NULL)
		hook_failed(loop, loop->hook_event, outcome);
	else
		loop->hook_failed = false;
	run_hooks(loop);
}

static void run_hooks(struct loop *loop)
{
	while (loop->hook == 0 && loop->events != NULL) {
		struct pending *first = loop->events;
		loop->events = first->next;
		loop->event_count--;
		loop->hook_event = first->event.kind;
		first->event.app = first->app;
		first->event.reason = first->reason;
		const char *command = loop->config->notify_command;
		if (command == NULL || loop->stopping) {
			free(first);
			continue;
		}
		if (hook_start(command, &first->event, &loop->hook)) {
			uv_update_time(&loop->uv);
			(void)uv_timer_start(&loop->hook_timer, on_hook_limit, HOOK_LIMIT, 0);
		} else {
			loop->hook = 0;
			hook_failed(loop, loop->hook_event, "could not be started");
		}
		free(first);
	}
}

static void world_tell(void *self, const struct event *event)
{
	struct loop *loop = self;
	struct pending *pending = loop->event_count < EVENTS_MAX ? calloc(1, sizeof *pending) : NULL;
	if (pending == NULL) {
		hook_failed(loop, event->kind, "was not run: too many wait for theirs");
		return;
	}
	pending->event = *event;
	(void)snprintf(pending->app, sizeof pending->app, "%s", event->app);
	(void)snprintf(pending->reason, sizeof pending->reason, "%s", event->reason);
	struct pending **end = &loop->events;
	while (*end != NULL)
		end = &(*end)->next;
	*end = pending; /* go_on() runs it, by the configuration that holds then */
	loop->event_count++;
}

/* The service manager ends it too, most likely. No zombie stays in any case. */
static void end_hook(struct loop *loop)
{
	const struct timespec moment = { 0, 10000000 };
	int status;
	while (loop->events != NULL) {
		struct pending *first = loop->events;
		loop->events = first->next;
		free(first);
	}
	if (loop->hook <= 0)
		return;
	(void)kill(-loop->hook, SIGTERM);
	for (int waited = 0; waited < 2 * HOOK_END; waited += 10) {
		if (waitpid(loop->hook, &status, WNOHANG) != 0)
			break;
		if (waited == HOOK_END)
			(void)kill(-loop->hook, SIGKILL);
		(void)nanosleep(&moment, NULL);
	}
	loop->hook = 0;
}

/* --- The worker --------------------------------------------------------- */

static void work(void *context)
{
	struct loop *loop = context;
	char stack[LOCK_STACK_SIZE];
	lock_lend_stack(stack);
	uv_mutex_lock(&loop->mutex);
	for (;;) {
		while (loop->job == NULL && !loop->quit)
			uv_cond_wait(&loop->wanted, &loop->mutex);
		if (loop->job == NULL)
			break;
		struct job *job = loop->job;
		uv_mutex_unlock(&loop->mutex);
		job_run(job, &loop->spool, loop->options->spool_path);
		uv_mutex_lock(&loop->mutex);
		loop->job = NULL;
		loop->done_job = job;
		loop->tidying = true;
		(void)uv_async_send(&loop->done); /* fails only after its close */
		uv_mutex_unlock(&loop->mutex);
		spool_tidy(loop->spool);
		uv_mutex_lock(&loop->mutex);
		loop->tidying = false;
	}
	uv_mutex_unlock(&loop->mutex);
	lock_lend_stack(NULL);
}

static void world_work(void *self, struct job *job)
{
	struct loop *loop = self;
	loop->busy = true;
	loop->busy_since = world_now(NULL);
	uv_mutex_lock(&loop->mutex);
	loop->job = job;
	uv_cond_signal(&loop->wanted);
	uv_mutex_unlock(&loop->mutex);
}

static void go_on(struct loop *loop);

static void on_done(uv_async_t *async)
{
	struct loop *loop = async->data;
	uv_mutex_lock(&loop->mutex);
	struct job *job = loop->done_job;
	loop->done_job = NULL;
	uv_mutex_unlock(&loop->mutex);
	loop->busy = loop->busy && job == NULL;
	if (job != NULL)
		ship_worked(loop->ship, job);
	go_on(loop);
}

/* --- Timers ------------------------------------------------------------- */

/* After a stall the loop's idea of now is old, and a timer would fire at once. */
static void arm(uv_timer_t *timer, uv_timer_cb callback, int64_t wait, uint64_t repeat)
{
	uv_update_time(timer->loop);
	(void)uv_timer_start(timer, callback, wait > 0 ? (uint64_t)wait : 0, repeat);
}

static void on_alarm(uv_timer_t *timer)
{
	struct loop *loop = timer->data;
	ship_go_on(loop->ship);
	go_on(loop);
}

static void world_alarm(void *self, int64_t at)
{
	struct loop *loop = self;
	if (!loop->timers_open)
		return;
	if (at == INT64_MAX)
		(void)uv_timer_stop(&loop->alarm);
	else
		arm(&loop->alarm, on_alarm, at - world_now(NULL), 0);
}

static void world_suspect(void *self, const char *uuid)
{
	const struct loop *loop = self;
	lock_suspect(loop->options->lock, uuid);
}

/* --- Transfers ---------------------------------------------------------- */

static void on_stuck_check(uv_timer_t *timer);
static void follow_up(struct loop *loop);

static curl_socket_t open_connection(void *context, curlsocktype purpose,
                                     struct curl_sockaddr *address);
static int close_connection(void *context, curl_socket_t socket);

static bool ready_slot(struct loop *loop, struct slot *slot, const char **error)
{
	const struct http_sockets sockets = { open_connection, close_connection, loop };
	if (slot->http == NULL)
		slot->http = http_new(loop->config, &sockets, slot, error);
	return slot->http != NULL;
}

/* The one used last comes first: its connection is the likeliest to be open still. */
static void give_back(struct loop *loop, struct slot *slot)
{
	slot->flying = false;
	slot->next_free = loop->free_slots;
	loop->free_slots = slot;
}

static void answer_locally(struct loop *loop, void *ticket, const char *detail)
{
	struct answer answer = { .kind = ANSWER_LOCAL, .detail = detail };
	ship_answered(loop->ship, ticket, &answer);
	loop->answered++;
}

struct late_answer {
	uv_timer_t timer;
	void *ticket;
	const char *detail;
};

static void on_late_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void on_late(uv_timer_t *timer)
{
	struct late_answer *late = timer->data;
	struct loop *loop = timer->loop->data;
	void *ticket = late->ticket;
	const char *detail = late->detail;
	uv_close((uv_handle_t *)timer, on_late_closed);
	if (!loop->cancelled)
		answer_locally(loop, ticket, detail);
	go_on(loop);
}

/* A post that could not even begin is answered in the loop's next turn, since the
 * flow must not be called from within its own call. */
static void fail_later(struct loop *loop, void *ticket, const char *detail)
{
	struct late_answer *late = calloc(1, sizeof *late);
	if (late == NULL)
		abort(); /* no memory for a few bytes: a restart goes on from the spool */
	late->ticket = ticket;
	late->detail = detail;
	(void)uv_timer_init(&loop->uv, &late->timer);
	late->timer.data = late;
	arm(&late->timer, on_late, 0, 0);
}

static void world_post(void *self, const struct ship_post *post)
{
	struct loop *loop = self;
	struct slot *slot = loop->free_slots;
	const char *error = "no free connection";
	if (slot == NULL || !ready_slot(loop, slot, &error)) {
		fail_later(loop, post->ticket, error);
		return;
	}
	CURL *easy = http_start(slot->http, post, turn_now(loop));
	if (easy == NULL || curl_multi_add_handle(loop->multi, easy) != CURLM_OK) {
		fail_later(loop, post->ticket, "libcurl could not start the transfer (no memory?)");
		return;
	}
	slot->flying = true;
	loop->free_slots = slot->next_free;
	if (!uv_is_active((uv_handle_t *)&loop->stuck_timer))
		arm(&loop->stuck_timer, on_stuck_check, STUCK_CHECK, STUCK_CHECK);
}

static void end_transfer(struct loop *loop, CURL *easy, CURLcode code, bool stuck)
{
	char *private = NULL;
	(void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private);
	struct http *http = (struct http *)(void *)private;
	struct slot *slot = http_owner(http);
	struct answer answer;
	/* Results first: they are gone with the next start. */
	http_result(http, code, stuck, &answer);
	(void)curl_multi_remove_handle(loop->multi, easy);
	ship_answered(loop->ship, http_ticket(http), &answer);
	loop->answered++;
	give_back(loop, slot);
	if (slot->stale) {
		http_free(slot->http);
		slot->http = NULL;
		slot->stale = false;
	}
}

static void drain_messages(struct loop *loop)
{
	CURLMsg *message;
	int left;
	while ((message = curl_multi_info_read(loop->multi, &left)) != NULL)
		if (message->msg == CURLMSG_DONE)
			end_transfer(loop, message->easy_handle, message->data.result, false);
}

static void act_on(struct loop *loop, curl_socket_t socket, int events)
{
	int running;
	(void)curl_multi_socket_action(loop->multi, socket, events, &running);
	/* Always: a lone transfer that times out is reported with nothing running. */
	drain_messages(loop);
	go_on(loop);
}

static struct watched **place_of(struct loop *loop, curl_socket_t socket)
{
	struct watched **place = &loop->watched[(size_t)socket % WATCHED_BUCKETS];
	while (*place != NULL && (*place)->socket != socket)
		place = &(*place)->next;
	return place;
}

static void on_socket(uv_poll_t *poll, int status, int events);

static void poll_for(struct watched *watched, int events)
{
	if (events == watched->polled)
		return;
	if (events == 0)
		(void)uv_poll_stop(&watched->poll);
	else if (uv_poll_start(&watched->poll, events, on_socket) != 0)
		return;
	watched->polled = events;
}

static void end_rests(uv_timer_t *timer)
{
	struct loop *loop = timer->data;
	for (size_t i = 0; i < WATCHED_BUCKETS; i++)
		for (struct watched *watched = loop->watched[i]; watched != NULL; watched = watched->next)
			if (watched->wanted != 0)
				poll_for(watched, watched->wanted);
}

/* With HTTP/2 libcurl wishes to write where the endpoint lets it write nothing (its window is
 * closed), and the socket is ready for that all the time. Then it rests, until something is to
 * be read. */
static void rest_from_writing(struct watched *watched, int events)
{
	struct loop *loop = watched->loop;
	if (uv_is_closing((uv_handle_t *)&watched->poll) || watched->wanted == 0)
		return;
	if (events != UV_WRITABLE) {
		watched->writable = 0;
		poll_for(watched, watched->wanted);
		return;
	}
	if (++watched->writable < WRITES_IN_VAIN)
		return;
	int64_t before = watched->handed_over;
	watched->handed_over = http_handed_over(watched->socket);
	if (watched->handed_over != before || before < 0)
		return;
	poll_for(watched, watched->wanted & ~UV_WRITABLE);
	if (!uv_is_active((uv_handle_t *)&loop->rest_timer))
		arm(&loop->rest_timer, end_rests, WRITE_REST, 0);
}

static void on_socket(uv_poll_t *poll, int status, int events)
{
	struct watched *watched = poll->data;
	int flags = 0;
	if (watched->wanted == 0) {
		/* An idle connection that the other side closes; libcurl sees it when it would
		 * use it again. */
		poll_for(watched, 0);
		return;
	}
	if (status < 0)
		flags = CURL_CSELECT_ERR;
	if (events & UV_READABLE)
		flags |= CURL_CSELECT_IN;
	if (events & UV_WRITABLE)
		flags |= CURL_CSELECT_OUT;
	act_on(watched->loop, watched->socket, flags);
	rest_from_writing(watched, events);
	if (watched->loop->answered >= TOGETHER)
		follow_up(watched->loop);
}

static struct watched *start_watching(struct loop *loop, curl_socket_t socket)
{
	struct watched *watched = calloc(1, sizeof *watched);
	if (watched == NULL)
		return NULL;
	watched->loop = loop;
	watched->socket = socket;
	if (uv_poll_init_socket(&loop->uv, &watched->poll, socket) != 0) {
		free(watched);
		return NULL;
	}
	watched->poll.data = watched;
	*place_of(loop, socket) = watched;
	return watched;
}

static void on_watched_closed(uv_handle_t *handle)
{
	free(handle->data);
}

static void stop_watching(struct loop *loop, curl_socket_t socket)
{
	struct watched **place = place_of(loop, socket), *watched = *place;
	if (watched == NULL)
		return;
	*place = watched->next;
	(void)uv_poll_stop(&watched->poll);
	uv_close((uv_handle_t *)&watched->poll, on_watched_closed);
}

/* A connection's socket is watched from its opening to its closing, though libcurl lets
 * go of it after each transfer: that saves most of the system calls of a short POST. */
static curl_socket_t open_connection(void *context, curlsocktype purpose,
                                     struct curl_sockaddr *address)
{
	struct loop *loop = context;
	(void)purpose;
	curl_socket_t opened = socket(address->family, address->socktype | SOCK_CLOEXEC,
	                              address->protocol);
	if (opened == CURL_SOCKET_BAD)
		return opened;
	struct watched *watched = start_watching(loop, opened);
	if (watched == NULL) {
		(void)close(opened);
		return CURL_SOCKET_BAD;
	}
	watched->lasting = true;
	return opened;
}

static int close_connection(void *context, curl_socket_t socket)
{
	stop_watching(context, socket);
	return close(socket);
}

static int watch_socket(CURL *easy, curl_socket_t socket, int what, void *context,
                        void *attached)
{
	struct loop *loop = context;
	char *private = NULL;
	(void)attached;
	struct watched *watched = *place_of(loop, socket);
	if (what == CURL_POLL_REMOVE) {
		if (watched != NULL && watched->lasting)
			watched->wanted = 0;
		else
			stop_watching(loop, socket);
		return 0;
	}
	if (curl_easy_getinfo(easy, CURLINFO_PRIVATE, &private) == CURLE_OK && private != NULL) {
		http_on_socket((struct http *)(void *)private, socket);
		loop->last_socket = socket;
	}
	if (watched == NULL && (watched = start_watching(loop, socket)) == NULL)
		return -1;
	int events = 0;
	if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
		events |= UV_READABLE;
	if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
		events |= UV_WRITABLE;
	watched->wanted = events;
	poll_for(watched, events);
	return 0;
}

static void on_curl_timer(uv_timer_t *timer)
{
	act_on(timer->data, CURL_SOCKET_TIMEOUT, 0);
}

/* Answers are followed up, and what is to be posted by then starts together. */
static void follow_up(struct loop *loop)
{
	for (int rounds = 0; rounds < TURN_ROUNDS && (loop->answered > 0 || loop->curl_due); rounds++) {
		if (loop->answered > 0) {
			loop->answered = 0;
			ship_go_on(loop->ship);
		}
		if (loop->curl_due) {
			loop->curl_due = false;
			act_on(loop, CURL_SOCKET_TIMEOUT, 0);
		}
		go_on(loop);
	}
	if (loop->answered > 0 || loop->curl_due)
		arm(&loop->curl_timer, on_curl_timer, 0, 0); /* others' turn, but no waiting */
}

/* Once a turn, for what came in it. */
static void on_turn(uv_prepare_t *prepare)
{
	follow_up(prepare->data);
}

static int set_curl_timer(CURLM *multi, long wait, void *context)
{
	struct loop *loop = context;
	(void)multi;
	loop->curl_due = wait == 0;
	if (wait <= 0)
		(void)uv_timer_stop(&loop->curl_timer);
	else
		arm(&loop->curl_timer, on_curl_timer, wait, 0);
	return 0;
}

static void on_stuck_check(uv_timer_t *timer)
{
	struct loop *loop = timer->data;
	size_t flying = 0;
	for (size_t i = 0; i < SLOTS; i++) {
		struct slot *slot = &loop->slots[i];
		if (!slot->flying)
			continue;
		flying++;
		if (http_is_stuck(slot->http, loop->last_socket, world_now(NULL)))
			end_transfer(loop, http_easy(slot->http), CURLE_OPERATION_TIMEDOUT, true);
	}
	if (flying == 0)
		(void)uv_timer_stop(timer);
	go_on(loop);
}

/* Drops the idle transfers' settings, which are of an old configuration. */
static void forget_connections(struct loop *loop)
{
	for (size_t i = 0; i < SLOTS; i++) {
		loop->slots[i].stale = loop->slots[i].flying;
		if (loop->slots[i].flying)
			continue;
		http_free(loop->slots[i].http);
		loop->slots[i].http = NULL;
	}
}

/* --- Waking up ---------------------------------------------------------- */

static void recheck_later(struct loop *loop)
{
	const struct itimerspec once = {
		.it_value = { (time_t)(loop->recheck_delay / 1000000),
		              (long)(loop->recheck_delay % 1000000 * 1000) }
	};
	(void)timerfd_settime(loop->recheck_file, 0, &once, NULL);
}

/* The write to the -wal is seen before the commit becomes visible, which itself
 * makes no event: so look again a few times, ever later. */
static void on_recheck(uv_poll_t *poll, int status, int events)
{
	struct loop *loop = poll->data;
	uint64_t times;
	(void)events;
	if (status < 0 || read(loop->recheck_file, &times, sizeof times) != (ssize_t)sizeof times)
		return;
	ship_wake(loop->ship);
	loop->recheck_delay *= 2;
	if (loop->recheck_delay <= RECHECK_LAST)
		recheck_later(loop);
	go_on(loop);
}

static void wake(struct loop *loop)
{
	if (loop->stopping)
		return;
	ship_wake(loop->ship);
	loop->recheck_delay = RECHECK_FIRST;
	recheck_later(loop);
}

static void reload(struct loop *loop, bool for_keys);

static void on_notify(uv_poll_t *poll, int status, int events)
{
	struct loop *loop = poll->data;
	_Alignas(struct inotify_event) char buffer[4096];
	bool changed = false, keys = false;
	(void)events;
	if (status < 0)
		return;
	size_t name = strlen(loop->spool_name);
	for (;;) {
		ssize_t size = read(loop->notify_file, buffer, sizeof buffer);
		if (size <= 0)
			break;
		for (char *at = buffer; at < buffer + size;) {
			const struct inotify_event *event = (const struct inotify_event *)(void *)at;
			at += sizeof *event + event->len;
			if (event->mask & IN_Q_OVERFLOW)
				changed = keys = true;
			else if (event->len == 0)
				continue;
			else if (event->wd == loop->spool_watch &&
			         strncmp(event->name, loop->spool_name, name) == 0)
				changed = changed || event->name[name] == '\0' ||
				          strcmp(event->name + name, "-wal") == 0;
			else if (event->wd != loop->spool_watch || loop->keys_beside_spool)
				keys = keys || (event->mask & (IN_CLOSE_WRITE | IN_MOVED_TO)) != 0;
		}
	}
	if (changed)
		wake(loop);
	if (keys && !loop->stopping)
		reload(loop, true);
	go_on(loop);
}

/* Takes `file` over; dirname() cuts it. */
static void watch_folder_of(struct loop *loop, char *file)
{
	if (file == NULL)
		return;
	/* Watching fails harmlessly: a reload by hand does the same. */
	int watch = inotify_add_watch(loop->notify_file, dirname(file),
	                              IN_CLOSE_WRITE | IN_MOVED_TO | IN_MASK_ADD);
	if (watch < 0)
		log_line(&loop->options->log, LOG_DEBUG, "cannot watch the folder of a key file");
	else if (watch == loop->spool_watch)
		loop->keys_beside_spool = true;
	free(file);
}

static void watch_key(struct loop *loop, const char *file)
{
	char *places[2];
	if (file == NULL)
		return;
	config_key_places(loop->config, file, places);
	watch_folder_of(loop, places[0]);
	watch_folder_of(loop, places[1]);
}

/* To watch a folder that is watched already is harmless. */
static void watch_keys(struct loop *loop)
{
	if (loop->notify_file < 0)
		return;
	for (size_t i = 0; i < loop->config->app_count; i++) {
		const struct config_app *app = &loop->config->apps[i];
		watch_key(loop, app->app_key_file);
		watch_key(loop, app->api_key_file);
	}
	/* Which may hold keys itself. */
	if (loop->config->file != NULL)
		watch_folder_of(loop, strdup(loop->config->file));
}

/* Watches the folder, for the -wal comes and goes. */
static void watch_spool(struct loop *loop)
{
	char *copy = strdup(loop->options->spool_path);
	char *other = strdup(loop->options->spool_path);
	if (copy == NULL || other == NULL)
		abort();
	loop->spool_name = strdup(basename(other));
	char *folder = dirname(copy);
	loop->folder = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
	loop->spool_watch = -1;
	loop->notify_file = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (loop->notify_file >= 0 && loop->options->last_id == INT64_MAX) {
		loop->spool_watch =
			inotify_add_watch(loop->notify_file, folder,
		                          IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE);
		watch_keys(loop);
		if (uv_poll_init(&loop->uv, &loop->notify, loop->notify_file) == 0) {
			loop->notify_open = true;
			loop->notify.data = loop;
			(void)uv_poll_start(&loop->notify, UV_READABLE, on_notify);
		}
		if (loop->spool_watch < 0)
			complain(loop, LOG_WARNING, "cannot watch the spool's folder, so looking for "
			         "new records every second", strerror(errno));
	}
	free(copy);
	free(other);
}

/* How it stands, now and then, while something is wrong: rides on a timer that is there
 * anyway. */
static void sum_up(struct loop *loop)
{
	struct report report;
	char line[1024];
	int64_t now = world_now(NULL);
	struct figures figures = ship_figures(loop->ship);
	ship_report(loop->ship, &report);
	if (!events_sum_up(&report, &figures, line, sizeof line)) {
		loop->wrong_since = 0;
	} else if (loop->wrong_since == 0) {
		loop->wrong_since = now; /* which was said when it came */
	} else if (loop->config->log_summary > 0 &&
	           now - loop->wrong_since >= loop->config->log_summary) {
		loop->wrong_since = now;
		log_line(&loop->options->log, LOG_WARNING, line);
	}
}

static void on_poll(uv_timer_t *timer)
{
	struct loop *loop = timer->data;
	log_count(&loop->options->log);
	sum_up(loop);
	const struct notify *notify = &loop->options->notify;
	/* Fed only while the loop turns, which this shows, and the spool answers. */
	if (notify->watchdog > 0 &&
	    (!loop->busy || world_now(NULL) - loop->busy_since < notify->watchdog / 2))
		notify_alive(notify);
	if (!loop->stopping)
		ship_wake(loop->ship);
	go_on(loop);
}

static void tell_manager(struct loop *loop)
{
	struct report report;
	char sentence[512];
	if (loop->options->notify.socket < 0 || loop->told == ship_news(loop->ship))
		return;
	loop->told = ship_news(loop->ship);
	ship_report(loop->ship, &report);
	report_sentence(&report, sentence, sizeof sentence);
	notify_status(&loop->options->notify, sentence);
}

/* --- The network's return ------------------------------------------------ */

static void on_network_rested(uv_timer_t *timer)
{
	go_on(timer->data);
}

static void on_network_wait(uv_timer_t *timer)
{
	struct loop *loop = timer->data;
	arm(timer, on_network_rested, NETWORK_REST, 0);
	ship_try_network(loop->ship);
	go_on(loop);
}

static void on_network(uv_poll_t *poll, int status, int events)
{
	struct loop *loop = poll->data;
	(void)events;
	/* An error is that news were lost: as good as news. */
	if (!netlink_read(loop->network_file) && status >= 0)
		return;
	(void)uv_poll_stop(poll);
	arm(&loop->network_timer, on_network_wait,
	    NETWORK_WAIT + (int64_t)(world_random(NULL) % NETWORK_JITTER), 0);
}

/* Listens only while that may help: a host whose routes change all the time wakes nobody
 * who does not wait. What happened before is read first, and is worth one try. */
static void listen_to_network(struct loop *loop)
{
	if (!loop->network_open)
		return;
	bool listens = uv_is_active((uv_handle_t *)&loop->network);
	bool waits = !loop->stopping && ship_waits_for_network(loop->ship) &&
	             !uv_is_active((uv_handle_t *)&loop->network_timer);
	if (waits && !listens)
		(void)uv_poll_start(&loop->network, UV_READABLE, on_network);
	else if (!waits && listens)
		(void)uv_poll_stop(&loop->network);
}

static void open_network(struct loop *loop)
{
	loop->network_file = netlink_open();
	if (loop->network_file < 0 ||
	    uv_poll_init(&loop->uv, &loop->network, loop->network_file) != 0) {
		log_line(&loop->options->log, LOG_DEBUG, "no news of the network are to be had here");
		return;
	}
	loop->network_open = true;
	loop->network.data = loop;
}

/* --- Visitors ----------------------------------------------------------- */

static void on_visitor_closed(uv_handle_t *handle)
{
	struct visitor *visitor = handle->data;
	struct visitor **link = &visitor->loop->visitors;
	while (*link != NULL && *link != visitor)
		link = &(*link)->next;
	if (*link != NULL)
		*link = visitor->next;
	free(visitor->answer);
	free(visitor);
}

static void dismiss(struct visitor *visitor)
{
	if (!uv_is_closing((uv_handle_t *)&visitor->pipe))
		uv_close((uv_handle_t *)&visitor->pipe, on_visitor_closed);
}

static void on_answered(uv_write_t *write, int status)
{
	(void)status;
	dismiss(write->data);
}

static void serve(struct visitor *visitor)
{
	struct loop *loop = visitor->loop;
	struct report report;
	if (strcmp(visitor->request, "try") == 0)
		ship_try_now(loop->ship);
	else if (strcmp(visitor->request, "forget") == 0)
		ship_forget(loop->ship);
	else if (strcmp(visitor->request, "pause") == 0)
		ship_set_pause(loop->ship, world_wall(NULL));
	else if (strcmp(visitor->request, "resume") == 0)
		ship_set_pause(loop->ship, -1);
	ship_report(loop->ship, &report);
	visitor->answer = report_to_json(&report);
	if (visitor->answer == NULL) {
		dismiss(visitor);
		return;
	}
	uv_buf_t buffer = uv_buf_init(visitor->answer, (unsigned)strlen(visitor->answer));
	visitor->write.data = visitor;
	(void)uv_read_stop((uv_stream_t *)&visitor->pipe);
	if (uv_write(&visitor->write, (uv_stream_t *)&visitor->pipe, &buffer, 1, on_answered) != 0)
		dismiss(visitor);
}

static void give_buffer(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
	struct visitor *visitor = handle->data;
	(void)suggested;
	buffer->base = visitor->request + visitor->size;
	buffer->len = sizeof visitor->request - visitor->size;
}

static void on_request(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
	struct visitor *visitor = stream->data;
	(void)buffer;
	if (size < 0) {
		dismiss(visitor);
		return;
	}
	visitor->size += (size_t)size;
	char *end = memchr(visitor->request, '\n', visitor->size);
	if (end != NULL) {
		*end = '\0';
		serve(visitor);
	} else if (visitor->size == sizeof visitor->request) {
		dismiss(visitor);
	}
}

/* Who comes and does not speak must not use up the descriptors: the oldest go. */
static void dismiss_beyond(struct loop *loop, unsigned most)
{
	unsigned count = 0;
	for (struct visitor *visitor = loop->visitors; visitor != NULL; visitor = visitor->next)
		if (++count > most)
			dismiss(visitor);
}

static void on_visitor(uv_stream_t *server, int status)
{
	struct loop *loop = server->data;
	struct visitor *visitor = status == 0 ? calloc(1, sizeof *visitor) : NULL;
	if (visitor == NULL)
		return;
	visitor->loop = loop;
	visitor->next = loop->visitors;
	loop->visitors = visitor;
	dismiss_beyond(loop, VISITORS_MAX);
	(void)uv_pipe_init(&loop->uv, &visitor->pipe, 0);
	visitor->pipe.data = visitor;
	if (uv_accept(server, (uv_stream_t *)&visitor->pipe) != 0 ||
	    uv_read_start((uv_stream_t *)&visitor->pipe, give_buffer, on_request) != 0)
		dismiss(visitor);
}

/* The socket beside the spool. Reached through the folder's descriptor, since a
 * socket's path may only have 107 bytes. Without it `status` knows less. */
static void open_socket(struct loop *loop)
{
	char path[108];
	int size = snprintf(path, sizeof path, "/proc/self/fd/%d/%s-agent.sock", loop->folder,
	                    loop->spool_name);
	if (size < 0 || (size_t)size >= sizeof path || loop->folder < 0) {
		complain(loop, LOG_WARNING, "no socket for 'status'", "the spool's name is too long");
		return;
	}
	(void)unlink(path); /* of an agent that was killed; the lock is ours */
	(void)uv_pipe_init(&loop->uv, &loop->server, 0);
	loop->serving = true;
	loop->server.data = loop;
	int rc = uv_pipe_bind(&loop->server, path);
	if (rc == 0 && chmod(path, 0660) != 0)
		rc = uv_translate_sys_error(errno);
	if (rc == 0)
		rc = uv_listen((uv_stream_t *)&loop->server, 8, on_visitor);
	if (rc != 0)
		complain(loop, LOG_WARNING, "no socket for 'status', which will know less",
		         uv_strerror(rc));
}

/* --- Reload and the end ------------------------------------------------- */

static bool same_text(const char *one, const char *other)
{
	return one == other || (one != NULL && other != NULL && strcmp(one, other) == 0);
}

static bool same_keys(const struct config *one, const struct config *other)
{
	if (one->app_count != other->app_count)
		return false;
	for (size_t i = 0; i < one->app_count; i++)
		if (!same_text(one->apps[i].app_key, other->apps[i].app_key) ||
		    !same_text(one->apps[i].api_key, other->apps[i].api_key))
			return false;
	return true;
}

/* `for_keys`: something changed beside a key file; it is news only when a key
 * did. */
static void reload(struct loop *loop, bool for_keys)
{
	char *error = NULL;
	struct config *config = loop->options->reload(loop->options->context, &error);
	if (for_keys && (config == NULL || same_keys(config, loop->config))) {
		config_free(config);
		free(error);
		return;
	}
	if (config == NULL) {
		complain(loop, LOG_ERROR, "the configuration was not reloaded, the old one stays",
		         error != NULL ? error : "no memory");
		free(error);
		return;
	}
	if (strcmp(config->spool_path, loop->config->spool_path) != 0)
		log_line(&loop->options->log, LOG_WARNING,
		         "[spool] path has changed: that needs a restart");
	if (config->url == NULL) {
		log_line(&loop->options->log, LOG_ERROR,
		         "the configuration was not reloaded, the old one stays: no endpoint's url");
		config_free(config);
		return;
	}
	config_free(loop->next_config);
	loop->next_config = config;
	loop->next_for_keys = for_keys;
}

static void begin_stop(struct loop *loop, int code)
{
	if (loop->stopping)
		return;
	loop->stopping = true;
	loop->code = code;
	loop->stop_at = world_now(NULL);
	notify_stopping(&loop->options->notify);
	ship_stop(loop->ship);
}

static void cancel_transfers(struct loop *loop)
{
	loop->cancelled = true;
	for (size_t i = 0; i < SLOTS; i++) {
		if (!loop->slots[i].flying)
			continue;
		(void)curl_multi_remove_handle(loop->multi, http_easy(loop->slots[i].http));
		loop->slots[i].flying = false;
	}
}

/* What cannot be done from within the flow's own calls, after each of them. */
static void go_on(struct loop *loop)
{
	if (loop->next_config != NULL && !loop->stopping &&
	    ship_reload(loop->ship, loop->next_config)) {
		config_free(loop->config);
		loop->config = loop->next_config;
		loop->next_config = NULL;
		forget_connections(loop);
		watch_keys(loop);
		log_adapt(&loop->options->log, loop->config);
		log_line(&loop->options->log, LOG_INFO, loop->next_for_keys
		         ? "configuration reloaded, as its keys have changed" : "configuration reloaded");
		notify_ready(&loop->options->notify);
	}
	run_hooks(loop);
	tell_manager(loop);
	listen_to_network(loop);
	if (loop->options->last_id != INT64_MAX && !loop->stopping && ship_is_quiet(loop->ship)) {
		struct report report;
		ship_report(loop->ship, &report);
		bool finished = report.state == DESTINATION_UP && report.retrying == 0 &&
		                report.limit[0] == '\0';
		for (size_t i = 0; i < report.app_count; i++)
			finished = finished && !report.apps[i].held;
		if (finished || report.state == DESTINATION_PAUSED ||
		    world_now(NULL) >= loop->drain_until)
			begin_stop(loop, EX_OK);
	}
	if (!loop->stopping)
		return;
	int64_t since = world_now(NULL) - loop->stop_at;
	if (ship_is_stopped(loop->ship) || since >= ANSWER_GRACE)
		uv_stop(&loop->uv);
	else if (!uv_is_active((uv_handle_t *)&loop->stop_timer))
		arm(&loop->stop_timer, on_alarm, ANSWER_GRACE - since, 0);
}

static void on_signal(uv_signal_t *handle, int number)
{
	struct loop *loop = handle->data;
	switch (number) {
	case SIGHUP:
		notify_reloading(&loop->options->notify);
		reload(loop, false);
		if (loop->next_config == NULL)
			notify_ready(&loop->options->notify); /* refused: the old one goes on */
		break;
	case SIGCHLD:
		reap_hook(loop);
		break;
	case SIGUSR1:
		ship_try_now(loop->ship);
		break;
	default:
		log_line(&loop->options->log, LOG_INFO, "stopping");
		begin_stop(loop, EX_OK);
	}
	go_on(loop);
}

/* A drain's second: its progress, and an end where the storage refuses. */
static void on_tick(uv_timer_t *timer)
{
	struct loop *loop = timer->data;
	struct report report;
	if (loop->options->progress != NULL)
		loop->options->progress(loop->options->context);
	ship_report(loop->ship, &report);
	int64_t until = loop->drain_until + (report.locked ? DRAIN_LOCK_PATIENCE : 0);
	if (report.storage[0] != '\0' && world_now(NULL) >= until)
		begin_stop(loop, EX_OK);
	go_on(loop);
}

/* --- From the beginning to the end -------------------------------------- */

static void init_timer(struct loop *loop, uv_timer_t *timer)
{
	(void)uv_timer_init(&loop->uv, timer);
	timer->data = loop;
}

static const int signal_numbers[] = { SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGCHLD };
#define SIGNALS (sizeof signal_numbers / sizeof signal_numbers[0])

static void mask_signals(int how)
{
	sigset_t ours;
	(void)sigemptyset(&ours);
	for (size_t i = 0; i < SIGNALS; i++)
		(void)sigaddset(&ours, signal_numbers[i]);
	(void)pthread_sigmask(how, &ours, NULL);
}

void loop_hold_signals(void)
{
	mask_signals(SIG_BLOCK);
}

static void init_signals(struct loop *loop)
{
	for (size_t i = 0; i < SIGNALS; i++) {
		(void)uv_signal_init(&loop->uv, &loop->signals[i]);
		loop->signals[i].data = loop;
		(void)uv_signal_start(&loop->signals[i], on_signal, signal_numbers[i]);
	}
	mask_signals(SIG_UNBLOCK);
}

static int init(struct loop *loop)
{
	if (uv_loop_init(&loop->uv) != 0)
		return EX_OSERR;
	loop->has_loop = true;
	loop->uv.data = loop;
	init_timer(loop, &loop->curl_timer);
	init_timer(loop, &loop->stuck_timer);
	init_timer(loop, &loop->rest_timer);
	init_timer(loop, &loop->alarm);
	init_timer(loop, &loop->poll_timer);
	init_timer(loop, &loop->stop_timer);
	init_timer(loop, &loop->tick);
	init_timer(loop, &loop->hook_timer);
	init_timer(loop, &loop->network_timer);
	(void)uv_prepare_init(&loop->uv, &loop->turn);
	loop->turn.data = loop;
	(void)uv_prepare_start(&loop->turn, on_turn);
	loop->timers_open = true;
	if (uv_mutex_init(&loop->mutex) != 0)
		return EX_OSERR;
	if (uv_cond_init(&loop->wanted) != 0) {
		uv_mutex_destroy(&loop->mutex);
		return EX_OSERR;
	}
	loop->has_locks = true;
	if (uv_async_init(&loop->uv, &loop->done, on_done) != 0)
		return EX_OSERR;
	loop->done.data = loop;
	init_signals(loop);
	loop->recheck_file = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (loop->recheck_file < 0 ||
	    uv_poll_init(&loop->uv, &loop->recheck, loop->recheck_file) != 0)
		return EX_OSERR;
	loop->recheck.data = loop;
	(void)uv_poll_start(&loop->recheck, UV_READABLE, on_recheck);

	loop->multi = curl_multi_init();
	if (loop->multi == NULL)
		return EX_OSERR;
	(void)curl_multi_setopt(loop->multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
	(void)curl_multi_setopt(loop->multi, CURLMOPT_SOCKETDATA, loop);
	(void)curl_multi_setopt(loop->multi, CURLMOPT_TIMERFUNCTION, set_curl_timer);
	(void)curl_multi_setopt(loop->multi, CURLMOPT_TIMERDATA, loop);
	(void)curl_multi_setopt(loop->multi, CURLMOPT_MAXCONNECTS, (long)loop->config->connections);

	/* A configuration that libcurl cannot use is said now, not at the first row. */
	const char *error = NULL;
	for (size_t i = SLOTS; i > 0; i--)
		give_back(loop, &loop->slots[i - 1]);
	if (!ready_slot(loop, loop->free_slots, &error)) {
		log_line(&loop->options->log, LOG_ERROR, error);
		return EX_CONFIG;
	}
	if (uv_thread_create(&loop->worker, work, loop) != 0)
		return EX_OSERR;
	loop->has_worker = true;
	return EX_OK;
}

static void close_handle(uv_handle_t *handle, void *context)
{
	(void)context;
	if (!uv_is_closing(handle))
		uv_close(handle, handle->type == UV_NAMED_PIPE && handle->data != handle->loop->data
		                         ? on_visitor_closed
		                         : NULL);
}

/* Lets the worker end its job, for as long as is left of the time to stop; true
 * when it has. A disk that hangs must not keep the program from ending. */
static bool end_worker(struct loop *loop)
{
	int64_t left = loop->stop_at + STOP_LIMIT - world_now(NULL);
	uv_mutex_lock(&loop->mutex);
	loop->quit = true;
	uv_cond_signal(&loop->wanted);
	while ((loop->job != NULL || loop->tidying) && left > 0) {
		uv_mutex_unlock(&loop->mutex);
		struct timespec moment = { 0, 5000000 };
		(void)nanosleep(&moment, NULL);
		uv_mutex_lock(&loop->mutex);
		left = loop->stop_at + STOP_LIMIT - world_now(NULL);
	}
	bool ended = loop->job == NULL && !loop->tidying;
	uv_mutex_unlock(&loop->mutex);
	return ended;
}

static void finish(struct loop *loop)
{
	mask_signals(SIG_BLOCK); /* it ends already */
	cancel_transfers(loop);
	end_hook(loop);
	if (loop->has_worker && !end_worker(loop)) {
		log_line(&loop->options->log, LOG_ERROR, "the storage does not answer: ending without "
		         "it; what was not settled will be sent again");
		_exit(loop->code);
	}
	loop->timers_open = false;
	forget_connections(loop);
	if (loop->multi != NULL)
		(void)curl_multi_cleanup(loop->multi);
	if (loop->has_loop) {
		uv_walk(&loop->uv, close_handle, NULL);
		while (uv_run(&loop->uv, UV_RUN_DEFAULT) != 0) {
		}
	}
	if (loop->has_loop && uv_loop_close(&loop->uv) != 0)
		log_line(&loop->options->log, LOG_ERROR, "internal: the loop did not close");
	if (loop->has_worker)
		(void)uv_thread_join(&loop->worker);
	if (loop->has_locks) {
		uv_cond_destroy(&loop->wanted);
		uv_mutex_destroy(&loop->mutex);
	}
	if (loop->notify_file >= 0)
		(void)close(loop->notify_file);
	if (loop->network_file >= 0)
		(void)close(loop->network_file);
	if (loop->recheck_file >= 0)
		(void)close(loop->recheck_file);
	if (loop->folder >= 0)
		(void)close(loop->folder);
	free(loop->spool_name);
	config_free(loop->next_config);
	ship_free(loop->ship);
	spool_close(loop->spool);
}

static int refused(const struct loop_options *options)
{
	log_line(&options->log, LOG_ERROR, "the system refuses memory, a descriptor or a thread: "
	         "nothing was sent; the records wait in the spool; try again when there is room");
	return EX_OSERR;
}

int loop_run(const struct loop_options *options, struct config **config,
             struct spool **spool, struct report *last)
{
	struct loop *loop = calloc(1, sizeof *loop);
	char stack[LOCK_STACK_SIZE];
	*last = (struct report){ .state = DESTINATION_UP };
	if (loop == NULL) {
		spool_close(*spool);
		*spool = NULL;
		return refused(options);
	}
	loop->options = options;
	loop->config = *config;
	loop->spool = *spool;
	*spool = NULL;
	loop->notify_file = loop->folder = loop->recheck_file = loop->network_file = -1;
	loop->last_socket = CURL_SOCKET_BAD;
	loop->drain_until = world_now(NULL) + options->wait;
	loop->stop_at = world_now(NULL);

	char *spent = spool_note(loop->spool, "traffic");
	struct ship_world world = {
		.self = loop, .now = turn_now, .wall = world_wall, .zone = world_zone,
		.random = world_random, .work = world_work, .post = world_post, .alarm = world_alarm,
		.suspect = world_suspect, .say = world_say,
		.tell = options->last_id == INT64_MAX ? world_tell : NULL
	};
	struct ship_options ship_options = {
		.careful = options->lock->crashed,
		.condemned = options->lock->crashes >= LOCK_CRASHES_MAX ? options->lock->suspect : NULL,
		.last_id = options->last_id,
		.spent = spent,
		.told = options->told
	};
	lock_lend_stack(stack);
	bool has_curl = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
	int code = has_curl ? init(loop) : EX_OSERR;
	if (code == EX_OK && (loop->ship = ship_new(loop->config, &world, &ship_options)) == NULL)
		code = EX_OSERR;
	free(spent);
	if (code == EX_OK) {
		watch_spool(loop);
		open_socket(loop);
		open_network(loop);
		int64_t poll = loop->spool_watch < 0 ? 1000 : SAFETY_POLL;
		if (options->notify.watchdog > 0 && options->notify.watchdog / 2 < poll)
			poll = options->notify.watchdog / 2;
		if (options->last_id == INT64_MAX)
			arm(&loop->poll_timer, on_poll, poll, (uint64_t)poll);
		else
			arm(&loop->tick, on_tick, 1000, 1000);
		ship_wake(loop->ship);
		notify_ready(&options->notify);
		(void)uv_run(&loop->uv, UV_RUN_DEFAULT);
		ship_report(loop->ship, last);
		code = loop->code;
	}
	loop->code = code;
	finish(loop);
	if (has_curl)
		curl_global_cleanup();
	lock_lend_stack(NULL);
	*config = loop->config;
	free(loop);
	return code == EX_OSERR ? refused(options) : code;
}
