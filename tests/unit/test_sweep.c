/* What is kept for a time: receipts and dead letters, on a real file, by a clock of the
 * test's own. */
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

#include "spool/manage.h"
#include "spool/spool.h"

#define WALL INT64_C(1700000000000)
#define HOUR INT64_C(3600000)
#define DAY (24 * HOUR)
#define LIMIT (4 << 20)

struct place {
	char folder[64], path[128];
	struct spool *spool;
	sqlite3 *producer;
};

static int open_place(void **state)
{
	struct spool_error error;
	struct place *place = calloc(1, sizeof *place);
	const char *base = getenv("TMPDIR");
	if (place == NULL)
		return -1;
	(void)snprintf(place->folder, sizeof place->folder, "%.40s/sweep-XXXXXX",
	               base != NULL ? base : "/tmp");
	if (mkdtemp(place->folder) == NULL)
		return -1;
	(void)snprintf(place->path, sizeof place->path, "%s/spool.db", place->folder);
	place->spool = spool_open(place->path, SPOOL_CREATE, LIMIT, &error);
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

static void assert_balanced(const struct place *place)
{
	assert_int_equal(ask(place, "SELECT accepted = delivered + dead + discarded + dropped + purged "
	                            "+ removed + (SELECT count(*) FROM interactions) AND dead = "
	                            "(SELECT count(*) FROM dead_letters) AND in_bytes - out_bytes = "
	                            "(SELECT ifnull(sum(131 + 7 + 7 + 4 + length(request_body)), 0) "
	                            "FROM dead_letters) FROM ledger"), 1);
}

/* `count` dead letters that died at `at`, with request bodies of `size` bytes. */
static void bury(struct place *place, int count, int64_t at, int size)
{
	for (int i = 0; i < count; i++) {
		char sql[160];
		(void)snprintf(sql, sizeof sql, "INSERT INTO interactions (model_id, request_body, "
		               "response_body, key) VALUES ('m', replace(hex(zeroblob(%d)), '00', 'q'), "
		               "'{}', NULL)", size);
		execute(place, sql);
		struct spool_change change = { .kind = CHANGE_DEAD, .code = "c", .sentence = "s",
			                       .id = ask(place, "SELECT max(id) FROM interactions") };
		assert_int_equal(spool_apply(place->spool, &change, 1, at), SPOOL_OK);
	}
}

static struct spool_swept sweep(struct place *place, int64_t dead, int64_t delivered,
                                int64_t wall)
{
	const struct spool_keep keep = { dead, delivered };
	struct spool_swept swept;
	if (spool_sweep(place->spool, &keep, wall, &swept) != SPOOL_OK)
		fail_msg("%s", spool_last_error(place->spool)->sentence);
	return swept;
}

static void deliver(struct place *place, int64_t at)
{
	execute(place, "INSERT INTO interactions (model_id, request_body, response_body) "
	               "VALUES ('m', 'q', '{}')");
	struct spool_change change = {
		.kind = CHANGE_DELIVERED, .id = ask(place, "SELECT max(id) FROM interactions"),
		.uuid = "", .bytes = 131, .receipt_at = at, .request_at = 5, .http_status = 202
	};
	struct record record;
	assert_int_equal(spool_load(place->spool, change.id, &record), SPOOL_OK);
	memcpy(change.uuid, record.uuid.bytes, RECORD_UUID_SIZE);
	assert_int_equal(spool_apply(place->spool, &change, 1, at), SPOOL_OK);
}

/* --- Dead letters --------------------------------------------------------- */

static void dead_letters_go_when_their_time_is_over_and_are_counted(void **state)
{
	struct place *place = *state;
	bury(place, 2, WALL, 1);
	bury(place, 1, WALL + DAY, 1);
	struct spool_swept swept = sweep(place, 7 * DAY, 0, WALL + 7 * DAY);
	assert_int_equal(swept.dead, 0);
	assert_true(swept.due == WALL + 7 * DAY);
	swept = sweep(place, 7 * DAY, 0, WALL + 7 * DAY + 1);
	assert_int_equal(swept.dead, 2);
	assert_false(swept.more);
	assert_true(swept.due == WALL + 8 * DAY);
	assert_int_equal(ask(place, "SELECT discarded * 10 + dead FROM ledger"), 21);
	assert_balanced(place);
}

static void for_ever_is_for_ever(void **state)
{
	struct place *place = *state;
	bury(place, 1, WALL, 1);
	struct spool_swept swept = sweep(place, INT64_MAX, 0, INT64_MAX - 1);
	assert_int_equal(swept.dead, 0);
	assert_true(swept.due == INT64_MAX && !swept.more);
}

static void many_go_in_batches_and_large_ones_in_smaller_batches(void **state)
{
	struct place *place = *state;
	bury(place, 100, WALL, 1);
	bury(place, 3, WALL, 700000);
	struct spool_swept swept = sweep(place, HOUR, 0, WALL + DAY);
	assert_true(swept.more && swept.dead == 64);
	assert_true(sweep(place, HOUR, 0, WALL + DAY).dead == 38);
	assert_true(sweep(place, HOUR, 0, WALL + DAY).dead == 1);
	assert_true(sweep(place, HOUR, 0, WALL + DAY).due == INT64_MAX);
	assert_balanced(place);
}

static void what_died_by_a_clock_without_the_time_is_counted_from_now(void **state)
{
	struct place *place = *state;
	bury(place, 1, 5000, 1); /* 1970 */
	bury(place, 1, WALL + 1, 1);
	execute(place, "DROP TRIGGER dead_letters_unchangeable");
	bury(place, 1, 1, 1);
	execute(place, "UPDATE dead_letters SET died_at = 'yesterday' WHERE died_at = 1");
	bury(place, 1, 1, 1);
	execute(place, "UPDATE dead_letters SET died_at = NULL WHERE died_at = 1");
	/* As long as the clock is wrong nothing is known. */
	assert_true(sweep(place, DAY, 0, 900000).dead == 0);
	assert_int_equal(ask(place, "SELECT count(*) FROM dead_letters WHERE died_at = 5000"), 1);
	assert_true(sweep(place, DAY, 0, WALL).dead == 0);
	assert_int_equal(ask(place, "SELECT count(*) FROM dead_letters WHERE died_at = 1700000000000"),
	                 3);
	assert_true(sweep(place, DAY, 0, WALL + DAY + 1).dead == 3);
	assert_true(sweep(place, DAY, 0, WALL + DAY + 2).dead == 1);
	assert_balanced(place);
}

static void a_sweep_with_nothing_to_do_writes_nothing(void **state)
{
	struct place *place = *state;
	bury(place, 1, WALL, 1);
	deliver(place, WALL);
	int64_t before = ask(place, "PRAGMA data_version");
	struct spool_swept swept = sweep(place, DAY, DAY, WALL + HOUR);
	assert_true(swept.due == WALL + DAY);
	assert_int_equal(ask(place, "PRAGMA data_version"), before);
}

/* --- Receipts --------------------------------------------------------------- */

static void a_receipt_is_found_by_id_and_uuid_until_its_time_is_over(void **state)
{
	struct place *place = *state;
	struct spool_receipt receipt, other;
	deliver(place, WALL);
	deliver(place, WALL + HOUR);
	assert_int_equal(spool_find_receipt(place->spool, 1, NULL, &receipt), SPOOL_OK);
	assert_true(receipt.delivered_at == WALL && receipt.bytes == 131);
	assert_true(receipt.request_at.value == 5 && receipt.http_status == 202);
	assert_int_equal(spool_find_receipt(place->spool, 0, receipt.uuid, &other), SPOOL_OK);
	assert_true(other.id == 1);
	assert_int_equal(spool_find_receipt(place->spool, 3, NULL, &other), SPOOL_END);
	struct spool_swept swept = sweep(place, INT64_MAX, DAY, WALL + DAY + 1);
	assert_true(swept.receipts == 1 && swept.due == WALL + DAY + HOUR);
	assert_int_equal(spool_find_receipt(place->spool, 1, NULL, &receipt), SPOOL_END);
	assert_int_equal(spool_find_receipt(place->spool, 2, NULL, &receipt), SPOOL_OK);
}

static void where_none_are_kept_those_of_before_go(void **state)
{
	struct place *place = *state;
	for (int i = 0; i < 3; i++)
		deliver(place, WALL);
	assert_true(sweep(place, INT64_MAX, 0, WALL + 1).receipts == 3);
	assert_int_equal(ask(place, "SELECT count(*) FROM receipts"), 0);
}

static void receipts_go_in_batches_and_are_read_in_pages(void **state)
{
	struct place *place = *state;
	struct spool_receipt receipts[100];
	size_t count, all = 0;
	execute(place, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1300) "
	               "INSERT INTO receipts SELECT 1700000000000 + i / 7, i, hex(i), 1, 1, 200 FROM n");
	assert_int_equal(spool_receipts(place->spool, NULL, receipts, 100, &count), SPOOL_OK);
	while (count > 0) {
		for (size_t i = 0; i < count; i++)
			assert_true(receipts[i].id == (int64_t)++all);
		struct spool_receipt last = receipts[count - 1];
		assert_int_equal(spool_receipts(place->spool, &last, receipts, 100, &count), SPOOL_OK);
	}
	assert_int_equal(all, 1300);
	int64_t gone = 0;
	struct spool_swept swept;
	do {
		swept = sweep(place, INT64_MAX, HOUR, WALL + DAY);
		assert_true(swept.receipts > 0 && swept.receipts <= 520);
		gone += swept.receipts;
	} while (swept.more);
	assert_int_equal(gone, 1300);
}

int main(void)
{
#define HOLDS(test) cmocka_unit_test_setup_teardown(test, open_place, close_place)
	const struct CMUnitTest tests[] = {
		HOLDS(dead_letters_go_when_their_time_is_over_and_are_counted),
		HOLDS(for_ever_is_for_ever),
		HOLDS(many_go_in_batches_and_large_ones_in_smaller_batches),
		HOLDS(what_died_by_a_clock_without_the_time_is_counted_from_now),
		HOLDS(a_sweep_with_nothing_to_do_writes_nothing),
		HOLDS(a_receipt_is_found_by_id_and_uuid_until_its_time_is_over),
		HOLDS(where_none_are_kept_those_of_before_go),
		HOLDS(receipts_go_in_batches_and_are_read_in_pages),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
