/* Calls to SQLite and to the system that fail, for the tests of one program: the Makefile
 * links it with --wrap for each function that stands here, so that our own code's calls ask
 * first. SQLite's own calls to the system do not: tests/torture/ makes those fail.
 *
 * A call that fails does nothing, but what must be done for nothing to be left behind.
 */
#ifndef TESTS_UNIT_FAULTS_H
#define TESTS_UNIT_FAULTS_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

/* What fails, and as what. 0: such calls work, and are not counted. */
struct fault {
	const char *name;
	int sqlite; /* SQLite's calls */
	int system; /* the system's calls: errno */
	bool memory; /* allocations, of ours and of SQLite's helpers */
};

static struct {
	const struct fault *fault; /* NULL: nothing fails */
	int left;                  /* so many calls work before */
	bool for_ever, struck;
	const char *only;          /* NULL, or the only function that fails */
	const char *where;         /* the function that failed first */
	long kind;                 /* what statfs() says that a file system is; 0: what it is */
	int version;               /* of SQLite; 0: what it is */
	void (*meanwhile)(void *context); /* done while somebody waits */
	void *context;
	int last_errno;            /* of the file that this asks for, SQLITE_FCNTL_FILE_POINTER */
	int unreadable;            /* or another; 0: it is asked itself */
	bool commoner;             /* geteuid() says that it is not root's process */
} faults;

static void fail_after(const struct fault *fault, int calls, bool for_ever)
{
	faults.fault = fault;
	faults.left = calls;
	faults.for_ever = for_ever;
	faults.struck = false;
	faults.where = "";
}

/* True when one failed meanwhile. */
static bool stop_failing(void)
{
	faults.fault = NULL;
	faults.only = NULL;
	return faults.struck;
}

static bool strikes(bool concerned, const char *where)
{
	if (faults.fault == NULL || !concerned ||
	    (faults.only != NULL && strcmp(faults.only, where) != 0))
		return false;
	if (faults.left > 0) {
		faults.left--;
		return false;
	}
	if (faults.struck && !faults.for_ever)
		return false;
	if (!faults.struck)
		faults.where = where;
	faults.struck = true;
	return true;
}

static int sqlite_fails(const char *where)
{
	return strikes(faults.fault != NULL && faults.fault->sqlite != 0, where)
	               ? faults.fault->sqlite
	               : SQLITE_OK;
}

static bool system_fails(const char *where)
{
	if (!strikes(faults.fault != NULL && faults.fault->system != 0, where))
		return false;
	errno = faults.fault->system;
	return true;
}

static bool memory_fails(const char *where)
{
	return strikes(faults.fault != NULL && faults.fault->memory, where);
}

#define WRAP(type, name, parameters)                                                         \
	type __real_##name parameters;                                                       \
	type __wrap_##name parameters;                                                       \
	type __wrap_##name parameters

/* --- SQLite ------------------------------------------------------------- */

/* Whatever else fails, SQLite does give a transaction up. */
static bool gives_up(const char *sql)
{
	return sql != NULL && strncmp(sql, "ROLLBACK", 8) == 0;
}

WRAP(int, sqlite3_step, (sqlite3_stmt *statement))
{
	int rc = gives_up(sqlite3_sql(statement)) ? SQLITE_OK : sqlite_fails("step");
	return rc != SQLITE_OK ? rc : __real_sqlite3_step(statement);
}

WRAP(int, sqlite3_exec,
     (sqlite3 *db, const char *sql, int (*row)(void *, int, char **, char **), void *context,
      char **error))
{
	int rc = gives_up(sql) ? SQLITE_OK : sqlite_fails("exec");
	return rc != SQLITE_OK ? rc : __real_sqlite3_exec(db, sql, row, context, error);
}

/* As it opens what it cannot open to be written. */
WRAP(int, sqlite3_db_readonly, (sqlite3 *db, const char *name))
{
	return sqlite_fails("db_readonly") != SQLITE_OK ? 1 : __real_sqlite3_db_readonly(db, name);
}

WRAP(int, sqlite3_prepare_v2,
     (sqlite3 *db, const char *sql, int size, sqlite3_stmt **statement, const char **rest))
{
	int rc = sqlite_fails("prepare");
	*statement = NULL;
	return rc != SQLITE_OK ? rc : __real_sqlite3_prepare_v2(db, sql, size, statement, rest);
}

WRAP(int, sqlite3_prepare_v3,
     (sqlite3 *db, const char *sql, int size, unsigned flags, sqlite3_stmt **statement,
      const char **rest))
{
	int rc = gives_up(sql) ? SQLITE_OK : sqlite_fails("prepare");
	*statement = NULL;
	return rc != SQLITE_OK ? rc
	                       : __real_sqlite3_prepare_v3(db, sql, size, flags, statement, rest);
}

WRAP(int, sqlite3_reset, (sqlite3_stmt *statement))
{
	int real = __real_sqlite3_reset(statement), rc = sqlite_fails("reset");
	return rc != SQLITE_OK ? rc : real;
}

WRAP(int, sqlite3_finalize, (sqlite3_stmt *statement))
{
	int real = __real_sqlite3_finalize(statement), rc = sqlite_fails("finalize");
	return rc != SQLITE_OK ? rc : real;
}

WRAP(int, sqlite3_open, (const char *path, sqlite3 **db))
{
	int real = __real_sqlite3_open(path, db), rc = sqlite_fails("open");
	return rc != SQLITE_OK ? rc : real;
}

WRAP(int, sqlite3_open_v2, (const char *path, sqlite3 **db, int flags, const char *vfs))
{
	int real = __real_sqlite3_open_v2(path, db, flags, vfs), rc = sqlite_fails("open_v2");
	if (rc != SQLITE_OK || !memory_fails("open_v2"))
		return rc != SQLITE_OK ? rc : real;
	(void)sqlite3_close_v2(*db);
	*db = NULL;
	return SQLITE_NOMEM;
}

WRAP(int, sqlite3_close, (sqlite3 *db))
{
	int real = __real_sqlite3_close(db), rc = sqlite_fails("sqlite3_close");
	return rc != SQLITE_OK ? rc : real;
}

WRAP(int, sqlite3_wal_checkpoint_v2,
     (sqlite3 *db, const char *schema, int mode, int *frames, int *copied))
{
	int rc = sqlite_fails("checkpoint");
	return rc != SQLITE_OK ? rc
	                       : __real_sqlite3_wal_checkpoint_v2(db, schema, mode, frames, copied);
}

WRAP(int, sqlite3_busy_handler, (sqlite3 *db, int (*wait)(void *, int), void *context))
{
	int real = __real_sqlite3_busy_handler(db, wait, context), rc = sqlite_fails("busy_handler");
	return rc != SQLITE_OK ? rc : real;
}

WRAP(int, sqlite3_create_function_v2,
     (sqlite3 *db, const char *name, int arguments, int encoding, void *context,
      void (*call)(sqlite3_context *, int, sqlite3_value **),
      void (*advance)(sqlite3_context *, int, sqlite3_value **),
      void (*conclude)(sqlite3_context *), void (*destroy)(void *)))
{
	int rc = sqlite_fails("create_function");
	return rc != SQLITE_OK ? rc
	                       : __real_sqlite3_create_function_v2(db, name, arguments, encoding, context,
	                                                           call, advance, conclude, destroy);
}

static int say_errno(sqlite3_file *file, int what, void *argument)
{
	(void)file;
	if (what == SQLITE_FCNTL_LAST_ERRNO)
		*(int *)argument = faults.last_errno;
	return SQLITE_OK;
}

WRAP(int, sqlite3_file_control, (sqlite3 *db, const char *schema, int what, void *argument))
{
	int rc = sqlite_fails("file_control");
	static const sqlite3_io_methods methods = { .iVersion = 1, .xFileControl = say_errno };
	static sqlite3_file file = { &methods }, closed = { NULL };
	if (rc == SQLITE_OK && faults.last_errno != 0 &&
	    (what == SQLITE_FCNTL_FILE_POINTER || what == SQLITE_FCNTL_JOURNAL_POINTER)) {
		*(sqlite3_file **)argument = what == faults.unreadable ? &file : &closed;
		return SQLITE_OK;
	}
	return rc != SQLITE_OK ? rc : __real_sqlite3_file_control(db, schema, what, argument);
}

WRAP(int, sqlite3_system_errno, (sqlite3 *db))
{
	return faults.fault != NULL ? faults.fault->system : __real_sqlite3_system_errno(db);
}

WRAP(int, sqlite3_libversion_number, (void))
{
	return faults.version != 0 ? faults.version : __real_sqlite3_libversion_number();
}

int __real_sqlite3_db_config(sqlite3 *db, int option, ...);
int __wrap_sqlite3_db_config(sqlite3 *db, int option, ...);
int __wrap_sqlite3_db_config(sqlite3 *db, int option, ...)
{
	va_list rest;
	va_start(rest, option);
	int value = va_arg(rest, int), *now = va_arg(rest, int *), rc = sqlite_fails("db_config");
	va_end(rest);
	return rc != SQLITE_OK ? rc : __real_sqlite3_db_config(db, option, value, now);
}

char *__real_sqlite3_mprintf(const char *format, ...);
char *__wrap_sqlite3_mprintf(const char *format, ...);
char *__wrap_sqlite3_mprintf(const char *format, ...)
{
	va_list rest;
	va_start(rest, format);
	char *text = memory_fails("mprintf") ? NULL : sqlite3_vmprintf(format, rest);
	va_end(rest);
	return text;
}

WRAP(char *, sqlite3_str_finish, (sqlite3_str * text))
{
	char *finished = __real_sqlite3_str_finish(text);
	if (!memory_fails("str_finish"))
		return finished;
	sqlite3_free(finished);
	return NULL;
}

/* --- Memory ------------------------------------------------------------- */

WRAP(void *, malloc, (size_t size))
{
	return memory_fails("malloc") ? NULL : __real_malloc(size);
}

WRAP(void *, calloc, (size_t count, size_t size))
{
	return memory_fails("calloc") ? NULL : __real_calloc(count, size);
}

WRAP(void *, realloc, (void *old, size_t size))
{
	return memory_fails("realloc") ? NULL : __real_realloc(old, size);
}

WRAP(char *, strdup, (const char *text))
{
	return memory_fails("strdup") ? NULL : __real_strdup(text);
}

WRAP(char *, strndup, (const char *text, size_t size))
{
	return memory_fails("strndup") ? NULL : __real_strndup(text, size);
}

/* --- The system --------------------------------------------------------- */

/* With offsets of 64 bits glibc's headers give some functions other names, and with times of 64
 * bits on 32 yet others; the linker wraps by them. */
#if __WORDSIZE == 32
#define WITH_TIME(of_32, of_64) of_32
#else
#define WITH_TIME(of_32, of_64) of_64
#endif
#define RENAME(type, name, parameters, linked)                                               \
	type __real_##name parameters __asm__("__real_" linked);                             \
	type __wrap_##name parameters __asm__("__wrap_" linked);

RENAME(int, open, (const char *path, int flags, ...), "open64")
RENAME(int, fcntl, (int file, int command, ...), WITH_TIME("__fcntl_time64", "fcntl64"))
RENAME(int, stat, (const char *path, struct stat *about), WITH_TIME("__stat64_time64", "stat64"))
RENAME(int, fstat, (int file, struct stat *about), WITH_TIME("__fstat64_time64", "fstat64"))
RENAME(int, statfs, (const char *path, struct statfs *about), "statfs64")
RENAME(int, posix_fallocate, (int file, off_t at, off_t size), "posix_fallocate64")
RENAME(int, nanosleep, (const struct timespec *wanted, struct timespec *left),
       WITH_TIME("__nanosleep64", "nanosleep"))
RENAME(ssize_t, pread, (int file, void *into, size_t size, off_t at), "pread64")
RENAME(ssize_t, pwrite, (int file, const void *from, size_t size, off_t at), "pwrite64")

int __wrap_open(const char *path, int flags, ...)
{
	va_list rest;
	va_start(rest, flags);
	mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0;
	va_end(rest);
	return system_fails("open") ? -1 : __real_open(path, flags, mode);
}

int __wrap_fcntl(int file, int command, ...)
{
	va_list rest;
	va_start(rest, command);
	void *argument = va_arg(rest, void *);
	va_end(rest);
	return system_fails("fcntl") ? -1 : __real_fcntl(file, command, argument);
}

WRAP(int, close, (int file))
{
	int real = __real_close(file);
	return system_fails("close") ? -1 : real;
}

WRAP(int, statfs, (const char *path, struct statfs *about))
{
	int real = system_fails("statfs") ? -1 : __real_statfs(path, about);
	if (real == 0 && faults.kind != 0)
		about->f_type = faults.kind;
	return real;
}

WRAP(int, posix_fallocate, (int file, off_t at, off_t size))
{
	return system_fails("posix_fallocate") ? errno : __real_posix_fallocate(file, at, size);
}

#define WRAP_SYSTEM(name, parameters, arguments)                                             \
	WRAP(int, name, parameters)                                                          \
	{                                                                                    \
		return system_fails(#name) ? -1 : __real_##name arguments;                   \
	}

WRAP_SYSTEM(stat, (const char *path, struct stat *about), (path, about))
WRAP_SYSTEM(fstat, (int file, struct stat *about), (file, about))
#if !__GLIBC_PREREQ(2, 33) /* whose headers have these instead */
WRAP(int, __xstat64, (int version, const char *path, struct stat *about))
{
	return system_fails("stat") ? -1 : __real___xstat64(version, path, about);
}

WRAP(int, __fxstat64, (int version, int file, struct stat *about))
{
	return system_fails("fstat") ? -1 : __real___fxstat64(version, file, about);
}
#endif

WRAP_SYSTEM(access, (const char *path, int mode), (path, mode))
WRAP_SYSTEM(fsync, (int file), (file))
WRAP_SYSTEM(fdatasync, (int file), (file))
WRAP_SYSTEM(link, (const char *from, const char *to), (from, to))
WRAP_SYSTEM(rename, (const char *from, const char *to), (from, to))
WRAP_SYSTEM(unlink, (const char *path), (path))
WRAP_SYSTEM(fchmod, (int file, mode_t mode), (file, mode))
WRAP_SYSTEM(fchown, (int file, uid_t owner, gid_t group), (file, owner, group))

WRAP(ssize_t, pread, (int file, void *into, size_t size, off_t at))
{
	return system_fails("pread") ? -1 : __real_pread(file, into, size, at);
}

WRAP(ssize_t, pwrite, (int file, const void *from, size_t size, off_t at))
{
	return system_fails("pwrite") ? -1 : __real_pwrite(file, from, size, at);
}

WRAP(DIR *, opendir, (const char *path))
{
	return system_fails("opendir") ? NULL : __real_opendir(path);
}

WRAP(uid_t, geteuid, (void))
{
	return faults.commoner ? 65534 : __real_geteuid();
}

/* Nobody waits while something fails. */
WRAP(int, nanosleep, (const struct timespec *wanted, struct timespec *left))
{
	if (faults.meanwhile != NULL)
		faults.meanwhile(faults.context);
	return faults.fault != NULL ? 0 : __real_nanosleep(wanted, left);
}

#endif
