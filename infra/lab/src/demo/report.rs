//! What the demo showed.

use std::{fmt, time::Duration};

use model::Funnel;
use serde::Serialize;

use crate::Verdict;

/// The messages of one kind of audience, together.
#[derive(Clone, Debug, Serialize)]
pub struct LaneReport {
    /// The kind of audience.
    pub kind: &'static str,
    /// How many there were.
    pub messages: usize,
    /// How many funnels do not balance, or still have devices pending.
    pub unbalanced: usize,
    /// Their funnels, added up.
    pub funnel: Funnel,
}

impl LaneReport {
    pub(super) fn add(&mut self, funnel: &Funnel) {
        self.messages += 1;
        self.unbalanced += usize::from(!funnel.balances() || funnel.pending > 0);
        let sum = &mut self.funnel;
        sum.targeted += funnel.targeted;
        sum.acked += funnel.acked;
        sum.rejected += funnel.rejected;
        sum.expired += funnel.expired;
        sum.cancelled += funnel.cancelled;
        sum.truncated += funnel.truncated;
        sum.pending += funnel.pending;
        sum.pending_online += funnel.pending_online;
        sum.pending_offline += funnel.pending_offline;
        sum.sent += funnel.sent;
    }
}

/// What the demo showed.
#[derive(Clone, Debug, Serialize)]
pub struct DemoReport {
    /// Devices that took part.
    pub devices: usize,
    /// How many of them were away at first.
    pub away: usize,
    /// Deliveries before those came back.
    pub first: usize,
    /// The funnels by kind of audience.
    pub lanes: Vec<LaneReport>,
    /// The judgement over everything that was sent and received.
    pub verdict: Verdict,
    /// How long it all took.
    pub took: Duration,
}

impl DemoReport {
    /// Whether every promise was kept, and there was something to keep.
    pub fn ok(&self) -> bool {
        let accepted = self.verdict.attempt > 0 && self.verdict.ok == self.verdict.attempt;
        accepted && self.verdict.holds() && self.lanes.iter().all(|lane| lane.unbalanced == 0)
    }
}

impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, away, first, took, .. } = self;
        writeln!(f, "{devices} devices, {away} of them away until {first} messages were delivered")?;
        writeln!(f, "{:<10}{:>9}{:>10}{:>10}{:>9}{:>9}", "to", "messages", "targeted", "acked", "other", "pending")?;
        for LaneReport { kind, messages, funnel, .. } in &self.lanes {
            let other = funnel.rejected + funnel.expired + funnel.cancelled + funnel.truncated;
            let Funnel { targeted, acked, pending, .. } = funnel;
            writeln!(f, "{kind:<10}{messages:>9}{targeted:>10}{acked:>10}{other:>9}{pending:>9}")?;
        }
        writeln!(f, "{}", self.verdict)?;
        write!(f, "took        {:.1} s", took.as_secs_f64())
    }
}
