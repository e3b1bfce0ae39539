//! Code as compilers make it, and Node itself where it is installed.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::path::PathBuf;

use super::*;
use crate::read_at::tests::Bytes;

/// Node 20: mov 0xb0(%rax),%rdx; mov 0x480(%rdx),%rax; jp; jne; movsd; addsd 0x10(%rax),%xmm1
const NODE_20: &[u8] = b"\x48\x8b\x90\xb0\x00\x00\x00\x48\x8b\x82\x80\x04\x00\x00\x7a\x1f\x75\x1d\
    \xf2\x0f\x10\x0d\x82\x0a\xa3\x01\xf2\x0f\x58\x48\x10";
/// Node 24: mov 0xb0(%rax),%rax; mov 0x488(%rax),%rdx; addsd 0x10(%rdx),%xmm0
const NODE_24: &[u8] = b"\x48\x8b\x80\xb0\x00\x00\x00\x48\x8b\x90\x88\x04\x00\x00\xf2\x0f\x58\x42\x10";

#[test]
fn where_the_numbers_are_is_read_from_code() {
    assert_eq!(fields(NODE_20), Some(0x480));
    assert_eq!(fields(NODE_24), Some(0x488));
    for short in 0..NODE_24.len() {
        assert_eq!(fields(&NODE_24[..short]), None, "{short}");
    }
    // Of another register, and of another number.
    assert_eq!(fields(b"\x48\x8b\x88\x88\x04\x00\x00\xf2\x0f\x58\x42\x10"), None);
    assert_eq!(fields(b"\x48\x8b\x90\x88\x04\x00\x00\xf2\x0f\x58\x42\x18"), None);
}

#[test]
fn a_place_keeps_the_registers_that_are_read() {
    // push %rbp
    assert_eq!(cheap(b"\x55\x48\x89\xe5", RSP), Some(0));
    // cmp %rbx,0x1f0(%r13); je
    assert_eq!(cheap(b"\x49\x39\x9d\xf0\x01\x00\x00\x0f\x84\x10\x00\x00\x00", RBX), Some(7));
    // mov %rax,%rbx; push %rbp
    assert_eq!(cheap(b"\x48\x89\xc3\x55", RBX), Some(0));
    assert_eq!(cheap(b"\x48\x89\xc3\x55", instruction::FOURTH), Some(3));
    // mov; push: the stack is read, so it has to be the first
    assert_eq!(cheap(b"\x48\x89\xc3\x55", RSP), Some(0));
    // ret; push
    assert_eq!(cheap(b"\xc3\x55", 0), Some(0));
    for nothing in [&b""[..], b"\x48", b"\xc5\xf8\x77\x55"] {
        assert_eq!(cheap(nothing, 0), None);
    }
}

#[test]
fn another_program_is_no_node() {
    let own = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
    assert!(find(&own).is_none());
    assert!(find(&Bytes(b"\x7fELF\x02\x01".to_vec())).is_none());
    assert!(find(&Bytes(Vec::new())).is_none());
}

/// Versions of Node on this machine: `node` in PATH, and those that NODES names, with colons between them.
fn nodes() -> Vec<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let installed = path.split(':').map(|folder| PathBuf::from(folder).join("node")).find(|file| file.exists());
    let named = std::env::var("NODES").unwrap_or_default();
    let named = named.split(':').filter(|name| !name.is_empty()).map(PathBuf::from);
    installed.into_iter().chain(named).collect()
}

#[test]
fn a_real_node_has_all_places_and_its_symbols_say_the_same() {
    use object::{Object as _, ObjectSymbol as _};
    let nodes = nodes();
    if nodes.is_empty() {
        eprintln!("SKIP: there is no node in PATH");
    }
    for path in nodes {
        let file = std::fs::File::open(&path).unwrap();
        let stops = match find(&file) {
            Some(stops) => stops.unwrap_or_else(|why| panic!("{}: {why}", path.display())),
            None => panic!("{} is not known as Node", path.display()),
        };
        assert_eq!(stops.len(), 3 + OTHERS.len());
        let bytes = std::fs::read(&path).unwrap();
        let oracle = object::File::parse(&*bytes).unwrap();
        for (name, function) in [
            ("Builtins_PerformPromiseThen", Function::NodeAwait),
            ("Builtins_PromiseFulfillReactionJob", Function::NodeReact),
            ("uv__stream_io", Function::NodeEvent),
        ] {
            let symbol = oracle.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
            let stop = stops.iter().find(|stop| stop.function == function).unwrap();
            // The file is not position independent, and its code lies in it as it does in memory.
            let place = stop.offset.wrapping_sub(symbol.address()) & 0xfff;
            assert!(place < BEGINNING as u64, "{name} in {}: {place}", path.display());
        }
        eprintln!("{}: {stops:x?}", path.display());
    }
}
