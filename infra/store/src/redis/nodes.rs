//! Which processes run, and their duties: soft state, in the volatile server if there is one.

use std::time::Duration;

use async_trait::async_trait;
use deadpool_redis::redis::cmd;
use model::{Node, NodeId, Timestamp, record::Record as _};

use super::{
    Redis,
    link::Repeat,
    messages::number,
    script::{Call, Step},
    take,
};
use crate::{
    Error, Nodes,
    nodes::{ALL_HEARD, Heard, NODE_LEASE},
};

/// How long a node that says nothing any more is kept: a clock that is ahead forgets nobody who runs.
const KEPT: Duration = Duration::from_hours(1);

/// Where what a node says begins, behind its boot and when it was seen.
const SAID_AT: usize = 16;

#[async_trait]
impl Nodes for Redis {
    async fn beat(&self, node: Node) -> Result<bool, Error> {
        let mut beat = Call::new(Step::Beat);
        beat.key(self.keys.nodes()).key(self.keys.heard());
        beat.arg(node.id.as_str()).arg(node.boot.as_millis()).arg(node.seen_at.as_millis());
        beat.arg(millis(NODE_LEASE)).arg(node.encode()).arg(millis(ALL_HEARD));
        self.ask_volatile(&beat).await
    }

    async fn depart(&self, id: &NodeId, boot: Timestamp) -> Result<(), Error> {
        let mut depart = Call::new(Step::Depart);
        depart.key(self.keys.nodes()).arg(id.as_str()).arg(boot.as_millis());
        self.ask_volatile(&depart).await.map(drop)
    }

    async fn nodes(&self, now: Timestamp) -> Result<Vec<Node>, Error> {
        let mut get = cmd("HVALS");
        get.arg(self.keys.nodes());
        let kept: Vec<Vec<u8>> = take::value(take::only(self.volatile.ask(vec![get], Repeat::Once).await?)?)?;
        let read = |kept: &Vec<u8>| take::record(kept.get(SAID_AT..).unwrap_or_default(), "a node");
        let nodes = kept.iter().map(read).collect::<Result<Vec<Node>, _>>()?;
        let (mut running, gone): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| now < node.seen_at + NODE_LEASE);
        let gone: Vec<_> = gone.iter().filter(|node| node.seen_at < now - KEPT).collect();
        if !gone.is_empty() {
            let mut bury = Call::new(Step::Bury);
            bury.key(self.keys.nodes()).arg((now - KEPT).as_millis());
            gone.iter().for_each(|node| _ = bury.arg(node.id.as_str()));
            self.ask_volatile(&bury).await?;
        }
        running.sort_by(|a, b| a.id.cmp(&b.id));
        Ok(running)
    }

    async fn heard(&self) -> Result<Option<Heard>, Error> {
        let mut get = cmd("GET");
        get.arg(self.keys.heard());
        let kept: Option<Vec<u8>> = take::value(take::only(self.volatile.ask(vec![get], Repeat::Once).await?)?)?;
        let at = |kept: &[u8], place| Timestamp::from_millis(number(kept, place));
        Ok(kept.map(|kept| Heard { since: at(&kept, 0), last: at(&kept, 8) }))
    }

    async fn hold(&self, duty: &str, node: &NodeId, now: Timestamp, lease: Duration) -> Result<bool, Error> {
        let mut hold = Call::new(Step::Hold);
        hold.key(self.keys.duties()).arg(duty).arg(node.as_str());
        hold.arg(now.as_millis()).arg((now + lease).as_millis());
        self.ask_volatile(&hold).await
    }
}

impl Redis {
    async fn ask_volatile(&self, call: &Call) -> Result<bool, Error> {
        take::value(take::only(self.volatile.ask(vec![call.cmd()], Repeat::Once).await?)?)
    }
}

fn millis(time: Duration) -> String {
    time.as_millis().to_string()
}
