//! Many devices in generator processes under one command.

use std::{
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::PathBuf,
    process::Stdio,
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    process::{self, Child, ChildStdin, ChildStdout},
    sync::watch,
    time::{Instant, sleep, timeout},
};

use super::generator::{Assignment, Command, Count, parse};
use crate::{Api, Error, Record, history};

/// Devices of a process at most: it has 20,000 descriptors on machines that leave the limit as it is.
const DEVICES_EACH_MAX: u32 = 15_000;
/// How often the counts are looked at while somebody waits for them.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a generator may take to write its history and end.
const END_PATIENCE: Duration = Duration::from_secs(120);

/// How many devices, where, and how.
#[derive(Clone, Debug)]
pub(super) struct HerdOptions {
    /// The command that is a generator.
    pub(super) generator: Vec<String>,
    pub(super) run: String,
    pub(super) devices: u32,
    /// The access points, among which the devices spread evenly.
    pub(super) servers: Vec<SocketAddr>,
    pub(super) keep_alive_s: u16,
    pub(super) receive_buffer_bytes: Option<u32>,
    /// The address they connect from; absent: several of loopback.
    pub(super) source: Option<IpAddr>,
}

/// Generator processes; they are killed when this is dropped.
pub(super) struct Herd {
    generators: Vec<Generator>,
    _dir: TempDir,
}

struct Generator {
    child: Child,
    commands: ChildStdin,
    counts: watch::Receiver<Count>,
    history: PathBuf,
}

impl Herd {
    /// Starts the generators and waits until every device is registered; all are offline.
    pub(super) async fn start(api: &Api, options: &HerdOptions, patience: Duration) -> Result<Self, Error> {
        let (dir, (bases, key)) = (tempfile::tempdir()?, api.credentials());
        let mut generators = Vec::new();
        for (number, (server, devices)) in shares(&options.servers, options.devices).into_iter().enumerate() {
            let assignment = Assignment {
                bases: bases.to_vec(),
                key: key.to_owned(),
                server,
                run: options.run.clone(),
                devices,
                keep_alive_s: options.keep_alive_s,
                receive_buffer_bytes: options.receive_buffer_bytes,
                source: options.source,
                history: dir.path().join(format!("history-{number}.jsonl")),
            };
            generators.push(Generator::start(&options.generator, assignment).await?);
        }
        let mut herd = Self { generators, _dir: dir };
        let all = options.devices as usize;
        herd.wait("registered", patience, |count| count.registered == all).await?;
        Ok(herd)
    }

    /// What every device is to do from now on.
    pub(super) async fn order(&mut self, command: Command) -> Result<(), Error> {
        for generator in &mut self.generators {
            generator.say(&serde_json::to_string(&command).map_err(std::io::Error::from)?).await?;
        }
        Ok(())
    }

    /// How far all of them are.
    pub(super) fn count(&self) -> Count {
        let counts = self.generators.iter().map(|generator| *generator.counts.borrow());
        counts.fold(Count::default(), |all, count| Count {
            registered: all.registered + count.registered,
            connected: all.connected + count.connected,
            opened: all.opened + count.opened,
            delivered: all.delivered + count.delivered,
        })
    }

    /// Waits until they are that far.
    pub(super) async fn wait(
        &mut self,
        what: &str,
        patience: Duration,
        is_far: impl Fn(&Count) -> bool,
    ) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        while !is_far(&self.count()) {
            for generator in &mut self.generators {
                if let Some(status) = generator.child.try_wait()? {
                    return Err(Error::Corrupt(format!("a generator ended by itself: {status}")));
                }
            }
            if Instant::now() >= deadline {
                return Err(Error::Corrupt(format!("not {what} after {patience:?}: {:?}", self.count())));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Stops the processes where they are, or lets them go on: `STOP` or `CONT`. Stopped, nothing of them is heard any
    /// more, and no socket of theirs is closed.
    pub(super) async fn signal(&self, signal: &str) -> Result<(), Error> {
        let pids = self.generators.iter().filter_map(|generator| generator.child.id()).map(|pid| pid.to_string());
        let sent = process::Command::new("kill").arg(format!("-{signal}")).args(pids).status().await?;
        if sent.success() { Ok(()) } else { Err(Error::unavailable("signal", sent)) }
    }

    /// Hangs up, and says what happened to all of them.
    pub(super) async fn end(self) -> Result<Vec<Record>, Error> {
        let mut records = Vec::new();
        for generator in self.generators {
            records.extend(generator.end().await?);
        }
        Ok(records)
    }
}

impl Generator {
    async fn start(command: &[String], assignment: Assignment) -> Result<Self, Error> {
        let nothing = || Error::Corrupt("no command for a generator".to_owned());
        let (program, arguments) = command.split_first().ok_or_else(nothing)?;
        let mut child = process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(commands), Some(told)) = (child.stdin.take(), child.stdout.take()) else { return Err(nothing()) };
        let (sender, counts) = watch::channel(Count::default());
        tokio::spawn(hear(told, sender));
        let history = assignment.history.clone();
        let mut generator = Self { child, commands, counts, history };
        // Not as arguments: a key is among it, and those are for everybody to see.
        generator.say(&serde_json::to_string(&assignment).map_err(std::io::Error::from)?).await?;
        Ok(generator)
    }

    async fn say(&mut self, line: &str) -> Result<(), Error> {
        Ok(self.commands.write_all(format!("{line}\n").as_bytes()).await?)
    }

    async fn end(self) -> Result<Vec<Record>, Error> {
        let Self { mut child, commands, history, .. } = self;
        drop(commands);
        let late = |_| Error::unavailable("generator", format!("does not end within {END_PATIENCE:?}"));
        let status = timeout(END_PATIENCE, child.wait()).await.map_err(late)??;
        if status.success() { history::load(&history) } else { Err(Error::Corrupt(format!("a generator: {status}"))) }
    }
}

async fn hear(told: ChildStdout, counts: watch::Sender<Count>) {
    let mut lines = BufReader::new(told).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        match parse(&line) {
            Ok(count) => drop(counts.send_replace(count)),
            Err(error) => tracing::warn!(%error, "a generator says something else"),
        }
    }
}

/// Which devices go to which server: evenly, and no more to a generator than it can hold.
fn shares(servers: &[SocketAddr], devices: u32) -> Vec<(SocketAddr, Range<u32>)> {
    let each = devices.div_ceil(u32::try_from(servers.len()).unwrap_or(u32::MAX).max(1));
    let parts = each.div_ceil(DEVICES_EACH_MAX).max(1);
    let of_server = |(number, server): (u32, &SocketAddr)| {
        let (from, until) = ((number * each).min(devices), ((number + 1) * each).min(devices));
        let edge = move |part: u32| from + (until - from) * part / parts;
        let server = *server;
        (0..parts).map(move |part| (server, edge(part)..edge(part + 1))).collect::<Vec<_>>()
    };
    (0..).zip(servers).flat_map(of_server).filter(|(_, devices)| !devices.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(last: u8) -> SocketAddr {
        ([127, 0, 0, last], 1).into()
    }

    #[test]
    fn devices_spread_evenly_and_none_is_left_out() {
        let four = [1, 2, 3, 4].map(server);
        let shares_of = |servers: &[SocketAddr], devices| shares(servers, devices);
        let expected: Vec<_> = (0..4).map(|n| (four[n as usize], n * 15_000..(n + 1) * 15_000)).collect();
        assert_eq!(shares_of(&four, 60_000), expected);
        assert_eq!(shares_of(&four[..1], 20_000), [(four[0], 0..10_000), (four[0], 10_000..20_000)]);
        assert_eq!(shares_of(&four, 2), [(four[0], 0..1), (four[1], 1..2)]);
        for devices in [1, 7, 15_001, 61_003] {
            let shares = shares(&four, devices);
            assert_eq!(shares.iter().map(|(_, share)| share.len()).sum::<usize>(), devices as usize);
            assert!(shares.iter().all(|(_, share)| share.len() <= 15_000 + 1));
        }
    }
}
