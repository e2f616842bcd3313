//! The funnel of a message balances, whatever happens to it in whatever order.

use std::time::Duration;

use model::{Cursor, Epoch, Message, Ordinal, Position, Receipt, ReceiptBatch, Seq, Timestamp};
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use super::{NOW, Place, demo, message, set, to_inboxes, to_timeline};
use crate::{CursorWrite, Store};

/// Messages, and devices, in play.
const COUNT: u32 = 6;

#[derive(Clone, Debug)]
enum Event {
    Inbox(u32, Vec<u32>),
    Timeline(u32, Vec<u32>),
    Told { message: u32, sent: Vec<u32>, acked: Vec<u32>, rejected: Vec<u32> },
    Ack(u32),
    Cancel(u32),
    Pass(u64),
    Sweep,
}

fn event() -> impl Strategy<Value = Event> {
    let devices = || proptest::collection::vec(0..COUNT, 0..COUNT as usize);
    prop_oneof![
        3 => (0..COUNT, devices()).prop_map(|(n, devices)| Event::Inbox(n, devices)),
        2 => (0..COUNT, devices()).prop_map(|(n, devices)| Event::Timeline(n, devices)),
        4 => (0..COUNT, devices(), devices(), devices())
            .prop_map(|(message, sent, acked, rejected)| Event::Told { message, sent, acked, rejected }),
        1 => (0..COUNT).prop_map(Event::Ack),
        1 => (0..COUNT).prop_map(Event::Cancel),
        2 => (0..400_u64).prop_map(Event::Pass),
        1 => Just(Event::Sweep),
    ]
}

/// The messages expire one after another, and every second one collapses.
fn numbered(n: u32) -> Message {
    let collapse_key = n.is_multiple_of(2).then(|| "key".to_owned());
    Message { collapse_key, expires_at: NOW + Duration::from_millis(u64::from(n + 1) * 500), ..message(n) }
}

async fn happen(store: &dyn Store, event: Event, now: &mut Timestamp) {
    match event {
        Event::Inbox(n, devices) => {
            drop(store.append_inbox(vec![to_inboxes(&numbered(n), set(devices))], *now).await.unwrap());
        }
        Event::Timeline(n, devices) => {
            drop(store.append_timeline(vec![to_timeline(&numbered(n), set(devices))], *now).await.unwrap());
        }
        Event::Told { message, sent, acked, rejected } => {
            let message = numbered(message).id;
            let receipt = Receipt { message, sent: set(sent), acked: set(acked), rejected: set(rejected) };
            store.add_receipts(vec![ReceiptBatch { app: demo(), receipts: vec![receipt] }]).await.unwrap();
        }
        Event::Ack(device) => {
            let heads = store.inbox_heads(&demo(), &[Ordinal(device)]).await.unwrap();
            let cursor = Cursor::at(Position { inbox: heads[0], timeline: Seq::ZERO });
            let write = CursorWrite { app: demo(), device: Ordinal(device), epoch: Epoch(1), cursor };
            drop(store.save_cursors(vec![write]).await.unwrap());
        }
        Event::Cancel(n) => drop(store.cancel(&demo(), numbered(n).id, *now).await.unwrap()),
        Event::Pass(millis) => *now = *now + Duration::from_millis(millis),
        Event::Sweep => drop(store.expire(*now).await.unwrap()),
    }
}

/// After every event each target of each message is in exactly one place, and nobody who acked is anywhere else.
pub async fn it_balances_under_random_interleavings(place: &mut dyn Place) {
    let store = place.open().await;
    let mut runner = TestRunner::default();
    let events = proptest::collection::vec(event(), 300).new_tree(&mut runner).unwrap().current();
    let mut now = NOW;
    for (step, event) in events.iter().enumerate() {
        happen(&*store, event.clone(), &mut now).await;
        for message in (0..COUNT).map(numbered) {
            let Some(tally) = store.tally(&demo(), message.id).await.unwrap() else { continue };
            let funnel = tally.funnel(message.expires_at, now);
            assert!(funnel.balances(), "{funnel:?} of {:?} after {:?}", message.id, &events[..=step]);
            assert_eq!(funnel.acked, tally.targeted.common(&tally.acked));
        }
    }
}
