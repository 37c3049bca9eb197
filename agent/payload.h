/* A record -> the JSON that is posted. Pure: no I/O, no clock, no allocation.
 *
 * Lossless by construction: texts that are JSON are embedded byte for byte,
 * after strict validation of the whole text (RFC 8259), so that none can break
 * out of its place; the request body of format bedrock is opaque text and
 * becomes a JSON string that decodes to exactly the bytes spooled. A NUL in any
 * text that becomes a JSON string is written as \u0000, for the same reason.
 */
#ifndef AGENT_PAYLOAD_H
#define AGENT_PAYLOAD_H

#include "spool/record.h"

/* What the payload holds beside the record: the reconify block. `version` NULL
 * means the built-in version for the record's format (payload_version). A key
 * without bytes is left out; keys and version are UTF-8, which is the
 * configuration's duty and is not judged here. All is borrowed for the duration
 * of the call. */
struct payload_frame {
	struct text app_key, api_key;
	const char *version;
};

/* Why a record can never be sent: a code word and one fixed sentence, neither
 * of which quotes the record. Static storage. */
struct payload_fault {
	const char *code;
	const char *sentence;
};

/* The built-in version of a format, e.g. "1.0.0" for bedrock, which a format
 * that is NULL means; "3.0.0" for one that is not known. Static storage. */
const char *payload_version(struct text format);

/* Why `record` can never be sent; NULL: it can. Everything is judged that the
 * table's triggers judge, since a producer may have written past them, but for
 * what takes a clock (seconds given for milliseconds) or the configuration
 * (max_record). The order is fixed: required columns, UTF-8, bodies,
 * request_extra, numbers, the user, uuid, what the format allows. */
const struct payload_fault *payload_judge(const struct record *record);

/* The size in bytes of the payload of a record that payload_judge() has passed. Like
 * snprintf(3), but without a NUL: the payload is there, in `out`, only where that
 * is no more than `room`. `out` may be NULL for a room of 0. */
size_t payload_write(const struct record *record, const struct payload_frame *frame,
                     char *out, size_t room);

#endif
