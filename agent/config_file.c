/* The configuration's files: the one that is parsed, and those that hold the keys.
 *
 * What cannot be had is told with the file's name and what can be done about it;
 * a key that cannot be had is no failure, its app's records wait. Must never put
 * a key into an error, nor hang on a file that is no file.
 */
#include "agent/config.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "agent/config_internal.h"
#include "agent/json.h"
#include "agent/secret.h"

#define FILE_BYTES_MAX (1024 * 1024)

/* $CREDENTIALS_DIRECTORY, or NULL where the variable is of no use. */
static const char *credentials_folder(void)
{
	const char *folder = getenv("CREDENTIALS_DIRECTORY");

	return folder != NULL && *folder == '/' ? folder : NULL;
}

/* `name` in the folder of the file `beside`. */
static char *path_beside(const char *beside, const char *name)
{
	const char *slash = strrchr(beside, '/');

	return slash == NULL ? copy(name)
	                     : sentence("%.*s%s", (int)(slash + 1 - beside), beside, name);
}

/* Makes a relative path one that can be opened: in $CREDENTIALS_DIRECTORY where
 * it is there, else beside the configuration. */
static void resolve(const struct config *config, char **path)
{
	const char *folder = credentials_folder();
	char *resolved = NULL;

	if (*path == NULL || **path == '/')
		return;
	if (folder != NULL) {
		resolved = sentence("%s/%s", folder, *path);
		if (access(resolved, F_OK) != 0) {
			free(resolved);
			resolved = NULL;
		}
	}
	if (resolved == NULL && config->file != NULL)
		resolved = path_beside(config->file, *path);
	if (resolved != NULL) {
		free(*path);
		*path = resolved;
	}
}

/* Reads at most `room` bytes. Returns how many, or -1 with errno. */
static ssize_t read_whole(int descriptor, char *buffer, size_t room)
{
	size_t size = 0;

	while (size < room) {
		ssize_t got = read(descriptor, buffer + size, room - size);

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return -1;
		if (got == 0)
			break;
		size += (size_t)got;
	}
	return (ssize_t)size;
}

int config_read(const char *file, struct config **out, char **error)
{
	const struct config_environment environment = { getenv("RECONIFY_ENDPOINT"),
		                                            getenv("RECONIFY_APP_KEY"),
		                                            getenv("RECONIFY_API_KEY") };
	const char *name = file != NULL ? file : CONFIG_DEFAULT_FILE;
	int descriptor, code = EX_CONFIG;
	char *text = NULL;
	ssize_t size;

	*out = NULL;
	*error = NULL;
	descriptor = open(name, O_RDONLY | O_CLOEXEC);
	if (descriptor < 0 && file == NULL && (errno == ENOENT || errno == ENOTDIR))
		return config_parse(NULL, 0, "", &environment, out, error) ? EX_OK : EX_CONFIG;
	if (descriptor < 0 && (errno == ENOENT || errno == ENOTDIR)) {
		*error = sentence("%s: there is no such configuration file; name the right one with "
		                  "--config, or write it (an example comes with the program)", name);
		return EX_NOINPUT;
	}
	if (descriptor < 0) {
		code = errno == EACCES || errno == EPERM ? EX_NOPERM : EX_NOINPUT;
		*error = code == EX_NOPERM
		             ? sentence("%s: this user may not read the configuration file; give it "
		                        "the right to, or run as the agent's user", name)
		             : sentence("%s: the configuration file cannot be opened: %s", name,
		                        strerror(errno));
		return code;
	}
	text = must(malloc(FILE_BYTES_MAX + 1));
	size = read_whole(descriptor, text, FILE_BYTES_MAX + 1);
	if (size < 0) {
		code = errno == EISDIR ? EX_NOINPUT : EX_IOERR;
		*error = errno == EISDIR
		             ? sentence("%s: this is a folder; right would be the configuration "
		                        "file in it", name)
		             : sentence("%s: the configuration file cannot be read: %s", name,
		                        strerror(errno));
	} else if (size > FILE_BYTES_MAX) {
		*error = sentence("%s: the file is larger than 1 MB, so it is not a configuration; "
		                  "right would be the file that the agent came with", name);
	} else if (config_parse(text, (size_t)size, name, &environment, out, error)) {
		resolve(*out, &(*out)->ca_file);
		resolve(*out, &(*out)->client_cert);
		resolve(*out, &(*out)->client_key);
		code = EX_OK;
	}
	explicit_bzero(text, FILE_BYTES_MAX + 1);
	free(text);
	close(descriptor);
	return code;
}

/* Reads one key's file. Returns the key; or NULL with in `*why` what is wrong
 * with the file, or NULL there too when there is no such file. */
static char *read_key(const char *path, char **why)
{
	char buffer[KEY_BYTES_MAX + 3];
	/* Not blocking: a FIFO in the file's place must not hang the daemon. */
	int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat status;
	char *key = NULL;
	ssize_t got = 0;
	size_t size;

	*why = NULL;
	if (descriptor < 0) {
		if (errno == EACCES || errno == EPERM)
			*why = sentence("%s may not be read by this user", path);
		else if (errno != ENOENT && errno != ENOTDIR)
			*why = sentence("%s cannot be opened: %s", path, strerror(errno));
		return NULL;
	}
	if (fstat(descriptor, &status) != 0)
		*why = sentence("%s cannot be read: %s", path, strerror(errno));
	else if (S_ISDIR(status.st_mode))
		*why = sentence("%s is a folder, not a file with the key", path);
	else if (!S_ISREG(status.st_mode))
		*why = sentence("%s is not a regular file", path);
	else if ((got = read_whole(descriptor, buffer, sizeof(buffer))) < 0)
		*why = sentence("%s cannot be read: %s", path, strerror(errno));
	close(descriptor);
	if (*why != NULL)
		return NULL;
	size = (size_t)got;
	if (size > 0 && buffer[size - 1] == '\n') {
		size--;
		if (size > 0 && buffer[size - 1] == '\r')
			size--;
	}
	if (size > KEY_BYTES_MAX)
		*why = sentence("%s is larger than 4 KB, so it holds no key", path);
	else if (size == 0 || strspn(buffer, " ") >= size)
		*why = sentence("%s is empty", path);
	else if (has_control(buffer, size))
		*why = sentence("%s has a control character or more than one line; only the key may "
		                "stand in it", path);
	else if (!json_is_utf8(buffer, size))
		*why = sentence("%s is not valid UTF-8, so it holds no key", path);
	else
		key = must(strndup(buffer, size));
	explicit_bzero(buffer, sizeof(buffer));
	return key;
}

void config_key_places(const struct config *config, const char *file, char *places[2])
{
	const char *folder = credentials_folder();

	places[0] = places[1] = NULL;
	if (*file == '/')
		places[0] = copy(file);
	else if (folder != NULL)
		places[0] = sentence("%s/%s", folder, file);
	if (*file != '/' && config->file != NULL)
		places[1] = path_beside(config->file, file);
}

bool config_is_withheld(const struct config *config, const struct config_app *app)
{
	const char *files[] = { app->app_key_file, app->api_key_file };
	bool withheld = false;
	for (size_t i = 0; geteuid() != 0 && i < sizeof files / sizeof files[0]; i++) {
		char *places[2] = { NULL, NULL };
		if (files[i] == NULL)
			continue;
		config_key_places(config, files[i], places);
		for (size_t place = 0; place < 2; place++) {
			withheld = withheld || (places[place] != NULL &&
			                        access(places[place], R_OK) != 0 && errno == EACCES);
			free(places[place]);
		}
	}
	return withheld;
}

/* Finds the key of `app` in its file. Returns NULL when it is known now, else a
 * sentence that says why not. */
static char *load_key(const struct config *config, const struct config_app *app,
                      const char *what, char **key, const char *file)
{
	char *places[2], *why = NULL, *missing = NULL;

	if (file == NULL && *key != NULL)
		return NULL;
	secret_free_string(*key);
	*key = NULL;
	if (file == NULL && strcmp(app->name, "default") == 0)
		return sentence("no %s: set the variable %s, or write a configuration", what,
		                strcmp(what, "app_key") == 0 ? "RECONIFY_APP_KEY" : "RECONIFY_API_KEY");
	if (file == NULL)
		return sentence("no %s: set %s_file under [app %s]", what, what, app->name);
	config_key_places(config, file, places);
	for (size_t i = 0; i < 2 && *key == NULL && why == NULL; i++)
		if (places[i] != NULL)
			*key = read_key(places[i], &why);
	if (*key == NULL && why != NULL)
		missing = sentence("no %s: %s", what, why);
	else if (*key == NULL && places[0] != NULL && places[1] != NULL)
		missing = sentence("no %s: there is neither %s nor %s", what, places[0], places[1]);
	else if (*key == NULL)
		missing = sentence("no %s: there is no %s", what,
		                   places[0] != NULL ? places[0] : places[1] != NULL ? places[1] : file);
	free(places[0]);
	free(places[1]);
	free(why);
	return missing;
}

void config_load_keys(struct config *config)
{
	struct config_app *first = &config->apps[0];

	if (config->file != NULL || credentials_folder() != NULL) {
		if (first->app_key == NULL && first->app_key_file == NULL)
			first->app_key_file = copy("app-key");
		if (first->api_key == NULL && first->api_key_file == NULL)
			first->api_key_file = copy("api-key");
	}
	for (size_t i = 0; i < config->app_count; i++) {
		struct config_app *app = &config->apps[i];
		char *app_missing =
		    load_key(config, app, "app_key", &app->app_key, app->app_key_file);
		char *api_missing =
		    load_key(config, app, "api_key", &app->api_key, app->api_key_file);

		free(app->missing);
		app->missing = app_missing != NULL ? app_missing : api_missing;
		if (app_missing != NULL && api_missing != NULL) {
			app->missing = sentence("%s; %s", app_missing, api_missing);
			free(app_missing);
			free(api_missing);
		}
	}
}
