/* The spool as it is, for the simulation: the same seeds as with the model, so that the model
 * is known to be true. Slow, and a power cut is only a kill here. See store.h. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "agent/pause.h"
#include "tests/torture/store.h"

struct store {
	char folder[100], path[128];
	sqlite3 *db;
};

static int64_t ask(struct store *store, const char *sql, int64_t id)
{
	sqlite3_stmt *statement = NULL;
	int64_t value = -1;
	if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) != SQLITE_OK) {
		(void)fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(store->db));
		exit(70);
	}
	(void)sqlite3_bind_int64(statement, 1, id);
	int rc = sqlite3_step(statement);
	if (rc == SQLITE_ROW)
		value = sqlite3_column_int64(statement, 0);
	if (sqlite3_finalize(statement) != SQLITE_OK) {
		(void)fprintf(stderr, "%s: %s\n", sql, sqlite3_errmsg(store->db));
		exit(70);
	}
	return value;
}

struct store *store_new(void)
{
	struct spool_error error;
	struct store *store = calloc(1, sizeof *store);
	const char *base = getenv("TMPDIR");
	if (store == NULL)
		exit(71);
	(void)snprintf(store->folder, sizeof store->folder, "%.70s/sim-XXXXXX",
	               base != NULL ? base : "/dev/shm");
	if (mkdtemp(store->folder) == NULL)
		exit(74);
	(void)snprintf(store->path, sizeof store->path, "%s/spool.db", store->folder);
	struct spool *spool = spool_open(store->path, SPOOL_CREATE, 1 << 20, &error);
	if (spool == NULL || sqlite3_open(store->path, &store->db) != SQLITE_OK) {
		(void)fprintf(stderr, "%s\n", error.sentence);
		exit(74);
	}
	spool_close(spool);
	(void)sqlite3_busy_timeout(store->db, 5000);
	return store;
}

void store_free(struct store *store)
{
	static const char *const endings[] = { "", "-wal", "-shm", "-agent.ballast" };
	(void)sqlite3_close(store->db);
	for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
		char name[160];
		(void)snprintf(name, sizeof name, "%s%s", store->path, endings[i]);
		(void)unlink(name);
	}
	(void)rmdir(store->folder);
	free(store);
}

const char *store_path(const struct store *store)
{
	return store->path;
}

void store_insert(struct store *store, const struct store_row *row)
{
	char *sql = sqlite3_mprintf("INSERT INTO interactions (model_id, request_body, response_body, "
	                            "app, session, uuid, request_at) VALUES "
	                            "('m', %Q, %Q, %Q, nullif(%Q, ''), %Q, 1700000000000)",
	                            row->request, row->response, row->app, row->session, row->uuid);
	char *error = NULL;
	if (sql == NULL || sqlite3_exec(store->db, sql, NULL, NULL, &error) != SQLITE_OK) {
		(void)fprintf(stderr, "insert: %s\n", error != NULL ? error : "no memory");
		exit(70);
	}
	sqlite3_free(sql);
}

enum store_state store_look(struct store *store, int64_t id)
{
	return (enum store_state)ask(store, "SELECT CASE WHEN EXISTS (SELECT 1 FROM interactions "
	                                    "WHERE id = ?1) THEN 0 WHEN EXISTS (SELECT 1 FROM "
	                                    "dead_letters WHERE id = ?1) THEN 1 ELSE 2 END", id);
}

static struct spool *open_again(struct store *store)
{
	struct spool_error error;
	struct spool *spool = spool_open(store->path, SPOOL_WORK, 1 << 20, &error);
	if (spool == NULL) {
		(void)fprintf(stderr, "%s\n", error.sentence);
		exit(74);
	}
	return spool;
}

static bool change(struct store *store, int64_t id, enum spool_change_kind kind)
{
	struct spool *spool = open_again(store);
	struct spool_change one = { .kind = kind, .id = id };
	bool done = spool_apply(spool, &one, 1, 1700000000000) == SPOOL_OK && !one.missed;
	spool_close(spool);
	return done;
}

bool store_take(struct store *store, int64_t id, bool removed)
{
	if (!removed)
		return change(store, id, CHANGE_DISCARDED);
	(void)ask(store, "DELETE FROM interactions WHERE id = ?1", id);
	return sqlite3_changes(store->db) == 1;
}

bool store_revive(struct store *store, int64_t id)
{
	return change(store, id, CHANGE_REVIVED);
}

void store_pause(struct store *store, int64_t since)
{
	struct spool *spool = open_again(store);
	if (pause_write(spool, since, 1700000000000) != SPOOL_OK)
		exit(70);
	spool_close(spool);
}

bool store_spoil_row(struct store *store, int64_t id, bool damaged)
{
	(void)store;
	(void)id;
	(void)damaged;
	return false;
}

void store_spoil(struct store *store, unsigned in_a_thousand, uint64_t seed)
{
	(void)store;
	(void)in_a_thousand;
	(void)seed;
}

void store_cut(struct store *store)
{
	(void)store;
}

bool store_balanced(struct store *store)
{
	return ask(store, "SELECT accepted = delivered + dead + discarded + dropped + purged + removed "
	                  "+ (SELECT count(*) FROM interactions) AND "
	                  "dead = (SELECT count(*) FROM dead_letters) FROM ledger WHERE ?1 = 0", 0) == 1;
}
