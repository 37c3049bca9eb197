/* Judges what reached reconify-sink: whether a body is a payload exactly as the
 * vendor documents it. Stricter than the real endpoint, and never repeats what
 * may be somebody's text.
 */
#ifndef AGENT_SINK_JUDGE_H
#define AGENT_SINK_JUDGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

struct sink_fault {
	char text[256];
};

/* Writes the fault's sentence; is false, so that a judge can return it. */
#define sink_blame(fault, ...) \
	(snprintf((fault)->text, sizeof (fault)->text, __VA_ARGS__), false)

/* Whether `body` is a payload. False: `*fault` says what is wrong, and where.
 * `body[size]` must be readable and 0. */
bool sink_judge_body(struct sink_fault *fault, const char *body, size_t size);

#endif
