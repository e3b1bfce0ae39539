//! `/proc/PID/stat`.
//!
//! In: the bytes of that file (proc_pid_stat(5)). Out: the few fields that discovery needs.

use super::clock::Ticks;

/// Longest `stat` that is read, bytes: 52 numbers of 20 digits and a name of 64 bytes.
pub(crate) const MAX_BYTES: usize = 2048;

/// `PF_KTHREAD` in `include/linux/sched.h`: a thread of the kernel, without a program.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What identifies a process and its program, in one small file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Parent now; 1 (or the next subreaper) once the first parent has ended.
    pub parent: u32,
    /// Start of the process.
    pub start: Ticks,
    /// A number that is inherited by fork and changes with exec: where the program and its stack were placed.
    /// Zero if this user may not know.
    pub image: u64,
    /// A thread of the kernel.
    pub kernel_thread: bool,
    /// Has ended, and waits for its parent to take notice.
    pub ended: bool,
}

impl Stat {
    /// Reads the fields, or `None` if `bytes` is not a `stat` file.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        // The name (field 2) may hold spaces and parentheses; nothing after it does.
        let name_end = bytes.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(bytes.get(name_end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        // `nth` consumes, so each number is the distance from the field before.
        let state = fields.next()?;
        let parent = fields.next()?.parse().ok()?;
        let flags: u64 = fields.nth(4)?.parse().ok()?;
        let start = fields.nth(12)?.parse().ok()?;
        let start_code: u64 = fields.nth(3)?.parse().ok()?;
        let start_stack: u64 = fields.nth(1)?.parse().ok()?;
        Some(Self {
            parent,
            start: Ticks(start),
            // Without permission the kernel shows no place of the stack, and 1 for that of the code.
            image: if start_stack == 0 { 0 } else { start_code.rotate_left(32) ^ start_stack },
            kernel_thread: flags & KERNEL_THREAD != 0,
            ended: matches!(state, "Z" | "X" | "x"),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn line(name: &str, state: &str, flags: u64) -> String {
        format!(
            "42 ({name}) {state} 7 42 42 0 -1 {flags} 100 0 0 0 5 6 0 0 20 0 1 0 987654 1000 200 \
             18446744073709551615 4096 8192 12288 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0"
        )
    }

    #[test]
    fn reads_the_fields_by_their_numbers() {
        let stat = Stat::parse(line("server", "S", 0x40_0100).as_bytes()).unwrap();
        assert_eq!(stat.parent, 7);
        assert_eq!(stat.start, Ticks(987_654));
        assert_eq!(stat.image, 4096_u64.rotate_left(32) ^ 12288);
        assert!(!stat.kernel_thread && !stat.ended);
    }

    #[test]
    fn a_name_cannot_forge_fields() {
        let forged = Stat::parse(line("x) Z 1 1 1 (", "S", 0).as_bytes()).unwrap();
        assert_eq!((forged.parent, forged.ended), (7, false));
    }

    #[test]
    fn tells_kernel_threads_and_the_dead() {
        assert!(Stat::parse(line("kworker/0:1", "I", 0x0420_8060).as_bytes()).unwrap().kernel_thread);
        assert!(Stat::parse(line("sh", "Z", 0).as_bytes()).unwrap().ended);
    }

    #[test]
    fn an_image_that_may_not_be_seen_is_none() {
        let hidden = line("server", "S", 0).replace(" 4096 8192 12288 ", " 1 1 0 ");
        assert_eq!(Stat::parse(hidden.as_bytes()).unwrap().image, 0);
    }

    #[test]
    fn refuses_what_is_cut_short() {
        let whole = line("server", "S", 0);
        let needed = whole.find("12288").unwrap();
        assert!(Stat::parse(whole.get(..needed).unwrap().as_bytes()).is_none());
        assert!(Stat::parse(b"").is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = Stat::parse(&bytes);
        }

        #[test]
        fn near_misses_never_panic(numbers in proptest::collection::vec("-?[0-9]{0,22}", 0..60)) {
            let _ = Stat::parse(format!("1 (a) S {}", numbers.join(" ")).as_bytes());
        }
    }
}
