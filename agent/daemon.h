/* The commands that ship: run and drain.
 */
#ifndef AGENT_DAEMON_H
#define AGENT_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/config.h"

/* How the program was called, for reading the configuration again. Borrowed. */
struct daemon_call {
	const char *config_file; /* NULL: the default one */
	const char *spool_path;  /* NULL: as configured */
};

/* Reads the configuration as the call asks for, keys included. A sysexits code;
 * `*error` is malloc'd on failure. */
int daemon_configure(const struct daemon_call *call, struct config **config, char **error);

/* Ships until it is told to stop. Takes over `config`. A sysexits code. */
int daemon_run(const struct daemon_call *call, struct config *config);

/* Ships what waits now, each record tried at least once, and goes on for up to
 * `wait` ms while something is left. Beside a running agent: wakes that one, and
 * watches. Takes over `config`. 0: all delivered; 75: something is left, dead or
 * held, and standard error says what and why. */
int daemon_drain(const struct daemon_call *call, struct config *config, bool progress,
                 int64_t wait);

#endif
