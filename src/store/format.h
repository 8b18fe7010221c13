/* Where everything lies in the two files, and whether a file is one of ours. */
#ifndef STORE_FORMAT_H
#define STORE_FORMAT_H

#include "store/store.h"

#define TABLE_HEADER_BYTES 4096u

/* DS_MISMATCH: it is not a table (pins file) that this build can use. The text says
 * what was found and what was expected. On DS_OK every size and offset of the header
 * lies inside the memory. */
DS_MUST_USE enum ds_status
format_check_table(const struct store_memory *memory, struct ds_error *err);
DS_MUST_USE enum ds_status
format_check_pins(const struct store_memory *memory, struct ds_error *err);

#endif
