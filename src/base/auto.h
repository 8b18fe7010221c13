/* Ownership of locals: AUTO(type) destroys a local when it leaves scope, TAKE(p) hands
 * it over and leaves NULL behind.
 *
 *      AUTO(memfile) struct memfile *file = NULL;   // memfile_auto() must exist
 *      ...
 *      *out = TAKE(file);
 *      return DS_OK;
 */
#ifndef BASE_AUTO_H
#define BASE_AUTO_H

#define AUTO(type) __attribute__((cleanup(type##_auto)))

#define TAKE(pointer)                           \
    __extension__({                             \
        __typeof__(pointer) taken_ = (pointer); \
        (pointer) = NULL;                       \
        taken_;                                 \
    })

/* DEFINE_AUTO(memfile, struct memfile, memfile_close) writes memfile_auto(). */
#define DEFINE_AUTO(type, full_type, destroy)           \
    static inline void type##_auto(full_type **pointer) \
    {                                                   \
        destroy(*pointer);                              \
    }

#endif
