/* What workers say to each other of users' keys, as structs and as bytes. Pure.
 *
 * The binding of a key says which object it names and so where that is. It is kept by the
 * key's owner (meta/ring.h); the object's node is its holder.
 *
 *   type         request                    reply
 *   KEY_ORDERS   key_orders, bindings       key_answers, one for each
 *   KEY_REPORT   key_report, bindings       key_report_reply
 */
#ifndef WIRE_BINDINGS_H
#define WIRE_BINDINGS_H

#include "wire/block_id.h"
#include "wire/cursor.h"

/* Most in one message: its reply fits into a frame, and it takes its receiver some
 * milliseconds. */
#define KEY_ORDERS_MAX 15000u

/* Most bytes of a value that comes with an answer, and of all values in one message. */
enum { KEY_VALUE_BYTES_MAX = 8 << 10, KEY_VALUES_BYTES_MAX = 1 << 20 };

struct wire_binding {
    struct object_name object; /* node 0: none. */
    struct object_name was;    /* KEY_MOVE: what it takes the place of; else none. */
    uint32_t ttl_ds;           /* Tenths of a second from now; 0: for ever. */
    struct ds_slice key;       /* A legal user key. */
};
struct binding_list {
    uint32_t count;
    bool has_was; /* They are orders of KEY_MOVE. */
    struct reader at;
};
bool next_binding(struct binding_list *list, struct wire_binding *out);
void encode_binding(struct writer *writer, const struct wire_binding *binding);

enum key_order {
    /* To the owner. */
    KEY_FIND,           /* Where is it? Waits for those that are nowhere. */
    KEY_BIND,           /* It is this object from now on. */
    KEY_BIND_IF_ABSENT, /* Only if it is none. */
    KEY_UNBIND,         /* It is none from now on. */
    KEY_UNBIND_IF_GONE, /* If it is this one, and its holder does not have it. */
    KEY_MOVE,           /* If it is `was`, it is this object from now on. */
    KEY_EXPIRE,         /* It is none from then on. */
    /* To the holder. */
    KEY_DROP,       /* Nobody finds this object any more. */
    KEY_ASK,        /* Is this object there, or about to be? */
    KEY_SET_EXPIRY, /* Of this object. */
    KEY_ORDER_COUNT
};

/* wait_ms stands where a lookup has it (message.h). */
struct key_orders {
    enum key_order order;
    uint32_t wait_ms;  /* KEY_FIND */
    uint32_t from;     /* The node that says so; to a holder: that owns the keys; */
    uint32_t restarts; /* and of its process, so many came before it. */
    uint64_t epoch;    /* Of the members that it knows. */
    bool wants_values; /* KEY_FIND: small ones shall come with the answers, but those of
                          objects that the bindings name: who asks has them. */
    struct binding_list bindings;
};
/* `count` calls of encode_binding() follow. */
void encode_key_orders_begin(struct writer *writer, const struct key_orders *message);
bool decode_key_orders(struct ds_slice body, struct key_orders *out);

enum key_answer {
    KEY_NO,    /* It was not there; of KEY_BIND_IF_ABSENT: another is. */
    KEY_YES,   /* It is there, or done. */
    KEY_LOST,  /* KEY_FIND: its holder is no member any more. */
    KEY_MOVED, /* Not for this worker to say, or not yet: ask again. */
    KEY_ANSWER_COUNT
};
struct wire_answer {
    enum key_answer answer;
    /* KEY_FIND: what it is. To KEY_DROP and KEY_ASK: what the holder has instead of it;
     * node 0: nothing. */
    struct object_name object;
    /* KEY_MOVE, KEY_DROP, KEY_ASK: what is left of its time; 0: it is for ever. */
    uint32_t ttl_ds;
    struct ds_slice value; /* KEY_FIND: the object's bytes; empty: they are not sent. */
    uint64_t checksum;     /* Of them; who gets them compares. */
};
struct answer_list {
    uint32_t count;
    struct reader at;
};
void encode_answers_begin(struct writer *writer, uint32_t count);
void encode_answer(struct writer *writer, const struct wire_answer *answer);
bool decode_answers(struct ds_slice body, struct answer_list *out);
bool next_answer(struct answer_list *list, struct wire_answer *out);

/* A member of an epoch that is past. */
struct past_member {
    uint32_t node;
    uint32_t incarnation;
    /* After it, with what it remembered: it has left, or is another process. */
    bool is_gone;
    bool has_left; /* It was no member then, and may come back. */
};
/* An epoch after which somebody was gone: its members in the order of their nodes. None: nobody
 * knows who they were. */
struct past_epoch {
    uint32_t count;
    struct reader at;
};
/* `count` calls of encode_past_member() follow. */
void encode_past_epoch_begin(struct writer *writer, uint32_t count);
void encode_past_member(struct writer *writer, const struct past_member *member);
bool next_past_epoch(struct reader *list, struct past_epoch *out);
bool next_past_member(struct past_epoch *epoch, struct past_member *out);

/* What a holder has of its receiver's keys: those that were not its receiver's, or not
 * that process's, in epoch `since`; all, if that is 0. And what it knows of such keys as their
 * owner, while somebody is away who may have older ones: those without an object it deleted,
 * those with another node's it bound to that. */
struct key_report {
    uint32_t node; /* The holder, */
    uint32_t incarnation;
    uint32_t restarts;     /* and its process, */
    uint64_t member_since; /* as of its membership without a gap. */
    uint64_t epoch;
    uint64_t since;
    bool is_back; /* It was no member for a while: others may know better. */
    bool is_last; /* The report is whole with this message. */
    /* Epochs for next_past_epoch(), the latest first: of whom it has seen go. Only for
     * who has just come. */
    struct ds_slice lost;
    struct binding_list bindings;
};
/* `count` calls of encode_binding() follow. */
void encode_key_report_begin(struct writer *writer, const struct key_report *message);
bool decode_key_report(struct ds_slice body, struct key_report *out);

struct key_report_reply {
    bool wants_all; /* The receiver has seen an epoch that the holder has not. */
    struct answer_list refused; /* Objects whose keys are others now: KEY_NO. */
};
void encode_report_reply_begin(struct writer *writer, bool wants_all, uint32_t count);
bool decode_report_reply(struct ds_slice body, struct key_report_reply *out);

#endif
