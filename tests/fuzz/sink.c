/* The judge of reconify-sink: what it accepts is JSON of the documented shape. */
#include <string.h>

#include "agent/sink_judge.h"
#include "tests/fuzz/fuzz.h"

int fuzz_sink(const uint8_t *data, size_t size)
{
	struct sink_fault fault = { "" };
	struct slice member, reconify, format;
	char *body = fuzz_text(data, size);
	if (!sink_judge_body(&fault, body, size)) {
		HOLDS(fault.text[0] != '\0' && memchr(fault.text, '\0', sizeof fault.text) != NULL);
		free(body);
		return 0;
	}
	struct slice whole = { body, size };
	HOLDS(oracle_json(whole) == ORACLE_OBJECT);
	HOLDS(oracle_find(whole, "reconify", &reconify) && oracle_json(reconify) == ORACLE_OBJECT);
	HOLDS(oracle_find(reconify, "apiKey", &member) && oracle_json(member) == ORACLE_STRING);
	HOLDS(oracle_find(reconify, "appKey", &member) && oracle_json(member) == ORACLE_STRING);
	HOLDS(oracle_find(reconify, "format", &format) && oracle_json(format) == ORACLE_STRING);
	HOLDS(oracle_find(whole, "timestamps", &member) && oracle_json(member) == ORACLE_OBJECT);
	HOLDS(oracle_find(member, "request", &member) && oracle_json(member) == ORACLE_OTHER);
	HOLDS(oracle_find(whole, "request", &member));
	HOLDS(oracle_find(whole, "response", &member));
	free(body);
	return 0;
}
