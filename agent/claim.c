/* What the flow asks of the storage thread, one job at a time: settle what has a
 * verdict, build what may be sent next, and look for what is new. See flow.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/flow.h"
#include "agent/secret.h"

#define STORAGE_PATIENCE_BASE 100
#define STORAGE_PATIENCE_CAP 30000
#define METRICS_PACE 15000   /* ms */
#define SHRINK_PATIENCE 5000 /* ms after the last settle, since more may come, */
#define SWEEP_PATIENCE 5000  /* ms after a sweep that failed */
#define SHRINK_PACE 50       /* and between two steps, for the producers */

static void metrics_written(struct ship *ship, const struct job *job);

/* --- What a job brought back -------------------------------------------- */

/* While the job ran, rows of this session that come before may have been forgotten:
 * then this one must wait until they are met again. */
static bool stands_behind_unknown(const struct ship *ship, const struct job_entry *entry)
{
	const struct session *session = roster_find_session(&ship->roster, entry->session);
	return entry->session != SESSION_NONE && session != NULL && session->more_from <= entry->id;
}

/* While the job ran, rows before what it looked at were put back (their app was released):
 * one of them may be of the same session. Met again from there. */
static bool was_overtaken(const struct ship *ship, const struct job_entry *entry)
{
	if (entry->session == SESSION_NONE || entry->id <= ship->frontier)
		return false;
	if (ship->scan == SCAN_ANY)
		return ship->frontier < ship->job->from;
	return ship->scan != SCAN_APP; /* its app is held, so nobody has gone before */
}

/* What is done with was met again. False: it is gone, or another row has its id now. */
static bool is_still_done(struct ship *ship, struct item *item, const struct job_entry *entry)
{
	if (entry->state == ENTRY_GONE)
		return false;
	if (entry->uuid[0] != '\0' && strcmp(item->uuid, entry->uuid) != 0)
		return false;
	/* By its place alone nobody can tell, so it is read. */
	bool told = entry->state != ENTRY_SEEN || entry->uuid[0] != '\0';
	roster_move(&ship->roster, item, told ? QUEUED : COLD);
	return true;
}

/* False: there is no memory to know it. */
static bool accept_entry(struct ship *ship, struct job_entry *entry)
{
	struct item *item = roster_find(&ship->roster, entry->id);
	if (item != NULL && item->done) {
		if (is_still_done(ship, item, entry)) {
			secret_free(entry->payload, entry->size);
			return true;
		}
		roster_remove(&ship->roster, item);
		ship->kept_count--;
		item = NULL;
	}
	bool known = item != NULL;
	if (known && item->state != LOADING) {
		secret_free(entry->payload, entry->size); /* met again by a scan from an earlier id */
		return true;
	}
	if (!known && entry->state == ENTRY_GONE)
		return true;
	if (!known && (stands_behind_unknown(ship, entry) || was_overtaken(ship, entry))) {
		secret_free(entry->payload, entry->size);
		return true;
	}
	if (!known)
		item = roster_add(&ship->roster, entry->id, entry->app, entry->session);
	if (item == NULL)
		return false;
	if (entry->state == ENTRY_GONE) {
		roster_remove(&ship->roster, item);
		return true;
	}
	bool probe = ship->scan == SCAN_APP && !known;
	if (entry->state == ENTRY_NO_ROOM) {
		roster_prefer(&ship->roster, item); /* its turn comes when there is room */
		return true;
	}
	if (entry->state != ENTRY_SEEN) {
		memcpy(item->uuid, entry->uuid, sizeof item->uuid);
		item->bytes = entry->bytes;
		item->keyed = entry->keyed;
		item->request_at = entry->request_at;
		if (entry->attempts > item->attempts)
			item->attempts = entry->attempts;
	}
	if (entry->payload != NULL)
		roster_load(&ship->roster, item, entry->payload, entry->size);
	if (entry->fault != NULL) {
		flow_bury(ship, item, entry->fault->code, entry->fault->sentence);
		return true;
	}
	if (flow_is_aside(&ship->apps[item->app]) && !probe) {
		flow_forget(ship, item);
		return true;
	}
	item->probe = probe;
	if (probe)
		ship->apps[item->app].probe = item->id;
	if (item->session == NULL || item->session->first == item)
		roster_release(&ship->roster, item);
	else
		roster_move(&ship->roster, item, QUEUED);
	return true;
}

/* What was met may be a record that is done with, whose row cannot leave. */
static bool met_a_probe(const struct ship *ship, const struct job *job)
{
	for (size_t i = job->load_count; i < job->entry_count; i++) {
		const struct item *item = roster_find(&ship->roster, job->entries[i].id);
		/* not covered: one that was overtaken, while the job ran, by one that was put back */
		if (item == NULL || !item->done)
			return true;
	}
	return false;
}

static void no_probe_found(struct app *app, const struct job *job)
{
	bool all = app->tried_count == 0 && app->tried_id == SPOOL_FIRST_ID;
	if (all && app->more_from < job->from)
		return; /* rows before were put back while the job ran */
	if (!job->end && all)
		app->more_from = job->next;
	else if (!job->end)
		app->tried_from = job->next;
	else if (all)
		app->more_from = INT64_MAX;
	else
		flow_try_all_again(app); /* all were tried in turn */
}

/* What was looked at of a session is known from now on, unless its rows were put
 * back while the job ran. */
static void advance_session(struct ship *ship, const struct job *job)
{
	if (ship->scan != SCAN_SESSION)
		return;
	struct session *session = roster_find_session(&ship->roster, ship->scan_session);
	if (session != NULL && session->more_from == job->from)
		session->more_from = job->end ? INT64_MAX : job->next;
}

static void accept_scan(struct ship *ship, const struct job *job)
{
	struct session *session;
	switch (ship->scan) {
	case SCAN_NOTHING:
		return;
	case SCAN_ANY:
		/* Where it was put back while the job ran, that holds. */
		if (ship->frontier == job->from)
			ship->frontier = job->next;
		if (job->end)
			ship->scanned_once = true;
		ship->more = ship->more || !job->end;
		for (size_t i = 0; i < job->skip_count; i++)
			if (job->skips[i].first != INT64_MAX) {
				session = roster_find_session(&ship->roster, job->skips[i].session);
				/* Where its app was set aside while the job ran, nothing is known of it. */
				int64_t *from = session == NULL ? &ship->frontier
				              : flow_is_aside(&ship->apps[session->app])
				              ? &ship->apps[session->app].more_from : &session->more_from;
				*from = flow_least(*from, job->skips[i].first);
			}
		for (size_t i = 0; i < APP_PLACES; i++) {
			if (job->skipped_app[i] == INT64_MAX)
				continue;
			struct app *app = &ship->apps[i];
			if (flow_is_aside(app))
				app->more_from = flow_least(app->more_from, job->skipped_app[i]);
			else
				ship->frontier = flow_least(ship->frontier, job->skipped_app[i]);
		}
		return;
	case SCAN_SESSION:
		session = roster_find_session(&ship->roster, ship->scan_session);
		if (session == NULL)
			return;
		roster_feed(&ship->roster, session);
		roster_trim(&ship->roster, session);
		return;
	case SCAN_APP:
		if (job->read == SPOOL_OK && !met_a_probe(ship, job))
			no_probe_found(&ship->apps[ship->scan_app], job);
		return;
	}
}

static void storage_answered(struct ship *ship, const struct job *job)
{
	enum spool_status status = job->settled != SPOOL_OK ? job->settled : job->read;
	if (status == SPOOL_OK) {
		if (ship->storage_reason[0] != '\0') {
			flow_say(ship, LOG_INFO, "the spool can be used again");
			ship->storage_reason[0] = '\0';
			ship->report_due = true;
		}
		ship->storage = SPOOL_OK;
		ship->storage_failures = 0;
		return;
	}
	ship->storage = status;
	ship->storage_failures++;
	ship->storage_retry = flow_now(ship) + policy_backoff(ship->storage_failures,
	                                                 STORAGE_PATIENCE_BASE,
	                                                 STORAGE_PATIENCE_CAP, flow_dice(ship));
	/* A lock that is held for a moment is everyday life, not news. */
	if (status == SPOOL_BUSY && ship->storage_failures < 3)
		return;
	if (strcmp(ship->storage_reason, job->error.sentence) != 0) {
		(void)snprintf(ship->storage_reason, sizeof ship->storage_reason, "%.*s",
		               REPORT_REASON_SIZE - 1, job->error.sentence);
		flow_say(ship, LOG_ERROR, "%s", job->error.sentence);
	}
}

/* When the next sweep is due, from now on at the latest in `wait` ms. */
static void sweep_within(struct ship *ship, int64_t wait)
{
	if (wait > SWEEP_LOOK)
		wait = SWEEP_LOOK;
	ship->sweep_at = flow_least(ship->sweep_at, flow_now(ship) + wait);
}

/* Something came that is kept for a time alone. */
static void expect_sweep(struct ship *ship, const struct spool_change *change)
{
	if (change->kind == CHANGE_DEAD && ship->config->keep_dead != CONFIG_FOREVER)
		sweep_within(ship, ship->config->keep_dead);
	else if (change->kind == CHANGE_DELIVERED && change->receipt_at > 0)
		sweep_within(ship, ship->config->keep_delivered);
}

static void accept_sweep(struct ship *ship, const struct job *job)
{
	if (!job->sweep)
		return;
	if (!job->has_swept) {
		sweep_within(ship, SWEEP_PATIENCE);
		return;
	}
	ship->swept += job->swept.dead;
	if (job->swept.more) {
		sweep_within(ship, SHRINK_PACE);
		return;
	}
	if (ship->swept > 0)
		flow_say(ship, LOG_INFO, "dead letters that were older than keep_dead allows were "
		         "discarded: %" PRId64, ship->swept);
	ship->swept = 0;
	if (job->swept.due != INT64_MAX)
		sweep_within(ship, job->swept.due >= job->wall ? job->swept.due - job->wall + 1
		                                               : SWEEP_LOOK);
}

static void count_arrivals(struct ship *ship, int64_t accepted)
{
	int64_t more = ship->accepted_so_far >= 0 ? accepted - ship->accepted_so_far : 0;
	ship->accepted_so_far = accepted;
	if (more > 0)
		rate_add(&ship->arrivals, flow_now(ship), (uint32_t)more);
}

static void accept_figures(struct ship *ship, const struct job *job)
{
	if (!job->has_ledger)
		return;
	count_arrivals(ship, job->ledger.accepted);
	bool died = job->ledger.dead != ship->figures.dead;
	ship->figures = (struct figures){ true, job->ledger.waiting, job->ledger.dead,
		                          job->ledger.bytes, job->ledger.max_spool };
	/* Dead letters may come by an import, too. */
	if (died && job->ledger.dead > 0 && ship->config->keep_dead != CONFIG_FOREVER)
		sweep_within(ship, ship->config->keep_dead);
	if (!flow_tells(ship))
		return;
	struct events_told told = ship->told;
	struct report report;
	ship_report(ship, &report);
	if (events_decide(&told, &report, &ship->figures, NULL, NULL))
		ship->report_due = true;
}

/* The verdicts of the job are written: their records are done with. */
static void verdicts_written(struct ship *ship, enum spool_status settled)
{
	size_t done = ship->verdicts_in_job;
	uint32_t delivered = 0;
	ship->verdicts_in_job = 0;
	if (settled != SPOOL_OK)
		return;
	for (size_t i = 0; i < done; i++) {
		struct item *item = ship->verdicts[i].item;
		expect_sweep(ship, &ship->changes[i]);
		if (ship->changes[i].kind == CHANGE_DEAD)
			ship->figures_due = true;
		delivered += ship->changes[i].kind == CHANGE_DELIVERED;
		if (item != NULL && ship->changes[i].missed) {
			/* Perhaps replaced by another row under the same id: look again. */
			ship->frontier = flow_least(ship->frontier, item->id);
			ship->more = true;
		}
		/* Kept in mind, so that a row which a damaged or changed file still shows is not
		 * sent again and again. */
		bool keep = item != NULL && (ship->changes[i].refused || ship->changes[i].missed) &&
		            ship->kept_count < KEPT_MAX;
		if (keep) {
			item->done = true;
			item->missed = ship->changes[i].missed;
			ship->kept_count++;
			roster_move(&ship->roster, item, QUEUED);
		}
		if (item != NULL && ship->changes[i].refused)
			flow_say(ship, LOG_ERROR, "record %" PRId64 " is done with, but cannot leave the "
			    "spool, %s", item->id, ship->changes[i].damaged
			    ? "whose file is damaged; it is not sent again; stop the agent, and run "
			      "'reconify-agent init --salvage'"
			    : "whose tables somebody changed; it is not sent again before a "
			      "restart; see 'reconify-agent check'");
		if (item != NULL && !keep)
			roster_remove(&ship->roster, item);
		if (ship->changes[i].kind == CHANGE_REVIVED)
			flow_forget_done(ship, ship->changes[i].id);
		free(ship->verdicts[i].note);
	}
	if (delivered > 0)
		rate_add(&ship->rate, flow_now(ship), delivered);
	ship->verdict_count -= done;
	if (ship->verdict_count > 0 && done > 0)
		memmove(ship->verdicts, ship->verdicts + done,
		        ship->verdict_count * sizeof *ship->verdicts);
	ship->settle_due = flow_now(ship) + SETTLE_AGE;
}

static void note_unknown_app(struct ship *ship, const char *name)
{
	for (size_t i = 0; i < ship->unknown_count; i++)
		if (strcmp(ship->unknown[i], name) == 0)
			return;
	if (ship->unknown_count == JOB_UNKNOWN_NAMES)
		return;
	(void)snprintf(ship->unknown[ship->unknown_count++], JOB_NAME_SIZE, "%s", name);
	ship->report_due = true;
	/* Its name is a producer's word, and none for a log. */
	flow_say(ship, LOG_ERROR, "an app that is not in the configuration has records: they wait, "
	         "others go on; 'reconify-agent status' names it: add a section [app NAME] with its "
	         "keys");
	flow_hold_app(ship, APP_UNKNOWN, INT64_MAX,
	              "not in the configuration: add its section with its keys, then reload");
}

/* Another file stands at the path: what the job read was asked for by what was known
 * of the old one. */
static void go_over(struct ship *ship, const struct job *job)
{
	flow_say(ship, LOG_WARNING, job->replaced
	         ? "the spool's file was replaced by another; going on with that"
	         : "the spool is open again; going on with what stands at its path");
	if (job->abandoned)
		flow_say(ship, LOG_ERROR, "the old file was deleted while records were in it that cannot "
		         "be sent now (their app is held, or they fail): they are lost with it");
	for (size_t i = 0; i < job->entry_count; i++)
		secret_free(job->entries[i].payload, job->entries[i].size);
	ship->damaged_from = ship->damaged_to = 0;
	ship->scan = SCAN_NOTHING;
	ship->need = 0;
	flow_start_over(ship, true);
}

/* Once for each place, not at every look. */
static void note_damage(struct ship *ship, const struct job *job)
{
	if (job->damaged_from == 0 ||
	    (ship->damaged_from != 0 && job->damaged_from >= ship->damaged_from &&
	     job->damaged_to <= ship->damaged_to))
		return;
	if (ship->damaged_from == 0 || job->damaged_from < ship->damaged_from)
		ship->damaged_from = job->damaged_from;
	if (job->damaged_to > ship->damaged_to)
		ship->damaged_to = job->damaged_to;
	ship->report_due = true;
	char to[32] = "on";
	if (job->damaged_to != INT64_MAX)
		(void)snprintf(to, sizeof to, "to %" PRId64, job->damaged_to);
	flow_say(ship, LOG_ERROR, "%s: records from id %" PRId64 " %s cannot be read, all or some, and "
	         "are passed over; stop the agent, and run 'reconify-agent init --salvage'",
	         job->error.sentence, job->damaged_from, to);
}

/* There is no memory to know this entry: it and all behind it are read again. */
static void give_up_reading(struct ship *ship, struct job *job, size_t first)
{
	for (size_t i = first; i < job->entry_count; i++)
		secret_free(job->entries[i].payload, job->entries[i].size);
	job->entry_count = first;
	ship->forget_again = true;
	job->read = job->error.status = SPOOL_IO;
	(void)snprintf(job->error.sentence, sizeof job->error.sentence,
	               "no memory to know another record; trying again");
	storage_answered(ship, job);
}

void claim_accept(struct ship *ship, struct job *job)
{
	ship->working = false;
	if (job->suspect != NULL)
		flow_clear_suspect(ship);
	storage_answered(ship, job);
	metrics_written(ship, job);
	ship->metrics_wanted = ship->metrics_wanted || job->change_count > 0;
	verdicts_written(ship, job->settled);
	ship->limits_due = job->limits;
	accept_sweep(ship, job);
	accept_figures(ship, job);
	if (ship->pause_told) {
		ship->pause_told = false;
		ship->pause_due = job->reopened;
	} else if (ship->pause_due || job->reopened) {
		ship->pause_due = job->pause;
		if (!job->pause)
			flow_set_pause(ship, job->paused_at);
	}
	if (job->roomy)
		ship->shrink_at = flow_now(ship) + SHRINK_PATIENCE;
	if (job->shrink)
		ship->shrink_at = flow_now(ship) + SHRINK_PACE;
	if (job->reopened) {
		go_over(ship, job);
		return;
	}
	if (job->load_count > 0 || job->scan != SCAN_NOTHING)
		ship->need = job->need;
	for (size_t i = 0; i < job->unknown_count; i++)
		note_unknown_app(ship, job->unknown[i]);
	note_damage(ship, job);
	advance_session(ship, job);
	for (size_t i = 0; i < job->entry_count; i++)
		if (!accept_entry(ship, &job->entries[i]))
			give_up_reading(ship, job, i);
	accept_scan(ship, job);
	/* What was asked for and did not come back: the job ended early. */
	for (size_t i = 0; i < job->load_count; i++) {
		struct item *item = roster_find(&ship->roster, ship->load_ids[i]);
		if (item != NULL && item->state == LOADING)
			flow_cool(ship, item);
	}
	ship->scan = SCAN_NOTHING;
}

/* --- Giving the storage thread a job ------------------------------------ */

static bool settle_is_due(const struct ship *ship)
{
	size_t open = ship->verdict_count;
	return (open > 0 || ship->report_due) &&
	       (open >= SETTLE_COUNT || ship->roster.flying.count == 0 || ship->stopping ||
	        flow_now(ship) >= ship->settle_due);
}

/* What a person is told of is noted with what it is about, so that no restart tells it
 * again. */
static void tell_events(struct ship *ship, const struct report *report)
{
	if (!flow_tells(ship) ||
	    !events_decide(&ship->told, report, &ship->figures, ship->world.tell, ship->world.self))
		return;
	char *json = events_told_to_json(&ship->told);
	/* not covered: no memory within cJSON, which the torture of allocations shows */
	if (json == NULL)
		return;
	struct verdict_note *verdict = flow_new_verdict(ship);
	verdict->note = json;
	verdict->change = (struct spool_change){
		.kind = CHANGE_NOTE, .name = SHIP_TOLD_NOTE, .value = json
	};
}

static void write_report(struct ship *ship)
{
	if (!ship->report_due)
		return;
	struct report report;
	ship->news++;
	ship_report(ship, &report);
	tell_events(ship, &report);
	char *json = report_to_json(&report);
	ship->report_due = false;
	/* not covered: no memory within cJSON, which the torture of allocations shows */
	if (json == NULL)
		return;
	struct verdict_note *verdict = flow_new_verdict(ship);
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
	meter_write(ship);
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
	if (ship->roster.loaded_bytes == 0)
		return SIZE_MAX;
	return memory > ship->roster.loaded_bytes ? memory - ship->roster.loaded_bytes : 0;
}

static size_t known_ahead(const struct ship *ship)
{
	return ship->roster.ready.count + ship->roster.cold.count + ship->job->load_count;
}

/* Whether to look for more: a look brings many at the price of one. */
static bool wants_more(const struct ship *ship)
{
	bool going = ship->breaker.state == DESTINATION_UP && ship->roster.flying.count > 0;
	return ship->more && known_ahead(ship) + (going ? LOOK_FOR : 1) <= WINDOW;
}

bool claim_is_full(const struct ship *ship)
{
	return known_ahead(ship) >= WINDOW;
}

/* True while payloads are wanted ahead: the destination takes them, and there is
 * room. */
static bool may_build(const struct ship *ship)
{
	return !ship->stopping && !ship->closed && ship->paused_at < 0 && !flow_has_hands_full(ship) &&
	       ship->breaker.state == DESTINATION_UP && memory_room(ship) >= ship->need;
}

unsigned claim_room(const struct ship *ship)
{
	if (ship->stopping || ship->closed || ship->paused_at >= 0 || !ship->pause_known ||
	    ship->storage == SPOOL_FULL || ship->storage == SPOOL_IO ||
	    ship->storage == SPOOL_DENIED)
		return 0;
	const struct item *first = ship->roster.ready.first != NULL ? ship->roster.ready.first : ship->roster.cold.first;
	bool fresh = first != NULL && first->id != ship->breaker.witness;
	unsigned room = breaker_room(&ship->breaker, &ship->limits, (unsigned)ship->roster.flying.count,
	                             fresh, flow_now(ship));
	if (ship->careful > 0 && room > 0)
		room = ship->roster.flying.count == 0 ? 1 : 0;
	int64_t unsettled = (int64_t)(ship->roster.settling + ship->roster.flying.count);
	return (unsigned)flow_least(room, UNSETTLED_MAX - flow_least(unsettled, UNSETTLED_MAX));
}

/* Which payloads to build for records that are known by their place alone. */
static void prepare_load(struct ship *ship)
{
	size_t wanted = 0;
	if (ship->breaker.state != DESTINATION_UP)
		wanted = ship->roster.ready.count == 0 && claim_room(ship) > 0 ? 1 : 0;
	else if (may_build(ship) && ship->roster.ready.count < WINDOW / 2)
		wanted = ship->careful > 0 ? 1 : WINDOW / 2;
	while (ship->job->load_count < wanted && ship->roster.cold.first != NULL) {
		struct item *item = ship->roster.cold.first;
		roster_move(&ship->roster, item, LOADING);
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
	if (ship->roster.session_count > ship->skip_room) {
		size_t room = ship->roster.session_count * 2;
		struct job_skip *grown = realloc(ship->skips, room * sizeof *grown);
		if (grown == NULL)
			return false;
		ship->skips = grown;
		ship->skip_room = room;
	}
	size_t count = 0;
	for (size_t i = 0; i < ROSTER_BUCKETS; i++)
		for (struct session *session = ship->roster.sessions[i]; session != NULL;
		     session = session->chain)
			if (session->more_from != INT64_MAX || session->count >= ROSTER_SESSION_ROOM ||
			    /* not covered: one that has no record, nothing more, and is still to be read */
			    (session->first != NULL && session->first->state == WAITING))
				ship->skips[count++] = (struct job_skip){ session->hash, INT64_MAX };
	if (count > 1)
		qsort(ship->skips, count, sizeof *ship->skips, compare_skips);
	ship->job->skips = ship->skips;
	ship->job->skip_count = count;
	return true;
}

static void prepare_tried(struct ship *ship, const struct app *app)
{
	for (size_t i = 0; i < app->tried_count; i++)
		ship->tried[i] = (struct job_skip){ app->tried[i], INT64_MAX };
	if (app->tried_count > 1)
		qsort(ship->tried, app->tried_count, sizeof *ship->tried, compare_skips);
	ship->job->skips = ship->tried;
	ship->job->skip_count = app->tried_count;
	ship->job->after = app->tried_id;
	ship->job->from = app->tried_from > app->more_from ? app->tried_from : app->more_from;
}

/* A held app whose probe is due, or APP_PLACES. */
size_t claim_app_to_probe(const struct ship *ship)
{
	if (ship->stopping || ship->closed || ship->paused_at >= 0 ||
	    ship->roster.ready.count + ship->roster.cold.count > WINDOW)
		return APP_PLACES;
	bool alive = ship->breaker.state == DESTINATION_UP ||
	             (ship->roster.ready.count + ship->roster.cold.count == 0 && claim_room(ship) > 0);
	for (size_t i = 0; alive && i < APP_PLACES; i++) {
		const struct app *app = &ship->apps[i];
		const struct item *probe = app->probe != SPOOL_FIRST_ID ? roster_find(&ship->roster, app->probe) : NULL;
		if (probe != NULL && probe->probe)
			continue; /* one is under way */
		if (app->held && ship->roster.flying_of[i] == 0 && app->more_from != INT64_MAX &&
		    flow_now(ship) >= app->probe_due)
			return i;
	}
	return APP_PLACES;
}

static void prepare_scan(struct ship *ship)
{
	struct session *session;
	struct job *job = ship->job;
	size_t place = claim_app_to_probe(ship);
	job->room_entries = 0;
	job->to = ship->last_id;
	/* One record at a time: what is built is known by its place alone before. */
	job->build = may_build(ship) && ship->careful == 0;
	if (ship->stopping)
		return;
	/* A held app may have a long way to its probe: others go on meanwhile. */
	bool yields = ship->app_looked_at && (ship->roster.hungry != NULL || wants_more(ship));
	ship->app_looked_at = false;
	if (place != APP_PLACES && !yields && !flow_has_hands_full(ship) &&
	    (ship->careful == 0 || job->load_count == 0) && memory_room(ship) >= ship->need) {
		job->scan = SCAN_APP;
		job->app = place;
		ship->app_looked_at = true;
		prepare_tried(ship, &ship->apps[place]);
		job->build = true;
		job->room_entries = 1;
	} else if (ship->need > 0 && memory_room(ship) < ship->need) {
		return;
	} else if ((session = roster_next_hungry(&ship->roster)) != NULL) {
		job->scan = SCAN_SESSION;
		job->session = session->hash;
		job->from = session->more_from;
		job->to = ship->frontier > SPOOL_FIRST_ID ? ship->frontier - 1 : SPOOL_FIRST_ID;
		job->room_entries = ROSTER_SESSION_ROOM - session->count;
	} else if (wants_more(ship) && prepare_skips(ship)) {
		if (ship->roster.item_count == ship->kept_count && ship->let_go == 0) {
			/* Nothing is known: whatever is there is new, also under an old id. */
			int64_t from = SPOOL_FIRST_ID;
			for (size_t i = 0; i < APP_PLACES; i++)
				if (ship->apps[i].more_from != INT64_MAX)
					from = ship->frontier;
			ship->frontier = from;
		}
		ship->more = false; /* a wake while the job runs sets it again */
		job->scan = SCAN_ANY;
		job->from = ship->frontier;
		_Static_assert(WINDOW / 2 + ROSTER_SESSION_ROOM <= JOB_ENTRIES,
		               "there is room for what is loaded and for what is found");
		job->room_entries = WINDOW - known_ahead(ship);
		if (job->room_entries > JOB_ENTRIES - job->load_count)
			job->room_entries = JOB_ENTRIES - job->load_count;
		for (size_t i = 0; i < APP_PLACES; i++)
			job->skip_app[i] = flow_is_aside(&ship->apps[i]);
	}
	ship->scan = job->scan;
	ship->scan_session = job->session;
	ship->scan_app = job->app;
}

/* Written when something may have changed, at most every METRICS_PACE, and at the end. */
bool claim_metrics_due(const struct ship *ship)
{
	return ship->metrics_wanted && ship->config->metrics_file != NULL &&
	       (flow_now(ship) >= ship->metrics_at || (ship->stopping && ship->roster.flying.count == 0 &&
	                                               ship->verdict_count == 0));
}

static void prepare_metrics(struct ship *ship)
{
	ship->job->metrics = NULL;
	if (!claim_metrics_due(ship))
		return;
	ship->metrics_wanted = false;
	ship->metrics_at = flow_now(ship) + METRICS_PACE;
	ship_report(ship, &ship->metrics.report);
	ship->metrics.running = !ship->stopping;
	ship->job->metrics = &ship->metrics;
}

static void metrics_written(struct ship *ship, const struct job *job)
{
	if (job->metrics == NULL || strcmp(ship->metrics_error, ship->metrics.error) == 0)
		return;
	memcpy(ship->metrics_error, ship->metrics.error, sizeof ship->metrics_error);
	if (ship->metrics_error[0] != '\0')
		flow_say(ship, LOG_WARNING, "%s", ship->metrics_error);
	else
		flow_say(ship, LOG_INFO, "the metrics are written again");
}

bool claim_is_idle(const struct ship *ship)
{
	const struct roster *roster = &ship->roster;
	return !ship->stopping && roster->flying.count + roster->ready.count + roster->cold.count == 0 &&
	       ship->verdict_count == 0 && !ship->more;
}

void claim_next(struct ship *ship)
{
	if (ship->working)
		return;
	if (ship->storage != SPOOL_OK && flow_now(ship) < ship->storage_retry)
		return;
	struct job *job = ship->job;
	memset(job, 0, offsetof(struct job, entries));
	job->entry_count = 0;
	job->has_swept = job->has_ledger = false;
	job->end = job->reopened = job->replaced = job->abandoned = job->roomy = false;
	job->need = 0;
	job->unknown_count = 0;
	job->damaged_from = job->damaged_to = 0;
	job->config = ship->config;
	job->wall = ship->world.wall(ship->world.self);
	job->room_bytes = memory_room(ship);
	bool settles = prepare_settle(ship);
	prepare_load(ship);
	prepare_scan(ship);
	job->suspect = NULL;
	job->condemned = ship->condemned;
	if (ship->careful > 0 && (job->load_count > 0 || job->build)) {
		job->suspect = ship->world.suspect;
		job->suspect_self = ship->world.self;
		ship->suspected = true;
	}
	job->next = job->from; /* where it stays if the job cannot begin */
	job->leave = ship->breaker.state == DESTINATION_UP && ship->roster.flying.count == 0 &&
	             ship->roster.ready.count + ship->roster.cold.count == 0 &&
	             ship->roster.hungry == NULL;
	job->touch = ship->storage != SPOOL_OK;
	job->limits = ship->limits_due;
	job->pause = ship->pause_due;
	prepare_metrics(ship);
	job->shrink = claim_is_idle(ship) && flow_now(ship) >= ship->shrink_at;
	if (job->shrink)
		ship->shrink_at = INT64_MAX;
	job->figures = !ship->stopping && ship->figures_due && flow_now(ship) >= ship->figures_at;
	if (job->figures) {
		ship->figures_due = false;
		ship->figures_at = flow_now(ship) + FIGURES_PACE;
	}
	job->sweep = !ship->stopping && flow_now(ship) >= ship->sweep_at;
	if (job->sweep)
		ship->sweep_at = INT64_MAX;
	if (!settles && job->load_count == 0 && job->scan == SCAN_NOTHING && !job->touch &&
	    !job->limits && !job->pause && !job->shrink && !job->sweep && !job->figures &&
	    job->metrics == NULL)
		return;
	ship->working = true;
	ship->world.work(ship->world.self, job);
}
