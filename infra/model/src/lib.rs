//! The vocabulary of Fanfare: what the tiers say to each other, as plain values.
//!
//! There is no tokio, no IO and no clock here: time and randomness come in as arguments.

pub mod app;
pub mod attribute;
pub mod audience;
pub mod bell;
pub mod cap;
pub mod class;
pub mod cursor;
pub mod device;
pub mod drain;
pub mod envelope;
pub mod group;
pub mod id;
pub mod job;
pub mod lane;
pub mod message;
pub mod node;
pub mod ordinal;
pub mod outcome;
pub mod queue;
pub mod quiet;
pub mod receipt;
pub mod record;
pub mod report;
pub mod route;
pub mod seen;
pub mod shelved;
pub mod sign;
pub mod stage;
pub mod suppression;
pub mod tally;
pub mod time;
pub mod trace;
pub mod uplink;

pub use app::{App, Env, Key, Limits, Scope, UplinkRules};
pub use attribute::{Attribute, AttributeType, Owner};
pub use audience::{Aim, Audience, Except, Excluded, Exclusion, Means, Members, SavedAudience, Terms};
pub use bell::{Bell, Carried, Placed};
pub use cap::{Cap, Counted};
pub use class::{Class, Reply};
pub use cursor::{Cursor, Position, Progress, Seq, Stream};
pub use device::{Device, Profile};
pub use drain::{Drain, DrainState};
pub use envelope::Envelope;
pub use group::Group;
pub use id::{
    AppId, AudienceId, DeviceId, GroupId, JobId, KeyId, MessageId, NodeId, ReplyTo, UplinkId, UplinkName, UserId,
};
pub use job::{Job, JobState};
pub use lane::Lane;
pub use message::{Message, Priority};
pub use node::{Endpoint, Node, Tier};
pub use ordinal::{Ordinal, Ordinals};
pub use outcome::{Outcome, Verdict};
pub use queue::{Names, Queue, Shard};
pub use quiet::{Quiet, QuietHours};
pub use receipt::{Receipt, ReceiptBatch};
pub use report::{Report, Reported};
pub use route::{Epoch, Route};
pub use seen::{Run, Seen, Sighting, Sightings};
pub use stage::{Stage, Status};
pub use suppression::{OptOut, Suppressed, Suppression};
pub use tally::{Funnel, Tally};
pub use time::{Clock, SystemClock, Timestamp};
pub use trace::TraceParent;
pub use uplink::Uplink;
