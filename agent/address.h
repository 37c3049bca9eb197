/* Judges the addresses in a configuration: what is unsafe (plain http to another
 * host, a password in the URL) and what is surely a mistake. Not a whole URL
 * parser: the transport judges the rest. Pure, and quotes nothing of the address.
 */
#ifndef AGENT_ADDRESS_H
#define AGENT_ADDRESS_H

/* What is wrong with the endpoint's URL, in words that complete "url: ...", or NULL.
 * Static storage. */
const char *address_check_url(const char *url);

/* Likewise for a proxy: "", "environment" or a URL with a host and a port. */
const char *address_check_proxy(const char *proxy);

#endif
