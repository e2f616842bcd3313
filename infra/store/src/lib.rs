//! The store: what outlives a message's way through the queues.
//!
//! Each concern is a small trait whose doc comments are its promises; [`Store`] is all of them. There are exactly two
//! implementations, chosen by URL: [`embedded`] (durable, in `data_dir`) and [`redis`]. The promises are repeated, one test
//! a promise, in `contract`, which both implementations run. A tier takes the narrowest part it needs.

pub mod apps;
pub mod changes;
#[cfg(feature = "contract")]
pub mod contract;
pub mod cursors;
pub mod devices;
pub mod embedded;
pub mod exclusions;
pub mod groups;
pub mod inbox;
pub mod messages;
pub mod nodes;
mod patience;
pub mod receipts;
pub mod redis;
pub mod routes;
pub mod shelves;
pub mod timeline;
pub mod uplinks;

use std::sync::Arc;

use async_trait::async_trait;
use model::Timestamp;
use thiserror::Error;

pub use apps::Apps;
pub use changes::{CHANGES_MAX, ChangeId, Changes};
pub use cursors::{CursorWrite, Cursors};
pub use devices::{Amendment, Devices, Registration};
pub use groups::Groups;
pub use inbox::{Inbox, InboxAppend, InboxAppended, InboxEntry};
pub use messages::{Accepted, Cancelled, Entry, Messages, Once, Promise};
pub use nodes::Nodes;
pub use patience::Patience;
pub use receipts::Receipts;
pub use routes::{Claim, Generation, Routes};
pub use shelves::Shelves;
pub use timeline::{Timeline, TimelineAppend, TimelineEntry};
pub use uplinks::Uplinks;

/// Why the store did not do what was asked, by what the caller can do about it.
#[derive(Clone, Debug, Error)]
pub enum Error {
    /// Not now; whether a write took effect is unknown. Try again.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// Not like this: the text says what would be taken. Nothing was written.
    #[error("{0}")]
    Rejected(String),
    /// What the store keeps cannot be trusted: stop and restore.
    #[error("store damaged: {0}")]
    Corrupt(String),
}

/// Entries a read or a sweep takes at once, so that none holds up others for long.
pub const PAGE_MAX: usize = 1_000;

/// Whether an append did something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The entries are there now.
    New,
    /// This message was appended before: nothing changed, its entries keep their numbers.
    Again,
    /// This message was cancelled before it was appended: nothing was added.
    Cancelled,
}

/// What must go when its time is over.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Removes what is over: expired entries of streams, and messages (with their tallies and idempotency keys) whose
    /// keeping time has passed; at most [`PAGE_MAX`] of each kind. Returns how much was removed; call again while it
    /// is not zero.
    async fn expire(&self, now: Timestamp) -> Result<usize, Error>;
}

/// Everything a store does.
pub trait Store:
    Apps
    + Devices
    + Changes
    + Groups
    + Messages
    + Inbox
    + Timeline
    + Cursors
    + Routes
    + Nodes
    + Receipts
    + Uplinks
    + Shelves
    + Retention
{
}

impl<T> Store for T where
    T: Apps
        + Devices
        + Changes
        + Groups
        + Messages
        + Inbox
        + Timeline
        + Cursors
        + Routes
        + Nodes
        + Receipts
        + Uplinks
        + Shelves
        + Retention
{
}

/// A store, shared.
pub type SharedStore = Arc<dyn Store>;
