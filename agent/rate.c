/* Counts a second each; see rate.h. */
#include "agent/rate.h"

#include <stdbool.h>
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

static uint32_t count_of(const struct rate *rate, int64_t second)
{
	bool kept = second >= 0 && second <= rate->second && second > rate->second - RATE_SECONDS;
	return kept ? rate->counts[second % RATE_SECONDS] : 0;
}

int64_t rate_sum(const struct rate *rate, int64_t now, int seconds)
{
	int64_t sum = 0;
	for (int64_t at = now / 1000 - seconds + 1; at <= rate->second; at++)
		sum += count_of(rate, at);
	return sum;
}

int rate_seconds(const struct rate *rate, int64_t now, int seconds)
{
	int any = 0;
	for (int64_t at = now / 1000 - seconds + 1; at <= rate->second; at++)
		any += count_of(rate, at) > 0;
	return any;
}
