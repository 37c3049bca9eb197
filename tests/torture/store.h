/* What the simulation has instead of a disk, behind the spool's own header: either a model
 * in memory (store_model.c implements spool.h, too) or SQLite (store_sqlite.c beside the
 * real spool/). Ids are 1, 2, 3 ... in the order of store_insert(). */
#ifndef TORTURE_STORE_H
#define TORTURE_STORE_H

#include "spool/spool.h"

struct store;

struct store_row {
	const char *uuid, *app, *session; /* session "": none */
	const char *request, *response;
};

enum store_state { STORE_WAITING, STORE_DEAD, STORE_GONE };

struct store *store_new(void);
void store_free(struct store *store); /* its struct spool was closed */
const char *store_path(const struct store *store);

/* A producer's commit, which is synced, with all before it. */
void store_insert(struct store *store, const struct store_row *row);
enum store_state store_look(struct store *store, int64_t id);

/* What a producer (`removed`) or a person does to a row; false where it is not there. */
bool store_take(struct store *store, int64_t id, bool removed);
bool store_revive(struct store *store, int64_t id);

/* What a person's 'pause' leaves in the spool; -1: 'resume'. */
void store_pause(struct store *store, int64_t since);

/* From now on the row cannot leave, as by somebody's doing in the file; nor, where its page
 * is damaged, be read. False where it does not wait, or the store cannot do that. */
bool store_spoil_row(struct store *store, int64_t id, bool damaged);

/* From now on so many in a thousand of the agent's calls fail. */
void store_spoil(struct store *store, unsigned in_a_thousand, uint64_t seed);

/* The power fails: what was not synced is gone. The struct spool was closed. */
void store_cut(struct store *store);

/* Whether accepted is the sum of all fates and of what waits, and each is right. */
bool store_balanced(struct store *store);

#endif
