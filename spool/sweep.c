/* What is kept for a time alone: receipts of what was delivered, and dead letters where
 * somebody chose so; see spool_sweep() in spool.h and the receipts in manage.h.
 *
 * A receipt holds no text of anybody. Who is dead goes only by a clock that can be
 * right: what died before 2001 by it did so on a host that had just no time, and is
 * counted from when that is seen.
 */
#include <string.h>

#include "spool/internal.h"
#include "spool/manage.h"

#define YEAR_2001 INT64_C(978307200000)

enum spool_status spool_add_receipt(struct spool *spool, const struct spool_change *change)
{
	sqlite3_stmt *bound = spool_statement(spool, ADD_RECEIPT);
	if (bound == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(bound, 1, change->receipt_at);
	(void)sqlite3_bind_int64(bound, 2, change->id);
	(void)sqlite3_bind_text(bound, 3, change->uuid, -1, SQLITE_STATIC);
	if (change->request_at >= 0)
		(void)sqlite3_bind_int64(bound, 4, change->request_at);
	else
		(void)sqlite3_bind_null(bound, 4);
	(void)sqlite3_bind_int64(bound, 5, change->bytes);
	(void)sqlite3_bind_int(bound, 6, change->http_status);
	return spool_finish(spool, bound);
}

static enum spool_status run_with_time(struct spool *spool, enum query query, int64_t time)
{
	sqlite3_stmt *bound = spool_statement(spool, query);
	if (bound == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(bound, 1, time);
	return spool_finish(spool, bound);
}

enum spool_status spool_forget_receipts(struct spool *spool, struct spool_change *change)
{
	enum spool_status status = run_with_time(spool, FORGET_RECEIPTS, change->before);
	change->taken = status == SPOOL_OK ? sqlite3_changes(spool->db) : 0;
	return status;
}

enum spool_status spool_time_dead(struct spool *spool, int64_t wall)
{
	return run_with_time(spool, TIME_DEAD, wall);
}

enum spool_status spool_next_expired(struct spool *spool, int64_t before, int64_t *id)
{
	sqlite3_stmt *row = spool_statement(spool, NEXT_EXPIRED);
	if (row == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(row, 1, before);
	int rc = sqlite3_step(row);
	if (rc == SQLITE_ROW)
		*id = sqlite3_column_int64(row, 0);
	enum spool_status status = rc == SQLITE_ROW    ? SPOOL_OK
	                           : rc == SQLITE_DONE ? SPOOL_END
	                                               : spool_fail(spool, rc);
	(void)sqlite3_reset(row);
	return status;
}

static int64_t add(int64_t time, int64_t span)
{
	return time > INT64_MAX - span ? INT64_MAX : time + span;
}

/* When the first one is due, ms since 1970; INT64_MAX: there is none. */
static enum spool_status look(struct spool *spool, const struct spool_keep *keep, int64_t wall,
                              int64_t *dead, int64_t *receipts)
{
	int64_t untimed = 0;
	*dead = INT64_MAX;
	enum spool_status status = spool_one_number(spool, OLDEST_RECEIPT, INT64_MAX, receipts);
	*receipts = add(*receipts, keep->delivered);
	if (status != SPOOL_OK || keep->dead == INT64_MAX)
		return status;
	status = spool_one_number(spool, OLDEST_DEAD, INT64_MAX, dead);
	*dead = add(*dead, keep->dead);
	if (status == SPOOL_OK && wall >= YEAR_2001)
		status = spool_one_number(spool, UNTIMED_DEAD, SPOOL_FIRST_ID, &untimed);
	if (status == SPOOL_OK && wall >= YEAR_2001 && untimed != SPOOL_FIRST_ID)
		*dead = wall - 1;
	return status;
}

enum spool_status spool_sweep(struct spool *spool, const struct spool_keep *keep, int64_t wall,
                              struct spool_swept *swept)
{
	struct spool_change changes[2];
	size_t count = 0;
	int64_t dead, receipts;
	*swept = (struct spool_swept){ .due = INT64_MAX };
	enum spool_status status = look(spool, keep, wall, &dead, &receipts);
	if (status != SPOOL_OK)
		return status;
	if (dead < wall)
		changes[count++] = (struct spool_change){ .kind = CHANGE_EXPIRED,
			                                  .before = wall - keep->dead };
	if (receipts < wall)
		changes[count++] = (struct spool_change){ .kind = CHANGE_FORGOTTEN,
			                                  .before = wall - keep->delivered };
	if (count > 0) {
		status = spool_apply(spool, changes, count, wall);
		if (status != SPOOL_OK)
			return status;
		for (size_t i = 0; i < count; i++)
			*(changes[i].kind == CHANGE_EXPIRED ? &swept->dead : &swept->receipts) =
				changes[i].taken;
		status = look(spool, keep, wall, &dead, &receipts);
	}
	swept->due = dead < receipts ? dead : receipts;
	/* Where nothing went although it was due, somebody changed the tables. */
	swept->more = swept->due < wall && swept->dead + swept->receipts > 0;
	return status;
}

/* --- Receipts, for a person ---------------------------------------------- */

static void read_receipt(sqlite3_stmt *row, struct spool_receipt *receipt)
{
	struct text uuid = spool_column_text(row, 2);
	*receipt = (struct spool_receipt){
		.delivered_at = sqlite3_column_int64(row, 0), .id = sqlite3_column_int64(row, 1),
		.request_at = spool_column_number(row, 3), .bytes = sqlite3_column_int64(row, 4),
		.http_status = sqlite3_column_int(row, 5)
	};
	if (uuid.size > 0)
		memcpy(receipt->uuid, uuid.bytes,
		       uuid.size < RECORD_UUID_SIZE ? uuid.size : RECORD_UUID_SIZE);
}

enum spool_status spool_receipts(struct spool *spool, const struct spool_receipt *after,
                                 struct spool_receipt *receipts, size_t room, size_t *count)
{
	int rc = SQLITE_DONE;
	sqlite3_stmt *row = spool_statement(spool, RECEIPTS);
	*count = 0;
	if (row == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(row, 1, after != NULL ? after->delivered_at : INT64_MIN);
	(void)sqlite3_bind_int64(row, 2, after != NULL ? after->id : INT64_MIN);
	(void)sqlite3_bind_int64(row, 3, (int64_t)room);
	while (*count < room && (rc = sqlite3_step(row)) == SQLITE_ROW)
		read_receipt(row, &receipts[(*count)++]);
	enum spool_status status = rc == SQLITE_ROW || rc == SQLITE_DONE ? SPOOL_OK
	                                                                 : spool_fail(spool, rc);
	(void)sqlite3_reset(row);
	return status;
}

enum spool_status spool_find_receipt(struct spool *spool, int64_t id, const char *uuid,
                                     struct spool_receipt *receipt)
{
	sqlite3_stmt *row = spool_statement(spool, FIND_RECEIPT);
	if (row == NULL)
		return spool->error.status;
	if (uuid == NULL)
		(void)sqlite3_bind_int64(row, 1, id);
	else
		(void)sqlite3_bind_null(row, 1);
	(void)sqlite3_bind_text(row, 2, uuid, -1, SQLITE_STATIC);
	int rc = sqlite3_step(row);
	if (rc == SQLITE_ROW)
		read_receipt(row, receipt);
	enum spool_status status = rc == SQLITE_ROW    ? SPOOL_OK
	                           : rc == SQLITE_DONE ? SPOOL_END
	                                               : spool_fail(spool, rc);
	(void)sqlite3_reset(row);
	return status;
}

enum spool_status spool_find_uuid(struct spool *spool, const char *uuid, int64_t *id)
{
	static const enum query queries[] = { FIND_UUID, FIND_DEAD_UUID };
	for (size_t i = 0; i < sizeof queries / sizeof queries[0]; i++) {
		sqlite3_stmt *row = spool_statement(spool, queries[i]);
		if (row == NULL)
			return spool->error.status;
		(void)sqlite3_bind_text(row, 1, uuid, -1, SQLITE_STATIC);
		int rc = sqlite3_step(row);
		if (rc == SQLITE_ROW)
			*id = sqlite3_column_int64(row, 0);
		(void)sqlite3_reset(row);
		if (rc == SQLITE_ROW)
			return SPOOL_OK;
		if (rc != SQLITE_DONE)
			return spool_fail(spool, rc);
	}
	return SPOOL_END;
}
