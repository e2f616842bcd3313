//! Tenants and their keys.

use async_trait::async_trait;
use model::{App, AppId, Key, KeyId};

use crate::Error;

/// Tenants and their keys. Durable when a call returns.
#[async_trait]
pub trait Apps: Send + Sync {
    /// Adds an app; false, and nothing changes, when there is one of this name.
    async fn create_app(&self, app: App) -> Result<bool, Error>;

    /// Puts an app in place of the one of its name, as long as that is as it was read; false, and nothing changes, when
    /// it is another by now, or gone.
    async fn replace_app(&self, before: &App, after: App) -> Result<bool, Error>;

    /// The app of this name.
    async fn app(&self, id: &AppId) -> Result<Option<App>, Error>;

    /// Every app.
    async fn apps(&self) -> Result<Vec<App>, Error>;

    /// Adds a key, or replaces the one with its id. Rejected when its app does not exist.
    async fn put_key(&self, key: Key) -> Result<(), Error>;

    /// The key with this id.
    async fn key(&self, id: &KeyId) -> Result<Option<Key>, Error>;

    /// The keys of an app.
    async fn keys(&self, app: &AppId) -> Result<Vec<Key>, Error>;

    /// Removes a key; false when there was none.
    async fn remove_key(&self, id: &KeyId) -> Result<bool, Error>;
}
