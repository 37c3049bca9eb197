/* The spool as a model in memory: what spool.h promises, without SQLite, so that a life of
 * days takes a millisecond. It fails at any call, and loses in a power cut what was settled
 * since the last sync. See store.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/torture/store.h"
#include "tests/torture/tally.h"

#define KEPT_MAX 2048

struct kept {
	enum store_state state;
	unsigned attempts;
};

struct books {
	struct kept rows[KEPT_MAX + 1]; /* by id */
	int64_t accepted, delivered, dead, discarded, removed;
};

struct text_row {
	char uuid[RECORD_UUID_SIZE + 1], app[16], session[16], request[64], response[64];
};

struct store {
	struct text_row texts[KEPT_MAX + 1];
	int64_t last;
	struct books now, synced;
	bool stuck[KEPT_MAX + 1], damaged[KEPT_MAX + 1]; /* rows, by id */
	int64_t paused_at;
	char path[32];
	unsigned spoilt;
	uint64_t dice;
};

struct spool {
	struct store *store;
	struct spool_error error;
};

struct store *store_new(void)
{
	struct store *store = calloc(1, sizeof *store);
	if (store == NULL)
		exit(71);
	(void)snprintf(store->path, sizeof store->path, "%p", (void *)store);
	store->dice = 1;
	store->paused_at = -1;
	return store;
}

void store_free(struct store *store)
{
	free(store);
}

const char *store_path(const struct store *store)
{
	return store->path;
}

static void sync_all(struct store *store)
{
	memcpy(store->synced.rows, store->now.rows,
	       ((size_t)store->last + 1) * sizeof store->now.rows[0]);
	store->synced.accepted = store->now.accepted;
	store->synced.delivered = store->now.delivered;
	store->synced.dead = store->now.dead;
	store->synced.discarded = store->now.discarded;
	store->synced.removed = store->now.removed;
}

void store_insert(struct store *store, const struct store_row *row)
{
	if (store->last == KEPT_MAX)
		exit(70);
	struct text_row *texts = &store->texts[++store->last];
	(void)snprintf(texts->uuid, sizeof texts->uuid, "%s", row->uuid);
	(void)snprintf(texts->app, sizeof texts->app, "%s", row->app);
	(void)snprintf(texts->session, sizeof texts->session, "%s", row->session);
	(void)snprintf(texts->request, sizeof texts->request, "%s", row->request);
	(void)snprintf(texts->response, sizeof texts->response, "%s", row->response);
	store->now.rows[store->last] = (struct kept){ .state = STORE_WAITING };
	store->now.accepted++;
	sync_all(store);
}

enum store_state store_look(struct store *store, int64_t id)
{
	return store->now.rows[id].state;
}

bool store_take(struct store *store, int64_t id, bool removed)
{
	if (store->now.rows[id].state != STORE_WAITING || store->stuck[id])
		return false;
	store->now.rows[id].state = STORE_GONE;
	if (removed)
		store->now.removed++;
	else
		store->now.discarded++;
	sync_all(store);
	return true;
}

bool store_revive(struct store *store, int64_t id)
{
	if (store->now.rows[id].state != STORE_DEAD)
		return false;
	store->now.rows[id] = (struct kept){ .state = STORE_WAITING };
	store->now.dead--;
	sync_all(store);
	return true;
}

void store_pause(struct store *store, int64_t since)
{
	store->paused_at = since;
}

bool store_spoil_row(struct store *store, int64_t id, bool damaged)
{
	if (store->now.rows[id].state != STORE_WAITING || store->stuck[id])
		return false;
	store->stuck[id] = true;
	store->damaged[id] = damaged;
	return true;
}

void store_spoil(struct store *store, unsigned in_a_thousand, uint64_t seed)
{
	store->spoilt = in_a_thousand;
	store->dice = tally_seed(seed);
}

void store_cut(struct store *store)
{
	store->now = store->synced;
}

bool store_balanced(struct store *store)
{
	const struct books *books = &store->now;
	int64_t waiting = 0, dead = 0;
	for (int64_t id = 1; id <= store->last; id++) {
		waiting += books->rows[id].state == STORE_WAITING;
		dead += books->rows[id].state == STORE_DEAD;
	}
	return dead == books->dead && books->accepted == books->delivered + books->dead +
	                                      books->discarded + books->removed + waiting;
}

/* --- spool.h ------------------------------------------------------------ */

static enum spool_status fails(struct spool *spool)
{
	static const enum spool_status kinds[] = { SPOOL_IO, SPOOL_BUSY, SPOOL_FULL, SPOOL_BUSY };
	if (spool->store->spoilt == 0 || tally_roll(&spool->store->dice) % 1000 >= spool->store->spoilt)
		return SPOOL_OK;
	spool->error.status = kinds[tally_roll(&spool->store->dice) % 4];
	(void)snprintf(spool->error.sentence, sizeof spool->error.sentence, "the model fails");
	return spool->error.status;
}

static enum spool_status is_damaged(struct spool *spool)
{
	spool->error.status = SPOOL_DAMAGED;
	(void)snprintf(spool->error.sentence, sizeof spool->error.sentence, "a page is damaged");
	return SPOOL_DAMAGED;
}

struct spool *spool_open(const char *path, enum spool_mode mode, int64_t row_limit,
                         struct spool_error *error)
{
	struct spool *spool = calloc(1, sizeof *spool);
	void *store = NULL;
	(void)mode;
	(void)row_limit;
	if (spool == NULL || sscanf(path, "%p", &store) != 1)
		exit(71);
	spool->store = store;
	error->status = SPOOL_OK;
	return spool;
}

void spool_close(struct spool *spool)
{
	free(spool);
}

const struct spool_error *spool_last_error(const struct spool *spool)
{
	return &spool->error;
}

bool spool_was_replaced(const struct spool *spool, bool *orphaned)
{
	(void)spool;
	if (orphaned != NULL)
		*orphaned = false;
	return false;
}

enum spool_status spool_set_limits(struct spool *spool, int64_t max_spool, int64_t max_record,
                                   bool drop_oldest)
{
	(void)max_spool;
	(void)max_record;
	(void)drop_oldest;
	return fails(spool);
}

enum spool_status spool_begin_read(struct spool *spool)
{
	return fails(spool);
}

void spool_end_read(struct spool *spool)
{
	(void)spool;
}

static struct text text_of(const char *text)
{
	return (struct text){ text, strlen(text) };
}

static int64_t next_waiting(const struct store *store, int64_t from, int64_t to)
{
	for (int64_t id = from > 1 ? from : 1; id <= store->last && id <= to; id++)
		if (store->now.rows[id].state == STORE_WAITING)
			return id;
	return 0;
}

static void fill(const struct store *store, int64_t id, struct record *record)
{
	const struct text_row *texts = &store->texts[id];
	memset(record, 0, sizeof *record);
	record->id = id;
	record->model_id = text_of("m");
	record->request_body = text_of(texts->request);
	record->response_body = text_of(texts->response);
	record->request_at = record->spooled_at = (struct number){ NUMBER_SET, 1700000000000 };
	if (texts->session[0] != '\0')
		record->session = text_of(texts->session);
	record->app = text_of(texts->app);
	record->format = text_of("bedrock");
	record->type = text_of("chat");
	record->uuid = text_of(texts->uuid);
}

enum spool_status spool_next(struct spool *spool, int64_t from, int64_t to,
                             struct spool_place *place)
{
	struct record record;
	enum spool_status status = spool_next_record(spool, from, to, &record);
	if (status == SPOOL_OK)
		*place = (struct spool_place){ record.id, record.app, record.session };
	return status;
}

enum spool_status spool_next_record(struct spool *spool, int64_t from, int64_t to,
                                    struct record *record)
{
	enum spool_status status = fails(spool);
	int64_t id = next_waiting(spool->store, from, to);
	if (status != SPOOL_OK)
		return status;
	if (id == 0)
		return SPOOL_END;
	if (spool->store->damaged[id])
		return is_damaged(spool);
	fill(spool->store, id, record);
	return SPOOL_OK;
}

enum spool_status spool_load(struct spool *spool, int64_t id, struct record *record)
{
	enum spool_status status = fails(spool);
	if (status != SPOOL_OK)
		return status;
	if (id < 1 || id > spool->store->last || spool->store->now.rows[id].state != STORE_WAITING)
		return SPOOL_END;
	if (spool->store->damaged[id])
		return is_damaged(spool);
	fill(spool->store, id, record);
	return SPOOL_OK;
}

enum spool_status spool_attempts(struct spool *spool, int64_t id, struct text uuid,
                                 unsigned *attempts)
{
	(void)uuid;
	*attempts = spool->store->now.rows[id].attempts;
	return fails(spool);
}

static void apply_one(struct store *store, struct spool_change *change)
{
	if (change->kind == CHANGE_NOTE)
		return;
	struct books *books = &store->now;
	struct kept *kept = &books->rows[change->id];
	enum store_state wanted = change->kind == CHANGE_REVIVED ? STORE_DEAD : STORE_WAITING;
	bool meant = change->uuid[0] == '\0' || strcmp(change->uuid, store->texts[change->id].uuid) == 0;
	change->refused = wanted == STORE_WAITING && kept->state == wanted && store->stuck[change->id] &&
	                  change->kind != CHANGE_ATTEMPTS;
	change->damaged = change->refused && store->damaged[change->id];
	change->missed = !change->refused && (kept->state != wanted || !meant);
	if (change->refused)
		return;
	if (change->kind == CHANGE_ATTEMPTS)
		kept->attempts = change->attempts;
	if (change->missed || change->kind == CHANGE_ATTEMPTS)
		return;
	kept->attempts = 0;
	if (change->kind == CHANGE_DELIVERED) {
		kept->state = STORE_GONE;
		books->delivered++;
	} else if (change->kind == CHANGE_DEAD) {
		kept->state = STORE_DEAD;
		books->dead++;
		if (change->code == NULL || change->sentence == NULL || change->sentence[0] == '\0')
			abort();
	} else if (change->kind == CHANGE_REVIVED) {
		kept->state = STORE_WAITING;
		books->dead--;
	} else {
		abort(); /* the flow has no other */
	}
}

enum spool_status spool_apply(struct spool *spool, struct spool_change *changes, size_t count,
                              int64_t wall)
{
	(void)wall;
	enum spool_status status = fails(spool);
	/* A commit that fails may have been written all the same. */
	if (status == SPOOL_IO ? tally_roll(&spool->store->dice) % 4 != 0 : status != SPOOL_OK)
		return status;
	for (size_t i = 0; i < count; i++)
		apply_one(spool->store, &changes[i]);
	if (tally_roll(&spool->store->dice) % 10 == 0)
		sync_all(spool->store); /* a checkpoint */
	return status;
}

void spool_tidy_later(struct spool *spool)
{
	(void)spool;
}

bool spool_has_room(struct spool *spool)
{
	return tally_roll(&spool->store->dice) % 100 == 0;
}

enum spool_status spool_shrink(struct spool *spool, bool *more)
{
	*more = tally_roll(&spool->store->dice) % 3 == 0;
	return fails(spool);
}

/* Nothing else is noted but a pause. */
enum spool_status spool_read_note(struct spool *spool, const char *name, char **value)
{
	enum spool_status status = fails(spool);
	*value = NULL;
	if (status != SPOOL_OK || strcmp(name, "paused") != 0 || spool->store->paused_at < 0)
		return status;
	*value = malloc(24);
	if (*value == NULL)
		exit(71);
	(void)snprintf(*value, 24, "%lld", (long long)spool->store->paused_at);
	return SPOOL_OK;
}

enum spool_status spool_pass_damage(struct spool *spool, bool dead, int64_t from, int64_t to,
                                    int64_t *next)
{
	enum spool_status status = fails(spool);
	int64_t id = next_waiting(spool->store, from, to);
	(void)dead;
	while (id != 0 && spool->store->damaged[id])
		id = next_waiting(spool->store, id + 1, to);
	*next = id;
	return status != SPOOL_OK ? status : id != 0 ? SPOOL_OK : SPOOL_END;
}

/* Nothing in memory grows old, or is told of. */
enum spool_status spool_sweep(struct spool *spool, const struct spool_keep *keep, int64_t wall,
                              struct spool_swept *swept)
{
	(void)keep;
	(void)wall;
	*swept = (struct spool_swept){ .due = INT64_MAX };
	return fails(spool);
}

enum spool_status spool_read_counters(struct spool *spool, struct spool_ledger *ledger)
{
	*ledger = (struct spool_ledger){ .balanced = true, .oldest_at = -1 };
	return fails(spool);
}

/* For metrics, which this agent does not write. */
enum spool_status spool_read_ledger(struct spool *spool, int patience, struct spool_ledger *ledger)
{
	(void)spool;
	(void)patience;
	(void)ledger;
	abort();
}

void spool_count_reasons(struct spool *spool, int patience, struct spool_ledger *ledger)
{
	(void)spool_read_ledger(spool, patience, ledger);
}
