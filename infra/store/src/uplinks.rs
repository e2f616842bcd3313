//! What devices sent up, until products fetch it.

use async_trait::async_trait;
use model::{AppId, Env, Uplink, UplinkId};

use crate::Error;

/// How long an uplink is kept: 7 days.
pub const UPLINK_KEPT: std::time::Duration = std::time::Duration::from_hours(7 * 24);

/// What devices sent up. Durable when a call returns.
#[async_trait]
pub trait Uplinks: Send + Sync {
    /// Keeps uplinks; one that is there already (by its id) changes nothing.
    async fn keep_uplinks(&self, uplinks: Vec<Uplink>) -> Result<(), Error>;

    /// At most `limit` uplinks of an app and environment that were kept after the one with id `after`, of one type or
    /// of all, in the order they were kept (not of their ids: what is kept later is never skipped). An `after` that is
    /// not known there (any more) means from the oldest.
    async fn uplinks_after(
        &self,
        app: &AppId,
        env: Env,
        kind: Option<&str>,
        after: Option<UplinkId>,
        limit: usize,
    ) -> Result<Vec<Uplink>, Error>;
}
