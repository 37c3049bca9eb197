/* The command list: one line a record, and nothing in it that a person wrote or
 * that names one. Changes nothing.
 */
#ifndef AGENT_LIST_H
#define AGENT_LIST_H

#include <stdio.h>

#include "agent/select.h"

/* Lists what is selected, by id. `now` is ms since 1970. Holds up nobody, however
 * slowly `out` is read. SPOOL_DAMAGED: some could not be read, which was said, and all
 * others are listed. SPOOL_OK, or else what spool_last_error() says; what could not be
 * written is left to ferror(). Where there is none, a sentence on stderr says so, but for
 * JSON. */
enum spool_status list_records(struct spool *spool, const struct selection *selection,
                               int64_t now, FILE *out);

/* Lists the receipts of what was delivered, the oldest first; likewise. */
enum spool_status list_receipts(struct spool *spool, const struct selection *selection,
                                FILE *out);

/* One receipt as a line of JSON. False: no memory. */
bool list_receipt_as_json(const struct spool_receipt *receipt, FILE *out);

#endif
