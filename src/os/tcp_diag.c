/* An exact question to inet_diag: one message out, one back. The kernel answers while
 * the question is being sent, so nothing here waits. */
#include "os/tcp_owner.h"

#include "base/check.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/tcp.h>
#include <string.h>
#include <unistd.h>

enum {
    LOOPBACK_INTERFACE = 1, /* In every namespace. Sockets bound to it, or to none. */
    REPLY_BYTES_MAX = 1024, /* What follows the part that we read may be cut off. */
};

struct question {
    struct nlmsghdr header;
    struct inet_diag_req_v2 body;
};

static void
copy_address(const union tcp_address *address, __be32 out_address[4], __be16 *out_port)
{
    if (address->any.sa_family == AF_INET) {
        out_address[0] = address->v4.sin_addr.s_addr;
        *out_port = address->v4.sin_port;
    } else {
        memcpy(out_address, &address->v6.sin6_addr, sizeof address->v6.sin6_addr);
        *out_port = address->v6.sin6_port;
    }
}

/* About the socket whose local end is `local`. */
static struct question
question_about(const union tcp_address *local, const union tcp_address *remote,
               uint8_t protocol)
{
    struct question question = {
        .header = {.nlmsg_len = sizeof question,
                   .nlmsg_type = SOCK_DIAG_BY_FAMILY,
                   .nlmsg_flags = NLM_F_REQUEST},
        .body = {.sdiag_family = (uint8_t)local->any.sa_family,
                 .sdiag_protocol = protocol,
                 .idiag_states = UINT32_MAX,
                 .id = {.idiag_if = LOOPBACK_INTERFACE,
                        .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}},
    };
    struct inet_diag_sockid *id = &question.body.id;
    copy_address(local, id->idiag_src, &id->idiag_sport);
    copy_address(remote, id->idiag_dst, &id->idiag_dport);
    return question;
}

/* 0 with the kernel's answer, or an errno: the kernel's, or why it could not be asked.
 */
static int
ask(int fd, const struct question *question, struct inet_diag_msg *out)
{
    _Alignas(struct nlmsghdr) char reply[REPLY_BYTES_MAX];
    struct sockaddr_nl kernel = {.nl_family = AF_NETLINK};
    if (sendto(fd, question, sizeof *question, 0, (struct sockaddr *)&kernel,
               sizeof kernel) < 0)
        return errno;
    socklen_t kernel_bytes = sizeof kernel;
    ssize_t bytes = recvfrom(fd, reply, sizeof reply, MSG_DONTWAIT,
                             (struct sockaddr *)&kernel, &kernel_bytes);
    if (bytes < 0)
        return errno;
    struct nlmsghdr header;
    if (kernel.nl_pid != 0 || (size_t)bytes < sizeof header + sizeof(int))
        return EPROTO;
    memcpy(&header, reply, sizeof header);
    if (header.nlmsg_type == NLMSG_ERROR) {
        int code;
        memcpy(&code, reply + sizeof header, sizeof code);
        return code < 0 ? -code : EPROTO;
    }
    if (header.nlmsg_type != SOCK_DIAG_BY_FAMILY ||
        (size_t)bytes < sizeof header + sizeof *out)
        return EPROTO;
    memcpy(out, reply + sizeof header, sizeof *out);
    return 0;
}

static int
open_diag(void)
{
    return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
}

/* Without the connection itself, the kernel answers with a listener at its local end.
 */
static bool
is_connection(const struct inet_diag_msg *found, const struct question *question)
{
    return found->idiag_state != TCP_LISTEN &&
           found->id.idiag_sport == question->body.id.idiag_sport &&
           found->id.idiag_dport == question->body.id.idiag_dport;
}

static enum tcp_owner
owner_in(const struct inet_diag_msg *found, uid_t *out_uid)
{
    if (found->idiag_inode == 0)
        return TCP_OWNERLESS;
    *out_uid = found->idiag_uid;
    return TCP_OWNED;
}

/* ENOENT is both "no such socket" and "no module for this protocol". Our own end is
 * there, so what it is answered tells which. */
static bool
can_see_us(int fd, const struct tcp_ends *ends, uint8_t protocol)
{
    struct inet_diag_msg found = {0};
    struct question question = question_about(&ends->self, &ends->peer, protocol);
    return ask(fd, &question, &found) == 0 && is_connection(&found, &question);
}

static enum tcp_owner
find_peer_once(int fd, const struct tcp_ends *ends, uint8_t protocol, uid_t *out_uid)
{
    struct inet_diag_msg found = {0};
    struct question question = question_about(&ends->peer, &ends->self, protocol);
    int failure = ask(fd, &question, &found);
    if (failure == 0 && is_connection(&found, &question))
        return owner_in(&found, out_uid);
    if (failure != 0 && failure != ENOENT)
        return TCP_UNKNOWN;
    return can_see_us(fd, ends, protocol) ? TCP_ABSENT : TCP_UNKNOWN;
}

/* While the peer closes, the kernel puts a smaller socket in place of its own, and for
 * a moment finds neither (seen once in 25,000 closes): then the next answer tells. */
static enum tcp_owner
find_peer(int fd, const struct tcp_ends *ends, uint8_t protocol, uid_t *out_uid)
{
    enum tcp_owner owner = find_peer_once(fd, ends, protocol, out_uid);
    return owner == TCP_ABSENT ? find_peer_once(fd, ends, protocol, out_uid) : owner;
}

enum tcp_owner
tcp_diag_find_peer(const struct tcp_ends *ends, uint8_t protocol, uid_t *out_uid)
{
    DS_ASSERT(ends->self.any.sa_family == ends->peer.any.sa_family);
    int fd = open_diag();
    if (fd < 0)
        return TCP_UNKNOWN;
    enum tcp_owner owner = find_peer(fd, ends, protocol, out_uid);
    close(fd);
    return owner;
}
