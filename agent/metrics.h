/* The status for Prometheus: as text, and as a file for node_exporter's textfile
 * collector. Holds no text of people: states, fixed codes and the configured names of
 * apps.
 */
#ifndef AGENT_METRICS_H
#define AGENT_METRICS_H

#include <stdbool.h>
#include <stdio.h>

#include "agent/config.h"
#include "agent/report.h"
#include "spool/spool.h"

/* What is told; all borrowed for the call. */
struct metrics {
	const struct config *config; /* apps that stand in it are named */
	const struct spool_ledger *ledger;
	const struct report *report;
	bool running;
	bool live; /* also figures that change while nothing happens */
};

/* Writes the text exposition format. */
void metrics_print(const struct metrics *metrics, FILE *out);

/* What the daemon keeps between two writings of its file, and the report that it is to
 * be written from. */
struct metrics_file {
	struct report report;
	bool running; /* false: for the last time */
	/* Counted anew when the number of dead letters is another: that takes reading them. */
	struct spool_reason reasons[SPOOL_REASONS];
	size_t reason_count;
	int64_t dead;
	char *text;   /* what stands in the file, or NULL; malloc'd */
	char error[640]; /* of the last write, "" for none */
};

/* Frees what `file` holds. */
void metrics_file_close(struct metrics_file *file);

/* Reads the ledger, and puts a new file (mode 0644) in the place of the old one at
 * config->metrics_file where anything in it has changed. Blocks on the disk. What
 * fails is said in file->error, and changes nothing. */
void metrics_file_write(struct metrics_file *file, const struct config *config,
                        struct spool *spool);

#endif
