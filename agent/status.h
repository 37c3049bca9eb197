/* What a person, or a program, is told about a spool and its agent. Answers also
 * when the agent is down, and never changes anything.
 */
#ifndef AGENT_STATUS_H
#define AGENT_STATUS_H

#include <stdbool.h>
#include <stdio.h>
#include <sys/types.h>

#include "agent/config.h"
#include "agent/report.h"
#include "spool/spool.h"

/* Bytes free on the spool's disk: less holds hardly a record, with what SQLite needs
 * beside it. */
#define STATUS_DISK_FULL (1 << 20)

struct status {
	/* Borrowed, from the configuration; `options` is to be set by who wants the commands
	 * of its advice complete: " --spool FILE", as this program was called. */
	const char *spool_path, *config_file, *options;
	bool running;
	pid_t pid; /* 0: not known */
	bool live; /* the report is of this moment; else of report.as_of */
	bool reported;
	struct report report;
	struct spool_ledger ledger;
	int64_t lost; /* of the removed ones: a salvage could not read them */
	int64_t disk_free; /* bytes, for others than root; -1: not known */
	int64_t now;       /* ms since 1970 */
};

/* Collects all. Returns 0, or a sysexits code with `*error` filled in. `patience`
 * is the ms that counting rows may take. */
int status_collect(const struct config *config, int patience, struct status *status,
                   struct spool_error *error);

/* Records a second, lately: over 10 s where any were delivered in them, else over 60 s. */
double status_rate(const struct status *status);

/* Records a second that producers insert, over 10 s; 0 where they came in one go, which
 * says nothing of what is to come. */
double status_arrivals(const struct status *status);

/* Whether some of what waits does not go out at all: an app is held, or rows cannot be read. */
bool status_holds_back(const struct status *status);

/* When nothing waits any more at these rates, ms since 1970; -1: nobody knows, nothing waits,
 * or it grows: as many come as go. */
int64_t status_backlog_gone_at(const struct status *status);

/* As one JSON object and a newline (documented in reconify-agent(1)). False: no memory. */
bool status_print_json(const struct status *status, FILE *out);

/* The sysexits code for a spool's failure. */
int status_exit_code(enum spool_status status);

#endif
