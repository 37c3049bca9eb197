/* The log: one line an event, on standard error, for a terminal or for journald
 * (with its priority prefixes), as text or as JSON. Of many lines alike the first
 * are written, then their number. Sentences come from callers and hold no key and
 * no text of a person.
 */
#ifndef AGENT_LOG_H
#define AGENT_LOG_H

#include <stdbool.h>

#include "agent/config.h"

struct log_state;

struct log {
	bool journal; /* standard error is journald's */
	struct log_state *state;
};

/* A log in the form that standard error asks for, and as `config` says, but with
 * nothing less urgent than `least`. log_close() ends it. Without memory it ends the
 * program, with 71 and a word. */
struct log log_open(const struct config *config, enum config_log_level least);

/* Takes another configuration's level and form. */
void log_adapt(const struct log *log, const struct config *config);

/* Writes one line. Control characters in it are replaced, so that one event can
 * never look like two. */
void log_line(const struct log *log, enum config_log_level level, const char *sentence);

/* Writes the counts of lines that were left out, where it is time to. To be called now
 * and then. */
void log_count(const struct log *log);

/* Writes all such counts, and frees. */
void log_close(struct log *log);

#endif
