//! The map of the API: which path leads where, and what all handlers share.

use std::{any::Any, sync::Arc};

use audience::Select;
use axum::{
    Router, middleware,
    response::{IntoResponse, Response},
    routing::{delete, get, post, put},
};
use broker::{Ring, SharedBroker};
use model::{Bell, Clock, Lane, record::Record as _};
use store::SharedStore;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    Config, admin, attributes, audiences,
    auth::Keys,
    callback::Fetched,
    cancel, caps, command, devices, drain, gate, groups, health, import,
    limit::Budgets,
    messages,
    metrics::Metrics,
    nodes::{self, Nodes},
    once::Running,
    preview,
    problem::{Code, Problem},
    quiet, receipts, send, suppressions, tags, tokens, uplink,
};

/// What all handlers share.
pub(crate) struct Api {
    pub(crate) config: Config,
    pub(crate) broker: SharedBroker,
    pub(crate) store: SharedStore,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) select: Option<Arc<dyn Select>>,
    pub(crate) keys: Keys,
    pub(crate) fetched: Fetched,
    pub(crate) budgets: Budgets,
    pub(crate) nodes: Nodes,
    pub(crate) running: Running,
    pub(crate) places: Semaphore,
    /// Turns of cancels that are announced again.
    pub(crate) echoes: Arc<Semaphore>,
    /// Turns of devices' pings.
    pub(crate) pings: Semaphore,
    /// Turns of those who wait for what comes of a command.
    pub(crate) waiting: Semaphore,
    /// Turns of those who are told what devices send up.
    pub(crate) followers: Arc<Semaphore>,
    /// Rung when this node has kept some of that.
    pub(crate) kept: Notify,
    /// Cancelled when what has no end must end.
    pub(crate) stopping: CancellationToken,
    pub(crate) metrics: Arc<Metrics>,
}

impl Api {
    /// Rings at every access point.
    pub(crate) fn ring(&self, lane: Lane, bell: &Bell) {
        self.broker.ring(lane, &Ring::All, bell.encode().into());
    }
}

/// Every route, with `others` beside them.
pub(crate) fn router(api: &Arc<Api>, others: Router) -> Router {
    let gate = middleware::from_fn_with_state(Arc::clone(api), gate::gate);
    let upload_gate = middleware::from_fn_with_state(Arc::clone(api), gate::upload_gate);
    let journey = middleware::from_fn_with_state(Arc::clone(api), gate::journey);
    let behind_the_gate = Router::new()
        .route("/v1/messages", post(send::one).get(messages::list))
        .route("/v1/messages/batch", post(send::batch))
        .route("/v1/messages/{id}", get(messages::get))
        .route("/v1/messages/{id}/cancel", post(cancel::cancel))
        .route("/v1/messages/{id}/result", get(command::result))
        .route("/v1/messages/{id}/receipts", get(receipts::list))
        .route("/v1/messages/{id}/receipts/query", post(receipts::query))
        .route("/v1/messages/{id}/receipts/{device}", get(receipts::one))
        .route("/v1/devices", get(devices::list))
        .route("/v1/devices/{id}", put(devices::put).patch(devices::patch).get(devices::get).delete(devices::remove))
        .route("/v1/devices/{id}/tags/{tag}", put(tags::add).delete(tags::remove))
        .route("/v1/devices/{id}/opt-outs", get(suppressions::opt_outs))
        .route("/v1/devices/{id}/opt-outs/{type}", put(suppressions::opt_out).delete(suppressions::opt_in))
        .route("/v1/tags", get(tags::list))
        .route("/v1/tags/{tag}/devices", post(tags::change))
        .route("/v1/attributes", get(attributes::list))
        .route("/v1/attributes/{name}", get(attributes::get).put(attributes::declare))
        .route("/v1/jobs/{id}", get(import::job))
        .route("/v1/audiences", post(audiences::create).get(audiences::list))
        .route("/v1/audiences/preview", post(preview::preview))
        .route("/v1/audiences/{id}", get(audiences::get).patch(audiences::change).delete(audiences::remove))
        .route("/v1/frequency-caps", get(caps::list))
        .route("/v1/frequency-caps/{type}", put(caps::put).delete(caps::remove))
        .route("/v1/quiet-hours", get(quiet::list).put(quiet::put_all).delete(quiet::remove_all))
        .route("/v1/quiet-hours/{type}", put(quiet::put_one).delete(quiet::remove_one))
        .route("/v1/suppressions", post(suppressions::add).get(suppressions::list).delete(suppressions::remove))
        .route("/v1/devices/{id}/tokens", post(tokens::mint).delete(tokens::revoke))
        .route("/v1/users/{id}/devices", get(devices::of_user))
        .route("/v1/groups", post(groups::create).get(groups::list))
        .route("/v1/groups/{id}", get(groups::get).patch(groups::rename).delete(groups::remove))
        .route("/v1/groups/{id}/members", post(groups::change_members).get(groups::members))
        .route("/v1/uplink", get(uplink::list))
        .route("/v1/uplink/stream", get(uplink::stream::follow))
        .route("/v1/nodes", get(nodes::list))
        .route("/v1/nodes/{id}", get(nodes::get))
        .route("/v1/nodes/{id}/drain", post(drain::order).delete(drain::revoke))
        .route("/v1/apps", post(admin::create_app))
        .route("/v1/apps/{app}", get(admin::get_app).patch(admin::change_app))
        .route("/v1/apps/{app}/keys", post(admin::create_key))
        .route("/v1/apps/{app}/keys/{key}", delete(admin::remove_key))
        .route_layer(gate);
    let uploads = Router::new()
        .route("/v1/devices/import", post(import::devices))
        .route("/v1/audiences/{id}/members", put(audiences::upload))
        .route_layer(upload_gate);
    Router::new()
        .merge(behind_the_gate)
        .merge(uploads)
        .route("/v1/endpoints", get(nodes::endpoints).options(nodes::endpoints_preflight))
        .route("/v1/ping", get(nodes::ping))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .with_state(Arc::clone(api))
        .merge(others)
        .fallback(|| async { Problem::not_found("path") })
        .method_not_allowed_fallback(|| async { Problem::new(Code::MethodNotAllowed, "see the header Allow") })
        .layer(CatchPanicLayer::custom(broken))
        .layer(journey)
}

/// A handler panicked: its request fails, the others do not notice.
fn broken(panic: Box<dyn Any + Send>) -> Response {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    tracing::error!(panic = said.unwrap_or("unknown"), "a handler panicked");
    Problem::new(Code::Internal, "try again with the same idempotency key").into_response()
}
