/* A screen that is kept up to date in place: without flicker, and so that the terminal
 * is as it was when it ends, however that comes.
 */
#ifndef AGENT_WATCH_H
#define AGENT_WATCH_H

#include <stdbool.h>
#include <stdio.h>

/* Calls `print` every `seconds` and shows what it wrote, until q, SIGINT, SIGTERM or
 * SIGHUP, which all are an ordinary end; or until it returns a sysexits code other
 * than 0. Where `in_place` is false, or standard output is no terminal, one is written
 * after the other. Returns a sysexits code. */
int watch_run(int seconds, bool in_place, int (*print)(void *context, FILE *out),
              void *context);

#endif
