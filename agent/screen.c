/* The status for a person; see screen.h. */
#include "agent/screen.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "agent/findings.h"
#include "agent/limits.h"

#define SPAN_SIZE 48
#define INDENT 13
#define TOGETHER '\t' /* a space at which no line is broken */
#define WIDTH_LEAST 40
#define WIDTH_MOST 100 /* longer lines are hard to read */

bool screen_is_terminal(int file)
{
	const char *kind = getenv("TERM");
	return isatty(file) == 1 && kind != NULL && kind[0] != '\0' && strcmp(kind, "dumb") != 0;
}

struct screen screen_for(int file)
{
	struct screen screen = { .width = 0 };
	struct winsize size;
	if (isatty(file) != 1)
		return screen;
	const char *plain = getenv("NO_COLOR");
	screen.colours = screen_is_terminal(file) && (plain == NULL || plain[0] == '\0');
	screen.width = ioctl(file, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
	if (screen.width < WIDTH_LEAST)
		screen.width = WIDTH_LEAST;
	if (screen.width > WIDTH_MOST)
		screen.width = WIDTH_MOST;
	return screen;
}

/* --- Figures in words --------------------------------------------------- */

static const char *span(int64_t ms, char into[SPAN_SIZE])
{
	int64_t seconds = ms > 0 ? ms / 1000 : 0;
	if (seconds < 60)
		(void)snprintf(into, SPAN_SIZE, "%" PRId64 " s", seconds);
	else if (seconds < 3600)
		(void)snprintf(into, SPAN_SIZE, "%" PRId64 " min %" PRId64 " s", seconds / 60,
		               seconds % 60);
	else if (seconds < 86400)
		(void)snprintf(into, SPAN_SIZE, "%" PRId64 " h %" PRId64 " min", seconds / 3600,
		               seconds % 3600 / 60);
	else
		(void)snprintf(into, SPAN_SIZE, "%" PRId64 " days %" PRId64 " h", seconds / 86400,
		               seconds % 86400 / 3600);
	return into;
}

static const char *amount(int64_t bytes, char into[SPAN_SIZE])
{
	double value = (double)bytes;
	const char *unit = "bytes";
	if (bytes >= 1 << 30) {
		value /= 1 << 30;
		unit = "GiB";
	} else if (bytes >= 1 << 20) {
		value /= 1 << 20;
		unit = "MiB";
	} else if (bytes >= 1 << 10) {
		value /= 1 << 10;
		unit = "KiB";
	}
	(void)snprintf(into, SPAN_SIZE, bytes >= 1 << 10 ? "%.1f %s" : "%.0f %s", value, unit);
	return into;
}

static const char *moment(int64_t at, char into[SPAN_SIZE])
{
	time_t seconds = (time_t)(at / 1000);
	struct tm parts;
	if (localtime_r(&seconds, &parts) == NULL ||
	    strftime(into, SPAN_SIZE, "%Y-%m-%d %H:%M:%S", &parts) == 0)
		(void)snprintf(into, SPAN_SIZE, "an unknown time");
	return into;
}

/* --- Lines -------------------------------------------------------------- */

/* The columns that a byte takes: what continues a UTF-8 character takes none. */
static int columns_of(const char *text, size_t size)
{
	int columns = 0;
	for (size_t i = 0; i < size; i++)
		columns += ((unsigned char)text[i] & 0xc0) != 0x80;
	return columns;
}

static void put_word(FILE *out, const char *word, size_t size)
{
	for (size_t i = 0; i < size; i++)
		(void)fputc(word[i] == TOGETHER                                   ? ' '
		            : (unsigned char)word[i] < 0x20 || word[i] == 0x7f ? '?'
		                                                               : word[i], out);
}

void screen_wrap(const struct screen *screen, FILE *out, int at, int indent, const char *text)
{
	bool first = true;
	while (*text != '\0') {
		size_t gap = strspn(text, " "), size = strcspn(text + gap, " ");
		int columns = columns_of(text + gap, size);
		if (!first && screen->width > 0 && at + (int)gap + columns > screen->width) {
			(void)fprintf(out, "\n%*s", indent, "");
			at = indent;
		} else if (!first) {
			(void)fprintf(out, "%*s", (int)gap, "");
			at += (int)gap;
		}
		put_word(out, text + gap, size);
		at += columns;
		text += gap + size;
		first = false;
	}
	(void)fputc('\n', out);
}

__attribute__((format(printf, 4, 5))) static void
say(const struct screen *screen, FILE *out, const char *label, const char *format, ...)
{
	char text[2048];
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	(void)fprintf(out, "%-*s", INDENT, label);
	screen_wrap(screen, out, INDENT, INDENT, text);
}

/* --- The verdict -------------------------------------------------------- */

static void put_head(const struct screen *screen, FILE *out, const char *colour,
                     const char *word, const char *text)
{
	(void)fprintf(out, "%s%s%s: ", screen->colours ? colour : "", word,
	              screen->colours ? "\033[0m" : "");
	screen_wrap(screen, out, (int)strlen(word) + 2, 4, text);
}

static void print_verdict(const struct screen *screen, const struct status *status, FILE *out)
{
	static const char *const words[] = { "NOTE", "WARNING", "PROBLEM" };
	static const char *const colours[] = { "\033[1;36m", "\033[1;33m", "\033[1;31m" };
	struct finding found[FINDINGS_MAX];
	size_t count = findings_collect(status, found);
	if (count == 0)
		put_head(screen, out, "\033[1;32m", "ALL IS WELL",
		         status->ledger.waiting == 0 ? "the agent runs, and nothing waits"
		                                     : "the agent runs, and what waits is being sent");
	for (size_t i = 0; i < count; i++) {
		put_head(screen, out, colours[found[i].level], words[found[i].level],
		         found[i].sentence);
		if (found[i].advice[0] != '\0') {
			(void)fprintf(out, "    do: ");
			screen_wrap(screen, out, 8, 8, found[i].advice);
		}
	}
	(void)fputc('\n', out);
}

/* --- The facts ---------------------------------------------------------- */

static void print_agent(const struct screen *screen, const struct status *status, FILE *out)
{
	const struct report *report = &status->report;
	char time[SPAN_SIZE], pid[32] = "";
	if (status->pid > 0)
		(void)snprintf(pid, sizeof pid, " (pid %ld)", (long)status->pid);
	if (!status->running)
		say(screen, out, "agent", "not running");
	else if (!status->live)
		say(screen, out, "agent", "running%s, but does not answer: what follows is as of %s", pid,
		    moment(report->as_of, time));
	else
		say(screen, out, "agent", "running%s for %s", pid,
		    span(status->now - report->started_at, time));
	say(screen, out, "spool", "%s", status->spool_path);
}

static void print_delivering(const struct screen *screen, const struct status *status, FILE *out)
{
	const struct report *report = &status->report;
	char time[SPAN_SIZE], last[80] = "", under_way[64] = "", state[48];
	if (report->last_delivered_at > 0)
		(void)snprintf(last, sizeof last, ", last delivery %s ago",
		               span(status->now - report->last_delivered_at, time));
	else if (status->live)
		(void)snprintf(last, sizeof last, ", nothing delivered yet since its start");
	if (status->live && report->in_flight > 0)
		(void)snprintf(under_way, sizeof under_way, ", %" PRId64 " under way",
		               report->in_flight);
	(void)snprintf(state, sizeof state, "no, %s%s",
	               report->state == DESTINATION_PAUSED ? "" : "the endpoint is ",
	               report_state_name(report->state));
	const char *word = !status->running ? "no, the agent does not run"
	                   : !status->live  ? "not known"
	                   : report->state != DESTINATION_UP ? state
	                   : report->in_flight == 0 && report_is_closed(report)
	                           ? "no, the limits do not allow it now"
	                   : report->delivered_10s > 0 || report->in_flight > 0 ? "yes"
	                   : status->ledger.waiting == 0 ? "there is nothing to deliver"
	                                                 : "not at the moment";
	say(screen, out, "delivering", "%s%s%s", word, under_way, last);
}

static void print_waiting(const struct screen *screen, const struct status *status, FILE *out)
{
	const struct spool_ledger *ledger = &status->ledger;
	char size[SPAN_SIZE], age[SPAN_SIZE];
	const char *what = ledger->waiting == 1 ? "record" : "records";
	if (ledger->waiting == 0)
		say(screen, out, "waiting", "nothing");
	else if (ledger->oldest_at < 0)
		say(screen, out, "waiting", "%" PRId64 " %s", ledger->waiting, what);
	else
		say(screen, out, "waiting", "%" PRId64 " %s%s, %s%s, the oldest for %s", ledger->waiting,
		    what, ledger->counted   ? ""
		          : ledger->damaged ? " (by the ledger: some cannot be read)"
		                            : " (by the ledger: too many to count)",
		    amount(ledger->bytes, size), ledger->dead_counted > 0 ? " with the dead" : "",
		    span(status->now - ledger->oldest_at, age));
}

static void print_destination(const struct screen *screen, const struct status *status, FILE *out)
{
	const struct report *report = &status->report;
	char since[SPAN_SIZE], when[SPAN_SIZE];
	int64_t last = status->live ? status->now : report->as_of; /* nobody tried since */
	switch (report->state) {
	case DESTINATION_UP:
		if (!status->reported)
			say(screen, out, "destination", "up as far as is known: nothing was tried yet");
		else if (report->since > 0)
			say(screen, out, "destination", "up, since %s", moment(report->since, when));
		else
			say(screen, out, "destination", "up as far as is known");
		break;
	case DESTINATION_DOWN:
		if (!status->running)
			say(screen, out, "destination", "was down since %s, %u %s failed; nothing is lost",
			    moment(report->since, when), report->failures,
			    report->failures == 1 ? "try" : "tries");
		else
			say(screen, out, "destination", "down for %s, %u %s failed; nothing is lost, it is "
			    "retried", span(last - report->since, since), report->failures,
			    report->failures == 1 ? "try" : "tries");
		break;
	case DESTINATION_HELD:
		say(screen, out, "destination", "held for %s: every record waits until this is put "
		    "right", span(last - report->since, since));
		break;
	case DESTINATION_PAUSED:
		say(screen, out, "destination", "paused since %s", moment(report->since, when));
		break;
	case DESTINATION_UNCONFIGURED:
		say(screen, out, "destination", "unconfigured");
		break;
	}
	if (report->state != DESTINATION_UP && report->reason[0] != '\0')
		say(screen, out, report->state == DESTINATION_PAUSED ? "" : "last error", "%s",
		    report->reason);
	if (!status->running && status->reported)
		say(screen, out, "", "(as of %s, when the agent last said so)",
		    moment(report->as_of, when));
	if (status->live && report->next_try_at > 0)
		say(screen, out, "next try", "in %s, at %s",
		    span(report->next_try_at - status->now, since), moment(report->next_try_at, when));
	for (size_t i = 0; i < report->app_count; i++)
		if (report->apps[i].held)
			say(screen, out, "app held", "%s: %s", report->apps[i].name, report->apps[i].reason);
}

static void print_rate(const struct screen *screen, const struct status *status, FILE *out)
{
	const struct report *report = &status->report;
	int64_t gone_at = status_backlog_gone_at(status);
	double arrivals = status_arrivals(status);
	char left[SPAN_SIZE], when[SPAN_SIZE], more[48] = "if no more comes";
	if (!status->live)
		return;
	say(screen, out, "rate", "%.1f records/s, %" PRId64 " in the last 10 s, %" PRId64 " in the "
	    "last minute", status_rate(status), report->delivered_10s, report->delivered_60s);
	if (arrivals > 0)
		(void)snprintf(more, sizeof more, "while %.1f/s come in", arrivals);
	if (gone_at >= 0)
		say(screen, out, "forecast", "the backlog is gone in about %s, at %s, %s",
		    span(gone_at - status->now, left), moment(gone_at, when), more);
	else if (status->ledger.waiting > 0 && status_holds_back(status))
		say(screen, out, "forecast", "none, as not all that waits can go");
	else if (status->ledger.waiting > 0 && status_rate(status) > 0 &&
	         report->state == DESTINATION_UP)
		say(screen, out, "forecast", "the backlog does not get smaller %s", more);
	else if (status->ledger.waiting > 0)
		say(screen, out, "forecast", "none, as nothing is being delivered");
}

static void print_dead(const struct screen *screen, const struct status *status, FILE *out)
{
	const struct spool_ledger *ledger = &status->ledger;
	char reasons[1200] = "";
	size_t used = 0;
	for (size_t i = 0; i < ledger->reason_count && used < sizeof reasons; i++) {
		int more = snprintf(reasons + used, sizeof reasons - used, "%s%" PRId64 " %s",
		                    i == 0 ? ": " : ", ", ledger->reasons[i].count,
		                    ledger->reasons[i].code);
		used += more > 0 ? (size_t)more : 0;
	}
	say(screen, out, "dead letters", "%" PRId64 "%s", ledger->dead_counted,
	    ledger->dead_counted > 0 && !ledger->reasons_counted ? " (too many to tell the reasons)"
	                                                         : reasons);
}

static void print_space(const struct screen *screen, const struct status *status, FILE *out)
{
	const struct spool_ledger *ledger = &status->ledger;
	char size[SPAN_SIZE], limit[SPAN_SIZE], most[SPAN_SIZE];
	int64_t percent = ledger->max_spool > 0 ? ledger->bytes / (ledger->max_spool / 100 + 1) : 0;
	say(screen, out, "space", "%s of %s used (%" PRId64 " %%), at most %s a record",
	    amount(ledger->bytes, size), amount(ledger->max_spool, limit), percent,
	    amount(ledger->max_record, most));
	if (status->live && status->report.storage[0] != '\0')
		say(screen, out, "storage", "%s", status->report.storage);
}

struct limits_lines {
	const struct screen *screen;
	FILE *out;
	bool labelled;
};

static void print_limit(void *context, const char *words)
{
	struct limits_lines *lines = context;
	say(lines->screen, lines->out, lines->labelled ? "" : "limits", "%s", words);
	lines->labelled = true;
}

static void print_limits(const struct screen *screen, const struct status *status, FILE *out)
{
	struct limits_lines lines = { screen, out, false };
	if (status->live)
		limits_words(&status->report, status->now, print_limit, &lines);
}

static void print_ledger(const struct screen *screen, const struct status *status, FILE *out)
{
	const struct spool_ledger *ledger = &status->ledger;
	say(screen, out, "ledger", "%" PRId64 "\taccepted\t= %" PRId64 "\tdelivered +\t%" PRId64
	    "\tdead +\t%" PRId64 "\tdiscarded +\t%" PRId64 "\tdropped +\t%" PRId64 "\tpurged +\t%"
	    PRId64 "\tremoved +\t%" PRId64 "\twaiting: %s", ledger->accepted, ledger->delivered, ledger->dead_counted,
	    ledger->discarded, ledger->dropped, ledger->purged, ledger->removed, ledger->waiting,
	    !ledger->balanced  ? "THIS DOES NOT ADD UP"
	    : ledger->counted ? "it adds up"
	                      : "it adds up as far as it was counted");
	if (status->lost > 0)
		say(screen, out, "", "of the removed, %" PRId64 " could not be read when the spool was "
		    "salvaged", status->lost);
}

void screen_print(const struct screen *screen, const struct status *status, FILE *out)
{
	print_verdict(screen, status, out);
	print_agent(screen, status, out);
	print_delivering(screen, status, out);
	print_waiting(screen, status, out);
	print_destination(screen, status, out);
	print_limits(screen, status, out);
	print_rate(screen, status, out);
	print_dead(screen, status, out);
	print_space(screen, status, out);
	print_ledger(screen, status, out);
}
