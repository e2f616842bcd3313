//! How answers of the platform came: how long each took, and whether it said when to come again. It judges nothing.

use std::{fmt, time::Duration};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Answers of a run that are noted at most: an hour of a busy one.
const NOTED_MAX: usize = 2_000_000;

/// One answer, or that none came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    pub(crate) asked_at: Instant,
    pub(crate) took: Duration,
    /// The HTTP status; `None` when no answer came.
    pub(crate) status: Option<u16>,
    pub(crate) retry_after: bool,
}

/// Every answer of a run.
#[derive(Debug, Default)]
pub(crate) struct Answers(Mutex<Vec<Answer>>);

impl Answers {
    pub(crate) fn note(&self, answer: Answer) {
        let mut noted = self.0.lock();
        if noted.len() < NOTED_MAX {
            noted.push(answer);
        }
    }

    /// Sums up what was asked from `begin` to `end` and is answered by now.
    pub(crate) fn between(&self, begin: Instant, end: Instant) -> Summary {
        let mut summary = Summary::default();
        for answer in self.0.lock().iter().filter(|answer| (begin..end).contains(&answer.asked_at)) {
            summary.add(answer);
        }
        summary
    }
}

/// Some answers, summed up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Requests.
    pub asked: u64,
    /// Those that were answered with success.
    pub well: u64,
    /// Those that were told to come later, and when: 429 or 503 with Retry-After.
    pub later: u64,
    /// Those that got any other answer of 500 and above, and those that got none.
    pub bad: u64,
    /// How long the slowest took.
    pub slowest: Duration,
}

impl Summary {
    fn add(&mut self, answer: &Answer) {
        self.asked += 1;
        self.slowest = self.slowest.max(answer.took);
        match answer.status {
            Some(200..=299) => self.well += 1,
            Some(429 | 503) if answer.retry_after => self.later += 1,
            None | Some(429 | 500..) => self.bad += 1,
            Some(_) => {}
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, well, later, bad, slowest } = self;
        write!(f, "{asked} asked, {well} well, {later} told to come later, {bad} bad, ")?;
        write!(f, "slowest {:.2} s", slowest.as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_summed_up_by_when_they_were_asked_for_and_what_they_said() {
        let (answers, begin) = (Answers::default(), Instant::now());
        let at = |ms| begin + Duration::from_millis(ms);
        let note = |ms, status, retry_after| {
            answers.note(Answer { asked_at: at(ms), took: Duration::from_millis(ms), status, retry_after });
        };
        note(1, Some(202), false);
        note(2, Some(503), true);
        note(3, Some(503), false);
        note(4, None, false);
        note(5, Some(422), false);
        note(6, Some(202), false);
        let summary = answers.between(at(2), at(6));
        let expected = Summary { asked: 4, well: 0, later: 1, bad: 2, slowest: Duration::from_millis(5) };
        assert_eq!(summary, expected);
    }
}
