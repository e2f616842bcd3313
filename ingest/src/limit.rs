//! How much an app may send: recipients, not requests, since that is what a send costs. Each ingest node grants an
//! equal share, so that what an app may send does not grow with their number.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock as _, clock::DefaultClock,
    middleware::StateInformationMiddleware,
};
use model::{App, AppId, Limits};
use moka::sync::Cache;

use crate::problem::{Code, Problem};

/// Apps whose use is remembered: more than one installation has.
const APPS_MAX: u64 = 100_000;
/// An app that sent nothing for so long has its whole burst again, and may be forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

type Bucket = DefaultDirectRateLimiter<StateInformationMiddleware>;

/// What is left to each app at the moment.
pub(crate) struct Budgets {
    apps: Cache<AppId, (Limits, Arc<Bucket>)>,
    nodes: AtomicU32,
    clock: DefaultClock,
}

/// What is left to one app, after a send was counted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    limits: Limits,
    left: u32,
}

impl Budgets {
    pub(crate) fn new() -> Self {
        let apps = Cache::builder().max_capacity(APPS_MAX).time_to_idle(FORGOTTEN_AFTER).build();
        Self { apps, nodes: AtomicU32::new(1), clock: DefaultClock::default() }
    }

    /// From now on this many ingest nodes grant an equal share each.
    pub(crate) fn share_among(&self, nodes: usize) {
        self.nodes.store(u32::try_from(nodes.max(1)).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Counts a send to this many devices: at least one, at most the burst, so that a broadcast is possible at all.
    ///
    /// # Errors
    /// `quota_exceeded`, with the time after which it would pass.
    pub(crate) fn spend(&self, app: &App, recipients: u64) -> Result<Budget, Problem> {
        let nodes = self.nodes.load(Ordering::Relaxed);
        let Limits { recipients_per_s, recipients_burst } = app.limits;
        let share = Limits { recipients_per_s: recipients_per_s / nodes, recipients_burst: recipients_burst / nodes };
        let burst = positive(share.recipients_burst);
        let bucket = self.bucket(&app.id, share);
        let cost = positive(u32::try_from(recipients).unwrap_or(u32::MAX)).min(burst);
        match bucket.check_n(cost) {
            Ok(Ok(state)) => {
                let left = state.remaining_burst_capacity().saturating_mul(nodes);
                Ok(Budget { limits: app.limits, left })
            }
            Ok(Err(not_yet)) => {
                let wait = not_yet.wait_time_from(self.clock.now());
                let detail = format!("{cost} recipients are more than this app may send to at this moment");
                Err(Problem::new(Code::QuotaExceeded, detail).retry_after(wait.as_secs() + 1))
            }
            Err(_) => Err(Problem::new(Code::QuotaExceeded, "more recipients than this app may send to at once")),
        }
    }

    fn bucket(&self, app: &AppId, share: Limits) -> Arc<Bucket> {
        if let Some((limits, bucket)) = self.apps.get(app)
            && limits == share
        {
            return bucket;
        }
        let quota = Quota::per_second(positive(share.recipients_per_s)).allow_burst(positive(share.recipients_burst));
        let bucket = Arc::new(RateLimiter::direct(quota).with_middleware::<StateInformationMiddleware>());
        self.apps.insert(app.clone(), (share, Arc::clone(&bucket)));
        bucket
    }
}

fn positive(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap_or(NonZeroU32::MIN)
}

impl Budget {
    /// Says it in the headers of an answer.
    pub(crate) fn tell(self, headers: &mut HeaderMap) {
        tell(self.limits, self.left, headers);
    }
}

/// Says in the headers of a refusal that nothing is left.
pub(crate) fn tell_spent(limits: Limits, headers: &mut HeaderMap) {
    tell(limits, 0, headers);
}

/// draft-ietf-httpapi-ratelimit-headers: the quota is the burst, the window the time in which it comes back.
fn tell(limits: Limits, left: u32, headers: &mut HeaderMap) {
    let rate = limits.recipients_per_s.max(1);
    let burst = limits.recipients_burst.max(1);
    let window_s = burst.div_ceil(rate);
    let full_in_s = burst.saturating_sub(left).div_ceil(rate);
    let policy = format!("\"send\";q={burst};w={window_s}");
    let state = format!("\"send\";r={left};t={full_in_s}");
    for (name, value) in [("ratelimit-policy", policy), ("ratelimit", state)] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}
