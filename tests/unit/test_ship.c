/* The flow, driven by a world of the test's own: a clock that jumps, an endpoint
 * that is a function, and a real spool that is worked on inline. No test waits for
 * anything: hours of outage pass in no time, and a flow that spins is seen as too
 * many events in too little simulated time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/ship.h"
#include "tests/unit/faults.h"

#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define SEEDS 15
#define WALL INT64_C(1700000000000)

static const struct fault no_memory = { .name = "no memory", .memory = true };

enum reply {
	OK, S500, S503, S429, S409, S400, S401, S404, RESET, NO_CONNECTION, TIMED_OUT, HTML, LOCAL, S503_LATER
};

struct row {
	int64_t id;
	char uuid[RECORD_UUID_SIZE + 1];
	char app[16], session[16]; /* session "": none */
	unsigned posts, failures;
	bool flying, accepted, rejected;
	bool settled; /* it has left the spool's waiting rows */
	bool dead;
	enum reply fate; /* what the endpoint answers to it while it is well */
	int64_t flown_at, delivered_at;
};

struct flight {
	void *ticket;
	struct row *row;
	size_t size;
	int64_t due;
	enum reply reply;
};

#define ROWS_MAX 8192
#define FLIGHTS_MAX 512

struct world {
	char folder[64], path[128];
	int64_t clock;
	uint64_t seed;
	struct config *config;
	struct ship *ship;
	struct spool *spool;
	sqlite3 *producer;

	struct row rows[ROWS_MAX];
	size_t row_count;
	struct flight flights[FLIGHTS_MAX];
	size_t flight_count, flights_max;
	size_t bytes_flying, bytes_max;

	struct job *job;
	int64_t job_due, alarm;
	bool inside; /* the flow's own call has not returned yet */
	int64_t set_clock; /* what somebody has changed the wall clock by */
	struct {
		int64_t times[ROWS_MAX * 8], day, spent, level, level_at;
		size_t count, first;
	} line; /* what went over it, as the limits see that */

	/* What the test decides. */
	enum reply (*reply)(struct world *world, const struct row *row);
	int64_t (*latency)(struct world *world, const struct row *row);
	bool (*spoil)(struct world *world, struct job *job, bool after);
	int64_t job_time, job_time_jitter;
	void *context;

	/* What came of it. */
	uint64_t posts, jobs, alarms, pumped;
	int64_t moment;
	unsigned at_moment;
	char told[1024]; /* the names of the events that a person was told of */
	unsigned suspects;
	char suspect[RECORD_UUID_SIZE + 1];
	bool unordered; /* order within a session is not looked at (revived rows) */
	bool quiet_settled; /* a settled row may be posted again (revived rows) */
	char said[65536];
};

/* --- The world ---------------------------------------------------------- */

static uint64_t roll(struct world *world)
{
	world->seed ^= world->seed << 13;
	world->seed ^= world->seed >> 7;
	world->seed ^= world->seed << 17;
	return world->seed * 0x2545F4914F6CDD1DULL;
}

static int64_t world_now(void *self)
{
	return ((struct world *)self)->clock;
}

static int64_t world_wall(void *self)
{
	const struct world *world = self;
	return WALL + world->clock + world->set_clock;
}

static int64_t world_zone(void *self, int64_t wall)
{
	(void)self;
	(void)wall;
	return 5 * HOUR + 30 * MINUTE;
}

/* The limits, judged in another way than the agent does. */
static void check_limits(struct world *world, size_t size)
{
	const struct budget_limits *limits = &world->config->limits;
	int64_t local = world_wall(world) + world_zone(world, 0), bytes = budget_cost((int64_t)size);
	int64_t minute = local / MINUTE % 1440;
	bool open = limits->window_count == 0;
	for (size_t i = 0; i < limits->window_count; i++)
		for (int m = limits->windows[i].from; m % 1440 != limits->windows[i].to % 1440; m++)
			open = open || m % 1440 == minute;
	if (!open)
		fail_msg("a post at minute %" PRId64 " of the day", minute);
	if (limits->daily > 0 && world->line.day != local / (24 * HOUR)) {
		world->line.day = local / (24 * HOUR);
		world->line.spent = 0;
	}
	world->line.spent += bytes;
	if (limits->daily > 0 && world->line.spent > limits->daily && bytes < limits->daily / 2)
		fail_msg("%" PRId64 " bytes in one day", world->line.spent);
	if (limits->bandwidth > 0) {
		int64_t drained = (world->clock - world->line.level_at) * limits->bandwidth / 1000;
		world->line.level = world->line.level > drained ? world->line.level - drained : 0;
		world->line.level_at = world->clock;
		if (world->line.level > limits->bandwidth + 64)
			fail_msg("%" PRId64 " bytes are on the line when the next come", world->line.level);
		world->line.level += bytes;
	}
	if (limits->rate > 0 && world->line.count < ROWS_MAX * 8) {
		world->line.times[world->line.count++] = world->clock;
		while (world->clock - world->line.times[world->line.first] >= limits->rate_span)
			world->line.first++;
		if (world->line.count - world->line.first > (size_t)limits->rate)
			fail_msg("%zu posts in one span", world->line.count - world->line.first);
	}
}

static uint64_t world_random(void *self)
{
	return roll(self);
}

static void world_work(void *self, struct job *job)
{
	struct world *world = self;
	assert_null(world->job); /* one at a time */
	world->job = job;
	world->job_due = world->clock + world->job_time;
	if (world->job_time_jitter > 0)
		world->job_due += (int64_t)(roll(world) % (uint64_t)world->job_time_jitter);
	world->jobs++;
}

static struct row *row_of(struct world *world, const char *uuid)
{
	for (size_t i = 0; i < world->row_count; i++)
		if (strcmp(world->rows[i].uuid, uuid) == 0)
			return &world->rows[i];
	fail_msg("nobody knows the record %s", uuid);
	return NULL;
}

static void check_order(const struct world *world, const struct row *row)
{
	if (row->session[0] == '\0' || world->unordered)
		return;
	for (size_t i = 0; i < world->row_count; i++) {
		const struct row *other = &world->rows[i];
		if (other->id < row->id && strcmp(other->session, row->session) == 0 &&
		    strcmp(other->app, row->app) == 0 && !other->accepted && !other->rejected &&
		    !other->settled && other->failures < world->config->max_attempts)
			fail_msg("record %" PRId64 " was sent before %" PRId64
			         " of its session had its verdict", row->id, other->id);
	}
}

static void world_post(void *self, const struct ship_post *post)
{
	struct world *world = self;
	struct row *row = row_of(world, post->uuid);
	assert_true(world->flight_count < FLIGHTS_MAX);
	assert_false(row->flying);
	assert_false(row->accepted && !world->quiet_settled);
	assert_false(row->settled && !world->quiet_settled);
	assert_int_equal(post->payload[0], '{');
	assert_int_equal(post->payload[post->size - 1], '}');
	check_order(world, row);
	check_limits(world, post->size);
	row->posts++;
	row->flying = true;
	row->flown_at = world->clock;
	world->posts++;
	enum reply reply = world->reply != NULL ? world->reply(world, row) : row->fate;
	int64_t latency = world->latency != NULL ? world->latency(world, row) : 5;
	world->flights[world->flight_count++] =
		(struct flight){ post->ticket, row, post->size, world->clock + latency, reply };
	world->bytes_flying += post->size;
	if (world->flight_count > world->flights_max)
		world->flights_max = world->flight_count;
	if (world->bytes_flying > world->bytes_max)
		world->bytes_max = world->bytes_flying;
}

static void world_alarm(void *self, int64_t at)
{
	((struct world *)self)->alarm = at;
}

static void world_suspect(void *self, const char *uuid)
{
	struct world *world = self;
	(void)snprintf(world->suspect, sizeof world->suspect, "%s", uuid != NULL ? uuid : "");
	world->suspects += uuid != NULL;
	/* Nothing else is in hand that could be what crashes. */
	if (uuid != NULL)
		assert_int_equal(world->flight_count, 0);
}

static void world_say(void *self, enum config_log_level level, const char *sentence)
{
	struct world *world = self;
	size_t used = strlen(world->said);
	(void)level;
	if (used + strlen(sentence) + 2 < sizeof world->said)
		(void)snprintf(world->said + used, sizeof world->said - used, "%s\n", sentence);
	assert_null(strstr(sentence, "SECRET"));
}

static void world_tell(void *self, const struct event *event)
{
	struct world *world = self;
	size_t used = strlen(world->told);
	(void)snprintf(world->told + used, sizeof world->told - used, "%s ",
	               events_name(event->kind));
}

static struct answer answer_for(enum reply reply)
{
	static const char ok[] = "{\"status\":\"ok\"}", html[] = "<html>Log in</html>";
	static const char refused[] = "{\"status\":\"error\"}";
	static const int statuses[] = {
		[OK] = 200, [S500] = 500, [S503] = 503, [S429] = 429, [S409] = 409, [S400] = 400,
		[S401] = 401, [S404] = 404, [HTML] = 200, [S503_LATER] = 503
	};
	struct answer answer = { .kind = ANSWER_HTTP, .detail = "" };
	switch (reply) {
	case RESET:
		answer.kind = ANSWER_BROKEN;
		break;
	case NO_CONNECTION:
		answer.kind = ANSWER_NO_CONNECTION;
		break;
	case TIMED_OUT:
		answer.kind = ANSWER_TIMEOUT;
		break;
	case LOCAL:
		answer.kind = ANSWER_LOCAL;
		break;
	default:
		answer.status = statuses[reply];
		answer.retry_after = reply == S503_LATER ? "7200" : NULL;
		answer.body = reply == OK ? ok : reply == HTML ? html : refused;
		answer.body_size = strlen(answer.body);
	}
	return answer;
}

/* --- Its turning -------------------------------------------------------- */

static void note_settled(struct world *world, const struct job *job)
{
	if (job->settled != SPOOL_OK)
		return;
	for (size_t i = 0; i < job->change_count; i++) {
		const struct spool_change *change = &job->changes[i];
		if (change->kind != CHANGE_DELIVERED && change->kind != CHANGE_DEAD &&
		    change->kind != CHANGE_REVIVED)
			continue;
		for (size_t j = 0; j < world->row_count; j++)
			if (world->rows[j].id == change->id &&
			    (change->uuid[0] == '\0' || strcmp(world->rows[j].uuid, change->uuid) == 0)) {
				world->rows[j].settled = change->kind != CHANGE_REVIVED;
				world->rows[j].dead = change->kind == CHANGE_DEAD;
				if (change->kind == CHANGE_DELIVERED)
					assert_true(world->rows[j].accepted);
			}
	}
}

static void end_job(struct world *world)
{
	struct job *job = world->job;
	bool spoilt = world->spoil != NULL && world->spoil(world, job, false);
	if (spoilt) {
		for (size_t i = 0; i < APP_PLACES; i++)
			job->skipped_app[i] = INT64_MAX;
	} else {
		job_run(job, &world->spool, world->path);
		note_settled(world, job);
		if (world->spoil != NULL)
			(void)world->spoil(world, job, true);
	}
	world->job = NULL;
	ship_worked(world->ship, job);
}

static void end_flight(struct world *world, size_t place)
{
	struct flight flight = world->flights[place];
	world->flights[place] = world->flights[--world->flight_count];
	world->bytes_flying -= flight.size;
	flight.row->flying = false;
	struct answer answer = answer_for(flight.reply);
	if (flight.reply == LOCAL) { /* nothing went over the line after all */
		world->line.level -= budget_cost((int64_t)flight.size);
		world->line.spent -= budget_cost((int64_t)flight.size);
		world->line.spent = world->line.spent > 0 ? world->line.spent : 0;
	}
	flight.row->accepted = flight.row->accepted || flight.reply == OK;
	flight.row->rejected = flight.row->rejected || flight.reply == S400;
	flight.row->failures += flight.reply != OK;
	if (flight.reply == OK)
		flight.row->delivered_at = world->clock;
	ship_answered(world->ship, flight.ticket, &answer);
	/* As a turn of the real loop may take in several answers first. */
	if (world->flight_count == 0 || roll(world) % 2)
		ship_go_on(world->ship);
}

/* One event, not later than `until`. False: there is none. */
static bool turn(struct world *world, int64_t until)
{
	int64_t next = world->alarm;
	size_t place = FLIGHTS_MAX;
	bool job = world->job != NULL && world->job_due <= next;
	if (job)
		next = world->job_due;
	for (size_t i = 0; i < world->flight_count; i++)
		if (world->flights[i].due < next || (world->flights[i].due == next && !job)) {
			next = world->flights[i].due;
			place = i;
			job = false;
		}
	if (next > until) {
		world->clock = until;
		return false;
	}
	if (next > world->clock)
		world->clock = next;
	if (world->clock == world->moment) {
		if (++world->at_moment > 20000)
			fail_msg("the flow spins: 20000 events at one moment");
	} else {
		world->moment = world->clock;
		world->at_moment = 0;
	}
	if (place != FLIGHTS_MAX) {
		end_flight(world, place);
	} else if (job) {
		end_job(world);
	} else {
		world->alarm = INT64_MAX;
		world->alarms++;
		ship_go_on(world->ship);
	}
	return true;
}

static void run_for(struct world *world, int64_t time)
{
	int64_t until = world->clock + time;
	while (turn(world, until)) {
	}
}

/* Lets `time` pass, in which the flow may not do more than `limit` things. */
static void run_quietly(struct world *world, int64_t time, uint64_t limit)
{
	uint64_t before = world->jobs + world->alarms + world->posts;
	int64_t from = world->clock;
	while (turn(world, from + time)) {
		uint64_t work = world->jobs + world->alarms + world->posts - before;
		if (work > limit)
			fail_msg("the flow spins: %" PRIu64 " jobs, alarms and posts in %" PRId64 " ms",
			         work, world->clock - from);
	}
}

/* --- Setting up --------------------------------------------------------- */

static const char plain_config[] =
	"[endpoint]\nurl = https://example.net/\nconnections = 4\n"
	"[app default]\napp_key = SECRETa\napi_key = SECRETb\n"
	"[app beta]\napp_key = SECRETc\napi_key = SECRETd\n"
	"[app gamma]\napp_key = SECRETe\napi_key = SECRETf\n";

static struct config *parse(const char *text)
{
	struct config *config = NULL;
	char *error = NULL;
	if (!config_parse(text, strlen(text), "test.conf", NULL, &config, &error))
		fail_msg("%s", error);
	config_load_keys(config);
	return config;
}

static void execute(struct world *world, const char *sql)
{
	char *error = NULL;
	if (sqlite3_exec(world->producer, sql, NULL, NULL, &error) != SQLITE_OK)
		fail_msg("%s: %s", sql, error);
}

static struct row *insert(struct world *world, const char *app, const char *session,
                          enum reply fate)
{
	sqlite3_stmt *statement = NULL;
	assert_true(world->row_count < ROWS_MAX);
	struct row *row = &world->rows[world->row_count++];
	*row = (struct row){ .fate = fate, .delivered_at = -1 };
	(void)snprintf(row->app, sizeof row->app, "%s", app);
	(void)snprintf(row->session, sizeof row->session, "%s", session);
	assert_int_equal(sqlite3_prepare_v2(world->producer,
	                                    "INSERT INTO interactions (model_id, request_body, "
	                                    "response_body, app, session, uuid) VALUES "
	                                    "('m', 'q', '{}', ?1, nullif(?2, ''), ?3)",
	                                    -1, &statement, NULL), SQLITE_OK);
	(void)snprintf(row->uuid, sizeof row->uuid, "%016" PRIx64 "%016zx", roll(world),
	               world->row_count);
	(void)sqlite3_bind_text(statement, 1, app, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(statement, 2, session, -1, SQLITE_STATIC);
	(void)sqlite3_bind_text(statement, 3, row->uuid, -1, SQLITE_STATIC);
	if (sqlite3_step(statement) != SQLITE_DONE)
		fail_msg("insert: %s", sqlite3_errmsg(world->producer));
	(void)sqlite3_finalize(statement);
	row->id = sqlite3_last_insert_rowid(world->producer);
	return row;
}

static int64_t ask(struct world *world, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	assert_int_equal(sqlite3_prepare_v2(world->producer, sql, -1, &statement, NULL),
	                 SQLITE_OK);
	assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
	int64_t value = sqlite3_column_int64(statement, 0);
	(void)sqlite3_finalize(statement);
	return value;
}

static int64_t waiting(struct world *world)
{
	return ask(world, "SELECT count(*) FROM interactions");
}

static int64_t dead(struct world *world)
{
	return ask(world, "SELECT count(*) FROM dead_letters");
}

static bool balanced(struct world *world)
{
	return ask(world, "SELECT accepted = delivered + dead + discarded + dropped + purged + "
	                  "removed + (SELECT count(*) FROM interactions) "
	                  "AND dead = (SELECT count(*) FROM dead_letters) FROM ledger") == 1;
}

static struct world *create_with(const char *config, uint64_t seed)
{
	struct spool_error error;
	struct world *world = calloc(1, sizeof *world);
	assert_non_null(world);
	const char *base = getenv("TMPDIR");
	(void)snprintf(world->folder, sizeof world->folder, "%.40s/ship-XXXXXX",
	               base != NULL ? base : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	assert_non_null(mkdtemp(world->folder));
	(void)snprintf(world->path, sizeof world->path, "%s/spool.db", world->folder);
	world->seed = seed * 0x9E3779B97F4A7C15ULL + 1;
	world->alarm = INT64_MAX;
	world->moment = -1;
	world->job_time = 1;
	world->clock = 1000;
	world->config = parse(config);
	world->spool = spool_open(world->path, SPOOL_CREATE, world->config->max_record + (1 << 20),
	                          &error);
	if (world->spool == NULL)
		fail_msg("%s", error.sentence);
	assert_int_equal(sqlite3_open(world->path, &world->producer), SQLITE_OK);
	(void)sqlite3_exec(world->producer, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	(void)sqlite3_busy_timeout(world->producer, 5000);
	return world;
}

static struct world *create(void)
{
	return create_with(plain_config, 1);
}

static void start_with(struct world *world, struct ship_options options)
{
	struct ship_world functions = {
		.self = world, .now = world_now, .wall = world_wall, .zone = world_zone,
		.random = world_random,
		.work = world_work, .post = world_post, .alarm = world_alarm,
		.suspect = world_suspect, .say = world_say, .tell = world_tell
	};
	world->ship = ship_new(world->config, &functions, &options);
	assert_non_null(world->ship);
	ship_wake(world->ship);
}

static void start(struct world *world)
{
	start_with(world, (struct ship_options){ .last_id = INT64_MAX });
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *walk)
{
	(void)about;
	(void)kind;
	(void)walk;
	return remove(path);
}

static void destroy(struct world *world)
{
	ship_free(world->ship);
	spool_close(world->spool);
	(void)sqlite3_close(world->producer);
	config_free(world->config);
	(void)nftw(world->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(world);
}

static void report_of(struct world *world, struct report *report)
{
	ship_report(world->ship, report);
}

/* --- One verdict of each kind ------------------------------------------- */

static void a_record_that_is_taken_leaves_the_spool(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *row = insert(world, "default", "", OK);
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(row->posts, 1);
	assert_int_equal(waiting(world), 0);
	assert_int_equal(dead(world), 0);
	assert_true(balanced(world));
	destroy(world);
}

static void a_record_that_is_rejected_becomes_a_dead_letter_with_a_reason(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *row = insert(world, "default", "s", S400);
	struct row *next = insert(world, "default", "s", OK);
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(row->posts, 1);
	assert_int_equal(next->posts, 1);
	assert_int_equal(waiting(world), 0);
	assert_int_equal(ask(world, "SELECT count(*) FROM dead_letters WHERE http_status = 400 AND "
	                            "length(reason) > 10 AND "
	                            "CAST(server_said AS TEXT) LIKE '%error%'"), 1);
	assert_true(balanced(world));
	destroy(world);
}

static void a_record_that_is_busy_is_retried_by_itself(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *busy = insert(world, "default", "s", S409);
	struct row *behind = insert(world, "default", "s", OK);
	struct row *other = insert(world, "default", "", OK);
	start(world);
	run_for(world, 200);
	assert_true(other->accepted);
	assert_int_equal(behind->posts, 0);
	struct report report;
	report_of(world, &report);
	assert_int_equal(report.state, DESTINATION_UP);
	assert_int_equal(report.retrying_id, busy->id);
	busy->fate = OK;
	run_for(world, 10 * MINUTE);
	assert_int_equal(waiting(world), 0);
	assert_int_equal(dead(world), 0);
	destroy(world);
}

static void refused_keys_hold_their_app_alone(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *held = insert(world, "beta", "", S401);
	for (int i = 0; i < 20; i++)
		(void)insert(world, "beta", "s", S401);
	for (int i = 0; i < 20; i++)
		(void)insert(world, "default", "s", OK);
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(waiting(world), 21);
	assert_true(world->posts <= 20 + 4); /* what was under way with the first */
	uint64_t posts = world->posts;
	run_quietly(world, HOUR, 300);
	assert_in_range(world->posts - posts, 10, 15); /* a probe at the longest interval */
	for (size_t i = 0; i < world->row_count; i++)
		world->rows[i].fate = OK;
	run_for(world, 6 * MINUTE);
	assert_int_equal(waiting(world), 0);
	assert_true(held->accepted);
	assert_int_equal(dead(world), 0);
	assert_true(balanced(world));
	destroy(world);
}

static void a_refused_endpoint_holds_everything(void **state)
{
	(void)state;
	struct world *world = create();
	for (int i = 0; i < 50; i++)
		(void)insert(world, i % 2 ? "default" : "beta", "", S404);
	start(world);
	run_for(world, MINUTE);
	struct report report;
	report_of(world, &report);
	assert_int_equal(report.state, DESTINATION_HELD);
	run_quietly(world, HOUR, 200);
	assert_true(world->posts < 20);
	for (size_t i = 0; i < world->row_count; i++)
		world->rows[i].fate = OK;
	run_for(world, 6 * MINUTE);
	assert_int_equal(waiting(world), 0);
	assert_int_equal(dead(world), 0);
	destroy(world);
}

static void what_is_kept_for_a_time_costs_nothing_until_there_is_some(void **state)
{
	(void)state;
	char text[1000];
	(void)snprintf(text, sizeof text, "%s[spool]\nkeep_dead = 48h\nkeep_delivered = 2h\n",
	               plain_config);
	struct world *world = create_with(text, 1);
	start(world);
	run_for(world, SECOND);
	run_quietly(world, 72 * HOUR, 0);
	insert(world, "default", "", OK);
	struct row *lost = insert(world, "default", "", S400);
	ship_wake(world->ship);
	run_for(world, MINUTE);
	assert_true(lost->rejected);
	assert_int_equal(ask(world, "SELECT count(*) FROM receipts"), 1);
	run_quietly(world, 2 * HOUR, 16); /* a look an hour, for a clock that is set */
	assert_int_equal(ask(world, "SELECT count(*) FROM receipts"), 0);
	assert_int_equal(dead(world), 1);
	run_quietly(world, 46 * HOUR, 200);
	assert_int_equal(dead(world), 0);
	assert_true(balanced(world));
	assert_non_null(strstr(world->said, "older than keep_dead allows were discarded: 1"));
	run_for(world, MINUTE);
	run_quietly(world, 100 * HOUR, 0);
	destroy(world);
}

static void an_unknown_app_waits_and_is_named(void **state)
{
	(void)state;
	struct world *world = create();
	(void)insert(world, "nobody", "", OK);
	struct row *other = insert(world, "default", "", OK);
	start(world);
	run_for(world, MINUTE);
	assert_true(other->accepted);
	assert_int_equal(waiting(world), 1);
	assert_non_null(strstr(world->said, "an app that is not in the configuration"));
	assert_null(strstr(world->said, "nobody"));
	run_quietly(world, HOUR, 50);
	destroy(world);
}

static void a_record_that_cannot_be_sent_becomes_a_dead_letter(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *bad = insert(world, "default", "s", OK);
	struct row *good = insert(world, "default", "s", OK);
	bad->rejected = true; /* by the agent itself */
	execute(world, "DROP TRIGGER interactions_unchangeable");
	execute(world, "UPDATE interactions SET response_body = '{\"a\":' WHERE id = 1");
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(bad->posts, 0);
	assert_int_equal(good->posts, 1);
	assert_int_equal(dead(world), 1);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

/* --- Outages ------------------------------------------------------------ */

static void an_outage_uses_up_no_attempts_and_little_work(void **state)
{
	(void)state;
	static const enum reply kinds[] = { S503, NO_CONNECTION, RESET, TIMED_OUT, HTML, S429,
		                            LOCAL };
	for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
		struct world *world = create_with(plain_config, kind + 1);
		for (int i = 0; i < 300; i++)
			(void)insert(world, "default", i % 3 ? "" : "s", kinds[kind]);
		start(world);
		run_for(world, HOUR); /* the way down */
		for (int hour = 0; hour < 24; hour++)
			run_quietly(world, HOUR, 300);
		assert_true(world->posts < 48 * 40);
		struct report report;
		report_of(world, &report);
		assert_int_equal(report.state, DESTINATION_DOWN);
		for (size_t i = 0; i < world->row_count; i++)
			world->rows[i].fate = OK;
		run_for(world, 6 * MINUTE);
		assert_int_equal(waiting(world), 0);
		assert_int_equal(dead(world), 0);
		assert_true(balanced(world));
		destroy(world);
	}
}

static void rows_that_come_during_an_outage_make_no_extra_tries(void **state)
{
	(void)state;
	struct world *world = create();
	for (int i = 0; i < 10; i++)
		(void)insert(world, "default", "", S503);
	start(world);
	run_for(world, HOUR);
	uint64_t before = world->posts;
	for (int i = 0; i < 600; i++) {
		(void)insert(world, "default", "", S503);
		ship_wake(world->ship);
		run_for(world, 6 * SECOND);
	}
	assert_true(world->posts - before < 60);
	destroy(world);
}

static void a_record_that_fails_while_others_are_taken_dies_and_its_session_goes_on(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *bad = insert(world, "default", "s", S500);
	struct row *behind = insert(world, "default", "s", OK);
	start(world);
	for (int i = 0; i < 3000; i++) { /* others come all the while */
		if (i % 2 == 0)
			(void)insert(world, "default", "", OK);
		ship_wake(world->ship);
		run_for(world, SECOND);
	}
	assert_int_equal(dead(world), 1);
	assert_true(bad->dead);
	assert_in_range(bad->posts, 8, 9);
	assert_true(behind->accepted);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

static void a_record_that_fails_alone_is_retried_for_ever(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *row = insert(world, "default", "", S500);
	start(world);
	run_for(world, 48 * HOUR);
	assert_int_equal(dead(world), 0);
	assert_in_range(row->posts, 48 * 10, 48 * 60);
	row->fate = OK;
	run_for(world, 6 * MINUTE);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

/* The destination is down on one record's word: another is to be tried soon, not
 * when that one's longest backoff is over. */
static void a_fresh_record_does_not_wait_for_one_that_fails_alone(void **state)
{
	(void)state;
	struct world *world = create();
	(void)insert(world, "default", "", S500);
	start(world);
	int64_t longest = 0;
	for (int i = 0; i < 20; i++) {
		run_for(world, HOUR + 7 * SECOND);
		struct row *fresh = insert(world, "default", "", OK);
		ship_wake(world->ship);
		int64_t from = world->clock;
		run_for(world, 10 * MINUTE);
		assert_true(fresh->accepted);
		if (fresh->delivered_at - from > longest)
			longest = fresh->delivered_at - from;
		if (ask(world, "SELECT count(*) FROM dead_letters") > 0)
			break; /* blamed often enough by the fresh ones */
	}
	assert_true(longest <= 5 * SECOND);
	destroy(world);
}

/* --- Order and bounds --------------------------------------------------- */

/* With little traffic nobody else is there while they fail. */
static void two_records_that_fail_for_ever_die_though_little_else_comes(void **state)
{
	(void)state;
	struct world *world = create();
	(void)insert(world, "default", "", S500);
	(void)insert(world, "beta", "", S500);
	start(world);
	run_for(world, HOUR);
	assert_int_equal(waiting(world), 2); /* with nothing to compare */
	for (int i = 0; i < 100; i++) {
		struct row *row = insert(world, "gamma", "", OK);
		ship_wake(world->ship);
		run_for(world, 30 * MINUTE);
		assert_true(row->accepted);
	}
	assert_int_equal(waiting(world), 0);
	assert_int_equal(dead(world), 2);
	run_quietly(world, HOUR, 100);
	destroy(world);
}

static void sessions_are_sent_in_order_and_beside_each_other(void **state)
{
	(void)state;
	struct world *world = create();
	char session[16];
	for (int i = 0; i < 600; i++) {
		(void)snprintf(session, sizeof session, "s%d", i % 7);
		(void)insert(world, i % 2 ? "default" : "beta", session, OK);
	}
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(waiting(world), 0);
	assert_int_equal(world->posts, 600);
	assert_int_equal(world->flights_max, 4);
	destroy(world);
}

static void one_long_session_does_not_keep_others_waiting(void **state)
{
	(void)state;
	struct world *world = create();
	for (int i = 0; i < 1000; i++)
		(void)insert(world, "default", "long", OK);
	struct row *other = insert(world, "default", "short", OK);
	start(world);
	run_for(world, SECOND);
	assert_true(other->accepted);
	run_for(world, 10 * MINUTE);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

static void memory_bounds_what_is_in_flight_and_a_larger_record_goes_alone(void **state)
{
	(void)state;
	struct world *world = create_with(
		"[endpoint]\nurl = https://example.net/\nconnections = 8\nmemory = 1M\n"
		"[app default]\napp_key = SECRETa\napi_key = SECRETb\n", 1);
	char sql[256];
	for (int i = 0; i < 40; i++) {
		struct row *row = insert(world, "default", "", OK);
		execute(world, "DROP TRIGGER IF EXISTS interactions_unchangeable");
		(void)snprintf(sql, sizeof sql, "UPDATE interactions SET response_body = '\"' || "
		               "hex(zeroblob(%d)) || '\"' WHERE id = %" PRId64,
		               i % 10 == 9 ? 1500000 : 100000, row->id);
		execute(world, sql);
	}
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(waiting(world), 0);
	assert_true(world->bytes_max < 3100000); /* the largest alone, */
	assert_true(world->flights_max >= 2);    /* the small ones together */
	destroy(world);
}

static bool full_disk(struct world *world, struct job *job, bool after)
{
	if (after || job->change_count == 0 || !*(bool *)world->context)
		return false;
	job->settled = SPOOL_FULL;
	job->read = SPOOL_OK;
	job->error.status = SPOOL_FULL;
	(void)snprintf(job->error.sentence, sizeof job->error.sentence, "full");
	return true;
}

static void a_full_disk_sends_nothing_twice_and_settles_when_there_is_room(void **state)
{
	(void)state;
	bool full = true;
	struct world *world = create();
	world->context = &full;
	world->spoil = full_disk;
	for (int i = 0; i < 1000; i++)
		(void)insert(world, "default", i % 2 ? "" : "s", OK);
	start(world);
	run_for(world, MINUTE);
	assert_true(world->posts <= 256 + 4);
	uint64_t posts = world->posts;
	run_quietly(world, HOUR, 2000);
	assert_int_equal(world->posts, posts);
	full = false;
	run_for(world, MINUTE);
	assert_int_equal(waiting(world), 0);
	assert_int_equal(world->posts, 1000); /* each once: world_post() checks it too */
	assert_true(balanced(world));
	destroy(world);
}

/* A read that fails once the window is full leaves nothing that needs the spool:
 * the flow must still find out that it works again. */
static bool fail_full_read(struct world *world, struct job *job, bool after)
{
	bool *armed = world->context;
	if (!after || !*armed || job->entry_count < JOB_ENTRIES)
		return false;
	*armed = false;
	job->read = SPOOL_IO;
	(void)snprintf(job->error.sentence, sizeof job->error.sentence, "an I/O error");
	return false;
}

static void a_read_error_with_a_full_window_does_not_stop_the_flow(void **state)
{
	(void)state;
	bool armed = true;
	struct world *world = create();
	world->context = &armed;
	world->spoil = fail_full_read;
	for (int i = 0; i < 400; i++)
		(void)insert(world, "default", "", OK);
	start(world);
	run_quietly(world, 10 * MINUTE, 5000);
	assert_false(armed);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

static bool random_io_errors(struct world *world, struct job *job, bool after)
{
	if (after || roll(world) % 3 != 0)
		return false;
	job->settled = job->read = (roll(world) & 1) ? SPOOL_IO : SPOOL_BUSY;
	job->error.status = job->read;
	(void)snprintf(job->error.sentence, sizeof job->error.sentence, "storage");
	return true;
}

static void storage_that_fails_now_and_then_only_slows_things_down(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 8; seed++) {
		struct world *world = create_with(plain_config, seed);
		world->spoil = random_io_errors;
		for (int i = 0; i < 300; i++)
			(void)insert(world, i % 2 ? "default" : "beta", i % 3 ? "s" : "", OK);
		start(world);
		run_for(world, 2 * HOUR);
		assert_int_equal(waiting(world), 0);
		assert_int_equal(world->posts, 300);
		assert_true(balanced(world));
		run_quietly(world, HOUR, 100);
		destroy(world);
	}
}

/* --- Held apps ---------------------------------------------------------- */

static enum reply beta_refused(struct world *world, const struct row *row)
{
	(void)world;
	return strcmp(row->app, "beta") == 0 ? S401 : row->fate;
}

static int64_t slow_but_beta(struct world *world, const struct row *row)
{
	(void)world;
	return strcmp(row->app, "beta") == 0 ? 5 : 20 * MINUTE;
}

/* A probe that is due while every connection is busy has to wait for one. */
static void a_probe_that_is_due_while_nothing_may_be_sent_does_not_spin(void **state)
{
	(void)state;
	struct world *world = create();
	world->reply = beta_refused;
	world->latency = slow_but_beta;
	(void)insert(world, "beta", "", OK);
	start(world);
	run_for(world, SECOND);
	assert_int_equal(world->posts, 1);
	for (int i = 0; i < 40; i++)
		(void)insert(world, "default", "", OK);
	ship_wake(world->ship);
	run_for(world, SECOND);
	run_quietly(world, 15 * MINUTE, 500);
	run_for(world, 24 * HOUR);
	assert_int_equal(waiting(world), 1);
	destroy(world);
}

static enum reply beta_refused_for_now(struct world *world, const struct row *row)
{
	return *(bool *)world->context && strcmp(row->app, "beta") == 0 ? S401 : OK;
}

/* The answer that releases an app comes while a scan is under way from behind the
 * app's rows, and one row that nobody's keys fit keeps the flow from starting anew. */
static void a_release_while_a_scan_is_under_way_is_not_forgotten(void **state)
{
	(void)state;
	bool refused = true;
	struct world *world = create();
	world->reply = beta_refused_for_now;
	world->context = &refused;
	(void)insert(world, "nobody", "", OK);
	for (int i = 0; i < 20; i++)
		(void)insert(world, "beta", "", OK);
	(void)insert(world, "default", "", OK);
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(waiting(world), 21);
	refused = false;
	world->job_time = 100;
	for (int i = 0; i < 8000; i++) {
		ship_wake(world->ship);
		run_for(world, 40);
	}
	run_for(world, MINUTE);
	assert_int_equal(waiting(world), 1);
	destroy(world);
}

static enum reply busy_at_times(struct world *world, const struct row *row)
{
	(void)row;
	return roll(world) % 6 == 0 ? S409 : OK;
}

static int64_t any_latency(struct world *world, const struct row *row)
{
	(void)row;
	return 1 + (int64_t)(roll(world) % 150);
}

/* Rows of a session are read ahead while its first one fails, and what stood behind
 * that one is forgotten: what comes back must not overtake it. */
static void a_session_keeps_its_order_while_jobs_take_their_time(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct world *world = create();
		world->seed = seed;
		world->reply = busy_at_times;
		world->latency = any_latency;
		world->job_time = (int64_t)(seed * 10);
		world->config->max_attempts = 1000;
		execute(world, "BEGIN");
		for (int i = 0; i < 120; i++)
			(void)insert(world, "default", i % 3 == 2 ? "t" : "s", OK);
		execute(world, "COMMIT");
		start(world);
		run_for(world, 24 * HOUR);
		assert_int_equal(waiting(world), 0);
		destroy(world);
	}
}

static enum reply both_refused(struct world *world, const struct row *row)
{
	return *(bool *)world->context && strcmp(row->app, "default") != 0 ? S401 : OK;
}

/* The first row of a held app is gone, and thousands of another's stand before
 * its next one. */
static void a_probe_finds_its_row_behind_many_of_others(void **state)
{
	(void)state;
	bool refused = true;
	struct world *world = create();
	world->reply = both_refused;
	world->context = &refused;
	execute(world, "BEGIN");
	struct row *first = insert(world, "beta", "", OK);
	(void)insert(world, "gamma", "", OK);
	for (int i = 0; i < 5000; i++)
		(void)insert(world, "gamma", "", OK);
	struct row *last = insert(world, "beta", "", OK);
	execute(world, "COMMIT");
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(waiting(world), 5003);
	char sql[80];
	(void)snprintf(sql, sizeof sql, "DELETE FROM interactions WHERE id = %" PRId64, first->id);
	execute(world, sql);
	run_quietly(world, HOUR, 500);
	refused = false;
	run_for(world, 30 * MINUTE);
	assert_true(last->accepted);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

static enum reply reject_all(struct world *world, const struct row *row)
{
	(void)row;
	return *(bool *)world->context ? S400 : OK;
}

static void ten_rejections_in_a_row_hold_the_app_and_the_ten_wait_again(void **state)
{
	(void)state;
	bool refused = true;
	struct world *world = create();
	world->reply = reject_all;
	world->context = &refused;
	world->unordered = world->quiet_settled = true;
	for (int i = 0; i < 100; i++)
		(void)insert(world, "default", i % 2 ? "s" : "", OK);
	start(world);
	run_for(world, 2 * HOUR);
	assert_int_equal(dead(world), 0);
	assert_int_equal(waiting(world), 100);
	assert_true(balanced(world));
	assert_true(world->posts < 60);
	run_quietly(world, HOUR, 300);
	refused = false;
	run_for(world, 6 * MINUTE);
	assert_int_equal(waiting(world), 0);
	assert_int_equal(dead(world), 0);
	assert_true(balanced(world));
	destroy(world);
}

/* The commit is done, and the file system says that it failed. */
static bool burial_seems_to_fail(struct world *world, struct job *job, bool after)
{
	bool *armed = world->context;
	if (!after || !*armed || job->change_count == 0 || job->changes[0].kind != CHANGE_DEAD)
		return false;
	*armed = false;
	job->settled = job->read = job->error.status = SPOOL_IO;
	(void)snprintf(job->error.sentence, sizeof job->error.sentence, "an I/O error");
	return false;
}

static enum reply beta_rejected_for_now(struct world *world, const struct row *row)
{
	return world->clock < 3 * HOUR && strcmp(row->app, "beta") == 0 ? S400 : OK;
}

static void a_dead_letter_whose_commit_seemed_to_fail_waits_again_with_the_other_nine(void **state)
{
	(void)state;
	bool armed = true;
	struct world *world = create();
	world->context = &armed;
	world->spoil = burial_seems_to_fail;
	world->reply = beta_rejected_for_now;
	world->unordered = world->quiet_settled = true;
	for (int i = 0; i < 30; i++)
		(void)insert(world, "beta", "", OK);
	start(world);
	run_quietly(world, 3 * HOUR, 3000);
	assert_false(armed);
	assert_int_equal(dead(world), 0);
	assert_int_equal(waiting(world), 30);
	run_for(world, HOUR);
	assert_int_equal(waiting(world), 0);
	assert_int_equal(dead(world), 0);
	assert_true(balanced(world));
	destroy(world);
}

static void a_dead_letter_whose_commit_seemed_to_fail_is_sent_when_a_person_retries_it(void **state)
{
	(void)state;
	bool armed = true;
	struct world *world = create();
	world->context = &armed;
	world->spoil = burial_seems_to_fail;
	world->quiet_settled = true;
	struct row *row = insert(world, "default", "", S400);
	start(world);
	run_for(world, MINUTE);
	assert_false(armed);
	assert_int_equal(dead(world), 1);
	struct spool_change change = { .kind = CHANGE_REVIVED, .id = row->id };
	assert_int_equal(spool_apply(world->spool, &change, 1, world_wall(world)), SPOOL_OK);
	row->settled = row->dead = false;
	row->fate = OK;
	ship_try_now(world->ship);
	run_for(world, MINUTE);
	assert_true(row->accepted);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

/* --- Reload ------------------------------------------------------------- */

static void reload_with(struct world *world, const char *text)
{
	struct config *config = parse(text);
	while (!ship_reload(world->ship, config))
		assert_true(turn(world, INT64_MAX - 1));
	config_free(world->config);
	world->config = config;
}

static void another_endpoint_is_tried_as_often_as_a_new_one(void **state)
{
	(void)state;
	static const char other[] = "[endpoint]\nurl = https://example.com/\n"
	                            "[app default]\napp_key = SECRETa\napi_key = SECRETb\n";
	for (int another = 0; another < 2; another++) {
		struct world *world = create();
		(void)insert(world, "default", "", NO_CONNECTION);
		start(world);
		run_for(world, 2 * HOUR);
		uint64_t before = world->posts;
		reload_with(world, another > 0 ? other : plain_config);
		run_for(world, 15 * SECOND);
		assert_in_range(world->posts - before, another > 0 ? 3 : 1, another > 0 ? 12 : 2);
		destroy(world);
	}
}

static enum reply gamma_refused(struct world *world, const struct row *row)
{
	(void)world;
	return strcmp(row->app, "gamma") == 0 ? S401 : OK;
}

static void a_reload_that_moves_the_apps_leaves_no_session_behind(void **state)
{
	(void)state;
	static const char moved[] =
		"[endpoint]\nurl = https://example.net/\nconnections = 4\n"
		"[app default]\napp_key = SECRETa\napi_key = SECRETb\n"
		"[app gamma]\napp_key = SECRETe\napi_key = SECRETf\n"
		"[app beta]\napp_key = SECRETc\napi_key = SECRETd\n";
	struct world *world = create();
	for (int i = 0; i < 3; i++)
		(void)insert(world, "beta", "s", S503);
	for (int i = 0; i < 200; i++)
		(void)insert(world, "beta", i % 2 ? "s" : "t", OK);
	start(world);
	run_for(world, 30);
	reload_with(world, moved);
	world->reply = gamma_refused; /* where beta stood before */
	(void)insert(world, "gamma", "", OK);
	ship_wake(world->ship);
	run_for(world, 30 * MINUTE);
	assert_int_equal(waiting(world), 1);
	destroy(world);
}

static int64_t in_half_a_minute(struct world *world, const struct row *row)
{
	(void)world;
	(void)row;
	return 30 * SECOND;
}

static void an_app_that_was_gone_for_a_while_keeps_the_order_of_what_was_in_flight(void **state)
{
	(void)state;
	static const char without[] =
		"[endpoint]\nurl = https://example.net/\nconnections = 4\n"
		"[app default]\napp_key = SECRETa\napi_key = SECRETb\n";
	struct world *world = create();
	struct row *first = insert(world, "gamma", "s", RESET);
	(void)insert(world, "default", "", OK);
	world->latency = in_half_a_minute;
	start(world);
	run_for(world, 100);
	struct row *second = insert(world, "gamma", "s", OK);
	assert_true(first->flying);
	reload_with(world, without);
	ship_wake(world->ship);
	run_for(world, 100);
	reload_with(world, plain_config);
	run_for(world, 31 * SECOND); /* world_post() looks at the order */
	assert_int_equal(first->failures, 1);
	first->fate = OK;
	run_for(world, 10 * MINUTE);
	assert_true(first->accepted && second->accepted);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

static void a_reload_releases_what_was_held(void **state)
{
	(void)state;
	struct world *world = create();
	world->reply = beta_refused;
	for (int i = 0; i < 30; i++)
		(void)insert(world, "beta", i % 2 ? "s" : "", OK);
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(waiting(world), 30);
	world->reply = NULL;
	reload_with(world, plain_config);
	run_for(world, SECOND);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

static int64_t slowly(struct world *world, const struct row *row)
{
	(void)world;
	(void)row;
	return 20 * SECOND;
}

static enum reply all_down_until_ten(struct world *world, const struct row *row)
{
	(void)row;
	return world->clock < 10 * MINUTE ? NO_CONNECTION : OK;
}

static void an_answer_of_before_a_reload_does_not_probe_an_app_that_lost_its_keys(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *row = insert(world, "beta", "", S401);
	start(world);
	run_for(world, 10 * MINUTE); /* held, and probed */
	world->latency = slowly;
	uint64_t posts = world->posts;
	while (world->posts == posts)
		assert_true(turn(world, INT64_MAX - 1));
	assert_true(row->flying);
	reload_with(world, "[endpoint]\nurl = https://example.net/\nconnections = 4\n"
	                   "[app default]\napp_key = SECRETa\napi_key = SECRETb\n"
	                   "[app beta]\napp_key = SECRETc\n");
	run_quietly(world, 4 * HOUR, 100);
	assert_int_equal(waiting(world), 1);
	destroy(world);
}

/* A row that is another one by the time its predecessor is settled. */
static void replaced_in_flight(bool down)
{
	struct world *world = create();
	struct row *old = insert(world, "default", "", OK);
	struct row *first_of_many = NULL;
	world->latency = slowly;
	start(world);
	while (world->posts == 0)
		assert_true(turn(world, MINUTE));
	execute(world, "DELETE FROM interactions");
	execute(world, "UPDATE sqlite_sequence SET seq = 0");
	struct row *successor = insert(world, "default", "", OK);
	assert_int_equal(successor->id, old->id);
	for (int i = 0; i < 3; i++) {
		struct row *row = insert(world, "default", "", OK);
		first_of_many = first_of_many == NULL ? row : first_of_many;
	}
	world->latency = NULL;
	if (down)
		world->reply = all_down_until_ten;
	run_for(world, 30 * MINUTE);
	assert_true(successor->accepted);
	assert_true(first_of_many->accepted);
	/* And a row under an earlier id is seen at once, though one is kept in mind. */
	execute(world, "UPDATE sqlite_sequence SET seq = 100");
	(void)insert(world, "default", "", OK);
	ship_wake(world->ship);
	run_for(world, MINUTE);
	execute(world, "UPDATE sqlite_sequence SET seq = 50");
	struct row *early = insert(world, "default", "", OK);
	assert_true(early->id < 100);
	ship_wake(world->ship);
	run_for(world, MINUTE);
	assert_true(early->accepted);
	destroy(world);
}

static void a_row_that_was_replaced_in_flight_is_not_taken_for_the_one_that_was_sent(void **state)
{
	(void)state;
	replaced_in_flight(false);
	replaced_in_flight(true);
}

static enum reply by_fate(struct world *world, const struct row *row)
{
	(void)world;
	return row->fate;
}

/* As a filter in front of the endpoint may do it, for what stands in one record. */
static void refused_for_what_it_says(enum reply reply)
{
	struct world *world = create();
	world->reply = by_fate;
	struct row *bad = insert(world, "default", "s", reply);
	struct row *behind = insert(world, "default", "s", OK);
	for (int i = 0; i < 300; i++)
		(void)insert(world, "default", "", OK);
	start(world);
	run_for(world, 30 * MINUTE);
	assert_true(waiting(world) <= 2); /* this one, and the one behind it */
	for (int i = 0; i < 24 && waiting(world) > 0; i++) {
		(void)insert(world, "default", "", OK);
		ship_wake(world->ship);
		run_for(world, HOUR);
	}
	assert_true(bad->dead);
	assert_true(behind->accepted);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

static void one_record_that_is_refused_like_keys_or_endpoint_stops_only_itself(void **state)
{
	(void)state;
	refused_for_what_it_says(S401);
	refused_for_what_it_says(S404);
}

static void several_records_that_fail_do_not_take_up_the_probes(void **state)
{
	(void)state;
	struct world *world = create();
	for (int i = 0; i < 40; i++)
		(void)insert(world, "default", "", S500);
	start(world);
	run_for(world, 8 * HOUR);
	struct row *good = insert(world, "default", "", OK);
	ship_wake(world->ship);
	run_for(world, 6 * MINUTE);
	assert_true(good->accepted);
	destroy(world);
}

/* --- Beginning and end -------------------------------------------------- */

static void after_a_crash_one_record_at_a_time_is_built_and_sent_for_a_while(void **state)
{
	(void)state;
	struct world *world = create();
	static const char *const sessions[] = { "", "s", "t" };
	for (int i = 0; i < 400; i++)
		(void)insert(world, i % 10 ? "default" : "beta", sessions[i % 3], OK);
	start_with(world, (struct ship_options){ .careful = true, .last_id = INT64_MAX });
	uint64_t posts = 0, suspects = 0;
	while (world->posts < 256) {
		assert_true(turn(world, MINUTE));
		assert_true(world->suspects <= suspects + 2); /* one record a job, and its post */
		suspects = world->suspects;
		if (world->posts == posts)
			continue;
		posts = world->posts;
		assert_int_equal(world->flight_count, 1);
		assert_string_equal(world->suspect, world->flights[0].row->uuid);
		/* Named before it was built, and again before it was sent. */
		assert_int_equal(world->suspects, 2 * posts);
	}
	run_for(world, MINUTE);
	assert_string_equal(world->suspect, "");
	assert_int_equal(waiting(world), 0);
	assert_true(world->flights_max > 1);
	destroy(world);
}

static void a_careful_start_leaves_no_suspect_behind_in_an_outage(void **state)
{
	(void)state;
	struct world *world = create();
	for (int i = 0; i < 20; i++)
		(void)insert(world, "default", i % 2 ? "s" : "", NO_CONNECTION);
	start_with(world, (struct ship_options){ .careful = true, .last_id = INT64_MAX });
	for (int i = 0; i < 50; i++) {
		run_for(world, MINUTE);
		if (world->flight_count == 0 && world->job == NULL)
			assert_string_equal(world->suspect, "");
	}
	assert_true(world->posts > 5);
	for (size_t i = 0; i < world->row_count; i++)
		world->rows[i].fate = OK;
	run_for(world, HOUR);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

static void a_condemned_record_is_not_sent_and_its_session_goes_on(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *bad = insert(world, "default", "s", OK);
	struct row *good = insert(world, "default", "s", OK);
	bad->rejected = true; /* by the agent itself */
	start_with(world, (struct ship_options){ .careful = true, .condemned = bad->uuid,
	                                         .last_id = INT64_MAX });
	run_for(world, MINUTE);
	assert_int_equal(bad->posts, 0);
	assert_true(good->accepted);
	assert_int_equal(dead(world), 1);
	destroy(world);
}

static void after_stop_nothing_is_posted_and_all_verdicts_are_settled(void **state)
{
	(void)state;
	struct world *world = create();
	for (int i = 0; i < 500; i++)
		(void)insert(world, "default", i % 5 ? "" : "s", OK);
	start(world);
	run_for(world, 100);
	uint64_t posts = world->posts;
	assert_true(posts > 0 && posts < 500);
	ship_stop(world->ship);
	run_for(world, SECOND);
	assert_true(ship_is_stopped(world->ship));
	assert_int_equal(world->posts, posts);
	assert_int_equal(waiting(world), 500 - (int64_t)posts);
	assert_true(balanced(world));
	destroy(world);
}

static void a_flow_with_nothing_to_do_does_nothing(void **state)
{
	(void)state;
	struct world *world = create();
	start(world);
	run_for(world, MINUTE);
	assert_true(ship_is_quiet(world->ship));
	run_quietly(world, 1000 * HOUR, 0);
	destroy(world);
}

static void rows_beyond_the_last_id_are_not_for_this_run(void **state)
{
	(void)state;
	struct world *world = create();
	for (int i = 0; i < 10; i++)
		(void)insert(world, "default", "s", OK);
	start_with(world, (struct ship_options){ .last_id = 5 });
	run_for(world, MINUTE);
	assert_true(ship_is_quiet(world->ship));
	assert_int_equal(waiting(world), 5);
	destroy(world);
}

/* A person's retry, or a producer that chooses its ids, puts rows before others. */
static void a_row_under_an_earlier_id_is_found_although_another_waits(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *stuck = insert(world, "default", "", S409);
	struct row *early;
	execute(world, "UPDATE sqlite_sequence SET seq = 100");
	(void)insert(world, "default", "", OK);
	start(world);
	run_for(world, MINUTE);
	execute(world, "UPDATE sqlite_sequence SET seq = 50");
	execute(world, "DELETE FROM interactions WHERE id > 100");
	early = insert(world, "default", "", OK);
	assert_true(early->id < 100 && early->id > stuck->id);
	ship_wake(world->ship);
	run_for(world, 4 * HOUR);
	assert_true(early->accepted);
	destroy(world);
}

/* --- Limits ------------------------------------------------------------- */

/* At the beginning it is WALL + 1 s: 22:13:21 in UTC, 03:43:21 in the world's zone. */
static struct world *create_limited(const char *limits)
{
	char config[1024];
	(void)snprintf(config, sizeof config, "%s[limits]\n%s\n", plain_config, limits);
	return create_with(config, 1);
}

static void closed_hours_are_waited_for_without_work_and_without_memory(void **state)
{
	(void)state;
	struct world *world = create_limited("hours = 03:00-03:44, 12:00-13:00");
	for (int i = 0; i < 20; i++)
		(void)insert(world, "default", i % 2 ? "s" : "", OK);
	start(world);
	run_for(world, 30 * SECOND);
	assert_int_equal(waiting(world), 0);
	run_for(world, MINUTE);
	for (int i = 0; i < 450; i++)
		(void)insert(world, "default", i % 2 ? "s" : "", OK);
	ship_wake(world->ship);
	run_quietly(world, 8 * HOUR, 12);
	assert_int_equal(waiting(world), 450);
	struct report report;
	report_of(world, &report);
	assert_string_equal(report.limit, "hours");
	assert_string_equal(report.limit_hours, "03:00-03:44, 12:00-13:00");
	assert_int_equal((report.limit_until + world_zone(world, 0)) / MINUTE % 1440, 720);
	assert_true(report.quiet);
	assert_non_null(strstr(world->said, "nothing is sent before 12:00"));
	run_for(world, 30 * MINUTE);
	assert_int_equal(waiting(world), 0);
	report_of(world, &report);
	assert_string_equal(report.limit, "");
	destroy(world);
}

static void a_person_who_asks_to_try_now_gets_no_more_than_the_limits_allow(void **state)
{
	(void)state;
	struct world *world = create_limited("hours = 12:00-13:00");
	(void)insert(world, "default", "", OK);
	start(world);
	for (int i = 0; i < 20; i++) {
		run_for(world, SECOND);
		ship_try_now(world->ship);
		ship_try_network(world->ship);
	}
	assert_int_equal(world->posts, 0);
	reload_with(world, plain_config);
	run_for(world, SECOND);
	assert_int_equal(waiting(world), 0); /* and without them, all that there is */
	destroy(world);
}

static void probes_of_an_outage_obey_the_limits_and_make_no_extra_work(void **state)
{
	(void)state;
	struct world *world = create_limited("rate = 4/h\nhours = 03:00-06:00");
	struct row *row = insert(world, "default", "", S503);
	for (int i = 0; i < 20; i++)
		(void)insert(world, "default", "s", S503);
	start(world);
	run_quietly(world, 2 * HOUR, 200);
	assert_in_range(world->posts, 2, 8);
	uint64_t posts = world->posts;
	run_quietly(world, 12 * HOUR, 60);
	assert_true(world->posts <= posts + 2);
	posts = world->posts;
	for (size_t i = 0; i < world->row_count; i++)
		world->rows[i].fate = OK;
	run_for(world, 48 * HOUR);
	assert_true(row->accepted);
	assert_true(world->posts > posts);
	destroy(world);
}

static void what_does_not_fit_into_the_day_goes_first_on_the_next(void **state)
{
	(void)state;
	struct world *world = create_limited("daily = 64K");
	for (int i = 0; i < 10; i++)
		(void)insert(world, "default", "", OK);
	struct row *large = insert(world, "default", "", OK);
	execute(world, "CREATE TEMP TABLE t AS SELECT * FROM interactions WHERE id = 11; "
	               "DELETE FROM interactions WHERE id = 11; "
	               "UPDATE t SET request_body = printf('%.*c', 60000, 'q'); "
	               "INSERT INTO interactions SELECT * FROM t");
	for (int i = 0; i < 300; i++)
		(void)insert(world, "default", "", OK);
	start(world);
	run_for(world, HOUR);
	assert_int_equal(waiting(world), 301);
	struct report report;
	report_of(world, &report);
	assert_string_equal(report.limit, "daily");
	assert_int_equal(report.limit_daily, 65536);
	assert_true(report.limit_spent > 5000 && report.limit_spent < 20000);
	run_for(world, 20 * HOUR + 20 * MINUTE);
	assert_true(large->accepted);
	run_for(world, 8 * 24 * HOUR);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

static void the_days_count_is_written_with_settles_and_holds_after_a_restart(void **state)
{
	(void)state;
	struct world *world = create_limited("daily = 64K");
	for (int i = 0; i < 100; i++)
		(void)insert(world, "default", "", OK);
	start(world);
	run_for(world, HOUR);
	int64_t left = waiting(world);
	assert_in_range((uint64_t)left, 20, 80);
	ship_stop(world->ship);
	run_for(world, SECOND);
	ship_free(world->ship);
	char *note = spool_note(world->spool, "traffic");
	assert_non_null(note);
	world->alarm = INT64_MAX;
	start_with(world, (struct ship_options){ .last_id = INT64_MAX, .spent = note });
	run_for(world, HOUR);
	assert_int_equal(waiting(world), left);
	free(note);
	destroy(world);
}

static void what_the_server_asked_for_holds_though_the_network_changes(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *row = insert(world, "default", "", S503_LATER);
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(row->posts, 1);
	ship_try_network(world->ship);
	run_for(world, MINUTE);
	assert_int_equal(row->posts, 1);
	assert_false(ship_waits_for_network(world->ship));
	run_for(world, 2 * HOUR);
	assert_true(ship_waits_for_network(world->ship) || row->posts > 1);
	destroy(world);
}

static void without_a_limit_nothing_is_written_of_it(void **state)
{
	(void)state;
	struct world *world = create();
	for (int i = 0; i < 100; i++)
		(void)insert(world, "default", "", OK);
	start(world);
	run_for(world, HOUR);
	assert_int_equal(waiting(world), 0);
	assert_null(spool_note(world->spool, "traffic"));
	destroy(world);
}

static void the_networks_return_is_a_try_at_once_and_nothing_else(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *row = insert(world, "default", "", NO_CONNECTION);
	start(world);
	run_for(world, 2 * HOUR);
	assert_true(ship_waits_for_network(world->ship));
	uint64_t posts = world->posts;
	ship_try_network(world->ship);
	run_for(world, 20);
	assert_int_equal(world->posts, posts + 1);
	row->fate = OK;
	ship_try_network(world->ship);
	run_for(world, SECOND);
	assert_int_equal(waiting(world), 0);
	assert_false(ship_waits_for_network(world->ship));
	uint64_t jobs = world->jobs;
	ship_try_network(world->ship);
	run_for(world, SECOND);
	assert_int_equal(world->jobs, jobs);
	destroy(world);
}

/* --- One moment, hit exactly -------------------------------------------- */

/* Until the flow waits for a job of this kind, which has not been done yet. */
static void until_scan(struct world *world, enum job_scan scan)
{
	while (world->job == NULL || world->job->scan != scan)
		assert_true(turn(world, world->clock + 100 * HOUR));
}

static void until_load(struct world *world)
{
	while (world->job == NULL || world->job->load_count == 0)
		assert_true(turn(world, world->clock + 100 * HOUR));
}

static void until_flying(struct world *world, const struct row *row)
{
	while (!row->flying)
		assert_true(turn(world, world->clock + 100 * HOUR));
}

/* The answer to this row comes now, as this. */
static void answer_now(struct world *world, const struct row *row, enum reply reply)
{
	for (size_t i = 0; i < world->flight_count; i++)
		if (world->flights[i].row == row) {
			world->flights[i].reply = reply;
			end_flight(world, i);
			ship_go_on(world->ship);
			return;
		}
	fail_msg("record %" PRId64 " is not under way", row->id);
}

static int64_t never_by_itself(struct world *world, const struct row *row)
{
	(void)world;
	(void)row;
	return 1000 * HOUR;
}

static void all_is_taken(struct world *world)
{
	world->reply = NULL;
	world->latency = NULL;
	for (size_t i = 0; i < world->row_count; i++)
		world->rows[i].fate = OK;
	for (size_t i = 0; i < world->flight_count; i++) {
		world->flights[i].due = world->clock;
		world->flights[i].reply = OK;
	}
	run_for(world, 24 * HOUR);
	assert_int_equal(waiting(world), 0);
	assert_true(balanced(world));
}

static void insert_many(struct world *world, int count, const char *app, const char *session,
                        enum reply fate)
{
	execute(world, "BEGIN");
	for (int i = 0; i < count; i++)
		(void)insert(world, app, session, fate);
	execute(world, "COMMIT");
}

static void what_a_server_quotes_is_kept_without_keys_but_for_those_that_hide_nothing(void **state)
{
	(void)state;
	struct world *world = create_with("[endpoint]\nurl = https://example.net/\n"
	                                  "[app default]\napp_key = err\napi_key = status\n", 1);
	(void)insert(world, "default", "", S400);
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(ask(world, "SELECT CAST(server_said AS TEXT) = '{\"******\":\"error\"}' "
	                            "FROM dead_letters"), 1);
	/* Nor is it lost that it was rejected, where there is no memory for what was said. */
	struct row *row = insert(world, "default", "", S400);
	world->latency = never_by_itself;
	ship_wake(world->ship);
	until_flying(world, row);
	faults.only = "malloc";
	fail_after(&no_memory, 0, false);
	answer_now(world, row, S400);
	assert_true(stop_failing());
	run_for(world, MINUTE);
	assert_int_equal(dead(world), 2);
	assert_int_equal(ask(world, "SELECT count(*) FROM dead_letters WHERE server_said IS NULL"), 1);
	destroy(world);
}

static void a_record_whose_app_is_held_while_it_is_read_waits_with_it(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *busy = insert(world, "beta", "", S409);
	start(world);
	run_for(world, 100);
	world->latency = never_by_itself;
	struct row *other = insert(world, "beta", "", S401);
	ship_wake(world->ship);
	until_flying(world, other);
	until_load(world);
	answer_now(world, other, S401);
	busy->fate = S401;
	unsigned posts = busy->posts;
	run_for(world, MINUTE);
	assert_int_equal(busy->posts, posts);
	all_is_taken(world);
	destroy(world);
}

static void a_held_app_whose_probe_meets_an_outage_waits_for_both(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *probe = insert(world, "beta", "", S401);
	start(world);
	run_for(world, MINUTE);
	probe->fate = NO_CONNECTION;
	run_for(world, 20 * MINUTE);
	world->latency = never_by_itself;
	until_flying(world, probe);
	insert_many(world, 300, "default", "", NO_CONNECTION);
	ship_wake(world->ship);
	run_for(world, SECOND);
	answer_now(world, probe, NO_CONNECTION);
	world->latency = NULL;
	run_quietly(world, HOUR, 500);
	assert_int_equal(waiting(world), 301);
	/* The endpoint is back, the keys are not right yet. */
	for (size_t i = 0; i < world->row_count; i++)
		world->rows[i].fate = strcmp(world->rows[i].app, "beta") == 0 ? S401 : OK;
	run_for(world, HOUR);
	assert_int_equal(waiting(world), 1);
	all_is_taken(world);
	destroy(world);
}

static void a_held_app_whose_probe_finds_the_endpoint_held_is_probed_again(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 8; seed++) { /* which of both is due first is chance */
		struct world *world = create_with(plain_config, seed);
		struct row *probe = insert(world, "beta", "", S401);
		start(world);
		run_for(world, MINUTE);
		probe->fate = S404;
		run_for(world, 20 * MINUTE);
		assert_in_range(probe->posts, 3, 6);
		probe->fate = OK;
		run_quietly(world, 20 * MINUTE, 20);
		assert_true(probe->accepted);
		destroy(world);
	}
}

static const char without_beta_keys[] =
	"[endpoint]\nurl = https://example.net/\nconnections = 4\n"
	"[app default]\napp_key = SECRETa\napi_key = SECRETb\n"
	"[app beta]\napp_key = SECRETc\n"
	"[app gamma]\napp_key = SECRETe\napi_key = SECRETf\n";

static void what_is_answered_after_a_reload_counts_and_gives_no_app_its_keys_back(void **state)
{
	(void)state;
	struct world *world = create();
	insert_many(world, 20, "default", "", OK);
	start(world);
	run_for(world, MINUTE); /* so that several may be on their way */
	struct row *taken = insert(world, "beta", "", OK);
	struct row *rejected = insert(world, "default", "", S400);
	world->latency = never_by_itself;
	ship_wake(world->ship);
	until_flying(world, taken);
	until_flying(world, rejected);
	reload_with(world, without_beta_keys);
	struct row *later = insert(world, "beta", "", OK);
	answer_now(world, taken, OK);
	answer_now(world, rejected, S400);
	run_for(world, HOUR);
	assert_true(taken->settled && rejected->dead);
	assert_int_equal(later->posts, 0);
	/* What was said to other keys could not be cleared of them. */
	assert_int_equal(ask(world, "SELECT count(*) FROM dead_letters WHERE server_said IS NULL"), 1);
	reload_with(world, plain_config);
	all_is_taken(world);
	destroy(world);
}

static void a_witness_that_another_of_its_session_now_stands_before_is_not_blamed(void **state)
{
	(void)state;
	struct world *world = create();
	execute(world, "UPDATE sqlite_sequence SET seq = 50");
	execute(world, "INSERT INTO sqlite_sequence SELECT 'interactions', 50 WHERE NOT EXISTS "
	               "(SELECT 1 FROM sqlite_sequence WHERE name = 'interactions')");
	struct row *witness = insert(world, "default", "s", S500);
	assert_int_equal(witness->id, 51);
	start(world);
	run_for(world, 10 * MINUTE);
	struct report report;
	report_of(world, &report);
	assert_int_equal(report.state, DESTINATION_DOWN);
	assert_int_equal(report.retrying_id, witness->id);
	execute(world, "INSERT INTO interactions(model_id, request_body, response_body, session, id, "
	               "uuid) VALUES('m', 'q', '{}', 's', 3, printf('%032d', 3))");
	struct row *early = &world->rows[world->row_count++];
	*early = (struct row){ .id = 3, .app = "default", .session = "s", .fate = OK };
	(void)snprintf(early->uuid, sizeof early->uuid, "%032d", 3);
	struct row *other = insert(world, "default", "", OK);
	witness->failures = world->config->max_attempts; /* it was sent before `early` came */
	ship_try_now(world->ship);
	run_for(world, MINUTE);
	assert_true(other->accepted && early->accepted);
	assert_int_equal(ask(world, "SELECT count(*) FROM attempts WHERE attempts > 1"), 0);
	all_is_taken(world);
	destroy(world);
}

static void a_held_app_tries_its_sessions_in_turn_whatever_their_probes_meet(void **state)
{
	(void)state;
	struct world *world = create();
	char session[16];
	for (int i = 0; i < 20; i++) {
		(void)snprintf(session, sizeof session, "s%d", i);
		(void)insert(world, "beta", session, S401);
	}
	start(world);
	run_for(world, MINUTE);
	struct row *rows = world->rows;
	world->latency = never_by_itself;
	/* By itself: another session goes next, until as many were tried as are kept. */
	for (int i = 0; i < 18; i++) {
		while (world->flight_count == 0)
			assert_true(turn(world, world->clock + HOUR));
		struct row *probe = world->flights[0].row;
		assert_ptr_equal(probe, &rows[i < 17 ? i : 0]);
		answer_now(world, probe, S409);
		probe->failures = 0;
	}
	/* What concerns all says nothing of the session. */
	static const enum reply whole[] = { NO_CONNECTION, S404 };
	for (size_t i = 0; i < 2; i++) {
		while (world->flight_count == 0)
			assert_true(turn(world, world->clock + HOUR));
		answer_now(world, world->flights[0].row, whole[i]);
	}
	while (world->flight_count == 0)
		assert_true(turn(world, world->clock + HOUR));
	/* Rejected: the keys were taken. */
	struct row *rejected = world->flights[0].row;
	answer_now(world, rejected, S400);
	all_is_taken(world);
	assert_true(rejected->dead);
	assert_int_equal(dead(world), 1);
	destroy(world);
}

static void a_record_that_failed_while_others_were_taken_is_not_to_blame_for_an_outage(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *rows[3];
	insert_many(world, 20, "default", "", OK);
	start(world);
	run_for(world, MINUTE); /* so that several may be on their way */
	world->latency = never_by_itself;
	for (int i = 0; i < 3; i++)
		rows[i] = insert(world, "default", "", S500);
	ship_wake(world->ship);
	for (int i = 0; i < 3; i++)
		until_flying(world, rows[i]);
	for (int i = 0; i < 3; i++)
		answer_now(world, rows[i], S500);
	struct row *well = insert(world, "default", "", OK);
	ship_wake(world->ship);
	while (!well->accepted) {
		while (world->flight_count == 0)
			assert_true(turn(world, world->clock + HOUR));
		answer_now(world, world->flights[0].row, world->flights[0].row->fate);
	}
	for (int i = 0; i < 40 && waiting(world) > 0; i++) {
		for (int k = 0; k < 2000 && world->flight_count == 0; k++)
			(void)turn(world, world->clock + MINUTE);
		if (world->flight_count > 0)
			answer_now(world, world->flights[0].row, NO_CONNECTION);
	}
	assert_int_equal(dead(world), 0);
	all_is_taken(world);
	destroy(world);
}

static void an_endpoint_that_refuses_several_at_once_is_held_once(void **state)
{
	(void)state;
	struct world *world = create();
	insert_many(world, 30, "default", "", OK);
	start(world);
	run_for(world, MINUTE);
	world->latency = never_by_itself;
	struct row *first = insert(world, "default", "", S404), *second = insert(world, "default", "", S404);
	ship_wake(world->ship);
	until_flying(world, first);
	until_flying(world, second);
	world->said[0] = '\0';
	answer_now(world, first, S404);
	answer_now(world, second, S404);
	const char *said = strstr(world->said, "the endpoint is held");
	assert_non_null(said);
	assert_null(strstr(said + 1, "the endpoint is held"));
	all_is_taken(world);
	destroy(world);
}

static void a_file_that_is_replaced_while_records_are_on_their_way_is_gone_over_to(void **state)
{
	(void)state;
	struct world *world = create();
	struct spool_error error;
	char other[160], away[160];
	(void)snprintf(other, sizeof other, "%s/other.db", world->folder);
	(void)snprintf(away, sizeof away, "%s/away.db", world->folder);
	struct row *old = insert(world, "default", "s", OK);
	world->latency = never_by_itself;
	start(world);
	until_flying(world, old);
	struct spool *next = spool_open(other, SPOOL_CREATE, 1 << 20, &error);
	assert_non_null(next);
	spool_close(next);
	static const char *const parts[] = { "", "-wal", "-shm" };
	for (size_t i = 0; i < 3; i++) {
		char from[200], to[200];
		(void)snprintf(from, sizeof from, "%s%s", world->path, parts[i]);
		(void)snprintf(to, sizeof to, "%s%s", away, parts[i]);
		assert_int_equal(rename(from, to), 0);
	}
	assert_int_equal(rename(other, world->path), 0);
	(void)sqlite3_close(world->producer);
	assert_int_equal(sqlite3_open(world->path, &world->producer), SQLITE_OK);
	struct row *fresh = insert(world, "default", "s", OK);
	assert_int_equal(fresh->id, old->id);
	old->session[0] = '\0';
	ship_wake(world->ship);
	run_for(world, MINUTE);
	assert_non_null(strstr(world->said, "was replaced by another"));
	answer_now(world, old, OK);
	all_is_taken(world);
	assert_true(fresh->accepted);
	destroy(world);
}

static void a_witness_and_another_that_are_known_at_one_time_go_in_the_right_order(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *witness = insert(world, "default", "", S500);
	start(world);
	run_for(world, 10 * MINUTE);
	/* A job is at work when its time comes, and the next one reads both. */
	world->job_time = 20 * MINUTE;
	ship_wake(world->ship);
	struct row *fresh = insert(world, "default", "", OK);
	run_for(world, 10 * MINUTE);
	assert_non_null(world->job);
	ship_wake(world->ship);
	world->job_time = 1;
	unsigned posts = witness->posts;
	while (fresh->posts == 0)
		assert_true(turn(world, world->clock + HOUR));
	assert_int_equal(witness->posts, posts);
	run_for(world, MINUTE);
	assert_true(fresh->accepted);
	all_is_taken(world);
	destroy(world);
}

static void a_pause_gives_the_memory_back_and_ends_with_a_try(void **state)
{
	(void)state;
	struct world *world = create();
	insert_many(world, 100, "default", "", OK);
	(void)insert(world, "beta", "", S401);
	world->latency = slowly;
	start(world);
	run_for(world, SECOND);
	ship_set_pause(world->ship, world_wall(world));
	ship_set_pause(world->ship, world_wall(world));
	uint64_t posts = world->posts;
	run_for(world, MINUTE);
	assert_int_equal(world->posts, posts);
	assert_true(ship_is_quiet(world->ship));
	struct report report;
	report_of(world, &report);
	assert_int_equal(report.state, DESTINATION_PAUSED);
	run_quietly(world, HOUR, 20);
	ship_set_pause(world->ship, -1);
	all_is_taken(world);
	destroy(world);
}

static void only_who_is_asked_tells_and_what_was_told_is_told_once(void **state)
{
	(void)state;
	char text[1000];
	(void)snprintf(text, sizeof text, "%s[notify]\ncommand = true\n", plain_config);
	struct world *world = create_with(text, 1);
	(void)insert(world, "default", "", S400);
	(void)insert(world, "beta", "", S401);
	start(world);
	run_for(world, MINUTE);
	assert_non_null(strstr(world->told, "app-held"));
	assert_non_null(strstr(world->told, "dead-letters"));
	char *told = spool_note(world->spool, SHIP_TOLD_NOTE);
	assert_non_null(told);
	/* A restart tells nothing again. */
	ship_free(world->ship);
	world->job = NULL;
	world->alarm = INT64_MAX;
	world->told[0] = '\0';
	start_with(world, (struct ship_options){ .told = told, .last_id = INT64_MAX });
	run_for(world, MINUTE);
	assert_string_equal(world->told, "");
	/* Who has nobody to tell, does not. */
	reload_with(world, plain_config);
	all_is_taken(world);
	assert_string_equal(world->told, "");
	ship_free(world->ship);
	world->job = NULL;
	start_with(world, (struct ship_options){ .told = told, .last_id = INT64_MAX });
	run_for(world, MINUTE);
	assert_string_equal(world->told, "");
	free(told);
	destroy(world);
}

/* --- Jobs whose ground moves ---------------------------------------------- */

static void end_this_job(struct world *world)
{
	assert_non_null(world->job);
	if (world->clock < world->job_due)
		world->clock = world->job_due;
	end_job(world);
}

static void a_session_that_is_read_while_a_person_asks_keeps_its_order(void **state)
{
	(void)state;
	/* To try now; and, after records were taken away, to read anew. */
	for (int forgotten = 0; forgotten < 2; forgotten++) {
		struct world *world = create();
		for (int i = 0; i < 300; i++) {
			(void)insert(world, "default", "s", OK);
			(void)insert(world, "default", "t", OK);
		}
		start(world);
		until_scan(world, SCAN_SESSION);
		if (forgotten)
			ship_forget(world->ship);
		else
			ship_try_now(world->ship);
		end_this_job(world);
		all_is_taken(world); /* world_post() looks at the order */
		destroy(world);
	}
}

static void a_look_at_all_during_which_records_are_taken_away_is_done_again(void **state)
{
	(void)state;
	struct world *world = create();
	/* A session that waits, so that the scan passes its rows over. */
	struct row *busy = insert(world, "default", "s", S409);
	start(world);
	run_for(world, 200);
	(void)insert(world, "default", "s", OK);
	(void)insert(world, "default", "", OK);
	ship_wake(world->ship);
	until_scan(world, SCAN_ANY);
	ship_forget(world->ship);
	end_this_job(world);
	run_for(world, SECOND);
	busy->fate = OK;
	all_is_taken(world);
	destroy(world);
}

static void a_record_that_is_taken_away_while_it_is_read_is_gone(void **state)
{
	(void)state;
	for (int forgotten = 0; forgotten < 2; forgotten++) {
		struct world *world = create();
		struct row *busy = insert(world, "default", "s", S409);
		struct row *next = insert(world, "default", "s", OK);
		start(world);
		until_load(world);
		execute(world, "DELETE FROM interactions WHERE id = 1");
		unsigned posts = busy->posts;
		busy->settled = true;
		if (forgotten)
			ship_forget(world->ship);
		end_this_job(world);
		all_is_taken(world);
		assert_int_equal(busy->posts, posts);
		assert_true(next->accepted);
		destroy(world);
	}
}

static void a_record_that_is_read_while_a_person_takes_others_away_is_read_again(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *busy = insert(world, "default", "s", S409);
	start(world);
	until_load(world);
	ship_forget(world->ship);
	busy->fate = OK;
	end_this_job(world);
	all_is_taken(world);
	destroy(world);
}

static void a_look_for_a_probe_stands_up_to_whatever_a_person_does_meanwhile(void **state)
{
	(void)state;
	/* To try now; to read anew, with a record there and without. */
	for (int way = 0; way < 3; way++) {
		struct world *world = create();
		struct row *probe = insert(world, "beta", "", S401);
		start(world);
		run_for(world, MINUTE);
		if (way == 2) {
			execute(world, "DELETE FROM interactions");
			probe->settled = true;
		}
		until_scan(world, SCAN_APP);
		unsigned posts = probe->posts;
		if (way == 0)
			ship_try_now(world->ship);
		else
			ship_forget(world->ship);
		end_this_job(world);
		run_for(world, MINUTE);
		assert_int_equal(probe->posts, posts + (way == 2 ? 0 : 1));
		(void)insert(world, "beta", "", OK);
		ship_wake(world->ship);
		all_is_taken(world);
		destroy(world);
	}
}

static void an_app_that_is_taken_again_while_its_rows_are_passed_over_is_read_from_there(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *probe = insert(world, "beta", "", S401);
	start(world);
	run_for(world, MINUTE);
	world->latency = never_by_itself;
	until_flying(world, probe);
	struct row *later = insert(world, "beta", "", OK);
	ship_wake(world->ship);
	until_scan(world, SCAN_ANY);
	answer_now(world, probe, OK);
	end_this_job(world);
	world->latency = NULL;
	run_for(world, MINUTE);
	assert_true(later->accepted);
	destroy(world);
}

static void a_record_that_was_passed_over_as_its_app_became_held_is_found_for_its_probe(void **state)
{
	(void)state;
	struct world *world = create();
	insert_many(world, 20, "default", "", OK);
	start(world);
	run_for(world, MINUTE); /* so that several may be on their way */
	world->latency = never_by_itself;
	struct row *refused = insert(world, "beta", "", S401);
	struct row *first = insert(world, "beta", "s", OK);
	insert_many(world, 40, "beta", "s", OK);
	ship_wake(world->ship);
	until_flying(world, refused);
	until_flying(world, first);
	run_for(world, MINUTE);
	struct row *last = insert(world, "beta", "s", OK);
	ship_wake(world->ship);
	until_scan(world, SCAN_ANY);
	answer_now(world, refused, S401);
	end_this_job(world);
	assert_non_null(strstr(world->said, "app beta is held"));
	/* All that is known of its session goes. */
	char sql[80];
	(void)snprintf(sql, sizeof sql, "DELETE FROM interactions WHERE id < %" PRId64, last->id);
	execute(world, sql);
	for (size_t i = 0; i + 1 < world->row_count; i++)
		world->rows[i].settled = true;
	run_for(world, HOUR); /* the probe is due as soon as this one is back */
	answer_now(world, first, S409);
	world->latency = NULL;
	run_quietly(world, HOUR, 200);
	assert_true(last->accepted);
	all_is_taken(world);
	destroy(world);
}

static void a_probe_is_found_behind_thousands_when_others_were_tried(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *first = insert(world, "beta", "s", S401);
	execute(world, "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 9000) "
	               "INSERT INTO interactions(model_id, request_body, response_body, app) "
	               "SELECT 'm', 'q', '{}', 'nobody' FROM n");
	struct row *last = insert(world, "beta", "t", OK);
	start(world);
	run_for(world, MINUTE);
	first->fate = S409; /* by itself: another session's record is to be tried */
	run_quietly(world, 30 * MINUTE, 200);
	assert_true(last->accepted);
	assert_non_null(strstr(world->said, "app beta is no longer held"));
	destroy(world);
}

/* --- What a job says of the file ------------------------------------------ */

struct place_told {
	int64_t from, to;
	bool news;
};

static bool meets_damage(struct world *world, struct job *job, bool after)
{
	const struct place_told *place = world->context;
	if (!after || job->scan != SCAN_ANY)
		return false;
	job->damaged_from = place->from;
	job->damaged_to = place->to;
	(void)snprintf(job->error.sentence, sizeof job->error.sentence, "the file is damaged");
	return false;
}

static void a_damaged_place_is_told_once_and_again_when_it_has_grown(void **state)
{
	(void)state;
	static struct place_told places[] = {
		{ 5, 9, true },  { 6, 8, false },  { 5, 9, false },         { 3, 9, true },
		{ 4, 12, true }, { 2, 11, true }, { 4, INT64_MAX, true }, { 4, INT64_MAX, false }
	};
	struct world *world = create();
	struct report report;
	world->spoil = meets_damage;
	for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
		world->context = &places[i];
		world->said[0] = '\0';
		if (i == 0)
			start(world);
		ship_wake(world->ship);
		run_for(world, MINUTE);
		assert_int_equal(strstr(world->said, "cannot be read") != NULL, places[i].news);
	}
	report_of(world, &report);
	assert_int_equal(report.damaged_from, 2);
	destroy(world);
}

static bool nothing_is_read(struct world *world, struct job *job, bool after)
{
	(void)world;
	if (after)
		return false;
	job->settled = SPOOL_OK;
	job->read = job->error.status = SPOOL_BUSY;
	return true;
}

/* The file keeps the row of what was delivered, for one reason or the other. */
static bool row_stays(struct world *world, struct job *job, bool after)
{
	if (after || job->change_count == 0 || job->changes[0].kind != CHANGE_DELIVERED)
		return false;
	job->changes[0].refused = true;
	job->changes[0].damaged = *(const bool *)world->context;
	job->settled = job->read = job->error.status = SPOOL_OK;
	return true;
}

static void what_is_done_with_but_cannot_leave_is_said_and_not_sent_again(void **state)
{
	(void)state;
	for (int way = 0; way < 4; way++) {
		bool damaged = way % 2, careful = way / 2;
		struct world *world = create();
		world->context = &damaged;
		world->spoil = row_stays;
		struct row *row = insert(world, "default", "", OK);
		start_with(world, (struct ship_options){ .careful = careful, .last_id = INT64_MAX });
		run_for(world, MINUTE);
		assert_non_null(strstr(world->said, "cannot leave"));
		assert_int_equal(strstr(world->said, "--salvage") != NULL, damaged);
		/* It is met again and again, and by its place alone after a crash. */
		for (int i = 0; i < 3; i++) {
			ship_wake(world->ship);
			run_quietly(world, HOUR, 50);
		}
		assert_int_equal(row->posts, 1);
		assert_int_equal(waiting(world), 1);
		if (careful) {
			/* And while it is looked at, the storage may not answer. */
			ship_wake(world->ship);
			until_load(world);
			world->spoil = nothing_is_read;
			end_this_job(world);
			world->spoil = row_stays;
			run_for(world, HOUR);
			assert_int_equal(row->posts, 1);
		}
		/* It leaves after all, while it is looked at. */
		ship_wake(world->ship);
		if (careful)
			until_load(world);
		else
			until_scan(world, SCAN_ANY);
		execute(world, "DELETE FROM interactions");
		end_this_job(world);
		world->spoil = NULL;
		struct row *next = insert(world, "default", "", OK);
		ship_wake(world->ship);
		all_is_taken(world);
		assert_true(next->accepted);
		assert_int_equal(row->posts, 1);
		destroy(world);
	}
}

static void what_cannot_leave_is_not_sent_again_when_its_app_comes_back_from_the_configuration(
	void **state)
{
	(void)state;
	bool damaged = false;
	struct world *world = create();
	world->context = &damaged;
	world->spoil = row_stays;
	struct row *row = insert(world, "beta", "", OK);
	start(world);
	run_for(world, MINUTE);
	/* In an outage it is met by its place alone. */
	struct row *lost = insert(world, "default", "", NO_CONNECTION);
	ship_wake(world->ship);
	run_for(world, MINUTE);
	ship_wake(world->ship);
	run_for(world, SECOND);
	lost->fate = OK;
	unsigned posts = lost->posts;
	reload_with(world, "[endpoint]\nurl = https://example.net/\n"
	                   "[app default]\napp_key = SECRETa\napi_key = SECRETb\n");
	run_for(world, MINUTE);
	reload_with(world, plain_config);
	run_for(world, HOUR);
	assert_int_equal(row->posts, 1);
	assert_int_equal(lost->posts, posts + 1);
	assert_int_equal(waiting(world), 2);
	destroy(world);
}

static void a_held_app_is_probed_though_a_row_that_cannot_leave_stands_before(void **state)
{
	(void)state;
	static const char *const sessions[] = { "", "s" };
	for (size_t i = 0; i < 2; i++) {
		bool damaged = false;
		struct world *world = create();
		world->context = &damaged;
		world->spoil = row_stays;
		struct row *stays = insert(world, "beta", sessions[i], OK);
		start(world);
		run_for(world, MINUTE);
		world->spoil = NULL;
		struct row *probe = insert(world, "beta", sessions[i], S401);
		ship_wake(world->ship);
		run_quietly(world, HOUR, 200);
		assert_non_null(strstr(world->said, "beta is held"));
		assert_true(probe->posts > 1);
		probe->fate = OK;
		run_quietly(world, HOUR, 200);
		assert_true(probe->accepted);
		assert_int_equal(stays->posts, 1);
		assert_int_equal(waiting(world), 1);
		destroy(world);
	}
}

static bool goes_over(struct world *world, struct job *job, bool after)
{
	const bool **abandoned = world->context;
	if (!after || job->entry_count < 2 || *abandoned == NULL)
		return false;
	job->reopened = job->pause = job->limits = true;
	job->abandoned = **abandoned;
	*abandoned = NULL;
	return false;
}

static void what_was_read_before_a_file_was_opened_anew_is_read_again(void **state)
{
	(void)state;
	for (int way = 0; way < 2; way++) {
		bool abandoned = way;
		const bool *armed = &abandoned;
		struct world *world = create();
		world->context = &armed;
		world->spoil = goes_over;
		insert_many(world, 3, "default", "", OK);
		start(world);
		all_is_taken(world);
		assert_null(armed);
		assert_non_null(strstr(world->said, "the spool is open again"));
		assert_int_equal(strstr(world->said, "they are lost with it") != NULL, abandoned);
		assert_int_equal(world->posts, 3);
		destroy(world);
	}
}

struct sweeps {
	unsigned more, seen;
	bool overdue;
	int64_t last;
};

static bool sweeps_a_part(struct world *world, struct job *job, bool after)
{
	struct sweeps *sweeps = world->context;
	if (!after || !job->has_swept)
		return false;
	sweeps->seen++;
	sweeps->last = world->clock;
	job->swept.dead = 500;
	job->swept.more = sweeps->seen <= sweeps->more;
	job->swept.due = sweeps->overdue ? job->wall - 1 : INT64_MAX;
	return false;
}

static void what_was_dead_for_long_goes_in_parts_that_are_told_as_one(void **state)
{
	(void)state;
	struct sweeps sweeps = { .more = 3 };
	struct world *world = create_with("[endpoint]\nurl = https://example.net/\n"
	                                  "[spool]\nkeep_dead = 1h\n"
	                                  "[app default]\napp_key = SECRETa\napi_key = SECRETb\n", 1);
	world->context = &sweeps;
	world->spoil = sweeps_a_part;
	start(world);
	run_for(world, MINUTE);
	assert_int_equal(sweeps.seen, 4);
	assert_true(sweeps.last < 2 * SECOND);
	assert_non_null(strstr(world->said, "were discarded: 2000\n"));
	destroy(world);
}

static void what_is_due_and_does_not_go_is_not_asked_for_all_the_time(void **state)
{
	(void)state;
	struct sweeps sweeps = { .overdue = true };
	struct world *world = create();
	world->context = &sweeps;
	world->spoil = sweeps_a_part;
	start(world);
	run_quietly(world, 24 * HOUR, 200);
	assert_in_range(sweeps.seen, 24, 25); /* once an hour: the clock may be set */
	destroy(world);
}

static void when_the_last_dead_letter_is_gone_there_is_nothing_more_to_sweep(void **state)
{
	(void)state;
	struct sweeps sweeps = { .more = 0 };
	struct world *world = create_with("[endpoint]\nurl = https://example.net/\n"
	                                  "[spool]\nkeep_dead = 2h\n"
	                                  "[app default]\napp_key = SECRETa\napi_key = SECRETb\n", 1);
	struct row *row = insert(world, "default", "", S400);
	start(world);
	run_for(world, MINUTE);
	ship_wake(world->ship);
	run_for(world, MINUTE);
	assert_int_equal(ship_figures(world->ship).dead, 1);
	run_for(world, 3 * HOUR);
	assert_int_equal(dead(world), 0);
	ship_wake(world->ship);
	run_for(world, MINUTE);
	assert_int_equal(ship_figures(world->ship).dead, 0);
	world->context = &sweeps;
	world->spoil = sweeps_a_part;
	run_for(world, 24 * HOUR);
	assert_int_equal(sweeps.seen, 0);
	assert_int_equal(row->posts, 1);
	destroy(world);
}

/* --- Where there is no room ----------------------------------------------- */

static void insert_large(struct world *world, int count, const char *app, enum reply fate, int size)
{
	char sql[256];
	execute(world, "DROP TRIGGER IF EXISTS interactions_unchangeable");
	for (int i = 0; i < count; i++) {
		struct row *row = insert(world, app, "", fate);
		(void)snprintf(sql, sizeof sql, "UPDATE interactions SET response_body = '\"' || "
		               "hex(zeroblob(%d)) || '\"' WHERE id = %" PRId64, size / 2, row->id);
		execute(world, sql);
	}
}

static const char little_memory[] =
	"[endpoint]\nurl = https://example.net/\nconnections = 8\nmemory = 1M\n"
	"[app default]\napp_key = SECRETa\napi_key = SECRETb\n"
	"[app beta]\napp_key = SECRETc\napi_key = SECRETd\n";

static void what_an_outage_left_known_by_its_place_is_built_as_there_is_room(void **state)
{
	(void)state;
	struct world *world = create_with(little_memory, 1);
	insert_large(world, 20, "default", NO_CONNECTION, 400000);
	start(world);
	run_for(world, 10 * MINUTE);
	all_is_taken(world);
	assert_true(world->bytes_max < 1100000);
	destroy(world);
}

static void a_held_app_is_not_probed_while_others_fill_the_memory(void **state)
{
	(void)state;
	struct world *world = create_with(little_memory, 1);
	insert_large(world, 1, "beta", S401, 800000);
	start(world);
	run_for(world, MINUTE);
	struct row *probe = &world->rows[0];
	assert_int_equal(probe->posts, 1);
	insert_many(world, 20, "default", "", OK); /* so that more than one goes at once */
	ship_wake(world->ship);
	run_for(world, SECOND);
	world->latency = never_by_itself;
	insert_large(world, 4, "default", OK, 400000);
	ship_wake(world->ship);
	run_quietly(world, HOUR, 100);
	assert_int_equal(world->flight_count, 2);
	assert_int_equal(probe->posts, 1);
	all_is_taken(world);
	destroy(world);
}

static void insert_failing(struct world *world, int count, bool sessions)
{
	char name[16] = "";
	execute(world, "BEGIN");
	for (int i = 0; i < count; i++) {
		if (sessions)
			(void)snprintf(name, sizeof name, "s%d", i);
		(void)insert(world, "default", name, S409);
		if (sessions)
			(void)insert(world, "default", name, OK);
	}
	execute(world, "COMMIT");
}

static size_t accepted(const struct world *world)
{
	size_t count = 0;
	for (size_t i = 0; i < world->row_count; i++)
		count += world->rows[i].accepted;
	return count;
}

/* Nor do they keep those that stand behind from going. */
static void no_more_fail_by_themselves_at_once_than_there_is_room_for(void **state)
{
	(void)state;
	for (int sessions = 0; sessions < 2; sessions++) {
		struct world *world = create_with("[endpoint]\nurl = https://example.net/\nconnections = 64\n"
		                                  "[retry]\nbase = 1h\ncap = 1h\nmax_attempts = 4\n"
		                                  "[app default]\napp_key = SECRETa\napi_key = SECRETb\n", 1);
		insert_failing(world, 1400, sessions > 0);
		start(world);
		run_for(world, 5 * MINUTE);
		assert_true(ship_is_quiet(world->ship));
		assert_in_range(world->posts, 1400, 1400 + 200); /* those whose wait was short */
		insert_many(world, 50, "default", "", OK);
		ship_wake(world->ship);
		run_for(world, 5 * MINUTE);
		assert_int_equal(accepted(world), 50);
		struct report report;
		ship_report(world->ship, &report);
		assert_int_equal(report.retrying, 1400);
		/* All are tried again by then, and those with attempts enough have died. */
		run_for(world, 2 * HOUR);
		assert_true(world->posts > 2 * 1400 + 50);
		all_is_taken(world);
		destroy(world);
	}
}

/* Those that were kept are gone: what was let go is all that there is. */
static void what_was_let_go_is_met_again_by_itself(void **state)
{
	(void)state;
	struct world *world = create_with("[endpoint]\nurl = https://example.net/\nconnections = 64\n"
	                                  "[retry]\nbase = 20s\ncap = 1h\nmax_attempts = 90\n"
	                                  "[app default]\napp_key = SECRETa\napi_key = SECRETb\n", 1);
	insert_failing(world, 1200, true);
	start(world);
	run_for(world, 15000);
	struct report report;
	ship_report(world->ship, &report);
	assert_in_range(report.retrying, 1200 - 64, 1200); /* some are on their way again */
	for (size_t i = 0; i < world->row_count; i++)
		world->rows[i].fate = OK;
	run_for(world, 5 * MINUTE);
	ship_report(world->ship, &report);
	size_t left = world->row_count - accepted(world);
	assert_in_range(left, 2, 2 * 200); /* and what stands behind each in its session */
	assert_int_equal(report.retrying, left / 2);
	insert_many(world, 50, "default", "", OK);
	ship_wake(world->ship);
	run_for(world, 5 * MINUTE);
	assert_int_equal(world->row_count - accepted(world), left);
	run_for(world, HOUR);
	assert_int_equal(accepted(world), world->row_count);
	all_is_taken(world);
	destroy(world);
}

/* --- What a job could not do, the next does --------------------------------- */

struct undone {
	bool limits, pause, read;
	unsigned tries;
};

static bool leaves_undone(struct world *world, struct job *job, bool after)
{
	struct undone *undone = world->context;
	bool wanted = undone->limits ? job->limits : job->pause;
	if (!after) {
		/* Asked for by itself, with nothing else to do. */
		undone->tries += wanted && job->change_count == 0 && job->scan == SCAN_NOTHING;
		return false;
	}
	if (undone->tries > 0)
		return false;
	job->limits = job->limits || undone->limits;
	job->pause = job->pause || undone->pause;
	return false;
}

static void limits_that_could_not_be_written_down_are_tried_again_by_themselves(void **state)
{
	(void)state;
	struct undone undone = { .limits = true };
	struct world *world = create();
	world->context = &undone;
	world->spoil = leaves_undone;
	start(world);
	run_quietly(world, HOUR, 20);
	assert_int_equal(undone.tries, 1);
	destroy(world);
}

static void a_pause_that_could_not_be_read_is_asked_for_again_by_itself(void **state)
{
	(void)state;
	struct undone undone = { .pause = true };
	struct world *world = create();
	world->context = &undone;
	world->spoil = leaves_undone;
	struct row *row = insert(world, "default", "", OK);
	start(world);
	run_quietly(world, HOUR, 50);
	assert_int_equal(undone.tries, 1);
	assert_true(row->accepted);
	destroy(world);
}

/* --- The metrics, and what stands in the way ------------------------------ */

static struct world *create_with_metrics(void)
{
	char config[1024];
	(void)snprintf(config, sizeof config, "%s[metrics]\nfile = /tmp/reconify-metrics-%d/agent.prom\n",
	               plain_config, (int)getpid());
	return create_with(config, 1);
}

static void the_metrics_wait_for_the_storage_and_for_the_end(void **state)
{
	(void)state;
	/* There is no such folder yet: that is said once, and so is that they are written. */
	struct world *world = create_with_metrics();
	(void)insert(world, "default", "", OK);
	start(world);
	run_for(world, MINUTE);
	assert_non_null(strstr(world->said, "agent.prom"));
	char *folder = strdup(world->config->metrics_file);
	assert_non_null(folder);
	*strrchr(folder, '/') = '\0';
	assert_int_equal(mkdir(folder, 0700), 0);
	(void)insert(world, "default", "", OK);
	ship_wake(world->ship);
	run_for(world, MINUTE);
	assert_non_null(strstr(world->said, "the metrics are written again"));
	/* While nothing can be written, they are no reason to wake up. */
	(void)insert(world, "default", "", OK);
	ship_wake(world->ship);
	bool full = true;
	world->context = &full;
	world->spoil = full_disk;
	run_quietly(world, HOUR, 2000);
	world->spoil = NULL;
	run_for(world, HOUR);
	/* At the end they are the last to be written. */
	struct row *last = insert(world, "default", "", OK);
	world->latency = never_by_itself;
	ship_wake(world->ship);
	until_flying(world, last);
	ship_stop(world->ship);
	run_for(world, MINUTE);
	assert_false(ship_is_stopped(world->ship));
	answer_now(world, last, OK);
	assert_false(ship_is_stopped(world->ship));
	run_for(world, MINUTE);
	assert_true(ship_is_stopped(world->ship));
	assert_int_equal(unlink(world->config->metrics_file), 0);
	assert_int_equal(rmdir(folder), 0);
	free(folder);
	destroy(world);
}

static bool keeps_count_of_metrics(struct world *world, struct job *job, bool after)
{
	struct undone *undone = world->context;
	undone->tries += !after && job->metrics != NULL;
	if (after && undone->read && job->change_count > 0) {
		undone->read = false;
		job->read = job->error.status = SPOOL_IO;
		(void)snprintf(job->error.sentence, sizeof job->error.sentence, "an I/O error");
	}
	return false;
}

static void who_stops_writes_the_metrics_once_more_when_all_is_settled(void **state)
{
	(void)state;
	/* With a file that can be read to the end, and with one that fails once. */
	for (int way = 0; way < 2; way++) {
		struct undone undone = { .read = false };
		struct world *world = create_with_metrics();
		struct row *first = insert(world, "default", "", OK);
		world->context = &undone;
		world->spoil = keeps_count_of_metrics;
		start(world);
		run_for(world, MINUTE);
		assert_true(first->accepted);
		world->latency = never_by_itself;
		struct row *row = insert(world, "default", "", OK);
		ship_wake(world->ship);
		until_flying(world, row);
		run_for(world, SECOND);
		ship_stop(world->ship);
		run_for(world, SECOND);
		unsigned before = undone.tries;
		undone.read = way;
		answer_now(world, row, OK);
		end_this_job(world);
		assert_false(ship_is_stopped(world->ship));
		run_for(world, SECOND);
		assert_true(ship_is_stopped(world->ship));
		assert_true(undone.tries > before);
		destroy(world);
	}
}

static void no_more_unknown_apps_are_named_than_there_is_room_for(void **state)
{
	(void)state;
	struct world *world = create();
	start(world);
	for (int i = 0; i < JOB_UNKNOWN_NAMES + 3; i++) {
		char name[16];
		(void)snprintf(name, sizeof name, "nobody %d", i);
		(void)insert(world, name, "", OK);
		ship_wake(world->ship);
		run_for(world, SECOND);
	}
	struct row *known = insert(world, "default", "", OK);
	ship_wake(world->ship);
	run_for(world, SECOND);
	assert_true(known->accepted);
	int said = 0;
	for (const char *at = world->said; (at = strstr(at, "not in the configuration")) != NULL; at++)
		said++;
	assert_int_equal(said, JOB_UNKNOWN_NAMES);
	destroy(world);
}

static void a_network_is_not_waited_for_by_who_stops(void **state)
{
	(void)state;
	struct world *world = create();
	(void)insert(world, "default", "", NO_CONNECTION);
	start(world);
	run_for(world, 10 * MINUTE);
	assert_true(ship_waits_for_network(world->ship));
	ship_stop(world->ship);
	assert_false(ship_waits_for_network(world->ship));
	run_for(world, MINUTE);
	destroy(world);
}

static void a_network_is_not_waited_for_in_closed_hours(void **state)
{
	(void)state;
	/* It is 22:13 of the day before in UTC, and 03:43 where the hours are. */
	struct world *world = create_with("[endpoint]\nurl = https://example.net/\n"
	                                  "[limits]\nhours = 03:00-04:00\n"
	                                  "[app default]\napp_key = SECRETa\napi_key = SECRETb\n", 1);
	(void)insert(world, "default", "", NO_CONNECTION);
	start(world);
	run_for(world, MINUTE);
	assert_true(ship_waits_for_network(world->ship));
	run_for(world, HOUR);
	assert_false(ship_waits_for_network(world->ship));
	destroy(world);
}

static void a_spool_that_may_only_be_read_is_opened_anew_until_it_may_be_written(void **state)
{
	(void)state;
	static const struct fault denied = { .name = "no permission", .sqlite = SQLITE_READONLY };
	struct world *world = create();
	(void)insert(world, "default", "", OK);
	start(world);
	until_flying(world, &world->rows[0]);
	answer_now(world, &world->rows[0], OK);
	while (world->job == NULL || world->job->change_count == 0)
		assert_true(turn(world, world->clock + MINUTE));
	struct spool *before = world->spool;
	faults.only = "step";
	fail_after(&denied, 0, false);
	end_this_job(world);
	assert_true(stop_failing());
	assert_non_null(before);
	assert_non_null(world->spool);
	assert_non_null(strstr(world->said, "no permission to write"));
	all_is_taken(world);
	assert_non_null(strstr(world->said, "the spool can be used again"));
	/* Where it stands there no more, that is for the next look. */
	(void)insert(world, "default", "", OK);
	ship_wake(world->ship);
	until_flying(world, &world->rows[1]);
	answer_now(world, &world->rows[1], OK);
	while (world->job == NULL || world->job->change_count == 0)
		assert_true(turn(world, world->clock + MINUTE));
	char away[160];
	(void)snprintf(away, sizeof away, "%s-away", world->path);
	before = world->spool;
	assert_int_equal(rename(world->path, away), 0);
	faults.only = "step";
	fail_after(&denied, 2, false); /* behind the look for rows that nobody else could send */
	end_this_job(world);
	assert_true(stop_failing());
	assert_ptr_equal(world->spool, before);
	assert_int_equal(rename(away, world->path), 0);
	all_is_taken(world);
	destroy(world);
}

static void what_waits_to_be_settled_is_bounded(void **state)
{
	(void)state;
	struct world *world = create_with("[endpoint]\nurl = https://example.net/\nconnections = 64\n"
	                                  "[app default]\napp_key = SECRETa\napi_key = SECRETb\n", 1);
	insert_many(world, 600, "default", "", OK);
	world->job_time = 40;
	start(world);
	while (world->posts < 150)
		assert_true(turn(world, world->clock + MINUTE));
	world->job_time = 10 * MINUTE; /* the disk stands still */
	run_for(world, 9 * MINUTE);
	assert_true(world->flight_count == 0);
	assert_true(world->posts <= 600 && waiting(world) > 0);
	world->job_time = 1;
	all_is_taken(world);
	destroy(world);
}

static void no_more_is_kept_in_mind_of_what_somebody_took_away_than_there_is_room_for(void **state)
{
	(void)state;
	struct world *world = create_with("[endpoint]\nurl = https://example.net/\nconnections = 64\n"
	                                  "[app default]\napp_key = SECRETa\napi_key = SECRETb\n", 1);
	start(world);
	for (int i = 0; i < 30; i++) {
		world->latency = never_by_itself;
		insert_many(world, 64, "default", "", OK);
		ship_wake(world->ship);
		run_for(world, MINUTE);
		execute(world, "DELETE FROM interactions");
		world->latency = NULL;
		for (size_t flight = 0; flight < world->flight_count; flight++)
			world->flights[flight].due = world->clock;
		run_for(world, MINUTE);
	}
	assert_int_equal(world->posts, 30 * 64);
	assert_int_equal(waiting(world), 0);
	destroy(world);
}

static void a_reload_without_memory_for_an_apps_name_loses_no_record(void **state)
{
	(void)state;
	struct world *world = create();
	struct row *row = insert(world, "beta", "", OK);
	world->latency = never_by_itself;
	start(world);
	until_flying(world, row);
	struct config *without = parse("[endpoint]\nurl = https://example.net/\n"
	                               "[app default]\napp_key = SECRETa\napi_key = SECRETb\n");
	faults.only = "strdup";
	fail_after(&no_memory, 0, false);
	while (!ship_reload(world->ship, without))
		assert_true(turn(world, world->clock + MINUTE));
	assert_true(stop_failing());
	config_free(world->config);
	world->config = without;
	reload_with(world, plain_config);
	answer_now(world, row, S503);
	all_is_taken(world);
	destroy(world);
}

static void without_memory_to_know_a_record_it_is_met_again(void **state)
{
	(void)state;
	static const enum job_scan scans[] = { SCAN_ANY, SCAN_APP };
	for (size_t i = 0; i < 2; i++) {
		struct world *world = create();
		struct row *row = insert(world, "beta", "s", S401);
		start(world);
		if (scans[i] == SCAN_APP)
			run_for(world, MINUTE);
		until_scan(world, scans[i]);
		faults.only = "calloc";
		fail_after(&no_memory, 0, false);
		end_this_job(world);
		assert_true(stop_failing());
		row->fate = OK;
		all_is_taken(world);
		destroy(world);
	}
}

/* All of it, also while nothing else of a session or an app is known. */
static void what_is_forgotten_while_it_is_read_is_read_again(void **state)
{
	(void)state;
	for (int session = 0; session < 2; session++) {
		struct world *world = create();
		struct row *row = insert(world, "beta", "s", session > 0 ? OK : S401);
		for (int i = 0; i < 300; i++) {
			(void)insert(world, "default", "s", OK);
			(void)insert(world, "default", "t", OK);
		}
		start(world);
		until_scan(world, session > 0 ? SCAN_SESSION : SCAN_APP);
		if (session > 0) {
			world->job_due += MINUTE; /* what is known of the session goes meanwhile */
			run_for(world, 30 * SECOND);
		}
		ship_forget(world->ship);
		end_this_job(world);
		row->fate = OK;
		all_is_taken(world);
		destroy(world);
	}
}

static void without_memory_for_what_a_job_is_told_it_waits(void **state)
{
	(void)state;
	struct world *world = create();
	insert_many(world, 3, "default", "s", OK);
	/* The list of changes, then that of sessions to pass over. */
	faults.only = "realloc";
	fail_after(&no_memory, 1, false);
	start(world);
	assert_true(stop_failing());
	run_for(world, MINUTE);
	(void)insert(world, "default", "t", S409);
	(void)insert(world, "default", "u", S409);
	ship_wake(world->ship);
	run_for(world, 300);
	(void)insert(world, "default", "v", OK);
	faults.only = "realloc";
	fail_after(&no_memory, 0, true);
	ship_wake(world->ship);
	(void)stop_failing();
	all_is_taken(world);
	destroy(world);
}

/* And goes on when there is some, without another's news. */
static void without_memory_for_the_list_of_changes_it_tries_again(void **state)
{
	(void)state;
	struct world *world = create();
	(void)insert(world, "default", "", OK);
	start(world);
	run_for(world, MINUTE);
	insert_many(world, 20, "default", "", OK);
	faults.only = "realloc";
	fail_after(&no_memory, 0, true);
	ship_wake(world->ship);
	run_for(world, SECOND);
	assert_true(stop_failing());
	assert_true(waiting(world) > 0);
	run_for(world, SECOND);
	assert_int_equal(waiting(world), 0);
	all_is_taken(world);
	destroy(world);
}

/* --- Chance ------------------------------------------------------------- */

struct weather {
	enum reply outage;
	int64_t outage_until, next_outage;
	int64_t beta_refused_until;
	unsigned flaky; /* in a thousand */
};

static enum reply stormy(struct world *world, const struct row *row)
{
	struct weather *weather = world->context;
	if (world->clock < weather->outage_until)
		return weather->outage;
	if (row->fate == S400 || row->fate == S500)
		return row->fate;
	if (strcmp(row->app, "beta") == 0 && world->clock < weather->beta_refused_until)
		return S401;
	if (roll(world) % 1000 < weather->flaky) {
		static const enum reply kinds[] = { S503, S500, RESET, S409, TIMED_OUT, HTML };
		return kinds[roll(world) % 6];
	}
	return OK;
}

static int64_t jitter(struct world *world, const struct row *row)
{
	(void)row;
	return 1 + (int64_t)(roll(world) % (roll(world) % 20 == 0 ? 30000 : 40));
}

static bool storms_on_disk(struct world *world, struct job *job, bool after)
{
	static const enum spool_status kinds[] = { SPOOL_IO, SPOOL_BUSY, SPOOL_FULL };
	if (after || roll(world) % 25 != 0)
		return false;
	job->settled = job->read = kinds[roll(world) % 3];
	job->error.status = job->read;
	(void)snprintf(job->error.sentence, sizeof job->error.sentence, "storage");
	return true;
}

/* Random limits for the configuration; "" for most seeds. */
static void random_limits(struct world *world, char *into, size_t size)
{
	static const char *const limits[4][4] = {
		{ "", "rate = 5/s\n", "rate = 60/m\n", "rate = 200/h\n" },
		{ "", "bandwidth = 1k/s\n", "bandwidth = 20K/s\n", "" },
		{ "", "daily = 64K\n", "daily = 200k\n", "" },
		{ "", "hours = 01:00-05:00\n", "hours = 22:00-06:00, 12:00-13:00\n", "" },
	};
	(void)snprintf(into, size, "%s[limits]\n%s%s%s%s", plain_config,
	               limits[0][roll(world) % 4], limits[1][roll(world) % 4],
	               limits[2][roll(world) % 4], limits[3][roll(world) % 4]);
}

static void one_storm(uint64_t seed)
{
	static const char *const apps[] = { "default", "beta", "gamma" };
	static const enum reply outages[] = { S503, NO_CONNECTION, RESET, TIMED_OUT, HTML, S404,
		                              S429, LOCAL };
	struct weather weather = { .flaky = (unsigned)(seed % 5) * 20 };
	struct world *world = create_with(plain_config, seed);
	unsigned rejected = 0, failing = 0;
	char config[1024];
	bool limited = true;
	(void)snprintf(config, sizeof config, "%s", plain_config);
	if (limited) {
		random_limits(world, config, sizeof config);
		config_free(world->config);
		world->config = parse(config);
	}
	world->context = &weather;
	world->reply = stormy;
	world->latency = jitter;
	if (seed % 3 == 0)
		world->spoil = storms_on_disk;
	/* Answers, wakes and reloads come while a job is under way. */
	if (seed % 2 == 0)
		world->job_time_jitter = 1 + (int64_t)(roll(world) % 300);
	start_with(world, (struct ship_options){ .careful = seed % 7 == 0, .last_id = INT64_MAX });
	unsigned batches = 6 + (unsigned)(roll(world) % 6);
	for (unsigned batch = 0; batch < batches; batch++) {
		unsigned count = (unsigned)(roll(world) % 40);
		execute(world, "BEGIN");
		for (unsigned i = 0; i < count; i++) {
			char session[16] = "";
			enum reply fate = OK;
			if (roll(world) % 3 != 0)
				(void)snprintf(session, sizeof session, "s%d", (int)(roll(world) % 5));
			if (rejected < 4 && roll(world) % 40 == 0) {
				fate = S400;
				rejected++;
			} else if (failing < 3 && roll(world) % 60 == 0) {
				fate = S500;
				failing++;
			}
			(void)insert(world, apps[roll(world) % 3], session, fate);
		}
		execute(world, "COMMIT");
		if (roll(world) % 2) {
			weather.outage = outages[roll(world) % 8];
			weather.outage_until = world->clock + (int64_t)(roll(world) % (6 * HOUR));
		}
		if (roll(world) % 4 == 0)
			weather.beta_refused_until = world->clock + (int64_t)(roll(world) % (3 * HOUR));
		ship_wake(world->ship);
		if (roll(world) % 8 == 0)
			ship_try_now(world->ship);
		if (roll(world) % 8 == 0)
			reload_with(world, config);
		if (limited && roll(world) % 4 == 0)
			world->set_clock = (int64_t)(roll(world) % (80000 * HOUR)) - 40000 * HOUR;
		uint64_t posts = world->posts;
		uint64_t before = world->jobs + world->alarms;
		int64_t span = (int64_t)(roll(world) % (2 * HOUR));
		run_for(world, span);
		uint64_t work = world->jobs + world->alarms - before;
		uint64_t limit = 1000 + 60 * (world->posts - posts);
		if (work > limit)
			fail_msg("seed %" PRIu64 ": %" PRIu64 " jobs and alarms for %" PRIu64
			         " posts in %" PRId64 " s", seed, work, world->posts - posts, span / 1000);
	}
	/* The weather clears; now and then another row comes, so that no record fails
	 * alone. */
	weather.outage_until = weather.beta_refused_until = 0;
	weather.flaky = 0;
	for (int i = 0; i < (limited ? 400 : 24 * 6) && waiting(world) > 0; i++) {
		(void)insert(world, "default", "", OK);
		ship_wake(world->ship);
		run_for(world, limited ? 6 * HOUR : 10 * MINUTE);
	}
	if (waiting(world) != 0)
		fail_msg("seed %" PRIu64 ": %" PRId64 " records wait for ever", seed, waiting(world));
	for (size_t i = 0; i < world->row_count; i++) {
		const struct row *row = &world->rows[i];
		if (!(row->fate == OK ? row->accepted || row->dead : row->dead))
			fail_msg("seed %" PRIu64 ": record %" PRId64 " was lost", seed, row->id);
	}
	assert_true(balanced(world));
	assert_int_equal(ask(world, "SELECT count(*) FROM dead_letters WHERE length(reason) < 10 "
	                            "OR reason IS NULL"), 0);
	destroy(world);
}

static void in_any_weather_the_limits_hold_and_all_is_delivered_or_dead(void **state)
{
	(void)state;
	const char *wanted = getenv("SEEDS");
	uint64_t last = wanted != NULL ? strtoull(wanted, NULL, 10) : SEEDS;
	for (uint64_t seed = 1; seed <= last; seed++)
		one_storm(seed);
}

static void without_memory_there_is_no_flow(void **state)
{
	struct world *world = create();
	const struct ship_world functions = { .self = world, .now = world_now, .wall = world_wall };
	const struct ship_options options = { .last_id = INT64_MAX };
	(void)state;
	for (int allocations = 0;; allocations++) {
		fail_after(&no_memory, allocations, false);
		struct ship *ship = ship_new(world->config, &functions, &options);
		bool failed = stop_failing();
		assert_int_equal(ship == NULL, failed);
		ship_free(ship);
		if (!failed)
			break;
	}
	start(world);
	destroy(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_record_that_is_taken_leaves_the_spool),
		cmocka_unit_test(a_record_that_is_rejected_becomes_a_dead_letter_with_a_reason),
		cmocka_unit_test(a_record_that_is_busy_is_retried_by_itself),
		cmocka_unit_test(refused_keys_hold_their_app_alone),
		cmocka_unit_test(a_refused_endpoint_holds_everything),
		cmocka_unit_test(what_is_kept_for_a_time_costs_nothing_until_there_is_some),
		cmocka_unit_test(an_unknown_app_waits_and_is_named),
		cmocka_unit_test(a_record_that_cannot_be_sent_becomes_a_dead_letter),
		cmocka_unit_test(an_outage_uses_up_no_attempts_and_little_work),
		cmocka_unit_test(another_endpoint_is_tried_as_often_as_a_new_one),
		cmocka_unit_test(rows_that_come_during_an_outage_make_no_extra_tries),
		cmocka_unit_test(a_record_that_fails_while_others_are_taken_dies_and_its_session_goes_on),
		cmocka_unit_test(a_record_that_fails_alone_is_retried_for_ever),
		cmocka_unit_test(a_fresh_record_does_not_wait_for_one_that_fails_alone),
		cmocka_unit_test(two_records_that_fail_for_ever_die_though_little_else_comes),
		cmocka_unit_test(sessions_are_sent_in_order_and_beside_each_other),
		cmocka_unit_test(one_long_session_does_not_keep_others_waiting),
		cmocka_unit_test(memory_bounds_what_is_in_flight_and_a_larger_record_goes_alone),
		cmocka_unit_test(a_full_disk_sends_nothing_twice_and_settles_when_there_is_room),
		cmocka_unit_test(a_read_error_with_a_full_window_does_not_stop_the_flow),
		cmocka_unit_test(storage_that_fails_now_and_then_only_slows_things_down),
		cmocka_unit_test(a_probe_that_is_due_while_nothing_may_be_sent_does_not_spin),
		cmocka_unit_test(a_release_while_a_scan_is_under_way_is_not_forgotten),
		cmocka_unit_test(a_session_keeps_its_order_while_jobs_take_their_time),
		cmocka_unit_test(a_probe_finds_its_row_behind_many_of_others),
		cmocka_unit_test(ten_rejections_in_a_row_hold_the_app_and_the_ten_wait_again),
		cmocka_unit_test(a_dead_letter_whose_commit_seemed_to_fail_waits_again_with_the_other_nine),
		cmocka_unit_test(a_dead_letter_whose_commit_seemed_to_fail_is_sent_when_a_person_retries_it),
		cmocka_unit_test(a_reload_that_moves_the_apps_leaves_no_session_behind),
		cmocka_unit_test(an_app_that_was_gone_for_a_while_keeps_the_order_of_what_was_in_flight),
		cmocka_unit_test(a_reload_releases_what_was_held),
		cmocka_unit_test(one_record_that_is_refused_like_keys_or_endpoint_stops_only_itself),
		cmocka_unit_test(several_records_that_fail_do_not_take_up_the_probes),
		cmocka_unit_test(an_answer_of_before_a_reload_does_not_probe_an_app_that_lost_its_keys),
		cmocka_unit_test(a_row_that_was_replaced_in_flight_is_not_taken_for_the_one_that_was_sent),
		cmocka_unit_test(after_a_crash_one_record_at_a_time_is_built_and_sent_for_a_while),
		cmocka_unit_test(a_careful_start_leaves_no_suspect_behind_in_an_outage),
		cmocka_unit_test(a_condemned_record_is_not_sent_and_its_session_goes_on),
		cmocka_unit_test(after_stop_nothing_is_posted_and_all_verdicts_are_settled),
		cmocka_unit_test(a_flow_with_nothing_to_do_does_nothing),
		cmocka_unit_test(rows_beyond_the_last_id_are_not_for_this_run),
		cmocka_unit_test(a_row_under_an_earlier_id_is_found_although_another_waits),
		cmocka_unit_test(closed_hours_are_waited_for_without_work_and_without_memory),
		cmocka_unit_test(a_person_who_asks_to_try_now_gets_no_more_than_the_limits_allow),
		cmocka_unit_test(probes_of_an_outage_obey_the_limits_and_make_no_extra_work),
		cmocka_unit_test(what_does_not_fit_into_the_day_goes_first_on_the_next),
		cmocka_unit_test(the_days_count_is_written_with_settles_and_holds_after_a_restart),
		cmocka_unit_test(what_the_server_asked_for_holds_though_the_network_changes),
		cmocka_unit_test(without_a_limit_nothing_is_written_of_it),
		cmocka_unit_test(the_networks_return_is_a_try_at_once_and_nothing_else),
		cmocka_unit_test(without_memory_there_is_no_flow),
		cmocka_unit_test(what_a_server_quotes_is_kept_without_keys_but_for_those_that_hide_nothing),
		cmocka_unit_test(a_record_whose_app_is_held_while_it_is_read_waits_with_it),
		cmocka_unit_test(a_held_app_whose_probe_meets_an_outage_waits_for_both),
		cmocka_unit_test(a_held_app_whose_probe_finds_the_endpoint_held_is_probed_again),
		cmocka_unit_test(what_is_answered_after_a_reload_counts_and_gives_no_app_its_keys_back),
		cmocka_unit_test(a_witness_that_another_of_its_session_now_stands_before_is_not_blamed),
		cmocka_unit_test(a_held_app_tries_its_sessions_in_turn_whatever_their_probes_meet),
		cmocka_unit_test(a_record_that_failed_while_others_were_taken_is_not_to_blame_for_an_outage),
		cmocka_unit_test(an_endpoint_that_refuses_several_at_once_is_held_once),
		cmocka_unit_test(a_file_that_is_replaced_while_records_are_on_their_way_is_gone_over_to),
		cmocka_unit_test(a_witness_and_another_that_are_known_at_one_time_go_in_the_right_order),
		cmocka_unit_test(a_pause_gives_the_memory_back_and_ends_with_a_try),
		cmocka_unit_test(only_who_is_asked_tells_and_what_was_told_is_told_once),
		cmocka_unit_test(a_session_that_is_read_while_a_person_asks_keeps_its_order),
		cmocka_unit_test(a_look_at_all_during_which_records_are_taken_away_is_done_again),
		cmocka_unit_test(a_record_that_is_taken_away_while_it_is_read_is_gone),
		cmocka_unit_test(a_record_that_is_read_while_a_person_takes_others_away_is_read_again),
		cmocka_unit_test(a_look_for_a_probe_stands_up_to_whatever_a_person_does_meanwhile),
		cmocka_unit_test(an_app_that_is_taken_again_while_its_rows_are_passed_over_is_read_from_there),
		cmocka_unit_test(a_record_that_was_passed_over_as_its_app_became_held_is_found_for_its_probe),
		cmocka_unit_test(a_probe_is_found_behind_thousands_when_others_were_tried),
		cmocka_unit_test(a_damaged_place_is_told_once_and_again_when_it_has_grown),
		cmocka_unit_test(what_is_done_with_but_cannot_leave_is_said_and_not_sent_again),
		cmocka_unit_test(
			what_cannot_leave_is_not_sent_again_when_its_app_comes_back_from_the_configuration),
		cmocka_unit_test(a_held_app_is_probed_though_a_row_that_cannot_leave_stands_before),
		cmocka_unit_test(what_was_read_before_a_file_was_opened_anew_is_read_again),
		cmocka_unit_test(what_was_dead_for_long_goes_in_parts_that_are_told_as_one),
		cmocka_unit_test(what_is_due_and_does_not_go_is_not_asked_for_all_the_time),
		cmocka_unit_test(when_the_last_dead_letter_is_gone_there_is_nothing_more_to_sweep),
		cmocka_unit_test(what_an_outage_left_known_by_its_place_is_built_as_there_is_room),
		cmocka_unit_test(a_held_app_is_not_probed_while_others_fill_the_memory),
		cmocka_unit_test(no_more_fail_by_themselves_at_once_than_there_is_room_for),
		cmocka_unit_test(what_was_let_go_is_met_again_by_itself),
		cmocka_unit_test(limits_that_could_not_be_written_down_are_tried_again_by_themselves),
		cmocka_unit_test(a_pause_that_could_not_be_read_is_asked_for_again_by_itself),
		cmocka_unit_test(the_metrics_wait_for_the_storage_and_for_the_end),
		cmocka_unit_test(who_stops_writes_the_metrics_once_more_when_all_is_settled),
		cmocka_unit_test(no_more_unknown_apps_are_named_than_there_is_room_for),
		cmocka_unit_test(a_network_is_not_waited_for_by_who_stops),
		cmocka_unit_test(a_network_is_not_waited_for_in_closed_hours),
		cmocka_unit_test(a_spool_that_may_only_be_read_is_opened_anew_until_it_may_be_written),
		cmocka_unit_test(what_waits_to_be_settled_is_bounded),
		cmocka_unit_test(no_more_is_kept_in_mind_of_what_somebody_took_away_than_there_is_room_for),
		cmocka_unit_test(a_reload_without_memory_for_an_apps_name_loses_no_record),
		cmocka_unit_test(without_memory_to_know_a_record_it_is_met_again),
		cmocka_unit_test(what_is_forgotten_while_it_is_read_is_read_again),
		cmocka_unit_test(without_memory_for_what_a_job_is_told_it_waits),
		cmocka_unit_test(without_memory_for_the_list_of_changes_it_tries_again),
		cmocka_unit_test(in_any_weather_the_limits_hold_and_all_is_delivered_or_dead),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
