/* The configuration: text -> struct config. Parsing (config.c) is pure; reading the file
 * and the keys' files (config_file.c) are separate steps.
 *
 * Checked whole before anything acts on it: a bad configuration must never
 * touch a spool. No error and no listing ever shows a key.
 */
#ifndef AGENT_CONFIG_H
#define AGENT_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/budget.h"

#define CONFIG_DEFAULT_FILE "/etc/reconify-agent/agent.conf"
#define CONFIG_DEFAULT_SPOOL "/var/lib/reconify-agent/spool.db"
#define CONFIG_APPS_MAX 64
#define CONFIG_FORMATS_MAX 32
#define CONFIG_FOREVER INT64_MAX

enum config_log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };
enum config_log_format { LOG_TEXT, LOG_JSON };
enum config_when_full { WHEN_FULL_REJECT, WHEN_FULL_DROP_OLDEST };

struct config_app {
	char *name;
	char *app_key_file, *api_key_file; /* as written; NULL where not given (or, from
	                                      config_load_keys() on, default's own) */
	char *app_key, *api_key;           /* the keys; NULL until known */
	char *missing;                     /* config_load_keys: why a key is not known, in a
	                                      sentence that names the file; NULL: both are */
};

struct config_format {
	char *name, *version;
};

struct config {
	char *file; /* where it was read; NULL: no file, environment and defaults */
	char *url;  /* NULL: not configured */
	int64_t timeout; /* ms */
	unsigned connections;
	int64_t memory; /* bytes */
	char *proxy;    /* "": none; "environment"; or a URL */
	char *ca_file, *client_cert, *client_key; /* NULL: not given. config_read() has made
	                                             relative ones ready to open */
	char *spool_path;
	int64_t max_spool, max_record; /* bytes */
	enum config_when_full when_full;
	int64_t retry_base, retry_cap; /* ms */
	unsigned max_attempts;
	int64_t keep_dead;      /* ms that a dead letter is kept; CONFIG_FOREVER */
	int64_t keep_delivered; /* ms that a receipt is kept; 0: none is */
	struct budget_limits limits;
	enum config_log_level log_level;
	enum config_log_format log_format;
	int64_t log_summary;  /* ms between two lines while something is wrong; 0: none */
	char *notify_command; /* NULL: none. It may hold somebody's token: never shown */
	char *metrics_file; /* for node_exporter; NULL: none */
	struct config_app apps[CONFIG_APPS_MAX]; /* apps[0] is "default", always there */
	size_t app_count;
	struct config_format formats[CONFIG_FORMATS_MAX];
	size_t format_count;
	struct config_origin *origins; /* of what is not a default; config_describe() tells them */
	size_t origin_count;
};

/* One key as it is in force. All is borrowed for the call it is handed to. */
struct config_item {
	const char *section; /* as the file has it: "endpoint", "app sales" */
	const char *key;
	const char *value;   /* in the form that the file takes, but masked where it is a secret:
	                        a key is "****", as are a query and a password within an address */
	const char *origin;  /* "FILE:LINE", the environment's variable, "--spool" or "default" */
	bool given;          /* not a default */
};

/* The values of the environment's variables that take precedence; NULL: unset.
 * Passed in, so that parsing stays pure. */
struct config_environment {
	const char *endpoint, *app_key, *api_key;
};

/* Parses `text` (`size` bytes, named `file` in errors; NULL `text`: no file)
 * over the defaults, then applies `environment` (NULL: none; an empty value
 * counts as unset). On success stores a new configuration in `*out`, to be
 * freed with config_free(), and returns true. On failure stores in `*error` one
 * sentence "FILE:LINE: what, and what would be right" ("VARIABLE: ..." for the
 * environment), to be freed with free(), and returns false. The default of
 * max_record gives way to a smaller max_spool, that of cap to a longer base.
 * Needs no file system. */
bool config_parse(const char *text, size_t size, const char *file,
                  const struct config_environment *environment, struct config **out,
                  char **error);

/* Reads `file` and parses it with the process's environment. `file` NULL means
 * CONFIG_DEFAULT_FILE where it exists, and no file where it does not. Returns a
 * sysexits code: 0; 66 no such file, or a folder; 74 reading failed; 77 not
 * readable; 78 bad configuration; `*error` as in config_parse(). Does not read
 * key files. */
int config_read(const char *file, struct config **out, char **error);

/* Puts the option --spool over what was configured. */
void config_set_spool(struct config *config, const char *path);

/* Reads the key files of all apps: relative ones from $CREDENTIALS_DIRECTORY,
 * then from beside the configuration file. A trailing newline (LF or CRLF) is
 * not part of a key. A key that cannot be had leaves the app with `missing`
 * set, which is no failure: its records wait. The app default looks for app-key
 * and api-key where nothing else is given. May be called again, to read the
 * files anew. */
void config_load_keys(struct config *config);

/* Hands every key to `each`, with its value and where that came from, in the order of
 * the example configuration. An app shows of its two ways to give a key the one that is
 * in use. The names of files are as the configuration has them ready to open. */
void config_describe(const struct config *config,
                     void (*each)(void *context, const struct config_item *item),
                     void *context);

/* Where a key's file of that name is looked for, in this order: malloc'd paths, NULL
 * where there is none. */
void config_key_places(const struct config *config, const char *file, char *places[2]);

/* True when one of the app's key files is there and is closed to this user, though perhaps
 * not to the agent's: then what is missing here says nothing of the agent. */
bool config_is_withheld(const struct config *config, const struct config_app *app);

/* The app called `name` (compared as bytes), or NULL. */
const struct config_app *config_find_app(const struct config *config, const char *name,
                                         size_t size);

/* The configured version override for format `name`, or NULL. */
const char *config_find_format(const struct config *config, const char *name, size_t size);

/* A duration as the file has it ("90s", "5m", "2h", "30d"), in ms. False: it is not one. */
bool config_parse_duration(const char *text, int64_t *duration);

/* Overwrites the keys and frees all. NULL is allowed. */
void config_free(struct config *config);

#endif
