/* The worker's command line. One table (flags_table.h) holds every flag: the parser,
 * the documentation (docs/flags.md) and dscli's defaults come from it.
 *
 * A flag has effect, or is accepted without (a setting of other software that has no
 * counterpart here), or belongs to a part that is not built yet. The last two are
 * collected when the user sets them to something else than their default, so that the
 * program can say so in one line. Pure: no system calls, no allocation. */
#ifndef WORKER_FLAGS_H
#define WORKER_FLAGS_H

#include <datasystem/status.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum flag_kind { FLAG_STRING, FLAG_BOOL, FLAG_INT, FLAG_REAL };
enum flag_effect { FLAG_USED, FLAG_INERT, FLAG_LATER };

enum { FLAGS_MAX = 256 };

/* One row of the table; static, never freed. */
struct flag {
    const char *name;
    const char *value; /* The default, as text. */
    const char *about; /* One line for the documentation. */
    const char *part;  /* FLAG_LATER: the part that is not built yet. */
    enum flag_kind kind;
    enum flag_effect effect;
    int64_t min; /* FLAG_INT and FLAG_REAL; both inclusive. */
    int64_t max;
    size_t member; /* FLAG_USED: offset in struct worker_flags. */
};

/* Members are named like the flag, but home, which is --datasystem_home_dir.
 * Owner: whoever holds it. Texts borrow from argv or the table. */
struct worker_flags {
    const char *worker_address;
    const char *bind_address; /* Empty: worker_address. */
    const char *metastore_address;
    bool start_metastore_service;
    const char *etcd_address;
    const char *etcd_username;
    const char *etcd_password;
    bool enable_etcd_auth;
    const char *etcd_ca;
    const char *etcd_cert;
    const char *etcd_key;
    const char *etcd_passphrase_path;
    const char *etcd_target_name_override;
    const char *cluster_name;
    int64_t node_timeout_s;
    const char *owner;
    const char *home;
    const char *auth_key_file;
    bool encrypt_connections;

    int64_t shared_memory_size_mb;
    bool shared_memory_populate;
    bool enable_huge_tlb;
    bool enable_thp;
    bool ipc_through_shared_memory;
    bool enable_data_replication;
    bool enable_rdma;
    const char *unix_domain_socket_dir;
    int64_t max_client_num;
    int64_t client_dead_timeout_s;

    const char *health_check_path;
    const char *ready_check_path;
    const char *log_dir;
    const char *log_filename;
    int64_t max_log_size; /* MB */
    int64_t max_log_file_num;
    int64_t minloglevel;
    int64_t v;

    const char *given[FLAGS_MAX]; /* By row of the table; NULL: not on the line. */
};

/* The worker is to belong to a cluster. */
static inline bool
flags_name_cluster(const struct worker_flags *flags)
{
    return flags->metastore_address[0] != '\0' || flags->etcd_address[0] != '\0';
}

/* Read argv[1..] as "--name=value" or "--name value"; the last of a repeated flag wins,
 * what is not there gets its default. Writes *out only on DS_OK; it borrows from argv.
 *
 *   DS_INVALID   an unknown flag (the nearest is named), no value, or one that the flag
 *                does not allow (what it allows is named) */
DS_MUST_USE enum ds_status flags_parse(int argc, char *const *argv,
                                       struct worker_flags *out, struct ds_error *err);

/* The flags that were set to something else than their default and change nothing, as
 * "a, b (spill to disk is not built yet)". False, and an empty text, if there are none;
 * ends in "..." where `out_bytes` is too small. */
bool
flags_without_effect(const struct worker_flags *flags, char *out, size_t out_bytes);

/* The whole table, for the generator of docs/flags.md. */
const struct flag *flags_all(size_t *out_count);

/* "a whole number from 1 to 10000" and so on. */
void flags_describe_allowed(const struct flag *flag, char *out, size_t out_bytes);

#endif
