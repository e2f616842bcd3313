//! What is known of deliveries.

use async_trait::async_trait;
use model::{AppId, MessageId, Ordinals, ReceiptBatch, Tally};

use crate::Error;

/// What is known of deliveries. Durable when a call returns.
#[async_trait]
pub trait Receipts: Send + Sync {
    /// Adds what access points tell to the tallies of the messages. Telling again changes nothing; what is told of a
    /// message that is not known (any more) is ignored.
    async fn add_receipts(&self, batches: Vec<ReceiptBatch>) -> Result<(), Error>;

    /// The tally of a message; `None` when it was not dispatched, or is not known.
    async fn tally(&self, app: &AppId, message: MessageId) -> Result<Option<Tally>, Error>;
}

/// Who has neither answered nor been told that there is nothing to wait for.
pub(crate) fn open(tally: &Tally) -> Ordinals {
    let mut open = tally.targeted.clone();
    for closed in [&tally.acked, &tally.rejected, &tally.truncated, &tally.cancelled] {
        open -= closed;
    }
    open
}
