/* The report as JSON and back; see report.h. */
#include "agent/report.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

static const char *const state_names[] = {
	[DESTINATION_UP] = "up",
	[DESTINATION_DOWN] = "down",
	[DESTINATION_HELD] = "held",
	[DESTINATION_PAUSED] = "paused",
	[DESTINATION_UNCONFIGURED] = "unconfigured",
};

const char report_paused[] = "a person paused it; 'reconify-agent resume' lets it go on";

const char *report_state_name(enum destination_state state)
{
	return state_names[state];
}

bool report_is_closed(const struct report *report)
{
	return strcmp(report->limit, "hours") == 0 || strcmp(report->limit, "daily") == 0;
}

void report_sentence(const struct report *report, char *into, size_t size)
{
	const struct report_app *held = NULL;
	for (size_t i = 0; i < report->app_count && held == NULL; i++)
		if (report->apps[i].held)
			held = &report->apps[i];
	if (report->storage[0] != '\0')
		(void)snprintf(into, size, "the spool cannot be used: %s", report->storage);
	else if (report->state == DESTINATION_DOWN)
		(void)snprintf(into, size, "the endpoint is unavailable, records wait and are retried: %s",
		               report->reason);
	else if (report->state == DESTINATION_HELD)
		(void)snprintf(into, size, "the endpoint is held, records wait until this is put right: %s",
		               report->reason);
	else if (report->state == DESTINATION_PAUSED)
		(void)snprintf(into, size, "paused, nothing is sent: %s", report_paused);
	else if (report->state != DESTINATION_UP)
		(void)snprintf(into, size, "%s", state_names[report->state]);
	else if (report_is_closed(report))
		(void)snprintf(into, size, "records wait for [limits] %s", report->limit);
	else if (held != NULL)
		(void)snprintf(into, size, "app %s is held, others are shipped as they come: %s",
		               held->name, held->reason);
	else
		(void)snprintf(into, size, "records are shipped as they come");
}

/* One table for both directions, so that they cannot drift apart. */
#define NUMBERS(each)                                                                  \
	each(as_of) each(since) each(next_try_at) each(last_delivered_at) each(failures)   \
	each(started_at) each(delivered_10s) each(delivered_60s) each(accepted_10s) each(accepted_60s) each(accepted_in) \
	each(in_flight) each(retrying) each(retrying_id) each(retrying_attempts)                                                \
	each(damaged_from) each(damaged_to) each(limit_rate) each(limit_rate_span)         \
	each(limit_bandwidth) each(limit_daily) each(limit_spent) each(limit_hours_end)    \
	each(limit_until)
#define TEXTS(each) each(reason) each(retrying_reason) each(storage) each(limit)         \
	each(limit_hours)

char *report_to_json(const struct report *report)
{
	bool ok = true;
	char *text = NULL;
	cJSON *json = cJSON_CreateObject();
	if (json == NULL)
		return NULL;
	ok = cJSON_AddStringToObject(json, "state", state_names[report->state]) != NULL;
#define ADD_NUMBER(name) \
	ok = cJSON_AddNumberToObject(json, #name, (double)report->name) != NULL && ok;
	NUMBERS(ADD_NUMBER)
#undef ADD_NUMBER
#define ADD_TEXT(name) ok = cJSON_AddStringToObject(json, #name, report->name) != NULL && ok;
	TEXTS(ADD_TEXT)
#undef ADD_TEXT
	ok = cJSON_AddBoolToObject(json, "quiet", report->quiet) != NULL && ok;
	cJSON *apps = cJSON_AddArrayToObject(json, "apps");
	for (size_t i = 0; apps != NULL && i < report->app_count; i++) {
		cJSON *app = cJSON_CreateObject();
		ok = app != NULL &&
		     cJSON_AddStringToObject(app, "name", report->apps[i].name) != NULL &&
		     cJSON_AddBoolToObject(app, "held", report->apps[i].held) != NULL &&
		     cJSON_AddStringToObject(app, "reason", report->apps[i].reason) != NULL && ok;
		if (app != NULL && !cJSON_AddItemToArray(apps, app))
			ok = false;
	}
	if (ok && apps != NULL)
		text = cJSON_PrintUnformatted(json);
	cJSON_Delete(json);
	return text;
}

static int64_t number_of(const cJSON *json, const char *name)
{
	const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
	if (!cJSON_IsNumber(item) || !(item->valuedouble > -9e15 && item->valuedouble < 9e15))
		return 0;
	return (int64_t)item->valuedouble;
}

static void copy_text(const cJSON *json, const char *name, char *into, size_t size)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));
	size_t length = text != NULL ? strlen(text) : 0;
	if (length >= size)
		length = size - 1;
	if (length > 0)
		memcpy(into, text, length);
	into[length] = '\0';
}

bool report_from_json(const char *text, struct report *report)
{
	*report = (struct report){ .state = DESTINATION_UP };
	cJSON *json = cJSON_Parse(text);
	if (!cJSON_IsObject(json)) {
		cJSON_Delete(json);
		return false;
	}
	char state[16];
	copy_text(json, "state", state, sizeof state);
	for (size_t i = 0; i < sizeof state_names / sizeof state_names[0]; i++)
		if (strcmp(state, state_names[i]) == 0)
			report->state = (enum destination_state)i;
#define GET_NUMBER(name) report->name = (__typeof__(report->name))number_of(json, #name);
	NUMBERS(GET_NUMBER)
#undef GET_NUMBER
#define GET_TEXT(name) copy_text(json, #name, report->name, sizeof report->name);
	TEXTS(GET_TEXT)
#undef GET_TEXT
	report->quiet = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "quiet"));
	const cJSON *app = NULL;
	cJSON_ArrayForEach(app, cJSON_GetObjectItemCaseSensitive(json, "apps"))
	{
		if (report->app_count == REPORT_APPS_MAX)
			break;
		struct report_app *into = &report->apps[report->app_count++];
		copy_text(app, "name", into->name, sizeof into->name);
		copy_text(app, "reason", into->reason, sizeof into->reason);
		into->held = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(app, "held"));
	}
	cJSON_Delete(json);
	return true;
}
