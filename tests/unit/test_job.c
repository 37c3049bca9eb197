/* The storage side of the flow: one job after the other on a real spool. */
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

#include "agent/job.h"
#include "tests/unit/faults.h"

#define LIMIT (4 << 20)
#define WALL INT64_C(1700000000000)

static const struct fault no_memory = { .name = "no memory", .memory = true };
static const struct fault locked = { .name = "a lock", .sqlite = SQLITE_BUSY };
static const struct fault broken = { .name = "an I/O error", .sqlite = SQLITE_IOERR };
static const struct fault damaged = { .name = "damage", .sqlite = SQLITE_CORRUPT };

struct place {
	char folder[64], path[128], other[128];
	struct spool *spool;
	struct config *config;
	struct metrics_file metrics;
	struct job job;
	int64_t ids[4];
};

static void execute(const char *path, const char *sql)
{
	sqlite3 *db;
	char *error = NULL;
	assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
	(void)sqlite3_busy_timeout(db, 5000);
	if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
		fail_msg("%s: %s", sql, error);
	(void)sqlite3_close(db);
}

static void insert(const char *path, const char *app, int id)
{
	char sql[512];
	(void)snprintf(sql, sizeof sql, "INSERT INTO interactions(model_id, request_body, "
	               "response_body, app, id) VALUES('m', 'hello', '{}', '%s', %d)", app, id);
	execute(path, sql);
}

static int begin(void **state)
{
	static const char text[] = "[app default]\napp_key = a\napi_key = b\n[app bare]\n"
		                       "app_key_file = /nowhere/a\napi_key_file = /nowhere/b\n";
	struct spool_error why;
	char *error = NULL;
	const char *base = getenv("TMPDIR");
	struct place *place = calloc(1, sizeof *place);
	assert_non_null(place);
	(void)snprintf(place->folder, sizeof place->folder, "%.40s/job-XXXXXX",
	               base != NULL ? base : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	assert_non_null(mkdtemp(place->folder));
	(void)snprintf(place->path, sizeof place->path, "%s/spool.db", place->folder);
	(void)snprintf(place->other, sizeof place->other, "%s/other.db", place->folder);
	assert_true(config_parse(text, strlen(text), "agent.conf", NULL, &place->config, &error));
	config_load_keys(place->config);
	place->spool = spool_open(place->path, SPOOL_CREATE, LIMIT, &why);
	assert_non_null(place->spool);
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

static void forget(struct job *job)
{
	for (size_t i = 0; i < job->entry_count; i++)
		free(job->entries[i].payload);
	job->entry_count = 0;
}

static int end(void **state)
{
	struct place *place = *state;
	forget(&place->job);
	metrics_file_close(&place->metrics);
	spool_close(place->spool);
	config_free(place->config);
	(void)nftw(place->folder, remove_one, 8, FTW_DEPTH | FTW_PHYS);
	free(place);
	return 0;
}

/* A job that loads rows by id; the caller adds to it. */
static struct job *load(struct place *place, int64_t first, int64_t second)
{
	forget(&place->job);
	place->ids[0] = first;
	place->ids[1] = second;
	place->job = (struct job){ .config = place->config, .load = place->ids,
		                       .load_count = second != 0 ? 2 : 1, .to = INT64_MAX,
		                       .from = SPOOL_FIRST_ID, .build = true, .condemned = "",
		                       .room_entries = JOB_ENTRIES - 2, .room_bytes = LIMIT };
	return &place->job;
}

static void run(struct place *place)
{
	job_run(&place->job, &place->spool, place->path);
}

static void a_row_is_built_and_one_that_is_gone_is_said_to_be(void **state)
{
	struct place *place = *state;
	insert(place->path, "default", 5);
	struct job *job = load(place, 5, 6);
	run(place);
	assert_int_equal(job->read, SPOOL_OK);
	assert_int_equal(job->entry_count, 2);
	assert_int_equal(job->entries[0].state, ENTRY_LOADED);
	assert_int_equal(job->entries[1].state, ENTRY_GONE);
}

static void without_keys_or_a_known_app_no_payload_is_built(void **state)
{
	struct place *place = *state;
	insert(place->path, "bare", 5);
	insert(place->path, "nobody knows it", 6);
	struct job *job = load(place, 5, 6);
	run(place);
	assert_int_equal(job->entry_count, 2);
	assert_int_equal(job->entries[0].state, ENTRY_SEEN);
	assert_int_equal(job->entries[1].state, ENTRY_SEEN);
	assert_int_equal(job->entries[1].app, APP_UNKNOWN);
}

static void a_uuid_with_a_nul_is_none(void **state)
{
	struct place *place = *state;
	insert(place->path, "default", 5);
	execute(place->path, "DROP TRIGGER interactions_unchangeable;"
	                     "UPDATE interactions SET uuid = zeroblob(32)");
	struct job *job = load(place, 5, 0);
	run(place);
	assert_int_equal(job->entries[0].state, ENTRY_FAULTY);
	assert_string_equal(job->entries[0].uuid, "");
}

static void what_finds_no_room_ends_the_reading_and_says_how_much_it_needs(void **state)
{
	struct place *place = *state;
	insert(place->path, "default", 5);
	insert(place->path, "default", 6);
	struct job *job = load(place, 5, 6);
	job->scan = SCAN_ANY;
	job->room_bytes = 10;
	run(place);
	assert_int_equal(job->read, SPOOL_OK);
	assert_int_equal(job->entry_count, 1);
	assert_int_equal(job->entries[0].state, ENTRY_NO_ROOM);
	assert_int_equal(job->need, job->entries[0].size);
	assert_true(job->need > 10);
	assert_false(job->end);
}

static void without_memory_for_a_payload_it_is_tried_again(void **state)
{
	struct place *place = *state;
	insert(place->path, "default", 5);
	/* Once to prepare all that stays. */
	struct job *job = load(place, 5, 0);
	run(place);
	(void)load(place, 5, 0);
	faults.only = "malloc";
	fail_after(&no_memory, 0, false);
	run(place);
	assert_true(stop_failing());
	assert_int_equal(job->read, SPOOL_IO);
	assert_int_equal(job->entry_count, 0);
	assert_non_null(strstr(job->error.sentence, "no memory"));
	(void)load(place, 5, 0);
	run(place);
	assert_int_equal(job->entries[0].state, ENTRY_LOADED);
}

static void rows_of_a_file_that_was_moved_away_are_still_read(void **state)
{
	struct place *place = *state;
	insert(place->path, "default", 5);
	assert_int_equal(rename(place->path, place->other), 0);
	struct job *job = load(place, 5, 0);
	run(place);
	assert_int_equal(job->read, SPOOL_OK);
	assert_false(job->reopened);
	assert_int_equal(job->entries[0].state, ENTRY_LOADED);
}

static void an_empty_file_that_was_moved_away_is_let_go_and_its_books_are_closed(void **state)
{
	struct place *place = *state;
	struct spool_change note = { .kind = CHANGE_NOTE, .name = "n", .value = "closed" };
	assert_int_equal(rename(place->path, place->other), 0);
	struct job *job = load(place, 5, 0);
	job->changes = &note;
	job->change_count = 1;
	run(place);
	assert_null(place->spool);
	assert_int_equal(job->read, SPOOL_MISSING);
	assert_int_equal(job->change_count, 0);
	struct spool_error why;
	struct spool *old = spool_open(place->other, SPOOL_WORK, LIMIT, &why);
	assert_non_null(old);
	char *value = spool_note(old, "n");
	assert_string_equal(value, "closed");
	free(value);
	spool_close(old);
	/* As soon as there is a file again, it is opened. */
	assert_int_equal(rename(place->other, place->path), 0);
	(void)load(place, 5, 0);
	run(place);
	assert_non_null(place->spool);
	assert_true(job->reopened);
}

static void make_another(struct place *place, bool moved)
{
	struct spool_error why;
	struct spool *other = spool_open(place->other, SPOOL_CREATE, LIMIT, &why);
	assert_non_null(other);
	spool_close(other);
	insert(place->other, "default", 5);
	char away[160];
	(void)snprintf(away, sizeof away, "%s/away.db", place->folder);
	if (moved)
		assert_int_equal(rename(place->path, away), 0);
	assert_int_equal(rename(place->other, place->path), 0);
}

static void where_another_file_stands_the_old_one_is_read_while_nobody_else_could(void **state)
{
	struct place *place = *state;
	insert(place->path, "default", 7);
	make_another(place, false); /* the old one has no name any more */
	struct job *job = load(place, 7, 0);
	run(place);
	assert_int_equal(job->entries[0].state, ENTRY_LOADED);
	assert_false(job->reopened || job->abandoned);
	/* Nothing of it can be sent now, it is said. */
	(void)load(place, 5, 0);
	job->leave = true;
	run(place);
	assert_true(job->reopened && job->replaced && job->abandoned);
	assert_int_equal(job->entries[0].state, ENTRY_LOADED);
}

static void a_file_that_has_a_name_is_let_go_for_another_at_once(void **state)
{
	struct place *place = *state;
	insert(place->path, "default", 7);
	make_another(place, true);
	struct job *job = load(place, 7, 0);
	run(place);
	assert_true(job->reopened);
	assert_false(job->abandoned);
	assert_int_equal(job->entries[0].state, ENTRY_GONE);
}

static void a_spool_that_could_not_be_opened_is_not_said_to_be_another(void **state)
{
	struct place *place = *state;
	insert(place->path, "default", 7);
	spool_close(place->spool);
	place->spool = NULL;
	struct job *job = load(place, 7, 0);
	run(place);
	assert_true(job->reopened && !job->replaced);
	assert_int_equal(job->entries[0].state, ENTRY_LOADED);
}

/* --- What stands in a row ------------------------------------------------ */

/* A job that scans; the caller adds to it. */
static struct job *look(struct place *place, bool whole)
{
	struct job *job = load(place, 1, 0);
	job->load_count = 0;
	job->scan = SCAN_ANY;
	job->build = whole;
	return job;
}

static void the_names_of_apps_that_nobody_configured_are_kept_fit_to_be_read(void **state)
{
	struct place *place = *state;
	char name[160];
	memset(name, 'n', sizeof name);
	name[sizeof name - 1] = '\0';
	insert(place->path, name, 1);
	insert(place->path, "tab\there", 2);
	insert(place->path, "caf\xc3\xa9", 3);
	insert(place->path, "tab\there", 4);
	for (int i = 5; i < 15; i++) {
		(void)snprintf(name, sizeof name, "app %d", i);
		insert(place->path, name, i);
	}
	struct job *job = look(place, true);
	run(place);
	assert_int_equal(job->read, SPOOL_OK);
	assert_true(job->end);
	assert_int_equal(job->unknown_count, JOB_UNKNOWN_NAMES);
	assert_int_equal(strlen(job->unknown[0]), JOB_NAME_SIZE - 1);
	assert_string_equal(job->unknown[1], "tab?here");
	assert_string_equal(job->unknown[2], "caf??");
	assert_string_equal(job->unknown[3], "app 5");
}

static void a_row_without_a_time_or_a_uuid_is_read_all_the_same(void **state)
{
	struct place *place = *state;
	insert(place->path, "default", 5);
	insert(place->path, "default", 6);
	execute(place->path, "DROP TRIGGER interactions_unchangeable;"
	                     "UPDATE interactions SET uuid = NULL, request_at = NULL WHERE id = 5;"
	                     "UPDATE interactions SET uuid = 'short' WHERE id = 6");
	struct job *job = load(place, 5, 6);
	run(place);
	assert_int_equal(job->entry_count, 2);
	assert_int_equal(job->entries[0].request_at, -1);
	assert_string_equal(job->entries[0].uuid, "");
	assert_string_equal(job->entries[1].uuid, "");
}

static void what_is_delivered_but_cannot_leave_is_gone_for_whoever_reads(void **state)
{
	struct place *place = *state;
	static const char uuid[] = "0123456789abcdef0123456789abcdef";
	char sql[320];
	insert(place->path, "default", 6);
	(void)snprintf(sql, sizeof sql, "INSERT INTO interactions (model_id, request_body, "
	               "response_body, uuid, id) VALUES ('m', 'hello', '{}', '%s', 5); "
	               "INSERT INTO attempts VALUES (5, %" PRId64 ")", uuid,
	               record_delivered_mark((struct text){ uuid, RECORD_UUID_SIZE }));
	execute(place->path, sql);
	struct job *job = load(place, 5, 6);
	run(place);
	assert_int_equal(job->entries[0].state, ENTRY_GONE);
	assert_int_equal(job->entries[1].state, ENTRY_LOADED);
	(void)look(place, true);
	run(place);
	assert_int_equal(job->entry_count, 1);
	assert_int_equal(job->entries[0].id, 6);
	assert_true(job->end);
}

static void the_last_id_of_all_ends_the_scan(void **state)
{
	struct place *place = *state;
	insert(place->path, "default", 5);
	execute(place->path, "UPDATE sqlite_sequence SET seq = 9223372036854775806");
	execute(place->path, "INSERT INTO interactions(model_id, request_body, response_body) "
	                     "VALUES('m', 'q', '{}')");
	struct job *job = look(place, true);
	run(place);
	assert_int_equal(job->entry_count, 2);
	assert_int_equal(job->entries[1].id, INT64_MAX);
	assert_true(job->end);
}

static void a_row_larger_than_may_be_read_is_faulty_however_it_is_met(void **state)
{
	struct place *place = *state;
	/* By its body, and by what even its place takes. */
	execute(place->path, "INSERT INTO interactions(model_id, request_body, response_body, id) "
	                     "VALUES('m', CAST(zeroblob(5000000) AS TEXT), '{}', 5)");
	execute(place->path, "DROP TRIGGER interactions_check;"
	                     "INSERT INTO interactions(model_id, request_body, response_body, app, id)"
	                     " VALUES('m', 'q', '{}', CAST(zeroblob(5000000) AS TEXT), 6)");
	insert(place->path, "default", 7);
	struct job *job = load(place, 5, 6);
	run(place);
	assert_int_equal(job->entry_count, 2);
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(job->entries[i].state, ENTRY_FAULTY);
		assert_string_equal(job->entries[i].fault->code, "too-big");
	}
	for (int whole = 0; whole < 2; whole++) {
		(void)look(place, whole);
		run(place);
		assert_int_equal(job->read, SPOOL_OK);
		assert_int_equal(job->entry_count, 3);
		/* SQLite 3.34 finds the first one too large at the first look already. */
		assert_true(job->entries[0].state == ENTRY_FAULTY ||
		            (!whole && job->entries[0].state == ENTRY_SEEN));
		assert_int_equal(job->entries[1].id, 6);
		assert_int_equal(job->entries[1].state, ENTRY_FAULTY);
		assert_int_equal(job->entries[2].state, whole ? ENTRY_LOADED : ENTRY_SEEN);
	}
}

/* --- Damage --------------------------------------------------------------- */

/* Fills the spool with 40 rows of some page each, and spoils each so-many-th of the pages
 * from `first` to `last`, counted from 0. */
static void damage(struct place *place, int first, int last, int every)
{
	struct spool_error why;
	sqlite3 *db;
	sqlite3_stmt *page;
	execute(place->path, "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) "
	                     "INSERT INTO interactions(model_id, request_body, response_body, id) "
	                     "SELECT 'm', printf('%.*c', 3000, 'q'), '{}', i FROM n");
	spool_close(place->spool);
	assert_int_equal(sqlite3_open(place->path, &db), SQLITE_OK);
	assert_int_equal(sqlite3_wal_checkpoint_v2(db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL),
	                 SQLITE_OK);
	FILE *file = fopen(place->path, "r+e");
	assert_non_null(file);
	assert_int_equal(sqlite3_prepare_v2(db, "SELECT pageno FROM dbstat WHERE name = "
	                                        "'interactions' AND pagetype = 'leaf' ORDER BY path "
	                                        "LIMIT ?2 - ?1 + 1 OFFSET ?1", -1, &page, NULL),
	                 SQLITE_OK);
	(void)sqlite3_bind_int(page, 1, first);
	(void)sqlite3_bind_int(page, 2, last);
	for (int i = 0; sqlite3_step(page) == SQLITE_ROW; i++) {
		if (i % every != 0)
			continue;
		char bytes[4096];
		memset(bytes, 0xff, sizeof bytes);
		assert_int_equal(fseek(file, (long)(sqlite3_column_int(page, 0) - 1) * 4096, SEEK_SET), 0);
		assert_int_equal(fwrite(bytes, sizeof bytes, 1, file), 1);
	}
	(void)sqlite3_finalize(page);
	assert_int_equal(fclose(file), 0);
	(void)sqlite3_close(db);
	place->spool = spool_open(place->path, SPOOL_WORK, LIMIT, &why);
	assert_non_null(place->spool);
}

static void rows_on_a_damaged_page_are_passed_over_and_named(void **state)
{
	struct place *place = *state;
	damage(place, 9, 11, 1); /* ids 10 to 12 */
	for (int whole = 0; whole < 2; whole++) {
		struct job *job = look(place, whole);
		run(place);
		assert_int_equal(job->read, SPOOL_OK);
		assert_true(job->end);
		assert_int_equal(job->entry_count, 37);
		assert_int_equal(job->entries[8].id, 9);
		assert_int_equal(job->entries[9].id, 13);
		assert_in_range(job->damaged_from, 1, 10);
		assert_int_equal(job->damaged_to, 12);
		assert_true(strlen(job->error.sentence) > 10);
	}
	/* And one by its id; where reading can be tried at all, it can. */
	struct job *job = load(place, 11, 13);
	job->touch = true;
	run(place);
	assert_int_equal(job->read, SPOOL_OK);
	assert_int_equal(job->entries[0].state, ENTRY_GONE);
	assert_int_equal(job->entries[1].state, ENTRY_LOADED);
	assert_int_equal(job->damaged_from, 11);
	assert_int_equal(job->damaged_to, 11);
}

static void two_damaged_places_are_told_as_one_and_reading_works_though_it_begins_with_one(void **state)
{
	struct place *place = *state;
	damage(place, 0, 2, 1); /* ids 1 to 3 */
	struct job *job = load(place, 1, 0);
	job->touch = true;
	run(place);
	assert_int_equal(job->read, SPOOL_OK);
	assert_int_equal(job->damaged_from, 1);
	assert_int_equal(job->damaged_to, 1);
	/* What was met by its id, and the place where the scan begins. */
	job = load(place, 2, 0);
	job->scan = SCAN_ANY;
	run(place);
	assert_int_equal(job->read, SPOOL_OK);
	assert_int_equal(job->damaged_from, 1);
	assert_int_equal(job->damaged_to, 3);
	assert_int_equal(job->entry_count, 38);
}

static void a_failure_while_damage_is_passed_over_loses_nothing_for_the_next_job(void **state)
{
	struct place *place = *state;
	damage(place, 9, 11, 1);
	bool struck = true;
	for (int calls = 0; struck; calls++) {
		struct job *job = look(place, false);
		fail_after(&broken, calls, false);
		run(place);
		struck = stop_failing();
		/* Either it says so, or it was where nothing depends on it. */
		if (job->read == SPOOL_OK)
			assert_int_equal(job->entry_count, 37);
		else
			assert_true(job->read == SPOOL_IO && strlen(job->error.sentence) > 10);
		if (job->read != SPOOL_OK && job->entry_count > 0)
			assert_true(job->next > job->entries[job->entry_count - 1].id);
	}
}

static void damage_between_sound_rows_is_told_from_the_first_place_to_the_last(void **state)
{
	struct place *place = *state;
	damage(place, 9, 29, 10); /* ids 10, 20 and 30 */
	struct job *job = load(place, 30, 0);
	job->scan = SCAN_ANY;
	job->to = 25;
	run(place);
	assert_int_equal(job->read, SPOOL_OK);
	assert_int_equal(job->entry_count, 1 + 23);
	assert_in_range(job->damaged_from, 1, 10);
	assert_int_equal(job->damaged_to, 30);
}

static void damage_up_to_the_end_ends_the_scan_there(void **state)
{
	struct place *place = *state;
	damage(place, 30, 39, 1);
	struct job *job = look(place, true);
	run(place);
	assert_int_equal(job->read, SPOOL_OK);
	assert_true(job->end);
	assert_int_equal(job->entry_count, 30);
	assert_in_range(job->next, 31, INT64_MAX);
	assert_true(job->damaged_to >= 40);
}

/* --- Giving space back ---------------------------------------------------- */

static void what_settles_and_sweeps_leave_free_is_told(void **state)
{
	struct place *place = *state;
	struct spool_change changes[10];
	execute(place->path, "WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12) "
	                     "INSERT INTO interactions(model_id, request_body, response_body, id) "
	                     "SELECT 'm', printf('%.*c', 500000, 'q'), '{}', i FROM n");
	place->config->keep_dead = 1000;
	/* Ten are buried, which gives nothing back; nine of them go, and another is buried; it
	 * goes, too, after a settle that found the room of the nine. */
	for (int round = 0; round < 3; round++) {
		size_t count = 0;
		for (int id = 9 + round; id > (round > 0 ? 8 + round : 0); id--)
			changes[count++] = (struct spool_change){ .kind = CHANGE_DEAD, .id = id,
				                                  .bytes = 500131, .code = "c", .sentence = "s" };
		struct job *job;
		int64_t swept = 0;
		do {
			job = load(place, 1, 0);
			job->load_count = 0;
			job->changes = changes;
			job->change_count = swept == 0 ? count : 0;
			job->wall = WALL + (int64_t)3600000 * round;
			job->sweep = round > 0;
			run(place);
			assert_int_equal(job->settled, SPOOL_OK);
			assert_int_equal(job->read, SPOOL_OK);
			swept += job->swept.dead;
		} while (job->swept.more);
		assert_int_equal(job->roomy, round > 0);
		assert_int_equal(swept, round == 0 ? 0 : round == 1 ? 9 : 1);
	}
}

/* --- What fails ----------------------------------------------------------- */

static int attempts_with(const struct fault *fault)
{
	int calls = 0;
	for (bool struck = true; struck; calls++) {
		void *state = NULL;
		(void)begin(&state);
		struct place *place = state;
		struct spool_change taken = { .kind = CHANGE_DELIVERED, .id = 5, .uuid = "" };
		place->config->keep_dead = 1000;
		place->config->metrics_file = strdup("/dev/shm/nowhere/metrics");
		execute(place->path, "PRAGMA synchronous = OFF; INSERT INTO attempts VALUES(99, 1);"
		                     "INSERT INTO interactions(model_id, request_body, response_body, id) "
		                     "VALUES('m', 'q', '{}', 5), ('m', 'q', '{}', 6), ('m', 'q', '{}', 7),"
		                     "('m', 'q', '{}', 8)");
		struct job *job = load(place, 6, 7);
		for (int round = 0; round < 2; round++) {
			if (round == 1)
				job = load(place, 6, 7);
			job->changes = &taken;
			job->change_count = 1;
			job->wall = WALL;
			job->scan = SCAN_ANY;
			job->from = 8;
			job->limits = job->pause = job->figures = job->touch = job->sweep = job->shrink = true;
			job->metrics = &place->metrics;
			if (round == 0)
				fail_after(fault, calls, false);
			run(place);
			if (round == 0)
				struck = stop_failing();
			if (job->settled != SPOOL_OK || job->read != SPOOL_OK) {
				assert_int_equal(round, 0);
				assert_true(strlen(job->error.sentence) > 10);
			}
			for (size_t i = 0; i < job->entry_count; i++)
				assert_in_range(job->entries[i].id, 6, 8);
			if (job->read == SPOOL_OK && fault != &damaged)
				assert_int_equal(job->entry_count, 3);
		}
		/* What failed is done now. */
		assert_int_equal(job->settled, SPOOL_OK);
		assert_int_equal(job->read, SPOOL_OK);
		assert_int_equal(job->entry_count, 3);
		assert_false(job->limits || job->pause);
		assert_true(job->has_swept && job->has_ledger);
		(void)end(&state);
	}
	return calls;
}

static void a_job_that_fails_anywhere_says_so_and_can_be_done_again(void **state)
{
	static const struct fault *const kinds[] = { &broken, &locked, &damaged, &no_memory };
	(void)state;
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		assert_true(attempts_with(kinds[i]) > 1);
}

static void a_file_without_a_name_whose_lock_somebody_holds_is_kept(void **state)
{
	struct place *place = *state;
	insert(place->path, "default", 7);
	make_another(place, false);
	struct job *job = load(place, 7, 0);
	faults.only = "step";
	fail_after(&locked, 0, false);
	run(place);
	assert_true(stop_failing());
	assert_false(job->reopened);
	assert_int_equal(job->entries[0].state, ENTRY_LOADED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_row_is_built_and_one_that_is_gone_is_said_to_be),
		TEST(without_keys_or_a_known_app_no_payload_is_built),
		TEST(a_uuid_with_a_nul_is_none),
		TEST(what_finds_no_room_ends_the_reading_and_says_how_much_it_needs),
		TEST(without_memory_for_a_payload_it_is_tried_again),
		TEST(rows_of_a_file_that_was_moved_away_are_still_read),
		TEST(an_empty_file_that_was_moved_away_is_let_go_and_its_books_are_closed),
		TEST(where_another_file_stands_the_old_one_is_read_while_nobody_else_could),
		TEST(a_file_that_has_a_name_is_let_go_for_another_at_once),
		TEST(a_spool_that_could_not_be_opened_is_not_said_to_be_another),
		TEST(the_names_of_apps_that_nobody_configured_are_kept_fit_to_be_read),
		TEST(a_row_without_a_time_or_a_uuid_is_read_all_the_same),
		TEST(what_is_delivered_but_cannot_leave_is_gone_for_whoever_reads),
		TEST(the_last_id_of_all_ends_the_scan),
		TEST(a_row_larger_than_may_be_read_is_faulty_however_it_is_met),
		TEST(rows_on_a_damaged_page_are_passed_over_and_named),
		TEST(two_damaged_places_are_told_as_one_and_reading_works_though_it_begins_with_one),
		TEST(a_failure_while_damage_is_passed_over_loses_nothing_for_the_next_job),
		TEST(what_settles_and_sweeps_leave_free_is_told),
		TEST(damage_between_sound_rows_is_told_from_the_first_place_to_the_last),
		TEST(damage_up_to_the_end_ends_the_scan_there),
		cmocka_unit_test(a_job_that_fails_anywhere_says_so_and_can_be_done_again),
		TEST(a_file_without_a_name_whose_lock_somebody_holds_is_kept),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
