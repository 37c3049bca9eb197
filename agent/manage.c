/* Retry, discard and purge; pause and resume; see manage.h. */
#include "agent/manage.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "agent/around.h"
#include "agent/client.h"
#include "agent/lock.h"
#include "agent/pause.h"
#include "agent/status.h"

/* Records in one transaction: a producer without a timeout must be lucky, or wait. */
#define BATCH 128
#define BUSY_TRIES 10
/* Producers' examples wait 5 s for a lock. */
#define EMPTY_LOG_PATIENCE 4000

struct work {
	struct spool *spool;
	enum spool_change_kind kind;
	const struct selection *selection;
	const char *name; /* of the command, for sentences */
	int64_t done, refused;
	bool damaged; /* something could not be read, which was said */
	int64_t wall;
	int code;
};

static int complain(int code, const char *sentence)
{
	(void)fprintf(stderr, "reconify-agent: %s\n", sentence);
	return code;
}

static struct work work_for(struct spool *spool, enum spool_change_kind kind, const char *name,
                            const struct selection *selection)
{
	struct work work = { .spool = spool, .kind = kind, .selection = selection, .name = name };
	struct timespec time;
	if (clock_gettime(CLOCK_REALTIME, &time) == 0)
		work.wall = (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
	return work;
}

static bool spool_failed(struct work *work, enum spool_status status)
{
	if (status == SPOOL_OK || status == SPOOL_END)
		return false;
	work->code = complain(status_exit_code(status), spool_last_error(work->spool)->sentence);
	return true;
}

/* Applies a batch. False: it failed, and nothing of it is done. */
static bool apply(struct work *work, struct spool_change *changes, size_t count)
{
	enum spool_status status = SPOOL_BUSY;
	for (int i = 0; status == SPOOL_BUSY && i < BUSY_TRIES; i++)
		status = spool_apply(work->spool, changes, count, work->wall);
	if (spool_failed(work, status))
		return false;
	for (size_t i = 0; i < count; i++) {
		work->done += !changes[i].missed && !changes[i].refused;
		work->refused += changes[i].refused;
		if (changes[i].refused && changes[i].damaged)
			(void)fprintf(stderr, "reconify-agent: record %" PRId64 " stays where it is, for its "
			              "part of the file is damaged: stop the agent, and run 'reconify-agent "
			              "init --salvage'\n", changes[i].id);
		else if (changes[i].refused)
			(void)fprintf(stderr, work->kind == CHANGE_REVIVED
			                  ? "reconify-agent: dead letter %" PRId64 " cannot wait again: "
			                    "another record has its id or key\n"
			                  : "reconify-agent: record %" PRId64 " cannot be taken away: "
			                    "somebody changed the spool's tables, see 'reconify-agent "
			                    "check'\n", changes[i].id);
	}
	return true;
}

/* --- What is meant ------------------------------------------------------ */

/* The next records that the filter means, from `*from` on. */
static enum spool_status find_batch(struct work *work, bool dead, int64_t *from, int64_t to,
                                    struct spool_change *changes, size_t *count)
{
	struct spool_found found;
	*count = 0;
	enum spool_status status = spool_find_begin(work->spool, dead, &work->selection->filter,
	                                            *from, to);
	while (status == SPOOL_OK && *count < BATCH) {
		status = spool_find_next(work->spool, &found);
		if (status != SPOOL_OK)
			break;
		struct spool_change *change = &changes[(*count)++];
		*change = (struct spool_change){ .kind = work->kind, .id = found.record.id,
			                         .dead = dead };
		if (found.record.uuid.size == RECORD_UUID_SIZE)
			memcpy(change->uuid, found.record.uuid.bytes, RECORD_UUID_SIZE);
		if (found.record.id == to)
			status = SPOOL_END;
		else
			*from = found.record.id + 1;
	}
	spool_find_end(work->spool);
	return status;
}

/* Does what the filter means and is there at the start; or only counts it. */
static void do_filtered(struct work *work, bool dead, int64_t *count_only)
{
	struct spool_change changes[BATCH];
	int64_t from = SPOOL_FIRST_ID, to;
	enum spool_status status = spool_last(work->spool, dead, &to);
	while (status == SPOOL_OK) {
		size_t count;
		status = find_batch(work, dead, &from, to, changes, &count);
		bool damaged = status == SPOOL_DAMAGED;
		if (damaged)
			status = around_damage(work->spool, dead, &from, to);
		work->damaged = work->damaged || damaged;
		if (spool_failed(work, status))
			return;
		if (count_only != NULL)
			*count_only += (int64_t)count;
		else if (!apply(work, changes, count))
			return;
	}
	(void)spool_failed(work, status);
}

static void do_ids(struct work *work)
{
	const struct selection *selection = work->selection;
	for (size_t i = 0; i < selection->id_count; i++) {
		struct spool_change change = { .kind = work->kind, .id = selection->ids[i], .dead = true };
		if (!apply(work, &change, 1))
			return;
		if (change.missed && work->kind != CHANGE_REVIVED) {
			change.dead = false;
			if (!apply(work, &change, 1))
				return;
		}
		if (!change.missed)
			continue;
		(void)fprintf(stderr, work->kind == CHANGE_REVIVED
		                  ? "reconify-agent: there is no dead letter %" PRId64 "\n"
		                  : "reconify-agent: no record %" PRId64 " waits or is a dead letter\n",
		              selection->ids[i]);
		work->code = EX_DATAERR;
	}
}

/* --- Asking ------------------------------------------------------------- */

/* EX_OK: go on. */
static int confirm(const char *name, const char *what, bool yes)
{
	char answer[16];
	if (yes)
		return EX_OK;
	if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
		(void)fprintf(stderr, "reconify-agent: %s asks on a terminal, and here is none: give "
		              "--yes; nothing was changed\n", name);
		return EX_USAGE;
	}
	(void)fprintf(stderr, "%s? They are gone for ever then. [y/N] ", what);
	const char *given = fgets(answer, sizeof answer, stdin);
	if (given != NULL && (answer[0] == 'y' || answer[0] == 'Y'))
		return EX_OK;
	/* After Ctrl-D the cursor still stands behind the question. */
	(void)fprintf(stderr, "%sreconify-agent: nothing was changed\n", given == NULL ? "\n" : "");
	return EX_TEMPFAIL;
}

/* --- Telling ------------------------------------------------------------ */

static const char *counted(int64_t count, const char *one, const char *many)
{
	return count == 1 ? one : many;
}

static int conclude(struct work *work, const char *outcome)
{
	/* A filter of discard means dead letters alone, which somebody who had others in mind reads
	 * here. */
	bool dead = work->kind == CHANGE_DISCARDED && work->selection->id_count == 0;
	(void)printf("%" PRId64 " %s %s\n", work->done,
	             dead ? counted(work->done, "dead letter", "dead letters")
	                  : counted(work->done, "record", "records"), outcome);
	return work->code != EX_OK ? work->code
	       : work->refused > 0 || work->damaged ? EX_DATAERR : EX_OK;
}

/* Wakes a running agent, or makes it forget. */
static void tell_agent(const struct config *config, enum client_request request)
{
	struct report report;
	if (client_ask(config->spool_path, request, &report) || lock_holder(config->spool_path) == 0)
		return;
	(void)fprintf(stderr, request == CLIENT_FORGET
	                  ? "reconify-agent: the running agent does not answer: what it had read "
	                    "already it may still send; restart it\n"
	                  : "reconify-agent: the running agent does not answer: it will find them "
	                    "by itself, or after a restart\n");
}

int manage_retry(const struct config *config, struct spool *spool,
                 const struct selection *selection)
{
	struct work work = work_for(spool, CHANGE_REVIVED, "retry", selection);
	if (selection->id_count > 0)
		do_ids(&work);
	else
		do_filtered(&work, true, NULL);
	if (work.done > 0)
		tell_agent(config, CLIENT_TRY_NOW);
	return conclude(&work, work.done == 1 ? "waits again" : "wait again");
}

int manage_discard(const struct config *config, struct spool *spool,
                   const struct selection *selection)
{
	struct work work = work_for(spool, CHANGE_DISCARDED, "discard", selection);
	char what[80];
	int64_t count = (int64_t)selection->id_count;
	bool asked = !selection->yes && isatty(STDIN_FILENO);
	if (selection->id_count == 0 && asked)
		do_filtered(&work, true, &count);
	(void)snprintf(what, sizeof what, "Discard %" PRId64 " %s", count,
	               selection->id_count > 0 ? counted(count, "record", "records")
	                                       : counted(count, "dead letter", "dead letters"));
	if (asked && count == 0 && work.code == EX_OK)
		return conclude(&work, "discarded"); /* there is nothing to ask about */
	int code = work.code != EX_OK ? work.code : confirm(work.name, what, selection->yes);
	if (code != EX_OK)
		return code;
	if (selection->id_count > 0)
		do_ids(&work);
	else
		do_filtered(&work, true, NULL);
	if (work.done > 0)
		tell_agent(config, CLIENT_FORGET);
	return conclude(&work, "discarded");
}

int manage_purge(const struct config *config, struct spool *spool,
                 const struct selection *selection)
{
	struct work work = work_for(spool, CHANGE_PURGED, "purge", selection);
	char what[80];
	int64_t waiting = 0, dead = 0;
	bool asked = !selection->yes && isatty(STDIN_FILENO);
	if (asked) {
		do_filtered(&work, false, &waiting);
		do_filtered(&work, true, &dead);
	}
	(void)snprintf(what, sizeof what, "Purge %" PRId64 " waiting and %" PRId64 " dead records",
	               waiting, dead);
	bool none = asked && waiting + dead == 0; /* nothing to ask about, nor to take away */
	int code = work.code != EX_OK ? work.code
	           : none             ? EX_OK
	                              : confirm(work.name, what, selection->yes);
	if (code != EX_OK)
		return code;
	if (spool_failed(&work, spool_overwrite(spool, true)))
		return work.code;
	/* In this order: what dies meanwhile is met as a dead letter. */
	if (!none)
		do_filtered(&work, false, NULL);
	if (!none && work.code == EX_OK)
		do_filtered(&work, true, NULL);
	tell_agent(config, CLIENT_FORGET);
	/* Also where nothing was found: perhaps an earlier purge could not end it. */
	enum spool_status status = spool_empty_log(spool, work.wall, EMPTY_LOG_PATIENCE);
	if (status == SPOOL_BUSY)
		work.code = complain(EX_TEMPFAIL, "they are overwritten in the spool, but a program that "
		                     "reads or writes keeps old copies in the -wal: repeat this purge");
	else
		(void)spool_failed(&work, status);
	return conclude(&work, "purged");
}

/* --- Pause and resume ---------------------------------------------------- */

static int set_pause(const struct config *config, struct spool *spool, bool pause)
{
	int64_t before, now = 0;
	struct timespec time;
	struct report report;
	if (clock_gettime(CLOCK_REALTIME, &time) == 0)
		now = (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
	enum spool_status status = pause_read(spool, &before);
	bool news = (before >= 0) != pause;
	if (status == SPOOL_OK && news)
		status = pause_write(spool, pause ? now : -1, now);
	if (status != SPOOL_OK)
		return complain(status_exit_code(status), spool_last_error(spool)->sentence);
	const char *was = news ? "" : pause ? "was paused already; " : "was not paused; ";
	const char *is = pause ? "nothing is sent until 'resume'; inserts go on being accepted"
	                       : "records are sent again";
	/* Also where it was so already: an earlier call may have reached nobody. */
	if (lock_holder(config->spool_path) == 0) {
		(void)printf("%s: %s%s\n", config->spool_path, was,
		             pause ? is : "records are sent as soon as the agent runs");
		return EX_OK;
	}
	if (!client_ask(config->spool_path, pause ? CLIENT_PAUSE : CLIENT_RESUME, &report)) {
		(void)fprintf(stderr, "reconify-agent: %s: this is written down, but the agent that runs "
		              "does not answer; it takes it over when it is reloaded or restarted "
		              "(systemctl reload reconify-agent)\n", config->spool_path);
		return EX_TEMPFAIL;
	}
	(void)printf("%s: %s%s\n", config->spool_path, was, is);
	if (pause && report.in_flight > 0)
		(void)printf("%" PRId64 " under way already, which will end\n", report.in_flight);
	return EX_OK;
}

int manage_pause(const struct config *config, struct spool *spool)
{
	return set_pause(config, spool, true);
}

int manage_resume(const struct config *config, struct spool *spool)
{
	return set_pause(config, spool, false);
}
