/* The addresses in a configuration; see address.h. */
#include "agent/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What of an address comes after "scheme://": HOST or [IPV6], :PORT, the rest. */
struct authority {
	char host[256]; /* without brackets */
	bool bracketed;
	const char *rest;
};

static const char *parse_authority(const char *text, struct authority *authority)
{
	const char *host = text, *end = text + strcspn(text, "/?#"), *host_end;
	const char *port = NULL;
	size_t size;

	authority->bracketed = *host == '[';
	authority->rest = end;
	if (authority->bracketed) {
		host++;
		host_end = memchr(host, ']', (size_t)(end - host));
		if (host_end == NULL)
			return "the ] after the IPv6 address is missing";
		if (host_end + 1 < end && host_end[1] != ':')
			return "only a port may stand between the IPv6 address and the path";
		if (host_end + 1 < end)
			port = host_end + 2;
	} else {
		host_end = memchr(host, ':', (size_t)(end - host));
		if (host_end == NULL)
			host_end = end;
		else
			port = host_end + 1;
	}
	size = (size_t)(host_end - host);
	if (size == 0)
		return "the host's name is missing";
	if (size >= sizeof(authority->host))
		return "the host's name is too long";
	memcpy(authority->host, host, size);
	authority->host[size] = '\0';
	if (authority->bracketed) {
		struct in6_addr address;

		if (inet_pton(AF_INET6, authority->host, &address) != 1)
			return "what stands in [ ] is not an IPv6 address";
	} else {
		for (size_t i = 0; i < size; i++) {
			char c = authority->host[i];

			if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
			      (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '_'))
				return "the host's name may have letters a-z, digits, dots and "
				       "hyphens alone";
		}
	}
	if (port != NULL) {
		char *after;
		long number = *port >= '0' && *port <= '9' ? strtol(port, &after, 10) : 0;

		if (number < 1 || number > 65535 || after != end)
			return "the port is not a number from 1 to 65535";
	}
	return NULL;
}

static bool is_loopback(const struct authority *authority)
{
	struct in_addr v4;
	struct in6_addr v6;

	if (authority->bracketed)
		return inet_pton(AF_INET6, authority->host, &v6) == 1 && IN6_IS_ADDR_LOOPBACK(&v6);
	return strcasecmp(authority->host, "localhost") == 0 ||
	       (inet_pton(AF_INET, authority->host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127);
}

static const char *check_address_characters(const char *text)
{
	for (; *text != '\0'; text++)
		if (*text <= ' ' || *text > '~' || strchr("\"<>\\^`{|}", *text) != NULL)
			return "it has a space or another character that an address cannot have "
			       "(written as %20 and so on, in the path alone)";
	return NULL;
}

const char *address_check_url(const char *url)
{
	struct authority authority;
	const char *wrong = check_address_characters(url);
	bool https = strncasecmp(url, "https://", 8) == 0;
	const char *rest = url + (https ? 8 : 7);

	if (wrong != NULL)
		return wrong;
	if (!https && strncasecmp(url, "http://", 7) != 0)
		return "it does not begin with https://";
	if (memchr(rest, '@', strcspn(rest, "/?#")) != NULL)
		return "it must not have a user or a password (before an @): the keys belong "
		       "into their own files";
	if (strchr(rest, '#') != NULL)
		return "it must not have a fragment (from a # on)";
	wrong = parse_authority(rest, &authority);
	if (wrong != NULL)
		return wrong;
	if (!https && !is_loopback(&authority))
		return "http:// would send the keys and the conversations unencrypted, so it is "
		       "for this machine alone (127.0.0.1, [::1], localhost)";
	return NULL;
}

const char *address_check_proxy(const char *proxy)
{
	static const char *const schemes[] = { "http://", "https://", "socks5://", "socks5h://" };
	struct authority authority;
	const char *rest = NULL, *at, *wrong;

	if (*proxy == '\0' || strcmp(proxy, "environment") == 0)
		return NULL;
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (strncasecmp(proxy, schemes[i], strlen(schemes[i])) == 0)
			rest = proxy + strlen(schemes[i]);
	if (rest == NULL)
		return "it is none of the kinds that there are";
	wrong = check_address_characters(rest);
	if (wrong != NULL)
		return wrong;
	at = memrchr(rest, '@', strcspn(rest, "/?#"));
	wrong = parse_authority(at != NULL ? at + 1 : rest, &authority);
	if (wrong != NULL)
		return wrong;
	if (strcmp(authority.rest, "") != 0 && strcmp(authority.rest, "/") != 0)
		return "nothing may follow the host and the port";
	return NULL;
}
