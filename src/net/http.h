/* Requests to a web service on the loop, one at a time, by libcurl.
 *
 * The library is loaded when it is first needed, so that a worker that has no use for it
 * runs where it is not. No proxy is asked, and no redirection is followed: what is sent may
 * hold a password.
 * Owner: loop thread. */
#ifndef NET_HTTP_H
#define NET_HTTP_H

#include <datasystem/datasystem.h>

#include <uv.h>

struct http;

/* Of TLS; borrowed until http_open() returns. Empty texts: not given. */
struct http_options {
    const char
        *authority_path; /* Who signed the server's certificate; else the system's. */
    const char *certificate_path;
    const char *key_path;
    const char *passphrase; /* Of that key. */
};

/* `status` is that of HTTP; 0: there is no answer, and `body` is the reason as text. Borrowed. */
typedef void (*http_answer_fn)(void *arg, long status, struct ds_slice body);

/*   DS_UNSUPPORTED  libcurl is not installed; says how to
 *   DS_NO_MEMORY */
DS_MUST_USE enum ds_status
http_open(uv_loop_t *loop, const struct http_options *options, struct http **out,
          struct ds_error *err);

struct http_request {
    const char *url;
    const char
        *connect_to;   /* "name:port:host:port", as libcurl has it; NULL: as `url`. */
    const char *token; /* Of the Authorization header; empty: none. */
    struct ds_slice body; /* JSON. */
    uint32_t timeout_ms;
};

/* Posts; `on_answer` is called in the loop, never from here. What is given is copied. None
 * may be under way. */
void http_post(struct http *http, const struct http_request *request,
               http_answer_fn on_answer, void *arg);

/* What is under way ends without an answer; freed in the loop. Accepts NULL. */
void http_close(struct http *http);

#endif
