/* "host:port" from a flag, an option or a peer: the parts put together again mean the
 * same. The first byte is the room for the host. */
#include "fuzz.h"

#include "os/sockets.h"

#include <stdio.h>

enum { TEXT_BYTES_MAX = 512 };

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[TEXT_BYTES_MAX];
    char host[256] = "untouched";
    char again[TEXT_BYTES_MAX];
    char host_again[256];
    uint16_t port = 0;
    uint16_t port_again = 0;
    struct ds_error err = {0};
    if (size < 2 || size > sizeof text || data[0] == 0)
        return 0;
    memcpy(text, data + 1, size - 1);
    text[size - 1] = '\0';
    if (socket_parse_address(text, host, data[0], &port, &err) != DS_OK) {
        DS_ASSERT(err.status == DS_INVALID);
        DS_ASSERT(err.message[0] != '\0');
        DS_ASSERT(port == 0);
        return 0;
    }
    DS_ASSERT(port > 0);
    DS_ASSERT(strlen(host) < data[0]);
    snprintf(again, sizeof again, "[%s]:%u", host, (unsigned)port);
    enum ds_status status =
        socket_parse_address(again, host_again, sizeof host_again, &port_again, NULL);
    DS_ASSERT(status == DS_OK);
    DS_ASSERT(strcmp(host, host_again) == 0);
    DS_ASSERT(port == port_again);
    return 0;
}
