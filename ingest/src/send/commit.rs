//! The point of no return: the store's note and the broker's confirm, and what a repeated key means.

use std::time::Duration;

use broker::Publication;
use futures_util::future::join_all;
use model::{MessageId, record::Record as _};
use store::{Accepted, Entry};
use tokio::time::Instant;

use super::Prepared;
use crate::{
    api::Api,
    problem::{Code, Problem},
};

/// The broker and the store must have answered by then, each.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);

/// A message that is kept by both.
pub(super) struct Outcome {
    pub(super) id: MessageId,
    /// What its sender is told, as JSON.
    pub(super) answer: String,
    /// Whether it was told before.
    pub(super) replayed: bool,
}

/// Makes messages durable; says of each, in the order given, what became of it.
///
/// With an idempotency key the store comes first: of two requests with one key only one may publish a new message.
/// Without, store and broker work at the same time; a message that only one of them kept was not answered with 202,
/// so both outcomes are allowed.
pub(super) async fn commit(api: &Api, mut items: Vec<Prepared>) -> Vec<Result<Outcome, Problem>> {
    let keyed = items.iter().any(|item| item.once.is_some());
    if !keyed {
        // What is asked for in the same breath is flushed together where both share a disk, so the longer preparation comes first.
        let (published, accepted) = tokio::join!(publish(api, items.iter().collect()), accept_all(api, &items));
        return finish(api, &items, accepted, published);
    }
    let mut accepted = accept_all(api, &items).await;
    for (item, accepted) in items.iter_mut().zip(&mut accepted) {
        let settled = match accepted {
            Ok(Accepted::New) => Ok(()),
            Ok(Accepted::Before(first, _)) => repeat(api, item, *first).await,
            Ok(Accepted::Reused) | Err(_) => {
                item.envelope = None;
                Ok(())
            }
        };
        if let Err(problem) = settled {
            item.envelope = None;
            *accepted = Err(problem);
        }
    }
    let published = publish(api, items.iter().collect()).await;
    finish(api, &items, accepted, published)
}

async fn accept_all(api: &Api, items: &[Prepared]) -> Vec<Result<Accepted, Problem>> {
    join_all(items.iter().map(|item| async {
        let accept = api.store.accept(&item.app.id, item.entry.clone(), item.once.clone());
        match tokio::time::timeout(CONFIRM_TIMEOUT, accept).await {
            Ok(accepted) => Ok(accepted?),
            Err(_) => Err(Problem::new(Code::StoreUnavailable, "the store did not confirm in time")),
        }
    }))
    .await
}

/// Makes `item` the message that its key stood for at first. It is published again under the same id, in case the
/// first request got no further than the store; what was appended to a stream is not appended twice.
async fn repeat(api: &Api, item: &mut Prepared, first: MessageId) -> Result<(), Problem> {
    let known = api.store.entry(&item.app.id, first).await?;
    let Some(entry) = known.filter(is_open) else {
        item.envelope = None;
        return Ok(());
    };
    if let Some(envelope) = &mut item.envelope {
        let message = &mut envelope.message;
        (message.id, message.trace) = (first, entry.trace);
        (message.created_at, message.expires_at) = (entry.created_at, entry.expires_at);
    }
    Ok(())
}

fn is_open(entry: &Entry) -> bool {
    entry.dispatched_at.is_none() && entry.cancelled_at.is_none() && entry.failed.is_none()
}

/// Publishes what has an audience, as one batch.
async fn publish(api: &Api, items: Vec<&Prepared>) -> Result<(), Problem> {
    let publication = |item: &&Prepared| {
        let envelope = item.envelope.as_ref()?;
        Some(Publication { queue: item.queue, body: envelope.encode().into() })
    };
    let batch: Vec<_> = items.iter().filter_map(publication).collect();
    if batch.is_empty() {
        return Ok(());
    }
    let started = Instant::now();
    match tokio::time::timeout(CONFIRM_TIMEOUT, api.broker.publish(batch)).await {
        Ok(published) => published?,
        Err(_) => return Err(Problem::new(Code::BrokerUnavailable, "the broker did not confirm in time")),
    }
    api.metrics.confirmed(started.elapsed());
    Ok(())
}

fn finish(
    api: &Api,
    items: &[Prepared],
    accepted: Vec<Result<Accepted, Problem>>,
    published: Result<(), Problem>,
) -> Vec<Result<Outcome, Problem>> {
    let settle = |(item, accepted): (&Prepared, Result<Accepted, Problem>)| {
        let accepted = accepted?;
        if accepted == Accepted::Reused {
            let detail = "the first request with this idempotency key meant something else";
            return Err(Problem::new(Code::IdempotencyKeyReused, detail));
        }
        if item.envelope.is_some() {
            published.clone()?;
        }
        if let Accepted::Before(id, answer) = accepted {
            return Ok(Outcome { id, answer, replayed: true });
        }
        api.metrics.accepted(&item.app.id, item.entry.lane);
        Ok(Outcome { id: item.entry.id, answer: item.answer.clone(), replayed: false })
    };
    items.iter().zip(accepted).map(settle).collect()
}
