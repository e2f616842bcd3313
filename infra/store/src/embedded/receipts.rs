//! What is known of deliveries. A tally lies in two places: the audience, written once, and the answers to it.

use async_trait::async_trait;
use model::{AppId, MessageId, Ordinals, Receipt, ReceiptBatch, Tally};

use super::{
    Embedded, key,
    table::{Draft, Read, Set},
};
use crate::{Error, Receipts};

#[async_trait]
impl Receipts for Embedded {
    async fn add_receipts(&self, batches: Vec<ReceiptBatch>) -> Result<(), Error> {
        let of_app =
            |ReceiptBatch { app, receipts }| receipts.into_iter().map(move |receipt| (AppId::clone(&app), receipt));
        let all: Vec<_> = batches.into_iter().flat_map(of_app).collect();
        let done = self.write_few_at_a_time(all, |draft, few| few.iter().map(|told| add(draft, told)).collect());
        done.await.map(drop::<Vec<()>>)
    }

    async fn tally(&self, app: &AppId, message: MessageId) -> Result<Option<Tally>, Error> {
        tally(&self.view(), app, message)
    }
}

fn add(draft: &mut Draft<'_, '_>, (app, receipt): &(AppId, Receipt)) -> Result<(), Error> {
    amend(draft, app, receipt.message, |tally| tally.add(receipt))
}

/// The tally of a message, with whom it is for.
pub(super) fn tally(read: &impl Read, app: &AppId, message: MessageId) -> Result<Option<Tally>, Error> {
    let Some(Set(targeted)) = read.get(&key::Audience { app: app.clone(), message })? else { return Ok(None) };
    let answers = read.get(&key::Tally { app: app.clone(), message })?.unwrap_or_default();
    Ok(Some(Tally { targeted, ..answers }))
}

/// Changes what is known of a message that was dispatched; nothing when it was not, or is forgotten.
pub(super) fn amend(
    draft: &mut Draft<'_, '_>,
    app: &AppId,
    message: MessageId,
    change: impl FnOnce(&mut Tally),
) -> Result<(), Error> {
    if draft.has(&key::Audience { app: app.clone(), message })? {
        let mut answers = draft.get(&key::Tally { app: app.clone(), message })?.unwrap_or_default();
        change(&mut answers);
        put(draft, app, message, answers);
    }
    Ok(())
}

/// Keeps a tally, without whom it is for.
pub(super) fn put(draft: &mut Draft<'_, '_>, app: &AppId, message: MessageId, tally: Tally) {
    let answers = Tally {
        targeted: Ordinals::new(),
        sent: tally.sent.compact(),
        acked: tally.acked.compact(),
        rejected: tally.rejected.compact(),
        cancelled: tally.cancelled.compact(),
        truncated: tally.truncated.compact(),
    };
    draft.put(&key::Tally { app: app.clone(), message }, &answers);
}
