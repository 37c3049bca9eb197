/* What a person does to records beside the agent, which may run or not: retry,
 * discard, purge; pause and resume. Each is done in short transactions, and counted in the ledger.
 *
 * Nothing is taken away before it was asked for twice: by the command, and by --yes
 * or an answer on a terminal.
 */
#ifndef AGENT_MANAGE_H
#define AGENT_MANAGE_H

#include "agent/config.h"
#include "agent/select.h"

/* Each does what is selected and says what came of it; a sysexits code. IDs that there
 * are not are named (65), the others are done all the same. */
int manage_retry(const struct config *config, struct spool *spool,
                 const struct selection *selection);
int manage_discard(const struct config *config, struct spool *spool,
                   const struct selection *selection);

/* 75: all is done, but somebody who reads kept the -wal from being emptied. */
int manage_purge(const struct config *config, struct spool *spool,
                 const struct selection *selection);

/* Nothing is sent from now on, or it goes on. Say on standard output what is so now.
 * 75: it is written down, but the agent that runs does not answer. */
int manage_pause(const struct config *config, struct spool *spool);
int manage_resume(const struct config *config, struct spool *spool);

#endif
