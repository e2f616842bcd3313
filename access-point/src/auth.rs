//! Who may open a session: the token is checked against the app's secret, which is kept here, so that a storm of
//! devices asks the store nothing and devices come in while it is away.

use std::{collections::HashMap, sync::Arc, time::Duration};

use model::{App, AppId, Clock, sign::DeviceToken};
use mqtt::{Login, Reason};
use parking_lot::RwLock;
use store::SharedStore;
use tokio::{
    sync::{Notify, Semaphore},
    time,
};
use tracing::{debug, warn};

/// How often apps are read again: bounds how long a lost bell matters.
const REFRESH: Duration = Duration::from_secs(5);

/// Apps that are asked for at the same time because they are not known here: bounds what made-up names cost the store.
const ASKING_MAX: usize = 32;

/// Why a device may not come in; each with a label for metrics and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Coming again like this is of no use: the device is told.
    ForGood(Reason, &'static str),
    /// Not now: the link is closed without a word, since many clients never come back after a refusal.
    ForNow(&'static str),
    /// A later connection of the device is there.
    Superseded,
}

impl Refused {
    /// The label in metrics and logs.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::ForGood(_, label) | Self::ForNow(label) => label,
            Self::Superseded => "superseded",
        }
    }
}

/// The apps, as the store last told them.
pub(crate) struct Apps {
    store: SharedStore,
    known: RwLock<HashMap<AppId, Arc<App>>>,
    asking: Semaphore,
    /// What is known may not be so any more.
    changed: Notify,
}

impl Apps {
    pub(crate) fn new(store: SharedStore) -> Self {
        Self { store, known: RwLock::default(), asking: Semaphore::new(ASKING_MAX), changed: Notify::new() }
    }

    /// Apps have changed: has them read again. Once more, if they are being read.
    pub(crate) fn changed(&self) {
        self.changed.notify_one();
    }

    async fn refresh(&self) -> Result<(), store::Error> {
        let apps = self.store.apps().await?;
        *self.known.write() = apps.into_iter().map(|app| (app.id.clone(), Arc::new(app))).collect();
        Ok(())
    }

    /// Reads them again when they have changed, and now and then in case a bell was lost.
    pub(crate) async fn keep_fresh(&self) {
        loop {
            if let Err(error) = self.refresh().await {
                warn!(%error, "cannot read the apps; those known go on");
            }
            let _ = time::timeout(REFRESH.mul_f64(rand::random_range(0.9..1.1)), self.changed.notified()).await;
        }
    }

    /// An app as it was last told; those of open sessions are known.
    pub(crate) fn known(&self, app: &AppId) -> Option<Arc<App>> {
        self.known.read().get(app).cloned()
    }

    /// Checks who a device says it is.
    pub(crate) async fn check(&self, login: &Login, clock: &dyn Clock) -> Result<DeviceToken, Refused> {
        let secret = self.secret(&login.app).await?;
        let now = clock.now();
        DeviceToken::verify(&login.token, &secret, &login.app, &login.device, now).map_err(|invalid| {
            debug!(app = %login.app, device.id = %login.device, %invalid, "token refused");
            Refused::ForGood(Reason::NOT_AUTHORIZED, "token")
        })
    }

    /// A secret that is not known may be that of an app made a moment ago.
    async fn secret(&self, app: &AppId) -> Result<String, Refused> {
        if let Some(app) = self.known.read().get(app) {
            return Ok(app.device_secret.clone());
        }
        let _turn = self.asking.acquire().await.map_err(|_| Refused::ForNow("store"))?;
        let found = self.store.app(app).await.map_err(|_| Refused::ForNow("store"))?;
        let found = found.ok_or(Refused::ForGood(Reason::BAD_CREDENTIALS, "unknown_app"))?;
        let secret = found.device_secret.clone();
        self.known.write().insert(app.clone(), Arc::new(found));
        Ok(secret)
    }
}
