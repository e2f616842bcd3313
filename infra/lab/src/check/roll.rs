//! Who was registered when, with what, in which group: the checker's own registry.
//!
//! Acts overlap, so of a device that was being registered while a message was sent nobody outside can say whether it
//! is in the audience: such a device *may* have the message and need not. Moments are places in the history.

use std::collections::{BTreeSet, HashMap};

use model::{DeviceId, GroupId, Timestamp, UserId};
use roaring::RoaringBitmap;

use super::sends::Sent;
use crate::{
    Audience,
    history::{Kind, Op, Record},
};

/// From when to when something was being done.
#[derive(Clone, Copy)]
struct Span {
    invoked: usize,
    /// `usize::MAX` while nothing says that it happened.
    done: usize,
}

struct Registration<'a> {
    span: Span,
    user: Option<&'a UserId>,
    tags: &'a BTreeSet<String>,
}

#[derive(Default)]
struct Member<'a> {
    registrations: Vec<Registration<'a>>,
    groups: Vec<(GroupId, Span)>,
    unregistered: bool,
    synced: Vec<Timestamp>,
}

/// Every device of a history, by a small number.
#[derive(Default)]
pub(super) struct Roll<'a> {
    numbers: HashMap<&'a DeviceId, u32>,
    names: Vec<&'a DeviceId>,
    members: Vec<Member<'a>>,
}

impl<'a> Roll<'a> {
    pub(super) fn of(records: &'a [Record]) -> Self {
        let mut roll = Self::default();
        for (at, record) in records.iter().enumerate() {
            match &record.op {
                Op::Register { dev, user, tags } => roll.register(at, record.kind, dev, user.as_ref(), tags),
                Op::Unregister { dev } => roll.member(dev).unregistered = true,
                Op::Join { group, devs } => devs.iter().for_each(|dev| roll.join(at, record.kind, *group, dev)),
                Op::Synced { dev } => roll.member(dev).synced.push(record.t),
                Op::Send { .. } | Op::Cancel { .. } | Op::Receive { .. } | Op::State { .. } | Op::Funnel { .. } => {}
            }
        }
        roll
    }

    fn member(&mut self, device: &'a DeviceId) -> &mut Member<'a> {
        let next = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry(device).or_insert(next);
        if number == next {
            self.names.push(device);
            self.members.push(Member::default());
        }
        &mut self.members[number as usize]
    }

    fn register(
        &mut self,
        at: usize,
        kind: Kind,
        device: &'a DeviceId,
        user: Option<&'a UserId>,
        tags: &'a BTreeSet<String>,
    ) {
        let registrations = &mut self.member(device).registrations;
        match (kind, registrations.last_mut()) {
            (Kind::Invoke, _) => {
                registrations.push(Registration { span: Span { invoked: at, done: usize::MAX }, user, tags });
            }
            (Kind::Ok, Some(last)) => last.span.done = last.span.done.min(at),
            (Kind::Fail, Some(_)) => drop(registrations.pop()),
            _ => {}
        }
    }

    fn join(&mut self, at: usize, kind: Kind, group: GroupId, device: &'a DeviceId) {
        let groups = &mut self.member(device).groups;
        let known = groups.iter_mut().find(|(known, _)| *known == group);
        match (kind, known) {
            (Kind::Invoke, None) => groups.push((group, Span { invoked: at, done: usize::MAX })),
            (Kind::Ok, Some((_, span))) => span.done = span.done.min(at),
            _ => {}
        }
    }

    pub(super) fn number(&self, device: &DeviceId) -> Option<u32> {
        self.numbers.get(device).copied()
    }

    pub(super) fn name(&self, number: u32) -> &DeviceId {
        self.names[number as usize]
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Devices that certainly are in a message's audience.
    pub(super) fn must(&self, sent: &Sent<'_>) -> RoaringBitmap {
        self.numbers().filter(|&number| self.must_have(number, sent)).collect()
    }

    /// Devices that may be in a message's audience, as far as the history up to `at` goes.
    pub(super) fn may(&self, sent: &Sent<'_>, at: usize) -> RoaringBitmap {
        self.numbers().filter(|&number| self.may_have(number, sent, at)).collect()
    }

    fn numbers(&self) -> impl Iterator<Item = u32> + use<> {
        0..u32::try_from(self.members.len()).unwrap_or(u32::MAX)
    }

    fn must_have(&self, number: u32, sent: &Sent<'_>) -> bool {
        let member = &self.members[number as usize];
        // In force when the message was sent: the last registration done by then, and any that came later.
        let settled = member.registrations.iter().rposition(|one| one.span.done < sent.invoked);
        let Some(settled) = settled.filter(|_| !member.unregistered) else { return false };
        let in_force = &member.registrations[settled..];
        match sent.audience {
            Audience::All => true,
            Audience::Devices(_) => sent.listed.contains(number),
            Audience::Users(users) => in_force.iter().all(|one| one.user.is_some_and(|user| users.contains(user))),
            Audience::Tag(tag) => in_force.iter().all(|one| one.tags.contains(tag)),
            Audience::Group(group) => member.groups.iter().any(|(id, span)| id == group && span.done < sent.invoked),
        }
    }

    /// Whether a device may have a message that came to it `at` this place. What is looked up as a set is frozen only
    /// at dispatch, which is after the answer.
    pub(super) fn may_have(&self, number: u32, sent: &Sent<'_>, at: usize) -> bool {
        let member = &self.members[number as usize];
        let registered = |before: usize| member.registrations.iter().take_while(move |one| one.span.invoked < before);
        match sent.audience {
            Audience::All => registered(sent.answered).next().is_some(),
            Audience::Devices(_) => sent.listed.contains(number) && registered(sent.answered).next().is_some(),
            Audience::Users(users) => registered(at).any(|one| one.user.is_some_and(|user| users.contains(user))),
            Audience::Tag(tag) => registered(at).any(|one| one.tags.contains(tag)),
            Audience::Group(group) => member.groups.iter().any(|(id, span)| id == group && span.invoked < at),
        }
    }

    /// Whether a device completed a sync between these moments.
    pub(super) fn synced_within(&self, number: u32, from: Timestamp, until: Timestamp) -> bool {
        self.members[number as usize].synced.iter().any(|at| (from..until).contains(at))
    }

    /// Whether a device completed a sync at this moment or later.
    pub(super) fn synced_after(&self, number: u32, from: Timestamp) -> bool {
        self.members[number as usize].synced.iter().any(|at| *at >= from)
    }
}
