/* The destination's state, by its header: who can take it down, who brings it up,
 * and how many may be sent meanwhile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/breaker.h"

#define BASE INT64_C(1000)
#define CAP INT64_C(300000)
#define NOW INT64_C(50000000)

static const struct breaker_limits limits = { .connections = 8, .base = BASE, .cap = CAP };

static struct breaker fresh(void)
{
	struct breaker breaker;
	breaker_init(&breaker);
	breaker.up_since = NOW;
	return breaker;
}

static void succeed(struct breaker *breaker)
{
	(void)breaker_alive(breaker, NOW);
	breaker_succeeded(breaker, &limits);
}

/* `how`: what is special about the failure. */
enum { COUNTED = 1, WHOLE = 2, ALONE = 4 };

static bool testify_at(struct breaker *breaker, int64_t record, int how, int64_t now,
                    uint64_t random)
{
	struct breaker_failure failure = {
		.record = record, .counted = (how & COUNTED) != 0, .whole = (how & WHOLE) != 0,
		.alone = (how & ALONE) != 0, .retry_after = -1
	};
	return breaker_failed(breaker, &limits, &failure, now, random);
}

static bool testify(struct breaker *breaker, int64_t record, int how)
{
	return testify_at(breaker, record, how, NOW, UINT64_C(0x123456789abcdef));
}

/* ---------------------------------------------------------------- Going down */

static void at_first_one_record_may_be_sent(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	assert_int_equal(breaker.state, DESTINATION_UP);
	assert_int_equal(breaker_room(&breaker, &limits, 0, true, NOW), 1);
	assert_int_equal(breaker_room(&breaker, &limits, 1, true, NOW), 0);
	assert_true(breaker_next_try(&breaker, true) == INT64_MAX);
}

static void each_success_allows_one_more_up_to_the_connections(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	for (unsigned i = 2; i <= 20; i++) {
		succeed(&breaker);
		assert_int_equal(breaker_room(&breaker, &limits, 0, true, NOW), i < 8 ? i : 8);
	}
	assert_int_equal(breaker_room(&breaker, &limits, 5, true, NOW), 3);
	assert_int_equal(breaker_room(&breaker, &limits, 100, true, NOW), 0);
}

static void fewer_connections_after_a_reload_count_at_once(void **state)
{
	struct breaker breaker = fresh();
	struct breaker_limits fewer = { .connections = 2, .base = BASE, .cap = CAP };
	(void)state;

	for (int i = 0; i < 20; i++)
		succeed(&breaker);
	assert_int_equal(breaker_room(&breaker, &fewer, 0, true, NOW), 2);
	assert_int_equal(breaker_room(&breaker, &fewer, 2, true, NOW), 0);
}

static void three_different_witnesses_take_it_down(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	succeed(&breaker);
	assert_false(testify(&breaker, 11, 0));
	assert_false(testify(&breaker, 12, 0));
	assert_int_equal(breaker.state, DESTINATION_UP);
	assert_true(testify(&breaker, 13, 0));
	assert_int_equal(breaker.state, DESTINATION_DOWN);
	assert_false(breaker_blames_witness(&breaker));
}

static void one_record_is_one_witness_however_often_it_fails(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	succeed(&breaker);
	for (int i = 0; i < 100; i++)
		assert_false(testify(&breaker, 11, i == 0 ? 0 : COUNTED));
	/* Also where nobody remembers that it testified. */
	for (int i = 0; i < 100; i++)
		assert_false(testify(&breaker, 11, 0));
	assert_false(testify(&breaker, 12, 0));
	for (int i = 0; i < 100; i++)
		assert_false(testify(&breaker, 12, COUNTED));
	assert_int_equal(breaker.state, DESTINATION_UP);
}

static void a_record_that_is_known_to_fail_by_itself_is_no_witness(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	succeed(&breaker);
	for (int i = 0; i < 10; i++)
		assert_false(testify(&breaker, 11, COUNTED));
	assert_false(testify(&breaker, 12, 0));
	assert_false(testify(&breaker, 13, 0));
	assert_int_equal(breaker.state, DESTINATION_UP);
	assert_true(testify(&breaker, 14, 0));
}

static void a_success_between_them_clears_the_witnesses(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	for (int i = 0; i < 50; i++) {
		uint64_t epoch = breaker.epoch;

		assert_false(testify(&breaker, 2 * i + 1, 0));
		assert_false(testify(&breaker, 2 * i + 2, 0));
		succeed(&breaker);
		assert_true(breaker.epoch > epoch);
	}
	assert_int_equal(breaker.state, DESTINATION_UP);
}

static void an_answer_that_is_no_success_does_not_clear_them(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	succeed(&breaker);
	assert_false(testify(&breaker, 1, 0));
	assert_false(testify(&breaker, 2, 0));
	assert_false(breaker_alive(&breaker, NOW));
	assert_true(testify(&breaker, 3, 0));
}

static void one_failure_that_concerns_the_whole_takes_it_down(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	succeed(&breaker);
	assert_true(testify(&breaker, 1, WHOLE));
	assert_int_equal(breaker.state, DESTINATION_DOWN);
	assert_false(breaker_blames_witness(&breaker));
	/* Also from a record that is known to fail by itself. */
	breaker = fresh();
	succeed(&breaker);
	assert_true(testify(&breaker, 1, WHOLE | COUNTED));
	assert_false(breaker_blames_witness(&breaker));
}

static void a_failure_with_nothing_to_compare_takes_it_down(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	succeed(&breaker);
	assert_true(testify(&breaker, 7, ALONE));
	assert_int_equal(breaker.state, DESTINATION_DOWN);
	assert_true(breaker_blames_witness(&breaker));
	assert_true(breaker.witness == 7);
}

static void down_is_news_only_once(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	assert_true(testify(&breaker, 1, WHOLE));
	for (int i = 2; i < 50; i++)
		assert_false(testify(&breaker, i, WHOLE));
	assert_false(testify(&breaker, 1, ALONE));
	assert_int_equal(breaker.state, DESTINATION_DOWN);
}

/* ------------------------------------------------------------------ While down */

static void while_down_one_at_a_time_is_sent_and_only_when_it_is_due(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	for (int i = 0; i < 20; i++)
		succeed(&breaker);
	assert_true(testify(&breaker, 1, WHOLE));
	int64_t due = breaker_next_try(&breaker, true);
	assert_true(due > NOW && due <= NOW + BASE);
	assert_int_equal(breaker_room(&breaker, &limits, 0, true, due - 1), 0);
	assert_int_equal(breaker_room(&breaker, &limits, 0, true, due), 1);
	/* What is still on its way from before counts. */
	assert_int_equal(breaker_room(&breaker, &limits, 1, true, due + CAP), 0);
	assert_int_equal(breaker_room(&breaker, &limits, 7, true, due + CAP), 0);
}

static void each_failed_probe_puts_the_next_one_further_off_up_to_the_cap(void **state)
{
	struct breaker breaker = fresh();
	int64_t now = NOW, longest = 0;
	(void)state;

	/* All bits set: nearly the longest wait that the jitter gives. */
	(void)testify_at(&breaker, 1, WHOLE, now, UINT64_MAX);
	for (int i = 1; i < 200; i++) {
		int64_t limit = i < 20 && BASE << (i - 1) < CAP ? BASE << (i - 1) : CAP;
		int64_t wait = breaker_next_try(&breaker, false) - now;

		assert_true(wait >= 1 && wait <= limit);
		longest = wait > longest ? wait : longest;
		now += wait;
		(void)testify_at(&breaker, i, 0, now, UINT64_C(0x9E3779B97F4A7C15) * (uint64_t)i);
	}
	assert_true(longest > CAP / 2);
	assert_int_equal(breaker.failures, 200);
}

static void failures_without_end_do_not_overflow(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	(void)testify(&breaker, 1, WHOLE);
	breaker.failures = UINT32_MAX;
	(void)testify(&breaker, 2, 0);
	assert_int_equal(breaker.failures, UINT32_MAX);
	assert_true(breaker_next_try(&breaker, false) <= NOW + CAP);
}

static void a_cap_that_a_reload_made_shorter_holds_at_once(void **state)
{
	struct breaker breaker = fresh();
	struct breaker_limits shorter = limits;
	struct breaker_failure failure = { .record = 1, .whole = true, .retry_after = -1 };
	(void)state;

	for (int i = 0; i < 20; i++)
		(void)testify(&breaker, 1, WHOLE);
	unsigned strain = breaker.strain;
	shorter.cap = 2 * BASE;
	(void)breaker_failed(&breaker, &shorter, &failure, NOW, UINT64_MAX);
	assert_int_equal(breaker.strain, strain);
	assert_true(breaker_next_try(&breaker, false) <= NOW + 2 * BASE);
}

static void what_the_server_asks_to_wait_comes_before_the_backoff(void **state)
{
	const int64_t asked[] = { -1, 0, 1, 10 * BASE, 24 * 3600 * BASE };
	(void)state;

	for (size_t i = 0; i < sizeof asked / sizeof asked[0]; i++) {
		struct breaker breaker = fresh();
		struct breaker_failure failure = {
			.record = 1, .alone = true, .retry_after = asked[i]
		};

		assert_true(breaker_failed(&breaker, &limits, &failure, NOW, UINT64_MAX));
		for (int someone = 0; someone < 2; someone++) {
			int64_t due = breaker_next_try(&breaker, someone == 1);

			assert_true(due >= NOW + (someone == 1 ? 0 : 1) && due >= NOW + asked[i]);
			assert_true(due <= NOW + (asked[i] > 0 ? asked[i] : 0) + BASE);
		}
	}
}

static void that_other_is_not_asked_again_at_once_when_it_fails_too(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	succeed(&breaker);
	(void)testify_at(&breaker, 7, ALONE, NOW, UINT64_MAX);
	assert_true(breaker_next_try(&breaker, true) == NOW);
	(void)testify_at(&breaker, 8, COUNTED, NOW, UINT64_MAX - 1);
	assert_true(breaker_blames_witness(&breaker));
	assert_true(breaker_next_try(&breaker, true) > NOW);
	assert_true(breaker_next_try(&breaker, true) == breaker_next_try(&breaker, false));
}

static void while_one_record_alone_is_to_blame_another_may_try_at_once(void **state)
{
	struct breaker breaker = fresh();
	int64_t now = NOW;
	(void)state;

	succeed(&breaker);
	(void)testify_at(&breaker, 7, ALONE, now, UINT64_MAX);
	for (int i = 0; i < 12; i++) {
		now = breaker_next_try(&breaker, false);
		/* The same record's probe says nothing new, whatever else is in the way. */
		(void)testify_at(&breaker, 7, COUNTED, now, UINT64_MAX - 1);
		assert_true(breaker_blames_witness(&breaker));
	}
	assert_true(breaker_next_try(&breaker, false) > now + 2 * BASE);
	int64_t early = breaker_next_try(&breaker, true);
	assert_int_equal(early, now); /* at once: it tells whose fault it is */
	assert_int_equal(breaker_room(&breaker, &limits, 0, false, early), 0);
	assert_int_equal(breaker_room(&breaker, &limits, 0, true, early), 1);
}

static void a_second_witness_ends_that_privilege(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	succeed(&breaker);
	(void)testify(&breaker, 7, ALONE);
	for (int i = 0; i < 12; i++)
		(void)testify_at(&breaker, 7, COUNTED, NOW, UINT64_MAX - 1);
	assert_false(testify_at(&breaker, 8, 0, NOW, UINT64_MAX - 1));
	assert_false(breaker_blames_witness(&breaker));
	assert_true(breaker_next_try(&breaker, true) == breaker_next_try(&breaker, false));
	assert_true(breaker_next_try(&breaker, true) > NOW + 2 * BASE);
}

static void a_person_may_have_it_tried_now(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	(void)testify(&breaker, 1, WHOLE);
	breaker_try_now(&breaker, NOW);
	assert_int_equal(breaker_room(&breaker, &limits, 0, false, NOW), 1);
	assert_int_equal(breaker_room(&breaker, &limits, 1, false, NOW), 0);
	assert_int_equal(breaker.state, DESTINATION_DOWN);
	/* While it is up that changes nothing. */
	breaker = fresh();
	breaker_try_now(&breaker, NOW);
	assert_true(breaker_next_try(&breaker, false) == INT64_MAX);
	assert_int_equal(breaker_room(&breaker, &limits, 0, false, NOW), 1);
}

/* ------------------------------------------------------------------ Coming up */

static void the_first_answer_brings_it_up_and_the_rate_starts_over(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	for (int i = 0; i < 20; i++)
		succeed(&breaker);
	assert_int_equal(breaker_room(&breaker, &limits, 0, true, NOW), 8);
	(void)testify(&breaker, 1, WHOLE);
	assert_true(breaker_alive(&breaker, NOW));
	assert_false(breaker_alive(&breaker, NOW));
	assert_int_equal(breaker.state, DESTINATION_UP);
	assert_int_equal(breaker.failures, 0);
	for (int i = 0; i < BREAKER_CALM; i++) {
		assert_int_equal(breaker_room(&breaker, &limits, 0, true, NOW), 1);
		breaker_succeeded(&breaker, &limits);
	}
	/* What the one failure cost is earned back: from here on one more for each. */
	assert_int_equal(breaker.strain, 0);
	assert_int_equal(breaker_room(&breaker, &limits, 0, true, NOW), 2);
	breaker_succeeded(&breaker, &limits);
	assert_int_equal(breaker_room(&breaker, &limits, 0, true, NOW), 3);
	assert_true(breaker_next_try(&breaker, true) == INT64_MAX);
}

static void coming_up_forgets_who_testified(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	(void)testify(&breaker, 1, WHOLE);
	(void)breaker_alive(&breaker, NOW);
	assert_int_equal(breaker.witnesses, 0);
	assert_true(breaker.witness == 0);
	assert_false(testify(&breaker, 1, 0));
	assert_false(testify(&breaker, 2, 0));
	assert_int_equal(breaker.state, DESTINATION_UP);
	assert_true(testify(&breaker, 3, 0));
}

static void a_failure_soon_after_coming_up_goes_on_with_the_backoff(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	for (int i = 1; i < 30; i++)
		(void)testify(&breaker, i, WHOLE);
	(void)breaker_alive(&breaker, NOW);
	(void)testify_at(&breaker, 31, WHOLE, NOW + CAP - 1, CAP - 1);
	assert_int_equal(breaker.failures, 1); /* of this outage */
	assert_true(breaker_next_try(&breaker, false) == NOW + CAP - 1 + CAP);
}

static void successes_earn_the_backoff_back_one_doubling_at_a_time(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	for (int i = 0; i < 4; i++)
		(void)testify(&breaker, i, WHOLE);
	(void)breaker_alive(&breaker, NOW);
	for (int i = 0; i < 2 * BREAKER_CALM; i++)
		breaker_succeeded(&breaker, &limits);
	assert_int_equal(breaker_room(&breaker, &limits, 0, true, NOW), 3);
	/* Four failures less two, and this one. */
	(void)testify_at(&breaker, 31, WHOLE, NOW, 4 * BASE - 1);
	assert_true(breaker_next_try(&breaker, false) == NOW + 4 * BASE);
}

static void what_was_up_for_as_long_as_the_cap_begins_its_backoff_anew(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	for (int i = 1; i < 30; i++)
		(void)testify(&breaker, i, WHOLE);
	(void)breaker_alive(&breaker, NOW);
	(void)testify_at(&breaker, 31, WHOLE, NOW + CAP, UINT64_MAX);
	assert_int_equal(breaker.failures, 1);
	assert_true(breaker_next_try(&breaker, false) <= NOW + CAP + BASE);
}

static void at_the_cap_failures_add_nothing_that_must_be_earned_back(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	for (int i = 1; i < 1000; i++)
		(void)testify(&breaker, i, WHOLE);
	(void)breaker_alive(&breaker, NOW);
	for (int i = 0; i < 10 * BREAKER_CALM; i++)
		breaker_succeeded(&breaker, &limits);
	assert_int_equal(breaker.strain, 0);
	assert_int_equal(breaker_room(&breaker, &limits, 0, true, NOW), 8);
}

/* ---------------------------------------------------------------------- Held */

static void held_waits_for_the_longest_interval_less_a_tenth_at_most(void **state)
{
	const uint64_t dice[] = { 0, 1, 29999, 30000, 30001, UINT64_MAX };
	(void)state;

	for (size_t i = 0; i < sizeof dice / sizeof dice[0]; i++) {
		struct breaker breaker = fresh();

		assert_true(breaker_hold(&breaker, &limits, NOW, dice[i]));
		assert_int_equal(breaker.state, DESTINATION_HELD);
		for (int someone = 0; someone < 2; someone++) {
			int64_t due = breaker_next_try(&breaker, someone == 1);

			assert_true(due <= NOW + CAP && due >= NOW + CAP - CAP / 10);
			assert_int_equal(breaker_room(&breaker, &limits, 0, someone, due - 1), 0);
			assert_int_equal(breaker_room(&breaker, &limits, 0, someone, due), 1);
			assert_int_equal(breaker_room(&breaker, &limits, 1, someone, due), 0);
		}
		assert_false(breaker_blames_witness(&breaker));
	}
}

static void held_is_news_only_once_and_from_whatever_state(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	assert_true(breaker_hold(&breaker, &limits, NOW, 5));
	assert_false(breaker_hold(&breaker, &limits, NOW, 5));
	(void)breaker_alive(&breaker, NOW);
	(void)testify(&breaker, 1, ALONE);
	assert_true(breaker_hold(&breaker, &limits, NOW, 5));
	assert_int_equal(breaker.failures, 1);
	assert_false(breaker_blames_witness(&breaker));
}

static void a_probe_that_fails_while_held_leaves_it_held(void **state)
{
	struct breaker breaker = fresh();
	(void)state;

	(void)breaker_hold(&breaker, &limits, NOW, 0);
	assert_false(testify_at(&breaker, 1, WHOLE | ALONE, NOW + CAP, 3));
	assert_int_equal(breaker.state, DESTINATION_HELD);
	assert_true(breaker_next_try(&breaker, true) >= NOW + CAP + CAP - CAP / 10);
	assert_true(breaker_next_try(&breaker, true) <= NOW + CAP + CAP);
	assert_true(breaker_alive(&breaker, NOW));
	assert_int_equal(breaker.state, DESTINATION_UP);
}

static void a_cap_of_a_few_milliseconds_is_no_division_by_zero(void **state)
{
	struct breaker breaker = fresh();
	struct breaker_limits tiny = { .connections = 1, .base = 1, .cap = 1 };
	struct breaker_failure failure = { .record = 1, .whole = true, .retry_after = -1 };
	(void)state;

	assert_true(breaker_hold(&breaker, &tiny, NOW, UINT64_MAX));
	assert_true(breaker_next_try(&breaker, true) == NOW + 1);
	breaker = fresh();
	assert_true(breaker_failed(&breaker, &tiny, &failure, NOW, UINT64_MAX));
	assert_true(breaker_next_try(&breaker, true) == NOW + 1);
}

/* ------------------------------------------------------------------ Any order */

static uint64_t dice(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Whatever comes in whatever order: never more in flight than allowed, never more
 * than a probe while not up, never waiting without an end. */
static void in_any_order_of_events_its_promises_hold(void **state)
{
	(void)state;
	for (uint64_t seed = 1; seed <= 500; seed++) {
		uint64_t at = seed * UINT64_C(0x9E3779B97F4A7C15);
		struct breaker breaker = fresh();
		int64_t now = NOW;

		for (int i = 0; i < 200; i++) {
			uint64_t random = dice(&at);
			uint64_t epoch = breaker.epoch;
			bool was_up = breaker.state == DESTINATION_UP;
			bool held = breaker.state == DESTINATION_HELD;

			now += (int64_t)(random % 4000);
			switch (random >> 60) {
			case 0: case 1: case 2: case 3: case 4: case 5: case 6: case 7:
				assert_true(testify_at(&breaker, (int64_t)(random >> 20) % 6 + 1,
				                    (int)(random >> 50) & 7, now, random) ==
				            (was_up && breaker.state == DESTINATION_DOWN));
				break;
			case 8:
				assert_int_equal(breaker_hold(&breaker, &limits, now, random), !held);
				break;
			case 9:
				breaker_try_now(&breaker, now);
				break;
			default:
				assert_int_equal(breaker_alive(&breaker, NOW), !was_up);
				breaker_succeeded(&breaker, &limits);
				assert_true(breaker.epoch > epoch);
			}
			if (breaker.state == DESTINATION_HELD && (random >> 8) % 3 == 0)
				(void)breaker_alive(&breaker, NOW);

			bool up = breaker.state == DESTINATION_UP;
			int64_t due = breaker_next_try(&breaker, false);
			assert_true(breaker_next_try(&breaker, true) <= due);
			assert_true(up ? due == INT64_MAX : due <= now + CAP);
			for (unsigned flying = 0; flying <= 9; flying++) {
				unsigned room = breaker_room(&breaker, &limits, flying, true, now);

				assert_true(room == 0 || room + flying <= (up ? limits.connections : 1));
			}
			assert_true(breaker_room(&breaker, &limits, 0, false, up ? now : due) >= 1);
			assert_true(!up || breaker.witnesses < BREAKER_WITNESSES);
			assert_true(!breaker_blames_witness(&breaker) || breaker.witness != 0);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(at_first_one_record_may_be_sent),
		cmocka_unit_test(each_success_allows_one_more_up_to_the_connections),
		cmocka_unit_test(fewer_connections_after_a_reload_count_at_once),
		cmocka_unit_test(three_different_witnesses_take_it_down),
		cmocka_unit_test(one_record_is_one_witness_however_often_it_fails),
		cmocka_unit_test(a_record_that_is_known_to_fail_by_itself_is_no_witness),
		cmocka_unit_test(a_success_between_them_clears_the_witnesses),
		cmocka_unit_test(an_answer_that_is_no_success_does_not_clear_them),
		cmocka_unit_test(one_failure_that_concerns_the_whole_takes_it_down),
		cmocka_unit_test(a_failure_with_nothing_to_compare_takes_it_down),
		cmocka_unit_test(down_is_news_only_once),
		cmocka_unit_test(while_down_one_at_a_time_is_sent_and_only_when_it_is_due),
		cmocka_unit_test(each_failed_probe_puts_the_next_one_further_off_up_to_the_cap),
		cmocka_unit_test(failures_without_end_do_not_overflow),
		cmocka_unit_test(a_cap_that_a_reload_made_shorter_holds_at_once),
		cmocka_unit_test(what_the_server_asks_to_wait_comes_before_the_backoff),
		cmocka_unit_test(while_one_record_alone_is_to_blame_another_may_try_at_once),
		cmocka_unit_test(that_other_is_not_asked_again_at_once_when_it_fails_too),
		cmocka_unit_test(a_second_witness_ends_that_privilege),
		cmocka_unit_test(a_person_may_have_it_tried_now),
		cmocka_unit_test(the_first_answer_brings_it_up_and_the_rate_starts_over),
		cmocka_unit_test(coming_up_forgets_who_testified),
		cmocka_unit_test(a_failure_soon_after_coming_up_goes_on_with_the_backoff),
		cmocka_unit_test(successes_earn_the_backoff_back_one_doubling_at_a_time),
		cmocka_unit_test(what_was_up_for_as_long_as_the_cap_begins_its_backoff_anew),
		cmocka_unit_test(at_the_cap_failures_add_nothing_that_must_be_earned_back),
		cmocka_unit_test(held_waits_for_the_longest_interval_less_a_tenth_at_most),
		cmocka_unit_test(held_is_news_only_once_and_from_whatever_state),
		cmocka_unit_test(a_probe_that_fails_while_held_leaves_it_held),
		cmocka_unit_test(a_cap_of_a_few_milliseconds_is_no_division_by_zero),
		cmocka_unit_test(in_any_order_of_events_its_promises_hold),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
