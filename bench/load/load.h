/* What the parts of the load generator share; load.c says what it is. */
#ifndef LOAD_H
#define LOAD_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MESSAGE = 100,    /* bytes of an exchange, each way */
    DATAGRAM = 200,   /* bytes of an echoed datagram */
    HEAD = 9,         /* bytes: 'D' or 'U' and a big-endian count */
    EVENTS = 64,
    PATIENCE = 15000, /* milliseconds without any event until a run counts as broken */
};

enum front { DIRECT, SOCKS5, HTTP };

/* What a client is to do, and with whom. */
struct task {
    enum front front;
    int port;      /* of the relay; of the target where there is none */
    int target;    /* its port, TCP and UDP */
    int count;     /* streams, connections at once, or UDP flows */
    double amount; /* bytes in all, or seconds */
};

void make_seed(void);
_Noreturn void die(const char *what);
double now(void);
int watch(int poll, int operation, int fd, uint32_t events, uint64_t data);
void no_delay(int fd);
int dial(int kind, int port);
void read_exactly(int fd, void *into, size_t size);
void write_exactly(int fd, const void *data, size_t size);

/* Send some of `left` bytes to a non-blocking socket; 0 when it is broken. */
int pour(int fd, uint64_t *left);
/* Swallow some of `left` bytes; 0 at the end of the stream or when it is broken. */
int swallow(int fd, uint64_t *left);

/* Seconds that something took, kept for the percentiles; then all of a run. */
void note(double seconds);
void report(uint64_t count, uint64_t failed, double seconds); /* prints */

void serve(void);
void exchange_datagrams(const struct task *task);

#endif
