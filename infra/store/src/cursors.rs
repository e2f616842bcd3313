//! How far each device has come.

use async_trait::async_trait;
use model::{AppId, Cursor, Epoch, Ordinal};

use crate::Error;

/// A cursor to be kept, as the session `epoch` saw it.
#[derive(Clone, Debug, PartialEq)]
pub struct CursorWrite {
    /// The app.
    pub app: AppId,
    /// The device.
    pub device: Ordinal,
    /// The session that says so.
    pub epoch: Epoch,
    /// How far the device has come.
    pub cursor: Cursor,
}

/// How far each device has come. Durable when a call returns.
#[async_trait]
pub trait Cursors: Send + Sync {
    /// The cursor of a device; at the start of both streams when none was ever kept.
    async fn cursor(&self, app: &AppId, device: Ordinal) -> Result<Cursor, Error>;

    /// Keeps cursors; says of each, in the order given, whether it was taken. One of an older session than the kept
    /// one is refused; within a session and across them a prefix never goes back. Inbox entries up to the prefix are
    /// removed.
    async fn save_cursors(&self, writes: Vec<CursorWrite>) -> Result<Vec<bool>, Error>;
}
