/* Counts what a program asks of the allocator; put before it by LD_PRELOAD.
 *
 * At the program's end it writes "ALLOCATIONS BYTES" into the file that the variable
 * ALLOCATIONS_FILE names. It counts and passes on, no more: what it wraps must behave
 * as if it were not there.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* glibc's own names, so that nothing is looked up before there is an allocator. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static atomic_ullong allocations, allocated;

static void count(size_t size)
{
	atomic_fetch_add_explicit(&allocations, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&allocated, size, memory_order_relaxed);
}

void *malloc(size_t size)
{
	count(size);
	return __libc_malloc(size);
}

void *calloc(size_t number, size_t size)
{
	count(number * size);
	return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size)
{
	count(size);
	return __libc_realloc(old, size);
}

__attribute__((destructor)) static void tell(void)
{
	const char *path = getenv("ALLOCATIONS_FILE");
	int file = path != NULL ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644) : -1;
	if (file < 0)
		return;
	(void)dprintf(file, "%llu %llu\n", (unsigned long long)allocations,
	              (unsigned long long)allocated);
	(void)close(file);
}
