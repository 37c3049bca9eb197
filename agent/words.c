/* Texts of others, and numbers, in a form fit to be shown; see words.h. */
#include "agent/words.h"

#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "agent/json.h"

/* --- For a terminal ----------------------------------------------------- */

/* The size of the UTF-8 character at `at`, or 0 where none stands there. */
static size_t character_size(const char *at, size_t left)
{
	for (size_t size = 1; size <= 4 && size <= left; size++)
		if (json_is_utf8(at, size))
			return size;
	return 0;
}

static uint32_t character_value(const char *at, size_t size)
{
	static const unsigned char first[] = { 0, 0x7f, 0x1f, 0x0f, 0x07 };
	uint32_t value = (unsigned char)at[0] & first[size];
	for (size_t i = 1; i < size; i++)
		value = value << 6 | ((unsigned char)at[i] & 0x3f);
	return value;
}

/* Control characters, and what makes a line read otherwise than it is written. */
static bool is_obeyed(uint32_t value)
{
	return value < 0x20 || (value >= 0x7f && value < 0xa0) || value == 0xad ||
	       (value >= 0x300 && value < 0x370) || (value >= 0x200b && value <= 0x200f) ||
	       (value >= 0x2028 && value <= 0x202e) || (value >= 0x2060 && value <= 0x206f) ||
	       (value >= 0xfe00 && value <= 0xfe0f) || value == 0xfeff || value >= 0xe0000;
}

/* Scripts whose characters take two columns, roughly: a table that is too narrow by
 * one is better than one that breaks its lines. */
static int character_width(uint32_t value)
{
	return (value >= 0x1100 && value < 0x1160) || (value >= 0x2e80 && value < 0xa4d0) ||
	       (value >= 0xac00 && value < 0xd7a4) || (value >= 0xf900 && value < 0xfb00) ||
	       (value >= 0xfe30 && value < 0xfe70) || (value >= 0xff00 && value < 0xff61) ||
	       value >= 0x1f000 ? 2 : 1;
}

/* Writes (where `out` is given) what fits into `width` columns; the columns taken.
 * `*all`: nothing was left over. */
static int write_characters(FILE *out, struct text text, int width, bool *all)
{
	int taken = 0;
	size_t at = 0;
	while (at < text.size) {
		size_t size = character_size(text.bytes + at, text.size - at);
		uint32_t value = size > 0 ? character_value(text.bytes + at, size) : 0;
		bool obeyed = size == 0 || is_obeyed(value);
		int columns = obeyed ? 1 : character_width(value);
		if (taken + columns > width)
			break;
		if (out != NULL && obeyed)
			(void)fputc('?', out);
		else if (out != NULL)
			(void)fwrite(text.bytes + at, 1, size, out);
		taken += columns;
		at += size > 0 ? size : 1;
	}
	*all = at == text.size;
	return taken;
}

void words_cell(FILE *out, struct text text, int width)
{
	bool all;
	if (text.bytes == NULL)
		text = (struct text){ "-", 1 };
	(void)write_characters(NULL, text, width, &all);
	int taken = write_characters(out, text, all ? width : width - 1, &all);
	if (!all) {
		(void)fputc('~', out);
		taken++;
	}
	(void)fprintf(out, "%*s", width - taken, "");
}

void words_line(FILE *out, const char *text)
{
	bool all;
	(void)write_characters(out, (struct text){ text, strlen(text) }, INT_MAX, &all);
}

const char *words_span(int64_t ms, char into[WORDS_SHORT])
{
	int64_t seconds = ms / 1000;
	if (ms < 0)
		(void)snprintf(into, WORDS_SHORT, "-");
	else if (seconds < 60)
		(void)snprintf(into, WORDS_SHORT, "%" PRId64 "s", seconds);
	else if (seconds < 3600)
		(void)snprintf(into, WORDS_SHORT, "%" PRId64 "m", seconds / 60);
	else if (seconds < 86400)
		(void)snprintf(into, WORDS_SHORT, "%" PRId64 "h", seconds / 3600);
	else if (seconds < INT64_C(1000) * 86400)
		(void)snprintf(into, WORDS_SHORT, "%" PRId64 "d", seconds / 86400);
	else
		(void)snprintf(into, WORDS_SHORT, "%" PRId64 "y", seconds / (365 * 86400));
	return into;
}

const char *words_bytes(int64_t bytes, char into[WORDS_SHORT])
{
	static const char units[] = "KMGT";
	double value = (double)bytes;
	size_t unit = 0;
	if (bytes < 1024) {
		(void)snprintf(into, WORDS_SHORT, "%" PRId64, bytes);
		return into;
	}
	for (value /= 1024; value >= 1023.5 && unit < sizeof units - 2; value /= 1024)
		unit++;
	(void)snprintf(into, WORDS_SHORT, value < 9.95 ? "%.1f%c" : "%.0f%c", value, units[unit]);
	return into;
}

/* --- As JSON ------------------------------------------------------------ */

static char *copy_text(struct text text)
{
	char *copy = malloc(text.size + 1);
	if (copy == NULL)
		return NULL;
	memcpy(copy, text.bytes, text.size);
	copy[text.size] = '\0';
	return copy;
}

static char *copy_hex(struct text text)
{
	static const char digits[] = "0123456789abcdef";
	char *copy = malloc(text.size * 2 + 1);
	if (copy == NULL)
		return NULL;
	for (size_t i = 0; i < text.size; i++) {
		copy[2 * i] = digits[(unsigned char)text.bytes[i] >> 4];
		copy[2 * i + 1] = digits[(unsigned char)text.bytes[i] & 15];
	}
	copy[text.size * 2] = '\0';
	return copy;
}

cJSON *words_to_json(struct text text, bool blob)
{
	if (text.bytes == NULL)
		return cJSON_CreateNull();
	bool plain = json_is_utf8(text.bytes, text.size) &&
	             memchr(text.bytes, '\0', text.size) == NULL;
	char *copy = plain ? copy_text(text) : copy_hex(text);
	cJSON *string = copy != NULL ? cJSON_CreateString(copy) : NULL;
	free(copy);
	if (string == NULL || (plain && !blob))
		return string;
	cJSON *object = cJSON_CreateObject();
	const char *name = plain ? "blob" : blob ? "blob_hex" : "text_hex";
	if (object == NULL || !cJSON_AddItemToObject(object, name, string)) {
		cJSON_Delete(string);
		cJSON_Delete(object);
		return NULL;
	}
	return object;
}

/* How many bytes of JSON at `at` must not reach a terminal as they are: one character,
 * or 0. It can stand within strings alone. */
static size_t escaped_size(const unsigned char *at)
{
	if (at[0] == 0x7f)
		return 1;
	if (at[0] == 0xc2 && at[1] >= 0x80 && at[1] < 0xa0)
		return 2; /* C1 */
	if (at[0] != 0xe2)
		return 0;
	bool turns = at[1] == 0x80 && (at[2] == 0x8e || at[2] == 0x8f || /* U+200E, U+200F */
	                               (at[2] >= 0xa8 && at[2] <= 0xae)); /* U+2028 to U+202E */
	bool isolates = at[1] == 0x81 && at[2] >= 0xa6 && at[2] <= 0xa9;  /* U+2066 to U+2069 */
	return turns || isolates ? 3 : 0;
}

bool words_print_json(FILE *out, const cJSON *json)
{
	char *text = cJSON_PrintUnformatted(json);
	if (text == NULL)
		return false;
	const char *from = text, *at = text;
	for (; *at != '\0'; at++) {
		if ((unsigned char)*at < 0x7f)
			continue;
		size_t size = escaped_size((const unsigned char *)at);
		if (size == 0)
			continue;
		(void)fwrite(from, 1, (size_t)(at - from), out);
		(void)fprintf(out, "\\u%04x", character_value(at, size));
		from = at + size;
		at += size - 1;
	}
	(void)fwrite(from, 1, (size_t)(at - from), out);
	(void)fputc('\n', out);
	free(text);
	return true;
}

static int hex_digit(char digit)
{
	if (digit >= '0' && digit <= '9')
		return digit - '0';
	return digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : -1;
}

static char *from_hex(const char *hex, size_t *size)
{
	size_t digits = strlen(hex);
	char *bytes = digits % 2 == 0 ? malloc(digits / 2 + 1) : NULL;
	*size = digits / 2;
	for (size_t i = 0; bytes != NULL && i < *size; i++) {
		int high = hex_digit(hex[2 * i]), low = hex_digit(hex[2 * i + 1]);
		if (high < 0 || low < 0) {
			free(bytes);
			return NULL;
		}
		bytes[i] = (char)(high << 4 | low);
	}
	return bytes;
}

bool words_from_json(const cJSON *json, struct text *text, bool *blob, char **owned)
{
	*owned = NULL;
	*blob = false;
	if (cJSON_IsObject(json) && json->child != NULL && json->child->next == NULL) {
		const cJSON *member = json->child;
		*blob = strncmp(member->string, "blob", strlen("blob")) == 0;
		if (cJSON_IsString(member) && (strcmp(member->string, "text_hex") == 0 ||
		                               strcmp(member->string, "blob_hex") == 0)) {
			*owned = from_hex(member->valuestring, &text->size);
			text->bytes = *owned;
			return *owned != NULL;
		}
		json = strcmp(member->string, "blob") == 0 ? member : NULL;
	}
	if (!cJSON_IsString(json))
		return false;
	*text = (struct text){ json->valuestring, strlen(json->valuestring) };
	return true;
}
