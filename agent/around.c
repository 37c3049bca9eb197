/* Around damage; see around.h. */
#include "agent/around.h"

#include <inttypes.h>
#include <stdio.h>

enum spool_status around_damage(struct spool *spool, bool dead, int64_t *from, int64_t to)
{
	int64_t next = *from;
	const char *what = dead ? "dead letters" : "waiting records";
	enum spool_status status = spool_pass_damage(spool, dead, *from, to, &next);
	int64_t first = *from > 1 ? *from : 1;
	if (status == SPOOL_END || (status == SPOOL_OK && next == INT64_MAX))
		(void)fprintf(stderr, "reconify-agent: the spool is damaged: %s from id %" PRId64 " on "
		              "cannot be read; stop the agent, and run 'reconify-agent init --salvage'\n",
		              what, first);
	else if (status == SPOOL_OK && first == next - 1)
		(void)fprintf(stderr, "reconify-agent: the spool is damaged: of the %s, id %" PRId64
		              " cannot be read; stop the agent, and run 'reconify-agent init --salvage'\n",
		              what, first);
	else if (status == SPOOL_OK)
		(void)fprintf(stderr, "reconify-agent: the spool is damaged: %s from id %" PRId64 " to %"
		              PRId64 " cannot be read; stop the agent, and run 'reconify-agent init "
		              "--salvage'\n", what, first, next - 1);
	*from = next;
	return status;
}
