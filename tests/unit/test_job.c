/* The storage side of the flow: one job after the other on a real spool. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <ftw.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/job.h"
#include "tests/unit/failing.h"

#define LIMIT (4 << 20)

struct place {
	char folder[64], path[128], other[128];
	struct spool *spool;
	struct config *config;
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
	char sql[256];
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
	               base != NULL ? base : "/tmp");
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
	fail_allocation_after(0);
	run(place);
	assert_true(allocation_failed());
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
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
