/* reconify-agent: what was asked for, and the exit code (sysexits.h) it ends with.
 * Knows every command; does none of the work.
 */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "agent/check.h"
#include "agent/daemon.h"
#include "agent/list.h"
#include "agent/metrics.h"
#include "agent/manage.h"
#include "agent/payload.h"
#include "agent/salvage.h"
#include "agent/screen.h"
#include "agent/secret.h"
#include "agent/select.h"
#include "agent/status.h"
#include "agent/transfer.h"
#include "agent/watch.h"
#include "spool/spool.h"

struct call {
	struct daemon_call daemon;
	bool json, progress, keys, send, salvage, prometheus;
	int watch; /* seconds; 0: not */
	int64_t wait;
	struct selection selection;
	char **arguments; /* what is not an option */
	int argument_count;
};

struct command {
	const char *name;
	int (*act)(const struct call *call);
	const char *options; /* beside --config, --spool and --help */
	const char *arguments;
	const char *summary, *help;
};

static int complain(int code, const char *sentence)
{
	(void)fprintf(stderr, "reconify-agent: %s\n", sentence);
	return code;
}

static int configure(const struct call *call, struct config **config)
{
	char *error = NULL;
	int code = daemon_configure(&call->daemon, config, &error);
	if (code != EX_OK)
		(void)complain(code, error != NULL ? error : "no memory");
	free(error);
	return code;
}

static int64_t wall_ms(void)
{
	struct timespec time;
	if (clock_gettime(CLOCK_REALTIME, &time) != 0)
		return 0;
	return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static int act_init(const struct call *call)
{
	struct config *config;
	struct spool_error error;
	int code = configure(call, &config);
	if (code != EX_OK)
		return code;
	bool incomplete = false;
	if (call->salvage) {
		code = salvage_spool(config, wall_ms(), &incomplete);
		if (code != EX_OK) {
			config_free(config);
			return code;
		}
	}
	struct spool *spool = spool_open(config->spool_path, SPOOL_CREATE, config->max_record, &error);
	if (spool == NULL) {
		code = complain(status_exit_code(error.status), error.sentence);
	} else if (spool_set_limits(spool, config->max_spool, config->max_record,
	                            config->when_full == WHEN_FULL_DROP_OLDEST) != SPOOL_OK) {
		error = *spool_last_error(spool);
		code = complain(status_exit_code(error.status), error.sentence);
	}
	spool_close(spool);
	/* Now it is known to be a spool, and not a file that somebody needs as it is. */
	if (code == EX_OK && spool_mend_access(config->spool_path, &error) != SPOOL_OK)
		code = complain(status_exit_code(error.status), error.sentence);
	if (code == EX_OK)
		(void)printf("%s: ready for records\n", config->spool_path);
	config_free(config);
	return code == EX_OK && incomplete ? EX_DATAERR : code;
}

static int act_run(const struct call *call)
{
	struct config *config;
	int code = configure(call, &config);
	return code == EX_OK ? daemon_run(&call->daemon, config) : code;
}

static int act_drain(const struct call *call)
{
	struct config *config;
	int code = configure(call, &config);
	return code == EX_OK ? daemon_drain(&call->daemon, config, call->progress, call->wait) : code;
}

#define STATUS_PATIENCE 2000 /* ms for counting rows, and */
#define WATCH_PATIENCE 300   /* where it is done again and again */

struct status_view {
	const struct call *call;
	const struct config *config;
	const char *options;
};

static int print_status(void *context, FILE *out)
{
	const struct status_view *view = context;
	struct status status;
	struct spool_error error;
	int code = status_collect(view->config, view->call->watch > 0 ? WATCH_PATIENCE : STATUS_PATIENCE,
	                          &status, &error);
	if (code != EX_OK)
		return complain(code, error.sentence);
	status.options = view->options;
	if (view->call->json)
		return status_print_json(&status, out) ? EX_OK : complain(EX_OSERR, "no memory");
	if (view->call->prometheus) {
		const struct metrics metrics = { .config = view->config, .ledger = &status.ledger,
			                         .report = &status.report, .running = status.running,
			                         .live = status.live };
		metrics_print(&metrics, out);
		return EX_OK;
	}
	struct screen screen = screen_for(STDOUT_FILENO);
	screen_print(&screen, &status, out);
	return EX_OK;
}

/* The common options as they were given, for commands that a person is to copy. */
static char *given_options(const struct call *call)
{
	const char *names[] = { "config", "spool" };
	const char *values[] = { call->daemon.config_file, call->daemon.spool_path };
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	if (out == NULL)
		return NULL;
	for (size_t i = 0; i < 2; i++) {
		if (values[i] == NULL)
			continue;
		bool plain = values[i][strspn(values[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTU"
		                              "VWXYZ0123456789._/@%+=:,-")] == '\0';
		(void)fprintf(out, plain ? " --%s " : " --%s '", names[i]);
		for (const char *at = values[i]; *at != '\0'; at++)
			(void)fprintf(out, *at == '\'' ? "'\\''" : "%c", *at);
		(void)fputs(plain ? "" : "'", out);
	}
	if (fclose(out) == 0)
		return text;
	free(text);
	return NULL;
}

static int act_status(const struct call *call)
{
	struct config *config;
	int code = configure(call, &config);
	if (code != EX_OK)
		return code;
	if (call->prometheus && (call->json || call->watch > 0)) {
		config_free(config);
		return complain(EX_USAGE, "status: --prometheus goes with neither --json nor --watch");
	}
	char *options = given_options(call);
	struct status_view view = { call, config, options != NULL ? options : "" };
	code = call->watch > 0 ? watch_run(call->watch, !call->json, print_status, &view)
	                       : print_status(&view, stdout);
	free(options);
	config_free(config);
	return code;
}

/* Opens the spool for records of any size, and hands it to `act`. */
static int with_spool(const struct call *call, enum spool_mode mode,
                      int (*act)(const struct call *call, const struct config *config,
                                 struct spool *spool))
{
	struct config *config;
	struct spool_error error;
	int code = configure(call, &config);
	if (code != EX_OK)
		return code;
	struct spool *spool = spool_open(config->spool_path, mode, INT32_MAX, &error);
	code = spool != NULL ? act(call, config, spool)
	                     : complain(status_exit_code(error.status), error.sentence);
	spool_close(spool);
	config_free(config);
	return code;
}

static int list(const struct call *call, const struct config *config, struct spool *spool)
{
	bool delivered = call->selection.delivered;
	enum spool_status status = delivered
	                                   ? list_receipts(spool, &call->selection, stdout)
	                                   : list_records(spool, &call->selection, wall_ms(), stdout);
	if (delivered && config->keep_delivered == 0)
		(void)fprintf(stderr, "reconify-agent: no receipts are kept: [spool] keep_delivered is 0\n");
	const char *sentence = spool_last_error(spool)->sentence;
	if (status == SPOOL_DAMAGED)
		return EX_DATAERR; /* was said where it was met */
	return status == SPOOL_OK ? EX_OK
	                          : complain(status_exit_code(status),
	                                     sentence[0] != '\0' ? sentence : "no memory");
}

static int act_list(const struct call *call)
{
	if (call->selection.filter.reason != NULL && !call->selection.dead)
		return complain(EX_USAGE, "list: --reason is for dead letters: add --dead");
	if (call->selection.delivered && (call->selection.dead || call->selection.filtered))
		return complain(EX_USAGE, "list: --delivered goes with --limit and --json alone: of a "
		                "delivered record no more is known than is shown");
	return with_spool(call, SPOOL_READ, list);
}

static int act_check(const struct call *call)
{
	struct config *config;
	if (call->keys && call->send)
		return complain(EX_USAGE, "check: --keys or --send, not both");
	if (call->selection.filter.app != NULL && !call->send)
		return complain(EX_USAGE, "check: --app says whose keys --send tries: add --send");
	int code = configure(call, &config);
	if (code != EX_OK)
		return code;
	(void)signal(SIGPIPE, SIG_IGN); /* a server that hangs up is a finding */
	char *options = given_options(call);
	if (call->keys)
		check_keys(config, stdout);
	else if (call->send)
		code = check_send(config, call->selection.filter.app, stdout);
	else if (options == NULL)
		code = complain(EX_OSERR, "no memory");
	else
		code = check_all(config, options, stdout);
	free(options);
	config_free(config);
	return code;
}

static int act_schema(const struct call *call)
{
	(void)call;
	return fputs(spool_schema(), stdout) >= 0 ? EX_OK : EX_IOERR;
}

/* The bytes that would be posted, with the keys masked. */
static int print_payload(const struct config *config, const struct record *record)
{
	static const char mask[] = "****";
	struct payload_frame frame = {
		{ mask, sizeof mask - 1 }, { mask, sizeof mask - 1 },
		config_find_format(config, record->format.bytes, record->format.size)
	};
	const struct payload_fault *fault = payload_judge(record);
	if (fault != NULL) {
		(void)fprintf(stderr, "reconify-agent: record %" PRId64 " cannot be sent: %s: %s\n",
		              record->id, fault->code, fault->sentence);
		return EX_DATAERR;
	}
	size_t size = payload_write(record, &frame, NULL, 0);
	char *payload = malloc(size + 1);
	if (payload == NULL)
		return complain(EX_OSERR, "no memory for this record");
	(void)payload_write(record, &frame, payload, size);
	if (isatty(STDOUT_FILENO))
		payload[size++] = '\n';
	bool written = fwrite(payload, 1, size, stdout) == size && fflush(stdout) == 0;
	secret_free(payload, size);
	return written ? EX_OK : complain(EX_IOERR, "cannot write to standard output");
}

/* Words of others, without what a terminal would obey. */
static void print_foreign(struct text text)
{
	for (size_t i = 0; i < text.size; i++) {
		unsigned char byte = (unsigned char)text.bytes[i];
		bool obeyed = (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f ||
		              (byte == 0xc2 && i + 1 < text.size &&
		               (unsigned char)text.bytes[i + 1] < 0xa0); /* C1, as UTF-8 */
		(void)fputc(obeyed ? '?' : byte, stderr);
		if (obeyed && byte == 0xc2)
			i++;
	}
	(void)fputc('\n', stderr);
}

/* What is known of a record that is not there any more. SPOOL_END: nothing. */
static enum spool_status show_receipt(struct spool *spool, int64_t id, const char *uuid)
{
	struct spool_receipt receipt;
	char when[40] = "an unknown time";
	struct tm parts;
	enum spool_status status = spool_find_receipt(spool, id, uuid, &receipt);
	if (status != SPOOL_OK)
		return status;
	time_t seconds = (time_t)(receipt.delivered_at / 1000);
	if (localtime_r(&seconds, &parts) == NULL ||
	    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &parts) == 0)
		(void)snprintf(when, sizeof when, "an unknown time");
	(void)fprintf(stderr, "reconify-agent: record %" PRId64 " was delivered, %s, with HTTP %d; its "
	              "content is not kept\n", receipt.id, when, receipt.http_status);
	return list_receipt_as_json(&receipt, stdout) ? SPOOL_OK : SPOOL_IO;
}

static int show(const struct call *call, const struct config *config, struct spool *spool)
{
	const char *uuid = call->selection.uuid[0] != '\0' ? call->selection.uuid : NULL;
	int64_t id = uuid == NULL ? call->selection.ids[0] : 0;
	struct record record;
	struct text reason = { NULL, 0 }, said = { NULL, 0 };
	enum spool_status status = uuid != NULL ? spool_find_uuid(spool, uuid, &id) : SPOOL_OK;
	if (status == SPOOL_OK)
		status = spool_load(spool, id, &record);
	if (status == SPOOL_OK)
		return print_payload(config, &record);
	if (status == SPOOL_END)
		status = spool_load_dead(spool, id, &record, &reason, &said);
	if (status == SPOOL_OK) {
		(void)fprintf(stderr, "reconify-agent: record %" PRId64 " is a dead letter: ", id);
		print_foreign(reason);
		if (said.bytes != NULL) {
			(void)fprintf(stderr, "reconify-agent: the server said: ");
			print_foreign(said);
		}
		return print_payload(config, &record);
	}
	if (status == SPOOL_END)
		status = show_receipt(spool, id, uuid);
	if (status == SPOOL_OK)
		return EX_OK;
	if (status == SPOOL_END) {
		(void)fprintf(stderr, "reconify-agent: %s %s: no such record waits or is a dead letter%s\n",
		              uuid != NULL ? "uuid" : "id", call->arguments[0],
		              config->keep_delivered > 0
		                      ? ", nor is there a receipt of its delivery"
		                      : "; a delivered one is not kept");
		return EX_DATAERR;
	}
	return complain(status_exit_code(status), spool_last_error(spool)->sentence);
}

static int act_show(const struct call *call)
{
	return with_spool(call, SPOOL_READ, show);
}

/* IDs, a filter or --all, but not two of them: what is meant must be sure. */
static int need_selection(const struct call *call, const char *sentence)
{
	const struct selection *selection = &call->selection;
	bool by_id = selection->id_count > 0;
	if (by_id == (selection->all || selection->filtered))
		return complain(EX_USAGE, sentence);
	return EX_OK;
}

static int retry(const struct call *call, const struct config *config, struct spool *spool)
{
	return manage_retry(config, spool, &call->selection);
}

static int act_retry(const struct call *call)
{
	int code = need_selection(call, "retry: say which: either IDs, or --all, or filters");
	return code == EX_OK ? with_spool(call, SPOOL_WORK, retry) : code;
}

static int discard(const struct call *call, const struct config *config, struct spool *spool)
{
	return manage_discard(config, spool, &call->selection);
}

static int act_discard(const struct call *call)
{
	int code = need_selection(call, "discard: say which: either IDs, or --all, or filters");
	return code == EX_OK ? with_spool(call, SPOOL_WORK, discard) : code;
}

static int purge(const struct call *call, const struct config *config, struct spool *spool)
{
	return manage_purge(config, spool, &call->selection);
}

static int act_purge(const struct call *call)
{
	if (!call->selection.filtered)
		return complain(EX_USAGE, "purge: say whose: --user, --session, --app, --before or "
		                "--older");
	return with_spool(call, SPOOL_WORK, purge);
}

static int export(const struct call *call, const struct config *config, struct spool *spool)
{
	(void)config;
	return transfer_export(spool, &call->selection, stdout);
}

static int act_export(const struct call *call)
{
	if (call->selection.filter.reason != NULL && !call->selection.dead)
		return complain(EX_USAGE, "export: --reason is for dead letters: add --dead");
	return with_spool(call, SPOOL_READ, export);
}

static int import(const struct call *call, const struct config *config, struct spool *spool)
{
	const char *name = call->arguments[0];
	bool standard = strcmp(name, "-") == 0;
	FILE *in = standard ? stdin : fopen(name, "re");
	int reason = errno;
	struct stat kind;
	if (in != NULL && fstat(fileno(in), &kind) == 0 && S_ISDIR(kind.st_mode)) {
		if (!standard)
			(void)fclose(in);
		in = NULL;
		reason = EISDIR;
	}
	if (in == NULL) {
		(void)fprintf(stderr, "reconify-agent: %s: %s; nothing was imported\n", name,
		              strerror(reason));
		return reason == EACCES ? EX_NOPERM : EX_NOINPUT;
	}
	int code = transfer_import(config, spool, in, standard ? "standard input" : name);
	if (!standard)
		(void)fclose(in);
	return code;
}

static int act_import(const struct call *call)
{
	return with_spool(call, SPOOL_WORK, import);
}

static int pause_spool(const struct call *call, const struct config *config,
                       struct spool *spool)
{
	(void)call;
	return manage_pause(config, spool);
}

static int act_pause(const struct call *call)
{
	return with_spool(call, SPOOL_WORK, pause_spool);
}

static int resume_spool(const struct call *call, const struct config *config,
                        struct spool *spool)
{
	(void)call;
	return manage_resume(config, spool);
}

static int act_resume(const struct call *call)
{
	return with_spool(call, SPOOL_WORK, resume_spool);
}

#define FILTERS "abouS"
#define FILTERS_HELP                                                                        \
	"  --app NAME     of this app\n"                                                      \
	"  --session S    of this session\n"                                                  \
	"  --user ID      of this person: a user_id or an e-mail address\n"                    \
	"  --before TIME  inserted before a time, such as 2026-11-23 or 2026-11-23T12:30Z\n"  \
	"  --older AGE    inserted longer ago than 30s, 5m, 2h, 90d\n"
#define REASON_HELP                                                                         \
	"  --reason CODE  dead letters of this reason, such as unprocessable\n"

/* The completions read the help: "  --OPTION VALUE  what" begins the line of each option,
 * and VALUE says what is to be offered for it. */
static const struct command commands[] = {
	{ "init", act_init, "v", "", "creates the spool, or brings an older one up to date",
	  "  --salvage      sets a damaged spool aside as FILE.damaged-TIME, and makes a\n"
	  "                 new one of all that can be read. Needs the agent, and all\n"
	  "                 others, away from it\n"
	  "\nMay be repeated. The folder must be there; the file gets mode 0660 and, from\n"
	  "root, the folder's owner and group. A salvage changes nothing where nothing is\n"
	  "damaged. Exit 0: all could be read; 65: not all, and it says which; 75: a\n"
	  "program has the spool open.\n" },
	{ "run", act_run, "", "", "ships records as they come, in the foreground, until SIGTERM",
	  "\nCreates a missing spool in an existing folder. SIGTERM ends it within 10 s, exit\n"
	  "0; SIGHUP reads the configuration again; SIGUSR1 tries everything now. There is\n"
	  "one a spool: a second one exits 75.\n" },
	{ "drain", act_drain, "pw", "", "ships what waits now, then ends",
	  "  --progress     says every second how far it is\n"
	  "  --wait TIME    goes on for so long (30s, 5m, 2h) while something is left\n"
	  "\nEach record is tried at least once, as far as the endpoint can be reached. Exit\n"
	  "0: all delivered; 75: something is left, dead or held, with the reason. Beside a\n"
	  "running agent: wakes that one, and watches.\n" },
	{ "status", act_status, "jMW", "", "whether all is well; if not, why and what to do",
	  "  --json         one JSON object, for programs\n"
	  "  --prometheus   metrics in Prometheus's text format\n"
	  "  --watch [SEC]  again every 2 s, or so many (1 to 3600), in place; q ends it\n"
	  "\nAnswers whether the agent runs or not. The first line is the verdict.\n" },
	{ "pause", act_pause, "", "", "sends nothing until resume",
	  "\nA running agent stops at once; what is under way ends. Inserts go on being\n"
	  "accepted. It holds over restarts, and 'status' says so with its time. A drain\n"
	  "then exits 75.\n" },
	{ "resume", act_resume, "", "", "lets a paused spool go on, and tries everything now", "" },
	{ "list", act_list, "dDjlr" FILTERS, "", "the records that wait, or the dead letters",
	  "  --dead         dead letters, with the reason\n"
	  "  --delivered    what was delivered, where [spool] keep_delivered keeps receipts\n"
	  FILTERS_HELP REASON_HELP
	  "  --limit N      the first N\n"
	  "  --json         one JSON object a record\n"
	  "\nOne line a record, without its texts and who the user is: 'show ID' has them.\n"
	  "AGE is since the insert, BYTES what the record counts for against max_spool;\n"
	  "what does not fit ends with ~.\n" },
	{ "show", act_show, "", "ID|UUID", "the bytes that would be posted for a record, keys masked",
	  "\nFor a dead letter, the reason and the server's words go to standard error. For a\n"
	  "delivered record, where [spool] keep_delivered keeps receipts: when that was,\n"
	  "and its receipt as one line of JSON.\n" },
	{ "retry", act_retry, "Ar" FILTERS, "[ID...]", "lets dead letters wait again",
	  "  --all          all dead letters, where no IDs and no filters are given\n" FILTERS_HELP
	  REASON_HELP
	  "\nThey keep their id and uuid, and begin with no attempts. A running agent sends\n"
	  "them at once. An ID that is no dead letter's is named (exit 65), the others are\n"
	  "done.\n" },
	{ "discard", act_discard, "Ary" FILTERS, "[ID...]", "takes dead letters away, undelivered",
	  "  --all          all dead letters, where no IDs and no filters are given\n" FILTERS_HELP
	  REASON_HELP
	  "  --yes          does not ask; needed where there is no terminal\n"
	  "\nBy its ID also a record that waits. Counted in the ledger as discarded. An ID\n"
	  "that there is not is named (exit 65), the others are done. A request that is\n"
	  "under way may still arrive.\n" },
	{ "purge", act_purge, "y" FILTERS, "", "erases records, waiting and dead, in the file, too",
	  FILTERS_HELP
	  "  --yes          does not ask; needed where there is no terminal\n"
	  "\nTogether they narrow each other. What is purged is overwritten in the spool,\n"
	  "gone from its -wal too when this ends with 0, and counted in the ledger as\n"
	  "purged. Exit 75: a program that reads keeps old copies in the -wal; repeat the\n"
	  "purge. A request that is under way may still arrive. Of what was delivered, keys\n"
	  "alone stay, for 25 hours.\n" },
	{ "export", act_export, "dlr" FILTERS, "", "writes records, whole, as JSON Lines",
	  "  --dead         dead letters\n" FILTERS_HELP REASON_HELP
	  "  --limit N      the first N\n"
	  "\nOne record a line, on standard output, with all that people wrote: guard the\n"
	  "file. The spool stays as it is: 'discard' or 'purge' what is to be sent from\n"
	  "elsewhere.\n" },
	{ "import", act_import, "", "FILE|-", "takes in what export wrote, here or elsewhere",
	  "\nInserts as a producer does, under new ids and with the uuids that they had. What\n"
	  "was imported before is passed over, also after its delivery, so that to import\n"
	  "all of it again is safe; and what waits or is dead here. What this spool itself\n"
	  "delivered is known only by receipts ([spool] keep_delivered): without them it is\n"
	  "sent again. A line that is refused is named with its number (exit 65); the\n"
	  "others are imported. Exit 75: the spool is full.\n" },
	{ "check", act_check, "akP", "", "finds what is wrong; changes and sends nothing",
	  "  --keys         only the configuration: each key, its value, where it came from\n"
	  "  --send         only posts one test record with the keys of each app\n"
	  "  --app NAME     of this app alone\n"
	  "\nOne line a finding, worst first: configuration, keys, spool, clock, and the\n"
	  "endpoint as far as it can be seen without sending anything. Exit 0: nothing is\n"
	  "wrong, else the code of the worst. The record of --send is marked as a test,\n"
	  "never in the spool, and stays in the account. Its exit: 0 delivered; 65\n"
	  "rejected; 69 unavailable; 78 the keys or the url refused.\n" },
	{ "schema", act_schema, "", "", "prints the spool's schema", "" },
};
#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static void print_usage(FILE *out)
{
	(void)fprintf(out, "Usage: reconify-agent COMMAND [OPTION]...\n\n"
	              "Ships the AI interactions that wait in a local SQLite file to the Reconify "
	              "API,\nand deletes each only when the endpoint has confirmed it.\n\nCommands:\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		(void)fprintf(out, "  %-10s %s\n", commands[i].name, commands[i].summary);
	(void)fprintf(out, "\n'reconify-agent COMMAND --help' says more. Common options:\n"
	              "  --config FILE  the configuration (default\n                 %s, where it exists)\n"
	              "  --spool FILE   the spool (default %s)\n"
	              "  --version      the version\n"
	              "\nEnvironment: RECONIFY_ENDPOINT, RECONIFY_APP_KEY, RECONIFY_API_KEY take\n"
	              "precedence over the configuration file.\n",
	              CONFIG_DEFAULT_FILE, CONFIG_DEFAULT_SPOOL);
}

static void print_help(const struct command *command)
{
	(void)printf("Usage: reconify-agent %s [OPTION]...%s%s\n\n%c%s.\n\n"
	             "  --config FILE  the configuration (default %s)\n"
	             "  --spool FILE   the spool (default %s)\n%s",
	             command->name, command->arguments[0] != '\0' ? " " : "", command->arguments,
	             toupper((unsigned char)command->summary[0]), command->summary + 1,
	             CONFIG_DEFAULT_FILE, CONFIG_DEFAULT_SPOOL, command->help);
}

/* What could not be written is no success. */
static int finish_output(int code)
{
	if (fflush(stdout) != 0 || ferror(stdout))
		return complain(code == EX_OK ? EX_IOERR : code, "cannot write to standard output");
	return code;
}

static int misuse(const struct command *command)
{
	(void)fprintf(stderr, "reconify-agent: see 'reconify-agent %s --help'\n", command->name);
	return EX_USAGE;
}

/* The arguments as IDs, or one as `either` an ID or a uuid. */
static int take_ids(const struct command *command, struct call *call, bool either)
{
	struct selection *selection = &call->selection;
	if (either && selection_parse_uuid(call->arguments[0], selection->uuid))
		return EX_OK;
	selection->ids = calloc((size_t)call->argument_count + 1, sizeof *selection->ids);
	if (selection->ids == NULL)
		return complain(EX_OSERR, "no memory");
	for (int i = 0; i < call->argument_count; i++) {
		if (selection_parse_id(call->arguments[i], &selection->ids[selection->id_count++]))
			continue;
		(void)fprintf(stderr, "reconify-agent: %s: ID is a record's number, such as 12%s\n",
		              command->name, either ? ", and UUID has 32 hex digits" : "");
		return EX_USAGE;
	}
	return EX_OK;
}

/* Hands the arguments over, where there are as many as the command takes. */
static int perform_with(const struct command *command, struct call *call)
{
	bool any = strstr(command->arguments, "...") != NULL;
	if (!any && call->argument_count != (command->arguments[0] != '\0' ? 1 : 0)) {
		if (call->argument_count == 0)
			(void)fprintf(stderr, "reconify-agent: %s: %s is missing\n", command->name,
			              command->arguments);
		else
			(void)fprintf(stderr, "reconify-agent: %s: '%s' is an argument too many\n", command->name,
			              call->arguments[command->arguments[0] != '\0' ? 1 : 0]);
		return misuse(command);
	}
	bool either = strstr(command->arguments, "UUID") != NULL;
	int code = EX_OK;
	if (strstr(command->arguments, "ID") != NULL)
		code = take_ids(command, call, either);
	if (code == EX_OK)
		code = command->act(call);
	free(call->selection.ids);
	return code;
}

static bool parse_seconds(const char *text, int *seconds)
{
	int64_t number = 2;
	if (text != NULL && (!selection_parse_id(text, &number) || number < 1 || number > 3600))
		return false;
	*seconds = (int)number;
	return true;
}

static int perform(const struct command *command, int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "spool", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },         { "json", no_argument, NULL, 'j' },
		{ "progress", no_argument, NULL, 'p' },     { "wait", required_argument, NULL, 'w' },
		{ "keys", no_argument, NULL, 'k' },         { "send", no_argument, NULL, 'P' },
		{ "salvage", no_argument, NULL, 'v' },
		{ "app", required_argument, NULL, SELECT_APP },
		{ "all", no_argument, NULL, SELECT_ALL },
		{ "prometheus", no_argument, NULL, 'M' },
		{ "watch", optional_argument, NULL, 'W' },
		{ "before", required_argument, NULL, SELECT_BEFORE },
		{ "dead", no_argument, NULL, SELECT_DEAD },
		{ "delivered", no_argument, NULL, SELECT_DELIVERED },
		{ "limit", required_argument, NULL, SELECT_LIMIT },
		{ "older", required_argument, NULL, SELECT_OLDER },
		{ "reason", required_argument, NULL, SELECT_REASON },
		{ "session", required_argument, NULL, SELECT_SESSION },
		{ "user", required_argument, NULL, SELECT_USER },
		{ "yes", no_argument, NULL, SELECT_YES },
		{ NULL, 0, NULL, 0 }
	};
	struct call call = { .selection = selection_of_all() };
	const char *wrong;
	int letter, index = 0;
	opterr = 0; /* said below, in our own form */
	while ((letter = getopt_long(argc, argv, ":", options, &index)) != -1) {
		if (letter == '?' || letter == ':') {
			(void)fprintf(stderr, letter == ':' ? "reconify-agent: %s: %s needs a value\n"
			                                    : "reconify-agent: %s: there is no option %s\n",
			              command->name, argv[optind - 1]);
			return misuse(command);
		}
		if (strchr("csh", letter) == NULL && strchr(command->options, letter) == NULL) {
			(void)fprintf(stderr, "reconify-agent: %s: there is no option --%s\n", command->name,
			              options[index].name);
			return misuse(command);
		}
		if (strchr("cs", letter) != NULL && optarg[0] == '\0') {
			(void)complain(EX_USAGE, letter == 'c' ? "--config: FILE is missing"
			                                       : "--spool: FILE is missing");
			return misuse(command);
		}
		switch (letter) {
		case 'c':
			call.daemon.config_file = optarg;
			break;
		case 's':
			call.daemon.spool_path = optarg;
			break;
		case 'h':
			print_help(command);
			return finish_output(EX_OK);
		case 'j':
			call.json = call.selection.json = true;
			break;
		case 'p':
			call.progress = true;
			break;
		case 'k':
			call.keys = true;
			break;
		case 'P':
			call.send = true;
			break;
		case 'v':
			call.salvage = true;
			break;
		case 'M':
			call.prometheus = true;
			break;
		case 'W':
			/* Its value may stand apart, as that of other options does. */
			if (optarg == NULL && optind < argc && strspn(argv[optind], "0123456789") > 0)
				optarg = argv[optind++];
			if (!parse_seconds(optarg, &call.watch)) {
				(void)complain(EX_USAGE, "--watch: SECONDS is a whole number from 1 to 3600");
				return misuse(command);
			}
			break;
		default:
			wrong = selection_take(&call.selection, letter, optarg, wall_ms());
			if (wrong != NULL) {
				(void)complain(EX_USAGE, wrong);
				return misuse(command);
			}
			break;
		case 'w':
			if (!config_parse_duration(optarg, &call.wait)) {
				(void)complain(EX_USAGE, "--wait: TIME is a whole number with s, m, h or d, such "
				               "as 5m");
				return misuse(command);
			}
		}
	}
	call.arguments = argv + optind;
	call.argument_count = argc - optind;
	return perform_with(command, &call);
}

/* What is mapped, the spool's -shm above all, could not be read or written. */
static void end_at_bus_error(int number)
{
	static const char sentence[] =
	    "reconify-agent: the disk failed or is full where a file is mapped (SIGBUS): the spool's "
	    "-shm, or a program file; nothing accepted is lost; make room, or see the kernel's log\n";
	(void)number;
	ssize_t written = write(STDERR_FILENO, sentence, sizeof sentence - 1);
	(void)written;
	_exit(EX_IOERR);
}

int main(int argc, char **argv)
{
	secret_protect_process();
	struct sigaction action = { .sa_handler = end_at_bus_error };
	(void)sigaction(SIGBUS, &action, NULL);
	/* SQLite makes -wal and -shm under the umask and gives them the spool's mode a moment
	 * later. Until then nobody of the group could open them, and an insert would fail. */
	(void)umask(umask(S_IRWXO) & ~(mode_t)S_IRWXG);
	if (argc < 2) {
		print_usage(stderr);
		return EX_USAGE;
	}
	if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
	    strcmp(argv[1], "help") == 0) {
		print_usage(stdout);
		return finish_output(EX_OK);
	}
	if (strcmp(argv[1], "--version") == 0) {
		(void)printf("reconify-agent %s (SQLite %s)\n", RECONIFY_VERSION, spool_sqlite_version());
		return finish_output(EX_OK);
	}
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		if (strcmp(argv[1], commands[i].name) == 0)
			return finish_output(perform(&commands[i], argc - 1, argv + 1));
	(void)fprintf(stderr, "reconify-agent: there is no command '%s'; see 'reconify-agent "
	              "--help'\n", argv[1]);
	return EX_USAGE;
}
