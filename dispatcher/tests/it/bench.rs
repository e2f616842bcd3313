//! A dispatcher between an embedded broker and an embedded store, with an app to send for.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use audience::{BuiltIn, Expr, Facts, Field, Invalid, Select, SelectError, holds};
use broker::{Publication, SharedBroker};
use dispatcher::{Config, Deps, Dispatcher};
use engine::Engine;
use model::{
    Aim, App, AppId, Audience, Class, Clock as _, Env, Envelope, Group, GroupId, Lane, Limits, Message, MessageId,
    Ordinals, Priority, Profile, Queue, Shard, SystemClock, Tally, Terms, Timestamp, TraceParent, UplinkRules,
    group::Source, record::Record as _,
};
use prometheus_client::registry::Registry;
use store::{Entry, PAGE_MAX, Registration, SharedStore, shelves};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A filter that is not answered, and takes long about it.
pub(crate) const SLOW: &str = r#"tag("slow")"#;

/// A filter tier that knows in which time zones devices are, and nothing else.
struct Zones(SharedStore);

#[async_trait]
impl Select for Zones {
    async fn select(&self, app: &AppId, env: Env, text: &str, now: Timestamp) -> Result<Ordinals, SelectError> {
        let expr: Expr = text.parse()?;
        if text == SLOW {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        if expr.fields() != [&Field::BuiltIn(BuiltIn::Tz)].into() {
            return Err(SelectError::Unavailable("nobody is there".into()));
        }
        let devices = self.0.list(app, env, None, PAGE_MAX).await.unwrap();
        let there = devices.iter().filter(|device| holds(&expr, &Facts { device, now, online: false }));
        Ok(there.map(|device| device.ordinal).collect())
    }

    fn check(&self, _: &AppId, _: &str) -> Result<(), Invalid> {
        Ok(())
    }
}

pub(crate) struct Bench {
    pub(crate) app: AppId,
    pub(crate) broker: SharedBroker,
    pub(crate) store: SharedStore,
    running: Option<(CancellationToken, JoinHandle<()>)>,
    _dir: tempfile::TempDir,
}

impl Bench {
    /// Starts a dispatcher for an app with this many devices.
    pub(crate) async fn start(devices: usize) -> Self {
        Self::start_on(None, devices).await
    }

    /// The same, on another store than the embedded one.
    pub(crate) async fn start_on(store: Option<SharedStore>, devices: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        let limits = broker::embedded::Limits::default();
        let broker: SharedBroker =
            broker::embedded::Embedded::open(engine.clone(), Arc::new(SystemClock), limits).unwrap();
        let store = store.unwrap_or_else(|| store::embedded::Embedded::open(engine).unwrap());
        let app: AppId = "demo".parse().unwrap();
        let mut bench = Self { app, broker, store, running: None, _dir: dir };
        bench.begin();
        let app = App {
            id: bench.app.clone(),
            created_at: bench.now(),
            device_secret: "0".repeat(32),
            limits: Limits::default(),
            uplink: UplinkRules::default(),
        };
        bench.store.create_app(app).await.unwrap();
        for device in 0..devices {
            bench.register(&format!("dev-{device}")).await;
        }
        bench
    }

    /// Starts a dispatcher; the one before must be stopped.
    pub(crate) fn begin(&mut self) {
        self.begin_on(self.store.clone());
    }

    /// The same, for which the store is another.
    pub(crate) fn begin_on(&mut self, store: SharedStore) {
        let select = Arc::new(Zones(store.clone()));
        let broker = self.broker.clone();
        let deps = Deps { broker, store, select, clock: Arc::new(SystemClock) };
        let dispatcher = Dispatcher::new(Config::default(), deps, &mut Registry::default());
        let shutdown = CancellationToken::new();
        let token = shutdown.clone();
        self.running = Some((shutdown, tokio::spawn(async move { dispatcher.run(token).await.unwrap() })));
    }

    pub(crate) async fn stop(&mut self) {
        if let Some((shutdown, running)) = self.running.take() {
            shutdown.cancel();
            running.await.unwrap();
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    pub(crate) async fn register(&self, id: &str) {
        self.register_in(id, None).await;
    }

    /// Registers a device in a time zone.
    pub(crate) async fn register_in(&self, id: &str, tz: Option<&str>) {
        let built_in = tz.map(|tz| ("tz".to_owned(), tz.to_owned())).into_iter().collect();
        let profile = Some(Profile { built_in, ..Profile::default() });
        let device = Registration { id: id.parse().unwrap(), env: Env::Live, profile };
        self.store.register(&self.app, vec![device], self.now()).await.unwrap();
    }

    pub(crate) async fn group(&self, members: Ordinals) -> GroupId {
        let id = GroupId::new(self.now(), rand::random());
        let group = Group { id, name: "some".into(), env: Env::Live, created_at: self.now(), source: Source::Static };
        self.store.put_group(&self.app, group).await.unwrap();
        self.store.change_members(&self.app, id, members, Ordinals::new()).await.unwrap();
        id
    }

    pub(crate) fn envelope(&self, lane: Lane, audience: Audience) -> Envelope {
        let now = self.now();
        let message = Message {
            id: MessageId::new(now, rand::random()),
            app: self.app.clone(),
            env: Env::Live,
            lane,
            kind: "order".into(),
            class: Class::Message,
            payload: r#"{"n":1}"#.into(),
            content_type: "application/json".into(),
            created_at: now,
            expires_at: now + Duration::from_secs(3_600),
            due_at: None,
            priority: Priority::Normal,
            collapse_key: None,
            metadata: BTreeMap::new(),
            trace: TraceParent::start(rand::random(), rand::random()),
        };
        Envelope { message, audience, terms: Terms::default() }
    }

    /// What was noted when the message's audience was frozen.
    pub(crate) async fn aim(&self, message: MessageId) -> Option<Aim> {
        shelves::find(&*self.store, &self.app, Env::Live, &message.to_string()).await.unwrap()
    }

    pub(crate) async fn accept(&self, envelope: &Envelope) {
        let message = &envelope.message;
        self.store.accept(&self.app, Entry::from(message), None).await.unwrap();
    }

    pub(crate) async fn publish(&self, envelope: &Envelope) {
        let shard = match &envelope.audience {
            Audience::One(device) => Shard::of_device(&self.app, *device, 1),
            _ => Shard::of_app(&self.app),
        };
        let queue = Queue::Push(envelope.message.lane, shard);
        self.broker.publish(vec![Publication { queue, body: envelope.encode().into() }]).await.unwrap();
    }

    pub(crate) async fn send(&self, lane: Lane, audience: Audience) -> MessageId {
        let envelope = self.envelope(lane, audience);
        self.publish(&envelope).await;
        envelope.message.id
    }

    pub(crate) async fn accept_and_send(&self, lane: Lane, audience: Audience) -> MessageId {
        let envelope = self.envelope(lane, audience);
        self.accept(&envelope).await;
        self.publish(&envelope).await;
        envelope.message.id
    }

    /// How much of a lane is on the broker.
    pub(crate) async fn depth(&self, lane: Lane) -> u64 {
        let mut waiting = 0;
        for queue in Shard::all().map(|shard| Queue::Push(lane, shard)) {
            let depth = self.broker.depth(queue).await.unwrap();
            waiting += depth.ready + depth.unacked;
        }
        waiting
    }

    /// How much of a lane is in the dispatcher's hands.
    pub(crate) async fn unacked(&self, lane: Lane) -> u64 {
        let mut held = 0;
        for queue in Shard::all().map(|shard| Queue::Push(lane, shard)) {
            held += self.broker.depth(queue).await.unwrap().unacked;
        }
        held
    }

    /// Waits until nothing of a lane is on the broker any more.
    pub(crate) async fn drained(&self, lane: Lane) {
        eventually(Duration::from_secs(10), async || self.depth(lane).await == 0).await;
    }

    pub(crate) async fn tally(&self, message: MessageId) -> Tally {
        self.store.tally(&self.app, message).await.unwrap().unwrap()
    }
}

/// Waits until `holds` does; fails after `patience`.
pub(crate) async fn eventually(patience: Duration, holds: impl AsyncFn() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < patience, "still not so after {patience:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
