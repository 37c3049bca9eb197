/* Which lines of a log are written, where many alike come: the first ones, then
 * their number, ever more seldom. Lines are alike when nothing but numbers tells
 * them apart. Pure: the clock is passed in.
 */
#ifndef AGENT_FLOOD_H
#define AGENT_FLOOD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FLOOD_BURST 10       /* lines alike that are written as they come, */
#define FLOOD_SPAN 60000     /* in this time (ms); what is more is counted for as long, */
#define FLOOD_SPAN_MAX 3600000 /* then for twice as long, up to this */
#define FLOOD_KINDS 128      /* that are told apart; all others count as one */
#define FLOOD_SAMPLE 240

struct flood_kind {
	uint64_t hash; /* 0: free */
	int level;
	int64_t since, span;
	unsigned passed;
	uint64_t held;             /* not written since then */
	char sample[FLOOD_SAMPLE]; /* one of them */
};

struct flood {
	struct flood_kind kinds[FLOOD_KINDS + 1];
};

/* Whether the line is to be written; else it is counted. `now` is ms, monotonic. */
bool flood_passes(struct flood *flood, int level, const char *line, int64_t now);

/* The next count that is due, or with `all` that there is, as a line of its own. False:
 * none. */
bool flood_next(struct flood *flood, int64_t now, bool all, int *level, char *line,
                size_t size);

#endif
