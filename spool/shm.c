/* Room for the -shm, asked for in a way that can be refused.
 *
 * SQLite maps the -shm and writes one byte into each of its pages of 4 KB before, so that
 * a full disk is an error and not a SIGBUS. Where the file system has smaller blocks, as
 * ext4 has below 512 MB, the rest of such a page has no room yet, and writing to it when
 * there is none ends the process (madvise(2), MADV_POPULATE_WRITE; mmap(2), SIGBUS).
 */
#include "spool/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; an older one says EINVAL, and nothing is gained */
#endif

struct shm_methods {
	sqlite3_io_methods changed; /* first: what the file's pMethods points to */
	const sqlite3_io_methods *original;
};

static int map_shm(sqlite3_file *file, int region, int size, int extend, void volatile **memory)
{
	const struct shm_methods *methods = (const struct shm_methods *)file->pMethods;
	int rc = methods->original->xShmMap(file, region, size, extend, memory);
	if (rc != SQLITE_OK || *memory == NULL)
		return rc;
	if (madvise((void *)(uintptr_t)*memory, (size_t)size, MADV_POPULATE_WRITE) == 0 ||
	    /* not covered: Linux before 5.14 */
	    errno != EFAULT)
		return SQLITE_OK;
	*memory = NULL; /* SQLite would keep and use it */
	return SQLITE_FULL;
}

struct shm_methods *shm_guard(sqlite3 *db)
{
	sqlite3_file *file = NULL;
	struct shm_methods *methods = NULL;
	/* A file of the disk, whose methods are of the version that has xShmMap. */
	if (sqlite3_file_control(db, "main", SQLITE_FCNTL_FILE_POINTER, &file) != SQLITE_OK ||
	    (methods = malloc(sizeof *methods)) == NULL)
		return NULL;
	*methods = (struct shm_methods){ *file->pMethods, file->pMethods };
	methods->changed.xShmMap = map_shm;
	file->pMethods = &methods->changed;
	return methods;
}
