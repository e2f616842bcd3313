//! The registry of devices.
//!
//! Who is registered lies on disk as bitmaps of 65,536 ordinals each, at most 8 KiB: a registration rewrites one of
//! them, and a million devices are read in sixteen. That is quick enough to need no copy in memory.

use std::collections::BTreeMap;

use async_trait::async_trait;
use model::record::Record;
use model::{
    AppId, Cursor, Device, DeviceId, Env, Epoch, Ordinal, Ordinals, Position, Profile, Seq, Timestamp, UserId,
};
use serde::{Deserialize, Serialize};

use super::{
    Embedded, changes, cursors,
    key::{self, Key},
    table::{Draft, Read, Set, Span},
};
use crate::{Amendment, Devices, Error, Registration};

/// How many ordinals were given in an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    next: u32,
}

impl Record for Count {
    const VERSION: u8 = 1;
}

/// The name behind an ordinal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Named {
    device: DeviceId,
}

impl Record for Named {
    const VERSION: u8 = 1;
}

#[async_trait]
impl Devices for Embedded {
    async fn register(
        &self,
        app: &AppId,
        devices: Vec<Registration>,
        now: Timestamp,
    ) -> Result<Vec<(Device, bool)>, Error> {
        self.engine.room()?;
        let app = app.clone();
        self.write(move |draft| register(draft, &app, devices, now)).await
    }

    async fn amend(&self, app: &AppId, amendments: Vec<Amendment>, now: Timestamp) -> Result<Vec<bool>, Error> {
        let app = app.clone();
        self.write_few_at_a_time(amendments, move |draft, few| amend(draft, &app, few, now)).await
    }

    async fn devices(&self, app: &AppId, ids: &[DeviceId]) -> Result<Vec<Option<Device>>, Error> {
        let view = self.view();
        ids.iter().map(|device| view.get(&key::Device { app: app.clone(), device: device.clone() })).collect()
    }

    async fn names(&self, app: &AppId, ordinals: &[Ordinal]) -> Result<Vec<Option<DeviceId>>, Error> {
        let view = self.view();
        let name = |&device| Ok(view.get(&key::Name { app: app.clone(), device })?.map(|named| named.device));
        ordinals.iter().map(name).collect()
    }

    async fn devices_of(&self, app: &AppId, env: Env, users: &[UserId]) -> Result<Vec<Ordinals>, Error> {
        let view = self.view();
        let devices = |user: &UserId| {
            let key = key::DevicesOf { app: app.clone(), env, user: user.clone() };
            Ok(view.get(&key)?.unwrap_or_default().0)
        };
        users.iter().map(devices).collect()
    }

    async fn registered(&self, app: &AppId, env: Env) -> Result<Ordinals, Error> {
        let mut all = Ordinals::new();
        for block in self.view().scan(Span::<key::Live>::of(&[app, &env])) {
            all |= &block?.1.0;
        }
        Ok(all)
    }

    async fn count(&self, app: &AppId) -> Result<u32, Error> {
        Ok(self.view().get(&key::Count { app: app.clone() })?.unwrap_or_default().next)
    }

    async fn list(&self, app: &AppId, env: Env, after: Option<Ordinal>, limit: usize) -> Result<Vec<Device>, Error> {
        let view = self.view();
        let first = key::Live { app: app.clone(), env, block: block_of(after.unwrap_or(Ordinal(0))) };
        let mut found = Vec::new();
        for block in view.scan(Span::of(&[app, &env]).starting(&first)) {
            for device in block?.1.0.iter_after(after).take(limit - found.len()) {
                let named = view.expect(&key::Name { app: app.clone(), device })?;
                found.push(view.expect(&key::Device { app: app.clone(), device: named.device })?);
            }
            if found.len() == limit {
                break;
            }
        }
        Ok(found)
    }

    async fn remove(&self, app: &AppId, id: &DeviceId) -> Result<Option<Device>, Error> {
        let key = key::Device { app: app.clone(), device: id.clone() };
        self.write(move |draft| {
            let Some(device) = draft.get(&key)? else { return Ok(None) };
            let (app, ordinal) = (&key.app, device.ordinal);
            let live = key::Live { app: app.clone(), env: device.env, block: block_of(ordinal) };
            change(draft, &live, |live| _ = live.remove(ordinal))?;
            set_owner(draft, app, &device, false)?;
            draft.remove(&key::Inbox { app: app.clone(), device: ordinal });
            draft.remove(&key::Cursor { app: app.clone(), device: ordinal });
            draft.remove(&key);
            changes::note(draft, app, [ordinal], Timestamp::default())?;
            Ok(Some(device))
        })
        .await
    }

    async fn revoke(&self, app: &AppId, id: &DeviceId) -> Result<Option<u32>, Error> {
        let key = key::Device { app: app.clone(), device: id.clone() };
        self.write(move |draft| {
            let Some(mut device) = draft.get(&key)? else { return Ok(None) };
            device.generation = device.generation.saturating_add(1);
            draft.put(&key, &device);
            changes::note(draft, &key.app, [device.ordinal], Timestamp::default())?;
            Ok(Some(device.generation))
        })
        .await
    }
}

fn register(
    draft: &mut Draft<'_, '_>,
    app: &AppId,
    registrations: Vec<Registration>,
    now: Timestamp,
) -> Result<Vec<(Device, bool)>, Error> {
    let head = draft.get(&key::TimelineBounds { app: app.clone() })?.unwrap_or_default().head;
    let (mut done, mut changed) = (Vec::with_capacity(registrations.len()), Vec::new());
    for registration in registrations {
        let key = key::Device { app: app.clone(), device: registration.id.clone() };
        let before = draft.get(&key)?;
        let (device, new) = match before.clone() {
            Some(device) => (update(draft, app, device, registration)?, false),
            None => (admit(draft, app, registration, head, now)?, true),
        };
        changed.extend((before.as_ref() != Some(&device)).then_some(device.ordinal));
        draft.put(&key, &device);
        done.push((device, new));
    }
    set_live(draft, app, &done)?;
    changes::note(draft, app, changed, now)?;
    Ok(done)
}

fn amend(
    draft: &mut Draft<'_, '_>,
    app: &AppId,
    amendments: Vec<Amendment>,
    now: Timestamp,
) -> Result<Vec<bool>, Error> {
    let (mut done, mut changed) = (Vec::with_capacity(amendments.len()), Vec::new());
    for Amendment { before, profile } in amendments {
        let key = key::Device { app: app.clone(), device: before.id.clone() };
        let is_before = |device: &Device| device.ordinal == before.ordinal && device.profile == before.profile;
        let there = draft.get(&key)?.filter(is_before);
        done.push(there.is_some());
        let Some(device) = there.filter(|device| device.profile != profile) else { continue };
        changed.push(device.ordinal);
        let device = know(draft, app, device, profile)?;
        draft.put(&key, &device);
    }
    changes::note(draft, app, changed, now)?;
    Ok(done)
}

/// Adds the new ones among these to the bitmaps, each bitmap once.
fn set_live(draft: &mut Draft<'_, '_>, app: &AppId, devices: &[(Device, bool)]) -> Result<(), Error> {
    let mut blocks = BTreeMap::<_, Vec<_>>::new();
    for (device, _) in devices.iter().filter(|(_, new)| *new) {
        blocks.entry((device.env, block_of(device.ordinal))).or_default().push(device.ordinal);
    }
    for ((env, block), ordinals) in blocks {
        change(draft, &key::Live { app: app.clone(), env, block }, |live| live.extend(ordinals))?;
    }
    Ok(())
}

/// Adds a device to those of its user, or takes it out.
fn set_owner(draft: &mut Draft<'_, '_>, app: &AppId, device: &Device, owned: bool) -> Result<(), Error> {
    let Some(user) = device.profile.user_id.clone() else { return Ok(()) };
    change(draft, &key::DevicesOf { app: app.clone(), env: device.env, user }, |devices| {
        _ = if owned { devices.insert(device.ordinal) } else { devices.remove(device.ordinal) };
    })
}

/// Changes a set; an empty one is not kept.
fn change<K: Key<Value = Set>>(
    draft: &mut Draft<'_, '_>,
    key: &K,
    change: impl FnOnce(&mut Ordinals),
) -> Result<(), Error> {
    let Set(mut set) = draft.get(key)?.unwrap_or_default();
    change(&mut set);
    if set.is_empty() {
        draft.remove(key)
    } else {
        draft.put(key, &Set(set.compact()))
    }
    Ok(())
}

/// The block of ordinals this one lies in: its upper 16 bits.
fn block_of(ordinal: Ordinal) -> u16 {
    (ordinal.0 >> 16) as u16
}

fn update(draft: &mut Draft<'_, '_>, app: &AppId, device: Device, registration: Registration) -> Result<Device, Error> {
    if device.env != registration.env {
        return Err(Error::Rejected(format!("device {} is registered in {}", device.id, device.env)));
    }
    match registration.profile {
        Some(profile) => know(draft, app, device, profile),
        None => Ok(device),
    }
}

/// The device with another profile, among the devices of its user.
fn know(draft: &mut Draft<'_, '_>, app: &AppId, mut device: Device, profile: Profile) -> Result<Device, Error> {
    let moves = profile.user_id != device.profile.user_id;
    if moves {
        set_owner(draft, app, &device, false)?;
    }
    device.profile = profile;
    if moves {
        set_owner(draft, app, &device, true)?;
    }
    Ok(device)
}

fn admit(
    draft: &mut Draft<'_, '_>,
    app: &AppId,
    registration: Registration,
    head: Seq,
    now: Timestamp,
) -> Result<Device, Error> {
    let count = key::Count { app: app.clone() };
    let ordinal = draft.get(&count)?.unwrap_or_default().next;
    let next = ordinal.checked_add(1).ok_or_else(|| Error::Rejected("the app has used up its ordinals".into()))?;
    draft.put(&count, &Count { next });
    let device = Device {
        id: registration.id,
        ordinal: Ordinal(ordinal),
        env: registration.env,
        generation: 0,
        first_seen: now,
        profile: registration.profile.unwrap_or_default(),
    };
    let name = key::Name { app: app.clone(), device: device.ordinal };
    draft.put(&name, &Named { device: device.id.clone() });
    let cursor = Cursor::at(Position { inbox: Seq::ZERO, timeline: head });
    let kept = cursors::Kept { epoch: Epoch::default(), cursor };
    draft.put(&key::Cursor { app: app.clone(), device: device.ordinal }, &kept);
    set_owner(draft, app, &device, true)?;
    Ok(device)
}
