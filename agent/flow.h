/* What the two files of the flow share: ship.c, which knows what answers mean and
 * when to send, and claim.c, which knows what to settle and read next. Nobody
 * else includes this.
 */
#ifndef AGENT_FLOW_H
#define AGENT_FLOW_H

#include "agent/breaker.h"
#include "agent/budget.h"
#include "agent/events.h"
#include "agent/rate.h"
#include "agent/roster.h"
#include "agent/ship.h"

#define SETTLE_COUNT 128       /* settle at once when so many have a verdict, */
#define SETTLE_AGE 20         /* or after so many ms, or when nothing is in flight */
#define UNSETTLED_MAX 256     /* in flight and unsettled: what a crash can send twice */
#define WINDOW 192            /* records known ahead of those in flight, for as long as a disk
                                 takes to sync */
#define LOOK_FOR 64           /* so many at least by one look, while records go out */
#define WAITING_MAX 1024      /* records that fail by themselves and are kept in memory */
#define KEPT_MAX 1000
#define TRIED_MAX 16          /* sessions that a held app's probes go through in turn */
#define ACCUSED_MAX 16
#define REJECTED_MAX 10       /* in a row: then the configuration is the cause */
#define FIGURES_PACE 1000     /* ms between two looks into the ledger */
#define SWEEP_LOOK 3600000    /* ms: the host's clock may be set in between */
#define CAREFUL_RECORDS 256   /* one at a time after a crash: as many as were in memory then */

struct app {
	const char *name;
	bool held;
	bool proven;               /* its keys were taken since they are these */
	bool parked;               /* while the destination is down: others are to be probed */
	bool by_rejections;        /* held because ten in a row were rejected */
	char reason[REPORT_REASON_SIZE];
	int64_t more_from;         /* rows from this id on were passed over; INT64_MAX: none */
	int64_t probe_due;         /* INT64_MAX: only a reload helps */
	int64_t probe;             /* the record that is the probe, SPOOL_FIRST_ID: none */
	/* Probes that said nothing about the keys, because they fail by themselves: the
	 * next one is of another session, or a later record without one. */
	uint64_t tried[TRIED_MAX];
	size_t tried_count;
	int64_t tried_id;
	int64_t tried_from;        /* where the search for the next one goes on */
	struct {
		int64_t id;
		char uuid[RECORD_UUID_SIZE + 1];
	} rejected[REJECTED_MAX];
	size_t rejected_count;
	int64_t revived[REJECTED_MAX]; /* the ten that wait again */
	size_t revived_count;
};

/* A record that was answered as if keys or endpoint were wrong. */
struct accused {
	int64_t id;
	size_t app;
	uint64_t posts; /* what was sent by then says nothing about it */
	bool endpoint; /* else its app's keys */
	bool cleared;  /* another record was taken since */
};

/* A verdict to be written down. The strings of `change` live in `item`, in
 * static storage or, for a note, in `note`. */
struct verdict_note {
	struct spool_change change;
	struct item *item; /* freed when it is written; NULL: none */
	char *note;
};

struct ship {
	const struct config *config;
	struct ship_world world;
	struct breaker breaker;
	struct breaker_limits limits;
	struct budget budget;
	int64_t zone, zone_until;  /* of local time, and when to look at it again (monotonic) */
	enum budget_limit limit;   /* what lets nothing be posted until `limit_until` */
	int64_t limit_until;
	bool closed;               /* that is the calendar's, and may take hours */
	bool closed_known;         /* and is what was said last */
	bool spent_due;            /* the day's count is to be written with the next settle */
	int64_t last_id; /* rows behind this one are not for this run */

	struct roster roster;
	int64_t next_due; /* of those that wait */
	uint64_t posts;
	uint64_t newest_success;  /* the number of the latest post that was delivered */
	uint64_t posts_when_lost; /* what was sent before is no probe */
	unsigned generation;      /* of the configuration, and of what was read */
	size_t kept_count; /* records that are done with, though their rows may be there */
	size_t need; /* bytes that the next record asks for, where it did not fit */

	int64_t frontier; /* the first id never looked at */
	bool more;        /* a scan from there may find rows */
	int64_t look_again_at; /* all from the first id on, while anything is held back */
	size_t let_go; /* records that fail by themselves, and are met again only then */
	struct app apps[APP_PLACES];
	struct accused accused[ACCUSED_MAX];
	size_t accused_next;
	char unknown[JOB_UNKNOWN_NAMES][JOB_NAME_SIZE]; /* apps that nobody configured */
	size_t unknown_count;

	/* The job that runs, and what it borrows. */
	struct job *job;
	bool working;
	struct verdict_note *verdicts; /* in the order in which they came */
	size_t verdict_count, verdict_room, verdicts_in_job;
	struct spool_change *changes;
	size_t change_room;
	int64_t settle_due;
	int64_t load_ids[JOB_ENTRIES];
	struct job_skip *skips, tried[TRIED_MAX];
	size_t skip_room;
	enum job_scan scan;
	uint64_t scan_session;
	size_t scan_app;
	bool app_looked_at; /* by the last job, for a probe */

	enum spool_status storage;
	unsigned storage_failures;
	int64_t storage_retry;
	char storage_reason[REPORT_REASON_SIZE];
	int64_t damaged_from, damaged_to;

	char reason[REPORT_REASON_SIZE]; /* why the destination is not up */
	int64_t asked_until; /* the server asked not to be tried before (monotonic) */
	int64_t since, last_delivered_at, started_at;
	struct rate rate; /* of what was delivered and is settled */
	struct rate arrivals;     /* of what producers inserted, by the ledger, */
	int64_t accepted_so_far;  /* which said this last; -1: nothing yet */
	int64_t shrink_at; /* when to give free space back, INT64_MAX: there is none */
	int64_t sweep_at;  /* when what was kept long enough is looked for, INT64_MAX: nothing is kept */
	int64_t swept;     /* dead letters that went since that was last said */
	struct figures figures; /* of the ledger, when it was last read */
	bool figures_due;       /* something may have changed since, */
	int64_t figures_at;     /* but they are not read again before this time */
	struct events_told told;
	bool proven;            /* the destination was seen to work */
	int64_t paused_at; /* by a person, ms since 1970; -1: not */
	bool pause_known;  /* before that nothing is posted */
	bool pause_due;    /* it is to be read (again) */
	bool pause_told;   /* what the job that runs reads about it is old */
	/* Only where a file of metrics is configured. */
	struct metrics_file metrics;
	bool metrics_wanted;      /* something may have changed since they were written, */
	int64_t metrics_at;       /* which is not to be again before; monotonic ms */
	char metrics_error[640];
	bool limits_due; /* a reload may have changed them */
	uint64_t news;   /* how often the report has changed */
	bool report_due; /* the state changed and is not written down yet */
	bool forget_again; /* when the job that runs is done */
	unsigned careful; /* so many more verdicts with one record at a time */
	bool suspected, stopping, scanned_once;
	char condemned[RECORD_UUID_SIZE + 1];
};

static inline int64_t flow_now(const struct ship *ship)
{
	return ship->world.now(ship->world.self);
}

static inline uint64_t flow_dice(const struct ship *ship)
{
	return ship->world.random(ship->world.self);
}

static inline int64_t flow_least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* Whether anybody wants to be told of events. */
static inline bool flow_tells(const struct ship *ship)
{
	return ship->world.tell != NULL && ship->config->notify_command != NULL;
}

static inline int64_t flow_latest(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

/* One sentence for the log. */
void flow_say(const struct ship *ship, enum config_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* Nothing is to be sent from now on, since that time; -1: records go out again. */
void flow_set_pause(struct ship *ship, int64_t since);

/* Room for one more verdict; never NULL. */
struct verdict_note *flow_new_verdict(struct ship *ship);

/* What the record in hand was suspected of did not happen. */
void flow_clear_suspect(struct ship *ship);

/* While careful, nothing further is read before the record in hand is done with. */
static inline bool flow_has_hands_full(const struct ship *ship)
{
	return ship->careful > 0 && ship->roster.flying.count + ship->roster.ready.count > 0;
}

/* A record's verdict is a dead letter: its session goes on, its fate is written down. */
void flow_bury(struct ship *ship, struct item *item, const char *code, const char *sentence);

/* True while no record of the app is to be known: it is held, or parked. */
static inline bool flow_is_aside(const struct app *app)
{
	return app->held || app->parked;
}

/* Removes a record of a held app: it is met again when the app is probed. */
void flow_forget(struct ship *ship, struct item *item);

/* This record waits again, though it was done with. */
void flow_forget_done(struct ship *ship, int64_t id);

/* Holds the app at `place`; INT64_MAX: no probe can help. */
void flow_hold_app(struct ship *ship, size_t place, int64_t probe_due, const char *reason);

/* A held app's probes begin again with its first record. */
void flow_try_all_again(struct app *app);

/* Back to where a job can build it again. */
void flow_cool(struct ship *ship, struct item *item);

/* Forgets all but what is on its way, and reads from the first id on. `other_file`:
 * also what is done with, though its rows may still be there. */
void flow_start_over(struct ship *ship, bool other_file);

/* Under this name the spool keeps what was spent of the day's budget. */
#define METER_NOTE "traffic"

/* Sees what the limits say now. Call when time has passed. */
void meter_look(struct ship *ship);

/* True when this record may be posted now, which is then counted. */
bool meter_lets(struct ship *ship, struct item *item);

/* What its post really came to. */
void meter_answered(struct ship *ship, struct item *item, const struct answer *answer);

/* While the calendar lets nothing go: gives the payloads' memory back, and says so. */
void meter_close(struct ship *ship);

/* Adds the day's count, where it is another, to a settle that is under way. */
void meter_write(struct ship *ship);

/* After a reload; `before` are the limits that held. */
void meter_adapt(struct ship *ship, const struct budget_limits *before);

/* Fills in what the report says of the limits. */
void meter_report(const struct ship *ship, struct report *report);

/* True when no further records are wanted in memory. */
bool claim_is_full(const struct ship *ship);

/* True when there is time for what can wait: nothing is to be sent or settled. */
bool claim_is_idle(const struct ship *ship);

/* True when the file of metrics is to be written now. */
bool claim_metrics_due(const struct ship *ship);

/* How many more may be posted now. */
unsigned claim_room(const struct ship *ship);

/* A held app whose probe is due, or APP_PLACES. */
size_t claim_app_to_probe(const struct ship *ship);

/* Gives the storage thread its next job, where there is one to do. */
void claim_next(struct ship *ship);

/* Takes in what a job brought back. */
void claim_accept(struct ship *ship, struct job *job);

#endif
