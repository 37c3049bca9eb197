/* How much was done in the last seconds. Pure: time is passed in. Counts are kept a
 * second each, so that nothing has to wake up to let them grow old.
 */
#ifndef AGENT_RATE_H
#define AGENT_RATE_H

#include <stdint.h>

#define RATE_SECONDS 60

struct rate {
	int64_t second; /* the newest that was counted */
	uint32_t counts[RATE_SECONDS];
};

/* `now` is monotonic ms, here and below. All zero is a rate of nothing. */
void rate_add(struct rate *rate, int64_t now, uint32_t count);

/* What was added in the last `seconds`, at most RATE_SECONDS, the one under way
 * counted. */
int64_t rate_sum(const struct rate *rate, int64_t now, int seconds);

/* In how many of them anything was added. */
int rate_seconds(const struct rate *rate, int64_t now, int seconds);

#endif
