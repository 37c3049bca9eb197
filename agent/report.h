/* What the agent is doing and why: a snapshot of the flow, in words. The running
 * daemon gives it out beside the spool; its last state is also written into the
 * spool, so that `status` can answer when the daemon is down.
 *
 * Holds no text of a person and no key: ids, names of apps, fixed sentences.
 */
#ifndef AGENT_REPORT_H
#define AGENT_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/config.h"

#define REPORT_REASON_SIZE 384
#define REPORT_NAME_SIZE 64
#define REPORT_APPS_MAX (CONFIG_APPS_MAX + 8) /* and some that nobody configured */

enum destination_state {
	DESTINATION_UP,           /* nothing is known against it */
	DESTINATION_DOWN,         /* unavailable: one probe at a time */
	DESTINATION_HELD,         /* the endpoint itself is refused: everything waits */
	DESTINATION_PAUSED,
	DESTINATION_UNCONFIGURED  /* there is no endpoint to send to */
};

struct report_app {
	char name[REPORT_NAME_SIZE];
	bool held;
	bool proven;  /* its keys were taken since the start, or since they changed */
	bool unknown; /* nobody configured it: its name is a producer's word */
	char reason[REPORT_REASON_SIZE]; /* "" while not held */
};

struct report {
	int64_t as_of; /* ms since 1970, here and below; -1: none */
	enum destination_state state;
	char reason[REPORT_REASON_SIZE]; /* "" while up */
	int64_t since;                   /* of this state */
	int64_t next_try_at;
	int64_t last_delivered_at;
	int64_t started_at;
	int64_t delivered_10s, delivered_60s; /* records, in the last 10 and 60 s */
	int64_t accepted_10s, accepted_60s;   /* that producers inserted meanwhile, */
	int64_t accepted_in;                  /* in so many of the last 10 seconds */
	/* [limits], 0 where there is no such limit. */
	int64_t limit_rate, limit_rate_span;       /* so many posts in so many ms */
	int64_t limit_bandwidth;                   /* bytes a second */
	int64_t limit_daily, limit_spent;          /* bytes; spent of them in this local day */
	char limit_hours[BUDGET_TEXT_SIZE];       /* as configured, "" none */
	int64_t limit_hours_end;                   /* the hours that are now end, -1: they do not */
	char limit[16];                            /* which one keeps what waits from being sent, */
	int64_t limit_until;                       /* and until when; "", -1: none does */
	unsigned failures;               /* tries that failed since it went down */
	int64_t in_flight;
	int64_t retrying;                /* records that fail by themselves */
	int64_t retrying_id;             /* one of them, or (retrying 0) the one record that speaks
	                                    against the destination; 0: none */
	unsigned retrying_attempts;
	char retrying_reason[REPORT_REASON_SIZE];
	char storage[REPORT_REASON_SIZE]; /* what is wrong with the spool, "" for nothing */
	bool locked;                      /* which is no more than another process's lock */
	int64_t damaged_from, damaged_to; /* ids that cannot be read, 0: none */
	bool proven;  /* the destination was seen to work since the start */
	bool scanned; /* all that waits was looked at once */
	bool quiet; /* nothing more can be done before the next try */
	struct report_app apps[REPORT_APPS_MAX];
	size_t app_count;
};

/* Why nothing is sent while a person wants it so. */
extern const char report_paused[];

/* "up", "down", "held", "paused" or "unconfigured". */
const char *report_state_name(enum destination_state state);

/* True while the hours or the day's bytes keep all that waits, for hours perhaps. */
bool report_is_closed(const struct report *report);

/* The whole in one sentence, for `systemctl status`. */
void report_sentence(const struct report *report, char *into, size_t size);

/* The report as one line of JSON, malloc'd; NULL when there is no memory. */
char *report_to_json(const struct report *report);

/* Reads what report_to_json() wrote, by this or another version of the program:
 * unknown members are passed over, missing ones are "nothing". False when it is
 * not such JSON. */
bool report_from_json(const char *json, struct report *report);

#endif
