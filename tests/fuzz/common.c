/* What the targets share; see fuzz.h. The oracle for JSON must never be made of
 * agent/json.c, nor mended until the two agree without knowing who is right.
 */
#include "tests/fuzz/fuzz.h"

#include <ftw.h>
#include <string.h>
#include <unistd.h>

#include "agent/json.h"

char *fuzz_text(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);
	HOLDS(text != NULL);
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

unsigned take_byte(struct input *input)
{
	return input->at < input->end ? *input->at++ : 0;
}

uint64_t take_number(struct input *input, int count)
{
	uint64_t number = 0;
	for (int i = 0; i < count; i++)
		number = number << 8 | take_byte(input);
	return number;
}

char *take_line(struct input *input, size_t *size)
{
	size_t left = (size_t)(input->end - input->at);
	const uint8_t *end = left > 0 ? memchr(input->at, '\n', left) : NULL;
	*size = end != NULL ? (size_t)(end - input->at) : left;
	char *line = fuzz_text(input->at, *size);
	input->at += *size + (end != NULL ? 1 : 0);
	return line;
}

/* --- JSON ------------------------------------------------------------------ */

struct parser {
	const char *end;
	char *out; /* decoded bytes of a string; NULL: not wanted */
	size_t out_size;
};

/* The code point at `at`, and its size in `*size`; -1: no UTF-8. */
static long code_point(const char *at, const char *end, size_t *size)
{
	static const long least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned char lead = (unsigned char)*at;
	size_t bytes = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3
	               : lead >> 3 == 30 ? 4 : 0;
	if (bytes == 0 || (size_t)(end - at) < bytes)
		return -1;
	long value = bytes == 1 ? lead : lead & (0x7f >> bytes);
	for (size_t i = 1; i < bytes; i++) {
		unsigned char next = (unsigned char)at[i];
		if (next >> 6 != 2)
			return -1;
		value = value << 6 | (next & 0x3f);
	}
	*size = bytes;
	if (value < least[bytes] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
		return -1;
	return value;
}

bool oracle_utf8(struct slice text)
{
	size_t size;
	for (const char *at = text.at, *end = at + text.size; at < end; at += size)
		if (code_point(at, end, &size) < 0)
			return false;
	return true;
}

static void emit(struct parser *parser, long value)
{
	unsigned long code = (unsigned long)value;
	int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
	if (parser->out == NULL)
		return;
	static const unsigned char leads[] = { 0, 0xc0, 0xe0, 0xf0 };
	parser->out[parser->out_size++] = (char)(leads[more] | code >> (6 * more));
	while (more-- > 0)
		parser->out[parser->out_size++] = (char)(0x80 | (code >> (6 * more) & 0x3f));
}

static long hex_at(const char *at, const char *end)
{
	long value = 0;
	if (end - at < 4)
		return -1;
	for (int i = 0; i < 4; i++) {
		const char *digits = "0123456789abcdef0123456789ABCDEF";
		const char *found = at[i] != '\0' ? strchr(digits, at[i]) : NULL;
		if (found == NULL)
			return -1;
		value = value * 16 + (found - digits) % 16;
	}
	return value;
}

/* Behind the string at `at`, or NULL. */
static const char *parse_string(struct parser *parser, const char *at)
{
	const char *end = parser->end;
	if (at == end || *at != '"')
		return NULL;
	for (at++; at < end && *at != '"';) {
		size_t size = 1;
		long value = code_point(at, end, &size);
		if (value < 0x20)
			return NULL;
		at += size;
		if (value == '\\') {
			static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
			if (at == end)
				return NULL;
			char letter = *at++;
			const char *found = letter != '\0' ? strchr(names, letter) : NULL;
			if (found != NULL) {
				value = values[found - names];
			} else {
				value = letter == 'u' ? hex_at(at, end) : -1;
				if (value < 0)
					return NULL;
				at += 4;
				if (value >= 0xd800 && value < 0xdc00 && end - at >= 6 && at[0] == '\\' &&
				    at[1] == 'u') {
					long low = hex_at(at + 2, end);
					if (low >= 0xdc00 && low < 0xe000) {
						value = 0x10000 + ((value - 0xd800) << 10) + (low - 0xdc00);
						at += 6;
					}
				}
			}
		}
		emit(parser, value);
	}
	return at < end ? at + 1 : NULL;
}

static const char *parse_space(const char *at, const char *end)
{
	while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r'))
		at++;
	return at;
}

/* A number, or one of the three words, is a run of such bytes; then judged whole. */
static const char *parse_plain(const char *at, const char *end)
{
	static const char *const words[] = { "true", "false", "null" };
	/* By state: what a '0', another digit, '-', '+', '.' or 'e' leads to; 0: nowhere. */
	static const unsigned char next[][6] = {
		{ 0, 0, 0, 0, 0, 0 }, { 3, 4, 2, 0, 0, 0 }, { 3, 4, 0, 0, 0, 0 },
		{ 0, 0, 0, 0, 5, 7 }, { 4, 4, 0, 0, 5, 7 }, { 6, 6, 0, 0, 0, 0 },
		{ 6, 6, 0, 0, 0, 7 }, { 9, 9, 8, 8, 0, 0 }, { 9, 9, 0, 0, 0, 0 },
		{ 9, 9, 0, 0, 0, 0 },
	};
	for (size_t i = 0; i < 3; i++) {
		size_t size = strlen(words[i]);
		if ((size_t)(end - at) >= size && memcmp(at, words[i], size) == 0)
			return at + size;
	}
	unsigned state = 1;
	for (; at < end; at++) {
		int input = *at == '0' ? 0 : *at >= '1' && *at <= '9' ? 1 : *at == '-' ? 2
		            : *at == '+' ? 3 : *at == '.' ? 4 : *at == 'e' || *at == 'E' ? 5 : -1;
		if (input < 0)
			break;
		state = next[state][input];
		if (state == 0)
			return NULL;
	}
	return state == 3 || state == 4 || state == 6 || state == 9 ? at : NULL;
}

/* Behind the value at `at` and the white space around it, or NULL. */
static const char *parse_value(struct parser *parser, const char *at, int depth)
{
	const char *end = parser->end;
	at = parse_space(at, end);
	if (at == end)
		return NULL;
	char open = *at;
	if (open == '"') {
		at = parse_string(parser, at);
	} else if (open != '{' && open != '[') {
		at = parse_plain(at, end);
	} else {
		char close = open == '{' ? '}' : ']';
		if (depth == JSON_DEPTH_MAX)
			return NULL;
		at = parse_space(at + 1, end);
		if (at < end && *at == close)
			return parse_space(at + 1, end);
		for (;;) {
			if (open == '{') {
				at = parse_string(parser, parse_space(at, end));
				at = at != NULL ? parse_space(at, end) : NULL;
				if (at == NULL || at == end || *at++ != ':')
					return NULL;
			}
			at = parse_value(parser, at, depth + 1);
			if (at == NULL || at == end)
				return NULL;
			char separator = *at++;
			if (separator == close)
				break;
			if (separator != ',')
				return NULL;
		}
	}
	return at != NULL ? parse_space(at, end) : NULL;
}

enum oracle_kind oracle_json(struct slice text)
{
	struct parser parser = { .end = text.at + text.size };
	if (text.size == 0 || parse_value(&parser, text.at, 0) != parser.end)
		return ORACLE_NONE;
	switch (*parse_space(text.at, parser.end)) {
	case '{': return ORACLE_OBJECT;
	case '[': return ORACLE_ARRAY;
	case '"': return ORACLE_STRING;
	default: return ORACLE_OTHER;
	}
}

char *oracle_decode(struct slice string, size_t *size)
{
	struct parser parser = { .end = string.at + string.size, .out = malloc(string.size + 1) };
	HOLDS(parser.out != NULL);
	HOLDS(parse_string(&parser, parse_space(string.at, parser.end)) != NULL);
	*size = parser.out_size;
	parser.out[*size] = '\0';
	return parser.out;
}

bool oracle_member(struct slice object, size_t n, char **name, size_t *name_size,
                   struct slice *value)
{
	struct parser parser = { .end = object.at + object.size };
	const char *at = parse_space(object.at, parser.end) + 1;
	if (*parse_space(at, parser.end) == '}')
		return false;
	for (size_t i = 0;; i++) {
		const char *start = parse_space(at, parser.end);
		const char *colon = parse_space(parse_string(&parser, start), parser.end);
		at = parse_value(&parser, colon + 1, 1);
		if (i == n) {
			*value = (struct slice){ colon + 1, (size_t)(at - colon - 1) };
			*name = oracle_decode((struct slice){ start, (size_t)(colon - start) }, name_size);
			return true;
		}
		if (*at++ == '}')
			return false;
	}
}

bool oracle_find(struct slice object, const char *name, struct slice *value)
{
	char *found;
	size_t size, count = 0;
	struct slice here;
	for (size_t n = 0; oracle_member(object, n, &found, &size, &here); n++) {
		if (size == strlen(name) && memcmp(found, name, size) == 0) {
			*value = here;
			count++;
		}
		free(found);
	}
	return count == 1;
}

/* --- Folders --------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *about, int kind, struct FTW *walk)
{
	(void)about;
	(void)kind;
	(void)walk;
	return remove(path);
}

void fuzz_make_folder(char path[64])
{
	const char *base = getenv("TMPDIR");
	(void)snprintf(path, 64, "%.40s/fuzz-XXXXXX",
	               access("/dev/shm", W_OK) == 0 ? "/dev/shm" : base != NULL ? base : "/tmp");
	HOLDS(mkdtemp(path) != NULL);
}

void fuzz_remove_folder(const char *path)
{
	(void)nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}
