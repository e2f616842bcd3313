//! Who is suppressed and who opted out, as every message must know it: read again each second, not for each message.

use std::{collections::HashMap, sync::Arc, time::Duration};

use model::{AppId, Env, Message, Ordinals, Timestamp};
use parking_lot::Mutex;
use store::exclusions;
use tokio::time::Instant;

use crate::Deps;

/// How long what was read counts: a suppression takes effect within this time.
const FRESH: Duration = Duration::from_secs(1);

/// Apps and types that are remembered; beyond it all are read anew.
const REMEMBERED_MAX: usize = 10_000;

/// What was read, and when.
#[derive(Clone)]
struct Seen<T> {
    at: Instant,
    value: T,
}

/// What is known of those who are to get nothing.
#[derive(Default)]
pub(crate) struct Blocked {
    suppressed: Mutex<HashMap<(AppId, Env), Seen<Arc<Ordinals>>>>,
    /// By message type; with the edition they were read at.
    opted_out: Mutex<HashMap<(AppId, Env, String), Seen<(u64, Arc<Ordinals>)>>>,
}

impl Blocked {
    /// Who gets nothing from the message's app, and who nothing of its type.
    pub(crate) async fn of(
        &self,
        deps: &Deps,
        message: &Message,
        now: Timestamp,
    ) -> Result<(Arc<Ordinals>, Arc<Ordinals>), store::Error> {
        Ok((self.suppressed(deps, message, now).await?, self.opted_out(deps, message).await?))
    }

    async fn suppressed(&self, deps: &Deps, message: &Message, now: Timestamp) -> Result<Arc<Ordinals>, store::Error> {
        let key = (message.app.clone(), message.env);
        if let Some(seen) = fresh(&self.suppressed, &key) {
            return Ok(seen.value);
        }
        let at = Instant::now();
        let value = Arc::new(exclusions::suppressed(&*deps.store, &message.app, message.env, now).await?);
        remember(&self.suppressed, key, Seen { at, value: value.clone() });
        Ok(value)
    }

    /// Such a set may be large: it is read again only when somebody has changed one.
    async fn opted_out(&self, deps: &Deps, message: &Message) -> Result<Arc<Ordinals>, store::Error> {
        let (store, key) = (&*deps.store, (message.app.clone(), message.env, message.kind.clone()));
        if let Some(Seen { value: (_, devices), .. }) = fresh(&self.opted_out, &key) {
            return Ok(devices);
        }
        let at = Instant::now();
        let edition = exclusions::opt_outs_edition(store, &message.app, message.env).await?;
        let before = self.opted_out.lock().get(&key).map(|seen| seen.value.clone());
        let devices = match before {
            Some((seen, devices)) if seen == edition => devices,
            _ => Arc::new(exclusions::opted_out(store, &message.app, message.env, &message.kind).await?),
        };
        remember(&self.opted_out, key, Seen { at, value: (edition, devices.clone()) });
        Ok(devices)
    }
}

fn fresh<K: Eq + std::hash::Hash, T: Clone>(seen: &Mutex<HashMap<K, Seen<T>>>, key: &K) -> Option<Seen<T>> {
    seen.lock().get(key).filter(|seen| seen.at.elapsed() < FRESH).cloned()
}

fn remember<K: Eq + std::hash::Hash, T>(seen: &Mutex<HashMap<K, Seen<T>>>, key: K, value: Seen<T>) {
    let mut seen = seen.lock();
    if seen.len() >= REMEMBERED_MAX {
        seen.clear();
    }
    seen.insert(key, value);
}
