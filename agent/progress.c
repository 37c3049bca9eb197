/* How far a drain is; see progress.h. Must never write more columns than there are: a
 * line that wraps cannot be redrawn. */
#include "agent/progress.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "agent/words.h"

#define REDRAW 190           /* ms */
#define FIRST_LINE 2000      /* ms; most drains are over by then */
#define LINES_APART 10000    /* ms */
#define MEMORY 5000.0        /* ms that the rate looks back, about */
#define COLUMNS_MIN 20
#define COLUMNS_MAX 78 /* what a line of the log replaces, usually */
#define BAR_MIN 10
#define PACE_SIZE 64

static int64_t left_of(const struct progress *progress, int64_t done)
{
	return done < progress->total ? progress->total - done : 0;
}

/* "10/s" and "30s left", each behind `gap`; nothing of what is not known yet. */
static void pace_words(const struct progress *progress, int64_t done, const char *gap,
                       char into[PACE_SIZE])
{
	char span[WORDS_SHORT];
	double rate = progress->rate;
	into[0] = '\0';
	if (rate < 0)
		return;
	double seconds = rate > 0.001 ? (double)left_of(progress, done) / rate : -1;
	int used = snprintf(into, PACE_SIZE, rate < 10 ? "%s%.1f/s" : "%s%.0f/s", gap, rate);
	if (used > 0 && used < PACE_SIZE && seconds >= 0 && seconds <= 1e9)
		(void)snprintf(into + used, PACE_SIZE - (size_t)used, "%s%s left", gap,
		               words_span((int64_t)(seconds * 1000), span));
}

void progress_line(const struct progress *progress, int64_t done, unsigned columns,
                   char into[PROGRESS_LINE_SIZE])
{
	char pace[PACE_SIZE], numbers[160];
	pace_words(progress, done, columns == 0 ? ", " : "  ", pace);
	if (done > progress->total)
		done = progress->total;
	if (columns == 0) {
		(void)snprintf(into, PROGRESS_LINE_SIZE,
		               "reconify-agent: %" PRId64 " of %" PRId64 " records done%s", done,
		               progress->total, pace);
		return;
	}
	int percent = progress->total > 0 ? (int)(done * 100 / progress->total) : 100;
	(void)snprintf(numbers, sizeof numbers, "%3d%%  %" PRId64 " of %" PRId64 "%s", percent, done,
	               progress->total, pace);
	size_t width = columns < COLUMNS_MAX ? columns : COLUMNS_MAX, used = strlen(numbers);
	if (used + BAR_MIN + 3 > width) {
		(void)snprintf(into, PROGRESS_LINE_SIZE, "%.*s", (int)width, numbers);
		return;
	}
	size_t bar = width - used - 3;
	size_t full = bar * (size_t)percent / 100;
	into[0] = '[';
	memset(into + 1, '#', full);
	memset(into + 1 + full, '.', bar - full);
	(void)snprintf(into + 1 + bar, PROGRESS_LINE_SIZE - bar - 1, "] %s", numbers);
}

/* Asked for each time: windows are resized. One less than there are, since some
 * terminals wrap at the last one. */
static unsigned columns_of(FILE *out)
{
	struct winsize size;
	if (ioctl(fileno(out), TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
		return 79;
	return size.ws_col > COLUMNS_MIN ? size.ws_col - 1u : COLUMNS_MIN - 1u;
}

static void draw(struct progress *progress, int64_t done)
{
	char line[PROGRESS_LINE_SIZE];
	progress_line(progress, done, progress->terminal ? columns_of(progress->out) : 0, line);
	/* The cursor stays at the beginning, so that a line of the log replaces the bar; what
	 * a narrower window has wrapped goes, too. */
	if (progress->terminal)
		(void)fprintf(progress->out, "\r%s\033[J\r", line);
	else
		(void)fprintf(progress->out, "%s\n", line);
	(void)fflush(progress->out);
	progress->drawn = true;
}

void progress_begin(struct progress *progress, FILE *out, int64_t total, int64_t now)
{
	const char *kind = getenv("TERM");
	*progress = (struct progress){
		.out = out, .total = total, .last_at = now, .rate = -1,
		.terminal = isatty(fileno(out)) == 1 && (kind == NULL || strcmp(kind, "dumb") != 0),
		.next_line = now + FIRST_LINE
	};
	if (progress->terminal)
		draw(progress, 0);
}

void progress_show(struct progress *progress, int64_t done, int64_t now)
{
	int64_t time = now - progress->last_at;
	if (time < REDRAW)
		return;
	int64_t more = done > progress->last ? done - progress->last : 0;
	double rate = (double)more * 1000 / (double)time;
	double weight = (double)time / ((double)time + MEMORY);
	if (progress->rate >= 0)
		progress->rate += (rate - progress->rate) * weight;
	else if (more > 0)
		progress->rate = rate;
	progress->last = done;
	progress->last_at = now;
	if (!progress->terminal && now < progress->next_line)
		return;
	progress->next_line = now + LINES_APART;
	draw(progress, done);
}

void progress_end(struct progress *progress)
{
	if (progress->terminal && progress->drawn)
		(void)fprintf(progress->out, "\r\033[J");
	(void)fflush(progress->out);
	progress->drawn = false;
}
