/* Preloaded into the agent: lets one I/O call on the files below IO_FOLDER fail, or all
 * from that one on. IO_FAULT is KIND:N:once or KIND:N:on; N counts, over all threads,
 * the calls that KIND can befall, from 1; 0: none fails. How many there were is written
 * to IO_COUNT at the end.
 *
 *   eio     any call fails with EIO        enospc  a call that takes room: ENOSPC
 *   sync    fsync and fdatasync: EIO       quota   likewise: EDQUOT
 *   short   a pread or pwrite does half of it
 *
 * Each call is here by both of its names: a program that is built for files of any size
 * calls the one that ends in 64. Taking a lock can fail, giving it back cannot: no file
 * system that a spool may be on does that.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define FILES 256
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum { READS = 1, ROOM = 2, WRITES = 4, SYNCS = 8, OTHER = 16 };

static atomic_bool ours[FILES];
static atomic_ulong seen;

static bool below(const char *path)
{
	const char *folder = getenv("IO_FOLDER");
	return folder != NULL && strncmp(path, folder, strlen(folder)) == 0;
}

static bool is_ours(int file)
{
	return file >= 0 && file < FILES && atomic_load(&ours[file]);
}

/* The error that this call is to have: an errno; -1 for half of it; 0 for none. */
static int fault(int call)
{
	const char *text = getenv("IO_FAULT");
	if (text == NULL)
		return 0;
	int kinds = READS | ROOM | WRITES | SYNCS | OTHER, error = EIO;
	if (strncmp(text, "enospc", 6) == 0) {
		kinds = ROOM;
		error = ENOSPC;
	} else if (strncmp(text, "quota", 5) == 0) {
		kinds = ROOM;
		error = EDQUOT;
	} else if (strncmp(text, "sync", 4) == 0) {
		kinds = SYNCS;
	} else if (strncmp(text, "short", 5) == 0) {
		kinds = WRITES | READS;
		error = -1;
	}
	if ((call & kinds) == 0)
		return 0;
	unsigned long at = strtoul(strchr(text, ':') + 1, NULL, 10);
	unsigned long now = atomic_fetch_add(&seen, 1) + 1;
	bool on = strcmp(strrchr(text, ':'), ":on") == 0;
	return at != 0 && (now == at || (on && now > at)) ? error : 0;
}

__attribute__((destructor)) static void tell(void)
{
	const char *path = getenv("IO_COUNT");
	FILE *file = path != NULL ? fopen(path, "w") : NULL;
	if (file != NULL) {
		(void)fprintf(file, "%lu\n", atomic_load(&seen));
		(void)fclose(file);
	}
}

#define FAIL_IF(call, result) \
	do { \
		int error_ = fault(call); \
		if (error_ > 0) { \
			errno = error_; \
			return result; \
		} \
	} while (0)

static int opened(int file, const char *path)
{
	if (file >= 0 && file < FILES)
		atomic_store(&ours[file], below(path));
	return file;
}

/* What every opening begins with. */
#define TAKE_MODE_OR_FAIL(mode) \
	va_list rest; \
	va_start(rest, flags); \
	mode_t mode = (flags & O_CREAT) != 0 ? va_arg(rest, mode_t) : 0; \
	va_end(rest); \
	if (below(path)) \
		FAIL_IF((flags & O_CREAT) != 0 ? ROOM : OTHER, -1)

#define OPEN(name) \
	int name(const char *path, int flags, ...) \
	{ \
		TAKE_MODE_OR_FAIL(mode); \
		return opened(REAL(name)(path, flags, mode), path); \
	}
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
	int name(int folder, const char *path, int flags, ...) \
	{ \
		TAKE_MODE_OR_FAIL(mode); \
		return opened(REAL(name)(folder, path, flags, mode), path); \
	}
OPENAT(openat)
OPENAT(openat64)

/* It is closed all the same, as Linux does it. */
int close(int file)
{
	bool was_ours = is_ours(file);
	if (file >= 0 && file < FILES)
		atomic_store(&ours[file], false);
	int result = REAL(close)(file);
	if (was_ours)
		FAIL_IF(OTHER, -1);
	return result;
}

#define CONTROL(name) \
	int name(int file, int command, ...) \
	{ \
		va_list rest; \
		va_start(rest, command); \
		void *argument = va_arg(rest, void *); \
		va_end(rest); \
		bool locks = command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || \
			     command == F_OFD_SETLKW; \
		bool asks = command == F_GETLK || command == F_OFD_GETLK; \
		if (is_ours(file) && \
		    (asks || (locks && ((const struct flock *)argument)->l_type != F_UNLCK))) \
			FAIL_IF(OTHER, -1); \
		return REAL(name)(file, command, argument); \
	}
CONTROL(fcntl)
CONTROL(fcntl64)

int flock(int file, int operation)
{
	if (is_ours(file) && (operation & LOCK_UN) == 0)
		FAIL_IF(OTHER, -1);
	return REAL(flock)(file, operation);
}

#define POSITIONED(name, buffer_type, call) \
	ssize_t name(int file, buffer_type buffer, size_t size, off_t at) \
	{ \
		int error = is_ours(file) ? fault(call) : 0; \
		if (error > 0) { \
			errno = error; \
			return -1; \
		} \
		return REAL(name)(file, buffer, error < 0 && size > 1 ? size / 2 : size, at); \
	}
POSITIONED(pwrite, const void *, ROOM | WRITES)
POSITIONED(pwrite64, const void *, ROOM | WRITES)
POSITIONED(pread, void *, READS)
POSITIONED(pread64, void *, READS)

ssize_t write(int file, const void *buffer, size_t size)
{
	int error = is_ours(file) ? fault(ROOM | WRITES) : 0;
	if (error > 0) {
		errno = error;
		return -1;
	}
	return REAL(write)(file, buffer, error < 0 && size > 1 ? size / 2 : size);
}

ssize_t read(int file, void *buffer, size_t size)
{
	if (is_ours(file))
		FAIL_IF(READS, -1);
	return REAL(read)(file, buffer, size);
}

#define ON_FILE(name, call) \
	int name(int file) \
	{ \
		if (is_ours(file)) \
			FAIL_IF(call, -1); \
		return REAL(name)(file); \
	}
ON_FILE(fsync, SYNCS)
ON_FILE(fdatasync, SYNCS)

#define TRUNCATE(name) \
	int name(int file, off_t size) \
	{ \
		if (is_ours(file)) \
			FAIL_IF(ROOM, -1); \
		return REAL(name)(file, size); \
	}
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define ALLOCATE(name) \
	int name(int file, off_t from, off_t size) \
	{ \
		int error = is_ours(file) ? fault(ROOM) : 0; \
		return error > 0 ? error : REAL(name)(file, from, size); \
	}
ALLOCATE(posix_fallocate)
ALLOCATE(posix_fallocate64)

#define STAT(name, type) \
	int name(const char *path, type *into) \
	{ \
		if (below(path)) \
			FAIL_IF(OTHER, -1); \
		return REAL(name)(path, into); \
	}
STAT(stat, struct stat)
STAT(stat64, struct stat64)
STAT(lstat, struct stat)
STAT(lstat64, struct stat64)

#define FSTAT(name, type) \
	int name(int file, type *into) \
	{ \
		if (is_ours(file)) \
			FAIL_IF(OTHER, -1); \
		return REAL(name)(file, into); \
	}
FSTAT(fstat, struct stat)
FSTAT(fstat64, struct stat64)

int access(const char *path, int mode)
{
	if (below(path))
		FAIL_IF(OTHER, -1);
	return REAL(access)(path, mode);
}

int chmod(const char *path, mode_t mode)
{
	if (below(path))
		FAIL_IF(OTHER, -1);
	return REAL(chmod)(path, mode);
}

int fchmod(int file, mode_t mode)
{
	if (is_ours(file))
		FAIL_IF(OTHER, -1);
	return REAL(fchmod)(file, mode);
}

int fchown(int file, uid_t user, gid_t group)
{
	if (is_ours(file))
		FAIL_IF(OTHER, -1);
	return REAL(fchown)(file, user, group);
}

int unlink(const char *path)
{
	if (below(path))
		FAIL_IF(OTHER, -1);
	return REAL(unlink)(path);
}

int rename(const char *from, const char *to)
{
	if (below(to))
		FAIL_IF(ROOM, -1);
	return REAL(rename)(from, to);
}

int link(const char *from, const char *to)
{
	if (below(to))
		FAIL_IF(ROOM, -1);
	return REAL(link)(from, to);
}

void *mmap(void *address, size_t size, int protection, int flags, int file, off_t at)
{
	if (is_ours(file))
		FAIL_IF(ROOM, MAP_FAILED);
	return REAL(mmap)(address, size, protection, flags, file, at);
}

void *mmap64(void *address, size_t size, int protection, int flags, int file, off_t at)
{
	if (is_ours(file))
		FAIL_IF(ROOM, MAP_FAILED);
	return REAL(mmap64)(address, size, protection, flags, file, at);
}
