/* What the fuzz targets share. Each target is one function that takes any bytes and
 * aborts when a promise does not hold; libFuzzer calls it (make fuzz), and so does
 * tests/unit/test_fuzz.c with the kept corpus (make test).
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int fuzz_config(const uint8_t *data, size_t size);
int fuzz_json(const uint8_t *data, size_t size);
int fuzz_payload(const uint8_t *data, size_t size);
int fuzz_policy(const uint8_t *data, size_t size);
int fuzz_report(const uint8_t *data, size_t size);
int fuzz_retry_after(const uint8_t *data, size_t size);
int fuzz_salvage(const uint8_t *data, size_t size);
int fuzz_sink(const uint8_t *data, size_t size);
int fuzz_spool(const uint8_t *data, size_t size);
int fuzz_transfer(const uint8_t *data, size_t size);

/* A promise: where it does not hold, the input is a finding. */
#define HOLDS(condition)                                                                  \
	do {                                                                                  \
		if (!(condition)) {                                                               \
			(void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__,       \
			              #condition);                                                    \
			abort();                                                                      \
		}                                                                                 \
	} while (0)

/* The bytes as a C string, up to the first NUL; malloc'd. */
char *fuzz_text(const uint8_t *data, size_t size);

/* --- Taking an input apart ----------------------------------------------- */

struct input {
	const uint8_t *at, *end;
};

/* The next byte, 0 behind the end. */
unsigned take_byte(struct input *input);

/* `count` bytes as a number, most significant first; the end counts as zeros. */
uint64_t take_number(struct input *input, int count);

/* The next line without its newline, malloc'd with a NUL behind it. */
char *take_line(struct input *input, size_t *size);

/* --- JSON, judged by somebody else ---------------------------------------- */

/* A second reading of RFC 8259, RFC 3629 and of our own limit of depth: recursive, by
 * code points, and with strings decoded; it shares no line with agent/json.c. */

struct slice {
	const char *at;
	size_t size;
};

enum oracle_kind { ORACLE_NONE, ORACLE_OBJECT, ORACLE_ARRAY, ORACLE_STRING, ORACLE_OTHER };

enum oracle_kind oracle_json(struct slice text);
bool oracle_utf8(struct slice text);

/* The `n`-th member of an object, from 0: its name decoded (malloc'd), and all that
 * stands between its colon and the next comma or brace, white space included. False:
 * it has fewer. */
bool oracle_member(struct slice object, size_t n, char **name, size_t *name_size,
                   struct slice *value);

/* The value of the only member called `name`; false: none, or several. */
bool oracle_find(struct slice object, const char *name, struct slice *value);

/* A string's bytes, malloc'd. A lone surrogate becomes three bytes that are no UTF-8. */
char *oracle_decode(struct slice string, size_t *size);

/* --- Folders --------------------------------------------------------------- */

/* A folder of one's own in memory where there is any (/dev/shm), else below TMPDIR.
 * It is removed with all that is in it by fuzz_remove_folder(). */
void fuzz_make_folder(char path[64]);
void fuzz_remove_folder(const char *path);

#endif
