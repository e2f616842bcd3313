//! How much devices may send up: each for itself, and those of an app together of one type. It knows rates and moments,
//! not who is told what.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicU32, Ordering},
};

use model::AppId;
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

/// Types whose rate is remembered at a time; more at once, which none of them needs, are too many.
const TYPES_MAX: usize = 4_096;

/// A rate that may be exceeded for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub(crate) per_s: u32,
    /// At once.
    pub(crate) burst: u32,
}

impl Rate {
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_s.max(1)
    }
}

/// What was taken at a rate: when it would all have come if it had come evenly.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket(Instant);

impl Bucket {
    /// Nothing was taken yet.
    pub(crate) fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Takes one more: how long it is until it would have been there. `None`, and nothing is taken, when that is longer
    /// than `longest`.
    pub(crate) fn owe(&mut self, rate: Rate, now: Instant, longest: Duration) -> Option<Duration> {
        let all = self.0.max(now) + rate.interval();
        let wait = all.saturating_duration_since(now + rate.interval() * rate.burst.max(1));
        let is_taken = wait <= longest;
        if is_taken {
            self.0 = all;
        }
        is_taken.then_some(wait)
    }
}

/// What devices have sent up to this access point, by app and type.
#[derive(Debug, Default)]
pub(crate) struct Types {
    buckets: Mutex<HashMap<(AppId, String), Bucket>>,
    /// Access points besides this one.
    others: AtomicU32,
}

impl Types {
    /// From now on this many access points grant an equal share each.
    pub(crate) fn share_among(&self, access_points: usize) {
        self.others.store(u32::try_from(access_points.saturating_sub(1)).unwrap_or(u32::MAX), Ordering::Relaxed);
    }

    /// Takes one more of a type, at the rate that is this access point's share; as [`Bucket::owe`], and `None` when too
    /// many types are in use.
    pub(crate) fn owe(&self, of: (&AppId, &str), per_s: u32, now: Instant, longest: Duration) -> Option<Duration> {
        let per_s = (per_s / self.others.load(Ordering::Relaxed).saturating_add(1)).max(1);
        let key = (of.0.clone(), of.1.to_owned());
        let mut buckets = self.buckets.lock();
        if buckets.len() >= TYPES_MAX && !buckets.contains_key(&key) {
            buckets.retain(|_, bucket| bucket.0 > now);
            if buckets.len() >= TYPES_MAX {
                return None;
            }
        }
        buckets.entry(key).or_insert(Bucket::new(now)).owe(Rate { per_s, burst: per_s }, now, longest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { per_s: 10, burst: 3 };

    fn demo() -> AppId {
        "demo".parse().unwrap()
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let now = Instant::now();
        let mut bucket = Bucket::new(now);
        let mut take = |at| bucket.owe(RATE, at, Duration::ZERO).is_some();
        assert_eq!([(); 5].map(|()| take(now)), [true, true, true, false, false]);
        assert!(!take(now + Duration::from_millis(99)));
        assert!(take(now + Duration::from_millis(101)));
        let later = now + Duration::from_secs(60);
        assert_eq!([(); 4].map(|()| take(later)), [true, true, true, false]);
    }

    #[test]
    fn who_owes_waits_until_it_would_have_been_there_and_owes_no_more_than_that() {
        let now = Instant::now();
        let mut bucket = Bucket::new(now);
        let waits = [(); 6].map(|()| bucket.owe(RATE, now, Duration::from_millis(250)).map(|wait| wait.as_millis()));
        assert_eq!(waits, [Some(0), Some(0), Some(0), Some(100), Some(200), None]);
        assert_eq!(bucket.owe(RATE, now + Duration::from_millis(300), Duration::ZERO), Some(Duration::ZERO));
    }

    #[test]
    fn more_types_than_anybody_needs_are_too_many_for_a_moment() {
        let (types, now, app) = (Types::default(), Instant::now(), demo());
        let take = |kind: usize, now| types.owe((&app, &kind.to_string()), 2, now, Duration::ZERO).is_some();
        assert!((0..TYPES_MAX).all(|kind| take(kind, now)));
        assert!(!take(TYPES_MAX, now));
        assert!(take(0, now));
        assert!(take(TYPES_MAX, now + Duration::from_secs(2)));
    }

    #[test]
    fn access_points_share_the_rate_of_a_type() {
        let (types, now, app) = (Types::default(), Instant::now(), demo());
        types.share_among(3);
        let taken = (0..9).filter(|_| types.owe((&app, "gps"), 9, now, Duration::ZERO).is_some());
        assert_eq!(taken.count(), 3);
    }
}
