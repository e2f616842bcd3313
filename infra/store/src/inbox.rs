//! The stream of one device: unicasts and short lists.

use std::sync::Arc;

use async_trait::async_trait;
use model::{AppId, Message, Ordinal, Ordinals, Placed, Seq, Timestamp};

use crate::{Appended, Error};

/// Entries an inbox holds; the oldest fall off beyond that, and are counted as truncated.
pub const INBOX_MAX: usize = 200;

/// A message for the inboxes of some devices of its app.
#[derive(Clone, Debug)]
pub struct InboxAppend {
    /// The message.
    pub message: Arc<Message>,
    /// Whose inboxes.
    pub devices: Ordinals,
}

/// What came of a message that was to be appended to inboxes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxAppended {
    /// Whether it did something.
    pub outcome: Appended,
    /// Where it stands in each inbox; empty unless it is new.
    pub places: Vec<Placed>,
}

/// Tests and callers that only want to know whether it did something.
impl PartialEq<Appended> for InboxAppended {
    fn eq(&self, outcome: &Appended) -> bool {
        self.outcome == *outcome
    }
}

/// An entry of an inbox.
#[derive(Clone, Debug, PartialEq)]
pub struct InboxEntry {
    /// Where it stands.
    pub seq: Seq,
    /// What it is.
    pub message: Arc<Message>,
}

/// The streams of single devices. Durable when a call returns.
#[async_trait]
pub trait Inbox: Send + Sync {
    /// Appends messages; each one wholly, in one step with its numbers, its tally and the note that it is dispatched.
    /// Returns what happened to each, in the order given.
    ///
    /// Numbers grow by [`Seq::next`] in the order of appends. A message that was appended before changes nothing,
    /// also when its entries have been acked since. One that was cancelled or has expired is not appended. When an
    /// inbox holds more than [`INBOX_MAX`] entries that have not expired, its oldest fall off and are counted as
    /// truncated for their messages. Collapsing: an older entry of the same device whose message has the same collapse key (and the same
    /// app) is removed and counted as cancelled for its message, unless it was acked.
    async fn append_inbox(&self, appends: Vec<InboxAppend>, now: Timestamp) -> Result<Vec<InboxAppended>, Error>;

    /// At most `limit` entries of a device's inbox after `after`, oldest first; fewer only when there are no more.
    async fn inbox_after(
        &self,
        app: &AppId,
        device: Ordinal,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<InboxEntry>, Error>;

    /// The last number given in each of these inboxes, in the order given; zero where nothing ever was.
    async fn inbox_heads(&self, app: &AppId, devices: &[Ordinal]) -> Result<Vec<Seq>, Error>;
}
