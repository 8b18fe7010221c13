/* The texts of "there is no room": what was needed, what there is, what to do. */
#ifndef STORE_NO_ROOM_H
#define STORE_NO_ROOM_H

#include "store/store.h"

enum room_lack { ROOM_FOUND, ROOM_NO_SLOT, ROOM_NO_KEY_BYTES, ROOM_NO_EXTENT };

/* Always DS_FULL. `lack` is not ROOM_FOUND. */
enum ds_status
no_room(struct store *store, enum room_lack lack, uint64_t size, struct ds_error *err);

#endif
