//! What the agent asks of the process that attaches probes, and what that answers.
//!
//! In: orders. Out: the messages between the two (a Unix socket that keeps their bounds), read with bounds on both sides.

/// What the attaching process says first. No message is empty: that is the end.
pub(super) const READY: &[u8] = b".";
/// Functions of one library at most.
pub(super) const MAX_PLACES: usize = 48;
/// Longest message.
pub(super) const MAX_BYTES: usize = 1024;

/// Programs of the kernel side that are attached to functions: one for each [`Function`] in their order, where it is entered,
/// and one where they are left.
pub const PROGRAMS: [&str; 12] = [
    "tls_read",
    "tls_read_ex",
    "tls_write",
    "tls_write_ex",
    "tls_other",
    "tls_forget",
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
    /// Go's `(*tls.Conn).Read`.
    GoRead = 7,
    /// Go's `(*tls.Conn).Write`.
    GoWrite = 8,
    /// Go's `(*tls.Conn).Close`.
    GoClose = 9,
    /// Begins a connection of Go's.
    GoHandshake = 10,
    /// An instruction by which one of the first two returns.
    GoReturn = 11,
}

impl Function {
    const ALL: [Self; 11] = [
        Self::Read,
        Self::ReadEx,
        Self::Write,
        Self::WriteEx,
        Self::Other,
        Self::Forget,
        Self::GoRead,
        Self::GoWrite,
        Self::GoClose,
        Self::GoHandshake,
        Self::GoReturn,
    ];

    /// Whether the kernel is to stop where the function returns. Never in Go: its stacks move, with the return address.
    pub(super) fn has_return(self) -> bool {
        self.program() < Self::Forget.program()
    }

    /// Place of its program in [`PROGRAMS`].
    pub(super) fn program(self) -> usize {
        self as usize - 1
    }
}

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
];

/// Whether what was found is enough to read both directions.
pub(super) fn reads(places: &[(Function, u64)]) -> bool {
    let has = |function| places.iter().any(|(found, _)| *found == function);
    has(Function::Read) && has(Function::Write) && has(Function::Forget)
}

/// An order; an attachment is known by its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// Attach to these functions of the file that comes with the message, at these offsets.
    Attach(u32, Vec<(Function, u64)>),
    /// Take the probes away again.
    Detach(u32),
}

impl Order {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (number, places): (u32, &[_]) = match self {
            Self::Attach(number, places) => (*number, places),
            Self::Detach(number) => (*number, &[]),
        };
        let mut bytes = vec![u8::from(matches!(self, Self::Attach(..)))];
        bytes.extend(number.to_le_bytes());
        for (function, offset) in places.iter().take(MAX_PLACES) {
            bytes.push(*function as u8);
            bytes.extend(offset.to_le_bytes());
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
        let places = rest.chunks(9).map(|place| {
            let (&function, offset) = place.split_first()?;
            let function = Function::ALL.into_iter().find(|known| *known as u8 == function)?;
            Some((function, u64::from_le_bytes(*offset.first_chunk::<8>()?)))
        });
        let places: Vec<_> = places.collect::<Option<_>>()?;
        (kind == 1 && places.len() <= MAX_PLACES).then_some(Self::Attach(number, places))
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
            Order::Attach(u32::MAX, vec![(Function::Read, 1), (Function::Forget, u64::MAX)]),
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
        let order = Order::Attach(1, vec![(Function::GoReturn, u64::MAX); MAX_PLACES]);
        assert!(order.encode().len() <= MAX_BYTES);
        assert_eq!(Order::decode(&order.encode()), Some(order));
    }

    #[test]
    fn anything_else_is_refused() {
        for bytes in [
            &b""[..],
            b"\x01",
            b"\x02\0\0\0\0",
            b"\0\0\0\0\0x",
            b"\x01\0\0\0\0\x0c\0\0\0\0\0\0\0\0",
            b"\x01\0\0\0\0\x01\0",
        ] {
            assert_eq!(Order::decode(bytes), None, "{bytes:?}");
        }
        let many: Vec<u8> =
            [1, 0, 0, 0, 0].into_iter().chain([1, 0, 0, 0, 0, 0, 0, 0, 0].repeat(MAX_PLACES + 1)).collect();
        assert_eq!(Order::decode(&many), None);
    }
}
