/* Pause and resume; see pause.h. */
#include "agent/pause.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sysexits.h>
#include <time.h>

#include "agent/client.h"
#include "agent/lock.h"
#include "agent/status.h"

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

static enum spool_status write_down(struct spool *spool, int64_t since, int64_t now)
{
	char value[24] = "";
	struct spool_change change = { .kind = CHANGE_NOTE, .name = NOTE, .value = value };
	enum spool_status status = SPOOL_BUSY;
	if (since >= 0)
		(void)snprintf(value, sizeof value, "%" PRId64, since);
	for (int i = 0; status == SPOOL_BUSY && i < BUSY_TRIES; i++)
		status = spool_apply(spool, &change, 1, now);
	return status;
}

static int set(const struct config *config, struct spool *spool, bool pause)
{
	int64_t before, now = 0;
	struct timespec time;
	struct report report;
	if (clock_gettime(CLOCK_REALTIME, &time) == 0)
		now = (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
	enum spool_status status = pause_read(spool, &before);
	bool news = (before >= 0) != pause;
	if (status == SPOOL_OK && news)
		status = write_down(spool, pause ? now : -1, now);
	if (status != SPOOL_OK) {
		(void)fprintf(stderr, "reconify-agent: %s\n", spool_last_error(spool)->sentence);
		return status_exit_code(status);
	}
	const char *was = news ? "" : pause ? "was paused already; " : "was not paused; ";
	const char *is = pause ? "nothing is sent until 'reconify-agent resume'; inserts go on "
	                         "being accepted"
	                       : "records are sent again";
	/* Also where it was so already: an earlier call may have reached nobody. */
	if (lock_holder(config->spool_path) == 0) {
		(void)printf("%s: %s%s\n", config->spool_path, was,
		             pause ? is : "records are sent as soon as the agent runs");
		return EX_OK;
	}
	if (!client_ask(config->spool_path, pause ? CLIENT_PAUSE : CLIENT_RESUME, &report)) {
		(void)fprintf(stderr, "reconify-agent: %s: this is written down, but the agent that runs "
		              "does not answer; it takes it over when it is reloaded or restarted "
		              "(systemctl reload reconify-agent)\n", config->spool_path);
		return EX_TEMPFAIL;
	}
	(void)printf("%s: %s%s\n", config->spool_path, was, is);
	if (pause && report.in_flight > 0)
		(void)printf("%" PRId64 " under way already, which will end\n", report.in_flight);
	return EX_OK;
}

int pause_begin(const struct config *config, struct spool *spool)
{
	return set(config, spool, true);
}

int pause_end(const struct config *config, struct spool *spool)
{
	return set(config, spool, false);
}
