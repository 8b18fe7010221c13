#include "worker/etcd.h"

#include "base/check.h"
#include "base/numeric.h"
#include "base/slice.h"
#include "base/status.h"
#include "net/http.h"
#include "os/files.h"
#include "os/sockets.h"
#include "wire/etcd.h"
#include "worker/flags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    ANSWER_MS_MAX = 1000, /* So that several addresses can be tried within a lease. */
    ADDRESSES_MAX = 16,
    ADDRESS_BYTES = 280,
    PASSPHRASE_BYTES = 256,
    URL_BYTES = 640,
};

/* Invariants: on_answer is set while a question is under way, and `body` is what was asked. */
struct etcd {
    const struct worker_flags *flags;
    struct http *http;
    char addresses[ADDRESSES_MAX][ADDRESS_BYTES]; /* "host:port" */
    size_t address_count;
    size_t address; /* That is asked. */
    char token[ETCD_TOKEN_BYTES_MAX + 1];
    const char *path;
    /* Kept, as a login may have to come first, or another address. */
    struct writer body;
    size_t tried; /* How many addresses have not answered. */
    etcd_answer_fn on_answer;
    void *arg;
};

static void begin(struct etcd *etcd);
static void post_question(struct etcd *etcd);

void
etcd_reject(struct etcd *etcd, const char *why, char out_reason[ETCD_REASON_BYTES])
{
    snprintf(out_reason, ETCD_REASON_BYTES, "etcd at %s: %s",
             etcd->addresses[etcd->address], why);
    etcd->address = (etcd->address + 1) % etcd->address_count;
}

static void
finish(struct etcd *etcd, struct ds_slice answer, const char *why)
{
    char reason[ETCD_REASON_BYTES];
    etcd_answer_fn on_answer = etcd->on_answer;
    etcd->on_answer = NULL;
    if (why != NULL)
        etcd_reject(etcd, why, reason);
    on_answer(etcd->arg, answer, why == NULL ? NULL : reason);
}

/* ---- Posting ---- */

/* NULL: it is one that was hoped for. */
static const char *
why_refused(long status, struct ds_slice body, char text[ETCD_REASON_BYTES / 2])
{
    if (status == 200)
        return NULL;
    if (status == 0)
        snprintf(text, ETCD_REASON_BYTES / 2, "%.*s", (int)min_u64(body.len, 200),
                 (const char *)body.data);
    else if (!etcd_decode_error(body, text, ETCD_REASON_BYTES / 2))
        snprintf(text, ETCD_REASON_BYTES / 2, "HTTP status %ld", status);
    return text;
}

/* NULL if it was no answer, and another address is asked. */
static const char *
refused_by_all(struct etcd *etcd, long status, const char *why)
{
    if (status != 0 || ++etcd->tried >= etcd->address_count)
        return why;
    etcd->address = (etcd->address + 1) % etcd->address_count;
    begin(etcd);
    return NULL;
}

static void
on_login(void *arg, long status, struct ds_slice body)
{
    struct etcd *etcd = arg;
    char text[ETCD_REASON_BYTES / 2];
    const char *why = why_refused(status, body, text);
    if (why == NULL && !etcd_decode_token(body, etcd->token))
        why = "its answer to the login is malformed";
    if (why == NULL)
        post_question(etcd);
    else if ((why = refused_by_all(etcd, status, why)) != NULL)
        finish(etcd, (struct ds_slice){0}, why);
}

static void
on_question(void *arg, long status, struct ds_slice body)
{
    struct etcd *etcd = arg;
    char text[ETCD_REASON_BYTES / 2];
    const char *why = why_refused(status, body, text);
    if (why != NULL) {
        etcd->token[0] = '\0'; /* It may be too old. */
        why = refused_by_all(etcd, status, why);
        if (why == NULL)
            return;
    }
    finish(etcd, body, why);
}

/* The server's certificate may be for another name than that of its address. */
static void
set_url(const struct etcd *etcd, const char *path, char url[URL_BYTES],
        char connect_to[URL_BYTES])
{
    const char *address = etcd->addresses[etcd->address];
    const char *name = etcd->flags->etcd_target_name_override;
    bool is_tls = etcd->flags->enable_etcd_auth || etcd->flags->etcd_ca[0] != '\0';
    connect_to[0] = '\0';
    if (is_tls && name[0] != '\0') {
        const char *port = strrchr(address, ':') + 1;
        snprintf(url, URL_BYTES, "https://%s:%s%s", name, port, path);
        snprintf(connect_to, URL_BYTES, "%s:%s:%s", name, port, address);
    } else {
        snprintf(url, URL_BYTES, "%s://%s%s", is_tls ? "https" : "http", address, path);
    }
}

static void
post(struct etcd *etcd, const char *path, const struct writer *body,
     http_answer_fn on_answer)
{
    char url[URL_BYTES], connect_to[URL_BYTES];
    set_url(etcd, path, url, connect_to);
    struct http_request request = {
        .url = url,
        .connect_to = connect_to[0] != '\0' ? connect_to : NULL,
        .token = etcd->token,
        .body = slice(body->data, body->len),
        .timeout_ms = ANSWER_MS_MAX,
    };
    http_post(etcd->http, &request, on_answer, etcd);
}

static void
post_question(struct etcd *etcd)
{
    post(etcd, etcd->path, &etcd->body, on_question);
}

static void
begin(struct etcd *etcd)
{
    const struct worker_flags *flags = etcd->flags;
    AUTO_WRITER(login);
    if (flags->etcd_username[0] == '\0' || etcd->token[0] != '\0') {
        post_question(etcd);
        return;
    }
    etcd_encode_login(&login, flags->etcd_username, flags->etcd_password);
    post(etcd, ETCD_LOGIN_PATH, &login, on_login);
}

void
etcd_ask(struct etcd *etcd, const char *path, struct writer *body,
         etcd_answer_fn on_answer, void *arg)
{
    DS_ASSERT(etcd->on_answer == NULL);
    etcd->path = path;
    etcd->on_answer = on_answer;
    etcd->arg = arg;
    etcd->tried = 0;
    writer_fini(&etcd->body);
    etcd->body = *body;
    writer_init(body);
    begin(etcd);
}

/* ---- Life ---- */

static enum ds_status
parse_addresses(struct etcd *etcd, struct ds_error *err)
{
    const char *at = etcd->flags->etcd_address;
    while (*at != '\0') {
        size_t bytes = strcspn(at, ",");
        char host[ADDRESS_BYTES];
        uint16_t port;
        if (etcd->address_count == ADDRESSES_MAX || bytes >= ADDRESS_BYTES)
            return ds_fail(err, DS_INVALID,
                           "--etcd_address: too many addresses, or one that is too "
                           "long; give up to %d host:port, with commas between",
                           ADDRESSES_MAX);
        char *address = etcd->addresses[etcd->address_count++];
        memcpy(address, at, bytes);
        if (strpbrk(address, " \t/") != NULL)
            return ds_fail(err, DS_INVALID,
                           "--etcd_address: '%s' is no host:port; give several with "
                           "commas between, and nothing else",
                           address);
        enum ds_status status =
            socket_parse_address(address, host, sizeof host, &port, err);
        if (status != DS_OK)
            return status;
        at += bytes + (at[bytes] == ',');
    }
    return DS_OK;
}

static enum ds_status
open_http(struct etcd *etcd, uv_loop_t *loop, struct ds_error *err)
{
    const struct worker_flags *flags = etcd->flags;
    char passphrase[PASSPHRASE_BYTES] = "";
    const char *path = flags->etcd_passphrase_path;
    if (path[0] != '\0' && !files_read(path, passphrase, sizeof passphrase))
        return ds_fail(err, DS_IO, "--etcd_passphrase_path: cannot read '%s'", path);
    passphrase[strcspn(passphrase, "\n")] = '\0';
    struct http_options options = {
        .authority_path = flags->etcd_ca,
        .certificate_path = flags->etcd_cert,
        .key_path = flags->etcd_key,
        .passphrase = passphrase,
    };
    return http_open(loop, &options, &etcd->http, err);
}

enum ds_status
etcd_open(uv_loop_t *loop, const struct worker_flags *flags, struct etcd **out,
          struct ds_error *err)
{
    struct etcd *etcd = calloc(1, sizeof *etcd);
    if (etcd == NULL)
        return ds_fail(err, DS_NO_MEMORY, "out of memory for asking etcd");
    etcd->flags = flags;
    enum ds_status status = parse_addresses(etcd, err);
    if (status == DS_OK)
        status = open_http(etcd, loop, err);
    if (status != DS_OK) {
        free(etcd);
        return status;
    }
    *out = etcd;
    return DS_OK;
}

void
etcd_close(struct etcd *etcd)
{
    if (etcd == NULL)
        return;
    http_close(etcd->http);
    writer_fini(&etcd->body);
    free(etcd);
}
