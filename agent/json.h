/* Strict judgement of JSON and UTF-8, for texts that are embedded unparsed.
 *
 * Why not a library: cJSON accepts control characters and malformed numbers
 * and reads numbers through a double; SQLite's json_valid stops at a NUL and
 * takes invalid UTF-8. A text that is spliced into a larger one must be judged
 * whole, by the letter of RFC 8259, or it can break out of its place.
 */
#ifndef AGENT_JSON_H
#define AGENT_JSON_H

#include <stdbool.h>
#include <stddef.h>

/* Deepest nesting accepted; what is deeper is refused, not overflowed. */
#define JSON_DEPTH_MAX 2000

enum json_kind { JSON_INVALID, JSON_OBJECT, JSON_ARRAY, JSON_STRING, JSON_NUMBER, JSON_WORD };

/* The kind of the one value that `text` is (white space around it allowed), or
 * JSON_INVALID where the text is not exactly one JSON value by RFC 8259 in
 * valid UTF-8 (RFC 3629), or is nested deeper than JSON_DEPTH_MAX. A byte order
 * mark and a NUL are invalid; an escaped lone surrogate is valid. */
enum json_kind json_check(const char *text, size_t size);

/* True when `text` is valid UTF-8 by RFC 3629: no overlong forms, no encoded
 * surrogates, nothing above U+10FFFF. NUL is valid. So is an empty text. */
bool json_is_utf8(const char *text, size_t size);

#endif
