/* Records to a file and back into a spool: JSON Lines, one record a line, all columns,
 * nothing lost (the form is documented in README.md). Export changes nothing; import
 * inserts as a producer does.
 */
#ifndef AGENT_TRANSFER_H
#define AGENT_TRANSFER_H

#include <stdio.h>

#include "agent/config.h"
#include "agent/select.h"

/* Writes what is selected, by id; `out` may be read as slowly as it likes. What a damaged
 * page keeps back is named on standard error (65), and the rest is written. A sysexits
 * code. */
int transfer_export(struct spool *spool, const struct selection *selection, FILE *out);

/* Imports all lines of `in`, called `name` in what is said. A line that is refused is
 * named with its number and why, and the others are imported (65). After a failure of
 * the spool itself, what is said tells the line from which to go on; importing all of
 * it again is as good. A sysexits code. */
int transfer_import(const struct config *config, struct spool *spool, FILE *in,
                    const char *name);

#endif
