//! Brings what was told of devices into their profiles. Each change is made to what is known at that moment: whoever
//! changes a device at the same time loses nothing, and neither does the device.

use std::collections::{BTreeMap, HashMap};

use audience::patch::{self, InvalidPatch};
use model::{AppId, Device, DeviceId, Env, Ordinal, Profile, Report, Reported, Seen, report::PATCH_MAX_BYTES};
use store::Amendment;
use tracing::{debug, warn};

use super::Outcomes;
use crate::{Deps, attributes::Catalogue};

/// Devices changed in one call: whoever else asks the store waits for it, and after a storm there is one for every device.
const CALL_MAX: usize = 250;

/// How often devices that others change meanwhile are read again; each time somebody else has succeeded.
const ROUNDS_MAX: usize = 8;

/// Something that was told of a device.
enum Told<'a> {
    Reported(&'a Report),
    Seen(Ordinal, &'a Seen),
}

/// What was told of each device of an app, in order.
type Devices<'a> = BTreeMap<&'a DeviceId, Vec<Told<'a>>>;

/// Merges all of it; doing so again changes nothing.
pub(super) async fn merge(deps: &Deps, reported: &[Reported]) -> Result<Outcomes, store::Error> {
    let mut apps = BTreeMap::<&AppId, Devices<'_>>::new();
    for reported in reported {
        match reported {
            Reported::Report(report) => {
                let devices = apps.entry(&report.app).or_default();
                devices.entry(&report.device).or_default().push(Told::Reported(report));
            }
            Reported::Seen(sightings) => {
                let devices = apps.entry(&sightings.app).or_default();
                for sighting in &sightings.devices {
                    devices.entry(&sighting.device).or_default().push(Told::Seen(sighting.ordinal, &sighting.seen));
                }
            }
        }
    }
    let mut outcomes = Outcomes::default();
    for (app, devices) in apps {
        let mut merging = Merging { deps, app, catalogues: HashMap::new() };
        let mut devices: Vec<_> = devices.into_iter().collect();
        while !devices.is_empty() {
            let page = devices.split_off(devices.len().saturating_sub(CALL_MAX));
            merging.page(page, &mut outcomes).await?;
        }
    }
    Ok(outcomes)
}

/// Changes of the devices of one app.
struct Merging<'a> {
    deps: &'a Deps,
    app: &'a AppId,
    catalogues: HashMap<Env, Catalogue>,
}

impl Merging<'_> {
    async fn page(
        &mut self,
        mut waiting: Vec<(&DeviceId, Vec<Told<'_>>)>,
        outcomes: &mut Outcomes,
    ) -> Result<(), store::Error> {
        for _ in 0..ROUNDS_MAX {
            waiting = self.round(waiting, outcomes).await?;
            if waiting.is_empty() {
                return Ok(());
            }
        }
        Err(store::Error::Unavailable("devices are changed faster than they are read".into()))
    }

    /// Merges what can be merged now; returns those who were changed meanwhile.
    async fn round<'d>(
        &mut self,
        waiting: Vec<(&'d DeviceId, Vec<Told<'d>>)>,
        outcomes: &mut Outcomes,
    ) -> Result<Vec<(&'d DeviceId, Vec<Told<'d>>)>, store::Error> {
        let ids: Vec<DeviceId> = waiting.iter().map(|(id, _)| (*id).clone()).collect();
        let found = self.deps.store.devices(self.app, &ids).await?;
        let (mut amendments, mut amended) = (Vec::new(), Vec::new());
        for ((id, told), device) in waiting.into_iter().zip(found) {
            let Some(before) = device else {
                debug!(app.id = %self.app, device.id = %id, "told of a device that is gone");
                outcomes.stale += told.len() as u64;
                continue;
            };
            let (profile, came) = self.known(&before, &told).await?;
            if profile == before.profile {
                outcomes.add(&came);
                continue;
            }
            amendments.push(Amendment { before, profile });
            amended.push((id, told, came));
        }
        if amendments.is_empty() {
            return Ok(Vec::new());
        }
        let done = self.deps.store.amend(self.app, amendments, self.deps.clock.now()).await?;
        let mut again = Vec::new();
        for ((id, told, came), done) in amended.into_iter().zip(done) {
            if done {
                outcomes.add(&came);
            } else {
                again.push((id, told));
            }
        }
        Ok(again)
    }

    /// What is known of a device after all that was told, and what came of it.
    async fn known(&mut self, device: &Device, told: &[Told<'_>]) -> Result<(Profile, Outcomes), store::Error> {
        let (mut profile, mut came) = (device.profile.clone(), Outcomes::default());
        for told in told {
            let ordinal = match told {
                Told::Reported(report) => report.ordinal,
                Told::Seen(ordinal, _) => *ordinal,
            };
            if ordinal != device.ordinal {
                came.stale += 1;
                continue;
            }
            match told {
                Told::Seen(_, seen) => {
                    came.seen += 1;
                    if profile.seen.as_ref().is_none_or(|known| seen.is_news_after(known)) {
                        profile.seen = Some((*seen).clone());
                    }
                }
                Told::Reported(report) => match apply(&profile, report) {
                    Ok(mut after) => {
                        let (store, catalogue) = (&*self.deps.store, self.catalogue(device.env).await?);
                        came.refused += catalogue.admit(store, &profile, &mut after).await?;
                        came.merged += 1;
                        profile = after;
                    }
                    Err(invalid) => {
                        warn!(app.id = %self.app, device.id = %device.id, %invalid, "dropped what a device reported");
                        came.invalid += 1;
                    }
                },
            }
        }
        Ok((profile, came))
    }

    /// The attributes of an environment, as they were when it was first met here.
    async fn catalogue(&mut self, env: Env) -> Result<&mut Catalogue, store::Error> {
        if !self.catalogues.contains_key(&env) {
            self.catalogues.insert(env, Catalogue::read(&*self.deps.store, self.app, env).await?);
        }
        self.catalogues.get_mut(&env).ok_or_else(|| store::Error::Unavailable("attributes were not read".into()))
    }
}

/// The profile after a report. Whose a device is says the backend: a device could otherwise read what is another's.
fn apply(profile: &Profile, report: &Report) -> Result<Profile, InvalidPatch> {
    let refused = |pointer: &str, code, reason| Err(InvalidPatch { pointer: pointer.to_owned(), code, reason });
    if report.patch.len() > PATCH_MAX_BYTES {
        return refused("", "too_large", format!("longer than {PATCH_MAX_BYTES} bytes"));
    }
    let merged = patch::merge(profile, &report.patch)?;
    if merged.user_id != profile.user_id {
        return refused("/user_id", "not_allowed", "is set by the app's backend, not by a device".to_owned());
    }
    Ok(merged)
}
