//! What the agent asks of the process that attaches probes, and what that answers.
//!
//! In: orders. Out: the messages between the two (a Unix socket that keeps their bounds), read with bounds on both sides.

/// What the attaching process says first. No message is empty: that is the end.
pub(super) const READY: &[u8] = b".";
/// Stops in one library at most.
const MAX_STOPS: usize = 96;
/// Places in one program of Go at most: it may have OpenSSL's linked into it as well.
pub(super) const MAX_GO_PLACES: usize = 48;
/// Longest message.
pub(super) const MAX_BYTES: usize = 1024;

/// Programs of the kernel side that are attached to functions: one for each [`Function`] in their order, where it is entered,
/// and one where they are left.
pub const PROGRAMS: [&str; 13] = [
    "tls_read",
    "tls_read_ex",
    "tls_write",
    "tls_write_ex",
    "tls_other",
    "tls_forget",
    "tls_cipher",
    "tls_go_read",
    "tls_go_write",
    "tls_go_close",
    "tls_go_start",
    "tls_go_return",
    "tls_return",
];

/// What a function does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    /// Receives plaintext, returns its length.
    Read = 1,
    /// Receives plaintext, leaves its length where the fourth argument says.
    ReadEx = 2,
    /// Sends plaintext, returns its length.
    Write = 3,
    /// Sends plaintext, leaves its length where the fourth argument says.
    WriteEx = 4,
    /// Moves bytes of the socket, but no plaintext.
    Other = 5,
    /// Ends a session.
    Forget = 6,
    /// Writes a session's ciphertext to its transport; attached in single processes (`cipher.rs`).
    Cipher = 7,
    /// Go's `(*tls.Conn).Read`.
    GoRead = 8,
    /// Go's `(*tls.Conn).Write`.
    GoWrite = 9,
    /// Go's `(*tls.Conn).Close`.
    GoClose = 10,
    /// Begins a connection of Go's.
    GoHandshake = 11,
    /// An instruction by which one of the first two returns.
    GoReturn = 12,
}

impl Function {
    const ALL: [Self; 12] = [
        Self::Read,
        Self::ReadEx,
        Self::Write,
        Self::WriteEx,
        Self::Other,
        Self::Forget,
        Self::Cipher,
        Self::GoRead,
        Self::GoWrite,
        Self::GoClose,
        Self::GoHandshake,
        Self::GoReturn,
    ];

    /// Place of its program in [`PROGRAMS`].
    pub(super) fn program(self) -> usize {
        self as usize - 1
    }

    /// Whether the kernel is to catch its end. Never in Go: its stacks move, with the return address.
    pub(super) fn has_return(self) -> bool {
        self.program() < Self::Forget.program()
    }
}

/// What is seen at a [`Stop`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// A call begins: its arguments stand in their registers.
    Enter = 0,
    /// A call ends: its result stands in its register.
    Leave = 1,
    /// A call ends; the kernel catches its return, having put its own address in the place of the return address. The
    /// offset is that of the function.
    Return = 2,
}

impl When {
    const ALL: [Self; 3] = [Self::Enter, Self::Leave, Self::Return];
}

/// An instruction at which the kernel stops programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) function: Function,
    pub(super) when: When,
    /// In the file.
    pub(super) offset: u64,
}

/// The function that writes ciphertext: of the part of the library that may be a file of its own (libcrypto).
pub(super) const CIPHER: &str = "BIO_write";

/// Functions of OpenSSL's interface that are looked for; most may be missing, see [`reads`].
pub(super) const OPENSSL: &[(&str, Function)] = &[
    ("SSL_read", Function::Read),
    ("SSL_read_ex", Function::ReadEx),
    ("SSL_write", Function::Write),
    ("SSL_write_ex", Function::WriteEx),
    ("SSL_do_handshake", Function::Other),
    ("SSL_peek", Function::Other),
    ("SSL_peek_ex", Function::Other),
    ("SSL_free", Function::Forget),
    ("SSL_clear", Function::Forget),
    (CIPHER, Function::Cipher),
];

/// Whether what was found is enough to read both directions.
pub(super) fn reads(places: &[(Function, u64)]) -> bool {
    let has = |function| places.iter().any(|(found, _)| *found == function);
    has(Function::Read) && has(Function::Write) && has(Function::Forget)
}

/// An order; an attachment is known by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Attach to these places of the file that comes with the message, in this order.
    Attach(u32, Vec<Stop>),
    /// The same, but only in the process of this number.
    AttachTo(u32, u32, Vec<Stop>),
    /// Take the probes away again.
    Detach(u32),
}

impl Order {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, number, stops): (u8, u32, &[_]) = match self {
            Self::Detach(number) => (0, *number, &[]),
            Self::Attach(number, stops) => (1, *number, stops),
            Self::AttachTo(number, _, stops) => (2, *number, stops),
        };
        let mut bytes = vec![kind];
        bytes.extend(number.to_le_bytes());
        if let Self::AttachTo(_, pid, _) = self {
            bytes.extend(pid.to_le_bytes());
        }
        for stop in stops.iter().take(MAX_STOPS) {
            bytes.extend([stop.function as u8, stop.when as u8]);
            bytes.extend(stop.offset.to_le_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&kind, rest) = bytes.split_first()?;
        let (number, rest) = rest.split_first_chunk::<4>()?;
        let number = u32::from_le_bytes(*number);
        if kind == 0 {
            return rest.is_empty().then_some(Self::Detach(number));
        }
        let (pid, rest) = match kind {
            2 => rest.split_first_chunk::<4>().map(|(pid, rest)| (Some(u32::from_le_bytes(*pid)), rest))?,
            _ => (None, rest),
        };
        let stops = rest.chunks(10).map(|stop| {
            let (&[function, when], offset) = stop.split_first_chunk::<2>()?;
            Some(Stop {
                function: Function::ALL.into_iter().find(|known| *known as u8 == function)?,
                when: When::ALL.into_iter().find(|known| *known as u8 == when)?,
                offset: u64::from_le_bytes(*offset.first_chunk::<8>()?),
            })
        });
        let stops: Vec<_> = stops.collect::<Option<_>>()?;
        match (kind, pid) {
            _ if stops.len() > MAX_STOPS => None,
            (1, None) => Some(Self::Attach(number, stops)),
            (2, Some(pid)) => Some(Self::AttachTo(number, pid, stops)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for order in [
            Order::Detach(7),
            Order::Attach(1, Vec::new()),
            Order::AttachTo(9, 4_000_000, vec![Stop { function: Function::Cipher, when: When::Enter, offset: 77 }]),
            Order::Attach(
                u32::MAX,
                vec![
                    Stop { function: Function::Read, when: When::Return, offset: 1 },
                    Stop { function: Function::Forget, when: When::Enter, offset: u64::MAX },
                ],
            ),
        ] {
            let bytes = order.encode();
            assert!(bytes.len() <= MAX_BYTES);
            assert_eq!(Order::decode(&bytes), Some(order));
        }
    }

    /// The kernel cuts longer ones off, and programs are found by them.
    #[test]
    fn names_of_programs_are_short_enough() {
        assert!(PROGRAMS.iter().all(|name| name.len() <= 15), "{PROGRAMS:?}");
    }

    #[test]
    fn the_most_there_can_be_fits() {
        let order = Order::Attach(
            1,
            vec![Stop { function: Function::GoReturn, when: When::Enter, offset: u64::MAX }; MAX_STOPS],
        );
        assert!(order.encode().len() <= MAX_BYTES);
        assert_eq!(Order::decode(&order.encode()), Some(order));
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            &b""[..],
            b"\x01",
            b"\x02\0\0\0\0",
            b"\x03\0\0\0\0\0\0\0\0",
            b"\0\0\0\0\0x",
            b"\x01\0\0\0\0\x0d\0\0\0\0\0\0\0\0\0",
            b"\x01\0\0\0\0\x01\x03\0\0\0\0\0\0\0\0",
            b"\x01\0\0\0\0\x01\0",
        ] {
            assert_eq!(Order::decode(bytes), None, "{bytes:?}");
        }
        let many: Vec<u8> =
            [1, 0, 0, 0, 0].into_iter().chain([1, 0, 0, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_STOPS + 1)).collect();
        assert_eq!(Order::decode(&many), None);
    }
}
