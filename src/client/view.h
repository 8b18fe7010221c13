/* Private views: copy-on-write mappings of sealed buffers, and how many there may be.
 *
 * Each view is a mapping of its own, also of bytes that another view of this process
 * shows: it belongs to one result, and what its owner changes must not be seen in
 * another. So a result has one mapping for each extent that it shows, however many rows
 * or columns that is. What is only read needs none: buffers lie in the one shared mapping
 * of the arena.
 *
 * The kernel gives a process vm.max_map_count mappings (65,530 by default) and then
 * fails every mmap(), also those of malloc() and of the program's other libraries. So
 * views get half of them at most; beyond that, and where mmap() fails, a view is refused
 * and its bytes are copied. */
#ifndef CLIENT_VIEW_H
#define CLIENT_VIEW_H

#include "client/janitor.h"

#include <datasystem/datasystem.h>

enum { VIEWS_MAX = 32768 }; /* Whatever vm.max_map_count says. */

/* How many views this process may have mapped at once. */
uint32_t views_max(void);

/* Unmap, then release the buffers: the pins guard what the views show. */
void views_unmap(const struct dropped_view *views, uint32_t count);

#endif
