/* Allocations that fail, for the tests of one program: the Makefile links those that
 * include this with --wrap, so that each malloc and calloc of our own code asks here.
 */
#ifndef TESTS_UNIT_FAILING_H
#define TESTS_UNIT_FAILING_H

#include <limits.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);

/* So many more succeed, then one fails, and all after it succeed again. */
static int allocations_left = INT_MAX;

static void fail_allocation_after(int count)
{
	allocations_left = count;
}

/* True when it failed meanwhile. */
static int allocation_failed(void)
{
	int failed = allocations_left < 0;
	allocations_left = INT_MAX;
	return failed;
}

void *__wrap_malloc(size_t size)
{
	return allocations_left >= 0 && allocations_left-- == 0 ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
	return allocations_left >= 0 && allocations_left-- == 0 ? NULL : __real_calloc(count, size);
}

#endif
