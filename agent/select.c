/* The options that say which records are meant; see select.h. */
#include "agent/select.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "agent/config.h"

struct selection selection_of_all(void)
{
	return (struct selection){ .filter = { .before = INT64_MAX }, .limit = INT64_MAX };
}

bool selection_parse_id(const char *text, int64_t *id)
{
	char *end = NULL;
	errno = 0;
	*id = strtoll(text, &end, 10);
	/* strtoll passes over white space, which no ID has. */
	return end != text && *end == '\0' && errno == 0 && strspn(text, "-0123456789") == strlen(text);
}

bool selection_parse_uuid(const char *text, char uuid[RECORD_UUID_SIZE + 1])
{
	if (strlen(text) != RECORD_UUID_SIZE ||
	    strspn(text, "0123456789abcdefABCDEF") != RECORD_UUID_SIZE)
		return false;
	for (size_t i = 0; i <= RECORD_UUID_SIZE; i++)
		uuid[i] = text[i] >= 'A' && text[i] <= 'F' ? (char)(text[i] - 'A' + 'a') : text[i];
	return true;
}

bool selection_parse_time(const char *text, int64_t *time)
{
	static const char *const forms[] = { "%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M",
		                             "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S" };
	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		struct tm parts = { .tm_isdst = -1 };
		const char *end = strptime(text, forms[i], &parts);
		bool utc = end != NULL && strcmp(end, "Z") == 0;
		if (end == NULL || (*end != '\0' && !utc))
			continue;
		/* strptime takes 30 February, mktime makes March of it. */
		struct tm given = parts;
		time_t seconds = utc ? timegm(&parts) : mktime(&parts);
		if (parts.tm_mday != given.tm_mday || parts.tm_mon != given.tm_mon || seconds < 0)
			return false;
		*time = (int64_t)seconds * 1000;
		return true;
	}
	return false;
}

static void narrow(int64_t *before, int64_t time)
{
	*before = time < *before ? time : *before;
}

const char *selection_take(struct selection *selection, int letter, const char *value,
                           int64_t now)
{
	struct spool_filter *filter = &selection->filter;
	int64_t number;
	bool narrows = true;
	switch (letter) {
	case SELECT_APP:
		filter->app = value;
		break;
	case SELECT_SESSION:
		filter->session = value;
		break;
	case SELECT_USER:
		if (value[0] == '\0')
			return "--user: ID is a user_id or an e-mail address, and not empty";
		filter->user = value;
		break;
	case SELECT_REASON:
		if (value[0] == '\0')
			return "--reason: CODE is a word such as unprocessable; 'list --dead' shows them";
		filter->reason = value;
		break;
	case SELECT_BEFORE:
		if (!selection_parse_time(value, &number))
			return "--before: TIME is a date, such as 2026-11-23, or a date and a time, such as "
			       "2026-11-23T12:30, with a Z for UTC";
		narrow(&filter->before, number);
		break;
	case SELECT_OLDER:
		if (!config_parse_duration(value, &number))
			return "--older: AGE is a whole number with s, m, h or d, such as 30d";
		narrow(&filter->before, number < now ? now - number : 0);
		break;
	case SELECT_LIMIT:
		if (!selection_parse_id(value, &number) || number < 1)
			return "--limit: N is a whole number, 1 or more";
		selection->limit = number;
		narrows = false;
		break;
	case SELECT_DEAD:
		selection->dead = true;
		narrows = false;
		break;
	case SELECT_DELIVERED:
		selection->delivered = true;
		narrows = false;
		break;
	case SELECT_ALL:
		selection->all = true;
		narrows = false;
		break;
	default:
		selection->yes = true;
		narrows = false;
	}
	selection->filtered = selection->filtered || narrows;
	return NULL;
}
