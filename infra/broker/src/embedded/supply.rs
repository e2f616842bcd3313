//! What a queue can hand out next: suspects first, one at a time, then what was never handed out, in order.
//!
//! A suspect is a message that may have been handed out before: in flight when the process died, or given back. It
//! may be what killed its handler. So it is out alone among suspects, and each time is counted durably before it goes.
//! What was never handed out costs no such write: only a mark, raised in blocks, bounds how far it has got.

use std::collections::BTreeMap;

use super::window::{Message, Window};

/// What has to be done before the next message can be handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing, until something changes.
    Wait,
    /// Read on from this seq.
    Refill(u64),
    /// Raise the durable mark to this seq at least.
    Mark(u64),
    /// Count this attempt of a suspect durably, and fetch its body.
    Count {
        /// The suspect.
        seq: u64,
        /// What it will be handed out as.
        attempt: u32,
    },
    /// Nothing, ever: the queue is closed.
    Stop,
}

#[derive(Debug)]
pub(super) struct Supply {
    /// The number of the attempt that is each one's next.
    suspects: BTreeMap<u64, u32>,
    /// The suspect whose next attempt is counted. It goes before any other, or a kill would have it counted in vain.
    counted: Option<(Message, u32)>,
    /// The suspect that is out.
    on_trial: Option<u64>,
    window: Window,
    /// The durable mark: nothing after it has been handed out.
    mark: u64,
}

impl Supply {
    /// The supply of a queue whose messages after `mark`, before `end`, were never handed out.
    pub(super) fn new(mark: u64, end: u64) -> Self {
        let window = Window::new(mark + 1, end);
        Self { suspects: BTreeMap::new(), counted: None, on_trial: None, window, mark }
    }

    /// Adds a message that may have been handed out before; its next time will be number `attempt`.
    pub(super) fn suspect(&mut self, seq: u64, attempt: u32) {
        self.suspects.insert(seq, attempt);
    }

    /// This attempt of a suspect is durable.
    pub(super) fn counted(&mut self, message: Message, attempt: u32) {
        self.counted = Some((message, attempt));
    }

    /// The mark is durable.
    pub(super) fn marked(&mut self, mark: u64) {
        self.mark = mark;
    }

    /// Messages were published, or read on request.
    pub(super) fn add(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.window.offer(message);
        }
    }

    /// All messages before `end` became durable. True when that lets any be read on.
    pub(super) fn flushed(&mut self, end: u64) -> bool {
        self.window.flushed(end);
        self.window.missing().is_some()
    }

    /// Takes the next message and the number of its attempt, or says what it takes first.
    pub(super) fn take(&mut self) -> Result<(Message, u32), Next> {
        if let Some((&seq, &attempt)) = self.suspects.first_key_value() {
            if self.on_trial.is_some() {
                return Err(Next::Wait);
            }
            let (message, attempt) = self.counted.take().ok_or(Next::Count { seq, attempt })?;
            self.suspects.remove(&message.seq);
            self.on_trial = Some(message.seq);
            return Ok((message, attempt));
        }
        match self.window.first() {
            Some(seq) if seq > self.mark => Err(Next::Mark(seq)),
            _ => match self.window.take() {
                Some(message) => Ok((message, 1)),
                None => Err(self.window.missing().map_or(Next::Wait, Next::Refill)),
            },
        }
    }

    /// A message that was taken is back or gone.
    pub(super) fn returned(&mut self, seq: u64) {
        self.on_trial.take_if(|on_trial| *on_trial == seq);
    }

    /// The lowest seq that can still be taken.
    pub(super) fn lowest(&self) -> u64 {
        let suspect = self.suspects.first_key_value().map(|(seq, _)| *seq);
        suspect.unwrap_or(u64::MAX).min(self.window.untaken())
    }

    /// The highest seq that may have been taken.
    pub(super) fn taken(&self) -> u64 {
        self.window.untaken() - 1
    }

    #[cfg(test)]
    pub(super) fn window(&self) -> &Window {
        &self.window
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn message(seq: u64) -> Message {
        Message { seq, body: Bytes::new() }
    }

    /// What is next: the message and its attempt, or what it takes.
    fn next(supply: &mut Supply) -> Result<(u64, u32), Next> {
        supply.take().map(|(message, attempt)| (message.seq, attempt))
    }

    #[test]
    fn suspects_are_counted_and_go_first_and_one_at_a_time() {
        let mut supply = Supply::new(10, 13);
        supply.suspect(7, 2);
        supply.suspect(3, 4);
        assert_eq!(next(&mut supply), Err(Next::Count { seq: 3, attempt: 4 }));
        supply.suspect(1, 2);
        supply.counted(message(3), 4);
        assert_eq!(next(&mut supply), Ok((3, 4)), "what is counted goes, whoever else has come");
        assert_eq!(next(&mut supply), Err(Next::Wait));
        supply.returned(3);
        for seq in [1, 7] {
            assert_eq!(next(&mut supply), Err(Next::Count { seq, attempt: 2 }));
            supply.counted(message(seq), 2);
            assert_eq!(next(&mut supply), Ok((seq, 2)));
            if seq == 1 {
                supply.returned(1);
            }
        }
        assert_eq!(next(&mut supply), Err(Next::Refill(11)), "others flow while the last suspect is out");
    }

    #[test]
    fn nothing_goes_past_the_mark() {
        let mut supply = Supply::new(0, 1);
        supply.add((1..=3).map(message).collect());
        assert_eq!(next(&mut supply), Err(Next::Mark(1)));
        supply.marked(2);
        assert_eq!((next(&mut supply), next(&mut supply)), (Ok((1, 1)), Ok((2, 1))));
        assert_eq!(next(&mut supply), Err(Next::Mark(3)));
        supply.marked(258);
        assert_eq!(next(&mut supply), Ok((3, 1)));
        assert_eq!(next(&mut supply), Err(Next::Wait));
        assert_eq!((supply.lowest(), supply.taken()), (4, 3));
    }
}
