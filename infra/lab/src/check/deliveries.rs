//! What devices received, judged one by one as it came.

use std::collections::{HashMap, hash_map::Entry};

use model::{DeviceId, Position, Seq, Stream};
use roaring::RoaringBitmap;

use super::{
    GRACE, Verdict,
    roll::Roll,
    sends::{Outcome, Sends, Sent},
};
use crate::{
    history::{Op, Record},
    received::Place,
};

/// The greatest number of each stream.
#[derive(Clone, Copy, Default)]
struct Greatest([Seq; 2]);

impl Greatest {
    /// Takes a number in; false when it is not greater than those before.
    fn rises(&mut self, place: Place) -> bool {
        let greatest = match place.stream {
            Stream::Inbox => &mut self.0[0],
            Stream::Timeline => &mut self.0[1],
        };
        let rises = place.seq > *greatest;
        *greatest = place.seq.max(*greatest);
        rises
    }
}

#[derive(Clone, Default)]
struct Stand {
    /// The application's.
    app: Greatest,
    /// The present connection, and what came on it.
    link: u32,
    wire: Greatest,
    /// What came and was not acked.
    unacked: Vec<(usize, Place)>,
}

/// How a message came to a device.
#[derive(Clone, Copy)]
struct Came {
    /// Where in the history it first did.
    first_at: usize,
    /// Where it stood when it last did.
    place: Place,
}

/// Who has what.
pub(super) struct Deliveries<'a> {
    roll: &'a Roll<'a>,
    sends: &'a Sends<'a>,
    stands: Vec<Stand>,
    /// By message: the devices whose application has it, and those that acked it.
    seen: Vec<RoaringBitmap>,
    acked: Vec<RoaringBitmap>,
    /// How each message came to each device.
    came: HashMap<(usize, u32), Came>,
}

impl<'a> Deliveries<'a> {
    pub(super) fn new(roll: &'a Roll<'a>, sends: &'a Sends<'a>) -> Self {
        let none = vec![RoaringBitmap::new(); sends.iter().count()];
        let stands = vec![Stand::default(); roll.len()];
        Self { roll, sends, stands, seen: none.clone(), acked: none, came: HashMap::new() }
    }

    /// Devices whose application has a message.
    pub(super) fn seen(&self, message: usize) -> &RoaringBitmap {
        &self.seen[message]
    }

    /// Devices that acked a message at least once, or stated a position at or behind it.
    pub(super) fn acked(&self, message: usize) -> &RoaringBitmap {
        &self.acked[message]
    }

    /// Where in the history a message first came to a device.
    pub(super) fn first_at(&self, message: usize, device: u32) -> Option<usize> {
        self.came.get(&(message, device)).map(|came| came.first_at)
    }

    /// A device states what it has, which acks all of it.
    pub(super) fn state(&mut self, device: &DeviceId, after: Position) {
        let Some(device) = self.roll.number(device) else { return };
        let is_covered = |(_, place): &mut (usize, Place)| place.seq <= after.get(place.stream);
        for (message, _) in self.stands[device as usize].unacked.extract_if(.., is_covered) {
            self.acked[message].insert(device);
        }
    }

    /// Judges one reception, which stands `at` this place of the history.
    pub(super) fn receive(&mut self, at: usize, record: &Record, verdict: &mut Verdict) {
        let Op::Receive { dev, link, msg, id, seq, app, acked, .. } = &record.op else { return };
        let known = self.roll.number(dev).zip(self.sends.named(msg));
        let Some((device, (message, sent))) = known else {
            verdict.unexpected += 1;
            verdict.note(|| format!("unexpected: {dev} got {id} ({msg:?}), and one of the two is unknown"));
            return;
        };
        let why = self.why_unexpected(at, record, device, message, sent).or_else(|| {
            let other = sent.id.is_some_and(|answered| answered != *id);
            other.then_some("it has another id than the one answered")
        });
        if let Some(why) = why {
            verdict.unexpected += 1;
            verdict.note(|| format!("unexpected: {dev} got {msg} ({id}), but {why}"));
        }
        if record.t > sent.expires_until + GRACE {
            verdict.late += 1;
            verdict.note(|| format!("late: {dev} got {msg} at {:?}", record.t));
        }
        self.judge_link(device, *link, *seq, verdict);
        self.judge_again(at, device, message, *seq, verdict);
        if *acked {
            self.acked[message].insert(device);
        } else {
            self.stands[device as usize].unacked.push((message, *seq));
        }
        if *app {
            self.judge_app(device, message, *seq, verdict);
        }
    }

    fn why_unexpected(
        &self,
        at: usize,
        record: &Record,
        device: u32,
        message: usize,
        sent: &Sent<'_>,
    ) -> Option<&'static str> {
        let cancelled = sent.cancelled.flatten().is_some_and(|since| record.t > since + GRACE);
        match () {
            () if sent.outcome == Outcome::Fail => Some("it was refused"),
            () if !self.roll.may_have(device, sent, at) => Some("it is not in the audience"),
            () if cancelled && !self.came.contains_key(&(message, device)) => Some("it was called back before"),
            () => None,
        }
    }

    fn judge_link(&mut self, device: u32, link: u32, place: Place, verdict: &mut Verdict) {
        let stand = &mut self.stands[device as usize];
        if stand.link != link {
            (stand.link, stand.wire) = (link, Greatest::default());
        }
        if !stand.wire.rises(place) {
            verdict.out_of_order += 1;
            verdict.note(|| format!("out of order: {place} on connection {link} of {}", self.roll.name(device)));
        }
    }

    fn judge_again(&mut self, at: usize, device: u32, message: usize, place: Place, verdict: &mut Verdict) {
        match self.came.entry((message, device)) {
            Entry::Vacant(first) => drop(first.insert(Came { first_at: at, place })),
            Entry::Occupied(mut again) => {
                verdict.wire_duplicates += 1;
                let before = std::mem::replace(&mut again.get_mut().place, place);
                if before != place {
                    verdict.renumbered += 1;
                    verdict.note(|| format!("renumbered: {before} came to {} as {place}", self.roll.name(device)));
                }
            }
        }
    }

    fn judge_app(&mut self, device: u32, message: usize, place: Place, verdict: &mut Verdict) {
        if !self.stands[device as usize].app.rises(place) {
            verdict.out_of_order += 1;
            verdict.note(|| format!("out of order: the application of {} sees {place}", self.roll.name(device)));
        }
        if !self.seen[message].insert(device) {
            verdict.app_duplicates += 1;
            verdict.note(|| format!("seen again: {place} by the application of {}", self.roll.name(device)));
        }
    }
}
