/* Pause and resume: a person's wish that nothing be sent, written down in the spool,
 * so that it outlives the agent. An agent that runs is told at once.
 *
 * While it holds, nothing is posted, not even a probe; inserts go on being accepted.
 */
#ifndef AGENT_PAUSE_H
#define AGENT_PAUSE_H

#include "agent/config.h"
#include "spool/spool.h"

/* Since when the spool is paused, ms since 1970; -1: it is not. */
enum spool_status pause_read(struct spool *spool, int64_t *since);

/* Pauses, or lets it go on. Says on standard output what is so now. A sysexits code:
 * 0, also where it was so already; 75: it is written down, but the agent that runs
 * does not answer; that of the spool's failure, where nothing is changed. */
int pause_begin(const struct config *config, struct spool *spool);
int pause_end(const struct config *config, struct spool *spool);

#endif
