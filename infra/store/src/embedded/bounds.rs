//! Where a stream of single entries begins and ends, so that nobody has to look for it among what was removed.

use model::{Seq, record::Record};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The ends of a stream whose entries lie under keys of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Bounds {
    /// The last number given.
    pub(super) head: Seq,
    /// No entry lies below this.
    pub(super) first: Seq,
    /// How many entries there are.
    pub(super) count: usize,
}

impl Record for Bounds {
    const VERSION: u8 = 1;
}

impl Bounds {
    /// Makes room for a new last entry.
    pub(super) fn push(&mut self, seq: Seq) {
        if self.count == 0 {
            self.first = seq;
        }
        self.head = seq;
        self.count += 1;
    }

    /// Notes that the entry at `seq` is gone; `following` finds the one after it.
    pub(super) fn removed(
        &mut self,
        seq: Seq,
        following: impl FnOnce() -> Result<Option<Seq>, Error>,
    ) -> Result<(), Error> {
        self.count = self.count.saturating_sub(1);
        if seq == self.first {
            self.first = following()?.unwrap_or(self.head);
        }
        Ok(())
    }
}
