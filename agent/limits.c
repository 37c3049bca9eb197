/* The limits in words; see limits.h. */
#include "agent/limits.h"

#include <inttypes.h>
#include <string.h>
#include <time.h>

#include "agent/words.h"

/* "14:05", and with the day where that is not within the next one. */
static const char *clock_of(int64_t at, int64_t now, char into[WORDS_SHORT])
{
	time_t then = (time_t)(at / 1000);
	struct tm parts;
	size_t wrote = 0;
	if (localtime_r(&then, &parts) != NULL) {
		if (at - now > INT64_C(86400000))
			wrote = strftime(into, WORDS_SHORT, "%m-%d %H:%M", &parts);
		else if (at - now < 60000)
			wrote = strftime(into, WORDS_SHORT, "%H:%M:%S", &parts);
		else
			wrote = strftime(into, WORDS_SHORT, "%H:%M", &parts);
	}
	if (wrote == 0)
		(void)snprintf(into, WORDS_SHORT, "a time unknown");
	return into;
}

/* The limit's own text, as the configuration has it. */
static const char *text_of(const struct report *report, const char *key,
                           char into[BUDGET_TEXT_SIZE])
{
	const struct budget_limits limits = {
		.rate = report->limit_rate, .rate_span = report->limit_rate_span,
		.bandwidth = report->limit_bandwidth, .daily = report->limit_daily
	};
	if (strcmp(key, "hours") == 0)
		(void)snprintf(into, BUDGET_TEXT_SIZE, "%s", report->limit_hours);
	else
		budget_text(&limits, key, into);
	return into;
}

static int64_t daily_left(const struct report *report)
{
	int64_t left = report->limit_daily - report->limit_spent;
	return left > 0 ? left : 0;
}

void limits_wait_words(const struct report *report, int64_t now, char into[LIMITS_WORDS_SIZE])
{
	char when[WORDS_SHORT], value[BUDGET_TEXT_SIZE];
	into[0] = '\0';
	if (report->limit[0] == '\0')
		return;
	(void)snprintf(into, LIMITS_WORDS_SIZE, "sends again at %s: [limits] %s = %s",
	               clock_of(report->limit_until, now, when), report->limit,
	               text_of(report, report->limit, value));
}

void limits_print(const struct report *report, int64_t now, FILE *out)
{
	char short_words[WORDS_SHORT], text[BUDGET_TEXT_SIZE], wait[LIMITS_WORDS_SIZE];
	const char *label = "limits       ", *next = "             ";
	limits_wait_words(report, now, wait);
	if (wait[0] != '\0') {
		(void)fprintf(out, "%s%s\n", label, wait);
		label = next;
	}
	if (report->limit_daily > 0) {
		(void)fprintf(out, "%s%s of today's %s left\n", label,
		              words_bytes(daily_left(report), short_words),
		              text_of(report, "daily", text));
		label = next;
	}
	if (report->limit_hours[0] != '\0' && strcmp(report->limit, "hours") != 0) {
		(void)fprintf(out, "%ssends at %s", label, report->limit_hours);
		if (report->limit_hours_end > 0)
			(void)fprintf(out, ", now until %s",
			              clock_of(report->limit_hours_end, now, short_words));
		(void)fprintf(out, "\n");
		label = next;
	}
	if (report->limit_rate > 0 || report->limit_bandwidth > 0)
		(void)fprintf(out, "%sat most", label);
	if (report->limit_rate > 0)
		(void)fprintf(out, " %s records", text_of(report, "rate", text));
	if (report->limit_bandwidth > 0)
		(void)fprintf(out, "%s %s", report->limit_rate > 0 ? " and" : "",
		              text_of(report, "bandwidth", text));
	if (report->limit_rate > 0 || report->limit_bandwidth > 0)
		(void)fprintf(out, "\n");
}

static bool add_number(cJSON *json, const char *name, int64_t value, bool known)
{
	return (known ? cJSON_AddNumberToObject(json, name, (double)value)
	              : cJSON_AddNullToObject(json, name)) != NULL;
}

bool limits_add_json(cJSON *json, const struct report *report)
{
	char rate[BUDGET_TEXT_SIZE];
	cJSON *limits = cJSON_AddObjectToObject(json, "limits");
	bool daily = report->limit_daily > 0;
	(void)text_of(report, "rate", rate);
	return limits != NULL && cJSON_AddStringToObject(limits, "rate", rate) != NULL &&
	       add_number(limits, "bandwidth", report->limit_bandwidth,
	                  report->limit_bandwidth > 0) &&
	       add_number(limits, "daily", report->limit_daily, daily) &&
	       add_number(limits, "daily_left", daily_left(report), daily) &&
	       cJSON_AddStringToObject(limits, "hours", report->limit_hours) != NULL &&
	       add_number(limits, "hours_end", report->limit_hours_end,
	                  report->limit_hours_end > 0) &&
	       cJSON_AddStringToObject(limits, "waits_for", report->limit) != NULL &&
	       add_number(limits, "until", report->limit_until, report->limit[0] != '\0');
}
