//! Fanfare as people run it: the binary from outside, with real clients.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may end at the first surprise")]

mod audience;
mod both_ways;
mod clients;
mod cluster;
mod command_line;
mod drain;
mod http_port;
mod import;
mod kill_nine;
mod logs;
mod marketing;
mod on_wake;
mod presence;
mod reports;
mod sandbox;
mod start;
mod terminal;
mod terminals;
mod watchdog;
