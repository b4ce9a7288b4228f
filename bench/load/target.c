/* The target: one thread, one port, TCP and UDP, and the first byte of a connection says what it is for.
 *
 *     'D' count    send that many bytes, then the end          count: 8 bytes, big-endian
 *     'U' count    swallow that many, then answer 'k'
 *     else         echo what comes, as it comes
 *
 * Datagrams are echoed. A connection ends when its client ends it.
 */
#include "load.h"

enum role { FRESH, ECHO, SOURCE, SINK, SPENT };

struct peer {
    enum role role;
    uint64_t left;
};

static struct peer *peers; /* by descriptor */
static int peers_size, poll_fd;


static void welcome(int listener)
{
    for (int i = 0; i < EVENTS; i++) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno == EAGAIN || errno == ECONNABORTED)
                return;
            die("accept");
        }
        if (fd >= peers_size) {
            peers_size = 2 * fd + 64;
            peers = realloc(peers, peers_size * sizeof *peers);
        }
        peers[fd].role = FRESH;
        watch(poll_fd, EPOLL_CTL_ADD, fd, EPOLLIN, fd);
    }
}

static void echo(int fd)
{
    char data[4096];
    ssize_t size = recv(fd, data, sizeof data, 0);
    if (size < 0 && errno == EAGAIN)
        return;
    if (size <= 0 || send(fd, data, size, MSG_NOSIGNAL) != size)
        close(fd);
}

/* Find out what a connection is for; a head that is not whole stays with the kernel. */
static void begin(int fd)
{
    unsigned char head[HEAD];
    struct peer *peer = &peers[fd];
    ssize_t size = recv(fd, head, sizeof head, MSG_PEEK);
    if (size > 0 && head[0] != 'D' && head[0] != 'U') {
        peer->role = ECHO;
        echo(fd);
    } else if (size == HEAD) {
        read_exactly(fd, head, HEAD);
        memcpy(&peer->left, head + 1, 8);
        peer->left = be64toh(peer->left);
        peer->role = head[0] == 'D' ? SOURCE : SINK;
        if (peer->role == SOURCE)
            watch(poll_fd, EPOLL_CTL_MOD, fd, EPOLLOUT, fd);
    } else if (size == 0 || (size < 0 && errno != EAGAIN)) {
        close(fd);
    }
}

static void spend(int fd)
{
    peers[fd].role = SPENT;
    shutdown(fd, SHUT_WR);
    watch(poll_fd, EPOLL_CTL_MOD, fd, EPOLLIN, fd);
}

static void on_connection(int fd)
{
    struct peer *peer = &peers[fd];
    uint64_t all = UINT64_MAX;
    switch (peer->role) {
    case FRESH:
        begin(fd);
        break;
    case ECHO:
        echo(fd);
        break;
    case SOURCE:
        if (!pour(fd, &peer->left))
            close(fd);
        else if (!peer->left)
            spend(fd);
        break;
    case SINK:
        if (!swallow(fd, &peer->left)) {
            close(fd);
        } else if (!peer->left) {
            write_exactly(fd, "k", 1);
            spend(fd);
        }
        break;
    case SPENT:
        if (!swallow(fd, &all))
            close(fd);
    }
}

static void on_datagrams(int fd)
{
    char data[65536];
    struct sockaddr_in from;
    for (int i = 0; i < EVENTS; i++) {
        socklen_t length = sizeof from;
        ssize_t size = recvfrom(fd, data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
        if (size < 0)
            return; /* nothing more, or somebody's ICMP */
        sendto(fd, data, size, MSG_DONTWAIT, (struct sockaddr *)&from, length);
    }
}

void serve(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    int room = 4 << 20;
    no_delay(listener);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096))
        die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    setsockopt(datagrams, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    if (bind(datagrams, (struct sockaddr *)&address, size))
        die("bind");
    poll_fd = epoll_create1(0);
    watch(poll_fd, EPOLL_CTL_ADD, listener, EPOLLIN, listener);
    watch(poll_fd, EPOLL_CTL_ADD, datagrams, EPOLLIN, datagrams);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        int found = epoll_wait(poll_fd, events, EVENTS, -1);
        for (int i = 0; i < found; i++) {
            int fd = (int)events[i].data.u64;
            if (fd == listener)
                welcome(fd);
            else if (fd == datagrams)
                on_datagrams(fd);
            else
                on_connection(fd);
        }
    }
}
