//! One `infra/cluster` on a folder of its own, with an app; it goes down with the test.
//!
//! Without servers these tests are skipped, visibly; with `TEST_REQUIRE_SERVERS=1`, as `infra/test` sets it, they run.

use std::{
    env,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread,
    time::Duration,
};

use lab::{
    Api,
    fault::{ClusterFaults, Habit, Scene, Step, cluster_faults},
};
use tempfile::TempDir;
use tokio::sync::Mutex;

use crate::sandbox::FANFARE;

/// Devices of a run.
const DEVICES: u32 = 100;
/// How long everything may take to come to rest: debug builds of everything share the machine.
const REST_PATIENCE: Duration = Duration::from_secs(120);
/// Fewer accepted messages mean nothing.
const ACCEPTED_MIN: u64 = 100;
/// What every command begins with: `cluster kill redis1` is then `infra/cluster kill redis1`, here.
const PRELUDE: &str = r#"set -eu; cd "$CLUSTER"; cluster() { "$CLUSTER_SCRIPT" "$@"; };"#;

/// One cluster at a time is what a machine can bear.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A shell command, in which `cluster` is `infra/cluster`, and the seconds until the next.
pub(super) fn step(command: impl Into<String>, then_s: u64) -> Step {
    let name = command.into();
    Step { command: format!("{PRELUDE} {name}"), name, then: Duration::from_secs(then_s), answered_within: None }
}

/// Whether packets may be dropped here. It says so when not.
pub(super) fn can_cut() -> bool {
    let nft = Command::new("nft").args(["list", "tables"]).output();
    let can = nft.is_ok_and(|nft| nft.status.success());
    if !can {
        println!("skipped: to drop packets takes root, and nft from the Debian package nftables");
    }
    can
}

/// Plays the steps under load on a cluster of its own; every promise must hold.
pub(super) async fn nothing_is_lost_after(steps: impl IntoIterator<Item = Step>) {
    nothing_is_lost_with(Habit::Mixed, steps).await;
}

/// The same with devices that behave otherwise.
pub(super) async fn nothing_is_lost_with(habit: Habit, steps: impl IntoIterator<Item = Step>) {
    let required = env::var_os("TEST_REQUIRE_SERVERS").is_some_and(|required| required == "1");
    if !required && env::var_os("TEST_AMQP_URL").is_none() {
        println!("skipped: neither TEST_REQUIRE_SERVERS=1 nor TEST_AMQP_URL is set");
        return;
    }
    let _turn = ONE_AT_A_TIME.lock().await;
    let cluster = Cluster::up();
    let (environment, steps) = (cluster.environment(), steps.into_iter().collect());
    let scenario = ClusterFaults { scene: Scene { habit, ..cluster.scene() }, environment, steps };
    let report = cluster_faults(&scenario).await.unwrap();
    println!("{report}");
    assert!(report.holds(), "a promise is broken: {report}");
    assert!(report.verdict.ok > ACCEPTED_MIN, "too little was accepted to mean anything: {report}");
}

struct Cluster {
    dir: TempDir,
    /// Every process by name, and the URL where it listens.
    processes: Vec<(String, String)>,
    key: String,
}

impl Cluster {
    /// Starts it and makes the app `demo`.
    fn up() -> Self {
        // Whatever fails from here on, it is taken down again.
        let mut cluster = Self { dir: tempfile::tempdir().unwrap(), processes: Vec::new(), key: String::new() };
        let status = cluster.run("cluster up");
        for line in status.lines() {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            let [name, _pid, url] = words.try_into().unwrap();
            cluster.processes.push((name, url));
        }
        let created = cluster.run(r#". ./env; "$FANFARE" app create demo"#);
        let key = created.split_whitespace().find(|word| word.starts_with("ak_live_"));
        cluster.key = key.unwrap_or_else(|| panic!("no key in {created:?}")).to_owned();
        cluster
    }

    fn scene(&self) -> Scene {
        let ingests: Vec<_> = self.urls("ingest").collect();
        let listener = |url: &str| -> SocketAddr { url.trim_start_matches("mqtt://").parse().unwrap() };
        Scene {
            api: Api::among(&ingests, &self.key),
            mqtt: self.urls("access-point").map(listener).collect(),
            devices: DEVICES,
            habit: Habit::Mixed,
            patience: REST_PATIENCE,
            history: Some(self.dir.path().join("history.jsonl")),
        }
    }

    fn urls(&self, tier: &str) -> impl Iterator<Item = &str> {
        self.processes.iter().filter(move |(name, _)| name.starts_with(tier)).map(|(_, url)| url.as_str())
    }

    fn environment(&self) -> Vec<(String, String)> {
        let script: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster");
        vec![
            ("CLUSTER".to_owned(), self.dir.path().display().to_string()),
            ("CLUSTER_SCRIPT".to_owned(), script.display().to_string()),
            ("FANFARE".to_owned(), FANFARE.to_owned()),
        ]
    }

    fn output(&self, command: &str) -> Output {
        let shell = ["-c".to_owned(), format!("{PRELUDE} {command}")];
        Command::new("/bin/sh").args(shell).envs(self.environment()).output().unwrap()
    }

    /// What the command prints; it must succeed.
    fn run(&self, command: &str) -> String {
        let output = self.output(command);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Cluster {
    /// Takes it down; after a failure its logs and the history stay for people.
    fn drop(&mut self) {
        if thread::panicking() && !self.processes.is_empty() {
            let names: Vec<_> = self.processes.iter().map(|(name, _)| name.as_str()).collect();
            drop(self.output("cluster heal"));
            drop(self.output(&format!("cluster stop {}", names.join(" "))));
            self.dir.disable_cleanup(true);
            println!("logs and history: {}", self.dir.path().display());
        } else {
            drop(self.output("cluster down"));
        }
    }
}
