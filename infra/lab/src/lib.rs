//! Fanfare seen from outside: simulated devices and senders, faults, load, and a checker that trusts nobody.
//!
//! Everything here goes through the public interfaces, HTTP and MQTT; nothing depends on a tier, the broker or the
//! store, so a bug of theirs cannot hide in here as well.

pub mod answers;
pub mod api;
pub mod audience;
pub mod bench;
pub mod check;
pub mod demo;
pub mod device;
pub mod enrol;
pub mod error;
pub mod fault;
pub mod fleet;
pub mod history;
pub mod import;
pub mod load;
pub mod metrics;
pub mod received;
pub mod rest;
pub mod sender;
pub mod usage;

pub use api::Api;
pub use audience::Audience;
pub use check::{Verdict, check};
pub use device::{Arrival, Device, Faults, Observer, Orders};
pub use enrol::{Plan, enrol};
pub use error::{Error, Problem};
pub use fleet::Fleet;
pub use history::{History, Kind, Op, Record};
pub use import::{Imported, import};
pub use load::{Latency, Load};
pub use received::{Place, Received};
pub use usage::Usage;
