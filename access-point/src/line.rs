//! Newcomers stand in line: first come, first served, at a rate. Whoever has hung up meanwhile is passed over and takes no
//! turn, so clients that give up and come again are let in as fast as those that stay. To stand here costs a socket; to be
//! turned away costs another connection, and clients that are turned away again and again stay away for longer and longer.

use std::{num::NonZeroU32, time::Duration};

use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{Mutex, Semaphore, SemaphorePermit},
    time::{Instant, sleep_until},
};

use crate::{auth::Refused, pace::Pace};

/// Longest time in line. Of the clients there are, most wait for thirty seconds or longer to be answered.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Waits shorter than this are none: a timer would take longer.
const TICK: Duration = Duration::from_millis(1);

/// A line whose head is given turns at a rate.
pub(crate) struct Line {
    places: Semaphore,
    /// The head holds it until its turn has come; the mutex is fair, so that the others stay in order.
    head: Mutex<Pace>,
    waiting: Gauge,
}

impl Line {
    /// Gives so many turns a second; `waiting` tells how many stand here.
    pub(crate) fn new(per_s: NonZeroU32, waiting: Gauge) -> Self {
        let places = u64::from(per_s.get()) * WAIT_MAX.as_secs();
        let places = usize::try_from(places).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { places: Semaphore::new(places), head: Mutex::new(Pace::new(per_s, Instant::now())), waiting }
    }

    /// Waits for a turn; it is given to the next one if `wanted` says that this one has no use for it any more.
    ///
    /// # Errors
    /// What `wanted` says; `paced` when the line is too long.
    pub(crate) async fn turn(&self, wanted: impl Fn() -> Result<(), Refused>) -> Result<(), Refused> {
        let _standing = self.stand().ok_or(Refused::ForNow("paced"))?;
        let mut pace = self.head.lock().await;
        wanted()?;
        let now = Instant::now();
        until(now, pace.turn(now)).await;
        Ok(())
    }

    fn stand(&self) -> Option<Standing<'_>> {
        let place = self.places.try_acquire().ok()?;
        self.waiting.inc();
        Some(Standing { _place: place, waiting: &self.waiting })
    }
}

struct Standing<'a> {
    _place: SemaphorePermit<'a>,
    waiting: &'a Gauge,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        self.waiting.dec();
    }
}

/// Sleeps until so long after `begun`.
pub(crate) async fn until(begun: Instant, wait: Duration) {
    if wait >= TICK {
        sleep_until(begun + wait).await;
    }
}
