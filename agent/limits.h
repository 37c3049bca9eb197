/* What the report says of [limits], for a person and for a program; for status and
 * drain.
 */
#ifndef AGENT_LIMITS_H
#define AGENT_LIMITS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdio.h>

#include "agent/report.h"

#define LIMITS_WORDS_SIZE 192

/* Why what waits is not sent now and when it is: "sends again at 01:00: [limits] hours =
 * 01:00-05:00"; "" where no limit keeps anything. `now`: ms since 1970. */
void limits_wait_words(const struct report *report, int64_t now, char into[LIMITS_WORDS_SIZE]);

/* A line for each limit that is set, behind the label "limits" in the columns of
 * status; nothing where there is none. */
void limits_print(const struct report *report, int64_t now, FILE *out);

/* Adds the member "limits" to the status's object: for each limit that is set its
 * value and what is left, and "waits_for" and "until" (null: nothing is kept by them).
 * False: no memory. */
bool limits_add_json(cJSON *json, const struct report *report);

#endif
