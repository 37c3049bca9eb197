/* A record as the producer wrote it: one row of `interactions`, as plain data.
 *
 * Shared by the spool, which reads it, and the payload, which judges it; it
 * knows neither. Nothing here owns memory: every pointer is borrowed from
 * whoever filled the struct in.
 */
#ifndef SPOOL_RECORD_H
#define SPOOL_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes with a length. `bytes` NULL: the column is NULL. An empty string has a
 * pointer and size 0. May contain NUL and bytes that are not UTF-8. */
struct text {
	const char *bytes;
	size_t size;
};

/* An INTEGER column. SQLite lets a producer put anything there, so a value of
 * another type is told apart from none. */
enum number_state { NUMBER_ABSENT, NUMBER_SET, NUMBER_WRONG };

struct number {
	enum number_state state;
	int64_t value; /* meaningful when NUMBER_SET */
};

#define RECORD_UUID_SIZE 32 /* hex digits, without a terminating NUL */

struct record {
	int64_t id;
	struct text model_id, request_body, response_body, request_id;
	struct number request_at, response_at;
	struct text session;
	struct number session_timeout;
	struct text user_id;
	struct number is_authenticated;
	struct text first_name, last_name, email, phone, gender;
	struct text content_type, accept, request_extra;
	struct text app, format, type, key, uuid;
	struct number spooled_at;
};

/* What a record counts for against max_spool and max_record: the bytes of its
 * text columns, and a fixed sum for numbers, id and uuid. The triggers in
 * schema/spool.sql compute the same; a test compares the two. */
#define RECORD_FIXED_BYTES 128
int64_t record_bytes(const struct record *record);

/* Stands in the place of attempts of a record that was delivered and could not be deleted.
 * Negative, and of its uuid: a number that damage changed says that of no record. */
int64_t record_delivered_mark(struct text uuid);

#endif
