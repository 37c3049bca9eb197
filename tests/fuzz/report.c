/* What `status` reads from a socket or a note that somebody else may have written. */
#include <string.h>

#include "agent/report.h"
#include "tests/fuzz/fuzz.h"

static bool ends(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

int fuzz_report(const uint8_t *data, size_t size)
{
	static struct report report, again;
	char sentence[512];
	char *text = fuzz_text(data, size);
	bool read = report_from_json(text, &report);
	free(text);
	if (!read)
		return 0;
	HOLDS(report.app_count <= REPORT_APPS_MAX);
	HOLDS(report_state_name(report.state) != NULL);
	HOLDS(ends(report.reason, sizeof report.reason));
	HOLDS(ends(report.storage, sizeof report.storage));
	HOLDS(ends(report.retrying_reason, sizeof report.retrying_reason));
	for (size_t i = 0; i < report.app_count; i++)
		HOLDS(ends(report.apps[i].name, sizeof report.apps[i].name) &&
		      ends(report.apps[i].reason, sizeof report.apps[i].reason));
	report_sentence(&report, sentence, sizeof sentence);

	/* What was read once is written and read again as the same. */
	char *written = report_to_json(&report);
	HOLDS(written != NULL && report_from_json(written, &again));
	char *twice = report_to_json(&again);
	HOLDS(twice != NULL && strcmp(written, twice) == 0);
	free(written);
	free(twice);
	return 0;
}
