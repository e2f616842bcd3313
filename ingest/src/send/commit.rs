//! The point of no return: the store's note and the broker's confirm, and what a repeated key means.

use std::{collections::BTreeMap, time::Duration};

use broker::Publication;
use futures_util::future::join_all;
use model::{AppId, MessageId, Queue, record::Record as _};
use store::{Accepted, Entry, Promise};
use tokio::time::Instant;

use super::Prepared;
use crate::{
    api::Api,
    problem::{Code, Problem},
};

/// The broker and the store must have answered by then, each.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);

/// What is noted of a message that the store has kept and the broker refused.
const QUEUE_WAS_FULL: &str = "its queue was full";

/// A message that is kept by both.
pub(super) struct Outcome {
    pub(super) id: MessageId,
    /// What its sender is told, as JSON.
    pub(super) answer: String,
    /// Whether it was told before.
    pub(super) replayed: bool,
}

impl Outcome {
    /// What was told of the message that a key stood for at first.
    pub(super) fn replay(first: MessageId, answer: String) -> Self {
        Self { id: first, answer, replayed: true }
    }
}

/// What is told of those whose messages a queue did not confirm.
struct Unconfirmed {
    problem: Problem,
    /// It was full, and took none of them; else nobody knows.
    was_full: bool,
}

/// What an idempotency key was used for, if it was.
///
/// # Errors
/// `idempotency_key_reused`; whatever the store says.
pub(super) async fn promised(
    api: &Api,
    app: &AppId,
    key: &str,
    fingerprint: &[u8; 32],
) -> Result<Option<Promise>, Problem> {
    let promise = api.store.promised(app, key, api.clock.now()).await?;
    if promise.as_ref().is_some_and(|promise| promise.fingerprint != *fingerprint) {
        return Err(reused());
    }
    Ok(promise)
}

fn reused() -> Problem {
    let detail = "the first request with this idempotency key meant something else";
    Problem::new(Code::IdempotencyKeyReused, detail)
}

/// Makes messages durable; says of each, in the order given, what became of it.
///
/// With an idempotency key the store comes first: of two requests with one key only one may publish a new message.
/// Without, store and broker work at the same time; a message that only one of them kept was not answered with 202,
/// so both outcomes are allowed. What the store kept though it is known that the broker did not is noted as failed.
pub(super) async fn commit(api: &Api, mut items: Vec<Prepared>) -> Vec<Result<Outcome, Problem>> {
    let keyed = items.iter().any(|item| item.once.is_some());
    if !keyed {
        // What is asked for in the same breath is flushed together where both share a disk, so the longer preparation comes first.
        let (unconfirmed, accepted) = tokio::join!(publish(api, &items), accept_all(api, &items));
        return finish(api, &items, accepted, &unconfirmed).await;
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
    let unconfirmed = publish(api, &items).await;
    finish(api, &items, accepted, &unconfirmed).await
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
    let Some(entry) = open(api, &item.app.id, first).await? else {
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

/// The entry of a message that was accepted, as long as nothing has come of it: the broker may never have had it.
pub(super) async fn open(api: &Api, app: &AppId, id: MessageId) -> Result<Option<Entry>, Problem> {
    Ok(api.store.entry(app, id).await?.filter(is_open))
}

fn is_open(entry: &Entry) -> bool {
    entry.dispatched_at.is_none() && entry.cancelled_at.is_none() && entry.failed.is_none()
}

/// Publishes what has an audience. Returns the queues that did not confirm what was for them, and why: each queue
/// speaks for itself.
async fn publish(api: &Api, items: &[Prepared]) -> BTreeMap<Queue, Unconfirmed> {
    if let [item] = items {
        return publish_batch(api, &[item]).await.into_iter().collect();
    }
    let mut items: Vec<&Prepared> = items.iter().collect();
    // Stable: what is for one queue stays in the order given.
    items.sort_by_key(|item| item.queue);
    let batches = items.chunk_by(|one, next| one.queue == next.queue).map(|batch| publish_batch(api, batch));
    join_all(batches).await.into_iter().flatten().collect()
}

/// Publishes what is for one queue. Says which and why when it is not confirmed.
async fn publish_batch(api: &Api, items: &[&Prepared]) -> Option<(Queue, Unconfirmed)> {
    let publication = |item: &&Prepared| {
        let envelope = item.envelope.as_ref()?;
        Some(Publication { queue: item.queue, body: envelope.encode().into() })
    };
    let batch: Vec<_> = items.iter().filter_map(publication).collect();
    let queue = batch.first()?.queue;
    let started = Instant::now();
    let unconfirmed = match tokio::time::timeout(CONFIRM_TIMEOUT, api.broker.publish(batch)).await {
        Ok(Ok(())) => {
            api.metrics.confirmed(started.elapsed());
            return None;
        }
        Ok(Err(error)) => {
            let was_full = matches!(error, broker::Error::Full(_));
            Unconfirmed { problem: error.into(), was_full }
        }
        Err(_) => {
            let problem = Problem::new(Code::BrokerUnavailable, "the broker did not confirm in time");
            Unconfirmed { problem, was_full: false }
        }
    };
    Some((queue, unconfirmed))
}

/// Notes of what a full queue refused that nothing will come of it: its sender would see it wait until it expires. What
/// has a key stays open, since its sender goes on with it by trying again.
async fn note_refused(
    api: &Api,
    items: &[Prepared],
    accepted: &[Result<Accepted, Problem>],
    unconfirmed: &BTreeMap<Queue, Unconfirmed>,
) {
    let is_refused = |(item, accepted): &(&Prepared, &Result<Accepted, Problem>)| {
        unconfirmed.get(&item.queue).is_some_and(|queue| queue.was_full)
            && matches!(accepted, Ok(Accepted::New))
            && item.envelope.is_some()
            && item.once.is_none()
    };
    let refused = items.iter().zip(accepted).filter(is_refused);
    join_all(refused.map(|(item, _)| note_failure(api, item))).await;
}

/// A note that cannot be taken changes no answer.
async fn note_failure(api: &Api, item: &Prepared) {
    let fail = api.store.fail(&item.app.id, item.entry.id, QUEUE_WAS_FULL.into());
    if !matches!(tokio::time::timeout(CONFIRM_TIMEOUT, fail).await, Ok(Ok(()))) {
        tracing::warn!(message.id = %item.entry.id, "cannot note that a message was refused");
    }
}

async fn finish(
    api: &Api,
    items: &[Prepared],
    accepted: Vec<Result<Accepted, Problem>>,
    unconfirmed: &BTreeMap<Queue, Unconfirmed>,
) -> Vec<Result<Outcome, Problem>> {
    note_refused(api, items, &accepted, unconfirmed).await;
    let settle = |(item, accepted): (&Prepared, Result<Accepted, Problem>)| {
        let accepted = accepted?;
        if accepted == Accepted::Reused {
            return Err(reused());
        }
        if item.envelope.is_some()
            && let Some(unconfirmed) = unconfirmed.get(&item.queue)
        {
            return Err(unconfirmed.problem.clone());
        }
        if let Accepted::Before(first, answer) = accepted {
            return Ok(Outcome::replay(first, answer));
        }
        api.metrics.accepted(&item.app.id, item.entry.lane);
        Ok(Outcome { id: item.entry.id, answer: item.answer.clone(), replayed: false })
    };
    items.iter().zip(accepted).map(settle).collect()
}
