/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * Every map, its bound, and why that bound.
 */
#ifndef SPANTAP_MAPS_H
#define SPANTAP_MAPS_H

/* Socket records. The agent sets the size (8 MiB): about 100 ms of 80,000 requests a second seen from both ends. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 8 * 1024 * 1024);
} socket_events SEC(".maps");

/* Process records, apart so that a flood of socket records cannot hide a new process. 500 program starts. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 512 * 1024);
} process_events SEC(".maps");

/*
 * One bit for each possible pid (PID_MAX_LIMIT is 4 Mi on 64 bit): whether that process is observed. An array
 * look-up is inlined by the verifier, so an unselected process costs a handful of instructions. Mapped by the
 * agent, which sets and clears bits atomically; 512 KiB of kernel memory.
 */
#define PID_WORDS 65536
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, PID_WORDS);
	__type(key, __u32);
	__type(value, __u64);
} selected SEC(".maps");

/*
 * One bit for each TCP port that a discovery entry names: who listens there is watched until judged. Mapped by the agent, like the
 * next two: when it reads and writes them, it may make no use of bpf(2) any more.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1024);
	__type(key, __u32);
	__type(value, __u64);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct control);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, LOSS_MAX);
	__type(key, __u32);
	__type(value, __u64);
} losses SEC(".maps");

enum mode {
	MODE_UNDECIDED = 0,
	MODE_HTTP = 1,
	MODE_OPAQUE = 2,
	MODE_TLS = 3,            /* its plaintext is told by the calls of the TLS library, see tls.h */
};

enum tied {
	TIED_BY_CALL = 1,        /* by what the thread moved within a call, see tls_socket.h */
	TIED_BY_GO = 2,          /* by the descriptor in the connection's object, see tls_go.h */
};

/* State of one socket; lives and dies with it. */
struct socket_state {
	__u64 cookie;            /* 0: not yet used */
	__u64 received;          /* stream offsets: bytes seen so far */
	__u64 sent;
	__u32 received_seq;      /* TCP sequence numbers that belong to these offsets */
	__u32 sent_seq;
	/* A send that was seen to begin, until it completes. */
	__u64 send_thread;       /* thread and process */
	__u64 send_began;        /* ns of CLOCK_MONOTONIC; 0: none under way */
	__u64 send_last;
	union {
		__u64 send_data; /* user address, or kernel address of the iovecs */
		__u64 session;   /* plaintext of Go: address of the connection's object, 0: none was seen */
	};
	union {
		__u64 send_skip; /* bytes of the first segment to skip */
		__u64 arrived;   /* plaintext of Go: when the bytes that were received last had arrived, at the latest */
	};
	__u32 send_segments;     /* 0: not readable; 1: send_data is the data; else number of iovecs + 1 */
	__u32 send_turn;
	__u32 turn;
	__u32 announced;         /* value of control.announce when the connection was told */
	__u32 captured_received; /* bytes captured in the current turn, or since a message began in it */
	__u32 captured_sent;
	__u8 direction;          /* RECORD_SEND or RECORD_RECEIVE; 0 before the first */
	__u8 mode;
	__s8 strange_turns;      /* turns in a row that did not begin like HTTP; HTTP/2 begins below 0 */
	__u8 tcp;
	__u8 send_begins_turn;   /* the send under way began its turn */
	__u8 tls_tied;           /* enum tied: a call of a TLS library has moved bytes of this socket */
	__u8 tls_told;           /* told as encrypted */
	__u8 send_whole;         /* of the send under way only the beginning was seen, not its pieces */
	__u32 tls_pid;           /* process that spoke TLS on it first */
	/* Receive that was seen to begin. */
	__u32 receive_flags;
	__u64 receive_thread;    /* thread and process; 0: none */
	__u64 receive_data;      /* as send_data, send_skip, send_segments */
	__u64 receive_skip;
	__u32 receive_segments;
	__u32 receive_from;      /* TCP sequence number where it began */
	__u32 send_from;
	__u32 told;              /* turn up to which records were handed over; 0: none was */
	union {
		__u64 tls_plain; /* cookie that its plaintext is told with, if its ciphertext tied it; 0: its own */
		__u64 written;   /* plaintext of Go: `sent` with the bytes of the write under way */
	};
};

#ifdef SPANTAP_TABLE
/*
 * By address of the socket, removed when it is destroyed. LRU, so that one whose end was missed goes some time; a live one
 * that was pushed out begins anew, as a connection that was open before the start. As many as the forwarder's connections.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct socket_state);
} socket_states SEC(".maps");
#else
struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct socket_state);
} socket_states SEC(".maps");
#endif

/*
 * Room to build one record. A program is never re-entered on a CPU (the kernel skips the second run), but it can
 * be preempted by another program, so each has its own. Before Linux 6.1 the kernel skips nothing: the one that runs in soft
 * interrupts as well has another for the run inside a run.
 */
enum scratch_owner {
	SCRATCH_SEND = 0,
	SCRATCH_RECEIVE = 1,
	SCRATCH_STATE = 2,
	SCRATCH_IO_URING = 3,
	SCRATCH_STATE_WITHIN = 4,
	SCRATCH_MAX = 5,
};

/* Where the data of a call lies: see data.h. */
struct data {
	__u64 address;    /* the data, or the array of iovecs */
	__u64 skip;       /* bytes of the first segment to skip */
	__u32 segments;   /* 0: cannot be read; 1: address is the data; n + 1: address is an array of n iovecs */
	bool kernel_array; /* the array of iovecs is the kernel's copy */
};

/* A walk over the segments of one call: see data.h. */
struct walk {
	struct {
		__u64 base;
		__u64 length;
	} segment;
	__u64 segments;          /* address of the array of segments */
	__u64 position;          /* bytes of the call before the current segment */
	__u64 skip;              /* bytes still to skip */
	__u32 count;             /* segments in the array */
	__u32 kernel_array;      /* the array is the kernel's copy */
	__u32 length;            /* bytes of the call */
	__u32 want;              /* bytes of the head that are due */
	__u32 tail;              /* bytes of the tail that are due */
	__u32 got;               /* bytes in `head` */
	__u32 next;              /* segment that is looked at next */
	__u32 pad;
};

/* Bytes of a head that are copied at once where it lies in several segments: twice as many are all. */
#define HEAD_PIECE 2048

/*
 * Part of what is kept with a thread (struct tls_call), and that may have no more than 8 KiB: from Linux 6.19 on the kernel takes memory
 * for it by kmalloc_nolock(), which gives no more (KMALLOC_MAX_CACHE_SIZE).
 */
struct scratch {
	struct socket_event event;
	/* With room, so that "offset < HEAD_MAX, length <= HEAD_PIECE" is all the verifier has to know. */
	__u8 head[HEAD_MAX + HEAD_PIECE];
	struct connection_event connection;
	struct walk walk;
	/* What a call turned out to be. Here the verifier knows nothing of it, and need not follow each way that led to it. */
	struct data data;
	__u32 begins_turn;
	__u32 io_uring;
	__u64 socket;            /* address of the socket that is told of */
	__u32 unasked;           /* bytes handed over since the fill level was looked at */
	__u32 busy;              /* a run builds its record here (SCRATCH_STATE) */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SCRATCH_MAX);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

#ifndef SPANTAP_TABLE

/*
 * The call of a TLS library that a thread is in. With room for a record of its own: programs on user space's functions can
 * be preempted by another thread in the same program, so nothing of one CPU's is safe in them. 9 KB for each thread that
 * speaks TLS, gone with it.
 */
struct tls_call {
	__u64 session;           /* address of the library's object (SSL); 0: the thread is in no such call */
	__u64 buffer;
	__u64 length_at;         /* where the call leaves the number of bytes; 0: it returns it */
	__u64 socket;            /* cookie of the socket whose bytes it moved; 0: none so far */
	__u64 began;             /* ns of CLOCK_MONOTONIC */
	__u64 moved;             /* when it began to move these bytes; of a read, what came after it sent last */
	__u64 queued;
	__u8 direction;          /* RECORD_SEND or RECORD_RECEIVE; 0: no plaintext (a handshake) */
	__u8 ambiguous;          /* it moved bytes of two sockets that speak TLS */
	__u8 flushes;            /* what it sends was told when the library took it */
	__u8 within;             /* calls on the same session that it is in itself */
	__u8 sent;               /* it has sent since it received last: it makes the handshake */
	__u8 pad[3];
	struct scratch scratch;
};
/* The kernel puts some 100 bytes of its own before it. */
_Static_assert(sizeof(struct tls_call) <= 8192 - 256, "later kernels have no memory for it");

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct tls_call);
} tls_calls SEC(".maps");

struct tls_session {
	__u64 address;
	__u64 pid;
};

/*
 * Which socket a session was last seen to use, for calls that find their bytes in the library. LRU: a tie that was pushed
 * out, or that nobody removed, is learned anew with the session's next call that moves bytes; a stale one leads to a socket
 * that is closed, which has no state below. The value is the cookie that the plaintext is told with.
 */
#define TIE_BY_CIPHER (1ULL << 62) /* learned by its ciphertext (tls_cipher.h) */
#define TIE_WAITS (1ULL << 61)     /* not tied: marks the session whose ciphertext is looked for */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct tls_session);
	__type(value, __u64);
} tls_ties SEC(".maps");

/* State of the plaintext of a socket, by cookie; removed when the socket closes. As many as the forwarder's connections. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, struct socket_state);
} tls_sockets SEC(".maps");

/* The same for sessions that were never seen to move bytes of a socket (memory BIOs), with a cookie made up for them. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct tls_session);
	__type(value, struct socket_state);
} tls_untied SEC(".maps");

/*
 * First bytes of what sessions have written and no socket has sent yet, see tls_cipher.h. A connection needs one entry, from
 * the writing to the sending of its first flight. LRU: a session whose entry was pushed out is tied by its next record.
 */
#define CIPHER_BYTES 32
struct tls_cipher {
	struct tls_session session;
	__u64 mark;              /* what the session's tie is while it waits; 0: two sessions wrote these bytes */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, __u8[CIPHER_BYTES]);
	__type(value, struct tls_cipher);
} tls_ciphers SEC(".maps");

struct tls_process {
	__u64 told;              /* when it was last told to speak TLS: not for each connection */
	__u32 untied;            /* it has made calls that belong to no socket */
	__u32 go;                /* it has made calls of Go's crypto/tls */
};

/* Processes that speak TLS. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct tls_process);
} tls_processes SEC(".maps");

/* The call of Go's crypto/tls that a goroutine is in, by what stays the same while it moves between threads and stacks. */
struct tls_go_key {
	__u64 goroutine;         /* address of its object */
	__u32 pid;
	__u32 depth;             /* bytes between the call's return address and the end of the stack */
};

struct tls_go_call {
	__u64 session;           /* address of the connection's object (*tls.Conn) */
	__u64 buffer;            /* its address; if it is on the goroutine's stack: bytes to the end of that */
	__u64 socket;            /* cookie; 0: not known yet */
	__u64 began;             /* ns of CLOCK_MONOTONIC */
	__u64 opposite;          /* bytes of the other direction when it began */
	__u8 direction;          /* RECORD_SEND or RECORD_RECEIVE */
	__u8 on_stack;
	__u8 pad[2];
	__u32 length;            /* bytes that it may move at most */
};

/*
 * LRU: goroutines of a process that ends leave theirs. One for each connection that waits for its next request: with more
 * than this, the one that has waited for longest is pushed out, and its call counts as lost when it ends.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct tls_go_key);
	__type(value, struct tls_go_call);
} tls_go_calls SEC(".maps");

/*
 * Where a call of Go leaves its result until it returns: bytes below its return address, by the place in a page at which
 * programs are stopped for it. The agent sets it before it has them stopped there, and no other for the same place.
 */
#define GO_RESULT_AT_JUMP (1ull << 31) /* the place is the jump that may begin the function anew */
#define GO_RESULT_IS_ALL (1ull << 30)  /* of Read: its arguments stand above the return address, so it is not seen to begin */
#define GO_RESULT_BELOW 0xffff
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, __u64);
	__uint(map_flags, BPF_F_MMAPABLE);
} tls_go_results SEC(".maps");

/*
 * Receives made by io_uring, waiting for the completion that tells where the data is. Key: address of the socket.
 * LRU: a completion that never comes (multishot) leaves an entry that the next ones push out.
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct socket_event);
} io_uring_pending SEC(".maps");

#endif /* SPANTAP_TABLE */

#endif
