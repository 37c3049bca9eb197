/* What an answer means, and how long to wait. Pure: no clock, no I/O, no
 * state; time and randomness are passed in.
 *
 * A verdict is about one of three things, and mixing them up is how other
 * shippers lose data: the record (delivered, rejected, busy), the destination
 * (unavailable, endpoint held), or the configuration (app held, endpoint held).
 */
#ifndef AGENT_POLICY_H
#define AGENT_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How an attempt to POST ended. */
enum answer_kind {
	ANSWER_HTTP,          /* a complete HTTP answer; status, headers and body count */
	ANSWER_NO_CONNECTION, /* name resolution, connecting or the TLS handshake failed */
	ANSWER_BROKEN,        /* the connection ended or broke before a complete answer */
	ANSWER_TIMEOUT,       /* no progress, or no answer in time */
	ANSWER_CERTIFICATE,   /* the endpoint's certificate was refused; nothing was sent */
	ANSWER_LOCAL          /* not the network's doing: no memory, no descriptors */
};

struct answer {
	enum answer_kind kind;
	int status;              /* ANSWER_HTTP: the HTTP status */
	const char *body;        /* ANSWER_HTTP: what was kept of the body */
	size_t body_size;
	bool body_cut;           /* the body was larger than what is kept */
	bool open_ended;         /* the connection's end alone says where the body ends */
	const char *retry_after; /* the headers' values, NULL where absent */
	const char *date;
	int64_t traffic;         /* bytes on the line, both ways, as well as it is known; 0: not */
	const char *detail;      /* else: the transport's own words; never NULL then */
};

enum verdict {
	VERDICT_DELIVERED,    /* the row leaves the spool */
	VERDICT_REJECTED,     /* this record will never be taken: dead letter */
	VERDICT_UNAVAILABLE,  /* the destination can't now; nothing is known of the record */
	VERDICT_BUSY,         /* this record alone is to be tried later (409) */
	VERDICT_APP_HELD,     /* these keys are refused (401, 403) */
	VERDICT_ENDPOINT_HELD /* this URL is not the endpoint, or not to be trusted */
};

struct judgement {
	enum verdict verdict;
	const char *code;     /* one word, e.g. "http-503"-like class: "server-error" */
	const char *sentence; /* fixed, in plain words, without the server's text */
	bool whole;           /* UNAVAILABLE: it surely concerns the destination as a whole:
	                         nothing was reached, or 429. Otherwise a 5xx, a timeout or a
	                         broken connection may yet be this record's own */
	int64_t retry_after;  /* ms the server asked to wait, at most 24 h; -1: it did not say */
};

/* The verdict on one attempt, by the table of the delivery rules in README.md.
 * `wall` is ms since 1970, used only for a Retry-After date in an answer that
 * has no Date header of its own. Strings in the result are static. */
struct judgement policy_judge(const struct answer *answer, int64_t wall);

/* Retry-After (RFC 9110, 10.2.3) in ms: seconds, or an HTTP-date relative to
 * the answer's own `date` (NULL: to `wall`), so that a wrong local clock does
 * not matter. Never negative, at most 24 h; -1 where `value` is NULL or is
 * neither. */
int64_t policy_retry_after(const char *value, const char *date, int64_t wall);

/* ms to wait after the `failures`-th failure in a row (from 1): full jitter,
 * applied after the cap, so that a fleet at its cap stays spread out: uniform
 * in 1 .. min(cap, base * 2^(failures-1)). `random` is any 64 random bits. */
int64_t policy_backoff(unsigned failures, int64_t base, int64_t cap, uint64_t random);

#endif
