/* Takes all that can be read out of a damaged spool into a new one, and sets the damaged
 * file aside. Never deletes it, nor anything else that holds records.
 *
 * A kill at any moment leaves the old spool in its place or the new one, whole; then the
 * salvage can be repeated.
 */
#ifndef SPOOL_SALVAGE_H
#define SPOOL_SALVAGE_H

#include "spool/spool.h"

#define SALVAGE_RANGES 20

struct salvage_range {
	int64_t from, to;
	bool dead; /* dead letters, else waiting records */
};

struct salvage_report {
	bool needed;           /* false: the spool is sound, and nothing was changed */
	char aside[PATH_MAX];  /* where the damaged file is now */
	int64_t waiting, dead; /* kept */
	int64_t doubtful;      /* of the dead: perhaps with a part of another's text */
	int64_t lost;          /* records that could not be read; -1: nobody can know */
	bool counters_lost;    /* the ledger could not be read, and begins anew */
	bool others_lost;      /* some remembered keys, attempts or notes could not be read */
	/* Ids among which those that could not be read are to be found, in order. */
	struct salvage_range ranges[SALVAGE_RANGES];
	size_t range_count;
	bool more_ranges;
};

/* Salvages the spool at `path`, whose agent is not running: the caller holds its lock.
 * `wall` is ms since 1970, `patience` ms to wait for programs that have it open.
 * SPOOL_OK: `report` says what came of it. SPOOL_BUSY: a program has the spool open, and
 * `*error` names it. Else likewise, and nothing was changed. */
enum spool_status spool_salvage(const char *path, int64_t wall, int patience,
                                struct salvage_report *report, struct spool_error *error);

#endif
