//! A part of a Redis of its own for each test.

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
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

/// Keys of a fresh prefix, removed afterwards.
pub(crate) struct Server {
    url: String,
    prefix: String,
}

impl Server {
    /// A fresh place in the server for tests; `None`, and a line that says so, when there is none.
    pub(crate) fn new() -> Option<Self> {
        let given = Self::given("TEST_REDIS_URL");
        let required = text("TEST_REQUIRE_SERVERS").is_some_and(|required| required == "1");
        assert!(given.is_some() || !required, "TEST_REDIS_URL is not set");
        given
    }

    /// A fresh place in the cluster for tests; `None`, and a line that says so, when there is none: whoever brings a
    /// server need not have a cluster.
    pub(crate) fn of_cluster() -> Option<Self> {
        Self::given("TEST_REDIS_CLUSTER_URL")
    }

    fn given(name: &str) -> Option<Self> {
        let url = text(name);
        if url.is_none() {
            eprintln!("skipped: {name} is not set");
        }
        url.map(Self::at)
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

    /// Clients of the server, or of each node of the cluster.
    fn clients(&self) -> Vec<Client> {
        let Some(nodes) = self.url.strip_prefix("redis+cluster://") else {
            return vec![Client::open(self.url.as_str()).unwrap()];
        };
        nodes.split(',').map(|node| Client::open(format!("redis://{node}")).unwrap()).collect()
    }

    /// A plain connection to the server.
    pub(crate) fn plain(&self) -> Connection {
        self.clients()[0].get_connection().unwrap()
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

    /// Removes what is kept here.
    pub(crate) fn clear(&self) {
        for client in self.clients() {
            // A test that ends with its server leaves nothing to remove.
            let Ok(mut connection) = client.get_connection() else { continue };
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

fn text(name: &str) -> Option<String> {
    env::var_os(name)?.into_string().ok()
}
