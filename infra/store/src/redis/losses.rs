//! Noticing that a server forgot: Redis does not tell when a replica that was promoted, or a restart, lost writes.
//!
//! A node counts its own signs of life in the durable server and beside it in memory. A count that went back means
//! that whatever was written since is gone as well.

use deadpool_redis::redis::cmd;
use model::NodeId;
use parking_lot::Mutex;

use super::{Redis, link::Repeat, take};
use crate::Error;

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
}
