//! What the embedded store promises, on real directories.
#![expect(clippy::unwrap_used, reason = "tests")]

mod child;
mod contract;
mod crash;
mod damage;
mod make;
mod measure;
mod place;
mod random;
mod size;
