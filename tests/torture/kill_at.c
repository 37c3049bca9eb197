/* kill_at N COUNT-FILE PROGRAM ARGUMENTS...: runs the program and kills it with SIGKILL
 * when any of its threads is about to make the Nth system call of the whole process;
 * that call does not happen any more. With N = 0 it only counts. How many calls were
 * seen is written to COUNT-FILE.
 *
 * strace can kill, too, but counts each thread and each name for itself: a call that
 * another thread always reaches first with that number would never be its moment.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

static int write_count(const char *path, unsigned long count)
{
	FILE *file = fopen(path, "w");
	if (file == NULL)
		return -1;
	int done = fprintf(file, "%lu\n", count);
	return fclose(file) == 0 && done > 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
	if (argc < 4)
		errx(64, "kill_at N COUNT-FILE PROGRAM ARGUMENTS...");
	unsigned long at = strtoul(argv[1], NULL, 10), count = 0;
	pid_t child = fork();
	if (child < 0)
		err(71, "fork");
	if (child == 0) {
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0)
			err(77, "ptrace");
		(void)raise(SIGSTOP);
		(void)execvp(argv[3], argv + 3);
		err(66, "%s", argv[3]);
	}
	/* A signal to the group is for the program; this one stays to tell how that ended. */
	(void)signal(SIGTERM, SIG_IGN);
	(void)signal(SIGHUP, SIG_IGN);
	(void)signal(SIGUSR1, SIG_IGN);
	int state;
	if (waitpid(child, &state, 0) != child || !WIFSTOPPED(state))
		errx(77, "the program cannot be traced");
	const long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL |
	                     PTRACE_O_TRACEEXEC;
	if (ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)options) != 0)
		err(77, "ptrace");
	(void)ptrace(PTRACE_SYSCALL, child, NULL, NULL);
	for (;;) {
		pid_t thread = waitpid(-1, &state, __WALL);
		if (thread < 0 && errno == EINTR)
			continue;
		if (thread < 0)
			err(71, "waitpid");
		if (WIFEXITED(state) || WIFSIGNALED(state)) {
			if (thread != child)
				continue;
			if (write_count(argv[2], count) != 0)
				err(74, "%s", argv[2]);
			return WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
		}
		int number = WSTOPSIG(state), pass_on = 0;
		if (number == (SIGTRAP | 0x80)) {
			struct __ptrace_syscall_info info = { .op = PTRACE_SYSCALL_INFO_NONE };
			(void)ptrace(PTRACE_GET_SYSCALL_INFO, thread, (void *)sizeof info, &info);
			if (info.op == PTRACE_SYSCALL_INFO_ENTRY && ++count == at)
				(void)kill(child, SIGKILL);
		} else if (number != SIGTRAP && number != SIGSTOP) {
			pass_on = number;
		}
		(void)ptrace(PTRACE_SYSCALL, thread, NULL, (void *)(long)pass_on);
	}
}
