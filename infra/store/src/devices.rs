//! The registry of devices.

use async_trait::async_trait;
use model::{AppId, Device, DeviceId, Env, Ordinal, Ordinals, Profile, Timestamp, UserId};

use crate::{Error, PAGE_MAX, Store};

/// A device to be registered.
#[derive(Clone, Debug, PartialEq)]
pub struct Registration {
    /// Its name.
    pub id: DeviceId,
    /// The environment it belongs to.
    pub env: Env,
    /// What is known about it; `None` leaves what is known as it is.
    pub profile: Option<Profile>,
}

/// Another profile for a device, in place of the one that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Amendment {
    /// The device as it was read.
    pub before: Device,
    /// What is to be known about it.
    pub profile: Profile,
}

/// The registry of devices. Durable when a call returns.
#[async_trait]
pub trait Devices: Send + Sync {
    /// Registers devices, or updates those that are there; returns them in the order given, and whether each is new.
    ///
    /// A new device gets the next ordinal of its app, and its cursor starts at the head of the timeline: it is in no
    /// audience that was there before it. A device that was removed and comes back is a new device with a new ordinal.
    /// Rejected when a device is there in the other environment.
    async fn register(
        &self,
        app: &AppId,
        devices: Vec<Registration>,
        now: Timestamp,
    ) -> Result<Vec<(Device, bool)>, Error>;

    /// Replaces profiles, each only while the device is there, and what is known about it is what was read; says of each,
    /// in the order given, whether it was. Whoever is told no reads the device again and makes a new change of it: of two
    /// who change one device at the same time, neither undoes what the other did. When it fails, some may be replaced.
    async fn amend(&self, app: &AppId, amendments: Vec<Amendment>, now: Timestamp) -> Result<Vec<bool>, Error>;

    /// The devices of these names, in the order given.
    async fn devices(&self, app: &AppId, ids: &[DeviceId]) -> Result<Vec<Option<Device>>, Error>;

    /// The ordinals behind these names in an environment, in the order given: what a send needs of its devices.
    async fn ordinals(&self, app: &AppId, env: Env, ids: &[DeviceId]) -> Result<Vec<Option<Ordinal>>, Error> {
        let devices = self.devices(app, ids).await?.into_iter();
        Ok(devices.map(|device| device.filter(|device| device.env == env).map(|device| device.ordinal)).collect())
    }

    /// The names behind these ordinals, in the order given; removed devices keep theirs.
    async fn names(&self, app: &AppId, ordinals: &[Ordinal]) -> Result<Vec<Option<DeviceId>>, Error>;

    /// The devices of these users, in one set.
    async fn devices_of(&self, app: &AppId, env: Env, users: &[UserId]) -> Result<Vec<Ordinals>, Error>;

    /// Every registered device of an environment.
    async fn registered(&self, app: &AppId, env: Env) -> Result<Ordinals, Error>;

    /// How many ordinals were ever given in this app: devices registered from now on get this one or greater.
    async fn count(&self, app: &AppId) -> Result<u32, Error>;

    /// At most `limit` devices of an environment after the one named `after`, in order of ordinals.
    async fn list(&self, app: &AppId, env: Env, after: Option<Ordinal>, limit: usize) -> Result<Vec<Device>, Error>;

    /// Removes a device, what is left in its inbox, and its cursor; returns it. Its ordinal is never given again.
    async fn remove(&self, app: &AppId, id: &DeviceId) -> Result<Option<Device>, Error>;

    /// Revokes every token made so far: raises the device's generation and returns the new one; `None` when there is
    /// no such device.
    async fn revoke(&self, app: &AppId, id: &DeviceId) -> Result<Option<u32>, Error>;
}

/// The devices of these names in an environment, and the names that nobody has there, in the order given.
///
/// # Errors
/// Whatever the store says.
pub async fn ordinals<'a>(
    store: &dyn Store,
    app: &AppId,
    env: Env,
    ids: &'a [DeviceId],
) -> Result<(Ordinals, Vec<&'a DeviceId>), Error> {
    let (mut known, mut unknown) = (Ordinals::new(), Vec::new());
    for ids in ids.chunks(PAGE_MAX) {
        for (id, ordinal) in ids.iter().zip(store.ordinals(app, env, ids).await?) {
            match ordinal {
                Some(ordinal) => _ = known.insert(ordinal),
                None => unknown.push(id),
            }
        }
    }
    Ok((known, unknown))
}

/// Why an ordinal leads to no device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It was removed; it may be there again under another ordinal.
    Removed,
    /// The store does not know the ordinal: it was never given, or is forgotten.
    Unknown,
}

/// The devices that have these ordinals, in the order given.
///
/// # Errors
/// Whatever the store says.
pub async fn behind(
    store: &dyn Store,
    app: &AppId,
    ordinals: &[Ordinal],
) -> Result<Vec<Result<Device, Absent>>, Error> {
    let names = store.names(app, ordinals).await?;
    let known: Vec<DeviceId> = names.iter().flatten().cloned().collect();
    let mut devices = store.devices(app, &known).await?.into_iter();
    let device = |(ordinal, name): (&Ordinal, Option<DeviceId>)| {
        name.ok_or(Absent::Unknown)?;
        devices.next().flatten().filter(|device| device.ordinal == *ordinal).ok_or(Absent::Removed)
    };
    Ok(ordinals.iter().zip(names).map(device).collect())
}
