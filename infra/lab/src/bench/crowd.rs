//! The devices that broadcasts go to: counts arrivals by message, and nothing else, so that it costs little.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep};

use crate::{Api, Arrival, Audience, Error, Observer, api::Send};

/// Broadcasts of a bench at most.
const BROADCASTS_MAX: usize = 10_000;
/// How often the counts are looked at: finer than a broadcast to few devices takes.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How many devices have one broadcast.
#[derive(Default)]
struct Count {
    devices: AtomicUsize,
    /// When the latest of them got it, in nanoseconds since the bench began.
    last_ns: AtomicU64,
}

/// All broadcasts of a bench, by number.
pub(super) struct Crowd {
    begun: Instant,
    counts: Vec<Count>,
    next: AtomicUsize,
}

impl Crowd {
    pub(super) fn new() -> Self {
        let counts = (0..BROADCASTS_MAX).map(|_| Count::default()).collect();
        Self { begun: Instant::now(), counts, next: AtomicUsize::new(0) }
    }

    /// Broadcasts `count` messages at once and says how long it took until `devices` devices had each of them.
    pub(super) async fn reach(
        &self,
        api: &Api,
        run: &str,
        count: u32,
        devices: usize,
        patience: Duration,
    ) -> Result<Duration, Error> {
        let first = self.next.fetch_add(count as usize, Relaxed);
        let Some(counts) = self.counts.get(first..first + count as usize) else {
            return Err(Error::Corrupt(format!("more than {BROADCASTS_MAX} broadcasts in one bench")));
        };
        let sends: Vec<Send> =
            (first..first + count as usize).map(|n| super::message(run, 'b', n as u64, Audience::All)).collect();
        let begun = Instant::now();
        try_join_all(sends.iter().map(|send| api.send(send))).await?;
        while counts.iter().any(|count| count.devices.load(Relaxed) < devices) {
            if begun.elapsed() > patience {
                let fewest = counts.iter().map(|count| count.devices.load(Relaxed)).min().unwrap_or(0);
                return Err(Error::Corrupt(format!("a broadcast reached {fewest} of {devices} devices")));
            }
            sleep(LOOK_EVERY).await;
        }
        let last = counts.iter().map(|count| count.last_ns.load(Relaxed)).max().unwrap_or(0);
        Ok((self.begun + Duration::from_nanos(last)).duration_since(begun))
    }
}

impl Observer for Crowd {
    fn arrived(&self, arrival: &Arrival<'_>) {
        let Some(name) = Send::name_in(arrival.payload).filter(|_| arrival.app) else { return };
        let number = name.rsplit_once("-b").and_then(|(_, number)| number.parse::<usize>().ok());
        let Some(count) = number.and_then(|number| self.counts.get(number)) else { return };
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        count.last_ns.fetch_max(now, Relaxed);
        count.devices.fetch_add(1, Relaxed);
    }
}
