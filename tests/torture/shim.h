/* A SQLite VFS over the default one that shows each call about a spool's files to the
 * test before it is done, which may make it fail instead. For one thread. */
#ifndef TORTURE_SHIM_H
#define TORTURE_SHIM_H

#include <stdbool.h>
#include <stdint.h>

enum shim_call {
	SHIM_OPEN,
	SHIM_READ,
	SHIM_WRITE,
	SHIM_TRUNCATE,
	SHIM_SYNC,
	SHIM_DELETE,
	SHIM_SIZE,
	/* From here on nothing that outlives a power cut. */
	SHIM_SHM_MAP,
	SHIM_SHM_LOCK, /* taking one; giving one back cannot fail */
	SHIM_LOCK,     /* likewise */
	SHIM_RESERVED,
	SHIM_ACCESS,
	SHIM_CALLS
};

/* -shm is not among them: it does not outlive a power cut. */
enum shim_file { SHIM_DATABASE, SHIM_WAL, SHIM_JOURNAL, SHIM_FILES };

struct shim_event {
	enum shim_call call;
	enum shim_file file;
	int64_t at;        /* WRITE, READ: offset; TRUNCATE: the new size */
	const void *bytes; /* WRITE */
	int size;          /* WRITE, READ */
	bool missing;      /* OPEN: there was no such file */
	bool folder;       /* SYNC, DELETE: the folder is synced, too */
	int torn;          /* WRITE, out: where it fails, so many bytes are written first */
};

/* `on` returns SQLITE_OK, or the code that the call fails with. It is the default VFS
 * from now on, until shim_remove(). False: no memory. */
bool shim_install(int (*on)(void *self, struct shim_event *event), void *self);
void shim_remove(void);

#endif
