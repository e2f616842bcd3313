//! What devices report changes whom expressions select; on the embedded back ends.
#![expect(clippy::unwrap_used, reason = "what a test cannot set up ends it")]

mod bench;
mod remote;
mod reports;
mod saved;
mod select;
mod snapshot;
