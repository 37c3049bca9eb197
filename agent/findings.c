/* What is to be said about a spool and its agent; see findings.h. */
#include "agent/findings.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "agent/limits.h"
#include "agent/words.h"

/* Of max_spool, in percent. */
#define FILLED_WARNING 80
#define FILLED_PROBLEM 98
/* Ms: a limit that keeps everything for so long is worth a word. */
#define LIMIT_NOTED 60000

const char *finding_level_name(enum finding_level level)
{
	static const char *const names[] = { "note", "warning", "problem" };
	return names[level];
}

struct found {
	struct finding *findings;
	size_t count;
	struct finding spare; /* what is too much goes here */
};

__attribute__((format(printf, 4, 5))) static struct finding *
add(struct found *found, enum finding_level level, const char *code, const char *format, ...)
{
	struct finding *finding = &found->spare;
	if (found->count < FINDINGS_MAX)
		finding = &found->findings[found->count++];
	*finding = (struct finding){ .level = level, .code = code };
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(finding->sentence, sizeof finding->sentence, format, arguments);
	va_end(arguments);
	return finding;
}

__attribute__((format(printf, 2, 3))) static void advise(struct finding *finding,
                                                         const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(finding->advice, sizeof finding->advice, format, arguments);
	va_end(arguments);
}

static const char *records(int64_t count)
{
	return count == 1 ? "record" : "records";
}

static void judge_agent(const struct status *status, struct found *found)
{
	int64_t waiting = status->ledger.waiting;
	if (!status->running) {
		struct finding *finding =
			waiting > 0 ? add(found, FINDING_PROBLEM, "not-running",
		                          "the agent does not run: %" PRId64 " %s and nothing is sent",
		                          waiting, waiting == 1 ? "record waits" : "records wait")
		                    : add(found, FINDING_WARNING, "not-running",
		                          "the agent does not run; nothing waits, but what is inserted "
		                          "will");
		/* Who names another spool than the service's has another agent in mind. */
		if (status->options[0] != '\0')
			advise(finding, "reconify-agent run%s", status->options);
		else
			advise(finding, "systemctl start reconify-agent");
	} else if (!status->live) {
		advise(add(found, FINDING_PROBLEM, "no-answer",
		           "the agent runs, but does not answer (within 3 s, to this user)"),
		       "journalctl -u reconify-agent -n 20; then systemctl restart reconify-agent");
	}
}

static void judge_destination(const struct status *status, struct found *found)
{
	const struct report *report = &status->report;
	struct finding *finding;
	switch (report->state) {
	case DESTINATION_UP:
		return;
	case DESTINATION_PAUSED:
		advise(add(found, FINDING_NOTE, "paused", "paused by a person: nothing is sent"),
		       "reconify-agent resume%s", status->options);
		return;
	case DESTINATION_UNCONFIGURED:
		advise(add(found, FINDING_PROBLEM, "unconfigured", "%s", report->reason),
		       "set it, then: systemctl restart reconify-agent");
		return;
	case DESTINATION_DOWN:
		finding = add(found, FINDING_WARNING, "endpoint-down", "%s: %s",
		              status->running ? "the endpoint is not available, what waits is retried "
		                                "by itself"
		                              : "the endpoint was not available when the agent last ran",
		              report->reason);
		if (status->running)
			advise(finding, "reconify-agent drain%s   (tries now; is it the network?)",
			       status->options);
		return;
	case DESTINATION_HELD:
		advise(add(found, FINDING_PROBLEM, "endpoint-held",
		           "the endpoint refuses every record: %s", report->reason),
		       "put url in %s right, then: systemctl reload reconify-agent",
		       status->config_file);
		return;
	}
}

static void judge_limits(const struct status *status, struct found *found)
{
	const struct report *report = &status->report;
	char words[LIMITS_WORDS_SIZE];
	limits_wait_words(report, status->now, words);
	if (!status->live || status->ledger.waiting == 0 || words[0] == '\0')
		return;
	/* That a rate keeps the next record for a moment is how it is meant to be. */
	if (report_is_closed(report) || report->limit_until - status->now >= LIMIT_NOTED)
		advise(add(found, FINDING_NOTE, "limit", "the agent %s", words),
		       "nothing, or change [limits] in %s, then: systemctl reload reconify-agent",
		       status->config_file);
}

static void judge_apps(const struct status *status, struct found *found)
{
	const struct report *report = &status->report;
	size_t held = 0, first = 0;
	for (size_t i = 0; i < report->app_count; i++)
		if (report->apps[i].held && held++ == 0)
			first = i;
	if (held == 0)
		return;
	const char *name = report->apps[first].name;
	struct finding *finding =
		held == 1 ? add(found, FINDING_PROBLEM, "app-held", "app %s is held, its records wait: %s",
	                        name, report->apps[first].reason)
	                  : add(found, FINDING_PROBLEM, "app-held", "%zu apps are held, their records "
	                        "wait; app %s: %s", held, name, report->apps[first].reason);
	/* The service has copies of its keys: systemd made them when it started. */
	advise(finding, status->options[0] != '\0'
	       ? "put the keys of [app %s] right (%s): a changed key is tried at once"
	       : "put the keys of [app %s] right (%s), then: systemctl restart reconify-agent",
	       name, status->config_file);
}

static void judge_storage(const struct status *status, struct found *found)
{
	const struct spool_ledger *ledger = &status->ledger;
	const struct report *report = &status->report;
	char used[WORDS_SHORT], limit[WORDS_SHORT];
	if (status->live && report->storage[0] != '\0')
		advise(add(found, FINDING_PROBLEM, "storage", "the spool cannot be used: %s",
		           report->storage),
		       "reconify-agent check%s", status->options);
	struct finding *damaged = NULL;
	if (report->damaged_from > 0)
		damaged = add(found, FINDING_PROBLEM, "damaged", "records from id %" PRId64 " on cannot be "
		              "read and are passed over", report->damaged_from);
	else if (ledger->damaged)
		damaged = add(found, FINDING_PROBLEM, "damaged", "the spool's file is damaged: not all of "
		              "its records can be read");
	if (damaged != NULL)
		advise(damaged, "stop the agent, then: reconify-agent init --salvage%s", status->options);
	if (!ledger->balanced)
		advise(add(found, FINDING_PROBLEM, "ledger", "the ledger DOES NOT ADD UP: the file was "
		           "changed by something else than the agent and producers' plain statements"),
		       "reconify-agent check%s", status->options);
	if (status->disk_free >= 0 && status->disk_free < STATUS_DISK_FULL)
		advise(add(found, FINDING_PROBLEM, "disk", "the disk that the spool is on is full: inserts "
		           "fail"), "make room; df -h %s shows which disk it is", status->spool_path);
	int64_t percent = ledger->max_spool > 0 ? ledger->bytes / (ledger->max_spool / 100 + 1) : 0;
	if (percent < FILLED_WARNING)
		return;
	bool full = percent >= FILLED_PROBLEM;
	advise(add(found, full ? FINDING_PROBLEM : FINDING_WARNING, "space", "the spool is %s: %s of "
	           "%s are used%s", full ? "full, or nearly" : "filling up",
	           words_bytes(ledger->bytes, used), words_bytes(ledger->max_spool, limit),
	           ledger->drop_oldest ? "; then the oldest records are dropped"
	           : full              ? "; inserts are refused"
	                               : ""),
	       "raise max_spool in %s; dead letters count, too: reconify-agent list --dead%s",
	       status->config_file, status->options);
}

static void judge_records(const struct status *status, struct found *found)
{
	const struct spool_ledger *ledger = &status->ledger;
	const struct report *report = &status->report;
	bool witness = report->retrying == 0 && report->state == DESTINATION_DOWN;
	if (ledger->dead_counted > 0)
		advise(add(found, FINDING_WARNING, "dead-letters", "%" PRId64 " %s refused and will not "
		           "be sent by %s", ledger->dead_counted,
		           ledger->dead_counted == 1 ? "record was" : "records were",
		           ledger->dead_counted == 1 ? "itself" : "themselves"),
		       "reconify-agent list --dead%s; then retry or discard", status->options);
	if (!status->live || report->retrying_id == 0)
		return;
	/* What it was told is the endpoint's reason, which stands there already. */
	if (witness) {
		advise(add(found, FINDING_WARNING, "one-record", "only record %" PRId64 " was tried: it may "
		           "be the cause itself", report->retrying_id),
		       "reconify-agent show %" PRId64 "%s", report->retrying_id, status->options);
		return;
	}
	struct finding *finding =
		report->retrying == 1
			? add(found, FINDING_WARNING, "retrying", "record %" PRId64 " fails by itself "
		              "(%u times so far) and is retried: %s", report->retrying_id,
		              report->retrying_attempts, report->retrying_reason)
			: add(found, FINDING_WARNING, "retrying", "%" PRId64 " %s fail by themselves and "
		              "are retried, such as record %" PRId64 " (%u times so far): %s",
		              report->retrying, records(report->retrying), report->retrying_id,
		              report->retrying_attempts, report->retrying_reason);
	advise(finding, "reconify-agent show %" PRId64 "%s; where it is not worth it: discard",
	       report->retrying_id, status->options);
}

size_t findings_collect(const struct status *status, struct finding findings[FINDINGS_MAX])
{
	struct found found = { .findings = findings };
	judge_agent(status, &found);
	judge_destination(status, &found);
	judge_limits(status, &found);
	judge_apps(status, &found);
	judge_storage(status, &found);
	judge_records(status, &found);
	/* The worst first, else in the order of the screen. */
	for (size_t i = 1; i < found.count; i++) {
		struct finding moved = findings[i];
		size_t at = i;
		for (; at > 0 && findings[at - 1].level < moved.level; at--)
			findings[at] = findings[at - 1];
		findings[at] = moved;
	}
	return found.count;
}
