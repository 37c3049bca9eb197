/* The socket's other end; see client.h. */
#include "agent/client.h"

#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_SECONDS 3
#define ANSWER_SIZE 131072

/* A socket's path may only have 107 bytes, so it is reached through its folder. */
static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval patience = { PATIENCE_SECONDS, 0 };
	char *copy = strdup(path), *other = strdup(path);
	int connection = -1, folder = -1;
	if (copy == NULL || other == NULL)
		goto end;
	folder = open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		goto end;
	int size = snprintf(address.sun_path, sizeof address.sun_path,
	                    "/proc/self/fd/%d/%s-agent.sock", folder, basename(other));
	if (size < 0 || (size_t)size >= sizeof address.sun_path)
		goto end;
	connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (connection < 0)
		goto end;
	if (setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0 ||
	    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) != 0 ||
	    connect(connection, (const struct sockaddr *)(const void *)&address,
	            sizeof address) != 0) {
		(void)close(connection);
		connection = -1;
	}
end:
	if (folder >= 0)
		(void)close(folder);
	free(copy);
	free(other);
	return connection;
}

bool client_ask(const char *path, enum client_request request, struct report *report)
{
	static const char *const requests[] = {
		[CLIENT_STATUS] = "status\n", [CLIENT_TRY_NOW] = "try\n",
		[CLIENT_FORGET] = "forget\n", [CLIENT_PAUSE] = "pause\n",
		[CLIENT_RESUME] = "resume\n"
	};
	const char *words = requests[request];
	bool answered = false;
	char *answer = NULL;
	size_t size = 0;
	int connection = connect_to(path);
	if (connection < 0)
		return false;
	if (send(connection, words, strlen(words), MSG_NOSIGNAL) != (ssize_t)strlen(words))
		goto end;
	answer = malloc(ANSWER_SIZE);
	if (answer == NULL)
		goto end;
	while (size < ANSWER_SIZE - 1) {
		ssize_t got = recv(connection, answer + size, ANSWER_SIZE - 1 - size, 0);
		if (got < 0)
			goto end;
		if (got == 0)
			break;
		size += (size_t)got;
	}
	answer[size] = '\0';
	answered = report_from_json(answer, report);
end:
	free(answer);
	(void)close(connection);
	return answered;
}
