//! Groups whose members the product keeps: asked for when they are sent to, and never where nobody may ask.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use audience::{Invalid, Select, SelectError};
use axum::{
    Router,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures_util::future::join_all;
use ingest::{Callbacks, Config};
use model::{AppId, Audience, Env, Excluded, Ordinal, Ordinals, Timestamp};
use parking_lot::Mutex;
use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpListener, time::sleep};

use crate::sandbox::{Answer, Sandbox, Setup};

/// A product that answers what it is told to.
struct Product {
    address: SocketAddr,
    answer: Mutex<(StatusCode, String)>,
    /// How long it thinks about it.
    takes: Mutex<Duration>,
    asked: AtomicUsize,
}

impl Product {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, takes, asked) = (Mutex::default(), Mutex::default(), AtomicUsize::new(0));
        let product = Arc::new(Self { address, answer, takes, asked });
        let of = product.clone();
        let members = get(move |headers: HeaderMap| async move { of.members(&headers).await });
        tokio::spawn(async move { axum::serve(listener, Router::new().route("/members", members)).await });
        product
            .say(StatusCode::OK, json!({"device_ids": ["dev-1", "dev-2", "nobody"], "user_ids": ["u-4"]}).to_string());
        product
    }

    async fn members(&self, headers: &HeaderMap) -> Response {
        assert!(headers.contains_key("fanfare-app") && headers["fanfare-group"].to_str().unwrap().starts_with("grp_"));
        self.asked.fetch_add(1, Ordering::Relaxed);
        let takes = *self.takes.lock();
        sleep(takes).await;
        let (status, body) = self.answer.lock().clone();
        (status, [(header::LOCATION, format!("http://{}/elsewhere", self.address))], body).into_response()
    }

    fn say(&self, status: StatusCode, body: impl Into<String>) {
        *self.answer.lock() = (status, body.into());
    }

    fn url(&self) -> String {
        format!("http://{}/members", self.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// A filter tier that nobody needs here.
struct Unasked;

#[async_trait]
impl Select for Unasked {
    async fn select(&self, _: &AppId, _: Env, text: &str, _: Timestamp) -> Result<Ordinals, SelectError> {
        Err(SelectError::Unavailable(format!("nobody should ask for {text}")))
    }

    fn check(&self, _: &AppId, _: &str) -> Result<(), Invalid> {
        Ok(())
    }
}

async fn sandbox(callbacks: Callbacks) -> Sandbox {
    sandbox_of(Config { callbacks, ..Config::default() }).await
}

async fn sandbox_of(config: Config) -> Sandbox {
    let sandbox = Sandbox::with(Setup { config, select: Some(Arc::new(Unasked)), ..Setup::default() }).await;
    sandbox.add_devices(3).await;
    sandbox.put("/v1/devices/dev-4", r#"{"user_id":"u-4"}"#).await;
    sandbox
}

fn private() -> Callbacks {
    Callbacks { allow_private: true, ..Callbacks::default() }
}

async fn group(sandbox: &Sandbox, url: &str, cache_s: u64) -> Answer {
    let source = json!({ "type": "callback", "url": url, "cache_s": cache_s });
    sandbox.post("/v1/groups", &json!({ "name": "club", "source": source }).to_string()).await
}

async fn send(sandbox: &Sandbox, to: serde_json::Value) -> Answer {
    sandbox.post("/v1/messages", &json!({ "to": to, "payload": 1 }).to_string()).await
}

fn set(ordinals: &[u32]) -> Ordinals {
    ordinals.iter().copied().map(Ordinal).collect()
}

#[tokio::test]
async fn the_product_is_asked_for_the_members_and_its_answer_counts_for_a_while() {
    let (product, sandbox) = (Product::start().await, sandbox(private()).await);
    let created = group(&sandbox, &product.url(), 3_600).await;
    let source = json!({"type": "callback", "url": product.url(), "cache_s": 3_600});
    assert_eq!((created.status.as_u16(), &created.body["source"]), (201, &source));
    assert_eq!(product.asked(), 0, "not before somebody sends");
    for _ in 0..3 {
        let sent = send(&sandbox, json!({"group": created.text("id")})).await;
        assert_eq!((sent.status.as_u16(), sent.text("mode")), (202, "multicast"), "{sent:?}");
        assert_eq!(sent.body["warnings"][0]["sample"], json!(["nobody"]));
    }
    assert_eq!(product.asked(), 1);
    for (_, envelope) in sandbox.queued().await {
        assert_eq!(envelope.audience, Audience::Devices(set(&[0, 1, 3])));
    }
    let members = sandbox.get(&format!("/v1/groups/{}/members", created.text("id"))).await;
    assert_eq!(members.body["data"], json!(["dev-1", "dev-2", "dev-4"]));
    let change = sandbox.post(&format!("/v1/groups/{}/members", created.text("id")), r#"{"add":["dev-3"]}"#).await;
    assert_eq!(change.faults(), [("#".into(), "contradiction".into())]);
    let to = json!({"devices": ["dev-1", "dev-3"], "exclude": {"groups": [created.text("id")]}});
    assert_eq!(send(&sandbox, to).await.status, 202);
    let (_, envelope) = sandbox.queued().await.pop().unwrap();
    assert_eq!(envelope.terms.except[0].who, Excluded::Listed(set(&[0, 1, 3])));
    assert_eq!(product.asked(), 1);
}

#[tokio::test]
async fn a_product_that_does_not_say_is_an_error_and_never_nobody() {
    let (product, sandbox) = (Product::start().await, sandbox(private()).await);
    let created = group(&sandbox, &product.url(), 0).await;
    let to = json!({"group": created.text("id")});
    let large = json!({ "device_ids": vec!["dev-1"; 200_000] }).to_string();
    for (status, body) in [
        (StatusCode::INTERNAL_SERVER_ERROR, "{}"),
        (StatusCode::FOUND, r#"{"device_ids":[]}"#),
        (StatusCode::OK, "not json"),
        (StatusCode::OK, "{}"),
        (StatusCode::OK, r#"{"error":"down","device_ids":[]}"#),
        (StatusCode::OK, r#"{"device_ids":"dev-1"}"#),
        (StatusCode::OK, &large),
    ] {
        product.say(status, body);
        let refused = send(&sandbox, to.clone()).await;
        refused.assert_problem(503, "group_unavailable");
        assert!(!refused.header("retry-after").is_empty());
    }
    product.say(StatusCode::OK, r#"{"user_ids":["u-4"]}"#);
    assert_eq!(send(&sandbox, to).await.status, 202);
    let queued = sandbox.queued().await;
    assert_eq!(queued.len(), 1);
    assert_eq!(queued[0].1.audience, Audience::Devices(set(&[3])));
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let created = group(&sandbox, &format!("http://{gone}/"), 60).await;
    send(&sandbox, json!({"group": created.text("id")})).await.assert_problem(503, "group_unavailable");
}

#[tokio::test]
async fn a_product_that_is_slow_is_not_waited_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{").await.unwrap();
        std::future::pending::<()>().await;
    });
    let sandbox = sandbox(private()).await;
    let created = group(&sandbox, &url, 60).await;
    send(&sandbox, json!({"group": created.text("id")})).await.assert_problem(503, "group_unavailable");
}

/// A product that takes every question and answers none: its URL, and how often it was asked.
async fn silent() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok(accepted) = listener.accept().await {
            open.push(accepted);
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (url, asked)
}

#[tokio::test]
async fn who_waits_for_a_product_shares_what_it_says() {
    const SENDS: usize = 10;
    let (product, sandbox) = (Product::start().await, sandbox(private()).await);
    *product.takes.lock() = Duration::from_millis(300);
    // An answer counts for nobody who comes after it was asked for.
    let created = group(&sandbox, &product.url(), 0).await;
    let to = json!({"group": created.text("id")});
    let sent = join_all((0..SENDS).map(|_| send(&sandbox, to.clone()))).await;
    assert!(sent.iter().all(|sent| sent.status == 202), "{sent:?}");
    let asked = product.asked();
    assert!(asked < SENDS / 2, "it was asked {asked} times");
}

#[tokio::test]
async fn who_waits_for_a_product_shares_that_it_says_nothing() {
    let ((url, asked), sandbox) = (silent().await, sandbox(private()).await);
    let created = group(&sandbox, &url, 60).await;
    let to = json!({"group": created.text("id")});
    for refused in join_all((0..3).map(|_| send(&sandbox, to.clone()))).await {
        refused.assert_problem(503, "group_unavailable");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn whoever_waits_for_a_product_leaves_places_to_other_requests_of_its_app() {
    // The app may hold eight places, and two of them waiting for what its product says.
    let config = Config { callbacks: private(), requests_max: 16, ..Config::default() };
    let ((url, _), sandbox) = (silent().await, sandbox_of(config).await);
    let created = group(&sandbox, &url, 60).await;
    let to = json!({"group": created.text("id")});
    let (sent, meanwhile) = tokio::join!(join_all((0..8).map(|_| send(&sandbox, to.clone()))), async {
        sleep(Duration::from_secs(1)).await;
        sandbox.get("/v1/messages").await
    });
    assert_eq!(meanwhile.status, 200, "{meanwhile:?}");
    for refused in sent {
        refused.assert_problem(503, "group_unavailable");
    }
}

#[tokio::test]
async fn nothing_inside_is_asked_whatever_it_is_called() {
    let (canary, sandbox) = (Product::start().await, sandbox(Callbacks::default()).await);
    let port = canary.address.port();
    for url in [
        format!("http://127.0.0.1:{port}/members"),
        format!("https://127.0.0.1:{port}/members"),
        format!("https://2130706433:{port}/members"),
        format!("https://[::ffff:127.0.0.1]:{port}/members"),
        format!("https://user@127.0.0.1:{port}/members"),
    ] {
        let refused = group(&sandbox, &url, 60).await;
        assert_eq!(refused.faults(), [("#/source/url".into(), "invalid_format".into())], "{url}");
    }
    // A name says only when it is asked for where it leads.
    let created = group(&sandbox, &format!("https://localhost:{port}/members"), 60).await;
    assert_eq!(created.status, 201, "{created:?}");
    let refused = send(&sandbox, json!({"group": created.text("id")})).await;
    assert_eq!(refused.faults(), [("#".into(), "group_source_refused".into())]);
    assert_eq!((canary.asked(), sandbox.queued().await.len()), (0, 0));
    let listed = Callbacks { hosts: vec!["members.example.com".into()], allow_private: true };
    let sandbox = self::sandbox(listed).await;
    assert_eq!(group(&sandbox, &canary.url(), 60).await.faults(), [("#/source/url".into(), "invalid_format".into())]);
}

#[tokio::test]
async fn members_that_are_fetched_are_no_part_of_a_filter() {
    let sandbox = sandbox(private()).await;
    let created = group(&sandbox, "http://127.0.0.1:1/", 60).await;
    let filter = format!("tag('vip') && !group('{}')", created.text("id"));
    let refused = sandbox.post("/v1/audiences/preview", &json!({"to": {"filter": filter}}).to_string()).await;
    assert_eq!(refused.faults(), [("#/to/filter".into(), "not_supported".into())]);
}
