/* Load for a relay: a target that sends or swallows bytes, and a SOCKS5 client that does the rest.
 *
 *     load target                          listen on a free port of 127.0.0.1, print it, serve
 *     load bulk down|up SOCKS TARGET BYTES STREAMS
 *                                          move BYTES over STREAMS connections, print one line of JSON
 *
 * SOCKS 0 means no relay: straight to the target. A connection begins with 9 bytes: 'D' or 'U' and a
 * big-endian count; the target sends that many bytes and ends, or reads that many and answers 'k'.
 *
 * The surprise: neither end touches the bytes. They are sent from a memfd by sendfile(2) and received
 * with MSG_TRUNC, so that the two processors belong to the relay under test. Linux only.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { SEED = 4 << 20, PIECE = 1 << 20 };

static int seed_fd;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static void make_seed(void)
{
    uint64_t state = 88172645463325252ull;
    uint64_t *words = malloc(SEED);
    for (size_t i = 0; i < SEED / sizeof *words; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        words[i] = state;
    }
    seed_fd = memfd_create("seed", 0);
    if (seed_fd < 0 || write(seed_fd, words, SEED) != SEED)
        die("memfd");
    free(words);
}

static void send_bytes(int fd, uint64_t count)
{
    off_t offset = 0;
    while (count) {
        size_t want = count < SEED - (uint64_t)offset ? count : SEED - (uint64_t)offset;
        ssize_t sent = sendfile(fd, seed_fd, &offset, want);
        if (sent <= 0)
            die("sendfile");
        count -= sent;
        if (offset == SEED)
            offset = 0;
    }
}

/* Swallow `count` bytes; return how many came before the end of the stream. */
static uint64_t swallow(int fd, uint64_t count)
{
    uint64_t got = 0;
    while (got < count) {
        size_t want = count - got < PIECE ? count - got : PIECE;
        ssize_t n = recv(fd, NULL, want, MSG_TRUNC);
        if (n <= 0)
            break;
        got += n;
    }
    return got;
}

static void read_exactly(int fd, void *into, size_t size)
{
    if (recv(fd, into, size, MSG_WAITALL) != (ssize_t)size)
        die("short read");
}

static void write_exactly(int fd, const void *data, size_t size)
{
    if (send(fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
        die("short write");
}

static void set_no_delay(int fd)
{
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* -- the target ------------------------------------------------------------------------------- */

static void *serve(void *argument)
{
    int fd = (int)(intptr_t)argument;
    unsigned char head[9];
    if (recv(fd, head, sizeof head, MSG_WAITALL) == sizeof head) {
        uint64_t count;
        memcpy(&count, head + 1, 8);
        count = be64toh(count);
        if (head[0] == 'D')
            send_bytes(fd, count);
        else if (swallow(fd, count) == count)
            write_exactly(fd, "k", 1);
        shutdown(fd, SHUT_WR);
        swallow(fd, UINT64_MAX);
    }
    close(fd);
    return NULL;
}

static void target(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 4096))
        die("listen");
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        pthread_t thread;
        if (fd < 0)
            die("accept");
        set_no_delay(fd);
        if (pthread_create(&thread, NULL, serve, (void *)(intptr_t)fd))
            die("pthread_create");
        pthread_detach(thread);
    }
}

/* -- the client ------------------------------------------------------------------------------- */

struct stream {
    pthread_t thread;
    int fd;
    char way;
    uint64_t count, got;
};

static pthread_barrier_t start;

static int open_stream(int socks, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    address.sin_port = htons(socks ? socks : port);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address))
        die("connect");
    set_no_delay(fd);
    if (socks) {
        unsigned char reply[10], request[] = {5, 1, 0, 1, 127, 0, 0, 1, port >> 8, port & 255};
        write_exactly(fd, "\5\1\0", 3);
        read_exactly(fd, reply, 2);
        write_exactly(fd, request, sizeof request);
        read_exactly(fd, reply, sizeof reply);
        if (reply[1])
            die("SOCKS5 refused");
    }
    return fd;
}

static void *run_stream(void *argument)
{
    struct stream *stream = argument;
    unsigned char head[9] = {stream->way};
    uint64_t count = htobe64(stream->count);
    char answer;
    memcpy(head + 1, &count, 8);
    pthread_barrier_wait(&start);
    write_exactly(stream->fd, head, sizeof head);
    if (stream->way == 'D') {
        stream->got = swallow(stream->fd, stream->count);
    } else {
        send_bytes(stream->fd, stream->count);
        read_exactly(stream->fd, &answer, 1);
        stream->got = stream->count;
    }
    return NULL;
}

static void bulk(char way, int socks, int port, uint64_t count, int streams)
{
    struct stream *all = calloc(streams, sizeof *all);
    struct rusage used;
    uint64_t got = 0;
    pthread_barrier_init(&start, NULL, streams + 1);
    for (int i = 0; i < streams; i++) {
        all[i] = (struct stream){.fd = open_stream(socks, port), .way = way, .count = count / streams};
        if (pthread_create(&all[i].thread, NULL, run_stream, &all[i]))
            die("pthread_create");
    }
    double began = now();
    pthread_barrier_wait(&start);
    for (int i = 0; i < streams; i++) {
        pthread_join(all[i].thread, NULL);
        got += all[i].got;
    }
    double seconds = now() - began;
    getrusage(RUSAGE_SELF, &used);
    printf("{\"bytes\": %llu, \"missing\": %llu, \"seconds\": %.6f, \"cpu\": %.6f}\n",
           (unsigned long long)got, (unsigned long long)(count / streams * streams - got), seconds,
           used.ru_utime.tv_sec + used.ru_stime.tv_sec + (used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    make_seed();
    if (argc == 2 && !strcmp(argv[1], "target"))
        target();
    if (argc == 7 && !strcmp(argv[1], "bulk")) {
        bulk(argv[2][0] == 'd' ? 'D' : 'U', atoi(argv[3]), atoi(argv[4]), strtoull(argv[5], NULL, 10), atoi(argv[6]));
        return 0;
    }
    fprintf(stderr, "usage: load target | load bulk down|up SOCKS TARGET BYTES STREAMS\n");
    return 2;
}
