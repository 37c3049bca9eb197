/* What a record weighs against the spool's limits, and the mark of one that was delivered.
 *
 * The weight must agree with the sum in the triggers of schema/spool.sql to the byte:
 * what an insert adds to the ledger is what settling takes away again.
 */
#include "spool/record.h"

int64_t record_bytes(const struct record *record)
{
	const struct text *texts[] = {
		&record->model_id, &record->request_body, &record->response_body,
		&record->request_id, &record->session, &record->user_id, &record->first_name,
		&record->last_name, &record->email, &record->phone, &record->gender,
		&record->content_type, &record->accept, &record->request_extra, &record->app,
		&record->format, &record->type, &record->key,
	};
	int64_t bytes = RECORD_FIXED_BYTES;

	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
		if (texts[i]->bytes)
			bytes += (int64_t)texts[i]->size;
	return bytes;
}

int64_t record_delivered_mark(struct text uuid)
{
	/* FNV-1a (draft-eastlake-fnv) */
	uint64_t hash = 14695981039346656037ULL;

	for (size_t i = 0; i < uuid.size; i++)
		hash = (hash ^ (unsigned char)uuid.bytes[i]) * 1099511628211ULL;
	return -(int64_t)(hash >> 1) - 1;
}
