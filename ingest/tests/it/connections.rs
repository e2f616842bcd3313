//! Connections that are slow, silent or many; raw TCP, since no client does this.

use std::time::Duration;

use ingest::Config;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::sandbox::{PATIENCE, Sandbox, Setup};

const HALF_OPEN: usize = 1_000;

pub(crate) async fn connect(sandbox: &Sandbox, bytes: &str) -> TcpStream {
    let mut stream = TcpStream::connect(sandbox.address).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    stream
}

/// What comes until the other side closes.
async fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    match timeout(PATIENCE, stream.read_to_string(&mut text)).await {
        Ok(_) => text,
        Err(_) => panic!("the connection was not closed: {text}"),
    }
}

/// One answer with its body of stated length.
pub(crate) async fn answer(stream: &mut TcpStream) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4_096]);
    loop {
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await.unwrap().unwrap();
        assert!(read > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
            if body.len() >= length.parse().unwrap() {
                return text;
            }
        }
    }
}

fn head(key: &str, length: usize) -> String {
    format!("POST /v1/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Length: {length}\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_half_open_requests_are_closed_in_time_and_disturb_nobody() {
    let sandbox = Sandbox::start().await;
    let (mut open, started) = (JoinSet::new(), Instant::now());
    for number in 0..HALF_OPEN {
        let bytes = ["", "POST /v1/mess", "GET /v1/messages HTTP/1.1\r\nHost: x\r\nX-Slow: "][number % 3];
        let stream = connect(&sandbox, bytes).await;
        open.spawn(rest(stream));
    }
    while started.elapsed() < Duration::from_secs(9) {
        let asked = Instant::now();
        assert_eq!(sandbox.get("/v1/messages").await.status, 200);
        assert!(asked.elapsed() < Duration::from_secs(2), "others waited {:?}", asked.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let closed = timeout(Duration::from_secs(10), open.join_all()).await.expect("half-open requests are still open");
    assert_eq!(closed.len(), HALF_OPEN);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_told_so() {
    let sandbox = Sandbox::start().await;
    let mut stream = connect(&sandbox, &format!("{}{{\"to\":", head(&sandbox.key, 50))).await;
    let started = Instant::now();
    let text = answer(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("request_timeout"), "{text}");
    assert!((14..20).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
}

#[tokio::test]
async fn who_shows_no_key_is_refused_before_a_body_is_read() {
    let sandbox = Sandbox::start().await;
    let head = "POST /v1/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 60000\r\n\r\n";
    let text = answer(&mut connect(&sandbox, head).await).await;
    assert!(text.starts_with("HTTP/1.1 401"), "{text}");
    let chunked = head.replace("Content-Length: 60000", "Transfer-Encoding: chunked");
    assert!(answer(&mut connect(&sandbox, &chunked).await).await.starts_with("HTTP/1.1 401"));
}

#[tokio::test]
async fn a_body_without_end_is_cut_at_the_limit() {
    let sandbox = Sandbox::start().await;
    let head = head(&sandbox.key, 0).replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let mut stream = connect(&sandbox, &head).await;
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(4_096));
    for _ in 0..17 {
        if stream.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let text = answer(&mut stream).await;
    assert!(text.starts_with("HTTP/1.1 413"), "{text}");
}

#[tokio::test]
async fn more_requests_than_may_be_under_way_are_shed() {
    let config = Config { requests_max: 2, ..Config::default() };
    let sandbox = Sandbox::with(Setup { config, ..Setup::default() }).await;
    let [other, third] = [sandbox.add_app("other").await, sandbox.add_app("third").await];
    let slow = [connect(&sandbox, &head(&sandbox.key, 9)).await, connect(&sandbox, &head(&other, 9)).await];
    let deadline = Instant::now() + PATIENCE;
    let shed = loop {
        let answer = sandbox.ask("GET", "/v1/messages", &third, &[], "").await;
        if answer.status != 200 || Instant::now() > deadline {
            break answer;
        }
    };
    shed.assert_problem(503, "overloaded");
    assert!(!shed.header("retry-after").is_empty());
    assert_eq!(sandbox.ask("GET", "/healthz", "", &[], "").await.status, 200, "health is asked beside the gate");
    drop(slow);
    crate::sandbox::until(|| async { sandbox.get("/v1/messages").await.status == 200 }).await;
}

#[tokio::test]
async fn what_one_app_holds_up_is_its_own_loss() {
    let config = Config { requests_max: 8, ..Config::default() };
    let sandbox = Sandbox::with(Setup { config, ..Setup::default() }).await;
    let other = sandbox.add_app("other").await;
    let head = format!(
        "POST /v1/devices/import HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        sandbox.key
    );
    let mut uploads = Vec::new();
    for _ in 0..16 {
        uploads.push(connect(&sandbox, &head).await);
    }
    crate::sandbox::until(|| async { sandbox.get("/v1/messages").await.status == 429 }).await;
    let refused = sandbox.get("/v1/messages").await;
    refused.assert_problem(429, "too_many_requests");
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(sandbox.ask("GET", "/v1/messages", &other, &[], "").await.status, 200);
    drop(uploads);
    crate::sandbox::until(|| async { sandbox.get("/v1/messages").await.status == 200 }).await;
}

#[tokio::test]
async fn beyond_the_most_connections_new_ones_wait() {
    let config = Config { connections_max: 2, ..Config::default() };
    let sandbox = Sandbox::with(Setup { config, ..Setup::default() }).await;
    let ask = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let mut first = connect(&sandbox, ask).await;
    let mut second = connect(&sandbox, ask).await;
    answer(&mut first).await;
    answer(&mut second).await;
    let mut third = connect(&sandbox, ask).await;
    let waited = timeout(Duration::from_millis(300), third.read(&mut [0; 16])).await;
    assert!(waited.is_err(), "a third connection was served");
    drop(first);
    assert!(answer(&mut third).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_connection_serves_many_requests_also_pipelined_ones() {
    let sandbox = Sandbox::start().await;
    let ask = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    let last = "GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let text = rest(connect(&sandbox, &[ask, ask, last].concat()).await).await;
    assert_eq!(text.matches("HTTP/1.1 200").count(), 2, "{text}");
    assert_eq!(text.matches("HTTP/1.1 404").count(), 1, "{text}");
}

#[tokio::test]
async fn a_shutdown_lets_a_request_under_way_end_and_takes_no_more() {
    let sandbox = Sandbox::start().await;
    sandbox.add_devices(1).await;
    let body = r#"{"to":{"devices":["dev-1"]},"payload":1}"#;
    let mut under_way = connect(&sandbox, &format!("{}{{", head(&sandbox.key, body.len()))).await;
    let silent = connect(&sandbox, "").await;
    // The gate has the request once it asks for the rest of the body; nothing outside shows that.
    tokio::time::sleep(Duration::from_millis(200)).await;
    sandbox.shutdown.cancel();
    assert_eq!(rest(silent).await, "");
    under_way.write_all(&body.as_bytes()[1..]).await.unwrap();
    let text = rest(under_way).await;
    assert!(text.starts_with("HTTP/1.1 202"), "{text}");
    let stopped = timeout(PATIENCE, sandbox.running).await.expect("it did not stop").unwrap();
    assert!(stopped.is_ok());
    assert!(TcpStream::connect(sandbox.address).await.is_err());
}
