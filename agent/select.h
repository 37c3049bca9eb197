/* Which records a person means: the options that list, retry, discard, purge and
 * export have in common. Pure, but for the clock that it is given.
 */
#ifndef AGENT_SELECT_H
#define AGENT_SELECT_H

#include "spool/manage.h"

struct selection {
	struct spool_filter filter; /* borrows the command line */
	bool filtered;              /* any filter was given */
	bool dead, delivered, all, yes, json;
	int64_t limit;              /* records at most; INT64_MAX: all */
	char uuid[RECORD_UUID_SIZE + 1]; /* in place of an id, where a command takes either */
	int64_t *ids;               /* in the order given; owned by the caller */
	size_t id_count;
};

/* The letters of the options, for getopt_long() and selection_take(). */
enum selection_option {
	SELECT_APP = 'a',
	SELECT_ALL = 'A',
	SELECT_BEFORE = 'b',
	SELECT_DEAD = 'd',
	SELECT_DELIVERED = 'D',
	SELECT_LIMIT = 'l',
	SELECT_OLDER = 'o',
	SELECT_REASON = 'r',
	SELECT_SESSION = 'S',
	SELECT_USER = 'u',
	SELECT_YES = 'y'
};

/* A selection of everything. */
struct selection selection_of_all(void);

/* Takes one option. `now` is ms since 1970. NULL, or a sentence that says what its
 * value should be. */
const char *selection_take(struct selection *selection, int letter, const char *value,
                           int64_t now);

/* A record's number, whole and nothing else. */
bool selection_parse_id(const char *text, int64_t *id);

/* A record's uuid: 32 hex digits, in lower case then. */
bool selection_parse_uuid(const char *text, char uuid[RECORD_UUID_SIZE + 1]);

/* A time: 2026-11-23, 2026-11-23T12:30 or with seconds, in local time or, with a Z at
 * its end, in UTC. In ms since 1970. */
bool selection_parse_time(const char *text, int64_t *time);

#endif
