//! MQTT 3.1.1 and 5 as Fanfare speaks it: packets, the encoding of messages, and the delivery state of a session.
//!
//! There is no tokio, no IO and no clock here: bytes and [`Instant`](std::time::Instant)s come in as arguments, so
//! that both sides of a link (the access point and the simulated device) share it and tests need no socket.

pub mod coding;
pub mod login;
pub mod packet;
pub mod publish;
pub mod session;
pub mod topic;
pub mod wire;

pub use coding::Coding;
pub use login::Login;
pub use packet::{Packet, Reason};
pub use publish::{Encoded, Format};
pub use session::{Answered, Limits, Offer, Overdue, Session};
pub use topic::Up;
pub use wire::{Error, Version};
