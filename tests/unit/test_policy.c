/* The delivery rules, held against a second list of them that is written down
 * here status by status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/policy.h"
#include "tests/unit/failing.h"

#define DAY_MS INT64_C(86400000)
/* Wed, 21 Oct 2015 07:28:00 GMT */
#define WALL INT64_C(1445412480000)

static struct judgement judge_http(int status, const char *body)
{
	struct answer answer = { .kind = ANSWER_HTTP, .status = status, .body = body,
		                     .body_size = body != NULL ? strlen(body) : 0 };

	return policy_judge(&answer, WALL);
}

static enum verdict verdict_of(int status, const char *body)
{
	return judge_http(status, body).verdict;
}

/* ------------------------------------------------------------------- statuses */

static enum verdict expected_verdict(int status)
{
	switch (status) {
	case 400: case 413: case 415: case 422:
		return VERDICT_REJECTED;
	case 401: case 403:
		return VERDICT_APP_HELD;
	case 408: case 425: case 429:
		return VERDICT_UNAVAILABLE;
	case 409:
		return VERDICT_BUSY;
	default:
		break;
	}
	switch (status / 100) {
	case 2:
		return VERDICT_DELIVERED;
	case 3: case 4:
		return VERDICT_ENDPOINT_HELD;
	default:
		return VERDICT_UNAVAILABLE;
	}
}

static void every_status_has_the_verdict_of_the_contract(void **state)
{
	(void)state;
	for (int status = 100; status <= 599; status++) {
		enum verdict verdict = verdict_of(status, "{\"status\":\"ok\"}");

		if (verdict != expected_verdict(status))
			fail_msg("status %d: verdict %d, expected %d", status, (int)verdict,
			         (int)expected_verdict(status));
	}
}

static void a_status_that_is_none_is_unavailable(void **state)
{
	static const int statuses[] = { INT_MIN, -1, 0, 1, 99, 600, 999, 1000, INT_MAX };

	(void)state;
	for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++)
		assert_int_equal(verdict_of(statuses[i], ""), VERDICT_UNAVAILABLE);
}

static void among_the_statuses_only_429_is_surely_the_whole_destinations(void **state)
{
	(void)state;
	for (int status = 100; status <= 599; status++)
		assert_int_equal(judge_http(status, "").whole, status == 429);
}

static void the_body_counts_for_nothing_beside_another_status(void **state)
{
	static const char *const bodies[] = { NULL, "", "{\"status\":\"ok\"}",
		                                  "{\"status\":\"error\"}", "<html>", "{" };

	(void)state;
	for (int status = 100; status <= 599; status++)
		for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]) && status / 100 != 2; i++)
			assert_int_equal(verdict_of(status, bodies[i]), expected_verdict(status));
}

static void every_judgement_has_one_word_and_a_plain_sentence(void **state)
{
	static const char *const bodies[] = { "", "{\"status\":\"error\"}", "<html>" };

	(void)state;
	for (int status = 0; status <= 600; status++)
		for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
			struct judgement judgement = judge_http(status, bodies[i]);
			char number[16];
			const char *in_400s;

			assert_true(strlen(judgement.code) > 1);
			assert_int_equal(strspn(judgement.code, "abcdefghijklmnopqrstuvwxyz-"),
			                 strlen(judgement.code));
			assert_true(strlen(judgement.sentence) > 20);
			assert_int_equal(strspn(judgement.sentence, "\n\t%"), 0);
			/* A sentence that names a status names the right one. */
			snprintf(number, sizeof(number), "%d", status);
			in_400s = strpbrk(judgement.sentence, "45");
			if (in_400s != NULL && in_400s[3] != 's')
				assert_true(strncmp(in_400s, number, 3) == 0);
		}
}

static void a_cause_has_the_same_word_for_ever(void **state)
{
	/* They are in dead letters' reasons and in people's scripts. */
	static const struct {
		int status;
		const char *body, *code;
	} cases[] = {
		{ 100, "", "odd-status" },
		{ 200, "", "delivered" },
		{ 200, "{\"status\":\"error\"}", "status-not-ok" },
		{ 200, "<html>", "not-json" },
		{ 300, "", "redirect" },
		{ 399, "", "redirect" },
		{ 400, "", "bad-request" },
		{ 401, "", "unauthorized" },
		{ 402, "", "refused" },
		{ 403, "", "forbidden" },
		{ 404, "", "not-found" },
		{ 405, "", "method-not-allowed" },
		{ 407, "", "proxy-authentication" },
		{ 408, "", "request-timeout" },
		{ 409, "", "conflict" },
		{ 413, "", "too-large" },
		{ 415, "", "unsupported-type" },
		{ 422, "", "unprocessable" },
		{ 425, "", "too-early" },
		{ 429, "", "too-many-requests" },
		{ 499, "", "refused" },
		{ 500, "", "server-error" },
		{ 501, "", "server-error" },
		{ 502, "", "bad-gateway" },
		{ 503, "", "overloaded" },
		{ 504, "", "gateway-timeout" },
		{ 505, "", "server-error" },
		{ 599, "", "server-error" },
		{ 600, "", "odd-status" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_string_equal(judge_http(cases[i].status, cases[i].body).code, cases[i].code);
}

static void without_memory_to_read_an_answer_nothing_is_taken_for_delivered(void **state)
{
	(void)state;
	fail_allocation_after(0);
	assert_int_equal(verdict_of(200, "{\"status\": \"ok\"}"), VERDICT_UNAVAILABLE);
	assert_true(allocation_failed());
	assert_int_equal(verdict_of(200, "{\"status\": \"ok\"}"), VERDICT_DELIVERED);
}

static void what_may_have_been_cut_off_to_nothing_is_not_delivered(void **state)
{
	struct answer answer = { .kind = ANSWER_HTTP, .status = 200, .body = "" };

	(void)state;
	assert_int_equal(policy_judge(&answer, WALL).verdict, VERDICT_DELIVERED);
	answer.open_ended = true;
	assert_int_equal(policy_judge(&answer, WALL).verdict, VERDICT_UNAVAILABLE);
	assert_string_equal(policy_judge(&answer, WALL).code, "answer-without-end");
	answer.body = " \r\n";
	answer.body_size = 3;
	assert_int_equal(policy_judge(&answer, WALL).verdict, VERDICT_UNAVAILABLE);
	/* A text that is whole says so itself. */
	answer.body = "{\"status\": \"ok\"}";
	answer.body_size = strlen(answer.body);
	assert_int_equal(policy_judge(&answer, WALL).verdict, VERDICT_DELIVERED);
}

static void only_ok_itself_is_ok_whatever_escapes_are_beside_it(void **state)
{
	(void)state;
	assert_int_equal(verdict_of(200, "{\"status\":\"ok\\u0000\"}"), VERDICT_REJECTED);
	assert_int_equal(verdict_of(200, "{\"status\":\"ok\\u0000\\u0000\"}"), VERDICT_REJECTED);
	assert_int_equal(verdict_of(200, "{\"status\":\"\\u006fk\"}"), VERDICT_DELIVERED);
	assert_int_equal(verdict_of(200, "{\"st\\u0061tus\":\"no\"}"), VERDICT_REJECTED);
	assert_int_equal(verdict_of(200, "{\"st\\u0061tu\\u0173\":\"no\"}"), VERDICT_DELIVERED);
	assert_int_equal(verdict_of(200, "{\"status\":\"o\\u00eb\"}"), VERDICT_REJECTED);
	/* Another member than ours. */
	assert_int_equal(verdict_of(200, "{\"status\\u0000\":\"no\"}"), VERDICT_DELIVERED);
	assert_int_equal(verdict_of(200, "{\"\\\\u0000status\":\"no\"}"), VERDICT_DELIVERED);
	/* Half a pair in a text of no interest does not hide what is said. */
	assert_int_equal(verdict_of(200, "{\"echo\":\"\\ud800\",\"status\":\"ok\"}"),
	                 VERDICT_DELIVERED);
	assert_int_equal(verdict_of(200, "{\"echo\":\"\\uDC00\\\\\",\"status\":\"no\"}"),
	                 VERDICT_REJECTED);
}

/* -------------------------------------------------------------------- success */

static void a_success_is_delivered_when_its_json_says_ok_or_says_nothing(void **state)
{
	static const char *const bodies[] = {
		NULL, "", " ", " \t\r\n", "{\"status\":\"ok\"}", " {\"status\" : \"ok\"} \r\n",
		"{\"stat\\u0075s\":\"\\u006fk\"}", "{}", "{\"message\":\"accepted\"}",
		"{\"Status\":\"error\"}", "{\"result\":{\"status\":\"error\"}}",
		"{\"a\":[{\"status\":\"error\"}],\"status\":\"ok\"}", "[]", "[{\"status\":\"error\"}]",
		"\"error\"", "\"\"", "0", "-1.5e3", "true", "false", "null",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
		for (int status = 200; status <= 299; status++)
			if (verdict_of(status, bodies[i]) != VERDICT_DELIVERED)
				fail_msg("%d with %s", status, bodies[i] != NULL ? bodies[i] : "NULL");
}

static void a_success_is_rejected_when_its_status_is_anything_but_ok(void **state)
{
	static const char *const bodies[] = {
		"{\"status\":\"error\"}", "{\"status\":\"OK\"}", "{\"status\":\"ok \"}",
		"{\"status\":\"\"}", "{\"status\":null}", "{\"status\":true}", "{\"status\":200}",
		"{\"status\":{}}", "{\"status\":[\"ok\"]}", "{\"status\":\"ok\",\"status\":\"error\"}",
		"{\"status\":\"error\",\"status\":\"ok\"}", "{\"\\u0073tatus\":\"failed\"}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
		if (verdict_of(200, bodies[i]) != VERDICT_REJECTED)
			fail_msg("%s", bodies[i]);
}

static void a_success_that_is_not_json_is_unavailable(void **state)
{
	static const char *const bodies[] = {
		"<html><body>Welcome to the hotel</body></html>", "ok", "{\"status\":\"ok\"",
		"{\"status\":\"ok\"}}", "{\"status\":\"ok\"} {}", "{'status':'ok'}",
		"{\"status\":\"ok\",}", "\xef\xbb\xbf{\"status\":\"ok\"}", "{\"status\":\"ok\xff\"}",
		"\v", "\xc2\xa0", "NaN", "01",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
		struct judgement judgement = judge_http(200, bodies[i]);

		if (judgement.verdict != VERDICT_UNAVAILABLE || judgement.whole)
			fail_msg("%s", bodies[i]);
	}
}

static void a_success_with_a_nul_in_its_body_is_unavailable(void **state)
{
	static const char body[] = "{\"status\":\"ok\"}\0<html>";
	struct answer answer = { .kind = ANSWER_HTTP, .status = 200, .body = body,
		                     .body_size = sizeof(body) - 1 };

	(void)state;
	assert_int_equal(policy_judge(&answer, WALL).verdict, VERDICT_UNAVAILABLE);
	answer.body = "\0";
	answer.body_size = 1;
	assert_int_equal(policy_judge(&answer, WALL).verdict, VERDICT_UNAVAILABLE);
}

static void a_success_whose_body_was_cut_is_unavailable_whatever_is_left_of_it(void **state)
{
	struct answer answer = { .kind = ANSWER_HTTP, .status = 200, .body_cut = true,
		                     .body = "{\"status\":\"ok\"}", .body_size = 15 };

	(void)state;
	assert_int_equal(policy_judge(&answer, WALL).verdict, VERDICT_UNAVAILABLE);
	answer.body = "";
	answer.body_size = 0;
	assert_int_equal(policy_judge(&answer, WALL).verdict, VERDICT_UNAVAILABLE);
	/* A cut body does not matter where the body does not. */
	answer.status = 400;
	assert_int_equal(policy_judge(&answer, WALL).verdict, VERDICT_REJECTED);
}

static void the_body_is_read_no_further_than_its_size(void **state)
{
	static const char text[] = "{\"status\":\"ok\"}";
	size_t size = sizeof(text) - 1;
	char *exact = malloc(size);
	struct answer answer = { .kind = ANSWER_HTTP, .status = 200, .body = exact };

	(void)state;
	assert_non_null(exact);
	memcpy(exact, text, size);
	for (size_t i = 0; i <= size; i++) {
		answer.body = exact + size - i;
		answer.body_size = i;
		assert_int_equal(policy_judge(&answer, WALL).verdict,
		                 i == 0 || i == size ? VERDICT_DELIVERED : VERDICT_UNAVAILABLE);
	}
	free(exact);
}

static void json_too_deep_to_be_read_is_not_taken_for_a_success(void **state)
{
	size_t depth = 1500;
	char *body = malloc(depth * 2 + 64);
	char *end = body;

	(void)state;
	assert_non_null(body);
	end += sprintf(end, "{\"status\":\"error\",\"a\":");
	memset(end, '[', depth);
	memset(end + depth, ']', depth);
	strcpy(end + 2 * depth, "}");
	assert_int_equal(verdict_of(200, body), VERDICT_UNAVAILABLE);
	assert_false(judge_http(200, body).whole);
	free(body);
}

/* -------------------------------------------------------------- without answer */

static void what_ends_without_an_answer_is_judged_by_how_far_it_came(void **state)
{
	static const struct {
		enum answer_kind kind;
		enum verdict verdict;
		bool whole;
	} cases[] = {
		{ ANSWER_NO_CONNECTION, VERDICT_UNAVAILABLE, true },
		{ ANSWER_BROKEN, VERDICT_UNAVAILABLE, false },
		{ ANSWER_TIMEOUT, VERDICT_UNAVAILABLE, false },
		{ ANSWER_CERTIFICATE, VERDICT_ENDPOINT_HELD, false },
		{ ANSWER_LOCAL, VERDICT_UNAVAILABLE, true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		/* What belongs to HTTP answers alone must not count. */
		struct answer answer = { .kind = cases[i].kind, .status = 200,
			                     .body = "{\"status\":\"ok\"}", .body_size = 15,
			                     .retry_after = "7", .detail = "words" };
		struct judgement judgement = policy_judge(&answer, WALL);

		assert_int_equal(judgement.verdict, cases[i].verdict);
		assert_int_equal(judgement.whole, cases[i].whole);
		assert_true(judgement.retry_after == -1);
		assert_true(strlen(judgement.code) > 1);
		assert_true(strlen(judgement.sentence) > 20);
	}
}

/* ---------------------------------------------------------------- Retry-After */

static void expect_wait(const char *value, const char *date, int64_t wait)
{
	int64_t got = policy_retry_after(value, date, WALL);

	if (got != wait)
		fail_msg("'%s' with date '%s': %lld, expected %lld", value != NULL ? value : "NULL",
		         date != NULL ? date : "NULL", (long long)got, (long long)wait);
}

static void retry_after_in_seconds_becomes_milliseconds(void **state)
{
	(void)state;
	expect_wait("0", NULL, 0);
	expect_wait("1", NULL, 1000);
	expect_wait("120", NULL, 120000);
	expect_wait("00000000000000000000000120", NULL, 120000);
	expect_wait(" \t5 ", NULL, 5000);
	expect_wait("86399", NULL, 86399000);
}

static void a_long_wait_is_cut_to_a_day(void **state)
{
	(void)state;
	expect_wait("86400", NULL, DAY_MS);
	expect_wait("86401", NULL, DAY_MS);
	expect_wait("9223372036854775807", NULL, DAY_MS);
	expect_wait("9223372036854775808", NULL, DAY_MS);
	expect_wait("99999999999999999999999999999999999999999999999999999999999999999999999999999",
	            NULL, DAY_MS);
	expect_wait("Fri, 23 Oct 2015 07:28:00 GMT", NULL, DAY_MS);
	expect_wait("Fri, 31 Dec 9999 23:59:60 GMT", NULL, DAY_MS);
}

static void a_retry_after_that_is_neither_form_is_none(void **state)
{
	static const char *const values[] = {
		"", " ", "-1", "+1", "1.5", "1e3", "0x10", "1 2", "12s", "soon", "5,", "\xd9\xa1", "\v5",
		"Wed, 21 Oct 2015 07:28:00", "Wed, 21 Oct 2015 07:28:00 UTC",
		"Wed, 21 Oct 2015 07:28:00 +0000", "wed, 21 Oct 2015 07:28:00 GMT",
		"Wed, 21 oct 2015 07:28:00 GMT", "Wed, 21 Okt 2015 07:28:00 GMT",
		"Mit, 21 Oct 2015 07:28:00 GMT", "Wed,21 Oct 2015 07:28:00 GMT",
		"Wed, 1 Oct 2015 07:28:00 GMT", "Wed,  1 Oct 2015 07:28:00 GMT",
		"Wed, 00 Oct 2015 07:28:00 GMT", "Wed, 32 Oct 2015 07:28:00 GMT",
		"Wed, 29 Feb 2015 07:28:00 GMT", "Wed, 31 Nov 2015 07:28:00 GMT",
		"Wed, 21 Oct 15 07:28:00 GMT", "Wed, 21 Oct 12015 07:28:00 GMT",
		"Wed, 21 Oct 2015 24:00:00 GMT", "Wed, 21 Oct 2015 07:60:00 GMT",
		"Wed, 21 Oct 2015 07:28:61 GMT", "Wed, 21 Oct 2015 7:28:00 GMT",
		"Wed, 21 Oct 2015 07:28 GMT", "Wed, 21 Oct 2015 07:28:00 GMT x",
		"Wednesday, 21 Oct 2015 07:28:00 GMT", "Wednesday, 21-Oct-2015 07:28:00 GMT",
		"Wednesday, 21-Oct-15 07:28:00", "Wed, 21-Oct-15 07:28:00 GMT",
		"Wed Oct 21 07:28:00 2015 GMT", "Wed Oct 21 07:28:00 15", "Wed Oct 1 07:28:00 2015",
		"Wed Oct 21 07:28:00 GMT 2015", "2015-10-21T07:28:00Z", "Wed, ", "Wednesday, ", "Wed ",
		"Wed, 21 Oct 2015 07:28:00 GMT                                                        ;",
	};

	(void)state;
	expect_wait(NULL, NULL, -1);
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		expect_wait(values[i], NULL, -1);
}

static void a_date_with_one_character_wrong_is_none(void **state)
{
	static const char *const dates[] = { "Wed, 21 Oct 2015 07:28:00 GMT",
		                                 "Wednesday, 21-Oct-15 07:28:00 GMT",
		                                 "Wed Oct 21 07:28:00 2015" };

	(void)state;
	for (size_t i = 0; i < sizeof(dates) / sizeof(dates[0]); i++)
		for (size_t at = 0; at < strlen(dates[i]); at++) {
			char wrong[64];

			(void)snprintf(wrong, sizeof(wrong), "%s", dates[i]);
			wrong[at] = '?';
			if (policy_retry_after(wrong, NULL, WALL) != -1)
				fail_msg("taken for a date: %s", wrong);
		}
}

static void in_the_first_century_a_year_before_the_first_is_none(void **state)
{
	(void)state;
	/* The clock stands in the year 10: 99 could only be 89 years before it. */
	assert_int_equal(policy_retry_after("Wednesday, 21-Oct-99 07:28:00 GMT", NULL,
	                                    -INT64_C(1960) * 365 * DAY_MS), -1);
}

static void all_three_forms_of_a_date_are_understood(void **state)
{
	(void)state;
	expect_wait("Wed, 21 Oct 2015 07:28:30 GMT", NULL, 30000);
	expect_wait("Wednesday, 21-Oct-15 07:28:30 GMT", NULL, 30000);
	expect_wait("Wed Oct 21 07:28:30 2015", NULL, 30000);
	expect_wait(" Wed, 21 Oct 2015 07:28:30 GMT\t", NULL, 30000);
	expect_wait("Sun Nov  1 00:00:00 2015", "Sat Oct 31 23:59:59 2015", 1000);
	expect_wait("Wed, 21 Oct 2015 07:28:60 GMT", NULL, 60000);
}

static void a_date_in_the_past_means_now(void **state)
{
	(void)state;
	expect_wait("Wed, 21 Oct 2015 07:28:00 GMT", NULL, 0);
	expect_wait("Wed, 21 Oct 2015 07:27:59 GMT", NULL, 0);
	expect_wait("Sat, 01 Jan 0000 00:00:00 GMT", NULL, 0);
}

static void the_answers_own_date_is_trusted_before_the_local_clock(void **state)
{
	static const int64_t walls[] = { 0, -1, INT64_MIN, INT64_MAX, WALL, WALL * 3 };

	(void)state;
	for (size_t i = 0; i < sizeof(walls) / sizeof(walls[0]); i++) {
		assert_true(policy_retry_after("Tue, 01 Mar 2016 00:00:10 GMT",
		                               "Mon, 29 Feb 2016 23:59:50 GMT", walls[i]) == 20000);
		assert_true(policy_retry_after("Tuesday, 01-Mar-16 00:00:10 GMT",
		                               "Mon, 29 Feb 2016 23:59:50 GMT", walls[i]) == 20000);
	}
	/* One that cannot be read is as none. */
	expect_wait("Wed, 21 Oct 2015 07:28:30 GMT", "yesterday", 30000);
	expect_wait("Wed, 21 Oct 2015 07:28:30 GMT", "", 30000);
}

static void a_wrong_clock_never_makes_a_wait_longer_than_a_day_or_negative(void **state)
{
	static const int64_t walls[] = { 0, -1, INT64_MIN, INT64_MAX, WALL, WALL * 3 };

	(void)state;
	for (size_t i = 0; i < sizeof(walls) / sizeof(walls[0]); i++) {
		int64_t wait =
		    policy_retry_after("Wed, 21 Oct 2015 07:28:30 GMT", NULL, walls[i]);

		assert_true(wait >= 0 && wait <= DAY_MS);
		wait = policy_retry_after("Wednesday, 21-Oct-15 07:28:30 GMT", NULL, walls[i]);
		assert_true(wait >= -1 && wait <= DAY_MS);
	}
}

static void a_year_of_two_digits_is_the_nearest_one(void **state)
{
	(void)state;
	/* 1999 beside 2000, and 2065 not 1965. */
	expect_wait("Saturday, 01-Jan-00 00:00:01 GMT", "Friday, 31-Dec-99 23:59:59 GMT", 2000);
	expect_wait("Saturday, 01-Jan-00 00:00:01 GMT", "Fri, 31 Dec 1999 23:59:59 GMT", 2000);
	expect_wait("Thursday, 01-Jan-65 00:00:00 GMT", NULL, DAY_MS);
	expect_wait("Friday, 01-Jan-66 00:00:00 GMT", NULL, 0);
}

static void every_day_of_four_centuries_has_its_number(void **state)
{
	/* Each day from 1900 on, against the C library, by the difference to the
	 * day before, which is known to be one day. */
	static const char *const months[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
		                                  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	char before[48] = "Sun, 31 Dec 1899 12:00:00 GMT", text[48];

	(void)state;
	for (int64_t day = -25567; day < 120530; day++) {
		time_t seconds = (time_t)(day * 86400 + 43199);
		struct tm tm;

		assert_non_null(gmtime_r(&seconds, &tm));
		snprintf(text, sizeof(text), "Sun, %02d %s %04d 11:59:59 GMT", tm.tm_mday,
		         months[tm.tm_mon], tm.tm_year + 1900);
		if (policy_retry_after(text, before, 0) != DAY_MS - 1000)
			fail_msg("%s", text);
		if (policy_retry_after(text, NULL, (int64_t)seconds * 1000 - 1) != 1)
			fail_msg("%s is not %lld", text, (long long)seconds);
		memcpy(text + 17, "12:00:00", 8);
		memcpy(before, text, sizeof(text));
	}
}

static void a_day_after_a_months_last_is_none(void **state)
{
	static const char *const wrong[] = {
		"32 Jan 2016", "30 Feb 2016", "29 Feb 2015", "29 Feb 2100", "32 Mar 2016",
		"31 Apr 2016", "32 May 2016", "31 Jun 2016", "32 Jul 2016", "32 Aug 2016",
		"31 Sep 2016", "32 Oct 2016", "31 Nov 2016", "32 Dec 2016",
	};
	static const char *const right[] = { "29 Feb 2016", "29 Feb 2000" };
	char text[64];

	(void)state;
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		snprintf(text, sizeof(text), "Sun, %s 00:00:00 GMT", wrong[i]);
		expect_wait(text, NULL, -1);
	}
	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		snprintf(text, sizeof(text), "Sun, %s 00:00:00 GMT", right[i]);
		assert_true(policy_retry_after(text, NULL, WALL) >= 0);
	}
}

static void a_judgement_carries_what_the_server_asked_to_wait(void **state)
{
	struct answer answer = { .kind = ANSWER_HTTP, .status = 503, .body = "", .retry_after = "9" };

	(void)state;
	assert_true(policy_judge(&answer, WALL).retry_after == 9000);
	answer.status = 429;
	assert_true(policy_judge(&answer, WALL).retry_after == 9000);
	answer.status = 409;
	assert_true(policy_judge(&answer, WALL).retry_after == 9000);
	answer.retry_after = "Wed, 21 Oct 2015 07:28:30 GMT";
	assert_true(policy_judge(&answer, WALL).retry_after == 30000);
	answer.date = "Wed, 21 Oct 2015 07:28:29 GMT";
	assert_true(policy_judge(&answer, WALL).retry_after == 1000);
	answer.retry_after = "later";
	assert_true(policy_judge(&answer, WALL).retry_after == -1);
	answer.retry_after = NULL;
	assert_true(policy_judge(&answer, WALL).retry_after == -1);
}

/* -------------------------------------------------------------------- backoff */

static uint64_t next_random(uint64_t *seed)
{
	/* splitmix64 */
	uint64_t z = *seed += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* The longest and the shortest of many waits, and their mean. */
static void measure(unsigned failures, int64_t base, int64_t cap, int64_t *least,
                    int64_t *most, int64_t *mean)
{
	uint64_t seed = 1;
	int64_t sum = 0;

	*least = INT64_MAX;
	*most = 0;
	for (int i = 0; i < 4000; i++) {
		int64_t wait = policy_backoff(failures, base, cap, next_random(&seed));

		sum += wait;
		*least = wait < *least ? wait : *least;
		*most = wait > *most ? wait : *most;
	}
	*mean = sum / 4000;
}

static void the_backoff_doubles_up_to_its_cap_and_is_spread_over_all_of_it(void **state)
{
	static const int64_t limits[] = { 1000,  2000,   4000,   8000,   16000, 32000,
		                              64000, 128000, 256000, 300000, 300000 };

	(void)state;
	for (unsigned i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
		int64_t least, most, mean, limit = limits[i];

		measure(i + 1, 1000, 300000, &least, &most, &mean);
		assert_true(least >= 1 && most <= limit);
		/* All of it: also after the cap. */
		assert_true(least < limit / 50);
		assert_true(most > limit - limit / 50);
		assert_true(mean > limit * 47 / 100 && mean < limit * 53 / 100);
	}
}

static void the_backoff_never_overflows(void **state)
{
	static const unsigned failures[] = { 31, 32, 33, 62, 63, 64, 65, 1000, UINT_MAX - 1,
		                                 UINT_MAX };
	static const uint64_t randoms[] = { 0, 1, UINT32_MAX, INT64_MAX, UINT64_MAX };

	(void)state;
	for (size_t i = 0; i < sizeof(failures) / sizeof(failures[0]); i++)
		for (size_t j = 0; j < sizeof(randoms) / sizeof(randoms[0]); j++) {
			int64_t wait = policy_backoff(failures[i], 3600000, DAY_MS, randoms[j]);

			assert_true(wait >= 1 && wait <= DAY_MS);
			wait = policy_backoff(failures[i], 1, INT64_MAX, randoms[j]);
			assert_true(wait >= 1);
			wait = policy_backoff(failures[i], INT64_MAX, INT64_MAX, randoms[j]);
			assert_true(wait >= 1);
		}
}

static void odd_limits_still_give_a_wait_of_at_least_a_millisecond(void **state)
{
	(void)state;
	assert_true(policy_backoff(0, 1000, 300000, 999) <= 1000);
	assert_true(policy_backoff(1, 0, 0, 77) == 1);
	assert_true(policy_backoff(UINT_MAX, 0, 300000, 77) >= 1);
	assert_true(policy_backoff(5, -5, -5, 77) == 1);
	/* A base above the cap is cut to it. */
	assert_true(policy_backoff(1, 1000, 10, UINT64_MAX) <= 10);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_status_has_the_verdict_of_the_contract),
		cmocka_unit_test(a_status_that_is_none_is_unavailable),
		cmocka_unit_test(without_memory_to_read_an_answer_nothing_is_taken_for_delivered),
		cmocka_unit_test(what_may_have_been_cut_off_to_nothing_is_not_delivered),
		cmocka_unit_test(only_ok_itself_is_ok_whatever_escapes_are_beside_it),
		cmocka_unit_test(among_the_statuses_only_429_is_surely_the_whole_destinations),
		cmocka_unit_test(the_body_counts_for_nothing_beside_another_status),
		cmocka_unit_test(every_judgement_has_one_word_and_a_plain_sentence),
		cmocka_unit_test(a_cause_has_the_same_word_for_ever),
		cmocka_unit_test(a_success_is_delivered_when_its_json_says_ok_or_says_nothing),
		cmocka_unit_test(a_success_is_rejected_when_its_status_is_anything_but_ok),
		cmocka_unit_test(a_success_that_is_not_json_is_unavailable),
		cmocka_unit_test(a_success_with_a_nul_in_its_body_is_unavailable),
		cmocka_unit_test(a_success_whose_body_was_cut_is_unavailable_whatever_is_left_of_it),
		cmocka_unit_test(the_body_is_read_no_further_than_its_size),
		cmocka_unit_test(json_too_deep_to_be_read_is_not_taken_for_a_success),
		cmocka_unit_test(what_ends_without_an_answer_is_judged_by_how_far_it_came),
		cmocka_unit_test(retry_after_in_seconds_becomes_milliseconds),
		cmocka_unit_test(a_long_wait_is_cut_to_a_day),
		cmocka_unit_test(a_retry_after_that_is_neither_form_is_none),
		cmocka_unit_test(a_date_with_one_character_wrong_is_none),
		cmocka_unit_test(in_the_first_century_a_year_before_the_first_is_none),
		cmocka_unit_test(all_three_forms_of_a_date_are_understood),
		cmocka_unit_test(a_date_in_the_past_means_now),
		cmocka_unit_test(the_answers_own_date_is_trusted_before_the_local_clock),
		cmocka_unit_test(a_wrong_clock_never_makes_a_wait_longer_than_a_day_or_negative),
		cmocka_unit_test(a_year_of_two_digits_is_the_nearest_one),
		cmocka_unit_test(every_day_of_four_centuries_has_its_number),
		cmocka_unit_test(a_day_after_a_months_last_is_none),
		cmocka_unit_test(a_judgement_carries_what_the_server_asked_to_wait),
		cmocka_unit_test(the_backoff_doubles_up_to_its_cap_and_is_spread_over_all_of_it),
		cmocka_unit_test(the_backoff_never_overflows),
		cmocka_unit_test(odd_limits_still_give_a_wait_of_at_least_a_millisecond),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
