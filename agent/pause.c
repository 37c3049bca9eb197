/* The note that the spool is paused; see pause.h. */
#include "agent/pause.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define NOTE "paused"
#define BUSY_TRIES 10

enum spool_status pause_read(struct spool *spool, int64_t *since)
{
	char *value;
	*since = -1;
	enum spool_status status = spool_read_note(spool, NOTE, &value);
	if (status != SPOOL_OK || value == NULL)
		return status;
	char *end;
	long long time = strtoll(value, &end, 10);
	if (end != value)
		*since = time >= 0 ? time : 0;
	free(value);
	return SPOOL_OK;
}

enum spool_status pause_write(struct spool *spool, int64_t since, int64_t wall)
{
	char value[24] = "";
	struct spool_change change = { .kind = CHANGE_NOTE, .name = NOTE, .value = value };
	enum spool_status status = SPOOL_BUSY;
	if (since >= 0)
		(void)snprintf(value, sizeof value, "%" PRId64, since);
	for (int i = 0; status == SPOOL_BUSY && i < BUSY_TRIES; i++)
		status = spool_apply(spool, &change, 1, wall);
	return status;
}
