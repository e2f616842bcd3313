//! The stream of one app: broadcasts, groups and long lists, each with its audience frozen.

use std::sync::Arc;

use async_trait::async_trait;
use model::{AppId, Message, MessageId, Ordinals, Seq, Timestamp};

use crate::{Appended, Error};

/// Entries a timeline holds; the oldest fall off beyond that, and are counted as truncated.
pub const TIMELINE_MAX: usize = 20_000;

/// A message for the timeline of its app.
#[derive(Clone, Debug)]
pub struct TimelineAppend {
    /// The message.
    pub message: Arc<Message>,
    /// Who it is for; this never changes again.
    pub audience: Ordinals,
}

/// An entry of a timeline.
#[derive(Clone, Debug, PartialEq)]
pub struct TimelineEntry {
    /// Where it stands.
    pub seq: Seq,
    /// What it is.
    pub message: Arc<Message>,
    /// Who it is for; once it was called back, only those that had been sent it by then: they get it until they ack.
    pub audience: Arc<Ordinals>,
    /// Whether it was called back.
    pub cancelled: bool,
}

/// The streams of whole apps. Durable when a call returns.
#[async_trait]
pub trait Timeline: Send + Sync {
    /// Appends messages; each one in one step with its number, its tally and the note that it is dispatched. Returns
    /// what happened to each, in the order given.
    ///
    /// Numbers grow by [`Seq::next`] in the order of appends. A message that was appended before changes nothing. One
    /// that was cancelled or has expired is not appended. Beyond [`TIMELINE_MAX`] the oldest entries fall off; for
    /// their messages whoever had not answered is counted as truncated.
    async fn append_timeline(&self, appends: Vec<TimelineAppend>, now: Timestamp) -> Result<Vec<Appended>, Error>;

    /// At most `limit` entries of an app's timeline after `after`, oldest first; fewer only when there are no more.
    async fn timeline_after(&self, app: &AppId, after: Seq, limit: usize) -> Result<Vec<TimelineEntry>, Error>;

    /// Those of an app's entries after `after` that were called back.
    async fn timeline_cancelled(&self, app: &AppId, after: Seq) -> Result<Vec<MessageId>, Error>;

    /// The last number given in this timeline; zero when nothing ever was.
    async fn timeline_head(&self, app: &AppId) -> Result<Seq, Error>;
}
