//! The exchanges and queues, declared anew on every connection: what is there stays, what is gone comes back.
//!
//! Arguments of a queue cannot be changed later. What exists with others than ours, from an earlier configuration, is
//! used as it is; limits are better changed by policies.

use lapin::{
    Channel, ErrorKind, ExchangeKind,
    options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    protocol::{AMQPErrorKind, AMQPSoftError},
    types::{AMQPValue, FieldTable},
};
use model::{Lane, queue::Names};

use super::{
    dead,
    link::{Session, Site, answer},
};
use crate::Error;

/// How often the broker may hand out a message before it would drop it. We count ourselves, and set aside what fails;
/// the broker counts neighbours too, so its own limit must never be reached.
const DELIVERY_LIMIT: i64 = 1_000_000_000;

/// AMQP messages above the configured limit at which the broker itself refuses. Publishers stop at the limit, which is
/// known only roughly to each; this is for what is under way then.
const MARGIN: u64 = 1_024;

/// Declares everything of ours.
pub(super) async fn declare(site: &Site, session: &Session) -> Result<(), Error> {
    let names = &site.names;
    let mut channel = session.channel().await?;
    for (root, branch) in
        [(names.push(), Names::push_lane as fn(&Names, Lane) -> String), (names.bell(), Names::bell_lane)]
    {
        exchange(&channel, &root).await?;
        for lane in Lane::ALL {
            let branch = branch(names, lane);
            exchange(&channel, &branch).await?;
            let key = Names::lane_keys(lane).into();
            let (branch, root) = (branch.into(), root.as_str().into());
            let options = ExchangeBindOptions::default();
            answer(channel.exchange_bind(branch, root, key, options, FieldTable::default())).await?;
        }
    }
    for queue in model::Queue::all() {
        let arguments = if queue.is_in_order() { by_one(bounded(site)) } else { bounded(site) };
        durable(session, &mut channel, &names.queue(queue), arguments).await?;
        durable(session, &mut channel, &names.retry(queue), by_one(quorum(site))).await?;
        if let model::Queue::Push(lane, shard) = queue {
            let (queue, lane_exchange) = (names.queue(queue).into(), names.push_lane(lane).into());
            let key = Names::push_key(lane, shard).into();
            let options = QueueBindOptions::default();
            answer(channel.queue_bind(queue, lane_exchange, key, options, FieldTable::default())).await?;
        }
    }
    durable(session, &mut channel, &names.dead(), newest(site)).await
}

async fn exchange(channel: &Channel, name: &str) -> Result<(), Error> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    answer(channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default())).await
}

/// Declares a queue, or takes it as it is. The node answers other arguments by closing the channel.
async fn durable(session: &Session, channel: &mut Channel, name: &str, arguments: FieldTable) -> Result<(), Error> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let declared = answer(async {
        match channel.queue_declare(name.into(), options, arguments).await {
            Err(error) if differs(&error) => Ok(false),
            declared => declared.map(|_| true),
        }
    });
    if !declared.await? {
        tracing::warn!(queue = name, "a queue has other arguments than configured, and keeps them");
        *channel = session.channel().await?;
        count(channel, name).await?;
    }
    Ok(())
}

fn differs(error: &lapin::Error) -> bool {
    let differs = AMQPErrorKind::Soft(AMQPSoftError::PRECONDITIONFAILED);
    matches!(error.kind(), ErrorKind::ProtocolError(error) if *error.kind() == differs)
}

/// How many AMQP messages wait in a queue, and how many consumers it has.
pub(super) async fn count(channel: &Channel, name: &str) -> Result<(u64, u64), Error> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = answer(channel.queue_declare(name.into(), options, FieldTable::default())).await?;
    Ok((declared.message_count().into(), declared.consumer_count().into()))
}

/// The arguments of every durable queue: on several nodes, and never dropping to make room.
fn quorum(site: &Site) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-quorum-initial-group-size".into(), AMQPValue::LongInt(site.config.replicas.into()));
    arguments.insert("x-queue-leader-locator".into(), text("balanced"));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments
}

fn bounded(site: &Site) -> FieldTable {
    let mut arguments = quorum(site);
    if let Some(limits) = site.config.limits {
        arguments.insert("x-max-length".into(), number(limits.messages_max.saturating_add(MARGIN)));
        arguments.insert("x-max-length-bytes".into(), number(limits.bytes_max));
    }
    arguments
}

/// Taken from by one consumer in all the cluster. The next begins when the node knows that the last is gone, in the
/// step that puts back what that one held.
fn by_one(mut arguments: FieldTable) -> FieldTable {
    arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
    arguments
}

fn newest(site: &Site) -> FieldTable {
    let mut arguments = quorum(site);
    arguments.insert("x-max-length".into(), number(dead::KEPT_MAX));
    arguments.insert("x-overflow".into(), text("drop-head"));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

fn number(value: u64) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(value).unwrap_or(i64::MAX))
}
