/* A whole database file of somebody else's making: opened, read, settled, examined.
 * The first byte of an input says what the rest is:
 *
 *   F   the file itself
 *   P   patches to a good spool: offset (3 bytes), size (1 byte), bytes; again
 *   W   the -wal beside a good spool
 *   S   SQL that a producer runs in a good spool first, past all rules
 *
 * Promises: nothing hangs (what is found has an id that was asked for), and what is
 * read can be judged. */
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#include "agent/payload.h"
#include "spool/manage.h"
#include "spool/migrate.h"
#include "tests/fuzz/fuzz.h"

#define LIMIT (1 << 20)
#define WALL INT64_C(1700000000000)
#define ROWS_MAX 40

static void write_file(const char *path, const uint8_t *data, size_t size)
{
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	HOLDS(file >= 0 && write(file, data, size) == (ssize_t)size && close(file) == 0);
}

static int enough(void *context)
{
	int *left = context;
	return --*left <= 0;
}

static void run_sql(const char *path, const char *sql, bool free_hand)
{
	sqlite3 *db;
	int left = 200;
	HOLDS(sqlite3_open(path, &db) == SQLITE_OK);
	(void)sqlite3_exec(db, "PRAGMA synchronous = OFF", NULL, NULL, NULL);
	if (free_hand) {
		/* No second file, no endless loop, nothing of more than a few pages. */
		(void)sqlite3_limit(db, SQLITE_LIMIT_ATTACHED, 0);
		(void)sqlite3_limit(db, SQLITE_LIMIT_LENGTH, LIMIT);
		(void)sqlite3_exec(db, "PRAGMA max_page_count = 500", NULL, NULL, NULL);
		sqlite3_progress_handler(db, 1000, enough, &left);
	}
	int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
	HOLDS(free_hand || rc == SQLITE_OK);
	(void)sqlite3_close(db);
}

static void create_good_spool(const char *path)
{
	struct spool_error error;
	struct spool *spool = spool_open(path, SPOOL_CREATE, LIMIT, &error);
	HOLDS(spool != NULL);
	spool_close(spool);
	run_sql(path,
	        "INSERT INTO interactions (model_id, request_body, response_body, session, key, uuid)"
	        " VALUES ('m','hello','{\"a\":1}','s','k1','00000000000000000000000000000001'),"
	        "        ('m','hello','[2]','s',NULL,'00000000000000000000000000000002'),"
	        "        ('m',x'6869','\"3\"',NULL,NULL,'00000000000000000000000000000003');"
	        "INSERT INTO dead_letters (id, model_id, request_body, response_body, uuid, reason,"
	        " attempts, died_at) VALUES (90,'m','dead','{}','00000000000000000000000000000004',"
	        "'bad-request: no',1,5);", false);
}

/* Made once, since that is most of the time an input takes. */
static void make_good_spool(const char *path)
{
	static uint8_t image[1 << 18];
	static ssize_t image_size;
	if (image_size == 0) {
		create_good_spool(path);
		int file = open(path, O_RDONLY | O_CLOEXEC);
		HOLDS(file >= 0 && (image_size = read(file, image, sizeof image)) > 0);
		HOLDS(image_size < (ssize_t)sizeof image && close(file) == 0);
	}
	write_file(path, image, (size_t)image_size);
}

static void patch(const char *path, struct input *input)
{
	int file = open(path, O_WRONLY | O_CLOEXEC);
	HOLDS(file >= 0);
	for (int i = 0; input->at < input->end && i < 64; i++) {
		off_t at = (off_t)(take_number(input, 3) % 131072);
		size_t size = take_byte(input), left = (size_t)(input->end - input->at);
		if (size > left)
			size = left;
		HOLDS(pwrite(file, input->at, size, at) == (ssize_t)size);
		input->at += size;
	}
	HOLDS(close(file) == 0);
}

static int64_t after(int64_t id)
{
	return id < INT64_MAX ? id + 1 : INT64_MAX;
}

/* Reads the waiting rows, and gives the first of them fates to come. */
static size_t scan(struct spool *spool, struct spool_change *changes)
{
	struct spool_place place = { .id = 0 };
	struct payload_frame frame = { { "a", 1 }, { "b", 1 }, NULL };
	size_t count = 0;
	int64_t from = SPOOL_FIRST_ID;
	if (spool_begin_read(spool) != SPOOL_OK)
		return 0;
	for (int i = 0; i < ROWS_MAX; i++) {
		struct record record;
		size_t size = 0;
		unsigned attempts;
		enum spool_status status = spool_next(spool, from, INT64_MAX, &place);
		if (status == SPOOL_DAMAGED) {
			int64_t behind = from;
			if (spool_pass_damage(spool, false, from, INT64_MAX, &behind) != SPOOL_OK)
				break;
			HOLDS(behind > from);
			from = behind;
			continue;
		}
		if (status != SPOOL_OK && status != SPOOL_TOO_BIG)
			break;
		HOLDS(place.id >= from);
		int64_t id = place.id;
		if (status == SPOOL_OK && spool_load(spool, id, &record) == SPOOL_OK) {
			struct spool_change *change = &changes[count];
			if (payload_judge(&record) == NULL) {
				size = payload_write(&record, &frame, NULL, 0);
				char *payload = malloc(size);
				HOLDS(payload != NULL && payload_write(&record, &frame, payload, size) == size);
				free(payload);
			}
			*change = (struct spool_change){
				.kind = (enum spool_change_kind)(count % CHANGE_NOTE), .id = id,
				.bytes = record_bytes(&record), .keyed = record.key.bytes != NULL,
				.attempts = 2, .code = "bad-request", .sentence = "no", .server_said = "said",
				.server_said_size = 4, .dead = count % 2 == 1,
			};
			if (record.uuid.bytes != NULL && record.uuid.size == RECORD_UUID_SIZE)
				memcpy(change->uuid, record.uuid.bytes, RECORD_UUID_SIZE);
			(void)spool_attempts(spool, id, record.uuid, &attempts);
			count++;
		}
		if (id == INT64_MAX)
			break;
		from = after(id);
	}
	struct record record;
	from = SPOOL_FIRST_ID;
	for (int i = 0; i < ROWS_MAX; i++) {
		if (spool_next_record(spool, from, INT64_MAX, &record) != SPOOL_OK)
			break;
		HOLDS(record.id >= from);
		if (record.id == INT64_MAX)
			break;
		from = after(record.id);
	}
	spool_end_read(spool);
	return count;
}

static void look(struct spool *spool)
{
	struct spool_filter filter = { .before = INT64_MAX };
	for (int dead = 0; dead < 2; dead++) {
		struct spool_found found;
		int64_t last;
		(void)spool_last(spool, dead != 0, &last);
		if (spool_find_begin(spool, dead != 0, &filter, SPOOL_FIRST_ID, INT64_MAX) == SPOOL_OK)
			for (int i = 0; i < ROWS_MAX && spool_find_next(spool, &found) == SPOOL_OK; i++)
				for (int column = 0; column < SPOOL_COLUMNS; column++)
					(void)spool_found_value(spool, column);
		spool_find_end(spool);
	}
	struct spool_ledger ledger;
	(void)spool_read_ledger(spool, 100, &ledger);
	char *note = spool_note(spool, "fuzz");
	free(note);
}

static void be_told(void *context, const char *sentence)
{
	HOLDS(sentence[0] != '\0');
	++*(int *)context;
}

static void use(const char *path, enum spool_mode mode)
{
	struct spool_change changes[ROWS_MAX];
	struct spool_error error = { .status = SPOOL_OK, .sentence = "" };
	struct spool *spool = spool_open(path, mode, LIMIT, &error);
	if (spool == NULL) {
		HOLDS(error.status != SPOOL_OK && error.sentence[0] != '\0');
		return;
	}
	int sentences = 0;
	bool more;
	size_t count = scan(spool, changes);
	if (mode != SPOOL_READ) {
		(void)spool_set_limits(spool, 1 << 24, LIMIT, true);
		if (count > 0)
			(void)spool_apply(spool, changes, count, WALL);
		struct spool_change others[] = {
			{ .kind = CHANGE_REVIVED, .id = 90 },
			{ .kind = CHANGE_PURGED, .id = 1, .dead = true },
			{ .kind = CHANGE_NOTE, .name = "fuzz", .value = "note" },
		};
		(void)spool_apply(spool, others, 3, WALL);
		(void)spool_shrink(spool, &more);
	}
	look(spool);
	(void)spool_examine(spool, be_told, &sentences);
	HOLDS(spool_last_error(spool) != NULL);
	spool_close(spool);
}

int fuzz_spool(const uint8_t *data, size_t size)
{
	char folder[64], path[128], other[128];
	struct input input = { data, data + size };
	unsigned what = take_byte(&input);
	if (size > 1 << 18)
		return 0;
	fuzz_make_folder(folder);
	(void)snprintf(path, sizeof path, "%s/spool.db", folder);
	(void)snprintf(other, sizeof other, "%s/spool.db-wal", folder);
	size_t left = (size_t)(input.end - input.at);
	if (what != 'F')
		make_good_spool(path);
	if (what == 'S') {
		char *sql = fuzz_text(input.at, left);
		run_sql(path, sql, true);
		free(sql);
	} else if (what == 'W') {
		write_file(other, input.at, left);
	} else if (what == 'F') {
		write_file(path, input.at, left);
	} else {
		patch(path, &input);
	}
	use(path, SPOOL_READ);
	use(path, SPOOL_WORK);
	use(path, SPOOL_CREATE);
	fuzz_remove_folder(folder);
	return 0;
}
