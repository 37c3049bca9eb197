/* Telling systemd how it goes; see notify.h. */
#include "agent/notify.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int64_t watchdog_ms(void)
{
	const char *pid = getenv("WATCHDOG_PID");
	const char *microseconds = getenv("WATCHDOG_USEC");
	if (microseconds == NULL || (pid != NULL && strtol(pid, NULL, 10) != (long)getpid()))
		return 0;
	long long value = strtoll(microseconds, NULL, 10);
	return value > 0 ? value / 1000 : 0;
}

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t length = strlen(path);
	if ((path[0] != '/' && path[0] != '@') || length < 2 || length >= sizeof address.sun_path)
		return -1;
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = '\0'; /* the abstract namespace */
	int opened = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
	if (opened >= 0 && connect(opened, (const struct sockaddr *)&address, size) != 0) {
		(void)close(opened);
		opened = -1;
	}
	return opened;
}

void notify_open(struct notify *notify)
{
	const char *path = getenv("NOTIFY_SOCKET");
	notify->socket = path != NULL ? connect_to(path) : -1;
	notify->watchdog = notify->socket >= 0 ? watchdog_ms() : 0;
	(void)unsetenv("NOTIFY_SOCKET");
	(void)unsetenv("WATCHDOG_USEC");
	(void)unsetenv("WATCHDOG_PID");
}

void notify_close(struct notify *notify)
{
	if (notify->socket >= 0)
		(void)close(notify->socket);
	notify->socket = -1;
}

static void say(const struct notify *notify, const char *lines)
{
	/* Where it does not arrive there is nothing to be done about it. */
	if (notify->socket >= 0 && send(notify->socket, lines, strlen(lines), MSG_NOSIGNAL) < 0)
		return;
}

void notify_ready(const struct notify *notify)
{
	say(notify, "READY=1");
}

void notify_reloading(const struct notify *notify)
{
	char lines[80];
	struct timespec time;
	if (clock_gettime(CLOCK_MONOTONIC, &time) != 0)
		return;
	(void)snprintf(lines, sizeof lines, "RELOADING=1\nMONOTONIC_USEC=%" PRId64,
	               (int64_t)time.tv_sec * 1000000 + time.tv_nsec / 1000);
	say(notify, lines);
}

void notify_stopping(const struct notify *notify)
{
	say(notify, "STOPPING=1");
}

void notify_alive(const struct notify *notify)
{
	say(notify, "WATCHDOG=1");
}

void notify_status(const struct notify *notify, const char *sentence)
{
	char line[600];
	int used = snprintf(line, sizeof line, "STATUS=%s", sentence);
	for (int i = 0; i < used && i < (int)sizeof line - 1; i++)
		if (line[i] == '\n')
			line[i] = ' ';
	say(notify, line);
}
