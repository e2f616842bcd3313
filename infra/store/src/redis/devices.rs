//! The registry of devices: names lead to ordinals, ordinals to records, and bitmaps say who is registered.

use std::collections::BTreeMap;

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, Value, cmd};
use model::{AppId, Device, DeviceId, Env, Ordinal, Ordinals, Profile, Timestamp, UserId, record::Record};
use serde::{Deserialize, Serialize};

use super::{
    Redis,
    key::{self, AppKeys, ORDINALS_A_BITMAP},
    link::Repeat,
    script::{Call, Step},
    take,
};
use crate::{Amendment, Devices, Error, PAGE_MAX, Registration};

/// A device's profile as it is kept; one that says nothing takes no room.
#[derive(Serialize, Deserialize)]
struct Known(Profile);

impl Record for Known {
    const VERSION: u8 = 1;
}

#[async_trait]
impl Devices for Redis {
    async fn register(
        &self,
        app: &AppId,
        devices: Vec<Registration>,
        now: Timestamp,
    ) -> Result<Vec<(Device, bool)>, Error> {
        let (of, mut register) = (self.of(app), Call::new(Step::Register));
        register.key(of.count()).key(of.timeline_head()).arg(now.as_millis());
        for Registration { id, env, profile } in devices {
            register.key(of.names(&id)).arg(id.as_str()).arg(key::letter(env)).arg(u8::from(profile.is_some()));
            let profile = profile.unwrap_or_default();
            register.arg(user(&profile)).arg(kept(profile));
        }
        let done: Vec<(u32, bool, Vec<u8>)> = take::value(self.write_one(register.cmd(), Repeat::Never).await?)?;
        done.into_iter().map(|(ordinal, new, record)| Ok((read(Ordinal(ordinal), &record)?, new))).collect()
    }

    async fn amend(&self, app: &AppId, amendments: Vec<Amendment>, _now: Timestamp) -> Result<Vec<bool>, Error> {
        let of = self.of(app);
        let ids: Vec<DeviceId> = amendments.iter().map(|amendment| amendment.before.id.clone()).collect();
        let found = self.found(app, &ids).await?;
        let (mut amend, mut asked) = (Call::new(Step::Amend), Vec::new());
        amend.key(of.count());
        for ((place, Amendment { before, profile }), found) in amendments.into_iter().enumerate().zip(found) {
            // Compared here as what it says and there by its bytes: another version may have written those.
            let Some((ordinal, record)) = found else { continue };
            let device = read(ordinal, &record)?;
            if device.ordinal != before.ordinal || device.profile != before.profile {
                continue;
            }
            amend.key(of.names(&before.id)).arg(before.id.as_str()).arg(ordinal.0).arg(profile_of(&record)?);
            // What says the same stays in the bytes that it has.
            let after = if profile == before.profile { profile_of(&record)?.to_vec() } else { kept(profile.clone()) };
            amend.arg(user(&profile)).arg(after);
            asked.push(place);
        }
        let mut done = vec![false; ids.len()];
        if !asked.is_empty() {
            let said: Vec<bool> = take::value(self.write_one(amend.cmd(), Repeat::Never).await?)?;
            asked.into_iter().zip(said).for_each(|(place, is)| done[place] = is);
        }
        Ok(done)
    }

    async fn devices(&self, app: &AppId, ids: &[DeviceId]) -> Result<Vec<Option<Device>>, Error> {
        let found = self.found(app, ids).await?.into_iter();
        found.map(|found| found.map(|(ordinal, record)| read(ordinal, &record)).transpose()).collect()
    }

    async fn ordinals(&self, app: &AppId, env: Env, ids: &[DeviceId]) -> Result<Vec<Option<Ordinal>>, Error> {
        let of = self.of(app);
        let get = |id: &DeviceId| {
            let mut get = cmd("HGET");
            get.arg(of.names(id)).arg(id.as_str());
            get
        };
        let mut ordinals = Vec::with_capacity(ids.len());
        for page in ids.chunks(PAGE_MAX) {
            for answer in self.ask(page.iter().map(get).collect()).await? {
                ordinals.push(take::value::<Option<i64>>(answer)?.and_then(|known| ordinal(env, known)));
            }
        }
        Ok(ordinals)
    }

    async fn names(&self, app: &AppId, ordinals: &[Ordinal]) -> Result<Vec<Option<DeviceId>>, Error> {
        let of = self.of(app);
        let answers = self.ask(ordinals.iter().map(|device| get(&of, *device)).collect()).await?;
        let name = |answer| take::value::<Option<Vec<u8>>>(answer)?.map(|kept| Parts::read(&kept)?.name()).transpose();
        answers.into_iter().map(name).collect()
    }

    async fn devices_of(&self, app: &AppId, env: Env, users: &[UserId]) -> Result<Vec<Ordinals>, Error> {
        let of = self.of(app);
        let list = |user: &UserId| {
            let mut list = cmd("SMEMBERS");
            list.arg(of.devices_of(env, user));
            list
        };
        let answers = self.ask(users.iter().map(list).collect()).await?;
        let devices = |answer| Ok(take::value::<Vec<u32>>(answer)?.into_iter().map(Ordinal).collect());
        answers.into_iter().map(devices).collect()
    }

    async fn registered(&self, app: &AppId, env: Env) -> Result<Ordinals, Error> {
        let mut all = Ordinals::new();
        let of = self.of(app);
        for block in 0..self.count(app).await?.div_ceil(ORDINALS_A_BITMAP) {
            all.extend(live(block, self.ask_settled(get_live(&of, env, block)).await?)?);
        }
        Ok(all)
    }

    async fn count(&self, app: &AppId) -> Result<u32, Error> {
        count(self.ask_settled(get_count(&self.of(app))).await?)
    }

    async fn list(&self, app: &AppId, env: Env, after: Option<Ordinal>, limit: usize) -> Result<Vec<Device>, Error> {
        let of = self.of(app);
        let count = count(self.ask_one(get_count(&of)).await?)?;
        let Some(first) = after.map_or(Some(0), |last| last.0.checked_add(1)) else { return Ok(Vec::new()) };
        let mut wanted = Vec::new();
        for block in first / ORDINALS_A_BITMAP..count.div_ceil(ORDINALS_A_BITMAP) {
            let live = live(block, self.ask_one(get_live(&of, env, block)).await?)?;
            wanted.extend(live.filter(|device| device.0 >= first).take(limit - wanted.len()));
            if wanted.len() == limit {
                break;
            }
        }
        let answers = self.ask(wanted.iter().map(|device| get(&of, *device)).collect()).await?;
        let mut found = BTreeMap::new();
        for (ordinal, answer) in wanted.into_iter().zip(answers) {
            let kept = take::value::<Option<Vec<u8>>>(answer)?.unwrap_or_default();
            // One that was removed between the two reads is not listed.
            if Parts::read(&kept)?.env.is_some() {
                found.insert(ordinal, read(ordinal, &kept)?);
            }
        }
        Ok(found.into_values().collect())
    }

    async fn remove(&self, app: &AppId, id: &DeviceId) -> Result<Option<Device>, Error> {
        let mut remove = Call::new(Step::Remove);
        remove.key(self.of(app).names(id)).arg(id.as_str());
        let removed = located(take::value(self.write_one(remove.cmd(), Repeat::Never).await?)?)?;
        removed.map(|(ordinal, record)| read(ordinal, &record)).transpose()
    }

    async fn revoke(&self, app: &AppId, id: &DeviceId) -> Result<Option<u32>, Error> {
        let mut revoke = Call::new(Step::Revoke);
        revoke.key(self.of(app).names(id)).arg(id.as_str());
        take::value(self.write_one(revoke.cmd(), Repeat::Never).await?)
    }
}

impl Redis {
    /// Ordinals and records of the devices of these names.
    async fn found(&self, app: &AppId, ids: &[DeviceId]) -> Result<Vec<Option<(Ordinal, Vec<u8>)>>, Error> {
        let of = self.of(app);
        let mut found = Vec::with_capacity(ids.len());
        for page in ids.chunks(PAGE_MAX) {
            let mut find = Call::new(Step::Devices);
            page.iter().for_each(|id| _ = find.key(of.names(id)).arg(id.as_str()));
            for device in self.devices.ask(app, find, page.len()).await? {
                found.push(located(take::value(device)?)?);
            }
        }
        Ok(found)
    }
}

/// How many ordinals were given.
fn get_count(of: &AppKeys) -> Cmd {
    let mut get = cmd("GET");
    get.arg(of.count());
    get
}

fn count(answer: Value) -> Result<u32, Error> {
    Ok(take::value::<Option<u32>>(answer)?.unwrap_or_default())
}

/// Who is registered among the ordinals of one bitmap.
fn get_live(of: &AppKeys, env: Env, block: u32) -> Cmd {
    let mut get = cmd("GET");
    get.arg(of.live(env, block as u16));
    get
}

fn live(block: u32, answer: Value) -> Result<impl Iterator<Item = Ordinal>, Error> {
    let bitmap: Vec<u8> = take::value::<Option<_>>(answer)?.unwrap_or_default();
    let octets = (block * ORDINALS_A_BITMAP..).step_by(8).zip(bitmap);
    // Redis counts the bits of a byte from its greatest.
    let ordinals = |(first, byte): (u32, u8)| {
        (0..8).filter(move |bit| byte & (0x80 >> bit) != 0).map(move |bit| Ordinal(first + bit))
    };
    Ok(octets.flat_map(ordinals))
}

fn get(of: &AppKeys, device: Ordinal) -> Cmd {
    let mut get = cmd("HGET");
    get.arg(of.devices(device)).arg(key::slot(device));
    get
}

/// The ordinal that a name leads to in this environment.
fn ordinal(env: Env, known: i64) -> Option<Ordinal> {
    let known = match env {
        Env::Live => known,
        Env::Test => -1 - known,
    };
    u32::try_from(known).ok().map(Ordinal)
}

/// An ordinal and a record, or nothing.
fn located(mut answer: Vec<Value>) -> Result<Option<(Ordinal, Vec<u8>)>, Error> {
    let (Some(record), Some(ordinal)) = (answer.pop(), answer.pop()) else { return Ok(None) };
    Ok(Some((Ordinal(take::value(ordinal)?), take::value(record)?)))
}

/// Whose device it is, as scripts are told.
fn user(profile: &Profile) -> String {
    profile.user_id.as_ref().map(ToString::to_string).unwrap_or_default()
}

/// A profile as scripts keep it.
fn kept(profile: Profile) -> Vec<u8> {
    if profile == Profile::default() { Vec::new() } else { Known(profile).encode() }
}

/// What stands between a record's name and its user: generation and first seen.
const NUMBERS_BYTES: usize = 4 + 8;

/// A device as scripts keep it (see the prelude), taken apart.
struct Parts<'a> {
    /// `None` when only the name is left.
    env: Option<Env>,
    name: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Parts<'a> {
    fn read(kept: &'a [u8]) -> Result<Self, Error> {
        let parts = || {
            let (&env, rest) = kept.split_first()?;
            let env = match env {
                b'l' => Some(Env::Live),
                b't' => Some(Env::Test),
                b'x' => None,
                _ => return None,
            };
            let (name, rest) = text(rest)?;
            Some(Self { env, name, rest })
        };
        parts().ok_or_else(|| take::corrupt("a device", &"not a record"))
    }

    fn name(&self) -> Result<DeviceId, Error> {
        let name = str::from_utf8(self.name).ok().and_then(|name| name.parse().ok());
        name.ok_or_else(|| take::corrupt("a device", &"not a name"))
    }
}

/// A length and as many bytes.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&len, rest) = bytes.split_first()?;
    rest.split_at_checked(len.into())
}

/// The bytes of the profile in a record.
fn profile_of(record: &[u8]) -> Result<&[u8], Error> {
    let rest = Parts::read(record)?.rest;
    let profile = rest.get(NUMBERS_BYTES..).and_then(text).map(|(_user, profile)| profile);
    profile.ok_or_else(|| take::corrupt("a device", &"too short"))
}

fn read(ordinal: Ordinal, kept: &[u8]) -> Result<Device, Error> {
    let parts = Parts::read(kept)?;
    let profile = profile_of(kept)?;
    let numbers = || {
        let (generation, rest) = parts.rest.split_first_chunk::<4>()?;
        let (seen, _) = rest.split_first_chunk::<8>()?;
        Some((parts.env?, u32::from_be_bytes(*generation), u64::from_be_bytes(*seen)))
    };
    let (env, generation, seen) = numbers().ok_or_else(|| take::corrupt("a device", &"too short"))?;
    let Known(profile) = match profile {
        [] => Known(Profile::default()),
        profile => take::record(profile, "the profile of a device")?,
    };
    let first_seen = Timestamp::from_millis(seen);
    Ok(Device { id: parts.name()?, ordinal, env, generation, first_seen, profile })
}
