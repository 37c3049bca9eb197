/* Finds what is wrong, before or after it hurts: one line a finding, worst first.
 * Changes nothing; sends nothing but, when asked to, a record marked as a test.
 */
#ifndef AGENT_CHECK_H
#define AGENT_CHECK_H

#include <stdio.h>

#include "agent/config.h"

/* Checks a configuration that could be read, its keys, its spool, this host, and what
 * can be seen of the endpoint without sending anything; then tells each key of the
 * configuration. `options` is what the commands of its advice need to mean the same spool, as
 * in struct status. Returns 0 when nothing is wrong (remarks may be printed), else the
 * sysexits code of the worst finding. Takes up to a minute where nothing answers. */
int check_all(const struct config *config, const char *options, FILE *out);

/* Each key of the configuration, its value and where that came from, a line each. */
void check_keys(const struct config *config, FILE *out);

/* Posts one marked record for each app, or for the one called `app` (not NULL), and says
 * what the endpoint made of it. 0: all were taken; 64: there is no such app; 65: refused
 * as a record; 69: no answer that counts, try again; 78: the keys or the url are wrong. */
int check_send(const struct config *config, const char *app, FILE *out);

#endif
