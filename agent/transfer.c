/* Export and import; see transfer.h. */
#include "agent/transfer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "agent/around.h"
#include "agent/client.h"
#include "agent/json.h"
#include "agent/status.h"
#include "agent/words.h"

/* What is read, or inserted, in one go: others wait for it. */
#define BATCH_RECORDS 128
#define BATCH_BYTES (4 << 20)
#define BUSY_TRIES 10
#define EXACT_MAX (INT64_C(1) << 53) /* beyond, a JSON number may be read as another */
#define ID_COLUMN 24

static int complain_of(struct spool *spool, enum spool_status status)
{
	const char *sentence = spool_last_error(spool)->sentence;
	(void)fprintf(stderr, "reconify-agent: %s\n", sentence[0] != '\0' ? sentence : "no memory");
	return status_exit_code(status);
}

/* --- Export ------------------------------------------------------------- */

static cJSON *value_to_json(const struct spool_value *value)
{
	char digits[40];
	cJSON *object;
	switch (value->kind) {
	case VALUE_INTEGER:
		(void)snprintf(digits, sizeof digits, "%" PRId64, value->integer);
		if (value->integer >= -EXACT_MAX && value->integer <= EXACT_MAX)
			return cJSON_CreateRaw(digits);
		object = cJSON_CreateObject();
		if (object != NULL && cJSON_AddStringToObject(object, "integer", digits) != NULL)
			return object;
		cJSON_Delete(object);
		return NULL;
	case VALUE_REAL:
		(void)snprintf(digits, sizeof digits, "%.17g", value->real);
		if (strspn(digits, "-0123456789") == strlen(digits))
			(void)strcat(digits, ".0");
		return cJSON_CreateRaw(value->real - value->real == 0 ? digits
		                       : value->real > 0 ? "1e999" : "-1e999");
	case VALUE_TEXT:
		return words_to_json(value->text, false);
	case VALUE_BLOB:
		return words_to_json(value->text, true);
	case VALUE_NULL:
		break;
	}
	return cJSON_CreateNull();
}

static bool print_found(struct spool *spool, bool dead, FILE *out)
{
	cJSON *json = cJSON_CreateObject();
	bool ok = json != NULL;
	for (int i = 0; ok && i < (dead ? SPOOL_DEAD_COLUMNS : SPOOL_COLUMNS); i++) {
		struct spool_value value = spool_found_value(spool, i);
		cJSON *member = value_to_json(&value);
		ok = member != NULL && cJSON_AddItemToObject(json, spool_column_names[i], member);
		if (!ok)
			cJSON_Delete(member);
	}
	ok = ok && words_print_json(out, json);
	cJSON_Delete(json);
	return ok;
}

/* One batch into `out`; `*from` is where the next one begins. SPOOL_END: that was all. */
static enum spool_status export_batch(struct spool *spool, const struct selection *selection,
                                      int64_t *from, int64_t to, int64_t *left, FILE *out)
{
	struct spool_found found;
	enum spool_status status = spool_find_begin(spool, selection->dead, &selection->filter, *from,
	                                            to);
	for (int i = 0; status == SPOOL_OK && i < BATCH_RECORDS && ftell(out) < BATCH_BYTES; i++) {
		status = *left > 0 ? spool_find_next(spool, &found) : SPOOL_END;
		if (status != SPOOL_OK)
			break;
		if (!print_found(spool, selection->dead, out))
			status = SPOOL_IO;
		(*left)--;
		if (found.record.id == to)
			status = SPOOL_END;
		else
			*from = found.record.id + 1;
	}
	spool_find_end(spool);
	return status;
}

int transfer_export(struct spool *spool, const struct selection *selection, FILE *out)
{
	int64_t from = SPOOL_FIRST_ID, to, left = selection->limit;
	bool damaged = false;
	enum spool_status status = spool_last(spool, selection->dead, &to);
	while (status == SPOOL_OK && !ferror(out)) {
		char *batch = NULL;
		size_t size = 0;
		FILE *memory = open_memstream(&batch, &size);
		if (memory == NULL)
			return complain_of(spool, SPOOL_IO);
		status = export_batch(spool, selection, &from, to, &left, memory);
		if (fclose(memory) != 0)
			status = SPOOL_IO;
		else
			(void)fwrite(batch, 1, size, out);
		free(batch);
		if (status == SPOOL_DAMAGED) {
			damaged = true;
			status = around_damage(spool, selection->dead, &from, to);
		}
	}
	if (status == SPOOL_OK || status == SPOOL_END)
		return damaged ? EX_DATAERR : EX_OK;
	return complain_of(spool, status);
}

/* --- Import ------------------------------------------------------------- */

struct line {
	char *text; /* all values are within it, in `json` or in `owned` */
	size_t size;
	cJSON *json;
	char *owned[SPOOL_DEAD_COLUMNS];
	struct spool_value values[SPOOL_DEAD_COLUMNS];
	bool dead;
	int64_t number;
};

static void line_free(struct line *line)
{
	for (size_t i = 0; i < SPOOL_DEAD_COLUMNS; i++)
		free(line->owned[i]);
	cJSON_Delete(line->json);
	free(line->text);
}

/* cJSON would end the text at an escaped NUL without a word. */
static bool has_escaped_nul(const char *text)
{
	for (const char *at = strchr(text, '\\'); at != NULL; at = strchr(at + 2, '\\'))
		if (strncmp(at + 1, "u0000", 5) == 0)
			return true;
	return false;
}

static bool integer_from(const cJSON *json, int64_t *integer)
{
	const cJSON *member = json->child;
	if (!cJSON_IsObject(json) || member == NULL || member->next != NULL ||
	    strcmp(member->string, "integer") != 0 || !cJSON_IsString(member))
		return false;
	return selection_parse_id(member->valuestring, integer);
}

static bool value_from_json(const cJSON *json, struct spool_value *value, char **owned)
{
	bool blob = false;
	*value = (struct spool_value){ .kind = VALUE_NULL };
	if (cJSON_IsNull(json))
		return true;
	if (integer_from(json, &value->integer)) {
		value->kind = VALUE_INTEGER;
		return true;
	}
	if (cJSON_IsNumber(json)) {
		double real = json->valuedouble;
		bool whole = real >= -(double)EXACT_MAX && real <= (double)EXACT_MAX &&
		             real - (double)(int64_t)real == 0;
		value->kind = whole ? VALUE_INTEGER : VALUE_REAL;
		value->integer = whole ? (int64_t)real : 0;
		value->real = real;
		return true;
	}
	if (!words_from_json(json, &value->text, &blob, owned))
		return false;
	value->kind = blob ? VALUE_BLOB : VALUE_TEXT;
	return true;
}

static int column_of(const char *name)
{
	for (int i = 0; i < SPOOL_DEAD_COLUMNS; i++)
		if (strcmp(name, spool_column_names[i]) == 0)
			return i;
	return -1;
}

/* NULL, or what is wrong with the line. `*column`: of which column that is, or NULL. */
static const char *parse_line(struct line *line, const char **column)
{
	bool given[SPOOL_DEAD_COLUMNS] = { false };
	*column = NULL;
	if (json_check(line->text, line->size) != JSON_OBJECT)
		return "this is not one JSON object";
	if (has_escaped_nul(line->text))
		return "a text with a NUL is written as {\"text_hex\": \"...\"}";
	line->json = cJSON_ParseWithLength(line->text, line->size);
	if (line->json == NULL)
		return "this JSON cannot be read: a lone surrogate, or no memory";
	for (const cJSON *member = line->json->child; member != NULL; member = member->next) {
		int i = column_of(member->string);
		if (i < 0)
			return "there is a member that is no column of a spool";
		*column = spool_column_names[i];
		if (given[i])
			return "it stands there twice";
		given[i] = true;
		if (!value_from_json(member, &line->values[i], &line->owned[i]))
			return "its value is in none of the forms that export writes";
		line->dead = line->dead || i >= SPOOL_COLUMNS;
	}
	*column = NULL;
	return NULL;
}

struct import {
	const struct config *config;
	struct spool *spool;
	const char *name;
	struct line lines[BATCH_RECORDS];
	size_t count, bytes;
	int64_t number, added, known, refused;
	bool full;
	int code;
};

static void refuse(struct import *import, const struct line *line, const char *column,
                   const char *why)
{
	import->refused++;
	import->code = EX_DATAERR;
	(void)fprintf(stderr, "reconify-agent: %s:%" PRId64 ": %s%s%s\n", import->name, line->number,
	              column != NULL ? column : "", column != NULL ? ": " : "", why);
}

/* The lines gathered so far, in one transaction. */
static enum spool_status insert_batch(struct import *import)
{
	int64_t added = 0, known = 0;
	enum spool_status status = SPOOL_BUSY;
	for (int i = 0; status == SPOOL_BUSY && i < BUSY_TRIES; i++)
		status = spool_import_begin(import->spool);
	for (size_t i = 0; status == SPOOL_OK && i < import->count && !import->full; i++) {
		const struct line *line = &import->lines[i];
		enum spool_imported outcome;
		status = spool_import_record(import->spool, line->dead, line->values, &outcome);
		if (status != SPOOL_OK) {
			spool_import_abort(import->spool);
			break;
		}
		added += outcome == IMPORT_ADDED;
		known += outcome == IMPORT_KNOWN_ALREADY;
		if (outcome != IMPORT_REFUSED)
			continue;
		const char *why = spool_last_error(import->spool)->sentence;
		import->full = strcmp(why, SPOOL_FULL_SENTENCE) == 0;
		refuse(import, line, NULL, why);
	}
	if (status == SPOOL_OK)
		status = spool_import_commit(import->spool);
	if (status != SPOOL_OK) {
		import->code = complain_of(import->spool, status);
		(void)fprintf(stderr, "reconify-agent: %s:%" PRId64 ": from here on nothing was "
		              "imported\n", import->name, import->lines[0].number);
	} else {
		import->added += added;
		import->known += known;
	}
	for (size_t i = 0; i < import->count; i++)
		line_free(&import->lines[i]);
	import->count = import->bytes = 0;
	return status;
}

/* One more line for the batch; false at the end of the file. */
static bool gather(struct import *import, FILE *in)
{
	struct line *line = &import->lines[import->count];
	const char *column, *why;
	size_t room = 0;
	memset(line, 0, sizeof *line);
	errno = 0;
	ssize_t size = getline(&line->text, &room, in);
	if (size < 0) {
		free(line->text);
		return false;
	}
	line->number = ++import->number;
	line->size = (size_t)size;
	if (strspn(line->text, " \t\r\n") == line->size) {
		line_free(line);
		return true;
	}
	why = parse_line(line, &column);
	if (why != NULL) {
		refuse(import, line, column, why);
		line_free(line);
		return true;
	}
	import->count++;
	import->bytes += line->size;
	return true;
}

int transfer_import(const struct config *config, struct spool *spool, FILE *in,
                    const char *name)
{
	struct report report;
	enum spool_status status = spool_import_start(spool);
	if (status != SPOOL_OK)
		return complain_of(spool, status);
	struct import *import = calloc(1, sizeof *import);
	if (import == NULL)
		return complain_of(spool, SPOOL_IO);
	*import = (struct import){ .config = config, .spool = spool, .name = name };
	bool more = true;
	while (more && status == SPOOL_OK && !import->full) {
		more = gather(import, in);
		if (import->count > 0 && (!more || import->count == BATCH_RECORDS ||
		                          import->bytes >= BATCH_BYTES))
			status = insert_batch(import);
	}
	if (ferror(in)) {
		(void)fprintf(stderr, "reconify-agent: %s: cannot be read: %s\n", name, strerror(errno));
		import->code = EX_IOERR;
	}
	if (import->full) {
		(void)fprintf(stderr, "reconify-agent: %s: the lines behind that one were not looked at: "
		              "make room, and import it all again\n", name);
		import->code = EX_TEMPFAIL;
	}
	(void)printf("%" PRId64 " imported, %" PRId64 " known already, %" PRId64 " refused\n",
	             import->added, import->known, import->refused);
	if (import->added > 0)
		(void)client_ask(config->spool_path, CLIENT_TRY_NOW, &report);
	int code = import->code;
	free(import);
	return code;
}
