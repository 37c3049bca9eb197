/* See shim.h. Only what SQLite's own unix VFS does is done here: this must never be more
 * forgiving than the disk. */
#include "tests/torture/shim.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct shim {
	sqlite3_vfs vfs;
	sqlite3_vfs *real;
	int (*on)(void *self, struct shim_event *event);
	void *self;
};

struct handle {
	sqlite3_file base;
	struct shim *shim;
	enum shim_file file;
	bool watched;
	bool folder_due; /* the first sync of a journal syncs its folder */
	sqlite3_file *real;
};

static struct handle *handle_of(sqlite3_file *file)
{
	return (struct handle *)(void *)file;
}

static int show(struct handle *handle, struct shim_event *event)
{
	event->file = handle->file;
	return handle->watched ? handle->shim->on(handle->shim->self, event) : SQLITE_OK;
}

static int shim_close(sqlite3_file *file)
{
	sqlite3_file *real = handle_of(file)->real;
	return real->pMethods->xClose(real);
}

static int shim_read(sqlite3_file *file, void *into, int size, sqlite3_int64 at)
{
	sqlite3_file *real = handle_of(file)->real;
	struct shim_event event = { .call = SHIM_READ, .at = at, .size = size };
	int rc = show(handle_of(file), &event);
	return rc != SQLITE_OK ? rc : real->pMethods->xRead(real, into, size, at);
}

static int shim_write(sqlite3_file *file, const void *bytes, int size, sqlite3_int64 at)
{
	sqlite3_file *real = handle_of(file)->real;
	struct shim_event event = { .call = SHIM_WRITE, .at = at, .bytes = bytes, .size = size };
	int rc = show(handle_of(file), &event);
	if (rc != SQLITE_OK && event.torn > 0)
		(void)real->pMethods->xWrite(real, bytes, event.torn, at);
	return rc != SQLITE_OK ? rc : real->pMethods->xWrite(real, bytes, size, at);
}

static int shim_truncate(sqlite3_file *file, sqlite3_int64 size)
{
	sqlite3_file *real = handle_of(file)->real;
	struct shim_event event = { .call = SHIM_TRUNCATE, .at = size };
	int rc = show(handle_of(file), &event);
	return rc != SQLITE_OK ? rc : real->pMethods->xTruncate(real, size);
}

static int shim_sync(sqlite3_file *file, int flags)
{
	struct handle *handle = handle_of(file);
	struct shim_event event = { .call = SHIM_SYNC, .folder = handle->folder_due };
	int rc = show(handle, &event);
	if (rc != SQLITE_OK)
		return rc;
	handle->folder_due = false;
	return handle->real->pMethods->xSync(handle->real, flags);
}

static int shim_size(sqlite3_file *file, sqlite3_int64 *size)
{
	sqlite3_file *real = handle_of(file)->real;
	struct shim_event event = { .call = SHIM_SIZE };
	int rc = show(handle_of(file), &event);
	return rc != SQLITE_OK ? rc : real->pMethods->xFileSize(real, size);
}

static int shim_lock(sqlite3_file *file, int level)
{
	sqlite3_file *real = handle_of(file)->real;
	struct shim_event event = { .call = SHIM_LOCK };
	int rc = show(handle_of(file), &event);
	return rc != SQLITE_OK ? rc : real->pMethods->xLock(real, level);
}

static int shim_unlock(sqlite3_file *file, int level)
{
	sqlite3_file *real = handle_of(file)->real;
	return real->pMethods->xUnlock(real, level);
}

static int shim_reserved(sqlite3_file *file, int *held)
{
	sqlite3_file *real = handle_of(file)->real;
	struct shim_event event = { .call = SHIM_RESERVED };
	int rc = show(handle_of(file), &event);
	return rc != SQLITE_OK ? rc : real->pMethods->xCheckReservedLock(real, held);
}

static int shim_control(sqlite3_file *file, int op, void *argument)
{
	sqlite3_file *real = handle_of(file)->real;
	return real->pMethods->xFileControl(real, op, argument);
}

static int shim_sector(sqlite3_file *file)
{
	sqlite3_file *real = handle_of(file)->real;
	return real->pMethods->xSectorSize(real);
}

static int shim_device(sqlite3_file *file)
{
	sqlite3_file *real = handle_of(file)->real;
	return real->pMethods->xDeviceCharacteristics(real);
}

static int shim_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **map)
{
	sqlite3_file *real = handle_of(file)->real;
	struct shim_event event = { .call = SHIM_SHM_MAP };
	int rc = show(handle_of(file), &event);
	return rc != SQLITE_OK ? rc : real->pMethods->xShmMap(real, page, size, extend, map);
}

static int shim_shm_lock(sqlite3_file *file, int first, int count, int flags)
{
	sqlite3_file *real = handle_of(file)->real;
	struct shim_event event = { .call = SHIM_SHM_LOCK };
	int rc = (flags & SQLITE_SHM_UNLOCK) != 0 ? SQLITE_OK : show(handle_of(file), &event);
	return rc != SQLITE_OK ? rc : real->pMethods->xShmLock(real, first, count, flags);
}

static void shim_shm_barrier(sqlite3_file *file)
{
	sqlite3_file *real = handle_of(file)->real;
	real->pMethods->xShmBarrier(real);
}

static int shim_shm_unmap(sqlite3_file *file, int delete)
{
	sqlite3_file *real = handle_of(file)->real;
	return real->pMethods->xShmUnmap(real, delete);
}

static const sqlite3_io_methods methods = {
	.iVersion = 2, /* without memory maps */
	.xClose = shim_close,
	.xRead = shim_read,
	.xWrite = shim_write,
	.xTruncate = shim_truncate,
	.xSync = shim_sync,
	.xFileSize = shim_size,
	.xLock = shim_lock,
	.xUnlock = shim_unlock,
	.xCheckReservedLock = shim_reserved,
	.xFileControl = shim_control,
	.xSectorSize = shim_sector,
	.xDeviceCharacteristics = shim_device,
	.xShmMap = shim_shm_map,
	.xShmLock = shim_shm_lock,
	.xShmBarrier = shim_shm_barrier,
	.xShmUnmap = shim_shm_unmap
};

static int shim_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags, int *out)
{
	struct shim *shim = vfs->pAppData;
	struct handle *handle = handle_of(file);
	*handle = (struct handle){ .shim = shim, .real = (sqlite3_file *)(void *)(handle + 1) };
	handle->watched = true;
	if (flags & SQLITE_OPEN_MAIN_DB)
		handle->file = SHIM_DATABASE;
	else if (flags & SQLITE_OPEN_WAL)
		handle->file = SHIM_WAL;
	else if (flags & SQLITE_OPEN_MAIN_JOURNAL)
		handle->file = SHIM_JOURNAL;
	else
		handle->watched = false;
	handle->folder_due = (flags & (SQLITE_OPEN_WAL | SQLITE_OPEN_MAIN_JOURNAL)) != 0;
	struct shim_event event = { .call = SHIM_OPEN,
		                    .missing = name != NULL && access(name, F_OK) != 0 };
	int rc = show(handle, &event);
	if (rc == SQLITE_OK)
		rc = shim->real->xOpen(shim->real, name, handle->real, flags, out);
	if (rc == SQLITE_OK)
		handle->base.pMethods = &methods;
	return rc;
}

/* Of the file's two companions, which are all that is asked for or deleted by name. */
static enum shim_file companion(const char *name)
{
	size_t length = strlen(name);
	return length > 4 && strcmp(name + length - 4, "-wal") == 0 ? SHIM_WAL : SHIM_JOURNAL;
}

static int shim_delete(sqlite3_vfs *vfs, const char *name, int folder)
{
	struct shim *shim = vfs->pAppData;
	struct shim_event event = { .call = SHIM_DELETE, .file = companion(name),
		                    .folder = folder != 0 };
	int rc = SQLITE_OK;
	if (access(name, F_OK) == 0)
		rc = shim->on(shim->self, &event);
	return rc != SQLITE_OK ? rc : shim->real->xDelete(shim->real, name, folder);
}

static int shim_access(sqlite3_vfs *vfs, const char *name, int flags, int *out)
{
	struct shim *shim = vfs->pAppData;
	struct shim_event event = { .call = SHIM_ACCESS, .file = companion(name) };
	int rc = shim->on(shim->self, &event);
	return rc != SQLITE_OK ? rc : shim->real->xAccess(shim->real, name, flags, out);
}

static int shim_full_path(sqlite3_vfs *vfs, const char *name, int size, char *out)
{
	struct shim *shim = vfs->pAppData;
	return shim->real->xFullPathname(shim->real, name, size, out);
}

bool shim_install(int (*on)(void *self, struct shim_event *event), void *self)
{
	struct shim *shim = calloc(1, sizeof *shim);
	if (shim == NULL)
		return false;
	shim->real = sqlite3_vfs_find("unix");
	if (shim->real == NULL) {
		free(shim);
		return false;
	}
	shim->vfs = *shim->real;
	shim->on = on;
	shim->self = self;
	shim->vfs.zName = "torture";
	shim->vfs.pAppData = shim;
	shim->vfs.pNext = NULL;
	shim->vfs.szOsFile = (int)sizeof(struct handle) + shim->real->szOsFile;
	shim->vfs.xOpen = shim_open;
	shim->vfs.xDelete = shim_delete;
	shim->vfs.xAccess = shim_access;
	shim->vfs.xFullPathname = shim_full_path;
	return sqlite3_vfs_register(&shim->vfs, 1) == SQLITE_OK;
}

void shim_remove(void)
{
	sqlite3_vfs *vfs = sqlite3_vfs_find("torture");
	if (vfs == NULL)
		return;
	(void)sqlite3_vfs_register(sqlite3_vfs_find("unix"), 1);
	(void)sqlite3_vfs_unregister(vfs);
	free(vfs->pAppData); /* begins with the VFS itself */
}
