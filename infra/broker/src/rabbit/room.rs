//! What is known of a queue's size without holding its messages: whether there is room, and what waits.
//!
//! The broker counts AMQP messages, each of one or more of ours. It refuses them one by one, so a batch that travels
//! in several would be refused in part: therefore publishers look first, and keep count until they look again.

use std::time::Duration;

use model::Queue;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::{Error, Limits};

/// How long what was seen is believed while there is plenty of room.
const FRESH: Duration = Duration::from_secs(10);

/// How long a full queue is believed to be full.
const FULL: Duration = Duration::from_millis(20);

/// Which part of its limit is published to a queue before it is looked at again.
const STEP: u64 = 16;

/// How much a newly seen chunk weighs in the mean size: the last twenty or so tell.
const WEIGHT: f64 = 0.05;

#[derive(Debug)]
struct Seen {
    at: Instant,
    /// AMQP messages that waited then.
    waiting: u64,
    /// AMQP messages published from here since.
    since: u64,
}

#[derive(Debug)]
struct State {
    seen: Option<Seen>,
    /// Messages in an AMQP message.
    mean: f64,
    /// Since when messages have waited and nobody has taken any.
    stuck: Option<Instant>,
}

/// What is known of one queue.
#[derive(Debug)]
pub(super) struct Room {
    queue: Queue,
    messages_max: u64,
    state: Mutex<State>,
}

impl Room {
    /// Nothing is known of the queue yet.
    pub(super) fn new(queue: Queue, limits: Option<Limits>) -> Self {
        let state = Mutex::new(State { seen: None, mean: 1.0, stuck: None });
        Self { queue, messages_max: limits.map_or(u64::MAX, |limits| limits.messages_max), state }
    }

    /// That so many AMQP messages more may be published; `None` when one has to look first.
    pub(super) fn has_for(&self, chunks: u64, now: Instant) -> Option<Result<(), Error>> {
        let state = self.state.lock();
        let seen = state.seen.as_ref()?;
        let fits = seen.waiting + seen.since + chunks <= self.messages_max;
        let few = seen.since + chunks <= self.messages_max.div_ceil(STEP);
        let believed = if fits { FRESH } else { FULL };
        let known = now.duration_since(seen.at) < believed && (few || !fits);
        known.then(|| self.fits(fits))
    }

    /// The same, right after one has looked.
    pub(super) fn has_now(&self, chunks: u64) -> Result<(), Error> {
        let seen = self.state.lock().seen.as_ref().map_or(0, |seen| seen.waiting);
        self.fits(seen + chunks <= self.messages_max)
    }

    fn fits(&self, fits: bool) -> Result<(), Error> {
        if fits { Ok(()) } else { Err(Error::Full(self.queue)) }
    }

    /// So many AMQP messages wait, and so many consumers take from the queue.
    pub(super) fn looked(&self, waiting: u64, consumers: u64, now: Instant) {
        let mut state = self.state.lock();
        state.seen = Some(Seen { at: now, waiting, since: 0 });
        let stuck = (waiting > 0 && consumers == 0).then(|| state.stuck.unwrap_or(now));
        state.stuck = stuck;
    }

    /// An AMQP message of so many messages is published from here.
    pub(super) fn published(&self, parts: usize) {
        if let Some(seen) = &mut self.state.lock().seen {
            seen.since += 1;
        }
        self.passed(parts);
    }

    /// An AMQP message of so many messages went by.
    pub(super) fn passed(&self, parts: usize) {
        let mut state = self.state.lock();
        #[expect(clippy::cast_precision_loss, reason = "a mean of small numbers")]
        let parts = parts as f64;
        state.mean += (parts - state.mean) * WEIGHT;
        // What settles near one is one: no rest of a packed past may linger where an exact number can be told.
        if (state.mean - 1.0).abs() < WEIGHT {
            state.mean = 1.0;
        }
    }

    /// About how many messages are in so many AMQP messages.
    pub(super) fn messages_in(&self, chunks: u64) -> u64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate"
        )]
        let messages = (chunks as f64 * self.state.lock().mean).round() as u64;
        messages.max(chunks)
    }

    /// How long messages have waited here with nobody to take them.
    pub(super) fn stuck(&self) -> Duration {
        self.state.lock().stuck.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(messages_max: u64) -> Room {
        Room::new(Queue::Receipts, Some(Limits { messages_max, bytes_max: 1 }))
    }

    #[test]
    fn one_looks_again_after_a_step_or_a_while() {
        let (room, now) = (room(160), Instant::now());
        assert!(room.has_for(1, now).is_none(), "nobody has looked yet");
        room.looked(0, 1, now);
        assert!(room.has_for(10, now).unwrap().is_ok());
        (0..10).for_each(|_| room.published(1));
        assert!(room.has_for(1, now).is_none(), "a step is used up");
        room.looked(10, 1, now);
        assert!(room.has_for(1, now + FRESH).is_none(), "it is long ago");
    }

    #[test]
    fn a_full_queue_is_full_for_a_moment() {
        let (room, now) = (room(160), Instant::now());
        room.looked(155, 1, now);
        assert!(room.has_for(5, now).unwrap().is_ok());
        assert!(matches!(room.has_for(6, now), Some(Err(Error::Full(Queue::Receipts)))));
        assert!(room.has_for(6, now + FULL).is_none());
        assert!(room.has_now(5).is_ok() && room.has_now(6).is_err());
    }

    #[test]
    fn sizes_are_exact_until_messages_travel_together() {
        let room = room(1);
        assert_eq!(room.messages_in(20), 20);
        (0..200).for_each(|_| room.passed(64));
        assert!((1_200..=1_280).contains(&room.messages_in(20)));
        (0..200).for_each(|_| room.passed(1));
        assert_eq!(room.messages_in(20), 20);
    }
}
