/* The spool's contract, on real files in a temporary folder, with a second, plain
 * connection as the producer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool/migrate.h"
#include "spool/spool.h"

#define WALL INT64_C(1700000000000)
#define LIMIT (4 << 20)

struct place {
	char folder[64], path[128];
	struct spool *spool;
	sqlite3 *producer;
	struct spool_error error;
};

static void execute(const struct place *place, const char *sql)
{
	char *error = NULL;
	if (sqlite3_exec(place->producer, sql, NULL, NULL, &error) != SQLITE_OK)
		fail_msg("%s: %s", sql, error);
}

static int64_t ask(const struct place *place, const char *sql)
{
	sqlite3_stmt *statement = NULL;
	if (sqlite3_prepare_v2(place->producer, sql, -1, &statement, NULL) != SQLITE_OK)
		fail_msg("%s: %s", sql, sqlite3_errmsg(place->producer));
	assert_int_equal(sqlite3_step(statement), SQLITE_ROW);
	int64_t value = sqlite3_column_int64(statement, 0);
	(void)sqlite3_finalize(statement);
	return value;
}

static int open_place(void **state)
{
	struct place *place = calloc(1, sizeof *place);
	const char *base = getenv("TMPDIR");
	if (place == NULL)
		return -1;
	(void)snprintf(place->folder, sizeof place->folder, "%.40s/spool-XXXXXX",
	               base != NULL ? base : "/tmp");
	if (mkdtemp(place->folder) == NULL)
		return -1;
	(void)snprintf(place->path, sizeof place->path, "%s/spool.db", place->folder);
	place->spool = spool_open(place->path, SPOOL_CREATE, LIMIT, &place->error);
	if (place->spool == NULL || sqlite3_open(place->path, &place->producer) != SQLITE_OK)
		return -1;
	(void)sqlite3_busy_timeout(place->producer, 5000);
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
	(void)sqlite3_close(place->producer);
	(void)nftw(place->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(place);
	return 0;
}

static void insert(const struct place *place, int count)
{
	for (int i = 0; i < count; i++)
		execute(place, "INSERT INTO interactions (model_id, request_body, response_body, session) "
		               "VALUES ('m', 'q', '{}', 's')");
}

static bool balanced(const struct place *place)
{
	return ask(place, "SELECT accepted = delivered + dead + discarded + dropped + purged + removed "
	                  "+ (SELECT count(*) FROM interactions) AND dead = (SELECT count(*) FROM "
	                  "dead_letters) FROM ledger") == 1;
}

/* The change for a row as it stands in the spool. */
static struct spool_change change_for(struct place *place, enum spool_change_kind kind, int64_t id)
{
	struct record record;
	struct spool_change change = { .kind = kind, .id = id, .code = "code",
		                       .sentence = "a sentence" };
	assert_int_equal(spool_begin_read(place->spool), SPOOL_OK);
	assert_int_equal(spool_load(place->spool, id, &record), SPOOL_OK);
	memcpy(change.uuid, record.uuid.bytes, RECORD_UUID_SIZE);
	change.bytes = record_bytes(&record);
	change.keyed = record.key.bytes != NULL;
	spool_end_read(place->spool);
	return change;
}

static void apply(struct place *place, struct spool_change *change)
{
	if (spool_apply(place->spool, change, 1, WALL) != SPOOL_OK)
		fail_msg("%s", spool_last_error(place->spool)->sentence);
}

/* --- Opening ------------------------------------------------------------ */

static void a_created_spool_has_its_mode_whatever_the_umask(void **state)
{
	struct place *place = *state;
	struct stat about;
	char path[160];
	(void)snprintf(path, sizeof path, "%s/other.db", place->folder);
	mode_t before = umask(0077);
	struct spool *other = spool_open(path, SPOOL_CREATE, LIMIT, &place->error);
	(void)umask(before);
	assert_non_null(other);
	assert_int_equal(stat(path, &about), 0);
	assert_int_equal(about.st_mode & 0777, 0660);
	(void)strcat(path, "-wal");
	assert_int_equal(stat(path, &about), 0);
	assert_int_equal(about.st_mode & 0777, 0660);
	spool_close(other);
}

static void a_missing_file_is_created_only_when_asked(void **state)
{
	struct place *place = *state;
	char path[160];
	struct stat about;
	(void)snprintf(path, sizeof path, "%s/none.db", place->folder);
	assert_null(spool_open(path, SPOOL_READ, LIMIT, &place->error));
	assert_int_equal(place->error.status, SPOOL_MISSING);
	assert_null(spool_open(path, SPOOL_WORK, LIMIT, &place->error));
	assert_int_equal(place->error.status, SPOOL_MISSING);
	assert_int_not_equal(stat(path, &about), 0);
	(void)snprintf(path, sizeof path, "%s/none/none.db", place->folder);
	assert_null(spool_open(path, SPOOL_CREATE, LIMIT, &place->error));
	assert_int_equal(place->error.status, SPOOL_NO_FOLDER);
	assert_non_null(strstr(place->error.sentence, path));
}

static void newer_foreign_and_empty_files_are_told_apart(void **state)
{
	struct place *place = *state;
	char path[160];
	static const struct {
		const char *sql;
		enum spool_status status;
	} cases[] = {
		{ "CREATE TABLE t (a)", SPOOL_FOREIGN },
		{ "PRAGMA application_id = 0x52636679; PRAGMA user_version = 3; CREATE TABLE t (a)",
		  SPOOL_NEWER },
		{ "PRAGMA application_id = 0x52636679; CREATE TABLE t (a)", SPOOL_FOREIGN },
		{ "PRAGMA application_id = 7; PRAGMA user_version = 1; CREATE TABLE t (a)",
		  SPOOL_FOREIGN },
		{ "PRAGMA user_version = 1; CREATE TABLE interactions (a)", SPOOL_FOREIGN },
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		sqlite3 *db = NULL;
		(void)snprintf(path, sizeof path, "%s/%zu.db", place->folder, i);
		assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
		assert_int_equal(sqlite3_exec(db, cases[i].sql, NULL, NULL, NULL), SQLITE_OK);
		(void)sqlite3_close(db);
		for (int mode = SPOOL_READ; mode <= SPOOL_CREATE; mode++) {
			assert_null(spool_open(path, (enum spool_mode)mode, LIMIT, &place->error));
			assert_int_equal(place->error.status, cases[i].status);
			assert_non_null(strstr(place->error.sentence, path));
		}
	}
}

static void a_replaced_file_is_noticed_and_a_nameless_one_too(void **state)
{
	struct place *place = *state;
	char moved[160];
	bool orphaned = true;
	assert_false(spool_was_replaced(place->spool, &orphaned));
	assert_false(orphaned);
	(void)snprintf(moved, sizeof moved, "%s-moved", place->path);
	assert_int_equal(rename(place->path, moved), 0);
	assert_true(spool_was_replaced(place->spool, &orphaned));
	assert_false(orphaned);
	assert_int_equal(unlink(moved), 0);
	assert_true(spool_was_replaced(place->spool, &orphaned));
	assert_true(orphaned);
	int file = open(place->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(file >= 0);
	(void)close(file);
	assert_true(spool_was_replaced(place->spool, NULL));
}

/* --- Reading ------------------------------------------------------------ */

static void rows_come_in_order_and_only_those_asked_for(void **state)
{
	struct place *place = *state;
	struct spool_place at;
	insert(place, 20);
	execute(place, "DELETE FROM interactions WHERE id % 3 = 0");
	assert_int_equal(spool_begin_read(place->spool), SPOOL_OK);
	int64_t from = 2, seen = 0;
	enum spool_status status;
	while ((status = spool_next(place->spool, from, 17, &at)) == SPOOL_OK) {
		assert_true(at.id >= from && at.id <= 17 && at.id % 3 != 0);
		assert_memory_equal(at.app.bytes, "default", 7);
		from = at.id + 1;
		seen++;
	}
	assert_int_equal(status, SPOOL_END);
	assert_int_equal(seen, 11);
	/* Backwards, and to another end, in the same reading. */
	assert_int_equal(spool_next(place->spool, 1, 4, &at), SPOOL_OK);
	assert_int_equal(at.id, 1);
	assert_int_equal(spool_next(place->spool, 2, 20, &at), SPOOL_OK);
	assert_int_equal(at.id, 2);
	assert_int_equal(spool_next(place->spool, 19, INT64_MAX, &at), SPOOL_OK);
	assert_int_equal(at.id, 19);
	assert_int_equal(spool_next(place->spool, 3, 3, &at), SPOOL_END);
	spool_end_read(place->spool);
}

static void a_reading_sees_one_state(void **state)
{
	struct place *place = *state;
	struct record record;
	struct spool_place at;
	insert(place, 3);
	assert_int_equal(spool_begin_read(place->spool), SPOOL_OK);
	assert_int_equal(spool_next(place->spool, 1, INT64_MAX, &at), SPOOL_OK);
	execute(place, "DELETE FROM interactions");
	assert_int_equal(spool_load(place->spool, 3, &record), SPOOL_OK);
	spool_end_read(place->spool);
	assert_int_equal(spool_begin_read(place->spool), SPOOL_OK);
	assert_int_equal(spool_load(place->spool, 3, &record), SPOOL_END);
	spool_end_read(place->spool);
}

static void a_record_is_read_byte_for_byte(void **state)
{
	struct place *place = *state;
	struct record record;
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body, session, "
	               "session_timeout, is_authenticated, user_id, key) VALUES ('', "
	               "CAST(x'61006200' AS TEXT), x'7b7d', '', 0, 0, 'u', 'k')");
	assert_int_equal(spool_begin_read(place->spool), SPOOL_OK);
	assert_int_equal(spool_load(place->spool, 1, &record), SPOOL_OK);
	assert_non_null(record.model_id.bytes);
	assert_int_equal(record.model_id.size, 0);
	assert_int_equal(record.request_body.size, 4);
	assert_memory_equal(record.request_body.bytes, "a\0b\0", 4);
	assert_memory_equal(record.response_body.bytes, "{}", 2);
	assert_non_null(record.session.bytes);
	assert_int_equal(record.session.size, 0);
	assert_int_equal(record.session_timeout.state, NUMBER_SET);
	assert_int_equal(record.is_authenticated.value, 0);
	assert_null(record.email.bytes);
	assert_int_equal(record.response_at.state, NUMBER_ABSENT);
	assert_int_equal(record.uuid.size, RECORD_UUID_SIZE);
	spool_end_read(place->spool);
}

static void the_triggers_count_bytes_as_record_bytes_does(void **state)
{
	struct place *place = *state;
	struct record record;
	int64_t sum = 0;
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body, session, email, "
	               "key, request_extra, app) VALUES ('mö', x'00ff00', '[1]', 's', 'e@f', 'k', "
	               "'{\"a\":1}', 'other')");
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body, app, format, "
	               "type) VALUES ('m', '', '{}', NULL, NULL, NULL)");
	assert_int_equal(spool_begin_read(place->spool), SPOOL_OK);
	for (int64_t id = 1; id <= 2; id++) {
		assert_int_equal(spool_load(place->spool, id, &record), SPOOL_OK);
		sum += record_bytes(&record);
	}
	spool_end_read(place->spool);
	assert_int_equal(ask(place, "SELECT in_bytes - out_bytes FROM ledger"), sum);
}

static void a_row_above_the_limit_is_too_big_and_can_still_be_buried(void **state)
{
	struct place *place = *state;
	struct record record;
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body) "
	               "VALUES ('m', zeroblob(6000000), '{}')");
	assert_int_equal(spool_begin_read(place->spool), SPOOL_OK);
	assert_int_equal(spool_load(place->spool, 1, &record), SPOOL_TOO_BIG);
	spool_end_read(place->spool);
	struct spool_change change = { .kind = CHANGE_DEAD, .id = 1, .code = "too-big",
		                       .sentence = "too big" };
	apply(place, &change);
	assert_int_equal(ask(place, "SELECT length(request_body) FROM dead_letters"), 6000000);
	assert_true(balanced(place));
}

/* A session or an app is read to find out whose turn it is: also such a row must
 * not stop the reading of what comes behind it. */
static void a_place_whose_session_is_above_the_limit_stops_no_reading(void **state)
{
	struct place *place = *state;
	struct spool_place at;
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body, session) "
	               "VALUES ('m', 'q', '{}', hex(zeroblob(3000000)))");
	insert(place, 1);
	assert_int_equal(spool_begin_read(place->spool), SPOOL_OK);
	enum spool_status first = spool_next(place->spool, 1, INT64_MAX, &at);
	assert_true(first == SPOOL_OK || first == SPOOL_TOO_BIG);
	assert_int_equal(at.id, 1);
	assert_int_equal(spool_next(place->spool, 2, INT64_MAX, &at), SPOOL_OK);
	assert_int_equal(at.id, 2);
	spool_end_read(place->spool);
}

/* --- Settling ----------------------------------------------------------- */

static void a_delivered_row_leaves_and_its_key_stays_known_for_a_day(void **state)
{
	struct place *place = *state;
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body, key) "
	               "VALUES ('m', 'q', '{}', 'k')");
	struct spool_change change = change_for(place, CHANGE_DELIVERED, 1);
	assert_true(change.keyed);
	apply(place, &change);
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions"), 0);
	assert_int_equal(ask(place, "SELECT in_bytes = out_bytes FROM ledger"), 1);
	assert_int_equal(ask(place, "SELECT delivered_at FROM known_keys WHERE key = 'k'"), WALL);
	assert_true(balanced(place));
	/* A day later it is forgotten, by the next settle of a row with a key. */
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body, key) "
	               "VALUES ('m', 'q', '{}', 'other')");
	change = change_for(place, CHANGE_DELIVERED, 2);
	assert_int_equal(spool_apply(place->spool, &change, 1, WALL + 25 * 3600 * 1000), SPOOL_OK);
	assert_int_equal(ask(place, "SELECT count(*) FROM known_keys WHERE key = 'k'"), 0);
}

static void a_fate_is_applied_once_and_to_the_same_row_only(void **state)
{
	struct place *place = *state;
	insert(place, 2);
	struct spool_change change = change_for(place, CHANGE_DELIVERED, 1);
	change.uuid[0] = change.uuid[0] == 'a' ? 'b' : 'a'; /* it has become another */
	apply(place, &change);
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions"), 2);
	assert_int_equal(ask(place, "SELECT delivered FROM ledger"), 0);
	change = change_for(place, CHANGE_DELIVERED, 1);
	apply(place, &change);
	apply(place, &change);
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions"), 1);
	assert_int_equal(ask(place, "SELECT delivered FROM ledger"), 1);
	change.kind = CHANGE_DEAD;
	apply(place, &change);
	assert_int_equal(ask(place, "SELECT count(*) FROM dead_letters"), 0);
	assert_true(balanced(place));
}

static void a_row_whose_uuid_is_a_blob_can_be_settled(void **state)
{
	struct place *place = *state;
	execute(place, "DROP TRIGGER interactions_check");
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body, uuid) VALUES "
	               "('m', 'q', '{}', CAST('0123456789abcdef0123456789abcdef' AS BLOB))");
	struct spool_change change = change_for(place, CHANGE_DELIVERED, 1);
	apply(place, &change);
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions"), 0);
}

static void a_dead_letter_keeps_all_and_says_why(void **state)
{
	struct place *place = *state;
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body, key) "
	               "VALUES ('m', x'00ff', '{}', 'k')");
	struct spool_change change = change_for(place, CHANGE_DEAD, 1);
	change.http_status = 422;
	change.attempts = 3;
	change.server_said = "no\0no";
	change.server_said_size = 5;
	apply(place, &change);
	assert_int_equal(ask(place, "SELECT count(*) FROM dead_letters WHERE id = 1 AND request_body = "
	                            "x'00ff' AND reason = 'code: a sentence' AND http_status = 422 AND "
	                            "attempts = 3 AND length(server_said) = 5 AND key = 'k'"), 1);
	assert_int_equal(ask(place, "SELECT died_at FROM dead_letters"), WALL);
	assert_int_equal(ask(place, "SELECT count(*) FROM known_keys WHERE delivered_at IS NULL"), 1);
	assert_true(balanced(place));
	struct record record;
	struct text reason, said;
	assert_int_equal(spool_load_dead(place->spool, 1, &record, &reason, &said), SPOOL_OK);
	assert_int_equal(said.size, 5);
	assert_int_equal(spool_load_dead(place->spool, 2, &record, &reason, &said), SPOOL_END);
}

static void a_revived_dead_letter_is_what_it_was(void **state)
{
	struct place *place = *state;
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body, key) "
	               "VALUES ('m', 'q', '{}', 'k')");
	struct spool_change change = change_for(place, CHANGE_DEAD, 1);
	int64_t bytes = ask(place, "SELECT in_bytes - out_bytes FROM ledger");
	apply(place, &change);
	change.kind = CHANGE_REVIVED;
	apply(place, &change);
	apply(place, &change); /* a second time: nothing */
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions WHERE id = 1 AND key = 'k'"), 1);
	assert_int_equal(ask(place, "SELECT count(*) FROM known_keys"), 0);
	assert_int_equal(ask(place, "SELECT in_bytes - out_bytes FROM ledger"), bytes);
	assert_true(balanced(place));
}

static void a_dead_letter_whose_id_is_taken_goes_under_another(void **state)
{
	struct place *place = *state;
	insert(place, 1);
	struct spool_change change = change_for(place, CHANGE_DEAD, 1);
	apply(place, &change);
	execute(place, "DROP TRIGGER interactions_check");
	execute(place, "DROP TRIGGER interactions_count");
	execute(place, "INSERT INTO interactions (id, model_id, request_body, response_body) "
	               "VALUES (1, 'm', 'second', '{}')");
	change = change_for(place, CHANGE_DEAD, 1);
	apply(place, &change);
	assert_int_equal(ask(place, "SELECT count(*) FROM dead_letters"), 2);
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions"), 0);
}

/* One fate that cannot be written must not undo, or keep back, the others. */
static void a_dead_letter_that_is_refused_keeps_back_no_delivery(void **state)
{
	struct place *place = *state;
	execute(place, "CREATE UNIQUE INDEX evil ON dead_letters (app)");
	insert(place, 4);
	struct spool_change changes[] = {
		change_for(place, CHANGE_DELIVERED, 1), change_for(place, CHANGE_DEAD, 2),
		change_for(place, CHANGE_DEAD, 3), change_for(place, CHANGE_DELIVERED, 4)
	};
	(void)spool_apply(place->spool, changes, 4, WALL);
	assert_int_equal(ask(place, "SELECT delivered FROM ledger"), 2);
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions"), 1);
	assert_true(balanced(place));
}

static void no_trigger_of_a_producer_runs(void **state)
{
	struct place *place = *state;
	insert(place, 2);
	execute(place, "CREATE TRIGGER evil BEFORE DELETE ON interactions BEGIN SELECT RAISE(IGNORE); END");
	execute(place, "CREATE TRIGGER evil2 BEFORE INSERT ON dead_letters BEGIN SELECT RAISE(ABORT, 'x'); "
	               "END");
	struct spool_change changes[] = { change_for(place, CHANGE_DELIVERED, 1),
		                          change_for(place, CHANGE_DEAD, 2) };
	assert_int_equal(spool_apply(place->spool, changes, 2, WALL), SPOOL_OK);
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions"), 0);
	assert_int_equal(ask(place, "SELECT count(*) FROM dead_letters"), 1);
}

static void a_lock_held_elsewhere_is_busy_and_changes_nothing(void **state)
{
	struct place *place = *state;
	insert(place, 1);
	struct spool_change change = change_for(place, CHANGE_DELIVERED, 1);
	execute(place, "BEGIN IMMEDIATE");
	assert_int_equal(spool_apply(place->spool, &change, 1, WALL), SPOOL_BUSY);
	assert_non_null(strstr(spool_last_error(place->spool)->sentence, place->path));
	execute(place, "COMMIT");
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions"), 1);
	apply(place, &change);
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions"), 0);
}

static void attempts_and_notes_are_kept(void **state)
{
	struct place *place = *state;
	const struct text uuid = { "0123456789abcdef0123456789abcdef", RECORD_UUID_SIZE };
	const struct text other = { "1123456789abcdef0123456789abcdef", RECORD_UUID_SIZE };
	unsigned attempts = 9;
	insert(place, 1);
	assert_int_equal(spool_attempts(place->spool, 1, uuid, &attempts), SPOOL_OK);
	assert_int_equal(attempts, 0);
	struct spool_change changes[] = {
		{ .kind = CHANGE_ATTEMPTS, .id = 1, .attempts = 5 },
		{ .kind = CHANGE_NOTE, .name = "report", .value = "{}" }
	};
	assert_int_equal(spool_apply(place->spool, changes, 2, WALL), SPOOL_OK);
	assert_int_equal(spool_attempts(place->spool, 1, uuid, &attempts), SPOOL_OK);
	assert_int_equal(attempts, 5);

	/* That it was delivered is said of a record, not of whoever has its id. */
	char sql[120];
	(void)snprintf(sql, sizeof sql, "UPDATE attempts SET attempts = %" PRId64,
	               record_delivered_mark(uuid));
	execute(place, sql);
	assert_int_equal(spool_attempts(place->spool, 1, uuid, &attempts), SPOOL_OK);
	assert_true(attempts == SPOOL_DELIVERED);
	assert_int_equal(spool_attempts(place->spool, 1, other, &attempts), SPOOL_OK);
	assert_int_equal(attempts, 0);
	execute(place, "UPDATE attempts SET attempts = -1");
	assert_int_equal(spool_attempts(place->spool, 1, uuid, &attempts), SPOOL_OK);
	assert_int_equal(attempts, 0);
	execute(place, "UPDATE attempts SET attempts = 1 << 40");
	assert_int_equal(spool_attempts(place->spool, 1, uuid, &attempts), SPOOL_OK);
	assert_int_equal(attempts, INT_MAX);
	char *note = spool_note(place->spool, "report");
	assert_string_equal(note, "{}");
	free(note);
	assert_null(spool_note(place->spool, "none"));
	struct spool_change delivered = change_for(place, CHANGE_DELIVERED, 1);
	delivered.attempts = 5;
	apply(place, &delivered);
	assert_int_equal(ask(place, "SELECT count(*) FROM attempts"), 0);
}

static void limits_are_written_down_for_the_triggers(void **state)
{
	struct place *place = *state;
	assert_int_equal(spool_set_limits(place->spool, 1000, 500, false), SPOOL_OK);
	assert_int_equal(sqlite3_exec(place->producer,
	                              "INSERT INTO interactions (model_id, request_body, response_body) "
	                              "VALUES ('m', zeroblob(600), '{}')", NULL, NULL, NULL),
	                 SQLITE_CONSTRAINT);
	assert_non_null(strstr(sqlite3_errmsg(place->producer), "max_record"));
	struct spool_ledger ledger;
	assert_int_equal(spool_read_ledger(place->spool, 1000, &ledger), SPOOL_OK);
	assert_int_equal(ledger.max_spool, 1000);
	assert_int_equal(ledger.max_record, 500);
	assert_false(ledger.drop_oldest);
	assert_true(ledger.balanced && ledger.counted);
	assert_int_equal(ledger.oldest_at, -1);
}

static void the_wal_stays_small_over_many_settles(void **state)
{
	struct place *place = *state;
	char wal[160];
	struct stat about;
	(void)snprintf(wal, sizeof wal, "%s-wal", place->path);
	for (int64_t id = 1; id <= 1500; id++) {
		insert(place, 1);
		struct spool_change change = change_for(place, CHANGE_DELIVERED, id);
		apply(place, &change);
	}
	assert_int_equal(stat(wal, &about), 0);
	assert_true(about.st_size < 1000 * 4120);
	assert_true(balanced(place));
}

static int found;

static void count_findings(void *context, const char *sentence)
{
	(void)context;
	assert_true(strlen(sentence) > 10);
	found++;
}

static void an_examination_finds_what_is_not_the_schemas(void **state)
{
	struct place *place = *state;
	found = 0;
	assert_int_equal(spool_examine(place->spool, count_findings, NULL), SPOOL_OK);
	assert_int_equal(found, 0);
	execute(place, "DROP TRIGGER interactions_count");
	execute(place, "CREATE TABLE mine (a)");
	execute(place, "CREATE INDEX mine2 ON interactions (session)");
	assert_int_equal(spool_examine(place->spool, count_findings, NULL), SPOOL_OK);
	assert_int_equal(found, 3);
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, open_place, close_place)

static void a_count_that_takes_too_long_is_given_up(void **state)
{
	struct place *place = *state;
	struct spool_ledger ledger;
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body) "
	               "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) "
	               "SELECT 'm', 'q', '{}' FROM n");
	assert_int_equal(spool_read_ledger(place->spool, 0, &ledger), SPOOL_OK);
	assert_false(ledger.counted);
	assert_int_equal(ledger.waiting, 20000);
	assert_true(ledger.balanced);
	assert_int_equal(spool_read_ledger(place->spool, 60000, &ledger), SPOOL_OK);
	assert_true(ledger.counted);
	assert_int_equal(ledger.waiting, 20000);
}

static void a_run_of_delivered_rows_goes_at_once_and_what_was_replaced_in_it_stays(void **state)
{
	struct place *place = *state;
	struct spool_change changes[20];
	insert(place, 20);
	for (int64_t id = 1; id <= 20; id++)
		changes[20 - id] = change_for(place, CHANGE_DELIVERED, id);
	execute(place, "DELETE FROM interactions WHERE id IN (4, 9)");
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body, id) "
	               "VALUES ('m', 'another', '{}', 9); DROP TRIGGER interactions_unchangeable; "
	               "UPDATE interactions SET uuid = 'short' WHERE id = 12");
	assert_int_equal(spool_apply(place->spool, changes, 20, WALL), SPOOL_OK);
	for (int i = 0; i < 20; i++) {
		int64_t id = changes[i].id;
		assert_int_equal(changes[i].missed, id == 4 || id == 9 || id == 12);
	}
	assert_int_equal(ask(place, "SELECT group_concat(id) = '9,12' FROM interactions"), 1);
	assert_int_equal(ask(place, "SELECT delivered FROM ledger"), 17);
	assert_true(balanced(place));
}

static void what_stands_between_delivered_rows_and_is_on_its_way_stays(void **state)
{
	struct place *place = *state;
	struct spool_change changes[15];
	insert(place, 60);
	/* Near each other, then far apart. */
	for (int64_t i = 0; i < 15; i++)
		changes[i] = change_for(place, CHANGE_DELIVERED, i < 13 ? 3 * i + 1 : 20 * i - 221);
	assert_int_equal(spool_apply(place->spool, changes, 15, WALL), SPOOL_OK);
	for (int i = 0; i < 15; i++)
		assert_false(changes[i].missed);
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions WHERE id NOT IN "
	                            "(1, 4, 7, 10, 13, 16, 19, 22, 25, 28, 31, 34, 37, 39, 59)"), 45);
	assert_int_equal(ask(place, "SELECT count(*) FROM interactions"), 45);
	assert_int_equal(ask(place, "SELECT delivered FROM ledger"), 15);
	assert_true(balanced(place));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(a_created_spool_has_its_mode_whatever_the_umask),
		EACH(a_missing_file_is_created_only_when_asked),
		EACH(newer_foreign_and_empty_files_are_told_apart),
		EACH(a_replaced_file_is_noticed_and_a_nameless_one_too),
		EACH(rows_come_in_order_and_only_those_asked_for),
		EACH(a_reading_sees_one_state),
		EACH(a_record_is_read_byte_for_byte),
		EACH(the_triggers_count_bytes_as_record_bytes_does),
		EACH(a_row_above_the_limit_is_too_big_and_can_still_be_buried),
		EACH(a_place_whose_session_is_above_the_limit_stops_no_reading),
		EACH(a_delivered_row_leaves_and_its_key_stays_known_for_a_day),
		EACH(a_fate_is_applied_once_and_to_the_same_row_only),
		EACH(a_row_whose_uuid_is_a_blob_can_be_settled),
		EACH(a_dead_letter_keeps_all_and_says_why),
		EACH(a_revived_dead_letter_is_what_it_was),
		EACH(a_dead_letter_whose_id_is_taken_goes_under_another),
		EACH(a_dead_letter_that_is_refused_keeps_back_no_delivery),
		EACH(no_trigger_of_a_producer_runs),
		EACH(a_lock_held_elsewhere_is_busy_and_changes_nothing),
		EACH(attempts_and_notes_are_kept),
		EACH(limits_are_written_down_for_the_triggers),
		EACH(the_wal_stays_small_over_many_settles),
		EACH(an_examination_finds_what_is_not_the_schemas),
		EACH(a_count_that_takes_too_long_is_given_up),
		EACH(a_run_of_delivered_rows_goes_at_once_and_what_was_replaced_in_it_stays),
		EACH(what_stands_between_delivered_rows_and_is_on_its_way_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
