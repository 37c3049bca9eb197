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

void limits_words(const struct report *report, int64_t now,
                  void (*line)(void *context, const char *words), void *context)
{
	char words[LIMITS_WORDS_SIZE], text[BUDGET_TEXT_SIZE], other[BUDGET_TEXT_SIZE];
	limits_wait_words(report, now, words);
	if (words[0] != '\0')
		line(context, words);
	if (report->limit_daily > 0) {
		(void)snprintf(words, sizeof words, "%s of today's %s left",
		               words_bytes(daily_left(report), other), text_of(report, "daily", text));
		line(context, words);
	}
	if (report->limit_hours[0] != '\0' && strcmp(report->limit, "hours") != 0) {
		bool ends = report->limit_hours_end > 0;
		(void)snprintf(words, sizeof words, "sends at %s%s%s", report->limit_hours,
		               ends ? ", now until " : "",
		               ends ? clock_of(report->limit_hours_end, now, other) : "");
		line(context, words);
	}
	const char *rate = report->limit_rate > 0 ? text_of(report, "rate", text) : "";
	const char *bandwidth = report->limit_bandwidth > 0 ? text_of(report, "bandwidth", other) : "";
	if (report->limit_rate > 0 || report->limit_bandwidth > 0) {
		(void)snprintf(words, sizeof words, "at most %s%s%s%s", rate,
		               report->limit_rate > 0 ? " records" : "",
		               report->limit_rate > 0 && report->limit_bandwidth > 0 ? " and " : "",
		               bandwidth);
		line(context, words);
	}
}

#define DAY INT64_C(86400000)

/* How much of a day its hours are, ms: "01:00-05:00, 22:00-23:30", as budget_text() has it. */
static int64_t open_of_a_day(const char *hours)
{
	int64_t open = 0;
	int from_hour, from_minute, to_hour, to_minute, size;
	while (sscanf(hours, " %d:%d-%d:%d%n", &from_hour, &from_minute, &to_hour, &to_minute,
	              &size) == 4) {
		int minutes = (to_hour - from_hour) * 60 + to_minute - from_minute;
		open += (int64_t)(minutes > 0 ? minutes : minutes + 24 * 60) * 60000;
		hours += size;
		hours += strspn(hours, ", ");
	}
	return open > 0 && open < DAY ? open : DAY;
}

double limits_rate(const struct report *report, int64_t bytes)
{
	double rate = report->limit_rate > 0
	                      ? (double)report->limit_rate * 1000 / (double)report->limit_rate_span
	                      : 0;
	double by_bytes = report->limit_bandwidth > 0 && bytes > 0
	                          ? (double)report->limit_bandwidth / (double)bytes
	                          : 0;
	return by_bytes > 0 && (rate <= 0 || by_bytes < rate) ? by_bytes : rate;
}

int64_t limits_forecast(const struct report *report, int64_t now, int64_t waiting,
                        int64_t bytes, double rate)
{
	int64_t begin = report->limit[0] != '\0' && report->limit_until > now ? report->limit_until
	                                                                      : now;
	double work = (double)waiting * 1000 / rate, days = 0; /* ms of sending */
	if (report->limit_daily > 0 && begin < now + DAY) {
		/* Another day for each day's worth that does not fit in what is left. */
		bool spent = strcmp(report->limit, "daily") == 0;
		double rest = (double)bytes - (double)(spent ? report->limit_daily : daily_left(report));
		if (rest > 0)
			days = rest / (double)report->limit_daily;
	}
	if (report->limit_hours[0] != '\0') {
		int64_t open = open_of_a_day(report->limit_hours);
		int64_t left = report->limit_hours_end > begin ? report->limit_hours_end - begin : open;
		if (work > (double)left) {
			double more = (work - (double)left) / (double)open;
			days = more > days ? more : days;
		}
	}
	return begin + (int64_t)(days > 0 ? (days + 1) * (double)DAY : work);
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
