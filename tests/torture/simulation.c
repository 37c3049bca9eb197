/* The agent's real flow, policy, payloads and jobs under a seeded simulation: days of
 * weather, with producers, several apps and sessions, outages, refused keys, bad records,
 * lost answers, storage that fails, rows that are damaged or cannot leave, clocks that jump,
 * limits, reloads, a person's pauses, retries and discards, stops, kills and power cuts.
 * Reached through struct ship_world and spool.h, as the daemon does; a seed is the same life
 * each time.
 *
 * What must hold in each: nothing is lost or altered, a session keeps its order, what is
 * sent again was in flight, unsettled or unsynced when the agent died and no more than
 * that, the ledger adds up, nothing is sent while that is not allowed, and no turn is for
 * nothing.
 *
 *   simulation --seed N --points SEEDS --budget SECONDS      prints one line of JSON
 */
#include <signal.h>
#include <unistd.h>

#include "agent/flow.h"
#include "agent/ship.h"
#include "tests/torture/store.h"
#include "tests/torture/tally.h"

#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define ROWS_MAX 1500
#define ROWS_LAST (24 * 4) /* that can be taken, at the end */
#define FLIGHTS_MAX 512
#define APPS 3

enum reply {
	OK, S500, S503, S429, S409, S400, S401, S404, RESET, NO_CONNECTION, TIMED_OUT, HTML, LOCAL,
	LOST_ANSWER /* it was taken, and nobody heard of it */
};

struct row {
	char uuid[RECORD_UUID_SIZE + 1], session[16], body[48], answer[24];
	int app;
	enum reply fate;     /* OK, or S400 or S500 for ever */
	bool flying, taken;
	bool stuck, damaged; /* cannot leave the spool; nor be read */
	bool buried;         /* the flow said that it became a dead letter */
	unsigned arrivals;   /* at the endpoint, that it accepted */
	bool may_come_again; /* accepted, and the agent may not know */
};

struct flight {
	void *ticket;
	struct row *row;
	int64_t due;
	enum reply reply;
};

struct weather {
	enum reply outage;
	int64_t outage_until;
	int64_t beta_refused_until, beta_rejected_until;
	unsigned flaky; /* in a thousand */
};

struct world {
	struct tally *tally;
	uint64_t number, seed;
	int64_t clock, wall;
	struct config *config;
	struct ship *ship;
	struct store *store;
	struct spool *spool;
	struct row rows[ROWS_MAX];
	size_t count;
	struct flight flights[FLIGHTS_MAX];
	size_t flying;
	struct job *job;
	int64_t job_due, job_jitter, alarm;
	struct weather weather;
	bool broken;
	bool unordered; /* records that were rejected wait again, behind what went on */
	uint64_t posts, jobs, alarms;
	int64_t moment;
	unsigned at_moment;
	unsigned configs;
	int opens, closes; /* minutes of the day in which posts are allowed; opens < 0: all */
	bool paused;
	bool trace;
};

__attribute__((format(printf, 2, 3)))
static void blame(struct world *world, const char *format, ...)
{
	char text[160];
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (!world->broken)
		tally_fail(world->tally, "seed %" PRIu64 ", at %" PRId64 " ms: %s", world->number,
		           world->clock, text);
	world->broken = true;
}

__attribute__((format(printf, 2, 3)))
static void trace(const struct world *world, const char *format, ...)
{
	if (!world->trace)
		return;
	va_list arguments;
	va_start(arguments, format);
	(void)fprintf(stderr, "%10" PRId64 " ", world->clock);
	(void)vfprintf(stderr, format, arguments);
	(void)fputc('\n', stderr);
	va_end(arguments);
}

static uint64_t roll(struct world *world)
{
	return tally_roll(&world->seed);
}

static int64_t id_of(const struct world *world, const struct row *row)
{
	return row - world->rows + 1;
}

/* --- What the flow sees ------------------------------------------------- */

static int64_t world_now(void *self)
{
	return ((struct world *)self)->clock;
}

static int64_t world_wall(void *self)
{
	struct world *world = self;
	return world->wall + world->clock;
}

static uint64_t world_random(void *self)
{
	return roll(self);
}

static void world_work(void *self, struct job *job)
{
	struct world *world = self;
	if (world->job != NULL)
		blame(world, "two jobs at once");
	if (job->scan == SCAN_SESSION && job->to == INT64_MAX)
		blame(world, "a session is read beyond what was looked at");
	world->job = job;
	world->job_due = world->clock + 1;
	if (world->job_jitter > 0)
		world->job_due += (int64_t)(roll(world) % (uint64_t)world->job_jitter);
	world->jobs++;
}

static const char *const app_names[APPS] = { "default", "beta", "gamma" };

/* Every earlier record of the session has its verdict. */
static void look_at_order(struct world *world, const struct row *row)
{
	if (row->session[0] == '\0' || world->unordered)
		return;
	for (const struct row *other = world->rows; other < row; other++)
		if (other->app == row->app && strcmp(other->session, row->session) == 0 &&
		    !other->damaged && other->arrivals == 0 && !other->buried && !other->taken &&
		    store_look(world->store, id_of(world, other)) == STORE_WAITING)
			blame(world, "record %" PRId64 " was sent before %" PRId64 " of its session",
			      id_of(world, row), id_of(world, other));
}

static void look_at_payload(struct world *world, const struct row *row,
                            const struct ship_post *post)
{
	char wanted[5][96], text[1024];
	if (post->size >= sizeof text) {
		world->tally->altered++;
		blame(world, "record %" PRId64 " grew", id_of(world, row));
		return;
	}
	memcpy(text, post->payload, post->size);
	text[post->size] = '\0';
	(void)snprintf(wanted[0], sizeof wanted[0], "\"appKey\":\"KEY-%s-", app_names[row->app]);
	(void)snprintf(wanted[1], sizeof wanted[1], "\"body\":\"%s\"", row->body);
	(void)snprintf(wanted[2], sizeof wanted[2], "\"body\":%s}", row->answer);
	(void)snprintf(wanted[3], sizeof wanted[3], "\"request\":1700000000000");
	(void)snprintf(wanted[4], sizeof wanted[4], "\"session\":\"%s\"", row->session);
	for (int i = 0; i < 4 + (row->session[0] != '\0'); i++)
		if (strstr(text, wanted[i]) == NULL) {
			world->tally->altered++;
			blame(world, "record %" PRId64 " was altered", id_of(world, row));
		}
	if (row->session[0] == '\0' && strstr(text, "\"session\"") != NULL)
		blame(world, "record %" PRId64 " was given a session", id_of(world, row));
}

static enum reply reply_to(struct world *world, const struct row *row)
{
	static const enum reply kinds[] = { S503, S500, RESET, S409, TIMED_OUT, HTML, LOST_ANSWER };
	const struct weather *weather = &world->weather;
	if (world->clock < weather->outage_until)
		return weather->outage;
	if (row->fate != OK)
		return row->fate;
	if (row->app == 1 && world->clock < weather->beta_refused_until)
		return S401;
	if (row->app == 1 && world->clock < weather->beta_rejected_until)
		return S400;
	if (roll(world) % 1000 < weather->flaky)
		return kinds[roll(world) % 7];
	return OK;
}

static void look_at_limits(struct world *world)
{
	int64_t wall = world_wall(world), day = 24 * HOUR;
	int64_t minute = (wall % day + day) % day / MINUTE;
	if (world->opens >= 0 && (minute < world->opens || minute >= world->closes))
		blame(world, "a post outside the hours");
	if (world->paused)
		blame(world, "a post while it is paused");
}

static void world_post(void *self, const struct ship_post *post)
{
	struct world *world = self;
	uint64_t number = strtoull(post->uuid + 16, NULL, 16);
	if (number == 0 || number > world->count ||
	    strcmp(world->rows[number - 1].uuid, post->uuid) != 0) {
		blame(world, "a record that nobody inserted was sent");
		number = 1;
	}
	struct row *row = &world->rows[number - 1];
	if (world->flying == FLIGHTS_MAX) {
		blame(world, "too many in flight");
		return;
	}
	if (row->flying)
		blame(world, "record %zu is in flight twice", (size_t)number);
	if (row->arrivals > 0 && !row->may_come_again)
		blame(world, "record %zu was sent again for nothing", (size_t)number);
	if (store_look(world->store, (int64_t)number) != STORE_WAITING && !row->taken)
		blame(world, "record %zu was sent, and does not wait", (size_t)number);
	look_at_limits(world);
	look_at_order(world, row);
	look_at_payload(world, row, post);
	row->flying = true;
	world->posts++;
	int64_t latency = 1 + (int64_t)(roll(world) % (roll(world) % 20 == 0 ? 30000 : 40));
	world->flights[world->flying++] =
		(struct flight){ post->ticket, row, world->clock + latency, reply_to(world, row) };
	trace(world, "post %zu, reply %d", (size_t)number,
	      (int)world->flights[world->flying - 1].reply);
}

static void world_alarm(void *self, int64_t at)
{
	((struct world *)self)->alarm = at;
}

static void world_suspect(void *self, const char *uuid)
{
	struct world *world = self;
	if (uuid != NULL && world->flying > 0)
		blame(world, "a suspect while others are in flight");
}

static void world_say(void *self, enum config_log_level level, const char *sentence)
{
	struct world *world = self;
	int64_t id;
	(void)level;
	trace(world, "say: %s", sentence);
	if (sscanf(sentence, "record %" SCNd64 " became a dead letter", &id) == 1 && id > 0 &&
	    id <= (int64_t)world->count)
		world->rows[id - 1].buried = true;
	if (strstr(sentence, "KEY-") != NULL)
		blame(world, "a key in the log");
}

/* --- Its turning -------------------------------------------------------- */

static void arrive(struct row *row)
{
	row->arrivals++;
	row->may_come_again = false;
}

static struct answer answer_for(enum reply reply)
{
	static const char ok[] = "{\"status\":\"ok\"}", html[] = "<html>Log in</html>";
	static const char refused[] = "{\"status\":\"error\"}";
	static const int statuses[] = {
		[OK] = 200, [S500] = 500, [S503] = 503, [S429] = 429, [S409] = 409, [S400] = 400,
		[S401] = 401, [S404] = 404, [HTML] = 200
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
	case LOST_ANSWER:
		answer.kind = ANSWER_TIMEOUT;
		break;
	case LOCAL:
		answer.kind = ANSWER_LOCAL;
		break;
	default:
		answer.status = statuses[reply];
		answer.body = reply == OK ? ok : reply == HTML ? html : refused;
		answer.body_size = strlen(answer.body);
	}
	return answer;
}

static void end_flight(struct world *world, size_t place)
{
	struct flight flight = world->flights[place];
	world->flights[place] = world->flights[--world->flying];
	struct answer answer = answer_for(flight.reply);
	flight.row->flying = false;
	if (flight.reply == OK || flight.reply == LOST_ANSWER)
		arrive(flight.row);
	flight.row->may_come_again = flight.row->may_come_again || flight.reply == LOST_ANSWER;
	trace(world, "answer %d for %" PRId64, (int)flight.reply, id_of(world, flight.row));
	ship_answered(world->ship, flight.ticket, &answer);
	/* As a turn of the real loop may take in several answers first. */
	if (world->flying == 0 || roll(world) % 2)
		ship_go_on(world->ship);
}

static void look_at_changes(struct world *world, const struct job *job)
{
	for (size_t i = 0; i < job->change_count; i++) {
		const struct spool_change *change = &job->changes[i];
		if (change->kind == CHANGE_NOTE || change->id < 1 || change->id > (int64_t)world->count)
			continue;
		struct row *row = &world->rows[change->id - 1];
		trace(world, "change %d of %" PRId64 ", missed %d, settled %d", (int)change->kind,
		      change->id, change->missed, (int)job->settled);
		if (change->kind == CHANGE_DELIVERED && row->arrivals == 0) {
			world->tally->lost++;
			blame(world, "record %" PRId64 " is settled and was never taken", change->id);
		}
		if (change->kind == CHANGE_REVIVED)
			row->buried = false;
	}
}

static void end_job(struct world *world)
{
	struct job *job = world->job;
	job_run(job, &world->spool, store_path(world->store));
	look_at_changes(world, job);
	world->job = NULL;
	ship_worked(world->ship, job);
}

/* One event, not later than `until`. False: there is none. */
static bool turn(struct world *world, int64_t until)
{
	int64_t next = world->alarm;
	size_t place = FLIGHTS_MAX;
	bool job = world->job != NULL && world->job_due <= next;
	if (world->broken)
		return false;
	if (job)
		next = world->job_due;
	for (size_t i = 0; i < world->flying; i++)
		if (world->flights[i].due < next || (world->flights[i].due == next && !job)) {
			next = world->flights[i].due;
			place = i;
			job = false;
		}
	if (next > until) {
		if (until > world->clock)
			world->clock = until;
		return false;
	}
	if (next > world->clock)
		world->clock = next;
	if (world->clock != world->moment)
		world->at_moment = 0;
	world->moment = world->clock;
	if (++world->at_moment > 20000)
		blame(world, "it spins: 20000 events at one moment");
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
	int64_t from = world->clock;
	uint64_t posts = world->posts, before = world->jobs + world->alarms;
	while (turn(world, from + time)) {
	}
	uint64_t work = world->jobs + world->alarms - before;
	if (work > 1000 + 60 * (world->posts - posts) + (uint64_t)time / 5000)
		blame(world, "it spins: %" PRIu64 " jobs and alarms for %" PRIu64 " posts in %" PRId64 " s",
		      work, world->posts - posts, time / SECOND);
}

/* --- What happens to it ------------------------------------------------- */

static struct config *configure(struct world *world, bool whole)
{
	char text[700], *error = NULL;
	struct config *config = NULL;
	unsigned number = world->configs++;
	bool gamma = whole || roll(world) % 4 != 0, turned = roll(world) % 2;
	int size = snprintf(text, sizeof text, "[endpoint]\nurl = https://example.net/\n"
	                    "connections = %d\n", whole ? 8 : 1 + (int)(roll(world) % 32));
	for (int i = 0; i < APPS; i++) {
		int app = turned ? APPS - 1 - i : i;
		if (app != 2 || gamma)
			size += snprintf(text + size, sizeof text - (size_t)size,
			                 "[app %s]\napp_key = KEY-%s-%u\napi_key = KEY-%u\n",
			                 app_names[app], app_names[app], number, number);
	}
	static const char *const limits[] = { "", "rate = 2/s\n", "daily = 64K\n", "bandwidth = 4k/s\n" };
	world->opens = -1;
	if (!whole && roll(world) % 2) {
		size += snprintf(text + size, sizeof text - (size_t)size, "[limits]\n%s",
		                 limits[roll(world) % 4]);
		if (roll(world) % 3 == 0) {
			world->opens = (int)(roll(world) % 23) * 60;
			world->closes = world->opens + 60;
			(void)snprintf(text + size, sizeof text - (size_t)size,
			               "hours = %02d:00-%02d:00\n", world->opens / 60, world->closes / 60);
			size = (int)strlen(text);
		}
	}
	if (!config_parse(text, (size_t)size, "simulation", NULL, &config, &error)) {
		(void)fprintf(stderr, "configuration: %s\n", error);
		exit(70);
	}
	config_load_keys(config);
	return config;
}

static void reload(struct world *world, bool whole)
{
	struct config *old = world->config;
	int opens = world->opens, closes = world->closes;
	world->config = configure(world, whole);
	int new_opens = world->opens, new_closes = world->closes;
	trace(world, "reload");
	while (!ship_reload(world->ship, world->config) && !world->broken) {
		world->opens = opens; /* the old hours hold until it is taken */
		world->closes = closes;
		(void)turn(world, world->clock + HOUR);
		world->opens = new_opens;
		world->closes = new_closes;
	}
	config_free(old);
}

static void start(struct world *world, bool careful)
{
	struct spool_error error;
	struct ship_world functions = {
		.self = world, .now = world_now, .wall = world_wall, .random = world_random,
		.work = world_work, .post = world_post, .alarm = world_alarm,
		.suspect = world_suspect, .say = world_say
	};
	struct ship_options options = { .careful = careful, .last_id = INT64_MAX };
	world->spool = spool_open(store_path(world->store), SPOOL_WORK, 1 << 20, &error);
	world->alarm = INT64_MAX;
	world->ship = world->spool != NULL ? ship_new(world->config, &functions, &options) : NULL;
	if (world->ship == NULL) {
		blame(world, "it does not start");
		exit(70);
	}
	trace(world, "start");
	for (size_t i = 0; i < world->count; i++)
		if (world->rows[i].stuck) { /* what it was kept in mind for is forgotten */
			world->rows[i].buried = false;
			world->rows[i].may_come_again = world->rows[i].arrivals > 0;
		}
	ship_wake(world->ship);
}

static void end(struct world *world)
{
	ship_free(world->ship);
	spool_close(world->spool);
	world->ship = NULL;
	world->spool = NULL;
	world->job = NULL;
}

static void stop(struct world *world)
{
	trace(world, "stop");
	ship_stop(world->ship);
	uint64_t posts = world->posts;
	int64_t until = world->clock + 10 * MINUTE;
	while (!ship_is_stopped(world->ship) && turn(world, until)) {
	}
	if (!ship_is_stopped(world->ship))
		blame(world, "it does not stop");
	if (world->posts != posts)
		blame(world, "it posts while it stops");
	end(world);
}

/* What the dead agent's answers were is known to nobody. */
static void die(struct world *world, bool power)
{
	uint64_t settled_before = 0, again = 0, back = 0;
	trace(world, power ? "power cut" : "kill");
	if (world->job != NULL && roll(world) % 2) {
		/* The thread of the spool was ahead of the loop's. */
		job_run(world->job, &world->spool, store_path(world->store));
		look_at_changes(world, world->job);
		for (size_t i = 0; i < world->job->entry_count; i++)
			free(world->job->entries[i].payload);
		world->job->entry_count = 0;
	}
	end(world);
	for (size_t i = 0; i < world->flying; i++) {
		struct flight *flight = &world->flights[i];
		flight->row->flying = false;
		if ((flight->reply == OK || flight->reply == LOST_ANSWER) && roll(world) % 2)
			arrive(flight->row);
	}
	for (size_t i = 0; i < world->count; i++) {
		const struct row *row = &world->rows[i];
		again += row->arrivals > 0 && !row->may_come_again && !row->stuck &&
		         store_look(world->store, (int64_t)i + 1) == STORE_WAITING;
		settled_before += store_look(world->store, (int64_t)i + 1) == STORE_GONE;
	}
	if (power)
		store_cut(world->store);
	for (size_t i = 0; i < world->count; i++) {
		struct row *row = &world->rows[i];
		enum store_state state = store_look(world->store, (int64_t)i + 1);
		settled_before -= state == STORE_GONE;
		if (state != STORE_WAITING)
			continue;
		row->buried = false;
		row->may_come_again = row->may_come_again || row->arrivals > 0;
	}
	back = settled_before;
	if (again > UNSETTLED_MAX)
		blame(world, "%" PRIu64 " records are sent again", again);
	if (again + back > world->tally->extra)
		world->tally->extra = again + back;
	world->flying = 0;
	start(world, roll(world) % 2);
}

static void insert(struct world *world, int app, const char *session, enum reply fate)
{
	if (world->count == ROWS_MAX)
		return;
	struct row *row = &world->rows[world->count++];
	*row = (struct row){ .app = app, .fate = fate };
	(void)snprintf(row->uuid, sizeof row->uuid, "%016" PRIx64 "%016zx", roll(world), world->count);
	(void)snprintf(row->session, sizeof row->session, "%s", session);
	(void)snprintf(row->body, sizeof row->body, "q%" PRIx64, roll(world));
	(void)snprintf(row->answer, sizeof row->answer, "[%" PRIu32 "]", (uint32_t)roll(world));
	struct store_row kept = { row->uuid, app_names[app], session, row->body, row->answer };
	store_insert(world->store, &kept);
}

static void produce(struct world *world)
{
	unsigned count = (unsigned)(roll(world) % (roll(world) % 12 == 0 ? 300 : 40));
	for (unsigned i = 0; i < count && world->count < ROWS_MAX - ROWS_LAST; i++) {
		char session[16] = "";
		enum reply fate = OK;
		if (roll(world) % 3 != 0)
			(void)snprintf(session, sizeof session, "s%d", (int)(roll(world) % 5));
		/* Few, so that no ten in a row are rejected by chance alone. */
		if (roll(world) % 60 == 0)
			fate = roll(world) % 2 ? S400 : S500;
		insert(world, (int)(roll(world) % APPS), session, fate);
	}
	if (world->ship != NULL)
		ship_wake(world->ship);
}

/* A person, or a producer, takes records away or lets dead letters wait again. */
static void interfere(struct world *world)
{
	bool revive = roll(world) % 2, removed = roll(world) % 2;
	for (size_t i = 0; i < world->count; i++) {
		struct row *row = &world->rows[i];
		if (roll(world) % 8 != 0)
			continue;
		if (revive) {
			if (!store_revive(world->store, (int64_t)i + 1))
				continue;
			world->unordered = true;
			row->buried = false;
			row->fate = roll(world) % 2 ? OK : row->fate;
			row->may_come_again = row->may_come_again || row->arrivals > 0;
		} else if (store_take(world->store, (int64_t)i + 1, removed)) {
			row->taken = true;
		}
	}
	trace(world, "interfered: revive %d", revive);
	if (revive)
		ship_try_now(world->ship); /* as 'retry' does */
	else
		ship_forget(world->ship);
}

static void pause_or_resume(struct world *world, bool pause)
{
	int64_t since = pause ? world_wall(world) : -1;
	trace(world, pause ? "pause" : "resume");
	store_pause(world->store, since > 0 || !pause ? since : 0);
	world->paused = pause;
	ship_set_pause(world->ship, since > 0 || !pause ? since : 0);
}

/* Somebody's doing in the file, or the disk's. */
static void spoil_rows(struct world *world)
{
	bool damaged = roll(world) % 2;
	for (size_t i = 0; i < world->count; i++) {
		struct row *row = &world->rows[i];
		if (roll(world) % 16 != 0 || !store_spoil_row(world->store, (int64_t)i + 1, damaged))
			continue;
		trace(world, "row %zu %s", i + 1, damaged ? "is damaged" : "cannot leave");
		row->stuck = true;
		row->damaged = damaged;
	}
}

static void change_weather(struct world *world)
{
	static const enum reply outages[] = { S503, NO_CONNECTION, RESET, TIMED_OUT, HTML, S404,
		                              S429, LOCAL };
	struct weather *weather = &world->weather;
	if (roll(world) % 2) {
		weather->outage = outages[roll(world) % 8];
		weather->outage_until = world->clock + (int64_t)(roll(world) % (uint64_t)(6 * HOUR));
	}
	if (roll(world) % 4 == 0)
		weather->beta_refused_until = world->clock + (int64_t)(roll(world) % (uint64_t)(3 * HOUR));
	if (roll(world) % 10 == 0) {
		weather->beta_rejected_until = world->clock + (int64_t)(roll(world) % (uint64_t)HOUR);
		world->unordered = true; /* they wait again once the app is held */
	}
	if (roll(world) % 8 == 0)
		world->wall += (int64_t)(roll(world) % (uint64_t)(40 * 365 * 24 * HOUR)) -
		               20 * 365 * 24 * HOUR;
	if (roll(world) % 12 == 0)
		world->clock += (int64_t)(roll(world) % (uint64_t)(48 * HOUR)); /* it slept */
}

static void one_step(struct world *world)
{
	produce(world);
	change_weather(world);
	switch (roll(world) % 14) {
	case 0:
		die(world, false);
		break;
	case 1:
		die(world, true);
		break;
	case 2:
		stop(world);
		if (roll(world) % 2)
			world->clock += (int64_t)(roll(world) % (uint64_t)(12 * HOUR));
		produce(world);
		start(world, false);
		break;
	case 3:
		reload(world, false);
		break;
	case 4:
		ship_try_now(world->ship);
		break;
	case 5:
		interfere(world);
		break;
	case 6:
	case 7:
		pause_or_resume(world, !world->paused);
		break;
	case 8:
		if (world->number % 4 == 0)
			spoil_rows(world);
		break;
	default:
		break;
	}
	/* Short ones end in the middle of what is going on. */
	uint64_t most = roll(world) % 2 ? 300 : roll(world) % 2 ? 20000 : (uint64_t)(2 * HOUR);
	run_for(world, (int64_t)(roll(world) % most));
}

/* Though it waits: no agent can do more for it. */
static bool is_done_with(const struct row *row)
{
	return row->damaged || (row->stuck && (row->arrivals > 0 || row->buried));
}

static int64_t still_waiting(struct world *world)
{
	int64_t count = 0;
	for (size_t i = 0; i < world->count; i++)
		count += store_look(world->store, (int64_t)i + 1) == STORE_WAITING &&
		         !is_done_with(&world->rows[i]);
	return count;
}

static void look_at_fates(struct world *world)
{
	for (size_t i = 0; i < world->count && !world->broken; i++) {
		const struct row *row = &world->rows[i];
		enum store_state state = store_look(world->store, (int64_t)i + 1);
		if (state == STORE_WAITING && !is_done_with(row))
			blame(world, "record %zu waits for ever", i + 1);
		if (state == STORE_GONE && row->arrivals == 0 && !row->taken) {
			world->tally->lost++;
			blame(world, "record %zu is lost", i + 1);
		}
	}
	if (!store_balanced(world->store))
		blame(world, "the ledger does not add up");
}

static void one_life(struct tally *tally, uint64_t number)
{
	struct world *world = calloc(1, sizeof *world);
	if (world == NULL)
		exit(71);
	world->tally = tally;
	world->number = number;
	world->seed = tally_seed(number);
	world->trace = getenv("TRACE") != NULL;
	world->clock = SECOND;
	world->moment = -1;
	world->wall = INT64_C(1700000000000);
	world->store = store_new();
	world->config = configure(world, true);
	world->weather.flaky = (unsigned)(number % 5) * 20;
	if (number % 3 == 0)
		store_spoil(world->store, 1 + (unsigned)(roll(world) % 20), number);
	/* Answers, wakes and reloads come while a job is under way. */
	if (number % 2 == 0)
		world->job_jitter = 1 + (int64_t)(roll(world) % 300);
	start(world, number % 7 == 0);
	unsigned steps = 4 + (unsigned)(roll(world) % 10);
	for (unsigned i = 0; i < steps && !world->broken; i++)
		one_step(world);

	/* The weather clears; others come, so that those which fail do not do so alone. */
	world->weather = (struct weather){ .flaky = 0 };
	store_spoil(world->store, 0, 1);
	if (!world->broken)
		reload(world, true);
	if (!world->broken)
		pause_or_resume(world, false);
	for (int i = 0; i < 24 * 6 && !world->broken && still_waiting(world) > 0; i++) {
		for (int more = 0; more < 4; more++) { /* those of the first four hours have room */
			insert(world, 0, "", OK);
			ship_wake(world->ship);
			run_for(world, 20 * SECOND);
		}
		run_for(world, 9 * MINUTE);
	}
	if (!world->broken)
		stop(world);
	else
		end(world);
	if (!world->broken)
		look_at_fates(world);
	config_free(world->config);
	store_free(world->store);
	free(world);
	tally->points++;
}

static volatile uint64_t seed_now;

/* A crash, or a turn without end, names its seed. */
static void last_words(int number)
{
	char text[80];
	int size = snprintf(text, sizeof text, "seed %" PRIu64 " ended by signal %d\n", seed_now, number);
	if (write(STDERR_FILENO, text, (size_t)size) < 0)
		_exit(71);
	_exit(70);
}

int main(int count, char **words)
{
	struct tally tally = { .points = 0 };
	struct tally_options options = { .seed = 1, .points = 2000, .budget = 3600 };
	if (!tally_parse(count, words, &options)) {
		(void)fprintf(stderr, "usage: simulation --seed N --points SEEDS --budget SECONDS\n");
		return 64;
	}
	(void)signal(SIGALRM, last_words);
	(void)signal(SIGABRT, last_words);
	(void)signal(SIGSEGV, last_words);
	double deadline = tally_clock() + options.budget;
	for (uint64_t i = 0; i < options.points && tally_clock() < deadline; i++) {
		seed_now = options.seed + i;
		(void)alarm(60);
		one_life(&tally, seed_now);
	}
	return tally_print(&tally);
}
