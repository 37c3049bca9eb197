/* An answer, as http.c would hand it over: two bytes of status, one of flags, then a
 * line of Retry-After, a line of Date, and the body. */
#include <string.h>

#include "agent/policy.h"
#include "tests/fuzz/fuzz.h"

/* Whether the endpoint said that it took the record, by another reading. */
static bool says_taken(struct slice body)
{
	char *name;
	size_t size;
	struct slice value;
	bool taken = true;
	if (strspn(body.at, " \t\r\n") == body.size)
		return true;
	switch (oracle_json(body)) {
	case ORACLE_NONE: return false;
	case ORACLE_OBJECT: break;
	default: return true;
	}
	for (size_t n = 0; oracle_member(body, n, &name, &size, &value); n++) {
		if (size == 6 && memcmp(name, "status", 6) == 0) {
			size_t said_size = 0;
			char *said = oracle_json(value) == ORACLE_STRING ? oracle_decode(value, &said_size)
			                                                 : NULL;
			taken = taken && said != NULL && said_size == 2 && memcmp(said, "ok", 2) == 0;
			free(said);
		}
		free(name);
	}
	return taken;
}

int fuzz_policy(const uint8_t *data, size_t size)
{
	struct input input = { data, data + size };
	struct answer answer = { .status = (int)take_number(&input, 2) };
	unsigned flags = take_byte(&input);
	size_t length;
	char *retry_after = take_line(&input, &length), *date = take_line(&input, &length);
	size_t body_size = (size_t)(input.end - input.at);
	char *body = fuzz_text(input.at, body_size);
	answer.kind = (flags & 8) == 0 ? ANSWER_HTTP : (enum answer_kind)((flags & 7) % 6);
	answer.body_cut = (flags & 16) != 0;
	answer.open_ended = (flags & 128) != 0;
	answer.body = body;
	answer.body_size = body_size;
	answer.retry_after = (flags & 32) != 0 ? retry_after : NULL;
	answer.date = (flags & 64) != 0 ? date : NULL;
	answer.detail = "words of the transport";

	struct judgement judged = policy_judge(&answer, INT64_C(1700000000000));
	HOLDS(judged.code != NULL && judged.sentence != NULL);
	HOLDS(judged.retry_after >= -1 && judged.retry_after <= INT64_C(86400000));
	if (judged.verdict == VERDICT_DELIVERED) {
		/* The one verdict that takes a row away. */
		HOLDS(answer.kind == ANSWER_HTTP && answer.status >= 200 && answer.status <= 299);
		HOLDS(!answer.body_cut && says_taken((struct slice){ body, body_size }));
		HOLDS(!answer.open_ended || body_size > 0);
	}
	if (judged.verdict == VERDICT_REJECTED)
		HOLDS(answer.kind == ANSWER_HTTP &&
		      ((answer.status >= 200 && answer.status <= 299 &&
		        !says_taken((struct slice){ body, body_size })) ||
		       answer.status == 400 || answer.status == 413 || answer.status == 415 ||
		       answer.status == 422));
	free(body);
	free(retry_after);
	free(date);
	return 0;
}
