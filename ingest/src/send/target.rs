//! Whom a message is for, looked up: the lane, the queue and the audience that travel with it.

use std::collections::BTreeMap;

use model::{Audience, Env, Lane, Ordinals, Queue, Shard};

use super::request::To;
use crate::{api::Api, auth::Caller, problem::Problem, view::Warning};

/// Whom a message is for.
pub(super) struct Target {
    pub(super) lane: Lane,
    pub(super) queue: Queue,
    /// `None` when nobody is.
    pub(super) audience: Option<Audience>,
    /// How many devices that is; for a filter, at most.
    pub(super) count: u64,
    pub(super) warnings: Vec<Warning>,
}

impl Target {
    /// Looks `to` up among the devices that the caller can reach; ids that are unknown, or of the other environment,
    /// become a warning.
    ///
    /// # Errors
    /// `invalid_request` for an unknown group or a wrong filter; whatever the store says.
    pub(super) async fn find(api: &Api, caller: &Caller, to: &To) -> Result<Self, Problem> {
        let (app, env, store) = (caller.app(), caller.env(), &api.store);
        match to {
            To::Devices(ids) => {
                let found = store.devices(app, ids).await?;
                let reachable = found.into_iter().map(|device| device.filter(|device| device.env == env));
                let (mut known, mut unknown) = (Ordinals::new(), Vec::new());
                for (id, device) in ids.iter().zip(reachable) {
                    match device {
                        Some(device) => {
                            known.insert(device.ordinal);
                        }
                        None => unknown.push(id.to_string()),
                    }
                }
                Ok(Self::listed(api, caller, known, &unknown, ids.len() == 1))
            }
            To::Users(ids) => {
                let of_each = store.devices_of(app, env, ids).await?;
                let mut known = Ordinals::new();
                let by_user: BTreeMap<_, _> = ids.iter().zip(&of_each).collect();
                by_user.values().for_each(|devices| known |= devices);
                let without = ids.iter().zip(&of_each).filter(|(_, devices)| devices.is_empty());
                let unknown: Vec<_> = without.map(|(id, _)| id.to_string()).collect();
                Ok(Self::listed(api, caller, known, &unknown, false))
            }
            To::Group(id) => {
                let ours = store.group(app, *id).await?.is_some_and(|group| group.env == env);
                let members = if ours { store.members(app, *id).await? } else { None };
                let unknown = || Problem::fault("#/to/group", "unknown_group", "there is no such group");
                let count = members.ok_or_else(unknown)?.len();
                Ok(Self::shared(caller, Lane::Multicast, Audience::Group(*id), count))
            }
            To::Filter(text) => {
                if let Some(select) = &api.select {
                    select.check(app, text).map_err(audience::SelectError::Invalid)?;
                }
                let count = store.registered(app, env).await?.len();
                Ok(Self::shared(caller, Lane::Broadcast, Audience::Filter(text.clone()), count))
            }
            To::All => Self::all(api, caller, env).await,
        }
    }

    /// The count is read first: a device that registers meanwhile is counted at most too much, and gets nothing.
    async fn all(api: &Api, caller: &Caller, env: Env) -> Result<Self, Problem> {
        let below = api.store.count(caller.app()).await?;
        let count = api.store.registered(caller.app(), env).await?.below(below).len();
        Ok(Self::shared(caller, Lane::Broadcast, Audience::All { below }, count))
    }

    fn listed(api: &Api, caller: &Caller, known: Ordinals, unknown: &[String], single: bool) -> Self {
        let app = caller.app();
        let count = known.len();
        let first = known.iter().next();
        let warnings = Warning::unknown(unknown).into_iter().collect();
        let (lane, shard, audience) = match first {
            Some(device) if single => {
                let shard = Shard::of_device(app, device, api.config.unicast_shards);
                (Lane::Unicast, shard, Some(Audience::One(device)))
            }
            Some(_) => (Lane::Multicast, Shard::of_app(app), Some(Audience::Devices(known))),
            None => (if single { Lane::Unicast } else { Lane::Multicast }, Shard::of_app(app), None),
        };
        Self { lane, queue: Queue::Push(lane, shard), audience, count, warnings }
    }

    fn shared(caller: &Caller, lane: Lane, audience: Audience, count: u64) -> Self {
        let queue = Queue::Push(lane, Shard::of_app(caller.app()));
        Self { lane, queue, audience: (count > 0).then_some(audience), count, warnings: Vec::new() }
    }
}
