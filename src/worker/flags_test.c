#include "test.h"

#include "worker/flags.h"

#include <stdio.h>
#include <string.h>

/* Every flag name that users of the existing system may pass, of versions 0.8 and 0.9:
 * a contract, so written out here and not taken from our own table. */
static const char names_of_0_8[] =
    "add_node_wait_time_s arena_per_tenant async_delete auto_del_dead_node "
    "batch_get_threshold_mb check_async_queue_empty_time_s "
    "client_dead_timeout_s client_reconnect_wait_s cluster_name "
    "cross_cluster_get_data_from_worker cross_cluster_get_meta_from_worker "
    "curve_key_dir data_migrate_rate_limit_mb "
    "distributed_disk_compact_interval_s distributed_disk_max_data_file_size_mb "
    "distributed_disk_path distributed_disk_sync_batch_bytes "
    "distributed_disk_sync_interval_ms enable_cloud_service_token_rotation "
    "enable_curve_zmq enable_data_replication enable_distributed_master "
    "enable_etcd_auth enable_fallocate enable_hash_ring_self_healing "
    "enable_huge_tlb enable_l2_cache_fallback enable_lossless_data_exit_mode "
    "enable_meta_replica enable_metadata_recovery enable_p2p_transfer "
    "enable_perf_trace_log enable_rdma enable_reconciliation enable_redirect "
    "enable_stream_data_verification enable_thp enable_transport_fallback "
    "enable_ub_numa_affinity enable_urma enable_worker_worker_batch_get "
    "etcd_address etcd_ca etcd_cert etcd_key etcd_meta_pool_size "
    "etcd_passphrase_path etcd_password etcd_target_name_override etcd_username "
    "eviction_reserve_mem_threshold_mb eviction_thread_num health_check_path "
    "heartbeat_interval_ms host_id_env_name iam_kit io_thread_nice "
    "ipc_through_shared_memory kv_events_config l2_cache_async_write_queue_size "
    "l2_cache_async_write_rate_limit_mb l2_cache_delete_thread_num "
    "l2_cache_type log_async log_async_queue_size log_compress log_dir "
    "log_filename log_monitor log_monitor_exporter log_monitor_interval_ms "
    "log_only_write_info_file log_rate_limit log_retention_day logbufsecs "
    "logfile_mode master_sc_thread_num max_client_num max_log_file_num "
    "max_log_size max_rpc_session_num memory_alignment "
    "memory_reclamation_time_second metastore_address minloglevel "
    "monitor_config_file node_dead_timeout_s node_timeout_s "
    "object_del_retry_delay_sec obs_access_key obs_bucket obs_endpoint "
    "obs_https_enabled obs_secret_key oc_io_from_l2cache_need_metadata "
    "oc_shm_threshold_percentage oc_shm_transfer_threshold_kb oc_thread_num "
    "oc_worker_aggregate_merge_size oc_worker_aggregate_single_max "
    "oc_worker_worker_direct_port oc_worker_worker_parallel_min "
    "oc_worker_worker_parallel_nums oc_worker_worker_pool_size "
    "other_cluster_names page_size payload_nocopy_threshold "
    "rdma_register_whole_arena ready_check_path remote_h2d_device_ids "
    "remote_send_thread_num request_expire_time_s rocksdb_background_threads "
    "rocksdb_max_open_file rocksdb_store_dir rocksdb_write_mode rpc_thread_num "
    "sc_cache_pages sc_encrypt_secret_key sc_gc_interval_ms "
    "sc_local_cache_memory_size_mb sc_metrics_log_interval_s "
    "sc_regular_socket_num sc_scan_interval_ms sc_scan_num_buckets "
    "sc_scan_thread_num sc_shared_page_group_count sc_shared_page_size_mb "
    "sc_shm_threshold_percentage sc_stream_socket_num sc_thread_num "
    "sc_worker_worker_direct_port sc_worker_worker_pool_size sfs_path "
    "shared_disk_arena_per_tenant shared_disk_directory shared_disk_size_mb "
    "shared_memory_distribution_policy shared_memory_populate "
    "shared_memory_size_mb shared_memory_worker_port skip_authenticate "
    "spill_directory spill_enable_readahead spill_file_max_size_mb "
    "spill_file_open_limit spill_size_limit spill_thread_num "
    "spill_to_remote_worker start_metastore_service stream_idle_time_s "
    "system_access_key system_data_key system_secret_key tenant_access_key "
    "tenant_secret_key unix_domain_socket_dir urma_connection_size "
    "urma_event_mode urma_max_write_size_mb urma_mode urma_poll_size "
    "urma_register_whole_arena v worker_address yuanrong_iam_ca "
    "yuanrong_iam_cert yuanrong_iam_key yuanrong_iam_passphrase "
    "yuanrong_iam_url zmq_chunk_sz zmq_client_io_context zmq_client_io_thread "
    "zmq_server_io_context ";
static const char names_since_0_9[] =
    "access_sample_rate authorization_enable bind_address "
    "brpc_drop_expired_request brpc_enable_builtin_services "
    "brpc_max_concurrency brpc_server_num_threads cache_rpc_session "
    "coordinator_address coordinator_discovery_retry_interval_ms "
    "coordinator_member_failure_grace_ms coordinator_raft_data_dir "
    "coordinator_raft_election_timeout_ms "
    "coordinator_raft_heartbeat_interval_ms coordinator_raft_initial_peers "
    "coordinator_rpc_stub_cache_size coordinator_topology_max_active_clusters "
    "data_migrate_urma_transport_mode diagnostic_sample_rate "
    "enable_leaving_intercept enable_memory_rebalance enable_multi_stubs "
    "enable_pipeline_h2d eviction_high_watermark_ratio "
    "eviction_low_watermark_ratio hixl_cs_enable json_log_monitor "
    "liveness_check_path liveness_probe_timeout_s oc_metadata_header "
    "pipeline_h2d_thread_num rebalance_source_usage_percent "
    "rebalance_task_report_grace_ms rebalance_usage_gap_percent "
    "remote_h2d_hccs_buffer_pool remote_h2d_link_type request_sample_rate "
    "slow_log_process_slower_than slow_log_rpc_slower_than "
    "spill_high_watermark_ratio spill_low_watermark_ratio "
    "urma_failover_min_sample_count urma_failover_success_rate_ratio use_brpc "
    "watch_event_dispatch_thread ";

/* Parses one or two arguments after the program's name. */
static enum ds_status
parse(const char *first, const char *second, struct worker_flags *out,
      struct ds_error *err)
{
    char *argv[] = {(char *)"worker", (char *)first, (char *)second, NULL};
    return flags_parse(second == NULL ? 2 : 3, argv, out, err);
}

static const struct flag *
flag_named(const char *name)
{
    size_t count = 0;
    const struct flag *flags = flags_all(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(flags[i].name, name) == 0)
            return &flags[i];
    }
    return NULL;
}

/* Gives each name its default on the command line; returns how many there were. */
static int
accept_all(const char *known_names)
{
    char names[4096];
    int seen = 0;
    char *rest = NULL;
    snprintf(names, sizeof names, "%s", known_names);
    for (char *name = strtok_r(names, " ", &rest); name != NULL;
         name = strtok_r(NULL, " ", &rest)) {
        const struct flag *flag = flag_named(name);
        char argument[128];
        struct worker_flags flags;
        struct ds_error err = {0};
        snprintf(argument, sizeof argument, "--%s=%s", name,
                 flag == NULL ? "" : flag->value);
        if (parse(argument, NULL, &flags, &err) != DS_OK)
            fail_msg("%s: %s", name, err.message);
        seen++;
    }
    return seen;
}

TEST(every_known_name_is_accepted_with_its_default)
{
    CHECK_INT(accept_all(names_of_0_8), 174);
    CHECK_INT(accept_all(names_since_0_9), 45);
}

TEST(no_name_stands_twice_in_the_table)
{
    size_t count = 0;
    const struct flag *flags = flags_all(&count);
    for (size_t i = 0; i < count; i++)
        CHECK(flag_named(flags[i].name) == &flags[i]);
}

TEST(without_arguments_every_member_has_its_default)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    char *argv[] = {(char *)"worker", NULL};
    CHECK_OK(flags_parse(1, argv, &flags, &err));

    CHECK_TEXT(flags.worker_address, "127.0.0.1:31501");
    CHECK_TEXT(flags.metastore_address, "");
    CHECK_TEXT(flags.unix_domain_socket_dir, "./datasystem/uds");
    CHECK_TEXT(flags.owner, "");
    CHECK_TEXT(flags.home, "");
    CHECK_INT(flags.shared_memory_size_mb, 1024);
    CHECK_INT(flags.max_client_num, 200);
    CHECK_INT(flags.client_dead_timeout_s, 120);
    CHECK(flags.ipc_through_shared_memory);
    CHECK(!flags.start_metastore_service);
    CHECK(!flags.enable_huge_tlb);
    CHECK(!flags.enable_rdma);
}

TEST(a_value_may_follow_an_equals_sign_or_be_the_next_argument)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    CHECK_OK(parse("--shared_memory_size_mb=64", NULL, &flags, &err));
    CHECK_INT(flags.shared_memory_size_mb, 64);
    CHECK_OK(parse("--shared_memory_size_mb", "65", &flags, &err));
    CHECK_INT(flags.shared_memory_size_mb, 65);
    CHECK_OK(parse("--datasystem_home_dir", "/tmp/x=y", &flags, &err));
    CHECK_TEXT(flags.home, "/tmp/x=y");
    CHECK_OK(parse("--owner=", NULL, &flags, &err));
    CHECK_TEXT(flags.owner, "");
}

TEST(the_last_of_a_repeated_flag_wins)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    CHECK_OK(parse("--v=1", "--v=2", &flags, &err));
    CHECK_INT(flags.v, 2);
}

TEST(booleans_are_read_as_gflags_reads_them)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    CHECK_OK(parse("--enable_huge_tlb=True", NULL, &flags, &err));
    CHECK(flags.enable_huge_tlb);
    CHECK_OK(parse("--enable_huge_tlb", "1", &flags, &err));
    CHECK(flags.enable_huge_tlb);
    CHECK_OK(parse("--ipc_through_shared_memory", "no", &flags, &err));
    CHECK(!flags.ipc_through_shared_memory);
}

TEST(an_unknown_flag_is_an_error_that_names_the_nearest)
{
    struct worker_flags flags = {.v = 7};
    struct ds_error err = {0};
    CHECK_STATUS(parse("--shared_memory_size", "64", &flags, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "unknown flag '--shared_memory_size'");
    CHECK_CONTAINS(err.message, "did you mean '--shared_memory_size_mb'?");
    CHECK_STATUS(parse("--max_cleint_num=3", NULL, &flags, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "did you mean '--max_client_num'?");
    CHECK_INT(flags.v, 7); /* Outputs are written only on success. */
}

TEST(a_wildly_long_unknown_flag_is_an_error_too)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    char argument[5000] = "--";
    memset(argument + 2, 'x', sizeof argument - 3);
    CHECK_STATUS(parse(argument, NULL, &flags, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "unknown flag");
}

TEST(a_flag_without_a_value_is_an_error)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    CHECK_STATUS(parse("--owner", NULL, &flags, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "flag '--owner' has no value");
    CHECK_STATUS(parse("--owner", "--v=1", &flags, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "write --owner=VALUE");
}

TEST(what_is_no_flag_is_an_error)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    CHECK_STATUS(parse("start", NULL, &flags, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "'start' is not a flag");
    CHECK_STATUS(parse("--", NULL, &flags, &err), DS_INVALID);
    CHECK_STATUS(parse("--=3", NULL, &flags, &err), DS_INVALID);
    CHECK_STATUS(parse("", NULL, &flags, &err), DS_INVALID);
}

TEST(a_bad_value_is_an_error_that_says_what_is_allowed)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    CHECK_STATUS(parse("--max_client_num=0", NULL, &flags, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "flag '--max_client_num': '0' is not allowed");
    CHECK_CONTAINS(err.message, "a whole number from 1 to 10000");
    CHECK_STATUS(parse("--enable_huge_tlb=maybe", NULL, &flags, &err), DS_INVALID);
    CHECK_CONTAINS(err.message, "give true or false");
    CHECK_STATUS(parse("--eviction_low_watermark_ratio=nan", NULL, &flags, &err),
                 DS_INVALID);
    CHECK_CONTAINS(err.message, "a number from 0 to 1");
}

TEST(numbers_are_read_whole_or_not_at_all)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    CHECK_STATUS(parse("--v=1x", NULL, &flags, &err), DS_INVALID);
    CHECK_STATUS(parse("--v=", NULL, &flags, &err), DS_INVALID);
    CHECK_STATUS(parse("--v=99999999999999999999", NULL, &flags, &err), DS_INVALID);
    CHECK_STATUS(parse("--request_sample_rate=0.5.5", NULL, &flags, &err), DS_INVALID);
    CHECK_STATUS(parse("--request_sample_rate=1e999", NULL, &flags, &err), DS_INVALID);
}

TEST(flags_without_effect_are_listed_when_the_user_changed_them)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    char text[256];
    CHECK_OK(parse("--arena_per_tenant=1", "--spill_directory=/x", &flags, &err));
    CHECK(flags_without_effect(&flags, text, sizeof text));
    CHECK_TEXT(text,
               "arena_per_tenant, spill_directory (spill to disk is not built yet)");
}

TEST(a_default_written_out_is_not_worth_a_warning)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    char text[256];
    CHECK_OK(parse("--arena_per_tenant=16", "--enable_thp=False", &flags, &err));
    CHECK(!flags_without_effect(&flags, text, sizeof text));
    CHECK_TEXT(text, "");
    CHECK_OK(parse("--v=3", "--request_sample_rate=1", &flags, &err));
    CHECK(!flags_without_effect(&flags, text, sizeof text));
}

TEST(a_long_list_of_flags_without_effect_ends_in_dots)
{
    struct worker_flags flags;
    struct ds_error err = {0};
    char text[24];
    CHECK_OK(parse("--arena_per_tenant=1", "--spill_directory=/x", &flags, &err));
    CHECK(flags_without_effect(&flags, text, sizeof text));
    CHECK_INT(strlen(text), sizeof text - 1);
    CHECK_TEXT(text + strlen(text) - 3, "...");
}

TEST_MAIN(RUN(every_known_name_is_accepted_with_its_default),
          RUN(no_name_stands_twice_in_the_table),
          RUN(without_arguments_every_member_has_its_default),
          RUN(a_value_may_follow_an_equals_sign_or_be_the_next_argument),
          RUN(the_last_of_a_repeated_flag_wins),
          RUN(booleans_are_read_as_gflags_reads_them),
          RUN(an_unknown_flag_is_an_error_that_names_the_nearest),
          RUN(a_wildly_long_unknown_flag_is_an_error_too),
          RUN(a_flag_without_a_value_is_an_error), RUN(what_is_no_flag_is_an_error),
          RUN(a_bad_value_is_an_error_that_says_what_is_allowed),
          RUN(numbers_are_read_whole_or_not_at_all),
          RUN(flags_without_effect_are_listed_when_the_user_changed_them),
          RUN(a_default_written_out_is_not_worth_a_warning),
          RUN(a_long_list_of_flags_without_effect_ends_in_dots))
