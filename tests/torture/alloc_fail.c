/* Preloaded into the agent: the Nth allocation that one of the named objects asks for
 * fails, or all from then on. OpenSSL's and the resolver's own are left alone.
 *
 *   FAIL_ALLOC_AT=N FAIL_ALLOC_EVER=1 FAIL_ALLOC_OBJECTS=reconify-agent,libsqlite3,...
 *   FAIL_ALLOC_COUNT=FILE     how many there were is written there at the end
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RANGES_MAX 16

static struct {
	uintptr_t from, to;
} ranges[RANGES_MAX];
static size_t range_count;
static unsigned long fail_at;
static bool for_ever;
static atomic_ulong count;
static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);

/* dlsym() itself allocates; but its header promises that it calls nothing of ours. */
static char early[65536];
static size_t early_used;
static volatile bool resolving;

static void *early_bytes(size_t size)
{
	size = (size + 15) & ~(size_t)15;
	if (early_used + size > sizeof early)
		_exit(71);
	early_used += size;
	return early + early_used - size;
}

static bool is_early(const void *bytes)
{
	return (const char *)bytes >= early && (const char *)bytes < early + sizeof early;
}

static void resolve(void)
{
	resolving = true;
	*(void **)&real_calloc = dlsym(RTLD_NEXT, "calloc");
	*(void **)&real_realloc = dlsym(RTLD_NEXT, "realloc");
	*(void **)&real_free = dlsym(RTLD_NEXT, "free");
	*(void **)&real_malloc = dlsym(RTLD_NEXT, "malloc");
	resolving = false;
}

static int note_object(struct dl_phdr_info *info, size_t size, void *names)
{
	const char *name = info->dlpi_name[0] != '\0' ? info->dlpi_name : "reconify-agent";
	char copy[256], *rest = NULL;
	(void)size;
	(void)snprintf(copy, sizeof copy, "%s", (const char *)names);
	for (char *word = strtok_r(copy, ",", &rest); word != NULL; word = strtok_r(NULL, ",", &rest)) {
		if (strstr(name, word) == NULL)
			continue;
		for (int i = 0; i < info->dlpi_phnum && range_count < RANGES_MAX; i++)
			if (info->dlpi_phdr[i].p_type == PT_LOAD && (info->dlpi_phdr[i].p_flags & PF_X)) {
				ranges[range_count].from = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
				ranges[range_count].to = ranges[range_count].from + info->dlpi_phdr[i].p_memsz;
				range_count++;
			}
	}
	return 0;
}

__attribute__((constructor)) static void begin(void)
{
	const char *at = getenv("FAIL_ALLOC_AT"), *objects = getenv("FAIL_ALLOC_OBJECTS");
	for_ever = getenv("FAIL_ALLOC_EVER") != NULL;
	if (objects != NULL)
		(void)dl_iterate_phdr(note_object, (void *)(uintptr_t)objects);
	fail_at = at != NULL ? strtoul(at, NULL, 10) : 0;
}

__attribute__((destructor)) static void finish(void)
{
	const char *path = getenv("FAIL_ALLOC_COUNT");
	char text[32];
	int file = path != NULL ? open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600) : -1;
	int size = snprintf(text, sizeof text, "%lu\n", atomic_load(&count));
	if (file >= 0 && (write(file, text, (size_t)size) != size || close(file) != 0))
		_exit(74);
}

static bool fails(const void *caller)
{
	uintptr_t at = (uintptr_t)caller;
	for (size_t i = 0; i < range_count; i++)
		if (at >= ranges[i].from && at < ranges[i].to) {
			unsigned long number = atomic_fetch_add(&count, 1) + 1;
			return fail_at > 0 && (for_ever ? number >= fail_at : number == fail_at);
		}
	return false;
}

void *malloc(size_t size)
{
	if (real_malloc == NULL && resolving)
		return early_bytes(size);
	if (real_malloc == NULL)
		resolve();
	return fails(__builtin_return_address(0)) ? NULL : real_malloc(size);
}

void *calloc(size_t many, size_t size)
{
	if (real_malloc == NULL && resolving)
		return early_bytes(many * size); /* zeros, once */
	if (real_malloc == NULL)
		resolve();
	return fails(__builtin_return_address(0)) ? NULL : real_calloc(many, size);
}

void *realloc(void *bytes, size_t size)
{
	if (real_malloc == NULL)
		resolve();
	if (fails(__builtin_return_address(0)))
		return NULL;
	if (!is_early(bytes))
		return real_realloc(bytes, size);
	void *moved = real_malloc(size);
	if (moved != NULL) /* reads past the old end at most, within `early` */
		memcpy(moved, bytes, size < (size_t)(early + sizeof early - (char *)bytes)
		                             ? size : (size_t)(early + sizeof early - (char *)bytes));
	return moved;
}

void free(void *bytes)
{
	if (bytes == NULL || is_early(bytes) || resolving)
		return;
	if (real_malloc == NULL)
		resolve();
	real_free(bytes);
}

char *strdup(const char *text)
{
	size_t size = strlen(text) + 1;
	if (real_malloc == NULL)
		resolve();
	char *copy = fails(__builtin_return_address(0)) ? NULL : real_malloc(size);
	return copy != NULL ? memcpy(copy, text, size) : NULL;
}

char *strndup(const char *text, size_t most)
{
	size_t size = strnlen(text, most);
	if (real_malloc == NULL)
		resolve();
	char *copy = fails(__builtin_return_address(0)) ? NULL : real_malloc(size + 1);
	if (copy == NULL)
		return NULL;
	copy[size] = '\0';
	return memcpy(copy, text, size);
}
