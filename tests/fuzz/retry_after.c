/* Retry-After: line 1 is the header's value, line 2 the Date header's, line 3 the
 * local clock in ms. The C library's own reading of dates is the oracle for the
 * usual form. */
#include <string.h>
#include <time.h>

#include "agent/policy.h"
#include "tests/fuzz/fuzz.h"

#define DAY_MS INT64_C(86400000)

/* A date in the form that servers use, spelt exactly so; ms since 1970. */
static bool usual_date(const char *text, int64_t *date)
{
	struct tm parts = { .tm_isdst = 0 };
	char again[64];
	static const char form[] = "%a, %d %b %Y %H:%M:%S GMT";
	const char *end = strptime(text, form, &parts);
	if (end == NULL || *end != '\0' || parts.tm_sec > 59)
		return false;
	time_t seconds = timegm(&parts);
	if (gmtime_r(&seconds, &parts) == NULL ||
	    strftime(again, sizeof again, form, &parts) == 0 || strcmp(again, text) != 0)
		return false;
	*date = (int64_t)seconds * 1000;
	return strlen(text) == 29;
}

int fuzz_retry_after(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	size_t length;
	char *value = take_line(&input, &length), *date = take_line(&input, &length);
	char *clock = take_line(&input, &length);
	int64_t wall = strtoll(clock, NULL, 10), now = wall, then;
	/* Of a wall clock nothing is asked but that it is one: within 30,000 years. */
	if (wall > INT64_C(1000000000000000) || wall < INT64_C(-1000000000000000))
		wall = now = 0;

	int64_t wait = policy_retry_after(value, date[0] != '\0' ? date : NULL, wall);
	HOLDS(wait >= -1 && wait <= DAY_MS);
	if (usual_date(value, &then) && (usual_date(date, &now) || date[0] == '\0')) {
		int64_t expected = then <= now ? 0 : then - now;
		HOLDS(wait == (expected < DAY_MS ? expected : DAY_MS));
	}
	if (strspn(value, "0123456789") == strlen(value) && strlen(value) > 0) {
		int64_t seconds = strlen(value) < 10 ? strtoll(value, NULL, 10) : DAY_MS;
		if (strlen(value) < 10)
			HOLDS(wait == (seconds * 1000 < DAY_MS ? seconds * 1000 : DAY_MS));
	}
	HOLDS(policy_retry_after(value, NULL, wall) >= -1);
	free(value);
	free(date);
	free(clock);
	return 0;
}
