/* What can be read, from one spool into another; see rescue.h.
 *
 * Rather twice than never: a record that stands in the file is kept, unless the file says
 * that its page was given up. What is lost is counted against the ledger, so that the sum
 * is right again and nobody has to guess.
 */
#include "spool/rescue.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "spool/internal.h"
#include "spool/migrate.h"

#define NEWER_MAX 1000   /* a version above is damage, not a newer program */
#define CLIMB_MAX 32
#define COUNTER_MAX (INT64_C(1) << 53)
#define ID_MAX INT64_C(1000000000000000)
/* Above every id that was seen, where the file no longer says which was given last. */
#define ID_MARGIN 1000000
#define ID_COLUMN 24
#define UUID_COLUMN 22
#define KEY_COLUMN 21
#define REQUEST_COLUMN 1
#define RESPONSE_COLUMN 2

enum table {
	NO_TABLE,
	INTERACTIONS,
	DEAD_LETTERS,
	LEDGER_TABLE,
	KNOWN_KEYS,
	ATTEMPTS_TABLE,
	IMPORTED,
	RECEIPTS_TABLE,
	AGENT_STATE,
	SEQUENCE,
	TABLE_COUNT,
	OTHER_TREE = TABLE_COUNT, /* the schema itself, an index, what others made */
	GIVEN_UP
};

static const char *const table_names[TABLE_COUNT] = {
	NULL, "interactions", "dead_letters", "ledger", "known_keys", "attempts", "imported",
	"receipts", "agent_state", "sqlite_sequence"
};

/* ledger's columns behind the first, as far as they are kept */
enum { ACCEPTED, DELIVERED, DEAD, DISCARDED, DROPPED, PURGED, REMOVED, COUNTERS };
#define LEDGER_COLUMNS 14

struct hole {
	enum table table;
	int64_t from, to;
};

struct place {
	uint32_t page;
	int64_t after, to; /* its ids are above the one and up to the other */
};

struct leaf {
	int64_t first;
	uint32_t page;
	int8_t fit;
};

/* Whether a leaf's ids are what the tree leads to it for; 0: no tree does. */
enum { FITS = -1, MISFIT = 1 };

struct rescue {
	struct pages *pages;
	sqlite3 *to;
	uint8_t *page;                /* room for one */
	uint8_t *owners;              /* enum table of each page */
	int8_t *fits;                 /* of each leaf */
	uint32_t roots[TABLE_COUNT];
	struct place *stack;          /* each page is on it once at most */
	size_t stack_size;
	struct hole *holes;
	size_t hole_count, hole_room;
	bool torn[TABLE_COUNT + 1];   /* a page of that tree is damaged */
	sqlite3_stmt *inserts[TABLE_COUNT], *twins[2], *gone;
	int64_t counters[COUNTERS], max_spool, max_record, drop_oldest;
	bool ledger, sequence_read, seen; /* seen: something that is surely a spool's */
	int64_t sequence;
	int64_t bytes, damaged_cells, lost_before, delivered, wall;
	bool doubts; /* cells are left for keep_page() with `doubtful` */
	struct salvage_report *report;
	enum rescue_result result;
};

static bool fail(struct rescue *rescue, enum rescue_result result)
{
	rescue->result = result;
	return false;
}

/* --- Which page belongs to whom ----------------------------------------- */

static bool is_rowless(enum table table)
{
	return table == KNOWN_KEYS || table == IMPORTED || table == RECEIPTS_TABLE ||
	       table == AGENT_STATE;
}

static bool add_hole(struct rescue *rescue, enum table table, int64_t from, int64_t to)
{
	rescue->torn[table] = true;
	if (table != INTERACTIONS && table != DEAD_LETTERS)
		return true;
	if (rescue->hole_count == rescue->hole_room) {
		size_t room = rescue->hole_room > 0 ? rescue->hole_room * 2 : 16;
		struct hole *grown = realloc(rescue->holes, room * sizeof *grown);
		if (grown == NULL)
			return fail(rescue, RESCUE_NO_MEMORY);
		rescue->holes = grown;
		rescue->hole_room = room;
	}
	rescue->holes[rescue->hole_count++] = (struct hole){ table, from, to };
	return true;
}

static void push(struct rescue *rescue, enum table table, struct place place)
{
	rescue->owners[place.page] = (uint8_t)table;
	rescue->stack[rescue->stack_size++] = place;
}

/* The children of an inner page. */
static bool walk_down(struct rescue *rescue, enum table table, const struct page *page,
                      struct place above)
{
	int64_t after = above.after;
	for (unsigned i = 0; i <= page->cell_count; i++) {
		int64_t largest;
		uint32_t child = page_child(rescue->pages, page, i, &largest);
		int64_t to = largest < above.to ? largest : above.to;
		if (child == 0 || child > rescue->pages->count ||
		    pages_is_reserved(rescue->pages, child)) {
			if (!add_hole(rescue, table, after, to))
				return false;
		} else if (rescue->owners[child] == NO_TABLE) {
			push(rescue, table, (struct place){ child, after, to });
		}
		if (child != 0 && largest > after && largest < above.to)
			after = largest;
	}
	return true;
}

/* A page that took another's place has ids of that place's before and after. */
static int8_t look_at_ids(const struct rescue *rescue, const struct page *page,
                          struct place place)
{
	for (unsigned i = 0; i < page->cell_count; i++) {
		int64_t id;
		if (page_id(rescue->pages, page, i, &id) && (id <= place.after || id > place.to))
			return MISFIT;
	}
	return FITS;
}

static bool walk_tree(struct rescue *rescue, enum table table, uint32_t root)
{
	bool rowless = is_rowless(table);
	if (root > rescue->pages->count || rescue->owners[root] != NO_TABLE)
		return add_hole(rescue, table, INT64_MIN, INT64_MAX);
	push(rescue, table, (struct place){ root, INT64_MIN, INT64_MAX });
	while (rescue->stack_size > 0) {
		struct place place = rescue->stack[--rescue->stack_size];
		struct page page;
		bool good = pages_read(rescue->pages, place.page, rescue->page) &&
		            page_look(rescue->pages, place.page, rescue->page, &page);
		if (good && page.kind == (rowless ? PAGE_INDEX_INNER : PAGE_TABLE_INNER)) {
			if (!walk_down(rescue, table, &page, place))
				return false;
		} else if (!good || page.kind != (rowless ? PAGE_INDEX_LEAF : PAGE_TABLE_LEAF)) {
			if (!add_hole(rescue, table, place.after, place.to))
				return false;
		} else if (!rowless) {
			rescue->fits[place.page] = look_at_ids(rescue, &page, place);
		}
	}
	return true;
}

/* By what the file remembers of the page, and of those above it. */
static enum table remembered_table(struct rescue *rescue, uint32_t number)
{
	uint32_t parent;
	for (int i = 0; i < CLIMB_MAX; i++) {
		enum page_role role = pages_role(rescue->pages, number, &parent);
		if (role == ROLE_ROOT) {
			for (int table = 1; table < TABLE_COUNT; table++)
				if (rescue->roots[table] == number)
					return (enum table)table;
			return OTHER_TREE;
		}
		if (role != ROLE_TREE || parent == 0)
			return NO_TABLE;
		number = parent;
	}
	return NO_TABLE;
}

/* Pages that no tree leads to any more, since something above them is damaged. */
static void adopt(struct rescue *rescue)
{
	for (uint32_t number = 3; number <= rescue->pages->last; number++) {
		if (rescue->owners[number] != NO_TABLE || pages_is_reserved(rescue->pages, number))
			continue;
		rescue->owners[number] = (uint8_t)remembered_table(rescue, number);
	}
}

/* Pages that were given up, by the file's own list of them. */
static void mark_free(struct rescue *rescue)
{
	if (!pages_read(rescue->pages, 1, rescue->page))
		return;
	uint32_t trunk = pages_number(rescue->page + 32);
	while (trunk != 0 && pages_read(rescue->pages, trunk, rescue->page)) {
		uint32_t count = pages_number(rescue->page + 4);
		if (rescue->owners[trunk] != NO_TABLE || count > rescue->pages->usable / 4 - 2)
			return;
		rescue->owners[trunk] = GIVEN_UP;
		for (uint32_t i = 0; i < count; i++) {
			uint32_t leaf = pages_number(rescue->page + 8 + 4 * (size_t)i);
			if (leaf <= rescue->pages->count && rescue->owners[leaf] == NO_TABLE)
				rescue->owners[leaf] = GIVEN_UP;
		}
		trunk = pages_number(rescue->page);
	}
}

/* Where a new spool of this version has its tables, and so had every one at first. */
static bool model_roots(struct rescue *rescue)
{
	sqlite3 *model = NULL;
	sqlite3_stmt *row = NULL;
	int rc = sqlite3_open(":memory:", &model);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(model, "PRAGMA auto_vacuum = INCREMENTAL", NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(model, schema_sql, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_prepare_v2(model, "SELECT name, rootpage FROM sqlite_master "
		                        "WHERE type = 'table'", -1, &row, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(row);
	for (; rc == SQLITE_ROW; rc = sqlite3_step(row))
		for (int table = 1; table < TABLE_COUNT; table++)
			if (strcmp((const char *)sqlite3_column_text(row, 0), table_names[table]) == 0)
				rescue->roots[table] = (uint32_t)sqlite3_column_int(row, 1);
	(void)sqlite3_finalize(row);
	(void)sqlite3_close(model);
	if (rc != SQLITE_DONE)
		return fail(rescue, RESCUE_NO_MEMORY);
	return true;
}

static bool text_is(const struct spool_value *value, const char *text)
{
	return value->kind == VALUE_TEXT && value->text.size == strlen(text) &&
	       memcmp(value->text.bytes, text, value->text.size) == 0;
}

/* Calls `take` for each cell of each page of the table. */
static bool each_cell(struct rescue *rescue, enum table table,
                      bool (*take)(struct rescue *rescue, enum table table,
                                   const struct cell *cell, bool whole))
{
	for (uint32_t number = 1; number <= rescue->pages->count; number++) {
		struct page page;
		struct cell cell;
		if (rescue->owners[number] != table)
			continue;
		if (!pages_read(rescue->pages, number, rescue->page) ||
		    !page_look(rescue->pages, number, rescue->page, &page) ||
		    ((page.kind == PAGE_TABLE_LEAF || page.kind == PAGE_TABLE_INNER) ==
		     is_rowless(table))) {
			rescue->torn[table] = true;
			continue;
		}
		if (page.kind == PAGE_TABLE_INNER)
			continue;
		for (unsigned i = 0; i < page.cell_count; i++) {
			enum cell_state state = page_cell(rescue->pages, &page, i, &cell);
			if (state == CELL_NO_MEMORY)
				return fail(rescue, RESCUE_NO_MEMORY);
			if (!take(rescue, table, &cell, state == CELL_READ))
				return false;
		}
	}
	return true;
}

/* A line of sqlite_master: type, name, tbl_name, rootpage, sql. */
static bool take_root(struct rescue *rescue, enum table table, const struct cell *cell,
                      bool whole)
{
	(void)table;
	if (!whole || cell->column_count != 5 || !text_is(&cell->columns[0], "table") ||
	    cell->columns[3].kind != VALUE_INTEGER || cell->columns[3].integer < 2 ||
	    cell->columns[3].integer > rescue->pages->count)
		return true;
	for (int i = 1; i < TABLE_COUNT; i++)
		if (text_is(&cell->columns[1], table_names[i]))
			rescue->roots[i] = (uint32_t)cell->columns[3].integer;
	return true;
}

static bool find_owners(struct rescue *rescue)
{
	if (!model_roots(rescue))
		return false;
	(void)walk_tree(rescue, OTHER_TREE, 1); /* only a record's tree takes memory for holes */
	if (!each_cell(rescue, OTHER_TREE, take_root))
		return false;
	for (int table = 1; table < TABLE_COUNT; table++)
		if (!walk_tree(rescue, (enum table)table, rescue->roots[table]))
			return false;
	adopt(rescue);
	mark_free(rescue);
	return true;
}

/* --- Rows --------------------------------------------------------------- */

static sqlite3_stmt *prepare(struct rescue *rescue, const char *sql)
{
	sqlite3_stmt *row = NULL;
	if (sqlite3_prepare_v2(rescue->to, sql, -1, &row, NULL) != SQLITE_OK)
		(void)fail(rescue, RESCUE_UNWRITTEN);
	return row;
}

/* `*written`: a row went in, and none was there already. */
static bool step(struct rescue *rescue, sqlite3_stmt *row, bool *written)
{
	int rc = sqlite3_step(row);
	*written = rc == SQLITE_DONE && sqlite3_changes(rescue->to) == 1;
	(void)sqlite3_reset(row);
	(void)sqlite3_clear_bindings(row);
	if (rc != SQLITE_DONE)
		return fail(rescue, RESCUE_UNWRITTEN);
	return true;
}

static bool run(struct rescue *rescue, const char *sql)
{
	if (sqlite3_exec(rescue->to, sql, NULL, NULL, NULL) != SQLITE_OK)
		return fail(rescue, RESCUE_UNWRITTEN);
	return true;
}

/* INSERT with the columns of a record by name, id included. */
static sqlite3_stmt *prepare_record(struct rescue *rescue, const char *table, int columns)
{
	sqlite3_str *sql = sqlite3_str_new(rescue->to);
	sqlite3_str_appendf(sql, "INSERT OR IGNORE INTO %s (", table);
	for (int i = 0; i < columns; i++)
		sqlite3_str_appendf(sql, "%s%s", i > 0 ? ", " : "", spool_column_names[i]);
	sqlite3_str_appendall(sql, ") VALUES (?");
	for (int i = 1; i < columns; i++)
		sqlite3_str_appendall(sql, ", ?");
	sqlite3_str_appendall(sql, ")");
	char *text = sqlite3_str_finish(sql);
	sqlite3_stmt *row = text != NULL ? prepare(rescue, text) : NULL;
	sqlite3_free(text);
	return row;
}

static bool prepare_all(struct rescue *rescue)
{
	static const char *const others[TABLE_COUNT] = {
		[KNOWN_KEYS] = "INSERT OR IGNORE INTO known_keys (key, delivered_at) VALUES (?, ?)",
		[ATTEMPTS_TABLE] = "INSERT OR IGNORE INTO attempts (attempts, id) VALUES (?2, ?3)",
		[IMPORTED] = "INSERT OR IGNORE INTO imported (uuid) VALUES (?)",
		[RECEIPTS_TABLE] = "INSERT OR IGNORE INTO receipts (delivered_at, id, uuid, request_at, bytes, "
		             "http_status) VALUES (?, ?, ?, ?, ?, ?)",
		[AGENT_STATE] = "INSERT OR IGNORE INTO agent_state (name, value) VALUES (?, ?)"
	};
	rescue->inserts[INTERACTIONS] = prepare_record(rescue, "interactions", SPOOL_COLUMNS);
	rescue->inserts[DEAD_LETTERS] = prepare_record(rescue, "dead_letters", SPOOL_DEAD_COLUMNS);
	static const char *const twins[] = {
		"SELECT 1 FROM interactions WHERE id = ? AND uuid IS ? AND request_body IS ? AND "
		"response_body IS ?",
		"SELECT 1 FROM dead_letters WHERE id = ? AND uuid IS ? AND request_body IS ? AND "
		"response_body IS ?"
	};
	/* Delivered, and only kept from being deleted by the damage. */
	rescue->gone = prepare(rescue, "SELECT 1 FROM attempts WHERE id = ? AND attempts = ?");
	for (size_t i = 0; i < 2; i++)
		rescue->twins[i] = prepare(rescue, twins[i]);
	bool done = rescue->inserts[INTERACTIONS] != NULL && rescue->inserts[DEAD_LETTERS] != NULL &&
	            rescue->gone != NULL && rescue->twins[0] != NULL && rescue->twins[1] != NULL;
	for (int i = 0; i < TABLE_COUNT && done; i++)
		if (others[i] != NULL)
			done = (rescue->inserts[i] = prepare(rescue, others[i])) != NULL;
	return done;
}

static bool is_uuid(const struct spool_value *value)
{
	if (value->kind != VALUE_TEXT || value->text.size != RECORD_UUID_SIZE)
		return false;
	for (size_t i = 0; i < value->text.size; i++) {
		char c = value->text.bytes[i];
		if ((c < '0' || c > '9') && (c < 'a' || c > 'f'))
			return false;
	}
	return true;
}

/* As record_bytes() and the triggers have it. */
static int64_t weigh(const struct cell *cell)
{
	static const struct {
		int column;
		int64_t bytes;
	} defaults[] = { { 18, 7 }, { 19, 7 }, { 20, 4 } }; /* app, format, type */
	int64_t bytes = RECORD_FIXED_BYTES;
	for (int i = 0; i < SPOOL_COLUMNS; i++)
		if (i != UUID_COLUMN &&
		    (cell->columns[i].kind == VALUE_TEXT || cell->columns[i].kind == VALUE_BLOB))
			bytes += (int64_t)cell->columns[i].text.size;
	for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++)
		if (cell->columns[defaults[i].column].kind == VALUE_NULL)
			bytes += defaults[i].bytes;
	return bytes;
}

static bool is_record(const struct cell *cell, enum table table)
{
	return cell->column_count == (table == DEAD_LETTERS ? SPOOL_DEAD_COLUMNS : SPOOL_COLUMNS) &&
	       cell->id <= ID_MAX;
}

static bool insert_record(struct rescue *rescue, enum table table, const struct cell *cell,
                          bool with_key, bool *written)
{
	sqlite3_stmt *row = rescue->inserts[table];
	for (int i = 0; i < (int)cell->column_count; i++)
		if (i != ID_COLUMN && (i != KEY_COLUMN || with_key))
			spool_bind_value(row, i + 1, &cell->columns[i]);
	/* What stands in the id's column SQLite does not look at: the id is the cell's own. */
	(void)sqlite3_bind_int64(row, ID_COLUMN + 1, cell->id);
	return step(rescue, row, written);
}

/* Perhaps with a part of another's text: kept for a person to judge, and not sent. */
static void make_dead(const struct rescue *rescue, struct cell *cell)
{
	static const char reason[] = "doubtful: the spool was damaged, and a part of this record's "
	                             "texts may be another record's: compare it with its source";
	struct spool_value *more = &cell->columns[SPOOL_COLUMNS];
	if (cell->column_count == SPOOL_COLUMNS) {
		more[1] = more[4] = (struct spool_value){ .kind = VALUE_NULL };
		more[2] = (struct spool_value){ .kind = VALUE_INTEGER, .integer = 0 };
	}
	more[0] = (struct spool_value){ .kind = VALUE_TEXT,
		                        .text = { reason, sizeof reason - 1 } };
	more[3] = (struct spool_value){ .kind = VALUE_INTEGER, .integer = rescue->wall };
	cell->column_count = SPOOL_DEAD_COLUMNS;
}

static int64_t mark_of(const struct cell *cell)
{
	const struct spool_value *uuid = &cell->columns[UUID_COLUMN];
	struct text none = { NULL, 0 };
	bool is_text = uuid->kind == VALUE_TEXT || uuid->kind == VALUE_BLOB;
	return record_delivered_mark(is_text ? uuid->text : none);
}

/* Keeps a record, unless it is there already: also in the other table, where damage let
 * both ends of its move from one to the other be seen; unless their texts differ. */
static bool keep_record(struct rescue *rescue, enum table from, struct cell *cell, bool doubtful)
{
	bool written;
	enum table table = doubtful ? DEAD_LETTERS : from;
	sqlite3_stmt *twin = rescue->twins[table == INTERACTIONS];
	(void)sqlite3_bind_int64(twin, 1, cell->id);
	spool_bind_value(twin, 2, &cell->columns[UUID_COLUMN]);
	spool_bind_value(twin, 3, &cell->columns[REQUEST_COLUMN]);
	spool_bind_value(twin, 4, &cell->columns[RESPONSE_COLUMN]);
	bool there = sqlite3_step(twin) == SQLITE_ROW;
	(void)sqlite3_reset(twin);
	(void)sqlite3_clear_bindings(twin);
	if (there)
		return true;
	if (from == INTERACTIONS) {
		(void)sqlite3_bind_int64(rescue->gone, 1, cell->id);
		(void)sqlite3_bind_int64(rescue->gone, 2, mark_of(cell));
		bool gone = sqlite3_step(rescue->gone) == SQLITE_ROW;
		(void)sqlite3_reset(rescue->gone);
		rescue->delivered += gone;
		if (gone)
			return true;
	}
	if (doubtful)
		make_dead(rescue, cell);
	if (!insert_record(rescue, table, cell, true, &written))
		return false;
	/* Its key, which must be one waiting row's alone, seems to be another's. */
	if (!written && table == INTERACTIONS && cell->columns[KEY_COLUMN].kind != VALUE_NULL &&
	    !insert_record(rescue, table, cell, false, &written))
		return false;
	if (written) {
		rescue->report->doubtful += doubtful;
		rescue->bytes += weigh(cell);
		rescue->seen = rescue->seen || is_uuid(&cell->columns[UUID_COLUMN]);
	}
	if (cell->id > rescue->sequence)
		rescue->sequence = cell->id;
	return true;
}

static bool keep_page(struct rescue *rescue, enum table table, uint32_t number, bool doubtful)
{
	struct page page;
	struct cell cell;
	if (!pages_read(rescue->pages, number, rescue->page) ||
	    /* not covered: a disk that is going bad gave another content a moment ago */
	    !page_look(rescue->pages, number, rescue->page, &page))
		return true;
	for (unsigned i = 0; i < page.cell_count; i++) {
		enum cell_state state = page_cell(rescue->pages, &page, i, &cell);
		if (state == CELL_NO_MEMORY)
			return fail(rescue, RESCUE_NO_MEMORY);
		rescue->doubts = rescue->doubts || state == CELL_DOUBTFUL;
		if ((state == CELL_DOUBTFUL) != doubtful)
			continue;
		/* A page above that took another's place leads to the other table's rows. */
		enum table other = table == INTERACTIONS ? DEAD_LETTERS : INTERACTIONS;
		bool read = state != CELL_DAMAGED;
		bool sure = read && cell.column_count > UUID_COLUMN &&
		            is_uuid(&cell.columns[UUID_COLUMN]);
		bool own = (doubtful ? sure : read) && is_record(&cell, table);
		bool others = !own && sure && is_record(&cell, other);
		if (own || others) {
			if (!keep_record(rescue, own ? table : other, &cell, doubtful))
				return false;
			continue;
		}
		rescue->damaged_cells++;
		bool known = cell.id_known && cell.id > 0 && cell.id <= ID_MAX;
		rescue->torn[table] = true;
		if (known && !add_hole(rescue, table, cell.id - 1, cell.id))
			return false;
	}
	return true;
}

static int compare_leaves(const void *left, const void *right)
{
	const struct leaf *a = left, *b = right;
	if (a->fit != b->fit)
		return a->fit - b->fit;
	if (a->first != b->first)
		return a->first < b->first ? -1 : 1;
	return (a->page > b->page) - (a->page < b->page);
}

/* By id, so that the new file is written from its beginning to its end; but where one id is
 * found twice, what stands in its place is kept. */
static bool keep_records(struct rescue *rescue, enum table table, bool doubtful)
{
	size_t count = 0;
	struct leaf *leaves = calloc((size_t)rescue->pages->count + 1, sizeof *leaves);
	if (leaves == NULL)
		return fail(rescue, RESCUE_NO_MEMORY);
	for (uint32_t number = 1; number <= rescue->pages->count; number++) {
		struct page page;
		struct cell cell;
		if (rescue->owners[number] != table)
			continue;
		if (!pages_read(rescue->pages, number, rescue->page) ||
		    !page_look(rescue->pages, number, rescue->page, &page)) {
			rescue->torn[table] = true;
			continue;
		}
		if (page.kind != PAGE_TABLE_LEAF)
			continue;
		leaves[count] = (struct leaf){ INT64_MAX, number, rescue->fits[number] };
		for (unsigned i = 0; i < page.cell_count && leaves[count].first == INT64_MAX; i++)
			if (page_cell(rescue->pages, &page, i, &cell) == CELL_READ)
				leaves[count].first = cell.id;
		count++;
	}
	qsort(leaves, count, sizeof leaves[0], compare_leaves);
	bool done = true;
	for (size_t i = 0; done && i < count; i++)
		done = keep_page(rescue, table, leaves[i].page, doubtful);
	free(leaves);
	return done;
}

/* Pages that are nobody's, or seem to be no rows', nor given up: by their content, and only
 * what is surely a record. What the file remembers of them is wrong, then, or damaged. */
static bool keep_strays(struct rescue *rescue, bool doubtful)
{
	for (uint32_t number = 3; number <= rescue->pages->last; number++) {
		struct page page;
		struct cell cell;
		uint32_t parent;
		if ((rescue->owners[number] != NO_TABLE && rescue->owners[number] != OTHER_TREE) ||
		    pages_is_reserved(rescue->pages, number) ||
		    pages_role(rescue->pages, number, &parent) == ROLE_FREE ||
		    !pages_read(rescue->pages, number, rescue->page) ||
		    !page_look(rescue->pages, number, rescue->page, &page) ||
		    page.kind != PAGE_TABLE_LEAF)
			continue;
		for (unsigned i = 0; i < page.cell_count; i++) {
			enum cell_state state = page_cell(rescue->pages, &page, i, &cell);
			enum table table = cell.column_count == SPOOL_COLUMNS ? INTERACTIONS
			                                                      : DEAD_LETTERS;
			if (state == CELL_NO_MEMORY)
				return fail(rescue, RESCUE_NO_MEMORY);
			rescue->doubts = rescue->doubts || state == CELL_DOUBTFUL;
			if (state == (doubtful ? CELL_DOUBTFUL : CELL_READ) && is_record(&cell, table) &&
			    cell.id > 0 && is_uuid(&cell.columns[UUID_COLUMN]) &&
			    !keep_record(rescue, table, &cell, doubtful))
				return false;
		}
	}
	return true;
}

/* What is beyond doubt comes first: a doubtful copy of it is none to keep then. */
static bool keep_all(struct rescue *rescue, bool doubtful)
{
	return keep_records(rescue, INTERACTIONS, doubtful) &&
	       keep_records(rescue, DEAD_LETTERS, doubtful) && keep_strays(rescue, doubtful);
}

static bool take_ledger(struct rescue *rescue, enum table table, const struct cell *cell,
                        bool whole)
{
	(void)table;
	bool sound = whole && cell->id == 1 && cell->column_count == LEDGER_COLUMNS;
	for (unsigned i = 1; sound && i < LEDGER_COLUMNS; i++)
		sound = cell->columns[i].kind == VALUE_INTEGER && cell->columns[i].integer >= 0 &&
		        cell->columns[i].integer <= COUNTER_MAX;
	if (!sound || rescue->ledger)
		return true;
	for (int i = 0; i < COUNTERS; i++)
		rescue->counters[i] = cell->columns[i + 1].integer;
	rescue->max_spool = cell->columns[LEDGER_COLUMNS - 3].integer;
	rescue->max_record = cell->columns[LEDGER_COLUMNS - 2].integer;
	rescue->drop_oldest = cell->columns[LEDGER_COLUMNS - 1].integer;
	rescue->ledger = rescue->seen = true;
	return true;
}

static bool take_sequence(struct rescue *rescue, enum table table, const struct cell *cell,
                          bool whole)
{
	(void)table;
	if (!whole || cell->column_count != 2 || !text_is(&cell->columns[0], "interactions") ||
	    cell->columns[1].kind != VALUE_INTEGER || cell->columns[1].integer > ID_MAX)
		return true;
	rescue->sequence_read = true;
	if (cell->columns[1].integer > rescue->sequence)
		rescue->sequence = cell->columns[1].integer;
	return true;
}

static bool take_other(struct rescue *rescue, enum table table, const struct cell *cell,
                       bool whole)
{
	bool written;
	static const unsigned columns[TABLE_COUNT] = {
		[KNOWN_KEYS] = 2, [ATTEMPTS_TABLE] = 2, [IMPORTED] = 1, [RECEIPTS_TABLE] = 6, [AGENT_STATE] = 2
	};
	if (!whole || cell->column_count != columns[table] ||
	    (table == RECEIPTS_TABLE && (cell->columns[0].kind == VALUE_NULL ||
	                           cell->columns[1].kind == VALUE_NULL))) {
		rescue->torn[table] = true;
		return true;
	}
	if (table == AGENT_STATE && text_is(&cell->columns[0], "lost") &&
	    cell->columns[1].kind == VALUE_TEXT) {
		char digits[24];
		(void)snprintf(digits, sizeof digits, "%.*s", (int)cell->columns[1].text.size,
		               cell->columns[1].text.bytes);
		rescue->lost_before = strtoll(digits, NULL, 10);
	}
	sqlite3_stmt *row = rescue->inserts[table];
	for (unsigned i = 0; i < cell->column_count; i++)
		spool_bind_value(row, (int)i + 1, &cell->columns[i]);
	if (table == ATTEMPTS_TABLE)
		(void)sqlite3_bind_int64(row, 3, cell->id);
	return step(rescue, row, &written);
}

/* --- The sum ------------------------------------------------------------ */

static bool count_rows(struct rescue *rescue, const char *sql, int64_t *count)
{
	sqlite3_stmt *row = prepare(rescue, sql);
	*count = 0;
	if (row == NULL)
		return false;
	bool counted = sqlite3_step(row) == SQLITE_ROW;
	if (counted)
		*count = sqlite3_column_int64(row, 0);
	(void)sqlite3_finalize(row);
	if (!counted)
		return fail(rescue, RESCUE_UNWRITTEN);
	return true;
}

/* What waits, is dead, or was counted, against what was accepted. */
static bool settle_ledger(struct rescue *rescue)
{
	struct salvage_report *report = rescue->report;
	int64_t *counters = rescue->counters;
	char note[32];
	if (!count_rows(rescue, "SELECT count(*) FROM interactions", &report->waiting) ||
	    !count_rows(rescue, "SELECT count(*) FROM dead_letters", &report->dead))
		return false;
	counters[DELIVERED] += rescue->delivered;
	int64_t found = report->waiting + report->dead;
	for (int i = DELIVERED; i < COUNTERS; i++)
		found += i == DEAD ? 0 : counters[i];
	int64_t lost = counters[ACCEPTED] - found;
	if (lost < rescue->damaged_cells)
		lost = rescue->damaged_cells;
	counters[ACCEPTED] = found + lost;
	counters[DEAD] = report->dead;
	counters[REMOVED] += lost;
	report->counters_lost = !rescue->ledger;
	report->lost = rescue->ledger || !rescue->torn[INTERACTIONS] ? lost : -1;
	sqlite3_stmt *row = prepare(
		rescue, "UPDATE ledger SET accepted = ?1, delivered = ?2, dead = ?3, discarded = ?4, "
		"dropped = ?5, purged = ?6, removed = ?7, in_bytes = ?8, in_bytes_before = ?8, "
		"max_spool = CASE WHEN ?9 THEN ?10 ELSE max_spool END, "
		"max_record = CASE WHEN ?9 THEN ?11 ELSE max_record END, "
		"drop_oldest = CASE WHEN ?9 THEN ?12 ELSE drop_oldest END");
	bool written;
	if (row == NULL)
		return false;
	for (int i = 0; i < COUNTERS; i++)
		(void)sqlite3_bind_int64(row, i + 1, counters[i]);
	(void)sqlite3_bind_int64(row, 8, rescue->bytes);
	(void)sqlite3_bind_int(row, 9, rescue->ledger);
	(void)sqlite3_bind_int64(row, 10, rescue->max_spool);
	(void)sqlite3_bind_int64(row, 11, rescue->max_record);
	(void)sqlite3_bind_int64(row, 12, rescue->drop_oldest);
	bool done = step(rescue, row, &written);
	(void)sqlite3_finalize(row);
	if (!done || lost + rescue->lost_before == 0)
		return done;
	(void)snprintf(note, sizeof note, "%" PRId64, lost + rescue->lost_before);
	row = prepare(rescue, "INSERT OR REPLACE INTO agent_state (name, value) VALUES ('lost', ?)");
	if (row == NULL)
		return false;
	(void)sqlite3_bind_text(row, 1, note, -1, SQLITE_STATIC);
	done = step(rescue, row, &written);
	(void)sqlite3_finalize(row);
	return done;
}

static bool settle_rest(struct rescue *rescue)
{
	static const char sequence[] =
		"DELETE FROM sqlite_sequence WHERE name = 'interactions';"
		"INSERT INTO sqlite_sequence (name, seq) VALUES ('interactions', %lld)";
	if (!rescue->sequence_read)
		rescue->sequence += ID_MARGIN;
	char *text = sqlite3_mprintf(sequence, (long long)rescue->sequence);
	bool done = text != NULL ? run(rescue, text) : fail(rescue, RESCUE_NO_MEMORY);
	sqlite3_free(text);
	return done &&
	       /* The agent's report is of the damaged file; and a key is a dead letter's only as
	        * long as there is the dead letter. */
	       run(rescue, "DELETE FROM agent_state WHERE name = 'report';"
	                   "DELETE FROM known_keys WHERE delivered_at IS NULL "
	                   "AND key NOT IN (SELECT key FROM dead_letters WHERE key IS NOT NULL);"
	                   "INSERT OR REPLACE INTO known_keys (key, delivered_at) "
	                   "SELECT key, NULL FROM dead_letters WHERE key IS NOT NULL;"
	                   "DELETE FROM attempts WHERE id NOT IN (SELECT id FROM interactions)");
}

/* --- What is missing ---------------------------------------------------- */

static int compare_holes(const void *left, const void *right)
{
	const struct hole *a = left, *b = right;
	if (a->table != b->table)
		return a->table < b->table ? -1 : 1;
	return a->from < b->from ? -1 : a->from > b->from;
}

static void add_range(struct salvage_report *report, enum table table, int64_t from, int64_t to)
{
	struct salvage_range *last = report->range_count > 0
		? &report->ranges[report->range_count - 1] : NULL;
	bool dead = table == DEAD_LETTERS;
	if (from > to)
		return;
	if (last != NULL && last->dead == dead && from <= last->to + 1) {
		last->to = to > last->to ? to : last->to;
		return;
	}
	if (report->range_count == SALVAGE_RANGES) {
		report->more_ranges = true;
		return;
	}
	report->ranges[report->range_count++] = (struct salvage_range){ from, to, dead };
}

/* What of each hole was not filled from elsewhere. */
static bool name_ranges(struct rescue *rescue)
{
	static const char *const sql[] = {
		"SELECT id FROM interactions WHERE id > ?1 AND id <= ?2 ORDER BY id",
		"SELECT id FROM dead_letters WHERE id > ?1 AND id <= ?2 ORDER BY id"
	};
	if (rescue->hole_count > 1)
		qsort(rescue->holes, rescue->hole_count, sizeof rescue->holes[0], compare_holes);
	for (size_t i = 0; i < rescue->hole_count; i++) {
		const struct hole *hole = &rescue->holes[i];
		int64_t after = hole->from > 0 ? hole->from : 0;
		int64_t to = hole->to < rescue->sequence ? hole->to : rescue->sequence;
		sqlite3_stmt *row = prepare(rescue, sql[hole->table == DEAD_LETTERS]);
		if (row == NULL)
			return false;
		(void)sqlite3_bind_int64(row, 1, after);
		(void)sqlite3_bind_int64(row, 2, to);
		while (sqlite3_step(row) == SQLITE_ROW && !rescue->report->more_ranges) {
			int64_t id = sqlite3_column_int64(row, 0);
			add_range(rescue->report, hole->table, after + 1, id - 1);
			after = id;
		}
		(void)sqlite3_finalize(row);
		add_range(rescue->report, hole->table, after + 1, to);
	}
	return true;
}

/* --- All of it ---------------------------------------------------------- */

/* What every header of a spool says alike. Where that is damaged, so may the version be. */
static bool is_sound_header(const uint8_t *header)
{
	static const uint8_t fractions[] = { 64, 32, 32 };
	bool sound = memcmp(header, "SQLite format 3", 16) == 0 && header[18] <= 2 &&
	             header[19] <= 2 && header[20] == 0 && memcmp(header + 21, fractions, 3) == 0 &&
	             pages_number(header + 44) <= 4 && pages_number(header + 56) == 1;
	for (int i = 72; i < 92; i++)
		sound = sound && header[i] == 0;
	return sound;
}

/* What the file says of itself. False: it is a newer program's. */
static bool look_at_header(struct rescue *rescue)
{
	if (!pages_read(rescue->pages, 1, rescue->page) ||
	    pages_number(rescue->page + 68) != SCHEMA_APPLICATION_ID)
		return true;
	rescue->seen = true;
	uint32_t version = pages_number(rescue->page + 60);
	if (version > SCHEMA_VERSION && version <= NEWER_MAX && is_sound_header(rescue->page))
		return fail(rescue, RESCUE_NEWER);
	return true;
}

static bool copy(struct rescue *rescue)
{
	if (!look_at_header(rescue) || !find_owners(rescue) || !prepare_all(rescue) ||
	    !each_cell(rescue, LEDGER_TABLE, take_ledger) ||
	    !each_cell(rescue, SEQUENCE, take_sequence) ||
	    !each_cell(rescue, KNOWN_KEYS, take_other) ||
	    !each_cell(rescue, ATTEMPTS_TABLE, take_other) ||
	    !each_cell(rescue, IMPORTED, take_other) ||
	    !each_cell(rescue, RECEIPTS_TABLE, take_other) ||
	    !each_cell(rescue, AGENT_STATE, take_other) ||
	    !keep_all(rescue, false) || (rescue->doubts && !keep_all(rescue, true)))
		return false;
	if (!rescue->seen)
		return fail(rescue, RESCUE_FOREIGN);
	if (!settle_rest(rescue) || !settle_ledger(rescue))
		return false;
	for (int table = KNOWN_KEYS; table <= AGENT_STATE; table++)
		rescue->report->others_lost = rescue->report->others_lost || rescue->torn[table];
	return rescue->report->lost == 0 || name_ranges(rescue);
}

enum rescue_result rescue_copy(struct pages *pages, sqlite3 *to, int64_t wall,
                               struct salvage_report *report)
{
	struct rescue rescue = {
		.pages = pages, .to = to, .wall = wall, .report = report, .result = RESCUE_NO_MEMORY,
		.page = malloc(pages->size), .owners = calloc((size_t)pages->count + 1, 1),
		.fits = calloc((size_t)pages->count + 1, 1),
		.stack = calloc((size_t)pages->count + 1, sizeof *rescue.stack)
	};
	if (rescue.page != NULL && rescue.owners != NULL && rescue.fits != NULL &&
	    rescue.stack != NULL && copy(&rescue))
		rescue.result = RESCUE_DONE;
	for (size_t i = 0; i < TABLE_COUNT; i++)
		(void)sqlite3_finalize(rescue.inserts[i]);
	(void)sqlite3_finalize(rescue.twins[0]);
	(void)sqlite3_finalize(rescue.twins[1]);
	(void)sqlite3_finalize(rescue.gone);
	free(rescue.page);
	free(rescue.owners);
	free(rescue.fits);
	free(rescue.stack);
	free(rescue.holes);
	return rescue.result;
}
