/* How far a drain is: a bar with rate and time left that is redrawn in place on a
 * terminal, plain lines now and then elsewhere. Knows numbers alone.
 */
#ifndef AGENT_PROGRESS_H
#define AGENT_PROGRESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define PROGRESS_LINE_SIZE 512

struct progress {
	FILE *out;            /* borrowed */
	bool terminal, drawn;
	int64_t total;        /* records */
	int64_t last, last_at;
	double rate;          /* records a second, of late; below 0: not known yet */
	int64_t next_line;    /* where it is no terminal */
};

/* `total` records are to go, `now` is ms, monotonic. Draws an empty bar. */
void progress_begin(struct progress *progress, FILE *out, int64_t total, int64_t now);

/* `done` of them are done. May be called as often as one likes: draws seldom enough. */
void progress_show(struct progress *progress, int64_t done, int64_t now);

/* Takes the bar away again: what is printed next begins on a clean line. */
void progress_end(struct progress *progress);

/* The line as it is shown in `columns` columns (0: in a log). Pure; for progress_show()
 * and tests. */
void progress_line(const struct progress *progress, int64_t done, unsigned columns,
                   char into[PROGRESS_LINE_SIZE]);

#endif
