//! Whether this node is alive, and whether it should be given requests.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use model::{Env, KeyId, Queue, Timestamp};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;

/// A back end that takes longer is as good as away.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Serialize, ToSchema)]
#[schema(as = Readiness)]
struct Ready {
    ready: bool,
    broker: bool,
    store: bool,
}

/// Alive as long as it answers.
#[utoipa::path(
    get, path = "/healthz", operation_id = "get_health",
    responses((status = 200, body = String)),
)]
pub(crate) async fn alive() -> &'static str {
    "alive"
}

/// Ready while the broker and the store answer, and the broker takes messages.
///
/// A node that is stopping does not listen any more.
#[utoipa::path(
    get, path = "/readyz", operation_id = "get_readiness",
    responses((status = 200, body = Ready), (status = 503, body = Ready)),
)]
pub(crate) async fn ready(State(api): State<Arc<Api>>) -> Response {
    let broker = tokio::time::timeout(PROBE_TIMEOUT, api.broker.depth(Queue::Receipts));
    let nobody = KeyId::new(Env::Test, Timestamp::default(), 0);
    let store = tokio::time::timeout(PROBE_TIMEOUT, api.store.key(&nobody));
    let (broker, store) = tokio::join!(broker, store);
    let (broker, store) = (matches!(broker, Ok(Ok(_))) && !api.broker.refuses(), matches!(store, Ok(Ok(_))));
    let ready = broker && store;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Ready { ready, broker, store })).into_response()
}
