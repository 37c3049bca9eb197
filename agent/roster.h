/* The records that the flow knows of: a bounded window of what waits in the spool,
 * in memory alone. Who stands behind whom, and in which state each is. Pure data
 * structure: no I/O, no clock.
 *
 *   QUEUED    behind another of its session
 *   READY     first of its session, payload built
 *   COLD      likewise, but its payload is not in memory
 *   LOADING   likewise, a job is building its payload
 *   FLYING    being posted
 *   WAITING   failed by itself: again when `due` has come
 *   SETTLING  has its verdict, which a job is writing down
 *
 *   QUEUED -> READY|COLD;  COLD -> LOADING -> READY;  READY -> FLYING|COLD;
 *   FLYING -> SETTLING|WAITING|COLD;  WAITING -> COLD|SETTLING
 *
 * To forget an item is always safe: its row is still in the spool, and a scan
 * from an earlier id meets it again.
 */
#ifndef AGENT_ROSTER_H
#define AGENT_ROSTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "agent/job.h"

#define ROSTER_BUCKETS 1024
/* Of one session as many are known, so that it cannot fill the window; more are
 * asked for when so few are left. */
#define ROSTER_SESSION_ROOM 16
#define ROSTER_SESSION_LOW 4

enum item_state { QUEUED, READY, COLD, LOADING, FLYING, WAITING, SETTLING };

struct session;

struct item {
	enum item_state state;
	int64_t id;
	char uuid[RECORD_UUID_SIZE + 1];
	size_t app;
	struct session *session;      /* NULL: independent, or done with it */
	struct item *behind;          /* next of the session */
	struct item *chain;           /* of the hash by id */
	struct item *previous, *next; /* of the list of its state */
	char *payload;
	size_t size;
	int64_t bytes;
	int64_t charged;     /* to the limits, for the post under way */
	bool keyed;
	bool done;           /* QUEUED for good: it has its verdict, whatever the file shows */
	bool missed;         /* done: its row was gone already, a dead letter perhaps by now */
	bool probe;          /* tries whether a held app is taken again */
	int64_t request_at;  /* -1: none */
	unsigned attempts;   /* failures that were its own */
	unsigned failures;   /* in a row, for its backoff */
	int64_t due;         /* WAITING */
	uint64_t sent;       /* the number of its post */
	unsigned generation; /* of the configuration that it was posted by */
	char *lost_app;      /* FLYING: its app's name, where the configuration lost that since */
	bool doubted;        /* WAITING: not yet known whether the failure was its own */
	uint64_t doubt;      /* the number of posts when it failed, 0: that was judged */
	uint64_t epoch;      /* of the breaker, when it last testified */
	int status;          /* of the last answer, 0: none */
	const char *code, *sentence;
	char *said;          /* the beginning of the last answer */
	size_t said_size;
};

struct item_list {
	struct item *first, *last;
	size_t count;
};

struct session {
	uint64_t hash;
	size_t app;
	struct item *first, *last; /* by id; the first alone may be sent */
	size_t count;
	int64_t more_from;         /* rows from this id on are not known; INT64_MAX: none */
	bool hungry;               /* in the list of those to read more of */
	bool resting;              /* not to be read before all is read again */
	struct session *chain, *next_hungry;
};

/* Read its members freely; change them through the functions below alone. */
struct roster {
	struct item *items[ROSTER_BUCKETS];
	struct session *sessions[ROSTER_BUCKETS];
	size_t item_count, session_count;
	struct item_list ready, cold, flying, waiting;
	size_t settling, doubted;      /* how many are SETTLING; WAITING and doubted */
	size_t flying_of[APP_PLACES];  /* by app */
	size_t loaded_bytes;           /* of all payloads in memory */
	struct session *hungry;
};

struct item *roster_find(const struct roster *roster, int64_t id);
struct session *roster_find_session(const struct roster *roster, uint64_t hash);

/* Takes in a record that is not known yet, as QUEUED, at its place in its session
 * by id (in front of others where a row was put back under an old id). NULL: no
 * memory, and nothing has changed. */
struct item *roster_add(struct roster *roster, int64_t id, size_t app, uint64_t session);

/* Gives an item the payload that a job built; the roster frees it. */
void roster_load(struct roster *roster, struct item *item, char *payload, size_t size);
void roster_unload(struct roster *roster, struct item *item);

/* The one way in which an item changes its state: to the end of the new state's
 * list. */
void roster_move(struct roster *roster, struct item *item, enum item_state state);

/* To READY or COLD, according to its payload. */
void roster_release(struct roster *roster, struct item *item);

/* To the front of the COLD ones. */
void roster_prefer(struct roster *roster, struct item *item);

/* Takes an item out of its session, whose next one is released. May free the
 * session. */
void roster_leave(struct roster *roster, struct item *item);

/* Takes an item out of all, and frees it. */
void roster_remove(struct roster *roster, struct item *item);

/* Puts a session into the hungry list where it has unknown rows, is nearly used
 * up, does not rest and may go on. */
void roster_feed(struct roster *roster, struct session *session);

/* What is not known of it is no longer its own: a scan from an earlier id than all of that
 * is to meet it. May free the session. */
void roster_forget_rest(struct roster *roster, struct session *session);

/* The next hungry session, taken out of that list; NULL: none. */
struct session *roster_next_hungry(struct roster *roster);

/* Frees a session that nothing is left of; else does nothing. */
void roster_trim(struct roster *roster, struct session *session);

/* Frees all. */
void roster_clear(struct roster *roster);

#endif
