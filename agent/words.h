/* Texts of others for a terminal and for JSON, and numbers in few characters. Pure.
 *
 * What a producer wrote must neither be obeyed by a terminal nor break the line
 * that it stands in.
 */
#ifndef AGENT_WORDS_H
#define AGENT_WORDS_H

#include <cjson/cJSON.h>
#include <stdio.h>

#include "spool/record.h"

/* Writes `text` in exactly `width` columns and, where it does not fit, ends it with
 * "~". What a terminal would obey becomes "?", as does what is not UTF-8; a NULL
 * text reads "-". */
void words_cell(FILE *out, struct text text, int width);

/* Likewise the whole of it. */
void words_line(FILE *out, const char *text);

#define WORDS_SHORT 24

/* A span of time such as "59s", "5m", "23h", "999d", "6y"; "-" where it is below 0. */
const char *words_span(int64_t ms, char into[WORDS_SHORT]);

/* A number of bytes such as "307", "1.2K", "64M" (K = 1024). */
const char *words_bytes(int64_t bytes, char into[WORDS_SHORT]);

/* A text as JSON: a string where it is UTF-8 without NUL, else {"text_hex": "..."};
 * null for a NULL text. `blob`: {"blob": "..."} and {"blob_hex": "..."}, so that the
 * two can be told apart. NULL: no memory. */
cJSON *words_to_json(struct text text, bool blob);

/* Prints `json` on one line, with a line's end. cJSON leaves some characters as they are
 * that a terminal obeys (DEL, C1) or that turn the reading of a line round: these stand
 * escaped. False: no memory; what could not be written shows in ferror(). */
bool words_print_json(FILE *out, const cJSON *json);

/* The way back: decodes `json` into memory of its own (`*owned`, to be freed) where
 * that is needed, and tells whether it was a BLOB. False: it is none of the forms
 * above, or there is no memory. */
bool words_from_json(const cJSON *json, struct text *text, bool *blob, char **owned);

#endif
