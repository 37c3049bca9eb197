/* Lines that are alike; see flood.h. */
#include "agent/flood.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* FNV-1a, with each number as one letter. */
static uint64_t hash_of(int level, const char *line)
{
	uint64_t hash = 14695981039346656037U ^ (uint64_t)level;
	for (const char *at = line; *at != '\0'; at++) {
		bool digit = *at >= '0' && *at <= '9';
		if (digit && at > line && at[-1] >= '0' && at[-1] <= '9')
			continue;
		hash = (hash ^ (uint64_t)(digit ? '0' : (unsigned char)*at)) * 1099511628211U;
	}
	return hash != 0 ? hash : 1;
}

static bool is_over(const struct flood_kind *kind, int64_t now)
{
	return now - kind->since >= kind->span;
}

static struct flood_kind *kind_of(struct flood *flood, uint64_t hash, int64_t now)
{
	struct flood_kind *free_one = NULL;
	for (size_t i = 0; i < FLOOD_KINDS; i++) {
		struct flood_kind *kind = &flood->kinds[i];
		if (kind->hash == hash)
			return kind;
		if (free_one == NULL && (kind->hash == 0 || (kind->held == 0 && is_over(kind, now))))
			free_one = kind;
	}
	if (free_one == NULL)
		return &flood->kinds[FLOOD_KINDS];
	*free_one = (struct flood_kind){ .hash = 0 };
	return free_one;
}

bool flood_passes(struct flood *flood, int level, const char *line, int64_t now)
{
	uint64_t hash = hash_of(level, line);
	struct flood_kind *kind = kind_of(flood, hash, now);
	if (kind->hash == 0 || (kind->held == 0 && is_over(kind, now)))
		*kind = (struct flood_kind){ .hash = hash, .level = level, .since = now,
			                     .span = FLOOD_SPAN };
	if (kind->passed < FLOOD_BURST) {
		kind->passed++;
		return true;
	}
	kind->held++;
	kind->level = level < kind->level ? level : kind->level;
	(void)snprintf(kind->sample, sizeof kind->sample, "%s", line);
	return false;
}

bool flood_next(struct flood *flood, int64_t now, bool all, int *level, char *line, size_t size)
{
	for (size_t i = 0; i <= FLOOD_KINDS; i++) {
		struct flood_kind *kind = &flood->kinds[i];
		if (kind->held == 0 || (!all && !is_over(kind, now)))
			continue;
		int64_t seconds = (now - kind->since + 500) / 1000;
		(void)snprintf(line, size, "%" PRIu64 " more like this in %" PRId64 " s: %s", kind->held,
		               seconds, kind->sample);
		*level = kind->level;
		/* It goes on, most likely: from here on it is only counted. */
		kind->held = 0;
		kind->since = now;
		kind->span = kind->span < FLOOD_SPAN_MAX / 2 ? kind->span * 2 : FLOOD_SPAN_MAX;
		return true;
	}
	return false;
}
