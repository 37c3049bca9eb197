/* Finding records for a person; see manage.h. */
#include "spool/manage.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "spool/internal.h"

const char *const spool_column_names[SPOOL_DEAD_COLUMNS] = {
	"model_id", "request_body", "response_body", "request_id", "request_at", "response_at",
	"session", "session_timeout", "user_id", "is_authenticated", "first_name", "last_name",
	"email", "phone", "gender", "content_type", "accept", "request_extra", "app", "format",
	"type", "key", "uuid", "spooled_at", "id",
	"reason", "http_status", "attempts", "died_at", "server_said"
};

static void bind_bytes(sqlite3_stmt *row, int place, const char *text)
{
	if (text != NULL)
		(void)sqlite3_bind_blob(row, place, text, (int)strlen(text), SQLITE_STATIC);
	else
		(void)sqlite3_bind_null(row, place);
}

enum spool_status spool_find_begin(struct spool *spool, bool dead,
                                   const struct spool_filter *filter, int64_t from, int64_t to)
{
	sqlite3_stmt *row = spool_statement(spool, dead ? FIND_DEAD : FIND);
	if (row == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(row, 1, from);
	(void)sqlite3_bind_int64(row, 2, to);
	bind_bytes(row, 3, filter->app);
	bind_bytes(row, 4, filter->session);
	bind_bytes(row, 5, filter->user);
	if (filter->before != INT64_MAX)
		(void)sqlite3_bind_int64(row, 6, filter->before);
	else
		(void)sqlite3_bind_null(row, 6);
	if (dead)
		bind_bytes(row, 7, filter->reason);
	spool->found = row;
	spool->found_from = from;
	return SPOOL_OK;
}

enum spool_status spool_find_next(struct spool *spool, struct spool_found *found)
{
	sqlite3_stmt *row = spool->found;
	bool dead = row == spool->statements[FIND_DEAD];
	int rc = sqlite3_step(row);
	if (rc != SQLITE_ROW)
		return rc == SQLITE_DONE ? SPOOL_END : spool_fail(spool, rc);
	*found = (struct spool_found){ .bytes = 0 };
	spool_read_record(row, &found->record);
	/* As in a scan: a damaged page may have its rows out of order. */
	if (found->record.id < spool->found_from)
		return spool_fail(spool, SQLITE_CORRUPT);
	spool->found_from = found->record.id;
	found->bytes = record_bytes(&found->record);
	if (dead) {
		found->reason = spool_column_text(row, 25);
		found->http_status = spool_column_number(row, 26);
		found->attempts = spool_column_number(row, 27);
		found->died_at = spool_column_number(row, 28);
		found->server_said = spool_column_text(row, 29);
	}
	return SPOOL_OK;
}

void spool_find_end(struct spool *spool)
{
	if (spool->found != NULL)
		(void)sqlite3_reset(spool->found);
	spool->found = NULL;
}

void spool_bind_value(sqlite3_stmt *row, int place, const struct spool_value *value)
{
	switch (value->kind) {
	case VALUE_NULL:
		(void)sqlite3_bind_null(row, place);
		break;
	case VALUE_INTEGER:
		(void)sqlite3_bind_int64(row, place, value->integer);
		break;
	case VALUE_REAL:
		(void)sqlite3_bind_double(row, place, value->real);
		break;
	case VALUE_TEXT:
		(void)sqlite3_bind_text64(row, place, value->text.bytes, value->text.size, SQLITE_STATIC,
		                          SQLITE_UTF8);
		break;
	case VALUE_BLOB:
		(void)sqlite3_bind_blob64(row, place, value->text.bytes, value->text.size,
		                          SQLITE_STATIC);
		break;
	}
}

struct spool_value spool_found_value(struct spool *spool, int column)
{
	sqlite3_stmt *row = spool->found;
	struct spool_value value = { .kind = VALUE_NULL };
	switch (sqlite3_column_type(row, column)) {
	case SQLITE_INTEGER:
		value.kind = VALUE_INTEGER;
		value.integer = sqlite3_column_int64(row, column);
		break;
	case SQLITE_FLOAT:
		value.kind = VALUE_REAL;
		value.real = sqlite3_column_double(row, column);
		break;
	case SQLITE_TEXT:
		value.kind = VALUE_TEXT;
		value.text = spool_column_text(row, column);
		break;
	case SQLITE_BLOB:
		value.kind = VALUE_BLOB;
		value.text = spool_column_text(row, column);
		break;
	default:
		break;
	}
	return value;
}

enum spool_status spool_last(struct spool *spool, bool dead, int64_t *id)
{
	enum spool_status status = spool_one_number(spool, dead ? LAST_DEAD : LAST, SPOOL_FIRST_ID,
	                                            id);
	if (status != SPOOL_DAMAGED)
		return status;
	*id = INT64_MAX; /* those before it may be sound */
	return SPOOL_OK;
}

enum spool_status spool_overwrite(struct spool *spool, bool wanted)
{
	int rc = sqlite3_exec(spool->db, wanted ? "PRAGMA secure_delete = ON"
	                                        : "PRAGMA secure_delete = FAST", NULL, NULL, NULL);
	return rc == SQLITE_OK ? SPOOL_OK : spool_fail(spool, rc);
}

static int wait_until(void *end, int waits)
{
	const struct timespec moment = { 0, 1000000 };
	(void)waits;
	(void)nanosleep(&moment, NULL);
	return !spool_is_past(end);
}

enum spool_status spool_empty_log(struct spool *spool, int64_t wall, int patience)
{
	/* By the rules that keep clear of the WAL-reset fault (see settle.c): a commit of
	 * our own comes first each time, so that frames are surely waiting. A TRUNCATE that has
	 * the writer lock keeps every commit out while it copies. */
	char when[24];
	(void)snprintf(when, sizeof when, "%" PRId64, wall);
	struct spool_change note = { .kind = CHANGE_NOTE, .name = "purged_at", .value = when };
	struct timespec end = spool_deadline(patience);
	sqlite3_stmt *unfinished = NULL;
	enum spool_status status;
	while ((unfinished = sqlite3_next_stmt(spool->db, unfinished)) != NULL)
		(void)sqlite3_reset(unfinished);
	(void)sqlite3_busy_handler(spool->db, wait_until, &end);
	spool->checkpoint_frames = INT32_MAX; /* none of the ordinary kind in between */
	do {
		status = spool_apply(spool, &note, 1, wall);
		if (status == SPOOL_OK) {
			int rc = sqlite3_wal_checkpoint_v2(spool->db, "main", SQLITE_CHECKPOINT_TRUNCATE,
			                                   NULL, NULL);
			status = rc == SQLITE_OK ? SPOOL_OK : spool_fail(spool, rc);
		}
		/* For another's checkpoint, unlike all else, SQLite itself does not wait. */
	} while (status == SPOOL_BUSY && wait_until(&end, 0) != 0);
	spool->checkpoint_frames = CHECKPOINT_FRAMES;
	spool->wal_frames = 0;
	spool_restore_patience(spool);
	return status;
}
