//! Who gets nothing from an app, or nothing of some type, as sets of devices.

use model::{
    AppId, Cap, Counted, DeviceId, Env, Message, OptOut, Ordinals, Quiet, QuietHours, Suppression, Timestamp, UserId,
    quiet::EVERY_TYPE, shelved::Shelved as _, suppression::Suppressed,
};

use crate::{Error, PAGE_MAX, Store, shelves, shelves::Place};

/// Suppressions that an environment of an app may have: all of them are looked up again and again. Whoever excludes
/// more saves a list and names it in what is sent.
pub const SUPPRESSIONS_MAX: usize = 10_000;

/// The devices behind every suppression that holds now.
///
/// # Errors
/// Whatever the store says.
pub async fn suppressed(store: &dyn Store, app: &AppId, env: Env, now: Timestamp) -> Result<Ordinals, Error> {
    let all = shelves::list::<Suppression>(store, (app, env), None, SUPPRESSIONS_MAX).await?;
    let (mut devices, mut users) = (Vec::<DeviceId>::new(), Vec::<UserId>::new());
    for (_, suppression) in all.into_iter().filter(|(_, suppression)| suppression.holds(now)) {
        match suppression.who {
            Suppressed::Device(id) => devices.push(id),
            Suppressed::User(id) => users.push(id),
        }
    }
    let mut suppressed = Ordinals::new();
    for ids in devices.chunks(PAGE_MAX) {
        let found = store.devices(app, ids).await?.into_iter().flatten();
        suppressed.extend(found.filter(|device| device.env == env).map(|device| device.ordinal));
    }
    for ids in users.chunks(PAGE_MAX) {
        store.devices_of(app, env, ids).await?.iter().for_each(|devices| suppressed |= devices);
    }
    Ok(suppressed)
}

/// The devices that want no messages of this type.
///
/// # Errors
/// Whatever the store says.
pub async fn opted_out(store: &dyn Store, app: &AppId, env: Env, kind: &str) -> Result<Ordinals, Error> {
    let found = shelves::find::<OptOut>(store, app, env, kind).await?;
    Ok(found.map(|OptOut(devices)| devices).unwrap_or_default())
}

/// How often a device may get messages of this type; as often as they come when nobody said.
///
/// # Errors
/// Whatever the store says.
pub async fn cap(store: &dyn Store, app: &AppId, env: Env, kind: &str) -> Result<Option<Cap>, Error> {
    shelves::find(store, app, env, kind).await
}

/// The hours in which messages of this type reach nobody: its own, or those of every type.
///
/// # Errors
/// Whatever the store says.
pub async fn quiet_hours(store: &dyn Store, app: &AppId, env: Env, kind: &str) -> Result<Option<QuietHours>, Error> {
    for name in [kind, EVERY_TYPE] {
        match shelves::find(store, app, env, name).await? {
            Some(Quiet::Hours(hours)) => return Ok(Some(hours)),
            Some(Quiet::Never) => return Ok(None),
            None => {}
        }
    }
    Ok(None)
}

/// Who has had as many messages of this type as the cap allows.
///
/// # Errors
/// Whatever the store says.
pub async fn capped(
    store: &dyn Store,
    (app, env): (&AppId, Env),
    kind: &str,
    now: Timestamp,
) -> Result<Ordinals, Error> {
    let Some(cap) = cap(store, app, env, kind).await? else { return Ok(Ordinals::new()) };
    let counted = shelves::find::<Counted>(store, app, env, kind).await?;
    Ok(counted.map(|counted| counted.full(cap, now)).unwrap_or_default())
}

/// Counts a message of a capped type for these devices; returns who must not get it. Doing it again changes nothing.
///
/// # Errors
/// Whatever the store says.
pub async fn count(
    store: &dyn Store,
    message: &Message,
    cap: Cap,
    devices: &Ordinals,
    now: Timestamp,
) -> Result<Ordinals, Error> {
    let mut capped = Ordinals::new();
    shelves::change(store, (&message.app, message.env), &message.kind, |before: Option<Counted>| {
        let mut counted = before.unwrap_or_default();
        capped = counted.count(cap, message.id, devices, now);
        Some(counted)
    })
    .await?;
    Ok(capped)
}

/// Something that changes whenever anybody opts out of a type, or in again.
///
/// # Errors
/// Whatever the store says.
pub async fn opt_outs_edition(store: &dyn Store, app: &AppId, env: Env) -> Result<u64, Error> {
    store.edition(Place { app, env, shelf: OptOut::SHELF }).await
}
