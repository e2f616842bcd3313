//! Frequency caps: how often a device may get messages of a type, whoever sends them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse,
};
use model::{Cap, Scope, cap::CAP_MAX};
use serde::Serialize;

use crate::{
    api::Api,
    by_type,
    fields::Fields,
    gate::{Answer, Call},
    query,
};

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
    by_type::check(&kind)?;
    let mut fields = Fields::read(&call.body)?;
    for name in ["max", "per_s"] {
        if !fields.has(name) {
            fields.fault(name, "missing", "a cap is so many messages in so many seconds");
        }
    }
    let max = fields.number("max", 1, CAP_MAX.into()).and_then(|max| u32::try_from(max).ok()).unwrap_or(1);
    let per_s = fields.number("per_s", 1, PER_MAX_S).unwrap_or(1);
    fields.finish()?;
    let cap = Cap { max, per_s };
    by_type::put(&api, &call, &kind, &cap, "a cap").await?;
    Ok(Json(CapView::new(&kind, &cap)).into_response())
}

/// `GET /v1/frequency-caps`.
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let all = by_type::list::<Cap>(&api, &call).await?;
    let views: Vec<_> = all.iter().map(|(kind, cap)| CapView::new(kind, cap)).collect();
    query::page(&call.uri, &views, None)
}

/// `DELETE /v1/frequency-caps/{type}`.
pub(crate) async fn remove(State(api): State<Arc<Api>>, Path(kind): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    by_type::remove::<Cap>(&api, &call, &kind, "frequency cap").await
}
