/* What a call can answer, and the words that go with it.
 *
 * Every fallible function of the library returns an enum ds_status and takes a
 * struct ds_error pointer last. Outputs are written only on DS_OK. The text is written
 * once, by the function that first understood what went wrong; it says what happened,
 * to what, and what to do. */
#ifndef DATASYSTEM_STATUS_H
#define DATASYSTEM_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#define DS_MUST_USE __attribute__((warn_unused_result))

/* A value exists here only because some caller acts differently on it. */
enum ds_status {
    DS_OK = 0,
    DS_INVALID,      /* An argument breaks the documented rules; fix the call. */
    DS_NOT_FOUND,    /* No such object; it never existed, was deleted or expired. */
    DS_EXISTS,       /* Asked for "only if absent", and it is there. */
    DS_FULL,         /* No room for it now; delete something or enlarge the arena. */
    DS_TIMEOUT,      /* The deadline passed; trying again is reasonable. */
    DS_NOT_READY,    /* The client is not open, or the worker is still starting. */
    DS_IO,           /* The other side is gone and did not come back in time. */
    DS_NO_MEMORY,    /* This process or machine is out of memory. */
    DS_OUT_OF_RANGE, /* A byte range lies outside the object. */
    DS_MISMATCH,    /* Client and worker speak different layouts; versions are named. */
    DS_INTERRUPTED, /* The caller's interrupt hook asked to stop waiting. */
    DS_UNSUPPORTED, /* This build or machine cannot do it; the text says what lacks. */
    DS_CORRUPT,     /* Bytes are not what they were when sealed; never returned. */
    DS_NOT_AUTHORIZED, /* One side lacks the key of the other; the text says which. */
    DS_STATUS_COUNT
};

#define DS_ERROR_MESSAGE_BYTES 1024

/* Owner: the caller. Zero it before use; untouched on success. */
struct ds_error {
    enum ds_status status;
    char message[DS_ERROR_MESSAGE_BYTES]; /* Always terminated; truncated if longer. */
};

#ifdef __cplusplus
}
#endif
#endif
