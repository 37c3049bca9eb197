/* The flow of a record, from waking up to settling; see ship.h.
 *
 * Read it from the bottom up: pump() is the heart. It posts what may be posted,
 * then asks the storage thread, in one job at a time, to settle, load and scan.
 *
 * The records that are known, and their states, stand in the roster (roster.h).
 */
#include "agent/ship.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/flow.h"

#define SERVER_SAID_SIZE 4096
/* A destination that is down counts as tried after so many probes, or when the next
 * one is further away (ms). */
#define DRAIN_PROBES 3
#define LOOK_AGAIN 3600000    /* ms */
#define DRAIN_PATIENCE 10000
#define KEY_SIZE_MIN 4        /* a shorter one is found everywhere by chance */

void flow_say(const struct ship *ship, enum config_log_level level, const char *format, ...)
{
	char sentence[1024];
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(sentence, sizeof sentence, format, arguments);
	va_end(arguments);
	ship->world.say(ship->world.self, level, sentence);
}

/* --- Verdicts ----------------------------------------------------------- */

/* Room for one more verdict. Without memory the daemon cannot promise anything
 * any more; what is in the spool is safe, and a restart goes on from there. */
struct verdict_note *flow_new_verdict(struct ship *ship)
{
	if (ship->verdict_count == ship->verdict_room) {
		size_t room = ship->verdict_room > 0 ? ship->verdict_room * 2 : 64;
		struct verdict_note *grown = realloc(ship->verdicts, room * sizeof *grown);
		/* not covered: it ends the program, as the torture of allocations shows */
		if (grown == NULL) {
			flow_say(ship, LOG_ERROR, "out of memory: stopping; nothing is lost, what was not "
			    "confirmed is still in the spool");
			abort();
		}
		ship->verdicts = grown;
		ship->verdict_room = room;
	}
	if (ship->verdict_count == ship->verdicts_in_job)
		ship->settle_due = flow_now(ship) + SETTLE_AGE;
	struct verdict_note *verdict = &ship->verdicts[ship->verdict_count++];
	*verdict = (struct verdict_note){ .item = NULL };
	return verdict;
}

void flow_clear_suspect(struct ship *ship)
{
	if (ship->suspected)
		ship->world.suspect(ship->world.self, NULL);
	ship->suspected = false;
}

/* A record has its verdict: its session goes on, its fate is written down. */
static struct verdict_note *settle(struct ship *ship, struct item *item,
                                   enum spool_change_kind kind)
{
	struct verdict_note *verdict = flow_new_verdict(ship);
	if (ship->careful > 0 && --ship->careful == 0)
		flow_say(ship, LOG_INFO, "no crash any more: going on at full speed");
	roster_unload(&ship->roster, item);
	roster_leave(&ship->roster, item);
	roster_move(&ship->roster, item, SETTLING);
	verdict->item = item;
	verdict->change = (struct spool_change){
		.kind = kind, .id = item->id, .bytes = item->bytes,
		.keyed = item->keyed, .attempts = item->attempts
	};
	if (kind == CHANGE_DELIVERED && ship->config->keep_delivered > 0) {
		verdict->change.receipt_at = ship->world.wall(ship->world.self);
		verdict->change.request_at = item->request_at;
		verdict->change.http_status = item->status;
	}
	memcpy(verdict->change.uuid, item->uuid, sizeof item->uuid);
	return verdict;
}

void flow_bury(struct ship *ship, struct item *item, const char *code, const char *sentence)
{
	struct spool_change *change = &settle(ship, item, CHANGE_DEAD)->change;
	change->code = code;
	change->sentence = sentence;
	change->http_status = item->status;
	change->server_said = item->said;
	change->server_said_size = item->said_size;
	flow_say(ship, LOG_WARNING, "record %" PRId64 " became a dead letter: %s: %s", item->id, code,
	    sentence);
}

/* A server may quote what it was sent: keys never get into the spool that way,
 * not even the part of one at the end of what is kept. */
static void mask_key(struct item *item, const char *key)
{
	size_t length = strlen(key);
	if (length < KEY_SIZE_MIN)
		return;
	for (size_t at = 0; at < item->said_size; at++) {
		size_t left = item->said_size - at;
		size_t part = left < length ? left : length;
		if (part >= KEY_SIZE_MIN && memcmp(item->said + at, key, part) == 0)
			memset(item->said + at, '*', part);
	}
}

static void note_failure(struct item *item, const struct answer *answer,
                         const struct judgement *judgement, const struct config_app *app)
{
	item->code = judgement->code;
	item->sentence = judgement->sentence;
	item->status = answer->kind == ANSWER_HTTP ? answer->status : 0;
	free(item->said);
	item->said = NULL;
	item->said_size = 0;
	if (answer->kind == ANSWER_HTTP && answer->body_size > 0 && app != NULL) {
		size_t size = answer->body_size < SERVER_SAID_SIZE ? answer->body_size
		                                                   : SERVER_SAID_SIZE;
		item->said = malloc(size);
		if (item->said != NULL) {
			memcpy(item->said, answer->body, size);
			item->said_size = size;
			mask_key(item, app->app_key);
			mask_key(item, app->api_key);
		}
	}
}

/* --- Held apps ---------------------------------------------------------- */

/* Forgets an item of a held app, whose row stays: it is met again by a scan from
 * its id when the app is probed or released. */
void flow_forget(struct ship *ship, struct item *item)
{
	struct app *app = &ship->apps[item->app];
	app->more_from = flow_least(app->more_from, item->id);
	roster_remove(&ship->roster, item);
}

void flow_try_all_again(struct app *app)
{
	app->tried_count = 0;
	app->tried_id = app->tried_from = SPOOL_FIRST_ID;
}

/* Calls `act` for every item, which may free it. */
static void for_each_item(struct ship *ship, void (*act)(struct ship *ship, struct item *item))
{
	for (size_t i = 0; i < ROSTER_BUCKETS; i++) {
		struct item *next;
		for (struct item *item = ship->roster.items[i]; item != NULL; item = next) {
			next = item->chain;
			act(ship, item);
		}
	}
}

/* The same for every session. */
static void for_each_session(struct ship *ship,
                             void (*act)(struct ship *ship, struct session *session))
{
	for (size_t i = 0; i < ROSTER_BUCKETS; i++) {
		struct session *next;
		for (struct session *session = ship->roster.sessions[i]; session != NULL; session = next) {
			next = session->chain;
			act(ship, session);
		}
	}
}

static void forget_rest(struct ship *ship, struct session *session)
{
	roster_forget_rest(&ship->roster, session);
}

static void forget_rest_if_resting(struct ship *ship, struct session *session)
{
	if (session->resting)
		forget_rest(ship, session);
}

static void forget_rest_if_aside(struct ship *ship, struct session *session)
{
	struct app *app = &ship->apps[session->app];
	if (!flow_is_aside(app))
		return;
	app->more_from = flow_least(app->more_from, session->more_from);
	forget_rest(ship, session);
}

static void forget_if_held(struct ship *ship, struct item *item)
{
	if (item->done)
		return;
	if (flow_is_aside(&ship->apps[item->app]) && item->state != FLYING && item->state != SETTLING &&
	    item->state != LOADING)
		flow_forget(ship, item); /* what is LOADING is looked at when it comes back */
}

/* Of the apps that are aside nothing is known any more. */
static void set_aside(struct ship *ship)
{
	for_each_item(ship, forget_if_held);
	for_each_session(ship, forget_rest_if_aside);
}

void flow_hold_app(struct ship *ship, size_t place, int64_t probe_due, const char *reason)
{
	struct app *app = &ship->apps[place];
	bool news = !app->held;
	app->held = true;
	app->probe_due = probe_due;
	if (news || strcmp(app->reason, reason) != 0) {
		(void)snprintf(app->reason, sizeof app->reason, "%s", reason);
		ship->report_due = true;
		if (place != APP_UNKNOWN)
			flow_say(ship, LOG_ERROR, "app %s is held, its records wait, others go on: %s",
			    app->name, reason);
	}
	if (news)
		set_aside(ship);
}

/* While the destination is down and the records of one app fill all the room, the
 * next probe should be of another: this app alone may be what the server fails on. */
static void park_app(struct ship *ship, size_t place)
{
	ship->apps[place].parked = true;
	set_aside(ship);
	ship->more = true;
}

/* Lets the records of all parked apps in again. */
static void unpark(struct ship *ship)
{
	for (size_t i = 0; i < APP_PLACES; i++) {
		struct app *app = &ship->apps[i];
		if (!app->parked)
			continue;
		app->parked = false;
		ship->more = true;
		if (app->held)
			continue;
		ship->frontier = flow_least(ship->frontier, app->more_from);
		app->more_from = INT64_MAX;
	}
}

static void release_app(struct ship *ship, size_t place)
{
	struct app *app = &ship->apps[place];
	if (!app->held || app->probe_due == INT64_MAX)
		return; /* what is missing here, no answer supplies */
	flow_try_all_again(app);
	app->held = app->by_rejections = false;
	app->reason[0] = '\0';
	app->rejected_count = 0;
	ship->frontier = flow_least(ship->frontier, app->more_from);
	app->more_from = INT64_MAX;
	ship->more = ship->report_due = true;
	flow_say(ship, LOG_INFO, "app %s is no longer held: its records go out again", app->name);
}

static int64_t longest_interval(const struct ship *ship)
{
	int64_t cap = ship->config->retry_cap;
	return flow_now(ship) + cap - (int64_t)(flow_dice(ship) % (uint64_t)(cap / 10 + 1));
}

/* --- The destination ---------------------------------------------------- */

static void make_cold(struct ship *ship, struct item *item)
{
	if (item->state == FLYING || item->state == SETTLING)
		return;
	roster_unload(&ship->roster, item);
	if (item->state == READY)
		roster_move(&ship->roster, item, COLD);
}

static void clear_doubt(struct ship *ship, struct item *item)
{
	if (item->state == WAITING && item->doubted && item->attempts == 0)
		roster_move(&ship->roster, item, COLD);
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
	flow_say(ship, held ? LOG_ERROR : LOG_WARNING,
	    held ? "the endpoint is held, everything waits: %s"
	         : "the endpoint is unavailable, everything waits and is retried: %s",
	    ship->reason);
}

static void give_up_or_wait(struct ship *ship, struct item *item)
{
	if (item->attempts >= ship->config->max_attempts) {
		flow_bury(ship, item, item->code, item->sentence);
	} else if (item->attempts == 1) {
		flow_say(ship, LOG_WARNING, "record %" PRId64 " fails while others are taken, and is "
		    "retried by itself: %s", item->id, item->sentence);
	}
}

/* This record fails although others are taken: it is its own fault. */
static void blame(struct ship *ship, struct item *item)
{
	item->attempts++;
	item->doubt = 0;
	if (item->doubted) {
		item->doubted = false;
		ship->roster.doubted--;
	}
	struct spool_change *change = &flow_new_verdict(ship)->change;
	*change = (struct spool_change){
		.kind = CHANGE_ATTEMPTS, .id = item->id, .attempts = item->attempts
	};
	give_up_or_wait(ship, item);
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
	ship->report_due = ship->report_due || (!ship->proven && ship->told.endpoint);
	ship->proven = true;
	int64_t witness = breaker_blames_witness(&ship->breaker) ? ship->breaker.witness : 0;
	if (!breaker_alive(&ship->breaker, flow_now(ship)))
		return;
	ship->asked_until = 0;
	flow_say(ship, LOG_INFO, "the endpoint is available again");
	unpark(ship);
	ship->since = ship->world.wall(ship->world.self);
	ship->reason[0] = '\0';
	ship->report_due = true;
	struct item *item = witness != 0 && witness != by->id ? roster_find(&ship->roster, witness) : NULL;
	if (item != NULL && item->state == COLD) {
		/* It alone had failed: it was the record, not the destination. */
		roster_move(&ship->roster, item, WAITING);
		item->due = flow_now(ship) + policy_backoff(item->failures, ship->config->retry_base,
		                                       ship->config->retry_cap, flow_dice(ship));
		ship->next_due = flow_least(ship->next_due, item->due);
		blame(ship, item);
	}
}

/* A success clears the destination: what failed before a post that succeeded
 * was even sent, failed by its own fault. */
static void resolve_doubts(struct ship *ship, uint64_t sent)
{
	struct item *next;
	for (struct item *item = ship->roster.waiting.first; item != NULL && ship->roster.doubted > 0;
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
		session->more_from = flow_least(session->more_from, item->id);
		roster_remove(&ship->roster, item);
	}
}

/* Back to where a job can build it again. */
void flow_cool(struct ship *ship, struct item *item)
{
	roster_unload(&ship->roster, item);
	if (item->done)
		roster_move(&ship->roster, item, QUEUED);
	else if (flow_is_aside(&ship->apps[item->app]))
		flow_forget(ship, item);
	else
		roster_move(&ship->roster, item, COLD);
}

/* It failed before, and a record that was sent after that was taken since: then that
 * failure was its own. */
static bool failed_by_itself(const struct ship *ship, const struct item *item)
{
	return item->doubt != 0 && ship->newest_success > item->doubt;
}

/* There are more that fail by themselves than are kept in memory: this one's turn comes when
 * all is read again, so that they keep nobody from what stands behind. */
static void let_go(struct ship *ship, struct item *item, int64_t retry_after)
{
	if (item->session != NULL) {
		item->session->more_from = flow_least(item->session->more_from, item->id);
		item->session->resting = true;
	}
	roster_remove(&ship->roster, item);
	ship->let_go++;
	int64_t wait = flow_latest(ship->config->retry_cap, retry_after);
	ship->look_again_at = flow_least(ship->look_again_at, flow_now(ship) + wait);
}

/* This record is to be tried later by itself. */
static void wait_alone(struct ship *ship, struct item *item, int64_t retry_after)
{
	roster_unload(&ship->roster, item);
	if (ship->apps[item->app].held) {
		flow_forget(ship, item);
		return;
	}
	forget_behind(ship, item->session);
	int64_t wait = policy_backoff(item->failures, ship->config->retry_base,
	                              ship->config->retry_cap, flow_dice(ship));
	roster_move(&ship->roster, item, WAITING);
	item->due = flow_now(ship) + (wait > retry_after ? wait : retry_after);
	ship->next_due = flow_least(ship->next_due, item->due);
	bool own = failed_by_itself(ship, item); /* else this is not known yet */
	item->doubt = ship->posts;
	if (own) {
		blame(ship, item);
	} else {
		item->doubted = true;
		ship->roster.doubted++;
	}
	if (item->state == WAITING && ship->roster.waiting.count > WAITING_MAX)
		let_go(ship, item, retry_after);
}

static void handle_unavailable(struct ship *ship, struct item *item,
                               const struct answer *answer, const struct judgement *judgement)
{
	bool own = failed_by_itself(ship, item) && !judgement->whole;
	struct breaker_failure failure = {
		.record = item->id,
		.counted = item->epoch == ship->breaker.epoch || item->attempts > 0 || own,
		.whole = judgement->whole,
		.alone = item->attempts == 0 && !own && ship->roster.flying.count == 1 && ship->roster.ready.count == 0 &&
		         ship->roster.cold.count == 0,
		.retry_after = judgement->retry_after
	};
	char reason[REPORT_REASON_SIZE];
	describe(reason, sizeof reason, judgement, answer);
	if (!is_news(ship, item)) {
		flow_cool(ship, item);
		return;
	}
	bool was_up = ship->breaker.state == DESTINATION_UP;
	item->failures++;
	item->epoch = ship->breaker.epoch;
	bool lost = breaker_failed(&ship->breaker, &ship->limits, &failure, flow_now(ship), flow_dice(ship));
	if (judgement->retry_after > 0)
		ship->asked_until = flow_now(ship) + judgement->retry_after;
	if (!was_up || lost)
		(void)snprintf(ship->reason, sizeof ship->reason, "%s", reason);
	if (own || (was_up && !lost)) {
		wait_alone(ship, item, judgement->retry_after);
		return;
	}
	if (!judgement->whole)
		item->doubt = ship->posts;
	size_t place = item->app;
	flow_cool(ship, item);
	if (lost)
		destination_lost(ship);
	else if (claim_is_full(ship))
		park_app(ship, place);
}

static void handle_endpoint_held(struct ship *ship, struct item *item,
                                 const struct answer *answer,
                                 const struct judgement *judgement)
{
	bool news = is_news(ship, item);
	flow_cool(ship, item);
	if (!news)
		return;
	describe(ship->reason, sizeof ship->reason, judgement, answer);
	if (breaker_hold(&ship->breaker, &ship->limits, flow_now(ship), flow_dice(ship)))
		destination_lost(ship);
}

/* --- Answers ------------------------------------------------------------ */

static struct accused *find_accused(struct ship *ship, int64_t id)
{
	for (size_t i = 0; i < ACCUSED_MAX; i++)
		if (ship->accused[i].id == id)
			return &ship->accused[i];
	return NULL;
}

/* An answer about keys or endpoint was given to this record. True when others were taken
 * since it was given to it before: then it says something of this record alone. */
static bool is_own_fault(struct ship *ship, const struct item *item, bool endpoint)
{
	struct accused *accused = find_accused(ship, item->id);
	if (accused != NULL && accused->cleared)
		return true;
	if (accused == NULL)
		accused = &ship->accused[ship->accused_next++ % ACCUSED_MAX];
	*accused = (struct accused){ item->id, item->app, ship->posts, endpoint, false };
	return false;
}

static void clear_accused(struct ship *ship, const struct item *taken)
{
	for (size_t i = 0; i < ACCUSED_MAX; i++) {
		struct accused *accused = &ship->accused[i];
		if (accused->id != taken->id && taken->sent > accused->posts &&
		    (accused->endpoint || accused->app == taken->app))
			accused->cleared = true;
	}
}

static void forget_accused(struct ship *ship)
{
	for (size_t i = 0; i < ACCUSED_MAX; i++)
		ship->accused[i] = (struct accused){ .id = SPOOL_FIRST_ID };
}

static void handle_delivered(struct ship *ship, struct item *item)
{
	struct app *app = &ship->apps[item->app];
	uint64_t sent = item->sent;
	app->rejected_count = 0;
	release_app(ship, item->app);
	if (!app->proven && item->generation == ship->generation) {
		app->proven = true;
		ship->report_due = ship->report_due || ship->told.app_count > 0;
	}
	clear_accused(ship, item);
	(void)settle(ship, item, CHANGE_DELIVERED);
	ship->last_delivered_at = ship->world.wall(ship->world.self);
	if (ship->breaker.state != DESTINATION_UP)
		return;
	breaker_succeeded(&ship->breaker, &ship->limits);
	if (sent > ship->newest_success)
		ship->newest_success = sent;
	if (ship->roster.doubted > 0)
		resolve_doubts(ship, sent);
}

static void revive(struct ship *ship, struct app *app)
{
	for (size_t i = 0; i < app->rejected_count; i++) {
		struct spool_change *change = &flow_new_verdict(ship)->change;
		*change = (struct spool_change){ .kind = CHANGE_REVIVED, .id = app->rejected[i].id };
		memcpy(change->uuid, app->rejected[i].uuid, sizeof change->uuid);
		app->more_from = flow_least(app->more_from, app->rejected[i].id);
		app->revived[i] = app->rejected[i].id;
	}
	app->revived_count = app->rejected_count;
	app->rejected_count = 0;
}

static bool was_revived(const struct app *app, int64_t id)
{
	for (size_t i = 0; i < app->revived_count; i++)
		if (app->revived[i] == id)
			return true;
	return false;
}

static void handle_rejected(struct ship *ship, struct item *item, const char *reason)
{
	size_t place = item->app;
	struct app *app = &ship->apps[place];
	if (app->held && app->by_rejections) {
		flow_forget(ship, item);
		return;
	}
	release_app(ship, place); /* the keys were taken */
	item->attempts++;
	if (was_revived(app, item->id)) {
		/* It had its second chance, and it was not the configuration. */
		flow_bury(ship, item, item->code, item->sentence);
		return;
	}
	size_t count = app->rejected_count++;
	app->rejected[count].id = item->id;
	memcpy(app->rejected[count].uuid, item->uuid, sizeof item->uuid);
	flow_bury(ship, item, item->code, item->sentence);
	if (app->rejected_count < REJECTED_MAX)
		return;
	char sentence[REPORT_REASON_SIZE];
	(void)snprintf(sentence, sizeof sentence, "ten records in a row were rejected and none "
	               "was taken, so that the configuration is the likely cause; these ten wait "
	               "again; the last answer was %.200s", reason);
	revive(ship, app);
	flow_hold_app(ship, place, longest_interval(ship), sentence);
	app->by_rejections = true;
}

static void handle_app_held(struct ship *ship, struct item *item, const char *reason)
{
	size_t place = item->app;
	flow_forget(ship, item);
	ship->apps[place].by_rejections = false;
	flow_hold_app(ship, place, longest_interval(ship), reason);
}

/* The next probe of a held app is due after the longest interval; where this one
 * failed by itself, it goes to another record, so that none can keep the app
 * held. */
static void probe_failed(struct ship *ship, const struct item *item,
                         const struct judgement *judgement)
{
	struct app *app = &ship->apps[item->app];
	app->probe_due = longest_interval(ship);
	app->tried_from = SPOOL_FIRST_ID;
	if (judgement->verdict == VERDICT_REJECTED && !app->by_rejections)
		flow_try_all_again(app);
	else if (judgement->whole || judgement->verdict == VERDICT_ENDPOINT_HELD)
		return;
	else if (item->session == NULL)
		app->tried_id = item->id;
	else if (app->tried_count < TRIED_MAX)
		app->tried[app->tried_count++] = item->session->hash;
	else
		flow_try_all_again(app);
}

/* The keys that the record was posted with; NULL: they are no longer known, so that
 * what the server said cannot be cleared of them, and is not kept. */
static const struct config_app *keys_of(const struct ship *ship, const struct item *item)
{
	if (item->generation != ship->generation)
		return NULL;
	return &ship->config->apps[item->app];
}

void ship_answered(struct ship *ship, void *ticket, const struct answer *answer)
{
	struct item *item = ticket;
	int64_t wall = answer->retry_after != NULL ? ship->world.wall(ship->world.self) : 0;
	struct judgement judgement = policy_judge(answer, wall);
	char reason[REPORT_REASON_SIZE] = "";
	meter_answered(ship, item, answer);
	if (judgement.verdict != VERDICT_DELIVERED)
		describe(reason, sizeof reason, &judgement, answer);
	flow_clear_suspect(ship);
	if (judgement.verdict != VERDICT_DELIVERED)
		note_failure(item, answer, &judgement, keys_of(ship, item));
	bool current = item->generation == ship->generation;
	if (item->probe && current && judgement.verdict != VERDICT_DELIVERED)
		probe_failed(ship, item, &judgement);
	item->probe = false;
	if (!current && judgement.verdict != VERDICT_DELIVERED &&
	    judgement.verdict != VERDICT_REJECTED) {
		/* Keys or endpoint are others now: that answer was to the old ones. Or the
		 * record may be gone. */
		flow_cool(ship, item);
		return;
	}
	if ((judgement.verdict == VERDICT_APP_HELD || judgement.verdict == VERDICT_ENDPOINT_HELD) &&
	    is_own_fault(ship, item, judgement.verdict == VERDICT_ENDPOINT_HELD)) {
		judgement.verdict = VERDICT_BUSY;
		item->doubt = 1; /* judged: others were taken */
	}
	if (judgement.verdict != VERDICT_UNAVAILABLE &&
	    judgement.verdict != VERDICT_ENDPOINT_HELD)
		destination_alive(ship, item);

	switch (judgement.verdict) {
	case VERDICT_DELIVERED:
		item->status = answer->status;
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
}

/* --- Starting over -------------------------------------------------------- */

static void forget_if_idle(struct ship *ship, struct item *item)
{
	if (item->state != FLYING && item->state != SETTLING && !item->done)
		roster_remove(&ship->roster, item);
}

static void forget_if_done(struct ship *ship, struct item *item)
{
	if (!item->done)
		return;
	roster_remove(&ship->roster, item);
	ship->kept_count--;
}

static void forget_if_missed(struct ship *ship, struct item *item)
{
	if (item->missed)
		forget_if_done(ship, item);
}

void flow_forget_done(struct ship *ship, int64_t id)
{
	struct item *item = roster_find(&ship->roster, id);
	if (item != NULL)
		forget_if_done(ship, item);
}

void flow_start_over(struct ship *ship, bool other_file)
{
	for_each_item(ship, forget_if_idle);
	if (other_file)
		for_each_item(ship, forget_if_done);
	forget_accused(ship);
	for_each_session(ship, forget_rest);
	ship->let_go = 0;
	ship->frontier = SPOOL_FIRST_ID;
	ship->more = true;
	for (size_t i = 0; i < APP_PLACES; i++) {
		ship->apps[i].parked = false;
		ship->apps[i].more_from = ship->apps[i].held ? SPOOL_FIRST_ID : INT64_MAX;
	}
}

/* --- The pump ----------------------------------------------------------- */

static void post(struct ship *ship, struct item *item)
{
	roster_move(&ship->roster, item, FLYING);
	item->sent = ++ship->posts;
	item->generation = ship->generation;
	if (ship->careful > 0) {
		ship->suspected = true;
		ship->world.suspect(ship->world.self, item->uuid);
	}
	struct ship_post post = { item, item->payload, item->size, item->uuid };
	ship->world.post(ship->world.self, &post);
}

/* A record whose own backoff is over comes to the front of its session again. */
static void end_waits(struct ship *ship)
{
	int64_t time = flow_now(ship);
	if (time < ship->next_due)
		return;
	ship->next_due = INT64_MAX;
	struct item *next;
	for (struct item *item = ship->roster.waiting.first; item != NULL; item = next) {
		next = item->next;
		if (item->due <= time)
			roster_release(&ship->roster, item);
		else
			ship->next_due = flow_least(ship->next_due, item->due);
	}
}

/* When a destination that is not up may be tried with this record. */
static int64_t may_probe_at(const struct ship *ship, const struct item *item)
{
	int64_t at = breaker_next_try(&ship->breaker, item->id != ship->breaker.witness);
	return ship->limit == BUDGET_FREE ? at : flow_latest(at, ship->limit_until);
}

static void set_alarm(struct ship *ship)
{
	int64_t time = flow_now(ship), at = INT64_MAX;
	if (ship->working) {
		/* Its end is awaited, and pumps. */
	} else if (ship->storage != SPOOL_OK) {
		at = ship->storage_retry;
	} else if (ship->verdict_count > 0 || ship->report_due) {
		at = ship->settle_due;
	}
	bool sends = !ship->stopping && ship->paused_at < 0;
	if (sends && ship->storage == SPOOL_BUSY && ship->roster.ready.first != NULL &&
	    ship->roster.flying.count == 0)
		at = flow_least(at, may_probe_at(ship, ship->roster.ready.first));
	if (!ship->stopping && ship->storage == SPOOL_OK) {
		if (sends)
			at = flow_least(at, ship->next_due);
		if (!ship->working)
			at = flow_least(at, ship->sweep_at);
		if (!ship->working && ship->figures_due && flow_tells(ship))
			at = flow_least(at, ship->figures_at);
		if (!ship->working && claim_is_idle(ship))
			at = flow_least(at, ship->shrink_at);
		if (!ship->working && (ship->roster.item_count > 0 || ship->let_go > 0))
			at = flow_least(at, ship->look_again_at);
		const struct item *first =
			ship->roster.ready.first != NULL ? ship->roster.ready.first : ship->roster.cold.first;
		if (sends && first != NULL && ship->roster.flying.count == 0 && !ship->working)
			at = flow_least(at, may_probe_at(ship, first));
		if (sends && first != NULL && ship->closed)
			at = flow_least(at, ship->limit_until);
		for (size_t i = 0; sends && i < APP_PLACES; i++) {
			int64_t due = ship->apps[i].probe_due;
			if (due != INT64_MAX && ship->closed)
				due = flow_latest(due, ship->limit_until);
			if (due != INT64_MAX && ship->breaker.state != DESTINATION_UP)
				due = flow_latest(due, breaker_next_try(&ship->breaker, false));
			if (ship->apps[i].held && ship->apps[i].more_from != INT64_MAX && due > time)
				at = flow_least(at, due);
		}
	}
	if (ship->limit != BUDGET_FREE && ship->roster.ready.first != NULL && claim_room(ship) > 0)
		at = flow_least(at, ship->limit_until);
	if (!ship->working && ship->metrics_wanted && ship->config->metrics_file != NULL &&
	    ship->storage == SPOOL_OK)
		at = flow_least(at, ship->metrics_at);
	/* Whatever is due already waits for something else, which will pump. */
	if (at <= time)
		at = time + 1;
	ship->world.alarm(ship->world.self, at);
}

/* While one record alone speaks against the destination, another goes first. */
static void defer_witness(struct ship *ship)
{
	struct item_list *lists[] = { &ship->roster.ready, &ship->roster.cold };
	for (size_t i = 0; breaker_blames_witness(&ship->breaker) && i < 2; i++) {
		struct item *first = lists[i]->first;
		if (first != NULL && lists[i]->count > 1 && first->id == ship->breaker.witness)
			roster_move(&ship->roster, first, first->state);
	}
	/* A payload that is there already would go before one that is not. */
	struct item *ready = ship->roster.ready.first;
	if (breaker_blames_witness(&ship->breaker) && ready != NULL &&
	    ready->id == ship->breaker.witness && ship->roster.cold.first != NULL) {
		roster_unload(&ship->roster, ready);
		roster_move(&ship->roster, ready, COLD);
	}
}

static bool was_tried(const struct ship *ship, const struct item *item)
{
	return item->sent > ship->posts_when_lost || item->id == ship->breaker.witness;
}

/* While the destination is not up, a record that was not tried since goes before those
 * that were: several that the server fails on would else take up the probes. */
static void prefer_untried(struct ship *ship)
{
	struct item *item = ship->roster.cold.first;
	if (ship->breaker.state == DESTINATION_UP || item == NULL || !was_tried(ship, item))
		return;
	while (item != NULL && was_tried(ship, item))
		item = item->next;
	if (item != NULL)
		roster_prefer(&ship->roster, item);
}

/* Rows may have come under old ids: a dead letter that somebody put back, or a
 * producer that chooses its ids. Where nothing is known that shows by itself; while
 * something is held back, it is looked for now and then. A job that runs may have read what
 * stands behind a record that was let go meanwhile, and ends first. */
static void look_again(struct ship *ship)
{
	if (flow_now(ship) < ship->look_again_at || ship->working)
		return;
	ship->look_again_at = flow_now(ship) + LOOK_AGAIN;
	ship->frontier = SPOOL_FIRST_ID;
	ship->more = true;
	if (ship->let_go > 0)
		for_each_session(ship, forget_rest_if_resting);
	ship->let_go = 0;
}

static void pump(struct ship *ship)
{
	look_again(ship);
	if (ship->roster.ready.count + ship->roster.cold.count == 0 && !ship->more &&
	    !ship->working)
		unpark(ship); /* there is nothing else to probe */
	end_waits(ship);
	defer_witness(ship);
	prefer_untried(ship);
	meter_look(ship);
	unsigned room = claim_room(ship);
	while (room > 0 && ship->roster.ready.first != NULL &&
	       meter_lets(ship, ship->roster.ready.first)) {
		post(ship, ship->roster.ready.first);
		room--;
	}
	meter_close(ship);
	claim_next(ship);
	set_alarm(ship);
}

/* --- Pausing ------------------------------------------------------------ */

static void unload_if_ready(struct ship *ship, struct item *item)
{
	if (item->state != READY)
		return;
	roster_unload(&ship->roster, item);
	roster_move(&ship->roster, item, COLD);
}

void flow_set_pause(struct ship *ship, int64_t since)
{
	bool news = (ship->paused_at >= 0) != (since >= 0);
	ship->pause_known = true;
	if (!news)
		return;
	ship->paused_at = since;
	ship->report_due = true;
	if (since >= 0)
		for_each_item(ship, unload_if_ready); /* it may last: memory is given back */
	flow_say(ship, LOG_INFO, since >= 0 ? "paused by a person: nothing is sent until "
	         "'reconify-agent resume'; what is on its way ends"
	                                    : "no longer paused: records are sent again");
}

/* --- From outside ------------------------------------------------------- */

static void set_apps(struct ship *ship)
{
	for (size_t i = 0; i < APP_PLACES; i++) {
		struct app *app = &ship->apps[i];
		*app = (struct app){ .name = "", .more_from = INT64_MAX, .probe_due = INT64_MAX,
			             .probe = SPOOL_FIRST_ID };
		flow_try_all_again(app);
		if (i == APP_UNKNOWN) {
			app->held = true;
			continue;
		}
		if (i >= ship->config->app_count)
			continue;
		app->name = ship->config->apps[i].name;
		if (ship->config->apps[i].missing != NULL)
			flow_hold_app(ship, i, INT64_MAX, ship->config->apps[i].missing);
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
	ship->frontier = SPOOL_FIRST_ID;
	ship->more = true;
	ship->next_due = ship->shrink_at = INT64_MAX;
	ship->look_again_at = flow_now(ship) + LOOK_AGAIN;
	ship->sweep_at = flow_now(ship); /* perhaps something is due since yesterday */
	ship->last_delivered_at = -1;
	if (options->told != NULL && config->notify_command != NULL)
		events_told_from_json(options->told, &ship->told);
	ship->since = ship->started_at = world->wall(world->self);
	ship->report_due = ship->figures_due = ship->pause_due = true;
	ship->paused_at = ship->accepted_so_far = -1;
	ship->careful = options->careful ? CAREFUL_RECORDS : 0;
	ship->last_id = options->last_id;
	if (options->spent != NULL)
		(void)budget_from_note(&ship->budget, options->spent);
	if (options->condemned != NULL)
		(void)snprintf(ship->condemned, sizeof ship->condemned, "%s", options->condemned);
	breaker_init(&ship->breaker);
	forget_accused(ship);
	set_limits(ship);
	set_apps(ship);
	return ship;
}

void ship_free(struct ship *ship)
{
	if (ship == NULL)
		return;
	for (size_t i = 0; i < ship->verdict_count; i++)
		free(ship->verdicts[i].note);
	roster_clear(&ship->roster);
	free(ship->verdicts);
	free(ship->changes);
	free(ship->skips);
	metrics_file_close(&ship->metrics);
	free(ship->job);
	free(ship);
}

void ship_wake(struct ship *ship)
{
	ship->more = ship->figures_due = ship->metrics_wanted = true;
	pump(ship);
}

static void end_wait(struct ship *ship, struct item *item)
{
	if (item->state == WAITING)
		roster_release(&ship->roster, item);
}

void ship_try_now(struct ship *ship)
{
	int64_t time = flow_now(ship);
	for_each_item(ship, end_wait);
	/* Where it was buried by a commit that was thought to have failed, a person may have
	 * put it back. */
	for_each_item(ship, forget_if_missed);
	breaker_try_now(&ship->breaker, time);
	for (size_t i = 0; i < CONFIG_APPS_MAX; i++)
		if (ship->apps[i].probe_due != INT64_MAX)
			ship->apps[i].probe_due = time;
	ship->storage_retry = time;
	ship->figures_due = true;
	ship->figures_at = time;
	ship->sweep_at = time; /* somebody may have brought old ones in */
	ship->look_again_at = time; /* a person may have put rows back under old ids */
	pump(ship);
}

void ship_set_pause(struct ship *ship, int64_t since)
{
	ship->pause_told = ship->working;
	ship->pause_due = false;
	flow_set_pause(ship, since);
	if (since < 0)
		ship_try_now(ship);
	else
		pump(ship);
}

void ship_forget(struct ship *ship)
{
	ship->generation++; /* what is on its way is read again before it is sent again */
	flow_start_over(ship, false);
	ship->forget_again = ship->working; /* that job may have read before */
	ship_try_now(ship);
}

void ship_go_on(struct ship *ship)
{
	pump(ship);
}

void ship_worked(struct ship *ship, struct job *job)
{
	claim_accept(ship, job);
	if (ship->forget_again) {
		ship->forget_again = false;
		flow_start_over(ship, false);
	}
	pump(ship);
}

void ship_stop(struct ship *ship)
{
	ship->stopping = true;
	ship->metrics_wanted = true;
	ship->report_due = true; /* the last word, for `status` when nobody runs */
	pump(ship);
}

bool ship_is_stopped(const struct ship *ship)
{
	return !ship->working && ship->roster.flying.count == 0 && ship->verdict_count == 0 &&
	       !ship->report_due && !claim_metrics_due(ship);
}

bool ship_is_quiet(const struct ship *ship)
{
	if (ship->working || ship->roster.flying.count > 0 || ship->verdict_count > 0)
		return false;
	if (ship->paused_at >= 0)
		return true;
	if (ship->breaker.state != DESTINATION_UP)
		return ship->breaker.state == DESTINATION_HELD || ship->closed ||
		       ship->breaker.failures >= DRAIN_PROBES ||
		       ship->breaker.next_try - flow_now(ship) > DRAIN_PATIENCE;
	bool scanned = ship->scanned_once && ship->roster.hungry == NULL && !ship->more;
	if (ship->closed && claim_is_full(ship))
		return true; /* it knows enough of what waits for the limit */
	bool none_to_send = ship->roster.ready.count + ship->roster.cold.count == 0;
	return scanned && (none_to_send || ship->closed) &&
	       claim_app_to_probe(ship) == APP_PLACES;
}

/* The app's place in the new configuration. One that is gone may be back with the next
 * reload, while the record is still on its way: then its session is that app's again. */
static void follow_app(struct item *item, const struct config *old, const struct config *config)
{
	const char *name = item->app < old->app_count ? old->apps[item->app].name : item->lost_app;
	const struct config_app *app =
		name != NULL ? config_find_app(config, name, strlen(name)) : NULL;
	if (app == NULL && item->lost_app == NULL && name != NULL)
		item->lost_app = strdup(name);
	item->app = app != NULL ? (size_t)(app - config->apps) : APP_UNKNOWN;
	if (item->session != NULL)
		item->session->app = item->app;
}

bool ship_reload(struct ship *ship, const struct config *config)
{
	if (ship->working)
		return false;
	const struct config *old = ship->config;
	ship->generation++;
	ship->config = config;
	set_limits(ship);
	meter_adapt(ship, &old->limits);
	metrics_file_close(&ship->metrics); /* it may be another file */
	ship->metrics_wanted = true;
	ship->metrics_at = flow_now(ship);
	/* Before the apps change their places; and payloads hold keys: all that is not on
	 * its way is built anew. */
	for_each_item(ship, forget_if_idle);
	for (size_t i = 0; i < old->app_count; i++)
		if (ship->apps[i].held && ship->apps[i].probe_due != INT64_MAX)
			flow_say(ship, LOG_INFO, "app %s was held: it is tried again, with the configuration "
			         "as it is now", old->apps[i].name);
	set_apps(ship);
	memset(ship->roster.flying_of, 0, sizeof ship->roster.flying_of);
	for (struct item *item = ship->roster.flying.first; item != NULL; item = item->next) {
		follow_app(item, old, config);
		ship->roster.flying_of[item->app]++;
	}
	ship->unknown_count = 0;
	ship->scanned_once = false; /* who is unknown now is to be seen first */
	flow_start_over(ship, false);
	if (strcmp(config->url, old->url) != 0)
		breaker_forget(&ship->breaker);
	breaker_try_now(&ship->breaker, flow_now(ship));
	ship->sweep_at = flow_now(ship);
	ship->figures_due = true;
	if (config->notify_command == NULL)
		ship->told = (struct events_told){ .endpoint = false };
	ship->report_due = ship->limits_due = ship->pause_due = true;
	pump(ship);
	return true;
}

static int64_t to_wall(const struct ship *ship, int64_t at)
{
	int64_t wait = at - flow_now(ship);
	return ship->world.wall(ship->world.self) + (wait > 0 ? wait : 0);
}

static void report_app(struct report *report, const struct app *app)
{
	struct report_app *into = &report->apps[report->app_count++];
	(void)snprintf(into->name, sizeof into->name, "%s", app->name);
	into->held = app->held;
	into->proven = app->proven;
	memcpy(into->reason, app->reason, sizeof into->reason);
}

struct figures ship_figures(const struct ship *ship)
{
	return ship->figures;
}

bool ship_waits_for_network(const struct ship *ship)
{
	bool any = ship->more || ship->roster.item_count > ship->kept_count;
	return ship->breaker.state != DESTINATION_UP && any && !ship->stopping && !ship->closed &&
	       flow_now(ship) >= ship->asked_until;
}

void ship_try_network(struct ship *ship)
{
	if (!ship_waits_for_network(ship))
		return;
	breaker_try_now(&ship->breaker, flow_now(ship));
	pump(ship);
}

uint64_t ship_news(const struct ship *ship)
{
	return ship->news;
}

void ship_report(const struct ship *ship, struct report *report)
{
	*report = (struct report){
		.as_of = ship->world.wall(ship->world.self),
		.state = ship->breaker.state,
		.since = ship->since,
		.next_try_at = -1,
		.last_delivered_at = ship->last_delivered_at,
		.started_at = ship->started_at,
		.delivered_10s = rate_sum(&ship->rate, flow_now(ship), 10),
		.delivered_60s = rate_sum(&ship->rate, flow_now(ship), 60),
		.accepted_10s = rate_sum(&ship->arrivals, flow_now(ship), 10),
		.accepted_in = rate_seconds(&ship->arrivals, flow_now(ship), 10),
		.accepted_60s = rate_sum(&ship->arrivals, flow_now(ship), 60),
		.failures = ship->breaker.failures,
		.in_flight = (int64_t)ship->roster.flying.count,
		.locked = ship->storage == SPOOL_BUSY,
		.damaged_from = ship->damaged_from,
		.damaged_to = ship->damaged_to,
		.proven = ship->proven,
		.scanned = ship->scanned_once,
		.quiet = ship_is_quiet(ship)
	};
	meter_report(ship, report);
	memcpy(report->reason, ship->reason, sizeof report->reason);
	memcpy(report->storage, ship->storage_reason, sizeof report->storage);
	if (ship->breaker.state != DESTINATION_UP)
		report->next_try_at = to_wall(ship, breaker_next_try(&ship->breaker, false));
	else if (ship->next_due != INT64_MAX)
		report->next_try_at = to_wall(ship, ship->next_due);
	if (ship->paused_at >= 0) {
		report->state = DESTINATION_PAUSED;
		report->since = ship->paused_at;
		report->next_try_at = -1;
		(void)snprintf(report->reason, sizeof report->reason, "%s", report_paused);
	}
	for (const struct item *item = ship->roster.waiting.first; item != NULL; item = item->next) {
		report->retrying++;
		if (report->retrying_id != 0)
			continue;
		report->retrying_id = item->id;
		report->retrying_attempts = item->failures;
		(void)snprintf(report->retrying_reason, sizeof report->retrying_reason, "%s",
		               item->sentence);
	}
	report->retrying += (int64_t)ship->let_go;
	const struct item *witness = breaker_blames_witness(&ship->breaker)
	                                     ? roster_find(&ship->roster, ship->breaker.witness)
	                                     : NULL;
	if (witness != NULL && witness->sentence != NULL) {
		report->retrying_id = witness->id;
		report->retrying_attempts = witness->failures;
		(void)snprintf(report->retrying_reason, sizeof report->retrying_reason, "%s",
		               witness->sentence);
	}
	for (size_t i = 0; i < ship->config->app_count; i++)
		report_app(report, &ship->apps[i]);
	for (size_t i = 0; i < ship->unknown_count; i++) {
		struct app app = ship->apps[APP_UNKNOWN];
		app.name = ship->unknown[i];
		report_app(report, &app);
		report->apps[report->app_count - 1].unknown = true;
	}
}
