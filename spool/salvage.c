/* The salvage: what is done with the files, in which order; see salvage.h.
 *
 * The order is what makes a kill harmless, and a program that has the old file open unable
 * to lose a record in it:
 *   1. nobody else has the spool open, by SQLite's own locks, from here to the end;
 *   2. the new file is complete and on the disk, under a name of its own;
 *   3. the damaged file, its -wal and -shm have their second names;
 *   4. the damaged file is sealed: SQLite takes no write to it any more;
 *   5. the -wal and -shm lose their first names, so that the new file never meets them;
 *   6. the new file takes the damaged one's first name, in one step.
 * Cut short behind 3 it is repeated: the second names lead to what there was.
 */
#include "spool/salvage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "spool/internal.h"
#include "spool/migrate.h"
#include "spool/rescue.h"

/* Where SQLite has its locks in a file: PENDING, RESERVED and 510 bytes SHARED. */
#define LOCKS_AT 0x40000000
#define LOCKS_SIZE 512
#define SHARED_AT (LOCKS_AT + 2)
#define SHARED_SIZE 510

/* SQLite opens no longer one, and every name that is made of it fits into PATH_MAX. */
#define PATH_LONGEST 512

struct salvage {
	const char *path;
	char building[PATH_MAX]; /* the new file's name while it is made */
	int file, wal;           /* the damaged file's; -1: none */
	bool empty;              /* that file is */
	bool repeated;           /* an earlier salvage gave it its second name already */
	int64_t wall;
	struct salvage_report *report;
	struct spool_error *error;
};

static const char *const endings[] = { "-wal", "-shm", "-journal" };
#define ENDINGS (sizeof endings / sizeof endings[0])

static bool fail(struct salvage *salvage, enum spool_status status, const char *what,
                 const char *name)
{
	int reason = errno;
	if (reason == ENOSPC || reason == EDQUOT)
		status = SPOOL_FULL;
	spool_say(salvage->error, status, "%s: %s: %s; the damaged spool stays in its place", name,
	          what, strerror(reason));
	return false;
}

/* It fits: see PATH_LONGEST. */
static void name_with(char into[PATH_MAX], const char *path, const char *ending)
{
	(void)snprintf(into, PATH_MAX, "%.4000s%.40s", path, ending);
}

/* --- Is there anything to do -------------------------------------------- */

static void note_damage(void *context, const char *sentence)
{
	/* What somebody added is no damage. */
	if (strstr(sentence, "is not part of a spool") == NULL)
		*(bool *)context = true;
}

static int note_check(void *context, int columns, char **values, char **names)
{
	(void)columns;
	(void)names;
	if (strcmp(values[0], "ok") != 0)
		*(bool *)context = true;
	return 0;
}

/* A salvage was cut short: perhaps the -wal has lost its name already. Or it is damage. */
static bool is_sealed(const char *path)
{
	unsigned char byte = 0;
	int file = open(path, O_RDONLY | O_CLOEXEC);
	bool sealed = file >= 0 && pread(file, &byte, 1, SEAL_AT) == 1 && byte > SEAL_NONE;
	if (file >= 0)
		(void)close(file);
	return sealed;
}

/* SPOOL_OK: it is sound. SPOOL_DAMAGED: it is not. Else it cannot be told. */
static enum spool_status examine(const char *path, struct spool_error *error)
{
	bool damaged = false;
	struct spool_ledger ledger;
	if (is_sealed(path))
		return SPOOL_DAMAGED;
	struct spool *spool = spool_open(path, SPOOL_READ, INT32_MAX, error);
	if (spool == NULL)
		return error->status == SPOOL_FOREIGN || error->status == SPOOL_REFUSED ||
		       error->status == SPOOL_IO ? SPOOL_DAMAGED : error->status;
	int rc = sqlite3_exec(spool->db, "PRAGMA integrity_check(1)", note_check, &damaged, NULL);
	enum spool_status status = rc == SQLITE_OK ? SPOOL_OK : spool_fail(spool, rc);
	if (status == SPOOL_OK && !damaged && !spool_is_older(spool))
		status = spool_compare_schema(spool, note_damage, &damaged);
	if (status == SPOOL_OK && !damaged)
		status = spool_read_ledger(spool, -1, &ledger);
	if (status != SPOOL_OK)
		*error = *spool_last_error(spool);
	spool_close(spool);
	if (damaged || status == SPOOL_IO || status == SPOOL_REFUSED)
		return SPOOL_DAMAGED;
	return status;
}

/* --- Nobody else -------------------------------------------------------- */

static int lock_bytes(int file, int command, off_t at, off_t size, pid_t *holder)
{
	/* Not dropped by another close of this process, as SQLite's own kind would be. */
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = at,
		              .l_len = size };
	int result = fcntl(file, command, &lock);
	if (holder != NULL)
		*holder = result == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
	return result;
}

static bool say_who(struct salvage *salvage)
{
	char name[64], command[32] = "another program";
	pid_t holder = 0;
	(void)lock_bytes(salvage->file, F_OFD_GETLK, SHARED_AT, SHARED_SIZE, &holder);
	(void)snprintf(name, sizeof name, "/proc/%ld/comm", (long)holder);
	FILE *file = holder > 0 ? fopen(name, "re") : NULL;
	if (file != NULL) {
		/* not covered: it has ended since */
		if (fgets(command, sizeof command, file) == NULL)
			(void)snprintf(command, sizeof command, "another program");
		command[strcspn(command, "\n")] = '\0';
		(void)fclose(file);
	}
	if (holder > 0)
		spool_say(salvage->error, SPOOL_BUSY, "%s: %s (pid %ld) has the spool open, and could "
		          "go on writing into the damaged file; end it, and repeat this; nothing was "
		          "changed", salvage->path, command, (long)holder);
	else
		spool_say(salvage->error, SPOOL_BUSY, "%s: another program has the spool open, and could "
		          "go on writing into the damaged file; end it, and repeat this; nothing was "
		          "changed", salvage->path);
	return false;
}

/* Whoever has read or written through SQLite holds a shared lock until it closes. */
static bool shut_out(struct salvage *salvage, int patience)
{
	const struct timespec moment = { 0, 10000000 };
	for (int waited = 0;; waited += 10) {
		/* The first byte keeps newcomers out while those who are there finish. */
		if (lock_bytes(salvage->file, F_OFD_SETLK, LOCKS_AT, 1, NULL) == 0 &&
		    lock_bytes(salvage->file, F_OFD_SETLK, LOCKS_AT, LOCKS_SIZE, NULL) == 0)
			return true;
		if (errno != EAGAIN)
			return fail(salvage, SPOOL_IO, "cannot be locked", salvage->path);
		if (waited >= patience)
			return say_who(salvage);
		(void)nanosleep(&moment, NULL);
	}
}

/* --- Reading ------------------------------------------------------------ */

/* The second name that a salvage, cut short, gave the file; false: it has none. */
static bool find_second_name(struct salvage *salvage, const struct stat *about)
{
	char name[PATH_MAX], start[NAME_MAX + 16];
	const struct dirent *entry;
	const char *slash = strrchr(salvage->path, '/');
	bool found = false;
	spool_folder_of(salvage->path, name);
	DIR *folder = about->st_nlink > 1 ? opendir(name) : NULL;
	if (folder == NULL)
		return false;
	(void)snprintf(start, sizeof start, "%s.damaged-", slash != NULL ? slash + 1 : salvage->path);
	while (!found && (entry = readdir(folder)) != NULL) {
		size_t length = strlen(start);
		found = entry->d_ino == about->st_ino && strncmp(entry->d_name, start, length) == 0;
		if (found)
			(void)snprintf(salvage->report->aside, PATH_MAX, "%s.damaged-%s", salvage->path,
			               entry->d_name + length);
	}
	(void)closedir(folder);
	return found;
}

static bool open_files(struct salvage *salvage)
{
	char name[PATH_MAX];
	struct stat about;
	salvage->file = open(salvage->path, O_RDWR | O_CLOEXEC);
	if (salvage->file < 0 || fstat(salvage->file, &about) != 0)
		return fail(salvage, SPOOL_DENIED, "cannot be opened", salvage->path);
	salvage->empty = about.st_size == 0;
	salvage->repeated = find_second_name(salvage, &about);
	name_with(name, salvage->path, "-wal");
	if (salvage->repeated && (stat(name, &about) != 0 || about.st_size == 0))
		name_with(name, salvage->report->aside, "-wal");
	salvage->wal = open(name, O_RDONLY | O_CLOEXEC);
	if (salvage->wal < 0 && errno != ENOENT)
		return fail(salvage, SPOOL_DENIED, "cannot be opened", name);
	return true;
}

/* --- The new file ------------------------------------------------------- */

/* What was left of an unfinished one must not be taken for the new file's beginning. */
static bool remove_unfinished(const struct salvage *salvage)
{
	char name[PATH_MAX];
	bool removed = unlink(salvage->building) == 0 || errno == ENOENT;
	for (size_t i = 0; removed && i < ENDINGS; i++) {
		name_with(name, salvage->building, endings[i]);
		removed = unlink(name) == 0 || errno == ENOENT;
	}
	return removed;
}

static bool say_rescue(struct salvage *salvage, sqlite3 *to, enum rescue_result result)
{
	switch (result) {
	case RESCUE_DONE:
		return true;
	case RESCUE_FOREIGN:
		spool_say(salvage->error, SPOOL_FOREIGN, "%s: nothing in this file is a spool's, so there "
		          "is nothing to salvage; it was left as it is", salvage->path);
		break;
	case RESCUE_NEWER:
		spool_say(salvage->error, SPOOL_NEWER, "%s: this spool was written by a newer "
		          "reconify-agent; it was left as it is, upgrade the program", salvage->path);
		break;
	case RESCUE_NO_MEMORY:
		spool_say(salvage->error, SPOOL_IO, "%s: no memory to salvage it; it stays in its place",
		          salvage->path);
		break;
	case RESCUE_UNWRITTEN:
		(void)spool_explain(salvage->error, salvage->building, to, sqlite3_errcode(to));
		break;
	}
	return false;
}

/* Fills the new file in. It is synced as a whole at its end, so SQLite need not. */
static bool fill(struct salvage *salvage, sqlite3 *to, struct pages *pages)
{
	int rc = sqlite3_db_config(to, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(to, "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
		                  "PRAGMA auto_vacuum = INCREMENTAL", NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = schema_migrate(to);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(to, "BEGIN", NULL, NULL, NULL);
	if (rc != SQLITE_OK)
		return say_rescue(salvage, to, RESCUE_UNWRITTEN);
	enum rescue_result result = rescue_copy(pages, to, salvage->wall,
	                                        salvage->report);
	if (result == RESCUE_DONE &&
	    sqlite3_exec(to, "COMMIT; PRAGMA journal_mode = WAL", NULL, NULL, NULL) != SQLITE_OK)
		result = RESCUE_UNWRITTEN;
	return say_rescue(salvage, to, result);
}

static bool build(struct salvage *salvage)
{
	struct pages pages;
	sqlite3 *to = NULL;
	if (!remove_unfinished(salvage))
		return fail(salvage, SPOOL_DENIED, "cannot be taken away", salvage->building);
	if (!pages_open(&pages, salvage->file, salvage->wal))
		return say_rescue(salvage, NULL, salvage->empty ? RESCUE_FOREIGN : RESCUE_NO_MEMORY);
	bool built = spool_create_file(salvage->building, salvage->error) == SPOOL_OK;
	if (built && sqlite3_open_v2(salvage->building, &to, SQLITE_OPEN_READWRITE, NULL) != SQLITE_OK)
		built = say_rescue(salvage, to, RESCUE_UNWRITTEN);
	built = built && fill(salvage, to, &pages);
	if (sqlite3_close(to) != SQLITE_OK && built)
		built = say_rescue(salvage, to, RESCUE_UNWRITTEN);
	pages_close(&pages);
	if (built) {
		int file = open(salvage->building, O_RDONLY | O_CLOEXEC);
		if (file < 0 || fsync(file) != 0)
			built = fail(salvage, SPOOL_IO, "cannot be brought to the disk", salvage->building);
		if (file >= 0)
			(void)close(file);
	}
	if (!built)
		(void)remove_unfinished(salvage);
	return built;
}

/* --- Changing places ---------------------------------------------------- */

static bool sync_folder(struct salvage *salvage)
{
	char name[PATH_MAX];
	spool_folder_of(salvage->path, name);
	int folder = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	bool synced = folder >= 0 && fsync(folder) == 0;
	if (!synced)
		(void)fail(salvage, SPOOL_IO, "its folder cannot be brought to the disk", salvage->path);
	if (folder >= 0)
		(void)close(folder);
	return synced;
}

/* Another name for the same file. The first one stays, so that there is never none. */
static bool link_damaged(struct salvage *salvage)
{
	for (int64_t second = salvage->wall / 1000; !salvage->repeated; second++) {
		time_t moment = (time_t)second;
		struct tm parts;
		char when[32];
		/* No int64_t of ms is too far off for these. */
		(void)localtime_r(&moment, &parts);
		(void)strftime(when, sizeof when, ".damaged-%Y%m%dT%H%M%S", &parts);
		name_with(salvage->report->aside, salvage->path, when);
		if (link(salvage->path, salvage->report->aside) == 0)
			return true;
		if (errno != EEXIST)
			return fail(salvage, SPOOL_DENIED, "cannot be given the name that it is to be set "
			            "aside by", salvage->report->aside);
	}
	return true;
}

static bool link_others(struct salvage *salvage)
{
	for (size_t i = 0; i < ENDINGS; i++) {
		char from[PATH_MAX], to[PATH_MAX];
		struct stat about, other;
		name_with(from, salvage->path, endings[i]);
		name_with(to, salvage->report->aside, endings[i]);
		if (stat(from, &about) != 0)
			continue;
		/* What came since an earlier salvage was cut short is set aside beside the rest. */
		for (int more = 2; stat(to, &other) == 0 && other.st_ino != about.st_ino; more++) {
			char ending[32];
			(void)snprintf(ending, sizeof ending, "%s.%d", endings[i], more);
			name_with(to, salvage->report->aside, ending);
		}
		if (link(from, to) != 0 && errno != EEXIST)
			return fail(salvage, SPOOL_DENIED, "cannot be given the name that it is to be set "
			            "aside by", to);
	}
	return true;
}

static bool seal(struct salvage *salvage)
{
	if (pwrite(salvage->file, &(char){ SEAL }, 1, SEAL_AT) != 1 || fdatasync(salvage->file) != 0)
		return fail(salvage, SPOOL_IO, "cannot be written to", salvage->path);
	return true;
}

static bool unlink_others(struct salvage *salvage)
{
	for (size_t i = 0; i < ENDINGS; i++) {
		char name[PATH_MAX];
		name_with(name, salvage->path, endings[i]);
		if (unlink(name) != 0 && errno != ENOENT)
			return fail(salvage, SPOOL_DENIED, "cannot be taken away", name);
	}
	return true;
}

static bool change_places(struct salvage *salvage)
{
	if (!link_damaged(salvage) || !link_others(salvage) || !sync_folder(salvage) ||
	    !seal(salvage) || !unlink_others(salvage) || !sync_folder(salvage))
		return false;
	if (rename(salvage->building, salvage->path) != 0)
		return fail(salvage, SPOOL_DENIED, "cannot take the damaged file's place",
		            salvage->building);
	return sync_folder(salvage);
}

enum spool_status spool_salvage(const char *path, int64_t wall, int patience,
                                struct salvage_report *report, struct spool_error *error)
{
	struct salvage salvage = { .path = path, .file = -1, .wal = -1, .wall = wall,
		                   .report = report, .error = error };
	*report = (struct salvage_report){ .needed = false };
	error->sentence[0] = '\0';
	error->status = SPOOL_OK;
	enum spool_status status = examine(path, error);
	if (status != SPOOL_DAMAGED) {
		error->status = status;
		return status;
	}
	report->needed = true;
	if (strlen(path) > PATH_LONGEST) {
		errno = ENAMETOOLONG;
		(void)fail(&salvage, SPOOL_IO, "cannot be opened", path);
		return error->status;
	}
	name_with(salvage.building, path, "-salvage");
	bool done = open_files(&salvage) && shut_out(&salvage, patience) && build(&salvage) &&
	            change_places(&salvage);
	if (salvage.wal >= 0)
		(void)close(salvage.wal);
	if (salvage.file >= 0)
		(void)close(salvage.file);
	if (done)
		error->status = SPOOL_OK;
	return error->status;
}
