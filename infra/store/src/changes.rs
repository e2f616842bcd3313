//! What changed in the registry of devices, for whoever keeps a copy of it.

use async_trait::async_trait;
use model::{AppId, Ordinal};

use crate::Error;

/// Latest changes of an app that are kept: 17 minutes of a thousand a second. A copy that was away for longer is made
/// anew.
pub const CHANGES_MAX: usize = 1 << 20;

/// Which change of an app's registry: later ones are greater. The default one is before all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChangeId(pub u128);

/// The latest changes of the registries. A change is there as soon as the call that made it has returned.
#[async_trait]
pub trait Changes: Send + Sync {
    /// The latest change of an app.
    async fn change_head(&self, app: &AppId) -> Result<ChangeId, Error>;

    /// The devices that were registered or removed, whose profile was replaced by another one, or whose tokens were
    /// revoked, after the change `after`: at most `limit`, in order, each with its change. What changed is not said: read
    /// the device, and take what is there.
    ///
    /// `None` when nobody knows any more what came after `after`, because it is too long ago or the store lost it: then
    /// only the whole registry tells.
    async fn changes_after(
        &self,
        app: &AppId,
        after: ChangeId,
        limit: usize,
    ) -> Result<Option<Vec<(ChangeId, Ordinal)>>, Error>;
}
