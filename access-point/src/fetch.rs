//! Devices that fetch their messages themselves (`mode=notify`): told in a few bytes that a stream has grown, and not again
//! until they have asked; then given a page of what is pending. A phone so wakes for one small packet, whatever comes, and
//! its application decides when to load the rest.

mod page;

use model::{AppId, Message, Seq, Stream};
use mqtt::{Packet, packet::Publish, topic};
use tokio::time::Duration;

pub(crate) use page::{Asked, Page, Sync};

use crate::{close::Close, connection::Connection, metrics::Delivered, worker::Turn};

/// Between two notices at least: somebody who fetches at once is not told of each message of a storm.
const NOTICE_PAUSE: Duration = Duration::from_secs(1);

/// How a device that fetches stands.
#[derive(Debug, Default)]
pub(crate) struct Fetch {
    /// The streams, by number, of whose growth it knows; it has not fetched all of them since.
    told: [bool; 2],
    /// The last number of each stream that it was told.
    latest: [Seq; 2],
    /// Notices to be written.
    due: [bool; 2],
    /// What it has asked for and is not complete.
    page: Option<Page>,
}

/// Some entries of a stream that were read, of which a device would get some.
pub(crate) struct Sight<'a> {
    pub(crate) stream: Stream,
    /// Those that are for the device.
    pub(crate) ours: Vec<(Seq, &'a Message)>,
    /// The last number that was looked at.
    pub(crate) to: Seq,
    /// Whether nothing stands after that.
    pub(crate) is_all: bool,
}

impl Fetch {
    /// Whether a stream need be read: for a page, or to find out whether there is something to tell.
    pub(crate) fn wants(&self, stream: Stream) -> bool {
        self.page.as_ref().map_or(!self.told[stream as usize], Page::has_room)
    }

    /// Whether the device knows that a stream has grown: it will look by itself.
    pub(crate) fn knows(&self, stream: Stream) -> bool {
        self.told[stream as usize]
    }

    /// The device is awake: what it was told and has not fetched is told once more.
    pub(crate) fn remind(&mut self) {
        if self.page.is_none() {
            self.due = self.told;
        }
    }

    fn grown(&mut self, stream: Stream, latest: Seq) {
        let stream = stream as usize;
        (self.told[stream], self.due[stream], self.latest[stream]) = (true, true, latest);
    }

    /// What is to be told now.
    fn take_due(&mut self) -> impl Iterator<Item = (Stream, Seq)> + use<> {
        let (due, latest) = (std::mem::take(&mut self.due), self.latest);
        [Stream::Inbox, Stream::Timeline]
            .into_iter()
            .filter(move |stream| due[*stream as usize])
            .map(move |stream| (stream, latest[stream as usize]))
    }
}

/// Says that a stream goes up to this number.
fn notice(app: &AppId, stream: Stream, latest: Seq) -> Packet {
    let latest = latest.in_stream(stream);
    Packet::Publish(Box::new(Publish::new(topic::notice(app), format!(r#"{{"latest":"{latest}"}}"#))))
}

impl Connection {
    /// The page that it is given.
    pub(crate) fn page(&self) -> Option<&Page> {
        self.fetch.as_ref()?.page.as_ref()
    }

    pub(crate) fn page_mut(&mut self) -> Option<&mut Page> {
        self.fetch.as_mut()?.page.as_mut()
    }

    /// Whether what is read of its streams is looked at, and not given to the device.
    pub(crate) fn only_looks(&self) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| fetch.page.is_none())
    }

    /// A device that fetches is told of what was read, unless that can wait or nothing of it is for the device.
    pub(crate) fn look(&mut self, sight: &Sight<'_>, turn: &Turn) {
        let Sight { stream, ours, to, is_all } = sight;
        let (mut expired, mut wanted) = (Vec::new(), Vec::new());
        for (seq, message) in ours {
            if message.is_expired(turn.now) { expired.push(*message) } else { wanted.push((*seq, *message)) }
        }
        let Some((latest, _)) = wanted.last() else {
            expired.iter().for_each(|message| turn.site.metrics.delivered(message.lane, Delivered::Expired));
            self.session.pass(*stream, *to);
            self.behind[*stream as usize] |= !is_all;
            return;
        };
        let waits = *is_all && {
            let messages = wanted.iter().map(|(_, message)| *message);
            self.doze.holds(*stream, messages, (turn.now, turn.instant))
        };
        if let Some(fetch) = self.fetch.as_mut().filter(|_| !waits) {
            fetch.grown(*stream, *latest);
        }
    }

    /// Begins a page for a device that has asked for one; the one before goes out as it is.
    pub(crate) fn open_page(&mut self, asked: Asked, turn: &Turn) -> Result<(), Close> {
        self.close_page(turn)?;
        if let Some(fetch) = &mut self.fetch {
            fetch.page = Some(Page::new(asked, self.peer.packet_max_bytes));
            fetch.due = [false; 2];
            self.retry_at = None;
        }
        Ok(())
    }

    /// Writes the notices that are due, and the page if it is complete.
    pub(crate) fn write_fetched(&mut self, turn: &Turn) -> Result<(), Close> {
        let Some(fetch) = &mut self.fetch else { return Ok(()) };
        for (stream, latest) in fetch.take_due() {
            self.link.push(&notice(&self.peer.app, stream, latest))?;
            turn.site.metrics.notices.inc();
            self.retry_at = Some(turn.instant + NOTICE_PAUSE);
        }
        let (reads, wants) = (self.reads(), self.wants_any());
        let complete = self.page().is_some_and(|page| {
            // A store that is away is waited for only as long as there is nothing to give.
            !page.has_room() || (!reads && !wants) || (self.retry_at.is_some() && !page.is_empty())
        });
        if complete { self.close_page(turn) } else { Ok(()) }
    }

    /// Sends the page, if there is one. The device is told of growth again when it has fetched everything.
    fn close_page(&mut self, turn: &Turn) -> Result<(), Close> {
        let Some(fetch) = &mut self.fetch else { return Ok(()) };
        let Some(page) = fetch.page.take() else { return Ok(()) };
        let mut more = false;
        for stream in [Stream::Inbox, Stream::Timeline] {
            let at = stream as usize;
            let left = self.behind[at] || self.reading[at];
            fetch.told[at] = left;
            fetch.latest[at] = fetch.latest[at].max(self.session.mark(stream));
            more |= left;
        }
        turn.site.metrics.pages.inc();
        let position = [Stream::Inbox, Stream::Timeline].map(|stream| self.session.mark(stream));
        self.link.push(&page.packet(position, more, self.peer.coding))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_told_once_until_it_was_fetched_and_again_when_the_device_is_awake() {
        let mut fetch = Fetch::default();
        assert!(fetch.wants(Stream::Inbox));
        fetch.grown(Stream::Inbox, Seq(7));
        assert!(!fetch.wants(Stream::Inbox) && fetch.wants(Stream::Timeline));
        assert_eq!(fetch.take_due().collect::<Vec<_>>(), [(Stream::Inbox, Seq(7))]);
        assert_eq!(fetch.take_due().count(), 0);
        fetch.remind();
        assert_eq!(fetch.take_due().collect::<Vec<_>>(), [(Stream::Inbox, Seq(7))]);
    }

    #[test]
    fn a_notice_names_the_stream_and_its_last_number() {
        let Packet::Publish(publish) = notice(&"demo".parse().unwrap(), Stream::Timeline, Seq(5)) else { panic!() };
        assert_eq!((publish.topic.as_str(), publish.qos), ("push/demo/notify", 0));
        assert_eq!(&publish.payload[..], br#"{"latest":"t5"}"#);
    }
}
