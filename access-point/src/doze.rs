//! Messages that can wait until their device is awake anyway: a phone whose radio sleeps is not woken for an advertisement.
//! They go out with the answer to its next packet, with whatever must go at once, or when they have waited long enough.

use std::time::Duration;

use model::{Message, Stream, Timestamp};
use tokio::time::Instant;

/// How long after a packet a device is awake: radios stay on for some seconds.
const AWAKE_FOR: Duration = Duration::from_secs(3);

/// Whether a device is awake, and what waits for it to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Doze {
    awake_until: Instant,
    /// When the first of those that wait must go.
    due: Option<Instant>,
    /// The streams, by number, in which something waits.
    held: [bool; 2],
    /// Whether its ping is to be answered together with what waited.
    pub(crate) owes_pong: bool,
}

impl Doze {
    /// Of a device that has just connected.
    pub(crate) fn new(now: Instant) -> Self {
        Self { awake_until: now + AWAKE_FOR, due: None, held: [false; 2], owes_pong: false }
    }

    /// The device was heard; in these streams something can go now.
    pub(crate) fn heard(&mut self, now: Instant) -> [bool; 2] {
        self.awake_until = now + AWAKE_FOR;
        self.release()
    }

    /// In these streams something must go now.
    pub(crate) fn overdue(&mut self, now: Instant) -> [bool; 2] {
        if self.due.is_some_and(|due| now >= due) { self.release() } else { [false; 2] }
    }

    fn release(&mut self) -> [bool; 2] {
        self.due = None;
        std::mem::take(&mut self.held)
    }

    /// When something must go even if nothing happens.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Holds the next messages of a stream if all of them can wait; false when they go out now. One that cannot takes the
    /// others along: the device is awake then.
    pub(crate) fn holds<'a>(
        &mut self,
        stream: Stream,
        mut messages: impl Iterator<Item = &'a Message>,
        (now, instant): (Timestamp, Instant),
    ) -> bool {
        if instant < self.awake_until {
            return false;
        }
        let first_due = messages.try_fold(None, |first: Option<Timestamp>, message| {
            let due = message.due_at.filter(|due| now < *due)?;
            Some(Some(first.map_or(due, |first| first.min(due))))
        });
        let Some(Some(due)) = first_due else { return false };
        let due = instant + due.since(now);
        self.due = Some(self.due.map_or(due, |known| known.min(due)));
        self.held[stream as usize] = true;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use model::{Class, Env, Lane, MessageId, Priority, TraceParent};

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn message(wait_s: Option<u64>) -> Message {
        Message {
            id: MessageId::new(NOW, 1),
            app: "demo".parse().unwrap(),
            env: Env::Live,
            lane: Lane::Unicast,
            kind: "default".into(),
            class: Class::Message,
            payload: "1".into(),
            content_type: "application/json".into(),
            created_at: NOW,
            expires_at: NOW + Duration::from_secs(3_600),
            due_at: wait_s.map(|secs| NOW + Duration::from_secs(secs)),
            priority: Priority::Normal,
            collapse_key: None,
            metadata: BTreeMap::new(),
            trace: TraceParent::start(1, 1),
        }
    }

    #[test]
    fn what_can_wait_waits_for_the_next_packet_or_until_it_is_due() {
        let begun = Instant::now();
        let mut doze = Doze::new(begun);
        let asleep = begun + AWAKE_FOR;
        let (soon, late) = (message(Some(60)), message(Some(600)));
        assert!(!doze.holds(Stream::Inbox, [&late].into_iter(), (NOW, begun)), "it has just connected");
        assert!(doze.holds(Stream::Inbox, [&late, &soon].into_iter(), (NOW, asleep)));
        assert!(doze.holds(Stream::Timeline, [&late].into_iter(), (NOW, asleep)));
        assert_eq!(doze.due(), Some(asleep + Duration::from_secs(60)));
        assert_eq!(doze.overdue(asleep), [false; 2]);
        assert_eq!(doze.overdue(asleep + Duration::from_secs(60)), [true; 2]);
        assert_eq!((doze.heard(asleep), doze.due()), ([false; 2], None));
        assert!(!doze.holds(Stream::Inbox, [&late].into_iter(), (NOW, asleep)), "it was just heard");
    }

    #[test]
    fn one_that_cannot_wait_takes_the_others_along() {
        let mut doze = Doze::new(Instant::now());
        let asleep = (NOW, Instant::now() + AWAKE_FOR);
        let (waits, goes, overdue) = (message(Some(60)), message(None), message(Some(0)));
        for with in [&goes, &overdue] {
            assert!(!doze.holds(Stream::Inbox, [&waits, with].into_iter(), asleep));
        }
        assert!(!doze.holds(Stream::Inbox, [].into_iter(), asleep));
        assert_eq!(doze.due(), None);
    }
}
