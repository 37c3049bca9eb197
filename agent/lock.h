/* One agent a spool. The lock is a file beside the spool, held by flock: a lock on
 * the spool itself would be dropped by SQLite's own close.
 *
 * The same file remembers, for the next start, whether this process died by a
 * crash of its own (not by kill -9, not by a power cut), and which record was
 * being sent alone at that time. That is how a record that crashes the agent is
 * found, and how an innocent one never is.
 */
#ifndef AGENT_LOCK_H
#define AGENT_LOCK_H

#include <stdbool.h>
#include <sys/types.h>

#include "spool/record.h"

#define LOCK_STACK_SIZE 16384
#define LOCK_CRASHES_MAX 3 /* of one record's own, within one boot */

struct lock {
	int file;
	char boot[40];                        /* this boot's id */
	bool crashed;                         /* the last agent crashed, in this boot */
	char suspect[RECORD_UUID_SIZE + 1];   /* what it was sending alone, or "" */
	unsigned crashes;                     /* of that record, in this boot */
};

enum lock_result { LOCK_TAKEN, LOCK_HELD, LOCK_FAILED };

/* Takes the lock of the spool at `path`. LOCK_HELD: another agent has it, and
 * `*holder` is its pid (-1: not known). LOCK_FAILED: errno says why. */
enum lock_result lock_take(struct lock *lock, const char *path, pid_t *holder);

/* The pid of the agent that holds the lock of the spool at `path`; 0: none does;
 * -1: one does, but which is not known. Changes nothing. */
pid_t lock_holder(const char *path);

/* Writes down that this record is sent alone from now on, or (NULL) that it has
 * its verdict, which clears it. */
void lock_suspect(struct lock *lock, const char *uuid);

/* From now on a crash of this process (SIGSEGV, SIGABRT, SIGILL, SIGFPE) is noted in the
 * lock's file before it takes its course. Not SIGBUS: that is the disk's, and no record's. */
void lock_note_crashes(const struct lock *lock);

/* Lets the calling thread note a crash even when its own stack has overflowed. `stack`
 * is of LOCK_STACK_SIZE bytes and borrowed until the same thread calls this with NULL,
 * which it must do before it ends. */
void lock_lend_stack(void *stack);

/* Gives the lock up after an end that was not a crash. */
void lock_release(struct lock *lock);

#endif
