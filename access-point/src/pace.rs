//! Gives newcomers turns: so many a second, some at once after a quiet moment. It knows no clock: whoever asks says what
//! time it is.

use std::{num::NonZeroU32, time::Duration};

use tokio::time::Instant;

/// For how long turns that nobody took are kept: a handful of devices never waits, a storm is spread.
const KEPT_FOR: Duration = Duration::from_millis(200);

/// How many fall to each round when there are so many a second: at least one.
pub(crate) fn each_round(per_s: u32, round: Duration) -> usize {
    let millionths = u128::from(per_s) * round.as_micros();
    usize::try_from(millionths.div_ceil(1_000_000)).unwrap_or(usize::MAX).max(1)
}

/// Turns at a rate.
#[derive(Debug)]
pub(crate) struct Pace {
    every: Duration,
    /// The turn after the last one given.
    next: Instant,
}

impl Pace {
    pub(crate) fn new(per_s: NonZeroU32, now: Instant) -> Self {
        Self { every: Duration::from_secs(1) / per_s.get(), next: now }
    }

    /// How long the next one has to wait for his turn, which is his then.
    pub(crate) fn turn(&mut self, now: Instant) -> Duration {
        let oldest_kept = now.checked_sub(KEPT_FOR).unwrap_or(now);
        let turn = self.next.max(oldest_kept);
        self.next = turn + self.every;
        turn.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_is_spread_at_the_rate() {
        let begun = Instant::now() + Duration::from_secs(60);
        let mut pace = Pace::new(NonZeroU32::new(100).unwrap(), begun);
        let waits: Vec<_> = (0..500).map(|_| pace.turn(begun).as_millis()).collect();
        assert_eq!(waits, (0..500).map(|turn| turn * 10).collect::<Vec<_>>());
        assert_eq!(pace.turn(begun + Duration::from_secs(5)).as_millis(), 0, "time that has passed counts");
    }

    #[test]
    fn a_round_takes_its_part_of_a_second() {
        let rounds = [(4_000, 2), (1_000, 50), (1_001, 50), (1, 2)];
        let each = rounds.map(|(per_s, millis)| each_round(per_s, Duration::from_millis(millis)));
        assert_eq!(each, [8, 50, 51, 1]);
    }

    #[test]
    fn turns_are_kept_for_a_moment_only() {
        let begun = Instant::now() + Duration::from_secs(60);
        let mut pace = Pace::new(NonZeroU32::new(100).unwrap(), begun);
        let later = begun + Duration::from_hours(1);
        let at_once = (0..50).filter(|_| pace.turn(later).is_zero()).count();
        assert_eq!(at_once, 21);
    }
}
