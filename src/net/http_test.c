/* libcurl on the loop, with a server of one thread that says what a test wants. */
#include "net/http.h"

#include "base/slice.h"
#include "os/sockets.h"
#include "test.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REQUEST_BYTES = 4096, WAIT_MS = 20000 };

/* libuv has a pipe for the whole process, which no test leaves. */
__attribute__((constructor)) static void
open_what_stays(void)
{
    uv_loop_t loop;
    if (uv_loop_init(&loop) != 0 || uv_loop_close(&loop) != 0)
        abort();
}

static struct server {
    pthread_t thread;
    int listener;
    uint16_t port;
    const char *response; /* NULL: it keeps silent until the client hangs up. */
    char request[REQUEST_BYTES];
    size_t request_bytes;
} server;

static bool
is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, WAIT_MS) == 1;
}

/* All of ours end with the last byte of their body, '}'. */
static void
read_request(int fd)
{
    while (server.request_bytes < REQUEST_BYTES - 1 && is_readable(fd)) {
        ssize_t bytes = recv(fd, server.request + server.request_bytes,
                             REQUEST_BYTES - 1 - server.request_bytes, 0);
        if (bytes <= 0)
            return;
        server.request_bytes += (size_t)bytes;
        if (server.request[server.request_bytes - 1] == '}')
            return;
    }
}

static void *
serve(void *arg)
{
    char nothing[16];
    (void)arg;
    if (!is_readable(server.listener))
        return NULL;
    int fd = accept(server.listener, NULL, NULL);
    read_request(fd);
    if (server.response != NULL)
        (void)send(fd, server.response, strlen(server.response), MSG_NOSIGNAL);
    else if (is_readable(fd))
        (void)recv(fd, nothing, sizeof nothing, 0);
    close(fd);
    return NULL;
}

static void
server_start(const char *response)
{
    struct ds_error err = {0};
    server = (struct server){.response = response};
    CHECK_OK(
        socket_listen_tcp("127.0.0.1", 0, 4, &server.listener, &server.port, &err));
    CHECK_INT(pthread_create(&server.thread, NULL, serve, NULL), 0);
}

static void
server_stop(void)
{
    CHECK_INT(pthread_join(server.thread, NULL), 0);
    socket_close(server.listener);
}

static struct {
    uv_loop_t loop;
    struct http *http;
    int answers;
    long status;
    char body[512];
    size_t body_bytes;
} here;

static void
note_answer(void *arg, long status, struct ds_slice body)
{
    CHECK(arg == &here);
    here.answers++;
    here.status = status;
    here.body_bytes = body.len;
    snprintf(here.body, sizeof here.body, "%.*s", (int)body.len,
             body.len == 0 ? "" : (const char *)body.data);
}

static void
begin(void)
{
    const struct http_options options = {"", "", "", ""};
    struct ds_error err = {0};
    memset(&here, 0, sizeof here);
    CHECK_INT(uv_loop_init(&here.loop), 0);
    CHECK_OK(http_open(&here.loop, &options, &here.http, &err));
}

static void
finish(void)
{
    http_close(here.http);
    uv_run(&here.loop, UV_RUN_DEFAULT);
    CHECK_INT(uv_loop_close(&here.loop), 0);
}

static void
post(uint16_t port, const char *token, uint32_t timeout_ms)
{
    char url[64];
    snprintf(url, sizeof url, "http://127.0.0.1:%u/v3/kv/range", port);
    struct http_request request = {.url = url,
                                   .token = token,
                                   .body = slice_of_text("{\"key\":\"aw==\"}"),
                                   .timeout_ms = timeout_ms};
    int before = here.answers;
    http_post(here.http, &request, note_answer, &here);
    CHECK_INT(here.answers, before); /* Never from within. */
}

static void
hear(void)
{
    int before = here.answers;
    while (here.answers == before && uv_run(&here.loop, UV_RUN_ONCE) != 0) {
    }
    CHECK_INT(here.answers, before + 1);
}

TEST(a_request_is_posted_and_its_answer_heard)
{
    begin();
    server_start("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    post(server.port, "abc.1", WAIT_MS);
    hear();
    server_stop();
    CHECK_INT(here.status, 200);
    CHECK_TEXT(here.body, "hello");
    CHECK_CONTAINS(server.request, "POST /v3/kv/range HTTP/1.1\r\n");
    CHECK_CONTAINS(server.request, "\r\nAuthorization: abc.1\r\n");
    CHECK_CONTAINS(server.request, "\r\n\r\n{\"key\":\"aw==\"}");
    server_start("HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n{}");
    post(server.port, "", WAIT_MS); /* The same connection's end is found. */
    hear();
    server_stop();
    CHECK_INT(here.status, 401);
    CHECK(strstr(server.request, "Authorization") == NULL);
    finish();
}

TEST(who_does_not_answer_is_named_with_the_reason)
{
    begin();
    server_start(NULL);
    post(server.port, "", 200);
    hear();
    server_stop();
    CHECK_INT(here.status, 0);
    CHECK_CONTAINS(here.body, "timed out");
    post(server.port, "", WAIT_MS); /* Nobody listens there now. */
    hear();
    CHECK_INT(here.status, 0);
    CHECK_CONTAINS(here.body, "onnect");
    finish();
}

TEST(an_answer_without_end_is_cut_off)
{
    enum { LONG = 2 << 20 };
    static const char head[] = "HTTP/1.1 200 OK\r\n\r\n";
    static char endless[LONG];
    memset(endless, 'x', sizeof endless);
    memcpy(endless, head, sizeof head - 1);
    endless[LONG - 1] = '\0';
    begin();
    server_start(endless);
    post(server.port, "", WAIT_MS);
    hear();
    server_stop();
    CHECK_INT(here.status, 0);
    finish();
}

/* A proxy of the environment is not asked: it would hear passwords. */
TEST(no_proxy_is_asked)
{
    setenv("http_proxy", "http://127.0.0.1:1", 1);
    begin();
    server_start("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}");
    post(server.port, "", WAIT_MS);
    hear();
    server_stop();
    CHECK_INT(here.status, 200);
    finish();
    unsetenv("http_proxy");
}

TEST(closing_while_a_request_is_under_way_forgets_it)
{
    begin();
    server_start(NULL);
    post(server.port, "", WAIT_MS);
    uv_run(&here.loop, UV_RUN_ONCE);
    finish();
    server_stop();
    CHECK_INT(here.answers, 0);
}

TEST_MAIN(RUN(a_request_is_posted_and_its_answer_heard),
          RUN(who_does_not_answer_is_named_with_the_reason),
          RUN(an_answer_without_end_is_cut_off), RUN(no_proxy_is_asked),
          RUN(closing_while_a_request_is_under_way_forgets_it))
