/* The spool: a durable queue of records in one SQLite file that producers
 * write to at the same time. Nothing above SQLite is known here.
 *
 * What is in flight is not written down: a record is read, and later its fate
 * is applied in one transaction with many others. Triggers never run on this
 * connection: whatever a producer planted in the file, no code of theirs acts
 * on the agent's reads and settles.
 *
 * A struct spool is used by one thread at a time.
 */
#ifndef SPOOL_SPOOL_H
#define SPOOL_SPOOL_H

#include <limits.h>

#include "spool/record.h"

enum spool_status {
	SPOOL_OK,
	SPOOL_END,        /* no such row, or no further one */
	SPOOL_BUSY,       /* another process holds the lock: try again soon */
	SPOOL_FULL,       /* the disk, or the quota, is full */
	SPOOL_IO,         /* the storage failed, or memory ran out: try again */
	SPOOL_DAMAGED,    /* SQLite says that the file is malformed */
	SPOOL_MISSING,    /* no such file */
	SPOOL_NO_FOLDER,  /* nor a folder to create it in */
	SPOOL_DENIED,     /* permission, or a read-only file system */
	SPOOL_FOREIGN,    /* a file, but not a spool of ours */
	SPOOL_NEWER,      /* written by a newer version of the program */
	SPOOL_TOO_BIG,    /* this row is larger than the limit given at opening */
	SPOOL_REFUSED     /* something that a program put into the file, or took out of it, keeps
	                     SQLite from doing this one thing; others may work */
};

/* Below every id. Producers' own are refused below 1, but may be there all the
 * same, written past the triggers. */
#define SPOOL_FIRST_ID INT64_MIN

/* A failure, in words: what happened, to which file, and what can be done.
 * Quotes no record. */
struct spool_error {
	enum spool_status status;
	char sentence[640];
};

struct spool;

/* Rows so much larger than max_record can still be looked at. */
#define SPOOL_ROW_SLACK (1 << 20)

enum spool_mode {
	SPOOL_READ,  /* look only; never creates, never migrates */
	SPOOL_WORK,  /* read and settle an existing spool; migrates an older one */
	SPOOL_CREATE /* likewise, and creates a missing one in an existing folder */
};

/* Opens the spool at `path`. `row_limit` is the largest row, in bytes, that
 * will be read. Returns NULL with `*error` filled in on failure; nothing is
 * changed then that was not asked for by `mode`. */
struct spool *spool_open(const char *path, enum spool_mode mode, int64_t row_limit,
                         struct spool_error *error);

/* Gives the files of the spool at `path`, those that are there, mode 0660 and, when
 * called by root, the owner and group of their folder. Only for a file that is known to
 * be a spool, and is not open in this process: a close here would drop SQLite's locks. */
enum spool_status spool_mend_access(const char *path, struct spool_error *error);

/* Closes and frees; NULL is allowed. */
void spool_close(struct spool *spool);

/* The sentence for the last failure of any call on `spool`. */
const struct spool_error *spool_last_error(const struct spool *spool);

/* True when the path no longer leads to the file that is open: it was moved,
 * deleted or replaced. `*orphaned` (may be NULL): the open file has no name any
 * more, so that what is in it can be had only through this connection. */
bool spool_was_replaced(const struct spool *spool, bool *orphaned);

/* Writes down the limits that the triggers enforce, where they differ, and reads rows
 * a little over `max_record` from now on. */
enum spool_status spool_set_limits(struct spool *spool, int64_t max_spool,
                                   int64_t max_record, bool drop_oldest);

/* --- Reading ------------------------------------------------------------ */

/* Between these two all reads see one state and cost no locking each. */
enum spool_status spool_begin_read(struct spool *spool);
void spool_end_read(struct spool *spool);

/* What decides whether a waiting row can be taken now. Borrowed until the next
 * call on `spool`. */
struct spool_place {
	int64_t id;
	struct text app, session; /* an app that is NULL reads as "default" */
};

/* Finds the first waiting row with `from` <= id <= `to`. SPOOL_END: none.
 * SPOOL_TOO_BIG: its app or session is above the row limit; `place->id` is its id.
 * SPOOL_DAMAGED: spool_pass_damage() finds where reading may go on. */
enum spool_status spool_next(struct spool *spool, int64_t from, int64_t to,
                             struct spool_place *place);

/* Likewise, and reads that row whole: dearer where it is to be passed over, cheaper
 * than a spool_load() after it. `*record` is borrowed until the next call but
 * spool_attempts(). Of a row that cannot be read, spool_next() says more. */
enum spool_status spool_next_record(struct spool *spool, int64_t from, int64_t to,
                                    struct record *record);

/* After SPOOL_DAMAGED at id `from`, of waiting rows or of dead letters: no row from there up
 * to `*next` - 1 can be read. SPOOL_END: nor any other up to `to`, and
 * `*next` means nothing. */
enum spool_status spool_pass_damage(struct spool *spool, bool dead, int64_t from, int64_t to,
                                    int64_t *next);

/* Reads one waiting row. `*record` is borrowed until the next call but
 * spool_attempts(). SPOOL_END: it is gone. SPOOL_TOO_BIG: it is larger than the row
 * limit. */
enum spool_status spool_load(struct spool *spool, int64_t id, struct record *record);

/* Of a row that was delivered, and could not be deleted for a damaged page. */
#define SPOOL_DELIVERED UINT_MAX

/* Attempts of a waiting record that failed so far by its own fault, as written down by
 * CHANGE_ATTEMPTS; 0 where none; or SPOOL_DELIVERED. */
enum spool_status spool_attempts(struct spool *spool, int64_t id, struct text uuid,
                                 unsigned *attempts);

/* --- Settling ----------------------------------------------------------- */

enum spool_change_kind {
	CHANGE_DELIVERED, /* the row leaves the spool, its key stays known for 24 h */
	CHANGE_DEAD,      /* the row moves to dead_letters, with a reason */
	CHANGE_REVIVED,   /* a dead letter waits again, under its own id and uuid, with no
	                     attempts; `refused`: another row has its id or key */
	CHANGE_DISCARDED, /* the row leaves the spool undelivered, and its key is free */
	CHANGE_PURGED,    /* likewise; counted by itself */
	CHANGE_EXPIRED,   /* a few of the dead letters that died before `before` are discarded,
	                     and overwritten; of a time that cannot be right it begins now */
	CHANGE_FORGOTTEN, /* a few of the receipts from before `before` go */
	CHANGE_ATTEMPTS,  /* a failure of the record's own is written down */
	CHANGE_NOTE       /* a line of the agent's own state: `name` = `value` */
};

/* One fate. Strings are borrowed for the call. */
struct spool_change {
	enum spool_change_kind kind;
	int64_t id;
	char uuid[RECORD_UUID_SIZE + 1]; /* must match the row's; "": by id alone */
	int64_t bytes;                   /* DELIVERED: record_bytes() of the row */
	bool keyed;                      /* DELIVERED: the row has a key */
	bool dead;                       /* DISCARDED, PURGED: a dead letter, else a waiting row */
	int64_t receipt_at;              /* DELIVERED: when, ms since 1970, for a receipt; 0: none
	                                    is kept */
	int64_t request_at;              /* DELIVERED: for the receipt; -1: none */
	int64_t before;                  /* EXPIRED, FORGOTTEN: ms since 1970 */
	int64_t taken;                   /* EXPIRED, FORGOTTEN, out: how many went */
	unsigned attempts;               /* DEAD, ATTEMPTS */
	const char *code, *sentence;     /* DEAD: the reason */
	int http_status;                 /* DEAD, DELIVERED: 0 where there was no answer */
	const char *server_said;         /* DEAD: the answer's beginning, or NULL */
	size_t server_said_size;
	const char *name, *value;        /* NOTE */
	bool missed;                     /* out: the row is gone, or another one now */
	bool refused;                    /* out: somebody's doing in the file keeps the row from
	                                    being moved or deleted; it stays where it is */
	bool damaged;                    /* out: refused, and the cause is a damaged page */
};

/* Applies `count` changes in one transaction: all or, on any failure, none. A
 * row that is gone or has become another (its producer deleted or replaced it)
 * is passed over: whoever removed it has counted it. `wall` is ms since 1970. Where a
 * page of the file is damaged, what needs it is `refused`, and all else is done, in as
 * many transactions as that takes.
 * On a full disk a ballast file beside the spool is given up for the room that
 * a settle needs. */
enum spool_status spool_apply(struct spool *spool, struct spool_change *changes,
                              size_t count, int64_t wall);

/* Settling makes the -wal grow, and copying it back takes as long as the disk takes to sync.
 * From now on that is left, for a while, to spool_tidy(). */
void spool_tidy_later(struct spool *spool);

/* Copies the -wal back where that is due, after one more commit, of a note; so it may wait for
 * the write lock, too, and give up the ballast. To be called when a settle was told to whoever
 * waits for it. NULL is allowed. */
void spool_tidy(struct spool *spool);

/* How long what is done with is kept, ms; INT64_MAX: for ever. */
struct spool_keep {
	int64_t dead, delivered;
};

struct spool_swept {
	int64_t dead, receipts; /* so many went */
	bool more;              /* and more are due */
	int64_t due;            /* when the next one will be, ms since 1970; INT64_MAX: none is there */
};

/* Discards a few dead letters and receipts that are older than `keep` says, in one short
 * transaction, by the clock `wall` (ms since 1970); only looks where none is. */
enum spool_status spool_sweep(struct spool *spool, const struct spool_keep *keep, int64_t wall,
                              struct spool_swept *swept);

/* True when spool_shrink() has something to give back. Cheap. */
bool spool_has_room(struct spool *spool);

/* Gives a little of the file's free space back to the file system, in one short
 * transaction; `*more`: there is more to give back. Some is kept for what comes. */
enum spool_status spool_shrink(struct spool *spool, bool *more);

/* --- Looking ------------------------------------------------------------ */

#define SPOOL_REASONS 24
#define SPOOL_CODE_SIZE 33

/* How many dead letters there are of one reason, by its code; "other": of codes that
 * are not the agent's, or too many. */
struct spool_reason {
	char code[SPOOL_CODE_SIZE];
	int64_t count;
};

struct spool_ledger {
	int64_t accepted, delivered, dead, discarded, dropped, purged, removed;
	int64_t bytes;         /* of waiting and dead rows, as the limit counts them */
	int64_t max_spool, max_record;
	bool drop_oldest;
	int64_t waiting;       /* rows counted where `counted`, else what the ledger leaves */
	int64_t dead_counted;  /* rows in dead_letters, likewise */
	bool counted;          /* the rows were counted; false: too many for `patience`, or damaged */
	bool damaged;          /* the rows could not be counted, since the file is damaged */
	bool balanced;         /* the sum is right, and so are the counts where counted */
	int64_t oldest_at;     /* spooled_at of the first waiting row, -1: none */
	int64_t last_id;       /* of the last waiting row, SPOOL_FIRST_ID: none; INT64_MAX: a
	                          damaged page hides it */
	struct spool_reason reasons[SPOOL_REASONS]; /* of dead letters, the most frequent first */
	size_t reason_count;
	bool reasons_counted;  /* false: too many for `patience`; reason_count is 0 */
};

/* Reads the ledger, and counts rows for at most `patience` ms; negative: not at all.
 * SPOOL_DAMAGED: the counters cannot be read; last_id is filled in all the same. */
enum spool_status spool_read_ledger(struct spool *spool, int patience,
                                    struct spool_ledger *ledger);

/* Reads the ledger's counters alone, which costs next to nothing; `counted` is false. */
enum spool_status spool_read_counters(struct spool *spool, struct spool_ledger *ledger);

/* Counts dead letters by reason, for at most `patience` ms, into `ledger`. */
void spool_count_reasons(struct spool *spool, int patience, struct spool_ledger *ledger);

/* Reads a dead letter; SPOOL_END: none of that id. Borrowed until the next
 * call. `*reason` and `*server_said` likewise. */
enum spool_status spool_load_dead(struct spool *spool, int64_t id, struct record *record,
                                  struct text *reason, struct text *server_said);

/* The agent's own state line `name`, malloc'd, or NULL where there is none. */
char *spool_note(struct spool *spool, const char *name);

/* Likewise, into `*value`, where it matters whether there is none or reading failed. */
enum spool_status spool_read_note(struct spool *spool, const char *name, char **value);

/* Calls `found` with a sentence for each thing that is wrong inside the file:
 * SQLite's quick_check, tables, triggers or columns that are not the schema's.
 * Reads the whole file. */
enum spool_status spool_examine(struct spool *spool,
                                void (*found)(void *context, const char *sentence),
                                void *context);

/* The schema as SQL text; and the SQLite in use: its version, and whether that
 * has the fix for the WAL-reset fault. Static storage. */
const char *spool_schema(void);
const char *spool_sqlite_version(void);
bool spool_sqlite_has_wal_reset_fix(void);

#endif
