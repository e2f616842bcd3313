//! The part of a queue that is in memory, in order: what is published next to it joins it while there is room, and
//! the rest waits on disk until it has been taken.

use std::collections::VecDeque;

use bytes::Bytes;

/// Messages of one queue in memory: half a second of work at 20,000 a second.
pub(super) const MESSAGES_MAX: usize = 10_000;

/// Bytes of their bodies: with fifteen queues, 60 MiB at most.
pub(super) const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message in memory.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) seq: u64,
    pub(super) body: Bytes,
}

#[derive(Debug)]
pub(super) struct Window {
    waiting: VecDeque<Message>,
    bytes: usize,
    /// The seq after the last that was ever here.
    cursor: u64,
    /// The seq after the last that is durable.
    end: u64,
}

impl Window {
    /// An empty window whose next message is `cursor`; all before `end` are on disk.
    pub(super) fn new(cursor: u64, end: u64) -> Self {
        Self { waiting: VecDeque::new(), bytes: 0, cursor, end }
    }

    /// All before `end` became durable, so that what did not fit here can be read back.
    pub(super) fn flushed(&mut self, end: u64) {
        self.end = end;
    }

    /// Takes the message when it is the next one and there is room, which there always is for the first.
    pub(super) fn offer(&mut self, message: Message) {
        let room = self.waiting.len() < MESSAGES_MAX && self.bytes + message.body.len() <= BYTES_MAX;
        if message.seq == self.cursor && (room || self.waiting.is_empty()) {
            self.cursor += 1;
            self.bytes += message.body.len();
            self.waiting.push_back(message);
        }
    }

    /// The first message here.
    pub(super) fn first(&self) -> Option<u64> {
        self.waiting.front().map(|message| message.seq)
    }

    /// Takes the first message.
    pub(super) fn take(&mut self) -> Option<Message> {
        let message = self.waiting.pop_front()?;
        self.bytes -= message.body.len();
        Some(message)
    }

    /// Where to read on, when nothing is left here and something is on disk.
    pub(super) fn missing(&self) -> Option<u64> {
        (self.waiting.is_empty() && self.cursor < self.end).then_some(self.cursor)
    }

    /// The first seq that has not been taken from here.
    pub(super) fn untaken(&self) -> u64 {
        self.first().unwrap_or(self.cursor)
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.waiting.len(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: u64, bytes: usize) -> Message {
        Message { seq, body: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn what_does_not_fit_is_missing_until_it_is_read() {
        let mut window = Window::new(1, 1);
        (1..=20_000).for_each(|seq| window.offer(message(seq, 1)));
        window.flushed(20_001);
        assert_eq!(window.size(), (MESSAGES_MAX, MESSAGES_MAX));
        assert_eq!(window.missing(), None);
        while window.take().is_some() {}
        assert_eq!((window.missing(), window.untaken()), (Some(10_001), 10_001));
        window.offer(message(20_001, 1));
        assert_eq!(window.first(), None, "a message must not overtake those on disk");
        window.offer(message(10_001, 1));
        window.offer(message(10_001, 1));
        assert_eq!(window.size(), (1, 1), "what was read twice counts once");
    }

    #[test]
    fn bytes_are_bounded_but_one_message_always_fits() {
        let mut window = Window::new(1, 1);
        window.offer(message(1, BYTES_MAX + 1));
        window.offer(message(2, 1));
        assert_eq!(window.take().map(|message| message.seq), Some(1));
        assert_eq!(window.missing(), None, "what is not on disk yet cannot be read back");
        window.flushed(3);
        assert_eq!(window.missing(), Some(2));
    }
}
