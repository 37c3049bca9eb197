/* THE FLOW of a record: wake, claim, build, post, classify, settle.
 *
 * Everything outside is reached through struct ship_world, so that the daemon
 * and a simulation drive the same code. One thread calls all of this; nothing
 * here blocks, sleeps or looks at a clock of its own.
 *
 * What must never happen: a row is settled without a verdict; a record is sent
 * before an earlier one of its session has its verdict; a failure of the
 * destination is held against a record.
 */
#ifndef AGENT_SHIP_H
#define AGENT_SHIP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/config.h"
#include "agent/events.h"
#include "agent/job.h"
#include "agent/policy.h"
#include "agent/report.h"

/* One record to be posted. All is borrowed until ship_answered() for its ticket
 * or ship_free(). */
struct ship_post {
	void *ticket;
	const char *payload;
	size_t size;
	const char *uuid; /* 32 hex digits and a NUL */
};

/* What the flow needs of the world. None of these may call back into the flow
 * before it has returned. */
struct ship_world {
	void *self;
	int64_t (*now)(void *self);     /* ms, monotonic */
	int64_t (*wall)(void *self);    /* ms since 1970 */
	int64_t (*zone)(void *self, int64_t wall); /* ms that local time is ahead of it; NULL: 0 */
	uint64_t (*random)(void *self);
	/* Does job_run() elsewhere; ship_worked() follows. One at a time. */
	void (*work)(void *self, struct job *job);
	/* Posts; exactly one ship_answered() follows. */
	void (*post)(void *self, const struct ship_post *post);
	/* ship_alarm() is to be called at this time (replaces an earlier wish);
	 * INT64_MAX: not needed. */
	void (*alarm)(void *self, int64_t at);
	/* While careful: this record is about to be built or sent ("uuid"), or that went
	 * well (NULL). On return it is written down. Called by the thread that does the
	 * job, too; never by two at once. */
	void (*suspect)(void *self, const char *uuid);
	/* Something is to be told a person, once; all is borrowed. NULL: nobody listens. */
	void (*tell)(void *self, const struct event *event);
	/* For the log: one sentence, about a change, never about each failure. */
	void (*say)(void *self, enum config_log_level level, const char *sentence);
};

/* The name of the note in the spool that says what was told. */
#define SHIP_TOLD_NOTE "told"

struct ship_options {
	bool careful;         /* the agent crashed before: one record at a time for a while */
	const char *told;     /* the note SHIP_TOLD_NOTE as it stands in the spool, or NULL */
	const char *condemned; /* a uuid that crashed the agent three times, or NULL */
	const char *spent;     /* the note "traffic" of the spool, NULL: there is none */
	int64_t last_id;       /* ship rows up to this id; INT64_MAX: all, for ever */
};

struct ship;

/* A flow at its start. `config` and `world` are borrowed; `config` until
 * ship_reload() or ship_free(). NULL when there is no memory. */
struct ship *ship_new(const struct config *config, const struct ship_world *world,
                      const struct ship_options *options);

/* Frees all. No job may be running, and no post be in flight, elsewhere. */
void ship_free(struct ship *ship);

/* The spool may have changed. Cheap; may be called for nothing. */
void ship_wake(struct ship *ship);

/* A person, or the network's return, asks to try everything now. */
void ship_try_now(struct ship *ship);

/* A person paused the spool at that time (ms since 1970), or (-1) lets it go on: what is
 * on its way ends, and nothing else is posted. Both stand in the spool already. */
void ship_set_pause(struct ship *ship, int64_t since);

/* A person took records away: whatever was read before is read again, or is gone, so
 * that nothing is sent from memory but what is on its way already. Then likewise. */
void ship_forget(struct ship *ship);

/* The time wished for by alarm() has come, or one or more answers were taken in: does
 * whatever is due now. */
void ship_go_on(struct ship *ship);

/* The job handed to work() is done. */
void ship_worked(struct ship *ship, struct job *job);

/* The post with this ticket has ended. `answer` is borrowed. ship_go_on() must follow,
 * once for any number of answers. */
void ship_answered(struct ship *ship, void *ticket, const struct answer *answer);

/* No further posts: settle what has a verdict and become quiet. */
void ship_stop(struct ship *ship);

/* True when no job runs, nothing is in flight and nothing waits to be settled
 * that could be (after ship_stop()). */
bool ship_is_stopped(const struct ship *ship);

/* True when nothing more can be done before a retry is due or a row arrives:
 * everything has been tried that can be. Before the first scan: false. */
bool ship_is_quiet(const struct ship *ship);

/* True while records wait for the destination to come back, and its server did not ask
 * for just that. */
bool ship_waits_for_network(const struct ship *ship);

/* The network may be back: a destination that is not up is tried now, with one record. */
void ship_try_network(struct ship *ship);

/* Takes another configuration. The old one may be freed when this returns true;
 * false: a job is using it, call again after ship_worked(). */
bool ship_reload(struct ship *ship, const struct config *config);

/* Another number whenever something that ship_report() tells has changed its state. */
uint64_t ship_news(const struct ship *ship);

/* The ledger's figures, as of the last look: within a second while much is going on. */
struct figures ship_figures(const struct ship *ship);

/* What is going on. */
void ship_report(const struct ship *ship, struct report *report);

#endif
