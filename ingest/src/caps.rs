//! Frequency caps: how often a device may get messages of a type, whoever sends them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use model::{Cap, Scope, cap::CAP_MAX};
use serde::Serialize;
use store::shelves;

use crate::{
    api::Api,
    fields::Fields,
    gate::{Answer, Call},
    problem::Problem,
    query, send,
};

/// Types that an environment of an app may cap.
const CAPS_MAX: usize = 200;
/// Longest span of a cap: thirty days.
const PER_MAX_S: u64 = 30 * 86_400;

#[derive(Serialize)]
struct CapView<'a> {
    r#type: &'a str,
    max: u32,
    per_s: u64,
}

impl<'a> CapView<'a> {
    const fn new(kind: &'a str, cap: &Cap) -> Self {
        Self { r#type: kind, max: cap.max, per_s: cap.per_s }
    }
}

/// `PUT /v1/frequency-caps/{type}`: from within a second on.
pub(crate) async fn put(State(api): State<Arc<Api>>, Path(kind): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    if !send::is_kind(&kind) {
        fields.fault("", "invalid_format", "a type is [a-z0-9_-]{1,32}");
    }
    for name in ["max", "per_s"] {
        if !fields.has(name) {
            fields.fault(name, "missing", "a cap is so many messages in so many seconds");
        }
    }
    let max = fields.number("max", 1, CAP_MAX.into()).and_then(|max| u32::try_from(max).ok()).unwrap_or(1);
    let per_s = fields.number("per_s", 1, PER_MAX_S).unwrap_or(1);
    fields.finish()?;
    let (app, env) = (call.caller.app(), call.caller.env());
    let all = shelves::list::<Cap>(&*api.store, (app, env), None, CAPS_MAX).await?;
    if all.len() >= CAPS_MAX && all.iter().all(|(known, _)| *known != kind) {
        return Err(Problem::fault("#", "too_many", format!("an app has at most {CAPS_MAX} capped types")));
    }
    let cap = Cap { max, per_s };
    shelves::put(&*api.store, app, env, &kind, &cap).await?;
    Ok(Json(CapView::new(&kind, &cap)).into_response())
}

/// `GET /v1/frequency-caps`.
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let of = (call.caller.app(), call.caller.env());
    let all = shelves::list::<Cap>(&*api.store, of, None, CAPS_MAX).await?;
    let views: Vec<_> = all.iter().map(|(kind, cap)| CapView::new(kind, cap)).collect();
    query::page(&call.uri, &views, None)
}

/// `DELETE /v1/frequency-caps/{type}`.
pub(crate) async fn remove(State(api): State<Arc<Api>>, Path(kind): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let removed = shelves::remove::<Cap>(&*api.store, call.caller.app(), call.caller.env(), &kind).await?;
    if removed { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(Problem::not_found("frequency cap")) }
}
