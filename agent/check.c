/* The check; see check.h. */
#include "agent/check.h"

#include <grp.h>
#include <inttypes.h>
#include <libgen.h>
#include <limits.h>
#include <pwd.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "agent/findings.h"
#include "agent/lock.h"
#include "agent/probe.h"
#include "agent/screen.h"
#include "agent/status.h"
#include "agent/words.h"
#include "spool/spool.h"

#define LABEL_COLUMNS 8 /* "WRONG   " */
#define DAY INT64_C(86400)
/* Authorities renew theirs a month before. */
#define CERTIFICATE_DAYS_MIN 14
/* Before this program was written. */
#define CLOCK_MIN 1577836800 /* 2020-01-01 */

enum severity { WRONG, REMARK, FINE, SEVERITIES };

struct line {
	enum severity severity;
	char *sentence;
};

struct findings {
	struct line *list;
	size_t count, room;
	int code; /* of the worst */
};

static bool make_room(struct findings *findings)
{
	if (findings->count < findings->room)
		return true;
	size_t room = findings->room > 0 ? findings->room * 2 : 32;
	struct line *grown = realloc(findings->list, room * sizeof *grown);
	if (grown == NULL)
		return false;
	findings->list = grown;
	findings->room = room;
	return true;
}

/* `code` counts where it is WRONG. */
__attribute__((format(printf, 4, 5))) static void add(struct findings *findings,
                                                      enum severity severity, int code,
                                                      const char *format, ...)
{
	char *sentence = NULL;
	va_list arguments;
	va_start(arguments, format);
	if (vasprintf(&sentence, format, arguments) < 0)
		sentence = NULL;
	va_end(arguments);
	if (severity == WRONG && findings->code == EX_OK)
		findings->code = code;
	if (sentence == NULL || !make_room(findings)) {
		findings->code = EX_OSERR;
		free(sentence);
		return;
	}
	findings->list[findings->count++] = (struct line){ severity, sentence };
}

static size_t count(const struct findings *findings, enum severity severity)
{
	size_t found = 0;
	for (size_t i = 0; i < findings->count; i++)
		found += findings->list[i].severity == severity;
	return found;
}

/* A sentence behind `label`; on a terminal in its width. */
static void print_sentence(FILE *out, const char *label, const char *sentence)
{
	const struct screen screen = screen_for(fileno(out));
	char *clean = NULL;
	size_t size = 0;
	FILE *memory = open_memstream(&clean, &size);
	if (memory != NULL)
		words_line(memory, sentence);
	if (memory == NULL || fclose(memory) != 0) {
		free(clean);
		(void)fprintf(out, "%s(no memory for this line)\n", label);
		return;
	}
	(void)fputs(label, out);
	screen_wrap(&screen, out, (int)strlen(label), LABEL_COLUMNS, clean);
	free(clean);
}

/* Prints all, worst first. */
static void print_findings(const struct findings *findings, FILE *out)
{
	static const char *const words[] = { "WRONG   ", "remark  ", "ok      " };
	for (int severity = WRONG; severity < SEVERITIES; severity++)
		for (size_t i = 0; i < findings->count; i++) {
			if ((int)findings->list[i].severity != severity)
				continue;
			print_sentence(out, words[severity], findings->list[i].sentence);
		}
}

/* In one sentence, last, where a terminal's window stands: the first lines are out of it. */
static void print_summary(const struct findings *findings, FILE *out)
{
	size_t wrong = count(findings, WRONG), remarks = count(findings, REMARK);
	const char *worst = NULL;
	char begin[32] = "nothing is wrong", *line;
	for (size_t i = findings->count; i > 0; i--)
		if (findings->list[i - 1].severity == (wrong > 0 ? WRONG : REMARK))
			worst = findings->list[i - 1].sentence;
	if (wrong > 0)
		(void)snprintf(begin, sizeof begin, "%zu wrong", wrong);
	if (asprintf(&line, "%s, %zu to be looked at%s%s", begin, remarks,
	             wrong + remarks > 1 ? ": see the first lines. The worst: "
	             : worst != NULL     ? ": "
	                                 : "", worst != NULL ? worst : "") < 0)
		return;
	print_sentence(out, "", line);
	free(line);
}

static void free_findings(struct findings *findings)
{
	for (size_t i = 0; i < findings->count; i++)
		free(findings->list[i].sentence);
	free(findings->list);
}

/* --- The configuration -------------------------------------------------- */

static void check_config(struct findings *findings, const struct config *config)
{
	add(findings, FINE, 0, "configuration: %s",
	    config->file != NULL ? config->file : "no file; the environment and the defaults");
	if (config->url == NULL)
		add(findings, WRONG, EX_CONFIG, "endpoint: none is configured: set url in [endpoint], "
		    "or RECONIFY_ENDPOINT%s", lock_holder(config->spool_path) != 0
		    ? " (the agent that runs may have one from its own environment)" : "");
	for (size_t i = 0; i < config->app_count; i++) {
		const struct config_app *app = &config->apps[i];
		if (app->missing != NULL && config_is_withheld(config, app))
			add(findings, WRONG, EX_NOPERM, "app %s: %s; whether the agent may, 'check' as root "
			    "tells", app->name, app->missing);
		else if (app->missing != NULL)
			add(findings, WRONG, EX_CONFIG, "app %s: %s; its records wait", app->name,
			    app->missing);
		else
			add(findings, FINE, 0, "app %s: both keys are there", app->name);
	}
}

static const char *user_name(uid_t id, char into[32])
{
	const struct passwd *user = getpwuid(id);
	(void)snprintf(into, 32, user != NULL ? "%.31s" : "%.0s%lu",
	               user != NULL ? user->pw_name : "", (unsigned long)id);
	return into;
}

static const char *group_name(gid_t id, char into[32])
{
	const struct group *group = getgrgid(id);
	(void)snprintf(into, 32, group != NULL ? "%.31s" : "%.0s%lu",
	               group != NULL ? group->gr_name : "", (unsigned long)id);
	return into;
}

/* Whether every user can get as far as to this file: a folder above it may be closed. */
static bool is_reachable(const char *path)
{
	char *real = realpath(path, NULL);
	bool reachable = true;
	struct stat about;
	for (char *folder = real; reachable && folder != NULL && strcmp(folder, "/") != 0;) {
		folder = dirname(folder);
		reachable = stat(folder, &about) != 0 || (about.st_mode & S_IXOTH) != 0;
	}
	free(real);
	return reachable;
}

/* A file with a secret: who can read it, and should they? */
static void check_secret(struct findings *findings, const struct config *config,
                         const char *what, const char *path)
{
	struct stat about, spool;
	char owner[32], group[32];
	if (stat(path, &about) != 0)
		return;
	char *copy = strdup(config->spool_path);
	bool spooled = copy != NULL && stat(dirname(copy), &spool) == 0;
	free(copy);
	(void)user_name(about.st_uid, owner);
	(void)group_name(about.st_gid, group);
	size_t before = findings->count;
	if ((about.st_mode & (S_IROTH | S_IWOTH)) != 0 && is_reachable(path))
		add(findings, WRONG, EX_NOPERM, "%s: every user can %s %s: chmod 600 it, and have the key "
		    "changed if others work on this host", what,
		    (about.st_mode & S_IROTH) != 0 ? "read" : "change", path);
	else if ((about.st_mode & (S_IRGRP | S_IWGRP)) != 0 && about.st_gid != 0 && spooled &&
	         about.st_gid == spool.st_gid)
		add(findings, REMARK, 0, "%s: the group %s, whose members insert records, can read %s: "
		    "chmod 600 is right", what, group, path);
	if (about.st_uid != 0 && about.st_uid != geteuid() && !(spooled && about.st_uid == spool.st_uid))
		add(findings, REMARK, 0, "%s: %s belongs to the user %s, who can read and change it; root "
		    "or the agent's user is right", what, path, owner);
	if (findings->count == before)
		add(findings, FINE, 0, "%s: %s has the mode %04o and is %s:%s's", what, path,
		    (unsigned)about.st_mode & 07777, owner, group);
}

static void check_key_file(struct findings *findings, const struct config *config,
                           const struct config_app *app, const char *file)
{
	char *places[2], *what = NULL;
	if (file == NULL || asprintf(&what, "app %s", app->name) < 0)
		return;
	config_key_places(config, file, places);
	for (size_t i = 0; i < 2; i++)
		if (places[i] != NULL && access(places[i], F_OK) == 0) {
			check_secret(findings, config, what, places[i]);
			break; /* the other one is not looked at */
		}
	free(places[0]);
	free(places[1]);
	free(what);
}

static void find_inline_key(void *context, const struct config_item *item)
{
	bool *found = context;
	bool key = strcmp(item->key, "app_key") == 0 || strcmp(item->key, "api_key") == 0;
	*found = *found || (key && strncmp(item->origin, "RECONIFY_", 9) != 0);
}

static void check_secrets(struct findings *findings, const struct config *config)
{
	bool keyed = false;
	config_describe(config, find_inline_key, &keyed);
	if (keyed)
		check_secret(findings, config, "configuration, which holds a key", config->file);
	for (size_t i = 0; i < config->app_count; i++) {
		check_key_file(findings, config, &config->apps[i], config->apps[i].app_key_file);
		check_key_file(findings, config, &config->apps[i], config->apps[i].api_key_file);
	}
	if (config->client_cert != NULL)
		check_secret(findings, config, "client_key",
		             config->client_key != NULL ? config->client_key : config->client_cert);
}

/* --- The spool ---------------------------------------------------------- */

static void on_damage(void *context, const char *sentence)
{
	add(context, WRONG, EX_DATAERR, "%s", sentence);
}

/* The -wal and -shm that SQLite makes must be open to whom the spool is. */
static void check_companion(struct findings *findings, const struct config *config,
                            const struct stat *spool, const char *ending)
{
	struct stat about;
	char *path = NULL;
	if (asprintf(&path, "%s%s", config->spool_path, ending) < 0)
		return;
	if (stat(path, &about) == 0 &&
	    ((about.st_mode ^ spool->st_mode) & 0777 || about.st_gid != spool->st_gid))
		add(findings, REMARK, 0, "spool: %s is not open to the same users as the spool itself, so "
		    "that others cannot insert: 'reconify-agent init', as root, mends that", path);
	free(path);
}

static void check_owner(struct findings *findings, const struct config *config,
                        const char *folder)
{
	struct stat about, above;
	char owner[32], group[32];
	if (stat(folder, &above) != 0 || stat(config->spool_path, &about) != 0)
		return;
	(void)user_name(about.st_uid, owner);
	(void)group_name(about.st_gid, group);
	if (about.st_uid != above.st_uid || about.st_gid != above.st_gid)
		add(findings, REMARK, 0, "spool: %s is %s:%s's and its folder is not, so that the agent "
		    "may be locked out: 'reconify-agent init', as root, mends that",
		    config->spool_path, owner, group);
	else
		add(findings, FINE, 0, "spool: it has the mode %04o, its folder %04o; both are %s:%s's",
		    (unsigned)about.st_mode & 07777, (unsigned)above.st_mode & 07777, owner, group);
	if (access(config->spool_path, W_OK) != 0 || access(folder, W_OK) != 0)
		add(findings, REMARK, 0, "spool: this user may not insert records; members of the group %s "
		    "may, where the modes are 0660 and 2770", group);
	check_companion(findings, config, &about, "-wal");
	check_companion(findings, config, &about, "-shm");
}

static void check_folder(struct findings *findings, const struct config *config)
{
	struct stat about;
	struct statvfs space;
	char *copy = strdup(config->spool_path);
	const char *folder = copy != NULL ? dirname(copy) : ".";
	/* Behind a closed folder it is no more than a mode that is worth a word. */
	bool reachable = is_reachable(config->spool_path);
	enum severity severity = reachable ? WRONG : REMARK;
	int code = reachable ? EX_NOPERM : 0;
	if (stat(folder, &about) == 0 && (about.st_mode & S_IWOTH) != 0)
		add(findings, severity, code, "spool: every user can write to its folder %s, and so replace the "
		    "spool, or put files beside it that SQLite takes for its own; a mode such as 2770 is "
		    "right", folder);
	if (stat(config->spool_path, &about) == 0 && (about.st_mode & (S_IROTH | S_IWOTH)) != 0)
		add(findings, severity, code, "spool: every user can read or write %s, which holds people's "
		    "texts; chmod 0660 is right", config->spool_path);
	check_owner(findings, config, folder);
	if (statvfs(folder, &space) == 0) {
		uint64_t left = (uint64_t)space.f_bavail * space.f_frsize;
		if (left < STATUS_DISK_FULL)
			add(findings, WRONG, EX_IOERR, "disk: the disk that the spool is on is full: inserts "
			    "fail; make room ('df -h %s' shows which disk it is)", config->spool_path);
		else if (left < (uint64_t)config->max_spool)
			add(findings, REMARK, 0, "disk: %" PRIu64 " MiB are free where the spool is, less than "
			    "max_spool (%" PRId64 " MiB): inserts may fail before", left >> 20,
			    config->max_spool >> 20);
		else
			add(findings, FINE, 0, "disk: %" PRIu64 " MiB are free where the spool is", left >> 20);
	}
	free(copy);
}

static void check_fill(struct findings *findings, const struct spool_ledger *ledger)
{
	if (ledger->max_spool <= 0 || ledger->bytes / 4 < ledger->max_spool / 5)
		return;
	add(findings, REMARK, 0, "spool: %d %% of max_spool is taken (%s): 'reconify-agent status' says "
	    "why records wait",
	    (int)((double)ledger->bytes * 100 / (double)ledger->max_spool),
	    ledger->drop_oldest ? "beyond it, the oldest records are dropped"
	                        : "beyond it, inserts fail");
}

static void check_spool(struct findings *findings, const struct config *config)
{
	struct spool_error error;
	struct spool_ledger ledger;
	if (access(config->spool_path, F_OK) == 0)
		check_folder(findings, config); /* before an opening and closing takes files away */
	struct spool *spool = spool_open(config->spool_path, SPOOL_READ, config->max_record, &error);
	if (spool == NULL) {
		add(findings, WRONG, status_exit_code(error.status), "%s", error.sentence);
		return;
	}
	size_t before = findings->count;
	if (spool_examine(spool, on_damage, findings) != SPOOL_OK) {
		error = *spool_last_error(spool);
		add(findings, WRONG, status_exit_code(error.status), "%s", error.sentence);
	}
	if (spool_read_ledger(spool, 10000, &ledger) != SPOOL_OK) {
		error = *spool_last_error(spool);
		add(findings, WRONG, status_exit_code(error.status), "%s", error.sentence);
	} else if (!ledger.balanced) {
		add(findings, WRONG, EX_DATAERR, "%s: the ledger does not add up (see 'reconify-agent "
		    "status'): another program changed the file", config->spool_path);
	} else {
		if (findings->count == before)
			add(findings, FINE, 0, "spool: %s is sound: %" PRId64 " waiting, %" PRId64 " dead",
			    config->spool_path, ledger.waiting, ledger.dead_counted);
		check_fill(findings, &ledger);
	}
	spool_close(spool);
}

/* --- The endpoint ------------------------------------------------------- */

static const char *date_in_words(int64_t seconds, char into[32])
{
	time_t time = (time_t)seconds;
	struct tm parts;
	if (gmtime_r(&time, &parts) == NULL || strftime(into, 32, "%Y-%m-%d", &parts) == 0)
		(void)snprintf(into, 32, "an unknown date");
	return into;
}

/* One that was refused: what it says of itself is most of the answer to why. */
static void check_refused(struct findings *findings, const struct probe *probe, int64_t now)
{
	const struct probe_certificate *certificate = &probe->certificate;
	char date[32], today[32];
	if (!certificate->known)
		add(findings, WRONG, EX_CONFIG, "certificate: refused (%s): do ca_file, client_cert and "
		    "client_key name the right files? Nothing is sent meanwhile", probe->detail);
	else if (certificate->ends >= 0 && certificate->ends < now)
		add(findings, WRONG, EX_CONFIG, "certificate: %s's ended on %s, and this host's clock says "
		    "%s: if that is right, its operator must renew it (issued by %s)", probe->host,
		    date_in_words(certificate->ends, date), date_in_words(now, today),
		    certificate->issuer);
	else if (certificate->starts > now)
		add(findings, WRONG, EX_CONFIG, "certificate: %s's is valid from %s on, and this host's "
		    "clock says %s: is the clock right? (issued by %s)", probe->host,
		    date_in_words(certificate->starts, date), date_in_words(now, today),
		    certificate->issuer);
	else
		add(findings, WRONG, EX_CONFIG, "certificate: refused (%s): %s shows one of %s, issued by "
		    "%s: is the url right, and must ca_file name that authority?", probe->detail,
		    probe->host, certificate->subject, certificate->issuer);
}

static void check_certificate(struct findings *findings, const struct probe *probe, int64_t now)
{
	const struct probe_certificate *certificate = &probe->certificate;
	char date[32];
	if (!certificate->known || certificate->ends < 0) {
		add(findings, FINE, 0, "certificate: accepted; this libcurl does not tell its dates");
		return;
	}
	int64_t days = (certificate->ends - now) / DAY;
	add(findings, days < CERTIFICATE_DAYS_MIN ? REMARK : FINE, 0,
	    "certificate: %s, issued by %s, until %s, %" PRId64 " days left%s", certificate->subject,
	    certificate->issuer, date_in_words(certificate->ends, date), days,
	    days < CERTIFICATE_DAYS_MIN ? ": its operator must renew it, or all records will wait" : "");
}

static void check_failure(struct findings *findings, const struct probe *probe, int64_t now)
{
	const char *host = probe->host, *detail = probe->detail;
	switch (probe->failed) {
	case PROBE_PROXY_TCP:
		add(findings, WRONG, EX_UNAVAILABLE, "proxy: no connection to it (%s): is this host online, "
		    "does the proxy run, and is proxy in [endpoint] right? Records wait", detail);
		break;
	case PROBE_PROXY_NAME:
		add(findings, WRONG, EX_UNAVAILABLE, "DNS: the proxy's name does not resolve (%s): is this "
		    "host online, and is proxy in [endpoint] right? Records wait", detail);
		break;
	case PROBE_NAME:
		add(findings, WRONG, EX_UNAVAILABLE, "DNS: %s does not resolve (%s): is this host online, "
		    "and is the name right? 'getent hosts %s' asks again. Records wait", host, detail,
		    host);
		break;
	case PROBE_TCP:
		add(findings, WRONG, EX_UNAVAILABLE, "TCP: no connection to %s, port %s (%s): is this host "
		    "online, and does a firewall let it out? Records wait", host, probe->port, detail);
		break;
	case PROBE_PROXY:
		add(findings, WRONG, EX_CONFIG, "proxy: it does not let us through to %s (%s): see proxy "
		    "in [endpoint]. Records wait", host, detail);
		break;
	case PROBE_TLS:
		add(findings, WRONG, EX_UNAVAILABLE, "TLS: no handshake with %s, port %s (%s): is an https "
		    "server there, of TLS 1.2 or newer, and does it want a client_cert? Records wait",
		    host, probe->port, detail);
		break;
	case PROBE_CERTIFICATE:
		check_refused(findings, probe, now);
		break;
	case PROBE_SETUP:
	case PROBE_DONE:
		add(findings, WRONG, EX_CONFIG, "endpoint: %s", detail);
		break;
	}
}

static void check_endpoint(struct findings *findings, const struct config *config)
{
	struct probe probe;
	if (config->url == NULL)
		return;
	probe_connect(config, &probe);
	int64_t now = (int64_t)time(NULL);
	if (probe.address[0] != '\0' && probe.connect_ms > 0)
		add(findings, FINE, 0, "endpoint: %s, port %s, answers%s at %s after %" PRId64 " ms (%"
		    PRId64 " ms of them for the name)", probe.host, probe.port,
		    probe.proxied ? ", through the proxy" : "", probe.address, probe.connect_ms,
		    probe.name_ms);
	if (probe.failed != PROBE_DONE) {
		check_failure(findings, &probe, now);
	} else if (probe.tls) {
		add(findings, FINE, 0, "TLS: the handshake went well, %" PRId64 " ms after the start; "
		    "nothing was sent", probe.tls_ms);
		check_certificate(findings, &probe, now);
	}
}

/* --- This host ---------------------------------------------------------- */

static void check_clock(struct findings *findings, const struct config *config)
{
	struct timespec now;
	struct tm parts;
	struct stat about;
	struct timex state = { .modes = 0 };
	char text[40] = "", date[32];
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return;
	if (gmtime_r(&now.tv_sec, &parts) != NULL)
		(void)strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
	if (now.tv_sec < CLOCK_MIN)
		add(findings, REMARK, 0, "clock: it says %s and so stands before 2020: certificates seem "
		    "not yet valid, and records get a wrong request_at; set it", text);
	else if (stat(config->spool_path, &about) == 0 && about.st_mtime > now.tv_sec + DAY)
		add(findings, REMARK, 0, "clock: it says %s, but the spool was written on %s: it was set "
		    "back; records get a wrong request_at", text, date_in_words(about.st_mtime, date));
	else if (adjtimex(&state) >= 0 && (state.status & STA_UNSYNC) != 0)
		add(findings, REMARK, 0, "clock: %s, which nothing keeps right (no NTP service): records "
		    "get their request_at from it", text);
	else
		add(findings, FINE, 0, "clock: %s, kept right by a time service", text);
}

/* What keeps a running agent from sending, as it says itself. All else is looked at here. */
static void ask_agent(struct findings *findings, const struct config *config, const char *options)
{
	static const char *const codes[] = { "no-answer", "paused", "endpoint-held", "app-held", "limit",
		                             "storage" };
	struct status status;
	struct spool_error error;
	struct finding found[FINDINGS_MAX];
	if (status_collect(config, 0, &status, &error) != EX_OK)
		return; /* the spool's failure is named already */
	status.options = options;
	size_t count = findings_collect(&status, found);
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < sizeof codes / sizeof codes[0]; j++)
			if (strcmp(found[i].code, codes[j]) == 0)
				add(findings, found[i].level == FINDING_PROBLEM ? WRONG : REMARK, EX_UNAVAILABLE,
				    "agent: %s: %s", found[i].sentence, found[i].advice);
}

static void check_host(struct findings *findings, const struct config *config,
                       const char *options)
{
	check_clock(findings, config);
	add(findings, FINE, 0, "SQLite: %s%s", spool_sqlite_version(),
	    spool_sqlite_has_wal_reset_fix()
	            ? ", which has the fix for the WAL-reset fault"
	            : ", which has the WAL-reset fault (fixed in 3.51.3, 3.50.7 and 3.44.6); the "
	              "agent checkpoints so that it keeps clear of it");
	pid_t holder = lock_holder(config->spool_path);
	if (holder > 0)
		add(findings, FINE, 0, "agent: running (pid %ld)", (long)holder);
	else if (holder < 0)
		add(findings, FINE, 0, "agent: running");
	else
		add(findings, REMARK, 0, "agent: not running, so that records wait: 'systemctl start "
		    "reconify-agent', or 'reconify-agent run' with the options of this check");
	if (holder != 0)
		ask_agent(findings, config, options);
}

/* --- The calls ---------------------------------------------------------- */

struct listing {
	FILE *out;
	const char *prefix;
};

static void print_key(void *context, const struct config_item *item)
{
	const struct listing *listing = context;
	char *line = NULL;
	if (asprintf(&line, "[%s] %s =%s%s (%s)", item->section, item->key,
	             *item->value != '\0' ? " " : "", item->value, item->origin) < 0)
		return;
	print_sentence(listing->out, listing->prefix, line);
	free(line);
}

void check_keys(const struct config *config, FILE *out)
{
	struct listing listing = { out, "" };
	config_describe(config, print_key, &listing);
}

int check_all(const struct config *config, const char *options, FILE *out)
{
	struct findings findings = { NULL, 0, 0, EX_OK };
	struct listing listing = { out, "key     " };
	check_config(&findings, config);
	check_secrets(&findings, config);
	check_spool(&findings, config);
	check_endpoint(&findings, config);
	check_host(&findings, config, options);
	print_findings(&findings, out);
	config_describe(config, print_key, &listing);
	print_summary(&findings, out);
	free_findings(&findings);
	return findings.code;
}

static void send_for(struct findings *findings, const struct config *config,
                     const struct config_app *app)
{
	static const struct {
		enum severity severity;
		int code;
		const char *word, *hint;
	} words[] = {
		[VERDICT_DELIVERED] = { FINE, 0, "delivered", "" },
		[VERDICT_REJECTED] = { WRONG, EX_DATAERR, "rejected",
		                       ": it takes these keys, or does not look at them first" },
		[VERDICT_UNAVAILABLE] = { WRONG, EX_UNAVAILABLE, "unavailable",
		                          ": this says nothing of the keys; try again" },
		[VERDICT_BUSY] = { WRONG, EX_UNAVAILABLE, "unavailable",
		                   ": this says nothing of the keys; try again" },
		[VERDICT_APP_HELD] = { WRONG, EX_CONFIG, "keys refused",
		                       ": put the right ones in place, then try again" },
		[VERDICT_ENDPOINT_HELD] = { WRONG, EX_CONFIG, "endpoint refused", "" },
	};
	struct probe_sent sent;
	const char *why = NULL;
	if (app->missing != NULL) {
		add(findings, WRONG, EX_CONFIG, "app %s: nothing was sent: %s", app->name, app->missing);
		return;
	}
	if (!probe_send(config, app, &sent, &why)) {
		add(findings, WRONG, EX_OSERR, "app %s: nothing was sent: %s", app->name, why);
		return;
	}
	enum verdict verdict = sent.judgement.verdict;
	if (verdict == VERDICT_DELIVERED)
		add(findings, FINE, 0, "app %s: delivered (HTTP %d): the account has one test record now, "
		    "%s", app->name, sent.status, sent.uuid);
	else
		add(findings, words[verdict].severity, words[verdict].code, "app %s: %s: %s%s%s%s%s",
		    app->name, words[verdict].word, sent.judgement.sentence,
		    sent.detail[0] != '\0' ? " (" : "", sent.detail, sent.detail[0] != '\0' ? ")" : "",
		    words[verdict].hint);
}

int check_send(const struct config *config, const char *app, FILE *out)
{
	struct findings findings = { NULL, 0, 0, EX_OK };
	if (app != NULL && config_find_app(config, app, strlen(app)) == NULL) {
		(void)fprintf(stderr, "reconify-agent: check: there is no such app in the configuration: "
		              "--app takes a NAME of an [app NAME], or default; nothing was sent\n");
		return EX_USAGE;
	}
	if (config->url == NULL)
		add(&findings, WRONG, EX_CONFIG, "endpoint: none is configured: set url in [endpoint], or "
		    "RECONIFY_ENDPOINT; nothing was sent");
	for (size_t i = 0; config->url != NULL && i < config->app_count; i++)
		if (app == NULL || strcmp(config->apps[i].name, app) == 0)
			send_for(&findings, config, &config->apps[i]);
	print_findings(&findings, out);
	free_findings(&findings);
	return findings.code;
}
