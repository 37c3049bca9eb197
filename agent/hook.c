/* Running a command for an event; see hook.h.
 *
 * Between fork() and exec only what POSIX calls safe there is done: the process has
 * another thread, which may hold any lock at that moment.
 */
#include "agent/hook.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OWN_VARIABLES 7
#define VARIABLE_SIZE (REPORT_REASON_SIZE + 40)

/* Keys and the endpoint's address, which may hold a token, are the agent's alone. */
static bool is_ours(const char *variable)
{
	return strncmp(variable, "RECONIFY_", strlen("RECONIFY_")) == 0;
}

struct variables {
	char own[OWN_VARIABLES][VARIABLE_SIZE];
	char **all; /* borrows `own` and the process's environment */
};

static bool make_variables(struct variables *variables, const struct event *event)
{
	const struct figures *figures = &event->figures;
	size_t count = 0, at = 0;
	while (environ[count] != NULL)
		count++;
	variables->all = calloc(count + OWN_VARIABLES + 1, sizeof *variables->all);
	if (variables->all == NULL)
		return false;
	for (size_t i = 0; i < count; i++)
		if (!is_ours(environ[i]))
			variables->all[at++] = environ[i];
	(void)snprintf(variables->own[0], VARIABLE_SIZE, "RECONIFY_EVENT=%s", events_name(event->kind));
	(void)snprintf(variables->own[1], VARIABLE_SIZE, "RECONIFY_APP=%s", event->app);
	(void)snprintf(variables->own[2], VARIABLE_SIZE, "RECONIFY_REASON=%s", event->reason);
	(void)snprintf(variables->own[3], VARIABLE_SIZE, "RECONIFY_WAITING=%" PRId64, figures->waiting);
	(void)snprintf(variables->own[4], VARIABLE_SIZE, "RECONIFY_DEAD=%" PRId64, figures->dead);
	(void)snprintf(variables->own[5], VARIABLE_SIZE, "RECONIFY_BYTES=%" PRId64, figures->bytes);
	(void)snprintf(variables->own[6], VARIABLE_SIZE, "RECONIFY_MAX_SPOOL=%" PRId64,
	               figures->max_spool);
	/* Where the ledger could not be read yet, nothing is said of it. */
	for (size_t i = 0; i < (figures->known ? OWN_VARIABLES : 3); i++)
		variables->all[at++] = variables->own[i];
	return true;
}

/* Where the kernel has no close_range(): whatever may be open. */
static void close_each(int from)
{
	struct rlimit limit = { 1024, 1024 };
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	for (int file = from; (rlim_t)file < limit.rlim_cur; file++)
		(void)close(file);
}

static _Noreturn void become(const char *command, char **variables)
{
	const char *const arguments[] = { "sh", "-c", command, NULL };
	struct sigaction ordinary = { .sa_handler = SIG_DFL };
	sigset_t none;
	(void)setsid();
	for (int number = 1; number < NSIG; number++)
		(void)sigaction(number, &ordinary, NULL); /* ignored ones would stay ignored */
	(void)sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	int nothing = open("/dev/null", O_RDWR);
	if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(nothing, STDOUT_FILENO) < 0)
		_exit(126);
#ifdef SYS_close_range
	if (syscall(SYS_close_range, STDERR_FILENO + 1U, ~0U, 0U) != 0)
#endif
		close_each(STDERR_FILENO + 1);
	(void)execve("/bin/sh", (char **)(uintptr_t)arguments, variables);
	_exit(127);
}

bool hook_start(const char *command, const struct event *event, pid_t *pid)
{
	struct variables *variables = calloc(1, sizeof *variables);
	sigset_t all, before;
	bool started = false;
	if (variables == NULL || !make_variables(variables, event)) {
		free(variables);
		errno = ENOMEM;
		return false;
	}
	/* No handler of the agent's may run in the child. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	*pid = fork();
	if (*pid == 0)
		become(command, variables->all);
	int reason = errno;
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	started = *pid > 0;
	free(variables->all);
	free(variables);
	errno = reason;
	return started;
}

const char *hook_outcome(int status, char *into, size_t size)
{
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return NULL;
	if (WIFEXITED(status))
		(void)snprintf(into, size, "ended with status %d", WEXITSTATUS(status));
	else
		(void)snprintf(into, size, "was ended by signal %d", WTERMSIG(status));
	return into;
}
