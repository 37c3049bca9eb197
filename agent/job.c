/* The storage side of the flow; see job.h. Runs on the spool's own thread, so
 * that a slow disk never keeps an answer waiting. */
#include "agent/job.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/pause.h"
#include "agent/secret.h"

static const struct payload_fault fault_too_big = {
	"too-big", "the record is larger than max_record"
};
static const struct payload_fault fault_crashed = {
	"crashed-agent", "the agent crashed three times while it had this record alone in hand"
};

uint64_t job_session(struct text app, struct text session)
{
	/* FNV-1a (draft-eastlake-fnv), over the app, its length and the session. */
	uint64_t hash = 14695981039346656037ULL;
	if (session.bytes == NULL)
		return SESSION_NONE;
	for (size_t i = 0; i < app.size; i++)
		hash = (hash ^ (unsigned char)app.bytes[i]) * 1099511628211ULL;
	hash = (hash ^ app.size) * 1099511628211ULL;
	for (size_t i = 0; i < session.size; i++)
		hash = (hash ^ (unsigned char)session.bytes[i]) * 1099511628211ULL;
	return hash != SESSION_NONE ? hash : 1; /* not covered: one text in 2^64 has this hash */
}

static size_t place_of_app(const struct config *config, struct text app)
{
	const struct config_app *found = config_find_app(config, app.bytes, app.size);
	return found != NULL ? (size_t)(found - config->apps) : APP_UNKNOWN;
}

/* Keeps the names of apps that nobody configured, for a person to read. */
static void remember_unknown(struct job *job, struct text app)
{
	char name[JOB_NAME_SIZE] = "";
	size_t size = app.size < sizeof name - 1 ? app.size : sizeof name - 1;
	for (size_t i = 0; i < size; i++) {
		unsigned char byte = (unsigned char)app.bytes[i];
		name[i] = byte < 0x20 || byte >= 0x7f ? '?' : (char)byte;
	}
	for (size_t i = 0; i < job->unknown_count; i++)
		if (strcmp(job->unknown[i], name) == 0)
			return;
	if (job->unknown_count < JOB_UNKNOWN_NAMES)
		memcpy(job->unknown[job->unknown_count++], name, sizeof name);
}

static struct payload_frame frame_for(const struct config *config, size_t app,
                                      struct text format)
{
	const struct config_app *keys = &config->apps[app];
	struct payload_frame frame = {
		{ keys->app_key, strlen(keys->app_key) },
		{ keys->api_key, strlen(keys->api_key) },
		config_find_format(config, format.bytes, format.size)
	};
	return frame;
}

/* Builds the payload of a row that was read. False ends the reading: there is no room
 * for it now, or the spool failed. */
static bool build(struct job *job, struct spool *spool, const struct record *record,
                  struct job_entry *entry)
{
	job->read = spool_attempts(spool, entry->id, record->uuid, &entry->attempts);
	if (job->read != SPOOL_OK)
		return false;
	if (entry->attempts == SPOOL_DELIVERED) {
		entry->state = ENTRY_GONE;
		return true;
	}
	entry->app = place_of_app(job->config, record->app);
	entry->session = job_session(record->app, record->session);
	entry->bytes = record_bytes(record);
	entry->keyed = record->key.bytes != NULL;
	entry->request_at = record->request_at.state == NUMBER_SET ? record->request_at.value : -1;
	if (record->uuid.bytes != NULL && record->uuid.size == RECORD_UUID_SIZE &&
	    memchr(record->uuid.bytes, '\0', RECORD_UUID_SIZE) == NULL)
		memcpy(entry->uuid, record->uuid.bytes, RECORD_UUID_SIZE);
	if (entry->uuid[0] != '\0' && strcmp(entry->uuid, job->condemned) == 0) {
		entry->state = ENTRY_FAULTY;
		entry->fault = &fault_crashed;
		return true;
	}
	if (job->suspect != NULL)
		job->suspect(job->suspect_self, entry->uuid);
	if (entry->app == APP_UNKNOWN || job->config->apps[entry->app].missing != NULL) {
		entry->state = ENTRY_SEEN;
		return true;
	}

	struct payload_frame frame = frame_for(job->config, entry->app, record->format);
	entry->fault = payload_judge(record);
	if (entry->fault != NULL) {
		entry->state = ENTRY_FAULTY;
		return true;
	}
	job->drafted = true;
	entry->size = payload_write(record, &frame, job->draft, sizeof job->draft);
	if (entry->size > job->room_bytes) {
		entry->state = ENTRY_NO_ROOM;
		job->need = entry->size;
		return false;
	}
	entry->payload = malloc(entry->size);
	if (entry->payload == NULL) {
		job->read = SPOOL_IO;
		job->error.status = SPOOL_IO;
		(void)snprintf(job->error.sentence, sizeof job->error.sentence,
		               "no memory for a payload of %zu bytes; trying again", entry->size);
		return false;
	}
	if (entry->size <= sizeof job->draft)
		memcpy(entry->payload, job->draft, entry->size);
	else
		(void)payload_write(record, &frame, entry->payload, entry->size);
	entry->state = ENTRY_LOADED;
	if (job->room_bytes == SIZE_MAX)
		job->room_bytes = (size_t)job->config->memory;
	job->room_bytes = job->room_bytes > entry->size ? job->room_bytes - entry->size : 0;
	return true;
}

static void note_damage(struct job *job, int64_t from, int64_t to)
{
	if (from < 1)
		from = 1; /* what there is below is nobody's */
	if (job->damaged_from == 0 || from < job->damaged_from)
		job->damaged_from = from;
	if (to > job->damaged_to)
		job->damaged_to = to;
}

/* Reads one row and builds its payload, likewise. */
static bool take(struct job *job, struct spool *spool, struct job_entry *entry)
{
	struct record record;
	job->read = spool_load(spool, entry->id, &record);
	if (job->read == SPOOL_END) {
		job->read = SPOOL_OK;
		entry->state = ENTRY_GONE;
		return true;
	}
	if (job->read == SPOOL_TOO_BIG) {
		job->read = SPOOL_OK;
		entry->state = ENTRY_FAULTY;
		entry->fault = &fault_too_big;
		return true;
	}
	if (job->read == SPOOL_DAMAGED) {
		/* This row alone: it stays where it is, for 'init --salvage'. */
		job->error = *spool_last_error(spool);
		note_damage(job, entry->id, entry->id);
		job->read = SPOOL_OK;
		entry->state = ENTRY_GONE;
		return true;
	}
	return job->read == SPOOL_OK && build(job, spool, &record, entry);
}

static struct job_entry *new_entry(struct job *job, int64_t id)
{
	struct job_entry *entry = &job->entries[job->entry_count];
	*entry = (struct job_entry){ .state = ENTRY_SEEN, .id = id, .app = APP_UNKNOWN };
	return entry;
}

static void load_by_id(struct job *job, struct spool *spool)
{
	for (size_t i = 0; i < job->load_count; i++) {
		struct job_entry *entry = new_entry(job, job->load[i]);
		bool more = take(job, spool, entry);
		if (job->read != SPOOL_OK)
			return;
		job->entry_count++;
		if (!more)
			return;
	}
}

static int compare_skips(const void *wanted, const void *other)
{
	uint64_t a = *(const uint64_t *)wanted;
	uint64_t b = ((const struct job_skip *)other)->session;
	return a < b ? -1 : a > b;
}

static struct job_skip *is_skipped(const struct job *job, uint64_t session)
{
	if (job->skip_count == 0)
		return NULL;
	return bsearch(&session, job->skips, job->skip_count, sizeof *job->skips, compare_skips);
}

/* True when the row is not for now. What is passed over is noted, so that the
 * flow knows from where to look again. */
static bool passed_over(struct job *job, const struct spool_place *place, size_t app,
                        uint64_t session)
{
	if (job->scan == SCAN_SESSION)
		return session != job->session;
	if (job->scan == SCAN_APP)
		return app != job->app ||
		       (session == SESSION_NONE ? place->id <= job->after
		                                : is_skipped(job, session) != NULL);
	if (job->skip_app[app]) {
		if (job->skipped_app[app] == INT64_MAX)
			job->skipped_app[app] = place->id;
		return true;
	}
	struct job_skip *skip = session != SESSION_NONE ? is_skipped(job, session) : NULL;
	if (skip == NULL)
		return false;
	if (skip->first == INT64_MAX)
		skip->first = place->id;
	return true;
}

static void scan(struct job *job, struct spool *spool)
{
	struct spool_place place;
	struct record record;
	int64_t at = job->from;
	bool whole = job->build; /* read rows at once while it is likely that they are wanted */
	job->next = job->from;
	for (int rows = 0; rows < JOB_ROWS; rows++) {
		if (job->room_entries == 0)
			return;
		if (whole) {
			job->read = spool_next_record(spool, at, job->to, &record);
			whole = job->read == SPOOL_OK || job->read == SPOOL_END;
			if (job->read == SPOOL_OK)
				place = (struct spool_place){ record.id, record.app, record.session };
		}
		if (!whole)
			job->read = spool_next(spool, at, job->to, &place);
		if (job->read == SPOOL_END) {
			job->read = SPOOL_OK;
			job->end = true;
			return;
		}
		if (job->read == SPOOL_DAMAGED) {
			job->error = *spool_last_error(spool);
			int64_t behind;
			job->read = spool_pass_damage(spool, false, at, job->to, &behind);
			if (job->read != SPOOL_OK && job->read != SPOOL_END)
				return;
			note_damage(job, at, job->read == SPOOL_OK ? behind - 1 : job->to);
			job->end = job->read == SPOOL_END;
			job->read = SPOOL_OK;
			/* At the end of what can be read: what comes is looked for from here. */
			if (job->end)
				return;
			at = job->next = behind;
			continue;
		}
		if (job->read == SPOOL_TOO_BIG) {
			job->read = SPOOL_OK;
			struct job_entry *entry = new_entry(job, place.id);
			entry->state = ENTRY_FAULTY;
			entry->fault = &fault_too_big;
			job->entry_count++;
			job->room_entries--;
			at = job->next = place.id + 1;
			continue;
		}
		if (job->read != SPOOL_OK)
			return;

		size_t app = place_of_app(job->config, place.app);
		uint64_t session = job_session(place.app, place.session);
		if (app == APP_UNKNOWN)
			remember_unknown(job, place.app);
		if (passed_over(job, &place, app, session)) {
			whole = false;
		} else {
			struct job_entry *entry = new_entry(job, place.id);
			entry->app = app;
			entry->session = session;
			bool more = true;
			if (whole)
				more = build(job, spool, &record, entry);
			else if (job->build)
				more = take(job, spool, entry);
			whole = job->build;
			if (job->read != SPOOL_OK || !more)
				return;
			if (entry->state != ENTRY_GONE) {
				job->entry_count++;
				job->room_entries--;
			}
		}
		if (place.id == INT64_MAX) {
			job->end = true;
			return;
		}
		at = place.id + 1;
		job->next = at;
	}
}

/* True while the open file, which the path no longer leads to, still has rows that
 * nobody else could deliver: it has no name any more, or no other took its place. */
static bool is_needed(struct job *job, struct spool *spool, const char *path, bool orphaned)
{
	struct spool_place place;
	bool other = access(path, F_OK) == 0;
	if (!orphaned && other)
		return false;
	enum spool_status left = spool_next(spool, SPOOL_FIRST_ID, INT64_MAX, &place);
	spool_end_read(spool);
	bool needed = left == SPOOL_OK || left == SPOOL_BUSY;
	job->abandoned = needed && other && job->leave;
	return needed && !job->abandoned;
}

/* Where another file stands at the path, the records are there now. */
static bool follow_path(struct job *job, struct spool **spool, const char *path)
{
	bool orphaned = false;
	if (*spool != NULL && (!spool_was_replaced(*spool, &orphaned) ||
	                       is_needed(job, *spool, path, orphaned)))
		return true;
	if (*spool != NULL && job->change_count > 0) {
		/* Closing the books of the old file; what fails here is sent again should
		 * that file ever come back. */
		(void)spool_apply(*spool, job->changes, job->change_count, job->wall);
		job->change_count = 0;
	}
	job->replaced = *spool != NULL;
	/* Closed first: SQLite then removes the -wal, which is not the new file's. */
	spool_close(*spool);
	*spool = spool_open(path, SPOOL_WORK, job->config->max_record + SPOOL_ROW_SLACK, &job->error);
	if (*spool == NULL) {
		job->read = job->error.status;
		return false;
	}
	job->reopened = job->limits = job->pause = true;
	return true;
}

static void touch(struct job *job, struct spool *spool)
{
	struct spool_place place;
	job->read = spool_next(spool, SPOOL_FIRST_ID, INT64_MAX, &place);
	if (job->read == SPOOL_END || job->read == SPOOL_DAMAGED)
		job->read = SPOOL_OK; /* it answers; damage is passed over where it is met */
}

static void work(struct job *job, struct spool **spool, const char *path)
{
	job->settled = job->read = job->error.status = SPOOL_OK;
	for (size_t i = 0; i < APP_PLACES; i++)
		job->skipped_app[i] = INT64_MAX;
	if (!follow_path(job, spool, path))
		return;
	spool_tidy_later(*spool);

	if (job->change_count > 0) {
		job->settled = spool_apply(*spool, job->changes, job->change_count, job->wall);
		if (job->settled != SPOOL_OK)
			job->error = *spool_last_error(*spool);
		else
			job->roomy = spool_has_room(*spool);
	}
	/* Where this fails (a lock, most likely), the next job does it again. */
	if (job->limits && job->settled == SPOOL_OK)
		job->limits = spool_set_limits(*spool, job->config->max_spool,
		                               job->config->max_record,
		                               job->config->when_full == WHEN_FULL_DROP_OLDEST) !=
		              SPOOL_OK;
	if (job->shrink && spool_shrink(*spool, &job->shrink) != SPOOL_OK)
		job->shrink = false; /* a producer is at work, most likely: another time */
	if (job->sweep && job->settled == SPOOL_OK) {
		const struct spool_keep keep = { job->config->keep_dead, job->config->keep_delivered };
		/* Where it fails, it is for the next time: nobody waits for it. */
		job->has_swept = spool_sweep(*spool, &keep, job->wall, &job->swept) == SPOOL_OK;
		if (job->has_swept && job->swept.dead + job->swept.receipts > 0)
			job->roomy = job->roomy || spool_has_room(*spool);
	}
	if (job->metrics != NULL)
		metrics_file_write(job->metrics, job->config, *spool);
	if (job->load_count == 0 && job->scan == SCAN_NOTHING && !job->touch &&
	    !job->figures && !job->pause)
		return;
	job->read = spool_begin_read(*spool);
	if (job->read == SPOOL_OK) {
		if (job->pause)
			job->read = pause_read(*spool, &job->paused_at);
		job->pause = job->read != SPOOL_OK;
		if (job->touch && job->read == SPOOL_OK)
			touch(job, *spool);
		/* Where somebody took the ledger's row away, the records still go out. */
		if (job->figures)
			job->has_ledger = spool_read_counters(*spool, &job->ledger) == SPOOL_OK;
		if (job->read == SPOOL_OK)
			load_by_id(job, *spool);
		if (job->read == SPOOL_OK && job->scan != SCAN_NOTHING && job->need == 0)
			scan(job, *spool);
		if (job->read != SPOOL_OK && job->error.status == SPOOL_OK)
			job->error = *spool_last_error(*spool);
		spool_end_read(*spool);
	} else {
		job->error = *spool_last_error(*spool);
	}
}

/* A connection that may only read stays so. It may have met the file, or the -shm that a
 * producer was about to make, a moment before the group got its right to write. */
static void open_anew(struct job *job, struct spool **spool, const char *path)
{
	struct spool_error unheard; /* the next job says it */
	if (spool_was_replaced(*spool, NULL))
		return; /* by a file of which nothing is known yet: also for the next */
	spool_close(*spool);
	*spool = spool_open(path, SPOOL_WORK, job->config->max_record + SPOOL_ROW_SLACK, &unheard);
}

void job_run(struct job *job, struct spool **spool, const char *path)
{
	work(job, spool, path);
	if (job->drafted)
		secret_wipe(job->draft, sizeof job->draft);
	job->drafted = false;
	if (job->settled == SPOOL_DENIED)
		open_anew(job, spool, path);
}
