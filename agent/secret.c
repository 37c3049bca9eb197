/* Keeping what is secret; see secret.h. */
#include "agent/secret.h"

#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

/* The leak check of a sanitizer must trace its own process. */
#if defined(__SANITIZE_ADDRESS__)
#define TRACED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TRACED 1
#endif
#endif

void secret_protect_process(void)
{
	static const struct rlimit none = { 0, 0 };
	/* A file, and a program that the kernel would pipe it to, which knows no limit. */
	(void)setrlimit(RLIMIT_CORE, &none);
#ifndef TRACED
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}

void secret_wipe(char *bytes, size_t size)
{
	explicit_bzero(bytes, size);
}

void secret_free(char *bytes, size_t size)
{
	if (bytes == NULL)
		return;
	secret_wipe(bytes, size);
	free(bytes);
}

void secret_free_string(char *string)
{
	if (string != NULL)
		secret_free(string, strlen(string));
}
