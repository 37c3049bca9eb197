/* The validator against the letter of RFC 8259 and RFC 3629. Every text is
 * checked from a heap block of exactly its size, so that a sanitizer sees a
 * read of even one byte too many.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/json.h"

static enum json_kind check(const char *text, size_t size)
{
	char *copy = malloc(size ? size : 1);
	enum json_kind kind;

	assert_non_null(copy);
	memcpy(copy, text, size);
	kind = json_check(copy, size);
	free(copy);
	return kind;
}

static bool is_utf8(const char *text, size_t size)
{
	char *copy = malloc(size ? size : 1);
	bool valid;

	assert_non_null(copy);
	memcpy(copy, text, size);
	valid = json_is_utf8(copy, size);
	free(copy);
	return valid;
}

struct sample {
	const char *text;
	size_t size;
};
/* A literal with its size, so that it may hold a NUL. */
#define S(literal) { literal, sizeof(literal) - 1 }
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void assert_all(const struct sample *samples, size_t count, enum json_kind kind)
{
	for (size_t i = 0; i < count; i++) {
		if (check(samples[i].text, samples[i].size) != kind)
			fail_msg("sample %zu, %s: expected kind %d, got %d", i, samples[i].text,
			         (int)kind, (int)check(samples[i].text, samples[i].size));
	}
}

static void objects_are_told(void **state)
{
	static const struct sample samples[] = {
		S("{}"), S(" { } "), S("\t\n\r {\t\n\r }\t\n\r "), S("{\"a\":1}"), S("{\"\":0}"),
		S("{\"a\":1,\"a\":2}"), S("{\"a\":1,\"a\":1}"), S("{ \"a\" : [ ] , \"b\" : { } }"),
		S("{\"a\\u0000b\":1}"), S("{\"\\u0041\":[]}"), S("{\"a\":{\"b\":{\"c\":{}}}}"),
		S("{\"x\":[{\"id\": \"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}], \"id\":\"y\"}"),
		S("{\"a\":[1,{\"b\":[2,{\"c\":null}]}],\"d\":\"]}\"}"), S("{\"asd\":\"sdf\"}\n"),
		S("{\"min\":-1.0e+28,\"max\":1.0e+28}"),
		S("{\"title\":\"\\u041f\\u043e\\u043b\\u0442\\u043e\\u0440\\u0430\"}"),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_OBJECT);
}

static void arrays_are_told(void **state)
{
	static const struct sample samples[] = {
		S("[]"), S("[ ]"), S("[[]   ]"), S("[\"\"]"), S("[\"a\"]"), S("[false]"), S("[null]"),
		S("[null, 1, \"1\", {}]"), S("[1\n]"), S(" [1]"), S("[1,null,null,null,2]"), S("[2] "),
		S("[\n]"), S("[[[[]]],[[]]]"), S("[{},{},[]]"), S("[\"a\",\"b\" , \"c\"]"),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_ARRAY);
}

static void numbers_are_told(void **state)
{
	static const struct sample samples[] = {
		S("0"), S("-0"), S("1"), S("-1"), S("0e1"), S("0e+1"), S("0E0"), S("1e1"), S("1E22"),
		S("1e-2"), S("1E+2"), S("-0.0"), S("1.0"), S("1.5e300"), S("1e400"), S("-1e-400"),
		S("123.456e78"), S("12345678901234567890"), S("-9223372036854775809"), S(" 4 "),
		S("0.1000000000000000055511151231257827"), S("123e65"), S("0.4e00669999999999999999"),
		S("-0.000000000000000000000000000000000000000000000000000000000000000000001"),
		S("1.7976931348623157e309"), S("20e1"), S("100000000000000000000000000000000000000"),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_NUMBER);
}

static void strings_are_told(void **state)
{
	static const struct sample samples[] = {
		S("\"\""), S("\"a\""), S("\" \""), S("\"\\\"\""), S("\"\\\\\""), S("\"\\/\""),
		S("\"\\b\\f\\n\\r\\t\""), S("\"\\u0000\""), S("\"\\u00aF\""), S("\"\\\\u0000\""),
		S("\"\\uD834\\uDD1E\""), S("\"a/*b*/c\""), S("\"\x7f\""), S("\"1234567\""),
		S("\"12345678\""), S("\"123456789\""), S("\"12345678901234567890\\n12345678\""),
		S("\"\xc2\x80\""), S("\"\xdf\xbf\""), S("\"\xe0\xa0\x80\""), S("\"\xed\x9f\xbf\""),
		S("\"\xee\x80\x80\""), S("\"\xef\xbf\xbf\""), S("\"\xf0\x90\x80\x80\""),
		S("\"\xf4\x8f\xbf\xbf\""), S("\"\xe2\x80\xa8\""), S("\"\xef\xbb\xbf\""),
		S("\"\\uFFFF\""), S("\"\xf0\x9f\x91\xa9\xe2\x80\x8d\xf0\x9f\x92\xbb\""),
		S("\"{}},\\\"reconify\\\":{\""), S("\"'\""), S("\"\xf3\xa0\x80\x81\""),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_STRING);
}

static void words_are_told(void **state)
{
	static const struct sample samples[] = {
		S("true"), S("false"), S("null"), S(" true"), S("null\n"), S("\tfalse\r"),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_WORD);
}

static void escaped_lone_surrogates_are_valid(void **state)
{
	static const struct sample samples[] = {
		S("\"\\ud800\""), S("\"\\uDFFF\""), S("\"\\uDC00\\uD800\""), S("\"\\ud800\\n\""),
		S("\"\\ud800abc\""), S("\"\\uD800\\uD800\\uDC00\""), S("\"\\uDd1e\\uD834\""),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_STRING);
}

static void malformed_numbers_are_refused(void **state)
{
	static const struct sample samples[] = {
		S("-"), S("+1"), S("++1"), S("01"), S("-01"), S("00"), S("012"), S("-012"), S("1."),
		S("-1."), S("1.e1"), S(".5"), S("-.5"), S("1e"), S("1E"), S("1e+"), S("1e-"),
		S("1.5e"), S("0e"), S("0.1.2"), S("1 000"), S("1-1"), S("--1"), S("0x1"), S("0x42"),
		S("1a"), S("1e1.5"), S("- 1"), S("1_000"), S("Infinity"), S("-Infinity"), S("NaN"),
		S("-NaN"), S("Inf"), S("1eE2"), S("1e+-2"), S("\xef\xbc\x91"), S("[-]"), S("[1.]"),
		S("[.5]"), S("[01]"), S("[1e]"), S("{\"a\":1.}"), S("0.e1"), S("2.e+3"), S("-foo"),
		S("1f"), S("0b1"), S("1,5"),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_INVALID);
}

static void malformed_strings_are_refused(void **state)
{
	static const struct sample samples[] = {
		S("\""), S("\"a"), S("\"\\"), S("\"\\\""), S("\"\\u"), S("\"\\u1"), S("\"\\u12"),
		S("\"\\u123"), S("\"\\u1234"), S("\"\\u12\""), S("\"\\u123\""), S("\"\\u00G0\""),
		S("\"\\u 123\""), S("\"\\U0041\""), S("\"\\x41\""), S("\"\\a\""), S("\"\\v\""),
		S("\"\\0\""), S("\"\\'\""), S("\"\\ \""), S("\"\\\n\""), S("\"\\\t\""), S("'a'"),
		S("a"), S("\"a\"b\""), S("\"\"\""), S("\"\\u{41}\""), S("\"\\\xc3\xa9\""),
		S("\"\\uD800\\\""), S("\"\\uD800\\u\""), S("\"\\uD800\\u1\""), S("\"\\u+123\""),
		S("\"12345678"), S("\"1234567\\"), S("\xe2\x80\x9c" "a\xe2\x80\x9d"), S("[\"a]"),
		S("`a`"), S("\"\\u-001\""),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_INVALID);
}

static void control_characters_in_strings_are_refused_wherever_they_stand(void **state)
{
	(void)state;
	for (int byte = 0; byte < 0x20; byte++) {
		for (size_t before = 0; before < 20; before++) {
			char text[48];
			size_t size = 0;

			text[size++] = '"';
			memset(text + size, 'x', before);
			size += before;
			text[size++] = (char)byte;
			memset(text + size, 'y', 20);
			size += 20;
			text[size++] = '"';
			assert_int_equal(check(text, size), JSON_INVALID);
		}
	}
}

static void every_byte_in_a_string_is_judged_alike_at_every_offset(void **state)
{
	(void)state;
	for (int byte = 0; byte < 0x100; byte++) {
		/* One byte alone is fine exactly when it is printable ASCII or DEL. */
		bool fine = byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';

		for (size_t before = 0; before < 17; before++) {
			char text[40];

			memset(text, 'x', sizeof text);
			text[0] = '"';
			text[1 + before] = (char)byte;
			text[sizeof text - 1] = '"';
			assert_int_equal(check(text, sizeof text), fine ? JSON_STRING : JSON_INVALID);
		}
	}
}

static void malformed_structures_are_refused(void **state)
{
	static const struct sample samples[] = {
		S("{"), S("}"), S("["), S("]"), S("[}"), S("{]"), S("[1}"), S("{\"a\":1]"), S("[,]"),
		S("{,}"), S("[1,]"), S("[,1]"), S("[1,,2]"), S("[1 2]"), S("[1"), S("[1,"), S("[[]"),
		S("[]]"), S("{}}"), S("{\"a\":1,}"), S("{\"a\":1,,\"b\":2}"), S("{,\"a\":1}"),
		S("{\"a\"}"), S("{\"a\":}"), S("{\"a\"1}"), S("{\"a\" 1}"), S("{\"a\"::1}"), S("{a:1}"),
		S("{'a':1}"), S("{1:1}"), S("{null:1}"), S("{\"a\":1"), S("{\"a\":"), S("{\"a\""),
		S("{\"a"), S("{\"a\":1 \"b\":2}"), S("{\"a\":1;\"b\":2}"), S("{[]:1}"), S("{{}:1}"),
		S("[\"a\":1]"), S("[:]"), S(":"), S(","), S("{\"a\":1,1}"), S("{\"a\",\"b\"}"),
		S("{\"a\":(1)}"), S("[1]["), S("[][]"), S("{}{}"), S("{\"a\":\"b\"}#"), S("[1],"),
		S("{\"a\":/*comment*/1}"), S("[1]//"), S("//\n[]"), S("[1#]"), S("<null>"), S("[<null>]"),
		S("*"), S("{\"a\":true} \"x\""), S("2@"), S("{\"a\":\"b\"}/**/"), S("[\"x\"]]"),
		S("[\"\"],"), S("{\"id\":0,}"), S("{\"a\":[}"), S("[{]}"), S("[[1]}"), S("{\"a\":{]}"),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_INVALID);
}

static void malformed_words_are_refused(void **state)
{
	static const struct sample samples[] = {
		S("t"), S("tru"), S("truE"), S("True"), S("TRUE"), S("truee"), S("true1"), S("truetrue"),
		S("f"), S("fals"), S("False"), S("nul"), S("null0"), S("Null"), S("None"), S("undefined"),
		S("nil"), S("true false"), S("[nul]"), S("[tru]"), S("{\"a\":fals}"),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_INVALID);
}

static void texts_without_a_value_are_refused(void **state)
{
	static const struct sample samples[] = { S(""), S(" "), S("\n"), S("\t\r\n ") };

	(void)state;
	assert_all(samples, COUNT(samples), JSON_INVALID);
	assert_int_equal(json_check(NULL, 0), JSON_INVALID);
}

static void only_four_characters_are_white_space(void **state)
{
	static const struct sample samples[] = {
		S("\f[]"), S("[]\f"), S("[\f]"), S("\v1"), S("1\v"), S("\xc2\xa0[]"), S("[]\xc2\xa0"),
		S("\xe2\x80\xa8[]"), S("\xe2\x81\xa0[]"), S("\xe3\x80\x80[]"), S("\x85[]"), S("[\b]"),
		S("{\"a\":\f1}"), S("{\"a\"\v:1}"),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_INVALID);
}

static void nul_bytes_are_refused(void **state)
{
	static const struct sample samples[] = {
		S("\0"), S("1\0"), S("\0" "1"), S("{}\0"), S("{}\0junk"), S("[1\0]"), S("\"\0\""),
		S("\"a\0b\""), S("\"12345678\0" "12345678\""), S("{\"a\":\0" "1}"), S("true\0"),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_INVALID);
}

static void byte_order_marks_outside_of_strings_are_refused(void **state)
{
	static const struct sample samples[] = {
		S("\xef\xbb\xbf"), S("\xef\xbb\xbf{}"), S("{}\xef\xbb\xbf"), S("\xef\xbb\xbf\"a\""),
		S("\xef\xbb{}"), S("\xff\xfe{\0}\0"), S("\xfe\xff\0{\0}"), S("[\xef\xbb\xbf]"),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_INVALID);
}

static void texts_that_would_break_out_of_their_place_are_refused(void **state)
{
	static const struct sample samples[] = {
		S("{}},\"reconify\":{"), S("1},\"reconify\":{\"appKey\":\"x\"}"), S("1,\"body\":2"),
		S("\"a\",\"b\":\"c\""), S("{}}"), S("null}}{\"a\":{\"b\":1"), S("]["), S("\"\",\"x\":\""),
		S("\",\"body\":\""), S("\"\\\",\"body\":\""), S("{\"a\":\"\\\\\"},\"b\":\"c\"}"),
	};

	(void)state;
	assert_all(samples, COUNT(samples), JSON_INVALID);
}

static const struct sample bad_utf8[] = {
	S("\x80"), S("\xbf"), S("\xc0\x80"), S("\xc0\xaf"), S("\xc1\xbf"), S("\xc2"), S("\xc2 "),
	S("\xc2\xc2"), S("\xe0\x80\x80"), S("\xe0\x9f\xbf"), S("\xe2\x82"), S("\xe2\x82 "),
	S("\xe2 \x82"), S("\xed\xa0\x80"), S("\xed\xbf\xbf"), S("\xed\xa0\xbd\xed\xb8\x80"),
	S("\xf0\x80\x80\x80"), S("\xf0\x8f\xbf\xbf"), S("\xf0\x9f\x98"), S("\xf0\x9f\x98\xc2"),
	S("\xf4\x90\x80\x80"), S("\xf5\x80\x80\x80"), S("\xf7\xbf\xbf\xbf"),
	S("\xf8\x88\x80\x80\x80"), S("\xfc\x84\x80\x80\x80\x80"), S("\xfe"), S("\xff"),
	S("caf\xe9"), S("\xe9t\xe9"), S("\xf0\x28\x8c\xbc"), S("\xc3\xa9\xa9"),
};

static void invalid_utf8_is_refused_wherever_it_stands(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(bad_utf8); i++) {
		for (size_t before = 0; before < 18; before++) {
			char text[64];
			size_t size = 0;

			text[size++] = '"';
			memset(text + size, 'x', before);
			size += before;
			memcpy(text + size, bad_utf8[i].text, bad_utf8[i].size);
			size += bad_utf8[i].size;
			/* Cut off at the end, before a quote, and before more text. */
			assert_false(is_utf8(text, size));
			assert_int_equal(check(text, size), JSON_INVALID);
			text[size] = '"';
			assert_false(is_utf8(text, size + 1));
			assert_int_equal(check(text, size + 1), JSON_INVALID);
			memset(text + size, 'y', 20);
			text[size + 20] = '"';
			assert_false(is_utf8(text, size + 21));
			assert_int_equal(check(text, size + 21), JSON_INVALID);
		}
	}
}

static void invalid_utf8_outside_of_strings_is_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(bad_utf8); i++)
		assert_int_equal(check(bad_utf8[i].text, bad_utf8[i].size), JSON_INVALID);
}

/* An encoder of our own, over all code points and all that is none. */
static size_t encode(uint32_t code, char *out)
{
	unsigned char bytes[4];
	size_t size;

	if (code < 0x80) {
		bytes[0] = (unsigned char)code;
		size = 1;
	} else if (code < 0x800) {
		bytes[0] = (unsigned char)(0xC0 | code >> 6);
		bytes[1] = (unsigned char)(0x80 | (code & 0x3F));
		size = 2;
	} else if (code < 0x10000) {
		bytes[0] = (unsigned char)(0xE0 | code >> 12);
		bytes[1] = (unsigned char)(0x80 | (code >> 6 & 0x3F));
		bytes[2] = (unsigned char)(0x80 | (code & 0x3F));
		size = 3;
	} else {
		bytes[0] = (unsigned char)(0xF0 | code >> 18);
		bytes[1] = (unsigned char)(0x80 | (code >> 12 & 0x3F));
		bytes[2] = (unsigned char)(0x80 | (code >> 6 & 0x3F));
		bytes[3] = (unsigned char)(0x80 | (code & 0x3F));
		size = 4;
	}
	memcpy(out, bytes, size);
	return size;
}

static void every_code_point_is_judged_as_rfc_3629_has_it(void **state)
{
	(void)state;
	for (uint32_t code = 0; code < 0x200000; code++) {
		bool valid = code < 0xD800 || (code > 0xDFFF && code < 0x110000);
		char text[4];
		size_t size = encode(code, text);

		if (json_is_utf8(text, size) != valid)
			fail_msg("U+%04X", (unsigned)code);
	}
}

static void utf8_may_hold_nul_and_may_be_empty(void **state)
{
	(void)state;
	assert_true(is_utf8("", 0));
	assert_true(json_is_utf8(NULL, 0));
	assert_true(is_utf8("\0", 1));
	assert_true(is_utf8("a\0b", 3));
	assert_true(is_utf8("\xc3\xa9\0\xf0\x9f\x98\x80", 7));
	assert_true(is_utf8("12345678\xe2\x80\xa8" "12345678", 19));
}

static char *nested(char open, char close, size_t depth, size_t *size)
{
	char *text = malloc(2 * depth);

	assert_non_null(text);
	memset(text, open, depth);
	memset(text + depth, close, depth);
	*size = 2 * depth;
	return text;
}

static void nesting_is_accepted_to_2000_levels_and_refused_beyond(void **state)
{
	size_t size;
	char *text;

	(void)state;
	text = nested('[', ']', 2000, &size);
	assert_int_equal(json_check(text, size), JSON_ARRAY);
	assert_int_equal(json_check(text, size - 1), JSON_INVALID);
	free(text);
	text = nested('[', ']', 2001, &size);
	assert_int_equal(json_check(text, size), JSON_INVALID);
	free(text);
	/* Depth is what is open at once, not what was ever opened. */
	text = malloc(3 * 5000 + 2);
	assert_non_null(text);
	text[0] = '[';
	for (size_t i = 0; i < 5000; i++)
		memcpy(text + 1 + 3 * i, "[],", 3);
	memcpy(text + 3 * 5000, "]", 1);
	assert_int_equal(json_check(text, 3 * 5000 + 1), JSON_ARRAY);
	free(text);
}

static void objects_count_as_levels_like_arrays(void **state)
{
	static const char step[] = "{\"a\":[";
	char *text = malloc(2001 * sizeof step);
	size_t size;

	(void)state;
	assert_non_null(text);
	for (size_t levels = 2000; levels <= 2002; levels += 2) {
		size = 0;
		for (size_t i = 0; i < levels / 2; i++) {
			memcpy(text + size, step, sizeof step - 1);
			size += sizeof step - 1;
		}
		for (size_t i = 0; i < levels / 2; i++) {
			memcpy(text + size, "]}", 2);
			size += 2;
		}
		assert_int_equal(json_check(text, size),
		                 levels == 2000 ? JSON_OBJECT : JSON_INVALID);
	}
	free(text);
}

static void a_million_open_brackets_do_no_harm(void **state)
{
	size_t size = 1000 * 1000;
	char *text = malloc(size);

	(void)state;
	assert_non_null(text);
	memset(text, '[', size);
	assert_int_equal(json_check(text, size), JSON_INVALID);
	for (size_t i = 0; i + 5 <= size; i += 5)
		memcpy(text + i, "{\"\":[", 5);
	assert_int_equal(json_check(text, size), JSON_INVALID);
	free(text);
}

static const char long_text[] =
	" {\"completion\": \" Caf\xc3\xa9 \xf0\x9f\x98\x80 \\u00e9\\ud83d\\ude00\\n\", \"n\": "
	"[-0.5e+10, 0, true, false, null, [], {}], \"stop_reason\": \"stop_sequence\"} ";

static void every_beginning_of_a_text_is_refused(void **state)
{
	size_t size = sizeof long_text - 1;

	(void)state;
	assert_int_equal(check(long_text, size), JSON_OBJECT);
	assert_int_equal(check(long_text, size - 1), JSON_OBJECT); /* the last is a space */
	for (size_t cut = 0; cut < size - 1; cut++)
		assert_int_equal(check(long_text, cut), JSON_INVALID);
}

/* A second opinion, written to be obvious: recursive descent over one text.
 * The two must agree on texts mutated at random. */
struct slow {
	const unsigned char *text;
	size_t at, size;
};

static int peek(const struct slow *slow)
{
	return slow->at < slow->size ? slow->text[slow->at] : -1;
}

static bool take(struct slow *slow, int byte)
{
	if (peek(slow) != byte)
		return false;
	slow->at++;
	return true;
}

static void slow_space(struct slow *slow)
{
	while (take(slow, ' ') || take(slow, '\t') || take(slow, '\n') || take(slow, '\r'))
		;
}

static bool slow_digits(struct slow *slow)
{
	size_t start = slow->at;

	while (peek(slow) >= '0' && peek(slow) <= '9')
		slow->at++;
	return slow->at > start;
}

static bool slow_number(struct slow *slow)
{
	take(slow, '-');
	if (!take(slow, '0') && !slow_digits(slow))
		return false;
	if (take(slow, '.') && !slow_digits(slow))
		return false;
	if (take(slow, 'e') || take(slow, 'E')) {
		if (!take(slow, '+'))
			take(slow, '-');
		return slow_digits(slow);
	}
	return true;
}

static bool slow_string(struct slow *slow)
{
	if (!take(slow, '"'))
		return false;
	while (peek(slow) != '"') {
		int byte = peek(slow);

		slow->at++;
		if (byte < 0x20) /* a control character, or -1: the end */
			return false;
		if (byte != '\\')
			continue;
		byte = peek(slow);
		slow->at++;
		if (byte == 'u') {
			for (int i = 0; i < 4; i++, slow->at++)
				if (peek(slow) <= 0 || !strchr("0123456789abcdefABCDEF", peek(slow)))
					return false;
		} else if (byte <= 0 || !strchr("\"\\/bfnrt", byte)) {
			return false;
		}
	}
	return take(slow, '"');
}

static bool slow_value(struct slow *slow)
{
	static const char *const words[] = { "true", "false", "null" };
	bool object = peek(slow) == '{';
	int end = object ? '}' : ']';

	if (peek(slow) == '"')
		return slow_string(slow);
	if (take(slow, '{') || take(slow, '[')) {
		slow_space(slow);
		if (take(slow, end))
			return true;
		do {
			slow_space(slow);
			if (object) {
				if (!slow_string(slow))
					return false;
				slow_space(slow);
				if (!take(slow, ':'))
					return false;
				slow_space(slow);
			}
			if (!slow_value(slow))
				return false;
			slow_space(slow);
		} while (take(slow, ','));
		return take(slow, end);
	}
	for (size_t i = 0; i < COUNT(words); i++) {
		size_t size = strlen(words[i]);

		if (slow->size - slow->at >= size &&
		    memcmp(slow->text + slow->at, words[i], size) == 0) {
			slow->at += size;
			return true;
		}
	}
	return slow_number(slow);
}

static bool slow_check(const char *text, size_t size)
{
	struct slow slow = { (const unsigned char *)text, 0, size };

	slow_space(&slow);
	if (!slow_value(&slow))
		return false;
	slow_space(&slow);
	return slow.at == size && json_is_utf8(text, size);
}

/* xorshift64: the same sequence everywhere. */
static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void mutated_texts_are_judged_as_a_plain_recursive_reader_judges_them(void **state)
{
	static const char alphabet[] = "{}[]\",:\\u0123456789-+.eE truefalsn\t\n\f\0\xc3\xa9/bd8";
	uint64_t seed = 20260101;
	size_t accepted = 0, refused = 0;

	(void)state;
	for (int round = 0; round < 200000; round++) {
		char text[sizeof long_text];
		size_t size = sizeof long_text - 1;
		size_t changes = next_random(&seed) % 3 + 1;

		memcpy(text, long_text, size);
		for (size_t i = 0; i < changes; i++) {
			size_t place = next_random(&seed) % size;

			if (next_random(&seed) % 2) {
				text[place] = alphabet[next_random(&seed) % (sizeof alphabet - 1)];
			} else {
				memmove(text + place, text + place + 1, size - place - 1);
				size--;
			}
		}
		bool valid = slow_check(text, size);

		if ((check(text, size) != JSON_INVALID) != valid)
			fail_msg("round %d: expected %d for %.*s", round, valid, (int)size, text);
		if (valid)
			accepted++;
		else
			refused++;
	}
	/* Both sides must have been seen, or the test says nothing. */
	assert_true(accepted > 1000);
	assert_true(refused > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(objects_are_told),
		cmocka_unit_test(arrays_are_told),
		cmocka_unit_test(numbers_are_told),
		cmocka_unit_test(strings_are_told),
		cmocka_unit_test(words_are_told),
		cmocka_unit_test(escaped_lone_surrogates_are_valid),
		cmocka_unit_test(malformed_numbers_are_refused),
		cmocka_unit_test(malformed_strings_are_refused),
		cmocka_unit_test(control_characters_in_strings_are_refused_wherever_they_stand),
		cmocka_unit_test(every_byte_in_a_string_is_judged_alike_at_every_offset),
		cmocka_unit_test(malformed_structures_are_refused),
		cmocka_unit_test(malformed_words_are_refused),
		cmocka_unit_test(texts_without_a_value_are_refused),
		cmocka_unit_test(only_four_characters_are_white_space),
		cmocka_unit_test(nul_bytes_are_refused),
		cmocka_unit_test(byte_order_marks_outside_of_strings_are_refused),
		cmocka_unit_test(texts_that_would_break_out_of_their_place_are_refused),
		cmocka_unit_test(invalid_utf8_is_refused_wherever_it_stands),
		cmocka_unit_test(invalid_utf8_outside_of_strings_is_refused),
		cmocka_unit_test(every_code_point_is_judged_as_rfc_3629_has_it),
		cmocka_unit_test(utf8_may_hold_nul_and_may_be_empty),
		cmocka_unit_test(nesting_is_accepted_to_2000_levels_and_refused_beyond),
		cmocka_unit_test(objects_count_as_levels_like_arrays),
		cmocka_unit_test(a_million_open_brackets_do_no_harm),
		cmocka_unit_test(every_beginning_of_a_text_is_refused),
		cmocka_unit_test(mutated_texts_are_judged_as_a_plain_recursive_reader_judges_them),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
