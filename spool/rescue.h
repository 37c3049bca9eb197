/* Reads a damaged spool's pages and writes what can be read into a new, empty one. Knows
 * which page belongs to which table by the trees above it or, where those are damaged, by
 * what the file remembers of each page. For spool/salvage.c alone.
 */
#ifndef SPOOL_RESCUE_H
#define SPOOL_RESCUE_H

#include <sqlite3.h>

#include "spool/pages.h"
#include "spool/salvage.h"

enum rescue_result {
	RESCUE_DONE,
	RESCUE_FOREIGN,   /* nothing in it is a spool's */
	RESCUE_NEWER,     /* it is a newer program's */
	RESCUE_NO_MEMORY,
	RESCUE_UNWRITTEN  /* the SQLite error is on the connection */
};

/* Copies within the transaction that is open on `to`, and fills in all of `report` but
 * `aside`. `wall` is ms since 1970. */
enum rescue_result rescue_copy(struct pages *pages, sqlite3 *to, int64_t wall,
                               struct salvage_report *report);

#endif
