//! What became of each send, as far as its sender knows.

use std::collections::HashMap;

use model::{MessageId, Timestamp};
use roaring::RoaringBitmap;

use super::roll::Roll;
use crate::{
    Audience,
    history::{Kind, Op, Record},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Ok,
    Fail,
    Info,
}

/// A message, from the sender's side. Its number is its place among the messages.
pub(super) struct Sent<'a> {
    pub(super) msg: &'a str,
    pub(super) audience: &'a Audience,
    /// The devices that the audience names one by one.
    pub(super) listed: RoaringBitmap,
    pub(super) id: Option<MessageId>,
    pub(super) outcome: Outcome,
    /// Where in the history it was sent first.
    pub(super) invoked: usize,
    /// Where it was answered; `usize::MAX` while its fate is unknown: it may be accepted at any time.
    pub(super) answered: usize,
    pub(super) answered_at: Timestamp,
    /// When a message accepted at the first moment expires.
    pub(super) expires_from: Timestamp,
    /// When a message accepted at the last moment expires.
    pub(super) expires_until: Timestamp,
    /// Somebody tried to call it back; from when on that is certain.
    pub(super) cancelled: Option<Option<Timestamp>>,
}

/// The messages of a history, in the order they were first sent.
#[derive(Default)]
pub(super) struct Sends<'a> {
    by_name: HashMap<&'a str, usize>,
    sent: Vec<Sent<'a>>,
}

impl<'a> Sends<'a> {
    pub(super) fn of(records: &'a [Record], roll: &Roll<'a>) -> Self {
        let mut sends = Self::default();
        for (at, record) in records.iter().enumerate() {
            match &record.op {
                Op::Send { msg, audience, ttl_s, id } => {
                    if record.kind == Kind::Invoke && !sends.by_name.contains_key(msg.as_str()) {
                        sends.by_name.insert(msg, sends.sent.len());
                        sends.sent.push(Sent::invoked(at, record.t, msg, audience, roll));
                    }
                    if let Some(&number) = sends.by_name.get(msg.as_str()) {
                        sends.sent[number].learn(at, record, *ttl_s, *id);
                    }
                }
                Op::Cancel { msg } => {
                    if let Some(&number) = sends.by_name.get(msg.as_str()) {
                        sends.sent[number].call_back(record);
                    }
                }
                _ => {}
            }
        }
        sends
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &Sent<'a>)> {
        self.sent.iter().enumerate()
    }

    pub(super) fn get(&self, message: usize) -> Option<&Sent<'a>> {
        self.sent.get(message)
    }

    pub(super) fn named(&self, msg: &str) -> Option<(usize, &Sent<'a>)> {
        let number = *self.by_name.get(msg)?;
        Some((number, &self.sent[number]))
    }
}

impl<'a> Sent<'a> {
    fn invoked(at: usize, t: Timestamp, msg: &'a str, audience: &'a Audience, roll: &Roll<'a>) -> Self {
        let listed = match audience {
            Audience::Devices(devices) => devices.iter().filter_map(|device| roll.number(device)).collect(),
            _ => RoaringBitmap::new(),
        };
        Self {
            msg,
            audience,
            listed,
            id: None,
            outcome: Outcome::Info,
            invoked: at,
            answered: usize::MAX,
            answered_at: t,
            expires_from: t,
            expires_until: t,
            cancelled: None,
        }
    }

    /// A refused cancellation leaves things as they were.
    fn call_back(&mut self, record: &Record) {
        self.cancelled = match (record.kind, self.cancelled) {
            (Kind::Invoke | Kind::Info, known) => Some(known.flatten()),
            (Kind::Ok, known) => Some(known.flatten().or(Some(record.t))),
            (Kind::Fail, known) => known.filter(Option::is_some),
        };
    }

    /// An acceptance is certain once told; a refusal only while nothing else was.
    fn learn(&mut self, at: usize, record: &Record, ttl_s: u64, id: Option<MessageId>) {
        let ttl = std::time::Duration::from_secs(ttl_s);
        if record.kind == Kind::Invoke && self.invoked == at {
            self.expires_from = record.t + ttl;
        }
        if self.outcome == Outcome::Ok {
            return;
        }
        self.answered_at = record.t;
        self.expires_until = record.t + ttl;
        match record.kind {
            Kind::Ok => (self.outcome, self.answered, self.id) = (Outcome::Ok, at, id),
            Kind::Fail => (self.outcome, self.answered) = (Outcome::Fail, at),
            Kind::Invoke | Kind::Info => (self.outcome, self.answered) = (Outcome::Info, usize::MAX),
        }
    }
}
