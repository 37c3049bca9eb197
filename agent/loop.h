/* The daemon's turning: the only user of libuv, and of libcurl's multi interface.
 *
 * One thread turns the loop and never waits for the disk; another owns the spool
 * and does one job at a time; the flow (ship.h) says what is to be done.
 */
#ifndef AGENT_LOOP_H
#define AGENT_LOOP_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/config.h"
#include "agent/lock.h"
#include "agent/notify.h"
#include "agent/log.h"
#include "agent/report.h"
#include "spool/spool.h"

struct loop_options {
	const char *spool_path;
	struct lock *lock;
	struct log log;
	struct notify notify; /* socket -1: there is no service manager */
	const char *told; /* the note of what was told a person, or NULL; not looked at in a drain */
	/* drain: ship rows up to this id and end; INT64_MAX: run until SIGTERM. */
	int64_t last_id;
	/* drain: go on trying for so many ms while something is left; 0: end as soon as
	 * everything was tried. */
	int64_t wait;
	/* drain: called about once a second while it goes on; NULL: not. */
	void (*progress)(void *context);
	/* SIGHUP, and a change of a key file: reads the configuration anew. NULL with
	 * `*error` malloc'd: it is bad, and the old one stays. */
	struct config *(*reload)(void *context, char **error);
	void *context;
};

/* From now on SIGTERM, SIGINT, SIGHUP and SIGUSR1 wait for loop_run, which takes them in.
 * By default they would end the process on the spot. */
void loop_hold_signals(void);

/* Turns until it is told to stop (SIGTERM, SIGINT) or, in a drain, until nothing
 * more can be done. From then on those signals are held again. Takes over `*config`, which
 * may be another on return, and `*spool`, which is closed and NULL on return. `*last` is the
 * last report. Returns a sysexits code: 0; 70; 71 where the system gives no loop; 78 for a
 * configuration that libcurl cannot use; what failed is in the log. */
int loop_run(const struct loop_options *options, struct config **config,
             struct spool **spool, struct report *last);

#endif
