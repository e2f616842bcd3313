//! The indexes of apps: made when first asked for, caught up with the store before every answer.
//!
//! An answer is as of the moment it was asked for: what the store had taken by then is in it, whoever reported it
//! wherever. What cannot be caught up in time is unavailable, never answered from what was.

use std::{collections::HashMap, sync::Arc, time::Duration};

use audience::SelectError;
use model::{AppId, Env, Ordinal};
use parking_lot::Mutex;
use store::{ChangeId, PAGE_MAX, SharedStore, devices};
use tokio::{
    sync::{Mutex as Turn, OwnedMutexGuard},
    task::{self, JoinError},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{Config, Error, Index, metrics::IndexBytes, snapshot};

/// How long whoever asks waits for an index. One that is made or read meanwhile is ready for those who ask again.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks at what changed: with the time it takes, less than the second within which changes are seen, and
/// little is left to catch up with when somebody asks.
const FOLLOW_EVERY: Duration = Duration::from_millis(500);
/// Changes after which an index is measured again: a few megabytes.
const MEASURE_EVERY: usize = 1 << 16;
/// How long an index that outgrew its memory is not tried again.
const TOO_LARGE_FOR: Duration = Duration::from_mins(10);
/// After so long without a question an index is put down.
const IDLE: Duration = Duration::from_hours(1);
/// Between two snapshots of an index that changes: what a restart has to catch up with.
const SNAPSHOT_EVERY: Duration = Duration::from_mins(5);

/// The indexes of this process.
pub(crate) struct Indexes {
    config: Config,
    store: SharedStore,
    bytes: IndexBytes,
    /// Of each app that was asked about: no more than there are.
    apps: Mutex<HashMap<AppId, Arc<Turn<Held>>>>,
}

/// What is held of one app.
struct Held {
    replica: Option<Replica>,
    asked: Instant,
    /// It outgrew its memory; until when to leave it.
    too_large: Option<Instant>,
}

/// An index, and up to where it contains the changes of the registry.
struct Replica {
    index: Arc<Index>,
    upto: ChangeId,
    /// Changes since it was measured.
    unmeasured: usize,
    /// Up to where its snapshot contains the changes, and when that was made.
    snapshot: Option<(ChangeId, Instant)>,
}

/// Why there is no index to ask.
enum Missing {
    Unavailable(String),
    /// More than may be taken.
    TooLarge(usize),
}

impl From<store::Error> for Missing {
    fn from(error: store::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

impl Indexes {
    pub(crate) fn new(config: Config, store: SharedStore, bytes: IndexBytes) -> Self {
        Self { config, store, bytes, apps: Mutex::default() }
    }

    /// The index of an app, with every change that was made before this call.
    pub(crate) async fn caught_up(self: &Arc<Self>, app: &AppId) -> Result<Arc<Index>, SelectError> {
        let waited = || SelectError::Unavailable(format!("the index of {app} is being made"));
        let deadline = Instant::now() + PATIENCE;
        let held = self.held(app);
        let mut held = time::timeout_at(deadline, held.lock_owned()).await.map_err(|_| waited())?;
        held.asked = Instant::now();
        // A task of its own: an index that is being made gets finished also when nobody waits any more.
        let caught_up = task::spawn(self.clone().catch_up(app.clone(), held));
        let panicked = |error: JoinError| SelectError::Unavailable(error.to_string());
        time::timeout_at(deadline, caught_up).await.map_err(|_| waited())?.map_err(panicked)?
    }

    fn held(&self, app: &AppId) -> Arc<Turn<Held>> {
        let nothing = || Arc::new(Turn::new(Held { replica: None, asked: Instant::now(), too_large: None }));
        self.apps.lock().entry(app.clone()).or_insert_with(nothing).clone()
    }

    async fn catch_up(self: Arc<Self>, app: AppId, mut held: OwnedMutexGuard<Held>) -> Result<Arc<Index>, SelectError> {
        let unavailable = |why: String| Err(SelectError::Unavailable(why));
        let max = self.config.memory_max_bytes;
        if held.too_large.is_some_and(|until| Instant::now() < until) {
            return unavailable(format!("the index of {app} would take more than the {max} bytes of all"));
        }
        match self.try_catch_up(&app, &mut held.replica).await {
            Ok(index) => Ok(index),
            Err(Missing::Unavailable(why)) => unavailable(why),
            Err(Missing::TooLarge(bytes)) => {
                *held = Held { replica: None, too_large: Some(Instant::now() + TOO_LARGE_FOR), ..*held };
                self.bytes.forget(&app);
                warn!(app.id = %app, bytes, max, "the indexes would take more memory than they may");
                unavailable(format!("the index of {app} would take more than the {max} bytes of all"))
            }
        }
    }

    async fn try_catch_up(&self, app: &AppId, replica: &mut Option<Replica>) -> Result<Arc<Index>, Missing> {
        if replica.is_none() {
            *replica = self.restore(app).await;
        }
        if let Some(replica) = replica
            && self.follow(app, replica).await?
        {
            return Ok(replica.index.clone());
        }
        // First, that what is held does not take its room twice.
        *replica = None;
        let mut made = self.make(app).await?;
        if !self.follow(app, &mut made).await? {
            return Err(Missing::Unavailable(format!("the registry of {app} changed faster than it was read")));
        }
        let index = made.index.clone();
        *replica = Some(made);
        Ok(index)
    }

    /// Takes over what changed until now; whether that is still known.
    async fn follow(&self, app: &AppId, replica: &mut Replica) -> Result<bool, Missing> {
        let head = self.store.change_head(app).await?;
        while replica.upto < head {
            let changes = self.store.changes_after(app, replica.upto, PAGE_MAX).await?.unwrap_or_default();
            let Some((last, _)) = changes.last() else { return Ok(false) };
            let mut ordinals: Vec<Ordinal> = changes.iter().map(|(_, ordinal)| *ordinal).collect();
            ordinals.sort_unstable();
            ordinals.dedup();
            self.take_over(app, &replica.index, &ordinals).await?;
            replica.upto = *last;
            self.measure(app, replica, ordinals.len())?;
        }
        self.measure(app, replica, 0)?;
        // A store that lost its last changes is behind.
        Ok(replica.upto == head || self.store.changes_after(app, replica.upto, 1).await?.is_some())
    }

    /// Puts down what is known of these devices now.
    async fn take_over(&self, app: &AppId, index: &Index, ordinals: &[Ordinal]) -> Result<(), Missing> {
        for (ordinal, device) in ordinals.iter().zip(devices::behind(&*self.store, app, ordinals).await?) {
            match device {
                Ok(device) => index.put(&device),
                Err(_) => index.remove(*ordinal),
            }
        }
        Ok(())
    }

    /// Makes an index from the whole registry.
    async fn make(&self, app: &AppId) -> Result<Replica, Missing> {
        let started = Instant::now();
        let upto = self.store.change_head(app).await?;
        let mut replica = Replica { index: Arc::default(), upto, unmeasured: 0, snapshot: None };
        for env in [Env::Live, Env::Test] {
            let mut after = None;
            loop {
                let page = self.store.list(app, env, after, PAGE_MAX).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.ordinal);
                page.iter().for_each(|device| replica.index.put(device));
                self.measure(app, &mut replica, page.len())?;
                task::yield_now().await;
            }
        }
        self.measure(app, &mut replica, MEASURE_EVERY)?;
        info!(app.id = %app, devices = replica.index.len(), seconds = started.elapsed().as_secs_f64(), "made an index");
        Ok(replica)
    }

    /// Holds the indexes within their memory.
    fn measure(&self, app: &AppId, replica: &mut Replica, changes: usize) -> Result<(), Missing> {
        replica.unmeasured += changes;
        if replica.unmeasured < MEASURE_EVERY {
            return Ok(());
        }
        replica.unmeasured = 0;
        let all = self.bytes.set(app, replica.index.bytes());
        if all > self.config.memory_max_bytes { Err(Missing::TooLarge(all)) } else { Ok(()) }
    }

    /// The index as its snapshot has it.
    async fn restore(&self, app: &AppId) -> Option<Replica> {
        let (dir, of) = (self.config.snapshots.clone(), app.clone());
        let started = Instant::now();
        let (index, upto) = match task::spawn_blocking(move || snapshot::read(&dir, &of)).await {
            Ok(Ok(found)) => found?,
            Ok(Err(why)) => {
                warn!(app.id = %app, %why, "cannot use the snapshot of an index; reading the whole registry");
                return None;
            }
            Err(_) => return None,
        };
        info!(app.id = %app, devices = index.len(), seconds = started.elapsed().as_secs_f64(), "restored an index");
        // Measured with the first change, or by whoever follows.
        let snapshot = Some((upto, started));
        Some(Replica { index: Arc::new(index), upto, unmeasured: MEASURE_EVERY, snapshot })
    }

    /// Keeps the indexes that are there up to date, on disk too, until `shutdown`.
    ///
    /// # Errors
    /// None: what fails is tried again.
    pub(crate) async fn follow_all(self: Arc<Self>, shutdown: CancellationToken) -> Result<(), Error> {
        let mut ticks = time::interval(FOLLOW_EVERY);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                _ = ticks.tick() => {}
            }
            let apps: Vec<_> = self.apps.lock().iter().map(|(app, held)| (app.clone(), held.clone())).collect();
            for (app, held) in apps {
                // One that is taken is being caught up with just now.
                let Ok(held) = held.try_lock_owned() else { continue };
                self.look_after(&app, held).await;
            }
        }
    }

    async fn look_after(self: &Arc<Self>, app: &AppId, mut held: OwnedMutexGuard<Held>) {
        let Some(replica) = &mut held.replica else { return };
        match self.follow(app, replica).await {
            Ok(true) => {}
            // Whoever asks next makes it anew, or is told.
            Ok(false) | Err(Missing::TooLarge(_)) => {
                held.replica = None;
                return self.bytes.forget(app);
            }
            Err(Missing::Unavailable(why)) => return debug!(app.id = %app, why, "cannot follow a registry now"),
        }
        let idle = held.asked.elapsed() > IDLE;
        let Some(replica) = &mut held.replica else { return };
        let due =
            replica.snapshot.is_none_or(|(upto, at)| upto != replica.upto && (idle || at.elapsed() > SNAPSHOT_EVERY));
        if due {
            replica.snapshot = Some((replica.upto, Instant::now()));
            let (dir, of, index, upto) =
                (self.config.snapshots.clone(), app.clone(), replica.index.clone(), replica.upto);
            // Not waited for: changes that get in meanwhile are replayed, which does no harm.
            task::spawn_blocking(move || {
                if let Err(error) = snapshot::write(&dir, &of, &index, upto) {
                    warn!(app.id = %of, %error, "cannot write the snapshot of an index");
                }
            });
        }
        if idle {
            held.replica = None;
            self.bytes.forget(app);
        }
    }
}
