/* Load for a relay, and the target behind it. Linux only.
 *
 *     load target                                      listen on a free port of 127.0.0.1, print it, serve
 *     load KIND FRONT PORT TARGET COUNT AMOUNT         print one line of JSON
 *
 *     KIND          COUNT is               AMOUNT is   what happens
 *     down, up      streams                bytes       bulk, all streams together
 *     exchanges     open connections       seconds     100 bytes there and back, again and again on each
 *     connections   at once                seconds     connect, one exchange, close
 *     idle          connections            –           one exchange on each, then all stay until stdin ends
 *     datagrams     associations           seconds     200 bytes there and back, 5 on the way in each
 *
 * FRONT is socks5, http (CONNECT), or direct, which takes no relay and goes straight to the target.
 *
 * The surprise: neither end looks at bulk. It is sent from a memfd by sendfile(2) and received with
 * MSG_TRUNC, so that the processors belong to the relay under test.
 */
#include "load.h"

#include <signal.h>
#include <sys/resource.h>

enum { REPLY = 512, OPENING = 50, FAILURES = 1000 };

enum phase { GREETING, REQUEST, HTTP_REPLY, OPEN, EXCHANGE, DOWN, UP, RECEIPT };

struct connection {
    int fd;
    enum phase phase;
    size_t got;    /* bytes of a reply or an answer so far */
    uint64_t left; /* bytes of bulk that have still to move */
    double began;  /* the exchange, or the connection where that is what counts */
    char reply[REPLY];
};

static struct task task;
static struct connection *all;
static int poll_fd, active;
static uint64_t count, failed;
static double until;
static void (*on_open)(struct connection *), (*on_answer)(struct connection *), (*on_failure)(struct connection *);

/* -- one connection ------------------------------------------------------------------------------ */

static void say(struct connection *c, const void *data, size_t size, enum phase phase)
{
    c->phase = phase;
    c->got = 0;
    if (send(c->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)size)
        on_failure(c);
}

static void exchange(struct connection *c)
{
    static const char message[MESSAGE] = "E";
    say(c, message, sizeof message, EXCHANGE);
}

static void open_connection(struct connection *c)
{
    char request[128];
    c->fd = dial(SOCK_STREAM, task.front == DIRECT ? task.target : task.port);
    no_delay(c->fd);
    watch(poll_fd, EPOLL_CTL_ADD, c->fd, EPOLLIN, c - all);
    if (task.front == DIRECT) {
        c->phase = OPEN;
        on_open(c);
    } else if (task.front == SOCKS5) {
        say(c, "\5\1\0", 3, GREETING);
    } else {
        const char *form = "CONNECT 127.0.0.1:%d HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n";
        say(c, request, sprintf(request, form, task.target, task.target), HTTP_REPLY);
    }
}

static void accepted(struct connection *c, int yes)
{
    c->phase = OPEN;
    yes ? on_open(c) : on_failure(c);
}

/* The relay's answer has come as far as `c->got`: take the next step when it is whole. */
static void negotiate(struct connection *c)
{
    unsigned char request[] = {5, 1, 0, 1, 127, 0, 0, 1, task.target >> 8, task.target & 255};
    if (c->phase == GREETING && c->got == 2)
        say(c, request, sizeof request, REQUEST);
    else if (c->phase == REQUEST && c->got == 10)
        accepted(c, !c->reply[1]);
    else if (c->phase == HTTP_REPLY && c->got > 12 && !memcmp(c->reply + c->got - 4, "\r\n\r\n", 4))
        accepted(c, !memcmp(c->reply + 8, " 200", 4));
}

/* What comes after this, such as the end of the stream, is of no interest. */
static void finish(struct connection *c)
{
    active--;
    watch(poll_fd, EPOLL_CTL_DEL, c->fd, 0, 0);
}

static void read_reply(struct connection *c)
{
    ssize_t size = recv(c->fd, c->reply + c->got, REPLY - c->got, MSG_DONTWAIT);
    if (size < 0 && errno == EAGAIN)
        return;
    c->got += size > 0 ? size : 0;
    if (size <= 0)
        on_failure(c);
    else if (c->phase < OPEN)
        negotiate(c);
    else if (c->phase == EXCHANGE && c->got == MESSAGE)
        on_answer(c);
    else if (c->phase == RECEIPT)
        finish(c);
}

static void on_ready(struct connection *c)
{
    if (c->phase == DOWN) {
        if (!swallow(c->fd, &c->left))
            on_failure(c);
        else if (!c->left)
            finish(c);
    } else if (c->phase == UP) {
        if (!pour(c->fd, &c->left)) {
            on_failure(c);
        } else if (!c->left) {
            c->phase = RECEIPT;
            c->got = 0;
            watch(poll_fd, EPOLL_CTL_MOD, c->fd, EPOLLIN, c - all);
        }
    } else {
        read_reply(c);
    }
}

/* Run until nothing is under way. */
static void drive(void)
{
    while (active) {
        struct epoll_event events[EVENTS];
        int found = epoll_wait(poll_fd, events, EVENTS, PATIENCE);
        if (found <= 0)
            die("nothing happens any more");
        for (int i = 0; i < found; i++)
            on_ready(&all[events[i].data.u64]);
    }
}

/* -- the kinds of load --------------------------------------------------------------------------- */

static int opened;

static void give_up(struct connection *c)
{
    close(c->fd);
    failed++;
    active--;
}

static void broken_early(struct connection *c)
{
    (void)c;
    die("a connection was not opened");
}

/* One is open and stays so; a few at a time are on their way. */
static void open_next(struct connection *c)
{
    (void)c;
    if (opened < task.count)
        open_connection(&all[opened++]);
    else
        active--;
}

static void open_all(void (*step)(struct connection *))
{
    on_open = step;
    on_answer = open_next;
    on_failure = broken_early;
    for (active = 0; active < OPENING && opened < task.count;) {
        active++;
        open_connection(&all[opened++]);
    }
    drive();
}

static void exchange_again(struct connection *c)
{
    double time = now();
    note(time - c->began);
    count++;
    c->began = time;
    if (time < until)
        exchange(c);
    else
        active--;
}

static void exchanges(void)
{
    open_all(open_next);
    on_answer = exchange_again;
    on_failure = give_up;
    double began = now();
    until = began + task.amount;
    active = task.count;
    for (int i = 0; i < task.count; i++) {
        all[i].began = now();
        exchange(&all[i]);
    }
    drive();
    report(count, failed, now() - began);
}

static void connect_again(struct connection *c)
{
    if (now() >= until) {
        active--;
        return;
    }
    c->began = now();
    open_connection(c);
}

static void close_and_go_on(struct connection *c)
{
    note(now() - c->began);
    count++;
    close(c->fd);
    connect_again(c);
}

static void fail_and_go_on(struct connection *c)
{
    if (++failed == FAILURES)
        die("too many connections failed");
    close(c->fd);
    connect_again(c);
}

static void connections(void)
{
    on_open = exchange;
    on_answer = close_and_go_on;
    on_failure = fail_and_go_on;
    double began = now();
    until = began + task.amount;
    active = task.count;
    for (int i = 0; i < task.count; i++)
        connect_again(&all[i]);
    drive();
    report(count, failed, now() - began);
}

static void idle(void)
{
    char end;
    open_all(exchange);
    printf("%d\n", opened);
    fflush(stdout);
    while (read(0, &end, 1) > 0)
        ;
}

static void bulk(char way)
{
    uint64_t each = task.amount / task.count, missing = 0;
    open_all(open_next);
    on_failure = give_up;
    double began = now();
    active = task.count;
    for (struct connection *c = all; c < all + task.count; c++) {
        unsigned char head[HEAD] = {way};
        uint64_t size = htobe64(each);
        memcpy(head + 1, &size, sizeof size);
        c->left = each;
        say(c, head, sizeof head, way == 'D' ? DOWN : UP);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        if (way == 'U')
            watch(poll_fd, EPOLL_CTL_MOD, c->fd, EPOLLOUT, c - all);
    }
    drive();
    for (struct connection *c = all; c < all + task.count; c++)
        missing += c->left;
    report(each * task.count - missing, failed, now() - began);
}

static void down(void)
{
    bulk('D');
}

static void up(void)
{
    bulk('U');
}

static void datagrams(void)
{
    exchange_datagrams(&task);
}

/* -- the command line ---------------------------------------------------------------------------- */

static const struct {
    const char *name;
    void (*run)(void);
} kinds[] = {
    {"down", down},
    {"up", up},
    {"exchanges", exchanges},
    {"connections", connections},
    {"idle", idle},
    {"datagrams", datagrams},
};

static const char *const fronts[] = {[DIRECT] = "direct", [SOCKS5] = "socks5", [HTTP] = "http"};

int main(int argc, char **argv)
{
    struct rlimit files;
    signal(SIGPIPE, SIG_IGN);
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    make_seed();
    if (argc == 2 && !strcmp(argv[1], "target"))
        serve();
    if (argc == 7) {
        while (task.front < HTTP && strcmp(fronts[task.front], argv[2]))
            task.front++;
        task.port = atoi(argv[3]), task.target = atoi(argv[4]);
        task.count = atoi(argv[5]), task.amount = atof(argv[6]);
        all = calloc(task.count, sizeof *all);
        poll_fd = epoll_create1(0);
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
            if (!strcmp(argv[1], kinds[i].name))
                return kinds[i].run(), 0;
    }
    fprintf(stderr, "usage: load target | load KIND FRONT PORT TARGET COUNT AMOUNT\n");
    return 2;
}
