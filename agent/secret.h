/* Keys and people's texts are in this program's memory while it works. None of it is
 * to outlive its use there, nor to leave the process but to the endpoint.
 *
 * Not promised: that memory is never swapped out (encrypt the swap), and copies that
 * libcurl, TLS and the kernel make of what is sent.
 */
#ifndef AGENT_SECRET_H
#define AGENT_SECRET_H

#include <stddef.h>

/* No core file of this process, and no other process of the same user may read its
 * memory or its environment. Call first of all. */
void secret_protect_process(void);

/* Overwrites. */
void secret_wipe(char *bytes, size_t size);

/* Overwrites and frees; NULL is allowed. */
void secret_free(char *bytes, size_t size);

/* Likewise, a string. */
void secret_free_string(char *string);

#endif
