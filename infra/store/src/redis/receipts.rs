//! What is known of deliveries: each message's log grows by what is told.

use std::collections::BTreeSet;

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, cmd};
use model::{AppId, MessageId, Receipt, ReceiptBatch, Tally};

use super::{
    Redis,
    key::{AppKeys, Key},
    link::Repeat,
    log,
    script::{Call, Step},
    take,
};
use crate::{Error, Receipts};

/// Logs that one script adds to before others get their turn.
const LOGS_A_STEP: usize = 128;

/// Steps of one call, whose answer must have come in time, however much has gathered while nobody kept receipts.
const STEPS_A_CALL: usize = 16;

#[async_trait]
impl Receipts for Redis {
    async fn add_receipts(&self, batches: Vec<ReceiptBatch>) -> Result<(), Error> {
        let mut pages = Vec::new();
        for ReceiptBatch { app, receipts } in &batches {
            pages.extend(receipts.chunks(LOGS_A_STEP).map(|page| (self.of(app), page)));
        }
        for pages in pages.chunks(STEPS_A_CALL) {
            self.add_pages(pages).await?;
        }
        Ok(())
    }

    async fn tally(&self, app: &AppId, message: MessageId) -> Result<Option<Tally>, Error> {
        self.read_tally(&self.of(app), message).await
    }
}

impl Redis {
    /// Adds to logs, a step for each page.
    async fn add_pages(&self, pages: &[(AppKeys, &[Receipt])]) -> Result<(), Error> {
        let (mut steps, mut logs) = (Vec::with_capacity(pages.len()), Vec::new());
        for (of, page) in pages {
            let mut step = Call::new(Step::AddReceipts);
            for receipt in *page {
                step.key(of.tally(receipt.message)).arg(log::records(receipt));
                logs.push(of.tally(receipt.message));
            }
            steps.push(step.cmd());
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
