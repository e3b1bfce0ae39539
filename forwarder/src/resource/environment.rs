//! `OTEL_RESOURCE_ATTRIBUTES` (OpenTelemetry specification, resource SDK): `key=value,key=value`, percent-encoded.

/// The attributes in `list`; `None` if any member is malformed: the specification asks to discard the whole variable.
pub(super) fn attributes(list: &str) -> Option<Vec<(String, String)>> {
    let mut out = Vec::new();
    for member in list.split(',').map(str::trim).filter(|m| !m.is_empty()) {
        let (key, value) = member.split_once('=')?;
        let key = decode(key.trim())?;
        if key.is_empty() {
            return None;
        }
        out.push((key, decode(value.trim())?));
    }
    Some(out)
}

fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte == b'%' {
            let hex = std::str::from_utf8(after.get(..2)?).ok()?;
            // `from_str_radix` would take a sign.
            if !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            out.push(u8::from_str_radix(hex, 16).ok()?);
            rest = after.get(2..).unwrap_or_default();
        } else {
            out.push(byte);
            rest = after;
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let pairs = |list| attributes(list).map(|v| v.into_iter().map(|(k, v)| format!("{k}|{v}")).collect::<Vec<_>>());
        assert_eq!(pairs("a=1,b=2"), Some(vec!["a|1".into(), "b|2".into()]));
        assert_eq!(pairs(" a = x%2Cy%3d , ,b="), Some(vec!["a|x,y=".into(), "b|".into()]));
        assert_eq!(pairs(""), Some(vec![]));
        for bad in ["a", "=1", "a=1,b", "a=%", "a=%2", "a=%zz", "a=%+1", "a=%ff"] {
            assert_eq!(attributes(bad), None, "{bad}");
        }
    }
}
