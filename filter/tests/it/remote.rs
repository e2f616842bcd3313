//! Filters that other processes answer.

use std::{path::Path, sync::Arc, time::Duration};

use audience::{Select, SelectError};
use filter::{Config, Filter, Remote};
use model::{AppId, Clock as _, Env, Node, Ordinals, Profile, SystemClock, Tier};
use prometheus_client::registry::Registry;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::bench::Bench;

const SECRET: &str = "what nodes show each other";

/// A filter node of its own, with indexes of its own.
struct Answering {
    name: String,
    address: String,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), filter::Error>>,
    metrics: Registry,
}

impl Answering {
    async fn start(bench: &Bench, dir: &Path, name: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, shutdown) = (listener.local_addr().unwrap().to_string(), CancellationToken::new());
        let config = Config { node: name.parse().unwrap(), snapshots: dir.join(name), memory_max_bytes: 1 << 30 };
        let mut metrics = Registry::default();
        let filter = Filter::new(config, bench.deps.clone(), &mut metrics);
        let task = tokio::spawn(filter.serve(listener, Some(SECRET.to_owned()), shutdown.clone()));
        beat(bench, name, &address).await;
        Self { name: name.to_owned(), address, shutdown, task, metrics }
    }

    /// Nothing says so: as when a process dies.
    async fn die(self) {
        self.shutdown.cancel();
        self.task.await.unwrap().unwrap();
    }

    /// How often it was asked.
    fn asked(&self) -> u64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.metrics).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("fanfare_select_seconds_count "));
        line.unwrap().parse().unwrap()
    }
}

async fn beat(bench: &Bench, name: &str, address: &str) {
    let (id, now, version) = (name.parse().unwrap(), SystemClock.now(), String::new());
    let (tiers, filter) = (vec![Tier::Filter], Some(address.to_owned()));
    let node = Node { id, boot: now, tiers, endpoint: None, filter, version, seen_at: now, drain: None };
    assert!(bench.store.beat(node).await.unwrap());
}

fn remote(bench: &Bench, secret: &str) -> Remote {
    Remote::new(bench.store.clone(), Arc::new(SystemClock), Some(secret), &mut Registry::default())
}

fn tagged(tag: &str) -> Option<Profile> {
    Some(Profile { tags: [tag.to_owned()].into(), ..Profile::default() })
}

async fn ask(select: &Remote, app: &AppId, expression: &str) -> Result<Ordinals, SelectError> {
    select.select(app, Env::Live, expression, SystemClock.now()).await
}

#[tokio::test]
async fn another_process_is_answered_as_this_one_is() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let _node = Answering::start(&bench, dir.path(), "filter1").await;
    let remote = remote(&bench, SECRET);
    let names = |range: std::ops::Range<u32>| range.map(|n| format!("dev-{n}")).collect::<Vec<_>>();
    bench.register(&bench.app, Env::Live, &names(0..3_000), tagged("vip")).await;
    bench.register(&bench.app, Env::Live, &names(3_000..5_000), tagged("staff")).await;
    for expression in [r#"tag("vip")"#, r#"!tag("vip")"#, r#"tag("nobody")"#, r#"sample(10, "x")"#] {
        let now = SystemClock.now();
        let here = bench.select.select(&bench.app, Env::Live, expression, now).await.unwrap();
        assert_eq!(remote.select(&bench.app, Env::Live, expression, now).await.unwrap(), here, "{expression}");
        assert_eq!(remote.count(&bench.app, Env::Live, expression, now).await.unwrap(), here.len(), "{expression}");
    }
    let among = ask(&remote, &bench.app, "has(first_seen)").await.unwrap().below(3_500);
    let expressions = [r#"tag("vip")"#.to_owned(), r#"tag("staff")"#.to_owned()];
    let counts = remote.counts(&bench.app, Env::Live, &expressions, &among, SystemClock.now()).await;
    assert_eq!(counts, Ok(vec![3_000, 500]));
    for wrong in [r#"tag("a") && platfrom == "ios""#, "audience('aud_01JD7Q2Z4M8V6T3K5N9R0WXYEC')"] {
        let here = bench.select.select(&bench.app, Env::Live, wrong, SystemClock.now()).await;
        assert!(matches!(here, Err(SelectError::Invalid(_))));
        assert_eq!(ask(&remote, &bench.app, wrong).await, here);
    }
}

#[tokio::test]
async fn what_any_node_told_the_store_is_in_the_next_answer_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let _node = Answering::start(&bench, dir.path(), "filter1").await;
    let remote = remote(&bench, SECRET);
    for round in 0..20 {
        let tag = format!("t{round}");
        let one = bench.register(&bench.app, Env::Live, &["one".to_owned()], tagged(&tag)).await.remove(0);
        let selected = ask(&remote, &bench.app, &format!("tag(\"{tag}\")")).await.unwrap();
        assert_eq!(selected, std::iter::once(one.ordinal).collect());
    }
}

#[tokio::test]
async fn an_app_has_one_node_and_when_that_is_lost_another_answers_as_rightly() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let mut nodes = Vec::new();
    for name in ["filter1", "filter2", "filter3"] {
        nodes.push(Answering::start(&bench, dir.path(), name).await);
    }
    let remote = remote(&bench, SECRET);
    let names: Vec<_> = (0..10).map(|n| format!("dev-{n}")).collect();
    bench.register(&bench.app, Env::Live, &names, tagged("vip")).await;
    let mut told = 10;
    while !nodes.is_empty() {
        for _ in 0..5 {
            let selected = ask(&remote, &bench.app, r#"tag("vip")"#).await.unwrap();
            assert_eq!(selected.len(), told);
        }
        let mut asked: Vec<_> = nodes.iter().map(Answering::asked).collect();
        let at = asked.iter().position(|asked| *asked == 5).unwrap();
        asked.remove(at);
        assert!(asked.iter().all(|asked| *asked == 0), "one node for one app: {asked:?}");
        nodes.remove(at).die().await;
        bench.register(&bench.app, Env::Live, &[format!("late-{told}")], tagged("vip")).await;
        told += 1;
    }
    let lost = ask(&remote, &bench.app, r#"tag("vip")"#).await;
    assert!(matches!(lost, Err(SelectError::Unavailable(_))), "{lost:?}");
}

#[tokio::test]
async fn a_node_that_is_started_again_is_asked_again_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    bench.register(&bench.app, Env::Live, &["one".to_owned()], tagged("vip")).await;
    let (one, two) =
        (Answering::start(&bench, dir.path(), "filter1").await, Answering::start(&bench, dir.path(), "filter2").await);
    let remote = remote(&bench, SECRET);
    ask(&remote, &bench.app, r#"tag("vip")"#).await.unwrap();
    let (first, second) = if one.asked() == 1 { (one, two) } else { (two, one) };
    let name = first.name.clone();
    first.die().await;
    assert_eq!(ask(&remote, &bench.app, r#"tag("vip")"#).await.unwrap().len(), 1);
    assert_eq!(second.asked(), 1);
    let first = Answering::start(&bench, dir.path(), &name).await;
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while first.asked() == 0 {
        assert_eq!(ask(&remote, &bench.app, r#"tag("vip")"#).await.unwrap().len(), 1);
        assert!(std::time::Instant::now() < deadline, "the node that the hash puts first is not asked again");
    }
}

#[tokio::test]
async fn without_a_node_or_without_the_secret_there_is_no_answer_instead_of_an_empty_one() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    bench.device("one").await;
    let none = ask(&remote(&bench, SECRET), &bench.app, "missing(attr.x)").await;
    assert_eq!(none, Err(SelectError::Unavailable("no filter node runs".into())));
    let _node = Answering::start(&bench, dir.path(), "filter1").await;
    let refused = ask(&remote(&bench, "another secret"), &bench.app, "missing(attr.x)").await;
    assert!(matches!(&refused, Err(SelectError::Unavailable(why)) if why.contains("filter.secret")), "{refused:?}");
}

/// Answers of a node that is none, is broken, or breaks off.
#[tokio::test]
async fn what_is_not_a_whole_answer_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    for answer in [
        "",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 90\r\n\r\n\u{1}",
        "HTTP/1.1 200 OK\r\ncontent-length: 9999999999\r\n\r\n\u{1}",
        "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
        "nothing that HTTP knows\r\n\r\n",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        beat(&bench, "filter1", &listener.local_addr().unwrap().to_string()).await;
        let answering = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let read = stream.read(&mut [0; 4_096]).await.unwrap();
            assert!(read > 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        let selected = ask(&remote(&bench, SECRET), &bench.app, "missing(attr.x)").await;
        assert!(matches!(selected, Err(SelectError::Unavailable(_))), "{answer:?}: {selected:?}");
        answering.await.unwrap();
    }
}

#[tokio::test]
async fn strangers_and_broken_questions_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let node = Answering::start(&bench, dir.path(), "filter1").await;
    let known = format!("authorization: Bearer {SECRET}\r\n");
    for (request, status) in [
        ("POST /select HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\n\r\n\u{1}".to_owned(), "401"),
        (format!("GET /select HTTP/1.1\r\nhost: x\r\n{known}\r\n"), "404"),
        (format!("POST /other HTTP/1.1\r\nhost: x\r\n{known}content-length: 0\r\n\r\n"), "404"),
        (format!("POST /select HTTP/1.1\r\nhost: x\r\n{known}content-length: 2\r\n\r\n\u{9}\u{9}"), "400"),
        (format!("POST /select HTTP/1.1\r\nhost: x\r\n{known}content-length: 99999999\r\n\r\n"), "413"),
    ] {
        let mut stream = TcpStream::connect(&node.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {status}"), "{request:?}");
    }
    node.die().await;
}
