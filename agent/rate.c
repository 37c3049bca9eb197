/* Counts a second each; see rate.h. */
#include "agent/rate.h"

#include <string.h>

void rate_add(struct rate *rate, int64_t now, uint32_t count)
{
	int64_t second = now / 1000;
	if (second - rate->second >= RATE_SECONDS)
		memset(rate->counts, 0, sizeof rate->counts);
	else
		for (int64_t old = rate->second + 1; old <= second; old++)
			rate->counts[old % RATE_SECONDS] = 0;
	if (second > rate->second)
		rate->second = second;
	rate->counts[rate->second % RATE_SECONDS] += count;
}

int64_t rate_sum(const struct rate *rate, int64_t now, int seconds)
{
	int64_t sum = 0, second = now / 1000;
	int64_t oldest = rate->second - RATE_SECONDS + 1; /* that is kept */
	for (int64_t at = second - seconds + 1; at <= rate->second; at++)
		if (at >= oldest && at >= 0)
			sum += rate->counts[at % RATE_SECONDS];
	return sum;
}
