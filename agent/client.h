/* Asks a running agent, over the socket beside its spool. Bounded in time: a
 * daemon that does not answer is as good as none.
 */
#ifndef AGENT_CLIENT_H
#define AGENT_CLIENT_H

#include <stdbool.h>

#include "agent/report.h"

enum client_request {
	CLIENT_STATUS,
	CLIENT_TRY_NOW,
	CLIENT_FORGET, /* likewise, and records that it had read are read again */
	CLIENT_PAUSE,  /* nothing is sent until */
	CLIENT_RESUME
};

/* Sends the request to the agent of the spool at `path` and reads its report.
 * False when none answered. */
bool client_ask(const char *path, enum client_request request, struct report *report);

#endif
