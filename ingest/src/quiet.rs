//! Quiet hours: when messages reach nobody, by the clock of each device; for all types, or for one.

use std::sync::Arc;

use audience::quiet::is_zone;
use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse,
};
use model::{Quiet, QuietHours, Scope, quiet::EVERY_TYPE};
use serde::Serialize;
use utoipa::{PartialSchema, ToSchema};

use crate::{
    api::Api,
    by_type,
    fields::Fields,
    gate::{Answer, Call},
    openapi::shape::{self, Shape, body},
    problem::Problem,
    query,
    query::Page,
};

/// The time zone of devices that name none, when nobody says.
const TZ_DEFAULT: &str = "UTC";

#[derive(Serialize, ToSchema)]
#[schema(as = QuietHours)]
struct QuietView<'a> {
    /// `*` for all that have no hours of their own.
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    off: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tz: Option<&'a str>,
}

impl<'a> QuietView<'a> {
    fn new(kind: &'a str, quiet: &'a Quiet) -> Self {
        let hours = if let Quiet::Hours(hours) = quiet { Some(hours) } else { None };
        Self {
            r#type: kind,
            off: hours.is_none().then_some(true),
            from: hours.map(|hours| hours.from.to_string()),
            to: hours.map(|hours| hours.to.to_string()),
            tz: hours.map(|hours| hours.tz.as_str()),
        }
    }
}

fn time_of_day() -> Shape {
    shape::pattern("^([01][0-9]|2[0-3]):[0-5][0-9]$")
}

fn time_zone() -> Shape {
    shape::usually(
        shape::described(shape::any_text(), "A time zone of the IANA database, for devices that name none."),
        TZ_DEFAULT,
    )
}

body! {
    /// From when to when, by the clock of each device.
    HoursBody {
        required { "from": time_of_day(), "to": time_of_day() }
        optional { "tz": time_zone() }
        example { "from": "22:00", "to": "08:00", "tz": "Asia/Shanghai" }
    }
}

/// The hours of a type, or that it has none.
pub(crate) enum TypeHoursBody {}

impl PartialSchema for TypeHoursBody {
    fn schema() -> Shape {
        shape::either([HoursBody::schema(), shape::object(vec![("off", shape::only(true))], Vec::new()).into()])
    }
}

impl ToSchema for TypeHoursBody {}

/// Quiet hours for every type that has none of its own, from within a second on.
#[utoipa::path(
    put, path = "/v1/quiet-hours", operation_id = "put_quiet_hours",
    request_body = HoursBody, responses((status = 200, body = QuietView)),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn put_all(State(api): State<Arc<Api>>, call: Call) -> Answer {
    put(&api, &call, EVERY_TYPE).await
}

/// Quiet hours of one type, or that it has none.
#[utoipa::path(
    put, path = "/v1/quiet-hours/{type}", operation_id = "put_quiet_hours_of_type",
    request_body = TypeHoursBody, responses((status = 200, body = QuietView)),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn put_one(State(api): State<Arc<Api>>, Path(kind): Path<String>, call: Call) -> Answer {
    by_type::check(&kind)?;
    put(&api, &call, &kind).await
}

async fn put(api: &Api, call: &Call, kind: &str) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    let quiet = quiet(&mut fields, kind);
    fields.finish()?;
    let quiet = quiet.ok_or_else(|| Problem::fault("#", "missing", "quiet hours have `from` and `to`"))?;
    by_type::put(api, call, kind, &quiet, "hours of their own").await?;
    Ok(Json(QuietView::new(kind, &quiet)).into_response())
}

/// The hours of the day, or none for a type that is not to share those of every type.
fn quiet(fields: &mut Fields<'_>, kind: &str) -> Option<Quiet> {
    if let Some(off) = fields.get::<bool>("off", "true") {
        if !off || kind == EVERY_TYPE {
            fields.fault("off", "contradiction", "only a type is excepted, by true");
        }
        return Some(Quiet::Never);
    }
    let (from, to) = (fields.parsed("from"), fields.parsed("to"));
    let tz = fields.text("tz", "must be a time zone of the IANA database, as in Asia/Shanghai", is_zone);
    let (from, to) = from.zip(to)?;
    if from == to {
        fields.fault("to", "contradiction", "it would be quiet never, or always");
    }
    Some(Quiet::Hours(QuietHours { from, to, tz: tz.unwrap_or_else(|| TZ_DEFAULT.to_owned()) }))
}

/// The quiet hours of every type, and of those that have their own.
#[utoipa::path(
    get, path = "/v1/quiet-hours", operation_id = "list_quiet_hours",
    responses((status = 200, body = Page<QuietView>)), security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let all = by_type::list::<Quiet>(&api, &call).await?;
    let views: Vec<_> = all.iter().map(|(kind, quiet)| QuietView::new(kind, quiet)).collect();
    query::page(&call.uri, &views, None)
}

/// No quiet hours but those of single types.
#[utoipa::path(
    delete, path = "/v1/quiet-hours", operation_id = "remove_quiet_hours",
    responses((status = 204), (status = 404)), security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn remove_all(State(api): State<Arc<Api>>, call: Call) -> Answer {
    remove(&api, &call, EVERY_TYPE).await
}

/// The quiet hours of every type hold for this one again.
#[utoipa::path(
    delete, path = "/v1/quiet-hours/{type}", operation_id = "remove_quiet_hours_of_type",
    responses((status = 204), (status = 404)), security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn remove_one(State(api): State<Arc<Api>>, Path(kind): Path<String>, call: Call) -> Answer {
    remove(&api, &call, &kind).await
}

async fn remove(api: &Api, call: &Call, kind: &str) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    by_type::remove::<Quiet>(api, call, kind, "quiet hours").await
}
