//! Byte-exact exchanges as values: what one subject does with its sockets, step by step.
//!
//! In: built by tests. Out: JSON to the `subject` program, which plays it (`play`).

use serde::{Deserialize, Serialize};

/// A socket of the script, by a number of the script's own.
pub type Slot = u8;

/// The connection that most scripts have only one of.
pub const CONN: Slot = 0;
/// The listener of most server scripts.
pub const LISTENER: Slot = 100;

/// Steps in their order.
pub type Script = Vec<Step>;

/// What a subject gets to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// The steps.
    pub script: Script,
    /// Where the other subject listens: a TCP port or the path of a Unix socket.
    pub peer: Option<String>,
    /// Folder for sockets and files.
    pub folder: String,
}

/// Kind of address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum At {
    /// 127.0.0.1
    V4,
    /// ::1
    V6,
    /// Listening: all addresses of both families. Connecting: ::ffff:127.0.0.1.
    Mapped,
    /// A Unix stream socket in the task's folder.
    Unix,
    /// 127.0.0.1 and this port: only in a network namespace of one's own.
    Port(u16),
}

/// Bytes to send.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Data {
    /// As they stand; `{n}` is replaced by the number of the repetition.
    Text(String),
    /// As they stand.
    Bytes(Vec<u8>),
    /// The first `count` bytes of `with` repeated without end.
    Fill {
        /// Bytes in all.
        count: u64,
        /// What is repeated.
        with: String,
    },
    /// Both, one after the other, as one piece.
    Then(Box<Data>, Box<Data>),
}

impl From<&str> for Data {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Data {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// The system call that sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum How {
    /// write
    Write,
    /// send
    Send,
    /// writev, in this many pieces
    Writev(usize),
    /// sendmsg, in this many pieces
    Sendmsg(usize),
    /// sendmmsg, in this many messages
    Sendmmsg(usize),
    /// sendfile from a file with these bytes
    Sendfile,
    /// splice from a pipe
    Splice,
    /// write on a non-blocking socket with a small buffer, and poll: partial writes and EAGAIN
    NonBlocking,
}

/// The system call that receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum By {
    /// read
    Read,
    /// recv
    Recv,
    /// recv with MSG_PEEK, then recv
    Peek,
    /// readv into three pieces
    Readv,
    /// recvmsg into three pieces
    Recvmsg,
    /// read on a non-blocking socket, which first says EAGAIN, and poll
    NonBlocking,
}

/// How far to read.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Until {
    /// This many bytes.
    Bytes(u64),
    /// These bytes have come.
    Mark(String),
    /// The other end has closed or reset the connection.
    End,
}

/// One step.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Step {
    /// Listens, and tells the test where.
    Listen(Slot, At),
    /// Accepts from a listener.
    Accept(Slot, Slot),
    /// Connects to where the other subject listens.
    Connect(Slot, At),
    /// Sends everything.
    Send(Slot, Data, How),
    /// Reads, at most `usize` bytes a call.
    Read(Slot, Until, By, usize),
    /// Half-close: no more is sent.
    Shutdown(Slot),
    /// Closes.
    Close(Slot),
    /// Closes with a reset (SO_LINGER of 0).
    Reset(Slot),
    /// Duplicates the descriptor: from, to.
    Dup(Slot, Slot),
    /// Starts another program with the connection as its standard input, which plays this, and waits for its end.
    Inherit(Slot, Script),
    /// Passes the connection over a Unix socket (SCM_RIGHTS) to another program, which plays this, and waits for its end.
    Pass(Slot, Script),
    /// Takes a passed connection: over, to.
    Take(Slot, Slot),
    /// Tells the other subject.
    Signal(String),
    /// Waits for the other subject's or the test's signal.
    Wait(String),
    /// Lets time pass, milliseconds: only where idleness is the matter.
    Pause(u64),
    /// Repeats steps.
    Repeat(u32, Script),
    /// Repeats steps until a signal has come.
    Until(String, Script),
    /// Ends the process at once, with its sockets open.
    Exit,
}

/// Sends with write.
pub fn send(data: impl Into<Data>) -> Step {
    Step::Send(CONN, data.into(), How::Write)
}

/// Sends with another system call.
pub fn send_how(data: impl Into<Data>, how: How) -> Step {
    Step::Send(CONN, data.into(), how)
}

/// Reads to the end of a head.
pub fn read_head() -> Step {
    read_mark("\r\n\r\n")
}

/// Reads until these bytes have come.
pub fn read_mark(mark: &str) -> Step {
    Step::Read(CONN, Until::Mark(mark.to_owned()), By::Read, 65536)
}

/// Reads this many bytes.
pub fn read_bytes(count: u64) -> Step {
    Step::Read(CONN, Until::Bytes(count), By::Read, 65536)
}

/// Reads until the other end has closed.
pub fn read_end() -> Step {
    Step::Read(CONN, Until::End, By::Read, 65536)
}

/// Tells the other subject.
pub fn signal(name: &str) -> Step {
    Step::Signal(name.to_owned())
}

/// Waits for the other subject.
pub fn wait(name: &str) -> Step {
    Step::Wait(name.to_owned())
}

/// A server of one connection over 127.0.0.1.
pub fn serve(steps: impl IntoIterator<Item = Step>) -> Script {
    serve_at(At::V4, steps)
}

/// A server of one connection.
pub fn serve_at(at: At, steps: impl IntoIterator<Item = Step>) -> Script {
    [Step::Listen(LISTENER, at), Step::Accept(LISTENER, CONN)].into_iter().chain(steps).collect()
}

/// A client of one connection over 127.0.0.1.
pub fn connect(steps: impl IntoIterator<Item = Step>) -> Script {
    connect_at(At::V4, steps)
}

/// A client of one connection.
pub fn connect_at(at: At, steps: impl IntoIterator<Item = Step>) -> Script {
    [Step::Connect(CONN, at)].into_iter().chain(steps).collect()
}
