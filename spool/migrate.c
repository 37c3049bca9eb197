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
	(void)sqlite3_finalize(statement); /* repeats what the step said */
	return rc == SQLITE_ROW ? SQLITE_OK : rc;
}

enum schema_state schema_look(sqlite3 *db, int *rc)
{
	int application = 0, version = 0, tables = 0;
	/* All three of one moment: another process may just be making the spool. */
	bool alone = sqlite3_get_autocommit(db) != 0;
	*rc = alone ? sqlite3_exec(db, "BEGIN", NULL, NULL, NULL) : SQLITE_OK;
	if (*rc == SQLITE_OK)
		*rc = read_pragma(db, "PRAGMA application_id", &application);
	if (*rc == SQLITE_OK)
		*rc = read_pragma(db, "PRAGMA user_version", &version);
	if (*rc == SQLITE_OK)
		*rc = read_pragma(db, "SELECT count(*) FROM sqlite_master", &tables);
	if (alone)
		(void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL); /* nothing was written */
	if (*rc != SQLITE_OK)
		return SCHEMA_UNREADABLE;
	if (application == 0 && version == 0 && tables == 0)
		return SCHEMA_EMPTY;
	if (application != SCHEMA_APPLICATION_ID || version < SCHEMA_VERSION)
		return SCHEMA_FOREIGN;
	return version == SCHEMA_VERSION ? SCHEMA_CURRENT : SCHEMA_NEWER;
}

int schema_migrate(sqlite3 *db)
{
	int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return rc;
	/* Looked at again under the lock: another process may have been first. */
	if (schema_look(db, &rc) == SCHEMA_EMPTY) {
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
	if (rc != SQLITE_OK)
		(void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return rc;
}
