/* A file's pages, its -wal, cells and columns, made byte by byte: what is as SQLite's file
 * format has it is read, and anything else is told to be damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants these first */
#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "spool/pages.h"
#include "tests/unit/faults.h"

#define SIZE 4096
#define COUNT 12
#define WAL_FRAME (24 + SIZE)
#define WAL_FRAMES 3
/* No limit of speed or room is met by a file that is mostly holes. */
#define LARGE_SIZE 1024
#define LARGE_COUNT (1048576u + 10)

struct place {
	uint8_t file[COUNT][SIZE];
	uint8_t wal[32 + WAL_FRAMES * WAL_FRAME];
	int descriptor, wal_descriptor;
	size_t file_size, wal_size;
	struct pages pages;
	bool open;
};

static const struct fault no_memory = { .name = "no memory", .memory = true };
static const struct fault io = { .name = "an I/O error", .system = EIO };

static void put(uint8_t *at, uint32_t number)
{
	for (int i = 0; i < 4; i++)
		at[i] = (uint8_t)(number >> (24 - 8 * i));
}

static void remember(struct place *place, unsigned number, enum page_role role, uint32_t parent)
{
	uint8_t *entry = &place->file[1][(number - 3) * 5];
	entry[0] = (uint8_t)role;
	put(entry + 1, parent);
}

static int set_up(void **state)
{
	struct place *place = calloc(1, sizeof *place);
	assert_non_null(place);
	*state = place;
	uint8_t *header = place->file[0];
	memcpy(header, "SQLite format 3", 16);
	header[16] = SIZE >> 8;
	put(header + 28, COUNT);
	put(header + 52, 3);
	remember(place, 3, ROLE_ROOT, 0);
	place->file_size = sizeof place->file;
	place->descriptor = memfd_create("pages", MFD_CLOEXEC);
	place->wal_descriptor = -1;
	assert_true(place->descriptor >= 0);
	return 0;
}

static int tear_down(void **state)
{
	struct place *place = *state;
	(void)stop_failing();
	pages_close(&place->pages);
	assert_int_equal(close(place->descriptor), 0);
	if (place->wal_descriptor >= 0)
		assert_int_equal(close(place->wal_descriptor), 0);
	free(place);
	return 0;
}

static void write_all(int file, const void *bytes, size_t size)
{
	assert_int_equal(ftruncate(file, 0), 0);
	assert_int_equal(pwrite(file, bytes, size, 0), (ssize_t)size);
}

static bool opens(struct place *place)
{
	if (place->open)
		pages_close(&place->pages);
	place->open = true;
	write_all(place->descriptor, place->file, place->file_size);
	if (place->wal_size > 0 && place->wal_descriptor < 0)
		place->wal_descriptor = memfd_create("wal", MFD_CLOEXEC);
	if (place->wal_size > 0)
		write_all(place->wal_descriptor, place->wal, place->wal_size);
	return pages_open(&place->pages, place->descriptor, place->wal_descriptor);
}

/* --- Opening --------------------------------------------------------------- */

static void the_size_of_a_page_is_the_one_that_makes_sense(void **state)
{
	struct place *place = *state;
	assert_true(opens(place));
	assert_int_equal(place->pages.size, SIZE);
	assert_int_equal(place->pages.count, COUNT);
	/* Nothing sensible, too small, or no power of two: the usual one fits. */
	static const uint8_t wrong[][2] = { { 0, 0 }, { 0, 1 }, { 0x01, 0 }, { 0x30, 0 }, { 0x02, 0 } };
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		memcpy(&place->file[0][16], wrong[i], 2);
		assert_true(opens(place));
		assert_int_equal(place->pages.size, SIZE);
	}
	/* Where the second page fits none, what the header says, */
	put(&place->file[1][1], 7);
	assert_true(opens(place));
	assert_int_equal(place->pages.size, 512);
	memcpy(&place->file[0][16], wrong[1], 2);
	assert_true(opens(place));
	assert_int_equal(place->pages.size, 65536);
	assert_int_equal(place->pages.count, 1); /* a part of one */
	/* or the -wal, or neither. */
	place->file[0][0] = 'X';
	place->wal_size = 32;
	put(place->wal + 8, 2048);
	assert_true(opens(place));
	assert_int_equal(place->pages.size, 2048);
	put(place->wal + 8, 131072);
	assert_true(opens(place));
	assert_int_equal(place->pages.size, SIZE);
}

static void an_empty_file_is_none(void **state)
{
	struct place *place = *state;
	place->file_size = 0;
	assert_false(opens(place));
}

static void without_memory_or_an_answer_of_the_system_it_is_not_opened(void **state)
{
	struct place *place = *state;
	place->wal_size = 32 + WAL_FRAME;
	bool struck = true;
	for (int calls = 0; struck; calls++) {
		fail_after(&no_memory, calls, false);
		bool opened = opens(place);
		struck = stop_failing();
		assert_int_equal(opened, !struck);
	}
}

static void what_a_file_remembers_is_asked_where_it_was_made_so(void **state)
{
	struct place *place = *state;
	uint32_t parent;
	assert_true(opens(place));
	assert_true(place->pages.mapped);
	/* That page 3 is a root may be damaged, but then the header says so, */
	remember(place, 3, ROLE_TREE, 9);
	assert_true(opens(place));
	assert_true(place->pages.mapped);
	/* unless it is, too. */
	put(&place->file[0][52], 0);
	assert_true(opens(place));
	assert_false(place->pages.mapped);
	assert_int_equal(pages_role(&place->pages, 5, &parent), ROLE_UNKNOWN);
	assert_false(pages_is_reserved(&place->pages, 2));
	place->file[0][0] = 'X';
	assert_true(opens(place));
	assert_false(place->pages.mapped);
}

static void the_last_page_is_believed_where_the_header_is_right(void **state)
{
	struct place *place = *state;
	uint8_t *header = place->file[0];
	put(header + 28, 9);
	assert_true(opens(place));
	assert_int_equal(place->pages.last, 9);
	put(header + 28, COUNT + 1);
	assert_true(opens(place));
	assert_int_equal(place->pages.last, COUNT);
	put(header + 28, 2);
	assert_true(opens(place));
	assert_int_equal(place->pages.last, COUNT);
	put(header + 28, 9);
	header[27] = 1; /* written by somebody who does not keep it */
	assert_true(opens(place));
	assert_int_equal(place->pages.last, COUNT);
	header[27] = 0;
	header[0] = 'X';
	assert_true(opens(place));
	assert_int_equal(place->pages.last, COUNT);
}

/* --- Which pages are whose --------------------------------------------------- */

static void pages_that_no_tree_has_are_reserved(void **state)
{
	struct place *place = *state;
	assert_true(opens(place));
	assert_false(pages_is_reserved(&place->pages, 1));
	assert_true(pages_is_reserved(&place->pages, 2));
	assert_false(pages_is_reserved(&place->pages, 3));
	assert_true(pages_is_reserved(&place->pages, 2 + SIZE / 5 + 1));
	assert_true(pages_is_reserved(&place->pages, 0x40000000 / SIZE + 1));
}

/* With pages of 1 KiB the page that SQLite never uses would be one of the file's memory. */
static void the_memory_steps_aside_for_the_page_of_the_locks(void **state)
{
	struct place *place = *state;
	uint32_t parent, lock = 0x40000000 / LARGE_SIZE + 1;
	uint8_t entry[10] = { 0 };
	place->file[0][16] = LARGE_SIZE >> 8;
	memset(&place->file[1], 0, SIZE);
	place->file[0][LARGE_SIZE] = ROLE_ROOT;
	assert_true(opens(place));
	pages_close(&place->pages);
	assert_int_equal(ftruncate(place->descriptor, (off_t)LARGE_COUNT * LARGE_SIZE), 0);
	entry[0] = ROLE_TREE;
	put(entry + 1, 7);
	assert_int_equal(pwrite(place->descriptor, entry, sizeof entry, (off_t)lock * LARGE_SIZE), 10);
	assert_true(pages_open(&place->pages, place->descriptor, -1));
	assert_int_equal(place->pages.size, LARGE_SIZE);
	assert_true(pages_is_reserved(&place->pages, lock));
	assert_true(pages_is_reserved(&place->pages, lock + 1));
	assert_false(pages_is_reserved(&place->pages, lock + 2));
	assert_int_equal(pages_role(&place->pages, lock + 2, &parent), ROLE_TREE);
	assert_int_equal(parent, 7);
	assert_int_equal(pages_role(&place->pages, lock, &parent), ROLE_UNKNOWN);
	/* More pages than a number of them can say. */
	pages_close(&place->pages);
	assert_int_equal(ftruncate(place->descriptor, (off_t)LARGE_SIZE << 31), 0);
	assert_false(pages_open(&place->pages, place->descriptor, -1));
}

static void the_memory_is_believed_as_a_whole(void **state)
{
	struct place *place = *state;
	uint32_t parent;
	remember(place, 5, ROLE_OVERFLOW, 4);
	assert_true(opens(place));
	assert_int_equal(pages_role(&place->pages, 5, &parent), ROLE_OVERFLOW);
	assert_int_equal(parent, 4);
	assert_int_equal(pages_role(&place->pages, 2, &parent), ROLE_UNKNOWN);
	assert_int_equal(pages_role(&place->pages, COUNT + 1, &parent), ROLE_UNKNOWN);
	remember(place, 9, (enum page_role)6, 4);
	assert_true(opens(place));
	assert_int_equal(pages_role(&place->pages, 5, &parent), ROLE_UNKNOWN);
	remember(place, 9, ROLE_TREE, COUNT + 1);
	assert_true(opens(place));
	assert_int_equal(pages_role(&place->pages, 5, &parent), ROLE_UNKNOWN);
	remember(place, 9, ROLE_TREE, COUNT);
	assert_true(opens(place));
	place->pages.map_number = 0;
	faults.only = "pread";
	fail_after(&io, 0, true);
	assert_int_equal(pages_role(&place->pages, 5, &parent), ROLE_UNKNOWN);
	assert_true(stop_failing());
}

static void a_page_that_is_not_there_is_not_read(void **state)
{
	struct place *place = *state;
	uint8_t into[SIZE];
	assert_true(opens(place));
	assert_true(pages_read(&place->pages, COUNT, into));
	assert_false(pages_read(&place->pages, 0, into));
	assert_false(pages_read(&place->pages, COUNT + 1, into));
	/* A disk that is going bad may give it at the third time. */
	faults.only = "pread";
	fail_after(&io, 0, false);
	assert_true(pages_read(&place->pages, COUNT, into));
	assert_true(stop_failing());
}

/* --- The -wal ---------------------------------------------------------------- */

static uint32_t word(const uint8_t *at, bool big)
{
	return big ? pages_number(at)
	           : (uint32_t)at[3] << 24 | (uint32_t)at[2] << 16 | (uint32_t)at[1] << 8 | at[0];
}

static void sum_up(const uint8_t *bytes, size_t size, bool big, uint32_t sum[2])
{
	for (size_t i = 0; i < size; i += 8) {
		sum[0] += word(bytes + i, big) + sum[1];
		sum[1] += word(bytes + i + 4, big) + sum[0];
	}
}

static uint8_t *frame(struct place *place, unsigned at)
{
	return place->wal + 32 + at * WAL_FRAME;
}

/* Pages 4, 5 and 4 again, each content a byte; the last two are one transaction.
 * https://sqlite.org/fileformat2.html#walformat */
static void make_wal(struct place *place, bool big, const uint32_t numbers[WAL_FRAMES])
{
	uint32_t sum[2] = { 0, 0 };
	place->wal_size = sizeof place->wal;
	put(place->wal, 0x377f0682u + big);
	put(place->wal + 8, SIZE);
	put(place->wal + 16, 0xABCDEF01);
	sum_up(place->wal, 24, big, sum);
	put(place->wal + 24, sum[0]);
	put(place->wal + 28, sum[1]);
	for (unsigned i = 0; i < WAL_FRAMES; i++) {
		uint8_t *at = frame(place, i);
		put(at, numbers[i]);
		put(at + 4, i == 1 ? 0 : COUNT);
		memcpy(at + 8, place->wal + 16, 8);
		memset(at + 24, (int)(0x40 + i), SIZE);
		sum_up(at, 8, big, sum);
		sum_up(at + 24, SIZE, big, sum);
		put(at + 16, sum[0]);
		put(at + 20, sum[1]);
	}
}

static const uint32_t usual[WAL_FRAMES] = { 4, 5, 4 };

static int content(struct place *place, uint32_t number)
{
	uint8_t into[SIZE];
	assert_true(pages_read(&place->pages, number, into));
	return into[SIZE - 1];
}

static void what_was_committed_is_read_from_the_wal(void **state)
{
	struct place *place = *state;
	for (int big = 0; big < 2; big++) {
		make_wal(place, big != 0, usual);
		assert_true(opens(place));
		assert_int_equal(place->pages.frame_count, 2);
		assert_int_equal(content(place, 3), 0);
		assert_int_equal(content(place, 4), 0x42);
		assert_int_equal(content(place, 5), 0x41);
	}
	put(frame(place, 2) + 4, 0); /* no longer proven, and no end of a transaction */
	assert_true(opens(place));
	assert_int_equal(content(place, 4), 0x40);
	assert_int_equal(content(place, 5), 0);
}

static void a_file_that_lost_its_end_has_what_the_wal_has_of_it(void **state)
{
	struct place *place = *state;
	static const uint32_t behind[WAL_FRAMES] = { 4, 5, 1000 };
	make_wal(place, false, behind);
	assert_true(opens(place));
	assert_int_equal(place->pages.count, 1000);
	assert_int_equal(content(place, 1000), 0x42);
	/* But none that no file could have had. */
	static const uint32_t beyond[WAL_FRAMES] = { 4, 5, UINT32_MAX };
	make_wal(place, false, beyond);
	assert_true(opens(place));
	assert_int_equal(place->pages.count, COUNT);
	assert_int_equal(content(place, 5), 0x41);
}

static void a_wal_of_another_kind_is_left_alone(void **state)
{
	struct place *place = *state;
	make_wal(place, false, usual);
	place->wal_size = 32 + WAL_FRAME - 1; /* no frame is whole */
	assert_true(opens(place));
	assert_int_equal(place->pages.frame_count, 0);
	make_wal(place, false, usual);
	uint32_t sum[2] = { 0, 0 };
	put(place->wal + 8, 2 * SIZE);
	sum_up(place->wal, 24, false, sum);
	put(place->wal + 24, sum[0]);
	put(place->wal + 28, sum[1]);
	assert_true(opens(place));
	assert_int_equal(place->pages.frame_count, 0);
}

static void frames_behind_a_damaged_one_are_read(void **state)
{
	struct place *place = *state;
	for (int at = 0; at < 3; at++) {
		static const int damages[] = { 24 + 100, 8, 20 }; /* its content, salt, second sum */
		make_wal(place, false, usual);
		frame(place, 0)[damages[at]] ^= 1;
		assert_true(opens(place));
		/* The second one's sum goes on from what stands in the first. */
		assert_int_equal(content(place, 5), at == 2 ? 0 : 0x41);
		assert_int_equal(content(place, 4), 0x42);
	}
}

static void without_its_header_the_first_frame_says_which_are_of_its_time(void **state)
{
	struct place *place = *state;
	make_wal(place, false, usual);
	memset(place->wal, 0, 32);
	put(place->wal, 0x377f0682u);
	assert_true(opens(place));
	assert_int_equal(content(place, 4), 0x42);
	assert_int_equal(content(place, 5), 0x41);
	/* Its own number cannot be proven then. */
	put(frame(place, 0), 100000);
	assert_true(opens(place));
	assert_int_equal(place->pages.count, COUNT);
	frame(place, 1)[8] ^= 1;
	assert_true(opens(place));
	assert_int_equal(content(place, 5), 0);
	frame(place, 1)[8] ^= 1;
	frame(place, 1)[24] ^= 1;
	assert_true(opens(place));
	assert_int_equal(content(place, 5), 0);
	place->wal[0] = 'X';
	assert_true(opens(place));
	assert_int_equal(content(place, 4), 0x42);
}

static void a_wal_that_the_storage_does_not_give_is_done_without(void **state)
{
	struct place *place = *state;
	make_wal(place, false, usual);
	for (int sound = 1; sound >= 0; sound--) {
		place->wal[24] ^= sound != 0 ? 0 : 1;
		bool struck = true;
		for (int calls = 0; struck; calls++) {
			faults.only = "pread";
			fail_after(&io, calls, true);
			assert_true(opens(place));
			struck = stop_failing();
		}
		assert_int_equal(place->pages.frame_count, 2);
	}
}

/* --- Pages of trees ------------------------------------------------------------ */

#define CELL_AT 3000

/* Page 4 with one cell at CELL_AT. */
static struct page page_of(struct place *place, enum page_kind kind, const uint8_t *cell,
                           size_t size)
{
	struct page page;
	uint8_t *bytes = place->file[3];
	memset(bytes, 0, SIZE);
	bytes[0] = (uint8_t)kind;
	bytes[4] = 1;
	unsigned first = kind == PAGE_TABLE_LEAF || kind == PAGE_INDEX_LEAF ? 8 : 12;
	bytes[first] = CELL_AT >> 8;
	bytes[first + 1] = CELL_AT & 0xff;
	if (size > 0)
		memcpy(bytes + CELL_AT, cell, size);
	assert_true(opens(place));
	assert_true(page_look(&place->pages, 4, bytes, &page));
	return page;
}

static void move_cell(struct place *place, const struct page *page, unsigned to)
{
	memmove(&place->file[3][to], &place->file[3][CELL_AT], SIZE - to < 16 ? SIZE - to : 16);
	place->file[3][page->first] = (uint8_t)(to >> 8);
	place->file[3][page->first + 1] = (uint8_t)to;
}

static void a_page_of_a_tree_is_known_by_its_beginning(void **state)
{
	struct place *place = *state;
	struct page page;
	static const enum page_kind kinds[] = { PAGE_INDEX_INNER, PAGE_TABLE_INNER, PAGE_INDEX_LEAF,
		                                PAGE_TABLE_LEAF };
	assert_true(opens(place));
	for (size_t i = 0; i < 4; i++) {
		uint8_t *bytes = place->file[0] + 100;
		bytes[0] = (uint8_t)kinds[i];
		assert_true(page_look(&place->pages, 1, place->file[0], &page));
		assert_int_equal(page.kind, kinds[i]);
		assert_int_equal(page.first, i < 2 ? 112 : 108);
		bytes[3] = 0xff; /* more cells than there is room for */
		assert_false(page_look(&place->pages, 1, place->file[0], &page));
		bytes[3] = 0;
	}
	assert_false(page_look(&place->pages, 2, place->file[1], &page));
	assert_int_equal(page.kind, PAGE_OTHER);
}

static void children_are_found_with_what_is_below_them(void **state)
{
	struct place *place = *state;
	int64_t largest;
	struct page page = page_of(place, PAGE_TABLE_INNER, (uint8_t[]){ 0, 0, 0, 9, 0x81, 0x00 }, 6);
	put(&place->file[3][8], 11);
	assert_int_equal(page_child(&place->pages, &page, 0, &largest), 9);
	assert_int_equal(largest, 128);
	assert_int_equal(page_child(&place->pages, &page, 1, &largest), 11);
	assert_int_equal(largest, INT64_MAX);
	page = page_of(place, PAGE_INDEX_INNER, (uint8_t[]){ 0, 0, 0, 9, 0x81, 0x00 }, 6);
	assert_int_equal(page_child(&place->pages, &page, 0, &largest), 9);
	assert_int_equal(largest, INT64_MAX);
	/* Cells over the page's beginning or its end; an id that does not come to one. */
	page = page_of(place, PAGE_TABLE_INNER, (uint8_t[]){ 0, 0, 0, 9, 0x81, 0x00 }, 6);
	move_cell(place, &page, 11);
	assert_int_equal(page_child(&place->pages, &page, 0, &largest), 0);
	move_cell(place, &page, SIZE - 3);
	assert_int_equal(page_child(&place->pages, &page, 0, &largest), 0);
	page = page_of(place, PAGE_TABLE_INNER, (uint8_t[]){ 0, 0, 0, 9, 0x81, 0x00 }, 6);
	move_cell(place, &page, SIZE - 5);
	assert_int_equal(page_child(&place->pages, &page, 0, &largest), 0);
}

/* --- Cells ----------------------------------------------------------------------- */

static enum cell_state cell_of(struct place *place, const uint8_t *bytes, size_t size,
                               struct cell *cell)
{
	struct page page = page_of(place, PAGE_TABLE_LEAF, bytes, size);
	return page_cell(&place->pages, &page, 0, cell);
}

#define CELL(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })

static void each_kind_of_value_is_read(void **state)
{
	struct place *place = *state;
	struct cell cell;
	assert_int_equal(cell_of(place, CELL(54, 5, 13, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17,
	                                     0xff, 0xff, 0xfe, 0x01, 0, 0, 0x80, 0, 0, 0,
	                                     0, 0, 0, 0, 1, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff,
	                                     0xff, 0xff, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 'h', 'i'), &cell),
	                 CELL_DOUBTFUL); /* as it does not fill its size exactly */
	assert_int_equal(cell_of(place, CELL(47, 5, 13, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 17,
	                                     0xff, 0xff, 0xfe, 0x01, 0, 0, 0x80, 0, 0, 0,
	                                     0, 0, 0, 0, 1, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff,
	                                     0xff, 0xff, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0, 'h', 'i'), &cell),
	                 CELL_READ);
	assert_true(cell.id_known && cell.id == 5);
	assert_int_equal(cell.column_count, 12);
	static const int64_t numbers[] = { 0, -1, -2, 65536, INT32_MIN, 256, INT64_MAX };
	assert_int_equal(cell.columns[0].kind, VALUE_NULL);
	for (int i = 1; i <= 6; i++) {
		assert_int_equal(cell.columns[i].kind, VALUE_INTEGER);
		assert_int_equal(cell.columns[i].integer, numbers[i]);
	}
	assert_true(cell.columns[7].kind == VALUE_REAL && cell.columns[7].real == 1.5);
	assert_true(cell.columns[8].integer == 0 && cell.columns[9].integer == 1);
	assert_true(cell.columns[10].kind == VALUE_BLOB && cell.columns[10].text.size == 0);
	assert_true(cell.columns[11].kind == VALUE_TEXT && cell.columns[11].text.size == 2);
	assert_memory_equal(cell.columns[11].text.bytes, "hi", 2);
}

static void an_id_may_have_nine_bytes(void **state)
{
	struct place *place = *state;
	struct cell cell;
	assert_int_equal(cell_of(place, CELL(2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
	                                     2, 9), &cell), CELL_READ);
	assert_true(cell.id_known && cell.id == -1);
}

static void what_is_no_record_is_damaged(void **state)
{
	struct place *place = *state;
	struct cell cell;
	assert_int_equal(cell_of(place, CELL(0, 5), &cell), CELL_DAMAGED);            /* no content */
	assert_int_equal(cell_of(place, CELL(1, 5, 0xff), &cell), CELL_DAMAGED);      /* header's size, */
	assert_int_equal(cell_of(place, CELL(1, 5, 0), &cell), CELL_DAMAGED);         /* too small, */
	assert_int_equal(cell_of(place, CELL(1, 5, 2), &cell), CELL_DAMAGED);         /* too large */
	uint8_t many[2 + 2 + CELL_COLUMNS_MAX] = { CELL_COLUMNS_MAX + 2, 5, CELL_COLUMNS_MAX + 2 };
	assert_int_equal(cell_of(place, many, sizeof many, &cell), CELL_DAMAGED);
	assert_int_equal(cell.column_count, CELL_COLUMNS_MAX);
	assert_true(cell.id_known && cell.id == 5);
}

static void what_does_not_add_up_is_doubtful(void **state)
{
	struct place *place = *state;
	struct cell cell;
	assert_int_equal(cell_of(place, CELL(3, 5, 1, 0, 0), &cell), CELL_DOUBTFUL); /* without type */
	assert_int_equal(cell.column_count, 0);
	/* Types that do not exist have no content, and those behind have theirs. */
	for (uint8_t type = 10; type <= 11; type++) {
		assert_int_equal(cell_of(place, CELL(4, 5, 3, type, 1, 7), &cell), CELL_DOUBTFUL);
		assert_true(cell.column_count == 2 && cell.columns[0].kind == VALUE_NULL);
		assert_true(cell.columns[1].kind == VALUE_INTEGER && cell.columns[1].integer == 7);
	}
	/* Nor has one that is not there, or not all of it; nor a type that breaks off. */
	static const uint8_t last_types[] = { 2, 0xff };
	for (size_t i = 0; i < 2; i++) {
		assert_int_equal(cell_of(place, CELL(4, 5, 3, 1, last_types[i], 7), &cell), CELL_DOUBTFUL);
		assert_true(cell.column_count == 2 && cell.columns[0].integer == 7);
		assert_int_equal(cell.columns[1].kind, VALUE_NULL);
	}
}

static void a_cell_that_the_page_breaks_off_is_damaged(void **state)
{
	struct place *place = *state;
	struct cell cell;
	struct page page = page_of(place, PAGE_TABLE_LEAF, CELL(0xff, 0xff, 0xff, 0xff));
	move_cell(place, &page, SIZE - 4);
	assert_int_equal(page_cell(&place->pages, &page, 0, &cell), CELL_DAMAGED);
	page = page_of(place, PAGE_TABLE_LEAF, CELL(9, 0xff, 0xff, 0xff));
	move_cell(place, &page, SIZE - 4);
	assert_int_equal(page_cell(&place->pages, &page, 0, &cell), CELL_DAMAGED);
	assert_false(cell.id_known);
	page = page_of(place, PAGE_TABLE_LEAF, CELL(9, 5, 2, 9));
	move_cell(place, &page, SIZE - 4);
	assert_int_equal(page_cell(&place->pages, &page, 0, &cell), CELL_DOUBTFUL);
	assert_true(cell.id_known);
	page = page_of(place, PAGE_TABLE_LEAF, CELL(2, 5, 2, 9));
	move_cell(place, &page, 7);
	assert_int_equal(page_cell(&place->pages, &page, 0, &cell), CELL_DAMAGED);
}

static void an_entry_of_an_index_is_read_from_leaf_and_inner_page(void **state)
{
	struct place *place = *state;
	struct cell cell;
	struct page page = page_of(place, PAGE_INDEX_LEAF, CELL(2, 2, 9));
	assert_int_equal(page_cell(&place->pages, &page, 0, &cell), CELL_READ);
	assert_true(!cell.id_known && cell.columns[0].integer == 1);
	page = page_of(place, PAGE_INDEX_INNER, CELL(0, 0, 0, 7, 2, 2, 9));
	assert_int_equal(page_cell(&place->pages, &page, 0, &cell), CELL_READ);
	assert_int_equal(cell.column_count, 1);
}

static void of_a_size_that_no_file_of_this_kind_can_have_the_beginning_is_read(void **state)
{
	struct place *place = *state;
	struct cell cell;
	/* More than the file has; more than SQLite writes. */
	assert_int_equal(cell_of(place, CELL(0x84, 0x80, 0x00, 5, 2, 9), &cell), CELL_DOUBTFUL);
	assert_true(cell.column_count == 1 && cell.columns[0].integer == 1);
	assert_int_equal(cell_of(place, CELL(0x88, 0x80, 0x80, 0x80, 0x00, 5, 2, 9), &cell),
	                 CELL_DOUBTFUL);
	assert_true(cell.column_count == 1 && cell.columns[0].integer == 1);
}

/* --- Parts in other pages ---------------------------------------------------------- */

/* Of a record with 600 bytes in its page and two whole ones in others, by
 * https://sqlite.org/fileformat2.html#b_tree_pages; and the type of its one text. */
#define LONG_HERE 600
#define LONG_SIZE (LONG_HERE + 2 * (SIZE - 4))
#define LONG_TYPE (13 + 2 * (LONG_SIZE - 4))

/* In page 4, and pages 5 and 6. */
static struct page long_record(struct place *place)
{
	uint8_t cell[3 + LONG_HERE + 4];
	static const uint8_t start[] = { 0x80 | LONG_SIZE >> 7, LONG_SIZE & 0x7f, 5, 4,
		0x80 | LONG_TYPE >> 14, 0x80 | (LONG_TYPE >> 7 & 0x7f), LONG_TYPE & 0x7f };
	memset(cell, 'x', sizeof cell);
	memcpy(cell, start, sizeof start);
	put(cell + 3 + LONG_HERE, 5);
	for (unsigned number = 5; number <= 6; number++) {
		memset(place->file[number - 1], 'y', SIZE);
		put(place->file[number - 1], number == 5 ? 6 : 0);
		remember(place, number, number == 5 ? ROLE_OVERFLOW : ROLE_OVERFLOW_NEXT, number - 1);
	}
	remember(place, 4, ROLE_ROOT, 0);
	return page_of(place, PAGE_TABLE_LEAF, cell, sizeof cell);
}

static enum cell_state long_cell(struct place *place, const struct page *page)
{
	struct cell cell;
	assert_true(opens(place));
	enum cell_state state = page_cell(&place->pages, page, 0, &cell);
	/* Its only text is not there, or whole. */
	assert_int_equal(cell.column_count, 1);
	return cell.columns[0].kind == VALUE_NULL ? CELL_DAMAGED : state;
}

static void a_long_record_is_gathered_from_its_pages(void **state)
{
	struct place *place = *state;
	struct page page = long_record(place);
	assert_int_equal(long_cell(place, &page), CELL_READ);
	/* Also where the file remembers nothing of them. */
	remember(place, 12, (enum page_role)9, 0);
	assert_int_equal(long_cell(place, &page), CELL_READ);
}

static void parts_that_may_be_another_records_are_doubtful(void **state)
{
	struct place *place = *state;
	struct page page = long_record(place);
	remember(place, 5, ROLE_OVERFLOW_NEXT, 4);
	assert_int_equal(long_cell(place, &page), CELL_DOUBTFUL);
	remember(place, 5, ROLE_OVERFLOW, 3);
	assert_int_equal(long_cell(place, &page), CELL_DOUBTFUL);
	remember(place, 5, ROLE_OVERFLOW, 4);
	remember(place, 6, ROLE_OVERFLOW, 5);
	assert_int_equal(long_cell(place, &page), CELL_DOUBTFUL);
	remember(place, 6, ROLE_OVERFLOW_NEXT, 5);
	assert_int_equal(long_cell(place, &page), CELL_READ);
	put(place->file[4], COUNT + 1);
	assert_int_equal(long_cell(place, &page), CELL_DAMAGED);
	put(place->file[4], 6);
	place->file[4][4] = 0;
	assert_int_equal(long_cell(place, &page), CELL_READ);
	memset(place->file[4] + 4, 0, SIZE - 4); /* what a file system leaves of a lost block */
	assert_int_equal(long_cell(place, &page), CELL_DAMAGED);
}

static void behind_the_last_part_nothing_may_follow_but_a_flipped_bit(void **state)
{
	struct place *place = *state;
	struct page page = long_record(place);
	static const struct {
		uint32_t next;
		enum cell_state state;
	} cases[] = { { 0, CELL_READ }, { 7, CELL_DOUBTFUL }, { 8, CELL_DOUBTFUL },
		      { 0x01000000, CELL_READ }, { 0x0D000000, CELL_DOUBTFUL } };
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		put(place->file[5], cases[i].next);
		assert_int_equal(long_cell(place, &page), cases[i].state);
	}
	remember(place, 12, (enum page_role)9, 0);
	put(place->file[5], 0x01000000);
	assert_int_equal(long_cell(place, &page), CELL_DOUBTFUL);
}

static void a_record_whose_beginning_is_over_the_end_of_the_page_is_damaged(void **state)
{
	struct place *place = *state;
	struct page page = long_record(place);
	move_cell(place, &page, SIZE - LONG_HERE);
	assert_int_equal(long_cell(place, &page), CELL_DAMAGED);
}

static void a_cell_that_there_is_no_memory_for_is_not_damaged(void **state)
{
	struct place *place = *state;
	struct page page = long_record(place);
	struct cell cell;
	assert_true(opens(place));
	faults.only = "realloc";
	fail_after(&no_memory, 0, true);
	assert_int_equal(page_cell(&place->pages, &page, 0, &cell), CELL_NO_MEMORY);
	assert_true(stop_failing());
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_size_of_a_page_is_the_one_that_makes_sense),
		TEST(an_empty_file_is_none),
		TEST(without_memory_or_an_answer_of_the_system_it_is_not_opened),
		TEST(what_a_file_remembers_is_asked_where_it_was_made_so),
		TEST(the_last_page_is_believed_where_the_header_is_right),
		TEST(pages_that_no_tree_has_are_reserved),
		TEST(the_memory_steps_aside_for_the_page_of_the_locks),
		TEST(the_memory_is_believed_as_a_whole),
		TEST(a_page_that_is_not_there_is_not_read),
		TEST(what_was_committed_is_read_from_the_wal),
		TEST(a_file_that_lost_its_end_has_what_the_wal_has_of_it),
		TEST(a_wal_of_another_kind_is_left_alone),
		TEST(frames_behind_a_damaged_one_are_read),
		TEST(without_its_header_the_first_frame_says_which_are_of_its_time),
		TEST(a_wal_that_the_storage_does_not_give_is_done_without),
		TEST(a_page_of_a_tree_is_known_by_its_beginning),
		TEST(children_are_found_with_what_is_below_them),
		TEST(each_kind_of_value_is_read),
		TEST(an_id_may_have_nine_bytes),
		TEST(what_is_no_record_is_damaged),
		TEST(what_does_not_add_up_is_doubtful),
		TEST(a_cell_that_the_page_breaks_off_is_damaged),
		TEST(an_entry_of_an_index_is_read_from_leaf_and_inner_page),
		TEST(of_a_size_that_no_file_of_this_kind_can_have_the_beginning_is_read),
		TEST(a_long_record_is_gathered_from_its_pages),
		TEST(parts_that_may_be_another_records_are_doubtful),
		TEST(behind_the_last_part_nothing_may_follow_but_a_flipped_bit),
		TEST(a_record_whose_beginning_is_over_the_end_of_the_page_is_damaged),
		TEST(a_cell_that_there_is_no_memory_for_is_not_damaged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
