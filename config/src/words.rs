//! The command line that both programs read before they know each its own options.
//!
//! In: the words as typed. Out: the same with two dashes where Beyla takes one, as `-config FILE` and `-config=FILE`.

use std::ffi::OsString;

/// The words of this process's command line; a path need not be UTF-8.
pub fn words() -> impl Iterator<Item = OsString> {
    std::env::args_os().map(with_two_dashes)
}

fn with_two_dashes(word: OsString) -> OsString {
    match word.as_encoded_bytes() {
        // Only the dash before it is missing.
        b"-config" | [b'-', b'c', b'o', b'n', b'f', b'i', b'g', b'=', ..] => {
            let mut with = OsString::from("-");
            with.push(word);
            with
        }
        _ => word,
    }
}

#[cfg(test)]
mod tests {
    use super::with_two_dashes;

    #[test]
    fn a_single_dash_is_accepted() {
        for (typed, read) in [
            ("-config", "--config"),
            ("-config=a.yml", "--config=a.yml"),
            ("--config", "--config"),
            ("-configuration", "-configuration"),
            ("config", "config"),
        ] {
            assert_eq!(with_two_dashes(typed.into()), read);
        }
    }
}
