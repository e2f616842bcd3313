//! The map of the API: which path leads where, and what all handlers share.

use std::{any::Any, sync::Arc};

use audience::Select;
use axum::{
    Router, middleware,
    response::{IntoResponse, Response},
};
use broker::{Ring, SharedBroker};
use model::{Bell, Clock, Lane, record::Record as _};
use store::SharedStore;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

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
    openapi,
    places::Places,
    preview,
    problem::{Code, Problem},
    quiet, receipts, send, suppressions, tags, tokens,
    uplink::{self, kept::Kept},
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
    /// Places of requests under way.
    pub(crate) places: Places,
    /// Turns of devices' pings.
    pub(crate) pings: Semaphore,
    /// Turns of those who wait for what comes of a command.
    pub(crate) waiting: Semaphore,
    /// Places of those who are told what devices send up.
    pub(crate) followers: Places,
    /// What wakes them when this node has kept some of that.
    pub(crate) kept: Kept,
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

/// The routes behind the gate.
fn gated() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(send::one, messages::list))
        .routes(routes!(send::batch))
        .routes(routes!(messages::get))
        .routes(routes!(cancel::cancel))
        .routes(routes!(command::result))
        .routes(routes!(receipts::list))
        .routes(routes!(receipts::query))
        .routes(routes!(receipts::one))
        .routes(routes!(devices::list))
        .routes(routes!(devices::put, devices::patch, devices::get, devices::remove))
        .routes(routes!(tags::add, tags::remove))
        .routes(routes!(suppressions::opt_outs))
        .routes(routes!(suppressions::opt_out, suppressions::opt_in))
        .routes(routes!(tags::list))
        .routes(routes!(tags::change))
        .routes(routes!(attributes::list))
        .routes(routes!(attributes::get, attributes::declare))
        .routes(routes!(import::job))
        .routes(routes!(audiences::create, audiences::list))
        .routes(routes!(preview::preview))
        .routes(routes!(audiences::get, audiences::change, audiences::remove))
        .routes(routes!(caps::list))
        .routes(routes!(caps::put, caps::remove))
        .routes(routes!(quiet::list, quiet::put_all, quiet::remove_all))
        .routes(routes!(quiet::put_one, quiet::remove_one))
        .routes(routes!(suppressions::add, suppressions::list, suppressions::remove))
        .routes(routes!(tokens::mint, tokens::revoke))
        .routes(routes!(devices::of_user))
        .routes(routes!(groups::create, groups::list))
        .routes(routes!(groups::get, groups::rename, groups::remove))
        .routes(routes!(groups::change_members, groups::members))
        .routes(routes!(uplink::list))
        .routes(routes!(uplink::stream::follow))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get))
        .routes(routes!(drain::order, drain::revoke))
        .routes(routes!(admin::create_app))
        .routes(routes!(admin::get_app, admin::change_app))
        .routes(routes!(admin::create_key))
        .routes(routes!(admin::remove_key))
}

/// The routes whose bodies are read line by line.
fn uploads() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new().routes(routes!(import::devices)).routes(routes!(audiences::upload))
}

/// The routes that take no key.
fn open() -> OpenApiRouter<Arc<Api>> {
    OpenApiRouter::new()
        .routes(routes!(nodes::endpoints, nodes::endpoints_preflight))
        .routes(routes!(nodes::ping))
        .routes(routes!(health::alive))
        .routes(routes!(health::ready))
        .routes(routes!(openapi::serve))
}

/// What all routes say of themselves.
pub(crate) fn described() -> OpenApi {
    gated().merge(uploads()).merge(open()).into_openapi()
}

/// Every route, with `others` beside them.
pub(crate) fn router(api: &Arc<Api>, others: Router) -> Router {
    let gate = middleware::from_fn_with_state(Arc::clone(api), gate::gate);
    let upload_gate = middleware::from_fn_with_state(Arc::clone(api), gate::upload_gate);
    let journey = middleware::from_fn_with_state(Arc::clone(api), gate::journey);
    Router::new()
        .merge(Router::from(gated()).route_layer(gate))
        .merge(Router::from(uploads()).route_layer(upload_gate))
        .merge(Router::from(open()))
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
