/* Memory files: shared memory without a name in any file system.
 *
 * The supervisor creates them and keeps them open; worker and clients map them through
 * descriptors passed over the Unix socket. Sizes are sealed, so that nobody can shrink
 * one under another's feet. Owner of a descriptor: whoever holds it. */
#ifndef OS_MEMFILE_H
#define OS_MEMFILE_H

#include <datasystem/status.h>

#include <stdbool.h>
#include <stdint.h>

/* A sparse file of `bytes`, size sealed. huge_page_bytes 0 or 2 MiB; no memory is
 * reserved yet. Close-on-exec.
 *   DS_NO_MEMORY, DS_IO, DS_UNSUPPORTED (no huge pages: names the remedy) */
DS_MUST_USE enum ds_status
memfile_create(const char *name, uint64_t bytes, uint64_t huge_page_bytes, int *out_fd,
               struct ds_error *err);

/* Back [offset, offset + bytes) with zeroed memory now, what is there already stays.
 * Blocks while the kernel zeroes pages (0.6 to 2.5 GB/s). DS_NO_MEMORY instead of a
 * SIGBUS later. The caller has checked the size against free memory: a wild size ends
 * with the OOM killer, not with an error. */
DS_MUST_USE enum ds_status
memfile_populate(int fd, uint64_t offset, uint64_t bytes, struct ds_error *err);

/* Map [offset, offset + bytes) shared; from 2 MiB on at a multiple of 2 MiB, so that
 * huge pages of the file are huge in the mapping, too. */
DS_MUST_USE enum ds_status memfile_map(int fd, uint64_t offset, uint64_t bytes,
                                       bool writable, void **out, struct ds_error *err);

/* Map [offset, offset + bytes) copy-on-write; offset and length need not be aligned:
 * *out is the first byte asked for, memfile_unmap_private() takes the same pair. */
DS_MUST_USE enum ds_status memfile_map_private(int fd, uint64_t offset, uint64_t bytes,
                                               void **out, struct ds_error *err);
void memfile_unmap_private(void *data, uint64_t bytes);

void memfile_unmap(void *data, uint64_t bytes);

/* Before the first write to a populated range of a shared mapping: enter it into this
 * process's page table by reading. A fault for a read maps the pages around it as well
 * (fault_around_bytes, 64 KiB by default) and for writing too, a fault for a write maps
 * one: 64 MiB are first written in 10 ms instead of 34. Costs next to nothing where all
 * is mapped already. */
void memfile_prefault(const void *data, uint64_t bytes);

/* Put the populated range of a shared mapping on huge pages (transparent ones, of 2 MiB),
 * as far as they are whole in it; for all mappings of the file, whose bytes stay. Works
 * whatever the system's settings say, but for `shmem_enabled` = deny (Linux 6.1,
 * MADV_COLLAPSE). Blocks while the kernel copies (0.6 to 1.3 GB/s); whoever uses the
 * range meanwhile waits for a page at most.
 *   DS_UNSUPPORTED   the kernel cannot
 *   DS_NO_MEMORY     it has no room in one piece now
 *   DS_TIMEOUT       somebody uses a page of it in another way for a moment: try again */
DS_MUST_USE enum ds_status
memfile_collapse(void *data, uint64_t bytes, struct ds_error *err);

/* Marks the file with a number for as long as *out_fd, or a copy of it that was sent or
 * inherited, is open in any process: the kernel takes the mark away with the last one,
 * however that ends. Several may set the same mark. The mark is a read lock of one byte
 * (which need not exist) through an open file description of its own. *out_fd is
 * read-only and close-on-exec.
 *   DS_IO   no descriptor is left, or /proc is not mounted */
DS_MUST_USE enum ds_status
memfile_mark(int fd, uint64_t number, int *out_fd, struct ds_error *err);

/* Does anybody hold the mark? When in doubt, yes. */
bool memfile_is_marked(int fd, uint64_t number);

/* Size of the file behind a descriptor. */
DS_MUST_USE enum ds_status memfile_size(int fd, uint64_t *out, struct ds_error *err);

#endif
