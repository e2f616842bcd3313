//! Fanfare as people run it: the binary from outside, with real clients.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may end at the first surprise")]

mod clients;
mod cluster;
mod command_line;
mod drain;
mod kill_nine;
mod logs;
mod marketing;
mod sandbox;
mod watchdog;
