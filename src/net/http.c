#include "net/http.h"

#include "base/check.h"
#include "base/slice.h"
#include "base/status.h"
#include "net/watch.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_BYTES_MAX = 1 << 20, HEADER_BYTES_MAX = 4200 };

/* ---- The library ---- */

#define LIBRARY(X)              \
    X(curl_global_init)         \
    X(curl_easy_init)           \
    X(curl_easy_setopt)         \
    X(curl_easy_getinfo)        \
    X(curl_easy_cleanup)        \
    X(curl_easy_strerror)       \
    X(curl_multi_init)          \
    X(curl_multi_setopt)        \
    X(curl_multi_add_handle)    \
    X(curl_multi_remove_handle) \
    X(curl_multi_socket_action) \
    X(curl_multi_assign)        \
    X(curl_multi_info_read)     \
    X(curl_multi_cleanup)       \
    X(curl_slist_append)        \
    X(curl_slist_free_all)

/* Its header has macros of these names, which check arguments; here they are functions. */
#undef curl_easy_setopt
#undef curl_easy_getinfo
#undef curl_multi_setopt

#define FIELD(name) __typeof__(name) *name;
static struct { /* Of the process: loaded once, never unloaded. */
    LIBRARY(FIELD)
    bool is_loaded;
} curl;

static bool
find(void *library, const char *name, void *out_function)
{
    void *symbol = dlsym(library, name);
    memcpy(out_function, &symbol, sizeof symbol); /* ISO C has no cast for it. */
    return symbol != NULL;
}

static enum ds_status
load_library(struct ds_error *err)
{
    if (curl.is_loaded)
        return DS_OK;
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    bool is_whole = library != NULL;
#define FIND(name) is_whole = is_whole && find(library, #name, &curl.name);
    LIBRARY(FIND)
    if (!is_whole)
        return ds_fail(err, DS_UNSUPPORTED,
                       "libcurl is needed for that and not here (%s); install it: "
                       "apt-get install libcurl4, or dnf install libcurl",
                       library == NULL ? dlerror() : "libcurl.so.4 is too old");
    if (curl.curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return ds_fail(err, DS_NO_MEMORY, "libcurl cannot be set up");
    signal(SIGPIPE, SIG_IGN); /* TLS writes to sockets that the server has closed. */
    curl.is_loaded = true;
    return DS_OK;
}

/* ---- Requests ---- */

/* Invariants: on_answer is set while a request is under way; `timer` is libcurl's, or, with
 * `reason`, that of a request that could not be made. */
struct http {
    CURLM *multi;
    CURL *easy;
    struct curl_slist *headers; /* Of the latest request; both are owned. */
    struct curl_slist *connect_to;
    uv_loop_t *loop;
    uv_timer_t timer;
    http_answer_fn on_answer;
    void *arg;
    const char *reason;
    uint8_t *answer; /* Owned. */
    size_t answer_bytes;
    char detail[CURL_ERROR_SIZE]; /* Of what went wrong. */
};

/* A socket of libcurl's; freed by the loop. */
struct socket_watch {
    uv_poll_t poll;
    struct http *http;
    curl_socket_t fd;
};

static void
finish(struct http *http, long status, struct ds_slice body)
{
    http_answer_fn on_answer = http->on_answer;
    uint8_t *answer = http->answer; /* The next request may begin meanwhile. */
    http->on_answer = NULL;
    http->reason = NULL;
    http->answer = NULL;
    http->answer_bytes = 0;
    on_answer(http->arg, status, body);
    free(answer);
}

/* May close `http`, through what on_answer does. */
static void
take_results(struct http *http)
{
    int left;
    CURLMsg *message = curl.curl_multi_info_read(http->multi, &left);
    if (message == NULL || message->msg != CURLMSG_DONE)
        return;
    CURLcode result = message->data.result;
    long status = 0;
    curl.curl_multi_remove_handle(http->multi, http->easy);
    if (result == CURLE_OK)
        curl.curl_easy_getinfo(http->easy, CURLINFO_RESPONSE_CODE, &status);
    const char *detail = http->detail;
    if (status == 0)
        finish(http, 0,
               slice_of_text(detail[0] != '\0' ? detail
                                               : curl.curl_easy_strerror(result)));
    else
        finish(http, status, slice(http->answer, http->answer_bytes));
}

/* What one of our callbacks refused libcurl never goes on with, nor with anything else. */
static void
act(struct http *http, curl_socket_t fd, int flags)
{
    int running;
    CURLMcode result = curl.curl_multi_socket_action(http->multi, fd, flags, &running);
    if (result == CURLM_OK) {
        take_results(http);
        return;
    }
    curl.curl_multi_remove_handle(http->multi, http->easy);
    curl.curl_multi_cleanup(http->multi);
    http->multi = NULL;
    if (http->on_answer != NULL)
        finish(http, 0, slice_of_text("out of memory, or of watches, for a socket"));
}

static void
on_timer(uv_timer_t *timer)
{
    struct http *http = timer->data;
    if (http->reason != NULL)
        finish(http, 0, slice_of_text(http->reason));
    else if (http->multi != NULL)
        act(http, CURL_SOCKET_TIMEOUT, 0);
}

static int
on_set_timer(CURLM *multi, long ms, void *arg)
{
    struct http *http = arg;
    (void)multi;
    if (ms < 0)
        uv_timer_stop(&http->timer);
    else
        uv_timer_start(&http->timer, on_timer, (uint64_t)ms, 0);
    return 0;
}

static void
on_socket_event(uv_poll_t *poll, int status, int events)
{
    struct socket_watch *watch = poll->data;
    struct http *http = watch->http;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0;
    if ((events & UV_READABLE) != 0)
        flags |= CURL_CSELECT_IN;
    if ((events & UV_WRITABLE) != 0)
        flags |= CURL_CSELECT_OUT;
    if (http->multi != NULL)
        act(http, watch->fd, flags);
}

static void
on_watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static struct socket_watch *
add_watch(struct http *http, curl_socket_t fd)
{
    struct socket_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL)
        return NULL;
    watch->http = http;
    watch->fd = fd;
    watch->poll.data = watch;
    if (uv_poll_init(http->loop, &watch->poll, fd) != 0) {
        free(watch);
        return NULL;
    }
    curl.curl_multi_assign(http->multi, fd, watch);
    return watch;
}

/* -1: libcurl gives the request up. */
static int
on_watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *fd_arg)
{
    struct http *http = arg;
    struct socket_watch *watch = fd_arg;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (watch != NULL)
            uv_close((uv_handle_t *)&watch->poll, on_watch_closed);
        curl.curl_multi_assign(http->multi, fd, NULL);
        return 0;
    }
    if (watch == NULL && (watch = add_watch(http, fd)) == NULL)
        return -1;
    int events = 0;
    if (what != CURL_POLL_OUT)
        events |= UV_READABLE;
    if (what != CURL_POLL_IN)
        events |= UV_WRITABLE;
    return watch_start(&watch->poll, events, on_socket_event) == 0 ? 0 : -1;
}

/* Fewer bytes than given: libcurl gives the request up. */
static size_t
on_bytes(char *data, size_t size, size_t count, void *arg)
{
    struct http *http = arg;
    size_t bytes = size * count;
    if (bytes > ANSWER_BYTES_MAX - http->answer_bytes)
        return 0;
    uint8_t *answer = realloc(http->answer, http->answer_bytes + bytes + 1);
    if (answer == NULL)
        return 0;
    memcpy(answer + http->answer_bytes, data, bytes);
    http->answer = answer;
    http->answer_bytes += bytes;
    return bytes;
}

static bool
add_line(struct curl_slist **list, const char *line)
{
    struct curl_slist *longer = curl.curl_slist_append(*list, line);
    if (longer != NULL)
        *list = longer;
    return longer != NULL;
}

/* NULL, or why it cannot be made. */
static const char *
prepare(struct http *http, const struct http_request *request)
{
    char token[HEADER_BYTES_MAX];
    int used = snprintf(token, sizeof token, "Authorization: %s", request->token);
    if (used < 0 || (size_t)used >= sizeof token)
        return "the token is too long";
    curl.curl_slist_free_all(http->headers);
    curl.curl_slist_free_all(http->connect_to);
    http->headers = NULL;
    http->connect_to = NULL;
    http->detail[0] = '\0';
    CURL *easy = http->easy;
    bool is_set = add_line(&http->headers, "Content-Type: application/json") &&
                  add_line(&http->headers, "Expect:"); /* No round trip to ask. */
    if (request->token[0] != '\0')
        is_set = is_set && add_line(&http->headers, token);
    if (request->connect_to != NULL)
        is_set = is_set && add_line(&http->connect_to, request->connect_to);
    is_set =
        is_set &&
        curl.curl_easy_setopt(easy, CURLOPT_HTTPHEADER, http->headers) == CURLE_OK &&
        curl.curl_easy_setopt(easy, CURLOPT_CONNECT_TO, http->connect_to) == CURLE_OK &&
        curl.curl_easy_setopt(easy, CURLOPT_URL, request->url) == CURLE_OK &&
        curl.curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)request->timeout_ms) ==
            CURLE_OK &&
        curl.curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)request->body.len) ==
            CURLE_OK &&
        curl.curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, request->body.data) ==
            CURLE_OK;
    return is_set ? NULL : "out of memory for a request";
}

static bool
add_multi(struct http *http)
{
    http->multi = curl.curl_multi_init();
    if (http->multi == NULL)
        return false;
    curl.curl_multi_setopt(http->multi, CURLMOPT_SOCKETFUNCTION, on_watch_socket);
    curl.curl_multi_setopt(http->multi, CURLMOPT_SOCKETDATA, http);
    curl.curl_multi_setopt(http->multi, CURLMOPT_TIMERFUNCTION, on_set_timer);
    curl.curl_multi_setopt(http->multi, CURLMOPT_TIMERDATA, http);
    return true;
}

void
http_post(struct http *http, const struct http_request *request,
          http_answer_fn on_answer, void *arg)
{
    DS_ASSERT(http->on_answer == NULL);
    http->on_answer = on_answer;
    http->arg = arg;
    http->reason = prepare(http, request);
    if (http->multi == NULL && !add_multi(http))
        http->reason = "out of memory for HTTP";
    if (http->reason == NULL &&
        curl.curl_multi_add_handle(http->multi, http->easy) != CURLM_OK)
        http->reason = "libcurl cannot begin a request";
    if (http->reason != NULL)
        uv_timer_start(&http->timer, on_timer, 0, 0);
}

/* ---- Life ---- */

static bool
set_up(struct http *http, const struct http_options *options)
{
    CURL *easy = http->easy;
    const struct {
        CURLoption option;
        const char *text;
    } texts[] = {
        {CURLOPT_CAINFO, options->authority_path},
        {CURLOPT_SSLCERT, options->certificate_path},
        {CURLOPT_SSLKEY, options->key_path},
        {CURLOPT_KEYPASSWD, options->passphrase},
    };
    bool is_set = curl.curl_easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
                  curl.curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].text[0] != '\0')
            is_set = is_set && curl.curl_easy_setopt(easy, texts[i].option,
                                                     texts[i].text) == CURLE_OK;
    }
    curl.curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes);
    curl.curl_easy_setopt(easy, CURLOPT_WRITEDATA, http);
    curl.curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, http->detail);
#if LIBCURL_VERSION_NUM >= 0x075700
    curl.curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* No wait for a resolver. */
#endif
    return is_set;
}

static void
on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void
http_close(struct http *http)
{
    if (http == NULL)
        return;
    if (http->multi != NULL)
        curl.curl_multi_remove_handle(http->multi, http->easy);
    curl.curl_easy_cleanup(http->easy);
    if (http->multi != NULL)
        curl.curl_multi_cleanup(http->multi);
    curl.curl_slist_free_all(http->headers);
    curl.curl_slist_free_all(http->connect_to);
    free(http->answer);
    uv_close((uv_handle_t *)&http->timer, on_closed);
}

enum ds_status
http_open(uv_loop_t *loop, const struct http_options *options, struct http **out,
          struct ds_error *err)
{
    enum ds_status status = load_library(err);
    if (status != DS_OK)
        return status;
    struct http *http = calloc(1, sizeof *http);
    if (http == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for HTTP");
    http->loop = loop;
    uv_timer_init(loop, &http->timer);
    http->timer.data = http;
    http->easy = curl.curl_easy_init();
    if (http->easy == NULL || !add_multi(http) || !set_up(http, options)) {
        http_close(http);
        return ds_fail(err, DS_NO_MEMORY, "out of memory for HTTP");
    }
    *out = http;
    return DS_OK;
}
