/* The status for Prometheus; see metrics.h. */
#include "agent/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPORARY ".new" /* which the collector, that reads *.prom, passes over */
/* For counting dead letters by reason: settles wait so long, ms. */
#define REASONS_PATIENCE 50

static void head(FILE *out, const char *name, const char *type, const char *help)
{
	(void)fprintf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void number(FILE *out, const char *name, const char *type, const char *help,
                   int64_t value)
{
	head(out, name, type, help);
	(void)fprintf(out, "%s %" PRId64 "\n", name, value);
}

/* A time is left out where there is none. */
static void timestamp(FILE *out, const char *name, const char *help, int64_t ms)
{
	if (ms <= 0)
		return;
	head(out, name, "gauge", help);
	(void)fprintf(out, "%s %" PRId64 ".%03" PRId64 "\n", name, ms / 1000, ms % 1000);
}

/* A label's value, between quotation marks. */
static void put_label(FILE *out, const char *text)
{
	for (; *text != '\0'; text++)
		if (*text == '"' || *text == '\\')
			(void)fprintf(out, "\\%c", *text);
		else
			(void)fputc((unsigned char)*text < 0x20 ? '?' : *text, out);
}

static void print_ledger(const struct spool_ledger *ledger, FILE *out)
{
	const struct {
		const char *name, *help;
		int64_t value;
	} counters[] = {
		{ "accepted", "Records that producers inserted.", ledger->accepted },
		{ "delivered", "Records that the endpoint confirmed.", ledger->delivered },
		{ "discarded", "Records that a person took away.", ledger->discarded },
		{ "dropped", "Records that went for want of room.", ledger->dropped },
		{ "purged", "Records that a person erased.", ledger->purged },
		{ "removed", "Records that producers deleted or replaced.", ledger->removed },
	};
	for (size_t i = 0; i < sizeof counters / sizeof counters[0]; i++) {
		char name[64];
		(void)snprintf(name, sizeof name, "reconify_spool_records_%s_total", counters[i].name);
		number(out, name, "counter", counters[i].help, counters[i].value);
	}
	number(out, "reconify_spool_records_waiting", "gauge", "Records that wait.",
	       ledger->waiting);
	number(out, "reconify_spool_dead_letters", "gauge", "Records that were refused for good.",
	       ledger->dead_counted);
	if (ledger->reason_count > 0) {
		head(out, "reconify_spool_dead_letters_by_reason", "gauge",
		     "Dead letters by the code of their reason, where they could be counted.");
		for (size_t i = 0; i < ledger->reason_count; i++)
			(void)fprintf(out, "reconify_spool_dead_letters_by_reason{reason=\"%s\"} %" PRId64
			              "\n", ledger->reasons[i].code, ledger->reasons[i].count);
	}
	number(out, "reconify_spool_used_bytes", "gauge", "Bytes of waiting and dead records.",
	       ledger->bytes);
	number(out, "reconify_spool_limit_bytes", "gauge", "Bytes at which the spool is full.",
	       ledger->max_spool);
	timestamp(out, "reconify_spool_oldest_record_timestamp_seconds",
	          "When the first of the waiting records was inserted.", ledger->oldest_at);
	number(out, "reconify_spool_ledger_balanced", "gauge", "Whether the ledger adds up.",
	       ledger->balanced);
}

static void print_agent(const struct metrics *metrics, FILE *out)
{
	const struct report *report = metrics->report;
	head(out, "reconify_agent_build_info", "gauge", "The version of the program.");
	(void)fprintf(out, "reconify_agent_build_info{version=\"%s\"} 1\n", RECONIFY_VERSION);
	number(out, "reconify_agent_running", "gauge", "Whether an agent has this spool.",
	       metrics->running);
	head(out, "reconify_agent_destination_state", "gauge",
	     "The state of the endpoint: 1 for the one that it is in.");
	for (int i = DESTINATION_UP; i <= DESTINATION_UNCONFIGURED; i++)
		(void)fprintf(out, "reconify_agent_destination_state{state=\"%s\"} %d\n",
		              report_state_name((enum destination_state)i), report->state == (enum destination_state)i);
	timestamp(out, "reconify_agent_destination_state_since_timestamp_seconds",
	          "Since when it is in that state.", report->since);
	timestamp(out, "reconify_agent_last_delivery_timestamp_seconds",
	          "When a record was last delivered.", report->last_delivered_at);
	head(out, "reconify_agent_app_held", "gauge",
	     "Whether the records of an app wait for its keys to be put right.");
	int64_t unknown = 0;
	for (size_t i = 0; i < report->app_count; i++) {
		const char *name = report->apps[i].name;
		if (config_find_app(metrics->config, name, strlen(name)) == NULL) {
			unknown++;
			continue;
		}
		(void)fputs("reconify_agent_app_held{app=\"", out);
		put_label(out, name);
		(void)fprintf(out, "\"} %d\n", report->apps[i].held);
	}
	number(out, "reconify_agent_unknown_apps", "gauge",
	       "Apps of records that are not in the configuration.", unknown);
	number(out, "reconify_agent_storage_failing", "gauge",
	       "Whether the spool cannot be read or written.", report->storage[0] != '\0');
	number(out, "reconify_agent_damaged", "gauge", "Whether records cannot be read.",
	       report->damaged_from > 0);
	if (!metrics->live)
		return;
	timestamp(out, "reconify_agent_start_timestamp_seconds", "When the agent was started.",
	          report->started_at);
	number(out, "reconify_agent_requests_in_flight", "gauge", "Requests under way.",
	       report->in_flight);
	number(out, "reconify_agent_records_retrying", "gauge",
	       "Records that failed by themselves and wait for their next try.",
	       report->retrying);
	timestamp(out, "reconify_agent_next_try_timestamp_seconds",
	          "When the endpoint is tried next.", report->next_try_at);
}

void metrics_print(const struct metrics *metrics, FILE *out)
{
	print_agent(metrics, out);
	print_ledger(metrics->ledger, out);
}

/* --- The file ----------------------------------------------------------- */

void metrics_file_close(struct metrics_file *file)
{
	free(file->text);
	file->text = NULL;
}

static bool fill(int opened, const char *text)
{
	size_t size = strlen(text);
	while (size > 0) {
		ssize_t written = write(opened, text, size);
		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return false;
		text += written;
		size -= (size_t)written;
	}
	return true;
}

/* The collector sees the old file or the new one, and never a part. */
static bool replace(const char *path, const char *text)
{
	char *temporary;
	if (asprintf(&temporary, "%s" TEMPORARY, path) < 0)
		return false;
	(void)unlink(temporary); /* of an agent that was killed; nobody else's is written into */
	int opened = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	bool done = opened >= 0 && fchmod(opened, 0644) == 0 && fill(opened, text);
	if (opened >= 0 && close(opened) != 0)
		done = false;
	done = done && rename(temporary, path) == 0;
	int reason = errno;
	if (!done && opened >= 0)
		(void)unlink(temporary);
	free(temporary);
	errno = reason;
	return done;
}

void metrics_file_write(struct metrics_file *file, const struct config *config,
                        struct spool *spool)
{
	struct spool_ledger ledger;
	char *text = NULL;
	size_t size = 0;
	file->error[0] = '\0';
	if (spool_read_ledger(spool, -1, &ledger) != SPOOL_OK)
		return; /* which is said elsewhere */
	if (ledger.dead != file->dead) {
		spool_count_reasons(spool, REASONS_PATIENCE, &ledger);
		memcpy(file->reasons, ledger.reasons, sizeof file->reasons);
		file->reason_count = ledger.reason_count;
		file->dead = ledger.dead;
	}
	memcpy(ledger.reasons, file->reasons, sizeof ledger.reasons);
	ledger.reason_count = file->reason_count;
	const struct metrics metrics = { .config = config, .ledger = &ledger,
		                         .report = &file->report, .running = file->running };
	FILE *out = open_memstream(&text, &size);
	if (out == NULL)
		return;
	metrics_print(&metrics, out);
	if (fclose(out) != 0 || (file->text != NULL && strcmp(file->text, text) == 0)) {
		free(text);
		return;
	}
	if (replace(config->metrics_file, text)) {
		free(file->text);
		file->text = text;
		return;
	}
	(void)snprintf(file->error, sizeof file->error, "the metrics cannot be written, [metrics] "
	               "file = %.300s: %s", config->metrics_file, strerror(errno));
	free(text);
}
