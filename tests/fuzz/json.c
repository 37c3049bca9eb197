/* json_check() against a second reading of the same RFCs. */
#include <cjson/cJSON.h>
#include <string.h>

#include "agent/json.h"
#include "tests/fuzz/fuzz.h"

int fuzz_json(const uint8_t *data, size_t size)
{
	static const enum oracle_kind kinds[] = {
		[JSON_INVALID] = ORACLE_NONE,  [JSON_OBJECT] = ORACLE_OBJECT,
		[JSON_ARRAY] = ORACLE_ARRAY,   [JSON_STRING] = ORACLE_STRING,
		[JSON_NUMBER] = ORACLE_OTHER,  [JSON_WORD] = ORACLE_OTHER,
	};
	/* Without a NUL behind it, so that reading too far is seen. */
	char *text = malloc(size > 0 ? size : 1);
	HOLDS(text != NULL);
	if (size > 0)
		memcpy(text, data, size);
	struct slice slice = { text, size };
	enum json_kind kind = json_check(text, size);
	HOLDS(kinds[kind] == oracle_json(slice));
	HOLDS(json_is_utf8(text, size) == oracle_utf8(slice));
	HOLDS(kind == JSON_INVALID || json_is_utf8(text, size));
	free(text);
	return 0;
}
