//! Saved audiences: filters by name, and lists of devices that are uploaded.

use std::sync::Arc;

use audience::{Expr, Saved};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use model::{AudienceId, DeviceId, Means, Members, Ordinals, SavedAudience, Scope, UserId};
use serde::Serialize;
use serde_json::Value;
use store::{PAGE_MAX, devices::ordinals, shelves};
use utoipa::ToSchema;

use crate::{
    api::Api,
    edition::{self, IfMatch},
    fields::{self, Fields},
    filter::Written,
    gate::{self, Answer, Call},
    openapi::shape::{self, body},
    problem::Problem,
    query::{self, Page, Paging},
    upload::{self, Upload},
    view::{self, Time},
};

/// Saved audiences of an environment of an app.
const AUDIENCES_MAX: usize = 1_000;

#[derive(Serialize, ToSchema)]
#[schema(as = Audience)]
struct AudienceView {
    id: AudienceId,
    name: String,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filter_json: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    members: Option<u64>,
    created_at: Time,
    updated_at: Time,
}

impl From<SavedAudience> for AudienceView {
    fn from(audience: SavedAudience) -> Self {
        let SavedAudience { id, name, means, created_at, updated_at } = audience;
        let (kind, filter_text, members) = match means {
            Means::Filter(text) => ("filter", Some(text), None),
            Means::List(count) => ("list", None, Some(count)),
        };
        let filter_json = filter_text.as_ref().and_then(|text| text.parse::<Expr>().ok()).map(|expr| expr.to_tree());
        let (created_at, updated_at) = (view::time(created_at), view::time(updated_at));
        Self { id, name, kind, filter_text, filter_json, members, created_at, updated_at }
    }
}

async fn find(api: &Api, call: &Call, id: &str) -> Result<SavedAudience, Problem> {
    let found = shelves::find(&*api.store, call.caller.app(), call.caller.env(), id).await?;
    found.ok_or_else(|| Problem::not_found("audience"))
}

async fn put(api: &Api, call: &Call, audience: &SavedAudience) -> Result<(), Problem> {
    let name = audience.id.to_string();
    Ok(shelves::put(&*api.store, call.caller.app(), call.caller.env(), &name, audience).await?)
}

/// What a filter means in one form, if it does not name the audience that it is to be the meaning of.
async fn compile(api: &Api, call: &Call, written: &Written, own: Option<AudienceId>) -> Result<Means, Problem> {
    let expr = written.compile(&api.store, call.caller.app(), call.caller.env()).await?;
    if own.is_some_and(|own| expr.saved().contains(&Saved::Audience(own))) {
        return Err(Problem::fault("#/filter", "contradiction", "an audience cannot be a part of itself"));
    }
    Ok(Means::Filter(expr.to_string()))
}

#[derive(Serialize, ToSchema)]
struct Uploaded {
    members: u64,
    rows: u64,
    unknown: u64,
}

body! {
    /// A filter under a name, or an empty list.
    AudienceBody {
        required { "name": fields::name_shape() }
        optional { "kind": shape::usually(shape::one_of(["filter", "list"]), "filter"), "filter": shape::of::<Written>() }
        example { "name": "Up to date", "kind": "filter", "filter": "app_version >= \"2.10\"" }
    }
}

body! {
    /// What is to be another.
    AudiencePatch {
        required {}
        optional { "name": fields::name_shape(), "filter": shape::of::<Written>() }
        example { "name": "Very up to date" }
    }
}

/// Saves a filter, or an empty list, under a name.
#[utoipa::path(
    post, path = "/v1/audiences", operation_id = "create_audience",
    request_body = AudienceBody, responses((status = 201, body = AudienceView, headers(("Location")))),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn create(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    let name = fields.name();
    let kind = fields.text("kind", "`filter` or `list`", |kind| kind == "filter" || kind == "list");
    let filter = Written::take(&mut fields, "filter");
    let is_list = kind.as_deref() == Some("list");
    match (is_list, &filter) {
        (true, Some(_)) => fields.fault("filter", "contradiction", "a list has members, not a filter"),
        (false, None) if fields.is_right() => fields.fault("filter", "missing", "say whom it means"),
        _ => {}
    }
    fields.finish()?;
    let existing =
        shelves::list::<SavedAudience>(&*api.store, (call.caller.app(), call.caller.env()), None, AUDIENCES_MAX);
    if existing.await?.len() >= AUDIENCES_MAX {
        return Err(Problem::fault("#", "too_many", format!("an app has at most {AUDIENCES_MAX} audiences")));
    }
    let means = match &filter {
        Some(written) => compile(&api, &call, written, None).await?,
        None => Means::List(0),
    };
    let now = api.clock.now();
    let id = AudienceId::new(now, rand::random());
    let audience = SavedAudience { id, name, means, created_at: now, updated_at: now };
    put(&api, &call, &audience).await?;
    gate::located(StatusCode::CREATED, format!("/v1/audiences/{id}"), AudienceView::from(audience))
}

/// Saved audiences, oldest first.
#[utoipa::path(
    get, path = "/v1/audiences", operation_id = "list_audiences",
    params(Paging), responses((status = 200, body = Page<AudienceView>, headers(("Link")))),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    let (page, last) = query::shelf::<SavedAudience>(&api, &call).await?;
    let views: Vec<_> = page.into_iter().map(AudienceView::from).collect();
    query::page(&call.uri, &views, last)
}

/// One saved audience.
#[utoipa::path(
    get, path = "/v1/audiences/{id}", operation_id = "get_audience",
    responses((status = 200, body = AudienceView, headers(("ETag"))), (status = 404)),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn get(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let audience = find(&api, &call, &id).await?;
    Ok(edition::answer(StatusCode::OK, &audience, AudienceView::from(audience.clone())))
}

/// Another name, another filter.
#[utoipa::path(
    patch, path = "/v1/audiences/{id}", operation_id = "change_audience",
    params(IfMatch), request_body = Option<AudiencePatch>,
    responses((status = 200, body = AudienceView, headers(("ETag"))), (status = 404), (status = 412)),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn change(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let audience = find(&api, &call, &id).await?;
    let mut fields = Fields::read(&call.body)?;
    let (name, filter) = (fields.new_name(), Written::take(&mut fields, "filter"));
    if filter.is_some() && matches!(audience.means, Means::List(_)) {
        fields.fault("filter", "contradiction", "a list has members, not a filter");
    }
    fields.finish()?;
    let means = match &filter {
        Some(written) => Some(compile(&api, &call, written, Some(audience.id)).await?),
        None => None,
    };
    let (of, updated_at) = ((call.caller.app(), call.caller.env()), api.clock.now());
    let mut is_another = false;
    let change = |there: Option<SavedAudience>| {
        is_another = there.as_ref().is_some_and(|there| !edition::matches(&call.headers, there));
        let there = there.filter(|_| !is_another)?;
        let (name, means) = (name.clone().unwrap_or(there.name), means.clone().unwrap_or(there.means));
        Some(SavedAudience { name, means, updated_at, ..there })
    };
    let changed = shelves::change(&*api.store, of, &id, change).await?;
    if is_another {
        return Err(edition::changed());
    }
    let audience = changed.ok_or_else(|| Problem::not_found("audience"))?;
    Ok(edition::answer(StatusCode::OK, &audience, AudienceView::from(audience.clone())))
}

/// Removes a saved audience.
///
/// What was sent to it and is not dispatched yet fails.
#[utoipa::path(
    delete, path = "/v1/audiences/{id}", operation_id = "remove_audience",
    params(IfMatch), responses((status = 204), (status = 404), (status = 412)),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn remove(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    if !edition::matches(&call.headers, &find(&api, &call, &id).await?) {
        return Err(edition::changed());
    }
    let (app, env) = (call.caller.app(), call.caller.env());
    shelves::remove::<SavedAudience>(&*api.store, app, env, &id).await?;
    shelves::remove::<Members>(&*api.store, app, env, &id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What names a device in an uploaded list.
enum Named {
    Device(DeviceId),
    User(UserId),
}

impl Named {
    /// A line of CSV (its first column is the id of a device, or as its head says) or of NDJSON.
    fn read(line: &str, users: bool) -> Option<Self> {
        let id = |text: &str, user: bool| match user {
            true => text.parse().ok().map(Self::User),
            false => text.parse().ok().map(Self::Device),
        };
        match serde_json::from_str::<Value>(line) {
            Ok(Value::String(text)) => id(&text, users),
            Ok(Value::Object(row)) => match (row.get("device_id"), row.get("user_id")) {
                (Some(Value::String(text)), None) => id(text, false),
                (None, Some(Value::String(text))) => id(text, true),
                _ => None,
            },
            _ => id(line.split(',').next().unwrap_or_default().trim().trim_matches('"'), users),
        }
    }
}

/// Replaces a list by the ids in the body, one a line.
///
/// A line is the first column of CSV, with a head or not, or a row of NDJSON. Nothing changes until all of it was read.
#[utoipa::path(
    put, path = "/v1/audiences/{id}/members", operation_id = "upload_members",
    request_body(content((String = "text/csv"), (String = "application/x-ndjson"))),
    responses((status = 200, body = Uploaded), (status = 404)), security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn upload(State(api): State<Arc<Api>>, Path(id): Path<String>, upload: Upload) -> Answer {
    let Upload { call, mut lines } = upload;
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let audience = find(&api, &call, &id).await?;
    if matches!(audience.means, Means::Filter(_)) {
        return Err(Problem::fault("#", "contradiction", "this audience is a filter: it has no members of its own"));
    }
    let (mut members, mut rows, mut unknown, mut users) = (Ordinals::new(), 0, 0, false);
    loop {
        let page = lines.page(PAGE_MAX).await?;
        if page.is_empty() {
            break;
        }
        let (mut devices, mut holders) = (Vec::new(), Vec::new());
        for (number, line) in page {
            let head = line.split(',').next().unwrap_or_default().trim().trim_matches('"');
            if number == 1 && (head == "device_id" || head == "user_id") {
                users = head == "user_id";
                continue;
            }
            rows += 1;
            match Named::read(&line, users) {
                Some(Named::Device(id)) => devices.push(id),
                Some(Named::User(id)) => holders.push(id),
                None => unknown += 1,
            }
        }
        let (found, missing) = upload::patiently(|| ordinals_of(&api, &call, &devices, &holders)).await?;
        members |= &found;
        unknown += missing;
    }
    let count = members.len();
    let (app, env, updated_at) = (call.caller.app(), call.caller.env(), api.clock.now());
    shelves::put(&*api.store, app, env, &id, &Members(members.compact())).await?;
    let means = Means::List(count);
    let recount = |there: Option<SavedAudience>| Some(SavedAudience { means: means.clone(), updated_at, ..there? });
    if shelves::change(&*api.store, (app, env), &id, recount).await?.is_none() {
        // Whoever has removed the audience meanwhile did not find these.
        shelves::remove::<Members>(&*api.store, app, env, &id).await?;
        return Err(Problem::not_found("audience"));
    }
    Ok(Json(Uploaded { members: count, rows, unknown }).into_response())
}

/// These devices and those of these users, and how many of the names nobody has.
async fn ordinals_of(
    api: &Api,
    call: &Call,
    devices: &[DeviceId],
    users: &[UserId],
) -> Result<(Ordinals, u64), Problem> {
    let (app, env) = (call.caller.app(), call.caller.env());
    let (mut found, unknown) = ordinals(&*api.store, app, env, devices).await?;
    let mut unknown = unknown.len() as u64;
    for of_user in api.store.devices_of(app, env, users).await? {
        unknown += u64::from(of_user.is_empty());
        found |= &of_user;
    }
    Ok((found, unknown))
}
