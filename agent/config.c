/* The configuration: parses the INI text and the environment's values.
 *
 * The whole text is checked before anything acts on it, and the first thing
 * that is wrong is told with its line and what would be right. libinih splits
 * the lines; but it cuts, joins and drops some of them in silence, so each line
 * is looked at before it gets there. Must never put a key, a URL (which may
 * hold a password or a token) or a file's line into an error.
 */
#include "agent/config.h"

#include <ini.h>
#include <limits.h>

#include "agent/address.h"
#include "agent/config_internal.h"
#include "agent/json.h"
#include "agent/secret.h"

/* libinih's buffer is 200 bytes with the line's end and a NUL; what is longer
 * it would read as two lines. */
#define LINE_BYTES_MAX 198
#define NAME_BYTES_MAX 128
#define VERSION_BYTES_MAX 32

#define KIB INT64_C(1024)
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)
#define SECOND INT64_C(1000)
#define MINUTE (60 * SECOND)
#define HOUR (60 * MINUTE)
#define DAY (24 * HOUR)

/* ------------------------------------------------------------- what is known */

enum section {
	SECTION_NONE,
	SECTION_ENDPOINT,
	SECTION_APP,
	SECTION_FORMAT,
	SECTION_SPOOL,
	SECTION_RETRY,
	SECTION_LIMITS,
	SECTION_LOG,
	SECTION_NOTIFY,
	SECTION_METRICS,
	SECTION_COUNT
};

static const char *const section_names[SECTION_COUNT] = {
	[SECTION_ENDPOINT] = "endpoint", [SECTION_APP] = "app",     [SECTION_FORMAT] = "format",
	[SECTION_SPOOL] = "spool",       [SECTION_RETRY] = "retry", [SECTION_LOG] = "log",
	[SECTION_NOTIFY] = "notify",     [SECTION_METRICS] = "metrics", [SECTION_LIMITS] = "limits",
};

#define SECTIONS_IN_WORDS \
	"[endpoint], [app NAME], [format NAME], [spool], [retry], [limits], [log], [notify] and " \
	"[metrics]"

enum value_kind {
	VALUE_DURATION,  /* int64_t, ms */
	VALUE_DURATION_OR_0,       /* likewise, and 0 without a unit */
	VALUE_DURATION_OR_FOREVER, /* likewise, or CONFIG_FOREVER */
	VALUE_SIZE,      /* int64_t, bytes */
	VALUE_COUNT,     /* unsigned */
	VALUE_URL,       /* char * from here on */
	VALUE_PROXY,
	VALUE_FILE,      /* may be empty: none */
	VALUE_PATH,
	VALUE_OUTPUT,    /* likewise, or empty: none */
	VALUE_KEY,
	VALUE_KEY_FILE,
	VALUE_VERSION,
	VALUE_COMMAND,   /* may be empty: none */
	VALUE_LIMIT,     /* may be empty: none; see budget.h */
	VALUE_WHEN_FULL, /* the enums */
	VALUE_LOG_LEVEL,
	VALUE_LOG_FORMAT
};

/* `offset` is into struct config, config_app or config_format, by the section;
 * `right` completes the sentence "right would be ...". */
struct key {
	enum section section;
	const char *name;
	enum value_kind kind;
	size_t offset;
	int64_t least, most;
	const char *right;
};

static const struct key keys[] = {
	{ SECTION_ENDPOINT, "url", VALUE_URL, offsetof(struct config, url), 0, 0,
	  "the https:// address that the records are posted to" },
	{ SECTION_ENDPOINT, "timeout", VALUE_DURATION, offsetof(struct config, timeout), SECOND,
	  HOUR, "1s to 1h, such as 30s" },
	{ SECTION_ENDPOINT, "connections", VALUE_COUNT, offsetof(struct config, connections), 1,
	  256, "a whole number from 1 to 256, such as 8" },
	{ SECTION_ENDPOINT, "memory", VALUE_SIZE, offsetof(struct config, memory), MIB, 16 * GIB,
	  "1M to 16G, such as 64M" },
	{ SECTION_ENDPOINT, "proxy", VALUE_PROXY, offsetof(struct config, proxy), 0, 0,
	  "nothing at all, the word environment, or an address that begins with http://, "
	  "https://, socks5:// or socks5h://" },
	{ SECTION_ENDPOINT, "ca_file", VALUE_FILE, offsetof(struct config, ca_file), 0, 0, "" },
	{ SECTION_ENDPOINT, "client_cert", VALUE_FILE, offsetof(struct config, client_cert), 0, 0,
	  "" },
	{ SECTION_ENDPOINT, "client_key", VALUE_FILE, offsetof(struct config, client_key), 0, 0,
	  "" },
	{ SECTION_APP, "app_key", VALUE_KEY, offsetof(struct config_app, app_key), 0, 0,
	  "the app key itself, or app_key_file in its place" },
	{ SECTION_APP, "app_key_file", VALUE_KEY_FILE, offsetof(struct config_app, app_key_file),
	  0, 0, "the name of a file that holds the app key, such as app-key" },
	{ SECTION_APP, "api_key", VALUE_KEY, offsetof(struct config_app, api_key), 0, 0,
	  "the API key itself, or api_key_file in its place" },
	{ SECTION_APP, "api_key_file", VALUE_KEY_FILE, offsetof(struct config_app, api_key_file),
	  0, 0, "the name of a file that holds the API key, such as api-key" },
	{ SECTION_FORMAT, "version", VALUE_VERSION, offsetof(struct config_format, version), 0, 0,
	  "digits and dots, at most 32 of them, such as 1.0.0" },
	{ SECTION_SPOOL, "path", VALUE_PATH, offsetof(struct config, spool_path), 0, 0,
	  "an absolute path such as " CONFIG_DEFAULT_SPOOL },
	{ SECTION_SPOOL, "max_spool", VALUE_SIZE, offsetof(struct config, max_spool), MIB,
	  262144 * GIB, "1M to 262144G, such as 1G" },
	{ SECTION_SPOOL, "max_record", VALUE_SIZE, offsetof(struct config, max_record), KIB, GIB,
	  "1K to 1G and at most max_spool, such as 64M" },
	{ SECTION_SPOOL, "when_full", VALUE_WHEN_FULL, offsetof(struct config, when_full), 0, 0,
	  "reject or drop-oldest" },
	{ SECTION_SPOOL, "keep_dead", VALUE_DURATION_OR_FOREVER, offsetof(struct config, keep_dead),
	  SECOND, 36500 * DAY, "forever or 1s to 36500d, such as 90d" },
	{ SECTION_SPOOL, "keep_delivered", VALUE_DURATION_OR_0,
	  offsetof(struct config, keep_delivered), SECOND, 36500 * DAY,
	  "0 or 1s to 36500d, such as 30d" },
	{ SECTION_RETRY, "base", VALUE_DURATION, offsetof(struct config, retry_base), SECOND,
	  HOUR, "1s to 1h, such as 1s" },
	{ SECTION_RETRY, "cap", VALUE_DURATION, offsetof(struct config, retry_cap), SECOND,
	  24 * HOUR, "base to 24h, such as 5m" },
	{ SECTION_RETRY, "max_attempts", VALUE_COUNT, offsetof(struct config, max_attempts), 1,
	  1000, "a whole number from 1 to 1000, such as 8" },
	{ SECTION_LIMITS, "rate", VALUE_LIMIT, offsetof(struct config, limits.rate), 0, 0,
	  "so many records a second, minute or hour, 1 to 1000000, such as 5/s, 300/m or 1000/h" },
	{ SECTION_LIMITS, "bandwidth", VALUE_LIMIT, offsetof(struct config, limits.bandwidth), 0, 0,
	  "so many bytes a second, at least 1K/s, such as 64K/s" },
	{ SECTION_LIMITS, "daily", VALUE_LIMIT, offsetof(struct config, limits.daily), 0, 0,
	  "so many bytes a day, at least 64K, such as 50M" },
	{ SECTION_LIMITS, "hours", VALUE_LIMIT, offsetof(struct config, limits.windows), 0, 0,
	  "at most 8 spans of local time, such as 01:00-05:00 or 12:30-13:00, 22:00-06:00" },
	{ SECTION_LOG, "level", VALUE_LOG_LEVEL, offsetof(struct config, log_level), 0, 0,
	  "error, warning, info or debug" },
	{ SECTION_LOG, "format", VALUE_LOG_FORMAT, offsetof(struct config, log_format), 0, 0,
	  "text or json" },
	{ SECTION_LOG, "summary", VALUE_DURATION_OR_0, offsetof(struct config, log_summary), SECOND,
	  365 * DAY, "0 or 1s to 365d, such as 1h" },
	{ SECTION_NOTIFY, "command", VALUE_COMMAND, offsetof(struct config, notify_command), 0, 0,
	  "a command as one would type it into a shell, or nothing at all" },
	{ SECTION_METRICS, "file", VALUE_OUTPUT, offsetof(struct config, metrics_file), 0, 0,
	  "nothing at all, or an absolute path such as "
	  "/var/lib/prometheus/node-exporter/reconify.prom" },
};
#define KEY_COUNT (sizeof(keys) / sizeof(keys[0]))

/* Where a value came from that is not a default: told by its place in the struct config,
 * which stays where it is. */
struct config_origin {
	const void *place;
	unsigned line;        /* of the configuration's file; 0: from `variable` */
	const char *variable; /* static */
};

/* ------------------------------------------------------------------- parsing */

struct parser {
	struct config *config;
	const char *file;       /* as errors name it */
	unsigned line;          /* 0: not a line of a file */
	const char *next, *end; /* the text that is left */
	char *error;            /* the first thing that is wrong */
	enum section section;
	void *target;           /* what the section's keys are set in */
	unsigned section_lines[SECTION_COUNT]; /* where each began; 0: it did not yet */
	unsigned app_lines[CONFIG_APPS_MAX], format_lines[CONFIG_FORMATS_MAX];
	unsigned key_lines[KEY_COUNT]; /* where each key was set; those of a section
	                                  that there are several of start anew with it */
	size_t lines_given, lines_taken; /* lines with a key: to libinih, and back */
};

/* Notes what is wrong at the parser's place. Always false, for `return`. */
__attribute__((format(printf, 2, 3))) static bool fail(struct parser *parser,
                                                       const char *format, ...)
{
	va_list arguments;
	char *what = NULL;

	if (parser->error != NULL)
		return false;
	va_start(arguments, format);
	if (vasprintf(&what, format, arguments) < 0)
		what = NULL;
	va_end(arguments);
	must(what);
	parser->error = parser->line == 0
	                    ? sentence("%s: %s", parser->file, what)
	                    : sentence("%s:%u: %s", parser->file, parser->line, what);
	free(what);
	return false;
}

/* Digits at *cursor; what is too large for any of our ranges saturates. */
static bool take_number(const char **cursor, int64_t *number)
{
	const char *c = *cursor;
	int64_t value = 0;

	if (*c < '0' || *c > '9')
		return false;
	for (; *c >= '0' && *c <= '9'; c++)
		value = value > INT64_MAX / 10 - 1 ? INT64_MAX / 10 : value * 10 + (*c - '0');
	*cursor = c;
	*number = value;
	return true;
}

static int64_t times(int64_t value, int64_t factor)
{
	return value > INT64_MAX / factor ? INT64_MAX : value * factor;
}

/* In ms; 0: it is none. */
static int64_t duration_unit(const char *unit)
{
	return strcmp(unit, "s") == 0   ? SECOND
	       : strcmp(unit, "m") == 0 ? MINUTE
	       : strcmp(unit, "h") == 0 ? HOUR
	       : strcmp(unit, "d") == 0 ? DAY
	                                : 0;
}

static bool parse_number(struct parser *parser, const struct key *key, const char *value,
                         int64_t *number)
{
	const char *unit = value;
	int64_t factor = 0;
	bool size = key->kind == VALUE_SIZE, duration = !size && key->kind != VALUE_COUNT;
	const char *units = duration ? "the units are s (seconds), m (minutes), h (hours) and d "
	                               "(days), after a whole number"
	                    : size   ? "the units are K, M and G (1024, 1024 K, 1024 M) or none "
	                               "(bytes), after a whole number"
	                             : "only digits may stand here";

	if (key->kind == VALUE_DURATION_OR_FOREVER && strcmp(value, "forever") == 0) {
		*number = CONFIG_FOREVER;
		return true;
	}
	if (key->kind == VALUE_DURATION_OR_0 && strcmp(value, "0") == 0) {
		*number = 0;
		return true;
	}
	if (!take_number(&unit, number))
		return fail(parser, "%s: '%s' does not begin with a digit: %s; right would be %s",
		            key->name, value, units, key->right);
	if (duration)
		factor = duration_unit(unit);
	else if (size)
		factor = *unit == '\0'            ? 1
		         : strcmp(unit, "K") == 0 ? KIB
		         : strcmp(unit, "M") == 0 ? MIB
		         : strcmp(unit, "G") == 0 ? GIB
		                                  : 0;
	else
		factor = *unit == '\0' ? 1 : 0;
	if (factor == 0 && *unit == '\0')
		return fail(parser, "%s: '%s' has no unit: %s; right would be %s", key->name, value,
		            units, key->right);
	if (factor == 0)
		return fail(parser, "%s: '%s' cannot be understood: %s; right would be %s", key->name,
		            value, units, key->right);
	*number = times(*number, factor);
	if (*number < key->least || *number > key->most)
		return fail(parser, "%s: '%s' is out of range; right would be %s", key->name, value,
		            key->right);
	return true;
}

bool config_parse_duration(const char *text, int64_t *duration)
{
	const char *unit = text;
	int64_t factor;
	if (!take_number(&unit, duration))
		return false;
	factor = duration_unit(unit);
	*duration = factor > 0 ? times(*duration, factor) : 0;
	return factor > 0;
}

/* Digits in groups with single dots between them. */
static bool is_version(const char *value)
{
	if (strlen(value) > VERSION_BYTES_MAX)
		return false;
	for (const char *c = value; *c != '\0'; c++) {
		if (*c >= '0' && *c <= '9')
			continue;
		if (*c != '.' || c == value || c[-1] == '.' || c[1] == '\0')
			return false;
	}
	return *value != '\0';
}

static void set_text(void *target, size_t offset, const char *value)
{
	char **text = (char **)((char *)target + offset);

	secret_free_string(*text);
	*text = copy(value);
}

static void note_origin(struct config *config, const void *place, unsigned line,
                        const char *variable)
{
	size_t room = (config->origin_count + 1) * sizeof(*config->origins);

	config->origins = must(realloc(config->origins, room));
	config->origins[config->origin_count++] = (struct config_origin){ place, line, variable };
}

static bool refuse(struct parser *parser, const struct key *key, const char *why)
{
	return fail(parser, "%s: %s; right would be %s", key->name, why, key->right);
}

static const char *const levels[] = { "error", "warning", "info", "debug" };

static bool set_value(struct parser *parser, const struct key *key, const char *value)
{
	char *place = (char *)parser->target + key->offset;
	const char *wrong;
	int64_t number;

	if (*value == '\0' && key->kind != VALUE_PROXY && key->kind != VALUE_FILE &&
	    key->kind != VALUE_COMMAND && key->kind != VALUE_OUTPUT && key->kind != VALUE_LIMIT)
		return fail(parser,
		            "%s has no value; right would be %s (or no such line, for the default)",
		            key->name, key->right);
	switch (key->kind) {
	case VALUE_DURATION:
	case VALUE_DURATION_OR_0:
	case VALUE_DURATION_OR_FOREVER:
	case VALUE_SIZE:
		return parse_number(parser, key, value, (int64_t *)(void *)place);
	case VALUE_COUNT:
		if (!parse_number(parser, key, value, &number))
			return false;
		*(unsigned *)(void *)place = (unsigned)number;
		return true;
	case VALUE_URL:
		wrong = address_check_url(value);
		if (wrong != NULL)
			return refuse(parser, key, wrong);
		break;
	case VALUE_PROXY:
		wrong = address_check_proxy(value);
		if (wrong != NULL)
			return refuse(parser, key, wrong);
		break;
	case VALUE_FILE:
	case VALUE_COMMAND:
		if (*value == '\0')
			return true;
		break;
	case VALUE_OUTPUT:
		if (*value == '\0')
			return true;
		__attribute__((fallthrough));
	case VALUE_PATH:
		if (*value != '/')
			return refuse(parser, key,
			              "the path does not begin with /, so it would be another file "
			              "in every folder that the agent is started in");
		break;
	case VALUE_KEY: {
		const struct config_app *app = parser->target;

		if (key->offset == offsetof(struct config_app, app_key) ? app->app_key_file != NULL
		                                                        : app->api_key_file != NULL)
			return fail(parser, "%s and %s_file are both given for this app; right would "
			            "be one of them", key->name, key->name);
		break;
	}
	case VALUE_KEY_FILE: {
		const struct config_app *app = parser->target;

		if (key->offset == offsetof(struct config_app, app_key_file) ? app->app_key != NULL
		                                                             : app->api_key != NULL)
			return fail(parser, "%.7s and %s are both given for this app; right would be "
			            "one of them", key->name, key->name);
		break;
	}
	case VALUE_VERSION:
		if (!is_version(value))
			return refuse(parser, key, "this is not a version");
		break;
	case VALUE_LIMIT:
		if (!budget_set(&parser->config->limits, key->name, value))
			return refuse(parser, key, "this is no such limit");
		return true;
	case VALUE_WHEN_FULL:
		if (strcmp(value, "reject") != 0 && strcmp(value, "drop-oldest") != 0)
			return fail(parser, "%s: '%s' is not known; right would be %s", key->name, value,
			            key->right);
		parser->config->when_full =
		    *value == 'r' ? WHEN_FULL_REJECT : WHEN_FULL_DROP_OLDEST;
		return true;
	case VALUE_LOG_FORMAT:
		if (strcmp(value, "text") != 0 && strcmp(value, "json") != 0)
			return fail(parser, "%s: '%s' is not known; right would be %s", key->name, value,
			            key->right);
		parser->config->log_format = *value == 't' ? LOG_TEXT : LOG_JSON;
		return true;
	case VALUE_LOG_LEVEL:
		for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
			if (strcmp(value, levels[i]) == 0) {
				parser->config->log_level = (enum config_log_level)i;
				return true;
			}
		return fail(parser, "%s: '%s' is not known; right would be %s", key->name, value,
		            key->right);
	}
	set_text(parser->target, key->offset, value);
	return true;
}

/* How many letters must be added, dropped or changed to turn one word into the
 * other; words of more than 31 letters are far from all of ours. */
static size_t distance(const char *one, size_t one_size, const char *other)
{
	size_t row[32], other_size = strlen(other);

	if (one_size > 31 || other_size > 31)
		return SIZE_MAX;
	for (size_t j = 0; j <= other_size; j++)
		row[j] = j;
	for (size_t i = 1; i <= one_size; i++) {
		size_t diagonal = row[0];

		row[0] = i;
		for (size_t j = 1; j <= other_size; j++) {
			size_t above = row[j], least = diagonal + (one[i - 1] != other[j - 1]);

			if (above + 1 < least)
				least = above + 1;
			if (row[j - 1] + 1 < least)
				least = row[j - 1] + 1;
			diagonal = above;
			row[j] = least;
		}
	}
	return row[other_size];
}

/* Close enough to be what was meant. */
static bool is_near(size_t letters, const char *name)
{
	return letters <= (strlen(name) > 4 ? 3u : 2u);
}

/* Whether a word from the file is harmless to quote: one that nobody's key or
 * password looks like. */
static bool is_quotable(const char *word, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (!((word[i] >= 'a' && word[i] <= 'z') || word[i] == '_' || word[i] == '-'))
			return false;
	return size > 0 && size <= 24;
}

static bool fail_unknown_key(struct parser *parser, const char *name)
{
	const char *section = section_names[parser->section], *nearest = NULL;
	size_t least = SIZE_MAX;
	char *what, *list = copy("");

	for (size_t i = 0; i < KEY_COUNT; i++) {
		size_t letters = distance(name, strlen(name), keys[i].name);
		char *longer;

		if (letters == 0) {
			free(list);
			return fail(parser, "%s does not belong into [%s]; right would be under [%s]",
			            keys[i].name, section, section_names[keys[i].section]);
		}
		if (keys[i].section != parser->section)
			continue;
		longer = sentence("%s%s%s", list, *list != '\0' ? ", " : "", keys[i].name);
		free(list);
		list = longer;
		if (letters < least) {
			least = letters;
			nearest = keys[i].name;
		}
	}
	what = is_quotable(name, strlen(name)) ? sentence("'%s' is not a key", name)
	                                       : copy("there is no key of this name");
	if (nearest != NULL && is_near(least, nearest))
		fail(parser, "%s of [%s]; did you mean %s?", what, section, nearest);
	else
		fail(parser, "%s of [%s]; right would be one of: %s", what, section, list);
	free(what);
	free(list);
	return false;
}

/* Called by libinih for each line with a key. Its own idea of the section is
 * left aside: it cuts names at 49 bytes. */
static int take_key(void *user, const char *section, const char *name, const char *value)
{
	struct parser *parser = user;

	(void)section;
	parser->lines_taken++;
	if (parser->section == SECTION_NONE)
		return fail(parser, "a key stands before the first section; right would be a "
		            "section's line above it, such as [endpoint]");
	for (size_t i = 0; i < KEY_COUNT; i++) {
		if (keys[i].section != parser->section || strcmp(keys[i].name, name) != 0)
			continue;
		if (parser->key_lines[i] != 0)
			return fail(parser, "%s is given already in line %u; right would be one line "
			            "for it", name, parser->key_lines[i]);
		if (has_control(value, strlen(value)))
			return fail(parser, "%s has a tab inside its value; right would be %s", name,
			            *keys[i].right != '\0' ? keys[i].right : "a file's name");
		parser->key_lines[i] = parser->line;
		note_origin(parser->config, (char *)parser->target + keys[i].offset, parser->line, NULL);
		return set_value(parser, &keys[i], value);
	}
	return fail_unknown_key(parser, name);
}

static bool fail_unknown_section(struct parser *parser, const char *title, size_t size)
{
	const char *nearest = NULL;
	size_t least = SIZE_MAX;
	size_t word = size;
	char *what;

	if (memchr(title, ' ', size) != NULL)
		word = (size_t)((const char *)memchr(title, ' ', size) - title);
	for (size_t i = 1; i < SECTION_COUNT; i++) {
		size_t letters = distance(title, word, section_names[i]);

		if (letters < least) {
			least = letters;
			nearest = section_names[i];
		}
	}
	what = is_quotable(title, size) ? sentence("[%.*s] is not a section", (int)size, title)
	                                : copy("there is no section of this name");
	if (nearest != NULL && is_near(least, nearest)) {
		bool named = strcmp(nearest, "app") == 0 || strcmp(nearest, "format") == 0;

		fail(parser, "%s; did you mean [%s%s]?", what, nearest, named ? " NAME" : "");
	} else {
		fail(parser, "%s; the sections are " SECTIONS_IN_WORDS, what);
	}
	free(what);
	return false;
}

static bool is_word(const char *title, size_t size, enum section section)
{
	return size == strlen(section_names[section]) &&
	       memcmp(title, section_names[section], size) == 0;
}

/* The place of `name` among those that are known, or the next free one. */
static bool begin_named(struct parser *parser, const char *name, size_t size)
{
	struct config *config = parser->config;
	bool app = parser->section == SECTION_APP;
	size_t known = app ? config->app_count : config->format_count;
	size_t most = app ? CONFIG_APPS_MAX : CONFIG_FORMATS_MAX;
	unsigned *lines = app ? parser->app_lines : parser->format_lines;
	const char *word = section_names[parser->section];
	size_t i;

	if (size == 0 || name[0] == ' ' || name[size - 1] == ' ')
		return fail(parser, "the %s's name is missing, or has a space before or after it; "
		            "right would be [%s NAME], such as [%s %s]", word, word, word,
		            app ? "default" : "openai");
	if (size > NAME_BYTES_MAX)
		return fail(parser, "the %s's name has %zu bytes; right would be at most %d", word,
		            size, NAME_BYTES_MAX);
	for (i = 0; i < known; i++) {
		const char *other = app ? config->apps[i].name : config->formats[i].name;

		if (strlen(other) == size && memcmp(other, name, size) == 0)
			break;
	}
	if (i == known) {
		char *new_name;

		if (known == most)
			return fail(parser, "there are more than %zu %ss; right would be at most as "
			            "many", most, word);
		new_name = must(strndup(name, size));
		if (app)
			config->apps[config->app_count++].name = new_name;
		else
			config->formats[config->format_count++].name = new_name;
	}
	if (lines[i] != 0)
		return fail(parser, "this section began already in line %u; right would be all of "
		            "its keys there", lines[i]);
	lines[i] = parser->line;
	for (size_t k = 0; k < KEY_COUNT; k++)
		if (keys[k].section == parser->section)
			parser->key_lines[k] = 0;
	parser->target = app ? (void *)&config->apps[i] : (void *)&config->formats[i];
	return true;
}

static bool begin_section(struct parser *parser, const char *line, size_t size)
{
	const char *title = line + 1, *close = memchr(line, ']', size);
	size_t title_size;

	if (close == NULL)
		return fail(parser, "the ] at the end of the section's name is missing; right would "
		            "be a line such as [endpoint]");
	for (const char *c = close + 1; c < line + size; c++)
		if (*c != ' ' && *c != '\t')
			return fail(parser, "something stands after the ] of the section; right would "
			            "be nothing there (a comment goes on a line of its own)");
	title_size = (size_t)(close - title);
	if (has_control(title, title_size))
		return fail(parser, "a tab stands in the section's name; right would be a space");
	for (enum section i = SECTION_ENDPOINT; i < SECTION_COUNT; i++) {
		bool named = i == SECTION_APP || i == SECTION_FORMAT;
		const char *space = named ? memchr(title, ' ', title_size) : NULL;

		if (!is_word(title, space != NULL ? (size_t)(space - title) : title_size, i))
			continue;
		parser->section = i;
		if (named)
			return begin_named(parser, space != NULL ? space + 1 : close,
			                   space != NULL ? (size_t)(close - space - 1) : 0);
		if (parser->section_lines[i] != 0)
			return fail(parser, "[%s] began already in line %u; right would be all of its "
			            "keys there", section_names[i], parser->section_lines[i]);
		parser->section_lines[i] = parser->line;
		parser->target = parser->config;
		return true;
	}
	return fail_unknown_section(parser, title, title_size);
}

/* Looks at a line before libinih does, for what that would take in silence as
 * something else than what was written. */
static bool check_line(struct parser *parser, const char *line, size_t size)
{
	const char *equals;
	size_t begin = 0;

	if (memchr(line, '\0', size) != NULL)
		return fail(parser, "the line has a NUL byte; right would be plain text");
	if (!json_is_utf8(line, size))
		return fail(parser, "the line is not valid UTF-8; right would be a file saved as "
		            "UTF-8");
	for (size_t i = 0; i < size; i++)
		if (line[i] != '\t' && is_control(line[i]))
			return fail(parser, "the line has a control character; right would be plain "
			            "text");
	if (size > LINE_BYTES_MAX)
		return fail(parser, "the line has %zu bytes; right would be at most %d (a long key "
		            "can stand in a file of its own, see app_key_file and api_key_file)",
		            size, LINE_BYTES_MAX);
	while (begin < size && (line[begin] == ' ' || line[begin] == '\t'))
		begin++;
	if (begin == size)
		return true;
	if (begin > 0)
		return fail(parser, "the line is indented; right would be no space before it");
	if (*line == '#' || *line == ';')
		return true;
	if (*line == '[') {
		if (!begin_section(parser, line, size))
			return false;
	} else {
		equals = memchr(line, '=', size);
		if (equals == NULL || memchr(line, ':', (size_t)(equals - line)) != NULL)
			return fail(parser, "there is no = after a key's name; right would be a line "
			            "such as NAME = VALUE, [SECTION] or # COMMENT");
		if (equals == line)
			return fail(parser, "there is no key's name before the =; right would be "
			            "NAME = VALUE");
		parser->lines_given++;
	}
	for (size_t i = 1; i < size; i++)
		if ((line[i] == ';' || line[i] == '#') && (line[i - 1] == ' ' || line[i - 1] == '\t'))
			return fail(parser, "a %c stands after a space, as if a comment began there; "
			            "right would be a comment on a line of its own (a key or a name "
			            "that has such a thing can stand in a file)", line[i]);
	return true;
}

/* libinih's reader: the next line without its end, or NULL at the end of the
 * text or after the first thing that is wrong. */
static char *read_line(char *buffer, int room, void *user)
{
	struct parser *parser = user;
	const char *line = parser->next, *end;
	size_t size;

	if (parser->error != NULL || line == parser->end)
		return NULL;
	end = memchr(line, '\n', (size_t)(parser->end - line));
	parser->next = end != NULL ? end + 1 : parser->end;
	if (end == NULL)
		end = parser->end;
	if (end > line && end[-1] == '\r')
		end--;
	size = (size_t)(end - line);
	parser->line++;
	if (!check_line(parser, line, size))
		return NULL;
	if (room <= 0 || size >= (size_t)room) {
		fail(parser, "the line has %zu bytes; right would be at most %d", size, room - 1);
		return NULL;
	}
	memcpy(buffer, line, size);
	buffer[size] = '\0';
	return buffer;
}

static bool check_key_text(struct parser *parser, const char *key)
{
	size_t size = strlen(key);

	if (has_control(key, size))
		return fail(parser, "the key has a control character, perhaps a line's end; right "
		            "would be the key alone");
	if (!json_is_utf8(key, size))
		return fail(parser, "the key is not valid UTF-8; right would be the key as it was "
		            "issued");
	if (size > KEY_BYTES_MAX)
		return fail(parser, "the key has more than %d bytes; right would be the key as it "
		            "was issued", KEY_BYTES_MAX);
	return true;
}

static bool apply_environment_key(struct parser *parser, const char *variable,
                                  const char *value, char **key, char **key_file)
{
	if (value == NULL || *value == '\0')
		return true;
	parser->file = variable;
	if (!check_key_text(parser, value))
		return false;
	secret_free_string(*key);
	*key = copy(value);
	free(*key_file);
	*key_file = NULL;
	note_origin(parser->config, key, 0, variable);
	return true;
}

static bool apply_environment(struct parser *parser,
                              const struct config_environment *environment)
{
	struct config *config = parser->config;

	parser->line = 0;
	if (environment == NULL)
		return true;
	if (environment->endpoint != NULL && *environment->endpoint != '\0') {
		const char *wrong = address_check_url(environment->endpoint);

		parser->file = "RECONIFY_ENDPOINT";
		if (wrong != NULL)
			return fail(parser, "%s; right would be %s", wrong, keys[0].right);
		set_text(config, offsetof(struct config, url), environment->endpoint);
		note_origin(config, &config->url, 0, "RECONIFY_ENDPOINT");
	}
	return apply_environment_key(parser, "RECONIFY_APP_KEY", environment->app_key,
	                             &config->apps[0].app_key, &config->apps[0].app_key_file) &&
	       apply_environment_key(parser, "RECONIFY_API_KEY", environment->api_key,
	                             &config->apps[0].api_key, &config->apps[0].api_key_file);
}

/* The line that the key was given in; 0: it was not. */
static unsigned line_of(const struct parser *parser, const char *name)
{
	for (size_t i = 0; i < KEY_COUNT; i++)
		if (strcmp(keys[i].name, name) == 0)
			return parser->key_lines[i];
	return 0;
}

/* What holds between two keys. A default gives way to what was written. */
static bool check_together(struct parser *parser)
{
	struct config *config = parser->config;
	unsigned line;

	if (config->max_record > config->max_spool) {
		line = line_of(parser, "max_record");
		if (line != 0) {
			parser->line = line;
			return fail(parser, "max_record is larger than max_spool, so that its largest "
			            "records could never be accepted; right would be at most max_spool");
		}
		config->max_record = config->max_spool;
	}
	if (config->retry_cap < config->retry_base) {
		line = line_of(parser, "cap");
		if (line != 0) {
			parser->line = line;
			return fail(parser, "cap is shorter than base; right would be base to 24h");
		}
		config->retry_cap = config->retry_base;
	}
	if (config->client_key != NULL && config->client_cert == NULL) {
		parser->line = line_of(parser, "client_key");
		return fail(parser, "client_key is given without client_cert; right would be both "
		            "(or client_cert alone, with the key in the same file)");
	}
	return true;
}

static struct config *new_config(const char *file)
{
	struct config *config = must(calloc(1, sizeof(*config)));

	config->file = file != NULL ? copy(file) : NULL;
	config->timeout = 30 * SECOND;
	config->connections = 8;
	config->memory = 64 * MIB;
	config->proxy = copy("");
	config->spool_path = copy(CONFIG_DEFAULT_SPOOL);
	config->max_spool = GIB;
	config->max_record = 64 * MIB;
	config->when_full = WHEN_FULL_REJECT;
	config->retry_base = SECOND;
	config->retry_cap = 5 * MINUTE;
	config->max_attempts = 8;
	config->keep_dead = CONFIG_FOREVER;
	config->log_level = LOG_INFO;
	config->log_format = LOG_TEXT;
	config->log_summary = HOUR;
	config->apps[0].name = copy("default");
	config->app_count = 1;
	return config;
}

static bool parse_text(struct parser *parser, const char *text, size_t size)
{
	if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
		text += 3;
		size -= 3;
	}
	parser->next = text;
	parser->end = text + size;
	if (ini_parse_stream(read_line, parser, take_key, parser) == 0 && parser->error == NULL &&
	    parser->lines_given == parser->lines_taken)
		return check_together(parser);
	return fail(parser, "the file cannot be understood up to here; right would be lines such "
	            "as NAME = VALUE, [SECTION] or # COMMENT");
}

bool config_parse(const char *text, size_t size, const char *file,
                  const struct config_environment *environment, struct config **out,
                  char **error)
{
	struct parser parser = { .config = new_config(text != NULL ? file : NULL), .file = file };

	*out = NULL;
	*error = NULL;
	if ((text != NULL && !parse_text(&parser, text, size)) ||
	    !apply_environment(&parser, environment)) {
		config_free(parser.config);
		*error = parser.error;
		return false;
	}
	*out = parser.config;
	return true;
}

void config_set_spool(struct config *config, const char *path)
{
	char name[PATH_MAX];
	/* What SQLite would take for no file, such as ":memory:", is one all the same. */
	bool special = path[0] == ':' || strncmp(path, "file:", 5) == 0;
	(void)snprintf(name, sizeof name, "%s%s", special ? "./" : "", path);
	set_text(config, offsetof(struct config, spool_path), name);
	note_origin(config, &config->spool_path, 0, "--spool");
}

/* --------------------------------------------------------------- description */

/* The largest unit that leaves a whole number. */
static char *number_in_words(int64_t number, const int64_t factors[3], const char *units)
{
	for (size_t i = 0; i < 3; i++)
		if (number != 0 && number % factors[i] == 0)
			return sentence("%lld%c", (long long)(number / factors[i]), units[i]);
	return sentence("%lld", (long long)number);
}

/* An address without what may be a secret: the password before the host, and a query. */
static char *masked_address(const char *address)
{
	const char *host = strstr(address, "://"), *query = strchr(address, '?');
	size_t size = query != NULL ? (size_t)(query - address) : strlen(address);
	const char *at;

	host = host != NULL ? host + 3 : address;
	at = strcspn(host, "/?#") > 0 ? memrchr(host, '@', strcspn(host, "/?#")) : NULL;
	if (at != NULL)
		return sentence("%.*s****%.*s%s", (int)(host - address), address,
		                (int)(address + size - at), at, query != NULL ? "?****" : "");
	return sentence("%.*s%s", (int)size, address, query != NULL ? "?****" : "");
}

static char *value_in_words(const struct key *key, const void *place)
{
	static const int64_t spans[] = { HOUR, MINUTE, SECOND }, sizes[] = { GIB, MIB, KIB };
	char limit[BUDGET_TEXT_SIZE];
	const char *text;

	switch (key->kind) {
	case VALUE_DURATION_OR_0:
	case VALUE_DURATION_OR_FOREVER:
		if (*(const int64_t *)place == CONFIG_FOREVER)
			return copy("forever");
		if (*(const int64_t *)place > 0 && *(const int64_t *)place % DAY == 0)
			return sentence("%lldd", (long long)(*(const int64_t *)place / DAY));
		return number_in_words(*(const int64_t *)place, spans, "hms");
	case VALUE_LOG_FORMAT:
		return copy(*(const enum config_log_format *)place == LOG_TEXT ? "text" : "json");
	case VALUE_DURATION:
		return number_in_words(*(const int64_t *)place, spans, "hms");
	case VALUE_SIZE:
		return number_in_words(*(const int64_t *)place, sizes, "GMK");
	case VALUE_COUNT:
		return sentence("%u", *(const unsigned *)place);
	case VALUE_WHEN_FULL:
		return copy(*(const enum config_when_full *)place == WHEN_FULL_REJECT ? "reject"
		                                                                      : "drop-oldest");
	case VALUE_LIMIT:
		text = (const char *)place - key->offset;
		budget_text(&((const struct config *)(const void *)text)->limits, key->name, limit);
		return copy(limit);
	case VALUE_LOG_LEVEL:
		return copy(levels[*(const enum config_log_level *)place]);
	case VALUE_URL:
	case VALUE_PROXY:
	case VALUE_FILE:
	case VALUE_PATH:
	case VALUE_OUTPUT:
	case VALUE_KEY:
	case VALUE_KEY_FILE:
	case VALUE_VERSION:
	case VALUE_COMMAND:
		break;
	}
	text = *(char *const *)place;
	if (text == NULL)
		return copy("");
	if (key->kind == VALUE_KEY || key->kind == VALUE_COMMAND) /* with a token, perhaps */
		return copy("****");
	return key->kind == VALUE_URL || key->kind == VALUE_PROXY ? masked_address(text) : copy(text);
}

/* `target` is what the section's keys are set in. */
static void describe_key(const struct config *config, const struct key *key, const void *target,
                         const char *section,
                         void (*each)(void *context, const struct config_item *item),
                         void *context)
{
	const void *place = (const char *)target + key->offset;
	const struct config_origin *origin = NULL;
	char *value, *words;
	struct config_item item;

	for (size_t i = 0; i < config->origin_count; i++)
		if (config->origins[i].place == place)
			origin = &config->origins[i]; /* the last one stands */
	if (key->kind == VALUE_KEY && origin == NULL)
		return;
	if (key->kind == VALUE_KEY_FILE && *(char *const *)place == NULL)
		return;
	value = value_in_words(key, place);
	words = origin == NULL          ? copy("default")
	        : origin->line == 0     ? copy(origin->variable)
	                                : sentence("%s:%u", config->file, origin->line);
	item = (struct config_item){ section, key->name, value, words, origin != NULL };
	each(context, &item);
	free(value);
	free(words);
}

void config_describe(const struct config *config,
                     void (*each)(void *context, const struct config_item *item),
                     void *context)
{
	for (enum section section = SECTION_ENDPOINT; section < SECTION_COUNT; section++) {
		bool app = section == SECTION_APP, format = section == SECTION_FORMAT;
		size_t count = app ? config->app_count : format ? config->format_count : 1;

		for (size_t i = 0; i < count; i++) {
			const void *target = app      ? (const void *)&config->apps[i]
			                     : format ? (const void *)&config->formats[i]
			                              : config;
			char *title = app || format
			                  ? sentence("%s %s", section_names[section],
			                             app ? config->apps[i].name : config->formats[i].name)
			                  : copy(section_names[section]);

			for (size_t k = 0; k < KEY_COUNT; k++)
				if (keys[k].section == section)
					describe_key(config, &keys[k], target, title, each, context);
			free(title);
		}
	}
}

/* ------------------------------------------------------------------ look-ups */

static bool is_called(const char *own, const char *name, size_t size)
{
	return strlen(own) == size && memcmp(own, name, size) == 0;
}

const struct config_app *config_find_app(const struct config *config, const char *name,
                                         size_t size)
{
	for (size_t i = 0; i < config->app_count; i++)
		if (is_called(config->apps[i].name, name, size))
			return &config->apps[i];
	return NULL;
}

const char *config_find_format(const struct config *config, const char *name, size_t size)
{
	for (size_t i = 0; i < config->format_count; i++)
		if (is_called(config->formats[i].name, name, size))
			return config->formats[i].version;
	return NULL;
}

void config_free(struct config *config)
{
	if (config == NULL)
		return;
	for (size_t i = 0; i < config->app_count; i++) {
		struct config_app *app = &config->apps[i];

		secret_free_string(app->app_key);
		secret_free_string(app->api_key);
		free(app->app_key_file);
		free(app->api_key_file);
		free(app->missing);
		free(app->name);
	}
	for (size_t i = 0; i < config->format_count; i++) {
		free(config->formats[i].name);
		free(config->formats[i].version);
	}
	free(config->file);
	secret_free_string(config->url);
	secret_free_string(config->proxy);
	free(config->ca_file);
	free(config->client_cert);
	free(config->client_key);
	free(config->spool_path);
	free(config->origins);
	secret_free_string(config->notify_command);
	free(config->metrics_file);
	free(config);
}
