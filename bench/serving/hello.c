/* The ceiling: reads whole HTTP requests, looks at nothing but their length, and answers the same bytes. `hello PORT`; one thread. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ROOM = 1 << 17, MOST = 1024 };

static const char ANSWER[] =
    "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 21\r\n\r\n{\"predictions\":[0.5]}\n";

typedef struct {
    int fd;
    size_t have;
    char in[ROOM];
} Link;

static void fail(const char *what) { perror(what); exit(1); }

static void end(Link *link) {
    close(link->fd);
    free(link);
}

/* The whole length of the request that begins at the buffer's start; 0 while its head has not ended. */
static size_t length(Link *link) {
    char *head = memmem(link->in, link->have, "\r\n\r\n", 4);
    if (!head) return 0;
    size_t body = 0;
    for (char *line = link->in; line < head; line++) {
        line = memchr(line, '\n', (size_t)(head - line) + 2);
        if (!line || line >= head) break;
        if (!strncasecmp(line + 1, "content-length:", 15)) body = strtoul(line + 16, NULL, 10);
    }
    return (size_t)(head + 4 - link->in) + body;
}

static void serve(Link *link) {
    ssize_t got = recv(link->fd, link->in + link->have, ROOM - 1 - link->have, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) return;
    if (got <= 0) { end(link); return; }
    link->have += (size_t)got;
    link->in[link->have] = 0;
    size_t need = length(link);
    if (!need || link->have < need) {
        if (link->have >= ROOM - 1) end(link);
        return;
    }
    link->have = 0; /* clients wait for the answer before they ask again */
    if (send(link->fd, ANSWER, sizeof ANSWER - 1, MSG_NOSIGNAL) < 0) end(link);
}

int main(int count, char **words) {
    if (count != 2) { fprintf(stderr, "hello PORT\n"); return 2; }
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(words[1]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int yes = 1, listener = socket(AF_INET, SOCK_STREAM, 0), poller = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, MOST)) fail("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[MOST];
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, MOST, -1);
        for (int i = 0; i < ready; i++) {
            if (events[i].data.ptr) { serve(events[i].data.ptr); continue; }
            Link *link = malloc(sizeof(Link));
            if (!link) fail("malloc");
            link->have = 0;
            link->fd = accept(listener, NULL, NULL);
            setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            event.data.ptr = link;
            epoll_ctl(poller, EPOLL_CTL_ADD, link->fd, &event);
        }
    }
}
