/* Telling systemd how it goes, by the protocol that sd_notify(3) documents: datagrams
 * of VARIABLE=VALUE lines to the socket that $NOTIFY_SOCKET names. Written against the
 * protocol, since libsystemd would bring five libraries for these lines.
 *
 * Nothing here ever fails for its caller: without a service manager all is silent.
 */
#ifndef AGENT_NOTIFY_H
#define AGENT_NOTIFY_H

#include <stdint.h>

struct notify {
	int socket;       /* -1: nobody listens */
	int64_t watchdog; /* ms within which it wants to hear; 0: it does not watch */
};

/* Looks into the environment ($NOTIFY_SOCKET, $WATCHDOG_USEC, $WATCHDOG_PID), and
 * takes these variables out of it. */
void notify_open(struct notify *notify);
void notify_close(struct notify *notify);

void notify_ready(const struct notify *notify);
void notify_reloading(const struct notify *notify); /* notify_ready() follows */
void notify_stopping(const struct notify *notify);
void notify_alive(const struct notify *notify);

/* One line for `systemctl status`. */
void notify_status(const struct notify *notify, const char *sentence);

#endif
