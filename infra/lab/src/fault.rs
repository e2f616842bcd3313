//! Faults: real server processes that are killed, frozen and started again, and the scenarios that do so under load.

mod blackhole;
mod cluster;
mod drain;
mod kill_nine;
mod server;
mod traffic;

pub use blackhole::Blackhole;
pub use cluster::{ClusterFaults, ClusterReport, Step, StepAnswers, cluster_faults};
pub use drain::{Drain, DrainReport, Told, drain};
pub use kill_nine::{KillNine, KillNineReport, kill_nine};
pub use server::{Launch, Server, steady_address};
pub use traffic::{Habit, Scene};
