/* The status for a person: a verdict first, what to do next, then the facts in the
 * order in which one asks for them. Colour never carries a meaning that words do not.
 */
#ifndef AGENT_SCREEN_H
#define AGENT_SCREEN_H

#include <stdio.h>

#include "agent/status.h"

struct screen {
	int width;    /* columns to keep to; 0: lines are not broken, for grep */
	bool colours;
};

/* What fits the terminal on `file`, or whatever else it is. */
struct screen screen_for(int file);

/* True where `file` is a terminal that can move its cursor. */
bool screen_is_terminal(int file);

/* Writes `text`, whose first line goes on at column `at`, with line breaks between words
 * where it is to keep to a width, and further lines from column `indent` on; ends the
 * line. */
void screen_wrap(const struct screen *screen, FILE *out, int at, int indent, const char *text);

void screen_print(const struct screen *screen, const struct status *status, FILE *out);

#endif
