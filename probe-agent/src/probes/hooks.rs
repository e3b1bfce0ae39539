//! The hook sets: ways to hook the same bodies of the kernel side.
//!
//! In: what the configuration wants. Out: the sets to try, best first, and the programs of each.

use spantap_config::Hooks;

/// A compiled kernel side; `probes/access.h` says how the two differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object {
    /// Typed pointers, state in the storage of sockets.
    Typed,
    /// Fields by helper, state in a table.
    Table,
}

static TYPED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/spantap.embedded.bpf.o"));
static TABLE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/spantap-table.embedded.bpf.o"));

impl Object {
    /// The compiled bytes.
    pub fn bytes(self) -> &'static [u8] {
        match self {
            Self::Typed => TYPED,
            Self::Table => TABLE,
        }
    }
}

/// Where a program is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// BTF tracepoint.
    Tracepoint,
    /// Entry of a kernel function, by trampoline.
    Entry,
    /// Return of one.
    Return,
    /// Entry of a kernel function, by kprobe.
    Kprobe,
}

/// Whether the agent can do its work without a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It cannot.
    Required,
    /// It can.
    Optional {
        /// What the program is for.
        feature: &'static str,
        /// What is missing then.
        without: &'static str,
    },
    /// It is for kernels that have the function; others do the same by functions that are hooked anyway.
    IfThere,
}

/// A program of a hook set.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name in the object.
    pub name: &'static str,
    /// The tracepoint or kernel function.
    pub target: &'static str,
    /// How it is attached there.
    pub place: Place,
    /// Whether it has to be.
    pub need: Need,
}

/// A way to hook sends and receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookSet {
    /// Entries of the functions that every send and receive goes through, and BTF tracepoints of Linux 6.3 that tell how it
    /// ended: also of a call that was under way when they were attached.
    Fentry,
    /// Entry and return of those functions. A trampoline does not see the return of a call that was under way.
    FentryReturns,
    /// The same for Linux 5.10, whose programs cannot keep state with a socket.
    FentryTable,
    /// BTF tracepoints, Linux 6.3 and later.
    Tracepoint,
    /// Kprobes on entries.
    Kprobe,
}

const IPV6: Need = Need::Optional { feature: "ipv6", without: "sockets of IPv6 are not seen" };
const UNIX: Need = Need::Optional { feature: "unix-sockets", without: "Unix sockets are not seen" };

const fn tracepoint(name: &'static str) -> Program {
    Program { name, target: name, place: Place::Tracepoint, need: Need::Required }
}

const fn entry(name: &'static str, target: &'static str, need: Need) -> Program {
    Program { name, target, place: Place::Entry, need }
}

const fn exit(name: &'static str, target: &'static str, need: Need) -> Program {
    Program { name, target, place: Place::Return, need }
}

const fn kprobe(name: &'static str, target: &'static str, need: Need) -> Program {
    Program { name, target, place: Place::Kprobe, need }
}

/// With every set.
const PROCESSES: &[Program] = &[
    tracepoint("inet_sock_set_state"),
    tracepoint("sched_process_fork"),
    tracepoint("sched_process_exec"),
    tracepoint("sched_process_exit"),
];

const ENTRIES: &[Program] = &[
    entry("inet_recvmsg_enter", "inet_recvmsg", Need::Required),
    entry("inet_sendmsg_enter", "inet_sendmsg", Need::Required),
    entry("inet6_recvmsg_enter", "inet6_recvmsg", IPV6),
    entry("inet6_sendmsg_enter", "inet6_sendmsg", IPV6),
    entry("unix_stream_recvmsg_enter", "unix_stream_recvmsg", UNIX),
    entry("unix_stream_sendmsg_enter", "unix_stream_sendmsg", UNIX),
];

/// Attached before the entries: what is between the two then is told by its return alone.
const RETURNS: &[Program] = &[
    exit("inet_recvmsg_exit", "inet_recvmsg", Need::Required),
    exit("inet_sendmsg_exit", "inet_sendmsg", Need::Required),
    exit("inet6_recvmsg_exit", "inet6_recvmsg", IPV6),
    exit("inet6_sendmsg_exit", "inet6_sendmsg", IPV6),
    exit("unix_stream_recvmsg_exit", "unix_stream_recvmsg", UNIX),
    exit("unix_stream_sendmsg_exit", "unix_stream_sendmsg", UNIX),
    exit("inet_sendpage_exit", "inet_sendpage", Need::IfThere),
    entry("inet_sendpage_enter", "inet_sendpage", Need::IfThere),
];

const ENDS: &[Program] = &[tracepoint("sock_recv_length"), tracepoint("sock_send_length")];

const TABLE_OF_TCP: &[Program] = &[tracepoint("tcp_destroy_sock")];
const TABLE_OF_UNIX: &[Program] = &[entry("unix_release_enter", "unix_release", UNIX)];

const TRACEPOINT: &[Program] = &[
    Program {
        need: Need::Optional {
            feature: "send-start",
            without: "the start of a send is taken from its end; data of sendmmsg and of io_uring sends is not read",
        },
        ..tracepoint("tcp_sendmsg_locked")
    },
    Program {
        need: Need::Optional {
            feature: "io-uring-data",
            without: "data received by io_uring is counted, but not read",
        },
        ..tracepoint("io_uring_complete")
    },
];

const KPROBE: &[Program] = &[
    kprobe("kprobe_received", "release_sock", Need::Required),
    kprobe("kprobe_sent", "release_sock", Need::Required),
    kprobe("kprobe_receive", "inet_recvmsg", Need::Required),
    kprobe("kprobe_receive", "inet6_recvmsg", IPV6),
    kprobe("kprobe_send", "inet_sendmsg", Need::Required),
    kprobe("kprobe_send", "inet6_sendmsg", IPV6),
    kprobe("kprobe_sendpage", "inet_sendpage", Need::IfThere),
];

impl HookSet {
    /// Those to try, best first. The tracepoints come before the second object: a kernel that has them needs it for nothing else.
    pub fn wanted(hooks: Hooks) -> &'static [Self] {
        match hooks {
            Hooks::Auto => &[Self::Fentry, Self::FentryReturns, Self::Tracepoint, Self::FentryTable, Self::Kprobe],
            Hooks::Fentry => &[Self::Fentry, Self::FentryReturns, Self::FentryTable],
            Hooks::Tracepoint => &[Self::Tracepoint],
            Hooks::Kprobe => &[Self::Kprobe],
        }
    }

    /// Name in the log, in the report of the doctor, and for the forwarder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fentry => "fentry",
            Self::FentryReturns => "fentry-returns",
            Self::FentryTable => "fentry-table",
            Self::Tracepoint => "tracepoint",
            Self::Kprobe => "kprobe",
        }
    }

    /// What it takes.
    pub fn takes(self) -> &'static str {
        match self {
            Self::Fentry => "fentry: BPF trampolines and Linux 6.3",
            Self::FentryReturns => "fentry: BPF trampolines (x86-64 or, from 6.4 on, arm64) and Linux 5.11",
            Self::FentryTable => "fentry: BPF trampolines and Linux 5.8",
            Self::Tracepoint => "tracepoint: Linux 6.3",
            Self::Kprobe => "kprobe: CONFIG_KPROBES and Linux 5.8",
        }
    }

    /// The object that holds its programs.
    pub fn object(self) -> Object {
        match self {
            Self::Fentry | Self::FentryReturns | Self::Tracepoint => Object::Typed,
            Self::FentryTable | Self::Kprobe => Object::Table,
        }
    }

    /// Its programs, in the order in which they are attached.
    pub fn programs(self) -> Vec<Program> {
        let own: &[&[Program]] = match self {
            Self::Fentry => &[ENDS, ENTRIES],
            Self::FentryReturns => &[RETURNS, ENTRIES],
            Self::FentryTable => &[TABLE_OF_TCP, TABLE_OF_UNIX, RETURNS, ENTRIES],
            Self::Tracepoint => &[ENDS, TRACEPOINT],
            Self::Kprobe => &[TABLE_OF_TCP, KPROBE],
        };
        [own, &[PROCESSES]].concat().concat()
    }

    /// The same, those that are attached in several places once.
    pub fn distinct_programs(self) -> Vec<Program> {
        let mut programs = self.programs();
        let mut known = Vec::new();
        programs.retain(|program| {
            !known.contains(&program.name) && {
                known.push(program.name);
                true
            }
        });
        programs
    }

    /// Why the set must not be tried on a kernel although it would load: an error of the kernel.
    pub fn forbidden(self, safe_returns: bool) -> Option<&'static str> {
        let returns = self.programs().iter().any(|program| program.place == Place::Return);
        (returns && !safe_returns).then_some(
            "returns of functions that wait must not be hooked on this kernel, which may crash when they are unhooked (mended \
             by commit e21aa341785c, in Linux 5.12 and 5.10.28)",
        )
    }

    /// Features that no program of the set has, with what is missing.
    pub fn lacks(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Kprobe => &[(
                "unix-sockets",
                "kprobes do not tell what a send or receive of a Unix socket moved: they are not seen",
            )],
            Self::FentryReturns | Self::FentryTable => &[(
                "calls-under-way",
                "a send or receive that waits while the agent starts is not seen; the next one on the same connection is",
            )],
            Self::Fentry | Self::Tracepoint => &[],
        }
    }

    /// Why TLS libraries are not read with this set.
    pub fn without_tls(self) -> Option<&'static str> {
        match self.object() {
            Object::Typed => None,
            Object::Table => Some("not with this hook set: it takes fentry of Linux 5.11, or tracepoints of Linux 6.3"),
        }
    }
}
