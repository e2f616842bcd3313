//! Bodies packed once per message: whoever gets it, in an inbox or in the timeline, by a bell or from the store, gets the
//! same bytes. What only one device gets is not kept.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use model::{Lane, Message, MessageId, Seq, Stream};
use mqtt::{Coding, Encoded, wire};
use parking_lot::Mutex;

use crate::metrics::Metrics;

/// Bodies, packed or found to be not worth it, in each of two halves; when one is full, the older half is forgotten. More
/// than are under way at a time.
const HALF_MAX: usize = 1_000;

type Key = (MessageId, Coding);

/// Packed, by the first that needs it; nothing when it is better sent as it is.
type Slot = Arc<OnceLock<Option<Bytes>>>;

#[derive(Debug, Default)]
struct Halves {
    recent: HashMap<Key, Slot>,
    older: HashMap<Key, Slot>,
}

impl Halves {
    fn slot(&mut self, key: Key) -> Slot {
        if self.recent.len() >= HALF_MAX && !self.recent.contains_key(&key) {
            self.older = std::mem::take(&mut self.recent);
        }
        let before = self.older.remove(&key);
        self.recent.entry(key).or_insert_with(|| before.unwrap_or_default()).clone()
    }
}

/// Packed bodies, and how much was won.
#[derive(Debug)]
pub(crate) struct Packed {
    kept: Mutex<Halves>,
    metrics: Metrics,
}

impl Packed {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self { kept: Mutex::default(), metrics }
    }

    /// A message as a packet with its body packed; `None` when it is better sent as it is.
    pub(crate) fn encoded(
        &self,
        message: &Message,
        stream: Stream,
        seq: Seq,
        coding: Coding,
    ) -> Option<Result<Encoded, wire::Error>> {
        let body = self.body(message, coding)?;
        Some(Encoded::packed(message, stream, seq, coding, body))
    }

    fn body(&self, message: &Message, coding: Coding) -> Option<Bytes> {
        if message.lane == Lane::Unicast {
            return self.pack(message, coding);
        }
        let slot = self.kept.lock().slot((message.id, coding));
        slot.get_or_init(|| self.pack(message, coding)).clone()
    }

    fn pack(&self, message: &Message, coding: Coding) -> Option<Bytes> {
        let packed = coding.pack(&message.payload)?;
        self.metrics.whole_bytes.inc_by(message.payload.len() as u64);
        self.metrics.packed_bytes.inc_by(packed.len() as u64);
        Some(packed)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use model::{Class, Env, Priority, Timestamp, TraceParent};

    use super::*;

    fn packed() -> Packed {
        Packed::new(Metrics::new(&mut prometheus_client::registry::Registry::default()))
    }

    fn message(lane: Lane, random: u128) -> Message {
        let created_at = Timestamp::from_millis(1_000_000);
        Message {
            id: MessageId::new(created_at, random),
            app: "demo".parse().unwrap(),
            env: Env::Live,
            lane,
            class: Class::Message,
            kind: "default".into(),
            payload: "the same again ".repeat(100).into(),
            content_type: "text/plain".into(),
            created_at,
            expires_at: created_at + Duration::from_secs(3_600),
            due_at: None,
            priority: Priority::Normal,
            collapse_key: None,
            metadata: BTreeMap::new(),
            trace: TraceParent::start(1, 1),
        }
    }

    #[test]
    fn a_body_is_packed_once_for_all_who_get_it() {
        let packed = packed();
        let (many, one) = (message(Lane::Multicast, 1), message(Lane::Unicast, 2));
        let first = packed.body(&many, Coding::Zstd).unwrap();
        assert_eq!(packed.body(&many, Coding::Zstd).unwrap().as_ptr(), first.as_ptr());
        assert_eq!(packed.metrics.whole_bytes.get(), many.payload.len() as u64);
        packed.body(&one, Coding::Zstd).unwrap();
        assert_eq!(packed.kept.lock().recent.len(), 1, "what only one device gets is not kept");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let packed = packed();
        for n in 0..HALF_MAX as u128 * 2 + 10 {
            drop(packed.kept.lock().slot((message(Lane::Multicast, n).id, Coding::Gzip)));
        }
        let kept = packed.kept.lock();
        assert!(kept.recent.len() + kept.older.len() <= HALF_MAX * 2);
    }
}
