//! Who is suppressed, who opted out, and what is capped, as every message must know it: read again each second, not for
//! each message.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use model::{AppId, Cap, Env, Message, Ordinals, Timestamp};
use parking_lot::Mutex;
use store::exclusions;
use tokio::time::Instant;

use crate::Deps;

/// How long what was read counts: a suppression takes effect within this time.
const FRESH: Duration = Duration::from_secs(1);

/// Apps, or types of messages, that are remembered; beyond it all are read anew.
const REMEMBERED_MAX: usize = 10_000;

/// A type of messages of an environment of an app.
type Kind = (AppId, Env, String);

/// What is known of those who are to get nothing.
#[derive(Default)]
pub(crate) struct Blocked {
    suppressed: Recent<(AppId, Env), Arc<Ordinals>>,
    /// With the edition they were read at.
    opted_out: Recent<Kind, (u64, Arc<Ordinals>)>,
    caps: Recent<Kind, Option<Cap>>,
}

impl Blocked {
    /// Who gets nothing from the message's app.
    pub(crate) async fn suppressed(
        &self,
        deps: &Deps,
        message: &Message,
        now: Timestamp,
    ) -> Result<Arc<Ordinals>, store::Error> {
        let key = (message.app.clone(), message.env);
        if let Some(suppressed) = self.suppressed.fresh(&key) {
            return Ok(suppressed);
        }
        let at = Instant::now();
        let suppressed = Arc::new(exclusions::suppressed(&*deps.store, &message.app, message.env, now).await?);
        self.suppressed.remember(key, at, suppressed.clone());
        Ok(suppressed)
    }

    /// Who wants no messages of this type. Such a set may be large: it is read again only when one has changed.
    pub(crate) async fn opted_out(&self, deps: &Deps, message: &Message) -> Result<Arc<Ordinals>, store::Error> {
        let (store, key) = (&*deps.store, kind(message));
        if let Some((_, devices)) = self.opted_out.fresh(&key) {
            return Ok(devices);
        }
        let at = Instant::now();
        let edition = exclusions::opt_outs_edition(store, &message.app, message.env).await?;
        let devices = match self.opted_out.last(&key) {
            Some((seen, devices)) if seen == edition => devices,
            _ => Arc::new(exclusions::opted_out(store, &message.app, message.env, &message.kind).await?),
        };
        self.opted_out.remember(key, at, (edition, devices.clone()));
        Ok(devices)
    }

    /// How often a device may get messages of this type.
    pub(crate) async fn cap(&self, deps: &Deps, message: &Message) -> Result<Option<Cap>, store::Error> {
        let key = kind(message);
        if let Some(cap) = self.caps.fresh(&key) {
            return Ok(cap);
        }
        let at = Instant::now();
        let cap = exclusions::cap(&*deps.store, &message.app, message.env, &message.kind).await?;
        self.caps.remember(key, at, cap);
        Ok(cap)
    }
}

fn kind(message: &Message) -> Kind {
    (message.app.clone(), message.env, message.kind.clone())
}

/// What was read lately, and when the reading began.
struct Recent<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    fn last(&self, key: &K) -> Option<V> {
        self.0.lock().get(key).map(|(_, value)| value.clone())
    }

    fn fresh(&self, key: &K) -> Option<V> {
        self.0.lock().get(key).filter(|(at, _)| at.elapsed() < FRESH).map(|(_, value)| value.clone())
    }

    fn remember(&self, key: K, at: Instant, value: V) {
        let mut recent = self.0.lock();
        if recent.len() >= REMEMBERED_MAX {
            recent.clear();
        }
        recent.insert(key, (at, value));
    }
}
