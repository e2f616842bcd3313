//! Plain browsers: events down, posts up, and a session behind them like any other.

use std::{
    num::NonZeroU32,
    time::{Duration, Instant},
};

use access_point::Config;
use model::{Bell, Lane, Message, Position, Queue, Uplink, record::Record as _, sign::DeviceToken};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{
    bench::{Bench, SECRET, config, eventually},
    client::{Client, number},
};

/// Longer than anything a test waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// As much of an `EventSource` as a test needs.
struct Browser {
    stream: BufReader<TcpStream>,
    status: u16,
    headers: String,
    last_event_id: String,
}

/// An event, or a comment, or a new time to wait.
#[derive(Debug, Default)]
struct Event {
    name: String,
    id: String,
    data: String,
    retry: Option<u32>,
    comment: bool,
}

impl Event {
    fn number(&self) -> u64 {
        let data: Value = serde_json::from_str(&self.data).unwrap();
        data["payload"]["n"].as_u64().unwrap_or_else(|| panic!("not a message: {self:?}"))
    }
}

impl Browser {
    async fn ask(bench: &Bench, request: &str) -> Self {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut browser =
            Self { stream: BufReader::new(stream), status: 0, headers: String::new(), last_event_id: String::new() };
        let status = browser.line().await.unwrap();
        browser.status = status.split(' ').nth(1).unwrap().parse().unwrap();
        while let Some(line) = browser.line().await.filter(|line| !line.is_empty()) {
            browser.headers.push_str(&line.to_lowercase());
            browser.headers.push('\n');
        }
        browser
    }

    /// Opens the stream of `dev`.
    async fn open(bench: &Bench, options: &str) -> Self {
        Self::open_as(bench, &bench.token("dev"), options, "").await
    }

    async fn open_as(bench: &Bench, token: &str, options: &str, headers: &str) -> Self {
        let request = format!("GET /v1/stream?token={token}{options} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
        Self::ask(bench, &request).await
    }

    /// Comes back as a browser does.
    async fn again(self, bench: &Bench) -> Self {
        let header = format!("Last-Event-ID: {}\r\n", self.last_event_id);
        drop(self.stream);
        Self::open_as(bench, &bench.token("dev"), "", &header).await
    }

    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.stream.read_line(&mut line)).await.expect("nothing came").unwrap();
        (read > 0).then(|| line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// What comes next; `None` at the end.
    async fn next(&mut self) -> Option<Event> {
        let mut event = Event::default();
        loop {
            let line = self.line().await?;
            match line.split_once(':').map(|(field, value)| (field, value.trim_start())) {
                Some(("", _)) => event.comment = true,
                Some(("event", name)) => event.name = name.into(),
                Some(("id", id)) => event.id = id.into(),
                Some(("retry", ms)) => event.retry = Some(ms.parse().unwrap()),
                Some(("data", data)) => event.data += data,
                Some(_) => panic!("{line}"),
                None => {
                    if !event.id.is_empty() {
                        self.last_event_id = event.id.clone();
                    }
                    return Some(event);
                }
            }
        }
    }

    /// The next event with a name.
    async fn event(&mut self) -> Event {
        loop {
            let event = self.next().await.expect("the stream ended");
            if !event.name.is_empty() {
                return event;
            }
        }
    }

    /// What is left until the end.
    async fn rest(&mut self) -> String {
        let mut rest = String::new();
        timeout(PATIENCE, self.stream.read_to_string(&mut rest)).await.expect("it does not end").unwrap();
        rest
    }
}

async fn post(bench: &Bench, path: &str, body: &str) -> u16 {
    let (token, length) = (bench.token("dev"), body.len());
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n");
    Browser::ask(bench, &format!("{head}Content-Length: {length}\r\n\r\n{body}")).await.status
}

async fn ack(bench: &Bench, up_to: &str) -> u16 {
    post(bench, "/v1/stream/ack", &format!(r#"{{"up_to":"{up_to}"}}"#)).await
}

#[tokio::test]
async fn messages_of_both_streams_are_events_with_the_position_behind_them() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut browser = Browser::open(&bench, "").await;
    assert_eq!(browser.status, 200);
    for header in ["content-type: text/event-stream", "cache-control: no-store", "last-event-id: i0.t0"] {
        assert!(browser.headers.contains(header), "{}", browser.headers);
    }
    assert_eq!(browser.next().await.unwrap().retry, Some(3_000));
    let sent = bench.unicast(device, 1).await;
    let first = browser.event().await;
    assert_eq!((first.name.as_str(), first.number()), ("message", 1));
    let data: Value = serde_json::from_str(&first.data).unwrap();
    assert_eq!((data["id"].as_str(), data["type"].as_str()), (Some(&sent.to_string()[..]), Some("order")));
    bench.broadcast(&[device], 2..3).await;
    let second = browser.event().await;
    let (one, two): (Position, Position) = (first.id.parse().unwrap(), second.id.parse().unwrap());
    assert_eq!((second.number(), two.inbox), (2, one.inbox), "only the stream of the message moves");
    assert!(two.timeline > one.timeline);
}

#[tokio::test]
async fn json_of_several_lines_is_data_of_several_lines() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut browser = Browser::open(&bench, "").await;
    let message = Message { payload: "{\r\n \"n\":\n7}".into(), ..bench.message(Lane::Unicast, 0) };
    bench.send_unicast(device, message).await;
    assert_eq!(browser.event().await.number(), 7);
}

#[tokio::test]
async fn a_browser_that_comes_back_goes_on_behind_its_last_event() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut browser = Browser::open(&bench, "").await;
    bench.unicast(device, 1).await;
    bench.broadcast(&[device], 2..3).await;
    for _ in 0..2 {
        browser.event().await;
    }
    let had = browser.last_event_id.clone();
    bench.unicast(device, 3).await;
    let mut browser = browser.again(&bench).await;
    assert!(browser.headers.contains(&format!("last-event-id: {had}\n")), "{}", browser.headers);
    assert_eq!(browser.event().await.number(), 3);
}

#[tokio::test]
async fn an_ack_counts_everything_up_to_it_as_received() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut browser = Browser::open(&bench, "").await;
    let sent = [bench.unicast(device, 1).await, bench.broadcast(&[device], 2..3).await[0]];
    for _ in sent {
        browser.event().await;
    }
    assert!(bench.tally(sent[0]).await.acked.is_empty(), "written is not received");
    assert_eq!(ack(&bench, &browser.last_event_id).await, 204);
    bench.caught_up(device).await;
    for message in sent {
        eventually(PATIENCE, async || bench.tally(message).await.acked.contains(device)).await;
    }
    drop(browser);
    let mut mqtt = Client::open(&bench, "dev").await;
    mqtt.hears_nothing().await;
    bench.unicast(device, 3).await;
    assert_eq!(number(&mqtt.take().await), 3, "the same session in MQTT");
}

#[tokio::test]
async fn an_ack_needs_a_token_a_position_and_a_stream() {
    let bench = Bench::start(config()).await;
    bench.register("dev").await;
    assert_eq!(ack(&bench, "i0.t0").await, 409);
    let _browser = Browser::open(&bench, "").await;
    for body in ["x", "{}", r#"{"up_to":"7"}"#, r#"{"up_to":"i1.t1","more":1}"#] {
        assert_eq!(post(&bench, "/v1/stream/ack", body).await, 422, "{body}");
    }
    assert_eq!(ack(&bench, "i0.t0").await, 204);
    let nobody = "POST /v1/stream/ack HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(Browser::ask(&bench, nobody).await.status, 401);
}

#[tokio::test]
async fn with_ack_auto_what_lies_before_a_heartbeat_counts_as_received() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut browser = Browser::open(&bench, "&ack=auto").await;
    let sent = bench.unicast(device, 1).await;
    assert_eq!(browser.event().await.number(), 1);
    assert!(bench.tally(sent).await.acked.is_empty());
    assert!(browser.next().await.unwrap().comment, "a heartbeat follows soon");
    bench.caught_up(device).await;
    eventually(PATIENCE, async || bench.tally(sent).await.acked.contains(device)).await;
}

#[tokio::test]
async fn a_browser_that_never_acks_is_sent_away_and_its_return_is_an_ack() {
    let bench = Bench::start(Config { ack_timeout: Duration::from_millis(500), ..config() }).await;
    let device = bench.register("dev").await;
    let mut browser = Browser::open(&bench, "").await;
    browser.next().await;
    let sent = bench.unicast(device, 1).await;
    assert_eq!(browser.event().await.number(), 1);
    assert!(browser.next().await.unwrap().retry.is_some(), "it may come back");
    assert!(browser.next().await.is_none());
    let mut browser = browser.again(&bench).await;
    bench.unicast(device, 2).await;
    assert_eq!(browser.event().await.number(), 2);
    eventually(PATIENCE, async || bench.tally(sent).await.acked.contains(device)).await;
}

#[tokio::test]
async fn whoever_is_kicked_is_told_and_may_not_come_back() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut browser = Browser::open(&bench, "").await;
    let generation = bench.store.revoke(&bench.app, &"dev".parse().unwrap()).await.unwrap().unwrap();
    bench.ring(&Bell::Revoked { app: bench.app.clone(), device, generation });
    let told = browser.event().await;
    assert_eq!((told.name.as_str(), told.data.as_str()), ("control", r#"{"op":"kick","reason":"revoked"}"#));
    assert!(browser.next().await.is_none());
    assert_eq!(browser.again(&bench).await.status, 204, "204 makes an EventSource stop");
}

#[tokio::test]
async fn two_windows_of_one_device_do_not_throw_each_other_out_at_once() {
    let bench = Bench::start(config()).await;
    bench.register("dev").await;
    let mut old = Browser::open(&bench, "").await;
    old.next().await;
    let mut new = Browser::open(&bench, "").await;
    assert_eq!(old.event().await.data, r#"{"op":"kick","reason":"taken_over"}"#);
    assert!(old.next().await.unwrap().retry.unwrap() >= 30_000);
    assert!(old.next().await.is_none());
    assert_eq!(new.next().await.unwrap().retry, Some(3_000));
    assert_eq!(ack(&bench, "i0.t0").await, 204, "posts find the new stream");
}

#[tokio::test]
async fn an_access_point_that_stops_ends_streams_so_that_browsers_come_back() {
    let bench = Bench::start(config()).await;
    bench.register("dev").await;
    let mut browser = Browser::open(&bench, "").await;
    browser.next().await;
    bench.stop().await;
    assert!(browser.next().await.unwrap().retry.is_some_and(|ms| (1_000..10_000).contains(&ms)));
    assert!(browser.next().await.is_none());
}

#[tokio::test]
async fn a_position_that_the_store_does_not_know_is_told_and_cut() {
    let bench = Bench::start(config()).await;
    bench.register("dev").await;
    let mut browser = Browser::open(&bench, "&after=i9000000000000000.t0").await;
    assert!(browser.headers.contains("last-event-id: i0.t0\n"), "{}", browser.headers);
    let told = browser.event().await;
    assert!(told.name == "resync" && told.data.contains(r#""latest":"i0.t0""#), "{told:?}");
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told() {
    let bench = Bench::start(config()).await;
    let forged = bench.claims("dev").sign("another-secret-another-secret-another");
    let expired = DeviceToken { exp: 1, ..bench.claims("dev") }.sign(SECRET);
    for token in ["", "nonsense", &forged, &expired] {
        let mut browser = Browser::open_as(&bench, token, "", "").await;
        assert_eq!(browser.status, 401, "{token}");
        assert!(browser.rest().await.contains(r#""code":"unauthenticated""#));
    }
    assert_eq!(Browser::open(&bench, "&after=7").await.status, 400);
    assert_eq!(Browser::ask(&bench, "GET /v1/nothing HTTP/1.1\r\n\r\n").await.status, 404);
    let preflight = Browser::ask(&bench, "OPTIONS /v1/stream/ack HTTP/1.1\r\nOrigin: http://x\r\n\r\n").await;
    assert!(preflight.status == 204 && preflight.headers.contains("access-control-allow-origin: *"));
}

#[tokio::test]
async fn what_a_browser_posts_is_on_its_queue_when_it_is_answered() {
    let bench = Bench::start(config()).await;
    let _browser = Browser::open(&bench, "").await;
    assert_eq!(post(&bench, "/v1/stream/up/order", r#"{"n":1}"#).await, 204);
    let mut uplinks = bench.broker.consume(Queue::Uplink, 10).await.unwrap();
    let delivery = uplinks.next(10).await.remove(0);
    let uplink = Uplink::decode(delivery.body()).unwrap();
    assert_eq!(
        (uplink.device.as_str(), uplink.kind.as_str(), &uplink.payload[..]),
        ("dev", "order", &br#"{"n":1}"#[..])
    );
    delivery.ack();
    let command = model::MessageId::from_bytes([7; 16]);
    let path = format!("/v1/stream/result/{command}");
    assert_eq!(post(&bench, &path, r#"{"status":"failed"}"#).await, 204);
    assert_eq!(post(&bench, &path, "failed").await, 422);
    let delivery = uplinks.next(10).await.remove(0);
    assert_eq!(Uplink::decode(delivery.body()).unwrap().answers, Some(command));
    delivery.ack();
    assert_eq!(post(&bench, "/v1/stream/peer/dev-2/chat", "{}").await, 403, "the app does not let them");
    let large = "x".repeat(40_000);
    assert_eq!(post(&bench, "/v1/stream/up/order", &large).await, 413);
}

#[tokio::test]
async fn a_thousand_messages_reach_a_browser_that_acks_from_time_to_time() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    bench.broadcast(&[device], 0..1_000).await;
    let mut browser = Browser::open(&bench, "").await;
    let started = Instant::now();
    for n in 0..1_000 {
        assert_eq!(browser.event().await.number(), n);
        if n % 16 == 15 {
            assert_eq!(ack(&bench, &browser.last_event_id).await, 204);
        }
    }
    assert!(started.elapsed() < PATIENCE);
}

#[tokio::test]
async fn what_a_browser_posts_does_not_stand_in_the_line_of_newcomers() {
    let bench = Bench::start(Config { connects_per_s: NonZeroU32::new(1), ..config() }).await;
    let device = bench.register("dev").await;
    let mut browser = Browser::open(&bench, "").await;
    bench.unicast(device, 1).await;
    let event = browser.event().await;
    let mut newcomers = Vec::new();
    for _ in 0..8 {
        newcomers.push(Client::silent(bench.address).await);
    }
    eventually(Duration::from_secs(5), async || bench.metric("fanfare_in_line") >= 6.0).await;
    let begun = Instant::now();
    assert_eq!(ack(&bench, &event.id).await, 204);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    bench.caught_up(device).await;
}
