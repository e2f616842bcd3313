//! What the embedded broker keeps when its process is killed and when its disk lies, RabbitMQ behind a network that
//! fails, and how fast both are.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod damage;
mod hops;
mod kill_nine;
mod rabbit;
mod throughput;
