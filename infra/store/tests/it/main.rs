//! What the stores promise, on real directories and servers.
#![expect(clippy::unwrap_used, reason = "tests")]

mod child;
mod contract;
mod crash;
mod damage;
mod make;
mod measure;
mod place;
mod random;
mod redis;
mod size;
