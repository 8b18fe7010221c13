/* transfer_queue_controller: the supervisor takes the place where the controller is
 * found, then forks it. */
#include "base/log.h"
#include "base/slice.h"
#include "base/status.h"
#include "controller/controller.h"
#include "controller/place.h"
#include "os/logfile.h"
#include "os/process.h"
#include "os/secret_file.h"
#include "os/sockets.h"
#include "os/supervisor.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXIT_USAGE = 2, LOG_BYTES_MAX = 64 << 20, LOG_FILES_MAX = 5 };

static const char usage[] =
    "Usage: transfer_queue_controller --socket PATH [options]\n"
    "\n"
    "Keeps the rows of one queue and answers its clients.\n"
    "\n"
    "  --socket PATH         Unix socket to listen on, in a folder of this user alone\n"
    "  --host ADDRESS        also listen at this numeric IPv4 or IPv6 address, for "
    "clients\n"
    "                        on other nodes\n"
    "  --port N              the port there (default: any that is free)\n"
    "  --auth_key_file FILE  key that clients there prove to know: 32 bytes or more,\n"
    "                        in a file of this user alone (default: the file that\n"
    "                        DATASYSTEM_AUTH_KEY_FILE names)\n"
    "  --encrypt_connections encrypt what passes there after that proof\n"
    "  --worker_socket PATH  Unix socket of the datasystem_worker that keeps the "
    "blocks;\n"
    "                        without it, clients delete blocks themselves\n"
    "  --log_dir DIR         folder for transfer_queue_controller.log (default: "
    "stderr)\n"
    "  --journal FILE        where it writes down what it knows, to know it again "
    "after\n"
    "                        a crash (default: PATH.journal; 'none': nowhere)\n"
    "  --fsync               acknowledge only what a power cut would not lose either\n"
    "  --journal_compact_bytes N\n"
    "                        after so many bytes it begins anew with what is known\n"
    "                        then (default: 16777216)\n"
    "  --journal_copies N    on so many other nodes, 2 at most, which go on with the\n"
    "                        queue should this one be lost (default: 2; with --host, "
    "a\n"
    "                        worker that belongs to a cluster, and a name)\n"
    "  --session TEXT        name of the queue: by it, clients find it again at the\n"
    "                        worker should its socket be another one, and a journal "
    "of\n"
    "                        another queue is only used to delete its blocks "
    "(default:\n"
    "                        empty)\n"
    "  --term N              which one of the queue's controllers, one after the "
    "other,\n"
    "                        this is (default: 1). A worker that goes on with a queue\n"
    "                        starts one with a higher\n"
    "  --owner TEXT          who started it, for the log\n"
    "  --ends_with PID,START ends when that process does, which started so many clock\n"
    "                        ticks after the machine (field 22 of /proc/PID/stat)\n"
    "  --help, --version\n"
    "\n"
    "Prints \"ready\" once it listens. A controller that crashes or is killed is "
    "started\n"
    "again. SIGTERM forgets the queue, deletes its blocks and its journal, and ends.\n";

enum option_code {
    SOCKET = 1,
    HOST,
    PORT,
    AUTH_KEY_FILE,
    ENCRYPT_CONNECTIONS,
    WORKER_SOCKET,
    JOURNAL,
    FSYNC,
    JOURNAL_COMPACT,
    JOURNAL_COPIES,
    SESSION,
    TERM,
    LOG_DIR,
    OWNER,
    ENDS_WITH,
    HELP,
    VERSION
};

static const struct option option_table[] = {
    {"socket", required_argument, NULL, SOCKET},
    {"host", required_argument, NULL, HOST},
    {"port", required_argument, NULL, PORT},
    {"auth_key_file", required_argument, NULL, AUTH_KEY_FILE},
    {"encrypt_connections", no_argument, NULL, ENCRYPT_CONNECTIONS},
    {"worker_socket", required_argument, NULL, WORKER_SOCKET},
    {"journal", required_argument, NULL, JOURNAL},
    {"fsync", no_argument, NULL, FSYNC},
    {"journal_compact_bytes", required_argument, NULL, JOURNAL_COMPACT},
    {"journal_copies", required_argument, NULL, JOURNAL_COPIES},
    {"term", required_argument, NULL, TERM},
    {"session", required_argument, NULL, SESSION},
    {"log_dir", required_argument, NULL, LOG_DIR},
    {"owner", required_argument, NULL, OWNER},
    {"ends_with", required_argument, NULL, ENDS_WITH},
    {"help", no_argument, NULL, HELP},
    {"version", no_argument, NULL, VERSION},
    {NULL, 0, NULL, 0},
};

static bool
parse_number(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    *out = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0' && text[0] >= '0' && text[0] <= '9';
}

/* A whole number from 1 on. As take_option(). */
static int
take_bytes(const char *text, uint64_t *out)
{
    if (parse_number(text, out) && *out > 0)
        return -1;
    fprintf(stderr,
            "transfer_queue_controller: --journal_compact_bytes must be a whole number "
            "from 1 on, not '%s'\n",
            text);
    return EXIT_USAGE;
}

/* As take_option(). */
static int
take_number(const char *option, const char *text, uint64_t min, uint64_t max,
            uint64_t *out)
{
    if (parse_number(text, out) && *out >= min && *out <= max)
        return -1;
    fprintf(stderr,
            "transfer_queue_controller: --%s must be a number from %ju to %ju, not "
            "'%s'\n",
            option, (uintmax_t)min, (uintmax_t)max, text);
    return EXIT_USAGE;
}

/* 0: any. As take_option(). */
static int
take_port(const char *text, uint16_t *out)
{
    uint64_t port = 0;
    int result = take_number("port", text, 0, UINT16_MAX, &port);
    *out = (uint16_t)port;
    return result;
}

static int
take_copies(const char *text, uint8_t *out)
{
    uint64_t copies = 0;
    int result = take_number("journal_copies", text, 0, JOURNAL_COPIES_MAX, &copies);
    *out = (uint8_t)copies;
    return result;
}

static int
take_term(const char *text, uint64_t *out)
{
    return take_number("term", text, QUEUE_TERM_FIRST, QUEUE_TERM_ENDED - 1, out);
}

/* As take_option(). The descriptor stays open as long as the program runs. */
static int
take_process(const char *text, int *out_fd)
{
    char *end, *start = NULL;
    errno = 0;
    unsigned long long pid = strtoull(text, &end, 10), ticks = 0;
    if (*end == ',')
        ticks = strtoull(start = end + 1, &end, 10);
    if (errno != 0 || start == NULL || *end != '\0' || pid > INT_MAX || ticks == 0) {
        fprintf(stderr,
                "transfer_queue_controller: --ends_with takes a process and when it "
                "started, such as 4711,123456, not '%s'\n",
                text);
        return EXIT_USAGE;
    }
    *out_fd = process_open((pid_t)pid, ticks);
    if (*out_fd >= 0)
        return -1;
    fprintf(stderr, "transfer_queue_controller: --ends_with %s: %s\n", text,
            errno == ESRCH ? "this process has ended already" : strerror(errno));
    return EXIT_FAILURE;
}

/* As take_option(). */
static int
take_session(const char *text, const char **out)
{
    *out = text;
    if (strlen(text) <= QUEUE_PLACE_NAME_MAX)
        return -1;
    fprintf(stderr, "transfer_queue_controller: --session takes %d bytes at most\n",
            QUEUE_PLACE_NAME_MAX);
    return EXIT_USAGE;
}

/* Stores one option. EXIT_SUCCESS or EXIT_USAGE ends the program with that code; -1
 * goes on. getopt_long() has printed what is wrong, with the name of the option. */
static int
take_option(int code, struct controller_options *options)
{
    switch (code) {
    case SOCKET:
        options->socket_path = optarg;
        return -1;
    case HOST:
        options->host = optarg;
        return -1;
    case PORT:
        return take_port(optarg, &options->port);
    case AUTH_KEY_FILE:
        options->auth_key_file = optarg;
        return -1;
    case ENCRYPT_CONNECTIONS:
        options->encrypts = true;
        return -1;
    case WORKER_SOCKET:
        options->worker_socket_path = optarg;
        return -1;
    case JOURNAL:
        options->journal.path = optarg;
        return -1;
    case FSYNC:
        options->journal.sync = true;
        return -1;
    case JOURNAL_COMPACT:
        return take_bytes(optarg, &options->journal.compact_bytes);
    case JOURNAL_COPIES:
        return take_copies(optarg, &options->copies_max);
    case TERM:
        return take_term(optarg, &options->term);
    case SESSION:
        return take_session(optarg, &options->journal.session);
    case LOG_DIR:
        options->log_dir = optarg;
        return -1;
    case OWNER:
        options->owner = optarg;
        return -1;
    case ENDS_WITH:
        return take_process(optarg, &options->owner_fd);
    case HELP:
        fputs(usage, stdout);
        return EXIT_SUCCESS;
    case VERSION:
        puts(DS_VERSION);
        return EXIT_SUCCESS;
    default:
        fputs("Try 'transfer_queue_controller --help'.\n", stderr);
        return EXIT_USAGE;
    }
}

static int
parse(int argc, char **argv, struct controller_options *options)
{
    int code;
    while ((code = getopt_long(argc, argv, "", option_table, NULL)) != -1) {
        int result = take_option(code, options);
        if (result >= 0)
            return result;
    }
    if (optind < argc) {
        fprintf(stderr, "transfer_queue_controller: unexpected argument '%s'\n",
                argv[optind]);
        return EXIT_USAGE;
    }
    if (options->socket_path == NULL || options->socket_path[0] == '\0') {
        fprintf(stderr, "transfer_queue_controller: --socket PATH is needed\n");
        return EXIT_USAGE;
    }
    return -1;
}

static enum ds_status
open_log(const char *folder, struct logfile **out, struct ds_error *err)
{
    log_set_sink(logfile_write, NULL, LOG_INFO);
    if (folder == NULL)
        return DS_OK;
    struct logfile_options options = {
        .folder = folder,
        .name = "transfer_queue_controller",
        .size_bytes_max = LOG_BYTES_MAX,
        .files_max = LOG_FILES_MAX,
        .mode = 0600,
    };
    enum ds_status status = logfile_open(&options, out, err);
    if (status == DS_OK)
        log_set_sink(logfile_write, *out, LOG_INFO);
    return status;
}

/* Beside the socket unless it is said where, or "none". */
static void
choose_journal(struct controller_options *options, char *beside, size_t bytes)
{
    if (options->journal.path == NULL) {
        snprintf(beside, bytes, "%s.journal", options->socket_path);
        options->journal.path = beside;
    } else if (strcmp(options->journal.path, "none") == 0) {
        options->journal.path = NULL;
    }
}

/* Only at the TCP port is one asked for. */
static enum ds_status
read_key(struct controller_options *options, struct auth_key *key, struct ds_error *err)
{
    struct secret secret = {.len = 0};
    enum ds_status status = DS_OK;
    if (options->host != NULL)
        status = secret_file_read(options->auth_key_file, AUTH_SECRET_BYTES_MIN,
                                  &secret, err);
    if (status == DS_OK && secret.len > 0) {
        auth_key_derive(slice(secret.bytes, secret.len), key);
        options->key = key;
    }
    secret_wipe(&secret);
    if (status == DS_OK && options->encrypts && options->host != NULL &&
        options->key == NULL)
        return ds_fail(err, DS_INVALID,
                       "--encrypt_connections needs a key: name its file with "
                       "--auth_key_file (or DATASYSTEM_AUTH_KEY_FILE)");
    return status;
}

static void
warn_about_no_key(const struct controller_options *options)
{
    if (options->host == NULL || options->key != NULL ||
        socket_host_is_loopback(options->host))
        return;
    log_warn(
        "controller has no key: whoever reaches %s port %u may read, change and end "
        "this queue. Start it with --auth_key_file FILE (from 'openssl rand -hex "
        "32', mode 600), or let a firewall see to who reaches it",
        options->host, options->port);
}

/* ---- Supervisor and child ---- */

static int
run_child(int restarts, void *arg)
{
    return controller_run(arg, restarts);
}

/* A child has said "ready" to our standard output, which it has as well: whoever reads
 * there shall see its end. */
static void
on_up(int restarts, void *arg)
{
    (void)restarts;
    (void)arg;
    if (freopen("/dev/null", "w", stdout) == NULL)
        log_warn("controller cannot redirect its standard output");
}

static void
on_crash(int wait_status, int crashes, int will_restart, void *arg)
{
    (void)wait_status;
    (void)arg;
    if (!will_restart)
        fprintf(stderr,
                "transfer_queue_controller gave up after %d crashes within a minute\n",
                crashes);
}

static int
supervise(struct controller_options *options)
{
    struct place place;
    struct ds_error err = {0};
    if (place_open(options->socket_path, options->host, options->port, &place, &err) !=
        DS_OK) {
        log_error("controller cannot start reason=\"%s\"", err.message);
        fprintf(stderr, "transfer_queue_controller: %s\n", err.message);
        return EXIT_FAILURE;
    }
    options->listen_fd = place.listen_fd;
    options->tcp_fd = place.tcp_fd;
    options->port = place.tcp_port;
    warn_about_no_key(options);
    signal(SIGPIPE, SIG_IGN); /* Nobody may be left to read "ready". */
    signal(SIGXFSZ, SIG_IGN); /* A limit on files is an error like a full disk. */
    struct supervisor_options supervisor = {
        .child = run_child,
        .on_up = on_up,
        .on_crash = on_crash,
        .arg = options,
        .name = "transfer_queue_controller",
    };
    int code = supervisor_run(&supervisor);
    place_close(&place);
    return code;
}

int
main(int argc, char **argv)
{
    struct controller_options options = {.owner = "",
                                         .owner_fd = -1,
                                         .tcp_fd = -1,
                                         .journal.session = "",
                                         .copies_max = JOURNAL_COPIES_MAX,
                                         .term = QUEUE_TERM_FIRST};
    static char beside[4096 + 16];
    int result = parse(argc, argv, &options);
    if (result >= 0)
        return result;
    choose_journal(&options, beside, sizeof beside);
    options.journal.goes_on = options.term > QUEUE_TERM_FIRST;
    struct logfile *log = NULL;
    struct ds_error err = {0};
    struct auth_key key;
    if (open_log(options.log_dir, &log, &err) != DS_OK ||
        read_key(&options, &key, &err) != DS_OK) {
        fprintf(stderr, "transfer_queue_controller: %s\n", err.message);
        logfile_close(log);
        return EXIT_FAILURE;
    }
    result = supervise(&options);
    auth_key_wipe(&key);
    log_set_sink(NULL, NULL, LOG_NONE);
    logfile_close(log);
    return result;
}
