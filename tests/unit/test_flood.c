/* Lines alike in a log: the first ones, then their number. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "agent/flood.h"

#define MINUTE INT64_C(60000)
#define HOUR (60 * MINUTE)

static unsigned send(struct flood *flood, unsigned count, int64_t now)
{
	unsigned passed = 0;
	char line[100];
	for (unsigned i = 0; i < count; i++) {
		(void)snprintf(line, sizeof line, "record %u became a dead letter: x", i * 37);
		passed += flood_passes(flood, 1, line, now);
	}
	return passed;
}

static void the_first_lines_are_written_and_the_others_counted(void **state)
{
	(void)state;
	struct flood flood = { .kinds = { { .hash = 0 } } };
	char line[400];
	int level;
	assert_int_equal(send(&flood, 1000, 5), FLOOD_BURST);
	assert_false(flood_next(&flood, MINUTE + 4, false, &level, line, sizeof line));
	assert_true(flood_next(&flood, MINUTE + 5, false, &level, line, sizeof line));
	assert_string_equal(line, "990 more like this in 60 s: record 36963 became a dead letter: x");
	assert_int_equal(level, 1);
	assert_false(flood_next(&flood, MINUTE + 5, true, &level, line, sizeof line));
}

static void what_goes_on_is_counted_ever_more_seldom_and_begins_anew_after_a_pause(void **state)
{
	(void)state;
	struct flood flood = { .kinds = { { .hash = 0 } } };
	char line[400];
	int level, counts = 0;
	int64_t now;
	assert_int_equal(send(&flood, 20, 0), FLOOD_BURST);
	for (now = 1000; now < 24 * HOUR; now += 1000) {
		counts += flood_next(&flood, now, false, &level, line, sizeof line);
		assert_int_equal(send(&flood, 3, now), 0);
	}
	assert_in_range(counts, 24, 31);
	/* A whole span without one, and the next ones are news. */
	assert_true(flood_next(&flood, now + HOUR, false, &level, line, sizeof line));
	assert_int_equal(send(&flood, 20, now + 3 * HOUR), FLOOD_BURST);
}

static void lines_that_differ_in_words_are_told_apart(void **state)
{
	(void)state;
	struct flood flood = { .kinds = { { .hash = 0 } } };
	assert_int_equal(send(&flood, 100, 0), FLOOD_BURST);
	assert_true(flood_passes(&flood, 1, "record 5 became a dead letter: y", 0));
	assert_true(flood_passes(&flood, 0, "record 5 became a dead letter: x", 0));
	assert_false(flood_passes(&flood, 1, "record 5 became a dead letter: x", 0));
}

static void more_kinds_than_are_told_apart_are_bounded_all_the_same(void **state)
{
	(void)state;
	struct flood flood = { .kinds = { { .hash = 0 } } };
	char line[400], name[8] = "aaaaa";
	unsigned passed = 0;
	int level;
	for (int i = 0; i < 10000; i++) {
		for (char *at = name; *at != '\0' && ++*at > 'z'; at++)
			*at = 'a';
		passed += flood_passes(&flood, 1, name, 0);
	}
	assert_in_range(passed, FLOOD_KINDS, FLOOD_KINDS + FLOOD_BURST);
	assert_true(flood_next(&flood, 10, true, &level, line, sizeof line));
	assert_int_equal(strncmp(line, "98", 2), 0);
	/* Later there is room again. */
	assert_true(flood_passes(&flood, 1, "something else", 2 * MINUTE));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_lines_are_written_and_the_others_counted),
		cmocka_unit_test(what_goes_on_is_counted_ever_more_seldom_and_begins_anew_after_a_pause),
		cmocka_unit_test(lines_that_differ_in_words_are_told_apart),
		cmocka_unit_test(more_kinds_than_are_told_apart_are_bounded_all_the_same),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
