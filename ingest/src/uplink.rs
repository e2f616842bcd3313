//! What devices sent up: moved from the broker into the store, and handed to products that ask.

pub(crate) mod kept;
pub(crate) mod stream;

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use broker::{Consumer, Delivery};
use model::{AppId, DeviceId, MessageId, Queue, Reply, ReplyTo, Scope, Uplink, UplinkId, UserId, record::Record as _};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, ToSchema};

use crate::{
    Error,
    api::Api,
    command,
    gate::{Answer, Call},
    query::Limit,
    view::{self, Time},
};

/// Uplinks under way at a time; also the most that are kept in one step.
const PREFETCH: usize = 256;
/// How long to wait for a back end that is away; there is no hurry, the broker keeps what waits.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Serialize, ToSchema)]
#[schema(as = Uplink)]
struct UplinkView<'a> {
    id: UplinkId,
    app: &'a AppId,
    device_id: &'a DeviceId,
    user_id: Option<&'a UserId>,
    r#type: &'a str,
    /// The command whose outcome it tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    answers: Option<MessageId>,
    /// Where an answer goes: to be given back with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reply: Option<ReplyView<'a>>,
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    received_at: Time,
    trace_id: String,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Reply)]
struct ReplyView<'a> {
    to: &'a ReplyTo,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_base64: Option<String>,
}

impl<'a> From<&'a Reply> for ReplyView<'a> {
    fn from(reply: &'a Reply) -> Self {
        Self { to: &reply.to, correlation_base64: reply.correlation.as_ref().map(|bytes| STANDARD.encode(bytes)) }
    }
}

impl<'a> From<&'a Uplink> for UplinkView<'a> {
    /// A body that is JSON is shown as such, any other as base64.
    fn from(uplink: &'a Uplink) -> Self {
        let json = serde_json::from_slice(&uplink.payload).ok();
        Self {
            id: uplink.id,
            app: &uplink.app,
            device_id: &uplink.device,
            user_id: uplink.user.as_ref(),
            r#type: &uplink.kind,
            answers: uplink.answers,
            reply: uplink.reply.as_ref().map(ReplyView::from),
            content_type: uplink.content_type.as_deref(),
            payload: json,
            payload_base64: json.is_none().then(|| STANDARD.encode(&uplink.payload)),
            received_at: view::time(uplink.received_at),
            trace_id: uplink.trace.id(),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Uplinks<'a> {
    data: Vec<UplinkView<'a>>,
}

/// Which uplinks.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "says what is read by name")]
pub(crate) struct Filter {
    /// Only what came after this one.
    after: Option<UplinkId>,
    /// Only of this type.
    r#type: Option<String>,
}

/// What devices sent up, oldest first.
///
/// The last id of an answer is the `after` of the next question. What a device repeats under the name that it gave it is
/// there once.
#[utoipa::path(
    get, path = "/v1/uplink", operation_id = "list_uplinks",
    params(Limit, Filter),
    responses((status = 200, body = Uplinks)), security(("key" = [Scope::Uplink.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Uplink)?;
    let mut query = call.query()?;
    let (limit, kind, after) = (query.limit(), query.take("type"), query.parsed::<UplinkId>("after"));
    query.finish()?;
    let uplinks = api.store.uplinks_after(call.caller.app(), call.caller.env(), kind.as_deref(), after, limit).await?;
    let response: Response = Json(Uplinks { data: uplinks.iter().map(UplinkView::from).collect() }).into_response();
    Ok(response)
}

/// Moves uplinks from the broker into the store until `stop`. One that is moved twice is kept once.
///
/// # Errors
/// [`Error::Corrupt`] when a back end must not be used any more.
pub(crate) async fn keep_all(api: &Api, stop: &CancellationToken) -> Result<(), Error> {
    while !stop.is_cancelled() {
        match api.broker.consume(Queue::Uplink, PREFETCH).await {
            Ok(consumer) => keep_from(api, consumer, stop).await?,
            Err(broker::Error::Corrupt(reason)) => return Err(Error::Corrupt(reason)),
            Err(error) => tracing::warn!(%error, "uplinks wait on the broker"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

/// Ends when the broker is gone, or at `stop`.
async fn keep_from(api: &Api, mut consumer: Consumer, stop: &CancellationToken) -> Result<(), Error> {
    loop {
        let batch = tokio::select! {
            batch = consumer.next(PREFETCH) => batch,
            () = stop.cancelled() => return Ok(()),
        };
        if batch.is_empty() {
            return Ok(());
        }
        let (mut uplinks, mut deliveries) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        for delivery in batch {
            match Uplink::decode(delivery.body()) {
                Ok(uplink) => {
                    uplinks.push(uplink);
                    deliveries.push(delivery);
                }
                Err(error) => set_aside(delivery, &error.to_string()).await,
            }
        }
        if keep(api, &uplinks, stop).await? {
            deliveries.into_iter().for_each(Delivery::ack);
        }
    }
}

/// Keeps uplinks however long the store takes to come back; false when `stop` came first.
async fn keep(api: &Api, uplinks: &[Uplink], stop: &CancellationToken) -> Result<bool, Error> {
    loop {
        match try_keep(api, uplinks.to_vec()).await {
            Ok(kept) => {
                api.metrics.kept_uplinks(kept);
                api.kept.wake(uplinks);
                return Ok(true);
            }
            Err(store::Error::Corrupt(reason)) => return Err(Error::Corrupt(reason)),
            Err(error) => tracing::warn!(%error, waiting = uplinks.len(), "uplinks wait for the store"),
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = stop.cancelled() => return Ok(false),
        }
    }
}

/// Keeps uplinks, what came of commands first; how many were taken.
async fn try_keep(api: &Api, uplinks: Vec<Uplink>) -> Result<usize, store::Error> {
    let taken = command::take(api, uplinks).await?;
    let count = taken.len();
    api.store.keep_uplinks(taken).await.map(|()| count)
}

async fn set_aside(delivery: Delivery, reason: &str) {
    if let Err(error) = delivery.dead_letter(reason).await {
        tracing::warn!(%error, reason, "an unreadable uplink could not be set aside and will come again");
    }
}
