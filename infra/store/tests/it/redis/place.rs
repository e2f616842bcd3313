//! A part of a Redis of its own for each test.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use deadpool_redis::redis::{Client, Connection, cmd, pipe};
use store::{
    SharedStore,
    contract::Place,
    redis::{Config, Durability, Redis},
};

/// Keys that are looked at between two turns of others.
const KEYS_A_SCAN: u32 = 1_000;

/// A server of its own answers by then.
const START_MAX: Duration = Duration::from_secs(5);

/// Keys of a fresh prefix, removed afterwards.
pub(crate) struct Server {
    url: String,
    prefix: String,
}

impl Server {
    /// A fresh place in the server for tests; `None`, and a line that says so, when there is none.
    pub(crate) fn new() -> Option<Self> {
        let text = |name| std::env::var_os(name).and_then(|text| text.into_string().ok());
        let Some(url) = text("TEST_REDIS_URL") else {
            assert!(text("TEST_REQUIRE_SERVERS").is_none_or(|required| required != "1"), "TEST_REDIS_URL is not set");
            eprintln!("skipped: TEST_REDIS_URL is not set");
            return None;
        };
        Some(Self::at(url))
    }

    /// A fresh place in the server at `url`.
    pub(crate) fn at(url: String) -> Self {
        Self { url, prefix: format!("test-{:016x}", RandomState::new().hash_one(0)) }
    }

    /// How to open it; the tests' clock is not the server's.
    pub(crate) fn config(&self) -> Config {
        Config {
            prefix: self.prefix.clone(),
            durability: Durability::Trusted,
            skew_max: None,
            ..Config::new(self.url.clone())
        }
    }

    pub(crate) async fn connect(&self) -> Arc<Redis> {
        Redis::connect(self.config()).await.unwrap()
    }

    /// A client of the server, or of the only node of the cluster.
    fn client(&self) -> Client {
        Client::open(self.url.replace("redis+cluster:", "redis:")).unwrap()
    }

    /// A plain connection to the server.
    pub(crate) fn plain(&self) -> Connection {
        self.client().get_connection().unwrap()
    }

    /// Seconds of processor that the server's main thread has used.
    pub(crate) fn cpu(&self) -> f64 {
        let info: String = cmd("INFO").arg("cpu").query(&mut self.plain()).unwrap();
        let seconds = |line: &str| line.split_once("_main_thread:").and_then(|(_, value)| value.parse::<f64>().ok());
        info.lines().filter_map(seconds).sum()
    }

    /// What the keys here take in the server's memory, by the server's own reckoning, and how many they are.
    pub(crate) fn memory(&self) -> (u64, u64) {
        let mut connection = self.plain();
        let mut all = (0, 0);
        self.each_page(&mut connection, |connection, keys| {
            for key in keys {
                let bytes: Option<u64> =
                    cmd("MEMORY").arg("USAGE").arg(key).arg("SAMPLES").arg(0).query(connection).unwrap();
                all = (all.0 + bytes.unwrap_or_default(), all.1 + 1);
            }
        });
        all
    }

    fn each_page(&self, connection: &mut Connection, mut each: impl FnMut(&mut Connection, Vec<Vec<u8>>)) {
        let mut cursor = 0_u64;
        loop {
            let pattern = format!("{}{{*", self.prefix);
            let mut scan = cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(KEYS_A_SCAN);
            let (next, keys): (u64, Vec<Vec<u8>>) = scan.query(connection).unwrap();
            each(connection, keys);
            cursor = next;
            if cursor == 0 {
                return;
            }
        }
    }
}

impl Server {
    /// A server of its own in `dir` with these settings, and its URL; whoever asked for it ends it.
    pub(crate) fn private(dir: &Path, settings: &[&str]) -> (Child, String) {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut start = Command::new("redis-server");
        start.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"]);
        let child = start.arg(dir).args(settings).stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        (child, format!("redis://127.0.0.1:{port}"))
    }

    /// Removes what is kept here.
    pub(crate) fn clear(&self) {
        // A test that ends with its server leaves nothing to remove.
        let Ok(mut connection) = self.client().get_connection() else { return };
        self.each_page(&mut connection, |connection, keys| {
            if !keys.is_empty() {
                // One by one: in a cluster they lie in many slots.
                let mut unlink = pipe();
                keys.iter().for_each(|key| _ = unlink.unlink(key).ignore());
                unlink.exec(connection).unwrap();
            }
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.clear();
    }
}

#[async_trait]
impl Place for Server {
    async fn open(&mut self) -> SharedStore {
        self.connect().await
    }
}
