/* A validator, not a parser: it reads a text once, keeps one flag for each open
 * object or array, and allocates nothing.
 *
 * It must never accept more than RFC 8259 does, nor anything that is not UTF-8,
 * and never recurse: what it passes is spliced, unparsed, between our own
 * braces and sent with our keys beside it.
 */
#include "agent/json.h"

#include <stdint.h>
#include <string.h>

struct reader {
	const unsigned char *at, *end;
};

/* NULL is an empty text; adding even 0 to it would be undefined. */
static struct reader read_from(const char *text, size_t size)
{
	const unsigned char *start = (const unsigned char *)(text ? text : "");

	return (struct reader){ start, start + size };
}

/* A word with `byte` in each of its eight bytes. */
static uint64_t each(unsigned byte)
{
	return byte * UINT64_C(0x0101010101010101);
}

/* True when none of the eight bytes ends a string, begins an escape, is a
 * control character or lies outside ASCII. A borrow in the subtractions can
 * only come from a byte that itself has its top bit set by them, so that the
 * answer is exact although single bits are not. */
static bool is_plain(uint64_t word)
{
	uint64_t control = word - each(0x20);
	uint64_t quote = (word ^ each('"')) - each(1);
	uint64_t backslash = (word ^ each('\\')) - each(1);

	return ((word | control | quote | backslash) & each(0x80)) == 0;
}

static uint64_t load(const unsigned char *at)
{
	uint64_t word;

	memcpy(&word, at, sizeof word);
	return word;
}

static bool is_digit(unsigned char byte)
{
	return byte >= '0' && byte <= '9';
}

static bool is_hex_digit(unsigned char byte)
{
	return is_digit(byte) || (byte >= 'a' && byte <= 'f') || (byte >= 'A' && byte <= 'F');
}

/* Passes over one character outside ASCII (RFC 3629, section 4). The second
 * byte's range is what keeps out overlong forms, surrogates and what lies
 * beyond U+10FFFF. */
static bool read_sequence(struct reader *reader)
{
	const unsigned char *at = reader->at;
	size_t left = (size_t)(reader->end - at);
	unsigned char lowest = 0x80, highest = 0xBF;
	size_t size;

	if (*at >= 0xC2 && *at <= 0xDF)
		size = 2;
	else if (*at >= 0xE0 && *at <= 0xEF)
		size = 3;
	else if (*at >= 0xF0 && *at <= 0xF4)
		size = 4;
	else
		return false;
	if (*at == 0xE0)
		lowest = 0xA0;
	else if (*at == 0xED)
		highest = 0x9F;
	else if (*at == 0xF0)
		lowest = 0x90;
	else if (*at == 0xF4)
		highest = 0x8F;

	if (left < size || at[1] < lowest || at[1] > highest)
		return false;
	for (size_t i = 2; i < size; i++)
		if ((at[i] & 0xC0) != 0x80)
			return false;
	reader->at += size;
	return true;
}

static void skip_space(struct reader *reader)
{
	while (reader->at < reader->end && (*reader->at == ' ' || *reader->at == '\n' ||
	                                    *reader->at == '\r' || *reader->at == '\t'))
		reader->at++;
}

static bool read_escape(struct reader *reader)
{
	reader->at++;
	if (reader->at == reader->end)
		return false;
	switch (*reader->at++) {
	case '"': case '\\': case '/': case 'b': case 'f': case 'n': case 'r': case 't':
		return true;
	case 'u':
		if (reader->end - reader->at < 4)
			return false;
		for (int i = 0; i < 4; i++)
			if (!is_hex_digit(*reader->at++))
				return false;
		return true;
	default:
		return false;
	}
}

/* Passes over a string from its opening quote to its closing one. */
static bool read_string(struct reader *reader)
{
	reader->at++;
	for (;;) {
		while (reader->end - reader->at >= 8 && is_plain(load(reader->at)))
			reader->at += 8;
		while (reader->at < reader->end && *reader->at >= 0x20 && *reader->at < 0x80 &&
		       *reader->at != '"' && *reader->at != '\\')
			reader->at++;
		if (reader->at == reader->end || *reader->at < 0x20)
			return false;
		if (*reader->at == '"') {
			reader->at++;
			return true;
		}
		if (!(*reader->at == '\\' ? read_escape(reader) : read_sequence(reader)))
			return false;
	}
}

static bool read_digits(struct reader *reader)
{
	const unsigned char *start = reader->at;

	while (reader->at < reader->end && is_digit(*reader->at))
		reader->at++;
	return reader->at > start;
}

static bool next_is(const struct reader *reader, char one, char other)
{
	return reader->at < reader->end && (*reader->at == one || *reader->at == other);
}

static bool read_number(struct reader *reader)
{
	if (next_is(reader, '-', '-'))
		reader->at++;
	if (next_is(reader, '0', '0'))
		reader->at++;
	else if (!read_digits(reader))
		return false;
	if (next_is(reader, '.', '.')) {
		reader->at++;
		if (!read_digits(reader))
			return false;
	}
	if (next_is(reader, 'e', 'E')) {
		reader->at++;
		if (next_is(reader, '+', '-'))
			reader->at++;
		if (!read_digits(reader))
			return false;
	}
	return true;
}

static bool read_word(struct reader *reader, const char *word)
{
	size_t size = strlen(word);

	if ((size_t)(reader->end - reader->at) < size || memcmp(reader->at, word, size) != 0)
		return false;
	reader->at += size;
	return true;
}

/* Passes over a member's name and its colon. */
static bool read_name(struct reader *reader)
{
	skip_space(reader);
	if (!next_is(reader, '"', '"') || !read_string(reader))
		return false;
	skip_space(reader);
	if (!next_is(reader, ':', ':'))
		return false;
	reader->at++;
	return true;
}

/* Passes over a value that holds no other value. */
static enum json_kind read_scalar(struct reader *reader)
{
	switch (*reader->at) {
	case '"':
		return read_string(reader) ? JSON_STRING : JSON_INVALID;
	case 't':
		return read_word(reader, "true") ? JSON_WORD : JSON_INVALID;
	case 'f':
		return read_word(reader, "false") ? JSON_WORD : JSON_INVALID;
	case 'n':
		return read_word(reader, "null") ? JSON_WORD : JSON_INVALID;
	default:
		return read_number(reader) ? JSON_NUMBER : JSON_INVALID;
	}
}

enum json_kind json_check(const char *text, size_t size)
{
	struct reader reader = read_from(text, size);
	/* One for each open container: true for an object. */
	bool objects[JSON_DEPTH_MAX];
	size_t depth = 0;
	enum json_kind whole = JSON_INVALID;

	do {
		/* A value begins here. */
		skip_space(&reader);
		if (reader.at == reader.end)
			return JSON_INVALID;
		if (*reader.at == '{' || *reader.at == '[') {
			bool object = *reader.at == '{';

			if (depth == JSON_DEPTH_MAX)
				return JSON_INVALID;
			if (depth == 0)
				whole = object ? JSON_OBJECT : JSON_ARRAY;
			objects[depth++] = object;
			reader.at++;
			skip_space(&reader);
			/* Which of the two closes it is judged below, as for one that is not empty. */
			if (!next_is(&reader, '}', ']')) {
				if (object && !read_name(&reader))
					return JSON_INVALID;
				continue;
			}
		} else {
			enum json_kind kind = read_scalar(&reader);

			if (kind == JSON_INVALID)
				return JSON_INVALID;
			if (depth == 0)
				whole = kind;
		}

		/* A value ended here: it may end what it stands in, any number of times. */
		while (depth > 0) {
			skip_space(&reader);
			if (reader.at == reader.end)
				return JSON_INVALID;
			if (*reader.at == ',') {
				reader.at++;
				if (objects[depth - 1] && !read_name(&reader))
					return JSON_INVALID;
				break;
			}
			if (*reader.at != (objects[depth - 1] ? '}' : ']'))
				return JSON_INVALID;
			reader.at++;
			depth--;
		}
	} while (depth > 0);

	skip_space(&reader);
	return reader.at == reader.end ? whole : JSON_INVALID;
}

bool json_is_utf8(const char *text, size_t size)
{
	struct reader reader = read_from(text, size);

	for (;;) {
		while (reader.end - reader.at >= 32 &&
		       ((load(reader.at) | load(reader.at + 8) | load(reader.at + 16) |
		         load(reader.at + 24)) & each(0x80)) == 0)
			reader.at += 32;
		while (reader.end - reader.at >= 8 && (load(reader.at) & each(0x80)) == 0)
			reader.at += 8;
		if (reader.at == reader.end)
			return true;
		if (*reader.at < 0x80)
			reader.at++;
		else if (!read_sequence(&reader))
			return false;
	}
}
