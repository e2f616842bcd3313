//! How much an app may send: recipients, not requests, since that is what a send costs. Each ingest node counts a
//! recipient once for every ingest node, so all of them together grant what an app may send, and not more when their
//! number changes.

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::StateInformationMiddleware,
    state::{InMemoryState, NotKeyed},
};
use model::{App, AppId, Limits};
use moka::sync::Cache;

use crate::problem::{Code, Problem};

/// Apps whose use is remembered: more than one installation has.
const APPS_MAX: u64 = 100_000;
/// An app that sent nothing for so long has its whole burst again, and may be forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_hours(1);

/// A clock that can be set back: the time that it then lags behind passes once more, and pays for what was granted beyond
/// what a bucket holds.
struct Lagging {
    began: Instant,
    /// By how much, in nanoseconds.
    behind: AtomicU64,
}

impl Lagging {
    /// More than any clock is ever behind.
    const EPOCH: Duration = Duration::from_hours(24 * 365 * 100);

    fn set_back(&self, by: Duration) {
        self.behind.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Clock for Lagging {
    type Instant = Duration;

    fn now(&self) -> Duration {
        let behind = Duration::from_nanos(self.behind.load(Ordering::Relaxed));
        (Self::EPOCH + self.began.elapsed()).saturating_sub(behind)
    }
}

/// What is left to one app.
struct Bucket {
    quota: Quota,
    limiter: RateLimiter<NotKeyed, InMemoryState, Lagging, StateInformationMiddleware>,
}

impl Bucket {
    fn new(limits: Limits) -> Self {
        let quota = Quota::per_second(positive(limits.recipients_per_s)).allow_burst(positive(limits.recipients_burst));
        let clock = Lagging { began: Instant::now(), behind: AtomicU64::new(0) };
        Self { quota, limiter: RateLimiter::direct_with_clock(quota, clock).with_middleware() }
    }

    /// Grants `cost` when it holds that much, or is full; returns how much it holds then.
    ///
    /// # Errors
    /// The time after which it would.
    fn take(&self, cost: u64) -> Result<u32, Duration> {
        let cost = positive(u32::try_from(cost).unwrap_or(u32::MAX));
        let at_once = cost.min(self.quota.burst_size());
        let clock = self.limiter.clock();
        match self.limiter.check_n(at_once) {
            Ok(Ok(state)) => {
                clock.set_back(self.quota.replenish_interval().saturating_mul(cost.get() - at_once.get()));
                Ok(state.remaining_burst_capacity())
            }
            Ok(Err(not_yet)) => Err(not_yet.wait_time_from(clock.now())),
            // Not so: no more is asked for than it can hold.
            Err(_) => Err(Duration::ZERO),
        }
    }
}

/// What is left to each app at the moment.
pub(crate) struct Budgets {
    apps: Cache<AppId, (Limits, Arc<Bucket>)>,
    nodes: AtomicU32,
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
        Self { apps, nodes: AtomicU32::new(1) }
    }

    /// From now on this many ingest nodes grant together. When nobody is known to, this one least of all, it is not known
    /// how many do.
    pub(crate) fn share_among(&self, nodes: usize) {
        if nodes > 0 {
            self.nodes.store(u32::try_from(nodes).unwrap_or(u32::MAX), Ordering::Relaxed);
        }
    }

    /// Counts a send to this many devices: at least one, at most the burst, so that a broadcast is possible at all.
    ///
    /// # Errors
    /// `quota_exceeded`, with the time after which it would pass.
    pub(crate) fn spend(&self, app: &App, recipients: u64) -> Result<Budget, Problem> {
        let counted = recipients.clamp(1, app.limits.recipients_burst.max(1).into());
        let nodes = self.nodes.load(Ordering::Relaxed);
        match self.bucket(app).take(counted * u64::from(nodes)) {
            Ok(left) => Ok(Budget { limits: app.limits, left }),
            Err(wait) => {
                let detail = format!("{counted} recipients are more than this app may send to at this moment");
                Err(Problem::new(Code::QuotaExceeded, detail).retry_after(wait.as_secs() + 1))
            }
        }
    }

    fn bucket(&self, app: &App) -> Arc<Bucket> {
        if let Some((limits, bucket)) = self.apps.get(&app.id)
            && limits == app.limits
        {
            return bucket;
        }
        let bucket = Arc::new(Bucket::new(app.limits));
        self.apps.insert(app.id.clone(), (app.limits, Arc::clone(&bucket)));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_beyond_what_is_there_is_paid_for_by_waiting() {
        let bucket = Bucket::new(Limits { recipients_per_s: 1, recipients_burst: 12 });
        assert_eq!(bucket.take(5), Ok(7));
        let near = |wait: Result<u32, Duration>, seconds: u64| {
            let wait = wait.unwrap_err();
            assert!(wait <= Duration::from_secs(seconds) && wait > Duration::from_secs(seconds - 1), "{wait:?}");
        };
        near(bucket.take(36), 5);
        let full = Bucket::new(Limits { recipients_per_s: 1, recipients_burst: 12 });
        full.take(36).unwrap();
        near(full.take(1), 25);
        near(full.take(12), 36);
        near(full.take(36), 36);
    }
}
