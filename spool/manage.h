/* What a person does to the records of a spool beside the agent: finds them, and
 * brings records of another spool in. What takes them away, or lets a dead letter
 * wait again, is a fate like any other: see spool_apply() in spool.h.
 *
 * All of it is done in short transactions, so that nobody waits for a person.
 */
#ifndef SPOOL_MANAGE_H
#define SPOOL_MANAGE_H

#include "spool/spool.h"

/* Which records are meant; texts are compared as bytes, NULL: any. Borrowed. */
struct spool_filter {
	const char *app, *session;
	const char *user;   /* in user_id or in email */
	const char *reason; /* the code of a dead letter's reason, or all of it */
	int64_t before;     /* inserted before this time, ms since 1970; INT64_MAX: any */
};

enum spool_value_kind { VALUE_NULL, VALUE_INTEGER, VALUE_REAL, VALUE_TEXT, VALUE_BLOB };

/* A column as SQLite has it. */
struct spool_value {
	enum spool_value_kind kind;
	int64_t integer;
	double real;
	struct text text; /* VALUE_TEXT, VALUE_BLOB */
};

/* The columns in their order: those of a waiting row, then those that only a dead
 * letter has. */
#define SPOOL_COLUMNS 25
#define SPOOL_DEAD_COLUMNS 30
extern const char *const spool_column_names[SPOOL_DEAD_COLUMNS];

/* A record that was found, borrowed until the next call on the spool. */
struct spool_found {
	struct record record;
	int64_t bytes; /* what it counts for */
	struct text reason, server_said;             /* of a dead letter, else NULL */
	struct number http_status, attempts, died_at;
};

/* The records with `from` <= id <= `to`, by id: begin, next until it is SPOOL_END
 * or fails, end. Between begin and end all is of one moment, and other programs'
 * commits pile up in the -wal: stay for a few hundred records only. */
enum spool_status spool_find_begin(struct spool *spool, bool dead,
                                   const struct spool_filter *filter, int64_t from, int64_t to);
enum spool_status spool_find_next(struct spool *spool, struct spool_found *found);
void spool_find_end(struct spool *spool);

/* A column of the record that spool_find_next() gave last, likewise borrowed. */
struct spool_value spool_found_value(struct spool *spool, int column);

/* What is kept of a delivered record where [spool] keep_delivered asks for it. */
struct spool_receipt {
	int64_t delivered_at; /* ms since 1970 */
	int64_t id;
	char uuid[RECORD_UUID_SIZE + 1];
	struct number request_at;
	int64_t bytes; /* what the record counted for */
	int http_status;
};

/* At most `room` receipts, by the time of delivery, behind `after` (NULL: from the
 * first on). `*count` 0: there are no more. */
enum spool_status spool_receipts(struct spool *spool, const struct spool_receipt *after,
                                 struct spool_receipt *receipts, size_t room, size_t *count);

/* The last receipt of a record, by its uuid or, where that is NULL, by its id.
 * SPOOL_END: none. */
enum spool_status spool_find_receipt(struct spool *spool, int64_t id, const char *uuid,
                                     struct spool_receipt *receipt);

/* The id of a waiting row or dead letter by its uuid; looks at all of them. SPOOL_END:
 * none. */
enum spool_status spool_find_uuid(struct spool *spool, const char *uuid, int64_t *id);

/* Whether what is deleted on this connection from now on is overwritten with zeros. */
enum spool_status spool_overwrite(struct spool *spool, bool wanted);

/* Copies all of the -wal back and cuts it to nothing, so that what was deleted is in
 * none of the spool's files any more. `wall` is ms since 1970; at most `patience` ms,
 * in which inserts wait, too. SPOOL_BUSY: a reader or writer did not give way. */
enum spool_status spool_empty_log(struct spool *spool, int64_t wall, int patience);

/* The id of the last waiting row, or dead letter; SPOOL_FIRST_ID: none. INT64_MAX where a
 * damaged page hides it. */
enum spool_status spool_last(struct spool *spool, bool dead, int64_t *id);

/* --- Import ------------------------------------------------------------- */

/* From now on this connection inserts as a producer does: the file's triggers judge
 * and count. For nothing but an import. */
enum spool_status spool_import_start(struct spool *spool);

/* One transaction, for a few hundred records. SPOOL_REFUSED: the file's tables or
 * triggers are not the schema's, and none of them was run. */
enum spool_status spool_import_begin(struct spool *spool);
enum spool_status spool_import_commit(struct spool *spool);
void spool_import_abort(struct spool *spool);

enum spool_imported {
	IMPORT_ADDED,
	IMPORT_KNOWN_ALREADY, /* its uuid waits, is a dead letter, was imported before, or has a
	                         receipt */
	IMPORT_REFUSED        /* by a rule, which spool_last_error() says; others may go in */
};

/* What an insert into a full spool is refused with. */
#define SPOOL_FULL_SENTENCE                                                                  \
	"the spool is full (max_spool), and the record was not accepted: see reconify-agent status"

/* One record, as a waiting row or a dead letter, under an id of its own in this spool.
 * `values` has SPOOL_DEAD_COLUMNS places; its id is not looked at. */
enum spool_status spool_import_record(struct spool *spool, bool dead,
                                      const struct spool_value *values,
                                      enum spool_imported *outcome);

#endif
