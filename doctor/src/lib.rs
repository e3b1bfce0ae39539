//! What `doctor` of both programs says.
//!
//! In: [`Check`]s, each made by whoever looked. Out: a [`Report`] with its judgement of the whole, as text for people
//! ([`Report::text`]) or as JSON for machines ([`Report::json`], documented in docs/doctor.md).
//!
//! The agent looks at the host and knows no network, the forwarder looks at destinations and knows no kernel; the JSON of
//! the one is read by the other, so that a user sees one report.

mod check;
mod report;
mod text;

pub use check::{Check, Group, Lack, State};
pub use report::{Report, SCHEMA, Verdict};
pub use text::{Colour, plain};
