/* A record becomes exactly the documented payload, or is faulted by name. Every
 * payload is written into a heap block of exactly the measured size, so that a
 * sanitizer sees a byte too many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <cjson/cJSON.h>

#include "agent/json.h"
#include "agent/payload.h"

/* A literal with its size, so that it may hold a NUL. */
#define L(literal) { literal, sizeof(literal) - 1 }
#define T(literal) ((struct text) L(literal))
#define N(digits) ((struct number){ NUMBER_SET, digits })
#define WRONG ((struct number){ NUMBER_WRONG, 0 })
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

#define HEAD \
	"{\"reconify\":{\"format\":\"bedrock\",\"type\":\"chat\",\"version\":\"1.0.0\"," \
	"\"appKey\":\"app\",\"apiKey\":\"api\"},\"timestamps\":{\"request\":1696450259007}"
#define REQUEST ",\"request\":{\"modelId\":\"anthropic.claude-v2\",\"body\":\"{}\"}"
#define RESPONSE ",\"response\":{\"body\":{\"completion\":\" Hi\"}}}"

static struct payload_frame frame(void)
{
	return (struct payload_frame){ T("app"), T("api"), NULL };
}

/* The least that can be sent. */
static struct record minimal(void)
{
	return (struct record){
		.id = 1,
		.model_id = T("anthropic.claude-v2"),
		.request_body = T("{}"),
		.response_body = T("{\"completion\":\" Hi\"}"),
		.request_at = N(1696450259007),
		.uuid = T("0123456789abcdef0123456789abcdef"),
		.spooled_at = N(1696450259008),
	};
}

static struct text post_in(const struct record *record, const struct payload_frame *with)
{
	const struct payload_fault *fault = payload_judge(record);
	size_t size;
	char *out;

	if (fault)
		fail_msg("%s: %s", fault->code, fault->sentence);
	size = payload_write(record, with, NULL, 0);
	out = malloc(size);
	assert_non_null(out);
	assert_int_equal(payload_write(record, with, out, size), size);
	return (struct text){ out, size };
}

static void assert_payload(const struct record *record, const char *expected)
{
	struct payload_frame with = frame();
	struct text payload = post_in(record, &with);

	if (payload.size != strlen(expected) || memcmp(payload.bytes, expected, payload.size) != 0)
		fail_msg("expected %s\ngot      %.*s", expected, (int)payload.size, payload.bytes);
	assert_int_equal(json_check(payload.bytes, payload.size), JSON_OBJECT);
	free((char *)payload.bytes);
}

static void what_does_not_fit_is_measured_and_not_written_past_the_room(void **state)
{
	struct record record = minimal();
	struct payload_frame with = frame();
	struct text whole = post_in(&record, &with);

	(void)state;
	for (size_t room = 0; room <= whole.size; room++) {
		/* Without a byte to spare, so that the sanitizers see what is too far. */
		char *out = malloc(room + (room == 0));

		assert_non_null(out);
		assert_int_equal(payload_write(&record, &with, out, room), whole.size);
		if (room == whole.size)
			assert_memory_equal(out, whole.bytes, room);
		free(out);
	}
	free((char *)whole.bytes);
}

static void assert_fault(const struct record *record, const char *code, const char *names)
{
	const struct payload_fault *fault = payload_judge(record);

	if (!fault)
		fail_msg("expected %s about %s, but it passed", code, names);
	assert_string_equal(fault->code, code);
	if (!strstr(fault->sentence, names))
		fail_msg("expected a sentence that names %s, got: %s", names, fault->sentence);
}

/* --- The shape ---------------------------------------------------------- */

static void what_is_not_set_is_absent(void **state)
{
	struct record record = minimal();

	(void)state;
	assert_payload(&record, HEAD REQUEST RESPONSE);
}

static void a_full_record_has_every_member_in_the_documented_order(void **state)
{
	struct record record = {
		.id = 9,
		.model_id = T("anthropic.claude-instant-v1"),
		.request_body = T("{\"prompt\":\"\\n\\nHuman: hi\"}\n"),
		.response_body = T("{\"completion\": 1.0}"),
		.request_id = T("54425f31-cc8a-4ee0-a9b7-7a5c2ae3d0ac"),
		.request_at = N(1696450259007),
		.response_at = N(1696450283264),
		.session = T("ABCDEF123456"),
		.session_timeout = N(10),
		.user_id = T("ABC123"),
		.is_authenticated = N(1),
		.first_name = T("Jane"),
		.last_name = T("Doe"),
		.email = T("jane@example.com"),
		.phone = T("555-1234"),
		.gender = T("female"),
		.content_type = T("application/json"),
		.accept = T("*/*"),
		.request_extra = T("{\"trace\":\"ENABLED\", \"guardrailVersion\":1.50}"),
		.app = T("other"),
		.format = T("bedrock"),
		.type = T("text"),
		.key = T("row-1"),
		.uuid = T("0123456789abcdef0123456789abcdef"),
		.spooled_at = N(1696450259008),
	};

	(void)state;
	assert_payload(
		&record,
		"{\"reconify\":{\"format\":\"bedrock\",\"type\":\"text\",\"version\":\"1.0.0\","
		"\"appKey\":\"app\",\"apiKey\":\"api\"},"
		"\"timestamps\":{\"request\":1696450259007,\"response\":1696450283264},"
		"\"session\":\"ABCDEF123456\",\"sessionTimeout\":10,"
		"\"user\":{\"userId\":\"ABC123\",\"isAuthenticated\":1,\"firstName\":\"Jane\","
		"\"lastName\":\"Doe\",\"email\":\"jane@example.com\",\"phone\":\"555-1234\","
		"\"gender\":\"female\"},"
		"\"request\":{\"modelId\":\"anthropic.claude-instant-v1\","
		"\"contentType\":\"application/json\",\"accept\":\"*/*\","
		"\"body\":\"{\\\"prompt\\\":\\\"\\\\n\\\\nHuman: hi\\\"}\\n\","
		"\"trace\":\"ENABLED\", \"guardrailVersion\":1.50},"
		"\"response\":{\"requestId\":\"54425f31-cc8a-4ee0-a9b7-7a5c2ae3d0ac\","
		"\"body\":{\"completion\": 1.0}}}");
}

static void an_empty_string_and_a_zero_are_values(void **state)
{
	struct record record = minimal();

	(void)state;
	record.request_body = T("");
	record.request_id = T("");
	record.request_at = N(0);
	record.response_at = N(0);
	record.session = T("");
	record.session_timeout = N(0);
	record.user_id = T("");
	record.is_authenticated = N(0);
	record.gender = T("");
	record.accept = T("");
	record.type = T("");
	assert_payload(&record,
	               "{\"reconify\":{\"format\":\"bedrock\",\"type\":\"\",\"version\":\"1.0.0\","
	               "\"appKey\":\"app\",\"apiKey\":\"api\"},"
	               "\"timestamps\":{\"request\":0,\"response\":0},"
	               "\"session\":\"\",\"sessionTimeout\":0,"
	               "\"user\":{\"userId\":\"\",\"isAuthenticated\":0,\"gender\":\"\"},"
	               "\"request\":{\"modelId\":\"anthropic.claude-v2\",\"accept\":\"\",\"body\":\"\"},"
	               "\"response\":{\"requestId\":\"\",\"body\":{\"completion\":\" Hi\"}}}");
}

static void an_email_alone_makes_a_user(void **state)
{
	struct record record = minimal();

	(void)state;
	record.email = T("a@b.c");
	assert_payload(&record, HEAD ",\"user\":{\"email\":\"a@b.c\"}" REQUEST RESPONSE);
}

static void numbers_are_written_to_the_last_digit(void **state)
{
	struct record record = minimal();

	(void)state;
	record.request_at = N(INT64_MAX);
	record.response_at = N(9007199254740993);
	assert_payload(&record,
	               "{\"reconify\":{\"format\":\"bedrock\",\"type\":\"chat\","
	               "\"version\":\"1.0.0\",\"appKey\":\"app\",\"apiKey\":\"api\"},"
	               "\"timestamps\":{\"request\":9223372036854775807,"
	               "\"response\":9007199254740993}" REQUEST RESPONSE);
}

static void text_stays_text_also_when_it_looks_like_a_number(void **state)
{
	struct record record = minimal();

	(void)state;
	record.session = T("000123");
	assert_payload(&record, HEAD ",\"session\":\"000123\"" REQUEST RESPONSE);
}

static void the_response_body_is_embedded_byte_for_byte(void **state)
{
	static const struct text bodies[] = {
		L("null"),
		L("[]"),
		L("\"\""),
		L(" { } "),
		L("\r\n{\"a\":1}\r\n"),
		L("{\"a\":1,\"a\":1}"),
		L("1e400"),
		L("-0"),
		L("1E+2"),
		L("12345678901234567890.000"),
		L("\"\\ud800\\/\\u0041\\u0000\""),
		L("{\"z\":1,\"a\":2.50}"),
		L("\"\xe2\x80\xa8\xef\xbb\xbf\x7f\""),
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bodies); i++) {
		struct record record = minimal();
		char expected[1024];

		record.response_body = bodies[i];
		snprintf(expected, sizeof expected, HEAD REQUEST ",\"response\":{\"body\":%.*s}}",
		         (int)bodies[i].size, bodies[i].bytes);
		assert_payload(&record, expected);
	}
}

static void strings_are_escaped_as_little_as_json_allows(void **state)
{
	struct record record = minimal();

	(void)state;
	record.request_body = T("\"\\/\b\f\n\r\t\x01\x1f\x7f<'&> \xc3\xa9\xe2\x80\xa8\xf0\x9f\x98\x80");
	assert_payload(&record, HEAD
	               ",\"request\":{\"modelId\":\"anthropic.claude-v2\",\"body\":"
	               "\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f<'&> "
	               "\xc3\xa9\xe2\x80\xa8\xf0\x9f\x98\x80\"}" RESPONSE);
}

static void a_nul_is_written_as_an_escape_in_every_string(void **state)
{
	struct record record = minimal();

	(void)state;
	record.request_body = T("a\0b\0");
	record.session = T("\0");
	assert_payload(&record, HEAD
	               ",\"session\":\"\\u0000\",\"request\":{\"modelId\":\"anthropic.claude-v2\","
	               "\"body\":\"a\\u0000b\\u0000\"}" RESPONSE);
}

static void keys_and_columns_cannot_break_out_of_their_strings(void **state)
{
	struct record record = minimal();
	struct payload_frame with = { T("a\"},\"x\":{\""), T("\\"), "1\"2" };
	struct text payload;

	(void)state;
	record.session = T("\",\"user\":{\"userId\":\"x\"},\"y\":\"");
	record.model_id = T("m\"}");
	payload = post_in(&record, &with);
	assert_int_equal(json_check(payload.bytes, payload.size), JSON_OBJECT);
	cJSON *json = cJSON_ParseWithLength(payload.bytes, payload.size);

	assert_non_null(json);
	assert_int_equal(cJSON_GetArraySize(json), 5);
	assert_string_equal(cJSON_GetObjectItem(json, "session")->valuestring,
	                    record.session.bytes);
	assert_string_equal(
		cJSON_GetObjectItem(cJSON_GetObjectItem(json, "reconify"), "appKey")->valuestring,
		with.app_key.bytes);
	cJSON_Delete(json);
	free((char *)payload.bytes);
}

/* --- request_extra ------------------------------------------------------ */

static void members_of_request_extra_join_the_request_with_their_white_space(void **state)
{
	struct record record = minimal();

	(void)state;
	record.request_extra = T("\n{ \"trace\" : \"ENABLED\",\r\n\t\"n\":1E+2 }\n");
	assert_payload(&record, HEAD
	               ",\"request\":{\"modelId\":\"anthropic.claude-v2\",\"body\":\"{}\","
	               " \"trace\" : \"ENABLED\",\r\n\t\"n\":1E+2 }" RESPONSE);
}

static void an_empty_request_extra_adds_nothing(void **state)
{
	static const struct text empty[] = { L("{}"), L(" { \n } ") };

	(void)state;
	for (size_t i = 0; i < COUNT(empty); i++) {
		struct record record = minimal();

		record.request_extra = empty[i];
		assert_payload(&record, HEAD REQUEST RESPONSE);
	}
}

static void request_extra_must_be_an_object(void **state)
{
	static const struct text bad[] = {
		L(""), L("null"), L("[]"), L("\"a\""), L("1"), L("{"),
		L("{\"a\":1},\"b\":{}"), L("{\"a\":1,}"), L("{}\0"), L("\"a\":1"),
		L("{\"a\":1}}"), L("[{\"a\":1}]"),
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct record record = minimal();

		record.request_extra = bad[i];
		assert_fault(&record, "bad-extra", "request_extra");
	}
}

static void request_extra_must_not_name_a_member_of_ours(void **state)
{
	static const char *const bad[] = {
		"{\"modelId\":1}", "{\"contentType\":1}", "{\"accept\":1}", "{\"body\":{}}",
		"{\"trace\":1,\"body\":2}", "{\"a\":[1,{\"b\":2}],\"accept\":1}",
		"{\"mod\\u0065lId\":1}", "{\"\\u0062\\u006f\\u0064\\u0079\":1}",
		"{\"b\\u006Fdy\":1}", "{\"b\\u006fdy\":1}", " { \"a\" : \"}\" , \"body\" : 1 }",
		"{\"a\":\"\\\\\",\"body\":\"\\\"\"}", "{\"a\":\",\",\"accept\" \n:1}",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct record record = minimal();

		record.request_extra = (struct text){ bad[i], strlen(bad[i]) };
		assert_fault(&record, "bad-extra", "request_extra");
	}
}

static void request_extra_may_hold_any_other_name_and_ours_further_inside(void **state)
{
	static const char *const good[] = {
		"{\"trace\":\"body\"}", "{\"trace\":{\"body\":1,\"modelId\":2}}", "{\"Body\":1}",
		"{\"bodyx\":1}", "{\"bod\":1}", "{\"\":1}", "{\"model\\u0130d\":1}", "{\"\\nbody\":1}",
		"{\"a\":[\"body\",\"accept\",{\"body\":[]}]}", "{\"a\":\"{\\\"body\\\":1}\"}",
		"{\"body\\u0000\":1}", "{\"a\":1,\"a\":1}", "{\"\\u0162ody\":1}", "{\"a\":\"\\\\\"}",
		"{\"a\":\"x\\\",\\\"body\"}", "{\"a\":[[],[{}]],\"b\":\"body\"}", "{\"a\":{},\"b\":\"accept\"}",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(good); i++) {
		struct record record = minimal();
		char expected[1024];

		record.request_extra = (struct text){ good[i], strlen(good[i]) };
		snprintf(expected, sizeof expected,
		         HEAD ",\"request\":{\"modelId\":\"anthropic.claude-v2\",\"body\":\"{}\","
		              "%.*s}" RESPONSE,
		         (int)strlen(good[i]) - 2, good[i] + 1);
		assert_payload(&record, expected);
	}
}

/* --- Formats ------------------------------------------------------------ */

static void the_built_in_versions_are_the_vendors(void **state)
{
	(void)state;
	assert_string_equal(payload_version((struct text){ NULL, 0 }), "1.0.0");
	assert_string_equal(payload_version(T("bedrock")), "1.0.0");
	assert_string_equal(payload_version(T("openai")), "1.0.0");
	assert_string_equal(payload_version(T("anthropic")), "3.0.0");
	assert_string_equal(payload_version(T("cohere")), "2.1.0");
	assert_string_equal(payload_version(T("gemini")), "2.2.0");
	assert_string_equal(payload_version(T("mistral")), "2.4.0");
	assert_string_equal(payload_version(T("perplexity")), "2.4.0");
	assert_string_equal(payload_version(T("universal")), "3.0.0");
	assert_string_equal(payload_version(T("whatever")), "3.0.0");
	assert_string_equal(payload_version(T("")), "3.0.0");
	assert_string_equal(payload_version(T("bedrockx")), "3.0.0");
	assert_string_equal(payload_version(T("Bedrock")), "3.0.0");
	assert_string_equal(payload_version((struct text){ "openai-v2", 6 }), "1.0.0");
}

static void a_version_given_by_the_configuration_wins(void **state)
{
	struct record record = minimal();
	struct payload_frame with = frame();
	struct text payload;

	(void)state;
	with.version = "9.8.7";
	payload = post_in(&record, &with);
	assert_non_null(memmem(payload.bytes, payload.size, "\"version\":\"9.8.7\"", 17));
	free((char *)payload.bytes);
}

static struct record other_format(void)
{
	struct record record = minimal();

	record.model_id = (struct text){ NULL, 0 };
	record.format = T("mistral");
	record.request_body = T(" {\"model\":\"m\", \"n\":1.0}\n");
	record.response_body = T("{\"id\":1,\"id\":2}");
	return record;
}

static void bodies_of_other_formats_become_request_and_response_as_they_stand(void **state)
{
	struct record record = other_format();

	(void)state;
	record.session = T("s");
	assert_payload(&record,
	               "{\"reconify\":{\"format\":\"mistral\",\"type\":\"chat\","
	               "\"version\":\"2.4.0\",\"appKey\":\"app\",\"apiKey\":\"api\"},"
	               "\"timestamps\":{\"request\":1696450259007},\"session\":\"s\","
	               "\"request\": {\"model\":\"m\", \"n\":1.0}\n,"
	               "\"response\":{\"id\":1,\"id\":2}}");
}

static void other_formats_need_json_bodies(void **state)
{
	static const struct text bad[] = {
		L(""), L("hello"), L("{}{}"), L("{},\"x\":1"), L("{\"a\":1}\0"),
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct record record = other_format();

		record.request_body = bad[i];
		assert_fault(&record, "bad-json", "request_body");
		record = other_format();
		record.response_body = bad[i];
		assert_fault(&record, "bad-json", "response_body");
	}
}

static void other_formats_have_no_bedrock_columns(void **state)
{
	struct record record = other_format();

	(void)state;
	record.model_id = T("");
	assert_fault(&record, "bad-column", "model_id");
	record = other_format();
	record.request_id = T("r");
	assert_fault(&record, "bad-column", "request_id");
	record = other_format();
	record.content_type = T("c");
	assert_fault(&record, "bad-column", "content_type");
	record = other_format();
	record.accept = T("a");
	assert_fault(&record, "bad-column", "accept");
	record = other_format();
	record.request_extra = T("{}");
	assert_fault(&record, "bad-column", "request_extra");
}

/* --- Faults ------------------------------------------------------------- */

static void required_columns_must_be_set(void **state)
{
	static const struct text unset = { NULL, 0 };
	struct record record = minimal();

	(void)state;
	record.model_id = unset;
	assert_fault(&record, "missing", "model_id");
	record = minimal();
	record.request_body = unset;
	assert_fault(&record, "missing", "request_body");
	record = minimal();
	record.response_body = unset;
	assert_fault(&record, "missing", "response_body");
	record = minimal();
	record.request_at.state = NUMBER_ABSENT;
	assert_fault(&record, "missing", "request_at");
	record = other_format();
	record.request_body = unset;
	assert_fault(&record, "missing", "request_body");
	record = other_format();
	record.response_body = unset;
	assert_fault(&record, "missing", "response_body");
}

/* Every text column but uuid, by name. */
#define COLUMN(name) { #name, offsetof(struct record, name) }
static const struct {
	const char *name;
	size_t offset;
} text_columns[] = {
	COLUMN(model_id), COLUMN(request_body), COLUMN(response_body), COLUMN(request_id),
	COLUMN(session), COLUMN(user_id), COLUMN(first_name), COLUMN(last_name), COLUMN(email),
	COLUMN(phone), COLUMN(gender), COLUMN(content_type), COLUMN(accept),
	COLUMN(request_extra), COLUMN(app), COLUMN(format), COLUMN(type), COLUMN(key),
};

static void invalid_utf8_in_any_text_column_is_faulted_by_its_name(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(text_columns); i++) {
		struct record record = minimal();

		*(struct text *)((char *)&record + text_columns[i].offset) = T("caf\xe9");
		assert_fault(&record, "bad-utf8", text_columns[i].name);
	}
	struct record record = other_format();

	record.request_body = T("\"\xed\xa0\x80\"");
	assert_fault(&record, "bad-utf8", "request_body");
}

static void a_record_weighs_its_text_columns_and_a_fixed_sum(void **state)
{
	struct record record = minimal();
	int64_t before;

	(void)state;
	memset(&record, 0, sizeof record);
	assert_int_equal(record_bytes(&record), 128);
	for (size_t i = 0; i < COUNT(text_columns); i++) {
		before = record_bytes(&record);
		*(struct text *)((char *)&record + text_columns[i].offset) =
			(struct text){ "0123456789abcdefghi", i + 1 };
		assert_int_equal(record_bytes(&record) - before, i + 1);
	}
	before = record_bytes(&record);
	record.uuid = T("0123456789abcdef0123456789abcdef");
	record.request_at = N(1);
	assert_int_equal(record_bytes(&record), before);
	/* What is NULL weighs nothing, whatever its size says. */
	record.key = (struct text){ NULL, 99 };
	assert_int_equal(record_bytes(&record), before - (int64_t)COUNT(text_columns));
}

static void a_response_body_that_is_not_json_is_faulted(void **state)
{
	static const struct text bad[] = {
		L(""), L(" "), L("{"), L("{}},\"reconify\":{"), L("{\"a\":01}"),
		L("{}\0"), L("\"\0\""), L("\xef\xbb\xbf{}"), L("NaN"), L("\"\n\""),
		L("1,\"x\":2"), L("null}}{\"a\":{\"b\":1"),
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct record record = minimal();

		record.response_body = bad[i];
		assert_fault(&record, "bad-json", "response_body");
	}
}

static void bodies_pass_at_the_deepest_nesting_and_are_faulted_beyond(void **state)
{
	char text[2 * (JSON_DEPTH_MAX + 1)];
	struct record record = minimal();

	(void)state;
	for (size_t depth = JSON_DEPTH_MAX; depth <= JSON_DEPTH_MAX + 1; depth++) {
		memset(text, '[', depth);
		memset(text + depth, ']', depth);
		record.response_body = (struct text){ text, 2 * depth };
		if (depth == JSON_DEPTH_MAX)
			assert_null(payload_judge(&record));
		else
			assert_fault(&record, "bad-json", "response_body");
	}
}

static void a_request_body_of_bedrock_is_any_text(void **state)
{
	struct record record = minimal();

	(void)state;
	record.request_body = T("{\"prompt\": not json");
	assert_payload(&record, HEAD
	               ",\"request\":{\"modelId\":\"anthropic.claude-v2\","
	               "\"body\":\"{\\\"prompt\\\": not json\"}" RESPONSE);
}

static void numbers_must_be_whole_and_not_negative(void **state)
{
	static const struct {
		const char *name;
		size_t offset;
	} columns[] = {
		COLUMN(request_at), COLUMN(response_at), COLUMN(session_timeout),
		COLUMN(is_authenticated), COLUMN(spooled_at),
	};
	const struct number bad[] = { WRONG, N(-1), N(INT64_MIN) };

	(void)state;
	for (size_t i = 0; i < COUNT(columns); i++) {
		for (size_t j = 0; j < COUNT(bad); j++) {
			struct record record = minimal();

			record.user_id = T("u");
			*(struct number *)((char *)&record + columns[i].offset) = bad[j];
			assert_fault(&record, "bad-number", columns[i].name);
		}
	}
}

static void is_authenticated_is_nothing_but_0_or_1(void **state)
{
	struct record record = minimal();

	(void)state;
	record.user_id = T("u");
	for (int64_t value = 0; value <= 1; value++) {
		record.is_authenticated = N(value);
		assert_null(payload_judge(&record));
	}
	record.is_authenticated = N(2);
	assert_fault(&record, "bad-number", "is_authenticated");
	record.is_authenticated = N(INT64_MAX);
	assert_fault(&record, "bad-number", "is_authenticated");
}

static void seconds_for_milliseconds_are_not_judged_without_a_clock(void **state)
{
	struct record record = minimal();

	(void)state;
	record.request_at = N(1696450259);
	assert_null(payload_judge(&record));
}

static void a_user_needs_an_id_or_an_email(void **state)
{
	static const size_t offsets[] = {
		offsetof(struct record, first_name), offsetof(struct record, last_name),
		offsetof(struct record, phone), offsetof(struct record, gender),
	};
	struct record record = minimal();

	(void)state;
	for (size_t i = 0; i < COUNT(offsets); i++) {
		record = minimal();
		*(struct text *)((char *)&record + offsets[i]) = T("");
		assert_fault(&record, "bad-user", "user_id");
	}
	record = minimal();
	record.is_authenticated = N(0);
	assert_fault(&record, "bad-user", "email");
}

static void a_uuid_is_32_lower_case_hex_digits(void **state)
{
	static const struct text bad[] = {
		{ NULL, 0 },
		L(""),
		L("0123456789abcdef0123456789abcde"),
		L("0123456789abcdef0123456789abcdef0"),
		L("0123456789ABCDEF0123456789abcdef"),
		L("0123456789abcdeg0123456789abcdef"),
		L("01234567-89ab-cdef-0123-456789ab"),
		L("0123456789abcdef\0" "123456789abcdef"),
		L("0123456789abcdef012345678\"\r\ncdef"),
	};

	(void)state;
	for (size_t i = 0; i < COUNT(bad); i++) {
		struct record record = minimal();

		record.uuid = bad[i];
		assert_fault(&record, "bad-uuid", "uuid");
	}
}

static void image_models_are_not_sent_yet(void **state)
{
	static const char *const images[] = {
		"stability.stable-diffusion-xl-v1", "stability.", "amazon.titan-image-generator-v1",
		"amazon.titan-image-generator-v2:0", "us.stability.sd3-5-large-v1:0",
		"eu.amazon.titan-image-generator-v1", "apac.stability.x", "us-gov.stability.x",
		"global.amazon.titan-image-generator-v2:0", "jp.stability.x",
		"arn:aws:bedrock:us-east-1::foundation-model/stability.stable-diffusion-xl-v1",
		"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.stability.sd3-large-v1:0",
		"arn:aws-us-gov:bedrock:us-gov-west-1::foundation-model/amazon.titan-image-generator-v1",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(images); i++) {
		struct record record = minimal();

		record.model_id = (struct text){ images[i], strlen(images[i]) };
		assert_fault(&record, "image-model", "image models are not sent yet");
	}
}

static void every_other_model_is_sent(void **state)
{
	static const char *const models[] = {
		"", "x", "amazon.titan-text-express-v1", "amazon.titan-tg1-large", "ai21.j2-ultra-v1",
		"anthropic.claude-3-5-sonnet-20241022-v2:0", "us.anthropic.claude-sonnet-4-20250514-v1:0",
		"cohere.command-text-v14", "meta.llama2-70b-chat-v1", "mistral.mistral-7b-instruct-v0:2",
		"amazon.titan-imag", "my.own.stability.x", "stabilityx", "stability", "US.stability.x",
		"arn:aws:bedrock:us-east-1::foundation-model/anthropic.claude-v2",
		"arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a1b2c3d4e5f6",
		"arn:aws:sagemaker:us-east-1:123456789012:endpoint/stable", "arn:", "arn:/",
		"arn:aws:bedrock:us-east-1:123456789012:custom-model/stability.x/abcdefghijkl",
		"models/stability.x", "aaaaaaaaaaaaaaaaaaaaaaaa.stability.x",
	};

	(void)state;
	for (size_t i = 0; i < COUNT(models); i++) {
		struct record record = minimal();

		record.model_id = (struct text){ models[i], strlen(models[i]) };
		if (payload_judge(&record))
			fail_msg("%s was faulted", models[i]);
	}
}

static void the_first_of_several_faults_is_named_in_a_fixed_order(void **state)
{
	struct record record = {
		.request_body = T("\xff"),
		.model_id = T("stability.x"),
		.request_extra = T("[]"),
		.session_timeout = WRONG,
		.first_name = T("x"),
		.session = T("\xff"),
	};

	(void)state;
	assert_fault(&record, "missing", "response_body");
	record.response_body = T("{");
	assert_fault(&record, "bad-utf8", "session");
	record.session.bytes = NULL;
	assert_fault(&record, "bad-utf8", "request_body");
	record.request_body = T("");
	assert_fault(&record, "bad-json", "response_body");
	record.response_body = T("{}");
	assert_fault(&record, "bad-extra", "request_extra");
	record.request_extra = T("{\"body\":1}");
	assert_fault(&record, "bad-extra", "request_extra");
	record.request_extra = T("{}");
	assert_fault(&record, "bad-number", "session_timeout");
	record.session_timeout = N(0);
	assert_fault(&record, "missing", "request_at");
	record.request_at = N(0);
	assert_fault(&record, "bad-user", "user_id");
	record.user_id = T("u");
	assert_fault(&record, "bad-uuid", "uuid");
	record.uuid = T("00000000000000000000000000000000");
	assert_fault(&record, "image-model", "model_id");
	record.model_id = T("m");

	assert_null(payload_judge(&record));
}

/* --- At random ---------------------------------------------------------- */

/* xorshift64: the same sequence everywhere. */
static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* Up to 79 bytes of valid UTF-8 without NUL (which a C string of cJSON's could
 * not hold), terminated, rich in what has to be escaped; NULL one time in four. */
static struct text random_text(uint64_t *seed, char *buffer)
{
	static const char *const pieces[] = {
		"\"", "\\", "/", "\b", "\f", "\n", "\r", "\t", "\x01", "\x1b", "\x1f", " ", "\x7f", "a",
		"{", "}", ",", ":", "u0000", "\xc2\x80", "\xc3\xa9", "\xe2\x80\xa8", "\xef\xbb\xbf",
		"\xed\x9f\xbf", "\xef\xbf\xbf", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "0123456789",
		"abcdefgh", "\xd7\xa9\xd6\xb8", "\xf0\x9d\x94\x98",
	};
	size_t size = 0, limit = next_random(seed) % 70;

	if (next_random(seed) % 4 == 0)
		return (struct text){ NULL, 0 };
	while (size < limit) {
		const char *piece = pieces[next_random(seed) % COUNT(pieces)];

		memcpy(buffer + size, piece, strlen(piece));
		size += strlen(piece);
	}
	buffer[size] = '\0';
	return (struct text){ buffer, size };
}

static void assert_member(const cJSON *object, const char *name, struct text expected)
{
	const cJSON *member = cJSON_GetObjectItemCaseSensitive(object, name);

	if (!expected.bytes) {
		assert_null(member);
		return;
	}
	assert_non_null(member);
	assert_true(cJSON_IsString(member));
	assert_string_equal(member->valuestring, expected.bytes);
}

static void strings_at_random_come_back_from_another_parser_unchanged(void **state)
{
	uint64_t seed = 20260102;

	(void)state;
	for (int round = 0; round < 20000; round++) {
		char buffers[14][80];
		struct record record = minimal();
		struct payload_frame with = frame();
		size_t used = 0;
		struct text *const columns[] = {
			&record.model_id, &record.request_body, &record.request_id, &record.session,
			&record.user_id, &record.first_name, &record.last_name, &record.email,
			&record.phone, &record.gender, &record.content_type, &record.accept,
			&with.app_key, &with.api_key,
		};

		for (size_t i = 0; i < COUNT(columns); i++)
			*columns[i] = random_text(&seed, buffers[used++]);
		if (!record.model_id.bytes)
			record.model_id = T("");
		if (!record.request_body.bytes)
			record.request_body = T("");
		if (!record.user_id.bytes && !record.email.bytes)
			record.email = T("e");

		struct text payload = post_in(&record, &with);
		cJSON *json = cJSON_ParseWithLength(payload.bytes, payload.size);
		const cJSON *reconify = cJSON_GetObjectItem(json, "reconify");
		const cJSON *user = cJSON_GetObjectItem(json, "user");
		const cJSON *request = cJSON_GetObjectItem(json, "request");
		const cJSON *response = cJSON_GetObjectItem(json, "response");

		assert_int_equal(json_check(payload.bytes, payload.size), JSON_OBJECT);
		assert_non_null(json);
		assert_member(reconify, "appKey", with.app_key);
		assert_member(reconify, "apiKey", with.api_key);
		assert_member(json, "session", record.session);
		assert_member(user, "userId", record.user_id);
		assert_member(user, "firstName", record.first_name);
		assert_member(user, "lastName", record.last_name);
		assert_member(user, "email", record.email);
		assert_member(user, "phone", record.phone);
		assert_member(user, "gender", record.gender);
		assert_member(request, "modelId", record.model_id);
		assert_member(request, "contentType", record.content_type);
		assert_member(request, "accept", record.accept);
		assert_member(request, "body", record.request_body);
		assert_member(response, "requestId", record.request_id);
		cJSON_Delete(json);
		free((char *)payload.bytes);
	}
}

static void an_escape_is_found_at_every_offset_beside_every_neighbour(void **state)
{
	static const char special[] = "\"\\\n\x01\x1f\0";
	static const char *const fills[] = { "x", "\xc3\xa9", "\x7f", " ", "!", "#", "[", "]" };

	(void)state;
	for (size_t i = 0; i + 1 < sizeof special; i++) {
		for (size_t j = 0; j < COUNT(fills); j++) {
			for (size_t before = 0; before < 18; before++) {
				struct record record = minimal();
				struct payload_frame with = frame();
				char text[64], expected[128];
				size_t size = 0, escaped = 0, unit = strlen(fills[j]);
				struct text payload;

				for (size_t k = 0; k < 20; k++) {
					if (k == before) {
						char code[8];
						int wide;

						text[size++] = special[i];
						switch (special[i]) {
						case '"':
							wide = snprintf(code, sizeof code, "\\\"");
							break;
						case '\\':
							wide = snprintf(code, sizeof code, "\\\\");
							break;
						case '\n':
							wide = snprintf(code, sizeof code, "\\n");
							break;
						default:
							wide = snprintf(code, sizeof code, "\\u%04x",
							                (unsigned)special[i]);
						}
						memcpy(expected + escaped, code, (size_t)wide);
						escaped += (size_t)wide;
					}
					memcpy(text + size, fills[j], unit);
					memcpy(expected + escaped, fills[j], unit);
					size += unit;
					escaped += unit;
				}
				record.request_body = (struct text){ text, size };
				payload = post_in(&record, &with);
				assert_non_null(memmem(payload.bytes, payload.size, expected, escaped));
				assert_int_equal(json_check(payload.bytes, payload.size), JSON_OBJECT);
				free((char *)payload.bytes);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_set_is_absent),
		cmocka_unit_test(what_does_not_fit_is_measured_and_not_written_past_the_room),
		cmocka_unit_test(a_full_record_has_every_member_in_the_documented_order),
		cmocka_unit_test(an_empty_string_and_a_zero_are_values),
		cmocka_unit_test(an_email_alone_makes_a_user),
		cmocka_unit_test(numbers_are_written_to_the_last_digit),
		cmocka_unit_test(text_stays_text_also_when_it_looks_like_a_number),
		cmocka_unit_test(the_response_body_is_embedded_byte_for_byte),
		cmocka_unit_test(strings_are_escaped_as_little_as_json_allows),
		cmocka_unit_test(a_nul_is_written_as_an_escape_in_every_string),
		cmocka_unit_test(keys_and_columns_cannot_break_out_of_their_strings),
		cmocka_unit_test(members_of_request_extra_join_the_request_with_their_white_space),
		cmocka_unit_test(an_empty_request_extra_adds_nothing),
		cmocka_unit_test(request_extra_must_be_an_object),
		cmocka_unit_test(request_extra_must_not_name_a_member_of_ours),
		cmocka_unit_test(request_extra_may_hold_any_other_name_and_ours_further_inside),
		cmocka_unit_test(the_built_in_versions_are_the_vendors),
		cmocka_unit_test(a_version_given_by_the_configuration_wins),
		cmocka_unit_test(bodies_of_other_formats_become_request_and_response_as_they_stand),
		cmocka_unit_test(other_formats_need_json_bodies),
		cmocka_unit_test(other_formats_have_no_bedrock_columns),
		cmocka_unit_test(required_columns_must_be_set),
		cmocka_unit_test(invalid_utf8_in_any_text_column_is_faulted_by_its_name),
		cmocka_unit_test(a_record_weighs_its_text_columns_and_a_fixed_sum),
		cmocka_unit_test(a_response_body_that_is_not_json_is_faulted),
		cmocka_unit_test(bodies_pass_at_the_deepest_nesting_and_are_faulted_beyond),
		cmocka_unit_test(a_request_body_of_bedrock_is_any_text),
		cmocka_unit_test(numbers_must_be_whole_and_not_negative),
		cmocka_unit_test(is_authenticated_is_nothing_but_0_or_1),
		cmocka_unit_test(seconds_for_milliseconds_are_not_judged_without_a_clock),
		cmocka_unit_test(a_user_needs_an_id_or_an_email),
		cmocka_unit_test(a_uuid_is_32_lower_case_hex_digits),
		cmocka_unit_test(image_models_are_not_sent_yet),
		cmocka_unit_test(every_other_model_is_sent),
		cmocka_unit_test(the_first_of_several_faults_is_named_in_a_fixed_order),
		cmocka_unit_test(strings_at_random_come_back_from_another_parser_unchanged),
		cmocka_unit_test(an_escape_is_found_at_every_offset_beside_every_neighbour),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
