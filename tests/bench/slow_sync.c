/* A disk that takes long to sync; put before a program by LD_PRELOAD.
 *
 * Each fsync() and fdatasync() takes SYNC_MS milliseconds longer, and is noted in the file
 * that SYNC_LOG names: "BEGIN END" in ns of CLOCK_MONOTONIC.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int64_t now(void)
{
	struct timespec time;
	(void)clock_gettime(CLOCK_MONOTONIC, &time);
	return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int slowly(long call, int file)
{
	const char *wait = getenv("SYNC_MS"), *path = getenv("SYNC_LOG");
	int64_t begin = now(), ns = wait != NULL ? strtoll(wait, NULL, 10) * 1000000 : 0;
	struct timespec time = { ns / 1000000000, ns % 1000000000 };
	(void)nanosleep(&time, NULL);
	int result = (int)syscall(call, file);
	int log = path != NULL ? open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : -1;
	if (log >= 0) {
		(void)dprintf(log, "%" PRId64 " %" PRId64 "\n", begin, now());
		(void)close(log);
	}
	return result;
}

int fsync(int file)
{
	return slowly(SYS_fsync, file);
}

int fdatasync(int file)
{
	return slowly(SYS_fdatasync, file);
}
