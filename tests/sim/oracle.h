/* What clients did and saw, and whether there is an order in which that can be
 * (tests/support/history.h): each key is a register of its own. A write that lost its
 * connection is repeated by the library, and may take effect again (include/datasystem,
 * "Blocking"). */
#ifndef TESTS_SIM_ORACLE_H
#define TESTS_SIM_ORACLE_H

#include "history.h"
#include "sim.h"

enum { ORACLE_KEYS_MAX = 64 };

void oracle_reset(void);

/* Returns the operation's number. */
uint32_t oracle_begin(uint32_t key, enum operation operation, uint32_t value);

/* `value`: what was read, or whether it exists. The outcome of a write is looked at
 * together with what its process lost of connections since the begin. */
void oracle_end(uint32_t number, enum outcome outcome, uint32_t value);

/* A write that takes effect once, whatever happens: its repeats are recognised. */
void oracle_takes_effect_once(uint32_t number);

/* All keys lose their values now, whatever they were. */
void oracle_wipe(void);
uint32_t oracle_wipes(void); /* How many there were. */

/* The bytes of this put were stored when there had been so many wipes. Should there be
 * another before it takes effect, the key has no value then. */
void oracle_stored_before(uint32_t number, uint32_t wipes);

/* Fails the run if there is no such order. */
void oracle_check(void);

/* ---- Values ---- */

uint32_t oracle_new_value(void);
uint64_t value_bytes(uint32_t value);
void value_write(void *out, uint32_t key, uint32_t value);
/* The number of the value of `key` that these bytes are; anything else fails the run. */
uint32_t value_read(const void *data, uint64_t bytes, uint32_t key, const char *where);
void value_check(const void *data, uint64_t bytes, uint32_t key, uint32_t value,
                 const char *where);

#endif
