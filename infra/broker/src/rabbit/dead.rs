//! Dead letters: the newest few thousand, in a queue of their own that nobody takes from. The broker drops the oldest
//! to keep newer ones.

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::{
    Channel,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions},
    types::FieldTable,
};
use model::record::Record;

use super::{
    chunk::Chunk,
    link::{Link, PATIENCE, answer},
    topology::count,
};
use crate::{DeadLetter, Error};

/// Dead letters kept: more than people will read one by one, and 640 MB of the largest.
pub(super) const KEPT_MAX: u64 = 10_000;

/// Reads dead letters and leaves them where they are. One at a time: what one reads the others do not see.
pub(super) struct DeadLetters {
    name: String,
    link: Link,
    reading: tokio::sync::Mutex<()>,
}

impl DeadLetters {
    pub(super) fn new(name: String, link: Link) -> Self {
        Self { name, link, reading: tokio::sync::Mutex::new(()) }
    }

    /// The oldest, `limit` at most.
    pub(super) async fn list(&self, limit: usize) -> Result<Vec<DeadLetter>, Error> {
        let _reading = self.reading.lock().await;
        let channel = self.link.session_within(PATIENCE).await?.taking().await?;
        let (kept, _) = count(&channel, &self.name).await?;
        let wanted = usize::try_from(kept.min(KEPT_MAX)).unwrap_or(usize::MAX).min(limit);
        let letters = if wanted == 0 { Vec::new() } else { self.read(&channel, wanted).await? };
        answer(channel.close(200, "bye".into())).await?;
        Ok(letters)
    }

    async fn read(&self, channel: &Channel, wanted: usize) -> Result<Vec<DeadLetter>, Error> {
        answer(channel.basic_qos(u16::try_from(wanted).unwrap_or(u16::MAX), BasicQosOptions::default())).await?;
        let (name, options) = (self.name.as_str().into(), BasicConsumeOptions::default());
        let mut reader = answer(channel.basic_consume(name, "".into(), options, FieldTable::default())).await?;
        let mut letters = Vec::with_capacity(wanted);
        while letters.len() < wanted {
            let Some(delivery) = answer(async { reader.next().await.transpose() }).await? else {
                return Err(Error::Unavailable("RabbitMQ hands out no dead letters".into()));
            };
            letters.extend(decode(Bytes::from(delivery.data))?);
        }
        answer(channel.basic_cancel(reader.tag(), BasicCancelOptions::default())).await?;
        answer(channel.basic_nack(0, BasicNackOptions { multiple: true, requeue: true })).await?;
        // Asked after the nack, so that the next reader finds them.
        count(channel, &self.name).await?;
        Ok(letters)
    }
}

fn decode(bytes: Bytes) -> Result<Vec<DeadLetter>, Error> {
    let letter = |part: Bytes| DeadLetter::decode(&part).map_err(|error| Error::Corrupt(error.to_string()));
    Chunk::decode(bytes)?.parts.into_iter().map(letter).collect()
}
