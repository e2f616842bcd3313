//! Noticing that a server forgot: Redis does not tell when a replica that was promoted, or a restart, lost writes.
//!
//! A node counts its own signs of life in the durable server and beside it in memory. A count that went back means
//! that whatever was written since is gone as well. In the volatile server a random generation stands for the routes:
//! another one means that all were lost and have to be told again.

use deadpool_redis::redis::cmd;
use model::{AppId, Epoch, NodeId, Ordinal};
use parking_lot::Mutex;

use super::{
    Redis,
    key::{self, ROUTE_SHARDS},
    link::Repeat,
    script::{Call, Step},
    take,
};
use crate::Error;

/// Routes that one script restores before others get their turn.
const ROUTES_A_STEP: usize = 256;

/// The life of a route store between two losses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation(Vec<u8>);

/// What the durable server has forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How many signs of life of this node are gone: as many periods of [`Redis::sign_of_life`].
    pub signs: u64,
}

/// The last count this process was told.
#[derive(Default)]
pub(super) struct Canary(Mutex<Option<u64>>);

impl Redis {
    /// Writes a sign of life of `node` among the messages, and says whether the durable server has lost writes since
    /// the last one. To be called about once a second, by one process a node; a repeated call counts once.
    ///
    /// # Errors
    /// Unavailable when the server does not answer: then nothing is known, and the next call tells.
    pub async fn sign_of_life(&self, node: &NodeId) -> Result<Option<Lost>, Error> {
        let mut count = cmd("HINCRBY");
        count.arg(self.keys.canary()).arg(node.as_str()).arg(1);
        let told: u64 = take::value(self.write_one(count, Repeat::Never).await?)?;
        let before = self.canary.0.lock().replace(told);
        // A sign whose answer was lost counts too: only less than expected is a loss.
        let lost = before.filter(|before| told <= *before).map(|before| Lost { signs: before + 1 - told });
        if lost.is_some() {
            // What was noted in the server as seen may be among what it lost.
            self.seen.lock().clear();
        }
        Ok(lost)
    }

    /// Which life the route store is in; `fresh` must be random, it names a new life when there is none. When it is
    /// not the one seen before, every route is gone: tell them again ([`Redis::restore`]), and take a miss as unknown.
    ///
    /// # Errors
    /// Unavailable when the server does not answer.
    pub async fn routes_generation(&self, fresh: u128) -> Result<Generation, Error> {
        let (mut set, mut get) = (cmd("SET"), cmd("GET"));
        set.arg(self.keys.generation()).arg(&fresh.to_be_bytes()[..]).arg("NX");
        get.arg(self.keys.generation());
        Ok(Generation(take::value(take::only(self.volatile.ask(vec![set, get], Repeat::Once).await?)?)?))
    }

    /// Tells routes again that `node` still serves; says of each, in the order given, whether it is there now: a
    /// later session's is left alone.
    ///
    /// # Errors
    /// Unavailable when the server does not answer; some may be there then.
    pub async fn restore(&self, app: &AppId, node: &NodeId, routes: &[(Ordinal, Epoch)]) -> Result<Vec<bool>, Error> {
        let mut shards = vec![Vec::new(); ROUTE_SHARDS as usize];
        for (place, (device, _)) in routes.iter().enumerate() {
            shards[key::route_shard(*device) as usize].push(place);
        }
        let (mut steps, mut order) = (Vec::new(), Vec::new());
        for (shard, places) in (0..).zip(&shards) {
            let of = self.keys.route_shard(app, shard);
            for page in places.chunks(ROUTES_A_STEP) {
                let mut restore = Call::new(Step::Restore);
                restore.key(of.online()).key(of.last_epoch()).arg(node.as_str());
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
