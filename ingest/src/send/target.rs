//! Whom a message is for, looked up: the lane, the queue and the audience that travel with it.

use std::{collections::BTreeMap, time::Duration};

use audience::{Expr, Frozen, Leaf, Saved, freeze, may_hold_for_unknown, resting};
use model::{
    Audience, AudienceId, Env, Exclusion, Lane, Means, Ordinals, Priority, Queue, SavedAudience, Shard, Terms,
};
use store::{devices::ordinals, exclusions, shelves};

use super::request::To;
use crate::{
    api::Api,
    auth::Caller,
    callback, filter,
    problem::{Code, Problem},
    view::Warning,
};

/// How long a send waits to be told how many a filter means: nobody notices, and an index that is there needs far less.
const COUNT_PATIENCE: Duration = Duration::from_millis(500);

/// Whom a message is for.
pub(crate) struct Target {
    pub(crate) lane: Lane,
    pub(super) queue: Queue,
    /// `None` when nobody is.
    pub(super) audience: Option<Audience>,
    /// What the sender's filter says.
    pub(crate) filter: Option<Expr>,
    /// How many devices that is at most.
    count: u64,
    pub(crate) warnings: Vec<Warning>,
}

impl Target {
    /// Looks `to` up among the devices that the caller can reach; ids that are unknown, or of the other environment,
    /// become a warning.
    ///
    /// # Errors
    /// `invalid_request` for an unknown group or audience or a wrong filter; whatever the store says.
    pub(crate) async fn find(api: &Api, caller: &Caller, to: &To) -> Result<Self, Problem> {
        let (app, env, store) = (caller.app(), caller.env(), &api.store);
        match to {
            To::Devices(ids) => {
                let (known, unknown) = ordinals(&**store, app, env, ids).await?;
                Ok(Self::listed(api, caller, known, &unknown, ids.len() == 1))
            }
            To::Users(ids) => {
                let of_each = store.devices_of(app, env, ids).await?;
                let mut known = Ordinals::new();
                let by_user: BTreeMap<_, _> = ids.iter().zip(&of_each).collect();
                by_user.values().for_each(|devices| known |= devices);
                let without = ids.iter().zip(&of_each).filter(|(_, devices)| devices.is_empty());
                let unknown: Vec<_> = without.map(|(id, _)| id).collect();
                Ok(Self::listed(api, caller, known, &unknown, false))
            }
            To::Group(id) => {
                let unknown = || filter::unknown("#/to/group", Saved::Group(*id));
                let group = store.group(app, *id).await?.filter(|group| group.env == env).ok_or_else(unknown)?;
                if !group.source.is_static() {
                    let (known, unknown) = callback::members(api, caller, &group).await?;
                    return Ok(Self::listed(api, caller, known, &unknown, false));
                }
                let count = store.members(app, *id).await?.ok_or_else(unknown)?.len();
                Ok(Self::shared(caller, Lane::Multicast, Audience::Group(*id), count))
            }
            To::Audience(id) => Self::saved(api, caller, *id).await,
            To::Filter(written) => {
                let expr = written.compile(store, app, env).await?;
                Self::filtered(api, caller, expr).await
            }
            To::All => Self::all(api, caller, env).await,
        }
    }

    async fn saved(api: &Api, caller: &Caller, id: AudienceId) -> Result<Self, Problem> {
        let (app, env, store) = (caller.app(), caller.env(), &*api.store);
        let named = Saved::Audience(id);
        let found = shelves::find::<SavedAudience>(store, app, env, &id.to_string()).await?;
        let audience = Audience::Filter(Leaf::Saved(named).to_string());
        match found.ok_or_else(|| filter::unknown("#/to/audience", named))?.means {
            Means::List(count) => Ok(Self::shared(caller, Lane::Multicast, audience, count)),
            Means::Filter(_) => {
                let count = store.registered(app, env).await?.len();
                Ok(Self::shared(caller, Lane::Broadcast, audience, count))
            }
        }
    }

    async fn filtered(api: &Api, caller: &Caller, expr: Expr) -> Result<Self, Problem> {
        let count = api.store.registered(caller.app(), caller.env()).await?.len();
        let mut target = Self::shared(caller, Lane::Broadcast, Audience::Filter(expr.to_string()), count);
        if may_hold_for_unknown(&expr) {
            target.warnings.push(Warning::means_unknown());
        }
        target.filter = Some(expr);
        Ok(target)
    }

    /// The count is read first: a device that registers meanwhile is counted at most too much, and gets nothing.
    async fn all(api: &Api, caller: &Caller, env: Env) -> Result<Self, Problem> {
        let below = api.store.count(caller.app()).await?;
        let count = api.store.registered(caller.app(), env).await?.below(below).len();
        Ok(Self::shared(caller, Lane::Broadcast, Audience::All { below }, count))
    }

    fn listed(api: &Api, caller: &Caller, known: Ordinals, unknown: &[impl ToString], single: bool) -> Self {
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
        Self { lane, queue: Queue::Push(lane, shard), audience, filter: None, count, warnings }
    }

    fn shared(caller: &Caller, lane: Lane, audience: Audience, count: u64) -> Self {
        let queue = Queue::Push(lane, Shard::of_app(caller.app()));
        Self { lane, queue, audience: (count > 0).then_some(audience), filter: None, count, warnings: Vec::new() }
    }

    /// How many devices that is, as far as it can be told at once: what a quota is charged. A filter is counted as it
    /// would be answered now; where nobody can say so soon, everybody counts, and the message is taken all the same:
    /// whom it goes to is decided when it is dispatched.
    pub(super) async fn recipients(&self, api: &Api, caller: &Caller) -> u64 {
        let (Some(Audience::Filter(text)), Some(select)) = (&self.audience, &api.select) else { return self.count };
        let counted = select.count(caller.app(), caller.env(), text, api.clock.now());
        match tokio::time::timeout(COUNT_PATIENCE, counted).await {
            Ok(Ok(count)) => count,
            Ok(Err(_)) | Err(_) => self.count,
        }
    }

    /// Who would get a message of this type, were it dispatched now: what the dispatcher would decide, without deciding
    /// anything.
    ///
    /// # Errors
    /// Whatever the store or the filter tier says.
    pub(crate) async fn now(
        &self,
        api: &Api,
        caller: &Caller,
        terms: &Terms,
        kind: Option<(&str, Priority)>,
    ) -> Result<Frozen, Problem> {
        let (app, env, store, now) = (caller.app(), caller.env(), &*api.store, api.clock.now());
        let Some(audience) = &self.audience else { return Ok(Frozen::default()) };
        let no_filter = || Problem::new(Code::FilterUnavailable, "this installation has no filter tier");
        let meant = match audience {
            Audience::One(device) => std::iter::once(*device).collect(),
            Audience::Devices(devices) => devices.clone(),
            Audience::Group(id) => {
                let mut members = store.members(app, *id).await?.unwrap_or_default();
                members &= &store.registered(app, env).await?;
                members
            }
            Audience::Filter(text) => api.select.as_ref().ok_or_else(no_filter)?.select(app, env, text, now).await?,
            Audience::All { below } => store.registered(app, env).await?.below(*below),
        };
        let mut frozen = match &api.select {
            Some(select) => freeze(&**select, (app, env), meant, terms, now).await?,
            None if terms.are_none() => Frozen::of(meant),
            None => return Err(no_filter()),
        };
        frozen.take_out(Exclusion::Suppressions, &exclusions::suppressed(store, app, env, now).await?);
        if let Some((kind, priority)) = kind {
            frozen.take_out(Exclusion::OptOuts, &exclusions::opted_out(store, app, env, kind).await?);
            let quiet = exclusions::quiet_hours(store, app, env, kind).await?;
            if let Some(hours) = quiet.filter(|_| priority != Priority::High) {
                let select = api.select.as_ref().ok_or_else(no_filter)?;
                let resting = resting(&**select, (app, env), &hours, now).await?;
                frozen.take_out(Exclusion::QuietHours, &resting.among(&frozen.targets));
            }
            frozen.take_out(Exclusion::FrequencyCap, &exclusions::capped(store, (app, env), kind, now).await?);
        }
        Ok(frozen)
    }
}
