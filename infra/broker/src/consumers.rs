//! The consumers of one queue: who may take how many more, in turn.

use tokio::sync::mpsc;

use crate::Delivery;

/// Deliveries one consumer may hold: more in hand is only more to hand out again.
pub(crate) const PREFETCH_MAX: usize = 4_096;

/// Names a consumer for as long as its queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ConsumerId(u64);

#[derive(Debug)]
struct Member {
    id: ConsumerId,
    prefetch: usize,
    unsettled: usize,
    deliveries: mpsc::Sender<Delivery>,
}

#[derive(Debug, Default)]
pub(crate) struct Consumers {
    members: Vec<Member>,
    joined: u64,
    turn: usize,
}

impl Consumers {
    /// Whether nobody is in.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// How many more deliveries may be handed out.
    pub(crate) fn free(&self) -> usize {
        self.members.iter().map(|member| member.prefetch.saturating_sub(member.unsettled)).sum()
    }

    /// Lets a consumer in; it may hold `prefetch` deliveries, for which `deliveries` must have room.
    pub(crate) fn join(&mut self, prefetch: usize, deliveries: mpsc::Sender<Delivery>) -> ConsumerId {
        self.joined += 1;
        let id = ConsumerId(self.joined);
        self.members.push(Member { id, prefetch, unsettled: 0, deliveries });
        id
    }

    /// Takes a consumer out. The sender is to be dropped outside any lock: with it go deliveries.
    #[must_use]
    pub(crate) fn leave(&mut self, id: ConsumerId) -> Option<mpsc::Sender<Delivery>> {
        let place = self.members.iter().position(|member| member.id == id)?;
        Some(self.members.remove(place).deliveries)
    }

    /// Takes everybody out, as [`leave`](Self::leave) does.
    #[must_use]
    pub(crate) fn leave_all(&mut self) -> Vec<mpsc::Sender<Delivery>> {
        self.members.drain(..).map(|member| member.deliveries).collect()
    }

    /// The next in turn who may take a delivery, and the room for it.
    pub(crate) fn next_free(&mut self) -> Option<(ConsumerId, mpsc::Permit<'_, Delivery>)> {
        let count = self.members.len();
        let mut places = (0..count).map(|step| (self.turn + step) % count);
        let place = places.find(|&place| self.members[place].unsettled < self.members[place].prefetch)?;
        self.turn = place + 1;
        let member = &self.members[place];
        Some((member.id, member.deliveries.try_reserve().ok()?))
    }

    /// This consumer was handed a delivery.
    pub(crate) fn took(&mut self, id: ConsumerId) {
        if let Some(member) = self.members.iter_mut().find(|member| member.id == id) {
            member.unsettled += 1;
        }
    }

    /// A delivery of this consumer is settled.
    pub(crate) fn settled(&mut self, id: ConsumerId) {
        if let Some(member) = self.members.iter_mut().find(|member| member.id == id) {
            member.unsettled -= 1;
        }
    }
}
