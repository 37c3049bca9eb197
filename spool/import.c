/* Bringing records of another spool in; see manage.h.
 *
 * The only place where the file's triggers run on a connection of the agent's
 * programs: so never before they were compared with the schema, within the same
 * transaction in which they are to run.
 */
#include <stdio.h>
#include <string.h>

#include "spool/internal.h"
#include "spool/manage.h"

#define FIRST_DEAD_COLUMN SPOOL_COLUMNS /* all but id, which is given anew, stand before */
#define UUID_COLUMN 22
#define KEY_COLUMN 21

static enum spool_status run_sql(struct spool *spool, const char *sql)
{
	int rc = sqlite3_exec(spool->db, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? SPOOL_OK : spool_fail(spool, rc);
}

enum spool_status spool_import_start(struct spool *spool)
{
	int rc = sqlite3_db_config(spool->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 1, NULL);
	if (rc != SQLITE_OK)
		return spool_fail(spool, rc);
	/* FULL, as for any producer: what is reported as imported is on the disk. The
	 * uuids that are there already are looked at once: nothing indexes them. */
	return run_sql(spool,
	               "PRAGMA synchronous = FULL;"
	               "CREATE TEMP TABLE present (uuid PRIMARY KEY) WITHOUT ROWID;"
	               "INSERT OR IGNORE INTO temp.present "
	               "SELECT CAST(uuid AS TEXT) FROM interactions WHERE uuid IS NOT NULL;"
	               "INSERT OR IGNORE INTO temp.present "
	               "SELECT CAST(uuid AS TEXT) FROM dead_letters WHERE uuid IS NOT NULL;"
	               "INSERT OR IGNORE INTO temp.present "
	               "SELECT uuid FROM receipts WHERE uuid IS NOT NULL");
}

static void note_difference(void *context, const char *sentence)
{
	struct spool_error *error = context;
	if (error->status != SPOOL_OK)
		return;
	spool_say(error, SPOOL_REFUSED, "%s; nothing is imported into a spool whose tables or "
	          "triggers are not the schema's: see 'reconify-agent check'", sentence);
}

enum spool_status spool_import_begin(struct spool *spool)
{
	struct spool_error difference = { .status = SPOOL_OK };
	enum spool_status status = spool_begin(spool, BEGIN_WRITE);
	if (status != SPOOL_OK)
		return status;
	status = spool_compare_schema(spool, note_difference, &difference);
	if (status == SPOOL_OK && difference.status != SPOOL_OK) {
		spool->error = difference;
		status = difference.status;
	}
	if (status != SPOOL_OK)
		spool_import_abort(spool);
	return status;
}

enum spool_status spool_import_commit(struct spool *spool)
{
	enum spool_status status = spool_run(spool, COMMIT);
	if (status == SPOOL_OK)
		spool_checkpoint_if_due(spool);
	else
		spool_import_abort(spool);
	return status;
}

void spool_import_abort(struct spool *spool)
{
	struct spool_error first = spool->error;
	if (!sqlite3_get_autocommit(spool->db))
		(void)spool_run(spool, ROLLBACK);
	spool->error = first;
}

/* Runs one statement about the line. `*refused`: by a rule, and the transaction goes on;
 * the rule's sentence stands in spool->error. */
static enum spool_status run_line(struct spool *spool, sqlite3_stmt *row, bool *refused)
{
	int rc = sqlite3_step(row);
	*refused = false;
	if (rc == SQLITE_CONSTRAINT || rc == SQLITE_TOOBIG) {
		*refused = true;
		spool_say(&spool->error, rc == SQLITE_TOOBIG ? SPOOL_TOO_BIG : SPOOL_REFUSED, "%s",
		          sqlite3_errmsg(spool->db));
		rc = SQLITE_DONE;
	}
	enum spool_status status = rc == SQLITE_DONE ? SPOOL_OK : spool_fail(spool, rc);
	(void)sqlite3_reset(row);
	(void)sqlite3_clear_bindings(row); /* they were borrowed */
	return status;
}

/* Whether `query` has a row for a value. */
static enum spool_status ask(struct spool *spool, enum query query,
                             const struct spool_value *value, bool *found)
{
	sqlite3_stmt *row = spool_statement(spool, query);
	*found = false;
	if (row == NULL)
		return spool->error.status;
	spool_bind_value(row, 1, value);
	int rc = sqlite3_step(row);
	*found = rc == SQLITE_ROW;
	enum spool_status status = rc == SQLITE_ROW || rc == SQLITE_DONE ? SPOOL_OK
	                                                                 : spool_fail(spool, rc);
	(void)sqlite3_reset(row);
	(void)sqlite3_clear_bindings(row);
	return status;
}

static enum spool_status run_with(struct spool *spool, enum query query,
                                  const struct spool_value *value)
{
	sqlite3_stmt *row = spool_statement(spool, query);
	if (row == NULL)
		return spool->error.status;
	spool_bind_value(row, 1, value);
	enum spool_status status = spool_finish(spool, row);
	(void)sqlite3_clear_bindings(row);
	return status;
}

static enum spool_status insert_waiting(struct spool *spool, const struct spool_value *values,
                                        bool *refused)
{
	sqlite3_stmt *row = spool_statement(spool, IMPORT_WAITING);
	if (row == NULL)
		return spool->error.status;
	for (int i = 0; i < SPOOL_COLUMNS - 1; i++)
		spool_bind_value(row, i + 1, &values[i]);
	return run_line(spool, row, refused);
}

static enum spool_status refuse(struct spool *spool, bool *refused, const char *sentence)
{
	*refused = true;
	spool_say(&spool->error, SPOOL_REFUSED, "%s", sentence);
	return SPOOL_OK;
}

/* No trigger counts a dead letter in, nor keeps its key: both are done here. */
static enum spool_status account_for_dead(struct spool *spool, const struct spool_value *values,
                                          bool *refused)
{
	struct record record;
	sqlite3_stmt *row;
	struct spool_value id = { .kind = VALUE_INTEGER,
		                  .integer = sqlite3_last_insert_rowid(spool->db) };
	struct spool_value bytes = { .kind = VALUE_INTEGER };
	enum spool_status status = spool_load_row(spool, LOAD_DEAD, id.integer, &record, &row);
	if (status != SPOOL_OK)
		return status;
	bytes.integer = record_bytes(&record);
	(void)sqlite3_reset(row);
	bool room;
	status = ask(spool, IMPORT_ROOM, &bytes, &room);
	if (status == SPOOL_OK && !room)
		return refuse(spool, refused, SPOOL_FULL_SENTENCE);
	if (status == SPOOL_OK)
		status = run_with(spool, IMPORT_COUNT_DEAD, &bytes);
	if (status == SPOOL_OK && values[KEY_COLUMN].kind != VALUE_NULL)
		status = run_with(spool, IMPORT_HOLD_KEY, &id);
	/* So that no waiting row is given its id, under which it may wait again. */
	if (status == SPOOL_OK)
		status = run_with(spool, IMPORT_SEQUENCE, &id);
	if (status == SPOOL_OK && sqlite3_changes(spool->db) == 0)
		status = run_with(spool, IMPORT_FIRST_SEQUENCE, &id);
	return status;
}

static enum spool_status insert_dead(struct spool *spool, const struct spool_value *values,
                                     bool *refused)
{
	bool taken = false;
	enum spool_status status = SPOOL_OK;
	if (values[KEY_COLUMN].kind != VALUE_NULL)
		status = ask(spool, IMPORT_KEY_TAKEN, &values[KEY_COLUMN], &taken);
	if (status != SPOOL_OK)
		return status;
	if (taken)
		return refuse(spool, refused, "key is that of another record");
	sqlite3_stmt *row = spool_statement(spool, IMPORT_DEAD);
	if (row == NULL)
		return spool->error.status;
	for (int i = 0; i < SPOOL_COLUMNS - 1; i++)
		spool_bind_value(row, i + 1, &values[i]);
	for (int i = FIRST_DEAD_COLUMN; i < SPOOL_DEAD_COLUMNS; i++)
		spool_bind_value(row, i, &values[i]);
	status = run_line(spool, row, refused);
	if (status == SPOOL_OK && !*refused)
		status = account_for_dead(spool, values, refused);
	return status;
}

static bool is_uuid(const struct spool_value *value)
{
	if (value->kind != VALUE_TEXT || value->text.size != RECORD_UUID_SIZE)
		return false;
	for (size_t i = 0; i < value->text.size; i++)
		if (memchr("0123456789abcdef", value->text.bytes[i], 16) == NULL)
			return false;
	return true;
}

enum spool_status spool_import_record(struct spool *spool, bool dead,
                                      const struct spool_value *values,
                                      enum spool_imported *outcome)
{
	const struct spool_value *uuid = &values[UUID_COLUMN];
	bool known, refused = false;
	*outcome = IMPORT_REFUSED;
	if (!is_uuid(uuid))
		return refuse(spool, &refused, "uuid is not 32 lower-case hex digits: without it, "
		              "importing twice would send twice");
	enum spool_status status = ask(spool, IMPORT_KNOWN, uuid, &known);
	if (status != SPOOL_OK)
		return status;
	*outcome = IMPORT_KNOWN_ALREADY;
	if (known)
		return SPOOL_OK;
	status = run_sql(spool, "SAVEPOINT line");
	if (status == SPOOL_OK)
		status = dead ? insert_dead(spool, values, &refused)
		              : insert_waiting(spool, values, &refused);
	if (status == SPOOL_OK && !refused)
		status = run_with(spool, IMPORT_REMEMBER, uuid);
	if (status != SPOOL_OK)
		return status;
	*outcome = refused ? IMPORT_REFUSED : IMPORT_ADDED;
	struct spool_error why = spool->error;
	status = run_sql(spool, refused ? "ROLLBACK TO line; RELEASE line" : "RELEASE line");
	if (status == SPOOL_OK)
		spool->error = why;
	return status;
}
