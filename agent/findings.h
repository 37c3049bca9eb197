/* Whether all is well and, if not, why and what to do: judged from the status alone.
 * Pure. The verdict of the screen, and the same for programs.
 */
#ifndef AGENT_FINDINGS_H
#define AGENT_FINDINGS_H

#include "agent/status.h"

enum finding_level {
	FINDING_NOTE,    /* somebody wants it so, or it is nothing to act upon */
	FINDING_WARNING, /* it mends itself, or can wait */
	FINDING_PROBLEM  /* somebody has to act */
};

#define FINDINGS_MAX 16

struct finding {
	enum finding_level level;
	const char *code;   /* for programs: fixed words such as "not-running" */
	char sentence[640];
	char advice[480];   /* the command that helps, "" for none */
};

/* Finds what is to be said, the worst first. Returns how many; 0: all is well. */
size_t findings_collect(const struct status *status, struct finding found[FINDINGS_MAX]);

/* "note", "warning" or "problem". */
const char *finding_level_name(enum finding_level level);

#endif
