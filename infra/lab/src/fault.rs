//! Faults: a real server process that is killed and started again, and the scenario that does so under load.

mod kill_nine;
mod server;

pub use kill_nine::{KillNine, KillNineReport, kill_nine};
pub use server::{Launch, Server, steady_address};
