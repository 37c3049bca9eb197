/* Lines to import. What was accepted is exported, and imported into a second spool:
 * the two exports are the same, byte for byte, but for the ids. */
#include <fcntl.h>
#include <string.h>

#include "agent/select.h"
#include "agent/transfer.h"
#include "tests/fuzz/fuzz.h"

#define LIMIT (1 << 20)

/* Imports into a new spool in `folder`, and gives its waiting and dead rows back;
 * malloc'd. */
static char *import(const char *folder, const char *name, const char *lines, size_t size,
                    size_t *out_size)
{
	struct config config = { .max_record = LIMIT };
	struct spool_error error;
	char path[128], *out = NULL;
	(void)snprintf(path, sizeof path, "%s/%s.db", folder, name);
	config.spool_path = path;
	struct spool *spool = spool_open(path, SPOOL_CREATE, LIMIT, &error);
	FILE *in = fmemopen((void *)(uintptr_t)lines, size, "r"), *to = open_memstream(&out, out_size);
	HOLDS(spool != NULL && in != NULL && to != NULL);
	(void)transfer_import(&config, spool, in, name);
	struct selection selection = selection_of_all();
	HOLDS(transfer_export(spool, &selection, to) == 0);
	selection.dead = true;
	HOLDS(transfer_export(spool, &selection, to) == 0);
	struct spool_ledger ledger;
	HOLDS(spool_read_ledger(spool, 1000, &ledger) == SPOOL_OK && ledger.balanced);
	(void)fclose(in);
	HOLDS(fclose(to) == 0);
	spool_close(spool);
	return out;
}

/* Ids are given anew, so they are made the same: the digits behind the last "id": of a
 * waiting row, and wherever else export writes it. */
static void mask_ids(char *lines)
{
	for (char *at = lines; (at = strstr(at, "\"id\":")) != NULL;)
		for (at += 5; *at >= '0' && *at <= '9'; at++)
			*at = '0';
}

int fuzz_transfer(const uint8_t *data, size_t size)
{
	char folder[64];
	size_t once_size = 0, twice_size = 0;
	if (size == 0 || size > 65536)
		return 0;
	fuzz_make_folder(folder);
	char *lines = fuzz_text(data, size);
	char *once = import(folder, "one", lines, size, &once_size);
	if (once_size > 0) {
		char *twice = import(folder, "two", once, once_size, &twice_size);
		mask_ids(once);
		mask_ids(twice);
		HOLDS(once_size == twice_size && strcmp(once, twice) == 0);
		free(twice);
	}
	free(once);
	free(lines);
	fuzz_remove_folder(folder);
	return 0;
}
