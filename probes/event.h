/* SPDX-License-Identifier: Apache-2.0 OR BSD-2-Clause OR GPL-2.0-only */
/*
 * What the kernel side tells the agent: the only layout that both know.
 *
 * Out: records in two ring buffers. `socket_events` carries struct socket_event and struct connection_event,
 * `process_events` carries struct process_event. The Rust twin is probe-agent/src/record.rs; a test compares
 * sizes and offsets of both through the section "layout" of the object (layout.h).
 *
 * Rules: explicit padding, no packed structs, fixed-size integers, host byte order unless said.
 */
#ifndef SPANTAP_EVENT_H
#define SPANTAP_EVENT_H

enum record_kind {
	RECORD_SEND = 1,
	RECORD_RECEIVE = 2,
	RECORD_END_OF_STREAM = 3, /* a receive returned 0 */
	RECORD_PEER_CLOSED = 4,   /* TCP: the peer's FIN arrived */
	RECORD_LOCAL_CLOSED = 5,  /* TCP: our FIN went out */
	RECORD_CLOSED = 6,        /* TCP: over, orderly */
	RECORD_RESET = 7,         /* TCP: reset or timed out */
	RECORD_CONNECTION = 8,
	RECORD_CONNECT = 9,       /* TCP: the thread begins to connect this socket */
	RECORD_LINK = 10,         /* what is sent next is sent for a request that was received, see struct socket_event */
	RECORD_FORK = 16,
	RECORD_EXEC = 17,
	RECORD_EXIT = 18,
	RECORD_LISTEN = 19,
	RECORD_TLS = 20,          /* a socket of the process speaks TLS */
	RECORD_TLS_IN_MEMORY = 21, /* its TLS library works in memory: no call moves bytes of a socket */
};

enum record_flags {
	FLAG_UNREADABLE = 1, /* data was due for capture and could not be read */
	FLAG_OPAQUE = 2,     /* last data record of this socket: it does not speak HTTP */
	FLAG_TLS = 4,        /* what a TLS library was given or gave: offsets and turns count plaintext */
	FLAG_ENCRYPTED = 8,  /* this socket speaks TLS, and no call of a TLS library that is read belongs to it */
	FLAG_BLOCKING = 32,  /* receive: the call would have waited for data, so its thread does nothing else meanwhile */
	FLAG_UNTIED = 16,    /* with FLAG_ENCRYPTED: but its process makes calls that belong to no socket */
	FLAG_PROPAGATED = 128, /* send: the last FIELD_BYTES of the head were put into the stream at `pad` of it, by propagate.bpf.c */
};

/* How a link was found; of RECORD_LINK the `turn`. */
enum link {
	LINK_GOROUTINE = 1,       /* the goroutine that runs the request's handler */
	LINK_INHERITED = 2,       /* one that it made, or that was made by one of those: its first request */
	LINK_INHERITED_AGAIN = 3, /* a later one */
	LINK_CONTEXT = 4,         /* another one, with the request's context */
	LINK_PYTHON = 30,         /* CPython: the context that it is sent in */
	LINK_NODE = 20,           /* what Node executed was begun for it */
	LINK_TOKIO_ITSELF = 40,   /* tokio: the task that sends it has received the other itself */
	LINK_TOKIO_LATER = 41,    /* it will be told when the response has arrived, by one of the next two, with the same first byte */
	LINK_TOKIO_WOKEN = 42,    /* who had it sent is who the response was for */
	LINK_TOKIO_NONE = 43,     /* it is not known */
	LINK_NODE_BLIND = 21,     /* the same, but no reaction to a promise was seen: it may be another's */
};

/* Captured bytes of one call at most; `head_size` of the configuration is clamped to it. */
#define HEAD_MAX 4096
/* Bytes at the end of a call's data that are kept where the head does not reach it. */
#define TAIL_BYTES 8

/*
 * One completed send or receive, or a change of a connection's state. Followed by head_length bytes.
 * RECORD_LINK: `socket` is about to send a request. `offset`: TCP sequence number of its first byte; with FLAG_TLS its stream
 * offset. `opposite_offset`: cookie of the socket that the request came over which it is sent for. `queued`: when that one's
 * handler began, or its head was received (LINK_PYTHON, LINK_TOKIO_ITSELF and the like), ns of CLOCK_MONOTONIC. `turn`: enum link.
 */
struct socket_event {
	__u8 kind;
	__u8 flags;
	__u16 head_length;
	__u32 pid;              /* thread group id in the initial PID namespace */
	__u64 process_start;    /* of the thread group leader, ns of CLOCK_BOOTTIME */
	__u64 socket;           /* socket cookie */
	__u64 time;             /* ns of CLOCK_MONOTONIC: the last byte was handed over */
	__u64 offset;           /* stream offset of the first byte in its direction */
	__u64 opposite_offset;  /* bytes of the other direction moved so far */
	__u32 length;           /* bytes moved by this call */
	__u32 thread;
	__u32 turn;             /* changes of direction so far */
	__u32 began_before;     /* ns between the call's first byte and `time`, saturated */
	__u64 queued;           /* receive: ns the data lay in the kernel at least; 0: not known */
	__u8 tail[TAIL_BYTES];
	__u32 tail_length;
	__u32 pad;              /* with FLAG_ENCRYPTED: the process that spoke TLS on the socket first; FLAG_PROPAGATED: see there */
};

#define PATH_BYTES 108

/* A socket that is seen for the first time, or for the first time since `announce` was raised. */
struct connection_event {
	__u8 kind;
	__u8 family;            /* AF_INET, AF_INET6, AF_UNIX */
	__u16 path_length;      /* AF_UNIX: bytes of path that follow the addresses; a leading NUL is abstract */
	__u32 network_namespace;
	__u64 socket;
	__u8 local_address[16]; /* network order; IPv4 in the first four */
	__u8 peer_address[16];
	__u16 local_port;       /* host order */
	__u16 peer_port;        /* host order */
	/* TCP: sequence numbers of the bytes at stream offset 0. What one end sends has the same numbers as what the other receives. */
	__u32 received_base;
	__u32 sent_base;
	__u32 pad;
	__u64 peer_socket;      /* AF_UNIX: cookie of the other end; 0: not known (yet) */
	__u8 path[PATH_BYTES];
	__u32 pad2;
};

#define FILENAME_BYTES 256
#define ARGUMENT_BYTES 512

/* Something happened to a process. filename and arguments: RECORD_EXEC only. */
struct process_event {
	__u8 kind;
	__u8 pad[3];
	__u32 pid;
	__u64 start;            /* ns of CLOCK_BOOTTIME */
	__u32 parent;           /* RECORD_FORK: pid of the parent */
	__u16 port;             /* RECORD_LISTEN: host order */
	__u16 pad2;
	__u32 filename_length;
	__u32 arguments_length; /* arguments end in NUL each */
	__u8 filename[FILENAME_BYTES];
	__u8 arguments[ARGUMENT_BYTES];
};

/* Counters of what the kernel side lost; indices of the map `losses`. */
enum loss {
	LOSS_RING_FULL_TURN = 0,     /* events that began a turn (a message) */
	LOSS_RING_FULL_OTHER = 1,    /* all other socket events */
	LOSS_PROCESS_RING_FULL = 2,
	LOSS_HEAD_UNREADABLE = 3,
	LOSS_NO_SOCKET_STATE = 4,
	LOSS_TLS_CALL = 5,           /* calls of a TLS library that ended without having been seen to begin */
	LOSS_EXCHANGE = 6,           /* exchanges that no record tells of: see note_record() */
	LOSS_MAX = 7,
};

/* Written by the agent, read by every program: the one entry of the map `control`. */
struct control {
	__u32 announce;         /* raised: every socket is announced again before its next event */
	__u32 head_bytes;       /* captured bytes of one turn at most, <= HEAD_MAX */
	__u64 tick;             /* length of a jiffy, ns; 0: not known */
	__u32 provisional_exec; /* watch every new program until the agent has judged it */
	__u32 wake_bytes;       /* wake the agent when that many bytes wait for it */
	__u32 ask_bytes;        /* look at the fill level after that many bytes of one program on one CPU */
	__u32 tls;              /* calls of TLS libraries are seen: their sockets' bytes are not told */
};

#endif
