/* A configuration's text; and, as one line each, the environment's three variables in
 * front of it where the input begins with '!'. */
#include <string.h>

#include "agent/config.h"
#include "tests/fuzz/fuzz.h"

/* Stands for a key in corpus and dictionary. */
static const char secret[] = "K3yThatNobodySees";

/* Whether it stands only where a person would put a key: in the environment, or on a
 * line with a name to it that speaks of one. What else is wrong may be quoted. */
static bool is_kept_secret(const char *text)
{
	for (const char *at = text; (at = strstr(at, secret)) != NULL; at++) {
		const char *line = at;
		while (line > text && line[-1] != '\n')
			line--;
		const char *key = strstr(line, "_key"), *sign = strchr(line, '=');
		if (key == NULL || sign == NULL || key > sign || sign > at)
			return false;
	}
	return true;
}

static void expect_bounds(const struct config *config)
{
	HOLDS(config->timeout > 0 && config->connections > 0 && config->memory > 0);
	HOLDS(config->max_record > 0 && config->max_record <= config->max_spool);
	HOLDS(config->retry_base > 0 && config->retry_base <= config->retry_cap);
	HOLDS(config->max_attempts > 0 && config->spool_path != NULL && config->proxy != NULL);
	HOLDS(config->app_count >= 1 && config->app_count <= CONFIG_APPS_MAX);
	HOLDS(config->format_count <= CONFIG_FORMATS_MAX);
	HOLDS(strcmp(config->apps[0].name, "default") == 0);
	for (size_t i = 0; i < config->app_count; i++)
		HOLDS(config_find_app(config, config->apps[i].name, strlen(config->apps[i].name)) ==
		      &config->apps[i]);
	HOLDS(config->url == NULL || strncasecmp(config->url, "http", 4) == 0);
}

int fuzz_config(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	struct config_environment environment = { NULL, NULL, NULL };
	char *lines[3] = { NULL, NULL, NULL }, *error = NULL;
	struct config *config = NULL;
	if (size > 0 && data[0] == '!') {
		(void)take_byte(&input);
		size_t length;
		for (size_t i = 0; i < 3; i++)
			lines[i] = take_line(&input, &length);
		environment = (struct config_environment){ lines[0], lines[1], lines[2] };
	}
	size_t left = (size_t)(input.end - input.at);
	char *text = malloc(left > 0 ? left : 1);
	HOLDS(text != NULL);
	if (left > 0)
		memcpy(text, input.at, left);
	if (config_parse(text, left, "agent.conf", &environment, &config, &error)) {
		HOLDS(config != NULL && error == NULL);
		expect_bounds(config);
	} else {
		HOLDS(config == NULL && error != NULL && strchr(error, '\n') == NULL);
		HOLDS(strncmp(error, "agent.conf:", 11) == 0 || strncmp(error, "RECONIFY_", 9) == 0);
		char *whole = fuzz_text(input.at, left);
		HOLDS(strlen(whole) != left || !is_kept_secret(whole) || strstr(error, secret) == NULL);
		free(whole);
	}
	config_free(config);
	free(error);
	free(text);
	for (size_t i = 0; i < 3; i++)
		free(lines[i]);
	return 0;
}
