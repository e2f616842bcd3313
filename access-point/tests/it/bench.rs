//! An access point on the embedded back ends, with an app whose messages can be put into streams.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use access_point::{AccessPoint, Certificates, Config, Deps, Listeners, Status};
use broker::{Ring, SharedBroker};
use engine::Engine;
use model::{
    App, AppId, Bell, Class, Clock as _, Endpoint, Env, Lane, Limits, Message, MessageId, Node, Ordinal, Ordinals,
    Priority, Queue, ReceiptBatch, SystemClock, Tally, Tier, Timestamp, TraceParent, UplinkRules, record::Record as _,
    sign::DeviceToken,
};
use prometheus_client::registry::Registry;
use store::{InboxAppend, Registration, SharedStore, TimelineAppend};
use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

pub(crate) const SECRET: &str = "device-token-secret-of-demo-0123456789";

pub(crate) struct Bench {
    pub(crate) app: AppId,
    pub(crate) broker: SharedBroker,
    pub(crate) store: SharedStore,
    pub(crate) address: SocketAddr,
    /// Where it speaks TLS, if it does.
    pub(crate) tls: Option<SocketAddr>,
    pub(crate) metrics: Registry,
    config: Config,
    /// The broker as the access point sees it.
    given: SharedBroker,
    certificates: Option<Arc<Certificates>>,
    shutdown: CancellationToken,
    running: Mutex<Option<JoinHandle<()>>>,
    status: Box<dyn Fn() -> Status + Send + Sync>,
    _dir: tempfile::TempDir,
}

/// What most tests use: timeouts that a test can wait for.
pub(crate) fn config() -> Config {
    Config { sweep: Duration::from_millis(300), ..Config::new("ap-1".parse().unwrap()) }
}

impl Bench {
    pub(crate) async fn start(config: Config) -> Self {
        Self::start_on(config, |broker| broker).await
    }

    /// Starts an access point that sees the broker through `give`.
    pub(crate) async fn start_on(config: Config, give: impl FnOnce(SharedBroker) -> SharedBroker) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        let store: SharedStore = store::embedded::Embedded::open(engine.clone()).unwrap();
        Self::start_in(dir, config, &engine, store, give).await
    }

    /// Starts an access point that also speaks TLS, as this server.
    pub(crate) async fn start_as(config: Config, certificates: Arc<Certificates>) -> Self {
        let mut bench = Self::start(config).await;
        bench.certificates = Some(certificates);
        bench.restart().await;
        bench
    }

    /// Starts an access point whose store is this one.
    pub(crate) async fn start_with(config: Config, store: SharedStore) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        Self::start_in(dir, config, &engine, store, |broker| broker).await
    }

    async fn start_in(
        dir: tempfile::TempDir,
        config: Config,
        engine: &Arc<Engine>,
        store: SharedStore,
        give: impl FnOnce(SharedBroker) -> SharedBroker,
    ) -> Self {
        let limits = broker::embedded::Limits::default();
        let broker: SharedBroker =
            broker::embedded::Embedded::open(engine.clone(), Arc::new(SystemClock), limits).unwrap();
        let app = App {
            id: "demo".parse().unwrap(),
            created_at: SystemClock.now(),
            device_secret: SECRET.into(),
            limits: Limits::default(),
            uplink: UplinkRules::default(),
        };
        store.create_app(app).await.unwrap();
        let mut bench = Self {
            app: "demo".parse().unwrap(),
            given: give(broker.clone()),
            broker,
            store,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            tls: None,
            certificates: None,
            metrics: Registry::default(),
            config,
            shutdown: CancellationToken::new(),
            running: Mutex::default(),
            status: Box::new(|| Status { connections: 0, drain: None }),
            _dir: dir,
        };
        bench.restart().await;
        bench
    }

    /// Stops the access point, if it runs, and starts another on the same back ends.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.shutdown = CancellationToken::new();
        self.metrics = Registry::default();
        (self.address, *self.running.get_mut()) = self.another(self.config.clone(), self.shutdown.clone()).await;
    }

    /// Lets devices of the app send up what these rules say, once the access point hears of it.
    pub(crate) async fn rule(&self, uplink: UplinkRules) {
        let app = self.store.app(&self.app).await.unwrap().unwrap();
        assert!(self.store.replace_app(&app, App { uplink, ..app.clone() }).await.unwrap());
    }

    /// How the access point says it is.
    pub(crate) fn status(&self) -> Status {
        (self.status)()
    }

    /// Says that a node runs, and where devices may connect there.
    pub(crate) async fn beat(&self, node: &str, address: SocketAddr) {
        self.beat_at(
            node,
            Endpoint { address: address.to_string(), tls_address: None, connections: 0, connections_max: 1_000 },
        )
        .await;
    }

    /// The same of an endpoint that may be full, or offer TLS.
    pub(crate) async fn beat_at(&self, node: &str, endpoint: Endpoint) {
        self.run(node, Tier::AccessPoint, Some(endpoint)).await;
    }

    /// Says that a node runs which takes what is sent on its way.
    pub(crate) async fn dispatches(&self, node: &str) {
        self.run(node, Tier::Dispatcher, None).await;
    }

    async fn run(&self, node: &str, tier: Tier, endpoint: Option<Endpoint>) {
        let (now, tiers) = (self.now(), vec![tier]);
        let (id, version) = (node.parse().unwrap(), "0".into());
        let node = Node { id, boot: now, tiers, endpoint, filter: None, version, seen_at: now, drain: None };
        assert!(self.store.beat(node).await.unwrap());
    }

    /// Starts an access point more, under another name.
    pub(crate) async fn beside(&self, node: &str) -> SocketAddr {
        self.beside_on(node, self.given.clone()).await
    }

    /// The same, and the broker is this one.
    pub(crate) async fn beside_on(&self, node: &str, broker: SharedBroker) -> SocketAddr {
        let config = Config { node: node.parse().unwrap(), ..self.config.clone() };
        let mut other = Registry::default();
        let deps = Deps { broker, ..self.deps() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let access_point = AccessPoint::new(config, deps, &mut other);
        let token = self.shutdown.clone();
        tokio::spawn(async move { access_point.run(listener, token).await.unwrap() });
        address
    }

    async fn another(&mut self, config: Config, token: CancellationToken) -> (SocketAddr, Option<JoinHandle<()>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut listeners = Listeners::from(listener);
        if let Some(certificates) = &self.certificates {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            self.tls = Some(listener.local_addr().unwrap());
            listeners.tls = Some((listener, certificates.clone()));
        }
        let access_point = AccessPoint::new(config, self.deps(), &mut self.metrics);
        self.status = Box::new(access_point.status());
        let running = tokio::spawn(async move { access_point.run(listeners, token).await.unwrap() });
        (address, Some(running))
    }

    fn deps(&self) -> Deps {
        Deps { broker: self.given.clone(), store: self.store.clone(), clock: Arc::new(SystemClock) }
    }

    pub(crate) async fn stop(&self) {
        self.shutdown.cancel();
        if let Some(running) = self.running.lock().await.take() {
            running.await.unwrap();
        }
    }

    pub(crate) async fn register(&self, id: &str) -> Ordinal {
        let device = Registration { id: id.parse().unwrap(), env: Env::Live, profile: None };
        self.store.register(&self.app, vec![device], SystemClock.now()).await.unwrap()[0].0.ordinal
    }

    pub(crate) fn claims(&self, device: &str) -> DeviceToken {
        DeviceToken {
            sub: device.parse().unwrap(),
            app: self.app.clone(),
            generation: 0,
            exp: SystemClock.now().as_millis() / 1_000 + 3_600,
            env: None,
        }
    }

    pub(crate) fn token(&self, device: &str) -> String {
        self.claims(device).sign(SECRET)
    }

    pub(crate) fn message(&self, lane: Lane, number: usize) -> Message {
        let now = SystemClock.now();
        Message {
            id: MessageId::new(now, rand::random()),
            app: self.app.clone(),
            env: Env::Live,
            lane,
            kind: "order".into(),
            class: Class::Message,
            payload: format!("{{\"n\":{number}}}").into(),
            content_type: "application/json".into(),
            created_at: now,
            expires_at: now + Duration::from_secs(3_600),
            due_at: None,
            priority: Priority::Normal,
            collapse_key: None,
            metadata: BTreeMap::new(),
            trace: TraceParent::start(rand::random(), rand::random()),
        }
    }

    /// Appends to an inbox and rings, as a dispatcher does.
    pub(crate) async fn unicast(&self, device: Ordinal, number: usize) -> MessageId {
        self.send_unicast(device, self.message(Lane::Unicast, number)).await
    }

    pub(crate) async fn send_unicast(&self, device: Ordinal, message: Message) -> MessageId {
        let id = message.id;
        let devices: Ordinals = [device].into_iter().collect();
        let append = InboxAppend { message: Arc::new(message), devices: devices.clone() };
        self.store.append_inbox(vec![append], SystemClock.now()).await.unwrap();
        self.ring(&Bell::Inbox { app: self.app.clone(), devices });
        id
    }

    /// Appends an inbox entry and a timeline entry that expire after `time`, and rings.
    pub(crate) async fn send_brief(&self, device: Ordinal, time: Duration) {
        let brief = |lane| Message { expires_at: self.now() + time, ..self.message(lane, 100) };
        self.send_unicast(device, brief(Lane::Unicast)).await;
        let append =
            TimelineAppend { message: Arc::new(brief(Lane::Broadcast)), audience: [device].into_iter().collect() };
        self.store.append_timeline(vec![append], SystemClock.now()).await.unwrap();
        self.ring_timeline().await;
    }

    /// Appends to the timeline, for these devices, and rings.
    pub(crate) async fn broadcast(&self, audience: &[Ordinal], numbers: std::ops::Range<usize>) -> Vec<MessageId> {
        let messages = self.broadcast_unrung(audience, numbers).await;
        self.ring_timeline().await;
        messages
    }

    /// Appends to the timeline, for these devices, and does not ring.
    pub(crate) async fn broadcast_unrung(
        &self,
        audience: &[Ordinal],
        numbers: std::ops::Range<usize>,
    ) -> Vec<MessageId> {
        let messages: Vec<_> = numbers.map(|n| Arc::new(self.message(Lane::Broadcast, n))).collect();
        let audience: Ordinals = audience.iter().copied().collect();
        let append = |message: &Arc<Message>| TimelineAppend { message: message.clone(), audience: audience.clone() };
        for some in messages.chunks(500) {
            self.store.append_timeline(some.iter().map(append).collect(), SystemClock.now()).await.unwrap();
        }
        messages.iter().map(|message| message.id).collect()
    }

    async fn ring_timeline(&self) {
        let head = self.store.timeline_head(&self.app).await.unwrap();
        self.ring(&Bell::Timeline { app: self.app.clone(), head });
    }

    pub(crate) fn ring(&self, bell: &Bell) {
        self.broker.ring(Lane::Unicast, &Ring::All, bell.encode().into());
    }

    /// What is known of a message, after what access points have told so far is counted in.
    pub(crate) async fn tally(&self, message: MessageId) -> Tally {
        let mut receipts = self.broker.consume(Queue::Receipts, 1_000).await.unwrap();
        while let Ok(batch) = timeout(Duration::from_millis(500), receipts.next(100)).await {
            for delivery in batch {
                let batch = ReceiptBatch::decode(delivery.body()).unwrap();
                self.store.add_receipts(vec![batch]).await.unwrap();
                delivery.ack();
            }
        }
        self.store.tally(&self.app, message).await.unwrap().unwrap()
    }

    /// Waits until a device's stored cursor has nothing open up to the heads of its streams.
    pub(crate) async fn caught_up(&self, device: Ordinal) {
        eventually(Duration::from_secs(10), async || {
            let cursor = self.store.cursor(&self.app, device).await.unwrap();
            let head = self.store.inbox_heads(&self.app, &[device]).await.unwrap()[0];
            cursor.inbox.prefix >= head
                && cursor.timeline.beyond.is_empty()
                && cursor.timeline.prefix >= cursor.timeline.sent
        })
        .await;
    }

    pub(crate) fn now(&self) -> Timestamp {
        SystemClock.now()
    }

    /// The value of a metric line that begins like this.
    pub(crate) fn metric(&self, line: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        let found = text.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
        found.unwrap_or(0.0)
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
