//! A queue in memory: who holds what, what is acked but not yet gone, and what the ledger on disk says. No IO: the
//! queue around it writes down what this decides.

use std::{collections::BTreeMap, sync::Weak};

use bytes::Bytes;

use super::{
    key::Ledger,
    supply::{Next, Supply},
    window::Message,
};
use crate::{
    Delivery, Error, Limits,
    consumers::{ConsumerId, Consumers},
    delivery::{Settle, Tag},
};

/// A message that was handed out and is not settled.
#[derive(Debug)]
struct Out {
    message: Message,
    attempt: u32,
    consumer: ConsumerId,
}

/// A message that is done with and still on disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settled {
    pub(super) seq: u64,
    pub(super) bytes: u64,
    /// Whether its attempts were counted on disk.
    pub(super) counted: bool,
}

#[derive(Debug)]
pub(super) struct State {
    /// Why nothing happens here any more.
    closed: Option<Error>,
    pub(super) consumers: Consumers,
    pub(super) supply: Supply,
    out: BTreeMap<u64, Out>,
    acked: Vec<Settled>,
    /// As it was last written. Changed on the committer's thread only, so that writing it needs no lock.
    ledger: Ledger,
    /// The seq of the next message to be published.
    next: u64,
}

impl State {
    /// A queue as recovery found it: nothing is out.
    pub(super) fn new(ledger: Ledger, supply: Supply, next: u64) -> Self {
        let (consumers, out, acked) = Default::default();
        Self { closed: None, consumers, supply, out, acked, ledger, next }
    }

    /// That the queue is open.
    pub(super) fn open(&self) -> Result<(), Error> {
        self.closed.clone().map_or(Ok(()), Err)
    }

    /// Nothing is handed out or published from now on.
    pub(super) fn close(&mut self, why: Error) {
        self.closed.get_or_insert(why);
    }

    /// Hands out all it can, then says what the next message takes.
    pub(super) fn hand_out(&mut self, settle: &Weak<dyn Settle>) -> Next {
        loop {
            if self.closed.is_some() {
                return Next::Stop;
            }
            let Some((consumer, room)) = self.consumers.next_free() else {
                return Next::Wait;
            };
            let (message, attempt) = match self.supply.take() {
                Ok(taken) => taken,
                Err(next) => return next,
            };
            let tag = Tag { seq: message.seq, attempt };
            room.send(Delivery::new(message.body.clone(), tag, settle.clone()));
            self.consumers.took(consumer);
            self.out.insert(tag.seq, Out { message, attempt, consumer });
        }
    }

    /// The message is done with; its record goes with the next [`settle`](Self::settle). False when it is not out.
    pub(super) fn ack(&mut self, tag: Tag) -> bool {
        let settled = self.take_back(tag).map(|(_, settled)| settled);
        self.acked.extend(settled);
        settled.is_some()
    }

    /// The message is to be handed out again. False when it is not out.
    pub(super) fn give_back(&mut self, tag: Tag) -> bool {
        let back = self.take_back(tag).is_some();
        if back {
            self.supply.suspect(tag.seq, tag.attempt.saturating_add(1));
        }
        back
    }

    /// Everything that is out with this consumer is to be handed out again.
    pub(super) fn give_back_all(&mut self, consumer: ConsumerId) {
        let held = self.out.iter().filter(|(_, out)| out.consumer == consumer);
        let held: Vec<Tag> = held.map(|(&seq, out)| Tag { seq, attempt: out.attempt }).collect();
        for tag in held {
            self.give_back(tag);
        }
    }

    /// Takes the message out of the hands it is in, if it is still out under this tag.
    fn take_back(&mut self, tag: Tag) -> Option<(Message, Settled)> {
        let out = self.out.get(&tag.seq).filter(|out| out.attempt == tag.attempt)?;
        let settled = Settled { seq: tag.seq, bytes: out.message.body.len() as u64, counted: tag.attempt > 1 };
        self.consumers.settled(out.consumer);
        self.supply.returned(tag.seq);
        self.out.remove(&tag.seq).map(|out| (out.message, settled))
    }

    /// That as much as this may be published.
    pub(super) fn room_for(&self, bodies: &[Bytes], limits: Limits) -> bool {
        let bytes: u64 = bodies.iter().map(|body| body.len() as u64).sum();
        self.ledger.messages + bodies.len() as u64 <= limits.messages_max
            && self.ledger.bytes + bytes <= limits.bytes_max
    }

    /// Numbers what is being published; with it come the seq after the last, and the ledger.
    pub(super) fn append(&mut self, bodies: Vec<Bytes>) -> (Vec<Message>, u64, Ledger) {
        let mut messages = Vec::with_capacity(bodies.len());
        for body in bodies {
            self.ledger.messages += 1;
            self.ledger.bytes += body.len() as u64;
            messages.push(Message { seq: self.next, body });
            self.next += 1;
        }
        (messages, self.next, self.ledger)
    }

    /// What has been acked and is still on disk, and the ledger without it; nothing when there is nothing.
    pub(super) fn settle(&mut self) -> Option<(Vec<Settled>, Ledger)> {
        let acked = std::mem::take(&mut self.acked);
        if acked.is_empty() {
            return None;
        }
        self.forget(&acked);
        self.ledger.head = self.lowest();
        Some((acked, self.ledger))
    }

    /// Takes a message out for good, without an ack; nothing when it is not out.
    pub(super) fn set_aside(&mut self, tag: Tag) -> Option<(Message, Settled, Ledger)> {
        let (message, settled) = self.take_back(tag)?;
        self.forget(&[settled]);
        Some((message, settled, self.ledger))
    }

    fn forget(&mut self, settled: &[Settled]) {
        self.ledger.messages -= settled.len() as u64;
        self.ledger.bytes -= settled.iter().map(|settled| settled.bytes).sum::<u64>();
    }

    /// The ledger with the mark moved to `mark`.
    pub(super) fn mark(&mut self, mark: u64) -> Ledger {
        self.ledger.mark = mark;
        self.ledger
    }

    /// The lowest seq that is neither acked nor gone.
    pub(super) fn lowest(&self) -> u64 {
        let out = self.out.first_key_value().map(|(seq, _)| *seq);
        out.unwrap_or(u64::MAX).min(self.supply.lowest())
    }

    /// How many messages wait, and how many are out.
    pub(super) fn counts(&self) -> (u64, u64) {
        let (out, acked) = (self.out.len() as u64, self.acked.len() as u64);
        (self.ledger.messages - out - acked, out)
    }
}
