//! One `fanfare` process on a folder and ports of its own, with an app: on the embedded back ends, or on RabbitMQ and
//! Redis under names of its own.

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
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

/// What a sandbox stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum On {
    Embedded,
    /// RabbitMQ and Redis: `infra/test` starts them.
    Servers,
}

pub(crate) struct Sandbox {
    pub(crate) dir: TempDir,
    pub(crate) http: SocketAddr,
    pub(crate) mqtt: SocketAddr,
    /// Where devices connect under TLS; a certificate that is to be trusted for it is `ca.pem` in the folder `tls`.
    pub(crate) tls: SocketAddr,
    pub(crate) key: String,
    pub(crate) metrics: SocketAddr,
    /// Settings that not every sandbox has: the servers, TLS.
    more: Vec<(String, String)>,
}

/// Settings that name the servers, with names of one's own there; `None` when nobody says where servers are.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment where their servers are")]
fn servers() -> Option<Vec<(String, String)>> {
    let Some((amqp, redis)) = env::var("TEST_AMQP_URL").ok().zip(env::var("TEST_REDIS_URL").ok()) else {
        assert!(
            env::var("TEST_REQUIRE_SERVERS").is_err(),
            "TEST_AMQP_URL and TEST_REDIS_URL must say where servers are"
        );
        println!("skipped: TEST_AMQP_URL and TEST_REDIS_URL are not set; infra/test sets them");
        return None;
    };
    let own = format!("test-{:016x}", rand::random::<u64>());
    let set = |name: &str, value: String| (format!("FANFARE__{name}"), value);
    Some(vec![
        set("BROKER__URL", amqp),
        set("BROKER__NAMESPACE", format!("{own}.")),
        set("STORE__URL", redis),
        set("STORE__PREFIX", own),
    ])
}

impl Sandbox {
    /// Makes the folder and the app `demo`; nothing is running yet.
    pub(crate) fn new() -> Self {
        Self::with(Vec::new())
    }

    /// The same on these back ends; `None` when they are not there.
    pub(crate) fn on(back_ends: On) -> Option<Self> {
        match back_ends {
            On::Embedded => Some(Self::new()),
            On::Servers => Some(Self::with(servers()?)),
        }
    }

    /// On RabbitMQ, and on this Redis instead of the one that tests share; `None` when no servers are there.
    pub(crate) fn on_redis(url: String) -> Option<Self> {
        let mut servers = servers()?;
        servers.push(("FANFARE__STORE__URL".to_owned(), url));
        Some(Self::with(servers))
    }

    fn with(servers: Vec<(String, String)>) -> Self {
        let (http, mqtt, tls, metrics) = [(); 4].map(|()| steady_address().unwrap()).into();
        let dir = tempfile::tempdir().unwrap();
        let mut sandbox = Self { dir, http, mqtt, tls, key: String::new(), metrics, more: servers };
        sandbox.key = sandbox.create_app("demo");
        sandbox
    }

    /// Adds an app while nothing is running; a key of it that may do everything.
    pub(crate) fn create_app(&self, name: &str) -> String {
        let created = self.run(&["app", "create", name, "--admin"]);
        let printed = String::from_utf8(created.stdout).unwrap();
        let key = printed.split_whitespace().find(|word| word.starts_with("ak_live_"));
        key.unwrap_or_else(|| panic!("no key in {printed:?}")).to_owned()
    }

    /// Has it speak TLS too, from its next start on.
    pub(crate) fn secure(&mut self) {
        let files = self.dir.path().join("tls");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../certificate");
        assert!(Command::new(script).arg(&files).status().unwrap().success());
        let set = |name: &str, value: String| (format!("FANFARE__ACCESS_POINT__TLS_{name}"), value);
        self.more.push(set("LISTEN", self.tls.to_string()));
        self.more.push(set("CERTIFICATE", files.join("certificate.pem").display().to_string()));
        self.more.push(set("KEY", files.join("key.pem").display().to_string()));
    }

    /// Settings for a process of this sandbox.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let set = |name: &str, value: String| (format!("FANFARE__{name}"), value);
        let own = [
            set("DATA_DIR", self.dir.path().join("data").display().to_string()),
            set("INGEST__LISTEN", self.http.to_string()),
            set("ACCESS_POINT__LISTEN", self.mqtt.to_string()),
            set("FILTER__LISTEN", "127.0.0.1:0".to_owned()),
            set("METRICS__LISTEN", self.metrics.to_string()),
            set("LOG__FORMAT", "json".to_owned()),
            set("LOG__FILTER", "info,ingest=debug,dispatcher=debug,access_point=debug".to_owned()),
        ];
        own.into_iter().chain(self.more.clone()).collect()
    }

    /// How another access point of this sandbox is started, under this name; and where it listens. Only on servers.
    pub(crate) fn beside(&self, node: &str) -> (Launch, SocketAddr) {
        let [mqtt, metrics] = [(); 2].map(|()| steady_address().unwrap());
        let own = [
            ("NODE", node.to_owned()),
            ("DATA_DIR", self.dir.path().join(node).display().to_string()),
            ("ACCESS_POINT__LISTEN", mqtt.to_string()),
            ("METRICS__LISTEN", metrics.to_string()),
        ];
        let own = own.map(|(name, value)| (format!("FANFARE__{name}"), value));
        let environment = self.environment().into_iter().chain(own).collect();
        (Launch { arguments: vec!["access-point".to_owned()], environment, ..self.launch() }, mqtt)
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
