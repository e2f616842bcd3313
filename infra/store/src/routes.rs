//! Where devices are connected. Volatile: the access points are the truth and may tell again at any time.

use async_trait::async_trait;
use model::{AppId, Epoch, NodeId, Ordinal, Route, Timestamp};

use crate::Error;

/// What a session got by claiming its device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its number: greater than that of any session of this device before.
    pub epoch: Epoch,
    /// Where the device was connected until now, as far as is known: that session must go.
    pub previous: Option<Route>,
    /// Whether the device's route leads to it. Where it does not, since nobody answered, the clock has numbered it, an older
    /// session may be anywhere, and the route is yet to be told ([`restore`](Routes::restore)).
    pub routed: bool,
}

/// The life of what is known of routes, between two losses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation(pub Vec<u8>);

/// Where devices are connected.
#[async_trait]
pub trait Routes: Send + Sync {
    /// Makes `node` the place of a device, in one step with the number of its new session, which was opened at `now`.
    async fn claim(&self, app: &AppId, device: Ordinal, node: &NodeId, now: Timestamp) -> Result<Claim, Error>;

    /// Forgets the route of a device if it is still the session `epoch`; a later session's is left alone.
    async fn release(&self, app: &AppId, device: Ordinal, epoch: Epoch) -> Result<(), Error>;

    /// Where these devices are, in the order given. `None` means unknown, never offline: ring everywhere.
    async fn routes(&self, app: &AppId, devices: &[Ordinal]) -> Result<Vec<Option<Route>>, Error>;

    /// Which life the routes are in. When it is not the one seen before, all of them are gone: whoever holds sessions
    /// tells them again ([`restore`](Routes::restore)). `fresh` is random and names a new life where there is none.
    async fn generation(&self, fresh: u128) -> Result<Generation, Error>;

    /// Tells routes again that `node` still serves. Says of each, in the order given, whether the device is there now. The
    /// route of a later session is left alone; one to the same node contradicts nothing, for that knows which it has.
    async fn restore(&self, app: &AppId, node: &NodeId, routes: &[(Ordinal, Epoch)]) -> Result<Vec<bool>, Error>;
}
