/* The configuration: what is understood, and each of the ways to be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "agent/config.h"

#define SECRET "s3cr3t-Key"

static const struct config_environment empty_environment = { NULL, NULL, NULL };

/* --------------------------------------------------------------------- helpers */

static struct config *parse_size(const char *text, size_t size)
{
	struct config *config = NULL;
	char *error = NULL;

	if (!config_parse(text, size, "agent.conf", &empty_environment, &config, &error))
		fail_msg("'%s' was refused: %s", text, error);
	assert_non_null(config);
	assert_null(error);
	return config;
}

static struct config *parse(const char *text)
{
	return parse_size(text, strlen(text));
}

static void expect_error_size(const char *text, size_t size, unsigned line, const char *part)
{
	struct config *config = NULL;
	char *error = NULL, prefix[32];

	if (config_parse(text, size, "agent.conf", &empty_environment, &config, &error)) {
		config_free(config);
		fail_msg("'%s' was taken; expected: %s", text, part);
	}
	assert_null(config);
	snprintf(prefix, sizeof(prefix), "agent.conf:%u: ", line);
	if (strncmp(error, prefix, strlen(prefix)) != 0 || strstr(error, part) == NULL ||
	    strstr(error, SECRET) != NULL || strchr(error, '\n') != NULL)
		fail_msg("'%s': got \"%s\", expected \"%s...%s\"", text, error, prefix, part);
	/* Each says what would be right. */
	if (strstr(error, "right would be") == NULL && strstr(error, "did you mean") == NULL &&
	    strstr(error, "the sections are") == NULL)
		fail_msg("no way out is told: %s", error);
	free(error);
}

static void expect_error(const char *text, unsigned line, const char *part)
{
	expect_error_size(text, strlen(text), line, part);
}

/* "[SECTION]\nNAME = VALUE\n" and so on for the second line's error. */
static void expect_refused(const char *section, const char *name, const char *value,
                           const char *part)
{
	char text[512];

	snprintf(text, sizeof(text), "[%s]\n%s = %s\n", section, name, value);
	expect_error(text, 2, part);
}

static struct config *parse_one(const char *section, const char *name, const char *value)
{
	char text[512];

	snprintf(text, sizeof(text), "[%s]\n%s = %s\n", section, name, value);
	return parse(text);
}

/* -------------------------------------------------------------------- defaults */

static void assert_defaults(const struct config *config)
{
	assert_null(config->url);
	assert_true(config->timeout == 30000);
	assert_int_equal(config->connections, 8);
	assert_true(config->memory == 64 << 20);
	assert_string_equal(config->proxy, "");
	assert_null(config->ca_file);
	assert_null(config->client_cert);
	assert_null(config->client_key);
	assert_string_equal(config->spool_path, "/var/lib/reconify-agent/spool.db");
	assert_true(config->max_spool == 1 << 30);
	assert_true(config->max_record == 64 << 20);
	assert_int_equal(config->when_full, WHEN_FULL_REJECT);
	assert_true(config->retry_base == 1000);
	assert_true(config->retry_cap == 300000);
	assert_int_equal(config->max_attempts, 8);
	assert_true(config->keep_dead == CONFIG_FOREVER);
	assert_true(config->keep_delivered == 0);
	assert_int_equal(config->log_level, LOG_INFO);
	assert_int_equal(config->log_format, LOG_TEXT);
	assert_true(config->log_summary == 3600000);
	assert_null(config->notify_command);
	assert_int_equal(config->app_count, 1);
	assert_string_equal(config->apps[0].name, "default");
	assert_null(config->apps[0].app_key);
	assert_null(config->apps[0].api_key);
	assert_int_equal(config->format_count, 0);
}

static void without_a_file_there_are_the_defaults(void **state)
{
	struct config *config = NULL;
	char *error = NULL;

	(void)state;
	assert_true(config_parse(NULL, 0, "x", &empty_environment, &config, &error));
	assert_defaults(config);
	assert_null(config->file);
	config_free(config);
	assert_true(config_parse(NULL, 0, "x", NULL, &config, &error));
	assert_defaults(config);
	config_free(config);
	config_free(NULL);
}

static void a_file_without_a_key_gives_the_defaults(void **state)
{
	static const char *const texts[] = {
		"", "\n", "\r\n\r\n", "# only this\n; and this", "   \n\t\n", "\xef\xbb\xbf",
		"[endpoint]\n[app default]\n[spool]\n[retry]\n[log]\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct config *config = parse(texts[i]);

		assert_defaults(config);
		assert_string_equal(config->file, "agent.conf");
		config_free(config);
	}
}

static const char full[] = "# all\n"
                           "[endpoint]\n"
                           "url = https://api.example.com/v1/log?x=1;y=2\n"
                           "timeout = 45s\n"
                           "connections=16\n"
                           "memory\t=\t128M\t\n"
                           "proxy = socks5h://user:pass@proxy.example.com:1080\n"
                           "ca_file = /etc/ssl/our ca.pem\n"
                           "client_cert = client.pem\n"
                           "client_key = client.key\n"
                           "\n"
                           "[app default]\n"
                           "app_key = A;K#1\n"
                           "api_key = S = T: U\n"
                           "[app Sales & more]\n"
                           "app_key_file = sales-app\n"
                           "api_key_file = /run/keys/sales-api\n"
                           "[format openai]\n"
                           "version = 1.2.3\n"
                           "[format gemini]\n"
                           "version = 4\n"
                           "[spool]\n"
                           "path = /srv/spool.db\n"
                           "max_spool = 2G\n"
                           "max_record = 65536\n"
                           "when_full = drop-oldest\n"
                           "keep_dead = 90d\n"
                           "keep_delivered = 12h\n"
                           "[retry]\n"
                           "base = 2s\n"
                           "cap = 2h\n"
                           "max_attempts = 3\n"
                           "[log]\n"
                           "level = debug\n"
                           "format = json\n"
                           "summary = 0\n"
                           "[notify]\n"
                           "command = mail -s \"$RECONIFY_EVENT\" root </dev/null";

static void assert_full(const struct config *config)
{
	assert_string_equal(config->url, "https://api.example.com/v1/log?x=1;y=2");
	assert_true(config->timeout == 45000);
	assert_int_equal(config->connections, 16);
	assert_true(config->memory == 128 << 20);
	assert_string_equal(config->proxy, "socks5h://user:pass@proxy.example.com:1080");
	assert_string_equal(config->ca_file, "/etc/ssl/our ca.pem");
	assert_string_equal(config->client_cert, "client.pem");
	assert_string_equal(config->client_key, "client.key");
	assert_int_equal(config->app_count, 2);
	assert_string_equal(config->apps[0].name, "default");
	assert_string_equal(config->apps[0].app_key, "A;K#1");
	assert_string_equal(config->apps[0].api_key, "S = T: U");
	assert_string_equal(config->apps[1].name, "Sales & more");
	assert_null(config->apps[1].app_key);
	assert_string_equal(config->apps[1].app_key_file, "sales-app");
	assert_string_equal(config->apps[1].api_key_file, "/run/keys/sales-api");
	assert_int_equal(config->format_count, 2);
	assert_string_equal(config_find_format(config, "openai", 6), "1.2.3");
	assert_string_equal(config_find_format(config, "gemini", 6), "4");
	assert_string_equal(config->spool_path, "/srv/spool.db");
	assert_true(config->max_spool == INT64_C(2) << 30);
	assert_true(config->max_record == 65536);
	assert_int_equal(config->when_full, WHEN_FULL_DROP_OLDEST);
	assert_true(config->retry_base == 2000);
	assert_true(config->retry_cap == 7200000);
	assert_int_equal(config->max_attempts, 3);
	assert_true(config->keep_dead == INT64_C(90) * 86400000);
	assert_true(config->keep_delivered == 12 * 3600000);
	assert_int_equal(config->log_level, LOG_DEBUG);
	assert_int_equal(config->log_format, LOG_JSON);
	assert_true(config->log_summary == 0);
	assert_string_equal(config->notify_command, "mail -s \"$RECONIFY_EVENT\" root </dev/null");
}

static void every_key_is_understood(void **state)
{
	struct config *config = parse(full);

	(void)state;
	assert_full(config);
	config_free(config);
}

static void line_ends_of_dos_and_a_byte_order_mark_change_nothing(void **state)
{
	char text[2 * sizeof(full) + 3], *end = text;
	struct config *config;

	(void)state;
	memcpy(end, "\xef\xbb\xbf", 3);
	end += 3;
	for (const char *c = full; *c != '\0'; c++) {
		if (*c == '\n')
			*end++ = '\r';
		*end++ = *c;
	}
	config = parse_size(text, (size_t)(end - text));
	assert_full(config);
	config_free(config);
}

static void a_text_is_read_no_further_than_its_size(void **state)
{
	char *exact = malloc(sizeof(full) - 1);

	(void)state;
	assert_non_null(exact);
	memcpy(exact, full, sizeof(full) - 1);
	config_free(parse_size(exact, sizeof(full) - 1));
	free(exact);
}

/* ---------------------------------------------------------------- units, ranges */

static void durations_have_units(void **state)
{
	static const struct {
		const char *value;
		int64_t ms;
	} cases[] = { { "1s", 1000 },      { "59s", 59000 },     { "060s", 60000 },
		          { "1m", 60000 },     { "60m", 3600000 },   { "1h", 3600000 },
		          { "3600s", 3600000 } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config *config = parse_one("endpoint", "timeout", cases[i].value);

		assert_true(config->timeout == cases[i].ms);
		config_free(config);
	}
}

static void a_duration_without_a_known_unit_is_refused(void **state)
{
	(void)state;
	expect_refused("endpoint", "timeout", "30",
	               "timeout: '30' has no unit: the units are s (seconds), m (minutes), h "
	               "(hours)");
	expect_refused("endpoint", "timeout", "500ms", "'500ms' cannot be understood: the units are");
	expect_refused("endpoint", "timeout", "0.5s", "'0.5s' cannot be understood");
	expect_refused("endpoint", "timeout", "30S", "cannot be understood");
	expect_refused("endpoint", "timeout", "30 s", "cannot be understood");
	expect_refused("endpoint", "timeout", "1m30s", "cannot be understood");
	expect_refused("endpoint", "timeout", "1d", "out of range");
	expect_refused("endpoint", "timeout", "1w", "cannot be understood");
	expect_refused("endpoint", "timeout", "30K", "cannot be understood");
	expect_refused("endpoint", "timeout", "s", "does not begin with a digit");
	expect_refused("endpoint", "timeout", "-1s", "does not begin with a digit");
	expect_refused("endpoint", "timeout", "+1s", "does not begin with a digit");
	expect_refused("endpoint", "timeout", "\"30s\"", "does not begin with a digit");
	expect_refused("endpoint", "timeout", "never", "such as 30s");
}

static void for_ever_and_not_at_all_are_words_of_their_own(void **state)
{
	struct config *config = parse_one("spool", "keep_dead", "forever");

	(void)state;
	assert_true(config->keep_dead == CONFIG_FOREVER);
	config_free(config);
	config = parse_one("spool", "keep_delivered", "0");
	assert_true(config->keep_delivered == 0);
	config_free(config);
	expect_refused("spool", "keep_dead", "0", "'0' has no unit");
	expect_refused("spool", "keep_dead", "0s", "out of range; right would be forever or 1s to");
	expect_refused("spool", "keep_dead", "ever", "does not begin with a digit");
	expect_refused("spool", "keep_delivered", "forever", "does not begin with a digit");
	expect_refused("spool", "keep_delivered", "36501d", "out of range; right would be 0 or 1s");
	expect_refused("log", "summary", "off", "does not begin with a digit");
	expect_refused("log", "format", "xml", "'xml' is not known; right would be text or json");
	config = parse_one("notify", "command", "");
	assert_null(config->notify_command);
	config_free(config);
}

static void sizes_have_binary_units_or_none(void **state)
{
	static const struct {
		const char *value;
		int64_t bytes;
	} cases[] = { { "1048576", 1 << 20 }, { "1024K", 1 << 20 },         { "1M", 1 << 20 },
		          { "1G", 1 << 30 },      { "16G", INT64_C(16) << 30 }, { "1500K", 1536000 } };

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config *config = parse_one("endpoint", "memory", cases[i].value);

		assert_true(config->memory == cases[i].bytes);
		config_free(config);
	}
	expect_refused("endpoint", "memory", "64m", "the units are K, M and G");
	expect_refused("endpoint", "memory", "64MB", "cannot be understood");
	expect_refused("endpoint", "memory", "64MiB", "cannot be understood");
	expect_refused("endpoint", "memory", "1.5G", "cannot be understood");
	expect_refused("endpoint", "memory", "1T", "cannot be understood");
	expect_refused("endpoint", "memory", "64 M", "cannot be understood");
	expect_refused("endpoint", "memory", "M", "does not begin with a digit");
}

static void every_range_has_both_its_ends(void **state)
{
	static const struct {
		const char *section, *name, *least, *most, *below, *above;
	} cases[] = {
		{ "endpoint", "timeout", "1s", "1h", "0s", "3601s" },
		{ "endpoint", "timeout", "1s", "60m", "0h", "99999999999999999999h" },
		{ "endpoint", "connections", "1", "256", "0", "257" },
		{ "endpoint", "connections", "1", "256", "0", "4294967297" },
		{ "endpoint", "memory", "1M", "16G", "1023K", "17179869185" },
		{ "endpoint", "memory", "1M", "16384M", "0", "18446744073709551617G" },
		{ "spool", "max_spool", "1M", "262144G", "1048575", "262145G" },
		{ "spool", "max_record", "1K", "1G", "1023", "1073741825" },
		{ "retry", "base", "1s", "1h", "0s", "61m" },
		{ "retry", "cap", "1s", "24h", "0s", "25h" },
		{ "retry", "max_attempts", "1", "1000", "0", "1001" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		config_free(parse_one(cases[i].section, cases[i].name, cases[i].least));
		config_free(parse_one(cases[i].section, cases[i].name, cases[i].most));
		expect_refused(cases[i].section, cases[i].name, cases[i].below, "is out of range");
		expect_refused(cases[i].section, cases[i].name, cases[i].above, "is out of range");
	}
	expect_refused("endpoint", "connections", "8.0", "only digits");
	expect_refused("endpoint", "connections", "8K", "only digits");
	expect_refused("retry", "max_attempts", "many", "from 1 to 1000");
	expect_refused("retry", "max_attempts", "-1", "does not begin with a digit");
}

static void a_record_is_never_larger_than_the_spool(void **state)
{
	struct config *config;

	(void)state;
	expect_error("[spool]\nmax_record = 2M\nmax_spool = 1M\n", 2, "larger than max_spool");
	expect_error("[spool]\nmax_spool = 1M\n\nmax_record = 1025K\n", 4, "larger than max_spool");
	config = parse("[spool]\nmax_spool = 1M\nmax_record = 1M\n");
	assert_true(config->max_record == 1 << 20);
	config_free(config);
	/* The default gives way. */
	config = parse("[spool]\nmax_spool = 1M\n");
	assert_true(config->max_spool == 1 << 20 && config->max_record == 1 << 20);
	config_free(config);
}

static void the_cap_is_never_shorter_than_the_base(void **state)
{
	struct config *config;

	(void)state;
	expect_error("[retry]\nbase = 10s\ncap = 9s\n", 3, "cap is shorter than base");
	expect_error("[retry]\ncap = 9s\nbase = 10s\n", 2, "cap is shorter than base");
	config = parse("[retry]\nbase = 10s\ncap = 10s\n");
	assert_true(config->retry_cap == 10000);
	config_free(config);
	config = parse("[retry]\nbase = 10m\n");
	assert_true(config->retry_cap == 600000);
	config_free(config);
}

static void words_are_taken_as_they_are_written(void **state)
{
	static const char *const levels[] = { "error", "warning", "info", "debug" };
	struct config *config;

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		config = parse_one("log", "level", levels[i]);
		assert_int_equal(config->log_level, i);
		config_free(config);
	}
	config = parse_one("spool", "when_full", "reject");
	assert_int_equal(config->when_full, WHEN_FULL_REJECT);
	config_free(config);
	expect_refused("log", "level", "Info", "error, warning, info or debug");
	expect_refused("log", "level", "warn", "'warn' is not known");
	expect_refused("spool", "when_full", "drop", "reject or drop-oldest");
	expect_refused("spool", "when_full", "drop_oldest", "reject or drop-oldest");
}

/* ------------------------------------------------------------------- addresses */

static void https_anywhere_and_http_to_this_machine_are_right_for_the_url(void **state)
{
	static const char *const urls[] = {
		"https://api.example.com", "https://api.example.com/", "HTTPS://API.EXAMPLE.COM/x",
		"https://api.example.com:8443/a/b?c=d&e=%20", "https://10.1.2.3/x",
		"https://[2001:db8::1]:8443/x", "https://a_b-c.AZaz09.example", "https://api.example.com/@me",
		"https://api.example.com?to=a@b", "http://127.0.0.1:8080/", "http://127.0.0.1",
		"http://127.255.255.254:1/", "http://[::1]:8080/x", "http://[0:0:0:0:0:0:0:1]/",
		"http://localhost", "http://localhost:65535/", "Http://LocalHost/x",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(urls) / sizeof(urls[0]); i++) {
		struct config *config = parse_one("endpoint", "url", urls[i]);

		assert_string_equal(config->url, urls[i]);
		config_free(config);
	}
}

static void every_other_url_is_refused_and_not_quoted(void **state)
{
	static const struct {
		const char *url, *part;
	} cases[] = {
		{ "api.example.com", "does not begin with https://" },
		{ "ftp://" SECRET, "does not begin with https://" },
		{ "https:/api.example.com", "does not begin with https://" },
		{ "\"https://api.example.com\"", "another character" },
		{ "http://api.example.com/" SECRET, "unencrypted" },
		{ "http://10.0.0.1", "unencrypted" },
		{ "http://128.0.0.1", "unencrypted" },
		{ "http://0.0.0.0", "unencrypted" },
		{ "http://127.0.0.1.example.com", "unencrypted" },
		{ "http://127.1", "unencrypted" },
		{ "http://0177.0.0.1", "unencrypted" },
		{ "http://2130706433", "unencrypted" },
		{ "http://localhost.example.com", "unencrypted" },
		{ "http://localhost.", "unencrypted" },
		{ "http://[::2]/", "unencrypted" },
		{ "http://[::ffff:127.0.0.1]/", "unencrypted" },
		{ "http://[::1]@example.com/", "user or a password" },
		{ "http://127.0.0.1@example.com/", "user or a password" },
		{ "http://127.0.0.1:80@example.com/", "user or a password" },
		{ "http://127.0.0.1\\@example.com/", "another character" },
		{ "https://user:" SECRET "@example.com/", "user or a password" },
		{ "https://" SECRET "@example.com/", "user or a password" },
		{ "https://example.com/#" SECRET, "fragment" },
		{ "https://example.com#", "fragment" },
		{ "https://", "the host's name is missing" },
		{ "https:///x", "the host's name is missing" },
		{ "https://:443/x", "the host's name is missing" },
		{ "https://example.com:", "the port" },
		{ "https://example.com:/x", "the port" },
		{ "https://example.com:0/x", "the port" },
		{ "https://example.com:65536/x", "the port" },
		{ "https://example.com:99999999999999999999/", "the port" },
		{ "https://example.com:+1/", "the port" },
		{ "https://example.com:80:80/", "the port" },
		{ "https://[::1", "the ] after" },
		{ "https://[::1]x/", "only a port" },
		{ "https://[::1]:/", "the port" },
		{ "https://[]/", "the host's name is missing" },
		{ "https://[fe80::1%25lo]/", "not an IPv6 address" },
		{ "https://[127.0.0.1]/", "not an IPv6 address" },
		{ "https://2001:db8::1/", "the port" },
		{ "https://exa mple.com/", "a space" },
		{ "https://example.com/a b", "a space" },
		{ "https://ex%61mple.com/", "letters a-z" },
		{ "https://b\xc3\xbc\x63her.example/", "another character" },
		{ "https://example.com/{id}", "another character" },
		{ "environment", "does not begin with https://" },
	};
	/* A line has no room for such a host's name, a variable has. */
	char url[300] = "https://";
	const struct config_environment environment = { url, NULL, NULL };
	struct config *config = NULL;
	char *error = NULL;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		expect_refused("endpoint", "url", cases[i].url, cases[i].part);
	memset(url + 8, 'a', 255);
	assert_true(config_parse(NULL, 0, NULL, &environment, &config, &error));
	config_free(config);
	url[8 + 255] = 'a';
	assert_false(config_parse(NULL, 0, NULL, &environment, &config, &error));
	assert_non_null(strstr(error, "RECONIFY_ENDPOINT: the host's name is too long"));
	free(error);
}

static void a_proxy_is_none_the_environments_or_an_address(void **state)
{
	static const char *const right[] = { "", "environment", "http://proxy:3128",
		                                 "http://proxy:3128/", "https://p.example.com",
		                                 "socks5://10.0.0.1:1080", "SOCKS5H://[::1]:1080",
		                                 "http://user:p%40ss@proxy:3128", "http://u:p@q@proxy" };
	static const struct {
		const char *value, *part;
	} wrong[] = { { "proxy:3128", "none of the kinds" },
		          { "Environment", "the word environment" },
		          { "socks4://proxy", "socks5h://" },
		          { "ftp://proxy", "none of the kinds" },
		          { "http://", "the host's name is missing" },
		          { "http://user:" SECRET "@", "the host's name is missing" },
		          { "http://user:" SECRET "@proxy:0", "the port" },
		          { "http://proxy:3128/path", "nothing may follow" },
		          { "http://proxy?x", "nothing may follow" },
		          { "http://pro xy", "a space" } };

	(void)state;
	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		struct config *config = parse_one("endpoint", "proxy", right[i]);

		assert_string_equal(config->proxy, right[i]);
		config_free(config);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		expect_refused("endpoint", "proxy", wrong[i].value, wrong[i].part);
}

static void empty_values_are_for_keys_whose_default_is_nothing(void **state)
{
	struct config *config =
	    parse("[endpoint]\nproxy =\nca_file =\nclient_cert = \nclient_key =\t\n");

	(void)state;
	assert_defaults(config);
	config_free(config);
	expect_error("[endpoint]\nurl =\n", 2, "url has no value");
	expect_error("[endpoint]\ntimeout =\n", 2, "timeout has no value; right would be 1s to 1h");
	expect_error("[endpoint]\nconnections = \n", 2, "connections has no value");
	expect_error("[app default]\napp_key =\n", 2, "app_key has no value");
	expect_error("[app default]\napi_key_file =\n", 2, "api_key_file has no value");
	expect_error("[format x]\nversion =\n", 2, "version has no value");
	expect_error("[spool]\npath =\n", 2, "path has no value");
	expect_error("[log]\nlevel =\n", 2, "level has no value");
}

static void the_spools_path_is_absolute(void **state)
{
	(void)state;
	expect_refused("spool", "path", "spool.db", "does not begin with /");
	expect_refused("spool", "path", "./spool.db", "does not begin with /");
	expect_refused("spool", "path", "~/spool.db", "does not begin with /");
	expect_refused("spool", "path", "file:/spool.db", "an absolute path such as");
}

static void a_clients_key_needs_its_certificate(void **state)
{
	struct config *config = parse("[endpoint]\nclient_cert = both.pem\n");

	(void)state;
	assert_null(config->client_key);
	config_free(config);
	expect_error("[endpoint]\nclient_key = k\nclient_cert =\n", 2, "without client_cert");
}

/* ------------------------------------------------------------- apps and formats */

static void an_app_may_be_named_with_anything_up_to_128_bytes(void **state)
{
	char text[400], name[130];
	struct config *config;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[128] = '\0';
	snprintf(text, sizeof(text), "[app %s]\napp_key_file = f\n[app \xc3\xa4 b:c=d,\"e\"]\n", name);
	config = parse(text);
	assert_int_equal(config->app_count, 3);
	assert_string_equal(config->apps[1].name, name);
	/* libinih itself cuts a section's name at 49 bytes. */
	assert_string_equal(config->apps[1].app_key_file, "f");
	assert_ptr_equal(config_find_app(config, name, 128), &config->apps[1]);
	assert_null(config_find_app(config, name, 127));
	assert_non_null(config_find_app(config, "\xc3\xa4 b:c=d,\"e\"", 12));
	config_free(config);
	name[128] = 'n';
	name[129] = '\0';
	snprintf(text, sizeof(text), "[app %s]\n", name);
	expect_error(text, 1, "the app's name has 129 bytes; right would be at most 128");
}

static void apps_are_found_by_their_bytes(void **state)
{
	struct config *config = parse("[app one]\n[app two]\n[format one]\n[format two]\n"
	                              "version = 2\n");

	(void)state;
	assert_ptr_equal(config_find_app(config, "default", 7), &config->apps[0]);
	assert_ptr_equal(config_find_app(config, "twofold", 3), &config->apps[2]);
	assert_null(config_find_app(config, "Two", 3));
	assert_null(config_find_app(config, "two\0", 4));
	assert_null(config_find_app(config, "", 0));
	assert_null(config_find_format(config, "one", 3));
	assert_string_equal(config_find_format(config, "two", 3), "2");
	assert_null(config_find_format(config, "three", 5));
	config_free(config);
}

static void a_key_and_its_file_are_not_given_together(void **state)
{
	(void)state;
	expect_error("[app default]\napp_key = " SECRET "\napp_key_file = f\n", 3,
	             "app_key and app_key_file are both given");
	expect_error("[app default]\napp_key_file = f\napp_key = " SECRET "\n", 3,
	             "app_key and app_key_file are both given");
	expect_error("[app x]\napi_key = " SECRET "\napi_key_file = f\n", 3,
	             "api_key and api_key_file are both given");
	expect_error("[app x]\napi_key_file = f\napi_key = " SECRET "\n", 3,
	             "api_key and api_key_file are both given");
	/* Each app is its own. */
	config_free(parse("[app a]\napp_key = k\napi_key_file = f\n"
	                  "[app b]\napp_key_file = f\napi_key = k\n"));
}

static void an_app_or_format_needs_a_name(void **state)
{
	(void)state;
	expect_error("[app]\n", 1, "such as [app default]");
	expect_error("[app ]\n", 1, "the app's name is missing");
	expect_error("[app  x]\n", 1, "a space before or after");
	expect_error("[app x ]\n", 1, "a space before or after");
	expect_error("[app\tx]\n", 1, "a tab stands in the section's name");
	expect_error("[format]\n", 1, "such as [format openai]");
}

static void there_are_at_most_64_apps_and_32_formats(void **state)
{
	char text[4096], *end = text;

	(void)state;
	/* With the default one. */
	for (int i = 1; i < CONFIG_APPS_MAX; i++)
		end += sprintf(end, "[app %d]\n", i);
	for (int i = 0; i < CONFIG_FORMATS_MAX; i++)
		end += sprintf(end, "[format %d]\n", i);
	config_free(parse(text));
	strcpy(end, "[app more]\n");
	expect_error(text, 96, "more than 64 apps");
	strcpy(end, "[format more]\n");
	expect_error(text, 96, "more than 32 formats");
}

static void a_version_is_digits_and_dots(void **state)
{
	static const char *const right[] = { "1", "1.0.0", "3.10", "12345678901234567890123456789012" };
	static const char *const wrong[] = { "1.0.0-beta", "v1", ".1", "1.", "1..2", ".", "1,0",
		                                 "1 0", "123456789012345678901234567890123", "\"1\"" };

	(void)state;
	for (size_t i = 0; i < sizeof(right) / sizeof(right[0]); i++) {
		struct config *config = parse_one("format openai", "version", right[i]);

		assert_string_equal(config_find_format(config, "openai", 6), right[i]);
		config_free(config);
	}
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		expect_refused("format openai", "version", wrong[i], "digits and dots, at most 32");
}

/* -------------------------------------------------------- unknown and repeated */

static void an_unknown_section_is_refused_with_the_nearest_one(void **state)
{
	(void)state;
	expect_error("[endpont]\n", 1, "[endpont] is not a section; did you mean [endpoint]?");
	expect_error("\n[spol]\n", 2, "did you mean [spool]?");
	expect_error("[apps default]\n", 1, "did you mean [app NAME]?");
	expect_error("[App default]\n", 1, "did you mean [app NAME]?");
	expect_error("[server]\n", 1, "the sections are [endpoint], [app NAME]");
	expect_error("[]\n", 1, "there is no section of this name");
	expect_error("[ spool]\n", 1, "there is no section of this name");
	expect_error("[endpoint x]\n", 1, "there is no section of this name");
	expect_error("[" SECRET "]\n", 1, "there is no section of this name");
}

static void an_unknown_key_is_refused_with_the_nearest_one(void **state)
{
	(void)state;
	expect_error("[endpoint]\ntimeouts = 3s\n", 2,
	             "'timeouts' is not a key of [endpoint]; did you mean timeout?");
	expect_error("[endpoint]\ncafile = x\n", 2, "did you mean ca_file?");
	expect_error("[spool]\nmax-spool = 1G\n", 2, "did you mean max_spool?");
	expect_error("[endpoint]\nmax_spool = 1G\n", 2,
	             "max_spool does not belong into [endpoint]; right would be under [spool]");
	expect_error("[endpoint]\ncolour = red\n", 2,
	             "right would be one of: url, timeout, connections, memory, proxy, ca_file, "
	             "client_cert, client_key");
	expect_error("[endpoint]\nURL = https://x\n", 2, "no key of this name of [endpoint]");
	expect_error("[log]\n" SECRET " = 1\n", 2, "there is no key of this name of [log]");
	expect_error("[app x]\napikey = " SECRET "\n", 2, "did you mean api_key?");
	expect_error("[log]\naaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeee = 1\n", 2,
	             "right would be one of: level");
}

static void a_repeated_section_is_refused(void **state)
{
	(void)state;
	expect_error("[spool]\n[log]\n[spool]\n", 3, "[spool] began already in line 1");
	expect_error("[app default]\n\n[app default]\n", 3, "began already in line 1");
	expect_error("[app x]\n[app y]\n[app x]\n", 3, "began already in line 1");
	expect_error("[format x]\n[app x]\n[format x]\n", 3, "began already in line 1");
}

static void a_repeated_key_is_refused(void **state)
{
	(void)state;
	expect_error("[log]\nlevel = info\nlevel = info\n", 3, "level is given already in line 2");
	expect_error("[endpoint]\nproxy =\nproxy =\n", 3, "proxy is given already in line 2");
	expect_error("[app x]\napp_key = " SECRET "\napp_key = " SECRET "\n", 3,
	             "app_key is given already in line 2");
	expect_error("[app x]\napp_key = k\n[app y]\napp_key = k\napp_key = k\n", 5,
	             "given already in line 4");
}

/* --------------------------------------------- what libinih would let slip through */

static void a_key_before_any_section_is_refused(void **state)
{
	(void)state;
	expect_error("url = https://" SECRET "\n[endpoint]\n", 1, "before the first section");
}

static void a_line_that_is_no_line_of_ours_is_refused(void **state)
{
	(void)state;
	expect_error("[log]\nlevel\n", 2, "there is no =");
	expect_error("[log]\nlevel: info\n", 2, "there is no =");
	expect_error("[endpoint]\nurl: https://x/?a=" SECRET "\n", 2, "there is no =");
	expect_error("[log]\n" SECRET "\n", 2, "there is no =");
	expect_error("[log]\n= info\n", 2, "no key's name");
	expect_error("[log\nlevel = info\n", 1, "the ] at the end");
	expect_error("[log] level = info\n", 1, "something stands after the ]");
	expect_error("[log] # x\n", 1, "something stands after the ]");
	expect_error("[log] ; x\n", 1, "something stands after the ]");
	expect_error("[app a]b]\n", 1, "something stands after the ]");
	config_free(parse("[log] \t\nlevel = info\n"));
}

static void an_indented_line_is_refused(void **state)
{
	(void)state;
	expect_error("[app x]\napp_key = k\n " SECRET "\n", 3, "the line is indented");
	expect_error("[endpoint]\nproxy =\n\ttimeout = 1s\n", 3, "the line is indented");
	expect_error(" [log]\n", 1, "the line is indented");
	expect_error("[log]\n  # a comment\n", 2, "the line is indented");
	expect_error("\xef\xbb\xbf [log]\n", 1, "the line is indented");
	expect_error("\xef\xbb\xbf\xef\xbb\xbf[log]\n", 1, "there is no =");
	expect_error("[log]\n\xc2\xa0level = info\n", 2, "no key of this name");
}

static void a_line_that_is_too_long_is_refused(void **state)
{
	char text[400], value[200];
	struct config *config;

	(void)state;
	memset(value, 'k', sizeof(value));
	value[188] = '\0';
	snprintf(text, sizeof(text), "[app x]\napp_key = %s\napi_key = k\n", value);
	config = parse(text);
	assert_string_equal(config->apps[1].app_key, value);
	assert_string_equal(config->apps[1].api_key, "k");
	config_free(config);
	value[188] = 'k';
	value[189] = '\0';
	snprintf(text, sizeof(text), "[app x]\napp_key = %s\napi_key = k\n", value);
	expect_error(text, 2, "the line has 199 bytes; right would be at most 198");
	value[199] = '\0';
	snprintf(text, sizeof(text), "[log]\n# %.190slevel = debug\n", value);
	expect_error(text, 2, "the line has");
	/* The longest that there may be, with the line's end of DOS. */
	value[188] = '\0';
	snprintf(text, sizeof(text), "[app x]\r\napp_key = %s\r\napi_key = k\r\n", value);
	config = parse(text);
	assert_string_equal(config->apps[1].app_key, value);
	config_free(config);
}

static void a_comment_after_a_value_is_refused(void **state)
{
	(void)state;
	expect_error("[log]\nlevel = info ; a comment\n", 2, "a ; stands after a space");
	expect_error("[log]\nlevel = info\t;a comment\n", 2, "a ; stands after a space");
	expect_error("[log]\nlevel = info # a comment\n", 2, "a # stands after a space");
	expect_error("[app x]\napp_key = " SECRET " ;" SECRET "\n", 2, "a ; stands after a space");
	expect_error("[app x]\napp_key = ;" SECRET "\n", 2, "a ; stands after a space");
	expect_error("[app x ;y]\n", 1, "a ; stands after a space");
}

static void bytes_that_are_no_text_are_refused(void **state)
{
	static const char nul[] = "[log]\nlevel = in\0fo\n";
	static const char late_nul[] = "[log]\nlevel = info\n\0";

	(void)state;
	expect_error_size(nul, sizeof(nul) - 1, 2, "a NUL byte");
	expect_error_size(late_nul, sizeof(late_nul) - 1, 3, "a NUL byte");
	expect_error("[log]\nlevel = in\rfo\n", 2, "a control character");
	expect_error("[log]\nlevel = info\r\r\n", 2, "a control character");
	expect_error("[log]\nlevel = info\x1b[0m\n", 2, "a control character");
	expect_error("[log]\nlevel = \x7finfo\n", 2, "a control character");
	expect_error("# caf\xe9\n", 1, "not valid UTF-8");
	expect_error("[app \xed\xa0\x80]\n", 1, "not valid UTF-8");
	expect_error("[app x]\napp_key = a\tb\n", 2, "a tab inside its value");
	expect_error("[spool]\npath = /a\tb\n", 2, "a tab inside its value");
	expect_error("\xff\xfe[\0l\0o\0g\0", 1, "not valid UTF-8");
}

static void the_first_thing_that_is_wrong_is_told(void **state)
{
	(void)state;
	expect_error("[log]\n\n# x\nlevel = loud\nlevel = louder\n[nowhere]\n", 4, "'loud'");
	expect_error("[log]\r\n\r\nlevel = loud\r\n", 3, "'loud'");
}

static void no_text_at_all_is_too_much(void **state)
{
	/* Every cut and every changed byte of a whole file: refused or taken, never
	 * a crash, and no error has a key in it. */
	char text[sizeof(full)];
	struct config *config;
	char *error;

	(void)state;
	for (size_t i = 0; i < sizeof(full) - 1; i++) {
		static const char bytes[] = { 0, '\n', '\r', ' ', '[', ']', '=', ';', '\xff', '9' };

		if (config_parse(full, i, "f", NULL, &config, &error))
			config_free(config);
		free(error);
		for (size_t j = 0; j < sizeof(bytes); j++) {
			memcpy(text, full, sizeof(full));
			text[i] = bytes[j];
			if (config_parse(text, sizeof(full) - 1, "f", NULL, &config, &error)) {
				config_free(config);
				assert_null(error);
			} else {
				assert_null(config);
				assert_null(strstr(error, "K#1"));
				assert_null(strstr(error, "pass@"));
			}
			free(error);
		}
	}
}

/* ----------------------------------------------------------------- environment */

static void the_environment_goes_before_the_file(void **state)
{
	const struct config_environment environment = { "http://127.0.0.1:1/", "env app", "env=api" };
	struct config *config;
	char *error;

	(void)state;
	assert_true(config_parse(full, sizeof(full) - 1, "f", &environment, &config, &error));
	assert_string_equal(config->url, "http://127.0.0.1:1/");
	assert_string_equal(config->apps[0].app_key, "env app");
	assert_string_equal(config->apps[0].api_key, "env=api");
	assert_string_equal(config->apps[1].app_key_file, "sales-app");
	config_free(config);
	assert_true(config_parse("[app default]\napp_key_file = f\n", 31, "f", &environment, &config,
	                         &error));
	assert_null(config->apps[0].app_key_file);
	assert_string_equal(config->apps[0].app_key, "env app");
	config_free(config);
	assert_true(config_parse(NULL, 0, NULL, &environment, &config, &error));
	assert_string_equal(config->url, "http://127.0.0.1:1/");
	assert_string_equal(config->apps[0].api_key, "env=api");
	config_free(config);
}

static void an_empty_variable_is_an_unset_one(void **state)
{
	const struct config_environment environment = { "", "", "" };
	struct config *config;
	char *error;

	(void)state;
	assert_true(config_parse(full, sizeof(full) - 1, "f", &environment, &config, &error));
	assert_full(config);
	config_free(config);
}

static void expect_bad_environment(const struct config_environment *environment,
                                   const char *beginning)
{
	struct config *config = NULL;
	char *error = NULL;

	assert_false(config_parse("", 0, "f", environment, &config, &error));
	assert_null(config);
	if (strncmp(error, beginning, strlen(beginning)) != 0 || strstr(error, SECRET) != NULL ||
	    strstr(error, "right would be") == NULL)
		fail_msg("got \"%s\", expected \"%s\"", error, beginning);
	free(error);
}

static void a_bad_variable_is_named_and_not_quoted(void **state)
{
	char *huge = malloc(5000);

	(void)state;
	assert_non_null(huge);
	memset(huge, 'k', 4999);
	huge[4999] = '\0';
	expect_bad_environment(&(struct config_environment){ .endpoint = "http://" SECRET },
	                       "RECONIFY_ENDPOINT: http:// would send the keys");
	expect_bad_environment(&(struct config_environment){ .endpoint = "https://x/\n" },
	                       "RECONIFY_ENDPOINT: it has a space or another character");
	expect_bad_environment(&(struct config_environment){ .app_key = SECRET "\n" },
	                       "RECONIFY_APP_KEY: the key has a control character");
	expect_bad_environment(&(struct config_environment){ .api_key = SECRET "\xff" },
	                       "RECONIFY_API_KEY: the key is not valid UTF-8");
	expect_bad_environment(&(struct config_environment){ .api_key = huge },
	                       "RECONIFY_API_KEY: the key has more than 4096 bytes");
	free(huge);
}

/* ----------------------------------------------------------------------- files */

static char folder[64];

static const char *path_of(const char *name)
{
	static char path[4][160];
	static unsigned turn;
	char *place = path[turn++ % 4];

	snprintf(place, sizeof(path[0]), "%s/%s", folder, name);
	return place;
}

static void write_file(const char *name, const char *bytes, size_t size)
{
	FILE *file = fopen(path_of(name), "wb");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
}

static void write_text(const char *name, const char *text)
{
	write_file(name, text, strlen(text));
}

static int make_folder(void **state)
{
	(void)state;
	const char *base = getenv("TMPDIR");
	(void)snprintf(folder, sizeof folder, "%s/test_config.XXXXXX", base != NULL ? base : "/tmp");
	if (mkdtemp(folder) == NULL)
		return -1;
	unsetenv("CREDENTIALS_DIRECTORY");
	unsetenv("RECONIFY_ENDPOINT");
	unsetenv("RECONIFY_APP_KEY");
	unsetenv("RECONIFY_API_KEY");
	return mkdir(path_of("credentials"), 0700);
}

static int remove_folder(void **state)
{
	char command[100];

	(void)state;
	unsetenv("CREDENTIALS_DIRECTORY");
	snprintf(command, sizeof(command), "rm -rf '%s'", folder);
	return system(command);
}

static struct config *read_config(void)
{
	struct config *config = NULL;
	char *error = NULL;
	int code = config_read(path_of("agent.conf"), &config, &error);

	if (code != 0)
		fail_msg("%d: %s", code, error);
	return config;
}

static void expect_read_error(const char *name, int code, const char *part)
{
	struct config *config = NULL;
	char *error = NULL;

	assert_int_equal(config_read(path_of(name), &config, &error), code);
	assert_null(config);
	if (strncmp(error, path_of(name), strlen(path_of(name))) != 0 || strstr(error, part) == NULL)
		fail_msg("got \"%s\", expected \"%s\"", error, part);
	free(error);
}

static void a_file_that_cannot_be_read_says_which_and_why(void **state)
{
	char *large = calloc(1, 1024 * 1024 + 1);

	(void)state;
	assert_non_null(large);
	expect_read_error("nowhere.conf", EX_NOINPUT, "there is no such configuration file");
	expect_read_error("agent.conf/x", EX_NOINPUT, "there is no such configuration file");
	expect_read_error("credentials", EX_NOINPUT, "this is a folder");
	write_text("agent.conf", "[log]\nlevel = loud\n");
	expect_read_error("agent.conf", EX_CONFIG, ":2: level: 'loud'");
	memset(large, '\n', 1024 * 1024 + 1);
	write_file("agent.conf", large, 1024 * 1024 + 1);
	expect_read_error("agent.conf", EX_CONFIG, "larger than 1 MB");
	write_file("agent.conf", large, 1024 * 1024);
	config_free(read_config());
	free(large);
	if (geteuid() != 0) {
		assert_int_equal(chmod(path_of("agent.conf"), 0), 0);
		expect_read_error("agent.conf", EX_NOPERM, "this user may not read");
	}
}

static void the_processes_environment_is_read(void **state)
{
	struct config *config;

	(void)state;
	write_text("agent.conf", "[app default]\napp_key = file\napi_key = file\n");
	setenv("RECONIFY_ENDPOINT", "https://env.example.com/", 1);
	setenv("RECONIFY_APP_KEY", "from env", 1);
	setenv("RECONIFY_API_KEY", "", 1);
	config = read_config();
	assert_string_equal(config->url, "https://env.example.com/");
	assert_string_equal(config->apps[0].app_key, "from env");
	assert_string_equal(config->apps[0].api_key, "file");
	config_free(config);
	unsetenv("RECONIFY_ENDPOINT");
	unsetenv("RECONIFY_APP_KEY");
	unsetenv("RECONIFY_API_KEY");
}

static void certificates_are_found_beside_the_configuration(void **state)
{
	struct config *config;

	(void)state;
	write_text("agent.conf",
	           "[endpoint]\nca_file = ca.pem\nclient_cert = c.pem\nclient_key = /abs/k.pem\n");
	write_text("credentials/c.pem", "x");
	setenv("CREDENTIALS_DIRECTORY", path_of("credentials"), 1);
	config = read_config();
	assert_string_equal(config->ca_file, path_of("ca.pem"));
	assert_string_equal(config->client_cert, path_of("credentials/c.pem"));
	assert_string_equal(config->client_key, "/abs/k.pem");
	config_free(config);
}

static void key_files_are_found_beside_the_configuration(void **state)
{
	struct config *config;

	(void)state;
	write_text("agent.conf", "[app other]\napp_key_file = credentials/a\napi_key = plain\n");
	write_text("app-key", "APP\n");
	write_text("api-key", "API");
	write_text("credentials/a", "OTHER\r\n");
	config = read_config();
	assert_null(config->apps[0].app_key);
	config_load_keys(config);
	assert_string_equal(config->apps[0].app_key, "APP");
	assert_string_equal(config->apps[0].api_key, "API");
	assert_null(config->apps[0].missing);
	assert_string_equal(config->apps[1].app_key, "OTHER");
	assert_string_equal(config->apps[1].api_key, "plain");
	assert_null(config->apps[1].missing);
	config_free(config);
}

static void the_credentials_folder_goes_before_the_configurations(void **state)
{
	struct config *config;

	(void)state;
	write_text("agent.conf", "");
	write_text("app-key", "beside");
	write_text("api-key", "beside");
	write_text("credentials/app-key", "credential");
	setenv("CREDENTIALS_DIRECTORY", path_of("credentials"), 1);
	config = read_config();
	config_load_keys(config);
	assert_string_equal(config->apps[0].app_key, "credential");
	assert_string_equal(config->apps[0].api_key, "beside");
	config_free(config);
}

static void without_a_file_the_credentials_folder_is_enough(void **state)
{
	struct config *config = NULL;
	char *error = NULL;

	(void)state;
	write_text("credentials/app-key", "one\n");
	write_text("credentials/api-key", "two\n");
	setenv("CREDENTIALS_DIRECTORY", path_of("credentials"), 1);
	assert_true(config_parse(NULL, 0, NULL, NULL, &config, &error));
	config_load_keys(config);
	assert_string_equal(config->apps[0].app_key, "one");
	assert_string_equal(config->apps[0].api_key, "two");
	assert_null(config->apps[0].missing);
	config_free(config);
}

static void without_a_file_a_missing_key_points_to_its_variable(void **state)
{
	const struct config_environment environment = { .app_key = SECRET };
	struct config *config = NULL;
	char *error = NULL;

	(void)state;
	assert_true(config_parse(NULL, 0, NULL, &environment, &config, &error));
	config_load_keys(config);
	assert_string_equal(config->apps[0].app_key, SECRET);
	assert_null(config->apps[0].app_key_file);
	assert_null(config->apps[0].api_key_file);
	assert_non_null(strstr(config->apps[0].missing, "RECONIFY_API_KEY"));
	assert_null(strstr(config->apps[0].missing, "RECONIFY_APP_KEY"));
	config_free(config);
}

static void a_missing_key_says_where_it_was_looked_for(void **state)
{
	struct config *config;
	const char *missing;

	(void)state;
	write_text("agent.conf", "[app x]\napp_key_file = /nowhere/key\n[app y]\napp_key = k\n");
	setenv("CREDENTIALS_DIRECTORY", path_of("credentials"), 1);
	config = read_config();
	config_load_keys(config);
	missing = config->apps[0].missing;
	assert_non_null(strstr(missing, path_of("credentials/app-key")));
	assert_non_null(strstr(missing, path_of("app-key")));
	assert_non_null(strstr(missing, path_of("credentials/api-key")));
	assert_non_null(strstr(config->apps[1].missing, "/nowhere/key"));
	assert_non_null(strstr(config->apps[1].missing, "set api_key_file under [app x]"));
	assert_non_null(strstr(config->apps[2].missing, "no api_key: set api_key_file under [app y]"));
	assert_null(strstr(config->apps[2].missing, "app_key"));
	config_free(config);
}

static void a_key_file_that_holds_no_key_is_named(void **state)
{
	static const struct {
		const char *bytes;
		size_t size;
		const char *part;
	} cases[] = {
		{ "", 0, "is empty" },
		{ "\n", 1, "is empty" },
		{ "\r\n", 2, "is empty" },
		{ "  \n", 3, "is empty" },
		{ SECRET "\n\n", sizeof(SECRET) + 1, "more than one line" },
		{ SECRET "\nx\n", sizeof(SECRET) + 2, "more than one line" },
		{ SECRET "\r", sizeof(SECRET), "a control character" },
		{ SECRET "\0", sizeof(SECRET), "a control character" },
		{ SECRET "\tx", sizeof(SECRET) + 1, "a control character" },
		{ SECRET "\xff", sizeof(SECRET), "not valid UTF-8" },
	};

	(void)state;
	write_text("agent.conf", "[app default]\napi_key = k\n");
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct config *config = read_config();

		write_file("app-key", cases[i].bytes, cases[i].size);
		config_load_keys(config);
		assert_null(config->apps[0].app_key);
		assert_non_null(config->apps[0].missing);
		if (strstr(config->apps[0].missing, cases[i].part) == NULL ||
		    strstr(config->apps[0].missing, path_of("app-key")) == NULL ||
		    strstr(config->apps[0].missing, SECRET) != NULL)
			fail_msg("%zu: %s", i, config->apps[0].missing);
		config_free(config);
	}
}

static void a_key_may_have_4096_bytes(void **state)
{
	char key[4098];
	struct config *config;

	(void)state;
	memset(key, 'k', sizeof(key));
	write_text("agent.conf", "[app default]\napi_key = k\n");
	config = read_config();
	memcpy(key + 4096, "\r\n", 2);
	write_file("app-key", key, 4098);
	config_load_keys(config);
	assert_null(config->apps[0].missing);
	assert_int_equal(strlen(config->apps[0].app_key), 4096);
	memcpy(key + 4096, "k\n", 2);
	write_file("app-key", key, 4098);
	config_load_keys(config);
	assert_non_null(strstr(config->apps[0].missing, "larger than 4 KB"));
	assert_null(config->apps[0].app_key);
	config_free(config);
}

static void what_is_not_a_file_in_a_keys_place_is_named(void **state)
{
	struct config *config;

	(void)state;
	write_text("agent.conf", "[app default]\napi_key = k\n");
	assert_int_equal(mkdir(path_of("app-key"), 0700), 0);
	config = read_config();
	config_load_keys(config);
	assert_non_null(strstr(config->apps[0].missing, "is a folder"));
	assert_int_equal(rmdir(path_of("app-key")), 0);
	/* A FIFO must not hang the daemon. */
	assert_int_equal(mkfifo(path_of("app-key"), 0600), 0);
	config_load_keys(config);
	assert_non_null(strstr(config->apps[0].missing, "is not a regular file"));
	assert_int_equal(unlink(path_of("app-key")), 0);
	if (geteuid() != 0) {
		write_text("app-key", "k");
		assert_int_equal(chmod(path_of("app-key"), 0), 0);
		config_load_keys(config);
		assert_non_null(strstr(config->apps[0].missing, "may not be read by this user"));
	}
	config_free(config);
}

static void keys_can_be_loaded_again(void **state)
{
	struct config *config;

	(void)state;
	write_text("agent.conf", "[app default]\napi_key = k\n");
	config = read_config();
	config_load_keys(config);
	assert_non_null(config->apps[0].missing);
	write_text("app-key", "first\n");
	config_load_keys(config);
	assert_null(config->apps[0].missing);
	assert_string_equal(config->apps[0].app_key, "first");
	write_text("app-key", "second\n");
	config_load_keys(config);
	assert_string_equal(config->apps[0].app_key, "second");
	assert_string_equal(config->apps[0].api_key, "k");
	assert_int_equal(unlink(path_of("app-key")), 0);
	config_load_keys(config);
	assert_null(config->apps[0].app_key);
	assert_non_null(config->apps[0].missing);
	config_free(config);
}

static void the_example_configuration_is_the_defaults(void **state)
{
	/* With each key's comment sign taken away, and as it stands. */
	FILE *file = fopen("packaging/agent.conf", "rb");
	static char text[32768], bare[32768];
	size_t size, bare_size = 0;
	struct config *config;

	(void)state;
	if (file == NULL) {
		print_message("there is no packaging/agent.conf below the current folder\n");
		skip();
	}
	size = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[size] = '\0';
	config = parse(text);
	assert_defaults(config);
	config_free(config);
	for (char *line = text; *line != '\0';) {
		size_t length = strcspn(line, "\n") + 1;
		size_t word = strspn(line + 1, "abcdefghijklmnopqrstuvwxyz_");

		if (*line == '#' &&
		    (line[1] == '[' || (word > 0 && strncmp(line + 1 + word, " =", 2) == 0))) {
			line++;
			length--;
		}
		memcpy(bare + bare_size, line, length);
		bare_size += length;
		line += length;
	}
	config = parse_size(bare, bare_size);
	assert_string_equal(config->apps[0].app_key_file, "app-key");
	assert_string_equal(config->apps[0].api_key_file, "api-key");
	assert_string_equal(config->apps[1].app_key_file, "sales-app-key");
	assert_string_equal(config_find_format(config, "openai", 6), "1.0.0");
	assert_non_null(config->url);
	/* The three that have no default. */
	free(config->url);
	config->url = NULL;
	free(config->apps[1].name);
	free(config->apps[1].app_key_file);
	free(config->apps[1].api_key_file);
	config->app_count = 1;
	free(config->formats[0].name);
	free(config->formats[0].version);
	config->format_count = 0;
	assert_defaults(config);
	config_free(config);
}

struct seen {
	char text[8192];
	size_t size;
};

static void see(void *context, const struct config_item *item)
{
	struct seen *seen = context;

	seen->size += (size_t)snprintf(seen->text + seen->size, sizeof(seen->text) - seen->size,
	                               "[%s] %s=%s (%s%s)\n", item->section, item->key, item->value,
	                               item->origin, item->given ? "" : "!");
}

static void assert_described(const struct config *config, const char *line)
{
	static struct seen seen;

	seen.size = 0;
	config_describe(config, see, &seen);
	if (strstr(seen.text, line) == NULL)
		fail_msg("'%s' is not in:\n%s", line, seen.text);
}

static void each_value_is_told_with_where_it_came_from(void **state)
{
	static const char text[] = "[endpoint]\nurl = https://host/a?token=SECRET\n"
	                           "timeout = 90s\nproxy = http://user:SECRET@proxy:1\n"
	                           "[app b]\napp_key = SECRET\napi_key_file = f\n"
	                           "[spool]\nmax_spool = 1048577\n";
	const struct config_environment environment = { NULL, "SECRET", NULL };
	static struct seen seen;
	struct config *config;
	char *error;

	(void)state;
	assert_true(config_parse(text, sizeof(text) - 1, "F", &environment, &config, &error));
	config_set_spool(config, "/elsewhere");
	assert_described(config, "[endpoint] url=https://host/a?**** (F:2)\n");
	assert_described(config, "[endpoint] timeout=90s (F:3)\n");
	assert_described(config, "[endpoint] proxy=http://****@proxy:1 (F:4)\n");
	assert_described(config, "[endpoint] memory=64M (default!)\n");
	assert_described(config, "[app default] app_key=**** (RECONIFY_APP_KEY)\n");
	assert_described(config, "[app b] app_key=**** (F:6)\n");
	assert_described(config, "[app b] api_key_file=f (F:7)\n");
	assert_described(config, "[spool] path=/elsewhere (--spool)\n");
	assert_described(config, "[spool] max_spool=1048577 (F:9)\n");
	assert_described(config, "[retry] cap=5m (default!)\n");
	config_describe(config, see, &seen);
	assert_null(strstr(seen.text, "SECRET"));
	config_free(config);
}

static void the_environment_is_named_where_it_goes_before_the_file(void **state)
{
	static const char text[] = "[endpoint]\nurl = https://one/\n[app default]\napp_key = k\n"
	                           "api_key_file = f\n";
	const struct config_environment environment = { "https://two/", "k", "k" };
	struct config *config;
	char *error;

	(void)state;
	assert_true(config_parse(text, sizeof(text) - 1, "F", &environment, &config, &error));
	assert_described(config, "[endpoint] url=https://two/ (RECONIFY_ENDPOINT)\n");
	assert_described(config, "[app default] app_key=**** (RECONIFY_APP_KEY)\n"
	                         "[app default] api_key=**** (RECONIFY_API_KEY)\n[spool]");
	config_free(config);
}

#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_a_file_there_are_the_defaults),
		cmocka_unit_test(a_file_without_a_key_gives_the_defaults),
		cmocka_unit_test(every_key_is_understood),
		cmocka_unit_test(line_ends_of_dos_and_a_byte_order_mark_change_nothing),
		cmocka_unit_test(a_text_is_read_no_further_than_its_size),
		cmocka_unit_test(durations_have_units),
		cmocka_unit_test(a_duration_without_a_known_unit_is_refused),
		cmocka_unit_test(for_ever_and_not_at_all_are_words_of_their_own),
		cmocka_unit_test(sizes_have_binary_units_or_none),
		cmocka_unit_test(every_range_has_both_its_ends),
		cmocka_unit_test(a_record_is_never_larger_than_the_spool),
		cmocka_unit_test(the_cap_is_never_shorter_than_the_base),
		cmocka_unit_test(words_are_taken_as_they_are_written),
		cmocka_unit_test(https_anywhere_and_http_to_this_machine_are_right_for_the_url),
		cmocka_unit_test(every_other_url_is_refused_and_not_quoted),
		cmocka_unit_test(a_proxy_is_none_the_environments_or_an_address),
		cmocka_unit_test(empty_values_are_for_keys_whose_default_is_nothing),
		cmocka_unit_test(the_spools_path_is_absolute),
		cmocka_unit_test(a_clients_key_needs_its_certificate),
		cmocka_unit_test(an_app_may_be_named_with_anything_up_to_128_bytes),
		cmocka_unit_test(apps_are_found_by_their_bytes),
		cmocka_unit_test(a_key_and_its_file_are_not_given_together),
		cmocka_unit_test(an_app_or_format_needs_a_name),
		cmocka_unit_test(there_are_at_most_64_apps_and_32_formats),
		cmocka_unit_test(a_version_is_digits_and_dots),
		cmocka_unit_test(an_unknown_section_is_refused_with_the_nearest_one),
		cmocka_unit_test(an_unknown_key_is_refused_with_the_nearest_one),
		cmocka_unit_test(a_repeated_section_is_refused),
		cmocka_unit_test(a_repeated_key_is_refused),
		cmocka_unit_test(a_key_before_any_section_is_refused),
		cmocka_unit_test(a_line_that_is_no_line_of_ours_is_refused),
		cmocka_unit_test(an_indented_line_is_refused),
		cmocka_unit_test(a_line_that_is_too_long_is_refused),
		cmocka_unit_test(a_comment_after_a_value_is_refused),
		cmocka_unit_test(bytes_that_are_no_text_are_refused),
		cmocka_unit_test(the_first_thing_that_is_wrong_is_told),
		cmocka_unit_test(no_text_at_all_is_too_much),
		cmocka_unit_test(the_environment_goes_before_the_file),
		cmocka_unit_test(an_empty_variable_is_an_unset_one),
		cmocka_unit_test(a_bad_variable_is_named_and_not_quoted),
		WITH_FOLDER(a_file_that_cannot_be_read_says_which_and_why),
		WITH_FOLDER(the_processes_environment_is_read),
		WITH_FOLDER(certificates_are_found_beside_the_configuration),
		WITH_FOLDER(key_files_are_found_beside_the_configuration),
		WITH_FOLDER(the_credentials_folder_goes_before_the_configurations),
		WITH_FOLDER(without_a_file_the_credentials_folder_is_enough),
		WITH_FOLDER(without_a_file_a_missing_key_points_to_its_variable),
		WITH_FOLDER(a_missing_key_says_where_it_was_looked_for),
		WITH_FOLDER(a_key_file_that_holds_no_key_is_named),
		WITH_FOLDER(a_key_may_have_4096_bytes),
		WITH_FOLDER(what_is_not_a_file_in_a_keys_place_is_named),
		WITH_FOLDER(keys_can_be_loaded_again),
		cmocka_unit_test(the_example_configuration_is_the_defaults),
		cmocka_unit_test(each_value_is_told_with_where_it_came_from),
		cmocka_unit_test(the_environment_is_named_where_it_goes_before_the_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
