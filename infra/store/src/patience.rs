//! Trying again to change what others change at the same time.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::Error;

/// How long a change is tried again that others were quicker than. Each time somebody succeeded, so of a hundred at once
/// all do within this time; and less than a request has, with the last attempt.
const LONGEST: Duration = Duration::from_secs(5);

/// The most that the pause between two attempts is at first, and later: it is random, so that those who began together
/// do not go on together, and grows, so that many leave each other room.
const PAUSE_MIN: Duration = Duration::from_millis(4);
const PAUSE_MAX: Duration = Duration::from_millis(128);

/// What somebody has who changes a thing as he has read it, while others change it too.
#[derive(Debug)]
pub struct Patience {
    begun: Instant,
    pause: Duration,
}

impl Patience {
    /// Before the first attempt.
    pub fn begin() -> Self {
        Self { begun: Instant::now(), pause: PAUSE_MIN }
    }

    /// After an attempt that another was quicker than: returns when it is time for the next.
    ///
    /// # Errors
    /// Unavailable when others were quicker for some seconds.
    pub async fn again(&mut self) -> Result<(), Error> {
        if self.begun.elapsed() > LONGEST {
            return Err(Error::Unavailable("too many change this at once".into()));
        }
        sleep(self.pause.mul_f64(rand::random_range(0.0..1.0))).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}
