//! A Redis of a test's own, which can be frozen, and ends with the test.

use std::{
    env, fs,
    io::ErrorKind,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// It answers by then, also on a busy machine.
const START_MAX: Duration = Duration::from_secs(30);

/// A server, as long as this lives.
#[derive(Debug)]
pub struct Private {
    process: Child,
    port: u16,
    dir: TempDir,
}

impl Private {
    /// A fresh one with these settings, given as on the command line; unless they say so it keeps nothing on disk, and
    /// replicas need not wait. `None`, and a line that says so, where there is no `redis-server`; with
    /// `TEST_REQUIRE_SERVERS` the test fails instead.
    pub fn start(settings: &[&str]) -> Option<Self> {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let mut start = Command::new("redis-server");
        start.args(["--bind", "127.0.0.1", "--save", "", "--port", &port.to_string(), "--dir"]).arg(dir.path());
        start.args(["--repl-diskless-sync-delay", "0"]).args(settings);
        Self::launch(start, dir, port)
    }

    /// A Sentinel that watches another, as `main`.
    pub fn sentinel_of(primary: &Self) -> Option<Self> {
        let (dir, port) = (tempfile::tempdir().unwrap(), free_port());
        let file = dir.path().join("sentinel.conf");
        let settings = format!("bind 127.0.0.1\nport {port}\nsentinel monitor main 127.0.0.1 {} 1\n", primary.port);
        fs::write(&file, settings).unwrap();
        let mut start = Command::new("redis-server");
        start.arg(file).arg("--sentinel");
        Self::launch(start, dir, port)
    }

    fn launch(mut start: Command, dir: TempDir, port: u16) -> Option<Self> {
        let process = match start.stdout(Stdio::null()).spawn() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                assert!(env::var_os("TEST_REQUIRE_SERVERS").is_none(), "there is no redis-server");
                println!("skipped: there is no redis-server; infra/test installs it");
                return None;
            }
            started => started.unwrap(),
        };
        let server = Self { process, port, dir };
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(
                Instant::now() < deadline,
                "redis-server does not answer; its files are in {:?}",
                server.dir.path()
            );
            sleep(Duration::from_millis(10));
        }
        Some(server)
    }

    /// Where it listens, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The same as a store is told.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// From here on connections can still be made, and nothing is answered.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Goes on after [`freeze`](Self::freeze).
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.process.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A port of loopback on which nobody listens.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
