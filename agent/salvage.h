/* The command init --salvage: what becomes of a damaged spool, in words for the person
 * who has to decide what to do next. Never beside a running agent.
 */
#ifndef AGENT_SALVAGE_H
#define AGENT_SALVAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/config.h"

/* Salvages the configuration's spool where it is damaged, and says what came of it. `wall`
 * is ms since 1970. EX_OK: there is a sound spool now, and `*incomplete` tells whether
 * something could not be read; else a sysexits code, and nothing was changed. */
int salvage_spool(const struct config *config, int64_t wall, bool *incomplete);

#endif
