//! What happened in a run, as the outside saw it: one record an event, in order. It judges nothing:
//! [`mod@crate::check`] does.
//!
//! An `invoke` is recorded before the act and its `ok`, `fail` or `info` after it, so when one act's `ok` stands before
//! another's `invoke`, the first truly came first, whatever the clocks say.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use model::{Clock, DeviceId, Funnel, GroupId, MessageId, Position, Timestamp, UserId};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::{Arrival, Audience, Error, Observer, api::Send, received::Place};

/// Most records of a run: about 2 GiB in memory. A longer run must be split.
const RECORDS_MAX: usize = 10_000_000;

/// What is known of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It happened.
    Ok,
    /// It did not happen and never will.
    Fail,
    /// Whether it happened is unknown.
    Info,
}

/// What was done or seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// A device is registered, or registered anew with another profile.
    Register {
        /// The device.
        dev: DeviceId,
        /// Whose it is.
        user: Option<UserId>,
        /// Its labels.
        tags: BTreeSet<String>,
    },
    /// A device is taken out of the registry.
    Unregister {
        /// The device.
        dev: DeviceId,
    },
    /// Devices join a static group.
    Join {
        /// The group.
        group: GroupId,
        /// The devices.
        devs: Vec<DeviceId>,
    },
    /// A message is sent.
    Send {
        /// The sender's own name for it: its idempotency key, which the payload carries as well.
        msg: String,
        /// Whom it is for.
        audience: Audience,
        /// How long it may take to arrive, in seconds.
        ttl_s: u64,
        /// The platform's name for it, once it is answered.
        id: Option<MessageId>,
    },
    /// A message is called back.
    Cancel {
        /// The sender's name for it.
        msg: String,
    },
    /// A message came off the wire.
    Receive {
        /// At this device.
        dev: DeviceId,
        /// On the device's so-many-th connection.
        link: u32,
        /// The sender's name in the payload; empty when there was none.
        msg: String,
        /// The platform's name for it.
        id: MessageId,
        /// Where it stands.
        seq: Place,
        /// Whether it carried the DUP flag.
        dup: bool,
        /// Whether the client rule let it through to the application.
        app: bool,
        /// Whether the device answered with a PUBACK.
        acked: bool,
    },
    /// A device told the platform, which took it, that it has everything up to a position: an ack of all that.
    State {
        /// The device.
        dev: DeviceId,
        /// The greatest numbers it had received.
        after: Position,
    },
    /// A device has been connected and idle long enough to have everything there is for it.
    Synced {
        /// The device.
        dev: DeviceId,
    },
    /// What the platform says about a message after everything has come to rest.
    Funnel {
        /// The sender's name for it.
        msg: String,
        /// Its funnel.
        funnel: Funnel,
    },
}

/// One event of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When, by the lab's clock.
    pub t: Timestamp,
    /// The number of the sender or device that did or saw it.
    pub proc: u32,
    /// What is known of it.
    pub kind: Kind,
    /// What it was.
    #[serde(flatten)]
    pub op: Op,
}

/// The growing history of a run, shared by everybody in it.
#[derive(Debug)]
pub struct History {
    clock: Arc<dyn Clock>,
    records: Mutex<Vec<Record>>,
    delivered: AtomicUsize,
}

impl History {
    /// An empty history whose times come from `clock`.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, records: Mutex::default(), delivered: AtomicUsize::new(0) }
    }

    /// Adds an event that happens now. One record beyond the bound is kept, so that [`take`](Self::take) can tell.
    pub fn record(&self, proc: u32, kind: Kind, op: Op) {
        let mut records = self.records.lock();
        if records.len() <= RECORDS_MAX {
            let t = self.clock.now();
            records.push(Record { t, proc, kind, op });
        }
    }

    /// How many events there are.
    pub fn len(&self) -> usize {
        self.records.lock().len()
    }

    /// Whether nothing has happened yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many messages applications have seen so far.
    pub fn delivered(&self) -> usize {
        self.delivered.load(Relaxed)
    }

    /// Ends the history and hands it over.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there were more events than a history holds: a verdict over a part would be worthless.
    pub fn take(&self) -> Result<Vec<Record>, Error> {
        let records = std::mem::take(&mut *self.records.lock());
        if records.len() > RECORDS_MAX {
            return Err(Error::Corrupt(format!("more than {RECORDS_MAX} events: split the run")));
        }
        Ok(records)
    }
}

impl Observer for History {
    fn arrived(&self, arrival: &Arrival<'_>) {
        self.delivered.fetch_add(usize::from(arrival.app), Relaxed);
        let msg = Send::name_in(arrival.payload).unwrap_or_default().to_owned();
        let op = Op::Receive {
            dev: arrival.device.clone(),
            link: arrival.link,
            msg,
            id: arrival.id,
            seq: arrival.place,
            dup: arrival.dup,
            app: arrival.app,
            acked: arrival.acked,
        };
        self.record(arrival.number, Kind::Ok, op);
    }

    fn stated(&self, number: u32, device: &DeviceId, after: Position) {
        self.record(number, Kind::Ok, Op::State { dev: device.clone(), after });
    }
}

/// Writes a history as JSON lines, to be judged again or looked at.
///
/// # Errors
/// [`Error::Unavailable`] when the file cannot be written.
pub fn save(records: &[Record], path: &Path) -> Result<(), Error> {
    let mut file = BufWriter::new(File::create(path)?);
    for record in records {
        serde_json::to_writer(&mut file, record).map_err(std::io::Error::from)?;
        file.write_all(b"\n")?;
    }
    Ok(file.flush()?)
}

/// Reads what [`save`] wrote.
///
/// # Errors
/// [`Error::Unavailable`] when the file cannot be read, [`Error::Corrupt`] when a line is not a record.
pub fn load(path: &Path) -> Result<Vec<Record>, Error> {
    let parse = |(n, line): (usize, std::io::Result<String>)| {
        serde_json::from_str(&line?).map_err(|error| Error::Corrupt(format!("line {}: {error}", n + 1)))
    };
    BufReader::new(File::open(path)?).lines().enumerate().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use model::SystemClock;

    use super::*;

    #[test]
    fn a_history_reads_back_as_it_was_written() {
        let history = History::new(Arc::new(SystemClock));
        let dev: DeviceId = "dev-1".parse().unwrap();
        let id = MessageId::new(Timestamp::from_millis(5), 7);
        let seq: Place = "t12".parse().unwrap();
        history.record(1, Kind::Invoke, Op::Register { dev: dev.clone(), user: None, tags: BTreeSet::new() });
        let to = Audience::device(&dev);
        history.record(2, Kind::Ok, Op::Send { msg: "m".into(), audience: to, ttl_s: 60, id: Some(id) });
        let msg = "m".to_owned();
        history.record(1, Kind::Ok, Op::Receive { dev, link: 1, msg, id, seq, dup: true, app: true, acked: false });
        let records = history.take().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        save(&records, &path).unwrap();
        assert_eq!(load(&path).unwrap(), records);
        std::fs::write(&path, "{}\n").unwrap();
        assert!(matches!(load(&path), Err(Error::Corrupt(_))));
    }
}
