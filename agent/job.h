/* One piece of work on the spool: settle what has a verdict, then read what to
 * send next and build its payloads. Plain data that the flow (ship.c) fills in
 * and reads back; job_run() does it, on whatever thread owns the spool, and
 * touches nothing but the job, the spool and the configuration it was given.
 */
#ifndef AGENT_JOB_H
#define AGENT_JOB_H

#include "agent/config.h"
#include "agent/metrics.h"
#include "agent/payload.h"
#include "spool/spool.h"

/* Entries that one job brings back, and rows it looks at, at most: a job is to
 * take milliseconds, so that a settle never waits long behind a scan. */
#define JOB_ENTRIES 128
#define JOB_ROWS 4096
#define JOB_DRAFT 16384 /* bytes of a payload */
/* The place in `apps` of every app that the configuration does not know. */
#define APP_UNKNOWN CONFIG_APPS_MAX
#define APP_PLACES (CONFIG_APPS_MAX + 1)
#define JOB_UNKNOWN_NAMES 8
#define JOB_NAME_SIZE 64
#define SESSION_NONE 0

enum entry_state {
	ENTRY_LOADED,  /* payload is there, malloc'd, for the flow to free */
	ENTRY_SEEN,    /* only its place is known: the job was not to load */
	ENTRY_FAULTY,  /* can never be sent: `fault` says why */
	ENTRY_GONE,    /* asked for by id, and no longer there */
	ENTRY_NO_ROOM  /* asked for by id; `size` bytes did not fit */
};

struct job_entry {
	enum entry_state state;
	int64_t id;
	uint64_t session; /* hash of (app, session), or SESSION_NONE */
	size_t app;       /* place in the configuration's apps, or APP_UNKNOWN */
	char uuid[RECORD_UUID_SIZE + 1]; /* "" where the row has no valid one */
	char *payload;
	size_t size;
	int64_t bytes;
	bool keyed;
	unsigned attempts;
	int64_t request_at; /* -1: none */
	const struct payload_fault *fault;
};

/* A session whose rows are to be passed over, and the first that was. */
struct job_skip {
	uint64_t session;
	int64_t first; /* INT64_MAX: none met */
};

enum job_scan {
	SCAN_NOTHING,
	SCAN_ANY,     /* every row that is not to be skipped */
	SCAN_SESSION, /* rows of `session` alone */
	SCAN_APP      /* rows of `app` alone */
};

struct job {
	/* What to do. All is borrowed until the job is done. */
	const struct config *config;
	struct spool_change *changes;
	size_t change_count;
	int64_t wall;
	const int64_t *load; /* ids */
	size_t load_count;
	enum job_scan scan;
	int64_t from, to;
	uint64_t session;
	size_t app;
	struct job_skip *skips; /* sorted by session */
	size_t skip_count;
	int64_t after;          /* SCAN_APP: rows without a session up to this id, too */
	bool leave;             /* nothing more of the open file can be sent now: where another
	                           stands at the path, go over to it */
	bool shrink;            /* give some free space back; out: there is more */
	bool sweep;             /* let go of what was kept long enough */
	bool figures;           /* read the ledger */
	bool limits;            /* in: write down the configuration's limits; out: not done */
	bool pause;             /* in: see whether a person paused the spool; out: not done */
	struct metrics_file *metrics; /* NULL: not to be written now */
	bool touch;             /* nothing else may be left to do: see whether reading works */
	bool skip_app[APP_PLACES];
	bool build;             /* build payloads, or only see places */
	/* After a crash: told of each record, on the job's thread, before anything is done
	 * with what stands in it, and that one is not touched. NULL, "": not needed. */
	void (*suspect)(void *self, const char *uuid);
	void *suspect_self;
	const char *condemned;
	size_t room_entries;    /* for the scan, at most JOB_ENTRIES less load_count */
	size_t room_bytes;      /* for payloads; SIZE_MAX: the first may be of any size */

	/* What came of it. */
	enum spool_status settled, read;
	struct spool_error error; /* of whichever failed */
	bool has_swept;           /* sweep: done, with this outcome */
	struct spool_swept swept;
	bool has_ledger;          /* figures: read, and here it is */
	struct spool_ledger ledger;
	bool roomy;               /* settled, and the file has free space to give back */
	int64_t paused_at;        /* `pause`: since when; -1: it is not */
	bool reopened;            /* the file may be another one: all that was known is void */
	bool replaced;            /* and it is: the one that was open stands there no more */
	bool abandoned;           /* and rows of the old one, which has no name, are given up */
	struct job_entry entries[JOB_ENTRIES];
	size_t entry_count;
	int64_t next;             /* the first id that the scan did not look at */
	bool end;                 /* nothing further up to `to` */
	size_t need;              /* bytes of the payload that ended the scan for want of room */
	int64_t skipped_app[APP_PLACES]; /* the first id passed over, INT64_MAX: none */
	char unknown[JOB_UNKNOWN_NAMES][JOB_NAME_SIZE]; /* names of apps not configured */
	size_t unknown_count;
	/* The payload in hand, as far as it fits: most do, and are made in one go. It has keys in
	 * it, and is overwritten when the job is done. */
	char draft[JOB_DRAFT];
	bool drafted;
	int64_t damaged_from, damaged_to; /* ids among which some could not be read; 0: none;
	                                     INT64_MAX: and all behind */
};

/* Does the job with `*spool`, which it may close and open again. */
void job_run(struct job *job, struct spool **spool, const char *path);

/* The identity of a session: a hash of the pair (app, session) as bytes. Two
 * sessions that collide are sent in one common order, which harms nobody. */
uint64_t job_session(struct text app, struct text session);

#endif
