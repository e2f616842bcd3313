//! What is known of deliveries: each message's log grows by what is told.

use std::collections::BTreeSet;

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, cmd};
use model::{AppId, MessageId, ReceiptBatch, Tally};

use super::{
    Redis,
    key::Key,
    link::Repeat,
    log,
    script::{Call, Step},
    take,
};
use crate::{Error, Receipts};

/// Logs that one script adds to before others get their turn.
const LOGS_A_STEP: usize = 128;

#[async_trait]
impl Receipts for Redis {
    async fn add_receipts(&self, batches: Vec<ReceiptBatch>) -> Result<(), Error> {
        let (mut steps, mut logs) = (Vec::new(), Vec::new());
        for ReceiptBatch { app, receipts } in &batches {
            let of = self.of(app);
            for page in receipts.chunks(LOGS_A_STEP) {
                let mut step = Call::new(Step::AddReceipts);
                for receipt in page {
                    step.key(of.tally(receipt.message)).arg(log::records(receipt));
                    logs.push(of.tally(receipt.message));
                }
                steps.push(step.cmd());
            }
        }
        let done = self.settled.carry_out(steps, Repeat::Once).await?;
        let mut lengths = Vec::new();
        for answer in &done.answers {
            lengths.extend(take::value::<Vec<u64>>(answer.clone())?);
        }
        // Each once, however often it was added to; before replicas are waited for, because as long as there are none
        // all of it is added again and again.
        let long = logs.into_iter().zip(lengths).filter(|(_, length)| *length > 0).map(|(tally, _)| tally);
        for tally in long.collect::<BTreeSet<_>>() {
            self.write_anew(tally).await?;
        }
        self.fenced(done).await.map(drop)
    }

    async fn tally(&self, app: &AppId, message: MessageId) -> Result<Option<Tally>, Error> {
        self.read_tally(&self.of(app), message).await
    }
}

impl Redis {
    /// Merges a log that has grown, which says the same afterwards; not when somebody else did so meanwhile.
    async fn write_anew(&self, tally: Key) -> Result<(), Error> {
        let mut get: Cmd = cmd("GET");
        get.arg(&tally);
        let Some(kept) = take::value::<Option<Vec<u8>>>(self.ask_one(get).await?)? else { return Ok(()) };
        let merged = log::merge(&kept).ok_or_else(|| take::corrupt("a tally", &"not a log"))?;
        let mut swap = Call::new(Step::SwapLog);
        swap.key(tally).arg(&kept[..log::HEAD_BYTES]).arg(kept.len()).arg(merged);
        self.ask_one(swap.cmd()).await.map(drop)
    }
}
