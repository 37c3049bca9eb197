/* Pages, cells and columns; see pages.h.
 *
 * Every offset and length here comes from a file that is known to be damaged, and is
 * looked at before it is used.
 */
#include "spool/pages.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_SIZE 100
#define MAGIC "SQLite format 3" /* with its NUL */
#define USUAL_SIZE 4096
#define WAL_HEADER 32
#define FRAME_HEADER 24
#define READ_TRIES 3
#define WAL_MAGIC 0x377f0682u /* one more where its sums are of big-endian words */
/* Pages that a file may have lost from its end and still be read as one with its -wal. */
#define TRUNCATED_MAX (1u << 22)

/* SQLite keeps its locks at this byte and leaves the page alone. */
#define LOCK_BYTE 0x40000000u

uint32_t pages_number(const uint8_t *bytes)
{
	return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
	       bytes[3];
}

static unsigned two_bytes(const uint8_t *bytes)
{
	return (unsigned)bytes[0] << 8 | bytes[1];
}

/* SQLite's number of one to nine bytes; 0: it does not end before `end`. */
static unsigned read_varint(const uint8_t *at, const uint8_t *end, uint64_t *value)
{
	*value = 0;
	for (unsigned i = 0; at + i < end; i++) {
		if (i == 8) {
			*value = *value << 8 | at[i];
			return 9;
		}
		*value = *value << 7 | (at[i] & 0x7f);
		if ((at[i] & 0x80) == 0)
			return i + 1;
	}
	return 0;
}

static bool read_at(int file, uint8_t *into, size_t size, int64_t at)
{
	/* A disk that is going bad may give a sector at the second or third time. */
	for (int tries = 0; tries < READ_TRIES; tries++)
		if (pread(file, into, size, at) == (ssize_t)size)
			return true;
	return false;
}

/* --- The -wal ----------------------------------------------------------- */

struct sum {
	uint32_t first, second;
};

static struct sum add_up(struct sum sum, const uint8_t *bytes, size_t size, bool big)
{
	for (size_t i = 0; i + 8 <= size; i += 8) {
		uint32_t words[2];
		if (big) {
			words[0] = pages_number(bytes + i);
			words[1] = pages_number(bytes + i + 4);
		} else {
			for (int j = 0; j < 2; j++) {
				const uint8_t *at = bytes + i + 4 * j;
				words[j] = (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 |
				           (uint32_t)at[1] << 8 | at[0];
			}
		}
		sum.first += words[0] + sum.second;
		sum.second += words[1] + sum.first;
	}
	return sum;
}

static struct sum stored_sum(const uint8_t *bytes)
{
	return (struct sum){ pages_number(bytes), pages_number(bytes + 4) };
}

static bool is_page_size(uint32_t size)
{
	return size >= 512 && size <= 65536 && (size & (size - 1)) == 0;
}

/* Finds what was committed. SQLite ends its reading at the first frame that does not add
 * up. Each frame's sum goes on from the one before, so those behind it can be judged by
 * what that one says, and are taken too: better twice than never. */
static bool read_wal(struct pages *pages, int64_t size)
{
	uint8_t header[WAL_HEADER];
	size_t frame_size = FRAME_HEADER + pages->size;
	if (pages->wal < 0 || size < WAL_HEADER + (int64_t)frame_size ||
	    !read_at(pages->wal, header, sizeof header, 0))
		return true;
	bool big = pages_number(header) == WAL_MAGIC + 1;
	struct sum sum = add_up((struct sum){ 0, 0 }, header, 24, big);
	bool sound = (big || pages_number(header) == WAL_MAGIC) &&
	             memcmp(&sum, &(struct sum){ pages_number(header + 24),
	                                         pages_number(header + 28) }, sizeof sum) == 0;
	if (sound && pages_number(header + 8) != pages->size)
		return true;
	/* With its header gone, the first frame says which others are of its time. */
	if (!sound && !read_at(pages->wal, header + 16, 8, WAL_HEADER + 8))
		return true;
	int64_t frames = (size - WAL_HEADER) / (int64_t)frame_size;
	uint8_t *frame = malloc(frame_size);
	uint32_t *open = calloc((size_t)frames + 1, sizeof *open);
	int64_t *places = calloc((size_t)pages->count + (size_t)frames + TRUNCATED_MAX + 1,
	                         sizeof *places);
	if (frame == NULL || open == NULL || places == NULL) {
		free(frame);
		free(open);
		free(places);
		return false;
	}
	/* The file may have lost its end, of which the -wal has a part still. What a frame says
	 * that is not proven may be anything. */
	uint32_t near = pages->count + (uint32_t)frames, most = near + TRUNCATED_MAX;
	int64_t committed = 0; /* frames before this one belong to whole transactions */
	for (int64_t i = 0; i < frames; i++) {
		int64_t at = WAL_HEADER + i * (int64_t)frame_size;
		if (!read_at(pages->wal, frame, frame_size, at))
			continue;
		struct sum found = add_up(sum, frame, 8, big);
		found = add_up(found, frame + FRAME_HEADER, pages->size, big);
		sum = stored_sum(frame + 16);
		bool same = memcmp(frame + 8, header + 16, 8) == 0; /* of this -wal, not an older */
		bool proven = found.first == sum.first && found.second == sum.second;
		if (!same || (!proven && (sound || i > 0)))
			continue;
		uint32_t number = pages_number(frame);
		open[i] = number <= (proven ? most : near) ? number : 0;
		if (pages_number(frame + 4) == 0)
			continue;
		for (; committed <= i; committed++) {
			number = open[committed];
			if (number == 0)
				continue;
			pages->frame_count += places[number] == 0;
			places[number] = WAL_HEADER + committed * (int64_t)frame_size + FRAME_HEADER;
			if (number > pages->count)
				pages->count = number;
		}
	}
	free(frame);
	free(open);
	pages->frames = places;
	return true;
}

/* --- Pages -------------------------------------------------------------- */

/* True when pages of this size make sense: the second one remembers the third as a root,
 * as in every spool. */
static bool fits(int file, uint32_t size)
{
	uint8_t entry[5];
	return is_page_size(size) && read_at(file, entry, sizeof entry, size) &&
	       entry[0] == ROLE_ROOT && pages_number(entry + 1) == 0;
}

/* What the header says, unless that is damaged. */
static uint32_t choose_size(int file, int wal)
{
	uint8_t header[HEADER_SIZE];
	uint32_t sizes[3] = { 0, 0, USUAL_SIZE };
	if (read_at(file, header, sizeof header, 0) && memcmp(header, MAGIC, sizeof MAGIC) == 0)
		sizes[0] = two_bytes(header + 16) == 1 ? 65536 : two_bytes(header + 16);
	if (wal >= 0 && read_at(wal, header, WAL_HEADER, 0))
		sizes[1] = pages_number(header + 8);
	for (size_t i = 0; i < 3; i++)
		if (fits(file, sizes[i]))
			return sizes[i];
	for (size_t i = 0; i < 2; i++)
		if (is_page_size(sizes[i]))
			return sizes[i];
	return USUAL_SIZE;
}

bool pages_open(struct pages *pages, int file, int wal)
{
	struct stat about, wal_about = { .st_size = 0 };
	*pages = (struct pages){ .file = file, .wal = wal };
	if (fstat(file, &about) != 0 || (wal >= 0 && fstat(wal, &wal_about) != 0))
		return false;
	pages->size = choose_size(file, wal);
	/* What a damaged header says is kept back at a page's end is not believed. */
	pages->usable = pages->size;
	if ((uint64_t)about.st_size / pages->size > UINT32_MAX / 2 || about.st_size == 0)
		return false;
	pages->count = (uint32_t)(((uint64_t)about.st_size + pages->size - 1) / pages->size);
	pages->map = malloc(pages->size);
	pages->overflow = malloc(pages->size);
	if (pages->map == NULL || pages->overflow == NULL || !read_wal(pages, wal_about.st_size)) {
		pages_close(pages);
		return false;
	}
	/* Each root would be one in a file with that memory, and page 3 is the first. */
	uint32_t parent;
	pages->mapped = true;
	pages->mapped = pages_role(pages, 3, &parent) == ROLE_ROOT;
	uint8_t *page = pages->overflow;
	if (!pages->mapped && pages_read(pages, 1, page))
		pages->mapped = memcmp(page, MAGIC, sizeof MAGIC) == 0 && pages_number(page + 52) != 0;
	/* Behind the last page of the database there may be others that it gave up. */
	pages->last = pages->count;
	if (pages_read(pages, 1, page) && memcmp(page, MAGIC, sizeof MAGIC) == 0 &&
	    memcmp(page + 24, page + 92, 4) == 0 && pages_number(page + 28) > 2 &&
	    pages_number(page + 28) < pages->last)
		pages->last = pages_number(page + 28);
	return true;
}

void pages_close(struct pages *pages)
{
	free(pages->frames);
	free(pages->map);
	free(pages->overflow);
	free(pages->payload);
	*pages = (struct pages){ .file = -1, .wal = -1 };
}

bool pages_read(const struct pages *pages, uint32_t number, uint8_t *into)
{
	if (number == 0 || number > pages->count)
		return false;
	if (pages->frames != NULL && pages->frames[number] != 0)
		return read_at(pages->wal, into, pages->size, pages->frames[number]);
	return read_at(pages->file, into, pages->size, (int64_t)(number - 1) * pages->size);
}

static uint32_t lock_page(const struct pages *pages)
{
	return LOCK_BYTE / pages->size + 1;
}

/* The page of the file's memory that has `number`. */
static uint32_t map_page(const struct pages *pages, uint32_t number)
{
	uint32_t group = pages->usable / 5 + 1;
	uint32_t map = (number - 2) / group * group + 2;
	return map == lock_page(pages) ? map + 1 : map;
}

bool pages_is_reserved(const struct pages *pages, uint32_t number)
{
	return number == lock_page(pages) ||
	       (pages->mapped && number >= 2 && map_page(pages, number) == number);
}

/* A page of the memory is believed whole or not at all. */
static bool read_map(struct pages *pages, uint32_t map)
{
	if (pages->map_number == map)
		return pages->map_sound;
	pages->map_number = map;
	pages->map_sound = pages_read(pages, map, pages->map);
	uint32_t entries = pages->usable / 5;
	for (uint32_t i = 0; pages->map_sound && i < entries && map + 1 + i <= pages->count; i++) {
		const uint8_t *entry = pages->map + (size_t)i * 5;
		/* What was just taken from the file's end has none yet. */
		if (entry[0] > ROLE_TREE || pages_number(entry + 1) > pages->count)
			pages->map_sound = false;
	}
	return pages->map_sound;
}

enum page_role pages_role(struct pages *pages, uint32_t number, uint32_t *parent)
{
	*parent = 0;
	if (!pages->mapped || number < 3 || number > pages->count ||
	    pages_is_reserved(pages, number))
		return ROLE_UNKNOWN;
	uint32_t map = map_page(pages, number);
	if (!read_map(pages, map))
		return ROLE_UNKNOWN;
	const uint8_t *entry = pages->map + (size_t)(number - map - 1) * 5;
	*parent = pages_number(entry + 1);
	return (enum page_role)entry[0];
}

bool page_look(const struct pages *pages, uint32_t number, const uint8_t *bytes,
               struct page *page)
{
	unsigned start = number == 1 ? HEADER_SIZE : 0;
	*page = (struct page){ .kind = PAGE_OTHER, .number = number, .bytes = bytes };
	switch (bytes[start]) {
	case PAGE_INDEX_INNER:
	case PAGE_TABLE_INNER:
		page->first = start + 12;
		break;
	case PAGE_INDEX_LEAF:
	case PAGE_TABLE_LEAF:
		page->first = start + 8;
		break;
	default:
		return false;
	}
	page->cell_count = two_bytes(bytes + start + 3);
	if (page->first + 2 * page->cell_count > pages->usable)
		return false;
	page->kind = (enum page_kind)bytes[start];
	return true;
}

/* Where a cell begins, or NULL. */
static const uint8_t *find_cell(const struct pages *pages, const struct page *page, unsigned at)
{
	unsigned place = two_bytes(page->bytes + page->first + 2 * at);
	if (place < page->first || place + 4 > pages->usable)
		return NULL;
	return page->bytes + place;
}

uint32_t page_child(const struct pages *pages, const struct page *page, unsigned at,
                    int64_t *largest)
{
	uint64_t value;
	*largest = INT64_MAX;
	if (at == page->cell_count)
		return pages_number(page->bytes + page->first - 4);
	const uint8_t *cell = find_cell(pages, page, at);
	if (cell == NULL)
		return 0;
	if (page->kind == PAGE_TABLE_INNER) {
		if (read_varint(cell + 4, page->bytes + pages->usable, &value) == 0)
			return 0;
		*largest = (int64_t)value;
	}
	return pages_number(cell);
}

/* --- Cells -------------------------------------------------------------- */

/* A page of zeros is what a file system leaves of a block that it lost. No text of
 * anybody's is that. */
static bool is_blank(const uint8_t *bytes, size_t size)
{
	return bytes[0] == 0 && memcmp(bytes, bytes + 1, size - 1) == 0;
}

/* Gathers a cell's content, which begins in its page and goes on in others, as far as it
 * can be had: `*size` is what it should be, and then what it is. */
static enum cell_state gather(struct pages *pages, const struct page *page, const uint8_t *at,
                              uint64_t *size)
{
	uint32_t usable = pages->usable;
	uint32_t most = page->kind == PAGE_TABLE_LEAF ? usable - 35
	                                              : (usable - 12) * 64 / 255 - 23;
	uint32_t least = (usable - 12) * 32 / 255 - 23;
	uint64_t whole = *size, here = whole;
	if (whole > most) {
		here = least + (whole - least) % (usable - 4);
		if (here > most)
			here = least;
	}
	uint64_t left = (uint64_t)(page->bytes + usable - at);
	bool goes_on = here + 4 <= left && here < whole && whole <= (uint64_t)pages->count * usable;
	bool doubtful = here < whole && !goes_on;
	if (here > left) {
		doubtful = true;
		here = left;
	}
	size_t room = (size_t)(goes_on ? whole : here);
	if (room > pages->payload_room) {
		uint8_t *grown = realloc(pages->payload, room);
		if (grown == NULL)
			return CELL_NO_MEMORY;
		pages->payload = grown;
		pages->payload_room = room;
	}
	if (here > 0)
		memcpy(pages->payload, at, here);
	*size = here;
	uint32_t next = goes_on ? pages_number(at + here) : 0, before = page->number;
	enum page_role expected = ROLE_OVERFLOW;
	while (*size < room) {
		uint32_t parent;
		enum page_role role = pages_role(pages, next, &parent);
		if (role != ROLE_UNKNOWN && (role != expected || parent != before))
			doubtful = true;
		size_t part = room - *size < usable - 4 ? room - (size_t)*size : usable - 4;
		if (!pages_read(pages, next, pages->overflow) || is_blank(pages->overflow + 4, part))
			return CELL_DOUBTFUL;
		memcpy(pages->payload + *size, pages->overflow + 4, part);
		*size += part;
		before = next;
		next = pages_number(pages->overflow);
		expected = ROLE_OVERFLOW_NEXT;
		/* Another's page, unless one flipped bit made this number, which is of no use. */
		bool flipped = role != ROLE_UNKNOWN && next > pages->count && (next & (next - 1)) == 0;
		if (*size == room && next != 0 && !flipped)
			doubtful = true;
	}
	return doubtful ? CELL_DOUBTFUL : CELL_READ;
}

static int64_t signed_number(const uint8_t *bytes, size_t size)
{
	uint64_t value = (bytes[0] & 0x80) != 0 ? UINT64_MAX : 0;
	for (size_t i = 0; i < size; i++)
		value = value << 8 | bytes[i];
	return (int64_t)value;
}

/* The size of a value of this type, and the value at `at`. False: no such type, or not all of
 * it is there; then it is NULL. */
static bool read_value(uint64_t type, const uint8_t *at, uint64_t left, uint64_t *size,
                       struct spool_value *value)
{
	static const uint8_t sizes[] = { 0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0 };
	*value = (struct spool_value){ .kind = VALUE_NULL };
	*size = type < 12 ? sizes[type] : (type - 12) / 2;
	if (type == 10 || type == 11)
		return false;
	if (*size > left) {
		*size = left;
		return false;
	}
	if (type >= 12) {
		value->kind = (type & 1) != 0 ? VALUE_TEXT : VALUE_BLOB;
		value->text = (struct text){ (const char *)at, (size_t)*size };
	} else if (type == 7) {
		uint64_t bits = (uint64_t)signed_number(at, 8);
		value->kind = VALUE_REAL;
		memcpy(&value->real, &bits, sizeof value->real);
	} else if (type != 0) {
		value->kind = VALUE_INTEGER;
		value->integer = type >= 8 ? (int64_t)type - 8 : signed_number(at, (size_t)*size);
	}
	return true;
}

/* The columns of what was gathered. Beyond doubt they fill it exactly; those that it has not
 * are NULL. */
static enum cell_state read_columns(const struct pages *pages, uint64_t size, struct cell *cell)
{
	uint64_t header, type, length;
	if (size == 0)
		return CELL_DAMAGED;
	const uint8_t *at = pages->payload, *end = at + size, *content;
	enum cell_state state = CELL_READ;
	unsigned used = read_varint(at, end, &header);
	if (used == 0 || header < used || header > size)
		return CELL_DAMAGED;
	content = pages->payload + header;
	const uint8_t *types_end = content;
	for (at += used; at < types_end; at += used) {
		used = read_varint(at, types_end, &type);
		if (cell->column_count == CELL_COLUMNS_MAX)
			return CELL_DAMAGED;
		if (used == 0) { /* the last one, whose type does not end */
			used = (unsigned)(types_end - at);
			type = 0;
			state = CELL_DOUBTFUL;
		}
		if (!read_value(type, content, (uint64_t)(end - content), &length,
		                &cell->columns[cell->column_count]))
			state = CELL_DOUBTFUL;
		cell->column_count++;
		content += length;
	}
	return content == end ? state : CELL_DOUBTFUL;
}

/* What a cell says before its content, which begins at what is returned. NULL: damaged. */
static const uint8_t *begin_cell(const struct pages *pages, const struct page *page,
                                 unsigned at, uint64_t *size, uint64_t *id)
{
	const uint8_t *end = page->bytes + pages->usable, *place = find_cell(pages, page, at);
	if (place == NULL)
		return NULL;
	if (page->kind == PAGE_INDEX_INNER)
		place += 4;
	unsigned used = read_varint(place, end, size);
	place += used;
	if (used > 0 && page->kind == PAGE_TABLE_LEAF) {
		used = read_varint(place, end, id);
		place += used;
	}
	return used > 0 ? place : NULL;
}

bool page_id(const struct pages *pages, const struct page *page, unsigned at, int64_t *id)
{
	uint64_t size, value = 0;
	bool read = begin_cell(pages, page, at, &size, &value) != NULL;
	*id = (int64_t)value;
	return read;
}

enum cell_state page_cell(struct pages *pages, const struct page *page, unsigned at,
                          struct cell *cell)
{
	uint64_t size, id = 0;
	const uint8_t *place = begin_cell(pages, page, at, &size, &id);
	cell->column_count = 0;
	cell->id_known = place != NULL && page->kind == PAGE_TABLE_LEAF;
	cell->id = (int64_t)id;
	if (place == NULL)
		return CELL_DAMAGED;
	enum cell_state state = gather(pages, page, place, &size);
	if (state == CELL_NO_MEMORY)
		return state;
	enum cell_state columns = read_columns(pages, size, cell);
	return columns == CELL_READ ? state : columns;
}
