/* A fleet after an outage: many agents, one endpoint of a known capacity.
 *
 * The agents' policy is the program's own code, agent/breaker.c and agent/policy.c; the
 * clock, the network and the endpoint are simulated, in milliseconds, from a seed. Each
 * agent gets a record every so often, also while the endpoint is away. When it is back it
 * takes what its capacity allows, and answers 429 (or 503) to the rest.
 *
 *     fleet [--agents N] [--capacity RECORDS_PER_SECOND] [--retry-after SECONDS, -1: none]
 *           [--status 429|503] [--outage SECONDS] [--every SECONDS] [--connections N]
 *           [--seed N] [--csv FILE]
 *
 * Prints one line of a table; --csv writes a line for each second since the recovery.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "agent/breaker.h"
#include "agent/policy.h"

#define RING (1 << 22)   /* ms ahead that an event may lie: more than an hour */
#define LATENCY 50       /* ms, and up to as much again */
#define BURST 100        /* ms of its capacity that the endpoint takes at once */
#define AFTER 90000      /* seconds that are looked at after the recovery, at most */

enum event_kind { RECORD, ANSWER, ALARM };

struct event {
	struct event *next;
	uint32_t agent;
	enum event_kind kind;
	int64_t sent, record; /* ANSWER: when and which, and what it will be */
	enum { TAKEN, OVER, AWAY } answer;
};

struct agent {
	struct breaker breaker;
	int64_t sent_when_lost; /* what was sent before says nothing new, as in ship.c */
	int64_t alarm;          /* when one is set, 0: none */
	uint32_t backlog, in_flight;
};

struct second {
	uint32_t offered, taken, woken;
	uint64_t backlog;
};

struct fleet {
	struct breaker_limits limits;
	struct agent *agents;
	struct event **ring, *spare;
	struct second *seconds;
	uint64_t random, backlog;
	int64_t records, now, outage, every, capacity;
	double tokens;
	int64_t filled;
	uint32_t agent_count;
	char retry_after[16];
	int status;
};

/* xorshift64*, Vigna 2016. */
static uint64_t dice(struct fleet *fleet)
{
	fleet->random ^= fleet->random >> 12;
	fleet->random ^= fleet->random << 25;
	fleet->random ^= fleet->random >> 27;
	return fleet->random * UINT64_C(2685821657736338717);
}

static void *must(void *memory)
{
	if (memory == NULL) {
		(void)fprintf(stderr, "fleet: no memory\n");
		exit(1);
	}
	return memory;
}

static void plan(struct fleet *fleet, int64_t at, struct event what)
{
	if (at - fleet->now >= RING) {
		(void)fprintf(stderr, "fleet: an event lies too far ahead\n");
		exit(1);
	}
	struct event *event = fleet->spare;
	if (event != NULL)
		fleet->spare = event->next;
	else
		event = must(malloc(sizeof *event));
	*event = what;
	struct event **place = &fleet->ring[at % RING];
	event->next = *place;
	*place = event;
}

static struct second *this_second(const struct fleet *fleet)
{
	int64_t second = (fleet->now - fleet->outage) / 1000;
	return fleet->now >= fleet->outage && second < AFTER ? &fleet->seconds[second] : NULL;
}

/* What the endpoint will say to a request that comes now. */
static int judge(struct fleet *fleet)
{
	if (fleet->now < fleet->outage)
		return AWAY;
	double most = (double)fleet->capacity * BURST / 1000;
	fleet->tokens += (double)(fleet->now - fleet->filled) * (double)fleet->capacity / 1000;
	fleet->tokens = fleet->tokens < most ? fleet->tokens : most;
	fleet->filled = fleet->now;
	if (fleet->tokens < 1)
		return OVER;
	fleet->tokens -= 1;
	return TAKEN;
}

static void send_what_may_go(struct fleet *fleet, uint32_t number)
{
	struct agent *agent = &fleet->agents[number];
	unsigned room = breaker_room(&agent->breaker, &fleet->limits, agent->in_flight, true,
	                             fleet->now);
	for (; room > 0 && agent->backlog > agent->in_flight; room--) {
		struct event event = { .agent = number, .kind = ANSWER, .sent = fleet->now,
			               .record = ++fleet->records };
		event.answer = judge(fleet);
		agent->in_flight++;
		struct second *second = this_second(fleet);
		if (second != NULL) {
			second->offered++;
			second->taken += event.answer == TAKEN;
			second->woken += agent->breaker.state != DESTINATION_UP;
		}
		plan(fleet, fleet->now + LATENCY + (int64_t)(dice(fleet) % LATENCY), event);
	}
	int64_t next = breaker_next_try(&agent->breaker, true);
	if (next == INT64_MAX || agent->in_flight > 0 || agent->backlog == 0 || next == agent->alarm)
		return;
	agent->alarm = next > fleet->now ? next : fleet->now + 1;
	plan(fleet, agent->alarm, (struct event){ .agent = number, .kind = ALARM });
}

static void take_answer(struct fleet *fleet, const struct event *event)
{
	struct agent *agent = &fleet->agents[event->agent];
	bool was_up = agent->breaker.state == DESTINATION_UP;
	bool news = was_up || event->sent > agent->sent_when_lost;
	agent->in_flight--;
	if (event->answer == TAKEN) {
		agent->backlog--;
		fleet->backlog--;
		if (news) {
			(void)breaker_alive(&agent->breaker, fleet->now);
			breaker_succeeded(&agent->breaker, &fleet->limits);
		}
		return;
	}
	if (!news)
		return;
	struct answer answer = { .kind = ANSWER_NO_CONNECTION, .detail = "" };
	if (event->answer == OVER)
		answer = (struct answer){ .kind = ANSWER_HTTP, .status = fleet->status,
			                  .retry_after = fleet->retry_after[0] != '\0' ? fleet->retry_after
			                                                               : NULL };
	struct judgement judgement = policy_judge(&answer, 0);
	struct breaker_failure failure = { .record = event->record, .whole = judgement.whole,
		                           .alone = agent->in_flight == 0 && agent->backlog == 1,
		                           .retry_after = judgement.retry_after };
	if (breaker_failed(&agent->breaker, &fleet->limits, &failure, fleet->now, dice(fleet)))
		agent->sent_when_lost = fleet->now;
}

static void happen(struct fleet *fleet, const struct event *event)
{
	struct agent *agent = &fleet->agents[event->agent];
	switch (event->kind) {
	case RECORD:
		agent->backlog++;
		fleet->backlog++;
		plan(fleet, fleet->now + fleet->every,
		     (struct event){ .agent = event->agent, .kind = RECORD });
		break;
	case ANSWER:
		take_answer(fleet, event);
		break;
	case ALARM:
		if (agent->alarm != fleet->now)
			return; /* another was set since */
		agent->alarm = 0;
		break;
	}
	send_what_may_go(fleet, event->agent);
}

/* Until the backlog is down to what comes and goes; returns that second, or AFTER. */
static int64_t run(struct fleet *fleet)
{
	int64_t end = fleet->outage + AFTER * INT64_C(1000);
	for (; fleet->now < end; fleet->now++) {
		struct event *event;
		while ((event = fleet->ring[fleet->now % RING]) != NULL) {
			fleet->ring[fleet->now % RING] = event->next;
			struct event copy = *event;
			event->next = fleet->spare;
			fleet->spare = event;
			happen(fleet, &copy);
		}
		if (fleet->now < fleet->outage || fleet->now % 1000 != 999)
			continue;
		this_second(fleet)->backlog = fleet->backlog;
		if (fleet->backlog < fleet->agent_count / 50)
			return (fleet->now - fleet->outage) / 1000 + 1;
	}
	return AFTER;
}

/* A wave: the load goes over the capacity after it was below nine tenths of it. */
static unsigned count_waves(const struct fleet *fleet, int64_t seconds)
{
	unsigned waves = 0;
	bool low = true;
	for (int64_t i = 0; i < seconds; i++) {
		double load = (double)fleet->seconds[i].offered / (double)fleet->capacity;
		waves += low && load > 1;
		low = load < 0.9 || (low && load <= 1);
	}
	return waves;
}

static void report(const struct fleet *fleet, int64_t cleared, double ideal)
{
	uint64_t offered = 0, taken = 0;
	uint32_t peak = 0;
	for (int64_t i = 0; i < cleared; i++) {
		offered += fleet->seconds[i].offered;
		taken += fleet->seconds[i].taken;
		if (fleet->seconds[i].offered > peak)
			peak = fleet->seconds[i].offered;
	}
	printf("| %" PRId64 " | %.1f | %d, %s | %.2f | %.1f %% | %u | %s%.1f min | %.1f min |\n",
	       fleet->capacity, (double)fleet->capacity * (double)fleet->every / 1000 / fleet->agent_count,
	       fleet->status, fleet->retry_after[0] != '\0' ? fleet->retry_after : "none",
	       (double)peak / (double)fleet->capacity,
	       100 * (double)(offered - taken) / (double)offered, count_waves(fleet, cleared),
	       cleared == AFTER ? "> " : "", (double)cleared / 60, ideal / 60);
}

static void write_csv(const struct fleet *fleet, const char *path, int64_t seconds)
{
	FILE *file = must(fopen(path, "w"));
	(void)fprintf(file, "second,offered,taken,probes,backlog\n");
	for (int64_t i = 0; i < seconds; i++)
		(void)fprintf(file, "%" PRId64 ",%.4f,%.4f,%.4f,%" PRIu64 "\n", i,
		              (double)fleet->seconds[i].offered / (double)fleet->capacity,
		              (double)fleet->seconds[i].taken / (double)fleet->capacity,
		              (double)fleet->seconds[i].woken / (double)fleet->capacity,
		              fleet->seconds[i].backlog);
	if (fclose(file) != 0)
		(void)fprintf(stderr, "fleet: %s could not be written\n", path);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "agents", required_argument, NULL, 'a' },  { "capacity", required_argument, NULL, 'c' },
		{ "retry-after", required_argument, NULL, 'r' }, { "outage", required_argument, NULL, 'o' },
		{ "every", required_argument, NULL, 'e' },   { "connections", required_argument, NULL, 'n' },
		{ "seed", required_argument, NULL, 's' },    { "csv", required_argument, NULL, 'f' },
		{ "status", required_argument, NULL, 't' },
		{ NULL, 0, NULL, 0 }
	};
	/* The configuration's own defaults. */
	struct fleet fleet = { .limits = { .connections = 8, .base = 1000, .cap = 300000 },
		               .agent_count = 100000, .capacity = 10000, .outage = 8 * 3600,
		               .every = 60, .random = 1, .retry_after = "30", .status = 429 };
	const char *csv = NULL;
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		int64_t number = option == 'f' || option == '?' ? 0 : strtoll(optarg, NULL, 10);
		switch (option) {
		case 'a': fleet.agent_count = (uint32_t)number; break;
		case 'c': fleet.capacity = number; break;
		case 'r': (void)snprintf(fleet.retry_after, sizeof fleet.retry_after, "%s",
		                         number < 0 ? "" : optarg); break;
		case 'o': fleet.outage = number; break;
		case 'e': fleet.every = number; break;
		case 'n': fleet.limits.connections = (unsigned)number; break;
		case 's': fleet.random = (uint64_t)number; break;
		case 't': fleet.status = (int)number; break;
		case 'f': csv = optarg; break;
		default: return 64;
		}
	}
	if (fleet.agent_count == 0 || fleet.capacity <= 0 || fleet.every <= 0 || fleet.outage < 0 ||
	    fleet.random == 0 || fleet.limits.connections == 0) {
		(void)fprintf(stderr, "fleet: numbers must be above 0\n");
		return 64;
	}
	double steady = (double)fleet.agent_count / (double)fleet.every;
	double ideal = steady * (double)fleet.outage / ((double)fleet.capacity - steady);
	fleet.outage *= 1000;
	fleet.every *= 1000;
	fleet.agents = must(calloc(fleet.agent_count, sizeof *fleet.agents));
	fleet.ring = must(calloc(RING, sizeof *fleet.ring));
	fleet.seconds = must(calloc(AFTER, sizeof *fleet.seconds));
	for (uint32_t i = 0; i < fleet.agent_count; i++) {
		breaker_init(&fleet.agents[i].breaker);
		plan(&fleet, 1 + (int64_t)(dice(&fleet) % (uint64_t)fleet.every),
		     (struct event){ .agent = i, .kind = RECORD });
	}
	int64_t cleared = run(&fleet);
	report(&fleet, cleared, ideal);
	if (csv != NULL)
		write_csv(&fleet, csv, cleared);
	return 0;
}
