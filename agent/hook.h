/* A command of the operator's, run for an event: in a process group of its own, with
 * no descriptor of the agent's but standard error, and none of its keys.
 */
#ifndef AGENT_HOOK_H
#define AGENT_HOOK_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "agent/events.h"

/* Starts `command` by /bin/sh. The caller waits for `*pid`, which leads a group of its
 * own. False with errno: it could not be started. */
bool hook_start(const char *command, const struct event *event, pid_t *pid);

/* What a wait status means, in words that complete "the command ...". NULL: all is
 * well. */
const char *hook_outcome(int status, char *into, size_t size);

#endif
