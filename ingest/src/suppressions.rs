//! Who gets nothing, by device or by user, and who wants no messages of some type.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use model::{DeviceId, OptOut, Scope, Suppressed, Suppression, Timestamp, UserId};
use serde::Serialize;
use store::{exclusions::SUPPRESSIONS_MAX, shelves};
use utoipa::{PartialSchema, ToSchema};

use crate::{
    api::Api,
    by_type, devices,
    fields::Fields,
    gate::{Answer, Call},
    openapi::shape::{self, Shape},
    problem::Problem,
    query::{self, Page, Paging},
    view::{self, Time},
};

#[derive(Serialize, ToSchema)]
#[schema(as = Suppression)]
struct SuppressionView {
    #[serde(skip_serializing_if = "Option::is_none")]
    device_id: Option<DeviceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<UserId>,
    created_at: Time,
    expires_at: Option<Time>,
}

impl From<Suppression> for SuppressionView {
    fn from(suppression: Suppression) -> Self {
        let (device_id, user_id) = match suppression.who {
            Suppressed::Device(id) => (Some(id), None),
            Suppressed::User(id) => (None, Some(id)),
        };
        let created_at = view::time(suppression.created_at);
        Self { device_id, user_id, created_at, expires_at: suppression.expires_at.map(view::time) }
    }
}

/// One of the two.
fn who(device: Option<DeviceId>, user: Option<UserId>) -> Option<Suppressed> {
    match (device, user) {
        (Some(device), None) => Some(Suppressed::Device(device)),
        (None, Some(user)) => Some(Suppressed::User(user)),
        _ => None,
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = OptOuts)]
struct OptOutsView {
    types: Vec<String>,
}

/// Either a device or a user.
pub(crate) enum SuppressionBody {}

impl PartialSchema for SuppressionBody {
    fn schema() -> Shape {
        let of = |who, shape| shape::object(vec![(who, shape)], vec![("expires_at", shape::format("date-time"))]);
        shape::either([of("device_id", shape::of::<DeviceId>()).into(), of("user_id", shape::of::<UserId>()).into()])
    }
}

impl ToSchema for SuppressionBody {}

/// From within a second on, nothing is dispatched to this device or user.
#[utoipa::path(
    post, path = "/v1/suppressions", operation_id = "add_suppression",
    request_body = SuppressionBody, responses((status = 201, body = SuppressionView)),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn add(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    let who = who(fields.parsed("device_id"), fields.parsed("user_id"));
    let expires_at: Option<jiff::Timestamp> = fields.parsed("expires_at");
    if who.is_none() && fields.is_right() {
        fields.fault("", "missing", "give either device_id or user_id");
    }
    let now = api.clock.now();
    let expires_at = expires_at.map(|at| Timestamp::from_millis(at.as_millisecond().try_into().unwrap_or_default()));
    if expires_at.is_some_and(|at| at <= now) {
        fields.fault("expires_at", "out_of_range", "must lie in the future");
    }
    fields.finish()?;
    let who = who.ok_or_else(|| Problem::fault("#", "missing", "give either device_id or user_id"))?;
    let of = (call.caller.app(), call.caller.env());
    let all = shelves::list::<Suppression>(&*api.store, of, None, SUPPRESSIONS_MAX).await?;
    if all.len() >= SUPPRESSIONS_MAX {
        let mut over = 0;
        for (name, _) in all.iter().filter(|(_, suppression)| !suppression.holds(now)) {
            over += usize::from(shelves::remove::<Suppression>(&*api.store, of.0, of.1, name).await?);
        }
        if over == 0 {
            let detail = format!("at most {SUPPRESSIONS_MAX}: save a list, and exclude it from what is sent");
            return Err(Problem::fault("#", "too_many", detail));
        }
    }
    let suppression = Suppression { who, created_at: now, expires_at };
    shelves::put(&*api.store, of.0, of.1, &suppression.who.name(), &suppression).await?;
    Ok((StatusCode::CREATED, Json(SuppressionView::from(suppression))).into_response())
}

/// Suppressions that hold.
///
/// A page may be short where some are over.
#[utoipa::path(
    get, path = "/v1/suppressions", operation_id = "list_suppressions",
    params(Paging), responses((status = 200, body = Page<SuppressionView>, headers(("Link")))),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    let (page, last) = query::shelf::<Suppression>(&api, &call).await?;
    let now = api.clock.now();
    let holding = page.into_iter().filter(|suppression| suppression.holds(now));
    let views: Vec<_> = holding.map(SuppressionView::from).collect();
    query::page(&call.uri, &views, last)
}

/// The device or user gets messages again.
#[utoipa::path(
    delete, path = "/v1/suppressions", operation_id = "remove_suppression",
    params(("device_id" = Option<DeviceId>, Query, description = "Either this"), ("user_id" = Option<UserId>, Query, description = "or this.")),
    responses((status = 204), (status = 404)), security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn remove(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    let mut query = call.query()?;
    let who = who(query.parsed("device_id"), query.parsed("user_id"));
    query.finish()?;
    let who = who.ok_or_else(|| Problem::fault("?", "missing", "say either device_id or user_id"))?;
    let (app, env) = (call.caller.app(), call.caller.env());
    let removed = shelves::remove::<Suppression>(&*api.store, app, env, &who.name()).await?;
    if removed { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(Problem::not_found("suppression")) }
}

/// The device wants no messages of this type.
#[utoipa::path(
    put, path = "/v1/devices/{id}/opt-outs/{type}", operation_id = "opt_out",
    responses((status = 204), (status = 404)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn opt_out(state: State<Arc<Api>>, path: Path<(String, String)>, call: Call) -> Answer {
    change(state, path, call, true).await
}

/// The device wants messages of this type again.
#[utoipa::path(
    delete, path = "/v1/devices/{id}/opt-outs/{type}", operation_id = "opt_in",
    responses((status = 204), (status = 404)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn opt_in(state: State<Arc<Api>>, path: Path<(String, String)>, call: Call) -> Answer {
    change(state, path, call, false).await
}

async fn change(
    State(api): State<Arc<Api>>,
    Path((id, kind)): Path<(String, String)>,
    call: Call,
    out: bool,
) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let device = devices::find(&api, &call, &id).await?;
    by_type::check(&kind)?;
    let of = (call.caller.app(), call.caller.env());
    if out {
        by_type::check_room::<OptOut>(&api, &call, &kind, "devices that opted out").await?;
    }
    let change = |before: Option<OptOut>| {
        let OptOut(mut devices) = before.unwrap_or_default();
        let changed = if out { devices.insert(device.ordinal) } else { devices.remove(device.ordinal) };
        changed.then_some(OptOut(devices))
    };
    shelves::change(&*api.store, of, &kind, change).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The types of messages that a device does not want.
#[utoipa::path(
    get, path = "/v1/devices/{id}/opt-outs", operation_id = "list_opt_outs",
    responses((status = 200, body = OptOutsView), (status = 404)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn opt_outs(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let device = devices::find(&api, &call, &id).await?;
    let all = by_type::list::<OptOut>(&api, &call).await?;
    let his = all.into_iter().filter(|(_, OptOut(devices))| devices.contains(device.ordinal));
    Ok(Json(OptOutsView { types: his.map(|(kind, _)| kind).collect() }).into_response())
}
