//! An ingest of one's own with two apps, and a client for it.

use std::{sync::Arc, time::Duration};

use axum::Router;
use broker::{SharedBroker, embedded::Limits as QueueLimits};
use bytes::Bytes;
use engine::Engine;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Method, Request, Response, StatusCode, body::Incoming};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use ingest::{Config, Deps, Ingest};
use model::{
    App, AppId, Clock, Env, Envelope, Key, KeyId, Limits, Queue, Scope, SystemClock, UplinkRules, record::Record as _,
    sign, sign::ApiKey,
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use serde_json::Value;
use store::SharedStore;
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::contract::{CONTRACT, Exchange};

/// The device secret of every app here.
pub(crate) const DEVICE_SECRET: &str = "device-token-secret-of-demo-0123456789";
/// Nothing here takes longer on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How an ingest under test differs from the usual.
pub(crate) struct Setup {
    pub(crate) config: Config,
    pub(crate) queues: QueueLimits,
    pub(crate) limits: Limits,
    pub(crate) select: Option<Arc<dyn audience::Select>>,
    pub(crate) others: Router,
    /// Paths of `others`.
    pub(crate) beside_the_api: &'static [&'static str],
    pub(crate) wrap: fn(SharedBroker) -> SharedBroker,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            config: Config::default(),
            queues: QueueLimits::default(),
            limits: Limits::default(),
            select: None,
            others: Router::new(),
            beside_the_api: &[],
            wrap: |broker| broker,
        }
    }
}

pub(crate) struct Sandbox {
    pub(crate) address: std::net::SocketAddr,
    pub(crate) broker: SharedBroker,
    pub(crate) store: SharedStore,
    pub(crate) app: AppId,
    /// Every scope but admin, in the test environment.
    pub(crate) key: String,
    pub(crate) registry: Registry,
    pub(crate) shutdown: CancellationToken,
    pub(crate) running: JoinHandle<Result<(), ingest::Error>>,
    client: Client<HttpConnector, Full<Bytes>>,
    limits: Limits,
    beside_the_api: &'static [&'static str],
    taken: Mutex<Vec<(Queue, Envelope)>>,
    _dir: TempDir,
}

/// An answer, with its body as JSON (`Null` when it is none).
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_else(|| panic!("no {field} in {self:?}"))
    }

    /// Passes when this is an RFC 9457 problem of this status and code.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!((self.status.as_u16(), &self.body["code"]), (status, &Value::from(code)), "{self:?}");
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["request_id"], self.header("x-request-id"));
        assert!(self.text("type").starts_with("https://") && !self.text("title").is_empty());
    }

    /// The status of each message of a batch.
    pub(crate) fn statuses(&self) -> Vec<u64> {
        let results = self.body["results"].as_array().unwrap_or_else(|| panic!("no results in {self:?}"));
        results.iter().map(|result| result["status"].as_u64().unwrap()).collect()
    }

    /// The pointers and codes of a problem's faults.
    pub(crate) fn faults(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let faults = self.body["errors"].as_array().cloned().unwrap_or_default();
        faults.iter().map(|fault| (text(&fault["pointer"]), text(&fault["code"]))).collect()
    }
}

impl Sandbox {
    pub(crate) async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    pub(crate) async fn with(setup: Setup) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let broker: SharedBroker =
            broker::embedded::Embedded::open(Arc::clone(&engine), Arc::clone(&clock), setup.queues).unwrap();
        let store: SharedStore = store::embedded::Embedded::open(engine).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut registry = Registry::default();
        let deps = Deps {
            broker: (setup.wrap)(Arc::clone(&broker)),
            store: Arc::clone(&store),
            clock,
            select: setup.select,
            others: setup.others,
            devices: None,
        };
        let ingest = Ingest::new(setup.config, deps, &mut registry);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(ingest.run(listener, shutdown.clone()));
        let mut sandbox = Self {
            address,
            broker,
            store,
            app: "demo".parse().unwrap(),
            key: String::new(),
            registry,
            shutdown,
            running,
            client: Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
            limits: setup.limits,
            beside_the_api: setup.beside_the_api,
            taken: Mutex::default(),
            _dir: dir,
        };
        sandbox.key = sandbox.add_app("demo").await;
        sandbox
    }

    /// Adds an app; returns a key with every scope but admin.
    pub(crate) async fn add_app(&self, name: &str) -> String {
        let id: AppId = name.parse().unwrap();
        let created_at = SystemClock.now();
        let app = App {
            id: id.clone(),
            created_at,
            device_secret: DEVICE_SECRET.into(),
            limits: self.limits,
            uplink: UplinkRules::default(),
        };
        assert!(self.store.create_app(app).await.unwrap());
        self.add_key(name, Env::Test, &Scope::PRODUCT).await
    }

    /// Adds a key; returns its token.
    pub(crate) async fn add_key(&self, app: &str, env: Env, scopes: &[Scope]) -> String {
        let created_at = SystemClock.now();
        let shown = ApiKey { id: KeyId::new(env, created_at, rand::random()), secret: sign::secret(rand::random()) };
        let key = Key {
            id: shown.id,
            app: app.parse().unwrap(),
            digest: sign::digest(&shown.secret),
            scopes: scopes.to_vec(),
            created_at,
            expires_at: None,
        };
        self.store.put_key(key).await.unwrap();
        shown.token()
    }

    /// Registers devices `dev-1` to `dev-<count>` of the sandbox's app.
    pub(crate) async fn add_devices(&self, count: usize) {
        for number in 1..=count {
            let answer = self.put(&format!("/v1/devices/dev-{number}"), "{}").await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &self.key, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.ask("POST", path, &self.key, &[], body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &str) -> Answer {
        self.ask("PUT", path, &self.key, &[], body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &self.key, &[], "").await
    }

    /// `POST /v1/messages` with an idempotency key.
    pub(crate) async fn post_once(&self, once: &str, body: &str) -> Answer {
        self.ask("POST", "/v1/messages", &self.key, &[("idempotency-key", once)], body).await
    }

    pub(crate) async fn ask(
        &self,
        method: &str,
        path: &str,
        key: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let method: Method = method.parse().unwrap();
        let mut request = Request::builder().method(&method).uri(format!("http://{}{path}", self.address));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        if !key.is_empty() {
            request = request.header("authorization", format!("Bearer {key}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).unwrap();
        let sent = request.headers().clone();
        let (head, answer) = self.client.request(request).await.unwrap().into_parts();
        let answer = answer.collect().await.unwrap().to_bytes();
        if !self.beside_the_api.contains(&path) {
            let (status, headers) = (head.status, &head.headers);
            let (body, answer) = (body.as_bytes(), &*answer);
            CONTRACT.check(&Exchange { method: method.as_str(), path, sent: &sent, body, status, headers, answer });
        }
        let body = serde_json::from_slice(&answer).unwrap_or_default();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// The body of an answer that does not end.
    pub(crate) async fn stream(&self, path: &str, last_event_id: Option<&str>) -> Incoming {
        let answer = self.ask_for_stream(path, last_event_id).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "text/event-stream");
        answer.into_body()
    }

    /// The answer to who asks for a stream: it does not end, unless it is a refusal.
    pub(crate) async fn ask_for_stream(&self, path: &str, last_event_id: Option<&str>) -> Response<Incoming> {
        let mut request = Request::get(format!("http://{}{path}", self.address));
        request = request.header("authorization", format!("Bearer {}", self.key));
        if let Some(last) = last_event_id {
            request = request.header("last-event-id", last);
        }
        self.client.request(request.body(Full::default()).unwrap()).await.unwrap()
    }

    /// Everything that was ever published to the lane queues, in order for each; takes it from there.
    pub(crate) async fn queued(&self) -> Vec<(Queue, Envelope)> {
        for queue in Queue::all().filter(|queue| queue.lane().is_some()) {
            let mut ready = self.broker.depth(queue).await.unwrap().ready;
            if ready == 0 {
                continue;
            }
            let mut consumer = self.broker.consume(queue, 1_000).await.unwrap();
            while ready > 0 {
                for delivery in consumer.next(1_000).await {
                    self.taken.lock().push((queue, Envelope::decode(delivery.body()).unwrap()));
                    delivery.ack();
                    ready -= 1;
                }
            }
        }
        self.taken.lock().clone()
    }

    /// The metrics as Prometheus reads them.
    pub(crate) fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// Waits until `done` says so.
pub(crate) async fn until<F: Future<Output = bool>>(mut done: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < deadline, "it did not happen in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
