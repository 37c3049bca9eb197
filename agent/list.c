/* The list of records; see list.h. */
#include "agent/list.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/around.h"
#include "agent/words.h"

/* Records read in one go: what a reader keeps open, others' commits wait behind. */
#define PAGE 256

static int64_t age_of(const struct number *since, int64_t now)
{
	if (since->state != NUMBER_SET || since->value < 0)
		return -1;
	return now > since->value ? now - since->value : 0; /* a clock that was set back */
}

/* "code: sentence" -> "code" */
static struct text code_of(struct text reason)
{
	const char *colon = reason.bytes != NULL ? memchr(reason.bytes, ':', reason.size) : NULL;
	if (colon != NULL)
		reason.size = (size_t)(colon - reason.bytes);
	return reason;
}

/* The model or, where there is none, the format. */
static struct text model_of(const struct record *record)
{
	return record->model_id.bytes != NULL ? record->model_id : record->format;
}

static void print_heading(bool dead, FILE *out)
{
	if (dead)
		(void)fprintf(out, "%7s %4s %4s %-17s %4s %5s %5s %-7s %-9s %s\n", "ID", "AGE", "DIED",
		              "REASON", "HTTP", "TRIES", "BYTES", "APP", "SESSION", "MODEL");
	else
		(void)fprintf(out, "%7s %4s %-12s %-20s %-27s %5s\n", "ID", "AGE", "APP", "SESSION",
		              "MODEL OR FORMAT", "BYTES");
}

static void print_line(const struct spool_found *found, bool dead, int64_t now, FILE *out)
{
	const struct record *record = &found->record;
	char age[WORDS_SHORT], died[WORDS_SHORT], bytes[WORDS_SHORT], http[WORDS_SHORT];
	(void)words_span(age_of(&record->spooled_at, now), age);
	(void)words_bytes(found->bytes, bytes);
	(void)fprintf(out, "%7" PRId64 " %4s ", record->id, age);
	if (dead) {
		(void)snprintf(http, sizeof http, "%" PRId64, found->http_status.value);
		(void)fprintf(out, "%4s ", words_span(age_of(&found->died_at, now), died));
		words_cell(out, code_of(found->reason), 17);
		(void)fprintf(out, " %4.4s %5" PRId64 " %5s ",
		              found->http_status.state == NUMBER_SET ? http : "-", found->attempts.value,
		              bytes);
		words_cell(out, record->app, 7);
		(void)fputc(' ', out);
		words_cell(out, record->session, 9);
		(void)fputc(' ', out);
		words_cell(out, model_of(record), 9);
	} else {
		words_cell(out, record->app, 12);
		(void)fputc(' ', out);
		words_cell(out, record->session, 20);
		(void)fputc(' ', out);
		words_cell(out, model_of(record), 27);
		(void)fprintf(out, " %5s", bytes);
	}
	(void)fputc('\n', out);
}

static bool add_text(cJSON *json, const char *name, struct text text)
{
	cJSON *value = words_to_json(text, false);
	if (value != NULL && cJSON_AddItemToObject(json, name, value))
		return true;
	cJSON_Delete(value);
	return false;
}

static bool add_number(cJSON *json, const char *name, const struct number *number)
{
	char digits[WORDS_SHORT];
	if (number->state != NUMBER_SET)
		return cJSON_AddNullToObject(json, name) != NULL;
	(void)snprintf(digits, sizeof digits, "%" PRId64, number->value);
	return cJSON_AddRawToObject(json, name, digits) != NULL;
}

static bool print_json(const struct spool_found *found, bool dead, FILE *out)
{
	const struct record *record = &found->record;
	const struct number id = { NUMBER_SET, record->id }, bytes = { NUMBER_SET, found->bytes };
	cJSON *json = cJSON_CreateObject();
	bool ok = json != NULL && add_number(json, "id", &id) &&
	          add_text(json, "uuid", record->uuid) && add_text(json, "app", record->app) &&
	          add_text(json, "session", record->session) &&
	          add_text(json, "model_id", record->model_id) &&
	          add_text(json, "format", record->format) && add_text(json, "type", record->type) &&
	          add_number(json, "bytes", &bytes) &&
	          add_number(json, "spooled_at", &record->spooled_at);
	if (ok && dead)
		ok = add_text(json, "reason", found->reason) &&
		     add_number(json, "http_status", &found->http_status) &&
		     add_number(json, "attempts", &found->attempts) &&
		     add_number(json, "died_at", &found->died_at);
	ok = ok && words_print_json(out, json);
	cJSON_Delete(json);
	return ok;
}

/* One page into `out`; `*from` is where the next one begins. SPOOL_END: that was all. */
static enum spool_status list_page(struct spool *spool, const struct selection *selection,
                                   int64_t *from, int64_t *left, int64_t now, FILE *out)
{
	struct spool_found found;
	enum spool_status status = spool_find_begin(spool, selection->dead, &selection->filter, *from,
	                                            INT64_MAX);
	for (int i = 0; status == SPOOL_OK && i < PAGE && *left > 0; i++) {
		status = spool_find_next(spool, &found);
		if (status != SPOOL_OK)
			break;
		if (!selection->json)
			print_line(&found, selection->dead, now, out);
		else if (!print_json(&found, selection->dead, out))
			status = SPOOL_IO;
		(*left)--;
		if (found.record.id == INT64_MAX)
			status = SPOOL_END;
		else
			*from = found.record.id + 1;
	}
	spool_find_end(spool);
	return status == SPOOL_OK && *left == 0 ? SPOOL_END : status;
}

/* On stderr: what reads the list gets no line that is no record. */
static void say_none(FILE *out, const char *sentence)
{
	(void)fflush(out);
	(void)fprintf(stderr, "reconify-agent: %s\n", sentence);
}

enum spool_status list_records(struct spool *spool, const struct selection *selection,
                               int64_t now, FILE *out)
{
	int64_t from = SPOOL_FIRST_ID, left = selection->limit;
	enum spool_status status = SPOOL_OK;
	bool damaged = false;
	if (!selection->json)
		print_heading(selection->dead, out);
	while (status == SPOOL_OK && !ferror(out)) {
		/* First into memory: a pager that waits for its reader must not be waited for
		 * while the spool is read. */
		char *page = NULL;
		size_t size = 0;
		FILE *memory = open_memstream(&page, &size);
		if (memory == NULL)
			return SPOOL_IO;
		status = list_page(spool, selection, &from, &left, now, memory);
		if (fclose(memory) != 0)
			status = SPOOL_IO;
		else
			(void)fwrite(page, 1, size, out);
		free(page);
		if (status == SPOOL_DAMAGED) {
			damaged = true;
			status = around_damage(spool, selection->dead, &from, INT64_MAX);
		}
	}
	if (status == SPOOL_END && !damaged && !selection->json && left == selection->limit)
		say_none(out, selection->filtered ? "no record is meant by these filters"
		                                  : selection->dead ? "there are no dead letters"
		                                                    : "nothing waits");
	if (status == SPOOL_OK || status == SPOOL_END)
		status = damaged ? SPOOL_DAMAGED : SPOOL_OK;
	return status;
}

/* --- Receipts ------------------------------------------------------------ */

bool list_receipt_as_json(const struct spool_receipt *receipt, FILE *out)
{
	const struct number id = { NUMBER_SET, receipt->id }, bytes = { NUMBER_SET, receipt->bytes },
	                    status = { NUMBER_SET, receipt->http_status },
	                    delivered_at = { NUMBER_SET, receipt->delivered_at };
	const struct text uuid = { receipt->uuid, strlen(receipt->uuid) };
	cJSON *json = cJSON_CreateObject();
	bool ok = json != NULL && add_number(json, "id", &id) && add_text(json, "uuid", uuid) &&
	          add_number(json, "request_at", &receipt->request_at) &&
	          add_number(json, "delivered_at", &delivered_at) &&
	          add_number(json, "http_status", &status) && add_number(json, "bytes", &bytes);
	char *line = ok ? cJSON_PrintUnformatted(json) : NULL;
	if (line != NULL)
		(void)fprintf(out, "%s\n", line);
	cJSON_Delete(json);
	free(line);
	return line != NULL;
}

static void print_receipt(const struct spool_receipt *receipt, FILE *out)
{
	char when[WORDS_SHORT] = "?", bytes[WORDS_SHORT];
	time_t seconds = (time_t)(receipt->delivered_at / 1000);
	struct tm parts;
	if (localtime_r(&seconds, &parts) == NULL ||
	    strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &parts) == 0)
		(void)snprintf(when, sizeof when, "?");
	(void)fprintf(out, "%7" PRId64 " %-32s %-19s %4d %5s\n", receipt->id, receipt->uuid, when,
	              receipt->http_status, words_bytes(receipt->bytes, bytes));
}

enum spool_status list_receipts(struct spool *spool, const struct selection *selection, FILE *out)
{
	struct spool_receipt receipts[PAGE], last;
	size_t count = 0;
	int64_t left = selection->limit;
	enum spool_status status = spool_receipts(spool, NULL, receipts, PAGE, &count);
	if (!selection->json)
		(void)fprintf(out, "%7s %-32s %-19s %4s %5s\n", "ID", "UUID", "DELIVERED", "HTTP", "BYTES");
	while (status == SPOOL_OK && count > 0 && left > 0 && !ferror(out)) {
		for (size_t i = 0; i < count && left > 0; i++, left--) {
			if (!selection->json)
				print_receipt(&receipts[i], out);
			else if (!list_receipt_as_json(&receipts[i], out))
				return SPOOL_IO;
		}
		last = receipts[count - 1];
		status = spool_receipts(spool, &last, receipts, PAGE, &count);
	}
	if (status == SPOOL_OK && !selection->json && left == selection->limit)
		say_none(out, "there are no receipts of delivered records");
	return status;
}
