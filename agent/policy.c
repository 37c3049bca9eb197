/* What an answer means: the delivery rules as one table, and the arithmetic of
 * waiting.
 *
 * Only a success that says so in JSON, or says nothing, may take a row out of
 * the spool: "any 2xx" once deleted data for the page of a hotel's portal. So
 * whatever cannot be read for certain counts as unavailable and nothing is
 * lost. Must never quote the server: it may quote people.
 */
#include "agent/policy.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "agent/json.h"

#define DAY_MS INT64_C(86400000)

struct rule {
	int first, last; /* statuses */
	enum verdict verdict;
	bool whole;
	const char *code, *sentence;
};

/* The first that fits counts. */
static const struct rule rules[] = {
	{ 300, 399, VERDICT_ENDPOINT_HELD, false, "redirect",
	  "the endpoint answered with a redirect, which is never followed: the url of the "
	  "configuration must be the final one" },
	{ 400, 400, VERDICT_REJECTED, false, "bad-request",
	  "the endpoint answered 400: it does not accept this record" },
	{ 401, 401, VERDICT_APP_HELD, false, "unauthorized",
	  "the endpoint answered 401: it does not accept the keys of this app" },
	{ 403, 403, VERDICT_APP_HELD, false, "forbidden",
	  "the endpoint answered 403: the keys of this app may not do this" },
	{ 404, 404, VERDICT_ENDPOINT_HELD, false, "not-found",
	  "the endpoint answered 404: nothing is there under the url of the configuration" },
	{ 405, 405, VERDICT_ENDPOINT_HELD, false, "method-not-allowed",
	  "the endpoint answered 405: the url of the configuration takes no posts" },
	{ 407, 407, VERDICT_ENDPOINT_HELD, false, "proxy-authentication",
	  "the answer was 407: the proxy wants a user and a password" },
	{ 408, 408, VERDICT_UNAVAILABLE, false, "request-timeout",
	  "the endpoint answered 408: the record took too long to arrive" },
	{ 409, 409, VERDICT_BUSY, false, "conflict",
	  "the endpoint answered 409: it is busy with this very record" },
	{ 413, 413, VERDICT_REJECTED, false, "too-large",
	  "the endpoint answered 413: the record is too large for it" },
	{ 415, 415, VERDICT_REJECTED, false, "unsupported-type",
	  "the endpoint answered 415: it does not take records of this type" },
	{ 422, 422, VERDICT_REJECTED, false, "unprocessable",
	  "the endpoint answered 422: it cannot make sense of this record" },
	{ 425, 425, VERDICT_UNAVAILABLE, false, "too-early",
	  "the endpoint answered 425: it wants the record again a little later" },
	{ 429, 429, VERDICT_UNAVAILABLE, true, "too-many-requests",
	  "the endpoint answered 429: it takes fewer records at a time" },
	{ 400, 499, VERDICT_ENDPOINT_HELD, false, "refused",
	  "the endpoint refuses posts with a status in the 400s that no record is to blame for: "
	  "the url of the configuration may be another service's" },
	{ 502, 502, VERDICT_UNAVAILABLE, false, "bad-gateway",
	  "the endpoint answered 502: what stands behind it cannot be reached" },
	{ 503, 503, VERDICT_UNAVAILABLE, false, "overloaded",
	  "the endpoint answered 503: it cannot take records at the moment" },
	{ 504, 504, VERDICT_UNAVAILABLE, false, "gateway-timeout",
	  "the endpoint answered 504: what stands behind it did not answer in time" },
	{ 500, 599, VERDICT_UNAVAILABLE, false, "server-error",
	  "the endpoint answered with a status in the 500s: something went wrong on its side" },
};

static const struct rule odd_status = {
	0, 0, VERDICT_UNAVAILABLE, false, "odd-status",
	"the endpoint answered with a status that is not a final one"
};

static const struct rule delivered = { 0, 0, VERDICT_DELIVERED, false, "delivered",
	                                   "the endpoint took the record" };
static const struct rule not_ok = {
	0, 0, VERDICT_REJECTED, false, "status-not-ok",
	"the endpoint answered that it did not take the record (its status is not \"ok\")"
};
static const struct rule not_json = {
	0, 0, VERDICT_UNAVAILABLE, false, "not-json",
	"the answer says success but is not the endpoint's: it is not JSON. A proxy or a portal "
	"may have answered instead"
};
static const struct rule too_long = {
	0, 0, VERDICT_UNAVAILABLE, false, "answer-too-long",
	"the answer says success but is too long to be the endpoint's. A proxy or a portal may "
	"have answered instead"
};
static const struct rule open_ended = {
	0, 0, VERDICT_UNAVAILABLE, false, "answer-without-end",
	"the answer says success, but has neither a body nor a length: it may have been cut off; an "
	"endpoint that means it sends Content-Length: 0, or 204"
};
static const struct rule unreadable = {
	0, 0, VERDICT_UNAVAILABLE, false, "answer-unreadable",
	"the answer says success and is JSON, but its status could not be read"
};

/* What did not end in an HTTP answer. */
static const struct rule without_answer[] = {
	[ANSWER_NO_CONNECTION] = { 0, 0, VERDICT_UNAVAILABLE, true, "no-connection",
	                           "the endpoint could not be reached" },
	[ANSWER_BROKEN] = { 0, 0, VERDICT_UNAVAILABLE, false, "connection-broken",
	                    "the connection to the endpoint broke before its answer was complete" },
	[ANSWER_TIMEOUT] = { 0, 0, VERDICT_UNAVAILABLE, false, "timeout",
	                     "the endpoint did not answer in time" },
	[ANSWER_CERTIFICATE] = { 0, 0, VERDICT_ENDPOINT_HELD, false, "certificate",
	                         "the endpoint's certificate was refused, so nothing was sent: is "
	                         "the url right, and must a ca_file be set?" },
	/* Whole, because no record is to blame for a lack of memory. */
	[ANSWER_LOCAL] = { 0, 0, VERDICT_UNAVAILABLE, true, "local",
	                   "this machine had no memory or no descriptors left for the request" },
};

static bool is_blank(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (memchr(" \t\r\n", text[i], 4) == NULL)
			return false;
	return true;
}

/* A copy in which each escape of what is not ASCII, or is a NUL, stands for another
 * character. cJSON ends a text at a NUL, so that "ok\u0000" would be read as "ok", and
 * refuses half a surrogate pair; no such text is one of those that are looked for. */
static char *without_odd_escapes(const char *body, size_t size)
{
	char *copy = malloc(size);
	if (copy == NULL)
		return NULL;
	memcpy(copy, body, size);
	/* The text is valid: a backslash has its letter, and a 'u' its four digits. */
	for (char *at = copy, *end = copy + size; at < end; at++) {
		if (*at != '\\')
			continue;
		at++;
		if (*at == 'u' && (memcmp(at + 1, "00", 2) != 0 || at[3] > '7' ||
		                   memcmp(at + 3, "00", 2) == 0))
			memcpy(at + 1, "0001", 4);
	}
	return copy;
}

/* An object with several members `status` is taken at its worst. */
static const struct rule *judge_object(const char *body, size_t size)
{
	char *copy = without_odd_escapes(body, size);
	cJSON *object = copy != NULL ? cJSON_ParseWithLength(copy, size) : NULL;
	const struct rule *rule = &delivered;
	const cJSON *member;

	free(copy);

	/* Judged valid before, so: no memory, or one of cJSON's own limits. */
	if (object == NULL)
		return &unreadable;
	cJSON_ArrayForEach(member, object)
	{
		if (strcmp(member->string, "status") != 0)
			continue;
		if (!cJSON_IsString(member) || strcmp(member->valuestring, "ok") != 0)
			rule = &not_ok;
	}
	cJSON_Delete(object);
	return rule;
}

static const struct rule *judge_success(const struct answer *answer)
{
	static const char usual[] = "{\"status\":\"ok\"}";
	if (answer->body_cut)
		return &too_long;
	if (answer->body_size == sizeof usual - 1 &&
	    memcmp(answer->body, usual, sizeof usual - 1) == 0)
		return &delivered; /* what nearly every answer is needs no parser */
	/* Whoever can end the connection, which TLS does not keep anybody from, could make
	 * nothing of what would have said "error". */
	if (answer->body == NULL || is_blank(answer->body, answer->body_size))
		return answer->open_ended ? &open_ended : &delivered;
	switch (json_check(answer->body, answer->body_size)) {
	case JSON_INVALID:
		return &not_json;
	case JSON_OBJECT:
		return judge_object(answer->body, answer->body_size);
	case JSON_ARRAY:
	case JSON_STRING:
	case JSON_NUMBER:
	case JSON_WORD:
		break;
	}
	return &delivered;
}

static const struct rule *judge_status(const struct answer *answer)
{
	if (answer->status >= 200 && answer->status <= 299)
		return judge_success(answer);
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (answer->status >= rules[i].first && answer->status <= rules[i].last)
			return &rules[i];
	return &odd_status;
}

struct judgement policy_judge(const struct answer *answer, int64_t wall)
{
	bool http = answer->kind == ANSWER_HTTP;
	const struct rule *rule = http ? judge_status(answer) : &without_answer[answer->kind];

	return (struct judgement){
		.verdict = rule->verdict,
		.code = rule->code,
		.sentence = rule->sentence,
		.whole = rule->whole,
		.retry_after =
		    http ? policy_retry_after(answer->retry_after, answer->date, wall) : -1,
	};
}

/* ---------------------------------------------------------------- Retry-After */

/* Takes `word` from the front of the text. */
static bool take(const char **text, const char *word)
{
	size_t size = strlen(word);

	if (strncmp(*text, word, size) != 0)
		return false;
	*text += size;
	return true;
}

/* Takes one of `count` words and stores which. */
static bool take_word(const char **text, const char *const *words, int count, int *index)
{
	for (int i = 0; i < count; i++)
		if (take(text, words[i])) {
			*index = i;
			return true;
		}
	return false;
}

/* Takes exactly `digits` digits, or with a leading space one fewer. */
static bool take_digits(const char **text, int digits, bool padded, int *number)
{
	int value = 0;

	for (int i = 0; i < digits; i++) {
		char c = (*text)[i];

		if (padded && i == 0 && c == ' ')
			continue;
		if (c < '0' || c > '9')
			return false;
		value = value * 10 + (c - '0');
	}
	*text += digits;
	*number = value;
	return true;
}

static bool is_leap(int year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

/* Days since 1970-01-01 of a day in the Gregorian calendar, years 0 to 9999. */
static int64_t day_number(int year, int month, int day)
{
	static const int before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334 };
	int64_t days = (int64_t)year * 365 + before[month] + day - 1;

	/* Leap days up to the end of February of this year. */
	if (month > 1)
		year++;
	days += (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
	return days - 719528;
}

/* An HTTP-date in any of the three forms of RFC 9110, 5.6.7, to the letter and
 * in no locale but its own. `now` settles the century of the two-digit form. */
static bool parse_date(const char *text, int64_t now, int64_t *date)
{
	static const char *const short_days[] = { "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun" };
	static const char *const long_days[] = { "Monday", "Tuesday",  "Wednesday", "Thursday",
		                                     "Friday", "Saturday", "Sunday" };
	static const char *const months[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
		                                  "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
	static const int lengths[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int weekday, day, month, year, hour, minute, second;
	bool two_digits = false, gmt = true;
	const char *start = text;

	if (take_word(&text, long_days, 7, &weekday) && take(&text, ", ")) {
		two_digits = true;
		if (!take_digits(&text, 2, false, &day) || !take(&text, "-") ||
		    !take_word(&text, months, 12, &month) || !take(&text, "-") ||
		    !take_digits(&text, 2, false, &year) || !take(&text, " "))
			return false;
	} else {
		text = start;
		if (!take_word(&text, short_days, 7, &weekday))
			return false;
		if (take(&text, ", ")) {
			if (!take_digits(&text, 2, false, &day) || !take(&text, " ") ||
			    !take_word(&text, months, 12, &month) || !take(&text, " ") ||
			    !take_digits(&text, 4, false, &year) || !take(&text, " "))
				return false;
		} else {
			gmt = false;
			if (!take(&text, " ") || !take_word(&text, months, 12, &month) ||
			    !take(&text, " ") || !take_digits(&text, 2, true, &day) || !take(&text, " "))
				return false;
		}
	}
	if (!take_digits(&text, 2, false, &hour) || !take(&text, ":") ||
	    !take_digits(&text, 2, false, &minute) || !take(&text, ":") ||
	    !take_digits(&text, 2, false, &second))
		return false;
	if (gmt ? !take(&text, " GMT")
	        : !take(&text, " ") || !take_digits(&text, 4, false, &year))
		return false;
	if (*text != '\0')
		return false;
	if (two_digits) {
		/* The year within fifty of now. */
		int64_t this_year = 1970 + now / DAY_MS * 100 / 36525;

		if (this_year < 0 || this_year > 9900)
			return false;
		year += (int)(this_year - this_year % 100);
		if (year > this_year + 50)
			year -= 100;
		else if (year <= this_year - 50)
			year += 100;
		if (year < 0)
			return false;
	}
	if (day < 1 || day > lengths[month] + (month == 1 && is_leap(year) ? 1 : 0) || hour > 23 ||
	    minute > 59 || second > 60)
		return false;
	*date = (day_number(year, month, day) * 86400 + hour * 3600 + minute * 60 + second) * 1000;
	return true;
}

int64_t policy_retry_after(const char *value, const char *date, int64_t wall)
{
	char text[64];
	int64_t now, then;
	size_t size, digits;

	if (value == NULL)
		return -1;
	value += strspn(value, " \t");
	size = strlen(value);
	while (size > 0 && (value[size - 1] == ' ' || value[size - 1] == '\t'))
		size--;
	digits = strspn(value, "0123456789");
	if (digits > 0 && digits == size) {
		int64_t wait = 0;

		for (size_t i = 0; i < digits && wait < DAY_MS; i++)
			wait = wait * 10 + (value[i] - '0') * INT64_C(1000);
		return wait < DAY_MS ? wait : DAY_MS;
	}
	/* The longest form has 33 characters. */
	if (size >= sizeof(text))
		return -1;
	memcpy(text, value, size);
	text[size] = '\0';
	if (date == NULL || !parse_date(date, wall, &now))
		now = wall;
	if (!parse_date(text, now, &then))
		return -1;
	if (then <= now)
		return 0;
	return now < then - DAY_MS ? DAY_MS : then - now;
}

/* -------------------------------------------------------------------- backoff */

int64_t policy_backoff(unsigned failures, int64_t base, int64_t cap, uint64_t random)
{
	int64_t limit = base < 1 ? 1 : base;

	for (unsigned i = 1; i < failures && limit < cap; i++)
		limit = limit > cap / 2 ? cap : limit * 2;
	if (limit > cap)
		limit = cap;
	if (limit < 1)
		return 1;
	/* The bias of the remainder is below one in 10^11 for waits of up to a day. */
	return 1 + (int64_t)(random % (uint64_t)limit);
}
