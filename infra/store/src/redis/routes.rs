//! Where devices are connected: soft state, in the volatile server if there is one.

use async_trait::async_trait;
use deadpool_redis::redis::{Value, cmd};
use model::{AppId, Epoch, NodeId, Ordinal, Route, Timestamp};

use super::{
    Redis,
    key::{self, ROUTE_SHARDS},
    link::Repeat,
    messages::number,
    script::{Call, Step},
    take,
};
use crate::{Claim, Error, Generation, Routes};

/// Routes that one script restores before others get their turn.
const ROUTES_A_STEP: usize = 256;

#[async_trait]
impl Routes for Redis {
    async fn claim(&self, app: &AppId, device: Ordinal, node: &NodeId, now: Timestamp) -> Result<Claim, Error> {
        // The cursor lies elsewhere, and need not be read in the same step: only sessions that were claimed write it,
        // and their numbers are known here unless routes were lost.
        let kept = self.cursor_epoch(app, device).await?;
        let of = self.keys.route(app, device);
        let mut claim = Call::new(Step::Claim);
        claim.key(of.routes(device)).key(of.last_epoch());
        claim.arg(key::route_slot(device)).arg(node.as_str()).arg(kept.0).arg(Epoch(0).next(now).0);
        // Claimed twice, it would find itself as the one before.
        let answers = match self.volatile.ask(vec![claim.cmd()], Repeat::Never).await {
            // While routes are away the clock numbers sessions: who opened one before is told by the cursor's fence.
            Err(Error::Unavailable(_)) => {
                return Ok(Claim { epoch: kept.next(now), previous: None, routed: false });
            }
            answers => answers?,
        };
        let (epoch, previous): (u64, Option<Vec<u8>>) = match take::value::<Vec<Value>>(take::only(answers)?)? {
            mut said if said.len() == 2 => {
                let previous = take::value(said.pop().unwrap_or_default())?;
                (take::value(said.pop().unwrap_or_default())?, previous)
            }
            // A script's array ends before its first nil.
            mut said => (take::value(said.pop().unwrap_or_default())?, None),
        };
        let previous = previous.map(|route| read(&route)).transpose()?;
        Ok(Claim { epoch: Epoch(epoch), previous, routed: true })
    }

    async fn release(&self, app: &AppId, device: Ordinal, epoch: Epoch) -> Result<(), Error> {
        let of = self.keys.route(app, device);
        let mut release = Call::new(Step::Release);
        release.key(of.routes(device));
        release.arg(key::route_slot(device)).arg(&epoch.0.to_be_bytes()[..]);
        self.volatile.ask(vec![release.cmd()], Repeat::Once).await.map(drop)
    }

    async fn routes(&self, app: &AppId, devices: &[Ordinal]) -> Result<Vec<Option<Route>>, Error> {
        let get = |device: &Ordinal| {
            let mut get = cmd("HGET");
            get.arg(self.keys.route(app, *device).routes(*device)).arg(key::route_slot(*device));
            get
        };
        let answers = self.volatile.ask(devices.iter().map(get).collect(), Repeat::Once).await?;
        let route = |answer| take::value::<Option<Vec<u8>>>(answer)?.map(|route| read(&route)).transpose();
        answers.into_iter().map(route).collect()
    }

    async fn generation(&self, fresh: u128) -> Result<Generation, Error> {
        let (mut set, mut get) = (cmd("SET"), cmd("GET"));
        set.arg(self.keys.generation()).arg(&fresh.to_be_bytes()[..]).arg("NX");
        get.arg(self.keys.generation());
        Ok(Generation(take::value(take::only(self.volatile.ask(vec![set, get], Repeat::Once).await?)?)?))
    }

    async fn restore(&self, app: &AppId, node: &NodeId, routes: &[(Ordinal, Epoch)]) -> Result<Vec<bool>, Error> {
        let mut shards = vec![Vec::new(); ROUTE_SHARDS as usize];
        for (place, (device, _)) in routes.iter().enumerate() {
            shards[key::route_shard(*device) as usize].push(place);
        }
        let (mut steps, mut order) = (Vec::new(), Vec::new());
        for (shard, places) in (0..).zip(&shards) {
            let of = self.keys.route_shard(app, shard);
            for page in places.chunks(ROUTES_A_STEP) {
                let mut restore = Call::new(Step::Restore);
                restore.key(of.last_epoch()).arg(node.as_str());
                for (device, epoch) in page.iter().map(|place| routes[*place]) {
                    restore.key(of.routes(device)).arg(key::route_slot(device)).arg(&epoch.0.to_be_bytes()[..]);
                }
                steps.push(restore.cmd());
                order.extend_from_slice(page);
            }
        }
        let mut there = vec![false; routes.len()];
        let mut order = order.into_iter();
        for answer in self.volatile.ask(steps, Repeat::Once).await? {
            let said: Vec<bool> = take::value(answer)?;
            order.by_ref().take(said.len()).zip(said).for_each(|(place, is)| there[place] = is);
        }
        Ok(there)
    }
}

fn read(route: &[u8]) -> Result<Route, Error> {
    let node = route.get(8..).and_then(|node| str::from_utf8(node).ok()).and_then(|node| node.parse().ok());
    let node = node.ok_or_else(|| take::corrupt("a route", &"not a node"))?;
    Ok(Route { node, epoch: Epoch(number(route, 0)) })
}
