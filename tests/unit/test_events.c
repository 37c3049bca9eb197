/* What a person is told, and that it is told once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/events.h"

static struct report report;
static struct figures figures;
static struct events_told told;
static char heard[4096];

static void hear(void *context, const struct event *event)
{
	(void)context;
	size_t used = strlen(heard);
	(void)snprintf(heard + used, sizeof heard - used, "%s%s%s%s%s%s", used > 0 ? ", " : "",
	               events_name(event->kind), event->app[0] != '\0' ? " " : "", event->app,
	               event->reason[0] != '\0' ? ": " : "", event->reason);
}

/* What is told now; "" for nothing. */
static const char *decide(void)
{
	struct events_told copy = told;
	heard[0] = '\0';
	bool would = events_decide(&copy, &report, &figures, NULL, NULL);
	bool did = events_decide(&told, &report, &figures, hear, NULL);
	assert_int_equal(would, did);
	assert_int_equal(did, heard[0] != '\0');
	return heard;
}

static int all_is_well(void **state)
{
	(void)state;
	report = (struct report){ .state = DESTINATION_UP, .app_count = 2, .proven = true,
		                  .scanned = true };
	strcpy(report.apps[0].name, "default");
	strcpy(report.apps[1].name, "sales");
	report.apps[0].proven = report.apps[1].proven = true;
	figures = (struct figures){ true, 0, 0, 0, 100 << 20 };
	told = (struct events_told){ .endpoint = false };
	return 0;
}

/* The agent ends and begins: nothing is known but what was noted. */
static void restart(void)
{
	char *note = events_told_to_json(&told);
	assert_non_null(note);
	all_is_well(NULL);
	told.endpoint = told.dead = told.spool = true;
	events_told_from_json(note, &told);
	free(note);
	report.proven = report.scanned = report.apps[0].proven = report.apps[1].proven = false;
	figures = (struct figures){ .known = false };
}

static void where_all_is_well_nothing_is_told(void **state)
{
	(void)state;
	assert_string_equal(decide(), "");
	figures.known = false;
	report.state = DESTINATION_DOWN; /* which mends by itself */
	assert_string_equal(decide(), "");
}

static void a_held_endpoint_is_told_once_and_once_when_it_works_again(void **state)
{
	(void)state;
	report.state = DESTINATION_HELD;
	report.proven = false;
	strcpy(report.reason, "HTTP 404: x");
	assert_string_equal(decide(), "endpoint-held: HTTP 404: x");
	strcpy(report.reason, "HTTP 405: y");
	assert_string_equal(decide(), "");
	report.state = DESTINATION_DOWN;
	assert_string_equal(decide(), "");
	report.state = DESTINATION_UP; /* after a reload: nothing is known against it */
	assert_string_equal(decide(), "");
	report.proven = true;
	assert_string_equal(decide(), "endpoint-well");
	assert_string_equal(decide(), "");
}

static void each_app_is_told_of_by_itself(void **state)
{
	(void)state;
	report.apps[0].held = report.apps[1].held = true;
	strcpy(report.apps[1].reason, "HTTP 401: z");
	assert_string_equal(decide(), "app-held default, app-held sales: HTTP 401: z");
	report.apps[0].held = false;
	report.apps[0].proven = false;
	assert_string_equal(decide(), "");
	report.apps[0].proven = true;
	assert_string_equal(decide(), "app-well default");
	report.apps[1].held = false;
	assert_string_equal(decide(), "app-well sales");
}

static void the_name_of_an_app_that_nobody_configured_is_not_told(void **state)
{
	(void)state;
	report.apps[2] = (struct report_app){ .name = "Jane", .held = true, .unknown = true,
		                              .reason = "not in the configuration" };
	report.app_count = 3;
	assert_string_equal(decide(), "app-held: not in the configuration");
	report.app_count = 2; /* after a reload, before all was looked at */
	report.scanned = false;
	assert_string_equal(decide(), "");
	report.scanned = true;
	assert_string_equal(decide(), "app-well");
	assert_int_equal(told.app_count, 0);
}

static void no_restart_tells_it_again_nor_calls_it_well(void **state)
{
	(void)state;
	report.state = DESTINATION_HELD;
	report.apps[1].held = true;
	figures = (struct figures){ true, 9, 3, 90 << 20, 100 << 20 };
	assert_int_equal(strlen(decide()) > 60, 1);
	for (int i = 0; i < 3; i++) {
		restart();
		assert_string_equal(decide(), "");
		figures = (struct figures){ true, 9, 3, 90 << 20, 100 << 20 };
		assert_string_equal(decide(), "");
		report.state = DESTINATION_HELD;
		report.apps[1].held = true;
		assert_string_equal(decide(), "");
	}
	restart();
	figures = (struct figures){ true, 0, 0, 0, 100 << 20 };
	report.proven = report.apps[0].proven = report.apps[1].proven = true;
	assert_string_equal(decide(),
	                    "endpoint-well, app-well sales, dead-letters-gone, spool-well");
}

static void dead_letters_are_told_until_there_are_none(void **state)
{
	(void)state;
	figures.dead = 1;
	assert_string_equal(decide(), "dead-letters: 'reconify-agent list --dead' says why");
	figures.dead = 500;
	assert_string_equal(decide(), "");
	figures.known = false;
	assert_string_equal(decide(), "");
	figures = (struct figures){ true, 0, 0, 0, 100 << 20 };
	assert_string_equal(decide(), "dead-letters-gone");
	figures.dead = 1;
	assert_int_equal(strncmp(decide(), "dead-letters:", 13), 0);
}

static void a_spool_about_the_limit_does_not_tell_at_each_record(void **state)
{
	(void)state;
	figures.bytes = (80 << 20) - 1024;
	assert_string_equal(decide(), "");
	figures.bytes = 80 << 20;
	assert_int_equal(strncmp(decide(), "spool-filling:", 14), 0);
	figures.bytes = 79 << 20;
	assert_string_equal(decide(), "");
	figures.bytes = 81 << 20;
	assert_string_equal(decide(), "");
	figures.bytes = 69 << 20;
	assert_string_equal(decide(), "spool-well");
}

static void what_cannot_be_read_is_nothing_told(void **state)
{
	(void)state;
	static const char *const texts[] = { "", "{", "[]", "null", "{\"apps\":7,\"dead\":\"yes\"}",
		                             "{\"apps\":[1,null,{}]}" };
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		events_told_from_json(texts[i], &told);
		assert_false(told.endpoint || told.dead || told.spool || told.app_count > 0);
	}
	char many[4096] = "{\"apps\":[\"\"";
	for (int i = 0; i < 300; i++)
		(void)strcat(many, ",\"x\"");
	(void)strcat(many, "]}");
	events_told_from_json(many, &told);
	assert_int_equal(told.app_count, REPORT_APPS_MAX);
	report.apps[0].held = true;
	report.scanned = false;
	assert_string_equal(decide(), ""); /* no room, no harm */
}

static void a_summary_says_what_is_wrong_and_nothing_where_nothing_is(void **state)
{
	(void)state;
	char line[1024];
	assert_false(events_sum_up(&report, &figures, line, sizeof line));
	figures.dead = 5;
	assert_false(events_sum_up(&report, &figures, line, sizeof line));
	report.state = DESTINATION_DOWN;
	report.failures = 7;
	strcpy(report.reason, "no route");
	figures.waiting = 12;
	assert_true(events_sum_up(&report, &figures, line, sizeof line));
	assert_string_equal(line, "still wrong: the endpoint is unavailable, 7 tries failed: no route; "
	                          "waiting: 12, dead: 5, 0 % of the spool used; see 'reconify-agent "
	                          "status'");
	report.state = DESTINATION_UP;
	report.apps[1].held = true;
	report.apps[2] = (struct report_app){ .name = "Jane", .held = true, .unknown = true };
	report.app_count = 3;
	assert_true(events_sum_up(&report, &figures, line, sizeof line));
	assert_non_null(strstr(line, "app sales is held"));
	assert_null(strstr(line, "Jane"));
	report.app_count = REPORT_APPS_MAX;
	for (size_t i = 0; i < REPORT_APPS_MAX; i++) {
		report.apps[i].held = true;
		memset(report.apps[i].reason, 'x', sizeof report.apps[i].reason - 1);
	}
	memset(report.storage, 'y', sizeof report.storage - 1);
	assert_true(events_sum_up(&report, &figures, line, sizeof line));
	assert_true(strlen(line) < sizeof line);
	char small[20];
	assert_true(events_sum_up(&report, &figures, small, sizeof small));
}

int main(void)
{
#define HOLDS(test) cmocka_unit_test_setup(test, all_is_well)
	const struct CMUnitTest tests[] = {
		HOLDS(where_all_is_well_nothing_is_told),
		HOLDS(a_held_endpoint_is_told_once_and_once_when_it_works_again),
		HOLDS(each_app_is_told_of_by_itself),
		HOLDS(the_name_of_an_app_that_nobody_configured_is_not_told),
		HOLDS(no_restart_tells_it_again_nor_calls_it_well),
		HOLDS(dead_letters_are_told_until_there_are_none),
		HOLDS(a_spool_about_the_limit_does_not_tell_at_each_record),
		HOLDS(what_cannot_be_read_is_nothing_told),
		HOLDS(a_summary_says_what_is_wrong_and_nothing_where_nothing_is),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
