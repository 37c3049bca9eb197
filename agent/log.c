/* The log; see log.h. */
#include "agent/log.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "agent/flood.h"
#include "agent/json.h"

#define LINE_SIZE 1200

struct log_state {
	enum config_log_level level, least; /* what is less urgent than either is not written */
	enum config_log_format format;
	struct flood flood;
};

struct log log_open(const struct config *config, enum config_log_level least)
{
	/* systemd sets this for what it connected to the journal (sd-daemon(3)). */
	struct log log = { getenv("JOURNAL_STREAM") != NULL, calloc(1, sizeof *log.state) };
	if (log.state == NULL) {
		(void)fputs("reconify-agent: no memory\n", stderr);
		exit(EX_OSERR); /* at the very start: there is nothing to lose */
	}
	log.state->least = least;
	log_adapt(&log, config);
	return log;
}

void log_adapt(const struct log *log, const struct config *config)
{
	log->state->level = config->log_level;
	log->state->format = config->log_format;
}

static int64_t monotonic_ms(void)
{
	struct timespec time;
	if (clock_gettime(CLOCK_MONOTONIC, &time) != 0)
		return 0;
	return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static bool write_json(const char *prefix, const char *level, const char *line)
{
	char when[40] = "";
	struct timespec time;
	struct tm parts;
	if (clock_gettime(CLOCK_REALTIME, &time) == 0 && gmtime_r(&time.tv_sec, &parts) != NULL) {
		size_t size = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &parts);
		(void)snprintf(when + size, sizeof when - size, ".%03ldZ", time.tv_nsec / 1000000);
	}
	cJSON *json = cJSON_CreateObject();
	bool ok = json != NULL && cJSON_AddStringToObject(json, "time", when) != NULL &&
	          cJSON_AddStringToObject(json, "level", level) != NULL &&
	          cJSON_AddStringToObject(json, "message", line) != NULL;
	char *text = ok ? cJSON_PrintUnformatted(json) : NULL;
	if (text != NULL)
		(void)fprintf(stderr, "%s%s\n", prefix, text);
	cJSON_Delete(json);
	free(text);
	return text != NULL;
}

static void write_line(const struct log *log, enum config_log_level level, const char *sentence)
{
	static const char *const names[] = { "error", "warning", "info", "debug" };
	static const char *const words[] = { "error: ", "warning: ", "", "debug: " };
	static const char *const priorities[] = { "<3>", "<4>", "<6>", "<7>" };
	const char *prefix = log->journal ? priorities[level] : "";
	char line[LINE_SIZE];
	size_t size = strlen(sentence);
	if (size >= sizeof line)
		size = sizeof line - 1;
	bool text = json_is_utf8(sentence, size); /* a file's name may be no such thing */
	for (size_t i = 0; i < size; i++) {
		unsigned char byte = (unsigned char)sentence[i];
		line[i] = byte < 0x20 || byte == 0x7f ? ' ' : byte >= 0x80 && !text ? '?' : sentence[i];
	}
	line[size] = '\0';
	/* A log that cannot be written to must not stop the shipping. */
	if (log->state->format == LOG_JSON && write_json(prefix, names[level], line))
		return;
	(void)fprintf(stderr, "%s%s%s\n", log->journal ? prefix : "reconify-agent: ", words[level],
	              line);
}

static void write_counts(const struct log *log, int64_t now, bool all)
{
	char line[LINE_SIZE];
	int level;
	while (flood_next(&log->state->flood, now, all, &level, line, sizeof line))
		write_line(log, (enum config_log_level)level, line);
}

void log_line(const struct log *log, enum config_log_level level, const char *sentence)
{
	int64_t now = monotonic_ms();
	if (level > log->state->level || level > log->state->least)
		return;
	write_counts(log, now, false);
	if (flood_passes(&log->state->flood, (int)level, sentence, now))
		write_line(log, level, sentence);
}

void log_count(const struct log *log)
{
	write_counts(log, monotonic_ms(), false);
}

void log_close(struct log *log)
{
	write_counts(log, monotonic_ms(), true);
	free(log->state);
	log->state = NULL;
}
