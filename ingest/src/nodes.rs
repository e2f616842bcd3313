//! Which nodes run: for whoever runs the platform, for devices that look for an access point, and for the limits of
//! apps, of which every ingest node grants an equal share.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use model::{App, AppId, Endpoint, Node, NodeId, Scope, Tier, sign::DeviceToken};
use moka::sync::Cache;
use parking_lot::RwLock;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::{
    api::Api,
    drain::{self, DrainView},
    gate::{Answer, Call},
    problem::{Code, Problem},
    query::Query,
    view::{self, Time},
};

/// How often the nodes are read again: devices may be sent to one that has been gone for so long.
const REFRESH: Duration = Duration::from_secs(2);
/// How long a device may go on with the answer it has.
const ENDPOINTS_TTL_S: u64 = 60;
/// How long an app's secret is believed: devices ask in crowds.
const APP_CACHED: Duration = Duration::from_secs(5);
/// Apps whose devices ask at a time.
const APPS_CACHED_MAX: u64 = 10_000;

/// Pings that wait for their answer: each costs a timer, no more.
pub(crate) const PINGS_MAX: usize = 4_096;
const ANY_ORIGIN: (HeaderName, &str) = (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");

/// The nodes as they were last told.
pub(crate) struct Nodes {
    known: RwLock<Arc<Vec<Node>>>,
    apps: Cache<AppId, Arc<App>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Node)]
struct NodeView<'a> {
    id: &'a NodeId,
    tiers: &'a [Tier],
    version: &'a str,
    started_at: Time,
    seen_at: Time,
    endpoint: Option<EndpointView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drain: Option<DrainView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = NodeEndpoint)]
struct EndpointView<'a> {
    address: &'a str,
    urls: Vec<String>,
    connections: u64,
    connections_max: u64,
    load: f64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Nodes)]
struct NodesView<'a> {
    data: Vec<NodeView<'a>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Endpoints)]
struct EndpointsView<'a> {
    endpoints: Vec<NamedEndpoint<'a>>,
    ttl_s: u64,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Endpoint)]
struct NamedEndpoint<'a> {
    node: &'a NodeId,
    address: &'a str,
    urls: Vec<String>,
    load: f64,
}

impl<'a> NamedEndpoint<'a> {
    fn of(node: &'a Node, at: &'a Endpoint) -> Self {
        Self { node: &node.id, address: &at.address, urls: at.urls(), load: at.load() }
    }
}

impl Nodes {
    pub(crate) fn new() -> Self {
        let apps = Cache::builder().max_capacity(APPS_CACHED_MAX).time_to_live(APP_CACHED).build();
        Self { known: RwLock::default(), apps }
    }

    fn known(&self) -> Arc<Vec<Node>> {
        self.known.read().clone()
    }
}

/// Reads the nodes again and again until `stop`; while the store is away, those known stay.
pub(crate) async fn keep_fresh(api: &Api, stop: &CancellationToken) {
    loop {
        match api.store.nodes(api.clock.now()).await {
            Ok(nodes) => {
                let ingests = nodes.iter().filter(|node| node.tiers.contains(&Tier::Ingest)).count();
                api.budgets.share_among(ingests);
                *api.nodes.known.write() = Arc::new(nodes);
            }
            Err(error) => tracing::warn!(%error, "cannot see which nodes run; those known count"),
        }
        tokio::select! {
            () = tokio::time::sleep(REFRESH) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// The nodes that run.
#[utoipa::path(
    get, path = "/v1/nodes", operation_id = "list_nodes",
    responses((status = 200, body = NodesView)), security(("key" = [Scope::Admin.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    let nodes = api.store.nodes(api.clock.now()).await?;
    Ok(Json(NodesView { data: nodes.iter().map(NodeView::from).collect() }).into_response())
}

/// One node.
#[utoipa::path(
    get, path = "/v1/nodes/{id}", operation_id = "get_node",
    responses((status = 200, body = NodeView), (status = 404)), security(("key" = [Scope::Admin.as_str()])),
)]
pub(crate) async fn get(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    let missing = || Problem::not_found("node");
    let id: NodeId = id.parse().map_err(|_| missing())?;
    let node = drain::find(&api, &id, api.clock.now()).await?.ok_or_else(missing)?;
    Ok(Json(NodeView::from(&node)).into_response())
}

impl<'a> From<&'a Node> for NodeView<'a> {
    fn from(node: &'a Node) -> Self {
        Self {
            id: &node.id,
            tiers: &node.tiers,
            version: &node.version,
            started_at: view::time(node.boot),
            seen_at: view::time(node.seen_at),
            endpoint: node.endpoint.as_ref().map(EndpointView::from),
            drain: node.drain.as_ref().map(DrainView::from),
        }
    }
}

impl<'a> From<&'a Endpoint> for EndpointView<'a> {
    fn from(at: &'a Endpoint) -> Self {
        let Endpoint { address, connections, connections_max, .. } = at;
        let (connections, connections_max) = (*connections, *connections_max);
        Self { address, urls: at.urls(), connections, connections_max, load: at.load() }
    }
}

/// Where a device may connect, the least loaded first.
#[utoipa::path(
    get, path = "/v1/endpoints", operation_id = "list_endpoints",
    responses((status = 200, body = EndpointsView, headers(("Access-Control-Allow-Origin"))), (status = 401)),
    security(("device" = [])),
)]
pub(crate) async fn endpoints(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    ([ANY_ORIGIN], least_loaded_first(&api, &headers).await).into_response()
}

/// Whether a page of any origin may show a token there.
#[utoipa::path(
    options, path = "/v1/endpoints", operation_id = "preflight_endpoints",
    responses((status = 204, headers(("Access-Control-Allow-Origin"), ("Access-Control-Allow-Headers"), ("Access-Control-Max-Age")))),
)]
pub(crate) async fn endpoints_preflight() -> impl IntoResponse {
    let day = (header::ACCESS_CONTROL_MAX_AGE, "86400");
    (StatusCode::NO_CONTENT, [ANY_ORIGIN, (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization"), day])
}

async fn least_loaded_first(api: &Api, headers: &HeaderMap) -> Answer {
    check_device(api, headers).await?;
    let known = api.nodes.known();
    let open = known.iter().filter_map(|node| Some(NamedEndpoint::of(node, node.open_endpoint()?)));
    let mut endpoints: Vec<_> = open.collect();
    endpoints.sort_by(|a, b| a.load.total_cmp(&b.load));
    if endpoints.is_empty() {
        return Err(Problem::new(Code::Overloaded, "no access point is running at the moment"));
    }
    Ok(Json(EndpointsView { endpoints, ttl_s: ENDPOINTS_TTL_S }).into_response())
}

/// Answered the later the fuller an access point is.
#[utoipa::path(
    get, path = "/v1/ping", operation_id = "ping",
    params(("node" = Option<NodeId>, Query, description = "Which one; the least loaded when none is named.")),
    responses((status = 200, body = NamedEndpoint), (status = 404), (status = 422)), security(("device" = [])),
)]
pub(crate) async fn ping(State(api): State<Arc<Api>>, uri: Uri, headers: HeaderMap) -> Answer {
    let mut query = Query::read(&uri)?;
    let asked: Option<NodeId> = query.parsed("node");
    query.finish()?;
    check_device(&api, &headers).await?;
    let _turn = api.pings.try_acquire().map_err(|_| Problem::new(Code::Overloaded, "too many wait for an answer"))?;
    let known = api.nodes.known();
    let meant = known.iter().filter(|node| asked.as_ref().is_none_or(|asked| *asked == node.id));
    let open = meant.filter_map(|node| Some((node, node.open_endpoint()?)));
    let least = open.min_by(|(_, a), (_, b)| a.load().total_cmp(&b.load()));
    let (node, at) = least.ok_or_else(|| Problem::not_found("access point"))?;
    tokio::time::sleep(at.delay()).await;
    Ok(Json(NamedEndpoint::of(node, at)).into_response())
}

/// Passes whoever shows a token that a device could connect with.
async fn check_device(api: &Api, headers: &HeaderMap) -> Result<(), Problem> {
    let refused = || Problem::new(Code::Unauthenticated, "send `Authorization: Bearer <the device's token>`");
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).ok_or_else(refused)?;
    let token =
        shown.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).ok_or_else(refused)?;
    let token = token.1.trim();
    let (id, device) = DeviceToken::claimed(token).ok_or_else(refused)?;
    let app = match api.nodes.apps.get(&id) {
        Some(app) => app,
        None => {
            let app = Arc::new(api.store.app(&id).await?.ok_or_else(refused)?);
            api.nodes.apps.insert(id.clone(), app.clone());
            app
        }
    };
    DeviceToken::verify(token, &app.device_secret, &id, &device, api.clock.now()).map_err(|_| refused())?;
    Ok(())
}
