/* Bytes, descriptors and credentials over a connected socket. */
#include "os/sockets.h"

#include "base/check.h"
#include "base/status.h"
#include "os/process.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5. */
#endif

/* Room for as many descriptors as a message may carry in either direction. */
enum { DESCRIPTORS_MAX = 16 };
union control {
    struct cmsghdr align;
    char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
};

static size_t
take_descriptors(struct msghdr *message, int *out_fds)
{
    size_t count = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part != NULL;
         part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t bytes = part->cmsg_len - CMSG_LEN(0);
        memcpy(out_fds + count, CMSG_DATA(part), bytes);
        count += bytes / sizeof(int);
    }
    return count;
}

ssize_t
socket_receive(int fd, void *data, size_t bytes, bool *out_eof, int *out_fds,
               size_t fds_max, size_t *out_fd_count, struct ds_error *err)
{
    DS_ASSERT(bytes > 0);
    DS_ASSERT(fds_max <= DESCRIPTORS_MAX);
    struct iovec part = {.iov_base = data, .iov_len = bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    union control control;
    if (fds_max > 0) {
        message.msg_control = control.bytes;
        /* To the byte: the kernel itself closes what does not fit. */
        message.msg_controllen = CMSG_LEN(fds_max * sizeof(int));
    }
    ssize_t got;
    do {
        got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (got < 0 && errno == EINTR);
    if (got < 0 && errno != EAGAIN) {
        (void)ds_fail_errno(err, "receive");
        return -1;
    }
    *out_eof = got == 0;
    *out_fd_count = got > 0 && fds_max > 0 ? take_descriptors(&message, out_fds) : 0;
    DS_ASSERT(*out_fd_count <= fds_max);
    return got < 0 ? 0 : got;
}

ssize_t
socket_send(int fd, const struct iovec *parts, int part_count, const int *fds,
            size_t fd_count, struct ds_error *err)
{
    DS_ASSERT(part_count > 0);
    DS_ASSERT(fd_count <= DESCRIPTORS_MAX);
    /* sendmsg() does not write to the parts; its argument lacks the const. */
    struct msghdr message = {.msg_iov = (struct iovec *)(uintptr_t)parts,
                             .msg_iovlen = (size_t)part_count};
    union control control;
    if (fd_count > 0) {
        memset(&control, 0, sizeof control);
        message.msg_control = control.bytes;
        message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(header), fds, fd_count * sizeof(int));
    }
    ssize_t done;
    do {
        done = sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (done < 0 && errno == EINTR);
    if (done < 0 && errno == EAGAIN)
        return 0;
    if (done < 0)
        (void)ds_fail_errno(err, "send");
    return done;
}

static bool
has_ended(int pidfd)
{
    struct pollfd watched = {.fd = pidfd, .events = POLLIN};
    return poll(&watched, 1, 0) != 0;
}

static enum ds_status
read_credentials(int fd, struct ucred *out, struct ds_error *err)
{
    socklen_t len = sizeof *out;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, out, &len) < 0)
        return ds_fail_errno(err, "who is at the other end of the socket");
    return DS_OK;
}

enum ds_status
socket_peer_user(int fd, uid_t *out, struct ds_error *err)
{
    struct ucred credentials = {0};
    enum ds_status status = read_credentials(fd, &credentials, err);
    if (status == DS_OK)
        *out = credentials.uid;
    return status;
}

enum ds_status
socket_peer(int fd, struct peer *out, struct ds_error *err)
{
    struct ucred credentials = {0};
    enum ds_status status = read_credentials(fd, &credentials, err);
    if (status != DS_OK)
        return status;
    struct peer peer = {.pid = credentials.pid, .uid = credentials.uid, .pidfd = -1};
    int pidfd = -1;
    socklen_t len = sizeof pidfd;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0) {
        peer.pidfd = pidfd;
        peer.start_time = process_start_time(peer.pid);
        /* The pidfd cannot be wrong; the pid can, once its process has ended. */
        if (has_ended(pidfd))
            peer.start_time = 0;
    } else {
        peer.start_time = process_start_time(peer.pid);
        if (peer.start_time != 0)
            peer.pidfd = process_open(peer.pid, peer.start_time);
    }
    *out = peer;
    return DS_OK;
}

void
socket_peer_text(int fd, char out[SOCKET_ADDRESS_TEXT_BYTES])
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } peer = {0};
    socklen_t len = sizeof peer;
    char host[INET6_ADDRSTRLEN] = "";
    snprintf(out, SOCKET_ADDRESS_TEXT_BYTES, "?");
    if (getpeername(fd, &peer.any, &len) < 0)
        return;
    if (peer.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &peer.v4.sin_addr, host, sizeof host);
        snprintf(out, SOCKET_ADDRESS_TEXT_BYTES, "%s:%u", host,
                 ntohs(peer.v4.sin_port));
    } else if (peer.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &peer.v6.sin6_addr, host, sizeof host);
        snprintf(out, SOCKET_ADDRESS_TEXT_BYTES, "[%s]:%u", host,
                 ntohs(peer.v6.sin6_port));
    }
}
