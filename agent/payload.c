/* The payload is written by hand, member by member, because what it carries
 * must not pass through a parser: a library would change numbers, drop
 * duplicate keys and decode escapes.
 *
 * It must never let a producer's text stand unquoted before json_check() has
 * passed the whole of it, and never quote a record in a fault.
 */
#include "agent/payload.h"

#include <string.h>

#include "agent/json.h"

/* --- Where the bytes go ------------------------------------------------- */

struct sink {
	char *out;
	size_t room;    /* what does not fit is only counted */
	size_t size;    /* bytes put so far */
	bool has_member; /* the innermost open object has one: a comma is due */
};

static void put(struct sink *sink, const char *bytes, size_t size)
{
	if (sink->size + size <= sink->room)
		memcpy(sink->out + sink->size, bytes, size);
	sink->size += size;
}

static void put_literal(struct sink *sink, const char *literal)
{
	put(sink, literal, strlen(literal));
}

static void put_text(struct sink *sink, struct text text)
{
	put(sink, text.bytes, text.size);
}

static void put_number(struct sink *sink, int64_t value)
{
	char digits[20];
	size_t at = sizeof digits;

	/* What is negative did not pass payload_judge(). */
	do {
		digits[--at] = (char)('0' + value % 10);
		value /= 10;
	} while (value > 0);
	put(sink, digits + at, sizeof digits - at);
}

static void put_escape(struct sink *sink, char byte)
{
	static const char hex[] = "0123456789abcdef";
	char unicode[] = "\\u0000";

	switch (byte) {
	case '"':
		put_literal(sink, "\\\"");
		break;
	case '\\':
		put_literal(sink, "\\\\");
		break;
	case '\b':
		put_literal(sink, "\\b");
		break;
	case '\f':
		put_literal(sink, "\\f");
		break;
	case '\n':
		put_literal(sink, "\\n");
		break;
	case '\r':
		put_literal(sink, "\\r");
		break;
	case '\t':
		put_literal(sink, "\\t");
		break;
	default:
		unicode[4] = hex[(byte >> 4) & 0xF];
		unicode[5] = hex[byte & 0xF];
		put(sink, unicode, 6);
	}
}

static bool needs_escape(char byte)
{
	return byte == '"' || byte == '\\' || (unsigned char)byte < 0x20;
}

/* True when one of the 16 bytes at `at` needs an escape; compilers make a handful of
 * instructions of it. */
static bool any_needs_escape(const char *at)
{
	typedef unsigned char bytes __attribute__((vector_size(16)));
	bytes some;
	uint64_t halves[2];

	memcpy(&some, at, sizeof some);
	some = (bytes)((some < 0x20) | (some == '"') | (some == '\\'));
	memcpy(halves, &some, sizeof halves);
	return (halves[0] | halves[1]) != 0;
}

/* As little is escaped as JSON allows: a body is mostly text, and every escape
 * costs a byte on the wire. */
static void put_string(struct sink *sink, struct text text)
{
	const char *at = text.bytes, *end = text.bytes + text.size;

	put_literal(sink, "\"");
	while (at < end) {
		const char *run = at;

		while (end - at >= 16 && !any_needs_escape(at))
			at += 16;
		while (at < end && !needs_escape(*at))
			at++;
		put(sink, run, (size_t)(at - run));
		if (at < end)
			put_escape(sink, *at++);
	}
	put_literal(sink, "\"");
}

/* --- Members ------------------------------------------------------------ */

static void open_object(struct sink *sink)
{
	put_literal(sink, "{");
	sink->has_member = false;
}

static void close_object(struct sink *sink)
{
	put_literal(sink, "}");
	sink->has_member = true;
}

static void put_name(struct sink *sink, const char *name)
{
	put_literal(sink, sink->has_member ? ",\"" : "\"");
	put_literal(sink, name);
	put_literal(sink, "\":");
	sink->has_member = true;
}

static void put_string_member(struct sink *sink, const char *name, struct text text)
{
	if (!text.bytes)
		return;
	put_name(sink, name);
	put_string(sink, text);
}

static void put_number_member(struct sink *sink, const char *name, struct number number)
{
	if (number.state != NUMBER_SET)
		return;
	put_name(sink, name);
	put_number(sink, number.value);
}

static void put_json_member(struct sink *sink, const char *name, struct text json)
{
	put_name(sink, name);
	put_text(sink, json);
}

/* What stands between the braces of the object `object`, white space included;
 * size 0 where it has no member. */
static struct text members_of(struct text object)
{
	const char *start = memchr(object.bytes, '{', object.size);
	const char *end = memrchr(object.bytes, '}', object.size);
	struct text members = { start + 1, (size_t)(end - start - 1) };

	return memchr(members.bytes, '"', members.size) ? members : (struct text){ "", 0 };
}

/* --- The payload -------------------------------------------------------- */

static const struct text default_format = { "bedrock", 7 };
static const struct text default_type = { "chat", 4 };

static bool is(struct text text, const char *word)
{
	return text.size == strlen(word) && memcmp(text.bytes, word, text.size) == 0;
}

static struct text format_of(const struct record *record)
{
	return record->format.bytes ? record->format : default_format;
}

static bool is_bedrock(const struct record *record)
{
	return is(format_of(record), "bedrock");
}

const char *payload_version(struct text format)
{
	static const struct {
		const char *format, *version;
	} versions[] = {
		{ "bedrock", "1.0.0" }, { "openai", "1.0.0" },  { "anthropic", "3.0.0" },
		{ "cohere", "2.1.0" },  { "gemini", "2.2.0" },  { "mistral", "2.4.0" },
		{ "perplexity", "2.4.0" }, { "universal", "3.0.0" },
	};

	if (!format.bytes)
		format = default_format;
	for (size_t i = 0; i < sizeof versions / sizeof versions[0]; i++)
		if (is(format, versions[i].format))
			return versions[i].version;
	return "3.0.0";
}

static bool has_user(const struct record *record)
{
	return record->user_id.bytes || record->is_authenticated.state != NUMBER_ABSENT ||
	       record->first_name.bytes || record->last_name.bytes || record->email.bytes ||
	       record->phone.bytes || record->gender.bytes;
}

static void put_reconify(struct sink *sink, const struct record *record,
                         const struct payload_frame *frame)
{
	struct text format = format_of(record);
	const char *version = frame->version ? frame->version : payload_version(format);

	put_name(sink, "reconify");
	open_object(sink);
	put_string_member(sink, "format", format);
	put_string_member(sink, "type", record->type.bytes ? record->type : default_type);
	put_string_member(sink, "version", (struct text){ version, strlen(version) });
	put_string_member(sink, "appKey", frame->app_key);
	put_string_member(sink, "apiKey", frame->api_key);
	close_object(sink);
}

static void put_user(struct sink *sink, const struct record *record)
{
	put_name(sink, "user");
	open_object(sink);
	put_string_member(sink, "userId", record->user_id);
	put_number_member(sink, "isAuthenticated", record->is_authenticated);
	put_string_member(sink, "firstName", record->first_name);
	put_string_member(sink, "lastName", record->last_name);
	put_string_member(sink, "email", record->email);
	put_string_member(sink, "phone", record->phone);
	put_string_member(sink, "gender", record->gender);
	close_object(sink);
}

static void put_bedrock(struct sink *sink, const struct record *record)
{
	put_name(sink, "request");
	open_object(sink);
	put_string_member(sink, "modelId", record->model_id);
	put_string_member(sink, "contentType", record->content_type);
	put_string_member(sink, "accept", record->accept);
	put_string_member(sink, "body", record->request_body);
	if (record->request_extra.bytes) {
		struct text members = members_of(record->request_extra);

		if (members.size > 0) {
			put_literal(sink, ",");
			put_text(sink, members);
		}
	}
	close_object(sink);

	put_name(sink, "response");
	open_object(sink);
	put_string_member(sink, "requestId", record->request_id);
	put_json_member(sink, "body", record->response_body);
	close_object(sink);
}

static void put_payload(struct sink *sink, const struct record *record,
                        const struct payload_frame *frame)
{
	open_object(sink);
	put_reconify(sink, record, frame);

	put_name(sink, "timestamps");
	open_object(sink);
	put_number_member(sink, "request", record->request_at);
	put_number_member(sink, "response", record->response_at);
	close_object(sink);

	put_string_member(sink, "session", record->session);
	put_number_member(sink, "sessionTimeout", record->session_timeout);
	if (has_user(record))
		put_user(sink, record);
	if (is_bedrock(record)) {
		put_bedrock(sink, record);
	} else {
		put_json_member(sink, "request", record->request_body);
		put_json_member(sink, "response", record->response_body);
	}
	close_object(sink);
}

/* --- Judging a record --------------------------------------------------- */

/* A rule about one column, and what to say where it is broken. */
struct column_rule {
	size_t column; /* its offset in struct record */
	struct payload_fault fault;
};

#define TEXT_RULE(name) \
	{ offsetof(struct record, name), \
	  { "bad-utf8", #name " holds bytes that are not UTF-8 text, and cannot be sent " \
	                      "unaltered" } }

#define MISSING_RULE(name) \
	{ offsetof(struct record, name), { "missing", #name " is required and is NULL" } }

#define BEDROCK_RULE(name) \
	{ offsetof(struct record, name), \
	  { "bad-column", #name " belongs to format bedrock and must be NULL for any other" } }

#define TIME_RULE(name) \
	{ offsetof(struct record, name), \
	  { "bad-number", #name " is not a whole number of milliseconds since 1970, 0 or more" } }

#define RULES(array) (array), sizeof(array) / sizeof((array)[0])

/* Every text column that is not judged as JSON; uuid has a form of its own. */
static const struct column_rule text_rules[] = {
	TEXT_RULE(model_id), TEXT_RULE(request_id), TEXT_RULE(session), TEXT_RULE(user_id),
	TEXT_RULE(first_name), TEXT_RULE(last_name), TEXT_RULE(email), TEXT_RULE(phone),
	TEXT_RULE(gender), TEXT_RULE(content_type), TEXT_RULE(accept), TEXT_RULE(app),
	TEXT_RULE(format), TEXT_RULE(type), TEXT_RULE(key),
};
static const struct column_rule request_body_text_rule = TEXT_RULE(request_body);
static const struct column_rule response_body_text_rule = TEXT_RULE(response_body);
static const struct column_rule request_extra_text_rule = TEXT_RULE(request_extra);

static const struct column_rule required_rules[] = {
	MISSING_RULE(request_body), MISSING_RULE(response_body),
};
static const struct column_rule model_id_rule = MISSING_RULE(model_id);

/* What only format bedrock has. */
static const struct column_rule bedrock_rules[] = {
	BEDROCK_RULE(model_id), BEDROCK_RULE(request_id), BEDROCK_RULE(content_type),
	BEDROCK_RULE(accept), BEDROCK_RULE(request_extra),
};

/* That a time is in milliseconds is judged at the insert, where the host's own
 * clock is at hand. */
static const struct column_rule number_rules[] = {
	TIME_RULE(request_at), TIME_RULE(response_at), TIME_RULE(spooled_at),
	{ offsetof(struct record, session_timeout),
	  { "bad-number", "session_timeout is not a whole number of minutes, 0 or more" } },
	{ offsetof(struct record, is_authenticated),
	  { "bad-number", "is_authenticated is neither 0 nor 1" } },
};

static const struct payload_fault request_at_missing = {
	"missing", "request_at is NULL, so that it is not known when the model was called"
};
static const struct payload_fault response_body_not_json = {
	"bad-json", "response_body is not exactly one JSON text by RFC 8259, nested at most "
	            "2000 levels deep"
};
static const struct payload_fault request_body_not_json = {
	"bad-json", "request_body is not exactly one JSON text by RFC 8259, nested at most "
	            "2000 levels deep, as every format but bedrock requires"
};
static const struct payload_fault extra_not_object = {
	"bad-extra", "request_extra is not a JSON object by RFC 8259, nested at most 2000 "
	             "levels deep"
};
static const struct payload_fault extra_takes_our_name = {
	"bad-extra", "request_extra has a member named modelId, contentType, accept or body, "
	             "which have columns of their own"
};
static const struct payload_fault user_unnamed = {
	"bad-user", "a column about the user is set, but neither user_id nor email is"
};
static const struct payload_fault uuid_malformed = {
	"bad-uuid", "uuid is not 32 lower-case hexadecimal digits"
};
static const struct payload_fault image_model = {
	"image-model", "model_id names an image model, and image models are not sent yet"
};
static const struct payload_fault too_large = {
	"too-large", "the columns together hold more bytes than this machine can address "
	             "as one request"
};

_Static_assert(JSON_DEPTH_MAX == 2000, "the sentences above name the depth");

static const struct text *text_at(const struct record *record, const struct column_rule *rule)
{
	return (const struct text *)((const char *)record + rule->column);
}

static const struct payload_fault *judge_required(const struct record *record)
{
	if (is_bedrock(record) && !record->model_id.bytes)
		return &model_id_rule.fault;
	for (size_t i = 0; i < sizeof required_rules / sizeof required_rules[0]; i++)
		if (!text_at(record, &required_rules[i])->bytes)
			return &required_rules[i].fault;
	return NULL;
}

static const struct payload_fault *judge_utf8(const struct record *record,
                                              const struct column_rule *rules, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct text *text = text_at(record, &rules[i]);

		if (text->bytes && !json_is_utf8(text->bytes, text->size))
			return &rules[i].fault;
	}
	return NULL;
}

/* Reads the text twice only when it is bad, to say which of the two it is. */
static const struct payload_fault *judge_json(struct text text,
                                              const struct payload_fault *not_utf8,
                                              const struct payload_fault *not_json,
                                              enum json_kind *kind)
{
	*kind = json_check(text.bytes, text.size);
	if (*kind != JSON_INVALID)
		return NULL;
	return json_is_utf8(text.bytes, text.size) ? not_json : not_utf8;
}

/* Compares a member's name, as it stands between its quotes in a valid JSON
 * text, with a `word` of ASCII letters, which any escape but \u cannot yield. */
static bool name_is(const char *at, const char *end, const char *word)
{
	for (; at < end; word++) {
		unsigned code = (unsigned char)*at++;

		if (code == '\\') {
			if (*at++ != 'u')
				return false;
			code = 0;
			for (int i = 0; i < 4; i++, at++)
				code = code * 16 + (*at <= '9' ? (unsigned)(*at - '0')
				                               : (unsigned)((*at | 0x20) - 'a') + 10);
		}
		if (*word == '\0' || code != (unsigned char)*word)
			return false;
	}
	return *word == '\0';
}

static bool is_our_name(const char *start, const char *end)
{
	return name_is(start, end, "modelId") || name_is(start, end, "contentType") ||
	       name_is(start, end, "accept") || name_is(start, end, "body");
}

/* True when a member of the object `object` itself, not of one within it, bears
 * a name of ours. The text has passed json_check(), so that brackets match and
 * strings end. */
static bool takes_our_name(struct text object)
{
	const char *at = object.bytes, *end = at + object.size;
	size_t depth = 0;
	bool name_next = false;

	for (; at < end; at++) {
		if (*at == '{' || *at == '[') {
			depth++;
			name_next = depth == 1;
		} else if (*at == '}' || *at == ']') {
			depth--;
		} else if (*at == ',') {
			name_next = depth == 1;
		} else if (*at == '"') {
			const char *start = ++at;

			while (*at != '"')
				at += *at == '\\' ? 2 : 1;
			if (name_next && is_our_name(start, at))
				return true;
			name_next = false;
		}
	}
	return false;
}

static const struct payload_fault *judge_extra(const struct record *record)
{
	const struct payload_fault *fault;
	enum json_kind kind;

	if (!record->request_extra.bytes)
		return NULL;
	fault = judge_json(record->request_extra, &request_extra_text_rule.fault,
	                   &extra_not_object, &kind);
	if (fault)
		return fault;
	if (kind != JSON_OBJECT)
		return &extra_not_object;
	return takes_our_name(record->request_extra) ? &extra_takes_our_name : NULL;
}

/* The texts that are embedded as they stand. */
static const struct payload_fault *judge_bodies(const struct record *record)
{
	const struct payload_fault *fault;
	enum json_kind kind;

	if (is_bedrock(record))
		fault = judge_utf8(record, &request_body_text_rule, 1);
	else
		fault = judge_json(record->request_body, &request_body_text_rule.fault,
		                   &request_body_not_json, &kind);
	if (!fault)
		fault = judge_json(record->response_body, &response_body_text_rule.fault,
		                   &response_body_not_json, &kind);
	if (!fault && is_bedrock(record))
		fault = judge_extra(record);
	return fault;
}

static const struct payload_fault *judge_numbers(const struct record *record)
{
	for (size_t i = 0; i < sizeof number_rules / sizeof number_rules[0]; i++) {
		const struct number *number =
			(const struct number *)((const char *)record + number_rules[i].column);

		if (number->state == NUMBER_WRONG ||
		    (number->state == NUMBER_SET &&
		     (number->value < 0 ||
		      (number == &record->is_authenticated && number->value > 1))))
			return &number_rules[i].fault;
	}
	return record->request_at.state == NUMBER_ABSENT ? &request_at_missing : NULL;
}

static bool is_uuid(struct text text)
{
	if (!text.bytes || text.size != RECORD_UUID_SIZE)
		return false;
	for (size_t i = 0; i < text.size; i++)
		if (!(text.bytes[i] >= '0' && text.bytes[i] <= '9') &&
		    !(text.bytes[i] >= 'a' && text.bytes[i] <= 'f'))
			return false;
	return true;
}

static bool begins(struct text text, const char *word)
{
	size_t size = strlen(word);

	return text.size >= size && memcmp(text.bytes, word, size) == 0;
}

static struct text after(struct text text, const char *last)
{
	return (struct text){ last + 1, (size_t)(text.bytes + text.size - last - 1) };
}

/* An inference profile's id is a model's behind a region: us. eu. apac. us-gov.
 * global. and whatever region comes next. */
static struct text without_region(struct text id)
{
	for (size_t i = 0; i < id.size && i < 16; i++) {
		if (id.bytes[i] == '.')
			return after(id, id.bytes + i);
		if (id.bytes[i] != '-' && (id.bytes[i] < 'a' || id.bytes[i] > 'z'))
			break;
	}
	return id;
}

static bool is_image_model(struct text id)
{
	struct text bare;

	if (begins(id, "arn:")) {
		const char *slash = memrchr(id.bytes, '/', id.size);

		if (slash)
			id = after(id, slash);
	}
	bare = without_region(id);
	return begins(id, "stability.") || begins(id, "amazon.titan-image") ||
	       begins(bare, "stability.") || begins(bare, "amazon.titan-image");
}

static const struct payload_fault *judge_format(const struct record *record)
{
	if (is_bedrock(record))
		return is_image_model(record->model_id) ? &image_model : NULL;
	for (size_t i = 0; i < sizeof bedrock_rules / sizeof bedrock_rules[0]; i++)
		if (text_at(record, &bedrock_rules[i])->bytes)
			return &bedrock_rules[i].fault;
	return NULL;
}

const struct payload_fault *payload_judge(const struct record *record)
{
	const struct payload_fault *fault;

	/* An escape takes up to six bytes, and the frame a few hundred. */
	/* not covered: no SQLite value has more than 2^31 bytes, so on a machine of 64 bits no
	 * record comes near; it is for those of 32 */
	if ((uint64_t)record_bytes(record) > SIZE_MAX / 8)
		return &too_large;
	if ((fault = judge_required(record)))
		return fault;
	if ((fault = judge_utf8(record, RULES(text_rules))))
		return fault;
	if ((fault = judge_bodies(record)))
		return fault;
	if ((fault = judge_numbers(record)))
		return fault;
	if (has_user(record) && !record->user_id.bytes && !record->email.bytes)
		return &user_unnamed;
	if (!is_uuid(record->uuid))
		return &uuid_malformed;
	return judge_format(record);
}

size_t payload_write(const struct record *record, const struct payload_frame *frame,
                     char *out, size_t room)
{
	struct sink sink = { .out = out, .room = room };

	put_payload(&sink, record, frame);
	return sink.size;
}
