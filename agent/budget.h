/* Budgets for metered links: how many records and bytes may go, and at which hours.
 * Pure arithmetic: no clock, no I/O; time is passed in.
 *
 * What must never happen: a limit blocks for ever, whatever the wall clock does.
 * Rate and bandwidth follow the monotonic clock alone. Hours and the daily budget
 * follow local time, and are judged anew by the clock as it is at each look: after
 * a jump of it they wait for a day at most.
 */
#ifndef AGENT_BUDGET_H
#define AGENT_BUDGET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define BUDGET_WINDOWS_MAX 8
#define BUDGET_TEXT_SIZE (BUDGET_WINDOWS_MAX * 13 + 1)
#define BUDGET_NOTE_SIZE 48
/* Bandwidth that was left unused adds up to so many ms' worth. */
#define BUDGET_BURST 1000

struct budget_window {
	int from, to; /* minutes since midnight, 0 to 1440; from > to: it passes midnight */
};

/* All zero: no limit. */
struct budget_limits {
	int64_t rate, rate_span; /* so many posts in any so many ms */
	int64_t bandwidth;       /* bytes a second, on average */
	int64_t daily;           /* bytes a local day */
	struct budget_window windows[BUDGET_WINDOWS_MAX];
	size_t window_count;     /* 0: all hours are good */
};

/* Sets the limit that the key ("rate", "bandwidth", "daily" or "hours") stands for
 * from its text in the configuration; "": no limit. False: it is not such a text, and
 * nothing is set. */
bool budget_set(struct budget_limits *limits, const char *key, const char *value);

/* The way back: the text of the limit that the key stands for, "" where there is none. */
void budget_text(const struct budget_limits *limits, const char *key,
                 char into[BUDGET_TEXT_SIZE]);

struct budget_time {
	int64_t now;   /* monotonic ms */
	int64_t local; /* ms since 1970 as a clock on the wall would count them */
};

enum budget_limit {
	BUDGET_FREE,
	BUDGET_RATE,
	BUDGET_BANDWIDTH,
	BUDGET_DAILY, /* from here on it is the calendar's: this may take hours */
	BUDGET_HOURS
};

/* "", "rate", "bandwidth", "daily" or "hours". */
const char *budget_name(enum budget_limit limit);

/* What was spent. All zero: nothing. */
struct budget {
	int64_t rate_free, bandwidth_free; /* monotonic us: paid for up to then */
	int64_t day;                       /* local, since 1970 */
	int64_t spent;                     /* bytes, in that day */
	bool full;                         /* the next record did not fit into the rest of it */
};

/* What a post with a payload of `size` bytes is likely to cost on the line, both ways. */
int64_t budget_cost(int64_t size);

/* A new day gets a new budget; also when the clock says that it is an earlier one. */
void budget_look(struct budget *budget, const struct budget_limits *limits,
                 struct budget_time time);

/* The limit that lets nothing be posted now and lasts longest, and until when
 * (monotonic ms; now where it is BUDGET_FREE). After budget_look(). */
enum budget_limit budget_wait(const struct budget *budget, const struct budget_limits *limits,
                              struct budget_time time, int64_t *until);

/* Whether `bytes` fit into what is left of the day; where they do not, the day is over:
 * smaller ones behind must not starve a large one. One that is larger than nine tenths
 * of a whole day's budget fits while no more than a tenth is spent. */
bool budget_fits(struct budget *budget, const struct budget_limits *limits, int64_t bytes);

/* A post of `bytes` begins. */
void budget_spend(struct budget *budget, const struct budget_limits *limits, int64_t now,
                  int64_t bytes);

/* It came to `bytes` more than that; below 0: less. */
void budget_correct(struct budget *budget, const struct budget_limits *limits, int64_t now,
                    int64_t bytes);

/* The limits are others now: nobody waits longer than they ask for. */
void budget_adapt(struct budget *budget, const struct budget_limits *limits, int64_t now);

/* ms until the hour in which posts may go ends; -1: there is no such end, or it is not
 * now. */
int64_t budget_open_for(const struct budget_limits *limits, int64_t local);

/* The day's count as a line of text, and back (false: it is no such line). */
void budget_to_note(const struct budget *budget, char into[BUDGET_NOTE_SIZE]);
bool budget_from_note(struct budget *budget, const char *note);

#endif
