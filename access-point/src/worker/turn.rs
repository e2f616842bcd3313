//! One turn of a worker: what time it is, and what its connections have to tell, put together and told at its end.

use std::sync::Arc;

use model::{AppId, Lane, MessageId, Ordinal, Timestamp};
use tokio::time::Instant;

use crate::{Site, outbox::Fact};

/// What the gauges hold of a connection, or what changes about it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Held {
    pub(crate) in_flight: usize,
    pub(crate) unsent_bytes: usize,
}

type Facts = Vec<(Ordinal, MessageId, Fact)>;

/// One turn of a worker.
pub(crate) struct Turn {
    pub(crate) site: Arc<Site>,
    /// When it began; a turn is short.
    pub(crate) now: Timestamp,
    pub(crate) instant: Instant,
    /// Before then nobody is given up for what has not come in time.
    pub(crate) patient_until: Instant,
    /// Lent to the connection that is served: none has one of its own while nothing is under way.
    pub(crate) buffer: Vec<u8>,
    /// When the last unicast was written.
    pub(super) unicast_at: Option<Instant>,
    facts: Vec<(AppId, Facts)>,
    gained: Held,
    lost: Held,
}

impl Turn {
    pub(super) fn new(site: Arc<Site>) -> Self {
        let (now, instant) = (site.deps.clock.now(), Instant::now());
        let (buffer, unicast_at, facts, gained, lost) = Default::default();
        Self { site, now, instant, patient_until: instant, buffer, unicast_at, facts, gained, lost }
    }

    pub(super) fn begin(&mut self) {
        (self.now, self.instant) = (self.site.deps.clock.now(), Instant::now());
    }

    /// Notes what happened to an entry at a device.
    pub(crate) fn tell(&mut self, app: &AppId, device: Ordinal, message: MessageId, fact: Fact) {
        let told = (device, message, fact);
        match self.facts.iter_mut().find(|(of, _)| of == app) {
            Some((_, facts)) => facts.push(told),
            None => self.facts.push((app.clone(), vec![told])),
        }
    }

    /// Notes that a message of a lane was written.
    pub(crate) fn wrote(&mut self, lane: Lane) {
        if lane == Lane::Unicast {
            self.unicast_at = Some(self.instant);
        }
    }

    /// Notes that a connection holds something else than before.
    pub(crate) fn count(&mut self, before: Held, now: Held) {
        self.lost.in_flight += before.in_flight;
        self.lost.unsent_bytes += before.unsent_bytes;
        self.gained.in_flight += now.in_flight;
        self.gained.unsent_bytes += now.unsent_bytes;
    }

    /// Tells everything. Receipts go before the cursors that cover them.
    pub(super) fn end(&mut self) {
        for (app, facts) in self.facts.drain(..) {
            self.site.outbox.tell(&app, &facts);
        }
        let change = |gained: usize, lost: usize| {
            let number = |count| i64::try_from(count).unwrap_or(i64::MAX);
            number(gained) - number(lost)
        };
        let (gained, lost) = (std::mem::take(&mut self.gained), std::mem::take(&mut self.lost));
        self.site.metrics.in_flight.inc_by(change(gained.in_flight, lost.in_flight));
        self.site.metrics.unsent_bytes.inc_by(change(gained.unsent_bytes, lost.unsent_bytes));
    }
}
