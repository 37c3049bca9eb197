/* A screen in place; see watch.h. */
#include "agent/watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sysexits.h>
#include <termios.h>
#include <unistd.h>

#include "agent/screen.h"

/* The second screen, as an editor has it, without a cursor, and with what is too wide cut
 * off: wrapped, it would push out the first lines, which matter most; and back. */
#define ENTER "\033[?1049h\033[?25l\033[?7l\033[H\033[2J"
#define LEAVE "\033[?7h\033[?25h\033[?1049l"
#define LINE_END "\033[K" /* what stood there before goes */
#define REST "\033[J"
#define BOLD_END "\033[0m"

struct watch {
	bool in_place, keys;
	int seconds, signals;
	struct termios before;
};

static bool write_all(const char *bytes, size_t size)
{
	while (size > 0) {
		ssize_t written = write(STDOUT_FILENO, bytes, size);
		if (written < 0 && errno == EINTR)
			continue;
		if (written < 0)
			return false;
		bytes += written;
		size -= (size_t)written;
	}
	return true;
}

static void enter(struct watch *watch)
{
	watch->keys = watch->in_place && tcgetattr(STDIN_FILENO, &watch->before) == 0;
	if (watch->keys) {
		struct termios raw = watch->before;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		raw.c_cc[VMIN] = 0;
		raw.c_cc[VTIME] = 0;
		watch->keys = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
	}
	if (watch->in_place)
		(void)write_all(ENTER, strlen(ENTER));
}

static void leave(struct watch *watch)
{
	if (watch->in_place)
		(void)write_all(LEAVE, strlen(LEAVE));
	if (watch->keys)
		(void)tcsetattr(STDIN_FILENO, TCSANOW, &watch->before);
}

/* Stops as any program does on Ctrl-Z, with the terminal as it was meanwhile. */
static void step_aside(struct watch *watch)
{
	leave(watch);
	(void)raise(SIGSTOP);
	enter(watch);
}

/* Over what stands there, line by line: the screen is never empty. One write, so that
 * it is never half. */
static bool show(const struct watch *watch, const char *text)
{
	struct winsize size = { .ws_row = 0 };
	int rows = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 2 ? size.ws_row : 24;
	char *frame = NULL;
	size_t frame_size = 0;
	FILE *out = open_memstream(&frame, &frame_size);
	if (out == NULL)
		return false;
	(void)fputs("\033[H", out);
	int row = 0;
	for (; row < rows - 1 && *text != '\0'; row++) {
		size_t length = strcspn(text, "\n");
		(void)fprintf(out, "%.*s" BOLD_END LINE_END "\r\n", (int)length, text);
		text += length + (text[length] == '\n');
	}
	(void)fprintf(out, "-- every %d s; q ends%s" LINE_END REST, watch->seconds,
	              *text != '\0' ? "; more in a taller window" : "");
	bool shown = fclose(out) == 0 && write_all(frame, frame_size);
	free(frame);
	return shown;
}

/* Waits for the next turn; false: somebody ends it. */
static bool wait_turn(struct watch *watch)
{
	struct pollfd files[] = { { .fd = watch->signals, .events = POLLIN },
		                  { .fd = watch->keys ? STDIN_FILENO : -1, .events = POLLIN } };
	struct signalfd_siginfo told;
	char key;
	int ready = poll(files, 2, watch->seconds * 1000);
	if (ready <= 0)
		return ready == 0 || errno == EINTR;
	if (files[0].revents != 0) {
		if (read(watch->signals, &told, sizeof told) != (ssize_t)sizeof told)
			return false;
		if (told.ssi_signo == SIGTSTP)
			step_aside(watch);
		return told.ssi_signo == SIGWINCH || told.ssi_signo == SIGTSTP;
	}
	if (files[1].revents != 0)
		return read(STDIN_FILENO, &key, 1) == 1 && key != 'q' && key != 'Q';
	return true;
}

static int print_once(const struct watch *watch, int (*print)(void *context, FILE *out),
                      void *context)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	if (out == NULL)
		return EX_OSERR;
	int code = print(context, out);
	if (fclose(out) != 0)
		code = code == EX_OK ? EX_OSERR : code;
	if (code == EX_OK && !(watch->in_place ? show(watch, text) : write_all(text, size)))
		code = EX_IOERR;
	free(text);
	return code;
}

int watch_run(int seconds, bool in_place, int (*print)(void *context, FILE *out), void *context)
{
	struct watch watch = { .in_place = in_place && screen_is_terminal(STDOUT_FILENO),
		               .seconds = seconds };
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP, SIGTSTP, SIGWINCH };
	sigset_t wanted, before;
	(void)sigemptyset(&wanted);
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		if (numbers[i] != SIGTSTP || watch.in_place)
			(void)sigaddset(&wanted, numbers[i]);
	if (sigprocmask(SIG_BLOCK, &wanted, &before) != 0)
		return EX_OSERR;
	watch.signals = signalfd(-1, &wanted, SFD_CLOEXEC);
	if (watch.signals < 0) {
		(void)sigprocmask(SIG_SETMASK, &before, NULL);
		return EX_OSERR;
	}
	(void)fflush(stdout);
	enter(&watch);
	int code;
	do {
		code = print_once(&watch, print, context);
	} while (code == EX_OK && wait_turn(&watch));
	leave(&watch);
	(void)close(watch.signals);
	(void)sigprocmask(SIG_SETMASK, &before, NULL);
	return code;
}
