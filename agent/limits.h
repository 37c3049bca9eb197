/* What the report says of [limits], for a person and for a program; for status and
 * drain.
 */
#ifndef AGENT_LIMITS_H
#define AGENT_LIMITS_H

#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

#include "agent/report.h"

#define LIMITS_WORDS_SIZE 192

/* Why what waits is not sent now and when it is: "sends again at 01:00: [limits] hours =
 * 01:00-05:00"; "" where no limit keeps anything. `now`: ms since 1970. */
void limits_wait_words(const struct report *report, int64_t now, char into[LIMITS_WORDS_SIZE]);

/* Calls `line` with a line for each limit that is set; not at all where there is none. */
void limits_words(const struct report *report, int64_t now,
                  void (*line)(void *context, const char *words), void *context);

/* Records a second of `bytes` each that the limits lead one to expect; 0: they say nothing. */
double limits_rate(const struct report *report, int64_t bytes);

/* When `waiting` records of `bytes` in all are gone, at `rate` records a second while they
 * are sent, with what the day's bytes and hours allow; ms since 1970, about. */
int64_t limits_forecast(const struct report *report, int64_t now, int64_t waiting,
                        int64_t bytes, double rate);

/* Adds the member "limits" to the status's object: for each limit that is set its
 * value and what is left, and "waits_for" and "until" (null: nothing is kept by them).
 * False: no memory. */
bool limits_add_json(cJSON *json, const struct report *report);

#endif
