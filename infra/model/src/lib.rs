//! The vocabulary of Fanfare: what the tiers say to each other, as plain values.
//!
//! There is no tokio, no IO and no clock here: time and randomness come in as arguments.

pub mod app;
pub mod audience;
pub mod bell;
pub mod cursor;
pub mod device;
pub mod envelope;
pub mod group;
pub mod id;
pub mod lane;
pub mod message;
pub mod node;
pub mod ordinal;
pub mod queue;
pub mod receipt;
pub mod record;
pub mod report;
pub mod route;
pub mod sign;
pub mod stage;
pub mod tally;
pub mod time;
pub mod trace;
pub mod uplink;

pub use app::{App, Env, Key, Limits, Scope};
pub use audience::Audience;
pub use bell::{Bell, Carried, Placed};
pub use cursor::{Cursor, Position, Progress, Seq, Stream};
pub use device::{Device, Profile};
pub use envelope::Envelope;
pub use group::Group;
pub use id::{AppId, DeviceId, GroupId, KeyId, MessageId, NodeId, UplinkId, UserId};
pub use lane::Lane;
pub use message::{Message, Priority};
pub use node::{Endpoint, Node, Tier};
pub use ordinal::{Ordinal, Ordinals};
pub use queue::{Names, Queue, Shard};
pub use receipt::{Receipt, ReceiptBatch};
pub use report::Report;
pub use route::{Epoch, Route};
pub use stage::{Stage, Status};
pub use tally::{Funnel, Tally};
pub use time::{Clock, SystemClock, Timestamp};
pub use trace::TraceParent;
pub use uplink::Uplink;
