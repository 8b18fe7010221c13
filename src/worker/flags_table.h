/* The flag table: the one place where a flag exists. Private to flags.c.
 *
 *   USED_*    has effect: a member of struct worker_flags of the same name
 *   INERT_*   accepted, without effect here
 *   LATER_*   accepted; belongs to a part that is not built yet */
#ifndef WORKER_FLAGS_TABLE_H
#define WORKER_FLAGS_TABLE_H

#include "worker/flags.h"

/* Offset of a member, which must be of the type that the flag's kind is stored as. */
#define MEMBER(name, type)                           \
    (offsetof(struct worker_flags, name) *           \
     _Generic(((struct worker_flags *)0)->name, type \
              : (size_t)1))

#define ROW(flag, kind_, text, about_) \
    .name = (flag), .kind = (FLAG_##kind_), .value = (text), .about = (about_)
#define RANGE(least, most) .min = (least), .max = (most)
#define USED(name_, type)  .effect = FLAG_USED, .member = MEMBER(name_, type)
#define INERT              .effect = FLAG_INERT
#define LATER(part_)       .effect = FLAG_LATER, .part = (part_)

#define USED_STRING(name_, text, about_)                             \
    {                                                                \
        ROW(#name_, STRING, text, about_), USED(name_, const char *) \
    }
#define USED_BOOL(name_, text, about_)                     \
    {                                                      \
        ROW(#name_, BOOL, text, about_), USED(name_, bool) \
    }
#define USED_INT(name_, text, least, most, about_)                               \
    {                                                                            \
        ROW(#name_, INT, text, about_), RANGE(least, most), USED(name_, int64_t) \
    }

#define INERT_STRING(name_, text, about_)        \
    {                                            \
        ROW(#name_, STRING, text, about_), INERT \
    }
#define INERT_BOOL(name_, text, about_)        \
    {                                          \
        ROW(#name_, BOOL, text, about_), INERT \
    }
#define INERT_INT(name_, text, least, most, about_)               \
    {                                                             \
        ROW(#name_, INT, text, about_), RANGE(least, most), INERT \
    }
#define INERT_REAL(name_, text, least, most, about_)               \
    {                                                              \
        ROW(#name_, REAL, text, about_), RANGE(least, most), INERT \
    }

#define LATER_STRING(name_, text, part_, about_)        \
    {                                                   \
        ROW(#name_, STRING, text, about_), LATER(part_) \
    }
#define LATER_BOOL(name_, text, part_, about_)        \
    {                                                 \
        ROW(#name_, BOOL, text, about_), LATER(part_) \
    }
#define LATER_INT(name_, text, least, most, part_, about_)               \
    {                                                                    \
        ROW(#name_, INT, text, about_), RANGE(least, most), LATER(part_) \
    }
#define LATER_REAL(name_, text, least, most, part_, about_)               \
    {                                                                     \
        ROW(#name_, REAL, text, about_), RANGE(least, most), LATER(part_) \
    }

#define ANY INT64_MAX

/* The parts that are not built yet, as they stand in "<part> is not built yet". */
#define COORDINATOR "a coordinator"
#define HOST_ID     "host ids"
#define MOVE_LIMIT  "a limit to moving"
#define REBALANCE   "moving data off full nodes"
#define SPILL       "spill to disk"
#define L2          "the second-level store"
#define DEVICE      "transfer to and from devices"
#define RDMA        "RDMA transport"
#define SECURITY    "authentication of tenants"
#define MONITOR     "monitoring"

static const struct flag flag_table[] = {
    /* Addresses and membership. */
    USED_STRING(worker_address, "127.0.0.1:31501",
                "host:port where the worker listens and by which it is known"),
    USED_STRING(
        bind_address, "",
        "host:port to listen on, if worker_address is only what others reach it by"),
    USED_STRING(metastore_address, "", "host:port of the metastore, on the head node"),
    USED_BOOL(start_metastore_service, "false",
              "run the metastore inside this worker, at metastore_address"),
    USED_STRING(
        etcd_address, "",
        "host:port of an etcd, or several with commas between: it decides which "
        "worker has the metastore"),
    LATER_STRING(coordinator_address, "", COORDINATOR, "host:port of a coordinator"),
    USED_STRING(cluster_name, "", "name shown in status and query"),
    USED_STRING(owner, "", "who started the worker, shown in status and errors"),
    {ROW("datasystem_home_dir", STRING, "",
         "folder that paths starting with ./ are relative to; default "
         "$XDG_RUNTIME_DIR/datasystem or /tmp/datasystem-UID, then host_port"),
     USED(home, const char *)},
    LATER_STRING(host_id_env_name, "", HOST_ID,
                 "environment variable whose value is published as host id"),
    USED_STRING(etcd_username, "", "etcd user"),
    USED_STRING(etcd_password, "", "etcd password"),
    USED_BOOL(enable_etcd_auth, "false", "speak TLS with etcd; so does etcd_ca"),
    USED_STRING(etcd_ca, "",
                "file with the certificate authority of etcd; else the system's count"),
    USED_STRING(etcd_cert, "", "file with the client certificate for etcd"),
    USED_STRING(etcd_key, "", "file with the key of the client certificate for etcd"),
    USED_STRING(etcd_passphrase_path, "", "file with that key's passphrase"),
    USED_STRING(etcd_target_name_override, "",
                "name that etcd's certificate is checked against"),
    INERT_INT(etcd_meta_pool_size, "8", 1, ANY, "threads that talk to etcd"),
    INERT_INT(heartbeat_interval_ms, "1000", 1, ANY,
              "time between signs of life to the backend; here they wait for news, a "
              "second at most"),
    USED_INT(node_timeout_s, "10", 1, 86400,
             "lease of membership that the metastore gives: who has not been heard of "
             "for so long is lost"),
    INERT_INT(node_dead_timeout_s, "300", 1, ANY,
              "time after which a silent node is declared dead; node_timeout_s here"),
    INERT_BOOL(auto_del_dead_node, "true",
               "take a dead node off the ring; always so here"),
    INERT_INT(add_node_wait_time_s, "60", 0, ANY,
              "time to gather joining nodes before the ring changes; at once here"),
    INERT_BOOL(enable_hash_ring_self_healing, "false",
               "repair the ring; always so here"),
    INERT_BOOL(enable_reconciliation, "true",
               "compare data with the directory after a restart; always so here"),
    INERT_BOOL(enable_metadata_recovery, "false",
               "rebuild the directory from the workers; always so here"),
    INERT_BOOL(enable_redirect, "true",
               "redirect requests while the ring moves; always so here"),
    INERT_BOOL(enable_leaving_intercept, "false",
               "refuse new data while the node leaves; always so here"),
    INERT_BOOL(enable_distributed_master, "true",
               "share the directory among the workers; always so here"),
    INERT_BOOL(enable_meta_replica, "false", "deprecated"),
    INERT_STRING(other_cluster_names, "", "deprecated"),
    INERT_BOOL(cross_cluster_get_data_from_worker, "true", "deprecated"),
    INERT_BOOL(cross_cluster_get_meta_from_worker, "false", "deprecated"),

    /* Memory. */
    USED_INT(shared_memory_size_mb, "1024", 1, 1 << 24,
             "size of the arena; refused at start where the machine has not as much"),
    USED_BOOL(shared_memory_populate, "false",
              "touch the whole arena before the worker is ready, not behind its back"),
    USED_BOOL(enable_huge_tlb, "false",
              "put the arena on huge pages; vm.nr_hugepages must be set before"),
    USED_BOOL(enable_thp, "false",
              "put the arena on transparent huge pages, in the background (Linux 6.1)"),
    INERT_BOOL(enable_fallocate, "true",
               "reserve the arena's pages; always so here, step by step"),
    INERT_INT(arena_per_tenant, "16", 1, 32, "arenas per tenant; there is one here"),
    INERT_INT(memory_alignment, "64", 1, ANY, "alignment of objects; 64 here"),
    INERT_INT(memory_reclamation_time_second, "600", 0, ANY,
              "delay before free pages go back; the arena keeps its pages here"),
    INERT_STRING(shared_memory_distribution_policy, "none",
                 "spread of the arena over NUMA nodes; use numactl"),
    INERT_INT(oc_shm_threshold_percentage, "100", 0, 100,
              "share of the arena for objects"),
    INERT_INT(oc_shm_transfer_threshold_kb, "500", 0, ANY,
              "smallest object that travels through shared memory; any here"),
    INERT_BOOL(oc_metadata_header, "true", "header in front of each object"),
    USED_BOOL(ipc_through_shared_memory, "true",
              "false: clients read and write through their socket only"),
    USED_STRING(unix_domain_socket_dir, "./datasystem/uds",
                "folder of the Unix socket, 0700"),
    INERT_INT(shared_memory_worker_port, "0", 0, 65535,
              "port that passes descriptors; the Unix socket does here"),
    USED_INT(max_client_num, "200", 1, 10000,
             "clients open at one time that map the arena, or reserve in it over TCP"),
    USED_INT(client_dead_timeout_s, "120", 3, 86400,
             "silence after which a client is given up that came over TCP"),
    INERT_INT(client_reconnect_wait_s, "5", 0, ANY,
              "time for clients to come back after a restart"),
    LATER_INT(eviction_reserve_mem_threshold_mb, "10240", 100, 102400, SPILL,
              "free memory below which objects are evicted"),
    LATER_REAL(eviction_high_watermark_ratio, "0.9", 0, 1, SPILL,
               "use of the arena at which eviction begins"),
    LATER_REAL(eviction_low_watermark_ratio, "0.8", 0, 1, SPILL,
               "use of the arena at which eviction ends"),
    INERT_INT(eviction_thread_num, "1", 1, ANY, "threads that evict"),
    INERT_BOOL(async_delete, "false", "answer a delete before the copies are gone"),

    /* Spill to disk and shared disks. */
    LATER_STRING(spill_directory, "", SPILL, "folder for what memory cannot hold"),
    LATER_INT(spill_size_limit, "0", 0, ANY, SPILL,
              "most bytes on disk; 0: 95 % of it"),
    LATER_REAL(spill_high_watermark_ratio, "0.8", 0, 1, SPILL,
               "use of the disk at which eviction begins"),
    LATER_REAL(spill_low_watermark_ratio, "0.6", 0, 1, SPILL,
               "use of the disk at which eviction ends"),
    INERT_INT(spill_thread_num, "8", 1, ANY, "threads that spill"),
    LATER_INT(spill_file_max_size_mb, "200", 200, 10240, SPILL, "size of a spill file"),
    INERT_INT(spill_file_open_limit, "512", 8, ANY, "spill files open at one time"),
    INERT_BOOL(spill_enable_readahead, "true", "read ahead in spill files"),
    LATER_BOOL(spill_to_remote_worker, "false", SPILL, "spill to another node first"),
    LATER_STRING(shared_disk_directory, "", SPILL, "folder of the disk tier"),
    LATER_INT(shared_disk_size_mb, "0", 0, ANY, SPILL, "size of the disk tier"),
    INERT_INT(shared_disk_arena_per_tenant, "8", 1, 32, "arenas of the disk tier"),

    /* The second-level store. */
    LATER_STRING(l2_cache_type, "none", L2, "none, obs, sfs or distributed_disk"),
    INERT_INT(l2_cache_delete_thread_num, "32", 1, ANY, "threads that delete there"),
    LATER_INT(l2_cache_async_write_queue_size, "10000", 1, ANY, L2, "writes waiting"),
    LATER_INT(l2_cache_async_write_rate_limit_mb, "200", 1, ANY, L2, "MB/s written"),
    LATER_INT(object_del_retry_delay_sec, "3600", 0, ANY, L2,
              "delay before a failed delete is tried again"),
    LATER_BOOL(enable_l2_cache_fallback, "true", L2, "read there what memory lacks"),
    LATER_BOOL(oc_io_from_l2cache_need_metadata, "true", L2,
               "read there only what the directory knows"),
    LATER_STRING(sfs_path, "", L2, "mount of a shared file system"),
    LATER_STRING(obs_endpoint, "", L2, "endpoint of the object storage"),
    LATER_STRING(obs_bucket, "", L2, "bucket of the object storage"),
    LATER_STRING(obs_access_key, "", L2, "access key of the object storage"),
    LATER_STRING(obs_secret_key, "", L2, "secret key of the object storage"),
    LATER_BOOL(obs_https_enabled, "false", L2, "reach the object storage by https"),
    LATER_BOOL(enable_cloud_service_token_rotation, "false", L2, "rotate its tokens"),
    LATER_STRING(distributed_disk_path, "", L2, "folder of the distributed disk"),
    LATER_INT(distributed_disk_max_data_file_size_mb, "1024", 1, ANY, L2,
              "size of a data file there"),
    LATER_INT(distributed_disk_sync_interval_ms, "1000", 1, ANY, L2,
              "time between syncs"),
    LATER_INT(distributed_disk_sync_batch_bytes, "33554432", 1, ANY, L2,
              "bytes between syncs"),
    LATER_INT(distributed_disk_compact_interval_s, "3600", 60, ANY, L2,
              "time between compactions"),

    /* Between nodes. */
    USED_BOOL(enable_data_replication, "true",
              "keep a copy of what another node has after a get; else for a second"),
    LATER_BOOL(enable_memory_rebalance, "false", REBALANCE, "move data off full nodes"),
    LATER_INT(rebalance_source_usage_percent, "70", 0, 100, REBALANCE,
              "use from which a node gives data away"),
    LATER_INT(rebalance_usage_gap_percent, "20", 0, 100, REBALANCE,
              "difference of use that is worth moving data"),
    LATER_INT(rebalance_task_report_grace_ms, "30000", 0, ANY, REBALANCE,
              "patience with a node that moves data"),
    INERT_BOOL(enable_worker_worker_batch_get, "false",
               "read many objects of another node with one request; always so here"),
    INERT_INT(batch_get_threshold_mb, "100", 0, ANY,
              "size to split them at; in ranges of 2 MiB here"),
    INERT_INT(oc_worker_worker_direct_port, "0", 0, 65535, "second port between nodes"),
    INERT_INT(sc_worker_worker_direct_port, "0", 0, 65535, "the same for streams"),
    INERT_INT(oc_worker_worker_pool_size, "3", 1, ANY, "connections between two nodes"),
    INERT_INT(sc_worker_worker_pool_size, "3", 1, ANY, "the same for streams"),
    INERT_INT(oc_worker_aggregate_merge_size, "2097152", 0, ANY,
              "bytes gathered into one message"),
    INERT_INT(oc_worker_aggregate_single_max, "65536", 0, ANY,
              "largest object that is gathered"),
    INERT_INT(oc_worker_worker_parallel_min, "100", 0, ANY,
              "objects from which requests are split"),
    INERT_INT(oc_worker_worker_parallel_nums, "16", 1, ANY, "parts of a split request"),
    INERT_INT(payload_nocopy_threshold, "104857600", 0, ANY,
              "size from which a message is not copied"),
    INERT_BOOL(enable_lossless_data_exit_mode, "false",
               "move the data to other nodes before the worker ends; always so here"),
    LATER_INT(data_migrate_rate_limit_mb, "40", 1, ANY, MOVE_LIMIT,
              "MB/s while moving"),
    INERT_STRING(data_migrate_urma_transport_mode, "write", "how it is moved"),
    INERT_INT(check_async_queue_empty_time_s, "1", 0, ANY,
              "time the queues must be empty before the worker ends"),
    INERT_STRING(rocksdb_store_dir, "./datasystem/rocksdb",
                 "folder of the local directory store; in memory files here"),
    INERT_INT(rocksdb_max_open_file, "128", -1, ANY, "files it keeps open"),
    INERT_INT(rocksdb_background_threads, "16", 1, ANY, "threads of it"),
    INERT_STRING(rocksdb_write_mode, "async", "none, sync or async"),

    /* RDMA and UnifiedBus. */
    USED_BOOL(enable_rdma, "false", "RDMA between nodes; refused: not built yet"),
    LATER_BOOL(rdma_register_whole_arena, "true", RDMA, "register the arena at start"),
    LATER_BOOL(enable_transport_fallback, "true", RDMA, "use TCP when RDMA fails"),
    LATER_BOOL(enable_urma, "false", RDMA, "UnifiedBus between nodes"),
    INERT_BOOL(urma_event_mode, "false", "UnifiedBus: events in place of polling"),
    INERT_INT(urma_poll_size, "8", 1, 16, "UnifiedBus: completions per poll"),
    INERT_INT(urma_max_write_size_mb, "4", 1, ANY, "UnifiedBus: largest write"),
    INERT_BOOL(urma_register_whole_arena, "true", "UnifiedBus: register the arena"),
    INERT_BOOL(enable_ub_numa_affinity, "false", "UnifiedBus: buffers near the NIC"),
    INERT_REAL(urma_failover_success_rate_ratio, "0.5", 0, 1,
               "UnifiedBus: share of successes below which a path is left"),
    INERT_INT(urma_failover_min_sample_count, "5", 1, ANY,
              "UnifiedBus: attempts before that share counts"),
    INERT_INT(urma_connection_size, "0", 0, ANY, "deprecated"),
    INERT_STRING(urma_mode, "UB", "deprecated"),

    /* Devices. */
    LATER_STRING(remote_h2d_device_ids, "", DEVICE, "devices, such as 0,1,2,3"),
    LATER_STRING(remote_h2d_link_type, "ROCE", DEVICE, "ROCE or HCCS"),
    LATER_STRING(remote_h2d_hccs_buffer_pool, "4:8", DEVICE, "count:size of relays"),
    LATER_BOOL(hixl_cs_enable, "false", DEVICE, "HIXL between client and worker"),
    LATER_BOOL(enable_pipeline_h2d, "false", DEVICE, "overlap network and device copy"),
    INERT_INT(pipeline_h2d_thread_num, "64", 1, ANY, "threads of that overlap"),
    LATER_BOOL(enable_p2p_transfer, "false", DEVICE, "direct device to device copies"),

    /* Threads and sockets of the worker: one loop thread serves all here. */
    INERT_INT(rpc_thread_num, "16", 0, ANY, "request threads"),
    INERT_INT(oc_thread_num, "32", 0, ANY, "object threads"),
    INERT_BOOL(use_brpc, "true", "brpc as transport of requests"),
    INERT_INT(brpc_server_num_threads, "64", 0, ANY, "brpc threads"),
    INERT_INT(brpc_max_concurrency, "128", 0, ANY, "brpc requests at one time"),
    INERT_BOOL(brpc_enable_builtin_services, "false", "brpc's own HTTP pages"),
    INERT_BOOL(brpc_drop_expired_request, "true", "brpc drops late requests"),
    INERT_INT(zmq_server_io_context, "5", 0, ANY, "ZMQ threads of the server"),
    INERT_INT(zmq_client_io_context, "5", 0, ANY, "ZMQ contexts of a client"),
    INERT_INT(zmq_client_io_thread, "1", 0, ANY, "ZMQ threads of a client"),
    INERT_INT(zmq_chunk_sz, "1048576", 0, ANY, "ZMQ message size"),
    INERT_INT(max_rpc_session_num, "2048", 0, ANY, "sessions at one time"),
    INERT_INT(io_thread_nice, "-15", -20, 19, "priority of the I/O threads"),
    INERT_BOOL(cache_rpc_session, "true", "deprecated"),
    INERT_BOOL(enable_multi_stubs, "false", "deprecated"),

    /* Streams: not planned. */
    INERT_INT(sc_local_cache_memory_size_mb, "1024", 0, ANY, "streams: private memory"),
    INERT_INT(sc_shm_threshold_percentage, "100", 0, 100,
              "streams: share of the arena"),
    INERT_INT(sc_regular_socket_num, "32", 0, ANY, "streams: request sockets"),
    INERT_INT(sc_stream_socket_num, "32", 0, ANY, "streams: data sockets"),
    INERT_INT(sc_gc_interval_ms, "50", 0, ANY, "streams: time between clean-ups"),
    INERT_INT(sc_scan_interval_ms, "10", 0, ANY, "streams: time between scans"),
    INERT_INT(sc_scan_thread_num, "16", 0, ANY, "streams: scanning threads"),
    INERT_INT(sc_scan_num_buckets, "1024", 0, ANY, "streams: scan buckets"),
    INERT_INT(sc_metrics_log_interval_s, "60", 0, ANY, "streams: time between metrics"),
    INERT_INT(sc_cache_pages, "16", 0, ANY, "streams: cached pages"),
    INERT_INT(sc_shared_page_size_mb, "4", 1, 16, "streams: shared page size"),
    INERT_INT(sc_shared_page_group_count, "4", 1, 64, "streams: shared page groups"),
    INERT_INT(sc_thread_num, "128", 0, ANY, "streams: threads"),
    INERT_INT(master_sc_thread_num, "128", 0, ANY, "streams: directory threads"),
    INERT_INT(remote_send_thread_num, "8", 0, ANY, "streams: sending threads"),
    INERT_INT(page_size, "1048576", 0, ANY, "streams: page size"),
    INERT_INT(stream_idle_time_s, "300", 0, ANY, "streams: idle time before an end"),
    INERT_BOOL(enable_stream_data_verification, "false", "streams: check order"),
    INERT_STRING(sc_encrypt_secret_key, "", "streams: encryption key"),

    /* Who may connect: the user of the worker on its own node, and who proves the key. */
    USED_STRING(
        auth_key_file, "",
        "file with the key that both ends of a TCP connection prove to know, 32 "
        "bytes or more, this user's alone; default $DATASYSTEM_AUTH_KEY_FILE"),
    USED_BOOL(
        encrypt_connections, "false",
        "encrypt TCP connections after that proof; all workers of a cluster alike, "
        "clients follow"),
    LATER_STRING(system_access_key, "", SECURITY, "access key of components"),
    LATER_STRING(system_secret_key, "", SECURITY, "secret key of components"),
    LATER_STRING(system_data_key, "", SECURITY, "key that encrypts the keys above"),
    LATER_STRING(tenant_access_key, "", SECURITY, "access key of a tenant"),
    LATER_STRING(tenant_secret_key, "", SECURITY, "secret key of a tenant"),
    LATER_INT(request_expire_time_s, "300", 1, ANY, SECURITY, "age of a valid request"),
    LATER_BOOL(skip_authenticate, "false", SECURITY, "do not check the keys"),
    LATER_BOOL(authorization_enable, "false", SECURITY, "check the rights of tenants"),
    LATER_BOOL(enable_curve_zmq, "false", SECURITY,
               "encrypt connections; use encrypt_connections"),
    LATER_STRING(curve_key_dir, "", SECURITY, "folder of the encryption keys"),
    LATER_STRING(iam_kit, "none", SECURITY, "kind of the identity service"),
    LATER_STRING(yuanrong_iam_url, "", SECURITY, "address of the identity service"),
    LATER_STRING(yuanrong_iam_ca, "", SECURITY, "its certificate authority"),
    LATER_STRING(yuanrong_iam_cert, "None", SECURITY, "certificate for it"),
    LATER_STRING(yuanrong_iam_key, "", SECURITY, "key of that certificate"),
    LATER_STRING(yuanrong_iam_passphrase, "", SECURITY, "passphrase of that key"),

    /* Probes. */
    USED_STRING(health_check_path, "./datasystem/probe/healthy",
                "file that exists while the worker serves"),
    USED_STRING(ready_check_path, "./datasystem/probe/ready",
                "file that appears when the worker is ready"),
    LATER_STRING(liveness_check_path, "", MONITOR, "file rewritten while it is alive"),
    LATER_INT(liveness_probe_timeout_s, "150", 1, ANY, MONITOR,
              "age at which that file means dead"),

    /* Logs. */
    USED_STRING(log_dir, "./datasystem/logs", "folder of the logs"),
    USED_STRING(log_filename, "", "name of the log; empty: datasystem_worker"),
    USED_INT(max_log_size, "400", 1, 1 << 20, "MB after which a new log is begun"),
    USED_INT(max_log_file_num, "5", 1, 1000, "logs that are kept"),
    USED_INT(minloglevel, "0", 0, 3, "0 info, 1 warnings, 2 errors, 3 errors"),
    USED_INT(v, "0", 0, 100, "above 0: debug lines too"),
    INERT_INT(log_retention_day, "0", 0, ANY, "days that logs are kept; 0: for ever"),
    INERT_BOOL(log_async, "true", "write logs behind the worker's back"),
    INERT_INT(log_async_queue_size, "65536", 1, ANY, "lines that wait to be written"),
    INERT_BOOL(log_compress, "true", "compress old logs"),
    INERT_INT(logbufsecs, "10", 0, ANY, "seconds that lines are held back; none here"),
    INERT_INT(logfile_mode, "416", 0, 511, "mode of the logs; 0600 here"),
    INERT_INT(log_rate_limit, "0", 0, ANY, "lines per second"),
    INERT_BOOL(log_only_write_info_file, "true", "one file for all levels; so here"),
    LATER_BOOL(log_monitor, "true", MONITOR, "write resource.log"),
    LATER_BOOL(json_log_monitor, "true", MONITOR, "write kv_resource.log"),
    LATER_STRING(log_monitor_exporter, "harddisk", MONITOR, "where they go"),
    LATER_INT(log_monitor_interval_ms, "10000", 1, ANY, MONITOR, "time between lines"),
    LATER_REAL(request_sample_rate, "1.0", 0, 1, MONITOR, "share of requests traced"),
    LATER_REAL(access_sample_rate, "1.0", 0, 1, MONITOR, "share of access lines"),
    LATER_REAL(diagnostic_sample_rate, "1.0", 0, 1, MONITOR, "share of diagnostics"),
    LATER_INT(slow_log_process_slower_than, "2000", 0, ANY, MONITOR,
              "microseconds of work that make a slow line"),
    LATER_INT(slow_log_rpc_slower_than, "5000", 0, ANY, MONITOR,
              "microseconds of a remote call that make a slow line"),
    LATER_BOOL(enable_perf_trace_log, "false", MONITOR,
               "times of each step in the log"),
    LATER_STRING(monitor_config_file, "./datasystem/config/datasystem.config", MONITOR,
                 "file whose changes are taken over while the worker runs"),
    LATER_STRING(kv_events_config, "", MONITOR,
                 "JSON that asks for a stream of events"),

    /* Of the coordinator process, which is not planned. */
    INERT_INT(coordinator_rpc_stub_cache_size, "4096", 0, ANY, "coordinator only"),
    INERT_INT(coordinator_topology_max_active_clusters, "8", 2, 32, "coordinator only"),
    INERT_STRING(coordinator_raft_initial_peers, "", "coordinator only"),
    INERT_STRING(coordinator_raft_data_dir, "", "coordinator only"),
    INERT_INT(coordinator_raft_heartbeat_interval_ms, "100", 10, 10000,
              "coordinator only"),
    INERT_INT(coordinator_raft_election_timeout_ms, "1000", 1, ANY, "coordinator only"),
    INERT_INT(coordinator_member_failure_grace_ms, "10000", 0, ANY, "coordinator only"),
    INERT_INT(coordinator_discovery_retry_interval_ms, "5000", 1, ANY,
              "coordinator only"),
    INERT_INT(watch_event_dispatch_thread, "4", 1, ANY, "coordinator only"),
};

#endif
