/* What was done in the last seconds is counted, and what is older is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants these first */
#include <cmocka.h>

#include "agent/rate.h"

static void what_was_just_added_is_counted(void **state)
{
	(void)state;
	struct rate rate = { .second = 0 };
	assert_int_equal(rate_sum(&rate, 5000, 10), 0);
	rate_add(&rate, 1000000, 3);
	rate_add(&rate, 1000999, 4);
	assert_int_equal(rate_sum(&rate, 1000999, 10), 7);
	assert_int_equal(rate_sum(&rate, 1000999, 1), 7);
}

static void what_is_older_than_asked_for_is_not_counted(void **state)
{
	(void)state;
	struct rate rate = { .second = 0 };
	rate_add(&rate, 1000000, 5);
	rate_add(&rate, 1005000, 1);
	assert_int_equal(rate_sum(&rate, 1009999, 10), 6);
	assert_int_equal(rate_sum(&rate, 1010000, 10), 1);
	assert_int_equal(rate_sum(&rate, 1059999, 60), 6);
	assert_int_equal(rate_sum(&rate, 1060000, 60), 1);
	assert_int_equal(rate_sum(&rate, 9000000, 60), 0);
}

static void the_seconds_in_which_anything_was_added_are_counted(void **state)
{
	(void)state;
	struct rate rate = { .second = 0 };
	rate_add(&rate, 100000, 500);
	rate_add(&rate, 100900, 1);
	rate_add(&rate, 103000, 1);
	assert_int_equal(rate_seconds(&rate, 103000, 10), 2);
	assert_int_equal(rate_seconds(&rate, 109999, 10), 2);
	assert_int_equal(rate_seconds(&rate, 110000, 10), 1);
	assert_int_equal(rate_seconds(&rate, 400000, 10), 0);
}

static void after_a_long_rest_nothing_old_comes_back(void **state)
{
	(void)state;
	struct rate rate = { .second = 0 };
	for (int64_t at = 0; at < 60; at++)
		rate_add(&rate, 1000000 + at * 1000, 1);
	assert_int_equal(rate_sum(&rate, 1059000, 60), 60);
	rate_add(&rate, 1089000, 1);
	assert_int_equal(rate_sum(&rate, 1089000, 60), 31);
	rate_add(&rate, 8000000, 2);
	assert_int_equal(rate_sum(&rate, 8000000, 60), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_just_added_is_counted),
		cmocka_unit_test(what_is_older_than_asked_for_is_not_counted),
		cmocka_unit_test(the_seconds_in_which_anything_was_added_are_counted),
		cmocka_unit_test(after_a_long_rest_nothing_old_comes_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
