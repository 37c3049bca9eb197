/* Each call that SQLite makes to the storage fails once, and from then on, beneath the
 * agent's own spool code: reads, writes (whole and torn), syncs, truncations, openings,
 * sizes, deletions, locks, questions whether a file is there, and the map of -shm. The
 * loop ends when there was none left to fail.
 *
 * While it fails, every call of spool.h comes back with a status and a sentence; when the
 * storage works again, all that was accepted is there or was delivered, as it was inserted,
 * and the ledger adds up. Nobody has to repair anything.
 *
 *   storage_errors --seed N --points N --budget SECONDS --mode VARIANT
 *
 * Variants: 0 an error once, 1 from then on, 2 a full disk once, 3 from then on; without the
 * option all four. Prints one line of JSON.
 */
#include <sqlite3.h>
#include <unistd.h>

#include "spool/internal.h"
#include "spool/manage.h"
#include "tests/torture/shim.h"
#include "tests/torture/tally.h"

#define WALL INT64_C(1700000000000)
#define LIMIT (1 << 20)
#define ROUNDS 14
#define EACH 30
#define ROWS (ROUNDS * EACH)
/* So many are delivered and settled in one call. What was delivered and is still there in
 * the end would come again: the changes of one call that failed, for the next call takes the
 * same rows first, and each call is whole or undone. */
#define SETTLED_MAX 20

struct life {
	struct tally *tally;
	char folder[128], path[160];
	/* The fault. */
	uint64_t point;
	bool for_ever, full, torn;
	bool armed;  /* within the agent's calls alone */
	uint64_t calls;
	bool struck;
	/* What is known. */
	struct spool *spool;
	sqlite3 *producer;
	int64_t inserted;
	bool confirmed[ROWS + 1]; /* by id */
	bool blamed;
};

__attribute__((format(printf, 2, 3)))
static void blame(struct life *life, const char *format, ...)
{
	char text[170];
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	if (!life->blamed)
		tally_fail(life->tally, "point %" PRIu64 "%s%s: %s", life->point,
		           life->for_ever ? ", from then on" : "", life->full ? ", full" : "", text);
	life->blamed = true;
}

static int strike(void *self, struct shim_event *event)
{
	static const int codes[SHIM_CALLS] = {
		[SHIM_OPEN] = SQLITE_CANTOPEN, [SHIM_READ] = SQLITE_IOERR_READ,
		[SHIM_WRITE] = SQLITE_IOERR_WRITE, [SHIM_TRUNCATE] = SQLITE_IOERR_TRUNCATE,
		[SHIM_SYNC] = SQLITE_IOERR_FSYNC, [SHIM_DELETE] = SQLITE_IOERR_DELETE,
		[SHIM_SIZE] = SQLITE_IOERR_FSTAT, [SHIM_SHM_MAP] = SQLITE_IOERR_SHMMAP,
		[SHIM_SHM_LOCK] = SQLITE_IOERR_SHMLOCK, [SHIM_LOCK] = SQLITE_IOERR_LOCK,
		[SHIM_RESERVED] = SQLITE_IOERR_CHECKRESERVEDLOCK, [SHIM_ACCESS] = SQLITE_IOERR_ACCESS
	};
	struct life *life = self;
	bool room = event->call == SHIM_WRITE || event->call == SHIM_SHM_MAP ||
	            (event->call == SHIM_OPEN && event->missing);
	if (!life->armed || (life->full && !room))
		return SQLITE_OK;
	life->calls++;
	if (life->for_ever ? life->calls < life->point : life->calls != life->point)
		return SQLITE_OK;
	life->struck = true;
	if (event->call == SHIM_WRITE && life->torn)
		event->torn = event->size / 2;
	/* As the unix VFS says it; but from then on each call would wait in vain for 10 s. */
	if (event->call == SHIM_SHM_LOCK && life->torn && !life->for_ever)
		return SQLITE_BUSY;
	return life->full && event->call != SHIM_OPEN ? SQLITE_FULL : codes[event->call];
}

static enum spool_status checked(struct life *life, enum spool_status status, const char *what)
{
	if (status == SPOOL_OK || status == SPOOL_END)
		return status;
	const struct spool_error *error = spool_last_error(life->spool);
	if (error->status != status || strstr(error->sentence, life->path) == NULL)
		blame(life, "%s fails without a sentence about the file", what);
	if (!life->struck && status != SPOOL_BUSY)
		blame(life, "%s fails by itself: %.90s", what, error->sentence);
	return status;
}

/* --- What the agent does, each of it able to fail -------------------------- */

static bool open_agent(struct life *life)
{
	struct spool_error error;
	if (life->spool != NULL)
		return true;
	life->spool = spool_open(life->path, SPOOL_CREATE, LIMIT, &error);
	if (life->spool == NULL && (error.status == SPOOL_OK || strstr(error.sentence, life->path) == NULL))
		blame(life, "opening fails without a sentence about the file");
	if (life->spool == NULL && (error.status == SPOOL_FOREIGN || error.status == SPOOL_NEWER))
		blame(life, "a failing disk is taken for a foreign file: %.80s", error.sentence);
	if (life->spool == NULL && !life->struck)
		blame(life, "does not open: %.100s", error.sentence);
	return life->spool != NULL;
}

static void body_of(int64_t id, char into[400])
{
	(void)snprintf(into, 400, "%" PRId64 ":%0*d", id, (int)(id * 37 % 380), 7);
}

/* True when the record is as it was inserted. */
static bool is_itself(const struct record *record)
{
	char wanted[400];
	body_of(record->id, wanted);
	return record->request_body.size == strlen(wanted) &&
	       memcmp(record->request_body.bytes, wanted, strlen(wanted)) == 0;
}

static void settle(struct life *life, size_t most)
{
	struct spool_change changes[EACH * 2 + 1];
	struct record record;
	size_t count = 0;
	int64_t from = SPOOL_FIRST_ID;
	enum spool_status status = checked(life, spool_begin_read(life->spool), "begin_read");
	while (status == SPOOL_OK && count < most) {
		unsigned attempts;
		status = checked(life, spool_next_record(life->spool, from, INT64_MAX, &record), "next");
		if (status != SPOOL_OK)
			break;
		if (!is_itself(&record)) {
			life->tally->altered++;
			blame(life, "record %" PRId64 " is altered", record.id);
			break;
		}
		from = record.id + 1;
		struct spool_change *change = &changes[count];
		*change = (struct spool_change){ .id = record.id, .bytes = record_bytes(&record),
			                         .keyed = record.key.bytes != NULL };
		change->kind = record.id % 11 == 0 ? CHANGE_DEAD : record.id % 7 == 0 ? CHANGE_ATTEMPTS
		                                                                      : CHANGE_DELIVERED;
		change->code = "rejected";
		change->sentence = "a sentence";
		memcpy(change->uuid, record.uuid.bytes, RECORD_UUID_SIZE);
		status = checked(life, spool_attempts(life->spool, record.id, record.uuid, &attempts), "attempts");
		if (status != SPOOL_OK)
			break;
		change->attempts = attempts + 1;
		if (change->kind == CHANGE_ATTEMPTS && attempts > 0)
			change->kind = CHANGE_DELIVERED;
		if (change->kind == CHANGE_DELIVERED)
			life->confirmed[record.id] = true;
		count++;
	}
	spool_end_read(life->spool);
	changes[count++] = (struct spool_change){ .kind = CHANGE_NOTE, .name = "state", .value = "up" };
	if (checked(life, spool_apply(life->spool, changes, count, WALL), "apply") != SPOOL_OK)
		return;
	for (size_t i = 0; i < count; i++)
		if (changes[i].refused)
			blame(life, "a change of record %" PRId64 " is refused", changes[i].id);
}

static void revive_one(struct life *life)
{
	struct spool_filter filter = { .before = INT64_MAX };
	struct spool_found found;
	int64_t id = 0;
	if (checked(life, spool_find_begin(life->spool, true, &filter, SPOOL_FIRST_ID, INT64_MAX),
	            "find") == SPOOL_OK &&
	    checked(life, spool_find_next(life->spool, &found), "find_next") == SPOOL_OK)
		id = found.record.id;
	spool_find_end(life->spool);
	struct spool_change change = { .kind = CHANGE_REVIVED, .id = id };
	if (id != 0)
		(void)checked(life, spool_apply(life->spool, &change, 1, WALL), "revive");
}

static void look(struct life *life)
{
	struct spool_ledger ledger;
	bool more;
	if (checked(life, spool_read_ledger(life->spool, 1000, &ledger), "ledger") == SPOOL_OK &&
	    ledger.counted && !ledger.balanced)
		blame(life, "the ledger does not add up");
	(void)spool_has_room(life->spool);
	(void)checked(life, spool_shrink(life->spool, &more), "shrink");
	(void)checked(life, spool_set_limits(life->spool, ledger.max_spool % 2 ? 1 << 29 : 1 << 30, LIMIT,
	                                     false), "limits");
	free(spool_note(life->spool, "state"));
}

static void insert(struct life *life)
{
	sqlite3_stmt *statement = NULL;
	if (life->producer == NULL && sqlite3_open(life->path, &life->producer) != SQLITE_OK) {
		blame(life, "a producer cannot open it: %s", sqlite3_errmsg(life->producer));
		return;
	}
	(void)sqlite3_busy_timeout(life->producer, 1000);
	int rc = sqlite3_prepare_v2(life->producer, "INSERT INTO interactions (model_id, request_body, "
	                            "response_body, key) VALUES ('m', ?1, '{}', ?2)", -1, &statement,
	                            NULL);
	for (int i = 0; i < EACH && (rc == SQLITE_OK || rc == SQLITE_DONE); i++) {
		char body[400], key[32];
		int64_t id = life->inserted + 1;
		body_of(id, body);
		(void)snprintf(key, sizeof key, "k%" PRId64, id);
		(void)sqlite3_bind_text(statement, 1, body, -1, SQLITE_TRANSIENT);
		(void)sqlite3_bind_null(statement, 2);
		if (id % 5 == 0)
			(void)sqlite3_bind_text(statement, 2, key, -1, SQLITE_TRANSIENT);
		rc = sqlite3_step(statement);
		(void)sqlite3_reset(statement);
		if (rc == SQLITE_DONE)
			life->inserted = id;
	}
	if (rc != SQLITE_DONE)
		blame(life, "a producer is refused: %s", sqlite3_errmsg(life->producer));
	(void)sqlite3_finalize(statement);
}

static void work(struct life *life, int round)
{
	life->armed = true;
	if (open_agent(life)) {
		settle(life, SETTLED_MAX);
		if (round % 3 == 1)
			revive_one(life);
		look(life);
		if (round % 5 == 2)
			(void)spool_empty_log(life->spool, WALL, 0); /* a producer may be in the way */
		if (round % 4 == 3) {
			spool_close(life->spool);
			life->spool = NULL;
		}
	}
	life->armed = false;
}

/* --- The judge ---------------------------------------------------------- */

static int is_ok(void *ok, int columns, char **values, char **names)
{
	(void)names;
	*(bool *)ok = columns == 1 && values[0] != NULL && strcmp(values[0], "ok") == 0;
	return 0;
}

static void judge(struct life *life)
{
	bool here[ROWS + 1] = { false }, ok = false;
	struct spool_ledger ledger;
	struct record record;
	struct spool_found found;
	struct spool_filter filter = { .before = INT64_MAX };
	int64_t from = SPOOL_FIRST_ID;
	uint64_t again = 0;
	life->struck = false;
	if (!open_agent(life))
		return;
	if (sqlite3_exec(life->spool->db, "PRAGMA integrity_check", is_ok, &ok, NULL) != SQLITE_OK || !ok)
		blame(life, "integrity_check: %.100s", sqlite3_errmsg(life->spool->db));
	(void)checked(life, spool_begin_read(life->spool), "begin_read");
	while (checked(life, spool_next_record(life->spool, from, INT64_MAX, &record), "next") ==
	       SPOOL_OK) {
		if (!is_itself(&record)) {
			life->tally->altered++;
			blame(life, "record %" PRId64 " is altered", record.id);
		} else {
			here[record.id] = true;
		}
		from = record.id + 1;
	}
	spool_end_read(life->spool);
	(void)checked(life, spool_find_begin(life->spool, true, &filter, SPOOL_FIRST_ID, INT64_MAX), "find");
	while (checked(life, spool_find_next(life->spool, &found), "find_next") == SPOOL_OK) {
		if (!is_itself(&found.record) || here[found.record.id])
			blame(life, "dead letter %" PRId64 " is altered, or there twice", found.record.id);
		else
			here[found.record.id] = true;
	}
	spool_find_end(life->spool);
	for (int64_t id = 1; id <= life->inserted; id++) {
		if (!here[id] && !life->confirmed[id]) {
			life->tally->lost++;
			blame(life, "record %" PRId64 " is lost", id);
		}
		again += here[id] && life->confirmed[id];
	}
	if (again > life->tally->extra)
		life->tally->extra = again;
	if (again > SETTLED_MAX)
		blame(life, "%" PRIu64 " would be delivered again, %d may", again, SETTLED_MAX);
	if (checked(life, spool_read_ledger(life->spool, 1000, &ledger), "ledger") != SPOOL_OK ||
	    !ledger.balanced)
		blame(life, "the ledger does not add up in the end");
}

/* True when the fault was met. `calls`: how many there were that it could have befallen. */
static bool one_life(struct tally *tally, const struct tally_options *options, uint64_t point,
                     int variant, uint64_t *calls)
{
	static const char *const endings[] = { "", "-wal", "-shm", "-journal", "-agent.ballast" };
	struct life *life = calloc(1, sizeof *life);
	if (life == NULL)
		exit(71);
	life->tally = tally;
	life->point = point;
	life->for_ever = variant % 2 == 1;
	life->full = variant >= 2;
	life->torn = point % 2 == 0;
	(void)snprintf(life->folder, sizeof life->folder, "%.90s/io-XXXXXX", options->folder);
	if (mkdtemp(life->folder) == NULL || !shim_install(strike, life)) {
		perror(life->folder);
		exit(74);
	}
	(void)snprintf(life->path, sizeof life->path, "%s/spool.db", life->folder);
	bool struck = false;
	for (int round = 0; round < ROUNDS && !life->blamed; round++) {
		work(life, round);
		struck = struck || life->struck;
		if (round == 0 && life->spool == NULL) {
			/* Producers need a spool: it is made once the disk works. */
			uint64_t real = life->point;
			life->point = UINT64_MAX;
			life->for_ever = false;
			life->struck = false;
			(void)open_agent(life);
			life->point = real;
			life->for_ever = variant % 2 == 1;
		}
		if (!life->blamed)
			insert(life);
		/* From then on means: for two rounds, then somebody mends the disk. */
		if (life->struck && life->for_ever && round % 2 == 1)
			life->point = UINT64_MAX;
	}
	life->armed = false;
	life->for_ever = false;
	life->point = point;
	if (!life->blamed)
		judge(life);
	spool_close(life->spool);
	(void)sqlite3_close(life->producer);
	shim_remove();
	for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
		char name[200];
		(void)snprintf(name, sizeof name, "%s%s", life->path, endings[i]);
		(void)unlink(name);
	}
	(void)rmdir(life->folder);
	*calls = life->calls;
	free(life);
	tally->points += struck;
	return struck;
}

int main(int count, char **words)
{
	struct tally tally = { .points = 0 };
	struct tally_options options = { .seed = 1, .points = UINT64_MAX, .budget = 3600 };
	if (!tally_parse(count, words, &options)) {
		(void)fprintf(stderr, "usage: storage_errors --seed N --points N --budget SECONDS\n");
		return 64;
	}
	double deadline = tally_clock() + options.budget;
	/* Fewer points than there are: every so many-th. --seed says which is the first. */
	uint64_t stride = options.points < 4000 ? 4000 / (options.points + 1) + 1 : 1;
	uint64_t first = 1 + (options.seed - 1) % stride, calls;
	for (int variant = 0; variant < 4; variant++) {
		if (options.mode != NULL && atoi(options.mode) != variant)
			continue;
		(void)one_life(&tally, &options, UINT64_MAX, variant, &calls);
		tally.of += calls;
		for (uint64_t point = first; tally_clock() < deadline; point += stride)
			if (!one_life(&tally, &options, point, variant, &calls))
				break;
	}
	return tally_print(&tally);
}
