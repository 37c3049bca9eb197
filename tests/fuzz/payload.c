/* A record -> the JSON that is posted. An input is a list of fields, each behind a
 * 0x1E but the first: a letter that names a column, and its value, in which 0x1F
 * stands for 0x1E. A small letter sets, a capital one makes it NULL. What is not named
 * is as in a good record of one word each. */
#include <ctype.h>
#include <string.h>

#include "agent/json.h"
#include "agent/payload.h"
#include "agent/sink_judge.h"
#include "tests/fuzz/fuzz.h"

#define COLUMN(letter, name) { letter, offsetof(struct record, name) }

static const struct column {
	char letter;
	size_t offset;
} text_columns[] = {
	COLUMN('m', model_id), COLUMN('q', request_body), COLUMN('r', response_body),
	COLUMN('i', request_id), COLUMN('s', session), COLUMN('u', user_id),
	COLUMN('f', first_name), COLUMN('l', last_name), COLUMN('e', email), COLUMN('p', phone),
	COLUMN('g', gender), COLUMN('c', content_type), COLUMN('a', accept),
	COLUMN('x', request_extra), COLUMN('b', app), COLUMN('o', format), COLUMN('t', type),
	COLUMN('k', key), COLUMN('d', uuid),
}, number_columns[] = {
	COLUMN('1', request_at), COLUMN('2', response_at), COLUMN('3', session_timeout),
	COLUMN('4', is_authenticated), COLUMN('5', spooled_at),
};
#define COUNT(array) (sizeof(array) / sizeof *(array))

static struct text words(const char *text)
{
	return (struct text){ text, strlen(text) };
}

static void set_number(struct record *record, char letter, const char *text, size_t size)
{
	char digits[32] = "";
	if (size >= sizeof digits)
		size = sizeof digits - 1;
	memcpy(digits, text, size);
	for (size_t i = 0; i < COUNT(number_columns); i++) {
		struct number *number = (struct number *)((char *)record + number_columns[i].offset);
		if (number_columns[i].letter != letter)
			continue;
		number->state = size == 0 ? NUMBER_ABSENT : digits[0] == '?' ? NUMBER_WRONG : NUMBER_SET;
		number->value = strtoll(digits, NULL, 10);
	}
}

/* Reads the fields within `text`, which the record then borrows. */
static void read_record(char *text, size_t size, struct record *record,
                        struct payload_frame *frame)
{
	*record = (struct record){
		.model_id = words("anthropic.claude-v2"), .request_body = words("{\"prompt\":\"Hi\"}"),
		.response_body = words("{\"completion\":\"Ho\"}"), .request_at = { NUMBER_SET, 1 },
		.uuid = words("0123456789abcdef0123456789abcdef"), .format = words("bedrock"),
		.type = words("chat"),
	};
	*frame = (struct payload_frame){ words("app"), words("secret"), NULL };
	for (char *at = text, *end = text + size, *next; at < end; at = next + 1) {
		next = memchr(at, 0x1e, (size_t)(end - at));
		if (next == NULL)
			next = end;
		if (next == at)
			continue;
		char letter = *at++;
		struct text value = { at, (size_t)(next - at) };
		for (char *byte = at; byte < next; byte++)
			if (*byte == 0x1f)
				*byte = 0x1e;
		if (isupper((unsigned char)letter))
			value = (struct text){ NULL, 0 };
		for (size_t i = 0; i < COUNT(text_columns); i++)
			if (text_columns[i].letter == tolower((unsigned char)letter))
				*(struct text *)((char *)record + text_columns[i].offset) = value;
		set_number(record, letter, at, (size_t)(next - at));
		/* Keys are UTF-8: that is the configuration's duty. */
		if (letter == 'K' || letter == 'y')
			frame->api_key = json_is_utf8(value.bytes, value.size) ? value : words("secret");
	}
}

static bool same(struct slice slice, struct text text)
{
	return slice.size == text.size && memcmp(slice.at, text.bytes, text.size) == 0;
}

/* The member is there as a string of exactly these bytes, or not there where the
 * column is NULL. */
static void expect_string(struct slice object, const char *name, struct text text)
{
	struct slice value;
	size_t size;
	bool found = oracle_find(object, name, &value);
	HOLDS(found == (text.bytes != NULL));
	if (!found)
		return;
	HOLDS(oracle_json(value) == ORACLE_STRING);
	char *decoded = oracle_decode(value, &size);
	HOLDS(same((struct slice){ decoded, size }, text));
	free(decoded);
}

static void expect_number(struct slice object, const char *name, struct number number)
{
	struct slice value;
	bool found = oracle_find(object, name, &value);
	HOLDS(found == (number.state == NUMBER_SET));
	if (!found)
		return;
	char digits[24];
	(void)snprintf(digits, sizeof digits, "%lld", (long long)number.value);
	HOLDS(same(value, words(digits)));
}

/* Each member's name is one of those, and stands there once. */
static void expect_names(struct slice object, const char *const *names, size_t count)
{
	char *name;
	size_t size;
	struct slice value;
	for (size_t n = 0; oracle_member(object, n, &name, &size, &value); n++) {
		bool known = false;
		for (size_t i = 0; i < count; i++)
			known = known || (strcmp(name, names[i]) == 0 && size == strlen(name));
		HOLDS(known && oracle_find(object, name, &value));
		free(name);
	}
}

static void expect_payload(struct slice payload, const struct record *record,
                           const struct payload_frame *frame)
{
	static const char *const top[] = { "reconify", "timestamps", "session", "sessionTimeout",
		                               "user", "request", "response" };
	static const char *const block[] = { "format", "type", "version", "appKey", "apiKey" };
	static const char *const answer[] = { "requestId", "body" };
	struct slice object, value;
	bool bedrock = record->format.bytes == NULL || same((struct slice){ "bedrock", 7 },
	                                                    record->format);
	HOLDS(oracle_json(payload) == ORACLE_OBJECT);
	HOLDS(json_check(payload.at, payload.size) == JSON_OBJECT);
	expect_names(payload, top, COUNT(top));
	expect_string(payload, "session", record->session);
	expect_number(payload, "sessionTimeout", record->session_timeout);
	HOLDS(oracle_find(payload, "reconify", &object));
	expect_names(object, block, COUNT(block));
	expect_string(object, "apiKey", frame->api_key);
	expect_string(object, "appKey", frame->app_key);
	expect_string(object, "format", record->format.bytes != NULL ? record->format
	                                                             : words("bedrock"));
	expect_string(object, "type", record->type.bytes != NULL ? record->type : words("chat"));
	HOLDS(oracle_find(payload, "timestamps", &object));
	expect_number(object, "request", record->request_at);
	expect_number(object, "response", record->response_at);
	if (oracle_find(payload, "user", &object)) {
		expect_string(object, "userId", record->user_id);
		expect_string(object, "email", record->email);
		expect_string(object, "firstName", record->first_name);
		expect_string(object, "lastName", record->last_name);
		expect_string(object, "phone", record->phone);
		expect_string(object, "gender", record->gender);
		expect_number(object, "isAuthenticated", record->is_authenticated);
	} else {
		HOLDS(record->user_id.bytes == NULL && record->email.bytes == NULL);
	}
	HOLDS(oracle_find(payload, "request", &object));
	if (!bedrock) {
		HOLDS(same(object, record->request_body));
		HOLDS(oracle_find(payload, "response", &object) && same(object, record->response_body));
		return;
	}
	expect_string(object, "modelId", record->model_id);
	expect_string(object, "contentType", record->content_type);
	expect_string(object, "accept", record->accept);
	expect_string(object, "body", record->request_body);
	if (record->request_extra.bytes != NULL) {
		struct slice extra = { record->request_extra.bytes, record->request_extra.size };
		char *name;
		size_t size, n;
		for (n = 0; oracle_member(extra, n, &name, &size, &value); n++)
			free(name);
		/* All of its members, and ours, and no other. */
		size_t ours = 2u + (record->content_type.bytes != NULL ? 1u : 0u) +
		              (record->accept.bytes != NULL ? 1u : 0u);
		size_t all = 0;
		for (; oracle_member(object, all, &name, &size, &value); all++)
			free(name);
		HOLDS(all == n + ours);
	}
	HOLDS(oracle_find(payload, "response", &object));
	expect_names(object, answer, COUNT(answer));
	expect_string(object, "requestId", record->request_id);
	HOLDS(oracle_find(object, "body", &value) && same(value, record->response_body));
}

int fuzz_payload(const uint8_t *data, size_t size)
{
	struct record record;
	struct payload_frame frame;
	struct sink_fault blame;
	char *text = fuzz_text(data, size);
	read_record(text, size, &record, &frame);
	const struct payload_fault *fault = payload_judge(&record);
	if (fault == NULL) {
		/* Without a byte to spare, so that writing too far is seen. */
		size_t room = payload_write(&record, &frame, NULL, 0);
		char *payload = malloc(room + 1);
		HOLDS(payload != NULL);
		char *exact = malloc(room);
		HOLDS(exact != NULL && payload_write(&record, &frame, exact, room) == room);
		memcpy(payload, exact, room);
		payload[room] = '\0';
		expect_payload((struct slice){ exact, room }, &record, &frame);
		bool filled = frame.api_key.size > 0 && (record.format.bytes == NULL ||
		                                         record.format.size > 0);
		HOLDS(!filled || sink_judge_body(&blame, payload, room));
		free(exact);
		free(payload);
	} else {
		HOLDS(fault->code != NULL && fault->sentence != NULL);
	}
	free(text);
	return 0;
}
