//! Tags of devices, one at a time or many devices at once. A tag is put on what is known at that moment; of two
//! changes of one device in the same moment one may be lost.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use model::{DeviceId, Scope};
use serde::Serialize;
use store::Registration;

use crate::{
    api::Api,
    devices::{self, TAG_MAX_BYTES, TAGS_MAX},
    fields::Fields,
    gate::{Answer, Call},
    problem::Problem,
    view::Warning,
};

/// Devices that one request may name, in each of its lists.
const CHANGE_MAX: usize = 1_000;

fn checked(tag: &str) -> Result<(), Problem> {
    match tag.len() {
        1..=TAG_MAX_BYTES => Ok(()),
        _ => Err(Problem::fault("", "invalid_format", format!("a tag has 1..{TAG_MAX_BYTES} bytes"))),
    }
}

fn too_many() -> Problem {
    Problem::fault("", "too_many", format!("a device has at most {TAGS_MAX} tags"))
}

/// `PUT /v1/devices/{id}/tags/{tag}`.
pub(crate) async fn add(State(api): State<Arc<Api>>, Path((id, tag)): Path<(String, String)>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    checked(&tag)?;
    let mut device = devices::find(&api, &call, &id).await?;
    if device.profile.tags.insert(tag) {
        if device.profile.tags.len() > TAGS_MAX {
            return Err(too_many());
        }
        devices::keep(&api, &call, device.id, device.profile).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `DELETE /v1/devices/{id}/tags/{tag}`.
pub(crate) async fn remove(State(api): State<Arc<Api>>, Path((id, tag)): Path<(String, String)>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let mut device = devices::find(&api, &call, &id).await?;
    if device.profile.tags.remove(&tag) {
        devices::keep(&api, &call, device.id, device.profile).await?;
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `POST /v1/tags/{tag}/devices`: puts a tag on many devices and takes it from others; ids that are unknown become a
/// warning.
pub(crate) async fn change(State(api): State<Arc<Api>>, Path(tag): Path<String>, call: Call) -> Answer {
    #[derive(Serialize)]
    struct Changed {
        changed: usize,
        warnings: Vec<Warning>,
    }
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    checked(&tag)?;
    let mut fields = Fields::read(&call.body)?;
    let add: Vec<DeviceId> = fields.list("add", CHANGE_MAX).unwrap_or_default();
    let remove: Vec<DeviceId> = fields.list("remove", CHANGE_MAX).unwrap_or_default();
    fields.finish()?;
    let (app, env) = (call.caller.app(), call.caller.env());
    let (mut registrations, mut unknown) = (Vec::new(), Vec::new());
    for (ids, on) in [(add, true), (remove, false)] {
        let found = api.store.devices(app, &ids).await?;
        for (id, device) in ids.into_iter().zip(found) {
            let Some(mut device) = device.filter(|device| device.env == env) else {
                unknown.push(id.to_string());
                continue;
            };
            let tags = &mut device.profile.tags;
            let changed = if on { tags.insert(tag.clone()) } else { tags.remove(&tag) };
            if changed {
                if tags.len() > TAGS_MAX {
                    return Err(too_many());
                }
                registrations.push(Registration { id, env, profile: Some(device.profile) });
            }
        }
    }
    let changed = registrations.len();
    for page in registrations.chunks(store::PAGE_MAX) {
        api.store.register(app, page.to_vec(), api.clock.now()).await?;
    }
    Ok(Json(Changed { changed, warnings: Warning::unknown(&unknown).into_iter().collect() }).into_response())
}
