//! The records of one destination on the disk, in order, within limits of size and age.
//!
//! In: encoded requests. Out: the same, the oldest first, once more after a restart; what had to be given up is told in
//! [`Given`]. It knows no threads, no books and no network, and holds no record in memory.

use std::{collections::VecDeque, ffi::CStr, io, os::fd::OwnedFd};

use bytes::Bytes;
use rustix::fs::Dir;

use super::{
    Limits,
    position::Position,
    record::Head,
    segment::{self, Next, START, Segment},
};

/// Largest segment, but for a record that alone is larger. A segment is what is given up at once when the room is over.
const SEGMENT: u64 = 16 << 20;
/// Segments that a folder may hold; more are not ours.
const MOST_SEGMENTS: usize = 100_000;

/// Why items were given up, and how many.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Given {
    /// The oldest, because there was no more room.
    pub(super) full: u64,
    /// Too old.
    pub(super) expired: u64,
    /// Written once, and not to be read any more.
    pub(super) unreadable: u64,
    /// Bytes, not items: found at start, and in no whole record.
    pub(super) damaged_bytes: u64,
}

/// A record that is on its way to the destination.
#[derive(Debug, Clone, Copy)]
struct Loan {
    seq: u64,
    end: u64,
    items: u64,
}

/// Which record is on its way.
pub(super) type Ticket = (u64, u64);

/// A record that was read.
#[derive(Debug)]
pub(super) struct Lent {
    pub(super) ticket: Ticket,
    pub(super) body: Bytes,
    pub(super) items: u64,
    /// When it was made, milliseconds since 1970.
    pub(super) sealed: u64,
}

/// What stands in the spool.
#[derive(Debug)]
pub(super) struct Store {
    folder: OwnedFd,
    limits: Limits,
    segments: VecDeque<Segment>,
    position: Position,
    loan: Option<Loan>,
    next: u64,
    dirty: bool,
}

impl Store {
    /// Opens what is there. Looks at the heads of records only; bodies are checked when they are read.
    pub(super) fn open(folder: OwnedFd, limits: Limits, now: u64) -> io::Result<(Self, Given)> {
        let (position, at) = Position::open(&folder)?;
        if at.is_none() {
            // So that the file has its bytes even where the disk is full later on.
            let _ = position.write(0, 0);
        }
        let mut numbers = Vec::new();
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            if let Some(number) = segment::number(CStr::to_bytes(entry.file_name())) {
                numbers.push(number);
            }
            if numbers.len() > MOST_SEGMENTS {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "holds more segments than a spool ever has"));
            }
        }
        numbers.sort_unstable();
        let last = numbers.last().copied().max(at.map(|(seq, _)| seq)).unwrap_or(0);
        let mut given = Given::default();
        let mut segments = VecDeque::new();
        for seq in numbers {
            let before = at.is_some_and(|(read, _)| seq < read);
            let segment = Segment::scan(&folder, seq, at.filter(|(read, _)| *read == seq).map(|(_, offset)| offset))?;
            given.damaged_bytes += if before { 0 } else { segment.damaged };
            if before || segment.read >= segment.size {
                segment.remove(&folder)?;
            } else {
                segments.push_back(segment);
            }
        }
        let next = last.checked_add(1).ok_or(io::ErrorKind::InvalidData)?;
        let mut store = Self { folder, limits, segments, position, loan: None, next, dirty: false };
        store.expire(now, &mut given);
        store.make_room(0, &mut given);
        Ok((store, given))
    }

    /// Items that were not delivered, what is on its way included.
    pub(super) fn items(&self) -> u64 {
        self.segments.iter().map(|segment| segment.items).sum()
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size + segment.damaged).sum()
    }

    /// Whether there is something to read.
    pub(super) fn is_empty(&self) -> bool {
        self.segments.iter().all(|segment| segment.read >= segment.size)
    }

    /// Whether something was written that a loss of power would take.
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Adds a record at the end; the oldest go if there is no room. What can never have room is given up.
    ///
    /// # Errors
    /// Of the disk; nothing was added then.
    pub(super) fn append(&mut self, body: &[u8], items: u64, sealed: u64, given: &mut Given) -> io::Result<()> {
        let Some(head) = Head::of(body, items, sealed) else {
            given.full += items;
            return Ok(());
        };
        if head.record() + START > self.limits.max_bytes {
            given.full += items;
            return Ok(());
        }
        self.make_room(head.record() + START, given);
        let segment_size = SEGMENT.min(self.limits.max_bytes / 16);
        let fits = |segment: &Segment| segment.is_writable() && segment.size + head.record() <= segment_size;
        if !self.segments.back().is_some_and(|segment| fits(segment) || segment.is_writable() && segment.size == START)
        {
            self.sync()?;
            if let Some(last) = self.segments.back_mut() {
                last.finish();
            }
            let segment = Segment::create(&self.folder, self.next)?;
            self.next += 1;
            self.segments.push_back(segment);
            // The name of the file, too, is to outlive a loss of power.
            rustix::fs::fsync(&self.folder)?;
        }
        self.dirty = true;
        self.segments.back_mut().ok_or(io::ErrorKind::NotFound)?.append(head, body)
    }

    /// The oldest record that was not delivered: body, items, when it was made. It is on its way until [`Self::delivered`]
    /// or [`Self::back`]; there is one at a time.
    pub(super) fn lend(&mut self, now: u64, given: &mut Given) -> Option<Lent> {
        if self.loan.is_some() {
            return None;
        }
        let oldest = self.limits.oldest(now);
        loop {
            let last = self.segments.len() == 1;
            let segment = self.segments.front_mut()?;
            let seq = segment.seq;
            match segment.next(&self.folder) {
                Next::End if last => return None,
                Next::End => self.drop_front(),
                Next::Damaged => {
                    given.unreadable += segment.items;
                    self.drop_front();
                }
                Next::Record(head, body, end) => {
                    let items = u64::from(head.items).min(segment.items);
                    let Some(body) = body.filter(|_| head.sealed >= oldest) else {
                        *if head.sealed < oldest { &mut given.expired } else { &mut given.unreadable } += items;
                        self.pass(Loan { seq, end, items });
                        continue;
                    };
                    self.loan = Some(Loan { seq, end, items });
                    return Some(Lent { ticket: (seq, end), body, items, sealed: head.sealed });
                }
            }
        }
    }

    /// The record that is on its way is done with. False if it was given up meanwhile, and counted so.
    pub(super) fn delivered(&mut self, ticket: Ticket) -> bool {
        let loan = self.loan.take_if(|loan| (loan.seq, loan.end) == ticket);
        loan.is_some_and(|loan| self.pass(loan))
    }

    /// The record that is on its way was not delivered: it is the next again.
    pub(super) fn back(&mut self, ticket: Ticket) {
        self.loan.take_if(|loan| (loan.seq, loan.end) == ticket);
    }

    /// Gives up what is too old.
    pub(super) fn expire(&mut self, now: u64, given: &mut Given) {
        let oldest = self.limits.oldest(now);
        while let Some(segment) = self.segments.front()
            && segment.newest < oldest
            && segment.items > 0
            && self.loan.is_none_or(|loan| loan.seq != segment.seq)
        {
            given.expired += segment.items;
            self.drop_front();
        }
    }

    /// Brings what was written to the disk itself.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        if self.dirty {
            self.segments.back().map_or(Ok(()), Segment::sync)?;
            self.dirty = false;
        }
        Ok(())
    }

    /// Gives up the oldest segments until `more` bytes have room.
    fn make_room(&mut self, more: u64, given: &mut Given) {
        while self.bytes() + more > self.limits.max_bytes
            && let Some(segment) = self.segments.front()
        {
            given.full += segment.items;
            if self.loan.is_some_and(|loan| loan.seq == segment.seq) {
                // Its record may still arrive; as it is counted now, it is not counted again.
                self.loan = None;
            }
            self.drop_front();
        }
    }

    /// Goes past a record; false if its segment is not there any more.
    fn pass(&mut self, loan: Loan) -> bool {
        let Some(segment) = self.segments.front_mut().filter(|segment| segment.seq == loan.seq) else { return false };
        segment.read = loan.end;
        segment.items = segment.items.saturating_sub(loan.items);
        // What cannot be written is sent once more after a restart, no worse.
        let _ = self.position.write(loan.seq, loan.end);
        if segment.read >= segment.size {
            self.drop_front();
        }
        true
    }

    fn drop_front(&mut self) {
        if let Some(segment) = self.segments.pop_front() {
            // A file that cannot be removed is passed over by the position when it is found again.
            let _ = self.position.write(segment.seq, segment.size);
            let _ = segment.remove(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests;
