/* Sockets, the clock, and bulk that nobody looks at: a seed of noise in a memfd, sent again and again. */
#include "load.h"

#include <sys/mman.h>
#include <sys/sendfile.h>

enum { SEED = 4 << 20, PIECE = 1 << 20 /* bytes asked of one recv(2) */ };

static int seed_fd;

void die(const char *what)
{
    fprintf(stderr, "load: %s (%s)\n", what, strerror(errno));
    exit(1);
}

double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

int watch(int poll, int operation, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};
    if (epoll_ctl(poll, operation, fd, &event))
        die("epoll_ctl");
    return fd;
}

void no_delay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int dial(int kind, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, kind, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address))
        die("connect");
    return fd;
}

void read_exactly(int fd, void *into, size_t size)
{
    if (recv(fd, into, size, MSG_WAITALL) != (ssize_t)size)
        die("short read");
}

void write_exactly(int fd, const void *data, size_t size)
{
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        die("short write");
}

void make_seed(void)
{
    uint64_t state = 88172645463325252ull, *words = malloc(SEED);
    for (size_t i = 0; i < SEED / sizeof *words; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        words[i] = state;
    }
    seed_fd = memfd_create("seed", 0);
    if (seed_fd < 0 || write(seed_fd, words, SEED) != SEED)
        die("memfd");
    free(words);
}

int pour(int fd, uint64_t *left)
{
    static off_t place;
    size_t want = *left < (uint64_t)(SEED - place) ? *left : (uint64_t)(SEED - place);
    ssize_t sent = sendfile(fd, seed_fd, &place, want);
    if (sent <= 0)
        return sent < 0 && errno == EAGAIN;
    place %= SEED;
    *left -= sent;
    return 1;
}

int swallow(int fd, uint64_t *left)
{
    size_t want = *left < PIECE ? *left : PIECE;
    ssize_t got = recv(fd, NULL, want, MSG_TRUNC | MSG_DONTWAIT);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    *left -= got;
    return 1;
}
