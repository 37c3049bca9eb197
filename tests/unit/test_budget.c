/* The limits' arithmetic: every span of time is looked at, not only their beginning. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "agent/budget.h"

#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)

static struct budget_limits limits_of(const char *key, const char *value)
{
	struct budget_limits limits = { .rate = 0 };
	if (!budget_set(&limits, key, value))
		fail_msg("%s = %s was refused", key, value);
	return limits;
}

static void what_is_no_limit_is_refused_and_changes_nothing(void **state)
{
	(void)state;
	static const char *const wrong[][2] = {
		{ "rate", "5" }, { "rate", "0/s" }, { "rate", "/s" }, { "rate", "5/d" }, { "rate", "-1/s" },
		{ "rate", "5 /s" }, { "rate", "5/ss" }, { "rate", "99999999999999999999/s" },
		{ "rate", "1000001/s" }, { "bandwidth", "64k" }, { "bandwidth", "64k/m" },
		{ "bandwidth", "1/s" }, { "bandwidth", "64kb/s" }, { "bandwidth", "99999999999999999G/s" },
		{ "daily", "50M/s" }, { "daily", "0" }, { "daily", "M" }, { "daily", "50MB" },
		{ "hours", "1-5" }, { "hours", "01:00" }, { "hours", "01:00-" }, { "hours", "01:00-01:00" },
		{ "hours", "01:00-25:00" }, { "hours", "24:00-01:00" }, { "hours", "01:60-02:00" },
		{ "hours", "01:00-24:01" }, { "hours", "01:00-02:00," }, { "hours", ",01:00-02:00" },
		{ "hours", "01:xx-02:00" }, { "hours", "001:00-02:00" }, { "hours", "1:0-2:00" }, { "hours", "01:00-02:00 x" },
		{ "hours", "1:00-2:00,1:00-2:00,1:00-2:00,1:00-2:00,1:00-2:00,1:00-2:00,1:00-2:00,"
		           "1:00-2:00,1:00-2:00" },
		{ "nonsense", "5/s" },
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct budget_limits limits, before;
		memset(&limits, 0, sizeof limits);
		before = limits;
		if (budget_set(&limits, wrong[i][0], wrong[i][1]))
			fail_msg("%s = %s was taken", wrong[i][0], wrong[i][1]);
		assert_memory_equal(&limits, &before, sizeof limits);
	}
}

static void limits_are_read_as_they_are_written_and_empty_means_none(void **state)
{
	(void)state;
	struct budget_limits limits = limits_of("rate", "300/m");
	assert_int_equal(limits.rate, 300);
	assert_int_equal(limits.rate_span, MINUTE);
	assert_true(budget_set(&limits, "rate", ""));
	assert_int_equal(limits.rate, 0);
	assert_int_equal(limits_of("bandwidth", "64k/s").bandwidth, 65536);
	assert_int_equal(limits_of("bandwidth", "64K/s").bandwidth, 65536);
	assert_int_equal(limits_of("daily", "50M").daily, 50 << 20);
	char hours[BUDGET_TEXT_SIZE];
	limits = limits_of("hours", "1:00-05:00,22:30 - 06:00 , 12:00-24:00");
	budget_text(&limits, "hours", hours);
	assert_string_equal(hours, "01:00-05:00, 22:30-06:00, 12:00-24:00");
	assert_true(budget_set(&limits, "hours", ""));
	budget_text(&limits, "hours", hours);
	assert_string_equal(hours, "");
	static const char *const texts[][2] = {
		{ "rate", "5/s" }, { "rate", "300/m" }, { "rate", "1000000/h" }, { "bandwidth", "64K/s" },
		{ "bandwidth", "1025/s" }, { "daily", "50M" }, { "daily", "65537" }, { "daily", "2048G" },
	};
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		limits = limits_of(texts[i][0], texts[i][1]);
		budget_text(&limits, texts[i][0], hours);
		assert_string_equal(hours, texts[i][1]);
	}
}

static void no_span_of_time_has_more_posts_than_the_rate_says(void **state)
{
	(void)state;
	static const char *const rates[] = { "1/s", "5/s", "7/s", "100/s", "999/s", "3/m", "60/m",
		                             "1/h", "1000/h" };
	static int64_t sent[4096];
	for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
		struct budget_limits limits = limits_of("rate", rates[i]);
		struct budget budget = { .spent = 0 };
		struct budget_time time = { .now = 5000 };
		size_t count = 0;
		while (count < 4096) {
			int64_t until;
			/* Whoever waits is late by up to 3 ms; now and then nothing is to be sent. */
			if (budget_wait(&budget, &limits, time, &until) != BUDGET_FREE) {
				assert_true(until > time.now);
				time.now = until + (int64_t)(count * 7919 % 4);
				continue;
			}
			if (count % 500 == 499)
				time.now += 3 * limits.rate_span;
			budget_spend(&budget, &limits, time.now, 100);
			sent[count++] = time.now;
		}
		size_t first = 0;
		for (size_t last = 0; last < count; last++) {
			while (sent[last] - sent[first] >= limits.rate_span)
				first++;
			if (last - first + 1 > (size_t)limits.rate)
				fail_msg("%s: %zu in one span", rates[i], last - first + 1);
		}
		/* Nor much fewer, where there is always something to send. */
		int64_t best = 499 * limits.rate_span / limits.rate;
		assert_true(sent[498] - sent[0] <= best + best / 3 + 4 * 499);
	}
}

static void bandwidth_holds_on_average_though_a_large_record_bursts(void **state)
{
	(void)state;
	struct budget_limits limits = limits_of("bandwidth", "64k/s");
	struct budget budget = { .spent = 0 };
	struct budget_time time = { .now = 1000 };
	int64_t until, total = 0;
	for (int i = 0; i < 2000; i++) {
		int64_t bytes = i % 100 == 0 ? 10 << 20 : 500 + i;
		while (budget_wait(&budget, &limits, time, &until) == BUDGET_BANDWIDTH)
			time.now = until;
		/* All that went before is paid for, but for the burst that is allowed. */
		assert_true(total <= 65536 * (time.now - 1000 + BUDGET_BURST) / 1000 + 65);
		budget_spend(&budget, &limits, time.now, bytes);
		total += bytes;
	}
	assert_true(total > 65536 * (time.now - 1000 - 200000) / 1000);
}

static void what_was_not_sent_after_all_is_given_back(void **state)
{
	(void)state;
	struct budget_limits limits = limits_of("bandwidth", "64k/s");
	struct budget budget = { .spent = 0 };
	struct budget_time time = { .now = 1000, .local = DAY };
	int64_t until;
	limits.daily = 20 << 20;
	budget_look(&budget, &limits, time);
	budget_spend(&budget, &limits, time.now, 15 << 20);
	assert_int_equal(budget_wait(&budget, &limits, time, &until), BUDGET_BANDWIDTH);
	assert_false(budget_fits(&budget, &limits, 10 << 20));
	budget_correct(&budget, &limits, time.now, 200 - (15 << 20));
	assert_int_equal(budget_wait(&budget, &limits, time, &until), BUDGET_FREE);
	assert_true(budget_fits(&budget, &limits, 10 << 20));
	assert_int_equal(budget.spent, 200);
}

static void a_day_has_its_budget_and_the_next_another(void **state)
{
	(void)state;
	struct budget_limits limits = limits_of("daily", "1M");
	struct budget budget = { .spent = 0 };
	struct budget_time time = { .now = 77, .local = 20000 * DAY + 23 * HOUR };
	int64_t until;
	budget_look(&budget, &limits, time);
	assert_int_equal(budget_wait(&budget, &limits, time, &until), BUDGET_FREE);
	assert_true(budget_fits(&budget, &limits, 600000));
	budget_spend(&budget, &limits, time.now, 600000);
	assert_false(budget_fits(&budget, &limits, 600000));
	assert_int_equal(budget_wait(&budget, &limits, time, &until), BUDGET_DAILY);
	assert_int_equal(until, 77 + HOUR);
	time.now += HOUR;
	time.local += HOUR;
	budget_look(&budget, &limits, time);
	assert_int_equal(budget_wait(&budget, &limits, time, &until), BUDGET_FREE);
	assert_int_equal(budget.spent, 0);
}

static void a_record_larger_than_a_whole_day_goes_on_a_day_of_its_own(void **state)
{
	(void)state;
	struct budget_limits limits = limits_of("daily", "1M");
	struct budget budget = { .spent = 50000 };
	assert_true(budget_fits(&budget, &limits, 30 << 20));
	budget.spent = 500000;
	assert_false(budget_fits(&budget, &limits, 30 << 20));
}

static void after_a_clock_jump_the_calendar_waits_for_a_day_at_most(void **state)
{
	(void)state;
	struct budget_limits limits = limits_of("daily", "1M");
	assert_true(budget_set(&limits, "hours", "23:00-01:30, 12:00-12:01"));
	for (int64_t jump = -40000 * DAY; jump <= 40000 * DAY; jump += 991 * DAY + 12345678) {
		struct budget budget = { .spent = 0 };
		struct budget_time time = { .now = 1, .local = 20000 * DAY + 23 * HOUR + 59 * MINUTE };
		int64_t until;
		budget_look(&budget, &limits, time);
		budget_spend(&budget, &limits, time.now, 2 << 20);
		time.local += jump;
		budget_look(&budget, &limits, time);
		(void)budget_wait(&budget, &limits, time, &until);
		assert_in_range((uint64_t)(until - time.now), 0, (uint64_t)DAY);
		time.local += until - time.now;
		time.now = until;
		budget_look(&budget, &limits, time);
		(void)budget_wait(&budget, &limits, time, &until);
		assert_in_range((uint64_t)(until - time.now), 0, (uint64_t)DAY);
	}
}

static void hours_open_and_close_to_the_minute_also_over_midnight(void **state)
{
	(void)state;
	struct budget_limits limits = limits_of("hours", "22:30-06:00, 12:00-13:00, 13:00-14:00");
	struct budget budget = { .spent = 0 };
	for (int64_t local = -DAY; local < 2 * DAY; local += 30 * SECOND) {
		struct budget_time time = { .now = 5, .local = local };
		int64_t minute = (local + DAY) % DAY / MINUTE, until;
		bool open = minute >= 1350 || minute < 360 || (minute >= 720 && minute < 840);
		enum budget_limit limit = budget_wait(&budget, &limits, time, &until);
		assert_int_equal(limit, open ? BUDGET_FREE : BUDGET_HOURS);
		int64_t end = minute < 360 ? 360 : minute < 720 ? 720 : minute < 840 ? 840
		              : minute < 1350 ? 1350 : 1440 + 360;
		int64_t left = end * MINUTE - (local + DAY) % DAY;
		assert_int_equal(open ? budget_open_for(&limits, local) : until - time.now, left);
	}
	limits = limits_of("hours", "00:00-24:00");
	assert_int_equal(budget_open_for(&limits, 5 * HOUR), -1);
	limits = limits_of("hours", "00:00-12:00, 12:00-24:00");
	assert_int_equal(budget_open_for(&limits, 0), -1);
	limits = limits_of("hours", "08:00-20:00, 09:00-12:00");
	assert_int_equal(budget_open_for(&limits, 10 * HOUR), 10 * HOUR);
}

static void a_spent_day_waits_for_the_hours_of_the_next(void **state)
{
	(void)state;
	struct budget_limits limits = limits_of("daily", "1M");
	struct budget budget = { .day = 10, .spent = 2 << 20 };
	struct budget_time time = { .now = 1000, .local = 10 * DAY + 3 * HOUR };
	int64_t until;
	assert_true(budget_set(&limits, "hours", "01:00-05:00"));
	assert_int_equal(budget_wait(&budget, &limits, time, &until), BUDGET_HOURS);
	assert_int_equal(until, 1000 + 22 * HOUR);
}

static void the_count_of_the_day_survives_a_restart_and_garbage_does_not_count(void **state)
{
	(void)state;
	char note[BUDGET_NOTE_SIZE];
	struct budget budget = { .day = 20001, .spent = 123456789012 }, read = { .spent = 1 };
	budget_to_note(&budget, note);
	assert_true(budget_from_note(&read, note));
	assert_int_equal(read.day, 20001);
	assert_int_equal(read.spent, 123456789012);
	static const char *const wrong[] = { "", "1", "1 ", " 1", "1 -5", "a b", "1 2 3" };
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_false(budget_from_note(&read, wrong[i]));
	assert_int_equal(read.spent, 123456789012);
}

static void a_reload_ends_waits_that_the_new_limits_do_not_ask_for(void **state)
{
	(void)state;
	struct budget_limits limits = limits_of("rate", "1/h");
	struct budget budget = { .spent = 0 };
	struct budget_time time = { .now = 1000 };
	int64_t until;
	budget_spend(&budget, &limits, time.now, 100);
	assert_true(budget_set(&limits, "rate", "5/s"));
	budget_adapt(&budget, &limits, time.now);
	assert_int_equal(budget_wait(&budget, &limits, time, &until), BUDGET_RATE);
	assert_true(until <= 1200);
	/* What was spent already still counts. */
	int64_t rate_free = budget.rate_free;
	budget_adapt(&budget, &limits, time.now + 100);
	assert_int_equal(budget.rate_free, rate_free);

	limits = limits_of("bandwidth", "1k/s");
	budget = (struct budget){ .spent = 0 };
	budget_spend(&budget, &limits, time.now, 1 << 30);
	assert_true(budget_set(&limits, "bandwidth", "1M/s"));
	budget_adapt(&budget, &limits, time.now);
	assert_true(budget.bandwidth_free <= (time.now + BUDGET_BURST) * 1000);
	int64_t bandwidth_free = budget.bandwidth_free;
	budget_adapt(&budget, &limits, time.now + 100);
	assert_int_equal(budget.bandwidth_free, bandwidth_free);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_limit_is_refused_and_changes_nothing),
		cmocka_unit_test(limits_are_read_as_they_are_written_and_empty_means_none),
		cmocka_unit_test(no_span_of_time_has_more_posts_than_the_rate_says),
		cmocka_unit_test(bandwidth_holds_on_average_though_a_large_record_bursts),
		cmocka_unit_test(what_was_not_sent_after_all_is_given_back),
		cmocka_unit_test(a_day_has_its_budget_and_the_next_another),
		cmocka_unit_test(a_record_larger_than_a_whole_day_goes_on_a_day_of_its_own),
		cmocka_unit_test(after_a_clock_jump_the_calendar_waits_for_a_day_at_most),
		cmocka_unit_test(hours_open_and_close_to_the_minute_also_over_midnight),
		cmocka_unit_test(a_spent_day_waits_for_the_hours_of_the_next),
		cmocka_unit_test(the_count_of_the_day_survives_a_restart_and_garbage_does_not_count),
		cmocka_unit_test(a_reload_ends_waits_that_the_new_limits_do_not_ask_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
