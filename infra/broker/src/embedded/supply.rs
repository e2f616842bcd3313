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
struct Suspect {
    attempt: u32,
    /// There once this attempt has been counted.
    counted: Option<Message>,
}

#[derive(Debug)]
pub(super) struct Supply {
    suspects: BTreeMap<u64, Suspect>,
    /// The suspect that is out.
    on_trial: Option<u64>,
    window: Window,
    /// The durable mark: nothing after it has been handed out.
    mark: u64,
}

impl Supply {
    /// The supply of a queue whose messages after `mark`, before `end`, were never handed out.
    pub(super) fn new(mark: u64, end: u64) -> Self {
        Self { suspects: BTreeMap::new(), on_trial: None, window: Window::new(mark + 1, end), mark }
    }

    /// Adds a message that may have been handed out before; its next time will be number `attempt`.
    pub(super) fn suspect(&mut self, seq: u64, attempt: u32) {
        self.suspects.insert(seq, Suspect { attempt, counted: None });
    }

    /// The attempt of this suspect is durable.
    pub(super) fn counted(&mut self, message: Message) {
        if let Some(suspect) = self.suspects.get_mut(&message.seq) {
            suspect.counted = Some(message);
        }
    }

    /// The mark is durable.
    pub(super) fn marked(&mut self, mark: u64) {
        self.mark = mark;
    }

    /// Messages became durable.
    pub(super) fn published(&mut self, messages: Vec<Message>) {
        self.window.published(messages);
    }

    /// Messages were read on request.
    pub(super) fn refilled(&mut self, messages: Vec<Message>) {
        for message in messages {
            self.window.offer(message);
        }
    }

    /// Takes the next message and the number of its attempt, or says what it takes first.
    pub(super) fn take(&mut self) -> Result<(Message, u32), Next> {
        if let Some(mut first) = self.suspects.first_entry() {
            if self.on_trial.is_some() {
                return Err(Next::Wait);
            }
            let (seq, attempt) = (*first.key(), first.get().attempt);
            let message = first.get_mut().counted.take().ok_or(Next::Count { seq, attempt })?;
            first.remove();
            self.on_trial = Some(seq);
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
