/* The status; see status.h. */
#include "agent/status.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sysexits.h>
#include <time.h>

#include "agent/client.h"
#include "agent/findings.h"
#include "agent/limits.h"
#include "agent/lock.h"
#include "agent/pause.h"
#include "agent/words.h"

#define BACKLOG_SECONDS 10 /* what is delivered in so many seconds is none */
#define ARRIVALS_STEADY 5  /* of the last 10 seconds with some: more is to come */
#define BACKLOG_GROWS 0.95 /* of what goes: where so much comes, nobody can tell an end */

int status_exit_code(enum spool_status status)
{
	switch (status) {
	case SPOOL_OK:
	case SPOOL_END:
		return EX_OK;
	case SPOOL_BUSY:
		return EX_TEMPFAIL;
	case SPOOL_FULL:
	case SPOOL_IO:
		return EX_IOERR;
	case SPOOL_MISSING:
	case SPOOL_NO_FOLDER:
		return EX_NOINPUT;
	case SPOOL_DENIED:
		return EX_NOPERM;
	case SPOOL_DAMAGED:
	case SPOOL_FOREIGN:
	case SPOOL_NEWER:
	case SPOOL_TOO_BIG:
	case SPOOL_REFUSED:
		return EX_DATAERR;
	}
	return EX_SOFTWARE;
}

/* The state that the configuration alone gives, where no agent has spoken yet. */
static void report_from_config(const struct config *config, struct report *report)
{
	*report = (struct report){ .state = DESTINATION_UP, .next_try_at = -1, .as_of = -1,
		                   .last_delivered_at = -1, .since = -1 };
	if (config->url == NULL) {
		report->state = DESTINATION_UNCONFIGURED;
		(void)snprintf(report->reason, sizeof report->reason,
		               "no endpoint is configured: set url in [endpoint] of %s, or "
		               "RECONIFY_ENDPOINT",
		               config->file != NULL ? config->file : CONFIG_DEFAULT_FILE);
	}
	for (size_t i = 0; i < config->app_count; i++) {
		struct report_app *app = &report->apps[report->app_count++];
		(void)snprintf(app->name, sizeof app->name, "%s", config->apps[i].name);
		app->held = config->apps[i].missing != NULL &&
		            !config_is_withheld(config, &config->apps[i]);
		if (app->held)
			(void)snprintf(app->reason, sizeof app->reason, "%s", config->apps[i].missing);
	}
}

/* Where no agent speaks, the spool itself says whether it is paused. */
static void apply_pause(struct status *status, int64_t since)
{
	struct report *report = &status->report;
	if (since >= 0) {
		report->state = DESTINATION_PAUSED;
		report->since = since;
		(void)snprintf(report->reason, sizeof report->reason, "%s", report_paused);
	} else if (report->state == DESTINATION_PAUSED) {
		report->state = DESTINATION_UP;
		report->since = -1;
		report->reason[0] = '\0';
	}
}

static int64_t free_bytes(const char *path)
{
	struct statvfs space;
	return statvfs(path, &space) == 0 ? (int64_t)((uint64_t)space.f_bavail * space.f_frsize) : -1;
}

int status_collect(const struct config *config, int patience, struct status *status,
                   struct spool_error *error)
{
	*status = (struct status){ .spool_path = config->spool_path, .options = "",
		                   .config_file = config->file != NULL ? config->file
		                                                       : CONFIG_DEFAULT_FILE };
	struct timespec time;
	if (clock_gettime(CLOCK_REALTIME, &time) == 0)
		status->now = (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
	struct spool *spool = spool_open(config->spool_path, SPOOL_READ, config->max_record, error);
	if (spool == NULL)
		return status_exit_code(error->status);
	enum spool_status read = spool_read_ledger(spool, patience, &status->ledger);
	status->disk_free = free_bytes(config->spool_path);
	char *lost = spool_note(spool, "lost");
	status->lost = lost != NULL ? strtoll(lost, NULL, 10) : 0;
	free(lost);
	int64_t paused_at = -1;
	if (read == SPOOL_OK)
		read = pause_read(spool, &paused_at);
	if (read != SPOOL_OK)
		*error = *spool_last_error(spool);
	char *note = spool_note(spool, "report");
	spool_close(spool);

	pid_t holder = lock_holder(config->spool_path);
	status->running = holder != 0;
	status->pid = holder > 0 ? holder : 0;
	if (status->running)
		status->live = client_ask(config->spool_path, CLIENT_STATUS, &status->report);
	status->reported = status->live || (note != NULL && report_from_json(note, &status->report));
	if (!status->live) {
		status->report.limit[0] = '\0'; /* nothing is sent by then */
		status->report.limit_until = -1;
	}
	if (!status->reported)
		report_from_config(config, &status->report);
	if (!status->live)
		apply_pause(status, paused_at);
	free(note);
	return status_exit_code(read);
}

double status_rate(const struct status *status)
{
	const struct report *report = &status->report;
	int64_t up = status->live ? status->now - report->started_at : 0;
	if (up < 1000)
		return 0;
	if (report->delivered_10s > 0)
		return (double)report->delivered_10s * 1000 / (double)(up < 10000 ? up : 10000);
	return (double)report->delivered_60s * 1000 / (double)(up < 60000 ? up : 60000);
}

double status_arrivals(const struct status *status)
{
	if (!status->live || status->report.accepted_in < ARRIVALS_STEADY)
		return 0;
	return (double)status->report.accepted_10s / 10;
}

bool status_holds_back(const struct status *status)
{
	for (size_t i = 0; i < status->report.app_count; i++)
		if (status->report.apps[i].held)
			return true;
	return status->report.damaged_from > 0;
}

int64_t status_backlog_gone_at(const struct status *status)
{
	double rate = status_rate(status), most = 0, arrivals = status_arrivals(status);
	int64_t waiting = status->ledger.waiting, bytes = status->ledger.bytes;
	if (status->live && status->ledger.waiting > 0)
		most = limits_rate(&status->report, status->ledger.bytes / status->ledger.waiting);
	if (rate <= 0)
		rate = most;
	/* What was measured may be of a time before the limit. */
	if (most > 0 && rate > most)
		rate = most;
	if (status->ledger.waiting == 0 || rate <= 0 || status->report.state != DESTINATION_UP ||
	    status_holds_back(status))
		return -1;
	/* What is gone within seconds is no backlog, but what is on its way. */
	if (arrivals > 0 && (double)waiting > rate * BACKLOG_SECONDS) {
		if (arrivals > rate * BACKLOG_GROWS)
			return -1;
		double grown = rate / (rate - arrivals); /* with what comes until then */
		waiting = (int64_t)((double)waiting * grown);
		bytes = (int64_t)((double)bytes * grown);
	}
	return limits_forecast(&status->report, status->now, waiting, bytes, rate);
}

/* --- As JSON ------------------------------------------------------------ */

static bool add_time(cJSON *json, const char *name, int64_t at)
{
	return (at > 0 ? cJSON_AddNumberToObject(json, name, (double)at)
	               : cJSON_AddNullToObject(json, name)) != NULL;
}

static bool add_findings(cJSON *json, const struct status *status)
{
	struct finding found[FINDINGS_MAX];
	size_t count = findings_collect(status, found);
	cJSON *list = NULL;
	bool ok = cJSON_AddStringToObject(json, "verdict", count > 0
	                                  ? finding_level_name(found[0].level) : "well") != NULL &&
	          (list = cJSON_AddArrayToObject(json, "findings")) != NULL;
	for (size_t i = 0; ok && i < count; i++) {
		cJSON *item = cJSON_CreateObject();
		ok = item != NULL &&
		     cJSON_AddStringToObject(item, "level", finding_level_name(found[i].level)) != NULL &&
		     cJSON_AddStringToObject(item, "code", found[i].code) != NULL &&
		     cJSON_AddStringToObject(item, "sentence", found[i].sentence) != NULL &&
		     cJSON_AddStringToObject(item, "advice", found[i].advice) != NULL;
		if (!ok || !cJSON_AddItemToArray(list, item)) {
			cJSON_Delete(item);
			return false;
		}
	}
	return ok;
}

/* null where they were too many to be told apart. */
static bool add_reasons(cJSON *json, const struct spool_ledger *ledger)
{
	if (!ledger->reasons_counted)
		return cJSON_AddNullToObject(json, "dead_by_reason") != NULL;
	cJSON *reasons = cJSON_AddObjectToObject(json, "dead_by_reason");
	bool ok = reasons != NULL;
	for (size_t i = 0; ok && i < ledger->reason_count; i++)
		ok = cJSON_AddNumberToObject(reasons, ledger->reasons[i].code,
		                             (double)ledger->reasons[i].count) != NULL;
	return ok;
}

bool status_print_json(const struct status *status, FILE *out)
{
	const struct spool_ledger *ledger = &status->ledger;
	const struct report *report = &status->report;
	const struct {
		const char *name;
		int64_t value;
	} numbers[] = {
		{ "accepted", ledger->accepted },     { "delivered", ledger->delivered },
		{ "dead", ledger->dead_counted },     { "discarded", ledger->discarded },
		{ "dropped", ledger->dropped },       { "purged", ledger->purged },
		{ "removed", ledger->removed },       { "lost", status->lost },
		{ "waiting", ledger->waiting },
		{ "waiting_bytes", ledger->bytes },   { "max_spool", ledger->max_spool },
		{ "max_record", ledger->max_record },
		{ "in_flight", status->live ? report->in_flight : 0 },
		{ "retrying", status->live ? report->retrying : 0 },
		{ "delivered_10s", status->live ? report->delivered_10s : 0 },
		{ "delivered_60s", status->live ? report->delivered_60s : 0 },
		{ "accepted_10s", status->live ? report->accepted_10s : 0 },
		{ "accepted_60s", status->live ? report->accepted_60s : 0 }
	};
	cJSON *json = cJSON_CreateObject();
	bool ok = json != NULL;
	ok = ok && cJSON_AddStringToObject(json, "version", RECONIFY_VERSION) != NULL;
	ok = ok && cJSON_AddStringToObject(json, "spool", status->spool_path) != NULL;
	ok = ok && cJSON_AddBoolToObject(json, "running", status->running) != NULL;
	ok = ok && (status->pid > 0 ? cJSON_AddNumberToObject(json, "pid", (double)status->pid)
	                            : cJSON_AddNullToObject(json, "pid")) != NULL;
	ok = ok && add_time(json, "as_of", status->live ? status->now : report->as_of);
	for (size_t i = 0; ok && i < sizeof numbers / sizeof numbers[0]; i++)
		ok = cJSON_AddNumberToObject(json, numbers[i].name, (double)numbers[i].value) != NULL;
	ok = ok && add_time(json, "oldest_at", ledger->oldest_at);
	ok = ok && cJSON_AddBoolToObject(json, "balanced", ledger->balanced) != NULL;
	ok = ok && cJSON_AddBoolToObject(json, "counted", ledger->counted) != NULL;
	cJSON *destination = ok ? cJSON_AddObjectToObject(json, "destination") : NULL;
	ok = destination != NULL &&
	     cJSON_AddStringToObject(destination, "state", report_state_name(report->state)) != NULL &&
	     cJSON_AddStringToObject(destination, "reason", report->reason) != NULL &&
	     add_time(destination, "since", report->since) &&
	     add_time(destination, "next_try_at", status->live ? report->next_try_at : -1) &&
	     add_time(destination, "last_delivered_at", report->last_delivered_at);
	ok = ok && limits_add_json(json, report);
	cJSON *apps = ok ? cJSON_AddObjectToObject(json, "apps") : NULL;
	ok = apps != NULL;
	for (size_t i = 0; ok && i < report->app_count; i++)
		ok = cJSON_AddStringToObject(apps, report->apps[i].name,
		                             report->apps[i].held ? "held" : "up") != NULL;
	ok = ok && cJSON_AddStringToObject(json, "storage", status->live ? report->storage : "") != NULL;
	ok = ok && add_time(json, "started_at", status->live ? report->started_at : -1) &&
	     cJSON_AddNumberToObject(json, "rate", status_rate(status)) != NULL &&
	     add_time(json, "backlog_gone_at", status_backlog_gone_at(status)) &&
	     add_reasons(json, ledger) && add_findings(json, status);
	ok = ok && words_print_json(out, json);
	cJSON_Delete(json);
	return ok;
}
