//! Random operations, restarts among them: the store and a plain model of its promises always agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use model::{Cursor, Env, Epoch, Message, Ordinal, Ordinals, Position, Receipt, ReceiptBatch, Seq, Timestamp};
use proptest::prelude::*;
use store::{Appended, CursorWrite, Registration, SharedStore, contract::Place as _};

use crate::{
    make::{NOW, app, message, set, to_inboxes, to_timeline},
    place::Directory,
};

/// Devices, and messages, in play.
const DEVICES: u32 = 5;
const MESSAGES: u32 = 8;

#[derive(Clone, Debug)]
enum Op {
    Register(Vec<u32>),
    Remove(u32),
    Inbox(u32, BTreeSet<u32>),
    Timeline(u32, BTreeSet<u32>),
    Told { message: u32, sent: BTreeSet<u32>, acked: BTreeSet<u32> },
    Save { device: u32, epoch: u64, entries: usize },
    Cancel(u32),
    Pass(u64),
    Sweep,
    Reopen,
}

fn op() -> impl Strategy<Value = Op> {
    let devices = || proptest::collection::btree_set(0..DEVICES, 0..4);
    prop_oneof![
        3 => proptest::collection::vec(0..DEVICES, 1..4).prop_map(Op::Register),
        1 => (0..DEVICES).prop_map(Op::Remove),
        5 => (0..MESSAGES, devices()).prop_map(|(message, devices)| Op::Inbox(message, devices)),
        4 => (0..MESSAGES, devices()).prop_map(|(message, devices)| Op::Timeline(message, devices)),
        3 => (0..MESSAGES, devices(), devices())
            .prop_map(|(message, sent, acked)| Op::Told { message, sent, acked }),
        3 => (0..DEVICES, 1..4_u64, 0..4_usize)
            .prop_map(|(device, epoch, entries)| Op::Save { device, epoch, entries }),
        2 => (0..MESSAGES).prop_map(Op::Cancel),
        3 => (0..900_u64).prop_map(Op::Pass),
        2 => Just(Op::Sweep),
        1 => Just(Op::Reopen),
    ]
}

/// Messages expire one after another; every third collapses.
fn numbered(n: u32) -> Message {
    let expires_at = NOW + Duration::from_millis(u64::from(n) * 400 + 400);
    Message { expires_at, collapse_key: n.is_multiple_of(3).then(|| "key".to_owned()), ..message(n) }
}

/// What is to be in the store.
#[derive(Default)]
struct Model {
    now: Timestamp,
    registered: BTreeMap<u32, u32>,
    count: u32,
    dispatched: BTreeMap<u32, Sent>,
    inboxes: BTreeMap<u32, Stream>,
    timeline: Stream,
    cursors: BTreeMap<u32, (u64, Position)>,
}

#[derive(Default)]
struct Stream {
    head: Seq,
    entries: Vec<(Seq, u32)>,
}

#[derive(Default)]
struct Sent {
    targeted: BTreeSet<u32>,
    sent: BTreeSet<u32>,
    acked: BTreeSet<u32>,
    cancelled: BTreeSet<u32>,
    called_back: bool,
}

impl Stream {
    fn push(&mut self, n: u32, now: Timestamp) {
        self.head = self.head.next(now);
        self.entries.push((self.head, n));
    }
}

impl Model {
    /// Whether a message may be appended, and the note that it was.
    fn dispatch(&mut self, n: u32, targeted: &BTreeSet<u32>) -> Appended {
        if self.dispatched.contains_key(&n) {
            return Appended::Again;
        }
        if self.now >= numbered(n).expires_at {
            return Appended::Cancelled;
        }
        self.dispatched.insert(n, Sent { targeted: targeted.clone(), ..Sent::default() });
        Appended::New
    }

    fn append_inbox(&mut self, n: u32, devices: &BTreeSet<u32>) -> Appended {
        let appended = self.dispatch(n, devices);
        let collapses = |other: u32| numbered(n).collapse_key.is_some() && numbered(other).collapse_key.is_some();
        for device in devices.iter().filter(|_| appended == Appended::New) {
            let inbox = self.inboxes.entry(*device).or_default();
            inbox.entries.retain(|(_, other)| self.now < numbered(*other).expires_at);
            for (_, other) in inbox.entries.extract_if(.., |(_, other)| collapses(*other)) {
                self.dispatched.get_mut(&other).unwrap().cancelled.insert(*device);
            }
            inbox.push(n, self.now);
        }
        appended
    }

    fn append_timeline(&mut self, n: u32, audience: &BTreeSet<u32>) -> Appended {
        let appended = self.dispatch(n, audience);
        if appended == Appended::New {
            self.timeline.push(n, self.now);
        }
        appended
    }

    fn cancel(&mut self, n: u32) {
        let Some(sent) = self.dispatched.get_mut(&n) else { return };
        if sent.called_back || self.now >= numbered(n).expires_at {
            return;
        }
        sent.called_back = true;
        for device in sent.targeted.iter().filter(|device| !sent.sent.contains(device) && !sent.acked.contains(device))
        {
            if sent.cancelled.insert(*device)
                && let Some(inbox) = self.inboxes.get_mut(device)
            {
                inbox.entries.retain(|(_, other)| *other != n);
            }
        }
    }

    fn save(&mut self, device: u32, epoch: u64, position: Position) -> bool {
        let (kept_epoch, kept) = self.cursors.entry(device).or_default();
        let taken = epoch >= *kept_epoch;
        if taken {
            (*kept_epoch, *kept) = (epoch, kept.max(position));
            if let Some(inbox) = self.inboxes.get_mut(&device) {
                inbox.entries.retain(|(seq, _)| *seq > kept.inbox);
            }
        }
        taken
    }

    fn sweep(&mut self) {
        let now = self.now;
        for stream in self.inboxes.values_mut().chain([&mut self.timeline]) {
            stream.entries.retain(|(_, n)| now < numbered(*n).expires_at);
        }
    }
}

fn ordinals(devices: &BTreeSet<u32>) -> Ordinals {
    set(devices.iter().copied())
}

fn name(n: u32) -> model::DeviceId {
    format!("d{n}").parse().unwrap()
}

async fn register(store: &SharedStore, model: &mut Model, ids: Vec<u32>) {
    let registration = |n: &u32| Registration { id: name(*n), env: Env::Live, profile: None };
    let devices = store.register(&app(), ids.iter().map(registration).collect(), model.now).await.unwrap();
    for (n, (device, new)) in ids.into_iter().zip(devices) {
        assert_eq!(new, !model.registered.contains_key(&n));
        if new {
            assert_eq!(device.ordinal, Ordinal(model.count));
            model.registered.insert(n, model.count);
            let start = Position { inbox: Seq::ZERO, timeline: model.timeline.head };
            model.cursors.insert(model.count, (0, start));
            model.count += 1;
        }
    }
}

async fn save(store: &SharedStore, model: &mut Model, device: u32, epoch: u64, entries: usize) {
    let acked = |stream: Option<&Stream>| {
        stream.and_then(|stream| stream.entries.get(entries)).map_or(Seq::ZERO, |(seq, _)| *seq)
    };
    let position = Position { inbox: acked(model.inboxes.get(&device)), timeline: acked(Some(&model.timeline)) };
    let cursor = Cursor::at(position);
    let write = CursorWrite { app: app(), device: Ordinal(device), epoch: Epoch(epoch), cursor };
    assert_eq!(store.save_cursors(vec![write]).await.unwrap(), [model.save(device, epoch, position)]);
}

async fn apply(store: &SharedStore, model: &mut Model, op: Op) {
    match op {
        Op::Register(ids) => register(store, model, ids).await,
        Op::Remove(n) => {
            let removed = store.remove(&app(), &name(n)).await.unwrap();
            assert_eq!(removed.map(|device| device.ordinal.0), model.registered.get(&n).copied());
            if let Some(ordinal) = model.registered.remove(&n) {
                model.inboxes.remove(&ordinal);
                model.cursors.remove(&ordinal);
            }
        }
        Op::Inbox(n, devices) => {
            let append = to_inboxes(numbered(n), ordinals(&devices));
            let done = store.append_inbox(vec![append], model.now).await.unwrap();
            assert_eq!(done, [model.append_inbox(n, &devices)]);
        }
        Op::Timeline(n, devices) => {
            let append = to_timeline(numbered(n), ordinals(&devices));
            let done = store.append_timeline(vec![append], model.now).await.unwrap();
            assert_eq!(done, [model.append_timeline(n, &devices)]);
        }
        Op::Told { message, sent, acked } => {
            let id = numbered(message).id;
            let receipt = Receipt { sent: ordinals(&sent), acked: ordinals(&acked), ..Receipt::new(id) };
            store.add_receipts(vec![ReceiptBatch { app: app(), receipts: vec![receipt] }]).await.unwrap();
            if let Some(known) = model.dispatched.get_mut(&message) {
                known.sent.extend(sent);
                known.acked.extend(acked);
            }
        }
        Op::Save { device, epoch, entries } => save(store, model, device, epoch, entries).await,
        Op::Cancel(n) => {
            let cancelled = store.cancel(&app(), numbered(n).id, model.now).await.unwrap();
            assert_eq!(cancelled.is_some(), model.dispatched.contains_key(&n));
            model.cancel(n);
        }
        Op::Pass(millis) => model.now = model.now + Duration::from_millis(millis),
        Op::Sweep => {
            while store.expire(model.now).await.unwrap() > 0 {}
            model.sweep();
        }
        Op::Reopen => unreachable!("the caller has the place"),
    }
}

async fn compare(store: &SharedStore, model: &Model) {
    assert_eq!(store.count(&app()).await.unwrap(), model.count);
    assert_eq!(store.registered(&app(), Env::Live).await.unwrap(), set(model.registered.values().copied()));
    for device in 0..model.count.max(DEVICES) {
        let (device, inbox) = (Ordinal(device), model.inboxes.get(&device));
        let entries = store.inbox_after(&app(), device, Seq::ZERO, 99).await.unwrap();
        let entries: Vec<_> = entries.into_iter().map(|entry| (entry.seq, (*entry.message).clone())).collect();
        let expected = inbox.map(|inbox| inbox.entries.iter().map(|(seq, n)| (*seq, numbered(*n))).collect());
        assert_eq!(entries, expected.unwrap_or_else(Vec::new));
        let heads = store.inbox_heads(&app(), &[device]).await.unwrap();
        assert_eq!(heads, [inbox.map_or(Seq::ZERO, |inbox| inbox.head)]);
        let cursor = store.cursor(&app(), device).await.unwrap();
        assert_eq!(cursor.position(), model.cursors.get(&device.0).map_or(Position::default(), |(_, at)| *at));
    }
    assert_eq!(store.timeline_head(&app()).await.unwrap(), model.timeline.head);
    let entries = store.timeline_after(&app(), Seq::ZERO, 99).await.unwrap();
    assert_eq!(entries.len(), model.timeline.entries.len());
    for (entry, (seq, n)) in entries.iter().zip(&model.timeline.entries) {
        assert_eq!((entry.seq, &*entry.message), (*seq, &numbered(*n)));
        let Sent { targeted, cancelled, called_back, .. } = &model.dispatched[n];
        assert_eq!(entry.cancelled, *called_back);
        assert_eq!(*entry.audience, ordinals(&(targeted - cancelled)));
    }
    for n in 0..MESSAGES {
        let tally = store.tally(&app(), numbered(n).id).await.unwrap();
        assert_eq!(tally.is_some(), model.dispatched.contains_key(&n));
        let Some((tally, known)) = tally.zip(model.dispatched.get(&n)) else { continue };
        assert!(tally.funnel(numbered(n).expires_at, model.now).balances());
        let sets = [&known.targeted, &known.sent, &known.acked, &known.cancelled].map(ordinals);
        assert_eq!([tally.targeted, tally.sent, tally.acked, tally.cancelled], sets);
        assert!(tally.rejected.is_empty() && tally.truncated.is_empty());
    }
}

async fn run(ops: Vec<Op>) {
    let mut place = Directory::new();
    let mut store = place.open().await;
    let mut model = Model { now: NOW, ..Model::default() };
    for op in ops {
        if let Op::Reopen = op {
            drop(store);
            store = place.open().await;
        } else {
            apply(&store, &mut model, op).await;
        }
        compare(&store, &model).await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_store_does_what_a_plain_model_of_it_does(ops in proptest::collection::vec(op(), 1..80)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(ops));
    }
}
