//! Senders: at a fixed rate whatever the answers take (open loop), or one after the other (closed loop).

use std::{fmt, sync::Arc, time::Duration};

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer, ser::SerializeStruct};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};

use crate::Error;

/// Acts under way at most in an open loop: beyond it the platform is not keeping up, and more would only hide that.
const UNDER_WAY_MAX: usize = 5_000;
/// Timers are that coarse. An act that starts this late counts from its start, a later one from when it should have.
const TIMER_SLACK: Duration = Duration::from_millis(2);
/// Longest time that a histogram holds, in microseconds; longer ones count as this.
const LONGEST_US: u64 = 60_000_000;

/// How long things took: a histogram of three digits, in microseconds.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    #[expect(clippy::expect_used, reason = "the bounds are constants that a histogram takes")]
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, LONGEST_US, 3).expect("constant bounds"))
    }
}

impl Latency {
    /// Takes in one time.
    pub fn record(&mut self, took: Duration) {
        self.0.saturating_record(u64::try_from(took.as_micros()).unwrap_or(LONGEST_US).max(1));
    }

    /// Takes in what another worker measured.
    pub fn merge(&mut self, other: &Self) {
        #[expect(clippy::expect_used, reason = "both have the same constant bounds")]
        self.0.add(&other.0).expect("equal bounds");
    }

    /// How many times were taken in.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The time that this share (0 to 1) of them stayed within.
    pub fn quantile(&self, share: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(share))
    }

    /// The longest.
    pub fn max(&self) -> Duration {
        Duration::from_micros(self.0.max())
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
        let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|share| ms(self.quantile(share)));
        write!(f, "p50 {p50:.2} ms, p99 {p99:.2} ms, p99.9 {p999:.2} ms, max {:.2} ms", ms(self.max()))
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Latency", 5)?;
        fields.serialize_field("count", &self.count())?;
        fields.serialize_field("p50_us", &self.quantile(0.5).as_micros())?;
        fields.serialize_field("p99_us", &self.quantile(0.99).as_micros())?;
        fields.serialize_field("p999_us", &self.quantile(0.999).as_micros())?;
        fields.serialize_field("max_us", &self.max().as_micros())?;
        fields.end()
    }
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Load {
    /// How long the acts that worked took.
    pub latency: Latency,
    /// Acts that did not work.
    pub failed: u64,
    /// Acts that were not even begun, because too many were under way.
    pub shed: u64,
    /// The first failure, for people.
    pub first_failure: Option<String>,
}

impl Load {
    /// Acts that worked.
    pub fn ok(&self) -> u64 {
        self.latency.count()
    }

    /// Takes in what another worker did.
    pub fn merge(&mut self, other: Self) {
        self.latency.merge(&other.latency);
        self.failed += other.failed;
        self.shed += other.shed;
        self.first_failure = self.first_failure.take().or(other.first_failure);
    }

    fn done(&mut self, took: Duration, result: Result<(), Error>) {
        match result {
            Ok(()) => self.latency.record(took),
            Err(error) => {
                self.failed += 1;
                self.first_failure.get_or_insert_with(|| error.to_string());
            }
        }
    }
}

/// Begins `per_s` acts a second for as long as `lasting`, and waits for the last of them. An act is given its number
/// and the moment that its latency counts from.
pub async fn open_loop<A, F>(per_s: u32, lasting: Duration, act: A) -> Load
where
    A: Fn(u64, Instant) -> F,
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let mut load = Load::default();
    let mut under_way = JoinSet::new();
    let start = Instant::now();
    for n in 0.. {
        let due = start + Duration::from_secs(n) / per_s.max(1);
        if due >= start + lasting {
            break;
        }
        sleep_until(due).await;
        while let Some(done) = under_way.try_join_next() {
            take(&mut load, done);
        }
        if under_way.len() >= UNDER_WAY_MAX {
            load.shed += 1;
            continue;
        }
        let now = Instant::now();
        let from = if now < due + TIMER_SLACK { now } else { due };
        let act = act(n, from);
        under_way.spawn(async move { (act.await, from.elapsed()) });
    }
    while let Some(done) = under_way.join_next().await {
        take(&mut load, done);
    }
    load
}

fn take(load: &mut Load, done: Result<(Result<(), Error>, Duration), tokio::task::JoinError>) {
    match done {
        Ok((result, took)) => load.done(took, result),
        Err(panic) => load.done(Duration::ZERO, Err(Error::Corrupt(panic.to_string()))),
    }
}

/// Lets `workers` act for as long as `lasting`, each beginning an act when its last one is over. An act is given the
/// worker and the number of the act among that worker's.
pub async fn closed_loop<A, F>(workers: u32, lasting: Duration, act: A) -> Load
where
    A: Fn(u32, u64) -> F + Send + Sync + 'static,
    F: Future<Output = Result<(), Error>> + Send + 'static,
{
    let (act, end) = (Arc::new(act), Instant::now() + lasting);
    let mut tasks = JoinSet::new();
    for worker in 0..workers {
        let act = act.clone();
        tasks.spawn(async move {
            let mut load = Load::default();
            let mut n = 0;
            while Instant::now() < end {
                let begun = Instant::now();
                let result = act(worker, n).await;
                load.done(begun.elapsed(), result);
                n += 1;
            }
            load
        });
    }
    let mut all = Load::default();
    for load in tasks.join_all().await {
        all.merge(load);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_workers_count_as_one() {
        let (mut low, mut high) = (Latency::default(), Latency::default());
        (1..=500).for_each(|ms| low.record(Duration::from_millis(ms)));
        (501..=1_000).for_each(|ms| high.record(Duration::from_millis(ms)));
        low.merge(&high);
        assert_eq!(low.count(), 1_000);
        let within = |share, ms: u64| low.quantile(share).as_millis().abs_diff(u128::from(ms)) <= 1;
        assert!(within(0.5, 500) && within(0.99, 990) && within(1.0, 1_000), "{low}");
        high.record(Duration::from_secs(3_600));
        assert_eq!(high.max().as_secs(), 60, "what is too long counts as the longest");
    }

    #[tokio::test(start_paused = true)]
    async fn an_open_loop_begins_on_time_whatever_the_answers_take() {
        let load = open_loop(100, Duration::from_secs(2), |n, _| async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if n % 10 == 9 { Err(Error::unavailable("x", "y")) } else { Ok(()) }
        })
        .await;
        assert_eq!((load.ok(), load.failed, load.shed), (180, 20, 0));
        assert!(load.latency.max() <= Duration::from_millis(502), "{}", load.latency);
        assert_eq!(load.first_failure.as_deref(), Some("unavailable: x: y"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_loop_waits_for_each_answer() {
        let load = closed_loop(4, Duration::from_secs(1), |_, _| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(())
        })
        .await;
        assert_eq!((load.ok(), load.failed), (40, 0));
    }
}
