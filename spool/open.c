/* Opening a spool, in all the ways in which that can fail; see spool.h. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

#include "spool/internal.h"
#include "spool/migrate.h"

/* How long a settle waits for a producer's transaction before it is put off. */
#define LOCK_PATIENCE_MS 1000
/* Seconds for which a disk may be away before what it does not give counts as damaged: a
 * cable, or a bus that is reset. */
#define DISK_PATIENCE 60
/* A little more than the -wal has when sqlite3 itself copies it back, 1,000 pages: by so much
 * copying it back may make the file larger. */
#define BALLAST_BYTES (9 << 19)

/* --- Ballast ------------------------------------------------------------ */

/* A delete needs room in the -wal before it frees any: on a full disk the agent
 * could never settle again. So some room is kept, in a file of its own. */
static void ballast_path(const struct spool *spool, char *into, size_t size)
{
	(void)snprintf(into, size, "%s-agent.ballast", spool->path);
}

void spool_take_ballast(struct spool *spool)
{
	char path[PATH_MAX + 32];
	ballast_path(spool, path, sizeof path);
	if (spool->ballast)
		return;
	int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0660);
	if (file < 0)
		return;
	/* On a small disk half of what is free: then the -wal can grow by no more than that. What
	 * the disk cannot spare now is asked for again after a later checkpoint. */
	struct statfs disk;
	uint64_t size = BALLAST_BYTES;
	if (statfs(spool->path, &disk) == 0 && disk.f_bavail * (uint64_t)disk.f_bsize / 2 < size)
		size = disk.f_bavail * (uint64_t)disk.f_bsize / 2;
	spool->ballast = posix_fallocate(file, 0, (off_t)size) == 0;
	if (close(file) != 0 || !spool->ballast)
		(void)unlink(path);
}

bool spool_drop_ballast(struct spool *spool)
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
	struct spool *spool = context;
	spool->wal_frames = frames;
	spool->wrote = true;
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

void spool_folder_of(const char *path, char into[PATH_MAX])
{
	char copy[PATH_MAX]; /* dirname() writes into it */
	(void)snprintf(copy, sizeof copy, "%s", path);
	(void)snprintf(into, PATH_MAX, "%s", dirname(copy));
}

/* The agent's user owns the folder, and so the spool, whoever made it; producers of the
 * group write to it. False with errno. */
static bool set_access(int file, const char *path)
{
	struct stat about, around;
	char folder[PATH_MAX];
	spool_folder_of(path, folder);
	bool known = stat(folder, &around) == 0;
	if (fstat(file, &about) != 0)
		return false;
	if (geteuid() == 0 && known &&
	    (about.st_uid != around.st_uid || about.st_gid != around.st_gid) &&
	    fchown(file, around.st_uid, around.st_gid) != 0)
		return false;
	return (about.st_mode & 0777) == 0660 || fchmod(file, 0660) == 0;
}

/* Creates the file itself, so that its mode does not depend on the umask: SQLite
 * gives -wal and -shm the mode of the file, and producers of the group must be
 * able to write all three. */
enum spool_status spool_create_file(const char *path, struct spool_error *error)
{
	int file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0660);
	if (file < 0 && errno == EEXIST)
		return SPOOL_OK;
	if (file < 0) {
		int reason = errno;
		char folder[PATH_MAX];
		struct stat about;
		spool_folder_of(path, folder);
		if (reason == ENOENT)
			spool_say(error, SPOOL_NO_FOLDER,
			    "%s: cannot be created, for there is no folder %s; create it first", path,
			    folder);
		else if (reason == ENOSPC || reason == EDQUOT)
			spool_say(error, SPOOL_FULL, "%s: cannot be created: %s", path, strerror(reason));
		else if (reason == ENOTDIR || stat(folder, &about) != 0)
			spool_say(error, SPOOL_NO_FOLDER, "%s: cannot be created: %s", path, strerror(reason));
		else
			spool_say(error, SPOOL_DENIED,
			    "%s: cannot be created: %s (the agent's user needs write permission on "
			    "the folder)", path, strerror(reason));
		return error->status;
	}
	bool made = set_access(file, path);
	int reason = errno;
	if (close(file) != 0)
		made = false;
	if (!made) {
		spool_say(error, SPOOL_IO, "%s: cannot set its owner and mode: %s", path,
		          strerror(reason));
		return error->status;
	}
	return SPOOL_OK;
}

enum spool_status spool_mend_access(const char *path, struct spool_error *error)
{
	static const char *const endings[] = { "", "-wal", "-shm", "-agent.lock", "-agent.ballast" };
	error->status = SPOOL_OK;
	for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
		char name[PATH_MAX + 32];
		struct stat about;
		(void)snprintf(name, sizeof name, "%s%s", path, endings[i]);
		/* A link could lead root to somebody else's file, by either kind. */
		int file = open(name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
		if (file < 0)
			continue; /* what is not there needs nothing; the rest opening it says */
		if (fstat(file, &about) == 0 && S_ISREG(about.st_mode) && about.st_nlink == 1 &&
		    !set_access(file, path))
			spool_say(error, SPOOL_DENIED, "%s: its owner or mode is wrong and cannot be mended: "
			          "%s; run this as root", name, strerror(errno));
		(void)close(file);
	}
	return error->status;
}

/* It may not be done; else it could not be told. */
static bool is_denial(int reason)
{
	return reason == EACCES || reason == EPERM || reason == EROFS;
}

/* A sentence of its own for everything that SQLite calls "unable to open". */
static enum spool_status look_at_path(const char *path, enum spool_mode mode,
                                      struct spool_error *error)
{
	struct stat about;
	if (stat(path, &about) != 0) {
		int reason = errno;
		if (reason == ENOENT && mode == SPOOL_CREATE)
			return spool_create_file(path, error);
		if (reason == ENOENT)
			spool_say(error, SPOOL_MISSING,
			    "%s: there is no such file; 'reconify-agent init --spool %s' creates a spool",
			    path, path);
		else if (reason == EACCES)
			spool_say(error, SPOOL_DENIED,
			    "%s: no permission to reach it; run as a member of the spool's group", path);
		else
			spool_say(error, reason == ENOTDIR ? SPOOL_MISSING : SPOOL_IO, "%s: %s", path,
			    strerror(reason));
		return error->status;
	}
	if (!S_ISREG(about.st_mode)) {
		spool_say(error, SPOOL_FOREIGN, "%s: this is not a regular file, so it cannot be a spool",
		    path);
		return error->status;
	}
	if (access(path, mode == SPOOL_READ ? R_OK : R_OK | W_OK) != 0) {
		int reason = errno;
		if (!is_denial(reason))
			spool_say(error, SPOOL_IO, "%s: %s", path, strerror(reason));
		else
			spool_say(error, SPOOL_DENIED, "%s: %s; the user needs to %s it%s", path,
			          strerror(reason), mode == SPOOL_READ ? "read" : "read and write",
			          reason == EROFS ? "" : " (is it a member of the spool's group?)");
		return error->status;
	}
	return SPOOL_OK;
}

/* SQLite's own handler waits ever longer between its looks, and so never meets the
 * short gap that a producer leaves who inserts without end. */
static int wait_for_lock(void *context, int waits)
{
	const struct timespec moment = { 0, 1000000 };
	(void)context;
	(void)nanosleep(&moment, NULL);
	return waits < LOCK_PATIENCE_MS;
}

void spool_restore_patience(struct spool *spool)
{
	(void)sqlite3_busy_handler(spool->db, wait_for_lock, NULL);
}

/* TRUSTED_SCHEMA stays on: off, SQLite calls the whole file malformed as soon as
 * somebody made an index with a JSON function, while producers go on inserting.
 * Nothing is lost by it: the one function that is registered here is for no schema. */
static int configure(struct spool *spool, enum spool_mode mode)
{
	const struct {
		int option, value;
	} switches[] = {
		{ SQLITE_DBCONFIG_DEFENSIVE, 1 },
		{ SQLITE_DBCONFIG_ENABLE_TRIGGER, 0 },
		{ SQLITE_DBCONFIG_ENABLE_VIEW, 0 },
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
	/* The window of records that are known fits into this; the default is 2 MB. */
	(void)sqlite3_exec(spool->db, "PRAGMA cache_size = -1024", NULL, NULL, NULL);
	/* What a long reader made of the -wal is given back. */
	(void)sqlite3_exec(spool->db, "PRAGMA journal_size_limit = 4194304", NULL, NULL, NULL);
	(void)sqlite3_wal_hook(spool->db, note_commit, spool);
	int rc = spool_know_delivered(spool);
	return rc != SQLITE_OK ? rc : sqlite3_busy_handler(spool->db, wait_for_lock, NULL);
}

/* On a read-only medium, or a full one, the -shm of a WAL file cannot be made. With
 * nothing in a -wal all is in the file itself, and it can be read as what it is:
 * unchanging. */
static bool is_unchanging(const char *path)
{
	struct stat about;
	char wal[PATH_MAX + 32];
	(void)snprintf(wal, sizeof wal, "%s-wal", path);
	return stat(wal, &about) == 0 ? about.st_size == 0 : errno == ENOENT;
}

static int open_unchanging(const char *path, sqlite3 **db)
{
	sqlite3_str *text = sqlite3_str_new(NULL);
	sqlite3_str_appendall(text, "file:");
	for (const char *at = path; *at != '\0'; at++)
		sqlite3_str_appendf(text, strchr("?#%", *at) != NULL ? "%%%02X" : "%c", *at);
	sqlite3_str_appendall(text, "?immutable=1");
	char *uri = sqlite3_str_finish(text);
	int rc = uri == NULL ? SQLITE_NOMEM
	                     : sqlite3_open_v2(uri, db, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, NULL);
	sqlite3_free(uri);
	return rc;
}

/* True for the ways in which SQLite says that there is no -shm to be had. */
static bool lacks_shm(int rc)
{
	rc &= 0xff;
	return rc == SQLITE_CANTOPEN || rc == SQLITE_READONLY || rc == SQLITE_FULL ||
	       rc == SQLITE_IOERR;
}

static int connect_with(struct spool *spool, enum spool_mode mode, bool alone)
{
	bool writable = access(spool->path, W_OK) == 0 || !is_denial(errno);
	/* One thread at a time has this connection, so SQLite's own locking is of no use. */
	int rc = sqlite3_open_v2(spool->path, &spool->db,
	                         SQLITE_OPEN_NOMUTEX |
	                         (writable ? SQLITE_OPEN_READWRITE : SQLITE_OPEN_READONLY), NULL);
	/* What cannot be opened to be written SQLite opens to be read, whatever the reason. */
	if (rc == SQLITE_OK && writable && mode != SPOOL_READ &&
	    sqlite3_db_readonly(spool->db, "main") == 1)
		rc = SQLITE_IOERR;
	if (rc == SQLITE_OK) {
		spool->shm = shm_guard(spool->db);
		if (alone) /* before the first look */
			rc = sqlite3_exec(spool->db, "PRAGMA locking_mode = EXCLUSIVE", NULL, NULL, NULL);
	}
	if (rc == SQLITE_OK)
		rc = configure(spool, mode);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(spool->db, "SELECT 1 FROM sqlite_master", NULL, NULL, NULL);
	return rc;
}

static void disconnect(struct spool *spool)
{
	(void)sqlite3_close(spool->db);
	free(spool->shm);
	spool->db = NULL;
	spool->shm = NULL;
}

/* The -shm cannot be had. To look, SQLite can do without on a full disk where nobody else
 * has the file open: then nobody needs one, and nobody could insert meanwhile. */
static bool look_without_shm(struct spool *spool, bool full)
{
	disconnect(spool);
	if (is_unchanging(spool->path))
		return open_unchanging(spool->path, &spool->db) == SQLITE_OK &&
		       configure(spool, SPOOL_READ) == SQLITE_OK;
	return full && connect_with(spool, SPOOL_READ, true) == SQLITE_OK;
}

static enum spool_status connect_for(struct spool *spool, enum spool_mode mode,
                                     struct spool_error *error)
{
	int rc = connect_with(spool, mode, false);
	if (rc == SQLITE_OK)
		return SPOOL_OK;
	enum spool_status status = spool_explain(error, spool->path, spool->db, rc);
	/* SQLite itself has nothing to say of what connect_with() calls one. */
	if (mode != SPOOL_READ && rc == SQLITE_IOERR && spool->db != NULL &&
	    sqlite3_errcode(spool->db) == SQLITE_OK)
		spool_say(error, SPOOL_IO, "%s: it can be opened to be read alone, though it may be written: "
		    "see the kernel's log, and what confines the agent (AppArmor, SELinux)", spool->path);
	if (mode == SPOOL_READ)
		return lacks_shm(rc) && look_without_shm(spool, status == SPOOL_FULL) ? SPOOL_OK : status;
	if (status != SPOOL_FULL || !spool_drop_ballast(spool))
		return status;
	disconnect(spool);
	rc = connect_with(spool, mode, false);
	return rc == SQLITE_OK ? SPOOL_OK : spool_explain(error, spool->path, spool->db, rc);
}

/* Two that make the same spool at once get in each other's way without SQLite's
 * asking wait_for_lock(): the one who was refused looks whether it is done. */
static int make_schema(sqlite3 *db)
{
	int rc = SQLITE_BUSY;
	for (int waits = 0; rc == SQLITE_BUSY && wait_for_lock(NULL, waits); waits++) {
		if (schema_look(db, &rc) == SCHEMA_CURRENT)
			return SQLITE_OK;
		/* Both only take hold before the first table; the order matters too. */
		rc = sqlite3_exec(db, "PRAGMA auto_vacuum = INCREMENTAL", NULL, NULL, NULL);
		if (rc == SQLITE_OK)
			rc = sqlite3_exec(db, "PRAGMA journal_mode = WAL", NULL, NULL, NULL);
		if (rc == SQLITE_OK)
			rc = schema_migrate(db);
	}
	return rc;
}

/* SQLite takes a file of one byte for an empty one. */
static bool has_one_byte(const char *path)
{
	struct stat about;
	return stat(path, &about) == 0 && about.st_size == 1;
}

/* Brings the schema to this program's version, or says why not. */
static enum spool_status settle_schema(struct spool *spool, enum spool_mode mode,
                                       struct spool_error *error)
{
	int rc;
	enum schema_state state = schema_look(spool->db, &rc);
	/* Perhaps somebody is making it at this moment. */
	for (int waits = 0; state == SCHEMA_EMPTY && mode != SPOOL_CREATE &&
	                    !has_one_byte(spool->path) && wait_for_lock(NULL, waits); waits++)
		state = schema_look(spool->db, &rc);
	switch (state) {
	case SCHEMA_OLDER:
		rc = mode == SPOOL_READ ? SQLITE_OK : schema_migrate(spool->db);
		return rc == SQLITE_OK ? SPOOL_OK : spool_explain(error, spool->path, spool->db, rc);
	case SCHEMA_CURRENT:
		return SPOOL_OK;
	case SCHEMA_FOREIGN:
		spool_say(error, SPOOL_FOREIGN, "%s: this is a SQLite database, but not a spool of "
		    "reconify-agent; it was left as it is", spool->path);
		return SPOOL_FOREIGN;
	case SCHEMA_NEWER:
		spool_say(error, SPOOL_NEWER, "%s: this spool was written by a newer reconify-agent; "
		    "it was left as it is, upgrade the program", spool->path);
		return SPOOL_NEWER;
	case SCHEMA_UNREADABLE:
		return spool_explain(error, spool->path, spool->db, rc);
	case SCHEMA_EMPTY:
		if (has_one_byte(spool->path)) {
			spool_say(error, SPOOL_FOREIGN, "%s: this file is not a spool, nor any SQLite "
			          "database; it was left as it is", spool->path);
			return SPOOL_FOREIGN;
		}
		if (mode != SPOOL_CREATE) {
			spool_say(error, SPOOL_FOREIGN, "%s: this file is empty, not a spool; "
			    "'reconify-agent init' makes it one", spool->path);
			return SPOOL_FOREIGN;
		}
		rc = make_schema(spool->db);
		return rc == SQLITE_OK ? SPOOL_OK : spool_explain(error, spool->path, spool->db, rc);
	}
	return SPOOL_OK;
}

/* The header lets nobody write: a salvage that was cut short made it so, or damage. Asked
 * by way of SQLite, whose locks another close of the file would drop. */
static bool is_sealed(struct spool *spool)
{
	sqlite3_file *file = NULL;
	unsigned char byte = 0;
	if (sqlite3_file_control(spool->db, "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK)
		return false;
	/* not covered: only a name that SQLite takes for another thing leads to no file */
	if (file->pMethods == NULL)
		return false;
	(void)file->pMethods->xRead(file, &byte, 1, SEAL_AT); /* else the next read fails, too */
	return byte > SEAL_NONE;
}

static enum spool_status run_sql(struct spool *spool, const char *sql)
{
	int rc = sqlite3_exec(spool->db, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? SPOOL_OK : spool_fail(spool, rc);
}

struct spool *spool_open(const char *path, enum spool_mode mode, int64_t row_limit,
                         struct spool_error *error)
{
	error->status = SPOOL_OK;
	error->sentence[0] = '\0';
	if (look_at_path(path, mode, error) != SPOOL_OK)
		return NULL;
	if (mode != SPOOL_READ && is_network_file_system(path)) {
		spool_say(error, SPOOL_FOREIGN, "%s: this is on a network file system, where SQLite's locks "
		    "are not safe; put the spool on a local disk", path);
		return NULL;
	}

	struct spool *spool = calloc(1, sizeof *spool);
	if (spool == NULL || (spool->path = strdup(path)) == NULL) {
		free(spool);
		spool_say(error, SPOOL_IO, "%s: no memory to open it", path);
		return NULL;
	}
	spool->row_limit = row_limit > INT_MAX ? INT_MAX : (int)row_limit;
	spool->checkpoint_frames = CHECKPOINT_FRAMES;
	spool->scanning = QUERY_COUNT;
	spool->disk_patience = mode == SPOOL_READ ? 0 : DISK_PATIENCE;
	spool->file = open(path, O_PATH | O_CLOEXEC);

	if (connect_for(spool, mode, error) != SPOOL_OK ||
	    settle_schema(spool, mode, error) != SPOOL_OK) {
		spool_close(spool);
		return NULL;
	}
	if (mode != SPOOL_READ && is_sealed(spool)) {
		spool_say(error, SPOOL_DAMAGED, "%s: its header lets nobody write: its salvage was cut "
		          "short, or it is damaged; run 'reconify-agent init --salvage', nothing is lost",
		          path);
		spool_close(spool);
		return NULL;
	}
	if (mode != SPOOL_READ) {
		/* After a power cut the agent can only send again what was settled since
		 * the last sync; a producer's own commit is synced by the producer. */
		if (run_sql(spool, "PRAGMA journal_mode = WAL") != SPOOL_OK ||
		    run_sql(spool, "PRAGMA synchronous = NORMAL") != SPOOL_OK ||
		    /* Zeroing what is deleted is dear in writes, and flash keeps it all the same. */
		    run_sql(spool, "PRAGMA secure_delete = FAST") != SPOOL_OK) {
			*error = spool->error;
			spool_close(spool);
			return NULL;
		}
		spool_take_ballast(spool);
	}
	return spool;
}

/* SQLite leaves the -wal of a file that was moved where it is. There, the file that
 * stands at the path now would be taken to have written it, and overwritten with what
 * it holds; and the one that was moved would miss it. */
static void empty_left_log(struct spool *spool)
{
	int looks_only = 1;
	if (spool->db == NULL || !spool_was_replaced(spool, NULL))
		return;
	(void)sqlite3_db_config(spool->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, -1, &looks_only);
	if (!looks_only)
		(void)sqlite3_wal_checkpoint_v2(spool->db, "main", SQLITE_CHECKPOINT_TRUNCATE, NULL,
		                                NULL);
}

void spool_close(struct spool *spool)
{
	if (spool == NULL)
		return;
	for (size_t i = 0; i < QUERY_COUNT; i++)
		(void)sqlite3_finalize(spool->statements[i]);
	empty_left_log(spool);
	disconnect(spool);
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
	int64_t row_limit = max_record + SPOOL_ROW_SLACK;
	spool->row_limit = row_limit > INT_MAX ? INT_MAX : (int)row_limit;
	(void)sqlite3_limit(spool->db, SQLITE_LIMIT_LENGTH, spool->row_limit);
	sqlite3_stmt *update = spool_statement(spool, SET_LIMITS);
	if (update == NULL)
		return spool->error.status;
	(void)sqlite3_bind_int64(update, 1, max_spool);
	(void)sqlite3_bind_int64(update, 2, max_record);
	(void)sqlite3_bind_int(update, 3, drop_oldest);
	return spool_finish(spool, update);
}
