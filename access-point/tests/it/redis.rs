//! A Redis of a test's own, which can be frozen.

use std::{
    env,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use store::{
    SharedStore,
    redis::{Config, Durability, Redis},
};
use tempfile::TempDir;

/// A server answers by then.
const START_MAX: Duration = Duration::from_secs(5);

/// A server, as long as this lives.
pub(crate) struct Server {
    process: Child,
    port: u16,
    _dir: TempDir,
}

impl Server {
    /// A fresh server; `None`, and a line that says so, where tests are not given servers.
    pub(crate) fn start() -> Option<Self> {
        if env::var_os("TEST_REDIS_URL").is_none() {
            assert!(env::var_os("TEST_REQUIRE_SERVERS").is_none(), "TEST_REDIS_URL is not set");
            println!("skipped: TEST_REDIS_URL is not set; infra/test sets it");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut start = Command::new("redis-server");
        start.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"]).arg(dir.path());
        let server = Self { process: start.stdout(Stdio::null()).spawn().unwrap(), port, _dir: dir };
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    pub(crate) async fn store(&self) -> SharedStore {
        let url = format!("redis://127.0.0.1:{}", self.port);
        Redis::connect(Config { durability: Durability::Trusted, ..Config::new(url) }).await.unwrap()
    }

    /// Connections can still be made, and nothing is answered.
    pub(crate) fn freeze(&self) {
        self.signal("STOP");
    }

    pub(crate) fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
