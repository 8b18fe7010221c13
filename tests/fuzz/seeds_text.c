/* Seeds that are written down as they are. */
#include "seeds.h"

#define SEED_BYTES(target, name, text) seed(target, name, slice(text, sizeof text - 1))

static void
seed_msgpack(void)
{
    SEED_BYTES("msgpack_fuzz", "scalars",
               "\x98\xc0\xc2\xc3\x7f\xff\xcb\0\0\0\0\0\0\0\0"
               "\xd9\x02\xc3\xa4\xcf\xff\0\0\0\0\0\0\0");
    SEED_BYTES("msgpack_fuzz", "ext", "\xde\0\x02\x01\xd4\x05x\x02\xc7\x03\x05xyz");
    SEED_BYTES("msgpack_fuzz", "nested", "\x91\x91\x91\x81\xa1x\x91\x81\xa1y\x90");
}

static void
seed_flags(void)
{
    SEED_BYTES("flags_fuzz", "equals",
               "--worker_address=127.0.0.1:31501\0--shared_memory_size_mb=64");
    SEED_BYTES("flags_fuzz", "spaces",
               "--enable_huge_tlb\0true\0--v\0001\0--owner\0me\0--v=2");
    SEED_BYTES("flags_fuzz", "later",
               "--spill_directory=/x\0--eviction_high_watermark_ratio=0.5");
    SEED_BYTES("flags_fuzz", "wrong", "--shared_memory_size_mb=-1");
}

static void
seed_addresses(void)
{
    SEED_BYTES("address_fuzz", "ipv4",
               "\x40"
               "127.0.0.1:31501");
    SEED_BYTES("address_fuzz", "ipv6", "\x40[::1]:65535");
    SEED_BYTES("address_fuzz", "name", "\x0blocalhost:1");
}

static void
seed_etcd(void)
{
    SEED_BYTES("etcd_fuzz", "range",
               "{\"header\":{\"revision\":\"7\"},\"kvs\":[{\"key\":\"aw==\","
               "\"mod_revision\":\"5\",\"value\":\"dg==\"}],\"count\":\"1\"}");
    SEED_BYTES("etcd_fuzz", "txn",
               "{\"header\":{},\"succeeded\":true,\"responses\":[{\"response_put\":{}},"
               "{\"response_range\":{\"kvs\":[{\"value\":\"MTIgMw==\"}]}}]}");
    SEED_BYTES("etcd_fuzz", "kept",
               "{\"result\":{\"header\":{},\"ID\":\"7587\",\"TTL\":\"5\"}}");
    SEED_BYTES("etcd_fuzz", "granted", "{\"header\":{},\"ID\":\"7587\",\"TTL\":\"5\"}");
    SEED_BYTES("etcd_fuzz", "token", "{\"header\":{},\"token\":\"abc.7\"}");
    SEED_BYTES("etcd_fuzz", "error",
               "{\"error\":\"a\",\"message\":\"no such lease\",\"code\":5}");
}

/* Damage as {where, offset, xor}, then {operation, argument}. */
static void
seed_store(void)
{
    SEED_BYTES("store_fuzz", "whole",
               "\0\0\x05\0\x01\x30\0\x02\x15\0\x04\x03\0\x05\x04\0\x05\x05\0\x06\x3f\0"
               "\x07\x09\0\x09\0\0\x0b\x31\x09\x08\0\0\x0a\x01\0\x03\x14\0");
    SEED_BYTES("store_fuzz", "slots",
               "\x03\x05\x18\0\x01\x06\x60\0\x40\x07\x05\x02\x80\x01\x33\0\x06\x3f\0");
    SEED_BYTES("store_fuzz", "chains", "\x02\x01\x04\0\x1f\x02\x10\0\xff\x04\x0a\0");
    SEED_BYTES("store_fuzz", "pins",
               "\x02\x04\x20\0\xff\x04\x40\0\x7f\x09\0\0\x08\0\0");
}

/* ---- Encrypted records ---- */

void
seed_texts(void)
{
    seed_msgpack();
    seed_flags();
    seed_addresses();
    seed_etcd();
    seed_store();
}
