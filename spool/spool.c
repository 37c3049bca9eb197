/* The durable queue over SQLite; see spool.h for what it promises.
 *
 * Two rules shape this file. Write transactions are short and few, because
 * producers use a bare command line that may not wait for a lock. And this
 * connection trusts nothing in the file: no trigger, view or function that a
 * producer left there ever runs here.
 */
#include "spool/spool.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "spool/migrate.h"

/* How long a settle waits for a producer's transaction before it is put off. */
#define LOCK_PATIENCE_MS 2000
/* WAL frames after which the agent copies them back: well under the 1000 at
 * which a producer's own command line would stop to do it. */
#define CHECKPOINT_FRAMES 400
#define BALLAST_BYTES (2 << 20)
#define KEY_MEMORY_MS (24LL * 3600 * 1000)

/* Every column of a record, in the order of struct record's reading below. */
#define COLUMNS                                                                       \
	"model_id, request_body, response_body, request_id, request_at, response_at, "    \
	"session, session_timeout, user_id, is_authenticated, first_name, last_name, "    \
	"email, phone, gender, content_type, accept, request_extra, app, format, type, "  \
	"key, uuid, spooled_at, id"
#define DEAD_COLUMNS COLUMNS ", reason, http_status, attempts, died_at, server_said"
/* A row is itself when id and uuid agree: after a power cut SQLite may give an
 * id out again that a less careful producer lost. */
#define SAME_ROW " WHERE id = ?1 AND (?2 = '' OR uuid = ?2)"

enum query {
	BEGIN_READ,
	BEGIN_WRITE,
	COMMIT,
	ROLLBACK,
	NEXT,
	LOAD,
	LOAD_DEAD,
	ATTEMPTS,
	REMEMBER_KEY,
	FORGET_OLD_KEYS,
	REMOVE,
	BURY,
	BURY_UNDER_NEW_ID,
	HOLD_KEY,
	REVIVE,
	RELEASE_KEY,
	REMOVE_DEAD,
	SET_ATTEMPTS,
	FORGET_ATTEMPTS,
	SET_NOTE,
	GET_NOTE,
	COUNT_FATES,
	SET_LIMITS,
	LEDGER,
	OLDEST,
	LAST,
	QUERY_COUNT
};

static const char *const query_sql[QUERY_COUNT] = {
	[BEGIN_READ] = "BEGIN",
	[BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[COMMIT] = "COMMIT",
	[ROLLBACK] = "ROLLBACK",
	[NEXT] = "SELECT id, app, session FROM interactions "
	         "WHERE id >= ?1 AND id <= ?2 ORDER BY id",
	[LOAD] = "SELECT " COLUMNS " FROM interactions WHERE id = ?1",
	[LOAD_DEAD] = "SELECT " DEAD_COLUMNS " FROM dead_letters WHERE id = ?1",
	[ATTEMPTS] = "SELECT attempts FROM attempts WHERE id = ?1",
	[REMEMBER_KEY] = "INSERT OR REPLACE INTO known_keys (key, delivered_at) "
	                 "SELECT key, ?3 FROM interactions" SAME_ROW " AND key IS NOT NULL",
	[FORGET_OLD_KEYS] = "DELETE FROM known_keys WHERE delivered_at < ?1",
	[REMOVE] = "DELETE FROM interactions" SAME_ROW,
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
	[REMOVE_DEAD] = "DELETE FROM dead_letters" SAME_ROW,
	[SET_ATTEMPTS] = "INSERT OR REPLACE INTO attempts (id, attempts) VALUES (?1, ?2)",
	[FORGET_ATTEMPTS] = "DELETE FROM attempts WHERE id = ?1",
	[SET_NOTE] = "INSERT OR REPLACE INTO agent_state (name, value) VALUES (?1, ?2)",
	[GET_NOTE] = "SELECT value FROM agent_state WHERE name = ?1",
	[COUNT_FATES] = "UPDATE ledger SET delivered = delivered + ?1, dead = dead + ?2, "
	                "out_bytes = out_bytes + ?3 WHERE one = 1",
	[SET_LIMITS] = "UPDATE ledger SET max_spool = ?1, max_record = ?2, drop_oldest = ?3 "
	               "WHERE one = 1 AND "
	               "(max_spool <> ?1 OR max_record <> ?2 OR drop_oldest <> ?3)",
	[LEDGER] = "SELECT accepted, delivered, dead, discarded, dropped, purged, removed, "
	           "in_bytes - out_bytes, max_spool, max_record, drop_oldest "
	           "FROM ledger WHERE one = 1",
	[OLDEST] = "SELECT spooled_at FROM interactions ORDER BY id LIMIT 1",
	[LAST] = "SELECT id FROM interactions ORDER BY id DESC LIMIT 1",
};

struct spool {
	sqlite3 *db;
	sqlite3_stmt *statements[QUERY_COUNT];
	char *path;
	int row_limit;
	int file;               /* O_PATH: knows the file without touching SQLite's locks */
	int wal_frames;         /* after the last commit of our own */
	int checkpoint_frames;  /* where the next checkpoint is due */
	bool ballast;           /* the ballast file is there */
	bool scanning;          /* NEXT is half stepped, */
	int64_t scanned, limit; /* up to this id, towards that one */
	int64_t keys_swept_at;
	struct spool_error error;
};

/* --- Failures ----------------------------------------------------------- */

static void say(struct spool_error *error, enum spool_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static void say(struct spool_error *error, enum spool_status status, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(error->sentence, sizeof error->sentence, format, arguments);
	va_end(arguments);
	error->status = status;
}

/* The sentence for what SQLite answered about the file at `path`. */
static enum spool_status explain(struct spool_error *error, const char *path, sqlite3 *db,
                                 int rc)
{
	int system = db != NULL ? sqlite3_system_errno(db) : 0;
	int extended = db != NULL ? sqlite3_extended_errcode(db) : rc;

	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		say(error, SPOOL_BUSY,
		    "%s: another program holds the write lock; trying again", path);
		break;
	case SQLITE_FULL:
		say(error, SPOOL_FULL,
		    "%s: the disk or quota is full; nothing is lost, make room", path);
		break;
	case SQLITE_CORRUPT:
		say(error, SPOOL_DAMAGED,
		    "%s: the file is damaged (%s); nothing was deleted, see 'reconify-agent check'",
		    path, sqlite3_errstr(extended));
		break;
	case SQLITE_NOTADB:
		say(error, SPOOL_FOREIGN, "%s: this file is not a spool, nor any SQLite database; "
		    "it was left as it is", path);
		break;
	case SQLITE_READONLY:
	case SQLITE_PERM:
	case SQLITE_AUTH:
		say(error, SPOOL_DENIED,
		    "%s: no permission to write (file, its -wal and -shm, and folder must be "
		    "writable for the agent's user; or the file system is read-only)", path);
		break;
	case SQLITE_TOOBIG:
		say(error, SPOOL_TOO_BIG, "%s: a record is larger than max_record", path);
		break;
	default:
		if (system == ENOSPC || system == EDQUOT)
			say(error, SPOOL_FULL,
			    "%s: the disk or quota is full; nothing is lost, make room", path);
		else if (system == EACCES || system == EPERM || system == EROFS)
			say(error, SPOOL_DENIED, "%s: %s (the file, its folder, -wal and -shm must "
			    "be readable and writable)", path, strerror(system));
		else
			say(error, SPOOL_IO, "%s: the storage failed: %s%s%s", path,
			    sqlite3_errstr(extended), system != 0 ? ": " : "",
			    system != 0 ? strerror(system) : "");
	}
	return error->status;
}

static enum spool_status fail(struct spool *spool, int rc)
{
	return explain(&spool->error, spool->path, spool->db, rc);
}

const struct spool_error *spool_last_error(const struct spool *spool)
{
	return &spool->error;
}

/* --- Statements --------------------------------------------------------- */

/* The statement, prepared on first use, reset and unbound; NULL on failure. */
static sqlite3_stmt *statement(struct spool *spool, enum query query)
{
	sqlite3_stmt **slot = &spool->statements[query];
	if (*slot != NULL) {
		(void)sqlite3_reset(*slot); /* repeats an error that was already handled */
		return *slot;
	}
	int rc = sqlite3_prepare_v3(spool->db, query_sql[query], -1, SQLITE_PREPARE_PERSISTENT,
	                            slot, NULL);
	if (rc == SQLITE_OK)
		return *slot;
	if ((rc & 0xff) == SQLITE_ERROR)
		say(&spool->error, SPOOL_DAMAGED,
		    "%s: its tables are not those of a spool (%s); see 'reconify-agent check'",
		    spool->path, sqlite3_errmsg(spool->db));
	else
		(void)fail(spool, rc);
	return NULL;
}

/* Runs a bound statement that returns no rows. */
static enum spool_status finish(struct spool *spool, sqlite3_stmt *bound)
{
	int rc = sqlite3_step(bound);
	enum spool_status status = SPOOL_OK;
	if (rc != SQLITE_DONE && rc != SQLITE_ROW)
		status = fail(spool, rc);
	(void)sqlite3_reset(bound);
	return status;
}

static enum spool_status run(struct spool *spool, enum query query)
{
	sqlite3_stmt *bound = statement(spool, query);
	return bound != NULL ? finish(spool, bound) : spool->error.status;
}

static enum spool_status run_sql(struct spool *spool, const char *sql)
{
	int rc = sqlite3_exec(spool->db, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? SPOOL_OK : fail(spool, rc);
}

static struct text column_text(sqlite3_stmt *row, int column)
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

static struct number column_number(sqlite3_stmt *row, int column)
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

/* --- Ballast ------------------------------------------------------------ */

/* A delete needs room in the -wal before it frees any: on a full disk the agent
 * could never settle again. So some room is kept, in a file of its own. */
static void ballast_path(const struct spool *spool, char *into, size_t size)
{
	(void)snprintf(into, size, "%s-agent.ballast", spool->path);
}

static void take_ballast(struct spool *spool)
{
	char path[PATH_MAX + 32];
	ballast_path(spool, path, sizeof path);
	if (spool->ballast)
		return;
	int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0660);
	if (file < 0)
		return;
	/* What the disk cannot spare now is asked for again after a later checkpoint. */
	spool->ballast = posix_fallocate(file, 0, BALLAST_BYTES) == 0;
	if (close(file) != 0 || !spool->ballast)
		(void)unlink(path);
}

static bool drop_ballast(struct spool *spool)
{
	char path[PATH_MAX + 32];
	ballast_path(spool, path, sizeof path);
	spool->ballast = false;
	return unlink(path) == 0;
}

/* --- Opening ------------------------------------------------------------ */

static int note_commit(void *context, sqlite3 *db, const char *name, int frames)
{
	(void)db;
	(void)name;
	((struct spool *)context)->wal_frames = frames;
	return SQLITE_OK;
}

/* SQLite over a network file system loses its locks, and with them records. */
static bool is_network_file_system(const char *path)
{
	static const unsigned long kinds[] = {
		0x6969,     /* NFS */
		0x517B,     /* SMB */
		0xFF534D42, /* CIFS */
		0xFE534D42, /* SMB2 */
		0x01021997, /* 9P */
		0x00C36400, /* Ceph */
		0x5346414F  /* AFS */
	};
	struct statfs about;
	if (statfs(path, &about) != 0)
		return false;
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
		if (((unsigned long)about.f_type & 0xFFFFFFFFUL) == kinds[i])
			return true;
	return false;
}

static char *folder_of(const char *path)
{
	char *copy = strdup(path);
	if (copy == NULL)
		return NULL;
	char *folder = strdup(dirname(copy));
	free(copy);
	return folder;
}

/* Creates the file itself, so that its mode does not depend on the umask: SQLite
 * gives -wal and -shm the mode of the file, and producers of the group must be
 * able to write all three. */
static enum spool_status create_file(const char *path, struct spool_error *error)
{
	int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0660);
	if (file < 0 && errno == EEXIST)
		return SPOOL_OK;
	if (file < 0) {
		int reason = errno;
		char *folder = folder_of(path);
		struct stat about;
		if (reason == ENOENT && folder != NULL)
			say(error, SPOOL_NO_FOLDER,
			    "%s: cannot be created, for there is no folder %s; create it first", path,
			    folder);
		else if (reason == ENOSPC || reason == EDQUOT)
			say(error, SPOOL_FULL, "%s: cannot be created: %s", path, strerror(reason));
		else if (reason == ENOTDIR || (folder != NULL && stat(folder, &about) != 0))
			say(error, SPOOL_NO_FOLDER, "%s: cannot be created: %s", path, strerror(reason));
		else
			say(error, SPOOL_DENIED,
			    "%s: cannot be created: %s (the agent's user needs write permission on "
			    "the folder)", path, strerror(reason));
		free(folder);
		return error->status;
	}
	bool made = fchmod(file, 0660) == 0;
	if (close(file) != 0)
		made = false;
	if (!made) {
		say(error, SPOOL_IO, "%s: cannot set its mode: %s", path, strerror(errno));
		return error->status;
	}
	return SPOOL_OK;
}

/* A sentence of its own for everything that SQLite calls "unable to open". */
static enum spool_status look_at_path(const char *path, enum spool_mode mode,
                                      struct spool_error *error)
{
	struct stat about;
	if (stat(path, &about) != 0) {
		int reason = errno;
		if (reason == ENOENT && mode == SPOOL_CREATE)
			return create_file(path, error);
		if (reason == ENOENT)
			say(error, SPOOL_MISSING,
			    "%s: there is no such file; 'reconify-agent init' creates a spool", path);
		else if (reason == EACCES)
			say(error, SPOOL_DENIED,
			    "%s: no permission to reach it; run as a member of the spool's group", path);
		else
			say(error, reason == ENOTDIR ? SPOOL_MISSING : SPOOL_IO, "%s: %s", path,
			    strerror(reason));
		return error->status;
	}
	if (!S_ISREG(about.st_mode)) {
		say(error, SPOOL_FOREIGN, "%s: this is not a regular file, so it cannot be a spool",
		    path);
		return error->status;
	}
	if (access(path, mode == SPOOL_READ ? R_OK : R_OK | W_OK) != 0) {
		say(error, SPOOL_DENIED, "%s: %s; the user needs to %s it (is it a member of the "
		    "spool's group?)", path, strerror(errno),
		    mode == SPOOL_READ ? "read" : "read and write");
		return error->status;
	}
	return SPOOL_OK;
}

static int configure(struct spool *spool, enum spool_mode mode)
{
	const struct {
		int option, value;
	} switches[] = {
		{ SQLITE_DBCONFIG_DEFENSIVE, 1 },
		{ SQLITE_DBCONFIG_ENABLE_TRIGGER, 0 },
		{ SQLITE_DBCONFIG_ENABLE_VIEW, 0 },
		{ SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0 },
		/* Who only looks writes nothing, not even as the last to leave. */
		{ SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, mode == SPOOL_READ }
	};
	for (size_t i = 0; i < sizeof switches / sizeof switches[0]; i++) {
		int rc = sqlite3_db_config(spool->db, switches[i].option, switches[i].value, NULL);
		if (rc != SQLITE_OK)
			return rc;
	}
	(void)sqlite3_limit(spool->db, SQLITE_LIMIT_LENGTH, spool->row_limit);
	(void)sqlite3_limit(spool->db, SQLITE_LIMIT_ATTACHED, 0);
	(void)sqlite3_extended_result_codes(spool->db, 0);
	(void)sqlite3_wal_autocheckpoint(spool->db, 0);
	(void)sqlite3_wal_hook(spool->db, note_commit, spool);
	return sqlite3_busy_timeout(spool->db, LOCK_PATIENCE_MS);
}

/* On a read-only medium the -shm of a WAL file cannot be made. Without a -wal
 * all is in the file itself, and it can be read as what it is: unchanging. */
static int open_unchanging(const char *path, sqlite3 **db)
{
	char *wal = sqlite3_mprintf("%s-wal", path);
	char *uri = NULL;
	int rc = SQLITE_CANTOPEN;
	if (wal != NULL && access(wal, F_OK) != 0) {
		sqlite3_str *text = sqlite3_str_new(NULL);
		sqlite3_str_appendall(text, "file:");
		for (const char *at = path; *at != '\0'; at++)
			sqlite3_str_appendf(text, strchr("?#%", *at) != NULL ? "%%%02X" : "%c", *at);
		sqlite3_str_appendall(text, "?immutable=1");
		uri = sqlite3_str_finish(text);
		if (uri != NULL)
			rc = sqlite3_open_v2(uri, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
	}
	sqlite3_free(uri);
	sqlite3_free(wal);
	return rc;
}

static enum spool_status connect_for(struct spool *spool, enum spool_mode mode,
                                     struct spool_error *error)
{
	bool writable = access(spool->path, W_OK) == 0;
	int rc = sqlite3_open_v2(spool->path, &spool->db,
	                         writable ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY, NULL);
	if (rc == SQLITE_OK)
		rc = configure(spool, mode);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(spool->db, "SELECT 1 FROM sqlite_master", NULL, NULL, NULL);
	if (mode == SPOOL_READ &&
	    ((rc & 0xff) == SQLITE_CANTOPEN || (rc & 0xff) == SQLITE_READONLY)) {
		(void)sqlite3_close(spool->db);
		spool->db = NULL;
		rc = open_unchanging(spool->path, &spool->db);
		if (rc == SQLITE_OK)
			rc = configure(spool, mode);
	}
	return rc == SQLITE_OK ? SPOOL_OK : explain(error, spool->path, spool->db, rc);
}

/* Brings the schema to this program's version, or says why not. */
static enum spool_status settle_schema(struct spool *spool, enum spool_mode mode,
                                       struct spool_error *error)
{
	int rc;
	switch (schema_look(spool->db)) {
	case SCHEMA_CURRENT:
		return SPOOL_OK;
	case SCHEMA_FOREIGN:
		say(error, SPOOL_FOREIGN, "%s: this is a SQLite database, but not a spool of "
		    "reconify-agent; it was left as it is", spool->path);
		return SPOOL_FOREIGN;
	case SCHEMA_NEWER:
		say(error, SPOOL_NEWER, "%s: this spool was written by a newer reconify-agent; "
		    "it was left as it is, upgrade the program", spool->path);
		return SPOOL_NEWER;
	case SCHEMA_UNREADABLE:
		return explain(error, spool->path, spool->db, sqlite3_errcode(spool->db));
	case SCHEMA_EMPTY:
		if (mode != SPOOL_CREATE) {
			say(error, SPOOL_FOREIGN, "%s: this file is empty, not a spool; "
			    "'reconify-agent init' makes it one", spool->path);
			return SPOOL_FOREIGN;
		}
		/* Both only take hold before the first table; the order matters too. */
		rc = sqlite3_exec(spool->db, "PRAGMA auto_vacuum = INCREMENTAL", NULL, NULL, NULL);
		if (rc == SQLITE_OK)
			rc = sqlite3_exec(spool->db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL);
		if (rc == SQLITE_OK)
			rc = schema_migrate(spool->db);
		return rc == SQLITE_OK ? SPOOL_OK : explain(error, spool->path, spool->db, rc);
	case SCHEMA_OLDER:
		if (mode == SPOOL_READ)
			return SPOOL_OK;
		rc = schema_migrate(spool->db);
		return rc == SQLITE_OK ? SPOOL_OK : explain(error, spool->path, spool->db, rc);
	}
	return SPOOL_OK;
}

struct spool *spool_open(const char *path, enum spool_mode mode, int64_t row_limit,
                         struct spool_error *error)
{
	error->status = SPOOL_OK;
	error->sentence[0] = '\0';
	if (look_at_path(path, mode, error) != SPOOL_OK)
		return NULL;
	if (mode != SPOOL_READ && is_network_file_system(path)) {
		say(error, SPOOL_FOREIGN, "%s: this is on a network file system, where SQLite's locks "
		    "are not safe; put the spool on a local disk", path);
		return NULL;
	}

	struct spool *spool = calloc(1, sizeof *spool);
	if (spool == NULL || (spool->path = strdup(path)) == NULL) {
		free(spool);
		say(error, SPOOL_IO, "%s: no memory to open it", path);
		return NULL;
	}
	spool->row_limit = row_limit > INT_MAX ? INT_MAX : (int)row_limit;
	spool->checkpoint_frames = CHECKPOINT_FRAMES;
	spool->file = open(path, O_PATH | O_CLOEXEC);

	if (connect_for(spool, mode, error) != SPOOL_OK ||
	    settle_schema(spool, mode, error) != SPOOL_OK) {
		spool_close(spool);
		return NULL;
	}
	if (mode != SPOOL_READ) {
		/* After a power cut the agent can only send again what was settled since
		 * the last sync; a producer's own commit is synced by the producer. */
		if (run_sql(spool, "PRAGMA journal_mode = WAL") != SPOOL_OK ||
		    run_sql(spool, "PRAGMA synchronous = NORMAL") != SPOOL_OK) {
			*error = spool->error;
			spool_close(spool);
			return NULL;
		}
		take_ballast(spool);
	}
	return spool;
}

void spool_close(struct spool *spool)
{
	if (spool == NULL)
		return;
	for (size_t i = 0; i < QUERY_COUNT; i++)
		(void)sqlite3_finalize(spool->statements[i]);
	(void)sqlite3_close(spool->db);
	if (spool->file >= 0)
		(void)close(spool->file);
	free(spool->path);
	free(spool);
}

bool spool_was_replaced(const struct spool *spool, bool *orphaned)
{
	struct stat ours, theirs;
	if (orphaned != NULL)
		*orphaned = false;
	if (spool->file < 0 || fstat(spool->file, &ours) != 0)
		return false;
	if (orphaned != NULL)
		*orphaned = ours.st_nlink == 0;
	return stat(spool->path, &theirs) != 0 || theirs.st_dev != ours.st_dev ||
	       theirs.st_ino != ours.st_ino;
}

enum spool_status spool_set_limits(struct spool *spool, int64_t max_spool,
                                   int64_t max_record, bool drop_oldest)
{
	sqlite3_stmt *update = statement(spool, SET_LIMITS);
	if (update == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(update, 1, max_spool);
	(void)sqlite3_bind_int64(update, 2, max_record);
	(void)sqlite3_bind_int(update, 3, drop_oldest);
	return finish(spool, update);
}

/* --- Reading ------------------------------------------------------------ */

enum spool_status spool_begin_read(struct spool *spool)
{
	return run(spool, BEGIN_READ);
}

void spool_end_read(struct spool *spool)
{
	if (spool->statements[NEXT] != NULL)
		(void)sqlite3_reset(spool->statements[NEXT]);
	if (spool->statements[LOAD] != NULL)
		(void)sqlite3_reset(spool->statements[LOAD]);
	spool->scanning = false;
	if (!sqlite3_get_autocommit(spool->db))
		(void)run(spool, COMMIT);
}

enum spool_status spool_next(struct spool *spool, int64_t from, int64_t to,
                             struct spool_place *place)
{
	sqlite3_stmt *row = spool->statements[NEXT];
	if (!spool->scanning || spool->scanned + 1 != from || spool->limit != to) {
		row = statement(spool, NEXT);
		if (row == NULL)
			return spool->error.status;
		(void)sqlite3_bind_int64(row, 1, from);
		(void)sqlite3_bind_int64(row, 2, to);
	}
	int rc = sqlite3_step(row);
	spool->scanning = rc == SQLITE_ROW;
	if (rc == SQLITE_ROW) {
		place->id = sqlite3_column_int64(row, 0);
		place->app = column_text(row, 1);
		place->session = column_text(row, 2);
		if (place->app.bytes == NULL)
			place->app = (struct text){ "default", strlen("default") };
		spool->scanned = place->id;
		spool->limit = to;
		return SPOOL_OK;
	}
	enum spool_status status = rc == SQLITE_DONE ? SPOOL_END : fail(spool, rc);
	(void)sqlite3_reset(row);
	return status;
}

static void read_record(sqlite3_stmt *row, struct record *record)
{
	int at = 0;
	record->model_id = column_text(row, at++);
	record->request_body = column_text(row, at++);
	record->response_body = column_text(row, at++);
	record->request_id = column_text(row, at++);
	record->request_at = column_number(row, at++);
	record->response_at = column_number(row, at++);
	record->session = column_text(row, at++);
	record->session_timeout = column_number(row, at++);
	record->user_id = column_text(row, at++);
	record->is_authenticated = column_number(row, at++);
	record->first_name = column_text(row, at++);
	record->last_name = column_text(row, at++);
	record->email = column_text(row, at++);
	record->phone = column_text(row, at++);
	record->gender = column_text(row, at++);
	record->content_type = column_text(row, at++);
	record->accept = column_text(row, at++);
	record->request_extra = column_text(row, at++);
	record->app = column_text(row, at++);
	record->format = column_text(row, at++);
	record->type = column_text(row, at++);
	record->key = column_text(row, at++);
	record->uuid = column_text(row, at++);
	record->spooled_at = column_number(row, at++);
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

static enum spool_status load_row(struct spool *spool, enum query query, int64_t id,
                                  struct record *record, sqlite3_stmt **row)
{
	*row = statement(spool, query);
	if (*row == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(*row, 1, id);
	int rc = sqlite3_step(*row);
	if (rc == SQLITE_ROW) {
		read_record(*row, record);
		return SPOOL_OK;
	}
	enum spool_status status = rc == SQLITE_DONE ? SPOOL_END : fail(spool, rc);
	(void)sqlite3_reset(*row);
	return status;
}

enum spool_status spool_load(struct spool *spool, int64_t id, struct record *record)
{
	sqlite3_stmt *row;
	return load_row(spool, LOAD, id, record, &row);
}

enum spool_status spool_load_dead(struct spool *spool, int64_t id, struct record *record,
                                  struct text *reason, struct text *server_said)
{
	sqlite3_stmt *row;
	enum spool_status status = load_row(spool, LOAD_DEAD, id, record, &row);
	if (status == SPOOL_OK) {
		*reason = column_text(row, 25);
		*server_said = column_text(row, 29);
	}
	return status;
}

enum spool_status spool_attempts(struct spool *spool, int64_t id, unsigned *attempts)
{
	*attempts = 0;
	sqlite3_stmt *row = statement(spool, ATTEMPTS);
	if (row == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(row, 1, id);
	int rc = sqlite3_step(row);
	if (rc == SQLITE_ROW)
		*attempts = (unsigned)sqlite3_column_int(row, 0);
	enum spool_status status =
		rc == SQLITE_ROW || rc == SQLITE_DONE ? SPOOL_OK : fail(spool, rc);
	(void)sqlite3_reset(row);
	return status;
}

/* --- Settling ----------------------------------------------------------- */

struct tally {
	int64_t delivered, dead, out_bytes;
};

static sqlite3_stmt *statement_for_row(struct spool *spool, enum query query,
                                       const struct spool_change *change)
{
	sqlite3_stmt *bound = statement(spool, query);
	if (bound != NULL) {
		(void)sqlite3_bind_int64(bound, 1, change->id);
		(void)sqlite3_bind_text(bound, 2, change->uuid, -1, SQLITE_STATIC);
	}
	return bound;
}

static enum spool_status run_for_row(struct spool *spool, enum query query,
                                     const struct spool_change *change)
{
	sqlite3_stmt *bound = statement_for_row(spool, query, change);
	return bound != NULL ? finish(spool, bound) : spool->error.status;
}

static enum spool_status forget_attempts(struct spool *spool, int64_t id)
{
	sqlite3_stmt *bound = statement(spool, FORGET_ATTEMPTS);
	if (bound == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(bound, 1, id);
	return finish(spool, bound);
}

static enum spool_status apply_delivered(struct spool *spool,
                                         const struct spool_change *change, int64_t wall,
                                         struct tally *tally)
{
	enum spool_status status = SPOOL_OK;
	if (change->keyed) {
		sqlite3_stmt *remember = statement_for_row(spool, REMEMBER_KEY, change);
		if (remember == NULL)
			return spool->error.status;
		(void)sqlite3_bind_int64(remember, 3, wall);
		status = finish(spool, remember);
	}
	if (status == SPOOL_OK && change->attempts > 0)
		status = forget_attempts(spool, change->id);
	if (status == SPOOL_OK)
		status = run_for_row(spool, REMOVE, change);
	if (status == SPOOL_OK && sqlite3_changes(spool->db) == 1) {
		tally->delivered++;
		tally->out_bytes += change->bytes;
	}
	return status;
}

static enum spool_status bury(struct spool *spool, enum query query,
                              const struct spool_change *change, const char *reason,
                              int64_t wall)
{
	sqlite3_stmt *bound = statement_for_row(spool, query, change);
	if (bound == NULL)
		return spool->error.status;
	(void)sqlite3_bind_text(bound, 3, reason, -1, SQLITE_STATIC);
	if (change->http_status != 0)
		(void)sqlite3_bind_int(bound, 4, change->http_status);
	else
		(void)sqlite3_bind_null(bound, 4);
	(void)sqlite3_bind_int64(bound, 5, change->attempts);
	(void)sqlite3_bind_int64(bound, 6, wall);
	if (change->server_said != NULL)
		(void)sqlite3_bind_blob64(bound, 7, change->server_said, change->server_said_size,
		                          SQLITE_STATIC);
	else
		(void)sqlite3_bind_null(bound, 7);
	return finish(spool, bound);
}

/* Whether the row is still there, though dead_letters did not take it. */
static enum spool_status still_waits(struct spool *spool, const struct spool_change *change,
                                     bool *waits)
{
	struct record record;
	sqlite3_stmt *row;
	enum spool_status status = load_row(spool, LOAD, change->id, &record, &row);
	*waits = status == SPOOL_OK && (change->uuid[0] == '\0' ||
	                                (record.uuid.size == RECORD_UUID_SIZE &&
	                                 memcmp(record.uuid.bytes, change->uuid,
	                                        RECORD_UUID_SIZE) == 0));
	if (status == SPOOL_OK || status == SPOOL_END) {
		(void)sqlite3_reset(row);
		status = SPOOL_OK;
	}
	return status;
}

static enum spool_status apply_dead(struct spool *spool, struct spool_change *change,
                                    int64_t wall, struct tally *tally)
{
	char reason[256];
	change->refused = false;
	(void)snprintf(reason, sizeof reason, "%s: %s", change->code, change->sentence);

	/* A record that is too large to be read must still be moved aside. */
	(void)sqlite3_limit(spool->db, SQLITE_LIMIT_LENGTH, INT_MAX);
	enum spool_status status = bury(spool, BURY, change, reason, wall);
	if (status == SPOOL_OK && sqlite3_changes(spool->db) == 0)
		status = bury(spool, BURY_UNDER_NEW_ID, change, reason, wall);
	bool buried = status == SPOOL_OK && sqlite3_changes(spool->db) == 1;
	if (status == SPOOL_OK && !buried)
		status = still_waits(spool, change, &change->refused);
	if (buried)
		status = run_for_row(spool, HOLD_KEY, change);
	if (buried && status == SPOOL_OK)
		status = forget_attempts(spool, change->id);
	if (buried && status == SPOOL_OK)
		status = run_for_row(spool, REMOVE, change);
	(void)sqlite3_limit(spool->db, SQLITE_LIMIT_LENGTH, spool->row_limit);
	if (buried && status == SPOOL_OK)
		tally->dead++;
	return status;
}

static enum spool_status apply_revived(struct spool *spool, const struct spool_change *change,
                                       struct tally *tally)
{
	enum spool_status status = run_for_row(spool, REVIVE, change);
	if (status != SPOOL_OK || sqlite3_changes(spool->db) != 1)
		return status;
	status = run_for_row(spool, RELEASE_KEY, change);
	if (status == SPOOL_OK)
		status = run_for_row(spool, REMOVE_DEAD, change);
	if (status == SPOOL_OK)
		tally->dead--;
	return status;
}

static enum spool_status apply_one(struct spool *spool, struct spool_change *change,
                                   int64_t wall, struct tally *tally)
{
	sqlite3_stmt *bound;
	switch (change->kind) {
	case CHANGE_DELIVERED:
		return apply_delivered(spool, change, wall, tally);
	case CHANGE_DEAD:
		return apply_dead(spool, change, wall, tally);
	case CHANGE_REVIVED:
		return apply_revived(spool, change, tally);
	case CHANGE_ATTEMPTS:
		bound = statement(spool, SET_ATTEMPTS);
		if (bound == NULL)
			return spool->error.status;
		(void)sqlite3_bind_int64(bound, 1, change->id);
		(void)sqlite3_bind_int64(bound, 2, change->attempts);
		return finish(spool, bound);
	case CHANGE_NOTE:
		bound = statement(spool, SET_NOTE);
		if (bound == NULL)
			return spool->error.status;
		(void)sqlite3_bind_text(bound, 1, change->name, -1, SQLITE_STATIC);
		(void)sqlite3_bind_text(bound, 2, change->value, -1, SQLITE_STATIC);
		return finish(spool, bound);
	}
	return SPOOL_OK;
}

/* Copies the WAL back when it has grown, by the rules that keep clear of the
 * WAL-reset fault (https://sqlite.org/wal.html#walresetbug): only after a commit
 * of our own, so that frames are surely waiting; never twice for the same
 * frames; PASSIVE only, which makes no producer wait. */
static void checkpoint_if_due(struct spool *spool)
{
	if (spool->wal_frames < CHECKPOINT_FRAMES)
		spool->checkpoint_frames = CHECKPOINT_FRAMES;
	if (spool->wal_frames < spool->checkpoint_frames)
		return;
	int frames = 0, copied = 0;
	int rc = sqlite3_wal_checkpoint_v2(spool->db, "main", SQLITE_CHECKPOINT_PASSIVE, &frames,
	                                   &copied);
	/* A reader that holds old frames makes this copy less than all: it is not a
	 * failure, and is tried again when as many more have come. */
	spool->checkpoint_frames = spool->wal_frames + CHECKPOINT_FRAMES;
	if (rc == SQLITE_OK && copied == frames) {
		spool->checkpoint_frames = CHECKPOINT_FRAMES;
		take_ballast(spool);
	}
	spool->wal_frames = 0;
}

static enum spool_status sweep_keys(struct spool *spool, int64_t wall)
{
	if (wall - spool->keys_swept_at < KEY_MEMORY_MS / 24 &&
	    wall >= spool->keys_swept_at)
		return SPOOL_OK;
	sqlite3_stmt *bound = statement(spool, FORGET_OLD_KEYS);
	if (bound == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(bound, 1, wall - KEY_MEMORY_MS);
	spool->keys_swept_at = wall;
	return finish(spool, bound);
}

static enum spool_status apply_all(struct spool *spool, struct spool_change *changes,
                                   size_t count, int64_t wall)
{
	struct tally tally = { 0, 0, 0 };
	bool keyed = false;
	enum spool_status status = run(spool, BEGIN_WRITE);
	if (status != SPOOL_OK)
		return status;
	for (size_t i = 0; status == SPOOL_OK && i < count; i++) {
		status = apply_one(spool, &changes[i], wall, &tally);
		keyed = keyed || changes[i].keyed;
	}
	if (status == SPOOL_OK && keyed)
		status = sweep_keys(spool, wall);
	if (status == SPOOL_OK && (tally.delivered != 0 || tally.dead != 0)) {
		sqlite3_stmt *fates = statement(spool, COUNT_FATES);
		if (fates == NULL) {
			status = spool->error.status;
		} else {
			(void)sqlite3_bind_int64(fates, 1, tally.delivered);
			(void)sqlite3_bind_int64(fates, 2, tally.dead);
			(void)sqlite3_bind_int64(fates, 3, tally.out_bytes);
			status = finish(spool, fates);
		}
	}
	if (status == SPOOL_OK)
		status = run(spool, COMMIT);
	if (status == SPOOL_OK) {
		checkpoint_if_due(spool);
	} else if (!sqlite3_get_autocommit(spool->db)) {
		struct spool_error first = spool->error;
		(void)run(spool, ROLLBACK);
		spool->error = first;
	}
	return status;
}

enum spool_status spool_apply(struct spool *spool, struct spool_change *changes,
                              size_t count, int64_t wall)
{
	enum spool_status status = apply_all(spool, changes, count, wall);
	if (status == SPOOL_FULL && drop_ballast(spool))
		status = apply_all(spool, changes, count, wall);
	return status;
}

/* --- Looking ------------------------------------------------------------ */

struct patience {
	struct timespec end;
};

static int out_of_patience(void *context)
{
	const struct patience *patience = context;
	struct timespec now;
	if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
		return 1;
	return now.tv_sec > patience->end.tv_sec ||
	       (now.tv_sec == patience->end.tv_sec && now.tv_nsec >= patience->end.tv_nsec);
}

/* A count of a table's rows, or false when the patience ran out. */
static bool count_rows(struct spool *spool, const char *sql, int64_t *count)
{
	sqlite3_stmt *row = NULL;
	if (sqlite3_prepare_v2(spool->db, sql, -1, &row, NULL) != SQLITE_OK)
		return false;
	bool counted = sqlite3_step(row) == SQLITE_ROW;
	if (counted)
		*count = sqlite3_column_int64(row, 0);
	(void)sqlite3_finalize(row);
	return counted;
}

/* One number, or `otherwise` where there is no row or it is NULL. */
static enum spool_status one_number(struct spool *spool, enum query query,
                                    int64_t otherwise, int64_t *value)
{
	*value = otherwise;
	sqlite3_stmt *row = statement(spool, query);
	if (row == NULL)
		return spool->error.status;
	int rc = sqlite3_step(row);
	if (rc == SQLITE_ROW && sqlite3_column_type(row, 0) == SQLITE_INTEGER)
		*value = sqlite3_column_int64(row, 0);
	enum spool_status status =
		rc == SQLITE_ROW || rc == SQLITE_DONE ? SPOOL_OK : fail(spool, rc);
	(void)sqlite3_reset(row);
	return status;
}

static enum spool_status read_counters(struct spool *spool, struct spool_ledger *ledger)
{
	sqlite3_stmt *row = statement(spool, LEDGER);
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
	}
	enum spool_status status = SPOOL_OK;
	if (rc == SQLITE_DONE) {
		say(&spool->error, SPOOL_DAMAGED, "%s: its ledger is gone (table ledger has no row); "
		    "records are still delivered, but can no longer be accounted for", spool->path);
		status = SPOOL_DAMAGED;
	} else if (rc != SQLITE_ROW) {
		status = fail(spool, rc);
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
	status = read_counters(spool, ledger);
	if (status == SPOOL_OK)
		status = one_number(spool, OLDEST, -1, &ledger->oldest_at);
	if (status == SPOOL_OK)
		status = one_number(spool, LAST, 0, &ledger->last_id);
	if (status == SPOOL_OK) {
		ledger->waiting = ledger->accepted - ledger->delivered - ledger->dead -
		                  ledger->discarded - ledger->dropped - ledger->purged -
		                  ledger->removed;
		ledger->dead_counted = ledger->dead;
		int64_t waiting = 0, dead = 0;
		struct patience patience;
		if (clock_gettime(CLOCK_MONOTONIC, &patience.end) != 0)
			patience.end = (struct timespec){ 0, 0 };
		patience.end.tv_sec += patience_ms / 1000;
		patience.end.tv_nsec += (patience_ms % 1000) * 1000000L;
		if (patience.end.tv_nsec >= 1000000000L) {
			patience.end.tv_sec++;
			patience.end.tv_nsec -= 1000000000L;
		}
		sqlite3_progress_handler(spool->db, 10000, out_of_patience, &patience);
		ledger->counted = count_rows(spool, "SELECT count(*) FROM dead_letters", &dead) &&
		                  count_rows(spool, "SELECT count(*) FROM interactions", &waiting);
		sqlite3_progress_handler(spool->db, 0, NULL, NULL);
		ledger->balanced = ledger->waiting >= 0;
		if (ledger->counted) {
			ledger->balanced = ledger->waiting == waiting && ledger->dead == dead;
			ledger->waiting = waiting;
			ledger->dead_counted = dead;
		}
	}
	spool_end_read(spool);
	return status;
}

char *spool_note(struct spool *spool, const char *name)
{
	char *value = NULL;
	sqlite3_stmt *row = statement(spool, GET_NOTE);
	if (row == NULL)
		return NULL;
	(void)sqlite3_bind_text(row, 1, name, -1, SQLITE_STATIC);
	if (sqlite3_step(row) == SQLITE_ROW) {
		struct text text = column_text(row, 0);
		if (text.bytes != NULL)
			value = strndup(text.bytes, text.size);
	}
	(void)sqlite3_reset(row);
	return value;
}

struct examination {
	struct spool *spool;
	void (*found)(void *context, const char *sentence);
	void *context;
	sqlite3 *model; /* an empty spool of this version, to compare with */
};

static int report_check(void *context, int columns, char **values, char **names)
{
	const struct examination *examination = context;
	(void)columns;
	(void)names;
	if (values[0] != NULL && strcmp(values[0], "ok") != 0) {
		char sentence[512];
		(void)snprintf(sentence, sizeof sentence, "%s: damaged: %.300s",
		               examination->spool->path, values[0]);
		examination->found(examination->context, sentence);
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
		                        "SELECT sql FROM sqlite_master WHERE type = ?1 AND name = ?2", -1,
		                        &other, NULL);
	while (rc == SQLITE_OK && (rc = sqlite3_step(mine)) == SQLITE_ROW) {
		const char *type = (const char *)sqlite3_column_text(mine, 0);
		const char *name = (const char *)sqlite3_column_text(mine, 1);
		const char *sql = (const char *)sqlite3_column_text(mine, 2);
		const char *wrong = NULL;
		(void)sqlite3_bind_text(other, 1, type, -1, SQLITE_TRANSIENT);
		(void)sqlite3_bind_text(other, 2, name, -1, SQLITE_TRANSIENT);
		rc = sqlite3_step(other);
		if (rc == SQLITE_DONE) {
			wrong = here_is_model ? "is missing" : "is not part of a spool";
		} else if (rc == SQLITE_ROW && here_is_model) {
			const char *theirs = (const char *)sqlite3_column_text(other, 0);
			if (sql != NULL && (theirs == NULL || strcmp(sql, theirs) != 0))
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

enum spool_status spool_examine(struct spool *spool,
                                void (*found)(void *context, const char *sentence),
                                void *context)
{
	struct examination examination = { spool, found, context, NULL };
	int rc = sqlite3_exec(spool->db, "PRAGMA quick_check(20)", report_check, &examination, NULL);
	if (rc != SQLITE_OK)
		return fail(spool, rc);
	rc = sqlite3_open(":memory:", &examination.model);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(examination.model, schema_sql, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = compare_objects(&examination, examination.model, spool->db, true);
	if (rc == SQLITE_OK)
		rc = compare_objects(&examination, spool->db, examination.model, false);
	(void)sqlite3_close(examination.model);
	return rc == SQLITE_OK ? SPOOL_OK : fail(spool, rc);
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
