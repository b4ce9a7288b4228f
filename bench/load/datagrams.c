/* UDP echoes: flows of their own SOCKS5 association each, with WINDOW datagrams on the way at a time.
 *
 * The surprise: what is lost would stop its flow, so when nothing at all comes back for a while, every
 * flow gets a new window and what was on the way counts as failed.
 */
#include "load.h"

enum { WINDOW = 5, SILENCE = 200 /* milliseconds */, PREFIX = 10 /* bytes, SOCKS5's for an IPv4 address */ };

struct flow {
    int fd, control;
    int waiting; /* datagrams on the way */
};

static unsigned char datagram[PREFIX + DATAGRAM] = {0, 0, 0, 1, 127, 0, 0, 1};

static int associate(struct flow *flow, const struct task *task)
{
    unsigned char reply[10];
    if (task->front == DIRECT)
        return task->target;
    flow->control = dial(SOCK_STREAM, task->port);
    write_exactly(flow->control, "\5\1\0", 3);
    read_exactly(flow->control, reply, 2);
    write_exactly(flow->control, "\5\3\0\1\0\0\0\0\0\0", 10);
    read_exactly(flow->control, reply, sizeof reply);
    if (reply[1] || reply[3] != 1)
        die("no association");
    return reply[8] << 8 | reply[9];
}

/* Fill the window. Each datagram carries the time at which it went. */
static void push(struct flow *flow, size_t skip)
{
    for (; flow->waiting < WINDOW; flow->waiting++) {
        double time = now();
        memcpy(datagram + PREFIX, &time, sizeof time);
        if (send(flow->fd, datagram + skip, sizeof datagram - skip, MSG_DONTWAIT) < 0)
            die("send");
    }
}

/* Take one echo, if there is one; return 0 when there is none. */
static int pull(struct flow *flow, size_t skip)
{
    unsigned char data[sizeof datagram];
    double sent;
    ssize_t size = recv(flow->fd, data, sizeof data, MSG_DONTWAIT | MSG_TRUNC);
    if (size < 0)
        return 0;
    if (size != (ssize_t)(sizeof datagram - skip))
        die("not what was sent");
    memcpy(&sent, data + PREFIX - skip, sizeof sent);
    note(now() - sent);
    if (flow->waiting) /* it is not one that had been given up */
        flow->waiting--;
    return 1;
}

void exchange_datagrams(const struct task *task)
{
    struct flow *flows = calloc(task->count, sizeof *flows);
    size_t skip = task->front == DIRECT ? PREFIX : 0;
    uint64_t count = 0, failed = 0;
    int poll_fd = epoll_create1(0);
    datagram[8] = task->target >> 8, datagram[9] = task->target & 255;
    for (int i = 0; i < task->count; i++) {
        flows[i].fd = dial(SOCK_DGRAM, associate(&flows[i], task));
        watch(poll_fd, EPOLL_CTL_ADD, flows[i].fd, EPOLLIN, i);
    }
    double began = now(), until = began + task->amount, last = began;
    for (int i = 0; i < task->count; i++)
        push(&flows[i], skip);
    while (now() < until) {
        struct epoll_event events[EVENTS];
        int found = epoll_wait(poll_fd, events, EVENTS, SILENCE);
        for (int i = 0; i < found; i++) {
            struct flow *flow = &flows[events[i].data.u64];
            while (pull(flow, skip)) {
                last = now();
                count++;
                push(flow, skip);
            }
        }
        for (int i = 0; !found && i < task->count; i++) {
            failed += flows[i].waiting;
            flows[i].waiting = 0;
            push(&flows[i], skip);
        }
    }
    if (!count)
        die("no echo at all");
    report(count, failed, last - began);
}
