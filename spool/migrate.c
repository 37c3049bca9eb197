/* Creates and migrates the schema; see migrate.h. */
#include "spool/migrate.h"

#include <stdio.h>
#include <string.h>

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
	if (application != SCHEMA_APPLICATION_ID || version < 1)
		return SCHEMA_FOREIGN;
	return version < SCHEMA_VERSION    ? SCHEMA_OLDER
	       : version == SCHEMA_VERSION ? SCHEMA_CURRENT
	                                   : SCHEMA_NEWER;
}

/* --- An older one ------------------------------------------------------- */

/* All of a table's text that shows in how its rows lie in the file. */
#define LAYOUT                                                                             \
	"SELECT group_concat(name || ' ' || type || ' ' || pk || ' ' || hidden) || "       \
	"(SELECT count(*) FROM pragma_index_list(?1) WHERE origin <> 'c') || "             \
	"(SELECT upper(sql) LIKE '%WITHOUT ROWID' FROM sqlite_master WHERE name = ?1) "    \
	"FROM pragma_table_xinfo(?1)"

static int prepare_with(sqlite3 *db, const char *sql, const char *name, sqlite3_stmt **statement)
{
	int rc = sqlite3_prepare_v2(db, sql, -1, statement, NULL);
	return rc == SQLITE_OK ? sqlite3_bind_text(*statement, 1, name, -1, SQLITE_TRANSIENT) : rc;
}

static int has_same_layout(sqlite3 *db, sqlite3 *model, const char *name, bool *same)
{
	sqlite3_stmt *here = NULL, *there = NULL;
	*same = false;
	int rc = prepare_with(db, LAYOUT, name, &here);
	if (rc == SQLITE_OK)
		rc = prepare_with(model, LAYOUT, name, &there);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(here);
	if (rc == SQLITE_ROW)
		rc = sqlite3_step(there);
	if (rc == SQLITE_ROW) {
		const char *mine = (const char *)sqlite3_column_text(here, 0);
		const char *theirs = (const char *)sqlite3_column_text(there, 0);
		*same = mine != NULL && theirs != NULL && strcmp(mine, theirs) == 0;
		rc = mine != NULL && theirs != NULL ? SQLITE_OK : SQLITE_NOMEM;
	}
	(void)sqlite3_finalize(here);
	(void)sqlite3_finalize(there);
	return rc;
}

/* Defaults and checks do not show in the rows, and the rows may be gigabytes: so only the
 * text is changed, as https://www.sqlite.org/lang_altertable.html, section 7, has it. */
static int change_text(sqlite3 *db, const char *name, const char *sql)
{
	sqlite3_stmt *update = NULL;
	int cookie = 0;
	char next[48];
	(void)sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 0, NULL);
	int rc = read_pragma(db, "PRAGMA schema_version", &cookie);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "PRAGMA writable_schema = ON", NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = prepare_with(db, "UPDATE sqlite_master SET sql = ?2 WHERE type = 'table' AND name = ?1",
		                  name, &update);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_text(update, 2, sql, -1, SQLITE_TRANSIENT);
	if (rc == SQLITE_OK && (rc = sqlite3_step(update)) == SQLITE_DONE)
		rc = SQLITE_OK;
	(void)sqlite3_finalize(update);
	(void)snprintf(next, sizeof next, "PRAGMA schema_version = %u", (unsigned)cookie + 1);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, next, NULL, NULL, NULL); /* all others read it again */
	int reset = sqlite3_exec(db, "PRAGMA writable_schema = RESET", NULL, NULL, NULL);
	(void)sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	return rc == SQLITE_OK ? reset : rc;
}

/* Makes one object of the file what it is in the model. */
static int bring_up(sqlite3 *db, sqlite3 *model, const char *type, const char *name,
                    const char *sql)
{
	sqlite3_stmt *look = NULL;
	bool table = strcmp(type, "table") == 0, same_layout = false;
	int rc = prepare_with(db, "SELECT sql = ?2 FROM sqlite_master WHERE name = ?1 AND type = ?3",
	                      name, &look);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_text(look, 2, sql, -1, SQLITE_TRANSIENT);
	if (rc == SQLITE_OK)
		rc = sqlite3_bind_text(look, 3, type, -1, SQLITE_TRANSIENT);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(look);
	bool there = rc == SQLITE_ROW, same = there && sqlite3_column_int(look, 0) == 1;
	(void)sqlite3_finalize(look);
	if ((rc != SQLITE_ROW && rc != SQLITE_DONE) || same)
		return same ? SQLITE_OK : rc;
	if (there && table) {
		rc = has_same_layout(db, model, name, &same_layout);
		return rc == SQLITE_OK && same_layout ? change_text(db, name, sql) : rc;
	}
	if (there) {
		char *drop = sqlite3_mprintf("DROP %s \"%w\"", type, name);
		rc = drop == NULL ? SQLITE_NOMEM : sqlite3_exec(db, drop, NULL, NULL, NULL);
		sqlite3_free(drop);
		if (rc != SQLITE_OK)
			return rc;
	}
	return sqlite3_exec(db, sql, NULL, NULL, NULL);
}

static int bring_all_up(sqlite3 *db)
{
	sqlite3 *model = NULL;
	sqlite3_stmt *object = NULL;
	int rc = sqlite3_open(":memory:", &model);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(model, schema_sql, NULL, NULL, NULL);
	/* Tables first: the others lean on them. */
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(model, "SELECT type, name, sql FROM sqlite_master "
		                        "WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' "
		                        "ORDER BY type <> 'table'", -1, &object, NULL);
	while (rc == SQLITE_OK && (rc = sqlite3_step(object)) == SQLITE_ROW) {
		const char *type = (const char *)sqlite3_column_text(object, 0);
		const char *name = (const char *)sqlite3_column_text(object, 1);
		const char *sql = (const char *)sqlite3_column_text(object, 2);
		rc = type == NULL || name == NULL || sql == NULL ? SQLITE_NOMEM
		                                                 : bring_up(db, model, type, name, sql);
	}
	(void)sqlite3_finalize(object);
	(void)sqlite3_close(model);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int schema_migrate(sqlite3 *db)
{
	int rc = sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return rc;
	/* Looked at again under the lock: another process may have been first. */
	enum schema_state state = schema_look(db, &rc);
	if (state == SCHEMA_EMPTY || state == SCHEMA_OLDER) {
		char seal[96];
		(void)snprintf(seal, sizeof seal,
		               "PRAGMA application_id = %d; PRAGMA user_version = %d",
		               SCHEMA_APPLICATION_ID, SCHEMA_VERSION);
		rc = state == SCHEMA_OLDER ? bring_all_up(db)
		                           : sqlite3_exec(db, schema_sql, NULL, NULL, NULL);
		if (rc == SQLITE_OK)
			rc = sqlite3_exec(db, seal, NULL, NULL, NULL);
	}
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(db, "COMMIT", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		(void)sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL);
	return rc;
}
