/* What a person wants to be told of, once: that an app or the endpoint is held, that
 * there are dead letters, that the spool fills up; and when each is well again. And
 * the line that sums up what is wrong. Pure: two snapshots in, events out.
 *
 * Nothing is well again by a restart or a reload alone: only when it has been seen
 * to work. What was told is kept as a note in the spool, so that no restart tells it
 * again.
 */
#ifndef AGENT_EVENTS_H
#define AGENT_EVENTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/report.h"

#define EVENTS_FULL_PERCENT 80 /* of max_spool: told of, */
#define EVENTS_ROOM_PERCENT 70 /* and well again below this */

/* The spool's ledger, as far as it matters here. */
struct figures {
	bool known;
	int64_t waiting, dead, bytes, max_spool;
};

enum event_kind {
	EVENT_APP_HELD,
	EVENT_APP_WELL,
	EVENT_ENDPOINT_HELD,
	EVENT_ENDPOINT_WELL,
	EVENT_DEAD_LETTERS,
	EVENT_NO_DEAD_LETTERS,
	EVENT_SPOOL_FULL,
	EVENT_SPOOL_WELL
};

struct event {
	enum event_kind kind;
	const char *app;    /* of the configuration; "": not about one, or of an app that is not
	                       there, whose name a producer wrote */
	const char *reason; /* a fixed sentence, or "" */
	struct figures figures;
};

/* What was told and is not well yet. All zeros: nothing. */
struct events_told {
	bool endpoint, dead, spool;
	char apps[REPORT_APPS_MAX][REPORT_NAME_SIZE];
	size_t app_count;
};

/* Calls `tell` (NULL: only look) for each thing that is to be told now, and notes in
 * `*told` what it is. True when there was anything. */
bool events_decide(struct events_told *told, const struct report *report,
                   const struct figures *figures,
                   void (*tell)(void *context, const struct event *event), void *context);

/* "app-held" and so on. */
const char *events_name(enum event_kind kind);

/* What was told as one line of JSON, malloc'd (NULL: no memory), and back. What cannot
 * be read is nothing told. */
char *events_told_to_json(const struct events_told *told);
void events_told_from_json(const char *json, struct events_told *told);

/* What is wrong, and how it stands, in one line; false: nothing is. */
bool events_sum_up(const struct report *report, const struct figures *figures, char *into,
                   size_t size);

#endif
