/* The check; see check.h. */
#include "agent/check.h"

#include <inttypes.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sysexits.h>
#include <time.h>

#include "agent/lock.h"
#include "agent/status.h"
#include "spool/spool.h"

enum severity { WRONG, REMARK, FINE, SEVERITIES };

struct finding {
	enum severity severity;
	char *sentence;
};

struct findings {
	struct finding *list;
	size_t count, room;
	int code; /* of the worst */
};

static void add(struct findings *findings, enum severity severity, int code,
                const char *sentence)
{
	if (findings->count == findings->room) {
		size_t room = findings->room > 0 ? findings->room * 2 : 16;
		struct finding *grown = realloc(findings->list, room * sizeof *grown);
		if (grown == NULL) {
			findings->code = EX_OSERR;
			return;
		}
		findings->list = grown;
		findings->room = room;
	}
	findings->list[findings->count].severity = severity;
	findings->list[findings->count].sentence = strdup(sentence);
	findings->count++;
	if (severity == WRONG && findings->code == EX_OK)
		findings->code = code;
}

static void check_config(struct findings *findings, const struct config *config)
{
	char sentence[512];
	(void)snprintf(sentence, sizeof sentence, "configuration: %s",
	               config->file != NULL ? config->file
	                                    : "no file; the environment and the defaults");
	add(findings, FINE, 0, sentence);
	if (config->url == NULL)
		add(findings, WRONG, EX_CONFIG, "endpoint: none is configured: set url in [endpoint], "
		    "or RECONIFY_ENDPOINT");
	for (size_t i = 0; i < config->app_count; i++) {
		const struct config_app *app = &config->apps[i];
		if (app->missing != NULL)
			(void)snprintf(sentence, sizeof sentence, "app %.100s: %.350s", app->name,
			               app->missing);
		else
			(void)snprintf(sentence, sizeof sentence, "app %.100s: both keys are there",
			               app->name);
		add(findings, app->missing != NULL ? WRONG : FINE, EX_CONFIG, sentence);
	}
}

static void on_damage(void *context, const char *sentence)
{
	add(context, WRONG, EX_DATAERR, sentence);
}

static void check_folder(struct findings *findings, const struct config *config)
{
	char sentence[640];
	struct stat about;
	struct statvfs space;
	char *copy = strdup(config->spool_path);
	const char *folder = copy != NULL ? dirname(copy) : ".";
	if (stat(folder, &about) == 0 && (about.st_mode & S_IWOTH) != 0) {
		(void)snprintf(sentence, sizeof sentence, "spool: every user can write to its folder "
		               "%s, and so replace the spool; a mode such as 2770 is right", folder);
		add(findings, REMARK, 0, sentence);
	}
	if (stat(config->spool_path, &about) == 0 && (about.st_mode & (S_IROTH | S_IWOTH)) != 0) {
		(void)snprintf(sentence, sizeof sentence, "spool: every user can read or write %s, "
		               "which holds people's texts; chmod 0660 is right", config->spool_path);
		add(findings, REMARK, 0, sentence);
	}
	if (statvfs(folder, &space) == 0) {
		uint64_t left = (uint64_t)space.f_bavail * space.f_frsize;
		(void)snprintf(sentence, sizeof sentence, "disk: %" PRIu64 " MiB are free where the "
		               "spool is", left >> 20);
		bool little = left < (uint64_t)config->max_spool;
		if (little)
			(void)snprintf(sentence, sizeof sentence, "disk: %" PRIu64 " MiB are free where the "
			               "spool is, less than max_spool (%" PRId64 " MiB)", left >> 20,
			               config->max_spool >> 20);
		add(findings, little ? REMARK : FINE, 0, sentence);
	}
	free(copy);
}

static void check_spool(struct findings *findings, const struct config *config)
{
	struct spool_error error;
	struct spool_ledger ledger;
	char sentence[640];
	struct spool *spool = spool_open(config->spool_path, SPOOL_READ, config->max_record, &error);
	if (spool == NULL) {
		add(findings, WRONG, status_exit_code(error.status), error.sentence);
		return;
	}
	size_t before = findings->count;
	if (spool_examine(spool, on_damage, findings) != SPOOL_OK) {
		error = *spool_last_error(spool);
		add(findings, WRONG, status_exit_code(error.status), error.sentence);
	}
	if (spool_read_ledger(spool, 10000, &ledger) != SPOOL_OK) {
		error = *spool_last_error(spool);
		add(findings, WRONG, status_exit_code(error.status), error.sentence);
	} else if (!ledger.balanced) {
		(void)snprintf(sentence, sizeof sentence, "%s: the ledger does not add up (see "
		               "'reconify-agent status'): another program changed the file",
		               config->spool_path);
		add(findings, WRONG, EX_DATAERR, sentence);
	} else if (findings->count == before) {
		(void)snprintf(sentence, sizeof sentence, "spool: %s is sound: %" PRId64 " waiting, %"
		               PRId64 " dead", config->spool_path, ledger.waiting, ledger.dead_counted);
		add(findings, FINE, 0, sentence);
	}
	spool_close(spool);
	check_folder(findings, config);
}

static void check_host(struct findings *findings, const struct config *config)
{
	char sentence[512];
	struct timespec time;
	if (clock_gettime(CLOCK_REALTIME, &time) == 0 && time.tv_sec < 1577836800)
		add(findings, REMARK, 0, "clock: it stands before 2020, so that certificates will seem "
		    "not yet valid and request_at defaults will be wrong");
	(void)snprintf(sentence, sizeof sentence, "SQLite: %s%s", spool_sqlite_version(),
	               spool_sqlite_has_wal_reset_fix()
	                       ? ", which has the fix for the WAL-reset fault"
	                       : ", which has the WAL-reset fault (fixed in 3.51.3, 3.50.7 and "
	                         "3.44.6); the agent checkpoints so that it keeps clear of it");
	add(findings, FINE, 0, sentence);
	pid_t holder = lock_holder(config->spool_path);
	if (holder > 0)
		(void)snprintf(sentence, sizeof sentence, "agent: running (pid %ld)", (long)holder);
	else
		(void)snprintf(sentence, sizeof sentence, "agent: %s",
		               holder < 0 ? "running" : "not running");
	add(findings, holder == 0 ? REMARK : FINE, 0, sentence);
}

int check_all(const struct config *config, FILE *out)
{
	static const char *const words[] = { "WRONG ", "remark", "ok    " };
	struct findings findings = { NULL, 0, 0, EX_OK };
	check_config(&findings, config);
	check_spool(&findings, config);
	check_host(&findings, config);
	for (int severity = WRONG; severity < SEVERITIES; severity++)
		for (size_t i = 0; i < findings.count; i++)
			if ((int)findings.list[i].severity == severity)
				(void)fprintf(out, "%s  %s\n", words[severity],
				              findings.list[i].sentence != NULL ? findings.list[i].sentence : "");
	for (size_t i = 0; i < findings.count; i++)
		free(findings.list[i].sentence);
	free(findings.list);
	return findings.code;
}
