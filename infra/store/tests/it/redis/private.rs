//! A Redis of a test's own, with settings of its own, which may end.

use std::{
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use deadpool_redis::redis::{Client, Connection, cmd};
use tempfile::TempDir;

/// It answers by then, and follows another.
const START_MAX: Duration = Duration::from_secs(5);

/// A server of a test's own, as long as this lives.
pub(crate) struct Private {
    process: Child,
    url: String,
    _dir: TempDir,
}

impl Private {
    /// One with these settings. It keeps nothing on disk.
    pub(crate) fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut start = Command::new("redis-server");
        start.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"]).arg(dir.path());
        start.args(["--repl-diskless-sync-delay", "0"]);
        let process = start.args(settings).stdout(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, url: format!("redis://127.0.0.1:{port}"), _dir: dir }
    }

    /// A replica of another, which has everything that this one has.
    pub(crate) fn replica_of(primary: &Self) -> Self {
        let port = primary.url.rsplit(':').next().unwrap();
        let replica = Self::start(&["--replicaof", "127.0.0.1", port]);
        let (mut plain, deadline) = (primary.plain(), Instant::now() + START_MAX);
        let mut follows = || {
            cmd("INCR").arg("written").exec(&mut plain).unwrap();
            cmd("WAIT").arg(1).arg(100).query::<u32>(&mut plain).unwrap() == 1
        };
        while !follows() {
            assert!(Instant::now() < deadline, "the replica does not follow");
        }
        replica
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }

    /// A plain connection to it.
    pub(crate) fn plain(&self) -> Connection {
        Client::open(self.url.as_str()).unwrap().get_connection().unwrap()
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}
