//! One `fanfare` process on a folder and ports of its own, with an app.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use lab::{
    Api,
    fault::{Launch, Server, steady_address},
};
use tempfile::TempDir;

/// How long the process may take to be ready, on a machine that is busy with other tests.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// The binary under test.
pub(crate) const FANFARE: &str = env!("CARGO_BIN_EXE_fanfare");

pub(crate) struct Sandbox {
    pub(crate) dir: TempDir,
    pub(crate) http: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    pub(crate) key: String,
    metrics: SocketAddr,
}

impl Sandbox {
    /// Makes the folder and the app `demo`; nothing is running yet.
    pub(crate) fn new() -> Self {
        let (http, mqtt, metrics) = [(); 3].map(|()| steady_address().unwrap()).into();
        let mut sandbox = Self { dir: tempfile::tempdir().unwrap(), http, mqtt, key: String::new(), metrics };
        let created = sandbox.run(&["app", "create", "demo"]);
        let printed = String::from_utf8(created.stdout).unwrap();
        let key = printed.split_whitespace().find(|word| word.starts_with("ak_live_"));
        sandbox.key = key.unwrap_or_else(|| panic!("no key in {printed:?}")).to_owned();
        sandbox
    }

    /// Settings for a process of this sandbox.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let set = |name: &str, value: String| (format!("FANFARE__{name}"), value);
        vec![
            set("DATA_DIR", self.dir.path().join("data").display().to_string()),
            set("INGEST__LISTEN", self.http.to_string()),
            set("ACCESS_POINT__LISTEN", self.mqtt.to_string()),
            set("METRICS__LISTEN", self.metrics.to_string()),
            set("LOG__FORMAT", "json".to_owned()),
            set("LOG__FILTER", "info,ingest=debug,dispatcher=debug,access_point=debug".to_owned()),
        ]
    }

    /// A command that shares this sandbox's settings.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(FANFARE);
        command.args(arguments).envs(self.environment());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    pub(crate) fn api(&self) -> Api {
        Api::new(&format!("http://{}", self.http), &self.key)
    }

    /// Where the process writes its log.
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub(crate) fn launch(&self) -> Launch {
        Launch {
            program: FANFARE.into(),
            arguments: Vec::new(),
            environment: self.environment(),
            log: Some(self.log()),
            patience: START_PATIENCE,
        }
    }

    /// Starts all tiers and waits until they are ready.
    pub(crate) async fn start(&self) -> Server {
        let started = Server::start(&self.launch(), &self.api()).await;
        started.unwrap_or_else(|error| panic!("{error}\n{}", std::fs::read_to_string(self.log()).unwrap_or_default()))
    }
}
