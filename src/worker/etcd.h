/* Asking an etcd: one question at a time, at one of the addresses of --etcd_address, logged
 * in where --etcd_username says so. Where there is no answer, the next address is asked.
 * Owner: loop thread. */
#ifndef WORKER_ETCD_H
#define WORKER_ETCD_H

#include "wire/cursor.h"

#include <uv.h>

struct etcd;
struct worker_flags;

enum { ETCD_REASON_BYTES = 512 };

/*   DS_INVALID      --etcd_address is no list of host:port
 *   DS_UNSUPPORTED  libcurl is not installed
 *   DS_NO_MEMORY, DS_IO */
DS_MUST_USE enum ds_status etcd_open(uv_loop_t *loop, const struct worker_flags *flags,
                                     struct etcd **out, struct ds_error *err);

/* Nobody is called any more. Accepts NULL. */
void etcd_close(struct etcd *etcd);

/* `reason` is NULL, or why there is no answer. Both are borrowed. */
typedef void (*etcd_answer_fn)(void *arg, struct ds_slice answer, const char *reason);

/* Takes what `body` has. `on_answer` is called in the loop, never from here, after a second
 * for each address at most, or two with a login. No other question may be under way. */
void etcd_ask(struct etcd *etcd, const char *path, struct writer *body,
              etcd_answer_fn on_answer, void *arg);

/* The latest answer was none. Writes which address gave it, and `why`. */
void
etcd_reject(struct etcd *etcd, const char *why, char out_reason[ETCD_REASON_BYTES]);

#endif
