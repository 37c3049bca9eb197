/* Each call of spool.h and manage.h, with each call that it makes to SQLite, to the system
 * and for memory failing in turn, once and from then on, until none is left to fail.
 *
 * Every time: it comes back, says what happened where it says that it failed, has then done
 * nothing, and does it all when it is called again; no record is lost or in two places.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>

#include "spool/internal.h"
#include "spool/manage.h"
#include "spool/salvage.h"
#include "tests/unit/faults.h"

#define WALL INT64_C(1700000000000)
#define LIMIT (4 << 20)
#define WAITING 9 /* records in the spool that each attempt begins with */
#define DEAD 4

/* A failure that passes; one of the file, whose records then may be refused one by one. */
static const struct fault passing[] = {
	{ .name = "an I/O error", .sqlite = SQLITE_IOERR, .system = EIO },
	{ .name = "a full disk", .sqlite = SQLITE_FULL, .system = ENOSPC },
	{ .name = "no memory", .memory = true },
};
/* And what else opening may meet. */
static const struct fault refusing[] = {
	{ .name = "no permission", .sqlite = SQLITE_READONLY, .system = EACCES },
	{ .name = "no way to it", .sqlite = SQLITE_CANTOPEN, .system = ENOTDIR },
	{ .name = "a lock and a quota", .sqlite = SQLITE_BUSY, .system = EDQUOT },
	{ .name = "no such file", .sqlite = SQLITE_PERM, .system = ENOENT },
};
static const struct fault lasting[] = {
	{ .name = "damage", .sqlite = SQLITE_CORRUPT },
	{ .name = "a table that is gone", .sqlite = SQLITE_ERROR },
	{ .name = "a row too large", .sqlite = SQLITE_TOOBIG },
};
#define COUNT(array) (sizeof(array) / sizeof(array)[0])

struct place {
	char folder[64], path[128];
	struct spool *spool;
	struct spool_error error; /* of opening */
	void *begin;              /* the file that each attempt begins with */
	size_t begin_size;
	bool passing;             /* what fails now passes: results must be right, or an error */
	bool complete;            /* the attempt's own results were */
};

struct operation {
	const char *name;
	enum spool_status (*run)(struct place *place);
	const char *may_go; /* which ids may leave the spool; NULL: none */
	bool opens;         /* it opens the spool itself */
	bool creates;       /* and there is none before */
	bool once;          /* on one connection: to repeat it is to open again */
	int stride;         /* each so-many-th call fails; 0: each */
};

static void execute(const char *path, const char *sql)
{
	sqlite3 *db = NULL;
	char *error = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
		fail_msg("%s: %s", sql, error);
	assert_int_equal(sqlite3_close(db), SQLITE_OK);
}

/* The first column of the first row as text, to be freed; by the spool's own connection
 * where there is one, for another has to read the schema first. */
static char *ask(const struct place *place, const char *sql)
{
	sqlite3 *db = NULL;
	sqlite3_stmt *row = NULL;
	if (place->spool != NULL)
		db = place->spool->db;
	else
		assert_int_equal(sqlite3_open(place->path, &db), SQLITE_OK);
	if (sqlite3_prepare_v2(db, sql, -1, &row, NULL) != SQLITE_OK || sqlite3_step(row) != SQLITE_ROW)
		fail_msg("%s: %s", sql, sqlite3_errmsg(db));
	const char *text = (const char *)sqlite3_column_text(row, 0);
	char *copy = strdup(text != NULL ? text : "");
	(void)sqlite3_finalize(row);
	if (place->spool == NULL)
		assert_int_equal(sqlite3_close(db), SQLITE_OK);
	return copy;
}

/* All that a spool holds, but for the one row that the agent writes when it is opened. */
static char *contents(const struct place *place)
{
	return ask(place,
		"SELECT group_concat(x, char(10)) FROM (SELECT 'waiting ' || id || ' ' || uuid || ' ' || "
		"ifnull(key, '') || request_body AS x FROM interactions UNION ALL "
		"SELECT 'dead ' || id || ' ' || uuid || ' ' || ifnull(key, '') || request_body || ' ' || "
		"reason || died_at || ifnull(server_said, '') FROM dead_letters UNION ALL "
		"SELECT 'key ' || key || ' ' || ifnull(delivered_at, 'held') FROM known_keys UNION ALL "
		"SELECT 'attempts ' || id || ' ' || attempts FROM attempts UNION ALL "
		"SELECT 'receipt ' || delivered_at || ' ' || id FROM receipts UNION ALL "
		"SELECT 'imported ' || uuid FROM imported UNION ALL "
		"SELECT 'note ' || name || value FROM agent_state UNION ALL "
		"SELECT 'ledger ' || accepted || ' ' || delivered || ' ' || dead || ' ' || discarded || ' ' "
		"|| purged || ' ' || removed || ' ' || in_bytes || ' ' || out_bytes || ' ' || max_spool "
		"FROM ledger UNION ALL SELECT 'schema ' || user_version || ' ' || (SELECT count(*) || ' ' "
		"|| sum(length(sql)) FROM sqlite_master) FROM pragma_user_version)");
}

static void remove_files(const struct place *place)
{
	DIR *folder = opendir(place->folder);
	const struct dirent *entry;
	assert_non_null(folder);
	while ((entry = readdir(folder)) != NULL) {
		char name[400];
		(void)snprintf(name, sizeof name, "%s/%s", place->folder, entry->d_name);
		/* The ballast may stay: to make it takes longer than all else. */
		if (strstr(name, "ballast") == NULL)
			(void)unlink(name);
	}
	(void)closedir(folder);
}

static void write_file(const char *path, const void *bytes, size_t size)
{
	FILE *file = fopen(path, "we");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(path, 0660), 0);
}

static void keep_as_beginning(struct place *place)
{
	struct stat about;
	spool_close(place->spool);
	place->spool = NULL;
	free(place->begin);
	FILE *file = fopen(place->path, "re");
	assert_non_null(file);
	assert_int_equal(fstat(fileno(file), &about), 0);
	place->begin_size = (size_t)about.st_size;
	place->begin = malloc(place->begin_size);
	assert_non_null(place->begin);
	assert_int_equal(fread(place->begin, 1, place->begin_size, file), place->begin_size);
	assert_int_equal(fclose(file), 0);
}

static void begin_again(struct place *place, bool open)
{
	spool_close(place->spool);
	place->spool = NULL;
	remove_files(place);
	write_file(place->path, place->begin, place->begin_size);
	if (open)
		place->spool = spool_open(place->path, SPOOL_WORK, LIMIT, &place->error);
	if (open && place->spool == NULL)
		fail_msg("%s", place->error.sentence);
}

static void fill(struct place *place)
{
	struct spool_change changes[] = {
		{ .kind = CHANGE_DELIVERED, .id = 1, .receipt_at = WALL - 9000, .request_at = 5 },
		{ .kind = CHANGE_DELIVERED, .id = 2, .receipt_at = WALL - 2000, .request_at = -1 },
		{ .kind = CHANGE_DEAD, .id = 3, .code = "rejected", .sentence = "the first" },
		{ .kind = CHANGE_DEAD, .id = 6, .code = "rejected", .sentence = "the second",
		  .server_said = "no", .server_said_size = 2, .http_status = 400 },
		{ .kind = CHANGE_DEAD, .id = 9, .code = "other", .sentence = "the third" },
		{ .kind = CHANGE_DEAD, .id = 12, .code = "a-third", .sentence = "the fourth" },
		{ .kind = CHANGE_ATTEMPTS, .id = 5, .attempts = 2 },
		{ .kind = CHANGE_ATTEMPTS, .id = 9, .attempts = 2 },
		{ .kind = CHANGE_NOTE, .name = "state", .value = "up" },
	};
	/* The first four are older. */
	assert_int_equal(spool_apply(place->spool, changes, 4, WALL - 100000), SPOOL_OK);
	assert_int_equal(spool_apply(place->spool, changes + 4, COUNT(changes) - 4, WALL - 1000),
	                 SPOOL_OK);
}

static int open_place(void **state)
{
	struct place *place = calloc(1, sizeof *place);
	const char *base = getenv("TMPDIR");
	if (place == NULL)
		return -1;
	/* In memory where there is room: it is opened and written some ten thousand times. */
	if (base == NULL)
		base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	(void)snprintf(place->folder, sizeof place->folder, "%.40s/spool-XXXXXX", base);
	if (mkdtemp(place->folder) == NULL)
		return -1;
	(void)snprintf(place->path, sizeof place->path, "%s/spool.db", place->folder);
	place->spool = spool_open(place->path, SPOOL_CREATE, LIMIT, &place->error);
	if (place->spool == NULL)
		return -1;
	/* Ids 1 to 15; each third has a key. */
	execute(place->path, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 15) "
	        "INSERT INTO interactions (model_id, request_body, response_body, session, email, key) "
	        "SELECT 'm', 'body ' || i, '{}', 's' || (i % 4), 'a@b', "
	        "CASE WHEN i % 3 = 0 THEN 'k' || i END FROM n");
	fill(place);
	keep_as_beginning(place);
	*state = place;
	return 0;
}

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *walk)
{
	(void)about;
	(void)kind;
	(void)walk;
	return remove(path);
}

static int close_place(void **state)
{
	struct place *place = *state;
	spool_close(place->spool);
	(void)nftw(place->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(place->begin);
	free(place);
	return 0;
}

/* --- The loop ----------------------------------------------------------- */

/* No record is lost, nor in two places, whatever the books say. */
static void check_records(const struct place *place, const struct operation *operation,
                          const char *said)
{
	char sql[600];
	(void)snprintf(sql, sizeof sql,
	               "SELECT (SELECT count(*) FROM pragma_quick_check WHERE quick_check <> 'ok') "
	               "|| ' ' || (SELECT count(*) FROM interactions JOIN dead_letters USING (uuid)) "
	               "|| ' ' || (SELECT count(*) FROM (VALUES (3), (4), (5), (6), (7), (8), (9), (10), "
	               "(11), (12), (13), (14), (15)) WHERE column1 NOT IN (SELECT id FROM interactions "
	               "UNION ALL SELECT id FROM dead_letters) AND NOT column1 IN (%s))",
	               operation->may_go != NULL ? operation->may_go : "0");
	char *found = ask(place, sql);
	if (strcmp(found, "0 0 0") != 0)
		fail_msg("%s: damaged, doubled, lost: %s", said, found);
	free(found);
}

/* True when a call was met that failed. */
static bool attempt(struct place *place, const struct operation *operation,
                    const struct fault *fault, int calls, bool for_ever, const char *before,
                    const char *after)
{
	char said[200];
	begin_again(place, !operation->opens);
	if (operation->creates)
		remove_files(place);
	place->complete = true;
	fail_after(fault, calls, for_ever);
	enum spool_status status = operation->run(place);
	bool struck = stop_failing();
	(void)snprintf(said, sizeof said, "%s: %s%s at call %d, %s", operation->name, fault->name,
	               for_ever ? " from then on" : "", calls + 1, faults.where);
	const struct spool_error *error =
		operation->opens ? &place->error : spool_last_error(place->spool);
	if (status != SPOOL_OK && (error->status != status || error->sentence[0] == '\0'))
		fail_msg("%s: status %d, but the last error is %d, '%s'", said, status, error->status,
		         error->sentence);
	if (status != SPOOL_OK && !struck)
		fail_msg("%s: fails by itself: %s", said, error->sentence);
	if (status == SPOOL_OK && place->passing && !place->complete)
		fail_msg("%s: succeeds with less than all", said);
	if (place->passing && (status == SPOOL_FOREIGN || status == SPOOL_NEWER))
		fail_msg("%s: that passes, and yet it is said of the file: %s", said, error->sentence);
	if (!place->passing)
		check_records(place, operation, said);
	if (place->passing && (!operation->creates || status == SPOOL_OK)) {
		char *left = contents(place);
		/* All may be done but the end, where that is what failed. */
		if (strcmp(left, before) != 0 && strcmp(left, after) != 0)
			fail_msg("%s: has left\n%s", said, left);
		free(left);
	}
	if (status != SPOOL_OK && operation->once) {
		spool_close(place->spool);
		place->spool = spool_open(place->path, SPOOL_WORK, LIMIT, &place->error);
		assert_non_null(place->spool);
		error = spool_last_error(place->spool);
	}
	bool failed = status != SPOOL_OK;
	if (failed) {
		status = operation->run(place);
		if (status != SPOOL_OK)
			fail_msg("%s: fails again: %s", said, error->sentence);
	}
	/* Nothing half done stands in the way of what comes. */
	if (!operation->opens && (spool_begin_read(place->spool) != SPOOL_OK ||
	                          (spool_end_read(place->spool), spool_apply(place->spool, NULL, 0,
	                                                                     WALL)) != SPOOL_OK))
		fail_msg("%s: what comes next fails: %s", said, error->sentence);
	if (place->passing && failed) {
		char *now = contents(place);
		if (strcmp(now, after) != 0)
			fail_msg("%s: in the end there is\n%s\nand not\n%s", said, now, after);
		free(now);
	}
	return struck;
}

/* Where calls are many and alike, each kind of failure meets others of them; all
 * meet all with THOROUGH in the environment. */
static void fail_with(struct place *place, const struct operation *operation,
                      const struct fault *kinds, size_t count, const char *before,
                      const char *after)
{
	bool all = getenv("THOROUGH") != NULL;
	int less = all ? 1 : 4;
	int stride = operation->stride != 0 && !all ? operation->stride * less : 1;
	for (size_t i = 0; i < count; i++) {
		int step = kinds[i].memory ? less : stride;
		for (int calls = (int)i % step;
		     attempt(place, operation, &kinds[i], calls, false, before, after);)
			calls += step;
	}
	for (int calls = 0; attempt(place, operation, &kinds[0], calls, true, before, after);)
		calls += stride;
}

static void fail_each_call(struct place *place, const struct operation *operation)
{
	begin_again(place, false);
	char *before = contents(place);
	begin_again(place, !operation->opens);
	if (operation->creates)
		remove_files(place);
	place->complete = place->passing = true;
	if (operation->run(place) != SPOOL_OK)
		fail_msg("%s: %s", operation->name,
		         operation->opens ? place->error.sentence
		                          : spool_last_error(place->spool)->sentence);
	assert_true(place->complete);
	char *after = contents(place);
	fail_with(place, operation, passing, COUNT(passing), before, after);
	if (operation->opens)
		fail_with(place, operation, refusing, COUNT(refusing), before, after);
	place->passing = false;
	if (!operation->opens)
		fail_with(place, operation, lasting, COUNT(lasting), before, after);
	free(before);
	free(after);
}

static void fail_each(void **state, const struct operation *operations, size_t count)
{
	for (size_t i = 0; i < count; i++)
		fail_each_call(*state, &operations[i]);
}

/* SPOOL_END is an answer, too. */
static enum spool_status ended(enum spool_status status)
{
	return status == SPOOL_END ? SPOOL_OK : status;
}

/* --- Reading ------------------------------------------------------------ */

static enum spool_status read_places(struct place *place)
{
	struct spool_place found;
	int count = 0;
	int64_t from = SPOOL_FIRST_ID;
	enum spool_status status = spool_begin_read(place->spool);
	while (status == SPOOL_OK && count <= WAITING) {
		status = spool_next(place->spool, from, INT64_MAX, &found);
		if (status != SPOOL_OK)
			break;
		from = found.id + 1;
		count++;
	}
	spool_end_read(place->spool);
	place->complete = count == WAITING;
	return ended(status);
}

static enum spool_status read_records(struct place *place)
{
	struct record record;
	unsigned attempts, sum = 0;
	int count = 0;
	int64_t from = SPOOL_FIRST_ID;
	enum spool_status status = spool_begin_read(place->spool);
	while (status == SPOOL_OK && count <= WAITING) {
		status = spool_next_record(place->spool, from, INT64_MAX, &record);
		if (status != SPOOL_OK)
			break;
		from = record.id + 1;
		count++;
		status = spool_attempts(place->spool, record.id, record.uuid, &attempts);
		sum += attempts;
	}
	spool_end_read(place->spool);
	place->complete = count == WAITING && sum == 2;
	return ended(status);
}

static enum spool_status read_one(struct place *place)
{
	struct record record;
	struct text reason, said;
	unsigned attempts;
	enum spool_status status = spool_load(place->spool, 4, &record);
	if (status == SPOOL_OK)
		status = spool_attempts(place->spool, 5, record.uuid, &attempts);
	if (status == SPOOL_OK)
		status = spool_load_dead(place->spool, 6, &record, &reason, &said);
	if (status == SPOOL_OK)
		place->complete = attempts == 2 && said.size == 2;
	return status;
}

static enum spool_status pass(struct place *place)
{
	int64_t next = 0;
	enum spool_status status = spool_pass_damage(place->spool, false, 5, INT64_MAX, &next);
	if (status == SPOOL_OK)
		status = spool_pass_damage(place->spool, true, SPOOL_FIRST_ID, INT64_MAX, &next);
	return ended(status);
}

static const struct operation readings[] = {
	{ .name = "spool_next", .run = read_places },
	{ .name = "spool_next_record", .run = read_records },
	{ .name = "spool_load", .run = read_one },
	{ .name = "spool_pass_damage", .run = pass },
};

static void reading_fails_with_a_sentence_or_reads_all(void **state)
{
	fail_each(state, readings, COUNT(readings));
}

/* --- Settling ----------------------------------------------------------- */

static enum spool_status settle_delivered(struct place *place)
{
	struct spool_change changes[] = {
		{ .kind = CHANGE_DELIVERED, .id = 4, .bytes = 200, .receipt_at = WALL, .request_at = 1 },
		{ .kind = CHANGE_DELIVERED, .id = 5, .bytes = 200, .attempts = 3 },
		{ .kind = CHANGE_DELIVERED, .id = 13, .bytes = 200 },
		{ .kind = CHANGE_DELIVERED, .id = 14, .bytes = 200, .receipt_at = WALL, .request_at = -1 },
		{ .kind = CHANGE_DELIVERED, .id = 15, .bytes = 200, .keyed = true },
		{ .kind = CHANGE_NOTE, .name = "state", .value = "down" },
	};
	return spool_apply(place->spool, changes, COUNT(changes), WALL);
}

static enum spool_status settle_dead(struct place *place)
{
	struct spool_change changes[] = {
		{ .kind = CHANGE_DEAD, .id = 5, .code = "rejected", .sentence = "a sentence",
		  .http_status = 400, .attempts = 3, .server_said = "no", .server_said_size = 2 },
		{ .kind = CHANGE_DEAD, .id = 15, .code = "rejected", .sentence = "a sentence" },
		{ .kind = CHANGE_ATTEMPTS, .id = 4, .attempts = 1 },
	};
	return spool_apply(place->spool, changes, COUNT(changes), WALL);
}

static enum spool_status settle_revived(struct place *place)
{
	struct spool_change changes[] = {
		{ .kind = CHANGE_REVIVED, .id = 3 },
		{ .kind = CHANGE_REVIVED, .id = 9 },
	};
	return spool_apply(place->spool, changes, COUNT(changes), WALL);
}

static enum spool_status settle_taken(struct place *place)
{
	struct spool_change changes[] = {
		{ .kind = CHANGE_DISCARDED, .id = 5 },
		{ .kind = CHANGE_PURGED, .id = 15 },
		{ .kind = CHANGE_PURGED, .dead = true, .id = 3 },
		{ .kind = CHANGE_DISCARDED, .dead = true, .id = 6 },
	};
	return spool_apply(place->spool, changes, COUNT(changes), WALL);
}

static enum spool_status sweep(struct place *place)
{
	const struct spool_keep keep = { .dead = 50000, .delivered = 5000 };
	struct spool_swept swept;
	enum spool_status status = spool_sweep(place->spool, &keep, WALL, &swept);
	place->complete = swept.dead == 2 && swept.receipts == 1;
	return status;
}

static enum spool_status set_limits(struct place *place)
{
	return spool_set_limits(place->spool, 5 << 20, 1 << 20, true);
}

static const struct operation settlings[] = {
	{ .name = "settling what was delivered", .run = settle_delivered, .stride = 2,
	  .may_go = "4, 5, 13, 14, 15" },
	{ .name = "settling dead letters", .run = settle_dead, .stride = 2 },
	{ .name = "settling revived ones", .run = settle_revived, .stride = 2 },
	{ .name = "settling what is taken", .run = settle_taken, .stride = 2, .may_go = "3, 5, 6, 15" },
	{ .name = "spool_sweep", .run = sweep, .stride = 2, .may_go = "3, 6" },
	{ .name = "spool_set_limits", .run = set_limits },
};

static void a_settle_that_fails_has_done_nothing_and_can_be_repeated(void **state)
{
	fail_each(state, settlings, COUNT(settlings));
}

/* --- Looking ------------------------------------------------------------ */

static enum spool_status read_ledger(struct place *place)
{
	struct spool_ledger ledger;
	enum spool_status status = spool_read_ledger(place->spool, 10000, &ledger);
	/* Counting is given up when it takes too long, and so when it fails. */
	place->complete = ledger.accepted == 15 && ledger.last_id == 15 && ledger.balanced &&
	                  (!ledger.counted || ledger.waiting == WAITING) &&
	                  (!ledger.reasons_counted || ledger.reason_count == 3);
	if (status != SPOOL_OK)
		return status;
	status = spool_read_counters(place->spool, &ledger);
	spool_count_reasons(place->spool, 10000, &ledger);
	return status;
}

static enum spool_status read_notes(struct place *place)
{
	char *value = NULL, *none = NULL;
	enum spool_status status = spool_read_note(place->spool, "state", &value);
	place->complete = value != NULL && strcmp(value, "up") == 0;
	if (status == SPOOL_OK)
		status = spool_read_note(place->spool, "no such note", &none);
	free(value);
	free(none);
	free(spool_note(place->spool, "state"));
	return status;
}

static void count(void *context, const char *sentence)
{
	(void)sentence;
	++*(int *)context;
}

static enum spool_status examine(struct place *place)
{
	int findings = 0;
	enum spool_status status = spool_examine(place->spool, count, &findings);
	place->complete = findings == 0;
	return status;
}

static enum spool_status find(struct place *place, bool dead, int wanted)
{
	struct spool_filter filter = { .before = INT64_MAX };
	struct spool_found found;
	int seen = 0;
	enum spool_status status =
		spool_find_begin(place->spool, dead, &filter, SPOOL_FIRST_ID, INT64_MAX);
	while (status == SPOOL_OK && (status = spool_find_next(place->spool, &found)) == SPOOL_OK)
		seen++;
	spool_find_end(place->spool);
	place->complete = seen == wanted;
	return ended(status);
}

static enum spool_status find_waiting(struct place *place)
{
	return find(place, false, WAITING);
}

static enum spool_status find_dead(struct place *place)
{
	return find(place, true, DEAD);
}

static enum spool_status find_receipts(struct place *place)
{
	struct spool_receipt receipts[4];
	size_t seen;
	int64_t id;
	enum spool_status status = spool_receipts(place->spool, NULL, receipts, 4, &seen);
	place->complete = seen == 2;
	if (status == SPOOL_OK)
		status = spool_find_receipt(place->spool, 1, NULL, receipts);
	if (status == SPOOL_OK)
		status = ended(spool_find_receipt(place->spool, 0, "none", receipts));
	if (status == SPOOL_OK)
		status = ended(spool_find_uuid(place->spool, "none", &id));
	if (status == SPOOL_OK)
		status = spool_last(place->spool, false, &id);
	if (status == SPOOL_OK)
		status = spool_last(place->spool, true, &id);
	return status;
}

static enum spool_status empty_log(struct place *place)
{
	enum spool_status status = spool_overwrite(place->spool, true);
	return status == SPOOL_OK ? spool_empty_log(place->spool, WALL, 50) : status;
}

static const struct operation looks[] = {
	{ .name = "spool_read_ledger", .run = read_ledger, .stride = 2 },
	{ .name = "spool_read_note", .run = read_notes },
	{ .name = "spool_examine", .run = examine, .stride = 13 },
	{ .name = "finding what waits", .run = find_waiting },
	{ .name = "finding dead letters", .run = find_dead },
	{ .name = "finding receipts", .run = find_receipts },
	{ .name = "spool_empty_log", .run = empty_log },
};

static void a_look_fails_with_a_sentence_or_sees_all(void **state)
{
	fail_each(state, looks, COUNT(looks));
}

/* --- Opening ------------------------------------------------------------ */

static enum spool_status open_as(struct place *place, enum spool_mode mode)
{
	spool_close(place->spool);
	place->spool = spool_open(place->path, mode, LIMIT, &place->error);
	return place->spool != NULL ? SPOOL_OK : place->error.status;
}

static enum spool_status open_to_work(struct place *place)
{
	return open_as(place, SPOOL_WORK);
}

static enum spool_status open_to_read(struct place *place)
{
	return open_as(place, SPOOL_READ);
}

static enum spool_status create(struct place *place)
{
	return open_as(place, SPOOL_CREATE);
}

/* It has nobody to tell of a failure, and none may matter. */
static enum spool_status close_moved(struct place *place)
{
	char moved[160];
	struct spool *spool = spool_open(place->path, SPOOL_WORK, LIMIT, &place->error);
	if (spool == NULL)
		return place->error.status;
	(void)snprintf(moved, sizeof moved, "%s-moved", place->path);
	bool orphaned;
	(void)spool_was_replaced(spool, &orphaned);
	(void)__real_rename(place->path, moved);
	(void)spool_was_replaced(spool, NULL);
	spool_close(spool);
	(void)__real_rename(moved, place->path);
	return SPOOL_OK;
}

static enum spool_status mend_access(struct place *place)
{
	return spool_mend_access(place->path, &place->error);
}

static const struct operation openings[] = {
	{ .name = "opening to work", .run = open_to_work, .opens = true, .stride = 3 },
	{ .name = "opening to read", .run = open_to_read, .opens = true, .stride = 3 },
	{ .name = "creating", .run = create, .opens = true, .creates = true, .stride = 4 },
	{ .name = "closing what was moved", .run = close_moved, .opens = true, .stride = 3 },
	{ .name = "spool_mend_access", .run = mend_access, .opens = true, .stride = 3 },
};

static void an_opening_that_fails_leaves_the_file_as_it_is(void **state)
{
	fail_each(state, openings, COUNT(openings));
}

/* It lacks an index and a trigger, and has another trigger and a table of another text. */
static void make_older(struct place *place)
{
	begin_again(place, false);
	execute(place->path, "DROP INDEX dead_letters_died; DROP TRIGGER interactions_known_key;"
	        "DROP TRIGGER interactions_check; CREATE TRIGGER interactions_check BEFORE INSERT ON "
	        "interactions BEGIN SELECT 1; END; PRAGMA user_version = 1; PRAGMA writable_schema = ON;"
	        "UPDATE sqlite_master SET sql = replace(sql, 'DEFAULT ''chat''', 'DEFAULT ''any''') "
	        "WHERE name = 'interactions'");
	keep_as_beginning(place);
}

static void a_migration_that_fails_has_done_nothing_and_can_be_repeated(void **state)
{
	static const struct operation migration = { .name = "migrating", .run = open_to_work,
	                                            .opens = true, .stride = 3 };
	struct place *place = *state;
	make_older(place);
	fail_each_call(place, &migration);
}

/* --- Importing and shrinking --------------------------------------------- */

static struct spool_value text_of(const char *text)
{
	return (struct spool_value){ .kind = VALUE_TEXT, .text = { text, strlen(text) } };
}

static enum spool_status import(struct place *place)
{
	struct spool_value values[SPOOL_DEAD_COLUMNS] = { { .kind = VALUE_NULL } };
	enum spool_imported outcomes[4];
	enum { MODEL, REQUEST, RESPONSE, KEY = 21, UUID, REASON = SPOOL_COLUMNS, DIED = 28, SAID };
	values[MODEL] = text_of("m");
	values[REQUEST] = text_of("an imported body");
	values[RESPONSE] = text_of("{}");
	enum spool_status status = spool_import_start(place->spool);
	if (status == SPOOL_OK)
		status = spool_import_begin(place->spool);
	if (status != SPOOL_OK)
		return status;
	values[UUID] = text_of("00000000000000000000000000000001");
	status = spool_import_record(place->spool, false, values, &outcomes[0]);
	if (status == SPOOL_OK)
		status = spool_import_record(place->spool, false, values, &outcomes[1]);
	values[UUID] = text_of("00000000000000000000000000000002");
	values[KEY] = text_of("an imported key");
	values[REASON] = text_of("rejected: a sentence");
	values[DIED] = (struct spool_value){ .kind = VALUE_INTEGER, .integer = WALL };
	values[SAID] = (struct spool_value){ .kind = VALUE_BLOB, .text = { "no", 2 } };
	if (status == SPOOL_OK)
		status = spool_import_record(place->spool, true, values, &outcomes[2]);
	values[UUID] = text_of("00000000000000000000000000000003");
	if (status == SPOOL_OK)
		status = spool_import_record(place->spool, false, values, &outcomes[3]);
	if (status != SPOOL_OK) {
		spool_import_abort(place->spool);
		return status;
	}
	place->complete = outcomes[0] == IMPORT_ADDED && outcomes[1] == IMPORT_KNOWN_ALREADY &&
	                  outcomes[2] == IMPORT_ADDED && outcomes[3] == IMPORT_REFUSED;
	return spool_import_commit(place->spool);
}

static const struct operation imports[] = {
	{ .name = "importing", .run = import, .once = true, .stride = 7 },
};

static void an_import_that_fails_has_added_nothing_and_can_be_repeated(void **state)
{
	fail_each(state, imports, COUNT(imports));
}

static enum spool_status shrink(struct place *place)
{
	bool more = false;
	(void)spool_has_room(place->spool);
	return spool_shrink(place->spool, &more);
}

static const struct operation shrinking[] = {
	{ .name = "spool_shrink", .run = shrink, .stride = 2 },
};

static void a_shrinking_that_fails_keeps_all(void **state)
{
	struct place *place = *state;
	begin_again(place, false);
	execute(place->path, "INSERT INTO interactions (model_id, request_body, response_body) VALUES "
	        "('m', zeroblob(4096 * 1100), '{}'); DELETE FROM interactions WHERE id > 15");
	keep_as_beginning(place);
	fail_each(state, shrinking, COUNT(shrinking));
}

/* What is overwritten in a spool of many pages, some records over more than one. */
struct harm {
	const char *page; /* which, by SQL */
	int from, size;
};

#define LEAF "SELECT pageno FROM dbstat WHERE name = 'interactions' AND pagetype = 'leaf' " \
             "ORDER BY path LIMIT 1 OFFSET 3"
#define OVERFLOW "SELECT pageno FROM dbstat WHERE name = 'interactions' AND " \
                 "pagetype = 'overflow' ORDER BY path DESC LIMIT 1"
#define ROOT(name) "SELECT rootpage FROM sqlite_master WHERE name = '" name "'"

static const struct harm few[] = { { LEAF, 0, 4096 }, { OVERFLOW, 0, 4096 },
	                           { ROOT("attempts"), 0, 4096 } };
static const struct harm part[] = { { OVERFLOW, 0, 4096 }, { LEAF, 8, 2 } };
static const struct harm children[] = { { ROOT("interactions"), 8, 40 } };
/* Nothing is known of any page but what stands in it. */
static const struct harm trees[] = { { ROOT("interactions"), 0, 4096 }, { "SELECT 2", 0, 4096 } };
static const struct harm schema[] = { { "SELECT 1", 100, 40 }, { LEAF, 0, 4096 } };
static const struct harm schema_and_ledger[] = { { "SELECT 1", 100, 40 },
	                                         { ROOT("ledger"), 0, 4096 } };

static const struct {
	const struct harm *harms;
	size_t count;
} badly[] = { { few, COUNT(few) }, { part, COUNT(part) }, { children, COUNT(children) },
	      { trees, COUNT(trees) }, { schema, COUNT(schema) },
	      { schema_and_ledger, COUNT(schema_and_ledger) } };

static void fill_many(struct place *place)
{
	begin_again(place, false);
	execute(place->path, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 16) "
	        "INSERT INTO interactions (model_id, request_body, response_body, app, key) SELECT 'm', "
	        "printf('%.*c', 2000 + 7000 * (i % 5 = 0), 'b'), '{}', 'a', 'same-as-' || (10 + i) FROM n;"
	        "INSERT INTO imported VALUES ('u1'); PRAGMA wal_checkpoint(TRUNCATE)");
	keep_as_beginning(place);
}

static void damage_badly(struct place *place, const struct harm *harms, size_t count)
{
	int numbers[3];
	begin_again(place, false);
	for (size_t i = 0; i < count; i++) {
		char *number = ask(place, harms[i].page);
		numbers[i] = atoi(number);
		free(number);
	}
	for (size_t i = 0; i < count; i++)
		memset((char *)place->begin + 4096 * (numbers[i] - 1) + harms[i].from, 0xA5,
		       (size_t)harms[i].size);
	/* And a part of a text is remembered as a page of a tree. */
	char *number = ask(place, OVERFLOW " OFFSET 3");
	((char *)place->begin)[4096 + 5 * (atoi(number) - 3)] = 5;
	free(number);
	/* And two have the same key, in the table and in its index. */
	char *key;
	while ((key = memmem(place->begin, place->begin_size, "same-as-12", 10)) != NULL)
		memcpy(key, "same-as-11", 10);
}

static void read_uuid(const struct place *place, struct spool_change *change)
{
	char sql[80];
	(void)snprintf(sql, sizeof sql, "SELECT uuid FROM interactions WHERE id = %" PRId64, change->id);
	char *uuid = ask(place, sql);
	memcpy(change->uuid, uuid, RECORD_UUID_SIZE);
	free(uuid);
}

static void a_run_that_cannot_leave_at_once_leaves_later(void **state)
{
	struct place *place = *state;
	static const char *const where[] = { "prepare", "step" };
	for (size_t i = 0; i < COUNT(where); i++) {
		bool struck = true;
		for (int calls = 0; struck; calls++) {
			struct spool_change changes[3];
			begin_again(place, true);
			for (int j = 0; j < 3; j++) {
				changes[j] = (struct spool_change){ .kind = CHANGE_DELIVERED, .id = 13 + j,
					                            .bytes = 200 };
				read_uuid(place, &changes[j]);
			}
			faults.only = where[i];
			fail_after(&passing[0], calls, false);
			enum spool_status status = spool_apply(place->spool, changes, 3, WALL);
			struck = stop_failing();
			if (status != SPOOL_OK)
				assert_int_equal(spool_apply(place->spool, changes, 3, WALL), SPOOL_OK);
			char *left = ask(place, "SELECT count(*) || ' ' || (SELECT delivered FROM ledger) "
			                        "FROM interactions");
			assert_string_equal(left, "6 5");
			free(left);
		}
	}
}

/* Somebody's doing in the file, for example, makes that statement impossible. */
static void what_cannot_leave_together_leaves_one_by_one(void **state)
{
	struct place *place = *state;
	bool struck = true;
	for (int calls = 0; struck; calls++) {
		begin_again(place, true);
		assert_int_equal(sqlite3_create_function_v2(place->spool->db, SPOOL_IS_DELIVERED, 2,
		                                            SQLITE_UTF8, NULL, NULL, NULL, NULL, NULL),
		                 SQLITE_OK);
		struct spool_change changes[3];
		for (int i = 0; i < 3; i++)
			changes[i] = (struct spool_change){ .kind = CHANGE_DELIVERED, .id = 13 + i };
		for (int i = 0; i < 2; i++)
			read_uuid(place, &changes[i]);
		memset(changes[2].uuid, 'f', RECORD_UUID_SIZE); /* replaced by another, say */
		faults.only = "step";
		fail_after(&passing[0], calls, false);
		enum spool_status status = spool_apply(place->spool, changes, 3, WALL);
		struck = stop_failing();
		if (status != SPOOL_OK)
			assert_int_equal(spool_apply(place->spool, changes, 3, WALL), SPOOL_OK);
		for (int i = 0; i < 3; i++)
			assert_true(changes[i].missed == (i == 2) && !changes[i].refused);
		char *left = ask(place, "SELECT count(*) || ' ' || (SELECT delivered FROM ledger) "
		                        "FROM interactions");
		assert_string_equal(left, "7 4");
		free(left);
	}
}

static void refuses_14(sqlite3_context *context, int count, sqlite3_value **values)
{
	(void)count;
	if (sqlite3_value_int64(values[0]) == 14)
		sqlite3_result_error(context, "not this one", -1);
	else
		sqlite3_result_int(context, 0);
}

static void takes_all(sqlite3_context *context, int count, sqlite3_value **values)
{
	(void)count;
	(void)values;
	sqlite3_result_int(context, 0);
}

/* An index that the producers' SQLite can keep up to date, and the agent's cannot. */
static void what_is_refused_keeps_nothing_of_its_run_back(void **state)
{
	struct place *place = *state;
	sqlite3 *producer = NULL;
	begin_again(place, true);
	struct spool_change changes[3];
	for (int i = 0; i < 3; i++) {
		changes[i] = (struct spool_change){ .kind = CHANGE_DELIVERED, .id = 13 + i };
		read_uuid(place, &changes[i]);
	}
	assert_int_equal(sqlite3_open(place->path, &producer), SQLITE_OK);
	assert_int_equal(sqlite3_create_function_v2(producer, "f", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC,
	                                            NULL, takes_all, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_create_function_v2(place->spool->db, "f", 1,
	                                            SQLITE_UTF8 | SQLITE_DETERMINISTIC, NULL,
	                                            refuses_14, NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(sqlite3_exec(producer, "CREATE INDEX i ON interactions (f(id))", NULL, NULL,
	                              NULL), SQLITE_OK);
	assert_int_equal(sqlite3_close(producer), SQLITE_OK);
	assert_int_equal(spool_apply(place->spool, changes, 3, WALL), SPOOL_OK);
	for (int i = 0; i < 3; i++)
		assert_true(!changes[i].missed && changes[i].refused == (i == 1));
	char *left = ask(place, "SELECT count(*) || ' ' || (SELECT delivered FROM ledger) "
	                        "FROM interactions NOT INDEXED");
	assert_string_equal(left, "7 4");
	free(left);
}

static void what_cannot_leave_at_all_is_refused_and_keeps_back_nothing_else(void **state)
{
	struct place *place = *state;
	begin_again(place, true);
	struct spool_change changes[] = { { .kind = CHANGE_DELIVERED, .id = 13 },
		                              { .kind = CHANGE_DELIVERED, .id = 14 },
		                              { .kind = CHANGE_NOTE, .name = "state", .value = "down" } };
	read_uuid(place, &changes[0]);
	read_uuid(place, &changes[1]);
	execute(place->path, "ALTER TABLE interactions RENAME COLUMN uuid TO other");
	assert_int_equal(spool_apply(place->spool, changes, 3, WALL), SPOOL_OK);
	assert_true(changes[0].refused && changes[1].refused);
	char *note = spool_note(place->spool, "state");
	assert_string_equal(note, "down");
	free(note);
}

/* Notes until so many frames are in the -wal; how often it was copied back meanwhile. */
static int grow_wal(struct place *place, int frames)
{
	static const struct fault none = { .name = "none", .sqlite = SQLITE_BUSY };
	static char value[3000];
	struct spool_change note = { .kind = CHANGE_NOTE, .name = "n", .value = value };
	memset(value, 'v', sizeof value - 1);
	faults.only = "checkpoint";
	fail_after(&none, INT_MAX, false);
	for (int before = 0; place->spool->wal_frames >= before && before < frames;) {
		before = place->spool->wal_frames;
		value[0] = (char)('a' + before % 26); /* or nothing is written */
		assert_int_equal(spool_apply(place->spool, &note, 1, WALL), SPOOL_OK);
	}
	int copied = INT_MAX - faults.left;
	(void)stop_failing();
	return copied;
}

static int tidy(struct place *place)
{
	static const struct fault none = { .name = "none", .sqlite = SQLITE_BUSY };
	faults.only = "checkpoint";
	fail_after(&none, INT_MAX, false);
	spool_tidy(place->spool);
	int copied = INT_MAX - faults.left;
	(void)stop_failing();
	return copied;
}

static void the_wal_is_copied_back_after_the_settle_and_only_while_it_surely_has_something(void **state)
{
	struct place *place = *state;
	begin_again(place, true);
	assert_int_equal(grow_wal(place, CHECKPOINT_FRAMES), 1); /* where nobody asked for less */
	assert_int_equal(tidy(place), 0);

	begin_again(place, true);
	spool_tidy_later(place->spool);
	assert_int_equal(tidy(place), 0);
	assert_int_equal(grow_wal(place, CHECKPOINT_FRAMES), 0);
	assert_int_equal(tidy(place), 1);
	assert_int_equal(tidy(place), 0); /* never twice for the same frames */

	/* Others may have copied all back meanwhile: a commit of its own comes first, or nothing. */
	assert_int_equal(grow_wal(place, CHECKPOINT_FRAMES), 0);
	execute(place->path, "PRAGMA wal_checkpoint(TRUNCATE)");
	assert_int_equal(tidy(place), 0);
	assert_int_equal(place->spool->wal_frames, 1);
	assert_int_equal(grow_wal(place, CHECKPOINT_FRAMES), 0);
	faults.only = "step";
	fail_after(&passing[0], 0, true);
	spool_tidy(place->spool);
	assert_true(stop_failing());
	assert_true(place->spool->wal_frames >= CHECKPOINT_FRAMES);
	assert_int_equal(tidy(place), 1);

	/* Nor is it put off for ever, or without room. */
	place->spool->checkpoint_frames = 0; /* as a full disk asks for it */
	assert_int_equal(grow_wal(place, 1), 1);
	assert_int_equal(grow_wal(place, 3 * CHECKPOINT_FRAMES), 1);
	assert_int_equal(grow_wal(place, CHECKPOINT_FRAMES), 0);
	assert_true(spool_drop_ballast(place->spool));
	assert_int_equal(grow_wal(place, CHECKPOINT_FRAMES + 1), 1);
	spool_tidy(NULL);

	/* Who reads for long keeps some from being copied: not again before there is as much more. */
	begin_again(place, true);
	spool_tidy_later(place->spool);
	sqlite3 *reader = NULL;
	assert_int_equal(sqlite3_open(place->path, &reader), SQLITE_OK);
	assert_int_equal(sqlite3_exec(reader, "BEGIN; SELECT * FROM ledger", NULL, NULL, NULL), SQLITE_OK);
	assert_int_equal(grow_wal(place, CHECKPOINT_FRAMES), 0);
	assert_int_equal(tidy(place), 1);
	assert_true(place->spool->checkpoint_frames > CHECKPOINT_FRAMES);
	assert_int_equal(tidy(place), 0);
	assert_true(place->spool->checkpoint_frames > CHECKPOINT_FRAMES);
	assert_int_equal(sqlite3_close(reader), SQLITE_OK);

	/* Nor is anything copied where that commit had nothing to write. */
	begin_again(place, true);
	spool_tidy_later(place->spool);
	assert_int_equal(grow_wal(place, CHECKPOINT_FRAMES), 0);
	execute(place->path, "PRAGMA wal_autocheckpoint = 0; DROP TABLE agent_state");
	assert_int_equal(tidy(place), 0);
}

/* Behind the damage there are rows, but none that was asked for. */
static void damage_may_be_the_last_that_was_asked_for(void **state)
{
	struct place *place = *state;
	static const struct harm leaf[] = { { LEAF, 0, 4096 } };
	struct record record;
	int64_t id = 16, next = 0;
	fill_many(place);
	execute(place->path, "INSERT INTO interactions (model_id, request_body, response_body) "
	                     "SELECT model_id, request_body, '{}' FROM interactions WHERE id > 15;"
	                     "INSERT INTO interactions (model_id, request_body, response_body) "
	                     "SELECT model_id, request_body, '{}' FROM interactions WHERE id > 31;"
	                     "DELETE FROM interactions WHERE id > 15 AND id % 4 != 0;"
	                     "PRAGMA wal_checkpoint(TRUNCATE)");
	keep_as_beginning(place);
	damage_badly(place, leaf, 1);
	begin_again(place, true);
	while (spool_load(place->spool, id, &record) != SPOOL_DAMAGED)
		id += 4;
	while (spool_load(place->spool, id + 4, &record) == SPOOL_DAMAGED)
		id += 4;
	assert_in_range(id, 16, 59);
	assert_int_equal(spool_pass_damage(place->spool, false, id, id + 3, &next), SPOOL_OK);
	assert_in_range(next, id + 1, id + 3);
}

/* --- Salvage ------------------------------------------------------------ */

static enum spool_status salvage(struct place *place, struct salvage_report *report)
{
	return spool_salvage(place->path, WALL, 20, report, &place->error);
}

/* What stands in no table is damaged, so that all can be kept. */
static void damage_an_index(struct place *place)
{
	char *root = ask(place, "SELECT rootpage FROM sqlite_master WHERE name = 'interactions_key'");
	memset((char *)place->begin + 4096 * (atol(root) - 1), 0xA5, 4096);
	free(root);
}

/* As a salvage leaves it that was killed before the new file took its place. */
static void cut_a_salvage_short(struct place *place)
{
	struct salvage_report report;
	faults.only = "rename";
	fail_after(&passing[0], 0, true);
	assert_int_not_equal(salvage(place, &report), SPOOL_OK);
	assert_true(stop_failing());
}

static bool salvage_around(struct place *place, const struct fault *fault, int calls,
                           bool for_ever, bool repeated, const char *wanted)
{
	struct salvage_report report;
	begin_again(place, false);
	if (repeated)
		cut_a_salvage_short(place);
	fail_after(fault, calls, for_ever);
	enum spool_status status = salvage(place, &report);
	bool struck = stop_failing();
	if (status != place->error.status || (status != SPOOL_OK && place->error.sentence[0] == '\0'))
		fail_msg("%s at call %d, %s: status %d without a sentence", fault->name, calls + 1,
		         faults.where, status);
	if (status != SPOOL_OK && !struck)
		fail_msg("the salvage fails by itself: %s", place->error.sentence);
	if (status != SPOOL_OK)
		status = salvage(place, &report);
	if (status == SPOOL_OK)
		status = open_as(place, SPOOL_WORK);
	char *now = status == SPOOL_OK ? contents(place) : NULL;
	if (now == NULL || strcmp(now, wanted) != 0)
		fail_msg("%s%s at call %d, %s%s: %s\nbut there is\n%s\nand not\n%s", fault->name,
		         for_ever ? " from then on" : "", calls + 1, faults.where,
		         repeated ? ", of the second" : "", place->error.sentence, now, wanted);
	free(now);
	return struck;
}

static void a_salvage_that_fails_can_be_repeated_and_keeps_all(void **state)
{
	struct place *place = *state;
	struct salvage_report report;
	begin_again(place, false);
	damage_an_index(place);
	begin_again(place, false);
	assert_int_equal(salvage(place, &report), SPOOL_OK);
	assert_true(report.needed && report.waiting == WAITING && report.dead == DEAD);
	assert_int_equal(open_as(place, SPOOL_WORK), SPOOL_OK);
	char *wanted = contents(place);
	for (int repeated = 0; repeated < 2; repeated++) {
		/* But not the last: what is there is not told to be missing. */
		for (size_t i = 0; i < COUNT(passing) + COUNT(refusing) - 1; i++) {
			const struct fault *fault =
				i < COUNT(passing) ? &passing[i] : &refusing[i - COUNT(passing)];
			int step = fault->memory ? 3 : 13;
			for (int calls = (int)i % step;
			     salvage_around(place, fault, calls, false, repeated == 1, wanted);)
				calls += step;
		}
		for (int calls = 0; salvage_around(place, &passing[0], calls, true, repeated == 1, wanted);)
			calls += 13;
	}
	free(wanted);
}

/* Also in what is met with damaged pages alone. */
static void a_salvage_of_what_is_badly_damaged_may_fail_anywhere(void **state)
{
	struct place *place = *state;
	struct salvage_report report;
	static const struct {
		const struct fault *fault;
		const char *only;
		int step;
	} cases[] = {
		{ &passing[0], "prepare", 1 }, { &passing[1], "step", 1 }, { &passing[0], "exec", 1 },
		{ &passing[2], "malloc", 1 }, { &passing[2], "calloc", 1 }, { &passing[2], "realloc", 1 },
		{ &passing[2], "mprintf", 1 }, { &passing[2], "str_finish", 1 },
	};
	fill_many(place);
	char *sound = malloc(place->begin_size);
	assert_non_null(sound);
	memcpy(sound, place->begin, place->begin_size);
	int64_t doubtful = 0;
	for (size_t harm = 0; harm < COUNT(badly); harm++) {
		memcpy(place->begin, sound, place->begin_size);
		damage_badly(place, badly[harm].harms, badly[harm].count);
		begin_again(place, false);
		assert_int_equal(salvage(place, &report), SPOOL_OK);
		assert_true(report.needed && report.waiting > 8);
		doubtful += report.doubtful;
		assert_int_equal(open_as(place, SPOOL_WORK), SPOOL_OK);
		char *wanted = contents(place);
		for (size_t i = 0; i < COUNT(cases); i++) {
			bool struck = true;
			for (int calls = 0; struck; calls += cases[i].step) {
				faults.only = cases[i].only;
				struck = salvage_around(place, cases[i].fault, calls, calls % 2 == 1, false,
				                        wanted);
			}
		}
		free(wanted);
	}
	assert_true(doubtful > 2);
	free(sound);
}

/* What the storage does not give is lost to the salvage, which says so, and is in the file
 * that it sets aside. */
static void what_the_storage_does_not_give_is_told_to_be_lost(void **state)
{
	struct place *place = *state;
	struct salvage_report whole, report;
	fill_many(place);
	damage_badly(place, few, COUNT(few));
	begin_again(place, false);
	assert_int_equal(salvage(place, &whole), SPOOL_OK);
	bool struck = true;
	for (int calls = 0; struck; calls++) {
		begin_again(place, false);
		faults.only = "pread";
		fail_after(&passing[0], calls, true);
		enum spool_status status = salvage(place, &report);
		struck = stop_failing();
		if (status == SPOOL_OK) {
			assert_true(report.lost == -1 || report.waiting + report.dead + report.lost >=
			                                         whole.waiting + whole.dead + whole.lost);
			assert_int_equal(access(report.aside, F_OK), 0);
		} else {
			assert_true(place->error.sentence[0] != '\0');
			assert_int_equal(salvage(place, &report), SPOOL_OK);
			assert_int_equal(report.waiting + report.dead, whole.waiting + whole.dead);
		}
	}
}

/* --- What fails in one place --------------------------------------------- */

static const struct fault io = { .name = "an I/O error", .sqlite = SQLITE_IOERR, .system = EIO };

static void each_answer_of_sqlite_is_told_apart(void **state)
{
	static const struct {
		int code, system;
		enum spool_status status;
	} answers[] = {
		{ SQLITE_BUSY, 0, SPOOL_BUSY }, { SQLITE_LOCKED, 0, SPOOL_BUSY },
		{ SQLITE_FULL, 0, SPOOL_FULL }, { SQLITE_CORRUPT, 0, SPOOL_DAMAGED },
		{ SQLITE_NOTADB, 0, SPOOL_FOREIGN }, { SQLITE_READONLY, 0, SPOOL_DENIED },
		{ SQLITE_PERM, 0, SPOOL_DENIED }, { SQLITE_AUTH, 0, SPOOL_DENIED },
		{ SQLITE_ERROR, 0, SPOOL_REFUSED }, { SQLITE_CONSTRAINT, 0, SPOOL_REFUSED },
		{ SQLITE_MISMATCH, 0, SPOOL_REFUSED }, { SQLITE_TOOBIG, 0, SPOOL_TOO_BIG },
		{ SQLITE_IOERR, ENOSPC, SPOOL_FULL }, { SQLITE_IOERR, EDQUOT, SPOOL_FULL },
		{ SQLITE_IOERR, EACCES, SPOOL_DENIED }, { SQLITE_IOERR, EPERM, SPOOL_DENIED },
		{ SQLITE_IOERR, EROFS, SPOOL_DENIED }, { SQLITE_IOERR, EIO, SPOOL_IO },
		{ SQLITE_NOMEM, 0, SPOOL_IO },
	};
	struct place *place = *state;
	begin_again(place, true);
	for (size_t i = 0; i < COUNT(answers); i++) {
		struct fault fault = { .name = "", .sqlite = answers[i].code, .system = answers[i].system };
		struct record record;
		faults.only = "step";
		fail_after(&fault, 0, false);
		enum spool_status status = spool_load(place->spool, 4, &record);
		assert_true(stop_failing());
		assert_int_equal(status, answers[i].status);
		assert_non_null(strstr(spool_last_error(place->spool)->sentence, place->path));
	}
}

static void what_a_disk_does_not_give_counts_as_damaged_after_a_minute(void **state)
{
	static const struct fault damaged = { .name = "", .sqlite = SQLITE_CORRUPT };
	static const struct {
		int file, system;
		int64_t since, last; /* seconds ago; 0: never */
		enum spool_mode mode;
		enum spool_status status;
	} cases[] = {
		{ SQLITE_FCNTL_FILE_POINTER, ENOENT, 0, 0, SPOOL_WORK, SPOOL_DAMAGED },
		{ SQLITE_FCNTL_FILE_POINTER, EIO, 0, 0, SPOOL_WORK, SPOOL_IO },
		{ SQLITE_FCNTL_JOURNAL_POINTER, ENXIO, 0, 0, SPOOL_WORK, SPOOL_IO },
		{ SQLITE_FCNTL_JOURNAL_POINTER, EIO, 50, 20, SPOOL_WORK, SPOOL_IO },
		{ SQLITE_FCNTL_FILE_POINTER, EIO, 61, 20, SPOOL_WORK, SPOOL_DAMAGED },
		{ SQLITE_FCNTL_FILE_POINTER, EIO, 9000, 700, SPOOL_WORK, SPOOL_IO },
		{ SQLITE_FCNTL_FILE_POINTER, EIO, 0, 0, SPOOL_READ, SPOOL_DAMAGED },
	};
	struct place *place = *state;
	begin_again(place, true);
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct record record;
		assert_int_equal(open_as(place, cases[i].mode), SPOOL_OK);
		int64_t now = spool_deadline(0).tv_sec;
		place->spool->failed_since = cases[i].since != 0 ? now - cases[i].since : 0;
		place->spool->failed_last = cases[i].last != 0 ? now - cases[i].last : 0;
		faults.only = "step";
		faults.last_errno = cases[i].system;
		faults.unreadable = cases[i].file;
		fail_after(&damaged, 0, false);
		enum spool_status status = spool_load(place->spool, 4, &record);
		faults.last_errno = 0;
		assert_true(stop_failing());
		assert_int_equal(status, cases[i].status);
		assert_int_equal(strstr(spool_last_error(place->spool)->sentence, strerror(EIO)) != NULL,
		                 cases[i].system != ENOENT);
		assert_int_equal(spool_load(place->spool, 4, &record), SPOOL_OK);
	}
}

static void the_fix_of_the_wal_reset_fault_is_known_by_its_versions(void **state)
{
	static const struct {
		int version;
		bool fixed;
	} versions[] = { { 3040001, false }, { 3044005, false }, { 3044006, true }, { 3045000, false },
		         { 3050006, false }, { 3050007, true }, { 3051000, false }, { 3051002, false },
		         { 3051003, true } };
	(void)state;
	for (size_t i = 0; i < COUNT(versions); i++) {
		faults.version = versions[i].version;
		assert_int_equal(spool_sqlite_has_wal_reset_fix(), versions[i].fixed);
	}
	faults.version = 0;
}

static enum spool_status open_failing(struct place *place, enum spool_mode mode, const char *only,
                                      struct fault fault, int calls, bool for_ever)
{
	begin_again(place, false);
	faults.only = only;
	fail_after(&fault, calls, for_ever);
	enum spool_status status = open_as(place, mode);
	(void)stop_failing();
	return status;
}

static void an_opening_says_what_is_in_its_way(void **state)
{
	struct place *place = *state;
	const struct fault quota = { .name = "", .system = EDQUOT };
	const struct fault unreachable = { .name = "", .system = ENOTDIR };
	const struct fault missing = { .name = "", .system = ENOENT };
	const struct fault cannot = { .name = "", .sqlite = SQLITE_CANTOPEN };
	const struct fault neither = { .name = "", .sqlite = SQLITE_CANTOPEN, .memory = true };
	const struct fault busy = { .name = "", .sqlite = SQLITE_BUSY };
	const struct fault full = { .name = "", .sqlite = SQLITE_FULL };
	char wal[PATH_MAX + 8];
	(void)snprintf(wal, sizeof wal, "%s-wal", place->path);
	/* A file that another made meanwhile is opened. */
	assert_int_equal(open_failing(place, SPOOL_CREATE, "stat", missing, 0, false), SPOOL_OK);
	assert_int_equal(open_failing(place, SPOOL_WORK, "stat", unreachable, 0, false), SPOOL_MISSING);
	/* What may not be done is told from what could not be asked. */
	static const struct {
		int reason;
		enum spool_mode mode;
		enum spool_status status;
		const char *says;
	} refusals[] = {
		{ EACCES, SPOOL_WORK, SPOOL_DENIED, "read and write it (is it a member" },
		{ EPERM, SPOOL_READ, SPOOL_DENIED, "read it (is it a member" },
		{ EROFS, SPOOL_WORK, SPOOL_DENIED, "Read-only file system; the user needs to read and write it" },
		{ EIO, SPOOL_WORK, SPOOL_IO, "Input/output error" },
	};
	for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
		const struct fault refused = { .name = "", .system = refusals[i].reason };
		assert_int_equal(open_failing(place, refusals[i].mode, "access", refused, 0, true),
		                 refusals[i].status);
		assert_non_null(strstr(place->error.sentence, refusals[i].says));
		assert_true(refusals[i].reason != EROFS || !strstr(place->error.sentence, "member"));
	}
	/* Without a -shm it is read as it stands, also with letters that mean something in a URI. */
	assert_int_equal(open_failing(place, SPOOL_READ, "exec", cannot, 2, false), SPOOL_OK);
	assert_int_equal(open_failing(place, SPOOL_READ, NULL, neither, 9, true), SPOOL_IO);
	/* Nor can it be where nothing is as SQLite wants it. */
	assert_int_equal(open_failing(place, SPOOL_READ, "db_config", full, 0, true), SPOOL_FULL);
	begin_again(place, false);
	write_file(wal, "x", 1);
	faults.only = "db_config";
	fail_after(&full, 0, true);
	assert_int_equal(open_as(place, SPOOL_READ), SPOOL_FULL);
	assert_true(stop_failing());
	begin_again(place, false);
	remove_files(place);
	faults.only = "open";
	fail_after(&quota, 0, false);
	assert_int_equal(open_as(place, SPOOL_CREATE), SPOOL_FULL);
	assert_true(stop_failing());
	/* An empty one, that nobody makes a spool of; and who makes one finds no end of locks. */
	write_file(place->path, "", 0);
	fail_after(&io, INT_MAX, false); /* nothing, but nobody waits */
	assert_int_equal(open_as(place, SPOOL_WORK), SPOOL_FOREIGN);
	faults.only = "exec";
	fail_after(&busy, 5, true);
	assert_int_equal(open_as(place, SPOOL_CREATE), SPOOL_BUSY);
	assert_true(stop_failing());
	write_file(place->path, "x", 1);
	assert_int_equal(open_as(place, SPOOL_WORK), SPOOL_FOREIGN);
	faults.kind = 0x6969;
	assert_int_equal(open_failing(place, SPOOL_WORK, NULL, io, INT_MAX, false), SPOOL_FOREIGN);
	assert_non_null(strstr(place->error.sentence, "network"));
	assert_int_equal(open_as(place, SPOOL_READ), SPOOL_OK);
	faults.kind = 0;
	begin_again(place, false);
	((char *)place->begin)[SEAL_AT] = SEAL;
	begin_again(place, false);
	assert_int_equal(open_as(place, SPOOL_WORK), SPOOL_DAMAGED);
}

static void a_name_that_means_something_in_a_uri_is_read_all_the_same(void **state)
{
	struct place *place = *state;
	const struct fault cannot = { .name = "", .sqlite = SQLITE_CANTOPEN };
	begin_again(place, false);
	(void)snprintf(place->path, sizeof place->path, "%s/100%% a?b#c.db", place->folder);
	begin_again(place, false);
	faults.only = "exec";
	fail_after(&cannot, 2, false); /* the first look into the file */
	assert_int_equal(open_as(place, SPOOL_READ), SPOOL_OK);
	assert_true(stop_failing());
	struct record record;
	assert_int_equal(spool_load(place->spool, 4, &record), SPOOL_OK);
}

static void limits_beyond_sqlites_own_are_cut(void **state)
{
	struct place *place = *state;
	begin_again(place, false);
	place->spool = spool_open(place->path, SPOOL_WORK, INT64_MAX, &place->error);
	assert_non_null(place->spool);
	assert_int_equal(spool_set_limits(place->spool, INT64_MAX, INT64_C(1) << 40, false), SPOOL_OK);
	struct record record;
	assert_int_equal(spool_load(place->spool, 4, &record), SPOOL_OK);
}

static void who_is_not_root_changes_no_owner(void **state)
{
	struct place *place = *state;
	if (geteuid() != 0)
		skip();
	begin_again(place, false);
	assert_int_equal(chown(place->folder, 0, 65534), 0);
	faults.commoner = true;
	assert_int_equal(spool_mend_access(place->path, &place->error), SPOOL_OK);
	faults.commoner = false;
	faults.only = "fchown";
	fail_after(&io, 0, false);
	assert_int_equal(spool_mend_access(place->path, &place->error), SPOOL_DENIED);
	assert_true(stop_failing());
	assert_int_equal(spool_mend_access(place->path, &place->error), SPOOL_OK);
	struct stat about;
	assert_int_equal(stat(place->path, &about), 0);
	assert_int_equal(about.st_gid, 65534);
}

static void plant(struct place *place, const char *sql)
{
	char *error = NULL;
	if (sqlite3_exec(place->spool->db, sql, NULL, NULL, &error) != SQLITE_OK)
		fail_msg("%s: %s", sql, error);
}

static void what_others_wrote_into_the_books_is_said(void **state)
{
	struct place *place = *state;
	struct spool_ledger ledger;
	begin_again(place, true);
	plant(place, "DELETE FROM dead_letters WHERE id = 9;"
	             "WITH RECURSIVE n(i) AS (SELECT 100 UNION ALL SELECT i + 1 FROM n LIMIT 40) INSERT "
	             "INTO dead_letters (id, uuid, reason) SELECT i, 'u' || i, 'code' || i || ': x' FROM n;"
	             "INSERT INTO dead_letters (id, reason) VALUES (200, 'a code that is longer than any "
	             "that an agent has ever written'), (201, CAST(x'6100' AS TEXT)), (202, 'other')");
	spool_count_reasons(place->spool, 10000, &ledger);
	assert_true(ledger.reasons_counted);
	assert_int_equal(ledger.reason_count, SPOOL_REASONS);
	assert_string_equal(ledger.reasons[0].code, "other");
	spool_count_reasons(place->spool, 0, &ledger);
	assert_false(ledger.reasons_counted);
	assert_true(spool_is_past(&(struct timespec){ 0, 0 }));
	plant(place, "DELETE FROM ledger");
	assert_int_equal(spool_read_counters(place->spool, &ledger), SPOOL_DAMAGED);
}

static void a_fate_of_another_row_is_not_this_ones(void **state)
{
	struct place *place = *state;
	begin_again(place, true);
	plant(place, "UPDATE interactions SET uuid = 'short' WHERE id = 4");
	struct spool_change changes[] = {
		{ .kind = CHANGE_DISCARDED, .id = 4, .uuid = "00000000000000000000000000000000" },
		{ .kind = CHANGE_DISCARDED, .id = 5, .uuid = "00000000000000000000000000000000" },
	};
	assert_int_equal(spool_apply(place->spool, changes, COUNT(changes), WALL), SPOOL_OK);
	assert_true(changes[0].missed && changes[1].missed);
	/* Keys are forgotten by the clock, also when it was set back. */
	struct spool_change keyed = { .kind = CHANGE_DELIVERED, .id = 15, .keyed = true };
	assert_int_equal(spool_apply(place->spool, &keyed, 1, WALL), SPOOL_OK);
	keyed.id = 14;
	assert_int_equal(spool_apply(place->spool, &keyed, 1, WALL - 10), SPOOL_OK);
	int64_t id = 0;
	struct spool_receipt receipt;
	assert_int_equal(spool_find_receipt(place->spool, 2, NULL, &receipt), SPOOL_OK);
	char *uuid = ask(place, "SELECT uuid FROM interactions WHERE id = 7");
	assert_int_equal(spool_find_uuid(place->spool, uuid, &id), SPOOL_OK);
	assert_int_equal(id, 7);
	free(uuid);
}

static void a_row_at_the_last_id_ends_the_search(void **state)
{
	struct place *place = *state;
	int64_t next;
	begin_again(place, true);
	plant(place, "INSERT INTO interactions (id, request_body, response_body) VALUES "
	             "(9223372036854775807, 'q', '{}')");
	assert_int_equal(spool_pass_damage(place->spool, false, INT64_MAX, INT64_MAX, &next), SPOOL_END);
}

/* Overwrites the page that a text stands in. */
static void damage_page_of(struct place *place, const char *text)
{
	char *found = memmem(place->begin, place->begin_size, text, strlen(text));
	assert_non_null(found);
	memset((char *)place->begin + (found - (char *)place->begin) / 4096 * 4096, 0xA5, 4096);
}

static void reading_goes_on_behind_damaged_pages_and_ends_at_the_last(void **state)
{
	struct place *place = *state;
	begin_again(place, true);
	plant(place, "WITH RECURSIVE n(i) AS (SELECT 101 UNION ALL SELECT i + 1 FROM n LIMIT 300) INSERT "
	             "INTO interactions (id, request_body, response_body) SELECT i, 'no. ' || i || "
	             "hex(zeroblob(200)), '{}' FROM n");
	keep_as_beginning(place);
	for (int i = 150; i <= 400; i++) {
		char text[32];
		(void)snprintf(text, sizeof text, "no. %d0", i);
		if ((i <= 250 || i >= 320) && memmem(place->begin, place->begin_size, text, strlen(text)))
			damage_page_of(place, text);
	}
	begin_again(place, true);
	int64_t from = SPOOL_FIRST_ID, next;
	int read = 0, passed = 0;
	for (;;) {
		struct record record;
		enum spool_status status = spool_next_record(place->spool, from, INT64_MAX, &record);
		if (status == SPOOL_OK) {
			from = record.id + 1;
			read++;
			continue;
		}
		if (status == SPOOL_END)
			break;
		assert_int_equal(status, SPOOL_DAMAGED);
		passed++;
		if (spool_pass_damage(place->spool, false, from, INT64_MAX, &next) != SPOOL_OK)
			break;
		assert_true(next > from);
		from = next;
	}
	assert_int_equal(passed, 2);
	assert_in_range(read, 300 + WAITING - 101 - 81 - 40, 300 + WAITING - 101 - 81);
	assert_int_equal(spool_pass_damage(place->spool, false, 400, 400, &next), SPOOL_END);
}

static void rows_out_of_order_send_nobody_in_circles(void **state)
{
	struct place *place = *state;
	begin_again(place, true);
	char *root = ask(place, "SELECT rootpage FROM sqlite_master WHERE name = 'interactions'");
	uint8_t *page = (uint8_t *)place->begin + 4096 * (atol(root) - 1), first[2];
	free(root);
	assert_int_equal(page[0], 0x0D);
	unsigned last = 8 + 2 * ((unsigned)page[3] * 256 + page[4] - 1);
	memcpy(first, page + 8, 2);
	memcpy(page + 8, page + last, 2);
	memcpy(page + last, first, 2);
	begin_again(place, true);
	int64_t from = SPOOL_FIRST_ID, next;
	for (int steps = 0; steps < 40; steps++) {
		struct spool_place found;
		enum spool_status status = spool_next(place->spool, from, INT64_MAX, &found);
		if (status == SPOOL_OK)
			next = found.id + 1;
		else if (status == SPOOL_END ||
		         spool_pass_damage(place->spool, false, from, INT64_MAX, &next) != SPOOL_OK)
			return;
		assert_true(next > from);
		from = next;
	}
	fail_msg("goes in circles");
}

static void a_file_without_auto_vacuum_keeps_its_pages(void **state)
{
	struct place *place = *state;
	bool more = true;
	begin_again(place, false);
	remove_files(place);
	execute(place->path, spool_schema());
	execute(place->path, "PRAGMA application_id = 0x52636679; PRAGMA user_version = 2;"
	        "INSERT INTO interactions (model_id, request_body, response_body) VALUES "
	        "('m', zeroblob(4096 * 1100), '{}'); DELETE FROM interactions");
	assert_int_equal(open_as(place, SPOOL_WORK), SPOOL_OK);
	assert_true(spool_has_room(place->spool));
	assert_int_equal(spool_shrink(place->spool, &more), SPOOL_OK);
	assert_false(more);
}

static void an_import_is_kept_out_of_tables_that_are_not_the_schemas(void **state)
{
	struct place *place = *state;
	begin_again(place, true);
	spool_import_abort(place->spool);
	plant(place, "CREATE TABLE a (x); CREATE TABLE b (x)");
	assert_int_equal(spool_import_start(place->spool), SPOOL_OK);
	assert_int_equal(spool_import_begin(place->spool), SPOOL_REFUSED);
}

static void each_statement_of_a_change_fails_in_turn(void **state)
{
	static const struct operation changing[] = {
		{ .name = "importing", .run = import, .once = true },
		{ .name = "settling dead letters", .run = settle_dead },
		{ .name = "settling revived ones", .run = settle_revived },
		{ .name = "settling what was delivered", .run = settle_delivered,
		  .may_go = "4, 5, 13, 14, 15" },
	};
	static const struct fault failures[] = { { .name = "damage", .sqlite = SQLITE_CORRUPT },
		                                 { .name = "an I/O error", .sqlite = SQLITE_IOERR },
		                                 { .name = "a rule", .sqlite = SQLITE_CONSTRAINT },
		                                 { .name = "size", .sqlite = SQLITE_TOOBIG } };
	struct place *place = *state;
	place->passing = false;
	for (size_t i = 0; i < COUNT(changing); i++)
		for (size_t j = 0; j < COUNT(failures); j++) {
			bool struck = true;
			for (int call = 0; struck; call++) {
				faults.only = j == 1 ? "prepare" : "step";
				struck = attempt(place, &changing[i], &failures[j], call, false, "", "");
			}
		}
}

static void a_dead_letter_that_only_its_index_knows_is_not_swept_again_and_again(void **state)
{
	struct place *place = *state;
	const struct spool_keep keep = { .dead = 50000, .delivered = INT64_MAX };
	struct spool_swept swept;
	char sql[300];
	begin_again(place, false);
	char *root = ask(place, "SELECT rootpage FROM sqlite_master WHERE name = 'dead_letters_died'");
	execute(place->path, "PRAGMA writable_schema = ON; DELETE FROM sqlite_master WHERE name = "
	        "'dead_letters_died'");
	execute(place->path, "DELETE FROM dead_letters WHERE id = 3");
	(void)snprintf(sql, sizeof sql, "PRAGMA writable_schema = ON; INSERT INTO sqlite_master VALUES "
	               "('index', 'dead_letters_died', 'dead_letters', %s, "
	               "'CREATE INDEX dead_letters_died ON dead_letters (died_at)')", root);
	execute(place->path, sql);
	free(root);
	assert_int_equal(open_as(place, SPOOL_WORK), SPOOL_OK);
	assert_int_equal(spool_sweep(place->spool, &keep, WALL, &swept), SPOOL_OK);
	assert_int_equal(swept.dead, 0);
	assert_false(swept.more);
}

/* Damage sends a settle a longer way round, on which the storage can fail, too. */
static void a_settle_around_damage_can_fail_and_be_repeated(void **state)
{
	static const char *const tables[] = { "known_keys", "interactions", "attempts" };
	static const char *const calls[] = { "step", "prepare" };
	struct place *place = *state;
	for (size_t i = 0; i < 2 * COUNT(tables); i++) {
		char sql[100];
		begin_again(place, false);
		(void)snprintf(sql, sizeof sql, "SELECT rootpage FROM sqlite_master WHERE name = '%s'",
		               tables[i / 2]);
		char *root = ask(place, sql), *page = (char *)place->begin + 4096 * (atol(root) - 1);
		char sound[4096];
		memcpy(sound, page, sizeof sound);
		memset(page, 0xA5, sizeof sound);
		bool struck = true;
		for (int call = 0; struck; call++) {
			begin_again(place, true);
			faults.only = calls[i % 2];
			fail_after(&io, call, false);
			enum spool_status status = settle_delivered(place);
			struck = stop_failing();
			if (status != SPOOL_OK)
				assert_int_equal(status, spool_last_error(place->spool)->status);
			assert_int_equal(settle_delivered(place), SPOOL_OK);
		}
		memcpy(page, sound, sizeof sound);
		free(root);
	}
}

static void make_it(void *context)
{
	struct place *place = context;
	faults.fault = NULL;
	faults.meanwhile = NULL;
	write_file(place->path, place->begin, place->begin_size);
}

static void a_spool_that_another_made_meanwhile_is_opened(void **state)
{
	struct place *place = *state;
	const struct fault busy = { .name = "", .sqlite = SQLITE_BUSY };
	begin_again(place, false);
	remove_files(place);
	faults.meanwhile = make_it;
	faults.context = place;
	faults.only = "exec";
	fail_after(&busy, 7, false);
	assert_int_equal(open_as(place, SPOOL_CREATE), SPOOL_OK);
	(void)stop_failing();
	faults.meanwhile = NULL;
	assert_int_equal(unlink(place->path), 0);
	assert_int_equal(symlink("/dev/null", place->path), 0);
	assert_true(spool_was_replaced(place->spool, NULL));
}

/* --- A salvage, in one place ---------------------------------------------- */

static void a_sound_spool_is_left_alone_and_one_that_lacks_something_is_not(void **state)
{
	struct place *place = *state;
	struct salvage_report report;
	begin_again(place, true);
	plant(place, "CREATE TABLE anybodys (x)");
	spool_close(place->spool);
	place->spool = NULL;
	assert_int_equal(salvage(place, &report), SPOOL_OK);
	assert_false(report.needed);
	execute(place->path, "DROP TRIGGER interactions_check");
	assert_int_equal(salvage(place, &report), SPOOL_OK);
	assert_true(report.needed);
	assert_int_equal(report.waiting, WAITING);
	/* A storage that fails while it is looked at is a reason to read with care. */
	static const struct {
		const struct fault *fault;
		const char *only;
	} cases[] = { { &io, "exec" }, { &io, "open" }, { &lasting[1], "exec" },
		      { &lasting[1], "prepare" } };
	for (size_t i = 0; i < COUNT(cases); i++) {
		for (int calls = 0;; calls++) {
			begin_again(place, false);
			faults.only = cases[i].only;
			fail_after(cases[i].fault, calls, false);
			(void)salvage(place, &report);
			if (!stop_failing())
				break;
			assert_int_equal(salvage(place, &report), SPOOL_OK);
			assert_int_equal(open_as(place, SPOOL_WORK), SPOOL_OK);
			char *count = ask(place, "SELECT count(*) FROM interactions");
			assert_string_equal(count, "9");
			free(count);
		}
	}
}

static void each_call_to_the_system_of_a_salvage_fails_in_turn(void **state)
{
	struct place *place = *state;
	struct salvage_report report;
	const struct fault alone[] = { { .name = "an I/O error", .system = EIO },
		                       { .name = "no permission", .system = EACCES } };
	begin_again(place, false);
	damage_an_index(place);
	begin_again(place, false);
	assert_int_equal(salvage(place, &report), SPOOL_OK);
	assert_int_equal(open_as(place, SPOOL_WORK), SPOOL_OK);
	char *wanted = contents(place);
	static const char *const calls[] = { "open", "fsync", "fdatasync", "link", "stat", "unlink",
		                             "rename", "fcntl", "fstat", "sqlite3_close" };
	for (size_t i = 0; i < COUNT(calls); i++) {
		bool struck = true;
		for (int call = 0; struck; call++) {
			faults.only = calls[i];
			struck = salvage_around(place, i == 9 ? &io : &alone[call % 2], call, false, false,
			                        wanted);
			assert_true(struck || call > 0);
		}
	}
	free(wanted);
}

static void a_salvage_says_what_is_in_its_way(void **state)
{
	struct place *place = *state;
	struct salvage_report report;
	char name[700], wal[160];
	const struct fault locked = { .name = "", .system = EAGAIN };
	begin_again(place, true);
	damage_an_index(place);
	begin_again(place, false);
	faults.only = "fcntl";
	fail_after(&locked, 0, false); /* by somebody who has gone when it is asked who */
	assert_int_equal(spool_salvage(place->path, WALL, 0, &report, &place->error), SPOOL_BUSY);
	assert_true(stop_failing());
	faults.only = "fcntl";
	fail_after(&locked, 0, true);
	assert_int_equal(spool_salvage(place->path, WALL, 0, &report, &place->error), SPOOL_BUSY);
	assert_true(stop_failing());
	/* A name that is longer than SQLite's. */
	int size = snprintf(name, sizeof name, "%s", place->folder);
	while (size < 520)
		size += snprintf(name + size, sizeof name - (size_t)size, "/.");
	(void)snprintf(name + size, sizeof name - (size_t)size, "/spool.db");
	assert_int_equal(spool_salvage(name, WALL, 0, &report, &place->error), SPOOL_IO);
	assert_non_null(strstr(place->error.sentence, "too long"));
	(void)snprintf(name, sizeof name, "%s-salvage-wal", place->path);
	write_file(name, "unfinished", 10);
	/* Another name of the file's, which no salvage gave it. */
	(void)snprintf(name, sizeof name, "%s/another", place->folder);
	assert_int_equal(link(place->path, name), 0);
	assert_int_equal(salvage(place, &report), SPOOL_OK);
	/* What somebody wrote beside it since a salvage was cut short is set aside, too. */
	begin_again(place, false);
	cut_a_salvage_short(place);
	(void)snprintf(wal, sizeof wal, "%s-wal", place->path);
	write_file(wal, "no log", 6);
	assert_int_equal(salvage(place, &report), SPOOL_OK);
	begin_again(place, false);
	write_file(place->path, "", 0);
	assert_int_equal(salvage(place, &report), SPOOL_FOREIGN);
	((char *)place->begin)[63] = 99; /* user_version; and its tables cannot be read */
	memset((char *)place->begin + 100, 0xA5, 100);
	begin_again(place, false);
	assert_int_equal(salvage(place, &report), SPOOL_NEWER);
}

int main(void)
{
#define HOLDS(test) cmocka_unit_test_setup_teardown(test, open_place, close_place)
	const struct CMUnitTest tests[] = {
		HOLDS(reading_fails_with_a_sentence_or_reads_all),
		HOLDS(a_settle_that_fails_has_done_nothing_and_can_be_repeated),
		HOLDS(a_look_fails_with_a_sentence_or_sees_all),
		HOLDS(an_opening_that_fails_leaves_the_file_as_it_is),
		HOLDS(a_migration_that_fails_has_done_nothing_and_can_be_repeated),
		HOLDS(an_import_that_fails_has_added_nothing_and_can_be_repeated),
		HOLDS(a_shrinking_that_fails_keeps_all),
		HOLDS(a_salvage_that_fails_can_be_repeated_and_keeps_all),
		HOLDS(a_run_that_cannot_leave_at_once_leaves_later),
		HOLDS(what_cannot_leave_together_leaves_one_by_one),
		HOLDS(what_cannot_leave_at_all_is_refused_and_keeps_back_nothing_else),
		HOLDS(what_is_refused_keeps_nothing_of_its_run_back),
		HOLDS(the_wal_is_copied_back_after_the_settle_and_only_while_it_surely_has_something),
		HOLDS(damage_may_be_the_last_that_was_asked_for),
		HOLDS(a_salvage_of_what_is_badly_damaged_may_fail_anywhere),
		HOLDS(what_the_storage_does_not_give_is_told_to_be_lost),
		HOLDS(each_answer_of_sqlite_is_told_apart),
		HOLDS(what_a_disk_does_not_give_counts_as_damaged_after_a_minute),
		HOLDS(the_fix_of_the_wal_reset_fault_is_known_by_its_versions),
		HOLDS(an_opening_says_what_is_in_its_way),
		HOLDS(a_name_that_means_something_in_a_uri_is_read_all_the_same),
		HOLDS(limits_beyond_sqlites_own_are_cut),
		HOLDS(who_is_not_root_changes_no_owner),
		HOLDS(what_others_wrote_into_the_books_is_said),
		HOLDS(a_fate_of_another_row_is_not_this_ones),
		HOLDS(a_row_at_the_last_id_ends_the_search),
		HOLDS(reading_goes_on_behind_damaged_pages_and_ends_at_the_last),
		HOLDS(rows_out_of_order_send_nobody_in_circles),
		HOLDS(a_file_without_auto_vacuum_keeps_its_pages),
		HOLDS(an_import_is_kept_out_of_tables_that_are_not_the_schemas),
		HOLDS(each_statement_of_a_change_fails_in_turn),
		HOLDS(a_dead_letter_that_only_its_index_knows_is_not_swept_again_and_again),
		HOLDS(a_settle_around_damage_can_fail_and_be_repeated),
		HOLDS(a_spool_that_another_made_meanwhile_is_opened),
		HOLDS(a_sound_spool_is_left_alone_and_one_that_lacks_something_is_not),
		HOLDS(each_call_to_the_system_of_a_salvage_fails_in_turn),
		HOLDS(a_salvage_says_what_is_in_its_way),
	};
	return cmocka_run_group_tests_name("spool failures", tests, NULL, NULL);
}
