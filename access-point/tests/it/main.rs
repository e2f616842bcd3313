//! An access point with real sockets on the embedded back ends.
#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]
#![expect(clippy::expect_used, reason = "a test may end at the first surprise")]

mod bench;
mod bind;
mod broken_input;
mod calm;
mod carried;
mod client;
mod commands;
mod delivery;
mod door;
mod drain;
mod fetch;
mod gentle;
mod packed;
mod peers;
mod pulse;
mod rates;
mod revocation;
mod slow_devices;
mod sse;
mod store_away;
mod takeover;
mod tls;
mod transports;
mod upwards;
mod via;
mod websocket;
