/* A person's wish that nothing be sent: a note in the spool, so that it outlives the
 * agent. The commands are manage_pause() and manage_resume(); the flow keeps to it
 * (ship_set_pause()).
 */
#ifndef AGENT_PAUSE_H
#define AGENT_PAUSE_H

#include "spool/spool.h"

/* Since when the spool is paused, ms since 1970; -1: it is not. */
enum spool_status pause_read(struct spool *spool, int64_t *since);

/* Writes it down; `since` -1: it is not paused any more. `wall` is ms since 1970. */
enum spool_status pause_write(struct spool *spool, int64_t since, int64_t wall);

#endif
