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
	if (application != SCHEMA_APPLICATION_ID || version < 1)
		return SCHEMA_FOREIGN;
	return version < SCHEMA_VERSION    ? SCHEMA_OLDER
	       : version == SCHEMA_VERSION ? SCHEMA_CURRENT
	                                   : SCHEMA_NEWER;
}

/* --- An older one ------------------------------------------------------- */

/* All of a table's text that shows in how its rows lie in the file. */
#define LAYOUT(table)                                                                      \
	"(SELECT group_concat(x.name || ' ' || x.type || ' ' || x.pk || ' ' || x.hidden) " \
	"FROM pragma_table_xinfo(" table ") AS x) || "                                     \
	"(SELECT count(*) FROM pragma_index_list(" table ") WHERE origin <> 'c') || "      \
	"(SELECT upper(t.sql) LIKE '%WITHOUT ROWID' FROM sqlite_master AS t "              \
	"WHERE t.name = " table ")"

/* What a spool of this version has; tables first, since the others lean on them. The
 * columns are ?1 and so on of what is asked about an object. */
static const char objects[] =
	"SELECT m.name, m.sql, " LAYOUT("m.name") ", 'DROP ' || m.type || ' ' || m.name, "
	"m.type = 'table' FROM sqlite_master AS m WHERE m.name NOT LIKE 'sqlite_%' "
	"ORDER BY m.type <> 'table'";
enum { OBJECT_SQL = 1, OBJECT_DROP = 3, OBJECT_IS_TABLE };

/* Runs `sql` with what is known of the object. `*answer`: its number; -1: it gives none. */
static int ask(sqlite3 *db, const char *sql, sqlite3_stmt *object, int *answer)
{
	sqlite3_stmt *statement = NULL;
	int rc = sqlite3_prepare_v2(db, sql, -1, &statement, NULL);
	for (int i = 0; rc == SQLITE_OK && i < sqlite3_bind_parameter_count(statement); i++)
		rc = sqlite3_bind_value(statement, i + 1, sqlite3_column_value(object, i));
	if (rc == SQLITE_OK)
		rc = sqlite3_step(statement);
	*answer = rc == SQLITE_ROW ? sqlite3_column_int(statement, 0) : -1;
	(void)sqlite3_finalize(statement); /* repeats what the step said */
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* Defaults and checks do not show in the rows, and the rows may be gigabytes: so only the
 * text is changed, as https://www.sqlite.org/lang_altertable.html, section 7, has it. */
static int change_text(sqlite3 *db, sqlite3_stmt *object)
{
	int cookie = 0, none;
	char next[48];
	int rc = read_pragma(db, "PRAGMA schema_version", &cookie);
	(void)snprintf(next, sizeof next, "PRAGMA schema_version = %u", (unsigned)cookie + 1);
	const char *const steps[] = {
		"PRAGMA writable_schema = ON",
		"UPDATE sqlite_master SET sql = ?2 WHERE type = 'table' AND name = ?1",
		next, /* all others read the schema again, */
		"PRAGMA writable_schema = RESET" /* and so does this one */
	};
	(void)sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 0, NULL);
	for (size_t i = 0; rc == SQLITE_OK && i < sizeof steps / sizeof steps[0]; i++)
		rc = ask(db, steps[i], object, &none);
	(void)sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	return rc;
}

/* Makes one object of the file what it is in a spool of this version. */
static int bring_up(sqlite3 *db, sqlite3_stmt *object)
{
	int same = 0;
	int rc = ask(db, "SELECT sql = ?2 FROM sqlite_master WHERE name = ?1", object, &same);
	bool missing = same < 0;
	if (rc != SQLITE_OK || same > 0)
		return rc;
	if (!missing && sqlite3_column_int(object, OBJECT_IS_TABLE) != 0) {
		rc = ask(db, "SELECT " LAYOUT("?1") " = ?3", object, &same);
		return rc == SQLITE_OK && same > 0 ? change_text(db, object) : rc;
	}
	if (!missing)
		rc = ask(db, (const char *)sqlite3_column_text(object, OBJECT_DROP), object, &same);
	return rc != SQLITE_OK ? rc : ask(db, (const char *)sqlite3_column_text(object, OBJECT_SQL),
	                                  object, &same);
}

static int bring_all_up(sqlite3 *db)
{
	sqlite3 *model = NULL;
	sqlite3_stmt *object = NULL;
	int rc = sqlite3_open(":memory:", &model);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(model, schema_sql, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(model, objects, -1, &object, NULL);
	while (rc == SQLITE_OK && (rc = sqlite3_step(object)) == SQLITE_ROW)
		rc = bring_up(db, object);
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
