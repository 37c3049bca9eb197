/* A SQLite file and its -wal as bytes: pages, cells and columns by the published file
 * format (https://sqlite.org/fileformat2.html), read without SQLite, which gives up on a
 * table when the page above it is damaged.
 *
 * For the salvage alone. Trusts nothing that it reads, and never writes.
 */
#ifndef SPOOL_PAGES_H
#define SPOOL_PAGES_H

#include "spool/manage.h"

/* Kinds of a page of a tree, as its first byte says. */
enum page_kind {
	PAGE_INDEX_INNER = 0x02,
	PAGE_TABLE_INNER = 0x05,
	PAGE_INDEX_LEAF = 0x0A,
	PAGE_TABLE_LEAF = 0x0D,
	PAGE_OTHER = 0 /* none of them, or damaged */
};

/* What the file itself remembers about a page, where it was made with auto_vacuum. */
enum page_role {
	ROLE_UNKNOWN = 0, /* it does not, or what it says is damaged */
	ROLE_ROOT = 1,
	ROLE_FREE = 2,
	ROLE_OVERFLOW = 3,      /* the first of a cell; `parent` is the cell's page */
	ROLE_OVERFLOW_NEXT = 4, /* `parent` is the one before */
	ROLE_TREE = 5           /* `parent` is the page above */
};

struct pages {
	int file, wal;        /* borrowed; wal -1: none */
	uint32_t size;        /* bytes of a page */
	uint32_t usable;
	uint32_t count;       /* pages 1 to count, of the file or of the -wal */
	uint32_t last;        /* the last page of the database, as far as it says so */
	int64_t *frames;      /* where in the -wal a page stands, 0: in the file */
	uint32_t frame_count; /* pages that stand in the -wal */
	uint8_t *map;         /* the last page of the file's memory that was read, */
	uint32_t map_number;  /* and its number; 0: none */
	bool map_sound;
	bool mapped;          /* the file was made with auto_vacuum */
	uint8_t *overflow;    /* a page, for reading cells */
	uint8_t *payload;     /* of the cell read last, grown as needed */
	size_t payload_room;
};

/* Prepares to read. False: no memory, or the file is too short to be one. */
bool pages_open(struct pages *pages, int file, int wal);
void pages_close(struct pages *pages);

/* Page `number` into `into`, of pages->size bytes. False: it is not there, or the
 * storage does not give it. */
bool pages_read(const struct pages *pages, uint32_t number, uint8_t *into);

/* What the file remembers about a page. */
enum page_role pages_role(struct pages *pages, uint32_t number, uint32_t *parent);

/* True when page `number` of the file is a page of that memory, or the one that SQLite
 * never uses. */
bool pages_is_reserved(const struct pages *pages, uint32_t number);

/* A page of a tree. `number` matters because page 1 begins with the file's header. */
struct page {
	enum page_kind kind;
	uint32_t number;
	const uint8_t *bytes; /* borrowed */
	unsigned cell_count;
	unsigned first; /* where its cells' places stand */
};

/* False: its beginning is not that of a page of a tree. */
bool page_look(const struct pages *pages, uint32_t number, const uint8_t *bytes,
               struct page *page);

/* An inner page's child before cell `at`, or the last one (`at` == cell_count), and for a
 * table the largest id below it. 0: the cell is damaged. */
uint32_t page_child(const struct pages *pages, const struct page *page, unsigned at,
                    int64_t *largest);

#define CELL_COLUMNS_MAX 40

struct cell {
	bool id_known; /* false: not even its id could be read; of a table */
	int64_t id;
	unsigned column_count;
	struct spool_value columns[CELL_COLUMNS_MAX]; /* borrowed until the next cell is read */
};

enum cell_state {
	CELL_READ,
	CELL_DOUBTFUL, /* its columns are there, but what does not add up: a part of it may be
	                * missing, or another's */
	CELL_DAMAGED,
	CELL_NO_MEMORY
};

/* The id of a cell of a table's leaf alone. False: it is damaged. */
bool page_id(const struct pages *pages, const struct page *page, unsigned at, int64_t *id);

/* A cell with all of its columns, from wherever they stand. */
enum cell_state page_cell(struct pages *pages, const struct page *page, unsigned at,
                          struct cell *cell);

/* A number of four bytes, as the file has them. */
uint32_t pages_number(const uint8_t *bytes);

#endif
