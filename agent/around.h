/* What a command that goes through records by their ids does at a damaged page: says so,
 * and goes on behind it.
 */
#ifndef AGENT_AROUND_H
#define AGENT_AROUND_H

#include "spool/manage.h"

/* After SPOOL_DAMAGED at id `*from`: says on standard error which ids cannot be read and
 * what to do. SPOOL_OK: `*from` is where to go on; SPOOL_END: nothing further up to `to`
 * can be read; else what spool_last_error() says. The find must have been ended. */
enum spool_status around_damage(struct spool *spool, bool dead, int64_t *from, int64_t to);

#endif
