/* The file with a secret that several programs share. */
#ifndef OS_SECRET_FILE_H
#define OS_SECRET_FILE_H

#include <datasystem/status.h>

#include <stddef.h>
#include <stdint.h>

enum { SECRET_BYTES_MAX = 4096 };

/* Owner: whoever holds it, and wipes it when it was used. */
struct secret {
    uint8_t bytes[SECRET_BYTES_MAX];
    size_t len; /* 0: there is none. */
};

/* Reads `path`; NULL or "": what the environment's DATASYSTEM_AUTH_KEY_FILE names, and
 * without that there is no secret. White space at the end is not part of it.
 *
 *   DS_IO        it cannot be read
 *   DS_INVALID   the environment names a relative path, or the file is shorter than `bytes_min`, longer than SECRET_BYTES_MAX, another
 *                user's (but root's), or open to group or others
 *
 * All texts have the path and what to do. */
DS_MUST_USE enum ds_status secret_file_read(const char *path, size_t bytes_min,
                                            struct secret *out, struct ds_error *err);

/* A file without a name that holds it, for another program, to be closed by the caller.
 * DS_IO */
DS_MUST_USE enum ds_status
secret_hand_over(const struct secret *secret, int *out_fd, struct ds_error *err);
void secret_wipe(struct secret *secret);

#endif
