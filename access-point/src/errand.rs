//! What a connection needs and cannot wait for in its worker's turn: its streams from the store, what it brings up to
//! the broker. Each is a task of its own, whose outcome comes back to the worker.

use std::{sync::Arc, time::Duration};

use model::{Position, Seq};
use mqtt::Reason;
use store::InboxEntry;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use crate::{
    Site,
    admit::heads,
    connection::Peer,
    fetch::Asked,
    inbound::Batch,
    registry::Handle,
    timeline::{Page, Timeline},
    worker::Seat,
};

/// How long the broker may take for what devices send up; then they are told to try again.
pub(crate) const UPLOAD_MAX: Duration = Duration::from_secs(4);

/// Pause before the broker is asked again for a device that could not be told to try again.
const UPLOAD_PAUSE: Duration = Duration::from_millis(500);

/// What came of an errand.
pub(crate) enum Outcome {
    /// Entries of the inbox; `complete_to` when nothing else stands there up to this number.
    Inbox(Result<InboxPage, store::Error>),
    /// Entries of the timeline, older than those that are kept here.
    Timeline(Result<Page, store::Error>),
    /// Where the streams end, for a device that has said where it is.
    Heads { stated: Stated, latest: Result<Position, store::Error> },
    /// What became of what the device has sent up, by packet ids.
    Uploaded(Vec<(u16, Reason)>),
}

/// What a device has said it has received, and asked for with that; perhaps several times in one read.
#[derive(Default)]
pub(crate) struct Stated {
    pub(crate) after: Position,
    pub(crate) packet_ids: Vec<u16>,
    pub(crate) asked: Vec<Asked>,
}

impl Stated {
    /// Looked up together: per stream the greater position counts, and each is answered.
    pub(crate) fn add(&mut self, more: Self) {
        self.after = self.after.max(more.after);
        self.packet_ids.extend(more.packet_ids);
        self.asked.extend(more.asked);
    }
}

/// Some entries after a mark in an inbox.
pub(crate) struct InboxPage {
    pub(crate) entries: Vec<InboxEntry>,
    /// When these are all there are: up to here nothing else stands in the inbox.
    pub(crate) complete_to: Option<Seq>,
}

/// The outcome of an errand, and whose it is.
pub(crate) struct Done {
    pub(crate) seat: Seat,
    pub(crate) outcome: Outcome,
}

/// Where outcomes go: to a connection in its seat.
#[derive(Clone)]
pub(crate) struct Home {
    pub(crate) handle: Arc<Handle>,
    pub(crate) seat: Seat,
}

impl Home {
    pub(crate) fn bring(&self, outcome: Outcome) {
        self.handle.mailbox().done(Done { seat: self.seat, outcome });
    }
}

/// Reads at most `limit` entries of a device's inbox after `mark`.
pub(crate) fn read_inbox(site: &Arc<Site>, home: Home, mark: Seq, limit: usize) {
    let site = site.clone();
    tokio::spawn(async move {
        let Ok(_turn) = site.reading.acquire().await else { return };
        // Before the entries: what is appended in between stands after it.
        let head = home.handle.inbox_head();
        let read = site.deps.store.inbox_after(&home.handle.app, home.handle.ordinal, mark, limit).await;
        let page = read.map(|entries| {
            let complete_to = (entries.len() < limit).then_some(head);
            InboxPage { entries, complete_to }
        });
        home.bring(Outcome::Inbox(page));
    });
}

/// Reads at most `limit` entries of a timeline after `mark`.
pub(crate) fn read_timeline(site: &Arc<Site>, home: Home, timeline: &Arc<Timeline>, mark: Seq, limit: usize) {
    let (site, timeline) = (site.clone(), timeline.clone());
    tokio::spawn(async move {
        let Ok(_turn) = site.reading.acquire().await else { return };
        home.bring(Outcome::Timeline(timeline.after(mark, limit).await));
    });
}

/// Asks where the streams of a device end that has said where it is.
pub(crate) fn look_up_heads(site: &Arc<Site>, home: Home, peer: Peer, stated: Stated) {
    let site = site.clone();
    tokio::spawn(async move {
        let Ok(_turn) = site.reading.acquire().await else { return };
        let latest = heads(&site, &peer).await;
        home.bring(Outcome::Heads { stated, latest });
    });
}

/// Brings what a device has sent up to where it is kept; again and again for as long as `patience` says, while the
/// device, which could not be told no, is not heard. What was kept twice is one uplink, by its id.
pub(crate) fn upload(site: &Arc<Site>, home: Home, batch: Batch, patience: Duration) {
    let (site, Batch { uploads, packet_ids, .. }) = (site.clone(), batch);
    tokio::spawn(async move {
        let until = Instant::now() + patience;
        let reason = loop {
            let reason = match timeout(UPLOAD_MAX, site.deps.broker.publish(uploads.clone())).await {
                Ok(Ok(())) => Reason::SUCCESS,
                Ok(Err(error)) => refused(&error),
                Err(_) => Reason::IMPLEMENTATION,
            };
            if !reason.is_error() || Instant::now() + UPLOAD_PAUSE > until {
                break reason;
            }
            sleep(UPLOAD_PAUSE.mul_f64(rand::random_range(0.5..1.0))).await;
        };
        if reason.is_error() {
            debug!(app = %home.handle.app, device.ordinal = home.handle.ordinal.0, ?reason, "not taken");
        }
        home.bring(Outcome::Uploaded(packet_ids.into_iter().map(|packet_id| (packet_id, reason)).collect()));
    });
}

/// What a device is told when the broker does not take what it sends.
pub(crate) fn refused(error: &broker::Error) -> Reason {
    match error {
        broker::Error::Full(_) => Reason::QUOTA_EXCEEDED,
        broker::Error::Unavailable(_) | broker::Error::Corrupt(_) => Reason::IMPLEMENTATION,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_together_is_looked_up_once_after_the_greater_positions() {
        let mut stated = Stated::default();
        for (after, packet_ids) in [("i5.t1", vec![1]), ("i3.t9", Vec::new()), ("i4.t2", vec![3])] {
            stated.add(Stated { after: after.parse().unwrap(), packet_ids, asked: Vec::new() });
        }
        assert_eq!((stated.after.to_string().as_str(), &stated.packet_ids[..]), ("i5.t9", &[1, 3][..]));
    }
}
