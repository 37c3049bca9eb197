/* The durable queue over SQLite; see spool.h for what it promises.
 *
 * Two rules shape this file. Write transactions are short and few, because
 * producers use a bare command line that may not wait for a lock. And this
 * connection trusts nothing in the file: no trigger, view or function that a
 * producer left there ever runs here.
 */
#include "spool/spool.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "spool/internal.h"
#include "spool/migrate.h"

#define RECORD_ID_COLUMN 24 /* of COLUMNS */
/* Ids looked at one by one behind a damaged page. */
#define PATIENT_STEPS 64
/* Seconds after which a disk that failed for a moment is a new failure. */
#define DISK_FORGIVEN 600

/* Every column of a record, in the order of struct record's reading below. */
#define COLUMNS                                                                       \
	"model_id, request_body, response_body, request_id, request_at, response_at, "    \
	"session, session_timeout, user_id, is_authenticated, first_name, last_name, "    \
	"email, phone, gender, content_type, accept, request_extra, app, format, type, "  \
	"key, uuid, spooled_at, id"
#define DEAD_COLUMNS COLUMNS ", reason, http_status, attempts, died_at, server_said"
/* One for each of them but the id. */
#define VALUES                                                                         \
	"?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, "      \
	"?17, ?18, ifnull(?19, 'default'), ifnull(?20, 'bedrock'), "                   \
	"ifnull(?21, 'chat'), ?22, ?23, ?24"
/* A row is itself when id and uuid agree: after a power cut SQLite may give an
 * id out again that a less careful producer lost. */
#define SAME_ROW " WHERE id = ?1 AND (?2 = '' OR CAST(uuid AS TEXT) = ?2)"

/* What a person's filter means; texts as bytes, a BLOB being as good as a text. */
#define MEANT                                                                          \
	"id >= ?1 AND id <= ?2 "                                                       \
	"AND (?3 IS NULL OR CAST(ifnull(app, 'default') AS BLOB) = ?3) "               \
	"AND (?4 IS NULL OR CAST(session AS BLOB) = ?4) "                              \
	"AND (?5 IS NULL OR CAST(user_id AS BLOB) = ?5 OR CAST(email AS BLOB) = ?5) "  \
	"AND (?6 IS NULL OR spooled_at < ?6)"

#define PLAUSIBLE "BETWEEN 978307200000 AND 9223372036854775807"
#define UNTIMED                                                                        \
	"died_at IS NULL OR died_at < 978307200000 OR died_at > 9223372036854775807"
#define RECEIPT "delivered_at, id, uuid, request_at, bytes, http_status FROM receipts"

static const char *const query_sql[QUERY_COUNT] = {
	[BEGIN_READ] = "BEGIN",
	[BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	[NEXT] = "SELECT id, app, session FROM interactions "
	         "WHERE id >= ?1 AND id <= ?2 ORDER BY id",
	[NEXT_RECORD] = "SELECT " COLUMNS " FROM interactions "
	                "WHERE id >= ?1 AND id <= ?2 ORDER BY id",
	[NEXT_ID] = "SELECT id FROM interactions WHERE id >= ?1 AND id <= ?2 ORDER BY id LIMIT 1",
	[NEXT_DEAD_ID] = "SELECT id FROM dead_letters WHERE id >= ?1 AND id <= ?2 "
	                 "ORDER BY id LIMIT 1",
	[LOAD] = "SELECT " COLUMNS " FROM interactions WHERE id = ?1",
	[LOAD_DEAD] = "SELECT " DEAD_COLUMNS " FROM dead_letters WHERE id = ?1",
	[ATTEMPTS] = "SELECT attempts FROM attempts WHERE id = ?1",
	[ANY_ATTEMPTS] = "SELECT 1 FROM attempts LIMIT 1",
	[REMEMBER_KEY] = "INSERT OR REPLACE INTO known_keys (key, delivered_at) "
	                 "SELECT key, ?3 FROM interactions" SAME_ROW " AND key IS NOT NULL",
	[FORGET_OLD_KEYS] = "DELETE FROM known_keys WHERE delivered_at < ?1",
	[REMOVE] = "DELETE FROM interactions" SAME_ROW,
	[REMOVE_RUN] = "DELETE FROM interactions WHERE id BETWEEN ?1 AND ?2 "
	               "AND " SPOOL_IS_DELIVERED "(id, uuid)",
	[BURY] = "INSERT OR IGNORE INTO dead_letters (" DEAD_COLUMNS ") "
	         "SELECT " COLUMNS ", ?3, ?4, ?5, ?6, ?7 FROM interactions" SAME_ROW,
	/* Only where a producer reused the id of a dead letter. */
	[BURY_UNDER_NEW_ID] =
		"INSERT OR IGNORE INTO dead_letters (" DEAD_COLUMNS ") "
		"SELECT model_id, request_body, response_body, request_id, request_at, "
		"response_at, session, session_timeout, user_id, is_authenticated, first_name, "
		"last_name, email, phone, gender, content_type, accept, request_extra, app, format, "
		"type, key, uuid, spooled_at, (SELECT max(id) + 1 FROM dead_letters), "
		"?3, ?4, ?5, ?6, ?7 FROM interactions" SAME_ROW,
	[HOLD_KEY] = "INSERT OR REPLACE INTO known_keys (key, delivered_at) "
	             "SELECT key, NULL FROM interactions" SAME_ROW " AND key IS NOT NULL",
	[REVIVE] = "INSERT OR IGNORE INTO interactions (" COLUMNS ") "
	           "SELECT " COLUMNS " FROM dead_letters" SAME_ROW,
	[RELEASE_KEY] = "DELETE FROM known_keys WHERE key = "
	                "(SELECT key FROM dead_letters" SAME_ROW ")",
	[RELEASE_WAITING_KEY] = "DELETE FROM known_keys WHERE key = "
	                        "(SELECT key FROM interactions" SAME_ROW ")",
	[REMOVE_DEAD] = "DELETE FROM dead_letters" SAME_ROW,
	[SET_ATTEMPTS] = "INSERT OR REPLACE INTO attempts (id, attempts) VALUES (?1, ?2)",
	[FORGET_ATTEMPTS] = "DELETE FROM attempts WHERE id = ?1",
	[SET_NOTE] = "INSERT OR REPLACE INTO agent_state (name, value) VALUES (?1, ?2)",
	[GET_NOTE] = "SELECT value FROM agent_state WHERE name = ?1",
	[COUNT_FATES] = "UPDATE ledger SET delivered = delivered + ?1, dead = dead + ?2, "
	                "out_bytes = out_bytes + ?3, discarded = discarded + ?4, "
	                "purged = purged + ?5 WHERE one = 1",
	[SET_LIMITS] = "UPDATE ledger SET max_spool = ?1, max_record = ?2, drop_oldest = ?3 "
	               "WHERE one = 1 AND "
	               "(max_spool <> ?1 OR max_record <> ?2 OR drop_oldest <> ?3)",
	[ADD_RECEIPT] = "INSERT OR REPLACE INTO receipts "
	                "(delivered_at, id, uuid, request_at, bytes, http_status) "
	                "VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
	/* A time before 2001 was told by a clock that was wrong, and one that is no number at
	 * all by somebody else. */
	[OLDEST_DEAD] = "SELECT died_at FROM dead_letters WHERE died_at " PLAUSIBLE
	                " ORDER BY died_at LIMIT 1",
	[UNTIMED_DEAD] = "SELECT id FROM dead_letters WHERE " UNTIMED " LIMIT 1",
	[TIME_DEAD] = "UPDATE dead_letters SET died_at = ?1 WHERE " UNTIMED,
	[NEXT_EXPIRED] = "SELECT id FROM dead_letters WHERE died_at " PLAUSIBLE
	                 " AND died_at < ?1 ORDER BY died_at LIMIT 1",
	[OLDEST_RECEIPT] = "SELECT delivered_at FROM receipts ORDER BY delivered_at LIMIT 1",
	[FORGET_RECEIPTS] =
		"DELETE FROM receipts WHERE delivered_at < ?1 AND delivered_at <= (SELECT "
		"max(delivered_at) FROM (SELECT delivered_at FROM receipts ORDER BY delivered_at "
		"LIMIT " SWEEP_RECEIPTS "))",
	[RECEIPTS] = "SELECT " RECEIPT " WHERE (delivered_at, id) > (?1, ?2) "
	             "ORDER BY delivered_at, id LIMIT ?3",
	[FIND_RECEIPT] = "SELECT " RECEIPT " WHERE id = ?1 OR uuid = ?2 "
	                 "ORDER BY delivered_at DESC LIMIT 1",
	[FIND_UUID] = "SELECT id FROM interactions WHERE CAST(uuid AS TEXT) = ?1 LIMIT 1",
	[FIND_DEAD_UUID] = "SELECT id FROM dead_letters WHERE CAST(uuid AS TEXT) = ?1 LIMIT 1",
	[FREE_PAGES] = "PRAGMA freelist_count",
	[SHRINK] = "PRAGMA incremental_vacuum(" SHRINK_STEP ")",
	[LEDGER] = "SELECT accepted, delivered, dead, discarded, dropped, purged, removed, "
	           "in_bytes - out_bytes, max_spool, max_record, drop_oldest "
	           "FROM ledger WHERE one = 1",
	[OLDEST] = "SELECT spooled_at FROM interactions ORDER BY id LIMIT 1",
	[LAST] = "SELECT id FROM interactions ORDER BY id DESC LIMIT 1",
	[IMPORT_KNOWN] = "SELECT 1 FROM temp.present WHERE uuid = ?1 "
	                 "UNION ALL SELECT 1 FROM imported WHERE uuid = ?1",
	[IMPORT_WAITING] = "INSERT INTO interactions (" COLUMNS ") VALUES (" VALUES ", NULL)",
	/* Above every id that was given to a waiting row, or to a dead letter. */
	[IMPORT_DEAD] = "INSERT INTO dead_letters (" DEAD_COLUMNS ") VALUES (" VALUES ", "
	                "1 + max(ifnull((SELECT seq FROM sqlite_sequence "
	                "WHERE name = 'interactions'), 0), "
	                "ifnull((SELECT max(id) FROM dead_letters), 0)), ?25, ?26, ?27, ?28, ?29)",
	[IMPORT_KEY_TAKEN] = "SELECT 1 FROM known_keys WHERE key = ?1 "
	                     "UNION ALL SELECT 1 FROM interactions WHERE key = ?1",
	[IMPORT_ROOM] = "SELECT 1 FROM ledger WHERE in_bytes - out_bytes + ?1 <= max_spool",
	[IMPORT_COUNT_DEAD] = "UPDATE ledger SET accepted = accepted + 1, dead = dead + 1, "
	                      "in_bytes_before = in_bytes, in_bytes = in_bytes + ?1 WHERE one = 1",
	[IMPORT_HOLD_KEY] = "INSERT OR REPLACE INTO known_keys (key, delivered_at) "
	                    "SELECT key, NULL FROM dead_letters WHERE id = ?1",
	[IMPORT_SEQUENCE] = "UPDATE sqlite_sequence SET seq = ?1 WHERE name = 'interactions'",
	[IMPORT_FIRST_SEQUENCE] = "INSERT INTO sqlite_sequence (name, seq) "
	                          "VALUES ('interactions', ?1)",
	[IMPORT_REMEMBER] = "INSERT OR IGNORE INTO imported (uuid) VALUES (?1)",
	[LAST_DEAD] = "SELECT id FROM dead_letters ORDER BY id DESC LIMIT 1",
	[FIND] = "SELECT " COLUMNS " FROM interactions WHERE " MEANT " ORDER BY id",
	[FIND_DEAD] = "SELECT " DEAD_COLUMNS " FROM dead_letters WHERE " MEANT
	              " AND (?7 IS NULL OR CAST(reason AS BLOB) = ?7"
	              " OR substr(CAST(reason AS BLOB), 1, length(?7) + 1) = CAST(?7 || ':' AS BLOB))"
	              " ORDER BY id",
};

/* --- Failures ----------------------------------------------------------- */

void spool_say(struct spool_error *error, enum spool_status status, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(error->sentence, sizeof error->sentence, format, arguments);
	va_end(arguments);
	error->status = status;
}

/* SQLite calls a page that the disk does not give a damaged one (SQLITE_IOERR_CORRUPTFS,
 * which a statement returns as SQLITE_CORRUPT). */
static bool cannot_be_read(sqlite3 *db)
{
	static const int pointers[] = { SQLITE_FCNTL_FILE_POINTER, SQLITE_FCNTL_JOURNAL_POINTER };
	for (size_t i = 0; i < 2; i++) {
		sqlite3_file *file = NULL;
		int system = 0;
		if (sqlite3_file_control(db, "main", pointers[i], &file) == SQLITE_OK &&
		    file->pMethods != NULL)
			(void)file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &system);
		if (system == EIO || system == ENXIO)
			return true;
	}
	return false;
}

/* The sentence for what SQLite answered about the file at `path`. */
enum spool_status spool_explain(struct spool_error *error, const char *path, sqlite3 *db,
                                 int rc)
{
	int system = sqlite3_system_errno(db), extended = sqlite3_extended_errcode(db);

	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		spool_say(error, SPOOL_BUSY,
		    "%s: another program holds the write lock; trying again", path);
		break;
	case SQLITE_FULL:
		spool_say(error, SPOOL_FULL,
		    "%s: the disk or quota is full; nothing is lost, make room", path);
		break;
	case SQLITE_CORRUPT:
		if (cannot_be_read(db)) {
			spool_say(error, SPOOL_IO, "%s: the disk does not give all of the file: %s; "
			          "nothing was deleted, see the kernel's log", path, strerror(EIO));
			break;
		}
		spool_say(error, SPOOL_DAMAGED,
		    "%s: the file is damaged (%s); nothing was deleted, see 'reconify-agent check' and "
		    "'init --salvage'", path, sqlite3_errstr(extended));
		break;
	case SQLITE_NOTADB:
		spool_say(error, SPOOL_FOREIGN, "%s: this file is not a spool, nor any SQLite database; "
		    "it was left as it is; if it was one, its beginning is damaged: see 'reconify-agent "
		    "init --salvage'", path);
		break;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		spool_say(error, SPOOL_DENIED,
		    "%s: no permission to write (file, its -wal and -shm, and folder must be "
		    "writable for the agent's user; or the file system is read-only)", path);
		break;
	case SQLITE_ERROR:
	case SQLITE_CONSTRAINT:
	case SQLITE_MISMATCH:
		spool_say(error, SPOOL_REFUSED, "%s: its tables are not as the agent made them (%s); see "
		    "'reconify-agent check'", path, sqlite3_errmsg(db));
		break;
	case SQLITE_TOOBIG:
		spool_say(error, SPOOL_TOO_BIG, "%s: a record is larger than max_record", path);
		break;
	default:
		if (system == ENOSPC || system == EDQUOT)
			spool_say(error, SPOOL_FULL,
			    "%s: the disk or quota is full; nothing is lost, make room", path);
		else if (system == EACCES || system == EPERM || system == EROFS)
			spool_say(error, SPOOL_DENIED, "%s: %s (the file, its folder, -wal and -shm must "
			    "be readable and writable)", path, strerror(system));
		else
			spool_say(error, SPOOL_IO, "%s: the storage failed: %s%s%s", path,
			    sqlite3_errstr(extended), system != 0 ? ": " : "",
			    system != 0 ? strerror(system) : "");
	}
	return error->status;
}

/* A disk may be away for a moment: until that has passed, nothing is read around. */
static bool is_patient(struct spool *spool)
{
	struct timespec now = spool_deadline(0);
	if (spool->failed_last == 0 || now.tv_sec - spool->failed_last > DISK_FORGIVEN)
		spool->failed_since = now.tv_sec;
	spool->failed_last = now.tv_sec;
	return now.tv_sec - spool->failed_since < spool->disk_patience;
}

enum spool_status spool_fail(struct spool *spool, int rc)
{
	enum spool_status status = spool_explain(&spool->error, spool->path, spool->db, rc);
	if ((rc & 0xff) == SQLITE_CORRUPT && status == SPOOL_IO && !is_patient(spool)) {
		spool_say(&spool->error, SPOOL_DAMAGED, "%s: the disk does not give all of the file: %s; "
		          "nothing was deleted; see the kernel's log, 'reconify-agent check' and "
		          "'init --salvage'", spool->path, strerror(EIO));
		status = SPOOL_DAMAGED;
	}
	return status;
}

const struct spool_error *spool_last_error(const struct spool *spool)
{
	return &spool->error;
}

/* --- Statements --------------------------------------------------------- */

/* The statement, prepared on first use, reset and unbound; NULL on failure. */
sqlite3_stmt *spool_statement(struct spool *spool, enum query query)
{
	sqlite3_stmt **slot = &spool->statements[query];
	if (*slot != NULL) {
		(void)sqlite3_reset(*slot); /* repeats an error that was already handled */
		return *slot;
	}
	int rc = sqlite3_prepare_v3(spool->db, query_sql[query], -1, SQLITE_PREPARE_PERSISTENT,
	                            slot, NULL);
	if (rc == SQLITE_ERROR) {
		/* Perhaps the schema in memory is an old one: some errors of preparing do not
		 * make SQLite look, so that a table put right again would stay unseen. */
		(void)sqlite3_exec(spool->db, "SELECT 1 FROM sqlite_master LIMIT 1", NULL, NULL, NULL);
		rc = sqlite3_prepare_v3(spool->db, query_sql[query], -1, SQLITE_PREPARE_PERSISTENT,
		                        slot, NULL);
	}
	if (rc == SQLITE_OK)
		return *slot;
	(void)spool_fail(spool, rc);
	return NULL;
}

/* Runs a bound statement that returns no rows. */
enum spool_status spool_finish(struct spool *spool, sqlite3_stmt *bound)
{
	int rc = sqlite3_step(bound);
	enum spool_status status = SPOOL_OK;
	if (rc != SQLITE_DONE)
		status = spool_fail(spool, rc);
	(void)sqlite3_reset(bound);
	return status;
}

enum spool_status spool_run(struct spool *spool, enum query query)
{
	sqlite3_stmt *bound = spool_statement(spool, query);
	return bound != NULL ? spool_finish(spool, bound) : spool->error.status;
}

struct text spool_column_text(sqlite3_stmt *row, int column)
{
	struct text text = { NULL, 0 };
	if (sqlite3_column_type(row, column) == SQLITE_NULL)
		return text;
	/* As bytes: a BLOB is accepted wherever text is, and NUL may be inside. */
	text.bytes = sqlite3_column_blob(row, column);
	text.size = (size_t)sqlite3_column_bytes(row, column);
	if (text.bytes == NULL)
		text.bytes = "";
	return text;
}

struct number spool_column_number(sqlite3_stmt *row, int column)
{
	struct number number = { NUMBER_WRONG, 0 };
	switch (sqlite3_column_type(row, column)) {
	case SQLITE_NULL:
		number.state = NUMBER_ABSENT;
		break;
	case SQLITE_INTEGER:
		number.state = NUMBER_SET;
		number.value = sqlite3_column_int64(row, column);
		break;
	default:
		break;
	}
	return number;
}

/* --- Reading ------------------------------------------------------------ */

enum spool_status spool_begin(struct spool *spool, enum query query)
{
	/* No memory, say, may have kept the one before from its end. */
	if (!sqlite3_get_autocommit(spool->db))
		(void)spool_run(spool, ROLLBACK);
	spool->wrote = false;
	return spool_run(spool, query);
}

enum spool_status spool_begin_read(struct spool *spool)
{
	enum spool_status status = spool_begin(spool, BEGIN_READ);
	spool->no_attempts = false;
	if (status != SPOOL_OK)
		return status;
	/* Failures are rare: mostly this saves a look-up for each record. */
	sqlite3_stmt *any = spool_statement(spool, ANY_ATTEMPTS);
	if (any != NULL) {
		spool->no_attempts = sqlite3_step(any) == SQLITE_DONE;
		(void)sqlite3_reset(any);
	}
	return SPOOL_OK;
}

static void end_scan(struct spool *spool)
{
	if (spool->scanning != QUERY_COUNT)
		(void)sqlite3_reset(spool->statements[spool->scanning]);
	spool->scanning = QUERY_COUNT;
}

void spool_end_read(struct spool *spool)
{
	end_scan(spool);
	if (spool->statements[LOAD] != NULL)
		(void)sqlite3_reset(spool->statements[LOAD]);
	spool->no_attempts = false;
	if (!sqlite3_get_autocommit(spool->db))
		(void)spool_run(spool, COMMIT);
}

/* Whether some row from `from` on can be found by its id alone, and which is the first. */
static enum spool_status probe(struct spool *spool, bool dead, int64_t from, int64_t to,
                               int64_t *id)
{
	sqlite3_stmt *row = spool_statement(spool, dead ? NEXT_DEAD_ID : NEXT_ID);
	if (row == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(row, 1, from);
	(void)sqlite3_bind_int64(row, 2, to);
	int rc = sqlite3_step(row);
	if (rc == SQLITE_ROW)
		*id = sqlite3_column_int64(row, 0);
	/* not covered: takes a page that lost its last row before one that is out of order */
	if (rc == SQLITE_ROW && *id < from)
		rc = SQLITE_CORRUPT;
	enum spool_status status = rc == SQLITE_ROW    ? SPOOL_OK
	                           : rc == SQLITE_DONE ? SPOOL_END
	                                               : spool_fail(spool, rc);
	(void)sqlite3_reset(row);
	return status;
}

/* The id of a row whose app or session alone is above the row limit. */
static enum spool_status find_too_big(struct spool *spool, int64_t from, int64_t to,
                                      struct spool_place *place)
{
	*place = (struct spool_place){ .id = from };
	enum spool_status status = probe(spool, false, from, to, &place->id);
	return status == SPOOL_OK ? SPOOL_TOO_BIG : status;
}

void spool_read_record(sqlite3_stmt *row, struct record *record)
{
	int at = 0;
	record->model_id = spool_column_text(row, at++);
	record->request_body = spool_column_text(row, at++);
	record->response_body = spool_column_text(row, at++);
	record->request_id = spool_column_text(row, at++);
	record->request_at = spool_column_number(row, at++);
	record->response_at = spool_column_number(row, at++);
	record->session = spool_column_text(row, at++);
	record->session_timeout = spool_column_number(row, at++);
	record->user_id = spool_column_text(row, at++);
	record->is_authenticated = spool_column_number(row, at++);
	record->first_name = spool_column_text(row, at++);
	record->last_name = spool_column_text(row, at++);
	record->email = spool_column_text(row, at++);
	record->phone = spool_column_text(row, at++);
	record->gender = spool_column_text(row, at++);
	record->content_type = spool_column_text(row, at++);
	record->accept = spool_column_text(row, at++);
	record->request_extra = spool_column_text(row, at++);
	record->app = spool_column_text(row, at++);
	record->format = spool_column_text(row, at++);
	record->type = spool_column_text(row, at++);
	record->key = spool_column_text(row, at++);
	record->uuid = spool_column_text(row, at++);
	record->spooled_at = spool_column_number(row, at++);
	record->id = sqlite3_column_int64(row, at);

	/* NULL in an optional column means its default, also where a producer wrote
	 * past the trigger that fills it in. */
	if (record->app.bytes == NULL)
		record->app = (struct text){ "default", strlen("default") };
	if (record->format.bytes == NULL)
		record->format = (struct text){ "bedrock", strlen("bedrock") };
	if (record->type.bytes == NULL)
		record->type = (struct text){ "chat", strlen("chat") };
}

/* The next row of a scan by `query`, which goes on where it stood if it can. */
static enum spool_status step_scan(struct spool *spool, enum query query, int64_t from,
                                   int64_t to, sqlite3_stmt **row)
{
	if (spool->scanning != query || spool->scanned + 1 != from || spool->limit != to) {
		end_scan(spool);
		*row = spool_statement(spool, query);
		if (*row == NULL)
			return spool->error.status;
		(void)sqlite3_bind_int64(*row, 1, from);
		(void)sqlite3_bind_int64(*row, 2, to);
	}
	*row = spool->statements[query];
	int rc = sqlite3_step(*row);
	/* SQLite does not look whether a damaged page has its rows in order, and whoever went
	 * on behind an id that came before would go in circles. */
	int id_column = query == NEXT ? 0 : RECORD_ID_COLUMN;
	if (rc == SQLITE_ROW && sqlite3_column_int64(*row, id_column) < from)
		rc = SQLITE_CORRUPT;
	if (rc == SQLITE_ROW) {
		spool->scanning = query;
		spool->limit = to;
		return SPOOL_OK;
	}
	enum spool_status status = rc == SQLITE_DONE ? SPOOL_END : spool_fail(spool, rc);
	(void)sqlite3_reset(*row);
	spool->scanning = QUERY_COUNT;
	return status;
}

enum spool_status spool_next(struct spool *spool, int64_t from, int64_t to,
                             struct spool_place *place)
{
	sqlite3_stmt *row;
	enum spool_status status = step_scan(spool, NEXT, from, to, &row);
	if (status == SPOOL_TOO_BIG)
		return find_too_big(spool, from, to, place);
	if (status != SPOOL_OK)
		return status;
	place->id = spool->scanned = sqlite3_column_int64(row, 0);
	place->app = spool_column_text(row, 1);
	place->session = spool_column_text(row, 2);
	if (place->app.bytes == NULL)
		place->app = (struct text){ "default", strlen("default") };
	return SPOOL_OK;
}

enum spool_status spool_next_record(struct spool *spool, int64_t from, int64_t to,
                                    struct record *record)
{
	sqlite3_stmt *row;
	enum spool_status status = step_scan(spool, NEXT_RECORD, from, to, &row);
	if (status == SPOOL_OK) {
		spool_read_record(row, record);
		spool->scanned = record->id;
	}
	return status;
}

/* Behind the row `id`, which reading from `from` meets: where it stands out of its place, other
 * rows stand between. */
static int64_t behind_row(struct spool *spool, bool dead, int64_t from, int64_t to, int64_t id)
{
	int64_t low = from < 1 ? 0 : from, high = id, found;
	while (high - low > 1) {
		int64_t middle = low + (high - low) / 2;
		if (probe(spool, dead, middle, to, &found) == SPOOL_OK && found == id)
			low = middle;
		else
			high = middle;
	}
	return high == id ? id + 1 : high;
}

enum spool_status spool_pass_damage(struct spool *spool, bool dead, int64_t from, int64_t to,
                                    int64_t *next)
{
	int64_t id, bad = from, step = 1;
	enum spool_status status = probe(spool, dead, from, to, &id);
	if (status == SPOOL_OK && id == INT64_MAX)
		return SPOOL_END;
	if (status == SPOOL_OK) {
		/* Its page is sound, and mostly one that it goes on in is not. Where rows are out
		 * of order, it may be sound itself, and what stood before it was not. */
		struct record record;
		sqlite3_stmt *row;
		bool sound = id > from && spool_load_row(spool, dead ? LOAD_DEAD : LOAD, id, &record,
		                                         &row) == SPOOL_OK;
		*next = sound ? id : behind_row(spool, dead, from, to, id);
	}
	if (status != SPOOL_DAMAGED)
		return status;
	/* A page of small rows has some thirty ids; behind so many steps it is a page above
	 * others, and the steps grow. Ids below 1 are nobody's. */
	for (int steps = 0; status == SPOOL_DAMAGED; steps++) {
		if (bad >= 1 && step > to - bad)
			return SPOOL_END;
		*next = bad < 1 ? 1 : bad + step;
		status = probe(spool, dead, *next, to, &id);
		if (status == SPOOL_DAMAGED)
			bad = *next;
		if (steps >= PATIENT_STEPS)
			step *= 2;
	}
	while ((status == SPOOL_OK || status == SPOOL_END) && bad >= 1 && *next - bad > 1) {
		int64_t middle = bad + (*next - bad) / 2;
		status = probe(spool, dead, middle, to, &id);
		if (status == SPOOL_DAMAGED) {
			bad = middle;
			status = SPOOL_OK;
		} else {
			*next = middle;
		}
	}
	return status == SPOOL_END ? SPOOL_OK : status;
}

enum spool_status spool_load_row(struct spool *spool, enum query query, int64_t id,
                                  struct record *record, sqlite3_stmt **row)
{
	*row = spool_statement(spool, query);
	if (*row == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(*row, 1, id);
	int rc = sqlite3_step(*row);
	if (rc == SQLITE_ROW) {
		spool_read_record(*row, record);
		return SPOOL_OK;
	}
	enum spool_status status = rc == SQLITE_DONE ? SPOOL_END : spool_fail(spool, rc);
	(void)sqlite3_reset(*row);
	return status;
}

enum spool_status spool_load(struct spool *spool, int64_t id, struct record *record)
{
	sqlite3_stmt *row;
	return spool_load_row(spool, LOAD, id, record, &row);
}

enum spool_status spool_load_dead(struct spool *spool, int64_t id, struct record *record,
                                  struct text *reason, struct text *server_said)
{
	sqlite3_stmt *row;
	enum spool_status status = spool_load_row(spool, LOAD_DEAD, id, record, &row);
	if (status == SPOOL_OK) {
		*reason = spool_column_text(row, 25);
		*server_said = spool_column_text(row, 29);
	}
	return status;
}

enum spool_status spool_attempts(struct spool *spool, int64_t id, struct text uuid,
                                 unsigned *attempts)
{
	*attempts = 0;
	if (spool->no_attempts)
		return SPOOL_OK;
	sqlite3_stmt *row = spool_statement(spool, ATTEMPTS);
	if (row == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(row, 1, id);
	int rc = sqlite3_step(row);
	int64_t number = rc == SQLITE_ROW ? sqlite3_column_int64(row, 0) : 0;
	if (number > 0)
		*attempts = (unsigned)(number < INT_MAX ? number : INT_MAX);
	else if (number == record_delivered_mark(uuid))
		*attempts = SPOOL_DELIVERED;
	enum spool_status status =
		rc == SQLITE_ROW || rc == SQLITE_DONE ? SPOOL_OK : spool_fail(spool, rc);
	(void)sqlite3_reset(row);
	return status;
}

/* --- Looking ------------------------------------------------------------ */

struct timespec spool_deadline(int ms)
{
	struct timespec end = { 0, 0 };
	(void)clock_gettime(CLOCK_MONOTONIC, &end); /* Linux has it always */
	end.tv_sec += ms / 1000;
	end.tv_nsec += (ms % 1000) * 1000000L;
	if (end.tv_nsec >= 1000000000L) {
		end.tv_sec++;
		end.tv_nsec -= 1000000000L;
	}
	return end;
}

bool spool_is_past(const struct timespec *end)
{
	struct timespec now = { 0, 0 };
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec > end->tv_sec ||
	       (now.tv_sec == end->tv_sec && now.tv_nsec >= end->tv_nsec);
}

static int out_of_patience(void *end)
{
	return spool_is_past(end);
}

/* A count of a table's rows, or false: the patience ran out, or the file is damaged. */
static bool count_rows(struct spool *spool, const char *sql, bool *damaged, int64_t *count)
{
	sqlite3_stmt *row = NULL;
	if (sqlite3_prepare_v2(spool->db, sql, -1, &row, NULL) != SQLITE_OK)
		return false;
	int rc = sqlite3_step(row);
	if (rc == SQLITE_ROW)
		*count = sqlite3_column_int64(row, 0);
	*damaged = (rc & 0xff) == SQLITE_CORRUPT;
	(void)sqlite3_finalize(row);
	return rc == SQLITE_ROW;
}

/* The code that a reason begins with. An import may have brought in anything. */
static void code_of(struct text reason, char code[SPOOL_CODE_SIZE])
{
	size_t size = 0;
	while (size < reason.size && reason.bytes[size] != ':')
		size++;
	bool ours = size > 0 && size < SPOOL_CODE_SIZE;
	for (size_t i = 0; ours && i < size; i++)
		ours = strchr("abcdefghijklmnopqrstuvwxyz0123456789-", reason.bytes[i]) != NULL &&
		       reason.bytes[i] != '\0';
	(void)snprintf(code, SPOOL_CODE_SIZE, "%.*s", ours ? (int)size : 5,
	               ours ? reason.bytes : "other");
}

static int compare_reasons(const void *left, const void *right)
{
	const struct spool_reason *a = left, *b = right;
	return a->count != b->count ? (a->count < b->count) - (a->count > b->count)
	                            : strcmp(a->code, b->code);
}

static void count_reason(struct spool_ledger *ledger, const char *code)
{
	size_t at = 0;
	while (at < ledger->reason_count && strcmp(ledger->reasons[at].code, code) != 0)
		at++;
	/* The last place is kept for what finds none. */
	if (at >= SPOOL_REASONS - 1 && strcmp(code, "other") != 0) {
		count_reason(ledger, "other");
		return;
	}
	if (at == ledger->reason_count) {
		(void)snprintf(ledger->reasons[at].code, SPOOL_CODE_SIZE, "%s", code);
		ledger->reasons[at].count = 0;
		ledger->reason_count++;
	}
	ledger->reasons[at].count++;
}

void spool_count_reasons(struct spool *spool, int patience_ms, struct spool_ledger *ledger)
{
	sqlite3_stmt *row = NULL;
	char code[SPOOL_CODE_SIZE];
	struct timespec patience = spool_deadline(patience_ms);
	ledger->reason_count = 0;
	ledger->reasons_counted = false;
	int rc = sqlite3_prepare_v2(spool->db, "SELECT reason FROM dead_letters", -1, &row, NULL);
	if (rc != SQLITE_OK)
		return;
	/* The reason stands behind the texts, so that a single row may take long to read. */
	while ((rc = sqlite3_step(row)) == SQLITE_ROW && !spool_is_past(&patience)) {
		code_of(spool_column_text(row, 0), code);
		count_reason(ledger, code);
	}
	(void)sqlite3_finalize(row);
	ledger->reasons_counted = rc == SQLITE_DONE;
	if (!ledger->reasons_counted)
		ledger->reason_count = 0;
	if (ledger->reason_count > 1)
		qsort(ledger->reasons, ledger->reason_count, sizeof ledger->reasons[0],
		      compare_reasons);
}

enum spool_status spool_one_number(struct spool *spool, enum query query, int64_t otherwise,
                                   int64_t *value)
{
	*value = otherwise;
	sqlite3_stmt *row = spool_statement(spool, query);
	if (row == NULL)
		return spool->error.status;
	int rc = sqlite3_step(row);
	if (rc == SQLITE_ROW && sqlite3_column_type(row, 0) == SQLITE_INTEGER)
		*value = sqlite3_column_int64(row, 0);
	enum spool_status status =
		rc == SQLITE_ROW || rc == SQLITE_DONE ? SPOOL_OK : spool_fail(spool, rc);
	(void)sqlite3_reset(row);
	return status;
}

/* What the books leave. Somebody may have written any numbers into them. */
static int64_t left_of(const struct spool_ledger *ledger)
{
	uint64_t gone = (uint64_t)ledger->delivered + (uint64_t)ledger->dead +
	                (uint64_t)ledger->discarded + (uint64_t)ledger->dropped +
	                (uint64_t)ledger->purged + (uint64_t)ledger->removed;
	return (int64_t)((uint64_t)ledger->accepted - gone);
}

enum spool_status spool_read_counters(struct spool *spool, struct spool_ledger *ledger)
{
	*ledger = (struct spool_ledger){ .oldest_at = -1 };
	sqlite3_stmt *row = spool_statement(spool, LEDGER);
	if (row == NULL)
		return spool->error.status;
	int rc = sqlite3_step(row);
	if (rc == SQLITE_ROW) {
		int at = 0;
		ledger->accepted = sqlite3_column_int64(row, at++);
		ledger->delivered = sqlite3_column_int64(row, at++);
		ledger->dead = sqlite3_column_int64(row, at++);
		ledger->discarded = sqlite3_column_int64(row, at++);
		ledger->dropped = sqlite3_column_int64(row, at++);
		ledger->purged = sqlite3_column_int64(row, at++);
		ledger->removed = sqlite3_column_int64(row, at++);
		ledger->bytes = sqlite3_column_int64(row, at++);
		ledger->max_spool = sqlite3_column_int64(row, at++);
		ledger->max_record = sqlite3_column_int64(row, at++);
		ledger->drop_oldest = sqlite3_column_int64(row, at++) != 0;
		ledger->waiting = left_of(ledger);
		ledger->dead_counted = ledger->dead;
	}
	enum spool_status status = SPOOL_OK;
	if (rc == SQLITE_DONE) {
		spool_say(&spool->error, SPOOL_DAMAGED, "%s: its ledger is gone (table ledger has no row); "
		    "records are still delivered, but can no longer be accounted for", spool->path);
		status = SPOOL_DAMAGED;
	} else if (rc != SQLITE_ROW) {
		status = spool_fail(spool, rc);
	}
	(void)sqlite3_reset(row);
	return status;
}

enum spool_status spool_read_ledger(struct spool *spool, int patience_ms,
                                    struct spool_ledger *ledger)
{
	*ledger = (struct spool_ledger){ .oldest_at = -1 };
	enum spool_status status = spool_begin_read(spool);
	if (status != SPOOL_OK)
		return status;
	/* Older versions of SQLite refuse to read any column of a row above the limit. */
	(void)sqlite3_limit(spool->db, SQLITE_LIMIT_LENGTH, INT_MAX);
	status = spool_read_counters(spool, ledger);
	/* Damage keeps back only what stands on it; a last id that cannot be read may be any. */
	if (status == SPOOL_OK || status == SPOOL_DAMAGED) {
		struct spool_error first = spool->error;
		enum spool_status oldest = spool_one_number(spool, OLDEST, -1, &ledger->oldest_at);
		enum spool_status last = spool_one_number(spool, LAST, SPOOL_FIRST_ID, &ledger->last_id);
		if (last == SPOOL_DAMAGED)
			ledger->last_id = INT64_MAX;
		if (status == SPOOL_OK && oldest != SPOOL_OK && oldest != SPOOL_DAMAGED)
			status = oldest;
		else if (status == SPOOL_OK && last != SPOOL_OK && last != SPOOL_DAMAGED)
			status = last;
		else
			spool->error = first;
	}
	if (status == SPOOL_OK) {
		int64_t waiting = 0, dead = 0;
		struct timespec patience = spool_deadline(patience_ms);
		sqlite3_progress_handler(spool->db, 10000, out_of_patience, &patience);
		/* A bare count(*) is one step to SQLite, which would not ask for patience. */
		ledger->counted =
			patience_ms >= 0 &&
			count_rows(spool, "SELECT count(id) FROM dead_letters", &ledger->damaged, &dead) &&
			count_rows(spool, "SELECT count(id) FROM interactions", &ledger->damaged, &waiting);
		sqlite3_progress_handler(spool->db, 0, NULL, NULL);
		if (patience_ms >= 0)
			spool_count_reasons(spool, patience_ms, ledger);
		ledger->balanced = ledger->waiting >= 0;
		if (ledger->counted) {
			ledger->balanced = ledger->waiting == waiting && ledger->dead == dead;
			ledger->waiting = waiting;
			ledger->dead_counted = dead;
		}
	}
	(void)sqlite3_limit(spool->db, SQLITE_LIMIT_LENGTH, spool->row_limit);
	spool_end_read(spool);
	return status;
}

enum spool_status spool_read_note(struct spool *spool, const char *name, char **value)
{
	*value = NULL;
	sqlite3_stmt *row = spool_statement(spool, GET_NOTE);
	if (row == NULL)
		return spool->error.status;
	(void)sqlite3_bind_text(row, 1, name, -1, SQLITE_STATIC);
	int rc = sqlite3_step(row);
	struct text text = rc == SQLITE_ROW ? spool_column_text(row, 0) : (struct text){ NULL, 0 };
	if (text.bytes != NULL) {
		*value = strndup(text.bytes, text.size);
		rc = *value != NULL ? rc : SQLITE_NOMEM;
	}
	enum spool_status status = rc == SQLITE_ROW || rc == SQLITE_DONE ? SPOOL_OK
	                                                                 : spool_fail(spool, rc);
	(void)sqlite3_reset(row);
	return status;
}

char *spool_note(struct spool *spool, const char *name)
{
	char *value;
	return spool_read_note(spool, name, &value) == SPOOL_OK ? value : NULL;
}

const char *spool_schema(void)
{
	return schema_sql;
}

const char *spool_sqlite_version(void)
{
	return sqlite3_libversion();
}

bool spool_sqlite_has_wal_reset_fix(void)
{
	int version = sqlite3_libversion_number();
	return version >= 3051003 || (version >= 3050007 && version < 3051000) ||
	       (version >= 3044006 && version < 3045000);
}
