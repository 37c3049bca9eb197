/* A spool of a hundred pages with a -wal, damaged in every way, then salvaged. The first
 * byte says what the rest is:
 *
 *   F    the file itself
 *   P    what is done to a good spool's file and its -wal, one after the other: see damage()
 *
 * Promises: what SQLite still finds as it was inserted, by its id, the salvage keeps so; the
 * new spool is sound and its ledger adds up; what cannot be salvaged is left as it was. */
#include <fcntl.h>
#include <inttypes.h>
#include <sqlite3.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "spool/manage.h"
#include "spool/migrate.h"
#include "spool/salvage.h"
#include "tests/fuzz/fuzz.h"

#define WALL INT64_C(1700000000000)
#define PAGE 4096
#define IMAGE_MAX (1 << 22)
#define IDS 80
#define DELIVERED_ID 21 /* noted down as delivered, but not deleted yet */

struct image {
	uint8_t bytes[IMAGE_MAX];
	size_t size;
};

/* Both bodies of a record; 0: it was not found. */
struct sums {
	uint64_t waiting[IDS + 1], dead[IDS + 1];
};

struct files {
	struct image file, wal;
};

static void read_image(const char *path, struct image *image)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = file >= 0 ? read(file, image->bytes, IMAGE_MAX) : 0;
	HOLDS(size >= 0 && size < IMAGE_MAX && (file < 0 || close(file) == 0));
	image->size = (size_t)size;
}

static void write_image(const char *path, const struct image *image)
{
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	HOLDS(file >= 0 && write(file, image->bytes, image->size) == (ssize_t)image->size);
	HOLDS(close(file) == 0);
}

static void write_files(const char *folder, const struct files *files)
{
	char path[128];
	(void)snprintf(path, sizeof path, "%s/spool.db", folder);
	write_image(path, &files->file);
	(void)snprintf(path, sizeof path, "%s/spool.db-wal", folder);
	if (files->wal.size > 0)
		write_image(path, &files->wal);
}

/* --- What SQLite finds ------------------------------------------------------- */

static uint64_t add_bytes(uint64_t sum, sqlite3_stmt *row, int column)
{
	const uint8_t *bytes = sqlite3_column_blob(row, column);
	int size = sqlite3_column_bytes(row, column);
	for (int i = 0; i < size; i++)
		sum = (sum ^ bytes[i]) * UINT64_C(1099511628211);
	return (sum ^ (uint64_t)size) * UINT64_C(1099511628211);
}

/* Records under the id and the uuid that they were inserted with. */
static void look_into(sqlite3 *db, const char *sql, uint64_t sums[IDS + 1])
{
	sqlite3_stmt *row = NULL;
	memset(sums, 0, (IDS + 1) * sizeof *sums);
	if (sqlite3_prepare_v2(db, sql, -1, &row, NULL) != SQLITE_OK)
		return;
	for (int id = 1; id <= IDS; id++) {
		char uuid[40];
		(void)snprintf(uuid, sizeof uuid, "%032x", (unsigned)id);
		(void)sqlite3_bind_text(row, 1, uuid, -1, SQLITE_STATIC);
		(void)sqlite3_bind_int(row, 2, id);
		if (sqlite3_step(row) == SQLITE_ROW)
			sums[id] = add_bytes(add_bytes(1, row, 0), row, 1);
		(void)sqlite3_reset(row);
	}
	(void)sqlite3_finalize(row);
}

static void look(const char *path, struct sums *sums)
{
	sqlite3 *db;
	HOLDS(sqlite3_open(path, &db) == SQLITE_OK);
	look_into(db, "SELECT request_body, response_body FROM interactions WHERE id = ?2 AND +uuid = ?1",
	          sums->waiting);
	look_into(db, "SELECT request_body, response_body FROM dead_letters WHERE id = ?2 AND +uuid = ?1",
	          sums->dead);
	(void)sqlite3_close(db);
}

/* --- A good spool ---------------------------------------------------------- */

static void run_sql(sqlite3 *db, const char *sql)
{
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		(void)fprintf(stderr, "%s\n", sqlite3_errmsg(db));
	HOLDS(sqlite3_errcode(db) == SQLITE_OK);
}

/* Bodies of all sizes, some over many pages, no eight bytes alike; tables with pages above their rows; pages
 * that were given up; the last of it in the -wal alone. */
static void create(const char *folder, struct files *files, struct sums *sums)
{
	struct spool_error error;
	char path[128];
	sqlite3 *db;
	(void)snprintf(path, sizeof path, "%s/spool.db", folder);
	struct spool *spool = spool_open(path, SPOOL_CREATE, IMAGE_MAX, &error);
	HOLDS(spool != NULL);
	spool_close(spool);
	HOLDS(sqlite3_open(path, &db) == SQLITE_OK);
	run_sql(db, "PRAGMA synchronous = OFF; PRAGMA wal_autocheckpoint = 0; CREATE TEMP TABLE s(j);"
	            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1125) "
	            "INSERT INTO s SELECT i FROM n;"
	            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 74) "
	            "INSERT INTO interactions (model_id, request_body, response_body, session, key, uuid,"
	            " request_at, spooled_at) SELECT 'm', (SELECT group_concat(printf('%03d%05d', i, j), '') FROM s"
	            " WHERE j <= CASE WHEN i % 9 = 0 THEN 1125 ELSE 5 * i END), '{\"a\":1}', CASE WHEN i % 2 THEN 's' END,"
	            " CASE WHEN i % 5 = 0 THEN 'key' || i END, printf('%032x', i), i, i FROM n");
	run_sql(db, "INSERT INTO dead_letters (id, model_id, request_body, response_body, uuid, reason,"
	            " attempts, died_at, key) SELECT id, model_id, request_body, response_body, uuid,"
	            " 'bad-request: no', 1, 5, key FROM interactions WHERE id <= 12;"
	            "DELETE FROM interactions WHERE id <= 12 OR id BETWEEN 40 AND 47;"
	            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 200) "
	            "INSERT INTO known_keys SELECT printf('%060d', i), i FROM n;"
	            "INSERT INTO imported SELECT substr(key, 1, 32) || key FROM known_keys"
	            " WHERE delivered_at IS NOT NULL;"
	            "INSERT INTO receipts SELECT delivered_at, delivered_at, key, 1, 2, 200 FROM known_keys"
	            " WHERE delivered_at IS NOT NULL;"
	            "INSERT INTO attempts VALUES (20, 3), (21, 0);"
	            "INSERT OR REPLACE INTO agent_state VALUES ('lost', '0'), ('fuzz', 'note');"
	            "DELETE FROM interactions WHERE id BETWEEN 60 AND 69;"
	            "UPDATE ledger SET dead = 12, discarded = 18, removed = 0;"
	            "PRAGMA wal_checkpoint(TRUNCATE);"
	            "INSERT INTO interactions (model_id, request_body, response_body, uuid)"
	            " SELECT model_id, request_body, response_body, printf('%032x', id + 60)"
	            " FROM interactions WHERE id BETWEEN 15 AND 20;"
	            "UPDATE attempts SET attempts = 4 WHERE id = 20");
	char sql[120], uuid[33];
	(void)snprintf(uuid, sizeof uuid, "%032x", DELIVERED_ID);
	(void)snprintf(sql, sizeof sql, "UPDATE attempts SET attempts = %" PRId64 " WHERE id = %d",
	               record_delivered_mark((struct text){ uuid, RECORD_UUID_SIZE }), DELIVERED_ID);
	run_sql(db, sql);
	(void)snprintf(path, sizeof path, "%s/spool.db-wal", folder);
	read_image(path, &files->wal);
	(void)snprintf(path, sizeof path, "%s/spool.db", folder);
	read_image(path, &files->file);
	HOLDS(files->file.size > 0 && files->wal.size > 0);
	HOLDS(sqlite3_close(db) == SQLITE_OK);
	look(path, sums);
}

/* Made once, since that is most of the time an input takes. */
static const struct sums *take_good_one(struct files *files)
{
	static struct files good;
	static struct sums sums;
	char folder[64];
	if (good.file.size == 0) {
		fuzz_make_folder(folder);
		create(folder, &good, &sums);
		fuzz_remove_folder(folder);
	}
	memcpy(files->file.bytes, good.file.bytes, good.file.size);
	memcpy(files->wal.bytes, good.wal.bytes, good.wal.size);
	files->file.size = good.file.size;
	files->wal.size = good.wal.size;
	return &sums;
}

/* --- Damage ---------------------------------------------------------------- */

/* Pages count on from the file into the -wal, unless that is proven. */
static uint8_t *page_of(struct files *files, unsigned number, bool proven)
{
	unsigned in_file = (unsigned)(files->file.size / PAGE);
	unsigned in_wal = proven ? 0 : (unsigned)(files->wal.size / PAGE);
	if (in_file + in_wal == 0)
		return NULL;
	number %= in_file + in_wal;
	return number < in_file ? files->file.bytes + (size_t)number * PAGE
	                        : files->wal.bytes + (size_t)(number - in_file) * PAGE;
}

static uint32_t number_at(const uint8_t *at, bool big)
{
	return big ? (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3]
	           : (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
}

static void put_number(uint8_t *at, uint32_t number)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(number >> (24 - 8 * i));
}

static void sum_up(const uint8_t *bytes, size_t size, bool big, uint32_t sum[2])
{
	for (size_t i = 0; i + 8 <= size; i += 8) {
		sum[0] += number_at(bytes + i, big) + sum[1];
		sum[1] += number_at(bytes + i + 4, big) + sum[0];
	}
}

/* Makes what stands in the -wal right again by its sums, of words in either order:
 * https://sqlite.org/fileformat2.html#checksum_algorithm */
static void prove(struct image *wal, bool big)
{
	uint32_t sum[2] = { 0, 0 };
	uint8_t *header = wal->bytes;
	if (wal->size < 32)
		return;
	put_number(header, 0x377f0682u + big);
	sum_up(header, 24, big, sum);
	put_number(header + 24, sum[0]);
	put_number(header + 28, sum[1]);
	for (uint8_t *at = header + 32; (size_t)(at - header) + 24 + PAGE <= wal->size; at += 24 + PAGE) {
		sum_up(at, 8, big, sum);
		sum_up(at + 24, PAGE, big, sum);
		put_number(at + 16, sum[0]);
		put_number(at + 20, sum[1]);
	}
}

/* Behind a frame that does not add up, the salvage believes those that do, and no damage makes a
 * sum right: so what was proven here is not broken off before it again. */
static void damage(struct files *files, struct input *input)
{
	bool proven = false;
	for (int i = 0; input->at < input->end && i < 256; i++) {
		unsigned kind = take_byte(input) % 8, number = take_byte(input), at, size, left;
		uint8_t *page = page_of(files, number, proven), *other;
		if (page == NULL)
			return;
		switch (kind) {
		case 0: /* some bytes */
			at = (unsigned)take_number(input, 2) % PAGE;
			size = take_byte(input);
			left = (unsigned)(input->end - input->at);
			size = size > left ? left : size;
			size = size > PAGE - at ? PAGE - at : size;
			if (size > 0)
				memcpy(page + at, input->at, size);
			input->at += size;
			break;
		case 1: /* another page's content */
			other = page_of(files, take_byte(input), false);
			memmove(page, other, PAGE);
			break;
		case 2:
			memset(page, (int)take_byte(input), PAGE);
			break;
		case 3:
			files->file.size = (size_t)number * PAGE < files->file.size ? (size_t)number * PAGE
			                                                            : files->file.size;
			break;
		case 4:
			files->wal.size = take_number(input, 2) % (files->wal.size + 1);
			break;
		case 5: /* one bit */
			at = (unsigned)take_number(input, 2);
			page[at % PAGE] ^= (uint8_t)(1 << (at / PAGE % 8));
			break;
		case 6:
			prove(&files->wal, number % 2 == 1);
			proven = true;
			break;
		default: /* pages at the end that nothing is written into */
			size = number % 64 * PAGE;
			if (files->file.size + size < IMAGE_MAX)
				memset(files->file.bytes + files->file.size, 0, size);
			files->file.size += files->file.size + size < IMAGE_MAX ? size : 0;
		}
	}
}

/* --- The salvage ------------------------------------------------------------- */

static void be_told(void *context, const char *sentence)
{
	(void)context;
	(void)fprintf(stderr, "examined: %s\n", sentence);
	HOLDS(sentence == NULL);
}

static void judge(const char *path, const struct salvage_report *report)
{
	struct spool_error error;
	struct spool_ledger ledger;
	struct stat about;
	struct spool *spool = spool_open(path, SPOOL_READ, IMAGE_MAX, &error);
	HOLDS(spool != NULL);
	HOLDS(spool_examine(spool, be_told, NULL) == SPOOL_OK);
	HOLDS(spool_read_ledger(spool, 1000, &ledger) == SPOOL_OK && ledger.balanced);
	HOLDS(ledger.waiting == report->waiting && ledger.dead == report->dead);
	HOLDS(report->lost >= -1 && report->waiting >= 0 && report->dead >= 0);
	for (size_t i = 0; i < report->range_count; i++)
		HOLDS(report->ranges[i].from <= report->ranges[i].to);
	spool_close(spool);
	HOLDS(stat(report->aside, &about) == 0);
}

/* False: there was nothing to mend. */
static bool salvage(const char *folder, const struct files *files, const struct sums *good)
{
	static struct sums found, kept;
	static struct image left;
	struct salvage_report report;
	struct spool_error error;
	char path[128], copy[80];
	(void)snprintf(copy, sizeof copy, "%s/copy", folder);
	(void)snprintf(path, sizeof path, "%s/spool.db", copy);
	HOLDS(mkdir(copy, 0700) == 0);
	write_files(copy, files);
	look(path, &found);
	write_files(folder, files);
	(void)snprintf(path, sizeof path, "%s/spool.db", folder);
	enum spool_status status = spool_salvage(path, WALL, 0, &report, &error);
	if (status != SPOOL_OK) {
		read_image(path, &left);
		HOLDS(error.status == status && error.sentence[0] != '\0');
		HOLDS(left.size == files->file.size);
		HOLDS(memcmp(left.bytes, files->file.bytes, left.size) == 0);
		for (int id = 1; id <= IDS; id++)
			HOLDS(status == SPOOL_NEWER || (found.waiting[id] == 0 && found.dead[id] == 0));
		return true;
	}
	if (!report.needed)
		return false;
	judge(path, &report);
	look(path, &kept);
	for (int id = 1; id <= IDS; id++) {
		uint64_t sum = good->waiting[id] != 0 ? good->waiting[id] : good->dead[id];
		if (sum != 0 && id != DELIVERED_ID && (found.waiting[id] == sum || found.dead[id] == sum))
			HOLDS(kept.waiting[id] == sum || kept.dead[id] == sum);
	}
	HOLDS(spool_salvage(path, WALL, 0, &report, &error) == SPOOL_OK && !report.needed);
	return true;
}

int fuzz_salvage(const uint8_t *data, size_t size)
{
	static struct files files;
	char folder[64];
	const struct sums *good = take_good_one(&files);
	struct input input = { data, data + size };
	unsigned what = take_byte(&input);
	if (size == 0 || size > 1 << 18)
		return 0;
	if (what == 'F') {
		files.file.size = size - 1;
		files.wal.size = 0;
		if (size > 1)
			memcpy(files.file.bytes, input.at, size - 1);
	} else {
		damage(&files, &input);
	}
	fuzz_make_folder(folder);
	bool needed = salvage(folder, &files, good);
	HOLDS(what == 'F' || size > 1 || !needed); /* the good one is good */
	fuzz_remove_folder(folder);
	return 0;
}
