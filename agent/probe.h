/* Looks at the endpoint by itself, outside the flow: connects and reads its
 * certificate, or posts one record that is marked as a test. For `check` alone.
 *
 * With the same libcurl options as the flow's own posts, so that what works here
 * works there. probe_connect() never sends a byte of HTTP; nothing here touches a
 * spool. Both block, for at most the configured timeout a step.
 */
#ifndef AGENT_PROBE_H
#define AGENT_PROBE_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/config.h"
#include "agent/policy.h"

#define PROBE_TEXT_SIZE 256

struct probe_certificate {
	bool known;
	char subject[PROBE_TEXT_SIZE], issuer[PROBE_TEXT_SIZE];
	int64_t starts, ends; /* s since 1970; -1: not understood */
};

enum probe_step {
	PROBE_SETUP,       /* libcurl cannot be used as configured */
	PROBE_PROXY_NAME,  /* the proxy's name does not resolve */
	PROBE_NAME,        /* the endpoint's name does not resolve */
	PROBE_TCP,         /* no connection to the endpoint, or to the environment's proxy */
	PROBE_PROXY_TCP,   /* no connection to the proxy that is configured */
	PROBE_PROXY,       /* the proxy refuses */
	PROBE_TLS,         /* no handshake */
	PROBE_CERTIFICATE, /* the certificate is refused, or one of ours cannot be used */
	PROBE_DONE
};

struct probe {
	enum probe_step failed;  /* PROBE_DONE: nothing */
	bool tls, proxied;       /* https; through a proxy */
	char host[PROBE_TEXT_SIZE], port[8];
	char address[64];        /* that it connected to, the proxy's where there is one; "" */
	int64_t name_ms, connect_ms, tls_ms; /* since the start; 0: not reached */
	char detail[PROBE_TEXT_SIZE];        /* libcurl's words; "" where there are none */
	struct probe_certificate certificate; /* also of one that is refused, where it shows */
};

/* Connects to the endpoint of `config`, whose url is set, and ends the connection. */
void probe_connect(const struct config *config, struct probe *probe);

struct probe_sent {
	char uuid[33];              /* of the test record */
	int status;                 /* HTTP; 0: there was no answer */
	struct judgement judgement; /* what the answer means, as for any record */
	char detail[PROBE_TEXT_SIZE]; /* libcurl's words where there was no answer, else "" */
};

/* Posts one record, marked as a test, with the keys of `app`, which are known. False: it
 * could not even be tried; `*why` then says why (static). */
bool probe_send(const struct config *config, const struct config_app *app,
                struct probe_sent *sent, const char **why);

#endif
