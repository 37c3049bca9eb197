/* The flow of a record, from waking up to settling; see ship.h.
 *
 * Read it from the bottom up: pump() is the heart. It posts what may be posted,
 * then asks the storage thread, in one job at a time, to settle, load and scan.
 *
 * A record that is known here is a struct item, in one of these states:
 *
 *   QUEUED    behind another of its session
 *   READY     first of its session, payload built: in the list `ready`
 *   COLD      likewise, but its payload is not in memory: in the list `cold`
 *   LOADING   likewise, a job is building its payload
 *   FLYING    being posted
 *   WAITING   failed by itself: again when `due` has come
 *   SETTLING  has its verdict, which a job is writing down
 *
 *   QUEUED -> READY|COLD;  COLD -> LOADING -> READY;  READY -> FLYING|COLD;
 *   FLYING -> SETTLING|WAITING|COLD;  WAITING -> COLD|SETTLING
 *
 * Forgetting an item is always safe: its row is still in the spool, and a scan
 * from an earlier id meets it again.
 */
#include "agent/ship.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/breaker.h"

#define SETTLE_COUNT 64       /* settle at once when so many have a verdict, */
#define SETTLE_AGE 20         /* or after so many ms, or when nothing is in flight */
#define UNSETTLED_MAX 256     /* in flight and unsettled: what a crash can send twice */
#define WINDOW 128            /* records known ahead of those in flight */
#define SESSION_ROOM 16       /* of one session, so that it cannot fill the window */
#define SESSION_LOW 4
#define WAITING_MAX 1024      /* records that fail by themselves, at once */
#define BUCKETS 1024
#define REJECTED_MAX 10       /* in a row: then the configuration is the cause */
#define SERVER_SAID_SIZE 4096
#define STORAGE_PATIENCE_BASE 100
#define STORAGE_PATIENCE_CAP 30000
#define DRAIN_PROBES 3        /* failed tries after which a down destination is "tried" */

enum item_state { QUEUED, READY, COLD, LOADING, FLYING, WAITING, SETTLING };

struct session;

struct item {
	enum item_state state;
	int64_t id;
	char uuid[RECORD_UUID_SIZE + 1];
	size_t app;
	struct session *session; /* NULL: independent */
	struct item *behind;     /* next of the session */
	struct item *chain;      /* of the hash by id */
	struct item *previous, *next; /* of the list its state puts it in */
	char *payload;
	size_t size;
	int64_t bytes;
	bool keyed;
	bool probe;         /* tries whether a held app is taken again */
	unsigned attempts;  /* failures that were its own */
	unsigned failures;  /* in a row, for its backoff */
	int64_t due;        /* WAITING */
	uint64_t sent;      /* the number of its post */
	unsigned generation; /* of the configuration that it was posted by */
	bool doubted;       /* WAITING: not yet known whether the failure was its own */
	uint64_t doubt;     /* the number of posts when it failed */
	uint64_t epoch;     /* of the breaker, when it last testified */
	int status;         /* of the last answer, 0: none */
	const char *code, *sentence;
	char *said;         /* the beginning of the last answer */
	size_t said_size;
};

struct list {
	struct item *first, *last;
	size_t count;
};

struct session {
	uint64_t hash;
	size_t app;
	struct item *first, *last; /* by id */
	size_t count;
	int64_t more_from;         /* rows from this id on are not known yet; INT64_MAX: none */
	bool hungry;               /* in the list of those to read more of */
	struct session *chain, *next_hungry;
};

struct app {
	const char *name;
	bool held;
	bool by_rejections;        /* held because ten in a row were rejected */
	char reason[REPORT_REASON_SIZE];
	int64_t more_from;         /* rows from this id on were passed over; INT64_MAX: none */
	int64_t probe_due;         /* INT64_MAX: only a reload helps */
	size_t flying;
	struct {
		int64_t id;
		char uuid[RECORD_UUID_SIZE + 1];
	} rejected[REJECTED_MAX];
	size_t rejected_count;
};

/* A verdict to be written down. The strings of `change` live in `item`, in
 * static storage or, for a note, in `note`. */
struct verdict_note {
	struct spool_change change;
	struct item *item; /* freed when it is written; NULL: none */
	char *note;
};

struct ship {
	const struct config *config;
	struct ship_world world;
	struct breaker breaker;
	struct breaker_limits limits;
	int64_t last_id; /* rows behind this one are not for this run */

	struct item *items[BUCKETS];
	struct session *sessions[BUCKETS];
	size_t item_count, session_count, settling, loaded_count;
	struct list ready, cold, flying, waiting;
	struct session *hungry;
	int64_t next_due; /* of `waiting` */
	size_t doubted;
	uint64_t posts;
	uint64_t posts_when_lost; /* what was sent before is no probe */
	unsigned generation;      /* of the configuration */
	size_t loaded_bytes;
	size_t need; /* bytes that the next record asks for, where it did not fit */

	int64_t frontier; /* the first id never looked at */
	bool more;        /* a scan from there may find rows */
	struct app apps[APP_PLACES];
	char unknown_name[REPORT_NAME_SIZE];

	/* The job that runs, and what it borrows. */
	struct job *job;
	bool working;
	struct verdict_note *verdicts; /* in the order in which they came */
	size_t verdict_count, verdict_room, verdicts_in_job;
	struct spool_change *changes;
	size_t change_room;
	int64_t settle_due;
	int64_t load_ids[JOB_ENTRIES];
	struct job_skip *skips;
	size_t skip_room;
	enum job_scan scan;
	uint64_t scan_session;
	size_t scan_app;

	enum spool_status storage;
	unsigned storage_failures;
	int64_t storage_retry;
	char storage_reason[REPORT_REASON_SIZE];
	int64_t damaged_from, damaged_to;

	char reason[REPORT_REASON_SIZE]; /* why the destination is not up */
	int64_t since, last_delivered_at;
	bool report_due; /* the state changed and is not written down yet */
	bool careful, suspected, stopping, scanned_once;
	char condemned[RECORD_UUID_SIZE + 1];
};

static const struct payload_fault fault_crashed = {
	"crashed-agent", "the agent crashed three times while it was sending this record"
};

static void pump(struct ship *ship);

/* --- Small things ------------------------------------------------------- */

static int64_t now(const struct ship *ship)
{
	return ship->world.now(ship->world.self);
}

static uint64_t dice(const struct ship *ship)
{
	return ship->world.random(ship->world.self);
}

static void say(const struct ship *ship, enum config_log_level level, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void say(const struct ship *ship, enum config_log_level level, const char *format, ...)
{
	char sentence[1024];
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(sentence, sizeof sentence, format, arguments);
	va_end(arguments);
	ship->world.say(ship->world.self, level, sentence);
}

static int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

static void append(struct list *list, struct item *item)
{
	item->next = NULL;
	item->previous = list->last;
	if (list->last != NULL)
		list->last->next = item;
	else
		list->first = item;
	list->last = item;
	list->count++;
}

static void prepend(struct list *list, struct item *item)
{
	item->previous = NULL;
	item->next = list->first;
	if (list->first != NULL)
		list->first->previous = item;
	else
		list->last = item;
	list->first = item;
	list->count++;
}

static void take_out(struct list *list, struct item *item)
{
	if (item->previous != NULL)
		item->previous->next = item->next;
	else
		list->first = item->next;
	if (item->next != NULL)
		item->next->previous = item->previous;
	else
		list->last = item->previous;
	item->previous = item->next = NULL;
	list->count--;
}

static size_t bucket(uint64_t number)
{
	return (size_t)((number * 0x9E3779B97F4A7C15ULL) >> 54) % BUCKETS;
}

static struct item *find_item(const struct ship *ship, int64_t id)
{
	struct item *item = ship->items[bucket((uint64_t)id)];
	while (item != NULL && item->id != id)
		item = item->chain;
	return item;
}

static struct session *find_session(const struct ship *ship, uint64_t hash)
{
	struct session *session = ship->sessions[bucket(hash)];
	while (session != NULL && session->hash != hash)
		session = session->chain;
	return session;
}

/* --- Items and sessions ------------------------------------------------- */

static void drop_payload(struct ship *ship, struct item *item)
{
	if (item->payload == NULL)
		return;
	free(item->payload);
	item->payload = NULL;
	ship->loaded_bytes -= item->size;
	ship->loaded_count--;
}

static struct list *list_of(struct ship *ship, enum item_state state)
{
	switch (state) {
	case READY:
		return &ship->ready;
	case COLD:
		return &ship->cold;
	case FLYING:
		return &ship->flying;
	case WAITING:
		return &ship->waiting;
	default:
		return NULL;
	}
}

/* The one place where an item changes its state. */
static void move(struct ship *ship, struct item *item, enum item_state state)
{
	struct list *from = list_of(ship, item->state);
	struct list *to = list_of(ship, state);
	if (from != NULL)
		take_out(from, item);
	if (item->state == FLYING)
		ship->apps[item->app].flying--;
	if (state == FLYING)
		ship->apps[item->app].flying++;
	if (item->state == WAITING && item->doubted) {
		item->doubted = false;
		ship->doubted--;
	}
	ship->settling += (size_t)(state == SETTLING) - (size_t)(item->state == SETTLING);
	item->state = state;
	if (to != NULL)
		append(to, item);
}

static void release(struct ship *ship, struct item *item)
{
	move(ship, item, item->payload != NULL ? READY : COLD);
}

static void free_session(struct ship *ship, struct session *session)
{
	if (session->hungry || session->count > 0 || session->more_from != INT64_MAX)
		return;
	struct session **link = &ship->sessions[bucket(session->hash)];
	while (*link != session)
		link = &(*link)->chain;
	*link = session->chain;
	ship->session_count--;
	free(session);
}

static void feed_session(struct ship *ship, struct session *session)
{
	if (session->hungry || session->more_from == INT64_MAX || session->count > SESSION_LOW ||
	    (session->first != NULL && session->first->state == WAITING))
		return;
	session->hungry = true;
	session->next_hungry = ship->hungry;
	ship->hungry = session;
}

/* Takes an item out of its session; the next one comes to the front. */
static void leave_session(struct ship *ship, struct item *item)
{
	struct session *session = item->session;
	if (session == NULL)
		return;
	struct item **link = &session->first, *before = NULL;
	while (*link != item) {
		before = *link;
		link = &(*link)->behind;
	}
	*link = item->behind;
	if (session->last == item)
		session->last = before;
	session->count--;
	item->session = NULL;
	item->behind = NULL;
	if (session->first != NULL && session->first->state == QUEUED)
		release(ship, session->first);
	feed_session(ship, session);
	free_session(ship, session);
}

static void free_item(struct ship *ship, struct item *item)
{
	leave_session(ship, item);
	drop_payload(ship, item);
	struct list *list = list_of(ship, item->state);
	if (list != NULL)
		take_out(list, item);
	if (item->state == FLYING)
		ship->apps[item->app].flying--;
	if (item->state == SETTLING)
		ship->settling--;
	if (item->state == WAITING && item->doubted)
		ship->doubted--;
	struct item **link = &ship->items[bucket((uint64_t)item->id)];
	while (*link != item)
		link = &(*link)->chain;
	*link = item->chain;
	ship->item_count--;
	free(item->said);
	free(item);
}

/* Puts an item into its session by id. Rows usually come in order; one that was
 * put back with an old id comes before the others. */
static void join_session(struct ship *ship, struct item *item, struct session *session)
{
	struct item **link = &session->first;
	if (session->last != NULL && session->last->id < item->id)
		link = &session->last->behind;
	while (*link != NULL && ((*link)->id < item->id || (*link)->state == FLYING))
		link = &(*link)->behind;
	struct item *after = *link;
	item->session = session;
	item->behind = after;
	*link = item;
	if (after == NULL)
		session->last = item;
	session->count++;
	if (after != NULL && session->first == item && after->state != QUEUED)
		move(ship, after, QUEUED);
}

static struct session *session_for(struct ship *ship, uint64_t hash, size_t app)
{
	struct session *session = find_session(ship, hash);
	if (session != NULL)
		return session;
	session = calloc(1, sizeof *session);
	if (session == NULL)
		return NULL;
	session->hash = hash;
	session->app = app;
	session->more_from = INT64_MAX;
	struct session **head = &ship->sessions[bucket(hash)];
	session->chain = *head;
	*head = session;
	ship->session_count++;
	return session;
}

/* A record that was not known before. NULL: no memory, nothing has changed. */
static struct item *new_item(struct ship *ship, const struct job_entry *entry)
{
	struct session *session = NULL;
	struct item *item = calloc(1, sizeof *item);
	if (item == NULL)
		return NULL;
	if (entry->session != SESSION_NONE &&
	    (session = session_for(ship, entry->session, entry->app)) == NULL) {
		free(item);
		return NULL;
	}
	item->state = QUEUED;
	item->id = entry->id;
	item->app = entry->app;
	memcpy(item->uuid, entry->uuid, sizeof item->uuid);
	struct item **head = &ship->items[bucket((uint64_t)item->id)];
	item->chain = *head;
	*head = item;
	ship->item_count++;
	if (session != NULL)
		join_session(ship, item, session);
	return item;
}

/* --- Verdicts ----------------------------------------------------------- */

/* Room for one more verdict. Without memory the daemon cannot promise anything
 * any more; what is in the spool is safe, and a restart goes on from there. */
static struct verdict_note *new_verdict(struct ship *ship)
{
	if (ship->verdict_count == ship->verdict_room) {
		size_t room = ship->verdict_room > 0 ? ship->verdict_room * 2 : 64;
		struct verdict_note *grown = realloc(ship->verdicts, room * sizeof *grown);
		if (grown == NULL) {
			say(ship, LOG_ERROR, "out of memory: stopping; nothing is lost, what was not "
			    "confirmed is still in the spool");
			abort();
		}
		ship->verdicts = grown;
		ship->verdict_room = room;
	}
	if (ship->verdict_count == ship->verdicts_in_job)
		ship->settle_due = now(ship) + SETTLE_AGE;
	struct verdict_note *verdict = &ship->verdicts[ship->verdict_count++];
	*verdict = (struct verdict_note){ .item = NULL };
	return verdict;
}

static struct verdict_note *settle(struct ship *ship, struct item *item,
                                   enum spool_change_kind kind)
{
	struct verdict_note *verdict = new_verdict(ship);
	drop_payload(ship, item);
	leave_session(ship, item);
	move(ship, item, SETTLING);
	verdict->item = item;
	verdict->change = (struct spool_change){
		.kind = kind, .id = item->id, .bytes = item->bytes,
		.keyed = item->keyed, .attempts = item->attempts
	};
	memcpy(verdict->change.uuid, item->uuid, sizeof item->uuid);
	return verdict;
}

static void bury(struct ship *ship, struct item *item, const char *code, const char *sentence)
{
	struct spool_change *change = &settle(ship, item, CHANGE_DEAD)->change;
	change->code = code;
	change->sentence = sentence;
	change->http_status = item->status;
	change->server_said = item->said;
	change->server_said_size = item->said_size;
	say(ship, LOG_WARNING, "record %" PRId64 " became a dead letter: %s: %s", item->id, code,
	    sentence);
}

static void note_failure(struct item *item, const struct answer *answer,
                         const struct judgement *judgement)
{
	item->code = judgement->code;
	item->sentence = judgement->sentence;
	item->status = answer->kind == ANSWER_HTTP ? answer->status : 0;
	free(item->said);
	item->said = NULL;
	item->said_size = 0;
	if (answer->kind == ANSWER_HTTP && answer->body_size > 0) {
		size_t size = answer->body_size < SERVER_SAID_SIZE ? answer->body_size
		                                                   : SERVER_SAID_SIZE;
		item->said = malloc(size);
		if (item->said != NULL) {
			memcpy(item->said, answer->body, size);
			item->said_size = size;
		}
	}
}

/* --- Held apps ---------------------------------------------------------- */

/* Forgets an item of a held app, whose row stays: it is met again by a scan from
 * its id when the app is probed or released. */
static void forget(struct ship *ship, struct item *item)
{
	struct app *app = &ship->apps[item->app];
	app->more_from = least(app->more_from, item->id);
	free_item(ship, item);
}

/* Calls `act` for every item, which may free it. */
static void for_each_item(struct ship *ship, void (*act)(struct ship *ship, struct item *item))
{
	for (size_t i = 0; i < BUCKETS; i++) {
		struct item *next;
		for (struct item *item = ship->items[i]; item != NULL; item = next) {
			next = item->chain;
			act(ship, item);
		}
	}
}

static void forget_if_held(struct ship *ship, struct item *item)
{
	if (ship->apps[item->app].held && item->state != FLYING && item->state != SETTLING &&
	    item->state != LOADING)
		forget(ship, item); /* what is LOADING is looked at when it comes back */
}

static void hold_app(struct ship *ship, size_t place, int64_t probe_due, const char *reason)
{
	struct app *app = &ship->apps[place];
	bool news = !app->held;
	app->held = true;
	app->probe_due = probe_due;
	if (news || strcmp(app->reason, reason) != 0) {
		(void)snprintf(app->reason, sizeof app->reason, "%s", reason);
		ship->report_due = true;
		if (place != APP_UNKNOWN)
			say(ship, LOG_ERROR, "app %s is held, its records wait, others go on: %s",
			    app->name, reason);
	}
	if (!news)
		return;
	for_each_item(ship, forget_if_held);
	for (size_t i = 0; i < BUCKETS; i++) {
		struct session *next;
		for (struct session *session = ship->sessions[i]; session != NULL; session = next) {
			next = session->chain;
			if (session->app != place)
				continue;
			app->more_from = least(app->more_from, session->more_from);
			session->more_from = INT64_MAX;
			free_session(ship, session);
		}
	}
}

static void release_app(struct ship *ship, size_t place)
{
	struct app *app = &ship->apps[place];
	if (!app->held || app->probe_due == INT64_MAX)
		return; /* what is missing here, no answer supplies */
	app->held = app->by_rejections = false;
	app->reason[0] = '\0';
	app->rejected_count = 0;
	ship->frontier = least(ship->frontier, app->more_from);
	app->more_from = INT64_MAX;
	ship->more = ship->report_due = true;
	say(ship, LOG_INFO, "app %s is no longer held: its records go out again", app->name);
}

static int64_t longest_interval(const struct ship *ship)
{
	int64_t cap = ship->config->retry_cap;
	return now(ship) + cap - (int64_t)(dice(ship) % (uint64_t)(cap / 10 + 1));
}

/* --- The destination ---------------------------------------------------- */

static void make_cold(struct ship *ship, struct item *item)
{
	if (item->state == FLYING || item->state == SETTLING)
		return;
	drop_payload(ship, item);
	if (item->state == READY)
		move(ship, item, COLD);
}

static void clear_doubt(struct ship *ship, struct item *item)
{
	if (item->state == WAITING && item->doubted && item->attempts == 0)
		move(ship, item, COLD);
}

static void describe(char *into, size_t size, const struct judgement *judgement,
                     const struct answer *answer)
{
	if (answer->kind == ANSWER_HTTP)
		(void)snprintf(into, size, "HTTP %d: %s", answer->status, judgement->sentence);
	else
		(void)snprintf(into, size, "%s (%s)", judgement->sentence, answer->detail);
}

/* The destination's state changed to down or held: memory is given back, since
 * this may last for days, and no record is blamed for it. */
static void destination_lost(struct ship *ship)
{
	bool held = ship->breaker.state == DESTINATION_HELD;
	ship->since = ship->world.wall(ship->world.self);
	ship->report_due = true;
	ship->posts_when_lost = ship->posts;
	for_each_item(ship, make_cold);
	for_each_item(ship, clear_doubt);
	say(ship, held ? LOG_ERROR : LOG_WARNING,
	    held ? "the endpoint is held, everything waits: %s"
	         : "the endpoint is unavailable, everything waits and is retried: %s",
	    ship->reason);
}

static void give_up_or_wait(struct ship *ship, struct item *item);

/* This record fails although others are taken: it is its own fault. */
static void blame(struct ship *ship, struct item *item)
{
	item->attempts++;
	if (item->doubted) {
		item->doubted = false;
		ship->doubted--;
	}
	struct spool_change *change = &new_verdict(ship)->change;
	*change = (struct spool_change){
		.kind = CHANGE_ATTEMPTS, .id = item->id, .attempts = item->attempts
	};
	give_up_or_wait(ship, item);
}

static void give_up_or_wait(struct ship *ship, struct item *item)
{
	if (item->attempts >= ship->config->max_attempts) {
		bury(ship, item, item->code, item->sentence);
	} else if (item->attempts == 1) {
		say(ship, LOG_WARNING, "record %" PRId64 " fails while others are taken, and is "
		    "retried by itself: %s", item->id, item->sentence);
	}
}

/* While the destination is not up, only what was sent since says anything new. */
static bool is_news(const struct ship *ship, const struct item *item)
{
	return ship->breaker.state == DESTINATION_UP || item->sent > ship->posts_when_lost;
}

/* The server answered and works. */
static void destination_alive(struct ship *ship, const struct item *by)
{
	if (!is_news(ship, by))
		return;
	int64_t witness = breaker_blames_witness(&ship->breaker) ? ship->breaker.witness : 0;
	if (!breaker_alive(&ship->breaker))
		return;
	say(ship, LOG_INFO, "the endpoint is available again");
	ship->since = ship->world.wall(ship->world.self);
	ship->reason[0] = '\0';
	ship->report_due = true;
	struct item *item = witness != 0 && witness != by->id ? find_item(ship, witness) : NULL;
	if (item != NULL && item->state == COLD) {
		/* It alone had failed: it was the record, not the destination. */
		move(ship, item, WAITING);
		item->due = now(ship) + policy_backoff(item->failures, ship->config->retry_base,
		                                       ship->config->retry_cap, dice(ship));
		ship->next_due = least(ship->next_due, item->due);
		blame(ship, item);
	}
}

/* A success clears the destination: what failed before a post that succeeded
 * was even sent, failed by its own fault. */
static void resolve_doubts(struct ship *ship, uint64_t sent)
{
	struct item *next;
	for (struct item *item = ship->waiting.first; item != NULL && ship->doubted > 0;
	     item = next) {
		next = item->next;
		if (item->doubted && item->doubt < sent)
			blame(ship, item);
	}
}

/* What stands behind a record that waits is not kept in memory: it would take the
 * place of records that can go. */
static void forget_behind(struct ship *ship, struct session *session)
{
	while (session != NULL && session->first != session->last) {
		struct item *item = session->first->behind;
		session->more_from = least(session->more_from, item->id);
		free_item(ship, item);
	}
}

/* Back to where a job can build it again. */
static void cool(struct ship *ship, struct item *item)
{
	drop_payload(ship, item);
	if (ship->apps[item->app].held)
		forget(ship, item);
	else
		move(ship, item, COLD);
}

/* This record is to be tried later by itself. */
static void wait_alone(struct ship *ship, struct item *item, int64_t retry_after)
{
	drop_payload(ship, item);
	if (ship->apps[item->app].held) {
		forget(ship, item);
		return;
	}
	forget_behind(ship, item->session);
	int64_t wait = policy_backoff(item->failures, ship->config->retry_base,
	                              ship->config->retry_cap, dice(ship));
	move(ship, item, WAITING);
	item->due = now(ship) + (wait > retry_after ? wait : retry_after);
	item->doubted = true;
	item->doubt = ship->posts;
	ship->doubted++;
	ship->next_due = least(ship->next_due, item->due);
}

static void handle_unavailable(struct ship *ship, struct item *item,
                               const struct answer *answer, const struct judgement *judgement)
{
	struct breaker_failure failure = {
		.record = item->id,
		.counted = item->epoch == ship->breaker.epoch || item->attempts > 0,
		.whole = judgement->whole,
		.alone = item->attempts == 0 && ship->flying.count == 1 && ship->ready.count == 0 &&
		         ship->cold.count == 0,
		.retry_after = judgement->retry_after
	};
	char reason[REPORT_REASON_SIZE];
	describe(reason, sizeof reason, judgement, answer);
	if (!is_news(ship, item)) {
		cool(ship, item);
		return;
	}
	bool was_up = ship->breaker.state == DESTINATION_UP;
	item->failures++;
	item->epoch = ship->breaker.epoch;
	bool lost = breaker_failed(&ship->breaker, &ship->limits, &failure, now(ship), dice(ship));
	if (!was_up || lost)
		(void)snprintf(ship->reason, sizeof ship->reason, "%s", reason);
	if (was_up && !lost) {
		wait_alone(ship, item, judgement->retry_after);
		return;
	}
	cool(ship, item);
	if (lost)
		destination_lost(ship);
}

static void handle_endpoint_held(struct ship *ship, struct item *item,
                                 const struct answer *answer,
                                 const struct judgement *judgement)
{
	bool news = is_news(ship, item);
	cool(ship, item);
	if (!news)
		return;
	describe(ship->reason, sizeof ship->reason, judgement, answer);
	if (breaker_hold(&ship->breaker, &ship->limits, now(ship), dice(ship)))
		destination_lost(ship);
}

/* --- Answers ------------------------------------------------------------ */

static void handle_delivered(struct ship *ship, struct item *item)
{
	struct app *app = &ship->apps[item->app];
	uint64_t sent = item->sent;
	app->rejected_count = 0;
	release_app(ship, item->app);
	(void)settle(ship, item, CHANGE_DELIVERED);
	ship->last_delivered_at = ship->world.wall(ship->world.self);
	if (ship->breaker.state != DESTINATION_UP)
		return;
	breaker_succeeded(&ship->breaker, &ship->limits);
	if (ship->doubted > 0)
		resolve_doubts(ship, sent);
}

static void revive(struct ship *ship, struct app *app)
{
	for (size_t i = 0; i < app->rejected_count; i++) {
		struct spool_change *change = &new_verdict(ship)->change;
		*change = (struct spool_change){ .kind = CHANGE_REVIVED, .id = app->rejected[i].id };
		memcpy(change->uuid, app->rejected[i].uuid, sizeof change->uuid);
		app->more_from = least(app->more_from, app->rejected[i].id);
	}
	app->rejected_count = 0;
}

static void handle_rejected(struct ship *ship, struct item *item, const char *reason)
{
	size_t place = item->app;
	struct app *app = &ship->apps[place];
	if (app->held && app->by_rejections) {
		forget(ship, item);
		return;
	}
	release_app(ship, place); /* the keys were taken */
	size_t count = app->rejected_count++;
	app->rejected[count].id = item->id;
	memcpy(app->rejected[count].uuid, item->uuid, sizeof item->uuid);
	bury(ship, item, item->code, item->sentence);
	if (app->rejected_count < REJECTED_MAX)
		return;
	char sentence[REPORT_REASON_SIZE];
	(void)snprintf(sentence, sizeof sentence, "ten records in a row were rejected and none "
	               "was taken, so that the configuration is the likely cause; these ten wait "
	               "again; the last answer was %.200s", reason);
	revive(ship, app);
	hold_app(ship, place, longest_interval(ship), sentence);
	app->by_rejections = true;
}

static void handle_app_held(struct ship *ship, struct item *item, const char *reason)
{
	size_t place = item->app;
	forget(ship, item);
	ship->apps[place].by_rejections = false;
	hold_app(ship, place, longest_interval(ship), reason);
}

void ship_answered(struct ship *ship, void *ticket, const struct answer *answer)
{
	struct item *item = ticket;
	struct judgement judgement = policy_judge(answer, ship->world.wall(ship->world.self));
	char reason[REPORT_REASON_SIZE];
	describe(reason, sizeof reason, &judgement, answer);

	if (ship->suspected) {
		ship->suspected = ship->careful = false;
		ship->world.suspect(ship->world.self, NULL);
	}
	if (judgement.verdict != VERDICT_DELIVERED)
		note_failure(item, answer, &judgement);
	if (item->probe && judgement.verdict != VERDICT_DELIVERED)
		ship->apps[item->app].probe_due = longest_interval(ship);
	item->probe = false;
	if (item->generation != ship->generation && judgement.verdict != VERDICT_DELIVERED &&
	    judgement.verdict != VERDICT_REJECTED) {
		/* Keys or endpoint are others now: that answer was to the old ones. */
		cool(ship, item);
		pump(ship);
		return;
	}
	if (judgement.verdict != VERDICT_UNAVAILABLE &&
	    judgement.verdict != VERDICT_ENDPOINT_HELD)
		destination_alive(ship, item);

	switch (judgement.verdict) {
	case VERDICT_DELIVERED:
		handle_delivered(ship, item);
		break;
	case VERDICT_REJECTED:
		handle_rejected(ship, item, reason);
		break;
	case VERDICT_BUSY:
		item->failures++;
		wait_alone(ship, item, judgement.retry_after);
		break;
	case VERDICT_APP_HELD:
		handle_app_held(ship, item, reason);
		break;
	case VERDICT_ENDPOINT_HELD:
		handle_endpoint_held(ship, item, answer, &judgement);
		break;
	case VERDICT_UNAVAILABLE:
		handle_unavailable(ship, item, answer, &judgement);
		break;
	}
	pump(ship);
}

/* --- What a job brought back -------------------------------------------- */

static void accept_entry(struct ship *ship, struct job_entry *entry)
{
	struct item *item = find_item(ship, entry->id);
	bool known = item != NULL;
	if (known && item->state != LOADING) {
		free(entry->payload); /* met again by a scan from an earlier id */
		return;
	}
	if (!known && entry->state == ENTRY_GONE)
		return;
	if (!known)
		item = new_item(ship, entry);
	if (item == NULL) {
		free(entry->payload);
		ship->frontier = least(ship->frontier, entry->id);
		return;
	}
	if (entry->state == ENTRY_GONE) {
		free_item(ship, item);
		return;
	}
	bool probe = ship->scan == SCAN_APP && !known;
	if (entry->state == ENTRY_NO_ROOM) {
		move(ship, item, COLD);
		take_out(&ship->cold, item);
		prepend(&ship->cold, item); /* its turn comes when there is room */
		return;
	}
	if (entry->state != ENTRY_SEEN) {
		memcpy(item->uuid, entry->uuid, sizeof item->uuid);
		item->bytes = entry->bytes;
		item->keyed = entry->keyed;
		if (entry->attempts > item->attempts)
			item->attempts = entry->attempts;
	}
	if (entry->payload != NULL) {
		item->payload = entry->payload;
		item->size = entry->size;
		ship->loaded_bytes += entry->size;
		ship->loaded_count++;
	}
	const struct payload_fault *fault = entry->fault;
	if (fault == NULL && ship->condemned[0] != '\0' &&
	    strcmp(item->uuid, ship->condemned) == 0)
		fault = &fault_crashed;
	if (fault != NULL) {
		bury(ship, item, fault->code, fault->sentence);
		return;
	}
	if (ship->apps[item->app].held && !probe) {
		forget(ship, item);
		return;
	}
	item->probe = probe;
	if (item->session == NULL || item->session->first == item)
		release(ship, item);
	else
		move(ship, item, QUEUED);
}

static void accept_scan(struct ship *ship, const struct job *job)
{
	struct session *session;
	switch (ship->scan) {
	case SCAN_NOTHING:
		return;
	case SCAN_ANY:
		ship->frontier = job->next > ship->frontier ? job->next : ship->frontier;
		if (job->end)
			ship->scanned_once = true;
		ship->more = ship->more || !job->end;
		for (size_t i = 0; i < job->skip_count; i++)
			if (job->skips[i].first != INT64_MAX) {
				session = find_session(ship, job->skips[i].session);
				if (session == NULL)
					ship->frontier = least(ship->frontier, job->skips[i].first);
				else
					session->more_from = least(session->more_from, job->skips[i].first);
			}
		for (size_t i = 0; i < APP_PLACES; i++) {
			if (job->skipped_app[i] == INT64_MAX)
				continue;
			struct app *app = &ship->apps[i];
			if (app->held)
				app->more_from = least(app->more_from, job->skipped_app[i]);
			else
				ship->frontier = least(ship->frontier, job->skipped_app[i]);
		}
		return;
	case SCAN_SESSION:
		session = find_session(ship, ship->scan_session);
		if (session == NULL)
			return;
		session->more_from = job->end ? INT64_MAX : job->next;
		feed_session(ship, session);
		free_session(ship, session);
		return;
	case SCAN_APP:
		if (job->end && job->entry_count == job->load_count)
			ship->apps[ship->scan_app].more_from = INT64_MAX;
		return;
	}
}

static void storage_answered(struct ship *ship, const struct job *job)
{
	enum spool_status status = job->settled != SPOOL_OK ? job->settled : job->read;
	if (status == SPOOL_OK) {
		if (ship->storage_reason[0] != '\0') {
			say(ship, LOG_INFO, "the spool can be used again");
			ship->storage_reason[0] = '\0';
			ship->report_due = true;
		}
		ship->storage = SPOOL_OK;
		ship->storage_failures = 0;
		return;
	}
	ship->storage = status;
	ship->storage_failures++;
	ship->storage_retry = now(ship) + policy_backoff(ship->storage_failures,
	                                                 STORAGE_PATIENCE_BASE,
	                                                 STORAGE_PATIENCE_CAP, dice(ship));
	/* A lock that is held for a moment is everyday life, not news. */
	if (status == SPOOL_BUSY && ship->storage_failures < 3)
		return;
	if (strcmp(ship->storage_reason, job->error.sentence) != 0) {
		(void)snprintf(ship->storage_reason, sizeof ship->storage_reason, "%.*s",
		               REPORT_REASON_SIZE - 1, job->error.sentence);
		say(ship, LOG_ERROR, "%s", job->error.sentence);
	}
}

/* The verdicts of the job are written: their records are done with. */
static void verdicts_written(struct ship *ship, enum spool_status settled)
{
	size_t done = ship->verdicts_in_job;
	ship->verdicts_in_job = 0;
	if (settled != SPOOL_OK)
		return;
	for (size_t i = 0; i < done; i++) {
		struct item *item = ship->verdicts[i].item;
		if (item != NULL && ship->changes[i].refused) {
			/* Kept in mind for good, so that it is not sent again and again. */
			move(ship, item, QUEUED);
			say(ship, LOG_ERROR, "record %" PRId64 " cannot be moved to dead_letters, which "
			    "somebody changed; it stays where it is and is not sent again before a "
			    "restart; see 'reconify-agent check'", item->id);
		} else if (item != NULL) {
			free_item(ship, item);
		}
		free(ship->verdicts[i].note);
	}
	ship->verdict_count -= done;
	if (ship->verdict_count > 0 && done > 0)
		memmove(ship->verdicts, ship->verdicts + done,
		        ship->verdict_count * sizeof *ship->verdicts);
	ship->settle_due = now(ship) + SETTLE_AGE;
}

/* The file is another one: what was known of the old one is void, but for what
 * is on its way. */
static void forget_if_idle(struct ship *ship, struct item *item)
{
	if (item->state != FLYING && item->state != SETTLING)
		free_item(ship, item);
}

static void start_over(struct ship *ship)
{
	for_each_item(ship, forget_if_idle);
	ship->frontier = 1;
	ship->more = true;
	for (size_t i = 0; i < APP_PLACES; i++)
		ship->apps[i].more_from = ship->apps[i].held ? 1 : INT64_MAX;
}

void ship_worked(struct ship *ship, struct job *job)
{
	ship->working = false;
	storage_answered(ship, job);
	verdicts_written(ship, job->settled);
	if (job->reopened) {
		say(ship, LOG_WARNING, "the spool's file was replaced by another; going on with that");
		start_over(ship);
	}
	if (job->load_count > 0 || job->scan != SCAN_NOTHING)
		ship->need = job->need;
	if (job->unknown_count > 0) {
		(void)snprintf(ship->unknown_name, sizeof ship->unknown_name, "%s", job->unknown[0]);
		if (!ship->apps[APP_UNKNOWN].held || ship->apps[APP_UNKNOWN].reason[0] == '\0') {
			ship->apps[APP_UNKNOWN].name = ship->unknown_name;
			say(ship, LOG_ERROR, "app %s is not in the configuration: its records wait, "
			    "others go on; add a section [app %s] with its keys", ship->unknown_name,
			    ship->unknown_name);
			hold_app(ship, APP_UNKNOWN, INT64_MAX, "not in the configuration: add its "
			         "section with its keys, then reload");
		}
	}
	if (job->damaged_from != 0 && job->damaged_from != ship->damaged_from) {
		ship->damaged_from = job->damaged_from;
		ship->damaged_to = job->damaged_to;
		ship->report_due = true;
		say(ship, LOG_ERROR, "%s; records from id %" PRId64 " on cannot be read and were "
		    "passed over", job->error.sentence, job->damaged_from);
	}
	for (size_t i = 0; i < job->entry_count; i++)
		accept_entry(ship, &job->entries[i]);
	accept_scan(ship, job);
	/* What was asked for and did not come back: the job ended early. */
	for (size_t i = 0; i < job->load_count; i++) {
		struct item *item = find_item(ship, ship->load_ids[i]);
		if (item != NULL && item->state == LOADING)
			cool(ship, item);
	}
	ship->scan = SCAN_NOTHING;
	pump(ship);
}

/* --- Giving the storage thread a job ------------------------------------ */

static bool settle_is_due(const struct ship *ship)
{
	size_t open = ship->verdict_count;
	return (open > 0 || ship->report_due) &&
	       (open >= SETTLE_COUNT || ship->flying.count == 0 || ship->stopping ||
	        now(ship) >= ship->settle_due);
}

static void write_report(struct ship *ship)
{
	if (!ship->report_due)
		return;
	struct report report;
	ship_report(ship, &report);
	char *json = report_to_json(&report);
	ship->report_due = false;
	if (json == NULL)
		return;
	struct verdict_note *verdict = new_verdict(ship);
	verdict->note = json;
	verdict->change = (struct spool_change){
		.kind = CHANGE_NOTE, .name = "report", .value = json
	};
}

static bool prepare_settle(struct ship *ship)
{
	if (!settle_is_due(ship))
		return false;
	write_report(ship);
	size_t count = ship->verdict_count;
	if (count > ship->change_room) {
		struct spool_change *grown = realloc(ship->changes, count * sizeof *grown);
		if (grown == NULL)
			return false; /* stays due */
		ship->changes = grown;
		ship->change_room = count;
	}
	for (size_t i = 0; i < count; i++)
		ship->changes[i] = ship->verdicts[i].change;
	ship->verdicts_in_job = count;
	ship->job->changes = ship->changes;
	ship->job->change_count = count;
	return true;
}

static size_t memory_room(const struct ship *ship)
{
	size_t memory = (size_t)ship->config->memory;
	if (ship->loaded_bytes == 0)
		return SIZE_MAX;
	return memory > ship->loaded_bytes ? memory - ship->loaded_bytes : 0;
}

static size_t known_ahead(const struct ship *ship)
{
	return ship->ready.count + ship->cold.count + ship->job->load_count;
}

static bool may_fly(const struct ship *ship)
{
	return !ship->stopping && ship->breaker.state == DESTINATION_UP;
}

/* True while a job may build payloads: the destination takes them, or a probe is
 * due. */
static bool may_build(const struct ship *ship)
{
	return may_fly(ship) && memory_room(ship) >= ship->need;
}

static unsigned room_to_post(const struct ship *ship)
{
	if (ship->stopping || ship->storage == SPOOL_FULL || ship->storage == SPOOL_IO ||
	    ship->storage == SPOOL_DENIED)
		return 0;
	const struct item *first = ship->ready.first != NULL ? ship->ready.first : ship->cold.first;
	bool fresh = first != NULL && first->id != ship->breaker.witness;
	unsigned room = breaker_room(&ship->breaker, &ship->limits, (unsigned)ship->flying.count,
	                             fresh, now(ship));
	if (ship->careful && room > 0)
		room = ship->flying.count == 0 ? 1 : 0;
	size_t unsettled = ship->settling + ship->flying.count;
	if (unsettled + room > UNSETTLED_MAX)
		room = unsettled < UNSETTLED_MAX ? (unsigned)(UNSETTLED_MAX - unsettled) : 0;
	return room;
}

/* Which payloads to build for records that are known by their place alone. */
static void prepare_load(struct ship *ship)
{
	size_t wanted = 0;
	if (ship->breaker.state != DESTINATION_UP)
		wanted = ship->ready.count == 0 && room_to_post(ship) > 0 ? 1 : 0;
	else if (may_build(ship) && ship->ready.count < WINDOW / 2)
		wanted = WINDOW / 2;
	while (ship->job->load_count < wanted && ship->cold.first != NULL) {
		struct item *item = ship->cold.first;
		move(ship, item, LOADING);
		ship->load_ids[ship->job->load_count++] = item->id;
	}
	ship->job->load = ship->load_ids;
}

static int compare_skips(const void *left, const void *right)
{
	uint64_t a = ((const struct job_skip *)left)->session;
	uint64_t b = ((const struct job_skip *)right)->session;
	return a < b ? -1 : a > b;
}

static bool prepare_skips(struct ship *ship)
{
	if (ship->session_count > ship->skip_room) {
		size_t room = ship->session_count * 2;
		struct job_skip *grown = realloc(ship->skips, room * sizeof *grown);
		if (grown == NULL)
			return false;
		ship->skips = grown;
		ship->skip_room = room;
	}
	size_t count = 0;
	for (size_t i = 0; i < BUCKETS; i++)
		for (struct session *session = ship->sessions[i]; session != NULL;
		     session = session->chain)
			if (session->more_from != INT64_MAX || session->count >= SESSION_ROOM ||
			    (session->first != NULL && session->first->state == WAITING))
				ship->skips[count++] = (struct job_skip){ session->hash, INT64_MAX };
	if (count > 1)
		qsort(ship->skips, count, sizeof *ship->skips, compare_skips);
	ship->job->skips = ship->skips;
	ship->job->skip_count = count;
	return true;
}

/* A held app whose probe is due, or APP_PLACES. */
static size_t app_to_probe(const struct ship *ship)
{
	if (ship->stopping || ship->ready.count + ship->cold.count > WINDOW)
		return APP_PLACES;
	bool alive = ship->breaker.state == DESTINATION_UP ||
	             (ship->ready.count + ship->cold.count == 0 && room_to_post(ship) > 0);
	for (size_t i = 0; alive && i < APP_PLACES; i++) {
		const struct app *app = &ship->apps[i];
		if (app->held && app->flying == 0 && app->more_from != INT64_MAX &&
		    now(ship) >= app->probe_due)
			return i;
	}
	return APP_PLACES;
}

static void prepare_scan(struct ship *ship)
{
	struct job *job = ship->job;
	size_t place = app_to_probe(ship);
	job->room_entries = 0;
	job->to = ship->last_id;
	job->build = may_build(ship);
	if (ship->stopping)
		return;
	if (place != APP_PLACES && memory_room(ship) >= ship->need) {
		job->scan = SCAN_APP;
		job->app = place;
		job->from = ship->apps[place].more_from;
		job->build = true;
		job->room_entries = 1;
	} else if (ship->need > 0 && memory_room(ship) < ship->need) {
		return;
	} else if (ship->hungry != NULL) {
		struct session *session = ship->hungry;
		ship->hungry = session->next_hungry;
		session->hungry = false;
		job->scan = SCAN_SESSION;
		job->session = session->hash;
		job->from = session->more_from;
		job->to = ship->frontier - 1;
		job->room_entries = SESSION_ROOM - session->count;
	} else if (ship->more && known_ahead(ship) < WINDOW && ship->waiting.count < WAITING_MAX &&
	           prepare_skips(ship)) {
		if (ship->item_count == 0 && ship->session_count == 0) {
			/* Nothing is known: whatever is there is new, also under an old id. */
			int64_t from = 1;
			for (size_t i = 0; i < APP_PLACES; i++)
				if (ship->apps[i].more_from != INT64_MAX)
					from = ship->frontier;
			ship->frontier = from;
		}
		ship->more = false; /* a wake while the job runs sets it again */
		job->scan = SCAN_ANY;
		job->from = ship->frontier;
		job->room_entries = WINDOW - known_ahead(ship);
		if (job->room_entries > JOB_ENTRIES - job->load_count)
			job->room_entries = JOB_ENTRIES - job->load_count;
		for (size_t i = 0; i < APP_PLACES; i++)
			job->skip_app[i] = ship->apps[i].held;
	}
	ship->scan = job->scan;
	ship->scan_session = job->session;
	ship->scan_app = job->app;
}

static void give_job(struct ship *ship)
{
	if (ship->working)
		return;
	if (ship->storage != SPOOL_OK && now(ship) < ship->storage_retry)
		return;
	struct job *job = ship->job;
	memset(job, 0, offsetof(struct job, entries));
	job->entry_count = 0;
	job->end = job->reopened = false;
	job->next = 0;
	job->need = 0;
	job->unknown_count = 0;
	job->damaged_from = job->damaged_to = 0;
	job->config = ship->config;
	job->wall = ship->world.wall(ship->world.self);
	job->room_bytes = memory_room(ship);
	bool settles = prepare_settle(ship);
	prepare_load(ship);
	prepare_scan(ship);
	if (!settles && job->load_count == 0 && job->scan == SCAN_NOTHING)
		return;
	ship->working = true;
	ship->world.work(ship->world.self, job);
}

/* --- The pump ----------------------------------------------------------- */

static void post(struct ship *ship, struct item *item)
{
	move(ship, item, FLYING);
	item->sent = ++ship->posts;
	item->generation = ship->generation;
	if (ship->careful) {
		ship->suspected = true;
		ship->world.suspect(ship->world.self, item->uuid);
	}
	struct ship_post post = { item, item->payload, item->size, item->uuid };
	ship->world.post(ship->world.self, &post);
}

/* A record whose own backoff is over comes to the front of its session again. */
static void end_waits(struct ship *ship)
{
	int64_t time = now(ship);
	if (time < ship->next_due)
		return;
	ship->next_due = INT64_MAX;
	struct item *next;
	for (struct item *item = ship->waiting.first; item != NULL; item = next) {
		next = item->next;
		if (item->due <= time)
			release(ship, item);
		else
			ship->next_due = least(ship->next_due, item->due);
	}
}

static void set_alarm(struct ship *ship)
{
	int64_t time = now(ship), at = INT64_MAX;
	if (ship->working) {
		/* Its end is awaited, and pumps. */
	} else if (ship->storage != SPOOL_OK) {
		at = ship->storage_retry;
	} else if (ship->verdict_count > 0 || ship->report_due) {
		at = ship->settle_due;
	}
	if (!ship->stopping && (ship->storage == SPOOL_OK || ship->storage == SPOOL_BUSY)) {
		at = least(at, ship->next_due);
		const struct item *first =
			ship->ready.first != NULL ? ship->ready.first : ship->cold.first;
		if (first != NULL && ship->flying.count == 0 && !ship->working)
			at = least(at, breaker_next_try(&ship->breaker,
			                                first->id != ship->breaker.witness));
		for (size_t i = 0; i < APP_PLACES; i++)
			if (ship->apps[i].held && ship->apps[i].more_from != INT64_MAX &&
			    ship->apps[i].probe_due > time)
				at = least(at, ship->apps[i].probe_due);
	}
	/* Whatever is due already waits for something else, which will pump. */
	if (at <= time)
		at = time + 1;
	ship->world.alarm(ship->world.self, at);
}

static void pump(struct ship *ship)
{
	end_waits(ship);
	unsigned room = room_to_post(ship);
	while (room > 0 && ship->ready.first != NULL) {
		post(ship, ship->ready.first);
		room--;
	}
	give_job(ship);
	set_alarm(ship);
}

/* --- From outside ------------------------------------------------------- */

static void set_apps(struct ship *ship)
{
	for (size_t i = 0; i < APP_PLACES; i++) {
		struct app *app = &ship->apps[i];
		*app = (struct app){ .name = "", .more_from = INT64_MAX, .probe_due = INT64_MAX };
		if (i == APP_UNKNOWN) {
			app->held = true;
			continue;
		}
		if (i >= ship->config->app_count)
			continue;
		app->name = ship->config->apps[i].name;
		if (ship->config->apps[i].missing != NULL)
			hold_app(ship, i, INT64_MAX, ship->config->apps[i].missing);
	}
}

static void set_limits(struct ship *ship)
{
	ship->limits = (struct breaker_limits){
		.connections = ship->config->connections,
		.base = ship->config->retry_base,
		.cap = ship->config->retry_cap
	};
}

struct ship *ship_new(const struct config *config, const struct ship_world *world,
                      const struct ship_options *options)
{
	struct ship *ship = calloc(1, sizeof *ship);
	if (ship == NULL)
		return NULL;
	ship->job = calloc(1, sizeof *ship->job);
	if (ship->job == NULL) {
		free(ship);
		return NULL;
	}
	ship->config = config;
	ship->world = *world;
	ship->frontier = 1;
	ship->more = true;
	ship->next_due = INT64_MAX;
	ship->last_delivered_at = -1;
	ship->since = world->wall(world->self);
	ship->report_due = true;
	ship->careful = options->careful;
	ship->last_id = options->last_id;
	if (options->condemned != NULL)
		(void)snprintf(ship->condemned, sizeof ship->condemned, "%s", options->condemned);
	breaker_init(&ship->breaker);
	set_limits(ship);
	set_apps(ship);
	return ship;
}

static void free_for_good(struct ship *ship, struct item *item)
{
	free_item(ship, item);
}

void ship_free(struct ship *ship)
{
	if (ship == NULL)
		return;
	for (size_t i = 0; i < ship->verdict_count; i++)
		free(ship->verdicts[i].note);
	for_each_item(ship, free_for_good);
	for (size_t i = 0; i < BUCKETS; i++) {
		struct session *next;
		for (struct session *session = ship->sessions[i]; session != NULL; session = next) {
			next = session->chain;
			free(session);
		}
	}
	free(ship->verdicts);
	free(ship->changes);
	free(ship->skips);
	free(ship->job);
	free(ship);
}

void ship_wake(struct ship *ship)
{
	ship->more = true;
	pump(ship);
}

static void end_wait(struct ship *ship, struct item *item)
{
	if (item->state == WAITING)
		release(ship, item);
}

void ship_try_now(struct ship *ship)
{
	int64_t time = now(ship);
	for_each_item(ship, end_wait);
	breaker_try_now(&ship->breaker, time);
	for (size_t i = 0; i < CONFIG_APPS_MAX; i++)
		if (ship->apps[i].probe_due != INT64_MAX)
			ship->apps[i].probe_due = time;
	ship->storage_retry = time;
	ship->frontier = 1; /* a person may have put rows back under old ids */
	ship->more = true;
	pump(ship);
}

void ship_alarm(struct ship *ship)
{
	pump(ship);
}

void ship_stop(struct ship *ship)
{
	ship->stopping = true;
	pump(ship);
}

bool ship_is_stopped(const struct ship *ship)
{
	return !ship->working && ship->flying.count == 0 && ship->verdict_count == 0 &&
	       !ship->report_due;
}

bool ship_is_quiet(const struct ship *ship)
{
	if (ship->working || ship->flying.count > 0 || ship->verdict_count > 0)
		return false;
	if (ship->breaker.state != DESTINATION_UP)
		return ship->breaker.state == DESTINATION_HELD ||
		       ship->breaker.failures >= DRAIN_PROBES;
	bool scanned = ship->scanned_once &&
	               (!ship->more || ship->waiting.count >= WAITING_MAX) && ship->hungry == NULL;
	return scanned && ship->ready.count + ship->cold.count == 0 &&
	       app_to_probe(ship) == APP_PLACES;
}

bool ship_reload(struct ship *ship, const struct config *config)
{
	if (ship->working)
		return false;
	const struct config *old = ship->config;
	ship->generation++;
	ship->config = config;
	set_limits(ship);
	/* Payloads hold keys: all that is not on its way is built anew. */
	for_each_item(ship, forget_if_idle);
	set_apps(ship);
	for (struct item *item = ship->flying.first; item != NULL; item = item->next) {
		const char *name = item->app < old->app_count ? old->apps[item->app].name : "";
		const struct config_app *app = config_find_app(config, name, strlen(name));
		item->app = app != NULL ? (size_t)(app - config->apps) : APP_UNKNOWN;
		ship->apps[item->app].flying++;
	}
	ship->unknown_name[0] = '\0';
	start_over(ship);
	breaker_try_now(&ship->breaker, now(ship));
	ship->report_due = true;
	pump(ship);
	return true;
}

static int64_t to_wall(const struct ship *ship, int64_t at)
{
	if (at == INT64_MAX)
		return -1;
	int64_t wait = at - now(ship);
	return ship->world.wall(ship->world.self) + (wait > 0 ? wait : 0);
}

static void report_app(struct report *report, const struct app *app)
{
	struct report_app *into = &report->apps[report->app_count++];
	(void)snprintf(into->name, sizeof into->name, "%s", app->name);
	into->held = app->held;
	memcpy(into->reason, app->reason, sizeof into->reason);
}

void ship_report(const struct ship *ship, struct report *report)
{
	*report = (struct report){
		.as_of = ship->world.wall(ship->world.self),
		.state = ship->breaker.state,
		.since = ship->since,
		.next_try_at = -1,
		.last_delivered_at = ship->last_delivered_at,
		.failures = ship->breaker.failures,
		.in_flight = (int64_t)ship->flying.count,
		.damaged_from = ship->damaged_from,
		.damaged_to = ship->damaged_to,
		.quiet = ship_is_quiet(ship)
	};
	memcpy(report->reason, ship->reason, sizeof report->reason);
	memcpy(report->storage, ship->storage_reason, sizeof report->storage);
	if (ship->breaker.state != DESTINATION_UP)
		report->next_try_at = to_wall(ship, breaker_next_try(&ship->breaker, false));
	else if (ship->next_due != INT64_MAX)
		report->next_try_at = to_wall(ship, ship->next_due);
	for (const struct item *item = ship->waiting.first; item != NULL; item = item->next) {
		report->retrying++;
		if (report->retrying_id != 0)
			continue;
		report->retrying_id = item->id;
		report->retrying_attempts = item->failures;
		(void)snprintf(report->retrying_reason, sizeof report->retrying_reason, "%s",
		               item->sentence);
	}
	for (size_t i = 0; i < ship->config->app_count; i++)
		report_app(report, &ship->apps[i]);
	if (ship->unknown_name[0] != '\0')
		report_app(report, &ship->apps[APP_UNKNOWN]);
}
