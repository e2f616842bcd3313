//! Stats on the embedded back ends: what becomes of receipts.
#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

use std::{sync::Arc, time::Duration};

use broker::{Publication, SharedBroker};
use engine::Engine;
use model::{
    AppId, Clock as _, Lane, Message, MessageId, Ordinal, Ordinals, Queue, Receipt, ReceiptBatch, SystemClock,
    TraceParent, record::Record as _,
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use stats::{Config, Deps, Stats};
use store::{InboxAppend, SharedStore};
use tokio_util::sync::CancellationToken;

struct Bench {
    app: AppId,
    broker: SharedBroker,
    store: SharedStore,
    registry: Registry,
    _stop: tokio_util::sync::DropGuard,
    _dir: tempfile::TempDir,
}

impl Bench {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        let limits = broker::embedded::Limits::default();
        let broker: SharedBroker =
            broker::embedded::Embedded::open(engine.clone(), Arc::new(SystemClock), limits).unwrap();
        let store: SharedStore = store::embedded::Embedded::open(engine).unwrap();
        let deps = Deps { broker: broker.clone(), store: store.clone(), clock: Arc::new(SystemClock) };
        let mut registry = Registry::default();
        let stats = Stats::new(Config { node: "stats-1".parse().unwrap() }, deps, &mut registry);
        let stop = CancellationToken::new();
        tokio::spawn(stats.run(stop.clone()));
        let app = "demo".parse().unwrap();
        Self { app, broker, store, registry, _stop: stop.drop_guard(), _dir: dir }
    }

    /// A message in the inboxes of devices 0 to 9.
    async fn dispatched(&self) -> MessageId {
        let now = SystemClock.now();
        let message = Message {
            id: MessageId::new(now, 1),
            app: self.app.clone(),
            env: model::Env::Live,
            lane: Lane::Multicast,
            kind: "order".into(),
            class: model::Class::Message,
            payload: "{}".into(),
            content_type: "application/json".into(),
            created_at: now,
            expires_at: now + Duration::from_secs(60),
            due_at: None,
            priority: model::Priority::Normal,
            collapse_key: None,
            metadata: Default::default(),
            trace: TraceParent::start(1, 1),
        };
        let id = message.id;
        let append = InboxAppend { message: Arc::new(message), devices: (0..10).map(Ordinal).collect() };
        self.store.append_inbox(vec![append], now).await.unwrap();
        id
    }

    async fn tell(&self, body: Vec<u8>) {
        self.broker.publish(vec![Publication { queue: Queue::Receipts, body: body.into() }]).await.unwrap();
    }

    async fn drained(&self) {
        for _ in 0..2_000 {
            let depth = self.broker.depth(Queue::Receipts).await.unwrap();
            if depth.ready + depth.unacked == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("receipts are still waiting");
    }
}

fn set(ordinals: &[u32]) -> Ordinals {
    ordinals.iter().copied().map(Ordinal).collect()
}

#[tokio::test]
async fn receipts_told_twice_and_in_any_order_make_one_funnel() {
    let bench = Bench::start();
    let message = bench.dispatched().await;
    let told = |sent: &[u32], acked: &[u32], rejected: &[u32]| {
        let receipt = Receipt { message, sent: set(sent), acked: set(acked), rejected: set(rejected) };
        ReceiptBatch { app: bench.app.clone(), receipts: vec![receipt] }.encode()
    };
    for body in
        [told(&[], &[0, 1], &[9]), told(&[0, 1, 2, 3], &[], &[]), told(&[], &[0, 1], &[9]), told(&[], &[2], &[])]
    {
        bench.tell(body).await;
    }
    bench.drained().await;
    let now = SystemClock.now();
    let funnel =
        bench.store.tally(&bench.app, message).await.unwrap().unwrap().funnel(now + Duration::from_secs(1), now);
    assert!(funnel.balances());
    assert_eq!((funnel.targeted, funnel.acked, funnel.rejected), (10, 3, 1));
    assert_eq!((funnel.pending_online, funnel.pending_offline), (1, 5));
}

#[tokio::test]
async fn a_receipt_nobody_can_read_is_set_aside() {
    let bench = Bench::start();
    let message = bench.dispatched().await;
    bench.tell(b"garbage".to_vec()).await;
    let receipt = Receipt { acked: set(&[4]), ..Receipt::new(message) };
    bench.tell(ReceiptBatch { app: bench.app.clone(), receipts: vec![receipt] }.encode()).await;
    bench.drained().await;
    assert_eq!(bench.broker.dead_letters(10).await.unwrap().len(), 1);
    assert_eq!(bench.store.tally(&bench.app, message).await.unwrap().unwrap().acked, set(&[4]));
    let mut text = String::new();
    encode(&mut text, &bench.registry).unwrap();
    assert!(text.contains("fanfare_receipts_unreadable_total 1"), "{text}");
}
