/* What both halves of the configuration need: memory that is there, and sentences.
 * config.c parses text and touches no file; config_file.c reads the file and the
 * keys' files. Only these two include this header.
 */
#ifndef AGENT_CONFIG_INTERNAL_H
#define AGENT_CONFIG_INTERNAL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#define KEY_BYTES_MAX 4096

/* The program restarts safely at any moment, so there is nothing better to do
 * without memory than to end. */
static inline void *must(void *memory)
{
	if (memory == NULL) {
		static const char sentence[] = "reconify-agent: no memory for the configuration\n";
		ssize_t ignored = write(STDERR_FILENO, sentence, sizeof(sentence) - 1);

		(void)ignored;
		_exit(EX_TEMPFAIL);
	}
	return memory;
}

static inline char *copy(const char *text)
{
	return must(strdup(text));
}

__attribute__((format(printf, 1, 2))) static inline char *sentence(const char *format, ...)
{
	va_list arguments;
	char *text = NULL;

	va_start(arguments, format);
	if (vasprintf(&text, format, arguments) < 0)
		text = NULL;
	va_end(arguments);
	return must(text);
}

static inline bool is_control(char c)
{
	return (unsigned char)c < 0x20 || c == 0x7f;
}

static inline bool has_control(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++)
		if (is_control(text[i]))
			return true;
	return false;
}

#endif
