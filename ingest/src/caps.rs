//! Frequency caps: how often a device may get messages of a type, whoever sends them.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse,
};
use model::{Cap, Scope, cap::CAP_MAX};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::Api,
    by_type,
    fields::Fields,
    gate::{Answer, Call},
    openapi::shape::{self, body},
    query,
    query::Page,
};

/// Longest span of a cap: thirty days.
const PER_MAX_S: u64 = 30 * 86_400;

#[derive(Serialize, ToSchema)]
#[schema(as = FrequencyCap)]
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

body! {
    /// How many messages of a type a device may get, and in how many seconds.
    CapBody {
        required { "max": shape::number(1..=CAP_MAX.into()), "per_s": shape::number(1..=PER_MAX_S) }
        optional {}
        example { "max": 3, "per_s": 86_400 }
    }
}

/// How often a device may get messages of a type, from within a second on.
#[utoipa::path(
    put, path = "/v1/frequency-caps/{type}", operation_id = "put_frequency_cap",
    request_body = CapBody, responses((status = 200, body = CapView)), security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn put(State(api): State<Arc<Api>>, Path(kind): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    by_type::check(&kind)?;
    let mut fields = Fields::read(&call.body)?;
    for name in ["max", "per_s"] {
        if fields.lacks(name) {
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

/// The frequency caps of all types that have one.
#[utoipa::path(
    get, path = "/v1/frequency-caps", operation_id = "list_frequency_caps",
    responses((status = 200, body = Page<CapView>)), security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let all = by_type::list::<Cap>(&api, &call).await?;
    let views: Vec<_> = all.iter().map(|(kind, cap)| CapView::new(kind, cap)).collect();
    query::page(&call.uri, &views, None)
}

/// A device may get any number of messages of a type again.
#[utoipa::path(
    delete, path = "/v1/frequency-caps/{type}", operation_id = "remove_frequency_cap",
    responses((status = 204), (status = 404)), security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn remove(State(api): State<Arc<Api>>, Path(kind): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    by_type::remove::<Cap>(&api, &call, &kind, "frequency cap").await
}
