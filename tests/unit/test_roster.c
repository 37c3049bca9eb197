/* The records that the flow knows of: order within sessions, lists, and what is left
 * when memory runs out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "agent/roster.h"
#include "tests/unit/failing.h"

#define MANY 3000

static struct roster roster;

static int begin(void **state)
{
	(void)state;
	memset(&roster, 0, sizeof roster);
	return 0;
}

static int end(void **state)
{
	(void)state;
	roster_clear(&roster);
	for (size_t i = 0; i < ROSTER_BUCKETS; i++)
		assert_true(roster.items[i] == NULL && roster.sessions[i] == NULL);
	assert_int_equal(roster.item_count, 0);
	assert_int_equal(roster.session_count, 0);
	assert_null(roster.hungry);
	assert_int_equal(roster.loaded_bytes, 0);
	assert_int_equal(roster.ready.count + roster.cold.count + roster.flying.count +
	                 roster.waiting.count + roster.settling + roster.doubted, 0);
	return 0;
}

/* Adds an item, and lets it go first where it is the first of its session, as the flow
 * does. */
static struct item *add(int64_t id, uint64_t session)
{
	struct item *item = roster_add(&roster, id, 0, session);
	assert_non_null(item);
	if (item->session == NULL || item->session->first == item)
		roster_release(&roster, item);
	return item;
}

static void expect_order(const struct session *session, size_t count, const int64_t *ids)
{
	const struct item *item = session->first;
	for (size_t i = 0; i < count; i++, item = item->behind) {
		assert_non_null(item);
		assert_int_equal(item->id, ids[i]);
		assert_ptr_equal(item->session, session);
	}
	assert_null(item);
	assert_int_equal(session->last->id, ids[count - 1]);
	assert_int_equal(session->count, count);
}

static void a_session_is_in_the_order_of_ids_whatever_comes_first(void **state)
{
	(void)state;
	struct item *five = add(5, 7);
	struct session *session = five->session;
	struct item *nine = add(9, 7);
	expect_order(session, 2, (const int64_t[]){ 5, 9 });
	/* One that was put back under an old id goes to the front, and the other waits. */
	struct item *three = add(3, 7);
	expect_order(session, 3, (const int64_t[]){ 3, 5, 9 });
	assert_int_equal(three->state, COLD);
	assert_int_equal(five->state, QUEUED);
	(void)add(7, 7);
	expect_order(session, 4, (const int64_t[]){ 3, 5, 7, 9 });
	/* The last, one from the middle, the first. */
	roster_remove(&roster, nine);
	expect_order(session, 3, (const int64_t[]){ 3, 5, 7 });
	roster_remove(&roster, five);
	expect_order(session, 2, (const int64_t[]){ 3, 7 });
	roster_remove(&roster, three);
	expect_order(session, 1, (const int64_t[]){ 7 });
	assert_int_equal(session->first->state, COLD);
}

static void what_is_under_way_stays_in_front(void **state)
{
	(void)state;
	struct item *five = add(5, 7);
	roster_move(&roster, five, FLYING);
	assert_int_equal(roster.flying_of[0], 1);
	struct item *three = add(3, 7);
	expect_order(five->session, 2, (const int64_t[]){ 5, 3 });
	assert_int_equal(three->state, QUEUED);
	/* Done with its session, it leaves the next one free, and is still known. */
	roster_move(&roster, five, SETTLING);
	roster_leave(&roster, five);
	assert_int_equal(three->state, COLD);
	assert_ptr_equal(roster_find(&roster, 5), five);
	assert_int_equal(roster.settling, 1);
	roster_leave(&roster, five); /* again: it is in none */
	roster_remove(&roster, five);
	assert_int_equal(roster.settling, 0);
}

static void one_that_waits_gives_way_to_an_earlier_one(void **state)
{
	(void)state;
	struct item *five = add(5, 7);
	roster_move(&roster, five, WAITING);
	five->doubted = true;
	roster.doubted++;
	(void)add(3, 7);
	assert_int_equal(five->state, QUEUED);
	assert_false(five->doubted);
	assert_int_equal(roster.doubted, 0);
}

static void what_nobody_let_go_yet_stays_behind_an_earlier_one(void **state)
{
	(void)state;
	struct item *five = roster_add(&roster, 5, 0, 7);
	assert_int_equal(five->state, QUEUED);
	struct item *three = add(3, 7);
	expect_order(three->session, 2, (const int64_t[]){ 3, 5 });
	assert_int_equal(five->state, QUEUED);
}

static void whatever_state_it_is_in_it_can_be_removed(void **state)
{
	static const enum item_state states[] = { QUEUED, READY, COLD, LOADING, FLYING, WAITING,
		                                      SETTLING };
	(void)state;
	for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
		struct item *item = add((int64_t)i + 1, SESSION_NONE);
		roster_move(&roster, item, states[i]);
		if (states[i] == WAITING) {
			item->doubted = true;
			roster.doubted++;
		}
		if (i % 2 == 0)
			roster_remove(&roster, item);
	}
	assert_int_equal(roster.item_count, 3);
}

static void a_preferred_one_comes_before_all_that_are_cold(void **state)
{
	(void)state;
	struct item *one = add(1, SESSION_NONE), *two = add(2, SESSION_NONE);
	roster_move(&roster, two, WAITING);
	assert_ptr_equal(roster.cold.first, one);
	roster_prefer(&roster, two);
	assert_ptr_equal(roster.cold.first, two);
	assert_ptr_equal(roster.cold.last, one);
	roster_remove(&roster, one);
	roster_prefer(&roster, two); /* alone, it is both */
	assert_ptr_equal(roster.cold.first, two);
	assert_ptr_equal(roster.cold.last, two);
	assert_int_equal(roster.cold.count, 1);
}

static void a_payload_makes_it_ready_and_is_counted(void **state)
{
	(void)state;
	struct item *item = add(1, SESSION_NONE);
	roster_load(&roster, item, calloc(1, 10), 10);
	roster_release(&roster, item);
	assert_int_equal(item->state, READY);
	assert_int_equal(roster.loaded_bytes, 10);
	roster_unload(&roster, item);
	roster_unload(&roster, item);
	assert_int_equal(roster.loaded_bytes, 0);
	roster_release(&roster, item);
	assert_int_equal(item->state, COLD);
}

static void a_session_asks_for_more_when_it_is_nearly_used_up_and_may_go_on(void **state)
{
	(void)state;
	struct item *items[ROSTER_SESSION_LOW + 1];
	for (int i = 0; i <= ROSTER_SESSION_LOW; i++)
		items[i] = add(i + 1, 7);
	struct session *session = items[0]->session;
	roster_feed(&roster, session); /* there is no more */
	assert_null(roster.hungry);
	session->more_from = 100;
	roster_feed(&roster, session); /* enough is known */
	assert_null(roster.hungry);
	roster_move(&roster, items[1], QUEUED);
	roster_move(&roster, items[0], WAITING);
	roster_remove(&roster, items[ROSTER_SESSION_LOW]);
	assert_null(roster.hungry); /* the first of them waits, and so do all */
	roster_move(&roster, items[0], COLD);
	roster_feed(&roster, session);
	assert_ptr_equal(roster.hungry, session);
	roster_feed(&roster, session);
	assert_null(session->next_hungry); /* only once */
	assert_ptr_equal(roster_next_hungry(&roster), session);
	assert_null(roster_next_hungry(&roster));
	session->resting = true; /* all of it is to be met again later */
	roster_feed(&roster, session);
	assert_null(roster.hungry);
	roster_forget_rest(&roster, session);
	assert_false(session->resting);
}

static void a_session_that_was_fed_or_emptied_meanwhile_is_not_asked_for(void **state)
{
	(void)state;
	struct item *one = add(1, 7), *two = add(2, 8);
	one->session->more_from = two->session->more_from = 50;
	roster_feed(&roster, one->session);
	roster_feed(&roster, two->session);
	/* One has all now and nothing left; the other has plenty. */
	one->session->more_from = INT64_MAX;
	roster_remove(&roster, one);
	for (int i = 0; i < ROSTER_SESSION_LOW; i++)
		(void)add(10 + i, 8);
	assert_null(roster_next_hungry(&roster));
	assert_null(roster_find_session(&roster, 7));
	assert_non_null(roster_find_session(&roster, 8));
}

static void a_session_with_unknown_rows_is_kept_though_it_is_empty(void **state)
{
	(void)state;
	struct item *one = add(1, 7);
	struct session *session = one->session;
	session->more_from = 50;
	roster_remove(&roster, one);
	assert_ptr_equal(roster_find_session(&roster, 7), session);
	assert_ptr_equal(roster_next_hungry(&roster), session);
	roster_trim(&roster, session); /* asked for, and not answered yet */
	assert_ptr_equal(roster_find_session(&roster, 7), session);
	session->more_from = INT64_MAX;
	roster_trim(&roster, session);
	assert_null(roster_find_session(&roster, 7));
}

static void thousands_are_each_found_by_id_and_by_session(void **state)
{
	(void)state;
	for (int64_t i = 1; i <= MANY; i++)
		(void)add(i, (uint64_t)i);
	for (int64_t i = 1; i <= MANY; i++) {
		assert_int_equal(roster_find(&roster, i)->id, i);
		assert_int_equal(roster_find_session(&roster, (uint64_t)i)->hash, i);
	}
	assert_null(roster_find(&roster, MANY + 1));
	assert_null(roster_find_session(&roster, MANY + 1));
	/* Every other one, in front of and behind others of the same place. */
	for (int64_t i = 1; i <= MANY; i += 2)
		roster_remove(&roster, roster_find(&roster, i));
	for (int64_t i = 1; i <= MANY; i++)
		assert_int_equal(roster_find(&roster, i) != NULL, i % 2 == 0);
	assert_int_equal(roster.item_count, MANY / 2);
	assert_int_equal(roster.session_count, MANY / 2);
}

static void without_memory_nothing_is_added_and_nothing_has_changed(void **state)
{
	(void)state;
	for (int allocations = 0;; allocations++) {
		fail_allocation_after(allocations);
		struct item *item = roster_add(&roster, 1, 0, 7);
		bool failed = allocation_failed();
		assert_int_equal(item == NULL, failed);
		if (!failed)
			break;
		assert_null(roster_find(&roster, 1));
		assert_null(roster_find_session(&roster, 7));
		assert_int_equal(roster.item_count + roster.session_count, 0);
	}
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_session_is_in_the_order_of_ids_whatever_comes_first),
		TEST(what_is_under_way_stays_in_front),
		TEST(one_that_waits_gives_way_to_an_earlier_one),
		TEST(what_nobody_let_go_yet_stays_behind_an_earlier_one),
		TEST(whatever_state_it_is_in_it_can_be_removed),
		TEST(a_preferred_one_comes_before_all_that_are_cold),
		TEST(a_payload_makes_it_ready_and_is_counted),
		TEST(a_session_asks_for_more_when_it_is_nearly_used_up_and_may_go_on),
		TEST(a_session_that_was_fed_or_emptied_meanwhile_is_not_asked_for),
		TEST(a_session_with_unknown_rows_is_kept_though_it_is_empty),
		TEST(thousands_are_each_found_by_id_and_by_session),
		TEST(without_memory_nothing_is_added_and_nothing_has_changed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
