/* An HTTP server all of whose socket I/O goes through io_uring: accept, receive, send. One connection at a time.
 * In: "requests" as its argument. Out: "listening PORT" and "done" on standard output.
 * Raw system calls: liburing is not on every machine that runs the tests. */
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ring;
static unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;

static void fail(const char *what)
{
    printf("error %s\n", what);
    exit(1);
}

static void open_ring(void)
{
    struct io_uring_params p;
    memset(&p, 0, sizeof p);
    ring = syscall(__NR_io_uring_setup, 8, &p);
    if (ring < 0)
        fail("io_uring_setup");
    size_t sq_size = p.sq_off.array + p.sq_entries * sizeof(unsigned);
    size_t cq_size = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    char *sq = mmap(NULL, sq_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
    char *cq = mmap(NULL, cq_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_CQ_RING);
    sqes = mmap(NULL, p.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
    if (sq == MAP_FAILED || cq == MAP_FAILED || sqes == MAP_FAILED)
        fail("mmap");
    sq_tail = (unsigned *)(sq + p.sq_off.tail);
    sq_mask = (unsigned *)(sq + p.sq_off.ring_mask);
    sq_array = (unsigned *)(sq + p.sq_off.array);
    cq_head = (unsigned *)(cq + p.cq_off.head);
    cq_tail = (unsigned *)(cq + p.cq_off.tail);
    cq_mask = (unsigned *)(cq + p.cq_off.ring_mask);
    cqes = (struct io_uring_cqe *)(cq + p.cq_off.cqes);
}

/* Submits one operation, waits for it, returns its result. */
static int operate(int code, int fd, void *buffer, unsigned length)
{
    unsigned tail = *sq_tail, at = tail & *sq_mask;
    struct io_uring_sqe *sqe = &sqes[at];
    memset(sqe, 0, sizeof *sqe);
    sqe->opcode = code;
    sqe->fd = fd;
    sqe->addr = (uint64_t)(uintptr_t)buffer;
    sqe->len = length;
    sq_array[at] = at;
    __atomic_store_n(sq_tail, tail + 1, __ATOMIC_RELEASE);
    if (syscall(__NR_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
        fail("io_uring_enter");
    unsigned head = *cq_head;
    while (head == __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE))
        ;
    int result = cqes[head & *cq_mask].res;
    __atomic_store_n(cq_head, head + 1, __ATOMIC_RELEASE);
    return result;
}

int main(int argc, char **argv)
{
    int requests = argc > 1 ? atoi(argv[1]) : 1;
    char task[65536];
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    if (!fgets(task, sizeof task, stdin)) /* tells us to begin; its content is for other subjects */
        return 0;
    open_ring();
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 8) ||
        getsockname(listener, (struct sockaddr *)&address, &size))
        fail("listen");
    printf("listening %d\n", ntohs(address.sin_port));

    int connection = operate(IORING_OP_ACCEPT, listener, NULL, 0);
    if (connection < 0)
        fail("accept");
    static const char response[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    for (int i = 0; i < requests; i++) {
        char head[4096];
        int have = 0;
        while (have < 4 || memcmp(head + have - 4, "\r\n\r\n", 4)) {
            int got = operate(IORING_OP_RECV, connection, head + have, sizeof head - have);
            if (got <= 0)
                fail("receive");
            have += got;
        }
        if (operate(IORING_OP_SEND, connection, (void *)response, sizeof response - 1) != sizeof response - 1)
            fail("send");
    }
    close(connection);
    puts("done");
    return 0;
}
