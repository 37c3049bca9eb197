/* Power cuts, modelled. Producers and the agent's own spool code work on a spool while
 * a VFS writes down each write, sync, truncation, creation and deletion. Then the power
 * fails between any two of them, and what a disk may have kept by then is opened anew:
 * what was synced, and of the rest each sector in any of the versions that it had, each
 * size that the file had, and the folder as of any moment since it was synced.
 *
 * A state is judged by what was promised before the cut, never by what is convenient:
 * a record whose insert was acknowledged is there, unless the endpoint had confirmed it
 * or a person took it away; what was settled before the last sync does not come back.
 *
 *   power_loss --seed N --points STATES --budget SECONDS --mode FULL|NORMAL|OFF
 *
 * The mode is the producers' synchronous. Prints one line of JSON.
 */
#include <sqlite3.h>
#include <sys/stat.h>
#include <fcntl.h>
#include <unistd.h>

#include "spool/internal.h"
#include "spool/manage.h"
#include "tests/torture/shim.h"
#include "tests/torture/tally.h"

#define WALL INT64_C(1700000000000)
#define LIMIT (1 << 20)
#define STATES_A_LIFE 2500
#define NEVER INT64_MAX
#define ROWS_MAX 8192
#define BATCH 48

/* --- What was done ------------------------------------------------------ */

struct op {
	enum shim_call call; /* OPEN: created; WRITE, TRUNCATE, SYNC, DELETE */
	enum shim_file file;
	int64_t at;
	int size;
	char *bytes;
	bool folder;
};

/* Moments are numbers of operations done by then. */
struct row {
	char uuid[RECORD_UUID_SIZE + 1];
	struct text request, response; /* malloc'd */
	int64_t id, begun, accepted, confirmed, taken, left;
	bool dead;
};

struct life {
	struct tally *tally;
	uint64_t seed, dice;
	const char *mode;
	char folder[128], path[160], cut_path[160];
	struct op *ops;
	int64_t count, room;
	struct row rows[ROWS_MAX];
	size_t row_count;
	struct spool *spool;
	sqlite3 *producers[2];
	uint64_t *seen; /* states, by their hash */
	size_t seen_room;
	bool broken;
};

static uint64_t roll(struct life *life)
{
	return tally_roll(&life->dice);
}

static int record(void *self, struct shim_event *event)
{
	struct life *life = self;
	if (event->call == SHIM_READ || event->call == SHIM_SIZE || event->call >= SHIM_SHM_MAP ||
	    (event->call == SHIM_OPEN && event->file != SHIM_DATABASE && !event->missing))
		return SQLITE_OK;
	if (life->count == life->room) {
		life->room = life->room * 2 + 1024;
		life->ops = realloc(life->ops, (size_t)life->room * sizeof *life->ops);
		if (life->ops == NULL)
			exit(71);
	}
	struct op *op = &life->ops[life->count++];
	*op = (struct op){ event->call, event->file, event->at, event->size, NULL, event->folder };
	if (event->call == SHIM_WRITE) {
		op->bytes = malloc((size_t)event->size);
		if (op->bytes == NULL)
			exit(71);
		memcpy(op->bytes, event->bytes, (size_t)event->size);
	}
	return SQLITE_OK;
}

/* --- The work ----------------------------------------------------------- */

static void complain(struct life *life, const char *what, const char *detail)
{
	life->broken = true;
	tally_fail(life->tally, "seed %" PRIu64 ", before any cut: %s: %s", life->seed, what, detail);
}

/* A text that only this row has, and JSON. */
static struct text text_of(uint64_t seed, size_t size)
{
	char *text = malloc(size + 2);
	if (text == NULL)
		exit(71);
	text[0] = text[size + 1] = '"';
	for (size_t i = 1; i <= size; i++)
		text[i] = (char)('a' + tally_roll(&seed) % 26);
	return (struct text){ text, size + 2 };
}

static void execute(struct life *life, sqlite3 *db, const char *sql)
{
	char *error = NULL;
	if (sqlite3_exec(db, sql, NULL, NULL, &error) != SQLITE_OK)
		complain(life, sql, error != NULL ? error : "?");
	sqlite3_free(error);
}

static void open_producer(struct life *life, int which)
{
	char pragma[64];
	if (life->producers[which] != NULL)
		return;
	if (sqlite3_open(life->path, &life->producers[which]) != SQLITE_OK) {
		complain(life, "open", sqlite3_errmsg(life->producers[which]));
		return;
	}
	(void)sqlite3_busy_timeout(life->producers[which], 100);
	(void)snprintf(pragma, sizeof pragma, "PRAGMA synchronous = %s", life->mode);
	execute(life, life->producers[which], pragma);
}

static void close_producer(struct life *life, int which)
{
	(void)sqlite3_close(life->producers[which]);
	life->producers[which] = NULL;
}

static void open_agent(struct life *life)
{
	struct spool_error error;
	if (life->spool != NULL)
		return;
	life->spool = spool_open(life->path, SPOOL_CREATE, LIMIT, &error);
	if (life->spool == NULL)
		complain(life, "the agent opens the spool", error.sentence);
}

static void insert(struct life *life, size_t count, size_t size_max)
{
	int which = (int)(roll(life) % 2);
	sqlite3_stmt *statement = NULL;
	size_t first = life->row_count;
	open_producer(life, which);
	sqlite3 *db = life->producers[which];
	if (life->broken || first + count > ROWS_MAX)
		return;
	execute(life, db, "BEGIN IMMEDIATE");
	if (sqlite3_prepare_v2(db, "INSERT INTO interactions (model_id, request_body, response_body, "
	                       "uuid, session, key) VALUES ('m', ?1, ?2, ?3, nullif(?4, ''), ?5)", -1,
	                       &statement, NULL) != SQLITE_OK)
		complain(life, "insert", sqlite3_errmsg(db));
	for (size_t i = 0; i < count && !life->broken; i++) {
		struct row *row = &life->rows[life->row_count++];
		*row = (struct row){ .begun = life->count, .accepted = NEVER,
			             .confirmed = NEVER, .taken = NEVER, .left = NEVER };
		row->request = text_of(roll(life), (size_t)(roll(life) % (roll(life) % 8 == 0 ? size_max : 600)));
		row->response = text_of(roll(life), (size_t)(roll(life) % 300));
		(void)snprintf(row->uuid, sizeof row->uuid, "%016" PRIx64 "%016zx", roll(life),
		               life->row_count);
		(void)sqlite3_bind_text(statement, 1, row->request.bytes, (int)row->request.size,
		                        SQLITE_STATIC);
		(void)sqlite3_bind_text(statement, 2, row->response.bytes, (int)row->response.size,
		                        SQLITE_STATIC);
		(void)sqlite3_bind_text(statement, 3, row->uuid, -1, SQLITE_STATIC);
		(void)sqlite3_bind_text(statement, 4, roll(life) % 2 ? "s" : "", -1, SQLITE_STATIC);
		if (roll(life) % 4 == 0)
			(void)sqlite3_bind_text(statement, 5, row->uuid, 12, SQLITE_STATIC);
		else
			(void)sqlite3_bind_null(statement, 5);
		if (sqlite3_step(statement) != SQLITE_DONE)
			complain(life, "insert", sqlite3_errmsg(db));
		(void)sqlite3_reset(statement);
		row->id = sqlite3_last_insert_rowid(db);
	}
	(void)sqlite3_finalize(statement);
	execute(life, db, "COMMIT");
	for (size_t i = first; i < life->row_count && !life->broken; i++)
		life->rows[i].accepted = life->count;
}

static struct row *find_row(struct life *life, struct text uuid)
{
	/* The second half of a uuid is the row's number. */
	if (uuid.size != RECORD_UUID_SIZE)
		return NULL;
	uint64_t number = strtoull(uuid.bytes + 16, NULL, 16);
	if (number == 0 || number > life->row_count ||
	    memcmp(life->rows[number - 1].uuid, uuid.bytes, RECORD_UUID_SIZE) != 0)
		return NULL;
	return &life->rows[number - 1];
}

static void apply(struct life *life, struct spool_change *changes, size_t count)
{
	if (life->broken || count == 0)
		return;
	if (spool_apply(life->spool, changes, count, WALL) != SPOOL_OK) {
		complain(life, "apply", spool_last_error(life->spool)->sentence);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		struct row *row = find_row(life, (struct text){ changes[i].uuid, strlen(changes[i].uuid) });
		if (row == NULL)
			continue;
		if (changes[i].missed || changes[i].refused)
			complain(life, "apply", "a change was missed");
		row->dead = changes[i].kind == CHANGE_DEAD;
		if (changes[i].kind == CHANGE_DELIVERED || changes[i].kind == CHANGE_PURGED ||
		    changes[i].kind == CHANGE_DISCARDED)
			row->left = life->count;
	}
}

static struct spool_change change_of(const struct row *row, enum spool_change_kind kind)
{
	struct spool_change change = { .kind = kind, .id = row->id, .code = "rejected",
		                       .sentence = "the endpoint refuses this record",
		                       .server_said = "no", .server_said_size = 2, .http_status = 400,
		                       .dead = row->dead };
	memcpy(change.uuid, row->uuid, sizeof change.uuid);
	return change;
}

/* Reads some waiting records as the agent does, and settles them. */
static void settle(struct life *life, size_t most)
{
	struct spool_change changes[BATCH + 1];
	struct record found;
	size_t count = 0;
	int64_t from = SPOOL_FIRST_ID;
	open_agent(life);
	if (life->broken)
		return;
	if (spool_begin_read(life->spool) != SPOOL_OK)
		complain(life, "read", spool_last_error(life->spool)->sentence);
	while (!life->broken && count < most && count < BATCH) {
		enum spool_status status = spool_next_record(life->spool, from, INT64_MAX, &found);
		if (status == SPOOL_END)
			break;
		struct row *row = status == SPOOL_OK ? find_row(life, found.uuid) : NULL;
		if (row == NULL) {
			complain(life, "read", "a record that nobody inserted");
			break;
		}
		from = found.id + 1;
		if (roll(life) % 8 == 0)
			continue; /* still in flight */
		enum spool_change_kind kind = CHANGE_DELIVERED;
		if (roll(life) % 10 == 0)
			kind = roll(life) % 2 ? CHANGE_DEAD : CHANGE_ATTEMPTS;
		changes[count] = change_of(row, kind);
		changes[count].bytes = record_bytes(&found);
		changes[count].keyed = found.key.bytes != NULL;
		changes[count++].attempts = kind == CHANGE_ATTEMPTS;
		if (kind == CHANGE_DELIVERED)
			row->confirmed = life->count;
	}
	spool_end_read(life->spool);
	if (count > 0 && roll(life) % 4 == 0)
		changes[count++] = (struct spool_change){ .kind = CHANGE_NOTE, .name = "state",
			                                  .value = "up" };
	apply(life, changes, count);
}

/* A person takes records away, or lets dead letters wait again. */
static void manage(struct life *life)
{
	struct spool_change changes[8];
	size_t count = 0;
	open_agent(life);
	if (life->broken)
		return;
	bool purge = roll(life) % 3 == 0;
	for (size_t i = 0; i < life->row_count && count < 8; i++) {
		struct row *row = &life->rows[i];
		if (row->accepted == NEVER || row->left != NEVER || (!row->dead && roll(life) % 10 != 0))
			continue;
		enum spool_change_kind kind = purge ? CHANGE_PURGED : CHANGE_DISCARDED;
		if (row->dead && roll(life) % 2)
			kind = CHANGE_REVIVED;
		else
			row->taken = life->count;
		changes[count++] = change_of(row, kind);
	}
	if (purge && spool_overwrite(life->spool, true) != SPOOL_OK)
		complain(life, "purge", spool_last_error(life->spool)->sentence);
	apply(life, changes, count);
	if (!life->broken && purge) {
		/* Another connection that reads may keep it from being emptied: that is no loss. */
		(void)spool_empty_log(life->spool, WALL, 0);
		(void)spool_overwrite(life->spool, false);
	}
}

static void step(struct life *life)
{
	bool more;
	switch (roll(life) % 24) {
	case 0: case 1: case 2: case 3: case 4: case 5: case 6: case 7:
		insert(life, 1, 20000);
		break;
	case 8: case 9: case 10: case 11:
		insert(life, 1 + (size_t)(roll(life) % 8), 9000);
		break;
	case 12: case 13: case 14: case 15: case 16: case 17:
		settle(life, 1 + (size_t)(roll(life) % BATCH));
		break;
	case 18:
		manage(life);
		break;
	case 19:
		open_agent(life);
		if (!life->broken && spool_set_limits(life->spool, (int64_t)1 << 30, LIMIT,
		                                      roll(life) % 2) != SPOOL_OK)
			complain(life, "limits", spool_last_error(life->spool)->sentence);
		break;
	case 20:
		open_agent(life);
		for (int i = 0; !life->broken && i < 40; i++)
			if (spool_shrink(life->spool, &more) != SPOOL_OK || !more)
				break;
		break;
	case 21:
		close_producer(life, (int)(roll(life) % 2));
		break;
	case 22:
		spool_close(life->spool);
		life->spool = NULL;
		break;
	default:
		if (roll(life) % 4 != 0)
			break;
		/* The last to leave copies the -wal back, and deletes it. */
		close_producer(life, 0);
		close_producer(life, 1);
		spool_close(life->spool);
		life->spool = NULL;
	}
}

/* --- What the disk may have kept ---------------------------------------- */

struct inode {
	char *bytes; /* as synced */
	int64_t size, room;
	int64_t *pending; /* operations since */
	size_t count, pending_room;
};

#define INODES_MAX 4096
#define MOVES_MAX 64

struct disk {
	struct inode inodes[INODES_MAX];
	int inode_count;
	int now[SHIM_FILES], synced[SHIM_FILES]; /* -1: there is no such file */
	struct {
		enum shim_file file;
		int inode;
	} moves[MOVES_MAX]; /* of the folder, since it was synced */
	int move_count;
};

static void fit(struct inode *inode, int64_t size)
{
	if (size <= inode->room)
		return;
	inode->bytes = realloc(inode->bytes, (size_t)size * 2);
	if (inode->bytes == NULL)
		exit(71);
	inode->room = size * 2;
}

static void put(struct inode *inode, const struct op *op)
{
	if (op->call == SHIM_TRUNCATE) {
		fit(inode, op->at);
		if (op->at > inode->size)
			memset(inode->bytes + inode->size, 0, (size_t)(op->at - inode->size));
		inode->size = op->at;
		return;
	}
	int64_t end = op->at + op->size;
	fit(inode, end);
	if (op->at > inode->size)
		memset(inode->bytes + inode->size, 0, (size_t)(op->at - inode->size));
	memcpy(inode->bytes + op->at, op->bytes, (size_t)op->size);
	if (end > inode->size)
		inode->size = end;
}

static void sync_folder(struct disk *disk)
{
	memcpy(disk->synced, disk->now, sizeof disk->synced);
	disk->move_count = 0;
}

static void move(struct disk *disk, enum shim_file file, int inode)
{
	if (disk->move_count == MOVES_MAX)
		exit(70);
	disk->moves[disk->move_count].file = file;
	disk->moves[disk->move_count++].inode = inode;
	disk->now[file] = inode;
}

static void advance(struct disk *disk, const struct op *ops, int64_t at)
{
	const struct op *op = &ops[at];
	struct inode *inode = disk->now[op->file] >= 0 ? &disk->inodes[disk->now[op->file]] : NULL;
	if (op->call == SHIM_OPEN || (inode == NULL && op->call != SHIM_DELETE)) {
		if (inode == NULL && disk->inode_count == INODES_MAX)
			exit(70);
		if (inode == NULL)
			move(disk, op->file, disk->inode_count++);
		inode = &disk->inodes[disk->now[op->file]];
	}
	if (op->call == SHIM_DELETE) {
		move(disk, op->file, -1);
	} else if (op->call == SHIM_WRITE || op->call == SHIM_TRUNCATE) {
		if (inode->count == inode->pending_room) {
			inode->pending_room = inode->pending_room * 2 + 64;
			inode->pending = realloc(inode->pending,
			                         inode->pending_room * sizeof *inode->pending);
			if (inode->pending == NULL)
				exit(71);
		}
		inode->pending[inode->count++] = at;
	} else if (op->call == SHIM_SYNC) {
		for (size_t i = 0; i < inode->count; i++)
			put(inode, &ops[inode->pending[i]]);
		inode->count = 0;
	}
	if ((op->call == SHIM_SYNC || op->call == SHIM_DELETE) && op->folder)
		sync_folder(disk);
}

/* How far the disk had come with what was not synced. */
enum luck { NOTHING, ALL, PREFIX, TORN, ANY, ONE_MISSING, ONE_KEPT, LUCKS };

struct choice {
	enum luck luck;
	int64_t sector;
	int64_t until;         /* PREFIX, TORN: so many operations were kept */
	int64_t torn;          /* TORN: and so many sectors of the next one */
	int64_t missed, spot;  /* ONE_*: an operation, and one of its sectors */
	unsigned none, whole;  /* ANY: in a hundred, sectors of which nothing or all is kept */
	uint64_t salt;
	int moves;             /* of the folder */
};

/* Whether what operation `at` wrote to a sector was kept. Of a sector a disk keeps one of
 * its versions: what was written up to some moment. */
static bool kept(const struct choice *choice, int64_t at, int64_t sector, int64_t index,
                 int inode, int64_t first, int64_t last)
{
	uint64_t mixed = choice->salt ^ ((uint64_t)sector * 0x9E3779B97F4A7C15ULL) ^
	                 ((uint64_t)(inode + 1) << 40);
	mixed |= mixed == 0;
	switch (choice->luck) {
	case NOTHING:
		return false;
	case ALL:
		return true;
	case PREFIX:
		return at < choice->until;
	case TORN:
		return at < choice->until || (at == choice->until && index < choice->torn);
	case ANY:
		(void)tally_roll(&mixed);
		uint64_t dice = tally_roll(&mixed);
		if (dice % 100 < choice->none)
			return false;
		if (dice % 100 < choice->none + choice->whole)
			return true;
		return at < first + (int64_t)(tally_roll(&mixed) % (uint64_t)(last - first + 2));
	case ONE_MISSING:
		return !(at >= choice->missed && sector == choice->spot);
	case ONE_KEPT:
		return at <= choice->missed && sector == choice->spot;
	case LUCKS:
		break;
	}
	return false;
}

/* The file's content in a state; *size -1: all of it is to be had in malloc'd memory. */
static char *keep(const struct disk *disk, int number, const struct op *ops,
                  struct choice *choice, int64_t *size)
{
	const struct inode *inode = &disk->inodes[number];
	int64_t most = inode->size, now = inode->size, sizes[3] = { inode->size, 0, 0 };
	uint64_t salt = choice->salt + (uint64_t)number;
	salt |= salt == 0;
	int64_t first = inode->count > 0 ? inode->pending[0] : 0;
	int64_t last = inode->count > 0 ? inode->pending[inode->count - 1] : 0;
	size_t some = inode->count > 0 ? (size_t)(tally_roll(&salt) % inode->count) : 0;
	for (size_t i = 0; i < inode->count; i++) {
		const struct op *op = &ops[inode->pending[i]];
		int64_t end = op->call == SHIM_WRITE ? op->at + op->size : op->at;
		if (end > most)
			most = end;
		now = op->call == SHIM_TRUNCATE || end > now ? end : now;
		if (i == some)
			sizes[1] = now;
		if ((choice->luck == PREFIX || choice->luck == TORN) &&
		    inode->pending[i] < choice->until + (choice->luck == TORN))
			sizes[0] = now;
	}
	if (inode->count == 0)
		sizes[1] = inode->size;
	sizes[2] = now;
	char *bytes = calloc(1, (size_t)most + 1);
	if (bytes == NULL)
		exit(71);
	memcpy(bytes, inode->bytes != NULL ? inode->bytes : "", (size_t)inode->size);
	for (size_t i = 0; i < inode->count; i++) {
		int64_t at = inode->pending[i];
		const struct op *op = &ops[at];
		int64_t from = op->at, to = op->call == SHIM_WRITE ? op->at + op->size : most;
		for (int64_t place = from; place < to;) {
			int64_t sector = place / choice->sector;
			int64_t end = (sector + 1) * choice->sector < to ? (sector + 1) * choice->sector : to;
			if (kept(choice, at, sector, sector - from / choice->sector, number, first, last)) {
				if (op->call == SHIM_WRITE)
					memcpy(bytes + place, op->bytes + (place - from), (size_t)(end - place));
				else
					memset(bytes + place, 0, (size_t)(end - place));
			}
			place = end;
		}
	}
	switch (choice->luck) {
	case NOTHING:
		*size = sizes[tally_roll(&salt) % 3]; /* sizes may come before what is in them */
		break;
	case PREFIX: case TORN:
		*size = sizes[0];
		break;
	case ALL:
		*size = sizes[2];
		break;
	case ANY: case ONE_MISSING: case ONE_KEPT: case LUCKS:
		*size = tally_roll(&salt) % 3 == 0 ? sizes[tally_roll(&salt) % 3] : sizes[2];
	}
	return bytes;
}

static uint64_t hash_of(uint64_t hash, const char *bytes, int64_t size)
{
	for (; size >= 8; bytes += 8, size -= 8) {
		uint64_t word;
		memcpy(&word, bytes, 8);
		hash = (hash ^ word) * 0x9E3779B97F4A7C15ULL;
		hash ^= hash >> 29;
	}
	for (; size > 0; bytes++, size--)
		hash = (hash ^ (unsigned char)*bytes) * 1099511628211ULL;
	return hash;
}

static bool is_new(struct life *life, uint64_t hash)
{
	size_t place = (size_t)(hash % life->seen_room);
	hash |= hash == 0;
	while (life->seen[place] != 0) {
		if (life->seen[place] == hash)
			return false;
		place = (place + 1) % life->seen_room;
	}
	life->seen[place] = hash;
	return true;
}

static void write_file(const char *path, const char *bytes, int64_t size)
{
	int file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0660);
	if (file < 0 || write(file, bytes, (size_t)size) != (ssize_t)size || close(file) != 0) {
		perror(path);
		exit(74);
	}
}

static const char *const endings[SHIM_FILES] = { "", "-wal", "-journal" };

/* Writes a state into files. False: it was there before, with the same promises. */
static bool write_state(struct life *life, const struct disk *disk, struct choice *choice,
                        uint64_t promises)
{
	int files[SHIM_FILES];
	char *bytes[SHIM_FILES] = { NULL };
	int64_t sizes[SHIM_FILES] = { 0 };
	uint64_t hash = promises * 1099511628211ULL;
	memcpy(files, disk->synced, sizeof files);
	for (int i = 0; i < choice->moves; i++)
		files[disk->moves[i].file] = disk->moves[i].inode;
	for (int i = 0; i < SHIM_FILES; i++) {
		if (files[i] < 0)
			continue;
		bytes[i] = keep(disk, files[i], life->ops, choice, &sizes[i]);
		hash = hash_of(hash + (uint64_t)i + 1, bytes[i], sizes[i]);
	}
	bool new = is_new(life, hash);
	for (int i = 0; i < SHIM_FILES; i++) {
		char path[sizeof life->cut_path + 16];
		(void)snprintf(path, sizeof path, "%s%s", life->cut_path, endings[i]);
		if (new && bytes[i] != NULL)
			write_file(path, bytes[i], sizes[i]);
		else if (new)
			(void)unlink(path);
		free(bytes[i]);
	}
	char shm[sizeof life->cut_path + 16];
	(void)snprintf(shm, sizeof shm, "%s-shm", life->cut_path);
	(void)unlink(shm);
	return new;
}

/* --- The judge ---------------------------------------------------------- */

struct finding {
	struct life *life;
	int64_t cut;
	uint64_t variant;
	unsigned char here[ROWS_MAX]; /* 1 waiting, 2 dead */
	const int64_t *wal_synced;    /* by moment: when -wal was synced next */
};

__attribute__((format(printf, 2, 3)))
static void blame(struct finding *finding, const char *format, ...)
{
	char text[160];
	va_list arguments;
	va_start(arguments, format);
	(void)vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	tally_fail(finding->life->tally, "%s, seed %" PRIu64 ", cut %" PRId64 ", variant %" PRIu64
	           ": %s", finding->life->mode, finding->life->seed, finding->cut, finding->variant,
	           text);
}

static bool same(struct text text, struct text wanted)
{
	return text.size == wanted.size && memcmp(text.bytes, wanted.bytes, text.size) == 0;
}

static void meet(struct finding *finding, const struct record *record, unsigned char kind)
{
	struct life *life = finding->life;
	struct row *row = find_row(life, record->uuid);
	if (row == NULL || row->begun > finding->cut || record->id != row->id ||
	    !same(record->request_body, row->request) ||
	    !same(record->response_body, row->response)) {
		life->tally->altered++;
		blame(finding, "record %" PRId64 " is not as it was inserted", record->id);
		return;
	}
	unsigned char *here = &finding->here[row - life->rows];
	if (*here != 0)
		blame(finding, "record %" PRId64 " is there twice", record->id);
	*here = kind;
}

static void look_at_rows(struct finding *finding, struct spool *spool)
{
	struct record record;
	struct spool_found found;
	struct spool_filter filter = { .before = INT64_MAX };
	enum spool_status status = spool_begin_read(spool);
	int64_t from = SPOOL_FIRST_ID;
	while (status == SPOOL_OK &&
	       (status = spool_next_record(spool, from, INT64_MAX, &record)) == SPOOL_OK) {
		meet(finding, &record, 1);
		from = record.id + 1;
	}
	spool_end_read(spool);
	if (status == SPOOL_END)
		status = spool_find_begin(spool, true, &filter, SPOOL_FIRST_ID, INT64_MAX);
	while (status == SPOOL_OK && (status = spool_find_next(spool, &found)) == SPOOL_OK)
		meet(finding, &found.record, 2);
	spool_find_end(spool);
	if (status != SPOOL_END)
		blame(finding, "cannot be read: %.100s", spool_last_error(spool)->sentence);
}

static void look_at_promises(struct finding *finding)
{
	struct life *life = finding->life;
	int64_t cut = finding->cut;
	uint64_t again = 0;
	for (size_t i = 0; i < life->row_count; i++) {
		const struct row *row = &life->rows[i];
		bool here = finding->here[i] != 0;
		if (!here && row->accepted <= cut && row->confirmed > cut && row->taken > cut) {
			life->tally->lost++;
			blame(finding, "record %" PRId64 " was accepted and is lost", row->id);
		}
		again += here && row->confirmed <= cut;
		if (here && row->left < cut && finding->wal_synced[row->left] < cut)
			blame(finding, "record %" PRId64 " had left, which was synced, and is back", row->id);
	}
	if (again > life->tally->extra)
		life->tally->extra = again;
}

static int is_ok(void *ok, int columns, char **values, char **names)
{
	(void)names;
	*(bool *)ok = columns == 1 && values[0] != NULL && strcmp(values[0], "ok") == 0;
	return 0;
}

static void judge(struct finding *finding)
{
	struct life *life = finding->life;
	struct spool_error error;
	struct spool_ledger ledger;
	sqlite3 *plain = NULL;
	bool ok = false;
	life->tally->points++;
	memset(finding->here, 0, life->row_count);
	struct spool *spool = spool_open(life->cut_path, SPOOL_CREATE, LIMIT, &error);
	if (spool == NULL) {
		blame(finding, "does not open: %.120s", error.sentence);
		return;
	}
	if (sqlite3_exec(spool->db, "PRAGMA integrity_check", is_ok, &ok, NULL) != SQLITE_OK || !ok)
		blame(finding, "integrity_check: %.100s", sqlite3_errmsg(spool->db));
	look_at_rows(finding, spool);
	look_at_promises(finding);
	if (spool_read_ledger(spool, 1000, &ledger) != SPOOL_OK || !ledger.counted || !ledger.balanced)
		blame(finding, "the ledger does not add up");
	/* And it goes on. */
	if (life->tally->points % 16 == 0 &&
	    (sqlite3_open(life->cut_path, &plain) != SQLITE_OK ||
	     sqlite3_exec(plain, "INSERT INTO interactions (model_id, request_body, response_body) "
	                 "VALUES ('m', 'q', '{}')", NULL, NULL, NULL) != SQLITE_OK))
		blame(finding, "takes no more: %.100s", sqlite3_errmsg(plain));
	(void)sqlite3_close(plain);
	spool_close(spool);
}

/* --- A life, and its cuts ----------------------------------------------- */

static int64_t operation_of(const struct disk *disk, struct life *life, int64_t *last)
{
	/* One that is pending, of any file. */
	size_t total = 0;
	*last = 0;
	for (int i = 0; i < disk->inode_count; i++)
		total += disk->inodes[i].count;
	if (total == 0)
		return -1;
	size_t wanted = (size_t)(roll(life) % total);
	for (int i = 0; i < disk->inode_count; i++) {
		if (wanted < disk->inodes[i].count)
			return disk->inodes[i].pending[wanted];
		wanted -= disk->inodes[i].count;
	}
	return -1;
}

static struct choice choose(struct life *life, const struct disk *disk, uint64_t variant)
{
	int64_t last;
	struct choice choice = { .sector = roll(life) % 4 == 0 ? 4096 : 512, .salt = roll(life) };
	int64_t some = operation_of(disk, life, &last);
	choice.luck = variant < 2 ? (enum luck)variant : (enum luck)(roll(life) % LUCKS);
	choice.moves = variant < 2 ? (variant == 0 ? 0 : disk->move_count)
	                           : (int)(roll(life) % (uint64_t)(disk->move_count + 1));
	choice.until = choice.missed = some;
	if (some >= 0) {
		const struct op *op = &life->ops[some];
		int64_t sectors = op->call == SHIM_WRITE
		                          ? (op->at + op->size - 1) / choice.sector - op->at / choice.sector + 1
		                          : 1;
		choice.torn = (int64_t)(roll(life) % (uint64_t)sectors);
		choice.spot = op->at / choice.sector + choice.torn;
	}
	choice.none = (unsigned)(roll(life) % 101);
	choice.whole = (unsigned)(roll(life) % (101 - choice.none));
	return choice;
}

static int compare_moments(const void *left, const void *right)
{
	int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
	return a < b ? -1 : a > b;
}

/* How many promises had been given: two states with the same bytes differ by them. */
static uint64_t promises_at(const struct life *life, int64_t cut)
{
	uint64_t count = 0;
	for (size_t i = 0; i < life->row_count; i++)
		count += (uint64_t)(life->rows[i].accepted <= cut) +
		         (uint64_t)(life->rows[i].confirmed <= cut) +
		         (uint64_t)(life->rows[i].left <= cut);
	return count;
}

static void cut_power(struct life *life, uint64_t states, int64_t born, double deadline)
{
	struct disk *disk = calloc(1, sizeof *disk);
	struct finding *finding = calloc(1, sizeof *finding);
	int64_t *next = malloc(((size_t)life->count + 1) * sizeof *next);
	int64_t *cuts = malloc((size_t)states * 2 * sizeof *cuts);
	life->seen_room = (size_t)states * 4 + 7;
	life->seen = calloc(life->seen_room, sizeof *life->seen);
	if (disk == NULL || finding == NULL || next == NULL || cuts == NULL || life->seen == NULL)
		exit(71);
	next[life->count] = NEVER;
	for (int64_t i = life->count - 1; i >= 0; i--)
		next[i] = life->ops[i].call == SHIM_SYNC && life->ops[i].file == SHIM_WAL ? i : next[i + 1];
	/* A tenth while the spool is made; a half where most is unsynced. */
	for (uint64_t i = 0; i < states * 2; i++) {
		cuts[i] = (int64_t)(roll(life) % (uint64_t)(life->count + 1));
		if (i % 10 == 0)
			cuts[i] = (int64_t)(roll(life) % (uint64_t)(born + 1));
		else if (i % 2 == 0)
			while (cuts[i] < life->count && life->ops[cuts[i]].call != SHIM_SYNC)
				cuts[i]++;
	}
	/* From any place in it a half is to do, since some states turn up twice. */
	qsort(cuts, (size_t)states * 2, sizeof *cuts, compare_moments);
	for (int i = 0; i < SHIM_FILES; i++)
		disk->now[i] = disk->synced[i] = -1;
	*finding = (struct finding){ .life = life, .wal_synced = next };
	uint64_t variant = 0, done = 0;
	int64_t at = 0;
	for (uint64_t i = 0; i < states * 2 && tally_clock() < deadline; i++) {
		for (; at < cuts[i]; at++)
			advance(disk, life->ops, at);
		variant = i > 0 && cuts[i - 1] == cuts[i] ? variant + 1 : 0;
		if (done >= states || done * 2 > i + 2)
			continue; /* evenly over the whole life */
		finding->cut = cuts[i];
		finding->variant = variant;
		struct choice choice = choose(life, disk, variant > 0 ? variant : roll(life) % 3);
		if (!write_state(life, disk, &choice, promises_at(life, cuts[i])))
			continue;
		done++;
		judge(finding);
	}
	for (int i = 0; i < disk->inode_count; i++) {
		free(disk->inodes[i].bytes);
		free(disk->inodes[i].pending);
	}
	free(disk);
	free(finding);
	free(next);
	free(cuts);
	free(life->seen);
}

static void remove_spool(const char *path)
{
	static const char *const all[] = { "", "-wal", "-shm", "-journal", "-agent.ballast" };
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		char name[200];
		(void)snprintf(name, sizeof name, "%s%s", path, all[i]);
		(void)unlink(name);
	}
}

static void one_life(struct tally *tally, const struct tally_options *options, uint64_t seed,
                     uint64_t states, double deadline)
{
	struct life *life = calloc(1, sizeof *life);
	if (life == NULL)
		exit(71);
	life->tally = tally;
	life->seed = seed;
	life->dice = tally_seed(seed);
	life->mode = options->mode;
	(void)snprintf(life->folder, sizeof life->folder, "%.90s/power-XXXXXX", options->folder);
	if (mkdtemp(life->folder) == NULL || !shim_install(record, life)) {
		perror(life->folder);
		exit(74);
	}
	(void)snprintf(life->path, sizeof life->path, "%s/spool.db", life->folder);
	(void)snprintf(life->cut_path, sizeof life->cut_path, "%s/cut.db", life->folder);
	open_agent(life);
	int64_t born = life->count;
	/* Now and then so much that there are pages to give back. */
	bool large = seed % 16 == 0;
	for (int i = 0; large && i < 60; i++) {
		insert(life, 8, 60000);
		insert(life, 8, 30000);
		settle(life, 4);
	}
	for (int i = 0; large && i < 30; i++)
		settle(life, BATCH);
	for (int i = 0; i < 250 && !life->broken; i++)
		step(life);
	close_producer(life, 0);
	close_producer(life, 1);
	spool_close(life->spool);
	shim_remove();
	if (!life->broken)
		cut_power(life, states, born, deadline);
	for (int64_t i = 0; i < life->count; i++)
		free(life->ops[i].bytes);
	for (size_t i = 0; i < life->row_count; i++) {
		free((void *)(uintptr_t)life->rows[i].request.bytes);
		free((void *)(uintptr_t)life->rows[i].response.bytes);
	}
	free(life->ops);
	remove_spool(life->path);
	remove_spool(life->cut_path);
	(void)rmdir(life->folder);
	free(life);
}

int main(int count, char **words)
{
	struct tally tally = { .points = 0 };
	struct tally_options options = { .seed = 1, .points = 1000, .budget = 3600, .mode = "FULL" };
	if (!tally_parse(count, words, &options)) {
		(void)fprintf(stderr, "usage: power_loss --seed N --points N --budget SECONDS "
		              "--mode FULL|NORMAL|OFF --folder FOLDER\n");
		return 64;
	}
	double deadline = tally_clock() + options.budget;
	uint64_t seed = options.seed;
	while (tally.points < options.points && tally_clock() < deadline &&
	       seed - options.seed < options.points) {
		uint64_t states = options.points - tally.points;
		one_life(&tally, &options, seed++, states < STATES_A_LIFE ? states : STATES_A_LIFE,
		         deadline);
	}
	return tally_print(&tally);
}
