/* Keys do not outlive their use: all memory of this very process is searched for them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "agent/config.h"
#include "agent/roster.h"
#include "agent/secret.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif

#define KEY_SIZE 48

/* The key, never written down as it is: neither here nor in what is searched with. */
static char key_byte(size_t i)
{
	return (char)('A' + (i * 7 + i * i % 11) % 26);
}

static void write_key(char *into)
{
	for (size_t i = 0; i < KEY_SIZE; i++)
		into[i] = key_byte(i);
}

/* How often the greater part of the key stands in a stretch of memory; an allocator
 * may have written over the beginning of what it was given back. */
static size_t count_in(const unsigned char *bytes, size_t size)
{
	size_t count = 0;
	for (size_t at = 0; at + KEY_SIZE <= size; at++) {
		size_t i = 16;
		while (i < KEY_SIZE && bytes[at + i] == (unsigned char)key_byte(i))
			i++;
		count += i == KEY_SIZE;
	}
	return count;
}

/* In all that this process may write to: heap, stack, data. */
static size_t count_keys(void)
{
	static unsigned char window[1 << 16];
	size_t count = 0;
	char line[512];
	FILE *maps = fopen("/proc/self/maps", "r");
	int memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	assert_true(maps != NULL && memory >= 0);
	while (fgets(line, sizeof line, maps) != NULL) {
		uint64_t from, to;
		char modes[8];
		if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %7s", &from, &to, modes) != 3 ||
		    modes[0] != 'r' || modes[1] != 'w')
			continue;
		/* One window over the next, so that none is cut in two. */
		for (uint64_t at = from; at < to; at += sizeof window - KEY_SIZE) {
			size_t wanted = to - at < sizeof window ? (size_t)(to - at) : sizeof window;
			ssize_t got = pread(memory, window, wanted, (off_t)at);
			if (got > 0 && !(at <= (uint64_t)(uintptr_t)window + sizeof window &&
			                 (uint64_t)(uintptr_t)window <= at + (uint64_t)got))
				count += count_in(window, (size_t)got);
			explicit_bzero(window, sizeof window);
		}
	}
	(void)fclose(maps);
	(void)close(memory);
	return count;
}

static void the_search_finds_a_key_that_was_only_freed(void **state)
{
	(void)state;
#ifdef SANITIZED
	skip(); /* freed memory is kept away by the sanitizer */
#endif
	char *volatile key = malloc(KEY_SIZE * 4);
	assert_non_null(key);
	write_key(key + KEY_SIZE);
	assert_true(count_keys() >= 1);
	secret_free(key, KEY_SIZE * 4);
	assert_int_equal(count_keys(), 0);
}

static void a_freed_configuration_leaves_no_key_behind(void **state)
{
	static const char *const forms[] = {
		"[app default]\napp_key = %s\napi_key = %s\n",
		"[app other]\napi_key = %s\napp_key = %s\nnonsense = 1\n",
		"[app default]\napp_key = %s\napp_key = %s\n",
		"[app default]\napp_keys = %s\napi_key = %s\n",
	};
	(void)state;
#ifdef SANITIZED
	skip();
#endif
	for (size_t form = 0; form < sizeof forms / sizeof forms[0]; form++) {
		struct config *config = NULL;
		char *error = NULL, *text = calloc(1, 512), *key = calloc(1, KEY_SIZE + 1);
		assert_true(text != NULL && key != NULL);
		write_key(key);
		const struct config_environment environment = { NULL, key, key };
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		int size = snprintf(text, 512, forms[form], key, key);
#pragma GCC diagnostic pop
		(void)config_parse(text, (size_t)size, "agent.conf", form == 0 ? &environment : NULL,
		                   &config, &error);
		config_free(config);
		free(error);
		secret_free(text, 512);
		secret_free(key, KEY_SIZE);
		assert_int_equal(count_keys(), 0);
	}
}

static void a_key_read_from_a_file_is_gone_with_the_configuration(void **state)
{
	(void)state;
#ifdef SANITIZED
	skip();
#endif
	char folder[] = "/tmp/secret-XXXXXX", path[64], text[128];
	struct config *config = NULL;
	char *error = NULL, *key = calloc(1, KEY_SIZE + 1);
	assert_non_null(mkdtemp(folder));
	(void)snprintf(path, sizeof path, "%s/key", folder);
	int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(file >= 0 && key != NULL);
	write_key(key);
	assert_int_equal(write(file, key, KEY_SIZE), KEY_SIZE);
	(void)close(file);
	secret_free(key, KEY_SIZE);
	int size = snprintf(text, sizeof text, "[app default]\napp_key_file = %s\napi_key_file = %s\n",
	                    path, path);
	assert_true(config_parse(text, (size_t)size, "agent.conf", NULL, &config, &error));
	config_load_keys(config);
	assert_int_equal(count_keys(), 2);
	config_load_keys(config);
	assert_int_equal(count_keys(), 2);
	config_free(config);
	assert_int_equal(count_keys(), 0);
	(void)unlink(path);
	(void)rmdir(folder);
}

static void a_payload_is_wiped_when_it_is_unloaded(void **state)
{
	(void)state;
#ifdef SANITIZED
	skip();
#endif
	static struct roster roster;
	struct item *item = roster_add(&roster, 1, 0, SESSION_NONE);
	char *payload = malloc(KEY_SIZE * 2);
	assert_true(item != NULL && payload != NULL);
	memset(payload, 'x', KEY_SIZE);
	write_key(payload + KEY_SIZE);
	roster_load(&roster, item, payload, KEY_SIZE * 2);
	assert_int_equal(count_keys(), 1);
	roster_remove(&roster, item);
	assert_int_equal(count_keys(), 0);
}

static void a_process_that_is_protected_leaves_no_core(void **state)
{
	struct rlimit limit;
	(void)state;
	secret_protect_process();
	assert_int_equal(getrlimit(RLIMIT_CORE, &limit), 0);
	assert_int_equal(limit.rlim_max, 0);
#ifndef SANITIZED
	assert_int_equal(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 0);
#endif
	secret_free(NULL, 1);
	secret_free_string(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_search_finds_a_key_that_was_only_freed),
		cmocka_unit_test(a_freed_configuration_leaves_no_key_behind),
		cmocka_unit_test(a_key_read_from_a_file_is_gone_with_the_configuration),
		cmocka_unit_test(a_payload_is_wiped_when_it_is_unloaded),
		cmocka_unit_test(a_process_that_is_protected_leaves_no_core),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
