//! What the embedded store promises, on real directories.
#![expect(clippy::unwrap_used, reason = "tests")]

mod contract;
mod place;
