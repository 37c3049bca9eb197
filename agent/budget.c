/* The arithmetic of the limits; see budget.h.
 *
 * Rate and bandwidth are buckets kept as a single time: that up to which all that
 * went is paid for (the virtual scheduling form of a token bucket). It needs no
 * refilling, and says by itself when the next may go.
 */
#include "agent/budget.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DAY INT64_C(86400000)
#define MINUTE INT64_C(60000)
#define MINUTES_A_DAY 1440
#define RATE_MAX INT64_C(1000000)
#define BANDWIDTH_MIN INT64_C(1024)
#define DAILY_MIN INT64_C(65536)
#define BYTES_MAX (INT64_C(1) << 48)
/* Timers are late by a millisecond or so: where the posts of a rate stand close, as much
 * may be caught up with. The interval is stretched by it, so that no span has more posts
 * than the limit says. */
#define RATE_CLOSE 100 /* ms */
#define RATE_SLACK 20  /* ms */

/* --- The configuration's texts ------------------------------------------ */

static bool take_number(const char **text, int64_t *number)
{
	int64_t value = 0;
	if (**text < '0' || **text > '9')
		return false;
	for (; **text >= '0' && **text <= '9'; (*text)++)
		value = value > BYTES_MAX ? value : value * 10 + (**text - '0');
	*number = value;
	return true;
}

static bool take_bytes(const char **text, int64_t *bytes)
{
	static const char units[] = "KMG";
	if (!take_number(text, bytes))
		return false;
	char unit = **text == 'k' ? 'K' : **text;
	const char *known = unit != '\0' ? strchr(units, unit) : NULL;
	for (const char *each = units; known != NULL && each <= known; each++)
		*bytes = *bytes > BYTES_MAX ? *bytes : *bytes * 1024;
	*text += known != NULL;
	return *bytes <= BYTES_MAX;
}

static bool set_rate(struct budget_limits *limits, const char *text)
{
	int64_t rate, span;
	if (!take_number(&text, &rate) || rate < 1 || rate > RATE_MAX)
		return false;
	if (strcmp(text, "/s") == 0)
		span = 1000;
	else if (strcmp(text, "/m") == 0)
		span = MINUTE;
	else if (strcmp(text, "/h") == 0)
		span = 60 * MINUTE;
	else
		return false;
	limits->rate = rate;
	limits->rate_span = span;
	return true;
}

static bool set_bandwidth(struct budget_limits *limits, const char *text)
{
	int64_t bytes;
	if (!take_bytes(&text, &bytes) || strcmp(text, "/s") != 0 || bytes < BANDWIDTH_MIN)
		return false;
	limits->bandwidth = bytes;
	return true;
}

static bool set_daily(struct budget_limits *limits, const char *text)
{
	int64_t bytes;
	if (!take_bytes(&text, &bytes) || *text != '\0' || bytes < DAILY_MIN)
		return false;
	limits->daily = bytes;
	return true;
}

static bool take_clock(const char **text, int *minutes)
{
	int64_t hour, minute;
	const char *from = *text;
	if (!take_number(text, &hour) || *text - from > 2 || **text != ':')
		return false;
	from = ++*text;
	if (!take_number(text, &minute) || *text - from != 2 || minute > 59 || hour > 24 ||
	    (hour == 24 && minute > 0))
		return false;
	*minutes = (int)(hour * 60 + minute);
	return true;
}

static void skip_spaces(const char **text)
{
	while (**text == ' ')
		(*text)++;
}

static bool set_hours(struct budget_limits *limits, const char *text)
{
	struct budget_limits read = *limits;
	read.window_count = 0;
	for (;;) {
		struct budget_window window;
		skip_spaces(&text);
		if (read.window_count == BUDGET_WINDOWS_MAX || !take_clock(&text, &window.from))
			return false;
		skip_spaces(&text);
		if (*text++ != '-')
			return false;
		skip_spaces(&text);
		if (!take_clock(&text, &window.to) || window.from == MINUTES_A_DAY ||
		    window.from == window.to)
			return false;
		read.windows[read.window_count++] = window;
		skip_spaces(&text);
		if (*text == '\0')
			break;
		if (*text++ != ',')
			return false;
	}
	*limits = read;
	return true;
}

bool budget_set(struct budget_limits *limits, const char *key, const char *value)
{
	bool none = *value == '\0';
	if (strcmp(key, "rate") == 0) {
		if (none)
			limits->rate = limits->rate_span = 0;
		return none || set_rate(limits, value);
	}
	if (strcmp(key, "bandwidth") == 0) {
		if (none)
			limits->bandwidth = 0;
		return none || set_bandwidth(limits, value);
	}
	if (strcmp(key, "daily") == 0) {
		if (none)
			limits->daily = 0;
		return none || set_daily(limits, value);
	}
	if (none)
		limits->window_count = 0;
	return strcmp(key, "hours") == 0 && (none || set_hours(limits, value));
}

static void hours_text(const struct budget_limits *limits, char into[BUDGET_TEXT_SIZE])
{
	size_t used = 0;
	into[0] = '\0';
	for (size_t i = 0; i < limits->window_count; i++) {
		const struct budget_window *window = &limits->windows[i];
		int wrote = snprintf(into + used, BUDGET_TEXT_SIZE - used, "%s%02d:%02d-%02d:%02d",
		                     i > 0 ? ", " : "", window->from / 60, window->from % 60,
		                     window->to / 60, window->to % 60);
		/* not covered: there is room for as many windows as there may be */
		if (wrote < 0 || (size_t)wrote >= BUDGET_TEXT_SIZE - used)
			return;
		used += (size_t)wrote;
	}
}

static void bytes_text(int64_t bytes, const char *after, char into[BUDGET_TEXT_SIZE])
{
	static const char units[] = "KMG";
	size_t unit = 0;
	for (; unit < 3 && bytes % 1024 == 0; unit++)
		bytes /= 1024;
	(void)snprintf(into, BUDGET_TEXT_SIZE, "%" PRId64 "%.*s%s", bytes, unit > 0,
	               units + (unit > 0 ? unit - 1 : 0), after);
}

void budget_text(const struct budget_limits *limits, const char *key,
                 char into[BUDGET_TEXT_SIZE])
{
	into[0] = '\0';
	if (strcmp(key, "rate") == 0 && limits->rate > 0)
		(void)snprintf(into, BUDGET_TEXT_SIZE, "%" PRId64 "/%c", limits->rate,
		               limits->rate_span <= 1000 ? 's' : limits->rate_span <= MINUTE ? 'm' : 'h');
	else if (strcmp(key, "bandwidth") == 0 && limits->bandwidth > 0)
		bytes_text(limits->bandwidth, "/s", into);
	else if (strcmp(key, "daily") == 0 && limits->daily > 0)
		bytes_text(limits->daily, "", into);
	else if (strcmp(key, "hours") == 0)
		hours_text(limits, into);
}

const char *budget_name(enum budget_limit limit)
{
	static const char *const names[] = { "", "rate", "bandwidth", "daily", "hours" };
	return names[limit];
}

/* --- The calendar ------------------------------------------------------- */

static int64_t day_of(int64_t local)
{
	return local >= 0 ? local / DAY : -((-local + DAY - 1) / DAY);
}

/* ms from `local` until the clock shows `minutes` next; 0: just now. */
static int64_t until_clock(int64_t local, int minutes)
{
	int64_t left = minutes * MINUTE - (local - day_of(local) * DAY);
	return left >= 0 ? left : left + DAY;
}

static bool is_inside(const struct budget_window *window, int64_t local)
{
	int64_t minute = (local - day_of(local) * DAY) / MINUTE;
	if (window->from < window->to)
		return minute >= window->from && minute < window->to;
	return minute >= window->from || minute < window->to;
}

/* ms from `local` until posts may go. */
static int64_t until_open(const struct budget_limits *limits, int64_t local)
{
	int64_t least = limits->window_count > 0 ? DAY : 0;
	for (size_t i = 0; i < limits->window_count; i++) {
		const struct budget_window *window = &limits->windows[i];
		int64_t wait = is_inside(window, local) ? 0 : until_clock(local, window->from);
		if (wait < least)
			least = wait;
	}
	return least;
}

int64_t budget_open_for(const struct budget_limits *limits, int64_t local)
{
	int64_t at = local;
	/* Windows may touch, or overlap. */
	for (size_t i = 0; i <= limits->window_count && at - local < DAY; i++) {
		int64_t longest = 0;
		for (size_t j = 0; j < limits->window_count; j++) {
			int64_t left = until_clock(at, limits->windows[j].to % MINUTES_A_DAY);
			left = left > 0 ? left : DAY; /* just begun, and all of the day */
			if (is_inside(&limits->windows[j], at) && left > longest)
				longest = left;
		}
		if (longest == 0)
			break;
		at += longest;
	}
	return at > local && at - local < DAY ? at - local : -1;
}

/* --- Spending ----------------------------------------------------------- */

int64_t budget_cost(int64_t size)
{
	/* Headers of the request and of its answer, TLS records, and those of the packets. */
	return size + size / 25 + 900;
}

void budget_look(struct budget *budget, const struct budget_limits *limits,
                 struct budget_time time)
{
	if (limits->daily == 0 || budget->day == day_of(time.local))
		return;
	budget->day = day_of(time.local);
	budget->spent = 0;
	budget->full = false;
}

static int64_t interval(const struct budget_limits *limits, int64_t *slack)
{
	*slack = limits->rate_span / limits->rate < RATE_CLOSE ? RATE_SLACK : 0;
	int64_t span = (limits->rate_span + *slack) * 1000;
	return (span + limits->rate - 1) / limits->rate;
}

/* Rounded up to whole ms, so that whoever comes then may go. */
static int64_t free_at(int64_t paid_until, int64_t slack)
{
	int64_t at = paid_until - slack * 1000;
	return at > 0 ? (at + 999) / 1000 : 0;
}

static void prefer(enum budget_limit *chosen, int64_t *until, enum budget_limit limit,
                   int64_t at, int64_t now)
{
	if (at <= now || at <= *until)
		return;
	*chosen = limit;
	*until = at;
}

enum budget_limit budget_wait(const struct budget *budget, const struct budget_limits *limits,
                              struct budget_time time, int64_t *until)
{
	enum budget_limit chosen = BUDGET_FREE;
	int64_t slack, wait = 0;
	*until = time.now;
	if (limits->rate > 0) {
		(void)interval(limits, &slack);
		prefer(&chosen, until, BUDGET_RATE, free_at(budget->rate_free, slack), time.now);
	}
	if (limits->bandwidth > 0)
		prefer(&chosen, until, BUDGET_BANDWIDTH, free_at(budget->bandwidth_free, BUDGET_BURST),
		       time.now);
	if (limits->daily > 0 && (budget->full || budget->spent >= limits->daily)) {
		wait = (day_of(time.local) + 1) * DAY - time.local;
		prefer(&chosen, until, BUDGET_DAILY, time.now + wait, time.now);
	}
	/* Where the day's budget is spent, the hours of tomorrow count. */
	prefer(&chosen, until, BUDGET_HOURS, time.now + wait + until_open(limits, time.local + wait),
	       time.now);
	return chosen;
}

bool budget_fits(struct budget *budget, const struct budget_limits *limits, int64_t bytes)
{
	if (limits->daily == 0)
		return true;
	bool large = bytes > limits->daily - limits->daily / 10;
	budget->full = large ? budget->spent > limits->daily / 10
	                     : budget->spent + bytes > limits->daily;
	return !budget->full;
}

static int64_t line_time(const struct budget_limits *limits, int64_t bytes)
{
	return bytes / limits->bandwidth * 1000000 +
	       bytes % limits->bandwidth * 1000000 / limits->bandwidth;
}

static int64_t latest(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

void budget_spend(struct budget *budget, const struct budget_limits *limits, int64_t now,
                  int64_t bytes)
{
	int64_t slack;
	if (limits->rate > 0)
		budget->rate_free = latest(budget->rate_free, now * 1000) + interval(limits, &slack);
	budget_correct(budget, limits, now, bytes);
}

void budget_correct(struct budget *budget, const struct budget_limits *limits, int64_t now,
                    int64_t bytes)
{
	if (limits->bandwidth > 0)
		budget->bandwidth_free = latest(budget->bandwidth_free, now * 1000) +
		                         line_time(limits, bytes);
	if (limits->daily == 0)
		return;
	budget->spent = latest(budget->spent + bytes, 0);
	if (bytes < 0)
		budget->full = false;
}

void budget_adapt(struct budget *budget, const struct budget_limits *limits, int64_t now)
{
	int64_t slack, most;
	if (limits->rate > 0) {
		most = now * 1000 + interval(limits, &slack) + slack * 1000;
		budget->rate_free = budget->rate_free < most ? budget->rate_free : most;
	}
	if (limits->bandwidth > 0) {
		most = (now + BUDGET_BURST) * 1000;
		budget->bandwidth_free = budget->bandwidth_free < most ? budget->bandwidth_free : most;
	}
	budget->full = false;
}

/* --- The day's count, kept over a restart -------------------------------- */

void budget_to_note(const struct budget *budget, char into[BUDGET_NOTE_SIZE])
{
	(void)snprintf(into, BUDGET_NOTE_SIZE, "%" PRId64 " %" PRId64, budget->day, budget->spent);
}

bool budget_from_note(struct budget *budget, const char *note)
{
	int64_t day, spent;
	const char *at = note;
	if (!take_number(&at, &day) || *at++ != ' ' || !take_number(&at, &spent) || *at != '\0')
		return false;
	budget->day = day;
	budget->spent = spent;
	return true;
}
