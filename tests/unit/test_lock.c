/* One agent a spool, and the memory of crashes: each crash here is a real one, of a
 * child process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/lock.h"

#define BAD "0123456789abcdef0123456789abcdef"
#define OTHER "ffffffffffffffffffffffffffffffff"

struct place {
	char folder[64], spool[128], file[160];
};

static int make_place(void **state)
{
	struct place *place = calloc(1, sizeof *place);
	const char *base = getenv("TMPDIR");
	if (place == NULL)
		return -1;
	(void)snprintf(place->folder, sizeof place->folder, "%.40s/lock-XXXXXX",
	               base != NULL ? base : "/tmp");
	if (mkdtemp(place->folder) == NULL)
		return -1;
	(void)snprintf(place->spool, sizeof place->spool, "%s/spool.db", place->folder);
	(void)snprintf(place->file, sizeof place->file, "%s-agent.lock", place->spool);
	*state = place;
	return 0;
}

static int remove_place(void **state)
{
	struct place *place = *state;
	(void)unlink(place->file);
	(void)rmdir(place->folder);
	free(place);
	return 0;
}

static struct lock take(const struct place *place)
{
	struct lock lock;
	pid_t holder;
	assert_int_equal(lock_take(&lock, place->spool, &holder), LOCK_TAKEN);
	return lock;
}

/* A child that holds the lock, sends `suspect` alone, and ends by `number` (0: it
 * releases the lock; -1: it lets go by _exit). */
static void live_and_die(const struct place *place, const char *suspect, bool verdict,
                         int number)
{
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		static const struct rlimit none = { 0, 0 };
		struct lock lock;
		pid_t holder;
		(void)setrlimit(RLIMIT_CORE, &none);
		(void)signal(SIGSEGV, SIG_DFL);
		(void)signal(SIGBUS, SIG_DFL);
		if (lock_take(&lock, place->spool, &holder) != LOCK_TAKEN)
			_exit(99);
		lock_note_crashes(&lock);
		if (suspect != NULL)
			lock_suspect(&lock, suspect);
		if (verdict)
			lock_suspect(&lock, NULL);
		if (number > 0)
			(void)raise(number);
		if (number == 0)
			lock_release(&lock);
		_exit(0);
	}
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	if (number > 0)
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == number);
	else
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void a_fresh_lock_knows_of_no_crash(void **state)
{
	struct lock lock = take(*state);
	assert_false(lock.crashed);
	assert_string_equal(lock.suspect, "");
	assert_int_equal(lock.crashes, 0);
	lock_release(&lock);
}

static void a_second_taker_is_told_who_holds_it(void **state)
{
	const struct place *place = *state;
	struct lock lock = take(place), second;
	pid_t holder = 0;
	assert_int_equal(lock_take(&second, place->spool, &holder), LOCK_HELD);
	assert_int_equal(holder, getpid());
	assert_int_equal(lock_holder(place->spool), getpid());
	lock_release(&lock);
	assert_int_equal(lock_holder(place->spool), 0);
	lock = take(place);
	lock_release(&lock);
}

static void a_holder_is_looked_for_without_making_a_file(void **state)
{
	const struct place *place = *state;
	struct stat about;
	assert_int_equal(lock_holder(place->spool), 0);
	assert_int_not_equal(stat(place->file, &about), 0);
}

static void looking_on_never_keeps_an_agent_from_its_lock(void **state)
{
	const struct place *place = *state;
	struct lock lock = take(place);
	lock_release(&lock);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		for (;;)
			(void)lock_holder(place->spool);
	}
	int failures = 0;
	for (int i = 0; i < 2000 && failures == 0; i++) {
		pid_t holder;
		if (lock_take(&lock, place->spool, &holder) != LOCK_TAKEN)
			failures++;
		else
			lock_release(&lock);
	}
	(void)kill(child, SIGKILL);
	(void)waitpid(child, NULL, 0);
	assert_int_equal(failures, 0);
}

static void a_kill_is_no_crash_and_blames_nobody(void **state)
{
	const struct place *place = *state;
	for (int i = 0; i < 10; i++)
		live_and_die(place, BAD, false, SIGKILL);
	struct lock lock = take(place);
	assert_false(lock.crashed);
	assert_string_equal(lock.suspect, "");
	assert_int_equal(lock.crashes, 0);
	lock_release(&lock);
}

static void an_ordinary_end_is_no_crash(void **state)
{
	const struct place *place = *state;
	live_and_die(place, BAD, false, 0);
	live_and_die(place, BAD, false, -1);
	live_and_die(place, BAD, false, SIGTERM);
	live_and_die(place, BAD, false, SIGBUS); /* the disk's, and no record's */
	struct lock lock = take(place);
	assert_false(lock.crashed);
	assert_int_equal(lock.crashes, 0);
	lock_release(&lock);
}

static void every_kind_of_crash_is_noted_and_takes_its_course(void **state)
{
	static const int kinds[] = { SIGSEGV, SIGABRT, SIGILL, SIGFPE };
	const struct place *place = *state;
	for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
		live_and_die(place, NULL, false, kinds[i]);
		struct lock lock = take(place);
		assert_true(lock.crashed);
		assert_string_equal(lock.suspect, ""); /* nothing was sent alone */
		assert_int_equal(lock.crashes, 0);
		lock_release(&lock);
		lock = take(place);
		assert_false(lock.crashed); /* the last one did not */
		lock_release(&lock);
	}
}

/* Not to be seen through by a compiler that would make a loop of it. */
static unsigned (*volatile dig_on)(unsigned depth);

static unsigned dig(unsigned depth)
{
	volatile char room[4096];
	memset((char *)(uintptr_t)room, (int)depth, sizeof room);
	return dig_on(depth + 1) + (unsigned char)room[depth % sizeof room];
}

static void a_stack_that_overflows_is_noted_too(void **state)
{
	const struct place *place = *state;
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		static const struct rlimit none = { 0, 0 }, little = { 1 << 20, 1 << 20 };
		static char stack[LOCK_STACK_SIZE];
		struct lock lock = take(place);
		(void)setrlimit(RLIMIT_CORE, &none);
		(void)setrlimit(RLIMIT_STACK, &little);
		lock_lend_stack(stack);
		lock_note_crashes(&lock);
		lock_suspect(&lock, BAD);
		dig_on = dig;
		_exit((int)dig(0));
	}
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	struct lock lock = take(place);
	assert_true(lock.crashed);
	assert_string_equal(lock.suspect, BAD);
	lock_release(&lock);
}

static void crashes_of_one_record_are_counted_up(void **state)
{
	const struct place *place = *state;
	for (unsigned i = 1; i <= LOCK_CRASHES_MAX; i++) {
		live_and_die(place, BAD, false, SIGSEGV);
		/* Looked at without taking part: the next child counts on. */
		char line[128] = "";
		int file = open(place->file, O_RDONLY | O_CLOEXEC);
		assert_true(file >= 0);
		assert_true(read(file, line, sizeof line - 1) > 96);
		(void)close(file);
		assert_int_equal(line[96], '!');
	}
	struct lock lock = take(place);
	assert_true(lock.crashed);
	assert_string_equal(lock.suspect, BAD);
	assert_int_equal(lock.crashes, LOCK_CRASHES_MAX);
	lock_release(&lock);
}

static void a_verdict_clears_the_suspicion(void **state)
{
	const struct place *place = *state;
	live_and_die(place, BAD, false, SIGSEGV);
	live_and_die(place, BAD, false, SIGSEGV);
	live_and_die(place, BAD, true, SIGSEGV);
	struct lock lock = take(place);
	assert_true(lock.crashed);
	assert_string_equal(lock.suspect, "");
	lock_release(&lock);
	live_and_die(place, BAD, false, SIGSEGV);
	lock = take(place);
	assert_int_equal(lock.crashes, 1);
	lock_release(&lock);
}

static void another_record_starts_at_one(void **state)
{
	const struct place *place = *state;
	live_and_die(place, BAD, false, SIGSEGV);
	live_and_die(place, BAD, false, SIGSEGV);
	live_and_die(place, OTHER, false, SIGSEGV);
	struct lock lock = take(place);
	assert_string_equal(lock.suspect, OTHER);
	assert_int_equal(lock.crashes, 1);
	lock_release(&lock);
}

static void a_crash_of_an_earlier_boot_does_not_count(void **state)
{
	const struct place *place = *state;
	live_and_die(place, BAD, false, SIGSEGV);
	int file = open(place->file, O_RDWR | O_CLOEXEC);
	char line[98] = "";
	assert_true(file >= 0);
	assert_int_equal(pread(file, line, 97, 0), 97);
	char *boot = strchr(line, ' ');
	assert_non_null(boot);
	boot[1] = boot[1] == '0' ? '1' : '0';
	assert_int_equal(pwrite(file, line, 97, 0), 97);
	(void)close(file);
	struct lock lock = take(place);
	assert_false(lock.crashed);
	assert_string_equal(lock.suspect, "");
	assert_int_equal(lock.crashes, 0);
	lock_release(&lock);
}

static void trash_in_the_file_is_as_good_as_nothing(void **state)
{
	const struct place *place = *state;
	char trash[4096];
	for (unsigned seed = 0; seed < 300; seed++) {
		unsigned number = seed * 2654435761U + 1;
		size_t size = seed * 13 % sizeof trash;
		for (size_t i = 0; i < size; i++) {
			number = number * 1103515245U + 12345U;
			if (seed % 3 == 0)
				trash[i] = (char)(number >> 16);
			else
				trash[i] = "0123 abc-!\n"[(number >> 16) % 11];
		}
		FILE *file = fopen(place->file, "we");
		assert_non_null(file);
		assert_int_equal(fwrite(trash, 1, size, file), size);
		assert_int_equal(fclose(file), 0);
		assert_int_equal(lock_holder(place->spool), 0);
		struct lock lock = take(place);
		assert_false(lock.crashed);
		assert_int_equal(lock_holder(place->spool), getpid());
		lock_release(&lock);
	}
}

static void a_link_in_its_place_is_not_followed(void **state)
{
	const struct place *place = *state;
	char target[200];
	struct lock lock;
	struct stat about;
	pid_t holder;
	(void)snprintf(target, sizeof target, "%s/elsewhere", place->folder);
	assert_int_equal(symlink(target, place->file), 0);
	assert_int_equal(lock_take(&lock, place->spool, &holder), LOCK_FAILED);
	assert_int_equal(errno, ELOOP);
	assert_int_not_equal(stat(target, &about), 0);
}

/* A producer of the group can put anything there; whoever looks must not hang. */
static void a_pipe_in_its_place_does_not_hang_those_who_look(void **state)
{
	const struct place *place = *state;
	assert_int_equal(mkfifo(place->file, 0660), 0);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		(void)alarm(5);
		(void)lock_holder(place->spool);
		_exit(0);
	}
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
}

static void a_folder_that_is_missing_is_a_failure_with_a_reason(void **state)
{
	struct lock lock;
	pid_t holder;
	(void)state;
	assert_int_equal(lock_take(&lock, "/nonexistent/spool.db", &holder), LOCK_FAILED);
	assert_int_equal(errno, ENOENT);
	assert_int_equal(lock_holder("/nonexistent/spool.db"), 0);
	lock_release(&lock); /* harmless */
}

#define EACH(test) cmocka_unit_test_setup_teardown(test, make_place, remove_place)

int main(void)
{
	const struct CMUnitTest tests[] = {
		EACH(a_fresh_lock_knows_of_no_crash),
		EACH(a_second_taker_is_told_who_holds_it),
		EACH(a_holder_is_looked_for_without_making_a_file),
		EACH(looking_on_never_keeps_an_agent_from_its_lock),
		EACH(a_kill_is_no_crash_and_blames_nobody),
		EACH(an_ordinary_end_is_no_crash),
		EACH(every_kind_of_crash_is_noted_and_takes_its_course),
		EACH(a_stack_that_overflows_is_noted_too),
		EACH(crashes_of_one_record_are_counted_up),
		EACH(a_verdict_clears_the_suspicion),
		EACH(another_record_starts_at_one),
		EACH(a_crash_of_an_earlier_boot_does_not_count),
		EACH(trash_in_the_file_is_as_good_as_nothing),
		EACH(a_link_in_its_place_is_not_followed),
		EACH(a_pipe_in_its_place_does_not_hang_those_who_look),
		EACH(a_folder_that_is_missing_is_a_failure_with_a_reason),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
