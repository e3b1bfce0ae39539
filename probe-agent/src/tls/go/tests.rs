//! Real programs of Go, built here in all the ways that matter, and broken ones.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::{collections::BTreeMap, fs, path::Path, process::Command};

use object::{Object as _, ObjectSegment as _, ObjectSymbol as _};

use super::{super::elf, *};

const PROGRAM: &str = r#"package main

import ("crypto/tls"; "net/http"; "os")

func main() {
	if len(os.Args) > 1 {
		http.ListenAndServeTLS(os.Args[1], "", "", nil)
		tls.Dial("tcp", os.Args[1], nil)
	}
}
"#;

struct Bytes(Vec<u8>);

impl ReadAt for Bytes {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> std::io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

/// `None`, and a word about it, if there is no Go here.
fn build(folder: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    if Command::new("go").arg("version").output().is_err() {
        eprintln!("SKIP: this test builds programs of Go: install go");
        return None;
    }
    fs::write(folder.join("main.go"), PROGRAM).unwrap();
    fs::write(folder.join("go.mod"), "module program\ngo 1.17\n").unwrap();
    let output = folder.join("program");
    let built = Command::new("go").current_dir(folder).arg("build").args(arguments).arg("-o").arg(&output).output();
    let built = built.unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    Some(fs::read(output).unwrap())
}

fn counted(places: &[(Function, u64)]) -> BTreeMap<u8, usize> {
    places.iter().fold(BTreeMap::new(), |mut counts, (function, _)| {
        *counts.entry(*function as u8).or_default() += 1;
        counts
    })
}

/// Every place holds the instruction that it should: a jump or a push where functions begin, a return where they end.
fn sound(bytes: &[u8], places: &[(Function, u64)]) {
    if elf::machine(&Bytes(bytes.to_vec())) == Some(Machine::Arm64) {
        let word = |at: u64| u32::from_le_bytes(*bytes[at as usize..].first_chunk().unwrap());
        for (function, offset) in places {
            match function {
                Function::GoReturn => assert_eq!(word(*offset), 0xd65f_03c0),
                // b.ls
                _ => assert_eq!(word(*offset - 4) & 0xff00_001f, 0x5400_0009, "{function:?}"),
            }
        }
        return;
    }
    for (function, offset) in places {
        let done = Done::of(*offset);
        let byte = bytes[if *function == Function::GoDone { done.offset } else { *offset } as usize];
        match function {
            Function::GoReturn => assert_eq!(byte, 0xc3),
            Function::GoDone => {
                assert_eq!((byte == 0x55, matches!(byte, 0x76 | 0x0f)), (!done.at_jump, done.at_jump), "{byte:x}");
                assert!((16..2048).contains(&done.result), "{done:?}");
            }
            _ => assert!(matches!(byte, 0x55 | 0x76 | 0x0f), "{function:?} {byte:x}"),
        }
    }
}

#[test]
fn functions_are_found_in_programs_built_in_any_way() {
    let folder = tempfile::tempdir().unwrap();
    let Some(plain) = build(folder.path(), &[]) else { return };
    let places = find(&Bytes(plain.clone())).unwrap().unwrap();
    sound(&plain, &places);
    let oracle = object::File::parse(&*plain).unwrap();
    assert_eq!(counted(&places)[&(Function::GoDone as u8)], 2);
    assert_eq!(places.iter().filter(|(f, place)| *f == Function::GoDone && Done::of(*place).is_all).count(), 1);
    for (name, function) in [(READ, Function::GoRead), (WRITE, Function::GoWrite), (CLOSE, Function::GoClose)] {
        let symbol = oracle.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap();
        let start = oracle.segments().find_map(|segment| {
            let inside = symbol.address().checked_sub(segment.address())?;
            (inside < segment.file_range().1).then(|| segment.file_range().0 + inside)
        });
        let start = start.unwrap();
        let entry = places.iter().find(|(found, _)| *found == function).unwrap().1;
        assert!((start..start + 24).contains(&entry), "{name}: {start:x} {entry:x}");
        let returns = places
            .iter()
            .filter(|(found, at)| *found == Function::GoReturn && (start..start + symbol.size()).contains(at));
        assert_eq!(returns.count() > 1, function != Function::GoClose, "{name}");
    }
    for arguments in [
        &["-trimpath", "-ldflags=-s -w"][..],
        &["-buildmode=pie"],
        &["-buildmode=pie", "-ldflags=-s -w"],
        &["-ldflags=-linkmode=external -s -w"],
        &["-buildmode=pie", "-ldflags=-linkmode=external -s -w"],
    ] {
        let bytes = build(folder.path(), arguments).unwrap();
        let other = find(&Bytes(bytes.clone())).unwrap().unwrap();
        sound(&bytes, &other);
        assert_eq!(counted(&other), counted(&places), "{arguments:?}");
    }
}

/// Programs that other versions of Go have made: `SPANTAP_GO_PROGRAMS="FILE FILE …"`.
#[test]
fn functions_are_found_in_programs_of_other_versions() {
    let Ok(files) = std::env::var("SPANTAP_GO_PROGRAMS") else {
        eprintln!("SKIP: SPANTAP_GO_PROGRAMS names no programs of other versions of Go");
        return;
    };
    for file in files.split_whitespace() {
        let bytes = fs::read(file).unwrap();
        let began = std::time::Instant::now();
        let places = find(&fs::File::open(file).unwrap()).unwrap().unwrap();
        eprintln!("{file}: {:?} in {:?}", counted(&places), began.elapsed());
        sound(&bytes, &places);
    }
}

#[test]
fn one_way_to_see_calls_end_is_left() {
    let done = Done { offset: 0x12_3456_7890, result: 0xfff8, at_jump: true, is_all: false };
    assert_eq!(Done::of(done.place().unwrap()), done);
    assert_eq!(Done { offset: 1 << 40, ..done }.place(), None);
    let all = vec![(Function::GoRead, 1), (Function::GoReturn, 2), (Function::GoDone, done.place().unwrap())];
    for (cheaply, kept) in [(true, Function::GoDone), (false, Function::GoReturn)] {
        let mut places = all.clone();
        choose(&mut places, cheaply);
        assert_eq!(places.iter().map(|(function, _)| *function).collect::<Vec<_>>(), [Function::GoRead, kept]);
    }
    let mut places = vec![(Function::GoRead, 1), (Function::GoDone, Done { is_all: true, ..done }.place().unwrap())];
    choose(&mut places, true);
    assert_eq!(places.len(), 1);
    assert!(Done::of(places[0].1).is_all);
}

#[test]
fn broken_programs_end() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut bytes) = build(folder.path(), &["-ldflags=-s -w"]) else { return };
    let sections = Elf::parse(&Bytes(bytes.clone())).unwrap().section(b".gopclntab").unwrap().offset as usize;
    for at in (0..64).chain(sections..sections + 72) {
        let kept = bytes[at];
        for value in [0, 0x7f, 0xff] {
            bytes[at] = value;
            let file = Bytes(std::mem::take(&mut bytes));
            let _ = find(&file);
            bytes = file.0;
        }
        bytes[at] = kept;
    }
    for length in [0, 4, 63, 64, 4096, sections, sections + 8, sections + 4000, bytes.len() / 2] {
        let _ = find(&Bytes(bytes[..length].to_vec()));
    }
}

#[test]
fn other_programs_have_no_go_in_them() {
    let own = fs::read(std::env::current_exe().unwrap()).unwrap();
    assert!(find(&Bytes(own)).is_none());
    assert!(find(&Bytes(Vec::new())).is_none());
}
