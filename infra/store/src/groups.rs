//! Static groups of devices.

use async_trait::async_trait;
use model::{AppId, Group, GroupId, Ordinals};

use crate::Error;

/// Static groups of devices. Durable when a call returns.
#[async_trait]
pub trait Groups: Send + Sync {
    /// Adds a group; the same one again changes nothing.
    async fn put_group(&self, app: &AppId, group: Group) -> Result<(), Error>;

    /// Puts a group in place of the one with its id, as long as that is as it was read; its members stay. False, and
    /// nothing changes, when it is another by now, or gone.
    async fn replace_group(&self, app: &AppId, before: &Group, after: Group) -> Result<bool, Error>;

    /// The group with this id.
    async fn group(&self, app: &AppId, id: GroupId) -> Result<Option<Group>, Error>;

    /// At most `limit` groups after the one with id `after`, oldest first.
    async fn groups(&self, app: &AppId, after: Option<GroupId>, limit: usize) -> Result<Vec<Group>, Error>;

    /// Removes a group and its members; false when there was none.
    async fn remove_group(&self, app: &AppId, id: GroupId) -> Result<bool, Error>;

    /// Adds and removes members in one step; returns how many there are then, `None` when there is no such group.
    async fn change_members(
        &self,
        app: &AppId,
        id: GroupId,
        add: Ordinals,
        remove: Ordinals,
    ) -> Result<Option<u64>, Error>;

    /// The members of a group; `None` when there is no such group.
    async fn members(&self, app: &AppId, id: GroupId) -> Result<Option<Ordinals>, Error>;
}
