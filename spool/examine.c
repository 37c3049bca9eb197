/* What is wrong inside a spool's file; see spool.h. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "spool/internal.h"
#include "spool/migrate.h"

struct examination {
	struct spool *spool;
	void (*found)(void *context, const char *sentence);
	void *context;
	sqlite3 *model; /* an empty spool of this version, to compare with */
	bool damaged;
};

static int report_check(void *context, int columns, char **values, char **names)
{
	struct examination *examination = context;
	(void)columns;
	(void)names;
	if (strcmp(values[0], "ok") != 0) {
		char sentence[512];
		if (!examination->damaged) {
			(void)snprintf(sentence, sizeof sentence, "%s: damaged: stop the agent, and run "
			               "'reconify-agent init --salvage'; this is what SQLite found:",
			               examination->spool->path);
			examination->found(examination->context, sentence);
		}
		examination->damaged = true;
		/* One value may be several lines. */
		for (char *rest = values[0], *line; (line = strsep(&rest, "\n")) != NULL;) {
			(void)snprintf(sentence, sizeof sentence, "damage: %.300s", line);
			if (strncmp(line, "***", 3) != 0)
				examination->found(examination->context, sentence);
		}
	}
	return 0;
}

#define OBJECTS                                                                            \
	"SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' ORDER BY name"

/* Calls `found` for each object of `here` that `there` has not, or otherwise. */
static int compare_objects(const struct examination *examination, sqlite3 *here, sqlite3 *there,
                           bool here_is_model)
{
	sqlite3_stmt *mine = NULL, *other = NULL;
	int rc = sqlite3_prepare_v2(here, OBJECTS, -1, &mine, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(there,
		                        "SELECT sql IS ?3 FROM sqlite_master "
		                        "WHERE type = ?1 AND name = ?2", -1, &other, NULL);
	while (rc == SQLITE_OK && (rc = sqlite3_step(mine)) == SQLITE_ROW) {
		const char *type = (const char *)sqlite3_column_text(mine, 0);
		const char *name = (const char *)sqlite3_column_text(mine, 1);
		const char *wrong = NULL;
		(void)sqlite3_bind_text(other, 1, type, -1, SQLITE_TRANSIENT);
		(void)sqlite3_bind_text(other, 2, name, -1, SQLITE_TRANSIENT);
		(void)sqlite3_bind_value(other, 3, sqlite3_column_value(mine, 2));
		rc = sqlite3_step(other);
		if (rc == SQLITE_DONE) {
			wrong = here_is_model ? "is missing" : "is not part of a spool";
		} else if (rc == SQLITE_ROW && here_is_model && sqlite3_column_int(other, 0) == 0) {
			wrong = "is not as this version's schema has it";
		}
		if (rc == SQLITE_DONE || rc == SQLITE_ROW)
			rc = sqlite3_reset(other);
		if (wrong != NULL) {
			char sentence[512];
			(void)snprintf(sentence, sizeof sentence, "%s: %s %.100s %s",
			               examination->spool->path, type, name, wrong);
			examination->found(examination->context, sentence);
		}
	}
	(void)sqlite3_finalize(mine);
	(void)sqlite3_finalize(other);
	return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

bool spool_is_older(struct spool *spool)
{
	int rc;
	return schema_look(spool->db, &rc) == SCHEMA_OLDER;
}

enum spool_status spool_compare_schema(struct spool *spool,
                                       void (*found)(void *context, const char *sentence),
                                       void *context)
{
	struct examination examination = { spool, found, context, NULL, false };
	int rc = sqlite3_open(":memory:", &examination.model);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(examination.model, schema_sql, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = compare_objects(&examination, examination.model, spool->db, true);
	if (rc == SQLITE_OK)
		rc = compare_objects(&examination, spool->db, examination.model, false);
	(void)sqlite3_close(examination.model);
	return rc == SQLITE_OK ? SPOOL_OK : spool_fail(spool, rc);
}

enum spool_status spool_examine(struct spool *spool,
                                void (*found)(void *context, const char *sentence),
                                void *context)
{
	struct examination examination = { spool, found, context, NULL, false };
	struct stat about;
	if (fstat(spool->file, &about) == 0 && about.st_nlink > 1) {
		char sentence[PATH_MAX + 200];
		(void)snprintf(sentence, sizeof sentence, "%s: the file has %lu names (hard links): a "
		               "program that opens it by another one damages it; remove the others",
		               spool->path, (unsigned long)about.st_nlink);
		found(context, sentence);
	}
	int rc = sqlite3_exec(spool->db, "PRAGMA quick_check(20)", report_check, &examination, NULL);
	if (rc != SQLITE_OK)
		return spool_fail(spool, rc);
	if (!spool_is_older(spool))
		return spool_compare_schema(spool, found, context);
	char sentence[PATH_MAX + 120];
	(void)snprintf(sentence, sizeof sentence, "%s: made by an older reconify-agent; the agent "
	               "brings it up to date when it starts, 'init' does it now", spool->path);
	found(context, sentence);
	return SPOOL_OK;
}
