/* Creates and migrates the schema; see migrate.h. */
#include "spool/migrate.h"

#include <stdio.h>

/* schema/spool.sql, turned into a string by the Makefile. */
const char schema_sql[] =
#include "schema_sql.h"
	;

static int read_pragma(sqlite3 *db, const char *sql, int *value)
{
	sqlite3_stmt *statement = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
	if (rc != SQLITE_OK)
		return rc;
	rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW)
		*value = sqlite3_column_int(statement, 0);
	int end = sqlite3_finalize(statement);
	return rc == SQLITE_ROW ? end : rc;
}

enum schema_state schema_look(sqlite3 *db)
{
	int application = 0, version = 0, tables = 0;
	/* All three of one moment: another process may just be making the spool. */
	bool alone = sqlite3_get_autocommit(db) != 0;
	if (alone && sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) != SQLITE_OK)
		return SCHEMA_UNREADABLE;
	int rc = read_pragma(db, "PRAGMA application_id", &application);
	if (rc == SQLITE_OK)
		rc = read_pragma(db, "PRAGMA user_version", &version);
	if (rc == SQLITE_OK)
		rc = read_pragma(db, "SELECT count(*) FROM sqlite_master", &tables);
	if (alone && rc == SQLITE_OK)
		rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return SCHEMA_UNREADABLE; /* the caller explains the error, and closes */
	if (application == 0 && version == 0 && tables == 0)
		return SCHEMA_EMPTY;
	if (application != SCHEMA_APPLICATION_ID)
		return SCHEMA_FOREIGN;
	if (version > SCHEMA_VERSION)
		return SCHEMA_NEWER;
	if (version == SCHEMA_VERSION)
		return SCHEMA_CURRENT;
	return version >= 1 ? SCHEMA_OLDER : SCHEMA_FOREIGN;
}

int schema_migrate(sqlite3 *db)
{
	int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return rc;
	/* Looked at again under the lock: another process may have been first. */
	if (schema_look(db) == SCHEMA_EMPTY) {
		char seal[96];
		(void)snprintf(seal, sizeof seal,
		               "PRAGMA application_id = %d; PRAGMA user_version = %d",
		               SCHEMA_APPLICATION_ID, SCHEMA_VERSION);
		rc = sqlite3_exec(db, schema_sql, NULL, NULL, NULL);
		if (rc == SQLITE_OK)
			rc = sqlite3_exec(db, seal, NULL, NULL, NULL);
	}
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
	if (rc != SQLITE_OK && !sqlite3_get_autocommit(db))
		(void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return rc;
}
