/* Finds what is wrong, before or after it hurts: one line a finding, worst first.
 * Changes nothing, sends nothing.
 */
#ifndef AGENT_CHECK_H
#define AGENT_CHECK_H

#include <stdio.h>

#include "agent/config.h"

/* Checks a configuration that could be read, its keys and its spool. Returns 0
 * when nothing is wrong (remarks may be printed), else the sysexits code of the
 * worst finding. */
int check_all(const struct config *config, FILE *out);

#endif
