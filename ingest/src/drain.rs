//! Moving devices away from an access point. The order travels as a bell, and bells may be lost: it is rung until the
//! access point tells that it has it.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use broker::Ring;
use model::{Bell, Drain, DrainState, Lane, Node, NodeId, Scope, Timestamp, drain::ALL_PERMILLE, record::Record as _};
use serde::Serialize;
use tokio::time::{Instant, sleep};
use utoipa::ToSchema;

use crate::{
    api::Api,
    fields::Fields,
    gate::{Answer, Call},
    openapi::shape::{self, body},
    problem::{Code, Problem},
    view::{self, Time},
};

/// Devices told to go, a second, when nobody says: as many as another access point takes in without noticing.
const RATE_DEFAULT: u64 = 500;
/// At most: faster than that they come back as a storm.
const RATE_MAX: u64 = 100_000;
/// How long an access point may take to have the order: two of its signs of life.
const HEARD_MAX: Duration = Duration::from_secs(5);
/// Between two looks whether it has; each time the bell is rung again.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// A drain as people see it.
#[derive(Serialize, ToSchema)]
#[schema(as = Drain)]
pub(crate) struct DrainView {
    state: DrainState,
    ordered_at: Time,
    rate_per_s: u32,
    target_fraction: f64,
    sessions: u64,
    evicted: u64,
    moved: u64,
    unacked: u64,
    lost: u64,
    longest_gap_ms: u64,
}

impl From<&Drain> for DrainView {
    fn from(drain: &Drain) -> Self {
        let Drain { state, rate_per_s, sessions, evicted, moved, unacked, lost, longest_gap_ms, .. } = *drain;
        Self {
            state,
            ordered_at: view::time(drain.ordered_at),
            rate_per_s,
            target_fraction: f64::from(drain.permille) / f64::from(ALL_PERMILLE),
            sessions,
            evicted,
            moved,
            unacked,
            lost,
            longest_gap_ms,
        }
    }
}

body! {
    /// How fast, and which part of the devices.
    DrainBody {
        required {}
        optional {
            "rate_per_s": shape::usually(shape::number(1..=RATE_MAX), RATE_DEFAULT),
            "target_fraction": shape::usually(shape::fraction(), 1.0),
        }
        example { "rate_per_s": 500, "target_fraction": 0.5 }
    }
}

/// Moves devices away from an access point.
///
/// Answered once it has the order; how it goes is told by the node.
#[utoipa::path(
    post, path = "/v1/nodes/{id}/drain", operation_id = "drain_node",
    request_body = Option<DrainBody>, responses((status = 202, body = DrainView), (status = 404)),
    security(("key" = [Scope::Admin.as_str()])),
)]
pub(crate) async fn order(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    let rate = fields.number("rate_per_s", 1, RATE_MAX).unwrap_or(RATE_DEFAULT);
    let fraction: f64 = fields.get("target_fraction", "a number").unwrap_or(1.0);
    if !(fraction > 0.0 && fraction <= 1.0) {
        fields.fault("target_fraction", "out_of_range", "greater than 0, and 1 at most");
    }
    fields.finish()?;
    let node = access_point(&api, &id).await?;
    let ordered_at = api.clock.now();
    let bell = Bell::Drain {
        node: node.id.clone(),
        ordered_at,
        rate_per_s: u32::try_from(rate).unwrap_or(u32::MAX),
        permille: (fraction * f64::from(ALL_PERMILLE)).ceil() as u16,
    };
    let has_it = |drain: &Drain| drain.ordered_at >= ordered_at;
    let drain = ring_until(&api, &node.id, &bell, has_it).await?;
    Ok((StatusCode::ACCEPTED, Json(DrainView::from(&drain))).into_response())
}

/// Takes the order back.
///
/// Who has gone stays where he is; the others stay here, and newcomers are let in.
#[utoipa::path(
    delete, path = "/v1/nodes/{id}/drain", operation_id = "stop_draining_node",
    responses((status = 204), (status = 404)), security(("key" = [Scope::Admin.as_str()])),
)]
pub(crate) async fn revoke(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    let node = access_point(&api, &id).await?;
    if node.drain.is_none() {
        return Err(Problem::not_found("drain"));
    }
    let bell = Bell::Undrain { node: node.id.clone() };
    ring_until(&api, &node.id, &bell, |drain| drain.state == DrainState::Revoked).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The access point of this name, if it runs.
async fn access_point(api: &Api, id: &str) -> Result<Node, Problem> {
    let missing = || Problem::not_found("access point");
    let id: NodeId = id.parse().map_err(|_| missing())?;
    find(api, &id, api.clock.now()).await?.filter(|node| node.endpoint.is_some()).ok_or_else(missing)
}

/// The node of this name, if it runs.
pub(crate) async fn find(api: &Api, id: &NodeId, now: Timestamp) -> Result<Option<Node>, Problem> {
    Ok(api.store.nodes(now).await?.into_iter().find(|node| node.id == *id))
}

async fn ring_until(
    api: &Api,
    node: &NodeId,
    bell: &Bell,
    is_heard: impl Fn(&Drain) -> bool,
) -> Result<Drain, Problem> {
    let deadline = Instant::now() + HEARD_MAX;
    while Instant::now() < deadline {
        api.broker.ring(Lane::Unicast, &Ring::One(node.clone()), bell.encode().into());
        sleep(LOOK_EVERY).await;
        let told = find(api, node, api.clock.now()).await?.and_then(|node| node.drain);
        if let Some(drain) = told.filter(&is_heard) {
            return Ok(drain);
        }
    }
    Err(Problem::new(Code::DeadlineExceeded, "the access point has not told that it has the order; look at the node"))
}
