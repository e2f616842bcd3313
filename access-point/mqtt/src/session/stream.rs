//! A session's way through one stream.

use std::{collections::VecDeque, time::Instant};

use model::{Progress, Seq};

/// An entry that was written or is known, not before the oldest unacked one.
#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) seq: Seq,
    /// Zero when it was known before it was offered, and so never written.
    pub(super) packet_id: u16,
    pub(super) sent_at: Instant,
    /// Gone once the entry is answered, by its ack or by a stated position.
    pub(super) tag: Option<T>,
    /// An entry that is stated but not acked still fills a place in the device's window.
    pub(super) acked: bool,
}

/// How far a session has come in one stream.
#[derive(Debug)]
pub(super) struct Progressing<T> {
    /// Every entry up to here was sent, passed or received.
    pub(super) mark: Seq,
    /// Up to here entries have been written, in this session or an earlier one.
    sent: Seq,
    /// Up to here the device says that it has everything.
    stated: Seq,
    /// Entries after `mark` that an earlier session got acks for, in rising order.
    beyond: Vec<Seq>,
    /// Entries from the oldest one that waits for its ack, in rising order. Empty when none does.
    entries: VecDeque<Entry<T>>,
}

impl<T> Progressing<T> {
    pub(super) fn new(progress: Progress, stated: Seq) -> Self {
        let Progress { prefix, beyond, sent } = progress;
        Self { mark: prefix, sent: sent.max(prefix), stated, beyond, entries: VecDeque::new() }
    }

    /// Entries from the oldest unacked one to the mark.
    pub(super) fn span(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn waiting(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.acked).count()
    }

    pub(super) fn unacked(&self) -> impl Iterator<Item = (Seq, &T)> {
        self.entries.iter().filter(|entry| !entry.acked).filter_map(|entry| Some((entry.seq, entry.tag.as_ref()?)))
    }

    pub(super) fn oldest_waiting(&self) -> Option<Instant> {
        self.entries.front().map(|entry| entry.sent_at)
    }

    pub(super) fn uses(&self, packet_id: u16) -> bool {
        self.entries.iter().any(|entry| !entry.acked && entry.packet_id == packet_id)
    }

    /// Whether the device has the entry though this session has not sent it.
    pub(super) fn is_known(&self, seq: Seq) -> bool {
        seq <= self.stated || self.beyond.binary_search(&seq).is_ok()
    }

    pub(super) fn pass(&mut self, seq: Seq) -> bool {
        let moves = seq > self.mark;
        self.mark = self.mark.max(seq);
        self.beyond.retain(|beyond| *beyond > seq);
        moves
    }

    /// An entry that the device has: a hole may still be open before it.
    pub(super) fn receive(&mut self, seq: Seq) {
        if let Some(sent_at) = self.oldest_waiting() {
            self.entries.push_back(Entry { seq, packet_id: 0, sent_at, tag: None, acked: true });
        }
        self.pass(seq);
    }

    /// An entry that goes out now; true when it may have gone out before.
    pub(super) fn send(&mut self, entry: Entry<T>) -> bool {
        let seq = entry.seq;
        let dup = seq <= self.sent;
        self.entries.push_back(entry);
        self.sent = self.sent.max(seq);
        self.pass(seq);
        dup
    }

    /// Settles what waits under this packet id.
    pub(super) fn ack(&mut self, packet_id: u16) -> Option<Entry<T>> {
        let entry = self.entries.iter_mut().find(|entry| !entry.acked && entry.packet_id == packet_id)?;
        entry.acked = true;
        let settled = Entry { tag: entry.tag.take(), ..*entry };
        while self.entries.front().is_some_and(|entry| entry.acked) {
            self.entries.pop_front();
        }
        if self.entries.is_empty() {
            // Most devices wait for hours with nothing under way, and should hold nothing meanwhile.
            self.entries = VecDeque::new();
        }
        Some(settled)
    }

    /// Answers what is on the wire up to `stated`.
    pub(super) fn state(&mut self, stated: Seq) -> Vec<(Seq, Instant, T)> {
        self.stated = self.stated.max(stated);
        let known = self.entries.iter_mut().take_while(|entry| entry.seq <= stated);
        known.filter_map(|entry| entry.tag.take().map(|tag| (entry.seq, entry.sent_at, tag))).collect()
    }

    pub(super) fn progress(&self) -> Progress {
        let open = self.entries.iter().position(|entry| entry.tag.is_some());
        let (prefix, after) = match open {
            // Whatever stands before the open entry is done with, so its predecessor's number serves, used or not.
            Some(open) => (Seq(self.entries[open].seq.0 - 1), open),
            None => (self.mark, self.entries.len()),
        };
        let answered = self.entries.iter().skip(after).filter(|entry| entry.tag.is_none()).map(|entry| entry.seq);
        let beyond = answered.chain(self.beyond.iter().copied()).collect();
        Progress { prefix, beyond, sent: self.sent.max(prefix) }
    }
}
