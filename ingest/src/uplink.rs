//! What devices sent up: moved from the broker into the store, and handed to products that ask.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use broker::{Consumer, Delivery};
use model::{AppId, DeviceId, Queue, Scope, Uplink, UplinkId, UserId, record::Record as _};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::{
    Error,
    api::Api,
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
    content_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Value)]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
    received_at: Time,
    trace_id: String,
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

/// What devices sent up, oldest first.
///
/// The last id of an answer is the `after` of the next question.
#[utoipa::path(
    get, path = "/v1/uplink", operation_id = "list_uplinks",
    params(Limit, ("after" = Option<UplinkId>, Query, description = "Only what came later."), ("type" = Option<String>, Query, description = "Only of this type.")),
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
        match api.store.keep_uplinks(uplinks.to_vec()).await {
            Ok(()) => {
                api.metrics.kept_uplinks(uplinks.len());
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

async fn set_aside(delivery: Delivery, reason: &str) {
    if let Err(error) = delivery.dead_letter(reason).await {
        tracing::warn!(%error, reason, "an unreadable uplink could not be set aside and will come again");
    }
}
