//! `POST /v1/audiences/preview`: whom a message would be for, before it is sent.

use std::{collections::BTreeMap, sync::Arc};

use audience::{Expr, Frozen, Leaf};
use axum::{Json, extract::State, response::IntoResponse};
use model::{DeviceId, Lane, Ordinal, Ordinals, Priority, Scope};
use serde::Serialize;
use serde_json::Value;
use store::PAGE_MAX;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    api::Api,
    fields::Fields,
    gate::{Answer, Call},
    openapi::shape::{self, body},
    problem::{Code, Problem},
    send::{self, Target, To},
    view::{self, Warning},
};

/// Platforms that are counted apart; devices of others, or of none, are counted together.
const PLATFORMS: [&str; 8] = ["android", "ios", "web", "windows", "macos", "linux", "harmonyos", "iot"];
/// Names that are shown.
const SAMPLE_MAX: usize = 10;
/// Devices whose routes are looked up; of more, that many are looked at and the rest is taken to be alike.
const ROUTES_MAX: u64 = 20_000;
/// Fields whose absence is counted.
const FIELDS_MAX: usize = 20;

#[derive(Serialize, ToSchema)]
struct Preview {
    mode: Lane,
    count: u64,
    online: u64,
    /// Whether `online` was counted, not estimated.
    exact: bool,
    excluded: u64,
    excluded_by: BTreeMap<&'static str, u64>,
    by_platform: BTreeMap<&'static str, u64>,
    missing: Vec<Missing>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_json: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_text: Option<String>,
    sample: Vec<DeviceId>,
    warnings: Vec<Warning>,
    /// How long it took to find out whom it is for.
    eval_ms: f64,
}

/// Devices that lack something the filter asks about.
#[derive(Serialize, ToSchema)]
#[schema(as = MissingField)]
struct Missing {
    field: String,
    devices: u64,
    treated_as: &'static str,
}

body! {
    /// Whom a message would be for. Its type and its priority decide who would be left in peace.
    PreviewBody {
        required { "to": shape::of::<To>() }
        optional { "type": send::kind(), "priority": Priority::schema() }
        example { "to": { "filter": "attr.level >= 5", "exclude": { "tags": ["staff"] } } }
    }
}

/// Whom a message would be for, before it is sent.
#[utoipa::path(
    post, path = "/v1/audiences/preview", operation_id = "preview_audience",
    request_body = PreviewBody, responses((status = 200, body = Preview)),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn preview(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    let to = send::to(&mut fields);
    let kind = fields.text("type", "a message type", |_| true);
    let priority = fields.get("priority", "`high`, `normal` or `low`").unwrap_or_default();
    fields.finish()?;
    let (to, narrowing) = to.ok_or_else(|| Problem::fault("#/to", "missing", "say whom"))?;
    let target = Target::find(&api, &call.caller, &to).await?;
    let terms = narrowing.resolve(&api, &call.caller).await?;
    let started = Instant::now();
    let frozen = target.now(&api, &call.caller, &terms, kind.as_deref().map(|kind| (kind, priority))).await?;
    let eval_ms = (started.elapsed().as_secs_f64() * 10_000.0).round() / 10.0;
    let preview = describe(&api, &call, target, frozen, eval_ms).await?;
    Ok(Json(preview).into_response())
}

async fn describe(api: &Api, call: &Call, target: Target, frozen: Frozen, eval_ms: f64) -> Result<Preview, Problem> {
    let Frozen { targets, excluded } = frozen;
    let (excluded, excluded_by) = view::excluded(&excluded);
    let (online, exact) = online(api, call, &targets).await?;
    let shown: Vec<Ordinal> = targets.iter().take(SAMPLE_MAX).collect();
    let names = api.store.names(call.caller.app(), &shown).await?;
    Ok(Preview {
        mode: target.lane,
        count: targets.len(),
        online,
        exact,
        excluded,
        excluded_by,
        by_platform: by_platform(api, call, &targets).await?,
        missing: match &target.filter {
            Some(filter) => missing(api, call, filter).await?,
            None => Vec::new(),
        },
        filter_json: target.filter.as_ref().map(Expr::to_tree),
        filter_text: target.filter.as_ref().map(Expr::to_string),
        sample: names.into_iter().flatten().collect(),
        warnings: target.warnings,
        eval_ms,
    })
}

async fn by_platform(api: &Api, call: &Call, targets: &Ordinals) -> Result<BTreeMap<&'static str, u64>, Problem> {
    let (app, env) = (call.caller.app(), call.caller.env());
    let Some(select) = api.select.as_ref().filter(|_| !targets.is_empty()) else { return Ok(BTreeMap::new()) };
    let expressions = PLATFORMS.map(|platform| format!("platform == \"{platform}\""));
    let of_each = select.counts(app, env, &expressions, targets, api.clock.now()).await?;
    let others = targets.len().saturating_sub(of_each.iter().sum());
    let counts = PLATFORMS.into_iter().zip(of_each).chain([("other", others)]);
    Ok(counts.filter(|(_, count)| *count > 0).collect())
}

async fn missing(api: &Api, call: &Call, filter: &Expr) -> Result<Vec<Missing>, Problem> {
    let (app, env, mut missing) = (call.caller.app(), call.caller.env(), Vec::new());
    let no_filter = || Problem::new(Code::FilterUnavailable, send::NO_FILTER);
    let select = api.select.as_ref().ok_or_else(no_filter)?;
    for field in filter.fields().into_iter().take(FIELDS_MAX) {
        let lacking = (!Expr::from(Leaf::Has(field.clone()))).to_string();
        let devices = select.count(app, env, &lacking, api.clock.now()).await?;
        if devices > 0 {
            missing.push(Missing { field: field.to_string(), devices, treated_as: "no match" });
        }
    }
    Ok(missing)
}

/// How many are connected, as far as is known, and whether each was asked for.
async fn online(api: &Api, call: &Call, targets: &Ordinals) -> Result<(u64, bool), Problem> {
    let every = targets.len().div_ceil(ROUTES_MAX).max(1);
    let asked: Vec<Ordinal> = targets.iter().step_by(usize::try_from(every).unwrap_or(usize::MAX)).collect();
    let mut connected = 0;
    for page in asked.chunks(PAGE_MAX) {
        connected += api.store.routes(call.caller.app(), page).await?.iter().flatten().count() as u64;
    }
    if every == 1 {
        return Ok((connected, true));
    }
    Ok(((connected * targets.len()).checked_div(asked.len() as u64).unwrap_or_default(), false))
}
