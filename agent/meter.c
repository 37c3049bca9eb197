/* The limits' part of the flow (flow.h): what may be posted now, what it costs, and
 * until when it waits where nothing may. The arithmetic is in budget.c.
 *
 * While the calendar keeps everything waiting, which may take a day, no payload is
 * held in memory.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/flow.h"

#define ZONE_LASTS 60000 /* ms: summer time begins and ends, hosts travel */

static bool follows_calendar(const struct ship *ship)
{
	const struct budget_limits *limits = &ship->config->limits;
	return limits->daily > 0 || limits->window_count > 0;
}

static struct budget_time time_of(const struct ship *ship)
{
	struct budget_time time = { .now = flow_now(ship) };
	if (follows_calendar(ship))
		time.local = ship->world.wall(ship->world.self) + ship->zone;
	return time;
}

void meter_look(struct ship *ship)
{
	int64_t now = flow_now(ship);
	if (follows_calendar(ship) && now >= ship->zone_until && ship->world.zone != NULL) {
		ship->zone = ship->world.zone(ship->world.self, ship->world.wall(ship->world.self));
		ship->zone_until = now + ZONE_LASTS;
	}
	struct budget_time time = time_of(ship);
	budget_look(&ship->budget, &ship->config->limits, time);
	ship->limit = budget_wait(&ship->budget, &ship->config->limits, time, &ship->limit_until);
	ship->closed = ship->limit >= BUDGET_DAILY;
}

bool meter_lets(struct ship *ship, struct item *item)
{
	if (ship->limit != BUDGET_FREE)
		return false;
	int64_t bytes = budget_cost((int64_t)item->size);
	bool fits = budget_fits(&ship->budget, &ship->config->limits, bytes);
	if (fits) {
		item->charged = bytes;
		budget_spend(&ship->budget, &ship->config->limits, flow_now(ship), bytes);
		ship->spent_due = ship->config->limits.daily > 0;
	}
	meter_look(ship);
	return fits;
}

void meter_answered(struct ship *ship, struct item *item, const struct answer *answer)
{
	bool known = answer->traffic > 0 || answer->kind == ANSWER_LOCAL;
	if (known) {
		budget_correct(&ship->budget, &ship->config->limits, flow_now(ship),
		               answer->traffic - item->charged);
		ship->spent_due = ship->config->limits.daily > 0;
	}
	item->charged = 0;
}

/* "01:00", for the log. */
static void clock_words(const struct ship *ship, int64_t at, char into[8])
{
	int64_t local = ship->world.wall(ship->world.self) + ship->zone + at - flow_now(ship);
	int minute = (int)(local / 60000 % 1440);
	(void)snprintf(into, 8, "%02u:%02u", (unsigned)minute / 60 % 24, (unsigned)minute % 60);
}

void meter_close(struct ship *ship)
{
	struct roster *roster = &ship->roster;
	int64_t first = roster->ready.first != NULL ? roster->ready.first->id : SPOOL_FIRST_ID;
	while (ship->closed && roster->ready.first != NULL)
		flow_cool(ship, roster->ready.first);
	/* What did not fit goes first when the limit ends, or smaller ones would always
	 * come before it. */
	struct item *item = ship->closed ? roster_find(roster, first) : NULL;
	/* not covered: what was ready is cold now, or forgotten */
	if (item != NULL && item->state == COLD)
		roster_prefer(roster, item);
	bool waits = ship->closed && roster->cold.count > 0;
	if (waits == ship->closed_known)
		return;
	ship->closed_known = waits;
	ship->report_due = true;
	char when[8];
	clock_words(ship, ship->limit_until, when);
	if (waits)
		flow_say(ship, LOG_INFO, "[limits] %s: nothing is sent before %s; what comes waits",
		         budget_name(ship->limit), when);
	else if (!ship->closed)
		flow_say(ship, LOG_INFO, "[limits]: records go out again");
}

void meter_write(struct ship *ship)
{
	char *note = ship->spent_due ? malloc(BUDGET_NOTE_SIZE) : NULL;
	if (note == NULL)
		return;
	ship->spent_due = false;
	budget_to_note(&ship->budget, note);
	struct verdict_note *verdict = flow_new_verdict(ship);
	verdict->note = note;
	verdict->change = (struct spool_change){
		.kind = CHANGE_NOTE, .name = METER_NOTE, .value = note
	};
}

void meter_adapt(struct ship *ship, const struct budget_limits *before)
{
	ship->zone_until = INT64_MIN;
	if (memcmp(before, &ship->config->limits, sizeof *before) != 0)
		budget_adapt(&ship->budget, &ship->config->limits, flow_now(ship));
}

void meter_report(const struct ship *ship, struct report *report)
{
	const struct budget_limits *limits = &ship->config->limits;
	struct budget budget = ship->budget;
	struct budget_time time = time_of(ship);
	int64_t until;
	budget_look(&budget, limits, time);
	enum budget_limit limit = budget_wait(&budget, limits, time, &until);
	int64_t wall = ship->world.wall(ship->world.self);
	int64_t open = limits->window_count > 0 ? budget_open_for(limits, time.local) : -1;
	report->limit_rate = limits->rate;
	report->limit_rate_span = limits->rate_span;
	report->limit_bandwidth = limits->bandwidth;
	report->limit_daily = limits->daily;
	report->limit_spent = limits->daily > 0 ? budget.spent : 0;
	budget_text(limits, "hours", report->limit_hours);
	report->limit_hours_end = open > 0 ? wall + open : -1;
	report->limit_until = -1;
	if (limit == BUDGET_FREE || ship->roster.ready.count + ship->roster.cold.count == 0)
		return;
	(void)snprintf(report->limit, sizeof report->limit, "%s", budget_name(limit));
	report->limit_until = wall + until - time.now;
}
