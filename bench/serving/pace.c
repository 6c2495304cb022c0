/* An open-loop load: requests go out when a schedule says, however slow the answers are, and latency counts from the scheduled time.
 *
 *     pace PORT SECONDS WARM_UP RATE CONNECTIONS FILE
 *
 * The schedule is drawn before the first request: Poisson arrivals of RATE per second, from a fixed seed. A request that is due while no
 * connection is free waits, and its wait counts (what is left out otherwise is known as coordinated omission). Requests that are due
 * within the first WARM_UP seconds are sent and not counted. FILE holds whole requests: one line with their lengths, then their bytes.
 * Prints one line of JSON; times in microseconds. `late` is how late this program itself was, when a connection was free. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ROOM = 1 << 20, MOST = 1024, PATIENCE = 10 };

typedef struct {
    int fd, busy;
    long due;          /* the place in the schedule of the request under way */
    const char *out;   /* what of it is still to be sent */
    size_t left;
    char *in;
    size_t have, need; /* need: the answer's whole length, once it is known */
    int ok;
} Link;

static double *schedule, *latency, *late;
static long total, counted, failed, first_counted, done;
static char *bytes;
static size_t *start_of, *length_of;
static long requests;
static int poller, port;

static void fail(const char *what) { perror(what); exit(1); }

static void *room(size_t size) {
    void *found = malloc(size ? size : 1);
    if (!found) fail("malloc");
    return found;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void read_requests(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) fail(path);
    char *line = NULL;
    size_t size = 0;
    if (getline(&line, &size, file) < 1) fail("lengths");
    for (char *p = line; *p; p++) requests += *p == ' ';
    requests++;
    start_of = room((size_t)requests * sizeof(size_t));
    length_of = room((size_t)requests * sizeof(size_t));
    size_t sum = 0;
    char *next = line;
    for (long i = 0; i < requests; i++) {
        length_of[i] = strtoul(next, &next, 10);
        start_of[i] = sum;
        sum += length_of[i];
    }
    bytes = room(sum);
    if (fread(bytes, 1, sum, file) != sum) { fprintf(stderr, "%s is cut short\n", path); exit(1); }
    fclose(file);
    free(line);
}

static void draw_schedule(double seconds, double warm, double rate) {
    total = (long)((seconds + warm) * rate);
    schedule = room((size_t)total * sizeof(double));
    latency = room((size_t)total * sizeof(double));
    late = room((size_t)total * sizeof(double));
    srand48(1);
    double at = 0;
    first_counted = total;
    for (long i = 0; i < total; i++) {
        at += -log(1.0 - drand48()) / rate;
        schedule[i] = at;
        if (at >= warm && first_counted == total) first_counted = i;
    }
}

static void open_link(Link *link) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int yes = 1;
    link->fd = socket(AF_INET, SOCK_STREAM, 0);
    if (link->fd < 0 || connect(link->fd, (struct sockaddr *)&to, sizeof to)) fail("connect");
    setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    fcntl(link->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = link};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, link->fd, &event)) fail("epoll_ctl");
    link->busy = 0;
}

static void watch(Link *link, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = link};
    if (epoll_ctl(poller, EPOLL_CTL_MOD, link->fd, &event)) fail("epoll_ctl");
}

static void finish(Link *link, int ok, double began) {
    if (link->due >= first_counted) {
        if (ok) latency[counted++] = now() - began - schedule[link->due];
        else failed++;
    }
    done++;
    link->busy = 0;
}

static void broken(Link *link, double began) {
    close(link->fd);
    if (link->busy) finish(link, 0, began);
    open_link(link);
}

static void push(Link *link, double began) {
    while (link->left) {
        ssize_t sent = send(link->fd, link->out, link->left, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) { watch(link, EPOLLIN | EPOLLOUT); return; }
        if (sent <= 0) { broken(link, began); return; }
        link->out += sent;
        link->left -= (size_t)sent;
    }
}

static void begin(Link *link, long due, double began) {
    long which = due % requests;
    link->busy = 1;
    link->due = due;
    link->have = link->need = 0;
    link->out = bytes + start_of[which];
    link->left = length_of[which];
    push(link, began);
}

static void read_head(Link *link) {
    link->in[link->have] = 0;
    char *end = strstr(link->in, "\r\n\r\n");
    if (!end) return;
    *end = 0;
    char *length = strcasestr(link->in, "\ncontent-length:");
    if (!length) { fprintf(stderr, "an answer without Content-Length\n"); exit(1); }
    link->need = (size_t)(end + 4 - link->in) + strtoul(length + 16, NULL, 10);
    link->ok = link->have > 9 && link->in[9] == '2';
    if (link->need >= ROOM) { fprintf(stderr, "an answer of %zu bytes\n", link->need); exit(1); }
}

static void pull(Link *link, double began) {
    ssize_t got = recv(link->fd, link->in + link->have, ROOM - 1 - link->have, 0);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0 || !link->busy) { broken(link, began); return; }
    link->have += (size_t)got;
    if (!link->need) read_head(link);
    if (link->need && link->have >= link->need) finish(link, link->ok, began);
}

static int rising(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double part(const double *sorted, long n, double share) {
    long place = (long)(share * (double)n);
    return n ? 1e6 * sorted[place < n ? place : n - 1] : -1;
}

int main(int count, char **words) {
    if (count != 7) { fprintf(stderr, "pace PORT SECONDS WARM_UP RATE CONNECTIONS FILE\n"); return 2; }
    port = atoi(words[1]);
    double seconds = atof(words[2]), warm = atof(words[3]);
    int links = atoi(words[5]);
    if (links < 1 || links > MOST) { fprintf(stderr, "1 to %d connections\n", MOST); return 2; }
    read_requests(words[6]);
    draw_schedule(seconds, warm, atof(words[4]));
    poller = epoll_create1(0);
    Link *all = room((size_t)links * sizeof(Link));
    for (int i = 0; i < links; i++) {
        all[i].in = room(ROOM);
        open_link(&all[i]);
    }
    struct epoll_event events[MOST];
    double began = now(), idle_since = 0;
    long next = 0, lates = 0;
    int turn = 0;
    while (done < total) {
        double at = now() - began;
        if (at > seconds + warm + PATIENCE) break;
        while (next < total && schedule[next] <= at) {
            int tries = 0;
            while (tries < links && all[turn].busy) turn = (turn + 1) % links, tries++;
            if (tries == links) { idle_since = -1; break; }
            if (idle_since <= schedule[next] && idle_since >= 0 && next >= first_counted) late[lates++] = at - schedule[next];
            begin(&all[turn], next++, began);
            turn = (turn + 1) % links;
        }
        int ready = epoll_wait(poller, events, MOST, 0); /* spins: it has a core of its own, and a sleep is never on time */
        for (int i = 0; i < ready; i++) {
            Link *link = events[i].data.ptr;
            if (events[i].events & EPOLLOUT) {
                watch(link, EPOLLIN);
                push(link, began);
            }
            if (events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
                pull(link, began);
                if (idle_since < 0) idle_since = now() - began;
            }
        }
    }
    double took = now() - began - warm;
    failed += total - done;
    qsort(latency, (size_t)counted, sizeof(double), rising);
    qsort(late, (size_t)lates, sizeof(double), rising);
    printf("{\"rate\": %.1f, \"answered\": %ld, \"failed\": %ld, \"p50\": %.1f, \"p90\": %.1f, \"p99\": %.1f, \"p999\": %.1f, \"max\": %.1f, "
           "\"late_p99\": %.1f}\n",
           (double)counted / took, counted, failed, part(latency, counted, 0.5), part(latency, counted, 0.9),
           part(latency, counted, 0.99), part(latency, counted, 0.999), part(latency, counted, 1), part(late, lates, 0.99));
    return 0;
}
