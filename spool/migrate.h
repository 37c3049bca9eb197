/* The schema's life: created once, then only migrated forward, in place, in one
 * transaction. Never touches a file that is not a spool, or is a newer one.
 */
#ifndef SPOOL_MIGRATE_H
#define SPOOL_MIGRATE_H

#include <sqlite3.h>

#include "spool/spool.h"

/* PRAGMA application_id of every spool: "Rcfy". */
#define SCHEMA_APPLICATION_ID 0x52636679
/* PRAGMA user_version of this program's spools. */
#define SCHEMA_VERSION 2

/* What stands in the file. */
enum schema_state {
	SCHEMA_EMPTY,   /* nothing: a new file, or one whose creation was cut short */
	SCHEMA_OLDER,
	SCHEMA_CURRENT,
	SCHEMA_NEWER,
	SCHEMA_FOREIGN,
	SCHEMA_UNREADABLE /* and `*rc` is SQLite's result code */
};
enum schema_state schema_look(sqlite3 *db, int *rc);

/* Brings an empty or an older file to SCHEMA_VERSION. Its rows stay where they are: what is
 * missing is created, and what is otherwise gets this version's text. A table whose columns
 * somebody changed stays as it is, for 'check' to name. Safe beside producers, and beside
 * another process that does the same. Returns a SQLite result code. */
int schema_migrate(sqlite3 *db);

extern const char schema_sql[];

#endif
