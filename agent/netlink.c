/* The kernel's news of the network; see netlink.h. Must never believe anybody but the
 * kernel: other processes can send to such a socket, too. */
#include "agent/netlink.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sys/socket.h>
#include <unistd.h>

#define READS_MAX 64 /* a storm is read on in the next turn */

int netlink_open(void)
{
	struct sockaddr_nl address = {
		.nl_family = AF_NETLINK,
		.nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR |
		             RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE
	};
	int opened = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (opened < 0)
		return -1;
	if (bind(opened, (const struct sockaddr *)&address, sizeof address) != 0) {
		(void)close(opened);
		return -1;
	}
	return opened;
}

static bool is_good_news(const struct nlmsghdr *message)
{
	switch (message->nlmsg_type) {
	case RTM_NEWADDR:
	case RTM_NEWROUTE:
		return true;
	case RTM_NEWLINK: {
		if (message->nlmsg_len < NLMSG_LENGTH(sizeof(struct ifinfomsg)))
			return false;
		const struct ifinfomsg *link = NLMSG_DATA(message);
		return (link->ifi_flags & IFF_UP) != 0 && (link->ifi_flags & IFF_RUNNING) != 0;
	}
	default:
		return false;
	}
}

bool netlink_read(int socket)
{
	_Alignas(struct nlmsghdr) char buffer[16384];
	bool good = false;
	for (int i = 0; i < READS_MAX; i++) {
		struct sockaddr_nl from = { .nl_family = AF_NETLINK };
		socklen_t from_size = sizeof from;
		ssize_t size = recvfrom(socket, buffer, sizeof buffer, 0, (struct sockaddr *)&from,
		                        &from_size);
		if (size < 0 && errno == ENOBUFS) {
			good = true; /* more than there was room for */
			continue;
		}
		if (size <= 0)
			break;
		if (from.nl_pid != 0)
			continue;
		unsigned left = (unsigned)size;
		for (const struct nlmsghdr *message = (const void *)buffer; NLMSG_OK(message, left);
		     message = NLMSG_NEXT(message, left))
			good = good || is_good_news(message);
	}
	return good;
}
