/* The log; see log.h. */
#include "agent/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct log log_open(enum config_log_level level)
{
	/* systemd sets this for what it connected to the journal (sd-daemon(3)). */
	struct log log = { level, getenv("JOURNAL_STREAM") != NULL };
	return log;
}

void log_line(const struct log *log, enum config_log_level level, const char *sentence)
{
	static const char *const words[] = { "error: ", "warning: ", "", "debug: " };
	static const char *const priorities[] = { "<3>", "<4>", "<6>", "<7>" };
	char line[1200];
	if (level > log->level)
		return;
	size_t size = strlen(sentence);
	if (size >= sizeof line)
		size = sizeof line - 1;
	for (size_t i = 0; i < size; i++) {
		unsigned char byte = (unsigned char)sentence[i];
		line[i] = byte < 0x20 || byte == 0x7f ? ' ' : sentence[i];
	}
	line[size] = '\0';
	/* A log that cannot be written to must not stop the shipping. */
	if (log->journal)
		(void)fprintf(stderr, "%s%s%s\n", priorities[level], words[level], line);
	else
		(void)fprintf(stderr, "reconify-agent: %s%s\n", words[level], line);
}
