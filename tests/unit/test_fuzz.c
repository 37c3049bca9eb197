/* The kept corpus of every fuzz target, replayed: what once broke a promise, and one
 * input for each way through the code that the fuzzer found (make fuzz finds more). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tests/fuzz/fuzz.h"

struct target {
	const char *name;
	int (*run)(const uint8_t *data, size_t size);
};

static void run_file(const struct target *target, const char *path)
{
	uint8_t *data = NULL;
	size_t size = 0;
	FILE *file = fopen(path, "rb"), *copy = open_memstream((char **)&data, &size);
	char block[4096];
	size_t got;
	assert_true(file != NULL && copy != NULL);
	while ((got = fread(block, 1, sizeof block, file)) > 0)
		assert_int_equal(fwrite(block, 1, got, copy), got);
	assert_int_equal(ferror(file), 0);
	(void)fclose(file);
	assert_int_equal(fclose(copy), 0);
	/* Exactly as large as it is, so that a sanitizer sees who reads on. */
	uint8_t *exact = malloc(size > 0 ? size : 1);
	assert_non_null(exact);
	memcpy(exact, data, size);
	(void)target->run(exact, size);
	free(exact);
	free(data);
}

/* What the targets print is of no interest here. */
static void run_quietly(const struct target *target, const char *path)
{
	int kept = dup(STDOUT_FILENO), errors = dup(STDERR_FILENO);
	int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
	assert_true(kept >= 0 && errors >= 0 && nowhere >= 0);
	(void)fflush(NULL);
	/* Who crashes is told by the last line, since the crash itself is silenced. */
	if (getenv("FUZZ_NAMES") != NULL)
		(void)fprintf(stderr, "# %s\n", path);
	assert_true(dup2(nowhere, STDOUT_FILENO) >= 0 && dup2(nowhere, STDERR_FILENO) >= 0);
	run_file(target, path);
	(void)fflush(NULL);
	assert_true(dup2(kept, STDOUT_FILENO) >= 0 && dup2(errors, STDERR_FILENO) >= 0);
	(void)close(kept);
	(void)close(errors);
	(void)close(nowhere);
}

static void every_promise_holds_for_the_corpus(void **state)
{
	const struct target *target = *state;
	char folder[64], path[400];
	size_t count = 0;
	(void)snprintf(folder, sizeof folder, "tests/fuzz/corpus/%s", target->name);
	DIR *corpus = opendir(folder);
	if (corpus == NULL)
		fail_msg("%s is not there: run from the top of the sources", folder);
	for (struct dirent *entry; (entry = readdir(corpus)) != NULL;) {
		if (entry->d_name[0] == '.')
			continue;
		(void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
		run_quietly(target, path);
		count++;
	}
	(void)closedir(corpus);
	assert_true(count > 0);
}

int main(void)
{
	static struct target targets[] = {
		{ "config", fuzz_config },           { "json", fuzz_json },
		{ "payload", fuzz_payload },         { "policy", fuzz_policy },
		{ "report", fuzz_report },           { "retry_after", fuzz_retry_after },
		{ "sink", fuzz_sink },               { "spool", fuzz_spool },
		{ "transfer", fuzz_transfer },       { "salvage", fuzz_salvage },
	};
#define REPLAY(n, title)                                                              \
	{ title " keeps its promises for the kept corpus", every_promise_holds_for_the_corpus, NULL, \
	  NULL, &targets[n] }
	const struct CMUnitTest tests[] = {
		REPLAY(0, "the configuration"), REPLAY(1, "the judge of JSON"),
		REPLAY(2, "the payload"),       REPLAY(3, "the verdict on an answer"),
		REPLAY(4, "the report"),        REPLAY(5, "Retry-After"),
		REPLAY(6, "the sink"),          REPLAY(7, "a spool of anybody's making"),
		REPLAY(8, "export and import"), REPLAY(9, "the salvage of a damaged spool"),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
