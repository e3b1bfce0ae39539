//! Functions of TLS libraries by their names.
//!
//! In: what was found in a file. Out: which of it is stopped at, and whether that is enough.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    bounds,
    order::{Function, Place},
};
use crate::read_at::ReadAt;

/// The function that writes ciphertext: of the part of OpenSSL that may be a file of its own (libcrypto).
pub(super) const CIPHER: &str = "BIO_write";

/// Libraries that are read, by the functions that they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// OpenSSL's interface, of which most may be missing.
    OpenSsl,
    /// GnuTLS. Not among them: gnutls_record_send_range, gnutls_record_recv_packet, gnutls_record_send_early_data.
    GnuTls,
}

const OPENSSL: &[(&str, Function)] = &[
    ("SSL_read", Function::Read),
    ("SSL_read_ex", Function::ReadEx),
    ("SSL_write", Function::Write),
    ("SSL_write_ex", Function::WriteEx),
    // Of a file: the bytes count, and are not read.
    ("SSL_sendfile", Function::Write),
    ("SSL_do_handshake", Function::Other),
    ("SSL_peek", Function::Other),
    ("SSL_peek_ex", Function::Other),
    ("SSL_free", Function::Forget),
    ("SSL_clear", Function::Forget),
    (CIPHER, Function::Cipher),
];

/// Before 3.6.3 without the first, which the second then hands over to.
const GNUTLS: &[(&str, Function)] = &[
    (SEND2, Function::Write),
    (SEND, Function::Write),
    ("gnutls_record_recv", Function::Read),
    ("gnutls_record_recv_seq", Function::Read),
    ("gnutls_record_recv_early_data", Function::Read),
    ("gnutls_record_uncork", Function::Flush),
    ("gnutls_handshake", Function::Other),
    ("gnutls_deinit", Function::Forget),
];
const SEND: &str = "gnutls_record_send";
const SEND2: &str = "gnutls_record_send2";
/// Longest code of a function that does nothing but hand over to another: 15 bytes in GnuTLS 3.7.
const WRAPPER: u64 = 32;

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::OpenSsl, Self::GnuTls];

    /// By the name of a shared library's file.
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        let is = |begin: &[u8]| name.strip_prefix(begin).is_some_and(|rest| rest.first().is_none_or(|&b| b == b'.'));
        match () {
            () if is(b"libssl.so") => Some(Self::OpenSsl),
            () if is(b"libgnutls.so") => Some(Self::GnuTls),
            () => None,
        }
    }

    fn functions(self) -> &'static [(&'static str, Function)] {
        match self {
            Self::OpenSsl => OPENSSL,
            Self::GnuTls => GNUTLS,
        }
    }

    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        self.functions().iter().map(|(name, _)| *name)
    }

    /// Those of this library among what was found in `file`; `None` if they are not enough to read both directions.
    pub(super) fn places(self, file: &impl ReadAt, found: &BTreeMap<&str, u64>) -> Option<Vec<Place>> {
        let hands_over = |name: &str, offset: u64| {
            name == SEND
                && found.contains_key(SEND2)
                && bounds::length(file, offset).is_none_or(|bytes| bytes <= WRAPPER)
        };
        let of = |(name, function): &(&str, Function)| {
            found.get(name).filter(|offset| !hands_over(name, **offset)).map(|offset| (*function, *offset))
        };
        let mut places: Vec<Place> = self.functions().iter().filter_map(of).collect();
        // Two names of one function would count its bytes twice.
        let mut seen = BTreeSet::new();
        places.retain(|(_, offset)| seen.insert(*offset));
        let has = |function| places.iter().any(|(found, _)| *found == function);
        (has(Function::Read) && has(Function::Write) && has(Function::Forget)).then_some(places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::read_at::tests::Bytes;

    fn places(family: Family, found: &[(&'static str, u64)]) -> Option<Vec<Place>> {
        family.places(&Bytes(Vec::new()), &found.iter().copied().collect())
    }

    #[test]
    fn what_is_not_enough_is_nothing() {
        let all = [("SSL_read", 1), ("SSL_write", 2), ("SSL_free", 3)];
        assert!(places(Family::OpenSsl, &all).is_some());
        for missing in 0..all.len() {
            let rest: Vec<_> =
                all.iter().enumerate().filter(|(at, _)| *at != missing).map(|(_, place)| *place).collect();
            assert_eq!(places(Family::OpenSsl, &rest), None);
        }
        assert_eq!(places(Family::GnuTls, &all), None);
    }

    #[test]
    fn a_call_is_not_counted_twice() {
        let found = [("gnutls_record_recv", 1), ("gnutls_deinit", 2), (SEND, 3), (SEND2, 4)];
        let sends = |found: &[_]| {
            let places = places(Family::GnuTls, found).unwrap_or_default();
            places.into_iter().filter(|(function, _)| *function == Function::Write).collect::<Vec<_>>()
        };
        assert_eq!(sends(&found), [(Function::Write, 4)]);
        assert_eq!(sends(found.get(..3).unwrap_or_default()), [(Function::Write, 3)]);
        let alias = [("SSL_read", 1), ("SSL_write", 2), ("SSL_free", 3), ("SSL_clear", 3)];
        assert_eq!(places(Family::OpenSsl, &alias).map(|places| places.len()), Some(3));
    }

    #[test]
    fn libraries_are_known_by_their_names() {
        assert_eq!(Family::of(b"libssl.so.3"), Some(Family::OpenSsl));
        assert_eq!(Family::of(b"libgnutls.so.30.34.3"), Some(Family::GnuTls));
        for name in [&b"libssl3.so"[..], b"libssl.sock", b"libgnutlsxx.so.30", b"libgnutls.solo", b""] {
            assert_eq!(Family::of(name), None);
        }
    }
}
