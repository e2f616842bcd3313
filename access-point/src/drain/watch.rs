//! Where devices that were told to go have come to, and whether what they had not acked came with them.

use std::collections::HashMap;

use model::{AppId, Cursor, Drain, Epoch, NodeId, Ordinal, Route, Seq, Stream, Timestamp};
use mqtt::Session;
use store::Store;

use crate::{pull::Sent, registry::Handle};

/// Devices whose routes are asked for at once.
const ASKED_MAX: usize = 500;

/// An entry that was on the wire.
#[derive(Clone, Copy, Debug)]
struct Unacked {
    stream: Stream,
    seq: Seq,
    expires_at: Timestamp,
}

/// A session that has ended because its device is to go.
#[derive(Clone, Debug)]
pub(crate) struct Evicted {
    app: AppId,
    device: Ordinal,
    epoch: Epoch,
    /// When it was told.
    at: Timestamp,
    unacked: Vec<Unacked>,
}

impl Evicted {
    pub(crate) fn of(handle: &Handle, session: &Session<Sent>, at: Timestamp) -> Self {
        let unacked = session.unacked().map(|(stream, seq, sent)| Unacked { stream, seq, expires_at: sent.expires_at });
        let unacked = unacked.collect();
        Self { app: handle.app.clone(), device: handle.ordinal, epoch: handle.epoch, at, unacked }
    }

    /// Its device is told only now.
    pub(super) fn told(self, at: Timestamp) -> Self {
        Self { at, ..self }
    }
}

/// Devices that are nowhere, and what is known of the others.
#[derive(Debug)]
pub(super) struct Watch {
    here: NodeId,
    away: Vec<Evicted>,
    moved: u64,
    unacked: u64,
    lost: u64,
    longest_gap_ms: u64,
}

impl Watch {
    pub(super) fn new(here: NodeId) -> Self {
        Self { here, away: Vec::new(), moved: 0, unacked: 0, lost: 0, longest_gap_ms: 0 }
    }

    pub(super) fn add(&mut self, left: Vec<Evicted>) {
        self.unacked += left.iter().map(|evicted| evicted.unacked.len() as u64).sum::<u64>();
        self.away.extend(left);
    }

    /// Whether every device that has left is somewhere.
    pub(super) fn is_over(&self) -> bool {
        self.away.is_empty()
    }

    /// Asks the store who is back, and there whether anything is missing.
    pub(super) async fn look(&mut self, store: &dyn Store, now: Timestamp) -> Result<(), store::Error> {
        let mut apps: HashMap<AppId, Vec<Evicted>> = HashMap::new();
        for evicted in std::mem::take(&mut self.away) {
            apps.entry(evicted.app.clone()).or_default().push(evicted);
        }
        let mut failed = Ok(());
        for (app, evicted) in apps {
            for some in evicted.chunks(ASKED_MAX) {
                if failed.is_ok() {
                    failed = self.look_for(store, &app, some, now).await;
                } else {
                    self.away.extend_from_slice(some);
                }
            }
        }
        failed
    }

    async fn look_for(
        &mut self,
        store: &dyn Store,
        app: &AppId,
        some: &[Evicted],
        now: Timestamp,
    ) -> Result<(), store::Error> {
        let devices: Vec<Ordinal> = some.iter().map(|evicted| evicted.device).collect();
        let routes = match store.routes(app, &devices).await {
            Ok(routes) => routes,
            Err(error) => {
                self.away.extend_from_slice(some);
                return Err(error);
            }
        };
        for (evicted, route) in some.iter().zip(routes) {
            match route.filter(|route| route.epoch > evicted.epoch) {
                None => self.away.push(evicted.clone()),
                Some(route) => {
                    self.arrived(evicted, &route);
                    self.lost += missing(store, evicted, now).await?;
                }
            }
        }
        Ok(())
    }

    fn arrived(&mut self, evicted: &Evicted, route: &Route) {
        if route.node == self.here {
            return;
        }
        let gap = route.epoch.opened_at().since(evicted.at);
        self.moved += 1;
        self.longest_gap_ms = self.longest_gap_ms.max(u64::try_from(gap.as_millis()).unwrap_or(u64::MAX));
    }

    pub(super) fn write(&self, report: &mut Drain) {
        report.moved = self.moved;
        report.unacked = self.unacked;
        report.lost = self.lost;
        report.longest_gap_ms = self.longest_gap_ms;
    }
}

/// How many entries that were on the wire are neither in their stream any more nor acked. What an ack removes is asked
/// for after the stream, so that an ack in between is seen.
async fn missing(store: &dyn Store, evicted: &Evicted, now: Timestamp) -> Result<u64, store::Error> {
    let Evicted { app, device, unacked, .. } = evicted;
    let mut absent = Vec::new();
    for entry in unacked.iter().filter(|entry| now < entry.expires_at) {
        let before = Seq(entry.seq.0 - 1);
        let next = match entry.stream {
            Stream::Inbox => store.inbox_after(app, *device, before, 1).await?.first().map(|next| next.seq),
            Stream::Timeline => store.timeline_after(app, before, 1).await?.first().map(|next| next.seq),
        };
        if next != Some(entry.seq) {
            absent.push(*entry);
        }
    }
    if absent.is_empty() {
        return Ok(0);
    }
    let cursor = store.cursor(app, *device).await?;
    Ok(absent.iter().filter(|entry| !is_acked(&cursor, entry)).count() as u64)
}

fn is_acked(cursor: &Cursor, entry: &Unacked) -> bool {
    let progress = match entry.stream {
        Stream::Inbox => &cursor.inbox,
        Stream::Timeline => &cursor.timeline,
    };
    entry.seq <= progress.prefix || progress.beyond.contains(&entry.seq)
}
