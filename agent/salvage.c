/* The salvage in words; see salvage.h. */
#include "agent/salvage.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "agent/lock.h"
#include "agent/status.h"
#include "spool/salvage.h"

/* For programs that have the spool open for a moment, as a producer has. */
#define PATIENCE_MS 5000

static const char *counted(int64_t count, const char *one, const char *many)
{
	return count == 1 ? one : many;
}

static void print_ranges(const struct salvage_report *report, bool dead)
{
	const char *before = "";
	bool any = false;
	for (size_t i = 0; i < report->range_count; i++) {
		const struct salvage_range *range = &report->ranges[i];
		if (range->dead != dead)
			continue;
		if (!any)
			(void)fprintf(stderr, "reconify-agent: %s to be found among the ids ",
			              dead ? "dead letters that could not be read are"
			                   : "records that could not be read are");
		any = true;
		if (range->from == range->to)
			(void)fprintf(stderr, "%s%" PRId64, before, range->from);
		else
			(void)fprintf(stderr, "%s%" PRId64 " to %" PRId64, before, range->from, range->to);
		before = ", ";
	}
	if (any)
		(void)fprintf(stderr, "%s\n", report->more_ranges ? ", and others" : "");
}

static void print_report(const char *path, const struct salvage_report *report)
{
	(void)printf("%s: salvaged: %" PRId64 " waiting %s and %" PRId64 " %s kept\n", path,
	             report->waiting, counted(report->waiting, "record", "records"), report->dead,
	             counted(report->dead, "dead letter", "dead letters"));
	(void)printf("%s: this is the damaged spool now\n", report->aside);
	if (report->doubtful > 0)
		(void)fprintf(stderr, "reconify-agent: %" PRId64 " of the dead %s may hold a part of another "
		              "record's texts, and %s not sent: 'reconify-agent list --dead --reason "
		              "doubtful' names %s\n", report->doubtful,
		              counted(report->dead, "letter", "letters"),
		              counted(report->doubtful, "is", "are"),
		              counted(report->doubtful, "it", "them"));
	if (report->lost > 0)
		(void)fprintf(stderr, "reconify-agent: %" PRId64 " %s could not be read; the ledger counts "
		              "%s as removed, and status as lost\n", report->lost,
		              counted(report->lost, "record", "records"),
		              counted(report->lost, "it", "them"));
	if (report->lost < 0)
		(void)fprintf(stderr, "reconify-agent: how many records could not be read cannot be known, "
		              "for the ledger is damaged, too\n");
	print_ranges(report, false);
	print_ranges(report, true);
	if (report->counters_lost)
		(void)fprintf(stderr, "reconify-agent: the ledger could not be read: it begins anew with "
		              "what was kept\n");
	if (report->others_lost)
		(void)fprintf(stderr, "reconify-agent: some of the keys that were remembered, counts of "
		              "attempts, receipts or notes could not be read: a record with such a key is "
		              "accepted once more\n");
	if (report->lost != 0)
		(void)fprintf(stderr, "reconify-agent: what to do: let the producers insert these again, "
		              "if they still have them; keep %s until then, and delete it afterwards: it "
		              "holds people's texts\n", report->aside);
	else
		(void)fprintf(stderr, "reconify-agent: what to do: look into the disk (dmesg, smartctl); "
		              "delete %s when you are done with it: it holds people's texts\n",
		              report->aside);
}

int salvage_spool(const struct config *config, int64_t wall, bool *incomplete)
{
	struct salvage_report report;
	struct spool_error error;
	struct lock lock;
	pid_t holder;
	const char *path = config->spool_path;
	switch (lock_take(&lock, path, &holder)) {
	case LOCK_TAKEN:
		break;
	case LOCK_HELD:
		if (holder > 0)
			(void)fprintf(stderr, "reconify-agent: %s: an agent runs (pid %ld): stop it first; "
			              "nothing was changed\n", path, (long)holder);
		else
			(void)fprintf(stderr, "reconify-agent: %s: another process holds its lock; nothing was "
			              "changed\n", path);
		return EX_TEMPFAIL;
	case LOCK_FAILED:
		(void)fprintf(stderr, "reconify-agent: %s-agent.lock: cannot be locked: %s\n", path,
		              strerror(errno));
		return errno == EACCES || errno == EPERM || errno == EROFS ? EX_NOPERM
		       : errno == ENOENT ? EX_NOINPUT : EX_IOERR;
	}
	enum spool_status status = spool_salvage(path, wall, PATIENCE_MS, &report, &error);
	lock_release(&lock);
	if (status != SPOOL_OK) {
		(void)fprintf(stderr, "reconify-agent: %s\n", error.sentence);
		return status_exit_code(status);
	}
	if (report.needed)
		print_report(path, &report);
	else
		(void)printf("%s: sound: there is nothing to salvage\n", path);
	*incomplete = report.needed && (report.lost != 0 || report.doubtful != 0 ||
	                                report.counters_lost || report.others_lost);
	return EX_OK;
}
