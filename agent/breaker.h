/* Whether the destination may be tried, and by how many at once. Pure: time and
 * randomness are passed in; no I/O.
 *
 * The destination's state is kept apart from the records': a record that fails
 * is at first only a witness against the destination. Three different witnesses
 * without a success between them, one failure that surely concerns the whole
 * (nothing was reached), or a failure with nothing else left to compare take it
 * down. While it is down one probe at a time is sent, in turn over records, so
 * that none of them can keep it down; the first answer that shows it alive
 * brings it up, and from then on each success allows one more in flight.
 *
 * A whole fleet finds an endpoint again that cannot take all it has at once. So that it
 * is not overrun by turns, coming up does not set the backoff back: success by success it
 * is earned back, and with it the number in flight (tests/simulate shows what that does).
 */
#ifndef AGENT_BREAKER_H
#define AGENT_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/report.h"

#define BREAKER_WITNESSES 3
#define BREAKER_CALM 16 /* successes that make up for one failure */

struct breaker_limits {
	unsigned connections;  /* in flight at once, at most */
	int64_t base, cap;     /* of the backoff, ms */
};

struct breaker {
	enum destination_state state; /* UP, DOWN or HELD */
	int64_t next_try;             /* while not UP: monotonic ms */
	int64_t quick_try;            /* while DOWN on one record's word: when another may try */
	unsigned failures;            /* since it was last known alive */
	unsigned strain;              /* how often the backoff has doubled. BREAKER_CALM successes
	                                 take one doubling off, being up for `cap` takes all */
	unsigned calm;                /* successes since it last changed */
	int64_t up_since;             /* monotonic ms */
	unsigned allowance;           /* in flight at once, now */
	unsigned witnesses;           /* different records that failed since the last success */
	int64_t witness;              /* the first of them, 0: none */
	uint64_t epoch;               /* grows with each success: tells old failures from new */
};

void breaker_init(struct breaker *breaker);

struct breaker_failure {
	int64_t record;        /* whose attempt it was */
	bool counted;          /* it has testified in this epoch already, or is known to fail by
	                          itself: no new witness */
	bool whole;            /* it surely concerns the destination as a whole */
	bool alone;            /* nothing else is in flight or could be sent */
	int64_t retry_after;   /* ms, -1: not said; the backoff comes on top */
};

/* An attempt failed. Returns true when this took the destination down. */
bool breaker_failed(struct breaker *breaker, const struct breaker_limits *limits,
                    const struct breaker_failure *failure, int64_t now, uint64_t random);

/* The endpoint itself was refused: everything waits, with a probe at the longest
 * interval. Returns true when it was not held before. */
bool breaker_hold(struct breaker *breaker, const struct breaker_limits *limits, int64_t now,
                  uint64_t random);

/* An answer showed that the destination is there and works. Returns true when it
 * was not up before. */
bool breaker_alive(struct breaker *breaker, int64_t now);

/* A record was delivered. Call after breaker_alive(). */
void breaker_succeeded(struct breaker *breaker, const struct breaker_limits *limits);

/* True when the one record that took it down may be the cause by itself, so that
 * a success of another clears the destination and blames that record. */
bool breaker_blames_witness(const struct breaker *breaker);

/* How many more may be sent now, with `in_flight` under way; `fresh`: a record
 * that is not the only witness could be sent. */
unsigned breaker_room(const struct breaker *breaker, const struct breaker_limits *limits,
                      unsigned in_flight, bool fresh, int64_t now);

/* When breaker_room() may say otherwise by itself; INT64_MAX: never. */
int64_t breaker_next_try(const struct breaker *breaker, bool fresh);

/* It is another endpoint from now on: the backoff begins anew. */
void breaker_forget(struct breaker *breaker);

/* The next try is to be now. */
void breaker_try_now(struct breaker *breaker, int64_t now);

#endif
