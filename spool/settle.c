/* Settling: the fate of many records in one short transaction; see spool.h. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spool/internal.h"
#include "spool/manage.h"

#define RUN_MAX 128
#define KEY_MEMORY_MS (24LL * 3600 * 1000)

struct tally {
	int64_t delivered, dead, discarded, purged, out_bytes;
};

static sqlite3_stmt *statement_for_row(struct spool *spool, enum query query,
                                       const struct spool_change *change)
{
	sqlite3_stmt *bound = spool_statement(spool, query);
	if (bound != NULL) {
		(void)sqlite3_bind_int64(bound, 1, change->id);
		(void)sqlite3_bind_text(bound, 2, change->uuid, -1, SQLITE_STATIC);
	}
	return bound;
}

static enum spool_status run_for_row(struct spool *spool, enum query query,
                                     const struct spool_change *change)
{
	sqlite3_stmt *bound = statement_for_row(spool, query, change);
	return bound != NULL ? spool_finish(spool, bound) : spool->error.status;
}

/* What is only convenient, or only for the books, must not keep a fate from being
 * written down: where the file's tables were tampered with, it is left out. A
 * single statement that is refused leaves the transaction as it was. */
static enum spool_status forgive(enum spool_status status)
{
	return status == SPOOL_REFUSED ? SPOOL_OK : status;
}

static enum spool_status forget_attempts(struct spool *spool, int64_t id)
{
	sqlite3_stmt *bound = spool_statement(spool, FORGET_ATTEMPTS);
	if (bound == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(bound, 1, id);
	return spool_finish(spool, bound);
}

/* A record is delivered: what else is known of it, before its row goes. */
static enum spool_status note_delivered(struct spool *spool, const struct spool_change *change,
                                        int64_t wall)
{
	enum spool_status status = SPOOL_OK;
	if (change->receipt_at > 0)
		status = forgive(spool_add_receipt(spool, change));
	if (status == SPOOL_OK && change->keyed) {
		sqlite3_stmt *remember = statement_for_row(spool, REMEMBER_KEY, change);
		status = spool->error.status;
		if (remember != NULL) {
			(void)sqlite3_bind_int64(remember, 3, wall);
			status = spool_finish(spool, remember);
		}
		status = forgive(status);
	}
	if (status == SPOOL_OK && change->attempts > 0)
		status = forgive(forget_attempts(spool, change->id));
	return status;
}

static enum spool_status remove_one(struct spool *spool, struct spool_change *change)
{
	enum spool_status status = run_for_row(spool, REMOVE, change);
	change->refused = status == SPOOL_REFUSED;
	change->missed = status == SPOOL_OK && sqlite3_changes(spool->db) == 0;
	return forgive(status);
}

static int compare_ids(const void *left, const void *right)
{
	int64_t a = (*(struct spool_change *const *)left)->id;
	int64_t b = (*(struct spool_change *const *)right)->id;
	return a < b ? -1 : a > b;
}

/* Asked of each row of a run's range as it is about to go: ids alone do not tell, since a
 * producer may have put another row in its place. */
static void is_delivered(sqlite3_context *context, int count, sqlite3_value **values)
{
	const struct spool *spool = sqlite3_user_data(context);
	struct spool_change one = { .id = sqlite3_value_int64(values[0]) }, *wanted = &one;
	struct spool_change **found =
		bsearch(&wanted, spool->run, spool->run_count, sizeof *spool->run, compare_ids);
	(void)count;
	/* not covered: a row out of its place on a damaged page, where SQLite looks past the range */
	bool is = found != NULL &&
	          ((*found)->uuid[0] == '\0' ||
	           (sqlite3_value_bytes(values[1]) == RECORD_UUID_SIZE &&
	            memcmp(sqlite3_value_blob(values[1]), (*found)->uuid, RECORD_UUID_SIZE) == 0));
	if (is)
		(*found)->missed = false;
	sqlite3_result_int(context, is);
}

int spool_know_delivered(struct spool *spool)
{
	return sqlite3_create_function_v2(spool->db, SPOOL_IS_DELIVERED, 2,
	                                  SQLITE_UTF8 | SQLITE_DIRECTONLY, spool, is_delivered,
	                                  NULL, NULL, NULL);
}

/* All at once, which costs a fraction; one by one what the tables keep from leaving so, or
 * what is not found so. */
static enum spool_status remove_run(struct spool *spool, struct spool_change **run,
                                    size_t count, struct tally *tally)
{
	for (size_t i = 0; i < count; i++) {
		run[i]->missed = true;
		run[i]->refused = false;
	}
	spool->run = run;
	spool->run_count = count;
	sqlite3_stmt *bound = spool_statement(spool, REMOVE_RUN);
	enum spool_status status = spool->error.status;
	if (bound != NULL) {
		(void)sqlite3_bind_int64(bound, 1, run[0]->id);
		(void)sqlite3_bind_int64(bound, 2, run[count - 1]->id);
		status = spool_finish(spool, bound);
	}
	bool failed = status == SPOOL_REFUSED;
	status = forgive(status);
	for (size_t i = 0; status == SPOOL_OK && i < count; i++) {
		if (failed || run[i]->missed)
			status = remove_one(spool, run[i]);
		if (run[i]->missed || run[i]->refused)
			continue;
		tally->delivered++;
		tally->out_bytes += run[i]->bytes;
	}
	return status;
}

/* Removes the rows of all that were delivered. */
static enum spool_status remove_delivered(struct spool *spool, struct spool_change *changes,
                                          size_t count, struct tally *tally)
{
	struct spool_change *some[RUN_MAX] = { NULL };
	enum spool_status status = SPOOL_OK;
	for (size_t at = 0; status == SPOOL_OK && at < count;) {
		size_t taken = 0;
		for (; at < count && taken < RUN_MAX; at++)
			if (changes[at].kind == CHANGE_DELIVERED)
				some[taken++] = &changes[at];
		qsort(some, taken, sizeof some[0], compare_ids);
		for (size_t first = 0, end; status == SPOOL_OK && first < taken; first = end) {
			for (end = first + 1; end < taken && some[end]->id == some[end - 1]->id + 1; end++) {
			}
			status = remove_run(spool, some + first, end - first, tally);
		}
	}
	return status;
}

static enum spool_status bury(struct spool *spool, enum query query,
                              const struct spool_change *change, const char *reason,
                              int64_t wall)
{
	sqlite3_stmt *bound = statement_for_row(spool, query, change);
	if (bound == NULL)
		return spool->error.status;
	(void)sqlite3_bind_text(bound, 3, reason, -1, SQLITE_STATIC);
	if (change->http_status != 0)
		(void)sqlite3_bind_int(bound, 4, change->http_status);
	else
		(void)sqlite3_bind_null(bound, 4);
	(void)sqlite3_bind_int64(bound, 5, change->attempts);
	(void)sqlite3_bind_int64(bound, 6, wall);
	if (change->server_said != NULL)
		(void)sqlite3_bind_blob64(bound, 7, change->server_said, change->server_said_size,
		                          SQLITE_STATIC);
	else
		(void)sqlite3_bind_null(bound, 7);
	return spool_finish(spool, bound);
}

/* Reads the row that a change is about: what it weighs, and whether it is there and
 * the one that is meant. */
static enum spool_status weigh(struct spool *spool, enum query query,
                               const struct spool_change *change, int64_t *bytes, bool *there)
{
	struct record record;
	sqlite3_stmt *row;
	enum spool_status status = spool_load_row(spool, query, change->id, &record, &row);
	*there = status == SPOOL_OK && (change->uuid[0] == '\0' ||
	                                (record.uuid.size == RECORD_UUID_SIZE &&
	                                 memcmp(record.uuid.bytes, change->uuid,
	                                        RECORD_UUID_SIZE) == 0));
	*bytes = 0;
	if (status == SPOOL_OK) {
		*bytes = record_bytes(&record);
		(void)sqlite3_reset(row);
	}
	return status == SPOOL_END ? SPOOL_OK : status;
}

static enum spool_status apply_dead(struct spool *spool, struct spool_change *change,
                                    int64_t wall, struct tally *tally)
{
	char reason[256];
	int64_t bytes;
	change->refused = false;
	(void)snprintf(reason, sizeof reason, "%s: %s", change->code, change->sentence);

	enum spool_status status = bury(spool, BURY, change, reason, wall);
	if (status == SPOOL_OK && sqlite3_changes(spool->db) == 0)
		status = bury(spool, BURY_UNDER_NEW_ID, change, reason, wall);
	bool buried = status == SPOOL_OK && sqlite3_changes(spool->db) == 1;
	status = forgive(status);
	if (buried)
		status = forgive(run_for_row(spool, HOLD_KEY, change));
	if (buried && status == SPOOL_OK)
		status = forgive(forget_attempts(spool, change->id));
	if (buried && status == SPOOL_OK)
		status = run_for_row(spool, REMOVE, change);
	if (buried && status == SPOOL_REFUSED) {
		/* Not in two places at once. */
		buried = false;
		status = forgive(run_for_row(spool, REMOVE_DEAD, change));
	}
	if (status == SPOOL_OK && !buried)
		status = weigh(spool, LOAD, change, &bytes, &change->refused);
	change->missed = status == SPOOL_OK && !buried && !change->refused;
	if (buried && status == SPOOL_OK)
		tally->dead++;
	return status;
}

static enum spool_status apply_taken(struct spool *spool, struct spool_change *change,
                                     struct tally *tally)
{
	int64_t bytes;
	bool there;
	enum spool_status status = weigh(spool, change->dead ? LOAD_DEAD : LOAD, change, &bytes,
	                                 &there);
	change->refused = false;
	change->missed = status == SPOOL_OK && !there;
	if (status != SPOOL_OK || !there)
		return status;
	if (change->dead)
		status = forgive(run_for_row(spool, RELEASE_KEY, change));
	else if (change->kind == CHANGE_PURGED)
		status = forgive(run_for_row(spool, RELEASE_WAITING_KEY, change));
	if (status == SPOOL_OK)
		status = forgive(forget_attempts(spool, change->id));
	if (status == SPOOL_OK)
		status = run_for_row(spool, change->dead ? REMOVE_DEAD : REMOVE, change);
	change->refused = status == SPOOL_REFUSED;
	if (status != SPOOL_OK)
		return forgive(status);
	if (change->kind == CHANGE_PURGED)
		tally->purged++;
	else
		tally->discarded++;
	tally->dead -= change->dead;
	tally->out_bytes += bytes;
	return SPOOL_OK;
}

static enum spool_status apply_expired(struct spool *spool, struct spool_change *change,
                                       int64_t wall, struct tally *tally)
{
	int64_t before = tally->out_bytes;
	enum spool_status status = spool_time_dead(spool, wall);
	change->taken = 0;
	while (status == SPOOL_OK && change->taken < SWEEP_ROWS &&
	       tally->out_bytes - before < SWEEP_BYTES) {
		struct spool_change one = { .kind = CHANGE_DISCARDED, .dead = true };
		status = spool_next_expired(spool, change->before, &one.id);
		if (status != SPOOL_OK)
			return status == SPOOL_END ? SPOOL_OK : status;
		status = apply_taken(spool, &one, tally);
		if (one.refused || one.missed)
			return status; /* somebody changed the tables: not again and again */
		change->taken++;
	}
	return status;
}

static enum spool_status apply_revived(struct spool *spool, struct spool_change *change,
                                       struct tally *tally)
{
	bool revived;
	int64_t bytes;
	enum spool_status status = run_for_row(spool, REVIVE, change);
	revived = status == SPOOL_OK && sqlite3_changes(spool->db) == 1;
	change->missed = change->refused = false;
	if (!revived) {
		status = forgive(status);
		if (status == SPOOL_OK)
			status = weigh(spool, LOAD_DEAD, change, &bytes, &change->refused);
		change->missed = status == SPOOL_OK && !change->refused;
		return status;
	}
	status = forgive(run_for_row(spool, RELEASE_KEY, change));
	if (status == SPOOL_OK)
		status = forgive(forget_attempts(spool, change->id));
	if (status == SPOOL_OK)
		status = run_for_row(spool, REMOVE_DEAD, change);
	if (status == SPOOL_REFUSED) {
		/* Not in two places at once. */
		change->refused = true;
		return run_for_row(spool, REMOVE, change);
	}
	if (status == SPOOL_OK)
		tally->dead--;
	return status;
}

static enum spool_status apply_one(struct spool *spool, struct spool_change *change,
                                   int64_t wall, struct tally *tally)
{
	sqlite3_stmt *bound;
	switch (change->kind) {
	case CHANGE_DELIVERED:
		return note_delivered(spool, change, wall);
	case CHANGE_DEAD:
		return apply_dead(spool, change, wall, tally);
	case CHANGE_REVIVED:
		return apply_revived(spool, change, tally);
	case CHANGE_DISCARDED:
	case CHANGE_PURGED:
		return apply_taken(spool, change, tally);
	case CHANGE_EXPIRED:
		return apply_expired(spool, change, wall, tally);
	case CHANGE_FORGOTTEN:
		return spool_forget_receipts(spool, change);
	case CHANGE_ATTEMPTS:
		bound = spool_statement(spool, SET_ATTEMPTS);
		if (bound == NULL)
			return spool->error.status;
		(void)sqlite3_bind_int64(bound, 1, change->id);
		(void)sqlite3_bind_int64(bound, 2, change->attempts);
		return spool_finish(spool, bound);
	case CHANGE_NOTE:
		bound = spool_statement(spool, SET_NOTE);
		if (bound == NULL)
			return spool->error.status;
		(void)sqlite3_bind_text(bound, 1, change->name, -1, SQLITE_STATIC);
		(void)sqlite3_bind_text(bound, 2, change->value, -1, SQLITE_STATIC);
		return spool_finish(spool, bound);
	}
	return SPOOL_OK;
}

/* Copies the WAL back when it has grown, by the rules that keep clear of the
 * WAL-reset fault (https://sqlite.org/wal.html#walresetbug): only after a commit
 * of our own, so that frames are surely waiting; never twice for the same
 * frames; PASSIVE only, which makes no producer wait. */
static void checkpoint(struct spool *spool)
{
	int frames = 0, copied = 0;
	int rc = sqlite3_wal_checkpoint_v2(spool->db, "main", SQLITE_CHECKPOINT_PASSIVE, &frames,
	                                   &copied);
	/* A reader that holds old frames makes this copy less than all: it is not a
	 * failure, and is tried again when as many more have come. */
	spool->checkpoint_frames = spool->wal_frames + CHECKPOINT_FRAMES;
	if (rc == SQLITE_OK && copied == frames) {
		spool->checkpoint_frames = CHECKPOINT_FRAMES;
		spool_take_ballast(spool);
	}
	spool->wal_frames = 0;
}

void spool_checkpoint_if_due(struct spool *spool)
{
	if (!spool->wrote)
		return; /* others may have copied all that there is */
	/* Somebody has copied all back since that was put off, and the -wal began anew. */
	if (spool->wal_frames < CHECKPOINT_FRAMES && spool->checkpoint_frames > CHECKPOINT_FRAMES &&
	    spool->checkpoint_frames != INT32_MAX)
		spool->checkpoint_frames = CHECKPOINT_FRAMES;
	/* Not for ever, nor where room is short: then what a producer writes into the -wal first
	 * may be room that there is not. */
	bool later = spool->tidies_later && spool->ballast && spool->checkpoint_frames > 0 &&
	             spool->wal_frames - CHECKPOINT_FRAMES / 2 < spool->checkpoint_frames;
	if (!later && spool->wal_frames >= spool->checkpoint_frames)
		checkpoint(spool);
}

static enum spool_status sweep_keys(struct spool *spool, int64_t wall)
{
	if (wall - spool->keys_swept_at < KEY_MEMORY_MS / 24 &&
	    wall >= spool->keys_swept_at)
		return SPOOL_OK;
	sqlite3_stmt *bound = spool_statement(spool, FORGET_OLD_KEYS);
	if (bound == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(bound, 1, wall - KEY_MEMORY_MS);
	spool->keys_swept_at = wall;
	return spool_finish(spool, bound);
}

static enum spool_status count_fates(struct spool *spool, const struct tally *tally)
{
	sqlite3_stmt *bound = spool_statement(spool, COUNT_FATES);
	if (bound == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(bound, 1, tally->delivered);
	(void)sqlite3_bind_int64(bound, 2, tally->dead);
	(void)sqlite3_bind_int64(bound, 3, tally->out_bytes);
	(void)sqlite3_bind_int64(bound, 4, tally->discarded);
	(void)sqlite3_bind_int64(bound, 5, tally->purged);
	return spool_finish(spool, bound);
}

/* Ends a transaction: all of it is done, or none. */
static enum spool_status end_write(struct spool *spool, enum spool_status status)
{
	if (status == SPOOL_OK)
		status = spool_run(spool, COMMIT);
	if (status == SPOOL_OK) {
		spool_checkpoint_if_due(spool);
	} else if (!sqlite3_get_autocommit(spool->db)) {
		struct spool_error first = spool->error;
		(void)spool_run(spool, ROLLBACK);
		spool->error = first;
	}
	return status;
}

enum extent {
	WHOLE,
	BARE /* neither counted, nor is a delivered row's key remembered */
};

static enum spool_status apply_all(struct spool *spool, struct spool_change *changes,
                                   size_t count, int64_t wall, enum extent extent,
                                   struct tally *tally)
{
	bool keyed = false;
	enum spool_status status = spool_begin(spool, BEGIN_WRITE);
	if (status != SPOOL_OK)
		return status;
	/* A record that is too large to be read must still leave, or be moved aside. */
	(void)sqlite3_limit(spool->db, SQLITE_LIMIT_LENGTH, INT_MAX);
	for (size_t i = 0; status == SPOOL_OK && i < count; i++) {
		changes[i].damaged = false;
		if (extent == BARE && changes[i].kind == CHANGE_DELIVERED)
			continue;
		status = apply_one(spool, &changes[i], wall, tally);
		if (changes[i].kind != CHANGE_DELIVERED && changes[i].kind != CHANGE_DEAD)
			status = forgive(status);
		keyed = keyed || changes[i].keyed;
	}
	if (status == SPOOL_OK)
		status = remove_delivered(spool, changes, count, tally);
	if (status == SPOOL_OK && keyed)
		status = forgive(sweep_keys(spool, wall));
	if (status == SPOOL_OK && extent == WHOLE &&
	    (tally->delivered != 0 || tally->dead != 0 || tally->discarded != 0 || tally->purged != 0))
		status = forgive(count_fates(spool, tally));
	(void)sqlite3_limit(spool->db, SQLITE_LIMIT_LENGTH, spool->row_limit);
	return end_write(spool, status);
}

/* So that neither a restart nor a salvage sends it again. Where this fails, they do. */
static void mark_delivered(struct spool *spool, const struct spool_change *change)
{
	struct spool_error first = spool->error;
	sqlite3_stmt *bound = NULL;
	if (spool_begin(spool, BEGIN_WRITE) == SPOOL_OK) {
		enum spool_status status = SPOOL_DAMAGED;
		bound = spool_statement(spool, SET_ATTEMPTS);
		if (bound != NULL) {
			struct text uuid = { change->uuid, strlen(change->uuid) };
			(void)sqlite3_bind_int64(bound, 1, change->id);
			(void)sqlite3_bind_int64(bound, 2, record_delivered_mark(uuid));
			status = spool_finish(spool, bound);
		}
		(void)end_write(spool, status);
	}
	spool->error = first;
}

/* One change alone meets a damaged page. Perhaps only what goes with it stands there: its
 * key, its attempts, the counters. */
static enum spool_status apply_bare(struct spool *spool, struct spool_change *change,
                                    int64_t wall)
{
	struct tally tally = { .delivered = 0 };
	enum spool_status status = apply_all(spool, change, 1, wall, BARE, &tally);
	if (status == SPOOL_DAMAGED) {
		change->missed = false;
		change->refused = change->damaged = true;
		if (change->kind == CHANGE_DELIVERED)
			mark_delivered(spool, change);
		return SPOOL_OK;
	}
	if (status == SPOOL_OK) {
		status = spool_begin(spool, BEGIN_WRITE);
		if (status == SPOOL_OK)
			status = end_write(spool, forgive(count_fates(spool, &tally)));
	}
	return status == SPOOL_DAMAGED ? SPOOL_OK : status;
}

/* Where the file is damaged, one change must not keep back the others. A transaction that
 * has met a damaged page can only be given up as a whole, hence in ever smaller ones. */
static enum spool_status apply_around(struct spool *spool, struct spool_change *changes,
                                      size_t count, int64_t wall)
{
	struct tally tally = { .delivered = 0 };
	enum spool_status status = apply_all(spool, changes, count, wall, WHOLE, &tally);
	if (status != SPOOL_DAMAGED)
		return status;
	if (count == 1)
		return apply_bare(spool, changes, wall);
	status = apply_around(spool, changes, count / 2, wall);
	if (status == SPOOL_OK)
		status = apply_around(spool, changes + count / 2, count - count / 2, wall);
	return status;
}

enum spool_status spool_apply(struct spool *spool, struct spool_change *changes,
                              size_t count, int64_t wall)
{
	/* A record that moves from one table to the other, or whose time is over, must not stay
	 * behind in the file's free pages, where a later purge would not find it. */
	bool moves = false;
	for (size_t i = 0; i < count; i++)
		moves = moves || changes[i].kind == CHANGE_DEAD || changes[i].kind == CHANGE_REVIVED ||
		        changes[i].kind == CHANGE_EXPIRED;
	if (moves && spool_overwrite(spool, true) != SPOOL_OK)
		return spool->error.status;
	enum spool_status status = apply_around(spool, changes, count, wall);
	if (status == SPOOL_FULL && spool_drop_ballast(spool)) {
		/* Copied back at once, before producers have filled that room, too: then the -wal is
		 * used from its beginning again. */
		if (spool->checkpoint_frames != INT32_MAX)
			spool->checkpoint_frames = 0;
		status = apply_around(spool, changes, count, wall);
	}
	struct spool_error error = spool->error;
	if (moves)
		(void)spool_overwrite(spool, false);
	spool->error = error;
	return status;
}

void spool_tidy_later(struct spool *spool)
{
	spool->tidies_later = true;
}

/* Others may have copied all back since the last commit of our own: one more, of a note that
 * is another each time, makes sure that there is something to copy. */
void spool_tidy(struct spool *spool)
{
	char when[48];
	if (spool == NULL || !spool->tidies_later || spool->wal_frames == 0 ||
	    spool->wal_frames < spool->checkpoint_frames)
		return;
	struct timespec now = spool_deadline(0);
	(void)snprintf(when, sizeof when, "%lld.%09ld", (long long)now.tv_sec, now.tv_nsec);
	struct spool_change note = { .kind = CHANGE_NOTE, .name = "tidied", .value = when };
	spool->tidies_later = false;
	(void)spool_apply(spool, &note, 1, 0);
	spool->tidies_later = true;
}

/* --- Giving space back --------------------------------------------------- */

bool spool_has_room(struct spool *spool)
{
	int64_t count;
	return spool_one_number(spool, FREE_PAGES, 0, &count) == SPOOL_OK && count > SHRINK_KEEP;
}

enum spool_status spool_shrink(struct spool *spool, bool *more)
{
	int64_t before, after = 0;
	*more = false;
	enum spool_status status = spool_one_number(spool, FREE_PAGES, 0, &before);
	if (status != SPOOL_OK || before <= SHRINK_KEEP)
		return status;
	sqlite3_stmt *step = spool_statement(spool, SHRINK);
	if (step == NULL)
		return spool->error.status;
	/* A row for each page: it is done only when the last one was stepped over. */
	int rc;
	spool->wrote = false;
	while ((rc = sqlite3_step(step)) == SQLITE_ROW) {
	}
	(void)sqlite3_reset(step);
	if (rc != SQLITE_DONE)
		return spool_fail(spool, rc);
	status = spool_one_number(spool, FREE_PAGES, 0, &after);
	/* A file made without auto_vacuum keeps its pages. */
	*more = status == SPOOL_OK && after < before && after > SHRINK_KEEP;
	/* The file becomes shorter with the checkpoint. */
	if (*more)
		spool_checkpoint_if_due(spool);
	else if (spool->wrote)
		checkpoint(spool);
	return status;
}
