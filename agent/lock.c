/* The lock beside the spool; see lock.h.
 *
 * The file: "PID BOOT CRASHES SUSPECT\n" in fixed columns, then one byte that a
 * crash sets to '!'. Written by pwrite in place: it only has to outlive the
 * process, not the power.
 */
#include "agent/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_SIZE 96
#define CRASH_AT LINE_SIZE

/* The only state outside a struct: what a signal handler needs. */
static volatile sig_atomic_t crash_file = -1;

static void lock_path(char *into, size_t size, const char *path)
{
	(void)snprintf(into, size, "%s-agent.lock", path);
}

static void read_boot(char *boot, size_t size)
{
	boot[0] = '-';
	boot[1] = '\0';
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");
	if (file == NULL)
		return;
	char line[64] = "";
	if (fgets(line, sizeof line, file) != NULL) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0] != '\0')
			(void)snprintf(boot, size, "%.*s", (int)size - 1, line);
	}
	(void)fclose(file);
}

/* What the last holder wrote. */
static long read_line(int file, struct lock *lock)
{
	char line[LINE_SIZE + 2] = "";
	char boot[40] = "", suspect[RECORD_UUID_SIZE + 1] = "";
	long pid = 0;
	unsigned crashes = 0;
	ssize_t size = pread(file, line, LINE_SIZE + 1, 0);
	if (size <= 0)
		return 0;
	bool crashed = size > CRASH_AT && line[CRASH_AT] == '!';
	line[size] = '\0';
	if (sscanf(line, "%ld %39s %u %32s", &pid, boot, &crashes, suspect) < 2)
		return 0;
	if (lock == NULL)
		return pid;
	bool same_boot = strcmp(boot, lock->boot) == 0;
	lock->crashed = crashed && same_boot;
	if (lock->crashed && strlen(suspect) == RECORD_UUID_SIZE) {
		memcpy(lock->suspect, suspect, sizeof lock->suspect);
		lock->crashes = crashes + 1;
	}
	return pid;
}

static void write_line(const struct lock *lock, const char *suspect, unsigned crashes)
{
	char line[LINE_SIZE + 1];
	int used = snprintf(line, sizeof line, "%ld %s %u %s", (long)getpid(), lock->boot, crashes,
	                    suspect);
	if (used < 0 || used >= LINE_SIZE)
		return;
	memset(line + used, ' ', (size_t)(LINE_SIZE - used));
	line[LINE_SIZE - 1] = '\n';
	/* Without this line only the search for a record that crashes the agent is
	 * lost, so a failure is no reason to stop. */
	if (pwrite(lock->file, line, LINE_SIZE, 0) != LINE_SIZE)
		return;
}

/* Whatever else stands at that name, a pipe for one, must not hang who opens it. */
static int open_regular(const char *name, int flags)
{
	struct stat about;
	int file = open(name, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0660);
	if (file >= 0 && (fstat(file, &about) != 0 || !S_ISREG(about.st_mode))) {
		(void)close(file);
		errno = EINVAL;
		return -1;
	}
	return file;
}

/* Who only looks (lock_holder) has the lock for a moment: that is no holder. */
static bool take_patiently(int file)
{
	const struct timespec moment = { 0, 20000000 };
	for (int tries = 0; flock(file, LOCK_EX | LOCK_NB) != 0; tries++) {
		if (errno != EWOULDBLOCK || tries == 10)
			return false;
		(void)nanosleep(&moment, NULL);
	}
	return true;
}

enum lock_result lock_take(struct lock *lock, const char *path, pid_t *holder)
{
	char name[4200];
	*lock = (struct lock){ .file = -1 };
	*holder = 0;
	lock_path(name, sizeof name, path);
	read_boot(lock->boot, sizeof lock->boot);
	int file = open_regular(name, O_RDWR | O_CREAT);
	if (file < 0)
		return LOCK_FAILED;
	if (!take_patiently(file)) {
		int reason = errno;
		*holder = (pid_t)read_line(file, NULL);
		if (*holder <= 0)
			*holder = -1;
		(void)close(file);
		errno = reason;
		return reason == EWOULDBLOCK ? LOCK_HELD : LOCK_FAILED;
	}
	lock->file = file;
	(void)read_line(file, lock);
	(void)fchmod(file, 0660);
	if (ftruncate(file, LINE_SIZE) != 0) {
		/* A full disk; the lock itself holds. */
	}
	write_line(lock, "-", 0);
	return LOCK_TAKEN;
}

pid_t lock_holder(const char *path)
{
	char name[4200];
	lock_path(name, sizeof name, path);
	int file = open_regular(name, O_RDONLY);
	if (file < 0)
		return 0;
	pid_t pid = 0;
	if (flock(file, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
		pid = (pid_t)read_line(file, NULL);
		if (pid <= 0)
			pid = -1;
	}
	(void)close(file);
	return pid;
}

void lock_suspect(struct lock *lock, const char *uuid)
{
	if (uuid == NULL) {
		write_line(lock, "-", 0);
		return;
	}
	bool again = strcmp(uuid, lock->suspect) == 0;
	write_line(lock, uuid[0] != '\0' ? uuid : "-", again ? lock->crashes : 0);
}

static void on_crash(int number)
{
	/* As libuv does, without a word. */
	static const char aborted[] = "reconify-agent: ended by abort(): a library had no memory, or "
		"found itself at fault; nothing is lost, what was not confirmed is still in the spool\n";
	if (number == SIGABRT) {
		ssize_t said = write(STDERR_FILENO, aborted, sizeof aborted - 1);
		(void)said;
	}
	if (crash_file >= 0) {
		ssize_t written = pwrite((int)crash_file, "!", 1, CRASH_AT);
		(void)written;
	}
	/* SA_RESETHAND: the signal now takes its ordinary course. */
	(void)raise(number);
}

void lock_note_crashes(const struct lock *lock)
{
	static const int signals[] = { SIGSEGV, SIGABRT, SIGILL, SIGFPE };
	struct sigaction action;
	memset(&action, 0, sizeof action);
	action.sa_handler = on_crash;
	action.sa_flags = (int)(SA_RESETHAND | SA_ONSTACK);
	crash_file = lock->file;
	for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
		(void)sigaction(signals[i], &action, NULL);
}

void lock_lend_stack(void *stack)
{
	stack_t lent = { .ss_sp = stack, .ss_size = LOCK_STACK_SIZE,
		         .ss_flags = stack == NULL ? SS_DISABLE : 0 };
	(void)sigaltstack(&lent, NULL); /* without it, one kind of crash goes unnoticed */
}

void lock_release(struct lock *lock)
{
	crash_file = -1;
	if (lock->file < 0)
		return;
	/* The file stays: to remove it would let two agents lock two files. */
	(void)close(lock->file);
	lock->file = -1;
}
