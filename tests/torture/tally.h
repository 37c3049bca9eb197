/* What a program under tests/torture/ counts, and the line of JSON that it ends with.
 * A point is one place at which something was made to fail, and all checked after it. */
#ifndef TORTURE_TALLY_H
#define TORTURE_TALLY_H

#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TALLY_SENTENCES 10

struct tally {
	uint64_t points, lost, altered;
	uint64_t of;       /* how many points there are; 0: not known */
	uint64_t extra;    /* delivered again after one failure, at most */
	uint64_t failures; /* however many sentences are kept */
	char sentences[TALLY_SENTENCES][240];
};

__attribute__((format(printf, 2, 3)))
static inline void tally_fail(struct tally *tally, const char *format, ...)
{
	if (tally->failures++ >= TALLY_SENTENCES)
		return;
	va_list arguments;
	va_start(arguments, format);
	char *into = tally->sentences[tally->failures - 1];
	(void)vsnprintf(into, sizeof tally->sentences[0], format, arguments);
	va_end(arguments);
	for (char *at = into; *at != '\0'; at++)
		if (*at == '"' || *at == '\\' || (unsigned char)*at < 0x20)
			*at = '\'';
}

/* Prints the line; the program's exit status. */
static inline int tally_print(const struct tally *tally)
{
	printf("{\"points\": %" PRIu64 ", \"lost\": %" PRIu64 ", \"altered\": %" PRIu64
	       ", \"extra\": %" PRIu64 ", \"of\": %" PRIu64 ", \"failures\": %" PRIu64
	       ", \"failed\": [",
	       tally->points, tally->lost, tally->altered, tally->extra, tally->of, tally->failures);
	for (uint64_t i = 0; i < tally->failures && i < TALLY_SENTENCES; i++)
		printf("%s\"%s\"", i > 0 ? ", " : "", tally->sentences[i]);
	puts("]}");
	return tally->failures > 0;
}

/* Seconds since some moment. */
static inline double tally_clock(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static inline uint64_t tally_roll(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed * 0x2545F4914F6CDD1DULL;
}

static inline uint64_t tally_seed(uint64_t number)
{
	return number * 0x9E3779B97F4A7C15ULL + 1;
}

/* --seed N --points N --budget SECONDS, and what else a program takes. */
struct tally_options {
	uint64_t seed, points;
	double budget;
	const char *folder; /* for what is written; $TMPDIR, or in memory */
	const char *mode;
};

static inline bool tally_parse(int count, char **words, struct tally_options *options)
{
	const char *base = getenv("TMPDIR");
	if (options->folder == NULL)
		options->folder = base != NULL ? base : "/dev/shm";
	for (int i = 1; i + 1 < count; i += 2) {
		if (strcmp(words[i], "--seed") == 0)
			options->seed = strtoull(words[i + 1], NULL, 10);
		else if (strcmp(words[i], "--points") == 0)
			options->points = strtoull(words[i + 1], NULL, 10);
		else if (strcmp(words[i], "--budget") == 0)
			options->budget = strtod(words[i + 1], NULL);
		else if (strcmp(words[i], "--folder") == 0)
			options->folder = words[i + 1];
		else if (strcmp(words[i], "--mode") == 0)
			options->mode = words[i + 1];
		else
			return false;
	}
	return count % 2 == 1;
}

#endif
