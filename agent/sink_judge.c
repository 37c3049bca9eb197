/* The judge of payloads; see sink_judge.h. */
#include "agent/sink_judge.h"

#include <cjson/cJSON.h>
#include <stdlib.h>
#include <string.h>

#include "agent/json.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

struct slice {
	const char *at;
	size_t size;
};

/* A tree of the whole text is not built: cJSON refuses lone surrogates and
 * depths that are legal. Once json_check() has passed a text, its members are
 * found by looking at brackets and quotes alone. */

enum kind { KIND_ANY, KIND_OBJECT, KIND_STRING, KIND_FILLED, KIND_INTEGER, KIND_TIME, KIND_FLAG };

static const char *const kind_words[] = {
	[KIND_ANY] = "a value",           [KIND_OBJECT] = "an object",
	[KIND_STRING] = "a string",       [KIND_FILLED] = "a string that is not empty",
	[KIND_INTEGER] = "an integer",    [KIND_TIME] = "an integer in milliseconds, not negative",
	[KIND_FLAG] = "the integer 0 or 1",
};

struct rule {
	const char *name;
	enum kind kind;
	bool required;
};

enum { TOP_RECONIFY, TOP_TIMESTAMPS, TOP_USER, TOP_REQUEST, TOP_RESPONSE, TOP_COUNT = 7 };
static const struct rule top_rules[] = {
	[TOP_RECONIFY] = {"reconify", KIND_OBJECT, true},
	[TOP_TIMESTAMPS] = {"timestamps", KIND_OBJECT, true},
	[TOP_USER] = {"user", KIND_OBJECT, false},
	[TOP_REQUEST] = {"request", KIND_ANY, true},
	[TOP_RESPONSE] = {"response", KIND_ANY, true},
	{"session", KIND_STRING, false},
	{"sessionTimeout", KIND_INTEGER, false},
};
static const struct rule reconify_rules[] = {
	{"format", KIND_FILLED, true}, {"type", KIND_STRING, true},
	{"version", KIND_FILLED, true}, {"appKey", KIND_FILLED, true},
	{"apiKey", KIND_FILLED, true},
};
static const struct rule timestamps_rules[] = {
	{"request", KIND_TIME, true}, {"response", KIND_TIME, false},
};
static const struct rule user_rules[] = {
	{"userId", KIND_STRING, false}, {"email", KIND_STRING, false},
	{"isAuthenticated", KIND_FLAG, false}, {"firstName", KIND_STRING, false},
	{"lastName", KIND_STRING, false}, {"phone", KIND_STRING, false},
	{"gender", KIND_STRING, false},
};
static const struct rule bedrock_request_rules[] = {
	{"modelId", KIND_STRING, true}, {"contentType", KIND_STRING, false},
	{"accept", KIND_STRING, false}, {"body", KIND_STRING, true},
};
static const struct rule bedrock_response_rules[] = {
	{"requestId", KIND_STRING, false}, {"body", KIND_ANY, true},
};
#define RULES_MAX 7

static const char *skip_space(const char *at)
{
	return at + strspn(at, " \t\r\n");
}

static const char *skip_string(const char *at)
{
	for (at++; *at != '"'; at++)
		if (*at == '\\')
			at++;
	return at + 1;
}

static const char *skip_value(const char *at)
{
	if (*at == '"')
		return skip_string(at);
	if (*at != '{' && *at != '[')
		return at + strcspn(at, ",]} \t\r\n");
	size_t depth = 0;
	do {
		if (*at == '"') {
			at = skip_string(at);
			continue;
		}
		if (*at == '{' || *at == '[')
			depth++;
		else if (*at == '}' || *at == ']')
			depth--;
		at++;
	} while (depth > 0);
	return at;
}

/* Takes the next member of an object; `*at` is behind its '{' or its last value. */
static bool next_member(const char **at, struct slice *key, struct slice *value)
{
	const char *here = skip_space(*at);
	if (*here == ',')
		here = skip_space(here + 1);
	if (*here == '}')
		return false;
	key->at = here;
	here = skip_string(here);
	key->size = (size_t)(here - key->at);
	here = skip_space(skip_space(here) + 1);
	value->at = here;
	*at = skip_value(here);
	value->size = (size_t)(*at - here);
	return true;
}

/* A key may be written with escapes and still decode to one of our names. */
static bool key_is(struct slice key, const char *name)
{
	if (memchr(key.at, '\\', key.size) == NULL)
		return key.size == strlen(name) + 2 && memcmp(key.at + 1, name, key.size - 2) == 0;
	if (memmem(key.at, key.size, "\\u0000", 6) != NULL)
		return false; /* where cJSON would end the name */
	cJSON *decoded = cJSON_ParseWithLength(key.at, key.size);
	bool same = cJSON_IsString(decoded) && strcmp(decoded->valuestring, name) == 0;
	cJSON_Delete(decoded);
	return same;
}

static bool is_kind(struct slice value, enum kind kind)
{
	size_t sign = value.at[0] == '-';
	bool integer = strspn(value.at + sign, "0123456789") == value.size - sign;
	switch (kind) {
	case KIND_ANY: return true;
	case KIND_OBJECT: return value.at[0] == '{';
	case KIND_STRING: return value.at[0] == '"';
	case KIND_FILLED: return value.at[0] == '"' && value.size > 2;
	case KIND_INTEGER: return integer;
	case KIND_TIME: return integer && sign == 0;
	case KIND_FLAG: return value.size == 1 && (value.at[0] == '0' || value.at[0] == '1');
	}
	return false;
}

/* Judges the members of `object` by `rules`. `found` has room for one value a
 * rule; `at` is NULL where a member is absent. An open object may have others. */
static bool judge_object(struct sink_fault *fault, const char *where, struct slice object,
                         const struct rule *rules, size_t count, bool open,
                         struct slice *found)
{
	const char *at = object.at + 1;
	struct slice key, value;
	memset(found, 0, count * sizeof *found);
	while (next_member(&at, &key, &value)) {
		size_t i = 0;
		while (i < count && !key_is(key, rules[i].name))
			i++;
		if (i == count && open)
			continue;
		if (i == count) {
			/* What is no plain word may be somebody's text: it is not repeated. */
			bool plain = key.size <= 42 &&
				strspn(key.at + 1, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"
				                   "abcdefghijklmnopqrstuvwxyz") == key.size - 2;
			return sink_blame(fault, "%s has an unknown member%s%.*s", where, plain ? " " : "",
			             plain ? (int)key.size : 0, key.at);
		}
		if (found[i].at != NULL)
			return sink_blame(fault, "%s has the member \"%s\" twice", where, rules[i].name);
		if (!is_kind(value, rules[i].kind))
			return sink_blame(fault, "\"%s\" of %s is not %s", rules[i].name, where,
			             kind_words[rules[i].kind]);
		found[i] = value;
	}
	for (size_t i = 0; i < count; i++)
		if (rules[i].required && found[i].at == NULL)
			return sink_blame(fault, "%s lacks the member \"%s\"", where, rules[i].name);
	return true;
}

bool sink_judge_body(struct sink_fault *fault, const char *body, size_t size)
{
	struct slice top[COUNT(top_rules)], found[RULES_MAX], format;

	if (size == 0)
		return sink_blame(fault, "there is no body");
	switch (json_check(body, size)) {
	case JSON_OBJECT: break;
	case JSON_INVALID: return sink_blame(fault, "the body is not valid JSON in UTF-8");
	default: return sink_blame(fault, "the body is JSON, but not an object");
	}
	struct slice whole = {skip_space(body), size};
	if (!judge_object(fault, "the payload", whole, top_rules, COUNT(top_rules), false, top) ||
	    !judge_object(fault, "\"reconify\"", top[TOP_RECONIFY], reconify_rules,
	                  COUNT(reconify_rules), false, found))
		return false;
	format = found[0];
	if (!judge_object(fault, "\"timestamps\"", top[TOP_TIMESTAMPS], timestamps_rules,
	                  COUNT(timestamps_rules), false, found))
		return false;
	if (top[TOP_USER].at != NULL) {
		if (!judge_object(fault, "\"user\"", top[TOP_USER], user_rules, COUNT(user_rules),
		                  false, found))
			return false;
		if (found[0].at == NULL && found[1].at == NULL)
			return sink_blame(fault, "\"user\" has neither userId nor email");
	}
	if (!key_is(format, "bedrock"))
		return true;
	for (size_t i = TOP_REQUEST; i <= TOP_RESPONSE; i++)
		if (!is_kind(top[i], KIND_OBJECT))
			return sink_blame(fault, "\"%s\" is not an object", top_rules[i].name);
	return judge_object(fault, "\"request\"", top[TOP_REQUEST], bedrock_request_rules,
	                    COUNT(bedrock_request_rules), true, found) &&
		judge_object(fault, "\"response\"", top[TOP_RESPONSE], bedrock_response_rules,
		             COUNT(bedrock_response_rules), false, found);
}
