/* What the files of spool/ share; nobody else includes this. */
#ifndef SPOOL_INTERNAL_H
#define SPOOL_INTERNAL_H

#include <sqlite3.h>
#include <time.h>

#include "spool/spool.h"

/* WAL frames after which the agent copies them back: well under the 1000 at
 * which a producer's own command line would stop to do it. */
#define CHECKPOINT_FRAMES 400
/* Pages that one step of shrinking gives back, and that are left alone. */
#define SHRINK_STEP "64"
#define SHRINK_KEEP 1024

enum query {
	BEGIN_READ,
	BEGIN_WRITE,
	COMMIT,
	ROLLBACK,
	NEXT,
	NEXT_RECORD,
	NEXT_ID,
	NEXT_DEAD_ID,
	LOAD,
	LOAD_DEAD,
	ATTEMPTS,
	ANY_ATTEMPTS,
	REMEMBER_KEY,
	FORGET_OLD_KEYS,
	REMOVE,
	REMOVE_RUN,
	BURY,
	BURY_UNDER_NEW_ID,
	HOLD_KEY,
	REVIVE,
	RELEASE_KEY,
	RELEASE_WAITING_KEY,
	REMOVE_DEAD,
	SET_ATTEMPTS,
	FORGET_ATTEMPTS,
	SET_NOTE,
	GET_NOTE,
	COUNT_FATES,
	SET_LIMITS,
	ADD_RECEIPT,
	OLDEST_DEAD,
	UNTIMED_DEAD,
	TIME_DEAD,
	NEXT_EXPIRED,
	OLDEST_RECEIPT,
	FORGET_RECEIPTS,
	RECEIPTS,
	FIND_RECEIPT,
	FIND_UUID,
	FIND_DEAD_UUID,
	FREE_PAGES,
	SHRINK,
	LEDGER,
	OLDEST,
	LAST,
	LAST_DEAD,
	IMPORT_KNOWN,
	IMPORT_WAITING,
	IMPORT_DEAD,
	IMPORT_KEY_TAKEN,
	IMPORT_ROOM,
	IMPORT_COUNT_DEAD,
	IMPORT_HOLD_KEY,
	IMPORT_SEQUENCE,
	IMPORT_FIRST_SEQUENCE,
	IMPORT_REMEMBER,
	FIND,
	FIND_DEAD,
	QUERY_COUNT
};

struct spool {
	sqlite3 *db;
	sqlite3_stmt *statements[QUERY_COUNT];
	char *path;
	int row_limit;
	struct shm_methods *shm; /* of `db`; or NULL */
	int file;               /* O_PATH: knows the file without touching SQLite's locks */
	int wal_frames;         /* after the last commit of our own; 0: all was copied back since */
	bool wrote;             /* something, the last transaction or step of our own */
	int checkpoint_frames;  /* where the next checkpoint is due */
	bool tidies_later;      /* and then it is left, for a while, to spool_tidy() */
	bool ballast;           /* the ballast file is there */
	enum query scanning;    /* NEXT or NEXT_RECORD is half stepped; QUERY_COUNT: neither; */
	int64_t scanned, limit; /* up to this id, towards that one */
	bool no_attempts;       /* in the read transaction under way: none are written down */
	struct spool_change **run; /* those whose rows are being removed, by id; */
	size_t run_count;          /* so many */
	int64_t found_from;     /* no id below it is due */
	sqlite3_stmt *found;    /* FIND or FIND_DEAD, half stepped; or NULL */
	int64_t keys_swept_at;
	/* Monotonic seconds. */
	int64_t disk_patience;  /* how long what the disk does not give is waited for */
	int64_t failed_since, failed_last; /* 0: never */
	struct spool_error error;
};

/* From now on mapping the -shm of `db` fails with SQLITE_FULL where the disk has no room
 * for all of it, and does not end the process later. Owned by the caller, who frees it when
 * `db` is closed. NULL: it stays as SQLite has it. */
struct shm_methods *shm_guard(sqlite3 *db);

/* Writes a failure's sentence. */
void spool_say(struct spool_error *error, enum spool_status status, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

/* The sentence for what SQLite answered about the file at `path`; its status. */
enum spool_status spool_explain(struct spool_error *error, const char *path, sqlite3 *db,
                                int rc);

/* Likewise, as the last error of `spool`. */
enum spool_status spool_fail(struct spool *spool, int rc);

/* The statement, prepared on first use, reset; NULL on failure. */
sqlite3_stmt *spool_statement(struct spool *spool, enum query query);

/* Runs a bound statement that returns no rows. */
enum spool_status spool_finish(struct spool *spool, sqlite3_stmt *bound);
enum spool_status spool_run(struct spool *spool, enum query query);

/* Begins a transaction, BEGIN_READ or BEGIN_WRITE; one that could not be ended is given up. */
enum spool_status spool_begin(struct spool *spool, enum query query);

/* Binds a value, whose bytes are borrowed until the statement is bound anew. */
struct spool_value;
void spool_bind_value(sqlite3_stmt *row, int place, const struct spool_value *value);

/* A row by its id, read into `record`; `*row` is left on it. */
enum spool_status spool_load_row(struct spool *spool, enum query query, int64_t id,
                                 struct record *record, sqlite3_stmt **row);

struct text spool_column_text(sqlite3_stmt *row, int column);
struct number spool_column_number(sqlite3_stmt *row, int column);

/* The record in the first columns of a row. */
void spool_read_record(sqlite3_stmt *row, struct record *record);

/* One number, or `otherwise` where there is no row or it is NULL. */
enum spool_status spool_one_number(struct spool *spool, enum query query, int64_t otherwise,
                                   int64_t *value);

/* True for one of an earlier version's schema, which only SPOOL_READ leaves as it is. */
bool spool_is_older(struct spool *spool);

/* Calls `found` for each table, index, trigger or view that is not the schema's, or is
 * missing. */
enum spool_status spool_compare_schema(struct spool *spool,
                                       void (*found)(void *context, const char *sentence),
                                       void *context);

/* Rows that one transaction of a sweep takes, at most, and about how many bytes. */
#define SWEEP_ROWS 64
#define SWEEP_BYTES (1 << 20)
#define SWEEP_RECEIPTS "512"

/* What a settle does for sweep.c's tables, within its own transaction. SPOOL_END: no dead
 * letter died before that time. */
enum spool_status spool_add_receipt(struct spool *spool, const struct spool_change *change);
enum spool_status spool_forget_receipts(struct spool *spool, struct spool_change *change);
enum spool_status spool_time_dead(struct spool *spool, int64_t wall);
enum spool_status spool_next_expired(struct spool *spool, int64_t before, int64_t *id);

/* The folder that `path` is in. */
void spool_folder_of(const char *path, char into[PATH_MAX]);

/* Creates an empty file at `path`, if there is none, with a spool's owner and mode. */
enum spool_status spool_create_file(const char *path, struct spool_error *error);

/* What a salvage writes into byte 18 of the file that it is about to set aside: SQLite
 * takes no write to it any more, by whatever name a program has it open. */
#define SEAL_AT 18
#define SEAL 'S'
#define SEAL_NONE 2 /* SQLite writes to a file with this, or less */

/* The moment in so many ms, by a clock that nobody sets; and whether one has come. */
struct timespec spool_deadline(int ms);
bool spool_is_past(const struct timespec *end);

/* Locks are waited for as spool_open() has it. */
void spool_restore_patience(struct spool *spool);

/* The function of SQL that knows, while they are removed, which rows were delivered. SQLite
 * lets nobody call it who only wrote its name into the file. */
#define SPOOL_IS_DELIVERED "reconify_is_delivered"
int spool_know_delivered(struct spool *spool);

/* Copies the -wal back where it has grown; only after a commit of one's own. */
void spool_checkpoint_if_due(struct spool *spool);

/* Some room on the disk that a settle can have when there is no other. */
void spool_take_ballast(struct spool *spool);
bool spool_drop_ballast(struct spool *spool);

#endif
