//! Things to put into a store.

use std::{sync::Arc, time::Duration};

use model::{
    AppId, Class, Env, Lane, Message, MessageId, Ordinal, Ordinals, Priority, Timestamp, TraceParent, Uplink, UplinkId,
};
use store::{InboxAppend, TimelineAppend};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);

pub(crate) fn app() -> AppId {
    "demo".parse().unwrap()
}

pub(crate) fn later(millis: u64) -> Timestamp {
    NOW + Duration::from_millis(millis)
}

pub(crate) fn set(ordinals: impl IntoIterator<Item = u32>) -> Ordinals {
    ordinals.into_iter().map(Ordinal).collect()
}

/// The `n`-th message, of 200 bytes, good for an hour.
pub(crate) fn message(n: u32) -> Message {
    Message {
        id: MessageId::new(NOW, n.into()),
        app: app(),
        env: Env::Live,
        lane: Lane::Unicast,
        kind: "news".into(),
        class: Class::Message,
        payload: vec![b'x'; 200].into(),
        content_type: "text/plain".into(),
        created_at: NOW,
        expires_at: NOW + Duration::from_hours(1),
        due_at: None,
        priority: Priority::Normal,
        collapse_key: None,
        metadata: [].into(),
        trace: TraceParent::start(u128::from(n) + 1, 1),
    }
}

pub(crate) fn to_inboxes(message: Message, devices: Ordinals) -> InboxAppend {
    InboxAppend { message: Arc::new(message), devices }
}

pub(crate) fn to_timeline(message: Message, audience: Ordinals) -> TimelineAppend {
    TimelineAppend { message: Arc::new(message), audience }
}

pub(crate) fn uplink(n: u32) -> Uplink {
    Uplink {
        id: UplinkId::new(NOW, n.into()),
        app: app(),
        env: Env::Live,
        device: "a".parse().unwrap(),
        user: None,
        kind: "ping".into(),
        answers: None,
        reply: None,
        content_type: None,
        payload: vec![b'x'; 200].into(),
        received_at: NOW,
        trace: TraceParent::start(u128::from(n) + 1, 1),
    }
}
