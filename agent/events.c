/* What is to be told; see events.h. */
#include "agent/events.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {
	[EVENT_APP_HELD] = "app-held",
	[EVENT_APP_WELL] = "app-well",
	[EVENT_ENDPOINT_HELD] = "endpoint-held",
	[EVENT_ENDPOINT_WELL] = "endpoint-well",
	[EVENT_DEAD_LETTERS] = "dead-letters",
	[EVENT_NO_DEAD_LETTERS] = "dead-letters-gone",
	[EVENT_SPOOL_FULL] = "spool-filling",
	[EVENT_SPOOL_WELL] = "spool-well",
};

const char *events_name(enum event_kind kind)
{
	return names[kind];
}

struct decision {
	const struct figures *figures;
	void (*tell)(void *context, const struct event *event);
	void *context;
	bool any;
};

static void tell(struct decision *decision, enum event_kind kind, const struct report_app *app,
                 const char *reason)
{
	struct event event = { kind, app != NULL && !app->unknown ? app->name : "", reason,
		               *decision->figures };
	decision->any = true;
	if (decision->tell != NULL)
		decision->tell(decision->context, &event);
}

static size_t place_of(const struct events_told *told, const char *name)
{
	size_t i = 0;
	while (i < told->app_count && strcmp(told->apps[i], name) != 0)
		i++;
	return i;
}

static void decide_held(struct decision *decision, struct events_told *told,
                        const struct report *report)
{
	for (size_t i = 0; i < report->app_count; i++) {
		const struct report_app *app = &report->apps[i];
		if (!app->held || place_of(told, app->name) < told->app_count ||
		    told->app_count == REPORT_APPS_MAX)
			continue;
		memcpy(told->apps[told->app_count++], app->name, sizeof app->name);
		tell(decision, EVENT_APP_HELD, app, app->reason);
	}
}

static void decide_well(struct decision *decision, struct events_told *told,
                        const struct report *report)
{
	for (size_t i = told->app_count; i-- > 0;) {
		const struct report_app *app = NULL;
		for (size_t k = 0; k < report->app_count && app == NULL; k++)
			if (strcmp(report->apps[k].name, told->apps[i]) == 0)
				app = &report->apps[k];
		/* An app that is no longer there is not held either. */
		bool well = app != NULL ? !app->held && app->proven : report->scanned;
		if (!well)
			continue;
		told->app_count--;
		if (i < told->app_count)
			memmove(told->apps[i], told->apps[i + 1],
			        (told->app_count - i) * sizeof told->apps[0]);
		tell(decision, EVENT_APP_WELL, app, "");
	}
}

/* One that is either so or not. */
static void decide_one(struct decision *decision, bool *told, bool wrong, bool well,
                       enum event_kind kind, const char *reason)
{
	if (!*told && wrong) {
		*told = true;
		tell(decision, kind, NULL, reason);
	} else if (*told && well) {
		*told = false;
		tell(decision, (enum event_kind)(kind + 1), NULL, "");
	}
}

static bool reaches(const struct figures *figures, int percent)
{
	return figures->known && figures->bytes / percent >= figures->max_spool / 100;
}

bool events_decide(struct events_told *told, const struct report *report,
                   const struct figures *figures,
                   void (*function)(void *context, const struct event *event), void *context)
{
	struct decision decision = { figures, function, context, false };
	decide_one(&decision, &told->endpoint, report->state == DESTINATION_HELD,
	           report->state == DESTINATION_UP && report->proven, EVENT_ENDPOINT_HELD,
	           report->reason);
	decide_well(&decision, told, report);
	decide_held(&decision, told, report);
	decide_one(&decision, &told->dead, figures->known && figures->dead > 0,
	           figures->known && figures->dead <= 0, EVENT_DEAD_LETTERS,
	           "'reconify-agent list --dead' says why");
	decide_one(&decision, &told->spool, reaches(figures, EVENTS_FULL_PERCENT),
	           figures->known && !reaches(figures, EVENTS_ROOM_PERCENT), EVENT_SPOOL_FULL,
	           "the spool has reached 80 % of max_spool");
	return decision.any;
}

/* --- The note ------------------------------------------------------------ */

char *events_told_to_json(const struct events_told *told)
{
	cJSON *json = cJSON_CreateObject();
	bool ok = json != NULL && cJSON_AddBoolToObject(json, "endpoint", told->endpoint) != NULL &&
	          cJSON_AddBoolToObject(json, "dead", told->dead) != NULL &&
	          cJSON_AddBoolToObject(json, "spool", told->spool) != NULL;
	cJSON *apps = ok ? cJSON_AddArrayToObject(json, "apps") : NULL;
	ok = apps != NULL;
	for (size_t i = 0; ok && i < told->app_count; i++) {
		cJSON *name = cJSON_CreateString(told->apps[i]);
		ok = name != NULL && cJSON_AddItemToArray(apps, name);
	}
	char *text = ok ? cJSON_PrintUnformatted(json) : NULL;
	cJSON_Delete(json);
	return text;
}

void events_told_from_json(const char *text, struct events_told *told)
{
	cJSON *json = cJSON_Parse(text);
	const cJSON *name = NULL;
	*told = (struct events_told){
		.endpoint = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "endpoint")),
		.dead = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "dead")),
		.spool = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "spool"))
	};
	cJSON_ArrayForEach(name, cJSON_GetObjectItemCaseSensitive(json, "apps"))
		if (cJSON_IsString(name) && told->app_count < REPORT_APPS_MAX)
			(void)snprintf(told->apps[told->app_count++], REPORT_NAME_SIZE, "%s",
			               name->valuestring);
	cJSON_Delete(json);
}

/* --- The summary --------------------------------------------------------- */

__attribute__((format(printf, 4, 5)))
static void add(char *into, size_t size, size_t *used, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	int more = *used < size ? vsnprintf(into + *used, size - *used, format, arguments) : 0;
	va_end(arguments);
	*used += more > 0 ? (size_t)more : 0;
}

bool events_sum_up(const struct report *report, const struct figures *figures, char *into,
                   size_t size)
{
	size_t used = 0, held = 0, unknown = 0;
	add(into, size, &used, "still wrong: ");
	size_t nothing = used;
	if (report->storage[0] != '\0')
		add(into, size, &used, "the spool cannot be used: %s; ", report->storage);
	if (report->state == DESTINATION_DOWN)
		add(into, size, &used, "the endpoint is unavailable, %u tries failed: %s; ",
		    report->failures, report->reason);
	else if (report->state == DESTINATION_HELD)
		add(into, size, &used, "the endpoint is held: %s; ", report->reason);
	for (size_t i = 0; i < report->app_count; i++) {
		const struct report_app *app = &report->apps[i];
		held += app->held && !app->unknown;
		unknown += app->held && app->unknown;
		if (app->held && !app->unknown && held <= 2)
			add(into, size, &used, "app %s is held: %.160s; ", app->name, app->reason);
	}
	if (held > 2)
		add(into, size, &used, "%zu further apps are held; ", held - 2);
	if (unknown > 0)
		add(into, size, &used, "records wait of %zu app%s that the configuration does not know; ",
		    unknown, unknown > 1 ? "s" : "");
	if (report->retrying > 0)
		add(into, size, &used, "records that fail while others are taken: %" PRId64 "; ",
		    report->retrying);
	if (reaches(figures, EVENTS_FULL_PERCENT))
		add(into, size, &used, "the spool is filling up; ");
	if (used == nothing)
		return false;
	if (figures->known)
		add(into, size, &used, "waiting: %" PRId64 ", dead: %" PRId64 ", %" PRId64
		    " %% of the spool used; ", figures->waiting, figures->dead,
		    figures->max_spool > 0 ? figures->bytes / (figures->max_spool / 100 + 1) : 0);
	add(into, size, &used, "see 'reconify-agent status'");
	return true;
}
