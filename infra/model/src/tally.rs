//! What is known of a message's deliveries, and the funnel that follows from it.
//!
//! The funnel is derived, never counted up: whatever order facts arrive in, and however often, each targeted device
//! is in exactly one place, so `targeted = acked + rejected + expired + cancelled + truncated + pending`.

use serde::{Deserialize, Serialize};

use crate::{Ordinal, Ordinals, Receipt, Stage, Timestamp, record::Record};

/// Sets of devices, as facts about one message came in. They may overlap: [`Tally::stage`] says which counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tally {
    /// Whom the message is for.
    pub targeted: Ordinals,
    /// To whom it was written.
    pub sent: Ordinals,
    /// Who acked it.
    pub acked: Ordinals,
    /// Who refused it.
    pub rejected: Ordinals,
    /// From whom it was called back.
    pub cancelled: Ordinals,
    /// For whom it fell off the end of a stream.
    pub truncated: Ordinals,
}

impl Record for Tally {
    const VERSION: u8 = 1;
}

/// Where a message's targets are. Counts of devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Funnel {
    /// Whom the message is for.
    pub targeted: u64,
    /// Have it.
    pub acked: u64,
    /// Refused it.
    pub rejected: u64,
    /// Did not get it in time.
    pub expired: u64,
    /// It was called back before they had it.
    pub cancelled: u64,
    /// It fell off the end of a stream before they came.
    pub truncated: u64,
    /// Everybody else: `pending_online + pending_offline`.
    pub pending: u64,
    /// It was written to them; they have not answered.
    pub pending_online: u64,
    /// It was not written to them yet.
    pub pending_offline: u64,
    /// To whom it was ever written.
    pub sent: u64,
}

impl Funnel {
    /// Whether every target is in exactly one place.
    pub fn balances(&self) -> bool {
        let places = self.acked + self.rejected + self.expired + self.cancelled + self.truncated + self.pending;
        self.targeted == places && self.pending == self.pending_online + self.pending_offline
    }
}

impl Tally {
    /// Adds what an access point tells.
    pub fn add(&mut self, receipt: &Receipt) {
        self.sent |= &receipt.sent;
        self.acked |= &receipt.acked;
        self.rejected |= &receipt.rejected;
    }

    /// The stage of one device, when the message expires at `expires_at`.
    pub fn stage(&self, device: Ordinal, expires_at: Timestamp, now: Timestamp) -> Stage {
        match () {
            () if !self.targeted.contains(device) => Stage::NotTargeted,
            () if self.acked.contains(device) => Stage::Acked,
            () if self.rejected.contains(device) => Stage::Rejected,
            () if self.truncated.contains(device) => Stage::Truncated,
            () if self.cancelled.contains(device) => Stage::Cancelled,
            () if now >= expires_at => Stage::Expired,
            () if self.sent.contains(device) => Stage::Sent,
            () => Stage::Queued,
        }
    }

    /// The funnel, when the message expires at `expires_at`.
    pub fn funnel(&self, expires_at: Timestamp, now: Timestamp) -> Funnel {
        let mut left = self.targeted.clone();
        let mut take = |set: &Ordinals| {
            let count = left.common(set);
            left -= set;
            count
        };
        let (acked, rejected) = (take(&self.acked), take(&self.rejected));
        let (truncated, cancelled) = (take(&self.truncated), take(&self.cancelled));
        let (open, written) = (left.len(), left.common(&self.sent));
        let over = now >= expires_at;
        let (expired, pending) = if over { (open, 0) } else { (0, open) };
        let pending_online = if over { 0 } else { written };
        Funnel {
            targeted: self.targeted.len(),
            acked,
            rejected,
            expired,
            cancelled,
            truncated,
            pending,
            pending_online,
            pending_offline: pending - pending_online,
            sent: self.targeted.common(&self.sent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ordinals: &[u32]) -> Ordinals {
        ordinals.iter().copied().map(Ordinal).collect()
    }

    #[test]
    fn every_target_is_in_exactly_one_place_whatever_overlaps() {
        let tally = Tally {
            targeted: set(&[0, 1, 2, 3, 4, 5, 6, 7]),
            sent: set(&[0, 1, 2, 3, 4, 99]),
            acked: set(&[0, 1, 98]),
            rejected: set(&[1, 2]),
            cancelled: set(&[0, 3, 5]),
            truncated: set(&[2, 5, 6]),
        };
        let (soon, late) = (Timestamp::from_millis(5), Timestamp::from_millis(20));
        let expires = Timestamp::from_millis(10);
        let before = tally.funnel(expires, soon);
        assert!(before.balances());
        assert_eq!((before.acked, before.rejected, before.truncated, before.cancelled), (2, 1, 2, 1));
        assert_eq!((before.pending_online, before.pending_offline, before.expired), (1, 1, 0));
        let after = tally.funnel(expires, late);
        assert!(after.balances());
        assert_eq!((after.pending, after.expired), (0, 2));
        let count = |stage, now| (0..8).filter(|&o| tally.stage(Ordinal(o), expires, now) == stage).count() as u64;
        assert_eq!(count(Stage::Acked, soon), before.acked);
        assert_eq!(count(Stage::Truncated, soon), before.truncated);
        assert_eq!(count(Stage::Sent, soon), before.pending_online);
        assert_eq!(count(Stage::Expired, late), after.expired);
        assert_eq!(tally.stage(Ordinal(99), expires, soon), Stage::NotTargeted);
    }
}
