//! Devices in a process of their own, at the command of a bench: it says on standard input what they are to do, and hears
//! on standard output how many have done it. So more devices fit a machine than a process may have sockets, and a whole
//! crowd of them can be stopped. What happened to them is written down for the checker.

use std::{
    io::{BufRead as _, Write as _, stdin, stdout},
    net::{IpAddr, SocketAddr},
    ops::Range,
    path::PathBuf,
    sync::Arc,
    thread,
    time::Duration,
};

use model::SystemClock;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::plan;
use crate::{
    Api, Error, Faults, Fleet, History, Orders,
    device::{Line, Pauses},
    enrol::enrol,
    history,
};

/// How often it is told how many are connected, and have received something.
const TELL_EVERY: Duration = Duration::from_millis(20);
/// Commands that wait to be carried out: a bench gives one at a time.
const COMMANDS_MAX: usize = 4;

/// Which devices, and how they connect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Assignment {
    /// The platform's HTTP addresses, and a key.
    pub(super) bases: Vec<String>,
    pub(super) key: String,
    /// The access point.
    pub(super) server: SocketAddr,
    pub(super) run: String,
    pub(super) devices: Range<u32>,
    pub(super) keep_alive_s: u16,
    pub(super) receive_buffer_bytes: Option<u32>,
    /// The address they connect from; absent: several of loopback.
    pub(super) source: Option<IpAddr>,
    /// Where the history is to be in the end.
    pub(super) history: PathBuf,
}

/// What all of them are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Command {
    /// Be connected, and read.
    Connect,
    /// Read no more from the socket.
    StopReading,
    /// Cut the link without a word, and come back as the terminal SDKs do.
    Storm,
}

/// How far they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Count {
    /// Devices that are registered: all of them from the first time on that this is told.
    pub(super) registered: usize,
    pub(super) connected: usize,
    /// Connections so far.
    pub(super) opened: usize,
    /// Messages that applications have seen.
    pub(super) delivered: usize,
}

/// Is a generator until standard input ends; then its devices hang up, and their history is written.
///
/// # Errors
/// [`Error::Corrupt`] when what comes in is no command; else as those of the devices' registration.
pub async fn generate() -> Result<(), Error> {
    let mut lines = lines_in()?;
    let nothing = || Error::Corrupt("a generator is told first what it is".to_owned());
    let assignment: Assignment = parse(&lines.recv().await.ok_or_else(nothing)?)?;
    let history = Arc::new(History::new(Arc::new(SystemClock)));
    let fleet = muster(&assignment, &history).await?;
    follow(&mut lines, &fleet, &history).await?;
    fleet.close().await;
    history::save(&history.take()?, &assignment.history)
}

/// Registers the devices; they are still offline.
async fn muster(assignment: &Assignment, history: &Arc<History>) -> Result<Fleet, Error> {
    let Assignment { bases, key, server, run, devices, keep_alive_s, receive_buffer_bytes, source, .. } = assignment;
    let bases: Vec<&str> = bases.iter().map(String::as_str).collect();
    let plans = devices.clone().map(|n| plan(run, n)).collect::<Result<Vec<_>, _>>()?;
    let identities = enrol(&Api::among(&bases, key), plans, Some(history), &|_| ()).await?;
    let line = Line {
        pauses: Pauses::OF_SDKS,
        connecting_max: devices.len(), // in life they do not wait for each other
        receive_buffer_bytes: *receive_buffer_bytes,
        source: *source,
        ..Line::to([*server], *keep_alive_s)
    };
    Ok(Fleet::new(identities, line, history.clone()))
}

/// Does what it is told, and tells how far it is, until nothing more comes.
async fn follow(lines: &mut mpsc::Receiver<String>, fleet: &Fleet, history: &History) -> Result<(), Error> {
    let mut ticks = interval(TELL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut orders, mut told) = (Orders::ONLINE, None);
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                None => return Ok(()),
                Some(line) => {
                    orders = after(parse(&line)?, orders);
                    fleet.order(0..fleet.len(), orders);
                }
            },
            _ = ticks.tick() => {
                let (connected, opened, delivered) = (fleet.connected(), fleet.opened(), history.delivered());
                let count = Count { registered: fleet.len(), connected, opened, delivered };
                if told.replace(count) != Some(count) {
                    tell(&count)?;
                }
            }
        }
    }
}

fn after(command: Command, orders: Orders) -> Orders {
    match command {
        Command::Connect => Orders { storm: orders.storm, ..Orders::ONLINE },
        Command::StopReading => Orders { faults: Faults { deaf: true, ..Faults::default() }, ..orders },
        Command::Storm => Orders { storm: orders.storm + 1, ..orders },
    }
}

/// The lines of standard input, which is read on a thread of its own, for it cannot be waited for otherwise.
fn lines_in() -> Result<mpsc::Receiver<String>, Error> {
    let (sender, lines) = mpsc::channel(COMMANDS_MAX);
    thread::Builder::new().name("commands".to_owned()).spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    })?;
    Ok(lines)
}

fn tell(count: &Count) -> Result<(), Error> {
    let mut out = stdout().lock();
    serde_json::to_writer(&mut out, count).map_err(std::io::Error::from)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// A line of either side.
pub(super) fn parse<T: DeserializeOwned>(line: &str) -> Result<T, Error> {
    serde_json::from_str(line).map_err(|error| Error::Corrupt(format!("between a bench and its generator: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_goes_over_and_leaves_the_rest_as_it_was() {
        let deaf = after(Command::StopReading, Orders::ONLINE);
        assert!(deaf.online && deaf.faults.deaf);
        let storm = after(Command::Storm, deaf);
        assert_eq!((storm.storm, storm.faults), (1, deaf.faults));
        assert_eq!(after(Command::Connect, storm), Orders { storm: 1, ..Orders::ONLINE });
    }
}
