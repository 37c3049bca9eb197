/* The state of the destination; see breaker.h. */
#include "agent/breaker.h"

#include "agent/policy.h"

void breaker_init(struct breaker *breaker)
{
	*breaker = (struct breaker){ .state = DESTINATION_UP, .allowance = 1, .epoch = 1 };
}

/* What the server asked for comes first, and then as much chance as ever: all that it
 * sent away in the same second would else come back in the same second. */
static int64_t later(int64_t now, int64_t wait, int64_t asked)
{
	return now + (asked > 0 ? asked : 0) + wait;
}

/* No higher than where the backoff is at its cap. */
static void add_strain(struct breaker *breaker, const struct breaker_limits *limits)
{
	int64_t wait = limits->base;
	for (unsigned i = 1; i < breaker->strain && wait < limits->cap; i++)
		wait = wait > limits->cap / 2 ? limits->cap : wait * 2;
	if (wait < limits->cap || breaker->strain == 0)
		breaker->strain++;
	breaker->calm = 0;
}

bool breaker_failed(struct breaker *breaker, const struct breaker_limits *limits,
                    const struct breaker_failure *failure, int64_t now, uint64_t random)
{
	bool speaks = !failure->counted || (failure->alone && breaker->witnesses == 0);
	if (speaks && breaker->witnesses == 0)
		breaker->witness = failure->record;
	if (speaks && (breaker->witnesses == 0 || failure->record != breaker->witness))
		breaker->witnesses++;
	if (failure->whole && breaker->witnesses < BREAKER_WITNESSES)
		breaker->witnesses = BREAKER_WITNESSES;

	bool was_up = breaker->state == DESTINATION_UP;
	if (was_up && breaker->witnesses < BREAKER_WITNESSES && !failure->alone)
		return false;
	if (was_up) {
		breaker->failures = 0;
		if (now - breaker->up_since >= limits->cap)
			breaker->strain = 0; /* another outage, and not the rest of the last one */
		breaker->state = DESTINATION_DOWN;
	}
	if (breaker->failures < UINT32_MAX)
		breaker->failures++;
	add_strain(breaker, limits);
	int64_t wait = breaker->state == DESTINATION_HELD
	                       ? limits->cap
	                       : policy_backoff(breaker->strain, limits->base, limits->cap, random);
	breaker->next_try = later(now, wait, failure->retry_after);
	/* Where one record alone has failed, another tells at once whose fault it is; but not that
	 * other again and again, which may be at fault itself. */
	breaker->quick_try = failure->record == breaker->witness
	                             ? later(now, 0, failure->retry_after) : breaker->next_try;
	return was_up;
}

bool breaker_hold(struct breaker *breaker, const struct breaker_limits *limits, int64_t now,
                  uint64_t random)
{
	bool news = breaker->state != DESTINATION_HELD;
	breaker->state = DESTINATION_HELD;
	breaker->failures = news ? 1 : breaker->failures + 1;
	breaker->witnesses = BREAKER_WITNESSES;
	/* The longest interval, spread by a tenth so that a fleet does not beat time. */
	breaker->next_try = now + limits->cap - (int64_t)(random % (uint64_t)(limits->cap / 10 + 1));
	breaker->quick_try = breaker->next_try;
	return news;
}

bool breaker_alive(struct breaker *breaker, int64_t now)
{
	bool news = breaker->state != DESTINATION_UP;
	breaker->state = DESTINATION_UP;
	breaker->failures = 0;
	if (news) {
		breaker->up_since = now;
		breaker->epoch++; /* who testified before may do so again */
		breaker->allowance = 1;
		breaker->witnesses = 0;
		breaker->witness = 0;
	}
	return news;
}

void breaker_succeeded(struct breaker *breaker, const struct breaker_limits *limits)
{
	breaker->epoch++;
	breaker->witnesses = 0;
	breaker->witness = 0;
	if (breaker->strain > 0 && ++breaker->calm < BREAKER_CALM)
		return;
	breaker->calm = 0;
	if (breaker->strain > 0)
		breaker->strain--;
	if (breaker->allowance < limits->connections)
		breaker->allowance++;
}

bool breaker_blames_witness(const struct breaker *breaker)
{
	return breaker->state == DESTINATION_DOWN && breaker->witnesses == 1;
}

unsigned breaker_room(const struct breaker *breaker, const struct breaker_limits *limits,
                      unsigned in_flight, bool fresh, int64_t now)
{
	unsigned allowed = breaker->allowance;
	if (breaker->state != DESTINATION_UP)
		allowed = now >= breaker_next_try(breaker, fresh) ? 1 : 0;
	if (allowed > limits->connections)
		allowed = limits->connections;
	return allowed > in_flight ? allowed - in_flight : 0;
}

int64_t breaker_next_try(const struct breaker *breaker, bool fresh)
{
	if (breaker->state == DESTINATION_UP)
		return INT64_MAX;
	if (fresh && breaker_blames_witness(breaker) && breaker->quick_try < breaker->next_try)
		return breaker->quick_try;
	return breaker->next_try;
}

void breaker_forget(struct breaker *breaker)
{
	breaker->failures = breaker->strain = breaker->calm = 0;
}

void breaker_try_now(struct breaker *breaker, int64_t now)
{
	breaker->next_try = now;
	breaker->quick_try = now;
}
