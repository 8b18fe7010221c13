#include "os/fault.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* `current` is set before the process starts threads, `level` changes in a new process
 * only. */
static struct fault_control *current;
static uint32_t level;
static _Thread_local bool is_muted;

extern const char __executable_start; /* Of the linker. */

void
fault_use(struct fault_control *control)
{
    current = control;
}

void
fault_mute(bool muted)
{
    is_muted = muted;
}

static struct fault_control *
control_here(void)
{
    return current != NULL && current->level == level ? current : NULL;
}

static void
describe(struct fault_control *control, const char *name, int number, size_t variants,
         const void *caller)
{
    control->variants = (uint32_t)variants;
    control->number = number;
    control->caller = (uint64_t)((const char *)caller - &__executable_start);
    snprintf(control->name, sizeof control->name, "%s", name);
}

static bool
is_wanted(const struct fault_control *control, const char *name, uint64_t call)
{
    if (control->nth == 0 || call < control->nth || call - control->nth >= control->run)
        return false;
    return call == control->nth || !control->same || strcmp(name, control->name) == 0;
}

/* The errno with which this call of `name` fails, FAULT_SHORT, or 0: it does not. */
static int
next(const char *name, const int *numbers, size_t count, const void *caller)
{
    struct fault_control *control = control_here();
    if (control == NULL || is_muted || !atomic_load(&control->armed))
        return 0;
    if (control->only[0] != '\0' && strcmp(control->only, name) != 0)
        return 0;
    uint64_t call = atomic_fetch_add(&control->calls, 1) + 1;
    if (!is_wanted(control, name, call))
        return 0;
    size_t variant = control->variant < count ? control->variant : count - 1;
    if (atomic_fetch_add(&control->failures, 1) == 0)
        describe(control, name, numbers[variant], count, caller);
    return numbers[variant];
}

static void
count_allocation(int64_t change)
{
    struct fault_control *control = control_here();
    if (control != NULL)
        atomic_fetch_add(&control->allocations, change);
}

static void
count_mapped(int64_t change)
{
    struct fault_control *control = control_here();
    if (control != NULL)
        atomic_fetch_add(&control->mapped_bytes, change);
}

/* ---- Wrappers ---- */

#define NEXT(name, ...)                    \
    next(name, (const int[]){__VA_ARGS__}, \
         sizeof(const int[]){__VA_ARGS__} / sizeof(int), __builtin_return_address(0))

/* What the linker calls the wrapped function and the wrapper. */
#define DECLARE(type, name, parameters) \
    type __real_##name parameters;      \
    type __wrap_##name parameters;

/* Fails with `failure` and one of the numbers as errno. */
#define WRAP(type, name, parameters, arguments, failure, ...) \
    DECLARE(type, name, parameters)                           \
    type __wrap_##name parameters                             \
    {                                                         \
        int fault = NEXT(#name, __VA_ARGS__);                 \
        if (fault == 0)                                       \
            return __real_##name arguments;                   \
        errno = fault;                                        \
        return failure;                                       \
    }

/* ---- Memory ---- */

#define WRAP_ALLOCATION(name, parameters, arguments) \
    DECLARE(void *, name, parameters)                \
    void *__wrap_##name parameters                   \
    {                                                \
        void *data = NULL;                           \
        errno = NEXT(#name, ENOMEM);                 \
        if (errno == 0)                              \
            data = __real_##name arguments;          \
        count_allocation(data != NULL);              \
        return data;                                 \
    }

WRAP_ALLOCATION(malloc, (size_t bytes), (bytes))
WRAP_ALLOCATION(aligned_alloc, (size_t alignment, size_t bytes), (alignment, bytes))
WRAP_ALLOCATION(calloc, (size_t count, size_t bytes), (count, bytes))

DECLARE(void *, realloc, (void *old, size_t bytes))
DECLARE(void, free, (void *data))
DECLARE(int, posix_memalign, (void **out, size_t alignment, size_t bytes))
DECLARE(char *, strdup, (const char *text))
DECLARE(char *, strndup, (const char *text, size_t len))

void *
__wrap_realloc(void *old, size_t bytes)
{
    void *data = NULL;
    errno = NEXT("realloc", ENOMEM);
    if (errno != 0)
        return NULL;
    data = __real_realloc(old, bytes);
    count_allocation((data != NULL) - (old != NULL && (data != NULL || bytes == 0)));
    return data;
}

void
__wrap_free(void *data)
{
    count_allocation(-(data != NULL));
    __real_free(data);
}

int
__wrap_posix_memalign(void **out, size_t alignment, size_t bytes)
{
    int result = NEXT("posix_memalign", ENOMEM);
    if (result == 0)
        result = __real_posix_memalign(out, alignment, bytes);
    count_allocation(result == 0);
    return result;
}

char *
__wrap_strdup(const char *text)
{
    errno = NEXT("strdup", ENOMEM);
    char *copy = errno == 0 ? __real_strdup(text) : NULL;
    count_allocation(copy != NULL);
    return copy;
}

char *
__wrap_strndup(const char *text, size_t len)
{
    errno = NEXT("strndup", ENOMEM);
    char *copy = errno == 0 ? __real_strndup(text, len) : NULL;
    count_allocation(copy != NULL);
    return copy;
}

DECLARE(void *, mmap,
        (void *at, size_t bytes, int protection, int flags, int fd, off_t offset))
DECLARE(int, munmap, (void *data, size_t bytes))

static int64_t
whole_pages(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (int64_t)((bytes + page - 1) / page * page);
}

void *
__wrap_mmap(void *at, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    int number = NEXT("mmap", ENOMEM);
    if (number != 0) {
        errno = number;
        return MAP_FAILED;
    }
    void *data = __real_mmap(at, bytes, protection, flags, fd, offset);
    if (data != MAP_FAILED && (flags & MAP_FIXED) == 0) /* Else it was counted. */
        count_mapped(whole_pages(bytes));
    return data;
}

/* ENOMEM: in the middle of a larger mapping, at the limit of their number. It is counted
 * as gone, since nobody can do anything about it. */
int
__wrap_munmap(void *data, size_t bytes)
{
    count_mapped(-whole_pages(bytes));
    errno = NEXT("munmap", ENOMEM);
    return errno != 0 ? -1 : __real_munmap(data, bytes);
}

WRAP(int, madvise, (void *data, size_t bytes, int advice), (data, bytes, advice), -1,
     ENOMEM, EINVAL)

/* ---- Files ---- */

WRAP(int, memfd_create, (const char *name, unsigned flags), (name, flags), -1, EMFILE,
     ENOMEM)
WRAP(int, ftruncate, (int fd, off_t bytes), (fd, bytes), -1, ENOSPC, EIO)
WRAP(int, fallocate, (int fd, int mode, off_t offset, off_t bytes),
     (fd, mode, offset, bytes), -1, ENOSPC, EINTR)
WRAP(int, fchmod, (int fd, mode_t mode), (fd, mode), -1, EIO)
WRAP(int, fsync, (int fd), (fd), -1, EIO, ENOSPC)
WRAP(int, getrlimit, (int what, struct rlimit *limit), (what, limit), -1, EPERM)
WRAP(int, setrlimit, (int what, const struct rlimit *limit), (what, limit), -1, EPERM)
WRAP(int, fdatasync, (int fd), (fd), -1, EIO, ENOSPC)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), -1, ENOSPC)
WRAP(int, rename, (const char *from, const char *to), (from, to), -1, ENOSPC, EIO)
WRAP(int, unlink, (const char *path), (path), -1, EIO)
WRAP(int, flock, (int fd, int operation), (fd, operation), -1, ENOLCK, EINTR)
WRAP(int, stat, (const char *path, struct stat *out), (path, out), -1, ENOMEM, EACCES)
WRAP(int, lstat, (const char *path, struct stat *out), (path, out), -1, ENOMEM, EACCES)
WRAP(int, fstat, (int fd, struct stat *out), (fd, out), -1, ENOMEM)
WRAP(FILE *, fopen, (const char *path, const char *mode), (path, mode), NULL, EMFILE,
     ENOMEM)
WRAP(DIR *, opendir, (const char *path), (path), NULL, EMFILE, ENOMEM)
WRAP(ssize_t, readlinkat, (int fd, const char *path, char *out, size_t bytes),
     (fd, path, out, bytes), -1, ENOMEM)

/* The descriptor is gone all the same. */
DECLARE(int, close, (int fd))
int
__wrap_close(int fd)
{
    int number = NEXT("close", EIO, EINTR);
    int result = __real_close(fd);
    if (number == 0 || result != 0)
        return result;
    errno = number;
    return -1;
}

/* The third argument where there is one. */
#define WRAP_OPEN(name)                                            \
    DECLARE(int, name, (const char *, int, ...))                   \
    int __wrap_##name(const char *path, int flags, ...)            \
    {                                                              \
        va_list rest;                                              \
        va_start(rest, flags);                                     \
        mode_t mode = 0;                                           \
        if ((flags & O_CREAT) != 0)                                \
            mode = va_arg(rest, mode_t);                           \
        va_end(rest);                                              \
        errno = NEXT(#name, EMFILE, ENOMEM, EACCES);               \
        return errno != 0 ? -1 : __real_##name(path, flags, mode); \
    }
WRAP_OPEN(open)
WRAP_OPEN(open64)

#define WRAP_FCNTL(name)                                               \
    DECLARE(int, name, (int, int, ...))                                \
    int __wrap_##name(int fd, int command, ...)                        \
    {                                                                  \
        va_list rest;                                                  \
        va_start(rest, command);                                       \
        void *argument = va_arg(rest, void *);                         \
        va_end(rest);                                                  \
        errno = command == F_DUPFD_CLOEXEC ? NEXT(#name "", EMFILE)    \
                                           : NEXT(#name "", ENOLCK);   \
        return errno != 0 ? -1 : __real_##name(fd, command, argument); \
    }
WRAP_FCNTL(fcntl)
WRAP_FCNTL(fcntl64)

DECLARE(ssize_t, read, (int fd, void *out, size_t bytes))
DECLARE(ssize_t, write, (int fd, const void *data, size_t bytes))

static size_t
one_of(size_t bytes)
{
    return bytes > 1 ? 1 : bytes;
}

ssize_t
__wrap_read(int fd, void *out, size_t bytes)
{
    int number = NEXT("read", EIO, EINTR, FAULT_SHORT);
    errno = number;
    if (number > 0)
        return -1;
    return __real_read(fd, out, number == FAULT_SHORT ? one_of(bytes) : bytes);
}

ssize_t
__wrap_write(int fd, const void *data, size_t bytes)
{
    int number = NEXT("write", ENOSPC, EINTR, FAULT_SHORT);
    errno = number;
    if (number > 0)
        return -1;
    return __real_write(fd, data, number == FAULT_SHORT ? one_of(bytes) : bytes);
}

DECLARE(ssize_t, pwrite, (int fd, const void *data, size_t bytes, off_t offset))
ssize_t
__wrap_pwrite(int fd, const void *data, size_t bytes, off_t offset)
{
    int number = NEXT("pwrite", EIO, ENOSPC, EINTR, FAULT_SHORT);
    errno = number;
    if (number > 0)
        return -1;
    return __real_pwrite(fd, data, number == FAULT_SHORT ? one_of(bytes) : bytes,
                         offset);
}

WRAP(int, fstatvfs, (int fd, struct statvfs *out), (fd, out), -1, EIO)

/* ---- Sockets ---- */

WRAP(int, socket, (int domain, int type, int protocol), (domain, type, protocol), -1,
     EMFILE, ENOBUFS)
WRAP(int, socketpair, (int domain, int type, int protocol, int *out),
     (domain, type, protocol, out), -1, EMFILE)
WRAP(int, bind, (int fd, const struct sockaddr *address, socklen_t bytes),
     (fd, address, bytes), -1, ENOMEM, EADDRINUSE)
WRAP(int, listen, (int fd, int backlog), (fd, backlog), -1, EADDRINUSE)
WRAP(int, connect, (int fd, const struct sockaddr *address, socklen_t bytes),
     (fd, address, bytes), -1, ECONNREFUSED, EAGAIN, ENOMEM)
WRAP(int, getsockname, (int fd, struct sockaddr *out, socklen_t *bytes),
     (fd, out, bytes), -1, ENOBUFS)
WRAP(int, getpeername, (int fd, struct sockaddr *out, socklen_t *bytes),
     (fd, out, bytes), -1, ENOTCONN)
WRAP(int, getsockopt, (int fd, int scope, int option, void *out, socklen_t *bytes),
     (fd, scope, option, out, bytes), -1, ENOBUFS)
WRAP(int, setsockopt,
     (int fd, int scope, int option, const void *value, socklen_t bytes),
     (fd, scope, option, value, bytes), -1, ENOMEM)
WRAP(int, shutdown, (int fd, int how), (fd, how), -1, ENOTCONN)
WRAP(ssize_t, sendto,
     (int fd, const void *data, size_t bytes, int flags, const struct sockaddr *to,
      socklen_t to_bytes),
     (fd, data, bytes, flags, to, to_bytes), -1, ENOBUFS, EINTR)
WRAP(ssize_t, recvfrom,
     (int fd, void *out, size_t bytes, int flags, struct sockaddr *from,
      socklen_t *from_bytes),
     (fd, out, bytes, flags, from, from_bytes), -1, ENOMEM, EAGAIN)

/* A failed accept() leaves the connection where it is. */
WRAP(int, accept4, (int fd, struct sockaddr *out, socklen_t *bytes, int flags),
     (fd, out, bytes, flags), -1, EMFILE, ENOMEM, ECONNABORTED, EINTR)

DECLARE(int, getaddrinfo,
        (const char *host, const char *service, const struct addrinfo *hints,
         struct addrinfo **out))
int
__wrap_getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                   struct addrinfo **out)
{
    int result = NEXT("getaddrinfo", EAI_MEMORY, EAI_AGAIN);
    return result != 0 ? result : __real_getaddrinfo(host, service, hints, out);
}

DECLARE(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags))
DECLARE(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags))

/* The first byte of the message alone. */
static struct iovec
first_byte(const struct msghdr *message)
{
    for (size_t i = 0; i < message->msg_iovlen; i++) {
        if (message->msg_iov[i].iov_len > 0)
            return (struct iovec){message->msg_iov[i].iov_base, 1};
    }
    return (struct iovec){0};
}

ssize_t
__wrap_sendmsg(int fd, const struct msghdr *message, int flags)
{
    int number = NEXT("sendmsg", ECONNRESET, EAGAIN, EINTR, ENOBUFS, FAULT_SHORT);
    errno = number;
    if (number > 0)
        return -1;
    if (number == 0)
        return __real_sendmsg(fd, message, flags);
    struct iovec part = first_byte(message);
    struct msghdr shorter = *message;
    shorter.msg_iov = &part;
    shorter.msg_iovlen = 1;
    return __real_sendmsg(fd, &shorter, flags);
}

ssize_t
__wrap_recvmsg(int fd, struct msghdr *message, int flags)
{
    int number = NEXT("recvmsg", ECONNRESET, EAGAIN, EINTR, ENOMEM, FAULT_SHORT);
    errno = number;
    if (number > 0)
        return -1;
    if (number == 0)
        return __real_recvmsg(fd, message, flags);
    struct iovec part = first_byte(message);
    struct msghdr shorter = *message;
    shorter.msg_iov = &part;
    shorter.msg_iovlen = 1;
    ssize_t got = __real_recvmsg(fd, &shorter, flags);
    message->msg_controllen = shorter.msg_controllen;
    message->msg_flags = shorter.msg_flags;
    return got;
}

/* ---- Waiting ---- */

WRAP(int, poll, (struct pollfd * watched, nfds_t count, int ms), (watched, count, ms),
     -1, ENOMEM, EINTR)
WRAP(int, eventfd, (unsigned value, int flags), (value, flags), -1, EMFILE)
WRAP(int, pipe2, (int *out, int flags), (out, flags), -1, EMFILE)
WRAP(int, epoll_create1, (int flags), (flags), -1, EMFILE)

/* Only a descriptor that is not in the set yet needs anything of the kernel. */
DECLARE(int, epoll_ctl, (int fd, int operation, int watched, struct epoll_event *event))
int
__wrap_epoll_ctl(int fd, int operation, int watched, struct epoll_event *event)
{
    int result = __real_epoll_ctl(fd, operation, watched, event);
    if (operation != EPOLL_CTL_ADD || result != 0)
        return result;
    int fault = NEXT("epoll_ctl", ENOSPC, ENOMEM);
    if (fault == 0)
        return 0;
    (void)__real_epoll_ctl(fd, EPOLL_CTL_DEL, watched, event);
    errno = fault;
    return -1;
}

/* Not among the counted ones, unless it is named: a daemon wakes up at its own times,
 * and n would mean another call each time. */
DECLARE(int, epoll_pwait,
        (int fd, struct epoll_event *out, int max, int ms, const sigset_t *mask))
DECLARE(int, epoll_wait, (int fd, struct epoll_event *out, int max, int ms))

static bool
is_named(void)
{
    struct fault_control *control = control_here();
    return control != NULL && control->only[0] != '\0';
}

int
__wrap_epoll_wait(int fd, struct epoll_event *out, int max, int ms)
{
    errno = is_named() ? NEXT("epoll_wait", EINTR) : 0;
    return errno != 0 ? -1 : __real_epoll_wait(fd, out, max, ms);
}

int
__wrap_epoll_pwait(int fd, struct epoll_event *out, int max, int ms,
                   const sigset_t *mask)
{
    errno = is_named() ? NEXT("epoll_pwait", EINTR) : 0;
    return errno != 0 ? -1 : __real_epoll_pwait(fd, out, max, ms, mask);
}

/* ---- Processes ---- */

DECLARE(int, pthread_create,
        (pthread_t * out, const pthread_attr_t *attributes, void *(*run)(void *),
         void *arg))
int
__wrap_pthread_create(pthread_t *out, const pthread_attr_t *attributes,
                      void *(*run)(void *), void *arg)
{
    int result = NEXT("pthread_create", EAGAIN);
    return result != 0 ? result : __real_pthread_create(out, attributes, run, arg);
}

DECLARE(pid_t, fork, (void))
pid_t
__wrap_fork(void)
{
    errno = NEXT("fork", EAGAIN, ENOMEM);
    if (errno != 0)
        return -1;
    pid_t pid = __real_fork();
    if (pid == 0)
        level++;
    return pid;
}

WRAP(int, kill, (pid_t pid, int signal_number), (pid, signal_number), -1, ESRCH)
WRAP(int, sigwaitinfo, (const sigset_t *set, siginfo_t *out), (set, out), -1, EINTR)
WRAP(int, sigtimedwait,
     (const sigset_t *set, siginfo_t *out, const struct timespec *time),
     (set, out, time), -1, EINTR, EAGAIN)
WRAP(ssize_t, getrandom, (void *out, size_t bytes, unsigned flags), (out, bytes, flags),
     -1, EINTR)

/* pidfd_open() and what else has no function of its own. */
DECLARE(long, syscall, (long number, ...))
long
__wrap_syscall(long number, ...)
{
    enum { ARGUMENTS = 6 };
    long arguments[ARGUMENTS];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < ARGUMENTS; i++)
        arguments[i] = va_arg(rest, long);
    va_end(rest);
    errno = NEXT("syscall", EMFILE, ENOMEM);
    if (errno != 0)
        return -1;
    return __real_syscall(number, arguments[0], arguments[1], arguments[2],
                          arguments[3], arguments[4], arguments[5]);
}

/* ---- The control page of a daemon ---- */

__attribute__((constructor)) static void
open_control(void)
{
    const char *path = getenv("FAULT_CONTROL");
    if (path == NULL)
        return;
    int fd = __real_open(path, O_RDWR | O_CLOEXEC);
    void *page = MAP_FAILED;
    if (fd >= 0)
        page = __real_mmap(NULL, sizeof *current, PROT_READ | PROT_WRITE, MAP_SHARED,
                           fd, 0);
    if (page == MAP_FAILED) {
        perror(path);
        _exit(1);
    }
    (void)__real_close(fd);
    fault_use(page);
}
