/* The line that says how far a drain is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "agent/progress.h"

static void a_line_never_has_more_columns_than_there_are(void **state)
{
	(void)state;
	char line[PROGRESS_LINE_SIZE];
	static const int64_t totals[] = { 0, 1, 100, 2700, 1000000, INT64_MAX / 200 };
	for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++)
		for (unsigned columns = 1; columns < 300; columns++)
			for (int part = 0; part <= 5; part++) {
				struct progress progress = { .total = totals[i], .rate = part - 1 };
				progress_line(&progress, totals[i] / 4 * part, columns, line);
				assert_true(strlen(line) <= columns);
			}
}

static void a_bar_grows_with_what_is_done_and_says_rate_and_time_left(void **state)
{
	(void)state;
	char line[PROGRESS_LINE_SIZE];
	struct progress progress = { .total = 200, .rate = 10 };
	progress_line(&progress, 100, 79, line);
	assert_non_null(strstr(line, "50%  100 of 200  10/s  10s left"));
	size_t full = strspn(line + 1, "#"), empty = strspn(line + 1 + full, ".");
	assert_true(full > 10 && full - empty + 1 <= 2);
	progress_line(&progress, 500, 79, line); /* others' records may be counted, too */
	assert_non_null(strstr(line, "100%  200 of 200"));
	progress_line(&progress, 100, 0, line);
	assert_string_equal(line, "reconify-agent: 100 of 200 records done, 10/s, 10s left");
	progress.rate = 0; /* stands still: nobody knows how long */
	progress_line(&progress, 100, 0, line);
	assert_string_equal(line, "reconify-agent: 100 of 200 records done, 0.0/s");
	progress.rate = -1;
	progress_line(&progress, 0, 79, line);
	assert_non_null(strstr(line, "] "));
	assert_string_equal(strstr(line, "] "), "]   0%  0 of 200");
	progress_line(&progress, 0, 0, line);
	assert_string_equal(line, "reconify-agent: 0 of 200 records done");
}

static void in_a_log_there_are_few_lines_and_no_controls(void **state)
{
	(void)state;
	char *text = NULL;
	size_t size = 0;
	FILE *out = tmpfile();
	assert_non_null(out);
	struct progress progress;
	progress_begin(&progress, out, 100000, 5);
	assert_false(progress.terminal);
	for (int64_t now = 5; now < 60000; now += 200)
		progress_show(&progress, now / 100, now);
	progress_end(&progress);
	rewind(out);
	int lines = 0;
	while (getline(&text, &size, out) > 0) {
		lines++;
		assert_null(strpbrk(text, "\r\033"));
		assert_non_null(strstr(text, "10/s") != NULL ? text : strstr(text, "9."));
	}
	assert_in_range(lines, 5, 8);
	free(text);
	(void)fclose(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_never_has_more_columns_than_there_are),
		cmocka_unit_test(a_bar_grows_with_what_is_done_and_says_rate_and_time_left),
		cmocka_unit_test(in_a_log_there_are_few_lines_and_no_controls),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
