//! What the embedded broker keeps when its process is killed and when its disk lies, and how fast it is.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

mod damage;
mod kill_nine;
mod throughput;
