//! One queue's messages in this process: who holds what, and what the broker is to be told. No IO: the pump beside it
//! does what this decides.
//!
//! A message is known here by its seq, which is never used twice, and each time it is out by its attempt too. A parcel is
//! an AMQP message, known by its delivery tag: it is acked when each of its messages is settled. A suspect is a message
//! that was handed out before: it goes by way of the retry queue, where it is alone in its parcel, and the broker counts
//! its attempts durably. While that queue takes nothing, suspects are tried in place, one at a time, and counted by this
//! process only. A queue that keeps order has no suspects: what was handed out before goes first, in the order in which it
//! was published.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Weak,
};

use bytes::Bytes;
use model::{Queue, Timestamp};

use super::chunk::Chunk;
use crate::{
    Delivery, Error,
    consumers::{ConsumerId, Consumers},
    delivery::{Settle, Tag},
};

/// AMQP messages that are here at least while somebody consumes: with 64 messages in each, a thousand may have to be
/// handed out with care after a crash.
pub(super) const PARCELS_MIN: u16 = 16;

/// AMQP messages that are here at most, when each is one message and consumers hold many.
const PARCELS_MAX: u16 = 256;

/// Messages waiting here, past which the fewest AMQP messages will do.
const FRESH_MAX: usize = 512;

/// A message that this process holds.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) tag: Tag,
    pub(super) body: Bytes,
    pub(super) at: Timestamp,
    parcel: u64,
}

#[derive(Debug)]
struct Out {
    message: Message,
    consumer: ConsumerId,
    /// Its connection is gone: the broker hands it out again whatever happens to it here.
    void: bool,
}

/// An AMQP message that is not settled.
#[derive(Debug)]
struct Parcel {
    unsettled: usize,
    /// Whether it came from the retry queue.
    suspect: bool,
}

/// What the broker is to be told, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdicts {
    /// Parcels to be handed out again, counted.
    pub(super) back: Vec<u64>,
    /// A parcel that is done with, and all before it.
    pub(super) up_to: Option<u64>,
    /// Parcels that are done with.
    pub(super) done: Vec<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Hands {
    /// Why nothing happens here any more.
    ended: Option<Error>,
    /// The queue keeps order.
    in_order: bool,
    pub(super) consumers: Consumers,
    /// The suspect that is next: from the retry queue, or to be tried in place.
    trial: Option<Message>,
    fresh: VecDeque<Message>,
    out: BTreeMap<u64, Out>,
    /// Suspects on their way to the retry queue, in order.
    moves: VecDeque<Message>,
    /// The suspect that was tried in place last.
    tried: u64,
    parcels: BTreeMap<u64, Parcel>,
    done: Vec<u64>,
    back: Vec<u64>,
    seqs: u64,
}

impl Hands {
    /// Nothing is here yet.
    pub(super) fn of(queue: Queue) -> Self {
        Self { in_order: queue.is_in_order(), ..Self::default() }
    }

    /// That this goes on.
    pub(super) fn open(&self) -> Result<(), Error> {
        self.ended.clone().map_or(Ok(()), Err)
    }

    /// Nothing is handed out from now on.
    pub(super) fn end(&mut self, why: Error) {
        self.ended.get_or_insert(why);
    }

    /// Takes in what nobody was ever handed.
    pub(super) fn arrived(&mut self, parcel: u64, chunk: Chunk) {
        let messages = self.unpack(parcel, chunk, 1, false);
        self.fresh.extend(messages);
    }

    /// Takes in a parcel that was here before, or in another process that is gone: so often was it handed out. Any of
    /// its messages may be what killed that process.
    pub(super) fn came_back(&mut self, parcel: u64, chunk: Chunk, before: u32) {
        if self.in_order {
            let messages = self.unpack(parcel, chunk, before.saturating_add(1), false);
            return messages.into_iter().for_each(|message| self.put_back(message));
        }
        let messages = self.unpack(parcel, chunk, 1, false);
        self.moves.extend(messages);
    }

    /// Puts what was handed out before among its like, by when it was published: the broker, when two have died, gives
    /// back first what the second held last.
    fn put_back(&mut self, message: Message) {
        let place = self.fresh.partition_point(|other| other.tag.attempt > 1 && other.at <= message.at);
        self.fresh.insert(place, message);
    }

    /// Takes in a suspect from the retry queue, which has been handed out from there so often before. It goes before
    /// one that was to be tried in place and has not been handed out yet.
    pub(super) fn suspect(&mut self, parcel: u64, chunk: Chunk, retried: u32) {
        if let Some(mut untried) = self.trial.take() {
            untried.tag.attempt -= 1;
            self.moves.push_front(untried);
        }
        let attempt = chunk.attempts.saturating_add(retried).saturating_add(1);
        self.trial = self.unpack(parcel, chunk, attempt, true).pop();
    }

    fn unpack(&mut self, parcel: u64, chunk: Chunk, attempt: u32, suspect: bool) -> Vec<Message> {
        let Chunk { at, parts, .. } = chunk;
        if parts.is_empty() {
            self.done.push(parcel);
        } else {
            self.parcels.insert(parcel, Parcel { unsettled: parts.len(), suspect });
        }
        let first = self.seqs + 1;
        self.seqs += parts.len() as u64;
        let message = |(seq, body)| Message { tag: Tag { seq, attempt }, body, at, parcel };
        (first..).zip(parts).map(message).collect()
    }

    /// Hands out all it can: the suspect first, and nothing but suspects while these are `first`.
    pub(super) fn hand_out(&mut self, settle: &Weak<dyn Settle>, suspects_first: bool) {
        while self.ended.is_none() && (self.trial.is_some() || (!suspects_first && !self.fresh.is_empty())) {
            let Some((consumer, room)) = self.consumers.next_free() else {
                return;
            };
            let Some(message) = self.trial.take().or_else(|| self.fresh.pop_front()) else {
                return;
            };
            room.send(Delivery::new(message.body.clone(), message.tag, settle.clone()));
            self.consumers.took(consumer);
            self.out.insert(message.tag.seq, Out { message, consumer, void: false });
        }
    }

    /// The message is done with. False when it is not out.
    pub(super) fn ack(&mut self, tag: Tag) -> bool {
        let Some(out) = self.take_back(tag) else {
            return false;
        };
        if !out.void {
            self.settled(out.message.parcel);
        }
        true
    }

    /// The message is to be handed out again. False when it is not out.
    pub(super) fn give_back(&mut self, tag: Tag) -> bool {
        let Some(out) = self.take_back(tag) else {
            return false;
        };
        let parcel = out.message.parcel;
        if out.void {
            return true;
        }
        if self.parcels.get(&parcel).is_some_and(|parcel| parcel.suspect) {
            self.parcels.remove(&parcel);
            self.back.push(parcel);
        } else if self.in_order {
            let tag = Tag { seq: tag.seq, attempt: tag.attempt.saturating_add(1) };
            self.put_back(Message { tag, ..out.message });
        } else {
            self.moves.push_back(out.message);
        }
        true
    }

    /// Everything that is out with this consumer is to be handed out again.
    pub(super) fn give_back_all(&mut self, consumer: ConsumerId) {
        let held = self.out.values().filter(|out| out.consumer == consumer);
        let held: Vec<Tag> = held.map(|out| out.message.tag).collect();
        for tag in held {
            self.give_back(tag);
        }
    }

    /// A message that is out; nothing when it will be handed out again anyhow, or has been.
    pub(super) fn held(&self, tag: Tag) -> Option<Message> {
        self.out_under(tag).filter(|out| !out.void).map(|out| out.message.clone())
    }

    /// Takes the message out of the hands it is in, if it is still out under this tag.
    fn take_back(&mut self, tag: Tag) -> Option<Out> {
        let consumer = self.out_under(tag)?.consumer;
        self.consumers.settled(consumer);
        self.out.remove(&tag.seq)
    }

    fn out_under(&self, tag: Tag) -> Option<&Out> {
        self.out.get(&tag.seq).filter(|out| out.message.tag == tag)
    }

    fn settled(&mut self, parcel: u64) {
        if let Some(of) = self.parcels.get_mut(&parcel) {
            of.unsettled -= 1;
            if of.unsettled == 0 {
                self.parcels.remove(&parcel);
                self.done.push(parcel);
            }
        }
    }

    /// Whether suspects are to be moved.
    pub(super) fn has_moves(&self) -> bool {
        !self.moves.is_empty()
    }

    /// Whether the broker is to be told of suspects that it will hand out again.
    pub(super) fn has_back(&self) -> bool {
        !self.back.is_empty()
    }

    /// Whether the broker has been told everything.
    pub(super) fn is_told(&self) -> bool {
        self.done.is_empty() && self.back.is_empty()
    }

    /// How many AMQP messages should be here at most: few while those in hand are many messages, more while consumers
    /// could take more than are in hand. Where order is kept always as many, so that all that comes back is here before
    /// any of it is handed out.
    pub(super) fn window(&self, now: u16) -> u16 {
        if self.in_order {
            return PARCELS_MAX;
        }
        let starved = self.fresh.is_empty() && self.consumers.free() > 0 && self.parcels.len() >= usize::from(now);
        if self.fresh.len() > FRESH_MAX {
            PARCELS_MIN
        } else if starved {
            PARCELS_MAX
        } else {
            now
        }
    }

    /// The suspects to be moved, in order.
    pub(super) fn take_moves(&mut self) -> VecDeque<Message> {
        std::mem::take(&mut self.moves)
    }

    /// The retry queue takes nothing: has the first who waits for it be handed out next, when none like it is out.
    pub(super) fn try_in_place(&mut self) {
        if self.trial.is_some() || self.out.contains_key(&self.tried) {
            return;
        }
        // One that came back at once is not tried again before the others, and before moving has failed once more.
        if let Some(mut message) = self.moves.pop_front_if(|next| next.tag.seq != self.tried) {
            message.tag.attempt = message.tag.attempt.saturating_add(1);
            self.tried = message.tag.seq;
            self.trial = Some(message);
        }
    }

    /// A suspect is in the retry queue now.
    pub(super) fn moved(&mut self, message: &Message) {
        self.settled(message.parcel);
    }

    /// These suspects could not be moved.
    pub(super) fn not_moved(&mut self, mut messages: VecDeque<Message>) {
        messages.append(&mut self.moves);
        self.moves = messages;
        if !self.out.contains_key(&self.tried) {
            self.tried = 0;
        }
    }

    /// What the broker is to be told. Once: it has to arrive, or the connection is over.
    pub(super) fn verdicts(&mut self) -> Verdicts {
        let mut done = std::mem::take(&mut self.done);
        done.sort_unstable();
        let lowest = self.parcels.first_key_value().map_or(u64::MAX, |(parcel, _)| *parcel);
        let after = done.split_off(done.partition_point(|parcel| *parcel < lowest));
        Verdicts { back: std::mem::take(&mut self.back), up_to: done.last().copied(), done: after }
    }

    /// The connection is over: the broker hands out again all that is not settled. What consumers hold still counts
    /// for their prefetch until they let go of it.
    pub(super) fn lost(&mut self) {
        self.out.values_mut().for_each(|out| out.void = true);
        (self.trial, self.fresh, self.moves) = Default::default();
        (self.parcels, self.done, self.back) = Default::default();
    }

    /// How many messages wait in this process, and how many are out.
    pub(super) fn counts(&self) -> (u64, u64) {
        let waiting = self.fresh.len() + usize::from(self.trial.is_some()) + self.moves.len();
        (waiting as u64, self.out.len() as u64)
    }

    /// When the oldest message here was published.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let out = self.out.values().map(|out| &out.message);
        out.chain(&self.fresh).chain(&self.trial).chain(&self.moves).map(|message| message.at).min()
    }
}

#[cfg(test)]
mod tests;
