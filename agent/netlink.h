/* Tells when the network may have come back: the kernel's own news of links, addresses
 * and routes (rtnetlink). Knows the socket and its messages, and nothing of who waits.
 */
#ifndef AGENT_NETLINK_H
#define AGENT_NETLINK_H

#include <stdbool.h>

/* A socket that does not block and becomes readable when something changes, for the
 * caller to close. -1: not to be had here, which a sandbox may want; then whoever waits
 * does so without it. */
int netlink_open(void);

/* Reads what is there. True when any of it may have brought the network back: a link
 * that works, a new address, a new route; or so much that some was lost. */
bool netlink_read(int socket);

#endif
