/* The log: one line an event, on standard error, for a terminal or for journald
 * (with its priority prefixes). Sentences come from callers and hold no key and
 * no text of a person.
 */
#ifndef AGENT_LOG_H
#define AGENT_LOG_H

#include <stdbool.h>

#include "agent/config.h"

struct log {
	enum config_log_level level; /* what is less urgent is not written */
	bool journal;                /* standard error is journald's */
};

/* A log at `level`, in the form that standard error asks for. */
struct log log_open(enum config_log_level level);

/* Writes one line. Control characters in it are replaced, so that one event can
 * never look like two. */
void log_line(const struct log *log, enum config_log_level level, const char *sentence);

#endif
