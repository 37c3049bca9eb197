/* The records that the flow knows of; see roster.h. */
#include "agent/roster.h"

#include <stdlib.h>
#include <string.h>

#include "agent/secret.h"

static void append(struct item_list *list, struct item *item)
{
	item->next = NULL;
	item->previous = list->last;
	if (list->last != NULL)
		list->last->next = item;
	else
		list->first = item;
	list->last = item;
	list->count++;
}

static void prepend(struct item_list *list, struct item *item)
{
	item->previous = NULL;
	item->next = list->first;
	if (list->first != NULL)
		list->first->previous = item;
	else
		list->last = item;
	list->first = item;
	list->count++;
}

static void take_out(struct item_list *list, struct item *item)
{
	if (item->previous != NULL)
		item->previous->next = item->next;
	else
		list->first = item->next;
	if (item->next != NULL)
		item->next->previous = item->previous;
	else
		list->last = item->previous;
	item->previous = item->next = NULL;
	list->count--;
}

static size_t bucket(uint64_t number)
{
	return (size_t)((number * 0x9E3779B97F4A7C15ULL) >> 54) % ROSTER_BUCKETS;
}

struct item *roster_find(const struct roster *roster, int64_t id)
{
	struct item *item = roster->items[bucket((uint64_t)id)];
	while (item != NULL && item->id != id)
		item = item->chain;
	return item;
}

struct session *roster_find_session(const struct roster *roster, uint64_t hash)
{
	struct session *session = roster->sessions[bucket(hash)];
	while (session != NULL && session->hash != hash)
		session = session->chain;
	return session;
}

void roster_unload(struct roster *roster, struct item *item)
{
	if (item->payload == NULL)
		return;
	secret_free(item->payload, item->size);
	item->payload = NULL;
	roster->loaded_bytes -= item->size;
}

static struct item_list *list_of(struct roster *roster, enum item_state state)
{
	switch (state) {
	case READY:
		return &roster->ready;
	case COLD:
		return &roster->cold;
	case FLYING:
		return &roster->flying;
	case WAITING:
		return &roster->waiting;
	default:
		return NULL;
	}
}

void roster_move(struct roster *roster, struct item *item, enum item_state state)
{
	struct item_list *from = list_of(roster, item->state);
	struct item_list *to = list_of(roster, state);
	if (from != NULL)
		take_out(from, item);
	if (item->state == FLYING)
		roster->flying_of[item->app]--;
	if (state == FLYING)
		roster->flying_of[item->app]++;
	if (item->state == WAITING && item->doubted) {
		item->doubted = false;
		roster->doubted--;
	}
	roster->settling += (size_t)(state == SETTLING) - (size_t)(item->state == SETTLING);
	item->state = state;
	if (to != NULL)
		append(to, item);
}

void roster_release(struct roster *roster, struct item *item)
{
	roster_move(roster, item, item->payload != NULL ? READY : COLD);
}

void roster_trim(struct roster *roster, struct session *session)
{
	if (session->hungry || session->count > 0 || session->more_from != INT64_MAX)
		return;
	struct session **link = &roster->sessions[bucket(session->hash)];
	while (*link != session)
		link = &(*link)->chain;
	*link = session->chain;
	roster->session_count--;
	free(session);
}

void roster_feed(struct roster *roster, struct session *session)
{
	if (session->hungry || session->resting || session->more_from == INT64_MAX ||
	    session->count > ROSTER_SESSION_LOW ||
	    (session->first != NULL && session->first->state == WAITING))
		return;
	session->hungry = true;
	session->next_hungry = roster->hungry;
	roster->hungry = session;
}

void roster_forget_rest(struct roster *roster, struct session *session)
{
	session->more_from = INT64_MAX;
	session->resting = false;
	roster_trim(roster, session);
}

/* Takes an item out of its session; the next one comes to the front. */
void roster_leave(struct roster *roster, struct item *item)
{
	struct session *session = item->session;
	if (session == NULL)
		return;
	struct item **link = &session->first, *before = NULL;
	while (*link != item) {
		before = *link;
		link = &(*link)->behind;
	}
	*link = item->behind;
	if (session->last == item)
		session->last = before;
	session->count--;
	item->session = NULL;
	item->behind = NULL;
	if (session->first != NULL && session->first->state == QUEUED)
		roster_release(roster, session->first);
	roster_feed(roster, session);
	roster_trim(roster, session);
}

void roster_remove(struct roster *roster, struct item *item)
{
	roster_leave(roster, item);
	roster_unload(roster, item);
	struct item_list *list = list_of(roster, item->state);
	if (list != NULL)
		take_out(list, item);
	if (item->state == FLYING)
		roster->flying_of[item->app]--;
	if (item->state == SETTLING)
		roster->settling--;
	if (item->state == WAITING && item->doubted)
		roster->doubted--;
	struct item **link = &roster->items[bucket((uint64_t)item->id)];
	while (*link != item)
		link = &(*link)->chain;
	*link = item->chain;
	roster->item_count--;
	free(item->said);
	free(item->lost_app);
	free(item);
}

/* Puts an item into its session by id. Rows usually come in order; one that was
 * put back with an old id comes before the others. */
static void join_session(struct roster *roster, struct item *item, struct session *session)
{
	struct item **link = &session->first;
	if (session->last != NULL && session->last->id < item->id)
		link = &session->last->behind;
	while (*link != NULL && ((*link)->id < item->id || (*link)->state == FLYING))
		link = &(*link)->behind;
	struct item *after = *link;
	item->session = session;
	item->behind = after;
	*link = item;
	if (after == NULL)
		session->last = item;
	session->count++;
	if (after != NULL && session->first == item && after->state != QUEUED)
		roster_move(roster, after, QUEUED);
}

static struct session *session_for(struct roster *roster, uint64_t hash, size_t app)
{
	struct session *session = roster_find_session(roster, hash);
	if (session != NULL)
		return session;
	session = calloc(1, sizeof *session);
	if (session == NULL)
		return NULL;
	session->hash = hash;
	session->app = app;
	session->more_from = INT64_MAX;
	struct session **head = &roster->sessions[bucket(hash)];
	session->chain = *head;
	*head = session;
	roster->session_count++;
	return session;
}

struct item *roster_add(struct roster *roster, int64_t id, size_t app, uint64_t hash)
{
	struct session *session = NULL;
	struct item *item = malloc(sizeof *item);
	if (item == NULL)
		return NULL;
	if (hash != SESSION_NONE && (session = session_for(roster, hash, app)) == NULL) {
		free(item);
		return NULL;
	}
	*item = (struct item){ .state = QUEUED, .id = id, .app = app };
	struct item **head = &roster->items[bucket((uint64_t)item->id)];
	item->chain = *head;
	*head = item;
	roster->item_count++;
	if (session != NULL)
		join_session(roster, item, session);
	return item;
}

void roster_load(struct roster *roster, struct item *item, char *payload, size_t size)
{
	item->payload = payload;
	item->size = size;
	roster->loaded_bytes += size;
}

void roster_prefer(struct roster *roster, struct item *item)
{
	roster_move(roster, item, COLD);
	take_out(&roster->cold, item);
	prepend(&roster->cold, item);
}

struct session *roster_next_hungry(struct roster *roster)
{
	while (roster->hungry != NULL) {
		struct session *session = roster->hungry;
		roster->hungry = session->next_hungry;
		session->hungry = false;
		/* It may have been fed, or emptied, by other means since. */
		if (session->more_from != INT64_MAX && session->count <= ROSTER_SESSION_LOW &&
		    !session->resting)
			return session;
		roster_trim(roster, session);
	}
	return NULL;
}

void roster_clear(struct roster *roster)
{
	for (size_t i = 0; i < ROSTER_BUCKETS; i++) {
		while (roster->items[i] != NULL)
			roster_remove(roster, roster->items[i]);
	}
	for (size_t i = 0; i < ROSTER_BUCKETS; i++) {
		struct session *next;
		for (struct session *session = roster->sessions[i]; session != NULL; session = next) {
			next = session->chain;
			free(session);
		}
		roster->sessions[i] = NULL;
	}
	roster->hungry = NULL;
	roster->session_count = 0;
}
