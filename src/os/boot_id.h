/* Which boot of which machine this is: processes with the same text share a kernel. */
#ifndef OS_BOOT_ID_H
#define OS_BOOT_ID_H

#include <stdbool.h>

enum { BOOT_ID_BYTES = 37 }; /* A UUID's text, terminated. */

/* Reads /proc once per process: it does not change. False, with an empty text, where it
 * cannot be read; the next call then tries again. Safe from any thread and in a forked
 * child: there is no lock. */
bool boot_id_get(char out[BOOT_ID_BYTES]);

#endif
