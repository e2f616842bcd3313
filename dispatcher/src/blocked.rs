//! Who is suppressed, who opted out, when it is quiet, and what is capped, as every message must know it: read again each
//! second, not for each message.

use std::{collections::HashMap, hash::Hash, sync::Arc, time::Duration};

use audience::{Resting, SelectError};
use model::{AppId, Cap, Env, Message, Ordinals, QuietHours, Timestamp};
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
    types: Recent<Kind, Arc<Rules>>,
    resting: Recent<(AppId, Env, QuietHours), Arc<Resting>>,
}

/// What holds for a type of messages.
pub(crate) struct Rules {
    /// Who wants none of it. Such a set may be large: it is read again only when one of the app's has changed.
    pub(crate) opted_out: Arc<Ordinals>,
    /// The edition it was read at.
    edition: u64,
    /// When it reaches nobody.
    pub(crate) quiet: Option<QuietHours>,
    /// How often a device may get it.
    pub(crate) cap: Option<Cap>,
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

    /// What holds for messages of this type.
    pub(crate) async fn rules(&self, deps: &Deps, message: &Message) -> Result<Arc<Rules>, store::Error> {
        let (store, key) = (&*deps.store, (message.app.clone(), message.env, message.kind.clone()));
        if let Some(rules) = self.types.fresh(&key) {
            return Ok(rules);
        }
        let (at, (app, env, kind)) = (Instant::now(), &key);
        let edition = exclusions::opt_outs_edition(store, app, *env).await?;
        let opted_out = match self.types.last(&key) {
            Some(last) if last.edition == edition => last.opted_out.clone(),
            _ => Arc::new(exclusions::opted_out(store, app, *env, kind).await?),
        };
        let quiet = exclusions::quiet_hours(store, app, *env, kind).await?;
        let cap = exclusions::cap(store, app, *env, kind).await?;
        let rules = Arc::new(Rules { edition, opted_out, quiet, cap });
        self.types.remember(key, at, rules.clone());
        Ok(rules)
    }

    /// Where it is quiet now, by these hours.
    pub(crate) async fn resting(
        &self,
        deps: &Deps,
        message: &Message,
        hours: &QuietHours,
        now: Timestamp,
    ) -> Result<Arc<Resting>, SelectError> {
        let key = (message.app.clone(), message.env, hours.clone());
        if let Some(resting) = self.resting.fresh(&key) {
            return Ok(resting);
        }
        let at = Instant::now();
        let resting = Arc::new(audience::resting(&*deps.select, (&message.app, message.env), hours, now).await?);
        self.resting.remember(key, at, resting.clone());
        Ok(resting)
    }
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
