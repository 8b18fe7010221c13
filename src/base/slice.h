/* struct ds_slice (public) borrowed by value: valid until the caller returns. */
#ifndef BASE_SLICE_H
#define BASE_SLICE_H

#include <datasystem/datasystem.h>

#include <stdbool.h>
#include <string.h>

static inline struct ds_slice
slice(const void *data, size_t len)
{
    return (struct ds_slice){.data = data, .len = len};
}

static inline struct ds_slice
slice_of_text(const char *text)
{
    return slice(text, strlen(text));
}

static inline bool
slice_equal(struct ds_slice a, struct ds_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

#endif
