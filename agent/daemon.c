/* Run and drain; see daemon.h. */
#include "agent/daemon.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "agent/client.h"
#include "agent/limits.h"
#include "agent/lock.h"
#include "agent/log.h"
#include "agent/loop.h"
#include "agent/pause.h"
#include "agent/ship.h"
#include "agent/progress.h"
#include "agent/status.h"

#define WATCH_INTERVAL_MS 200
#define DESCRIPTORS_MIN 40

/* libcurl opens these at the first handshake only, and then blames the endpoint's
 * certificate. A malloc'd sentence, or NULL when all can be read. */
static char *unreadable_file(const struct config *config)
{
	const struct {
		const char *key, *path;
	} files[] = { { "ca_file", config->ca_file },
		      { "client_cert", config->client_cert },
		      { "client_key", config->client_key } };
	char *sentence = NULL;
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
		if (files[i].path != NULL && files[i].path[0] != '\0' &&
		    access(files[i].path, R_OK) != 0 && sentence == NULL &&
		    asprintf(&sentence, "%s: [endpoint] %s: %s: %s",
		             config->file != NULL ? config->file : "configuration", files[i].key,
		             files[i].path, strerror(errno)) < 0)
			sentence = NULL;
	return sentence;
}

/* The lock, the socket and the -wal stand beside the file itself: by way of a link
 * to it, two agents would not know of each other. False: no memory. */
static bool follow_link(struct config *config)
{
	struct stat about;
	if (lstat(config->spool_path, &about) != 0 || !S_ISLNK(about.st_mode))
		return true;
	char *path = realpath(config->spool_path, NULL);
	if (path == NULL)
		return errno != ENOMEM; /* a link to nowhere: opening it says so */
	free(config->spool_path);
	config->spool_path = path;
	return true;
}

int daemon_configure(const struct daemon_call *call, struct config **config, char **error)
{
	int code = config_read(call->config_file, config, error);
	if (code != EX_OK)
		return code;
	if (call->spool_path != NULL)
		config_set_spool(*config, call->spool_path);
	if (!follow_link(*config)) {
		config_free(*config);
		*error = NULL;
		return EX_OSERR;
	}
	config_load_keys(*config);
	*error = unreadable_file(*config);
	if (*error == NULL)
		return EX_OK;
	config_free(*config);
	*config = NULL;
	return EX_CONFIG;
}

static struct config *reload(void *context, char **error)
{
	struct config *config = NULL;
	return daemon_configure(context, &config, error) == EX_OK ? config : NULL;
}

static void ignore_signals(void)
{
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN); /* a file size limit shows as an error of the write */
}

static int complain(int code, const char *subject, const char *problem)
{
	(void)fprintf(stderr, "reconify-agent: %s%s\n", subject, problem);
	return code;
}

/* libuv and libcurl end badly where descriptors run out, so they are counted
 * before. */
static int need_descriptors(const struct config *config)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return EX_OK;
	rlim_t wanted = (rlim_t)config->connections * 4 + 64;
	if (limit.rlim_cur < wanted) {
		limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (limit.rlim_cur >= DESCRIPTORS_MIN)
		return EX_OK;
	(void)fprintf(stderr, "reconify-agent: only %lu file descriptors are allowed, at least %d "
	              "are needed: raise the limit (ulimit -n, LimitNOFILE=)\n",
	              (unsigned long)limit.rlim_cur, DESCRIPTORS_MIN);
	return EX_OSERR;
}

/* The endpoint for a log line: a query could hold a secret. */
static void endpoint_in_words(const struct config *config, char *into, size_t size)
{
	(void)snprintf(into, size, "%.*s", (int)strcspn(config->url, "?"), config->url);
}

static int need_url(const struct config *config)
{
	if (config->url != NULL)
		return EX_OK;
	(void)fprintf(stderr, "reconify-agent: no endpoint is configured: set url in [endpoint] of "
	              "%s, or RECONIFY_ENDPOINT\n",
	              config->file != NULL ? config->file : CONFIG_DEFAULT_FILE);
	return EX_CONFIG;
}

/* Opens the spool and takes its lock. 75 with `*holder` set: another agent runs. */
static int take_spool(const struct config *config, enum spool_mode mode, struct spool **spool,
                      struct lock *lock, pid_t *holder)
{
	struct spool_error error;
	*holder = 0;
	*spool = spool_open(config->spool_path, mode, config->max_record + SPOOL_ROW_SLACK, &error);
	if (*spool == NULL)
		return complain(status_exit_code(error.status), error.sentence, "");
	enum lock_result result = lock_take(lock, config->spool_path, holder);
	if (result == LOCK_TAKEN)
		return EX_OK;
	int reason = errno;
	spool_close(*spool);
	*spool = NULL;
	if (result == LOCK_HELD)
		return EX_TEMPFAIL;
	(void)fprintf(stderr, "reconify-agent: %s-agent.lock: cannot be locked: %s\n",
	              config->spool_path, strerror(reason));
	return reason == EACCES || reason == EPERM || reason == EROFS ? EX_NOPERM : EX_IOERR;
}

static void apply_limits(struct spool *spool, const struct config *config,
                         const struct log *log)
{
	if (spool_set_limits(spool, config->max_spool, config->max_record,
	                     config->when_full == WHEN_FULL_DROP_OLDEST) != SPOOL_OK) {
		char sentence[800];
		(void)snprintf(sentence, sizeof sentence, "the limits of [spool] could not be written "
		               "down and are as before: %s", spool_last_error(spool)->sentence);
		log_line(log, LOG_WARNING, sentence);
	}
}

int daemon_run(const struct daemon_call *call, struct config *config)
{
	struct spool *spool = NULL;
	struct lock lock;
	struct report last;
	pid_t holder;
	char endpoint[256], sentence[1024];

	ignore_signals();
	int code = need_url(config);
	if (code == EX_OK)
		code = need_descriptors(config);
	if (code == EX_OK)
		code = take_spool(config, SPOOL_CREATE, &spool, &lock, &holder);
	if (code != EX_OK) {
		if (code == EX_TEMPFAIL && holder > 0)
			(void)fprintf(stderr, "reconify-agent: %s: another agent has this spool already "
			              "(pid %ld); this one ends\n", config->spool_path, (long)holder);
		else if (code == EX_TEMPFAIL && holder < 0)
			(void)fprintf(stderr, "reconify-agent: %s: another process holds its lock; this "
			              "agent ends\n", config->spool_path);
		config_free(config);
		return code;
	}

	loop_hold_signals();
	struct log log = log_open(config, LOG_DEBUG);
	apply_limits(spool, config, &log);
	lock_note_crashes(&lock);
	endpoint_in_words(config, endpoint, sizeof endpoint);
	(void)snprintf(sentence, sizeof sentence, "version %s: shipping %s to %s",
	               RECONIFY_VERSION, config->spool_path, endpoint);
	log_line(&log, LOG_INFO, sentence);
	if (lock.crashed)
		log_line(&log, LOG_WARNING, "the agent crashed before: one record at a time for a while, "
		         "to find out whether one of them is the cause");

	struct daemon_call again = *call;
	struct loop_options options = {
		.spool_path = config->spool_path, .lock = &lock, .log = log, .last_id = INT64_MAX,
		.reload = reload, .context = &again
	};
	char *told = spool_note(spool, SHIP_TOLD_NOTE);
	options.told = told;
	notify_open(&options.notify);
	/* The loop may replace the configuration, but never the spool. */
	char *path = strdup(config->spool_path);
	if (path == NULL) {
		spool_close(spool);
		code = complain(EX_OSERR, "", "no memory");
	} else {
		options.spool_path = path;
		code = loop_run(&options, &config, &spool, &last);
	}
	notify_close(&options.notify);
	lock_release(&lock);
	log_close(&log);
	free(told);
	free(path);
	config_free(config);
	return code;
}

/* --- Drain -------------------------------------------------------------- */

struct drain {
	struct daemon_call call;
	struct spool *watch; /* for looking on */
	int64_t last_id;
	struct spool_ledger before;
	bool shows;
	struct progress progress;
};

static int64_t monotonic_ms(void)
{
	struct timespec time;
	if (clock_gettime(CLOCK_MONOTONIC, &time) != 0)
		return 0;
	return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static int64_t wall_ms(void)
{
	struct timespec time;
	if (clock_gettime(CLOCK_REALTIME, &time) != 0)
		return 0;
	return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static void begin_progress(struct drain *drain)
{
	if (drain->shows)
		progress_begin(&drain->progress, stderr, drain->before.waiting, monotonic_ms());
}

static void end_progress(struct drain *drain)
{
	if (drain->shows)
		progress_end(&drain->progress);
}

static void show_progress(void *context)
{
	struct drain *drain = context;
	struct spool_ledger ledger;
	if (!drain->shows || spool_read_ledger(drain->watch, -1, &ledger) != SPOOL_OK)
		return;
	/* What came since its start is not this drain's. */
	int64_t left = ledger.waiting - (ledger.accepted - drain->before.accepted);
	progress_show(&drain->progress, drain->before.waiting - (left > 0 ? left : 0),
	              monotonic_ms());
}

static struct config *reload_drain(void *context, char **error)
{
	const struct drain *drain = context;
	struct daemon_call call = drain->call;
	return reload(&call, error);
}

/* True when a row that waited at the start still waits. */
static bool something_left(struct spool *spool, int64_t last_id)
{
	struct spool_place place;
	enum spool_status status = spool_begin_read(spool);
	if (status == SPOOL_OK)
		status = spool_next(spool, SPOOL_FIRST_ID, last_id, &place);
	spool_end_read(spool);
	return status != SPOOL_END;
}

/* Why something is left, on standard error. */
static void say_why(const struct report *report)
{
	char wait[LIMITS_WORDS_SIZE];
	bool said = report->state != DESTINATION_UP || report->retrying_id != 0 ||
	            report->storage[0] != '\0' || report->damaged_from != 0;
	if (report->state == DESTINATION_PAUSED)
		(void)fprintf(stderr, "reconify-agent: paused: %s\n", report->reason);
	else if (report->state != DESTINATION_UP)
		(void)fprintf(stderr, "reconify-agent: the endpoint is %s: %s\n",
		              report_state_name(report->state), report->reason);
	limits_wait_words(report, wall_ms(), wait);
	if (wait[0] != '\0')
		(void)fprintf(stderr, "reconify-agent: %s\n", wait);
	for (size_t i = 0; i < report->app_count; i++)
		if (report->apps[i].held) {
			(void)fprintf(stderr, "reconify-agent: app %s is held: %s\n", report->apps[i].name,
			              report->apps[i].reason);
			said = true;
		}
	if (report->retrying_id != 0)
		(void)fprintf(stderr, "reconify-agent: record %" PRId64 "%s fails by itself: %s\n",
		              report->retrying_id, report->retrying > 1 ? " (and others)" : "",
		              report->retrying_reason);
	if (report->storage[0] != '\0')
		(void)fprintf(stderr, "reconify-agent: %s\n", report->storage);
	if (!said && wait[0] == '\0')
		(void)fprintf(stderr, "reconify-agent: not all that waits was come to: 'reconify-agent status' "
		              "says what is in the way, and 'check' looks for damage\n");
}

/* What came of it, on standard error; the exit code. */
static int conclude(const struct drain *drain, const struct report *report)
{
	struct spool_ledger after;
	enum spool_status looked = spool_read_ledger(drain->watch, -1, &after);
	if (looked != SPOOL_OK && (looked != SPOOL_DAMAGED || report->damaged_from == 0))
		return complain(status_exit_code(spool_last_error(drain->watch)->status),
		                spool_last_error(drain->watch)->sentence, "");
	int64_t delivered = after.delivered - drain->before.delivered;
	int64_t dead = after.dead - drain->before.dead;
	bool left = something_left(drain->watch, drain->last_id);
	(void)fprintf(stderr, "reconify-agent: %" PRId64 " delivered, %" PRId64
	              " became dead letters, %" PRId64 " waiting\n", delivered, dead > 0 ? dead : 0,
	              after.waiting);
	if (!left && dead <= 0)
		return EX_OK;
	if (left)
		say_why(report);
	if (dead > 0)
		(void)fprintf(stderr, "reconify-agent: 'reconify-agent list --dead' says why\n");
	if (left && report->damaged_from != 0) {
		(void)fprintf(stderr, "reconify-agent: the spool is damaged, and some records cannot be "
		              "read: run 'reconify-agent init --salvage'\n");
		return EX_DATAERR;
	}
	return left && report->storage[0] != '\0' && !report->locked ? EX_IOERR : EX_TEMPFAIL;
}

/* Says that a person wants nothing to be sent, where it is so. */
static int need_no_pause(struct spool *spool, const char *path)
{
	int64_t since;
	if (pause_read(spool, &since) != SPOOL_OK)
		return complain(status_exit_code(spool_last_error(spool)->status),
		                spool_last_error(spool)->sentence, "");
	return since < 0 ? EX_OK
	                 : complain(EX_TEMPFAIL, path, ": paused, nothing was sent: "
	                            "'reconify-agent resume' lets it go on");
}

/* Beside a running agent: that one ships, this one looks on. */
static int watch_agent(struct drain *drain, const struct config *config, int64_t wait)
{
	struct report report = { .state = DESTINATION_UP };
	int64_t end = monotonic_ms() + wait;
	if (!client_ask(config->spool_path, CLIENT_TRY_NOW, &report))
		return complain(EX_TEMPFAIL, config->spool_path,
		                ": another agent has this spool, but does not answer");
	begin_progress(drain);
	for (;;) {
		const struct timespec moment = { 0, WATCH_INTERVAL_MS * 1000000L };
		(void)nanosleep(&moment, NULL);
		if (!something_left(drain->watch, drain->last_id))
			break;
		if (!client_ask(config->spool_path, CLIENT_STATUS, &report)) {
			end_progress(drain);
			return complain(EX_TEMPFAIL, config->spool_path,
			                ": the agent of this spool has ended; try again");
		}
		if (report.quiet && (report.state == DESTINATION_PAUSED || monotonic_ms() >= end))
			break;
		show_progress(drain);
	}
	end_progress(drain);
	return conclude(drain, &report);
}

int daemon_drain(const struct daemon_call *call, struct config *config, bool progress,
                 int64_t wait)
{
	struct spool *spool = NULL;
	struct spool_error error;
	struct lock lock;
	struct report last;
	pid_t holder = 0;
	struct drain drain = { .call = *call, .shows = progress };
	char *path = strdup(config->spool_path);

	ignore_signals();
	if (path == NULL) {
		config_free(config);
		return complain(EX_OSERR, "", "no memory");
	}
	drain.call.spool_path = path;
	int code = take_spool(config, SPOOL_WORK, &spool, &lock, &holder);
	if (code != EX_OK && holder == 0)
		goto end;
	drain.watch = spool_open(config->spool_path, SPOOL_READ, config->max_record, &error);
	enum spool_status looked = drain.watch == NULL
		? error.status : spool_read_ledger(drain.watch, -1, &drain.before);
	/* Damaged counters are no reason to leave the records where they are. */
	if (looked != SPOOL_OK && (drain.watch == NULL || looked != SPOOL_DAMAGED)) {
		if (drain.watch != NULL)
			error = *spool_last_error(drain.watch);
		code = complain(status_exit_code(error.status), error.sentence, "");
		spool_close(spool);
		if (holder == 0)
			lock_release(&lock);
		goto end;
	}
	/* Where a damaged page hides the last one; to the loop, INT64_MAX is a life without end. */
	drain.last_id = drain.before.last_id < INT64_MAX ? drain.before.last_id : INT64_MAX - 1;
	code = need_no_pause(drain.watch, config->spool_path);
	if (code != EX_OK) {
		spool_close(spool);
		if (holder == 0)
			lock_release(&lock);
		goto end;
	}
	if (holder != 0) {
		code = watch_agent(&drain, config, wait);
		goto end;
	}
	code = need_url(config);
	if (code == EX_OK)
		code = need_descriptors(config);
	if (code == EX_OK && drain.last_id != SPOOL_FIRST_ID) {
		struct log log = log_open(config, LOG_WARNING);
		apply_limits(spool, config, &log);
		lock_note_crashes(&lock);
		begin_progress(&drain);
		struct loop_options options = {
			.spool_path = drain.call.spool_path, .lock = &lock, .log = log,
			.last_id = drain.last_id, .wait = wait, .progress = show_progress,
			.notify = { .socket = -1 },
			.reload = reload_drain, .context = &drain
		};
		code = loop_run(&options, &config, &spool, &last);
		log_close(&log);
	} else {
		last = (struct report){ .state = DESTINATION_UP };
		spool_close(spool);
	}
	lock_release(&lock);
	end_progress(&drain);
	if (code == EX_OK)
		code = conclude(&drain, &last);
	/* Who looked on leaves a -wal behind; the last to leave copies it back, so that the
	 * file by itself is all there is. */
	spool_close(drain.watch);
	drain.watch = NULL;
	spool_close(spool_open(drain.call.spool_path, SPOOL_WORK, SPOOL_ROW_SLACK, &error));
end:
	spool_close(drain.watch);
	config_free(config);
	free(path);
	return code;
}
