//! In: the path of a file that holds a secret. Out: its text, bounded, or why not; what is in it is never part of a message.

use std::{fs::File, io::Read, path::Path};

/// Bytes of a file; a token has some hundreds.
const MOST_BYTES: u64 = 64 << 10;

/// What stands for the content where it is not read.
pub(crate) const UNREAD: &str = "unread";

/// The text of a regular file, without the line's end that editors and `echo` put after it.
pub(crate) fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    if !path.is_absolute() {
        return Err(format!("{shown}: the path of the file has to begin with a slash"));
    }
    let cannot = |error: std::io::Error| format!("cannot read {shown}: {error}");
    // A pipe or a device could be read once, or for ever.
    if !std::fs::metadata(path).map_err(cannot)?.is_file() {
        return Err(format!("{shown} is no regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MOST_BYTES + 1).read_to_end(&mut bytes)).map_err(cannot)?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(format!("{shown} has more than {MOST_BYTES} bytes"));
    }
    let mut text = String::from_utf8(bytes).map_err(|_| format!("{shown} is not UTF-8"))?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}
