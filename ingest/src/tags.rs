//! Tags of devices, one at a time or many devices at once.

use std::sync::Arc;

use audience::limits::{self, Beyond};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use model::{DeviceId, Profile, Scope};
use serde::Serialize;
use store::{Amendment, PAGE_MAX};
use utoipa::ToSchema;

use crate::{
    api::Api,
    devices::{self, ATTEMPTS},
    fields::Fields,
    gate::{Answer, Call},
    openapi::shape::{self, body},
    problem::{Code, Problem},
    query::{self, Page, Paging},
    send,
    view::Warning,
};

/// Devices that one request may name, in each of its lists.
const CHANGE_MAX: usize = 1_000;

fn beyond(Beyond { code, reason }: Beyond) -> Problem {
    Problem::fault("", code, reason)
}

/// The same with the tag, or without it.
fn tagged(before: &Profile, tag: &str, on: bool) -> Result<Profile, Problem> {
    let mut profile = before.clone();
    if on {
        profile.tags.insert(tag.to_owned());
        limits::tags(&profile.tags).map_err(beyond)?;
    } else {
        profile.tags.remove(tag);
    }
    Ok(profile)
}

#[derive(Serialize, ToSchema)]
#[schema(as = Tag)]
struct TagView {
    tag: String,
    devices: u64,
}

#[derive(Serialize, ToSchema)]
struct TagChanged {
    changed: usize,
    warnings: Vec<Warning>,
}

body! {
    /// Who is to have the tag, and who is not.
    TagBody {
        required {}
        optional {
            "add": shape::list(shape::of::<DeviceId>(), 0..=CHANGE_MAX),
            "remove": shape::list(shape::of::<DeviceId>(), 0..=CHANGE_MAX),
        }
        example { "add": ["dev-1", "dev-2"], "remove": ["dev-9"] }
    }
}

/// Tags in the order of their bytes, each with how many devices have it.
#[utoipa::path(
    get, path = "/v1/tags", operation_id = "list_tags",
    params(Paging), responses((status = 200, body = Page<TagView>, headers(("Link")))),
    security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    let mut query = call.query()?;
    let (limit, after) = (query.limit(), query.cursor::<String>());
    query.finish()?;
    let no_filter = || Problem::new(Code::FilterUnavailable, send::NO_FILTER);
    let select = api.select.as_ref().ok_or_else(no_filter)?;
    let tags = select.tags(call.caller.app(), call.caller.env(), after.as_deref(), limit).await?;
    let last = tags.last().filter(|_| tags.len() == limit).map(|(tag, _)| tag.clone());
    let views: Vec<_> = tags.into_iter().map(|(tag, devices)| TagView { tag, devices }).collect();
    query::page(&call.uri, &views, last)
}

/// Puts a tag on a device.
#[utoipa::path(
    put, path = "/v1/devices/{id}/tags/{tag}", operation_id = "add_tag",
    responses((status = 204), (status = 404)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn add(State(api): State<Arc<Api>>, Path((id, tag)): Path<(String, String)>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    limits::tag(&tag).map_err(beyond)?;
    devices::change(&api, &call, &id, |before| tagged(before, &tag, true)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Takes a tag from a device.
#[utoipa::path(
    delete, path = "/v1/devices/{id}/tags/{tag}", operation_id = "remove_tag",
    responses((status = 204), (status = 404)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn remove(State(api): State<Arc<Api>>, Path((id, tag)): Path<(String, String)>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    devices::change(&api, &call, &id, |before| tagged(before, &tag, false)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Puts a tag on many devices and takes it from others.
///
/// Ids that are unknown become a warning.
#[utoipa::path(
    post, path = "/v1/tags/{tag}/devices", operation_id = "change_tag",
    request_body = Option<TagBody>, responses((status = 200, body = TagChanged)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn change(State(api): State<Arc<Api>>, Path(tag): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    limits::tag(&tag).map_err(beyond)?;
    let mut fields = Fields::read(&call.body)?;
    let add: Vec<DeviceId> = fields.list("add", CHANGE_MAX).unwrap_or_default();
    let remove: Vec<DeviceId> = fields.list("remove", CHANGE_MAX).unwrap_or_default();
    fields.finish()?;
    let mut waiting: Vec<(DeviceId, bool)> =
        add.into_iter().map(|id| (id, true)).chain(remove.into_iter().map(|id| (id, false))).collect();
    let (mut changed, mut unknown) = (0, Vec::new());
    for _ in 0..ATTEMPTS {
        waiting = change_once(&api, &call, &tag, waiting, (&mut changed, &mut unknown)).await?;
        if waiting.is_empty() {
            let warnings = Warning::unknown(&unknown).into_iter().collect();
            return Ok(Json(TagChanged { changed, warnings }).into_response());
        }
    }
    Err(devices::too_many_at_once())
}

/// Puts the tag on these devices as they are now, or takes it from them; returns those that others changed meanwhile.
async fn change_once(
    api: &Api,
    call: &Call,
    tag: &str,
    waiting: Vec<(DeviceId, bool)>,
    (changed, unknown): (&mut usize, &mut Vec<DeviceId>),
) -> Result<Vec<(DeviceId, bool)>, Problem> {
    let (app, env) = (call.caller.app(), call.caller.env());
    let ids: Vec<DeviceId> = waiting.iter().map(|(id, _)| id.clone()).collect();
    let found = api.store.devices(app, &ids).await?;
    let (mut amendments, mut wanted) = (Vec::new(), Vec::new());
    for ((id, on), device) in waiting.into_iter().zip(found) {
        let Some(before) = device.filter(|device| device.env == env) else {
            unknown.push(id);
            continue;
        };
        let profile = tagged(&before.profile, tag, on)?;
        if profile != before.profile {
            amendments.push(Amendment { before, profile });
            wanted.push((id, on));
        }
    }
    let mut done = Vec::with_capacity(amendments.len());
    for page in amendments.chunks(PAGE_MAX) {
        done.extend(api.store.amend(app, page.to_vec(), api.clock.now()).await?);
    }
    *changed += done.iter().filter(|done| **done).count();
    Ok(wanted.into_iter().zip(done).filter_map(|(again, done)| (!done).then_some(again)).collect())
}
