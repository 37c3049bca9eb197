/* The status; see status.h. */
#include "agent/status.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "agent/client.h"
#include "agent/limits.h"
#include "agent/lock.h"
#include "agent/words.h"

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
		app->held = config->apps[i].missing != NULL;
		if (app->held)
			(void)snprintf(app->reason, sizeof app->reason, "%s", config->apps[i].missing);
	}
}

int status_collect(const struct config *config, int patience, struct status *status,
                   struct spool_error *error)
{
	*status = (struct status){ .spool_path = config->spool_path };
	struct timespec time;
	if (clock_gettime(CLOCK_REALTIME, &time) == 0)
		status->now = (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
	struct spool *spool = spool_open(config->spool_path, SPOOL_READ, config->max_record, error);
	if (spool == NULL)
		return status_exit_code(error->status);
	enum spool_status read = spool_read_ledger(spool, patience, &status->ledger);
	char *note = spool_note(spool, "report");
	if (read != SPOOL_OK)
		*error = *spool_last_error(spool);
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
	free(note);
	return status_exit_code(read);
}

/* --- In words ----------------------------------------------------------- */

#define SPAN_SIZE 48

static const char *span(int64_t ms, char into[SPAN_SIZE])
{
	int64_t seconds = ms > 0 ? ms / 1000 : 0;
	if (seconds < 60)
		(void)snprintf(into, SPAN_SIZE, "%" PRId64 " s", seconds);
	else if (seconds < 3600)
		(void)snprintf(into, SPAN_SIZE, "%" PRId64 " min %" PRId64 " s", seconds / 60,
		               seconds % 60);
	else if (seconds < 86400)
		(void)snprintf(into, SPAN_SIZE, "%" PRId64 " h %" PRId64 " min", seconds / 3600,
		               seconds % 3600 / 60);
	else
		(void)snprintf(into, SPAN_SIZE, "%" PRId64 " days %" PRId64 " h", seconds / 86400,
		               seconds % 86400 / 3600);
	return into;
}

static const char *amount(int64_t bytes, char into[SPAN_SIZE])
{
	double value = (double)bytes;
	const char *unit = "bytes";
	if (bytes >= 1 << 30) {
		value /= 1 << 30;
		unit = "GiB";
	} else if (bytes >= 1 << 20) {
		value /= 1 << 20;
		unit = "MiB";
	} else if (bytes >= 1 << 10) {
		value /= 1 << 10;
		unit = "KiB";
	}
	(void)snprintf(into, SPAN_SIZE, bytes >= 1 << 10 ? "%.1f %s" : "%.0f %s", value, unit);
	return into;
}

static const char *moment(int64_t at, char into[SPAN_SIZE])
{
	time_t seconds = (time_t)(at / 1000);
	struct tm parts;
	if (localtime_r(&seconds, &parts) == NULL ||
	    strftime(into, SPAN_SIZE, "%Y-%m-%d %H:%M:%S", &parts) == 0)
		(void)snprintf(into, SPAN_SIZE, "an unknown time");
	return into;
}

static void print_agent(const struct status *status, FILE *out)
{
	char when[SPAN_SIZE];
	(void)fprintf(out, "agent        ");
	if (status->running && status->pid > 0)
		(void)fprintf(out, "running (pid %ld)", (long)status->pid);
	else if (status->running)
		(void)fprintf(out, "running");
	else
		(void)fprintf(out, "not running: nothing is sent until it is started; what is inserted waits");
	if (status->running && !status->live)
		(void)fprintf(out, ", but does not answer: what follows is as of %s",
		              moment(status->report.as_of, when));
	(void)fprintf(out, "\n");
}

static void print_destination(const struct status *status, FILE *out)
{
	const struct report *report = &status->report;
	char since[SPAN_SIZE], wait[SPAN_SIZE], when[SPAN_SIZE];
	int64_t last = status->live ? status->now : report->as_of; /* nobody tried since */
	(void)fprintf(out, "destination  ");
	switch (report->state) {
	case DESTINATION_UP:
		(void)fprintf(out, "up");
		if (report->last_delivered_at > 0)
			(void)fprintf(out, ", last delivery %s ago",
			              span(status->now - report->last_delivered_at, since));
		else if (status->reported)
			(void)fprintf(out, ", nothing delivered yet since the agent's start");
		else
			(void)fprintf(out, " as far as is known: nothing was tried yet");
		break;
	case DESTINATION_DOWN:
		(void)fprintf(out, "down for %s, %u %s failed; nothing is lost, it is retried\n"
		              "             %s", span(last - report->since, since),
		              report->failures, report->failures == 1 ? "try" : "tries",
		              report->reason);
		if (report->retrying_id != 0 && report->retrying == 0)
			(void)fprintf(out, "\n             only record %" PRId64 " was tried: it may be the "
			              "cause itself", report->retrying_id);
		break;
	case DESTINATION_HELD:
		(void)fprintf(out, "held for %s: every record waits until this is put right\n"
		              "             %s", span(last - report->since, since),
		              report->reason);
		break;
	case DESTINATION_PAUSED:
		(void)fprintf(out, "paused");
		break;
	case DESTINATION_UNCONFIGURED:
		(void)fprintf(out, "unconfigured\n             %s", report->reason);
		break;
	}
	if (!status->running && status->reported)
		(void)fprintf(out, "\n             (as of %s, when the agent last said so)",
		              moment(report->as_of, when));
	if (status->running && report->next_try_at > 0)
		(void)fprintf(out, "\nnext try     in %s, at %s",
		              span(report->next_try_at - status->now, wait),
		              moment(report->next_try_at, when));
	(void)fprintf(out, "\n");
}

static void print_waiting(const struct status *status, FILE *out)
{
	const struct spool_ledger *ledger = &status->ledger;
	const struct report *report = &status->report;
	char size[SPAN_SIZE], limit[SPAN_SIZE], age[SPAN_SIZE];
	(void)fprintf(out, "waiting      %" PRId64 " %s", ledger->waiting,
	              ledger->waiting == 1 ? "record" : "records");
	if (ledger->waiting > 0 && ledger->oldest_at >= 0)
		(void)fprintf(out, ", the oldest for %s", span(status->now - ledger->oldest_at, age));
	(void)fprintf(out, "; %s of %s used", amount(ledger->bytes, size),
	              amount(ledger->max_spool, limit));
	(void)fprintf(out, ", at most %s a record\n", amount(ledger->max_record, limit));
	if (status->live && report->in_flight > 0)
		(void)fprintf(out, "in flight    %" PRId64 "\n", report->in_flight);
	if (status->live && report->retrying > 0)
		(void)fprintf(out, "retrying     %" PRId64 " by itself while others go on, such as "
		              "record %" PRId64 " (failed %u times):\n             %s\n",
		              report->retrying, report->retrying_id, report->retrying_attempts,
		              report->retrying_reason);
	(void)fprintf(out, "dead         %" PRId64 "%s\n", ledger->dead_counted,
	              ledger->dead_counted > 0 ? " (reconify-agent list --dead says why)" : "");
	for (size_t i = 0; i < report->app_count; i++)
		if (report->apps[i].held)
			(void)fprintf(out, "app held     %s: %s\n", report->apps[i].name,
			              report->apps[i].reason);
	if (status->live && report->storage[0] != '\0')
		(void)fprintf(out, "storage      %s\n", report->storage);
	if (report->damaged_from > 0)
		(void)fprintf(out, "damaged      records from id %" PRId64 " on cannot be read and are "
		              "passed over; see 'reconify-agent check'\n", report->damaged_from);
}

static void print_ledger(const struct status *status, FILE *out)
{
	const struct spool_ledger *ledger = &status->ledger;
	(void)fprintf(out,
	              "ledger       %" PRId64 " accepted = %" PRId64 " delivered + %" PRId64
	              " dead + %" PRId64 " discarded + %" PRId64 " dropped\n"
	              "             + %" PRId64 " purged + %" PRId64 " removed + %" PRId64
	              " waiting%s\n",
	              ledger->accepted, ledger->delivered, ledger->dead_counted, ledger->discarded,
	              ledger->dropped, ledger->purged, ledger->removed, ledger->waiting,
	              !ledger->balanced ? "" : ledger->counted ? "" : " (rows not counted: too many)");
	if (!ledger->balanced)
		(void)fprintf(out, "             THIS DOES NOT ADD UP: the file was changed by another "
		              "program than the agent\n             and producers' plain statements; see "
		              "'reconify-agent check'\n");
}

void status_print(const struct status *status, FILE *out)
{
	(void)fprintf(out, "spool        %s\n", status->spool_path);
	print_agent(status, out);
	print_destination(status, out);
	if (status->live)
		limits_print(&status->report, status->now, out);
	print_waiting(status, out);
	print_ledger(status, out);
}

/* --- As JSON ------------------------------------------------------------ */

static bool add_time(cJSON *json, const char *name, int64_t at)
{
	return (at > 0 ? cJSON_AddNumberToObject(json, name, (double)at)
	               : cJSON_AddNullToObject(json, name)) != NULL;
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
		{ "removed", ledger->removed },       { "waiting", ledger->waiting },
		{ "waiting_bytes", ledger->bytes },   { "max_spool", ledger->max_spool },
		{ "max_record", ledger->max_record },
		{ "in_flight", status->live ? report->in_flight : 0 },
		{ "retrying", status->live ? report->retrying : 0 }
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
	ok = ok && words_print_json(out, json);
	cJSON_Delete(json);
	return ok;
}
