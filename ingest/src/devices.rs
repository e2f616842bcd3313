//! The registry of devices, as products keep it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use audience::{
    BuiltIn,
    field::ATTRIBUTE_NAME_MAX_BYTES,
    limits::{self, ATTRIBUTES_MAX, Beyond, LIST_MAX, TAG_MAX_BYTES, TAGS_MAX, TEXT_MAX_BYTES},
    patch,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use model::{Bell, Device, DeviceId, Lane, Ordinal, Profile, Scope, UserId};
use serde_json::{Value, json, value::RawValue};
use store::{Amendment, Registration};
use utoipa::{PartialSchema, ToSchema, openapi::ObjectBuilder};

use crate::{
    api::Api,
    attributes::Catalogue,
    fields::Fields,
    filter::Written,
    gate::{Answer, Call},
    openapi::shape::{self, Shape},
    problem::{Code, Problem},
    query::{self, Page, Paging},
    send,
    view::DeviceView,
};

/// Attempts to change a device that others change at the same time; each time somebody else succeeded.
pub(crate) const ATTEMPTS: usize = 8;

/// The device `id` of the caller's app and environment.
///
/// # Errors
/// `not_found`, also for what is no id at all.
pub(crate) async fn find(api: &Api, call: &Call, id: &str) -> Result<Device, Problem> {
    let missing = || Problem::not_found("device");
    let id: DeviceId = id.parse().map_err(|_| missing())?;
    let found = api.store.devices(call.caller.app(), &[id]).await?.pop().flatten();
    found.filter(|device| device.env == call.caller.env()).ok_or_else(missing)
}

/// What products say of a device.
pub(crate) enum DeviceBody {}

/// What is another, as a JSON merge patch: `null` forgets, attributes are merged one by one, tags replaced as a whole.
pub(crate) enum DevicePatch {}

impl PartialSchema for DeviceBody {
    fn schema() -> Shape {
        profile_shape(attribute()).examples([example()]).into()
    }
}

impl PartialSchema for DevicePatch {
    fn schema() -> Shape {
        profile_shape(shape::or_null(attribute())).examples([example()]).into()
    }
}

impl ToSchema for DeviceBody {}
impl ToSchema for DevicePatch {}

fn example() -> Value {
    json!({
        "user_id": "u-77", "platform": "android", "app_version": "2.11.0", "lang": "zh-CN", "tz": "Asia/Shanghai",
        "tags": ["vip"], "attributes": { "level": 7, "city": "深圳", "langs": ["zh", "en"] },
    })
}

fn profile_shape(attribute: Shape) -> ObjectBuilder {
    let own = [
        ("user_id", shape::of::<UserId>()),
        ("tags", shape::list(shape::text(1..=TAG_MAX_BYTES), 0..=TAGS_MAX)),
        ("attributes", shape::map(attribute_name(), attribute, ATTRIBUTES_MAX)),
    ];
    let built_in = BuiltIn::TOLD.map(|built_in| (built_in.as_str(), shape::text(1..=TEXT_MAX_BYTES)));
    shape::object(Vec::new(), own.into_iter().chain(built_in).collect())
}

/// What an attribute may be called.
pub(crate) fn attribute_name() -> Shape {
    shape::pattern(format!("^[a-z][a-z0-9_]{{0,{}}}$", ATTRIBUTE_NAME_MAX_BYTES - 1))
}

fn attribute() -> Shape {
    let text = || shape::text(0..=TEXT_MAX_BYTES);
    shape::either([text(), shape::any_number(), shape::flag(), shape::list(text(), 0..=LIST_MAX)])
}

/// Registers a device, or replaces what is known about it.
#[utoipa::path(
    put, path = "/v1/devices/{id}", operation_id = "put_device",
    request_body = Option<DeviceBody>,
    responses((status = 200, body = DeviceView), (status = 201, description = "It is new.", body = DeviceView), (status = 409)),
    security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn put(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let id: DeviceId = id.parse().map_err(|error| Problem::fault("", "invalid_format", format!("{error}")))?;
    let mut fields = Fields::read(&call.body)?;
    let mut profile = profile(&mut fields);
    fields.finish()?;
    let env = call.caller.env();
    let there = api.store.devices(call.caller.app(), std::slice::from_ref(&id)).await?.pop().flatten();
    if there.as_ref().is_some_and(|device| device.env != env) {
        let detail = "a device of this name is registered in the other environment";
        return Err(Problem::new(Code::EnvironmentConflict, detail));
    }
    let (device, new) = if there.is_some() {
        let seen_as_ever = |before: &Profile| Ok(Profile { seen: before.seen.clone(), ..profile.clone() });
        (change(&api, &call, id.as_str(), seen_as_ever).await?, false)
    } else {
        admit(&api, &call, &mut profile, None).await?;
        register(&api, &call, id, profile).await?
    };
    let status = if new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(DeviceView::from(&device))).into_response())
}

/// Changes what is known about a device, by a JSON merge patch.
#[utoipa::path(
    patch, path = "/v1/devices/{id}", operation_id = "patch_device",
    request_body(content = DevicePatch, content_type = "application/merge-patch+json"),
    responses((status = 200, body = DeviceView), (status = 404), (status = 409)),
    security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn patch(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let merge = |before: &Profile| {
        patch::merge(before, &call.body)
            .map_err(|invalid| Problem::fault(format!("#{}", invalid.pointer), invalid.code, invalid.reason))
    };
    let device = change(&api, &call, &id, merge).await?;
    Ok(Json(DeviceView::from(&device)).into_response())
}

/// Passes when the attributes in a profile are what they may be.
async fn admit(api: &Api, call: &Call, profile: &mut Profile, before: Option<&Profile>) -> Result<(), Problem> {
    if profile.attributes.is_empty() || before.is_some_and(|before| before.attributes == profile.attributes) {
        return Ok(());
    }
    let (app, env) = (call.caller.app(), call.caller.env());
    Catalogue::read(&api.store, app, env).await?.admit(profile, before).await
}

/// Changes what is known about a device, as it is at that moment: `change` may be called again when the device, or
/// somebody else, changed it meanwhile.
///
/// # Errors
/// Those of `change`, what attributes must not be, and whatever the store says.
pub(crate) async fn change(
    api: &Api,
    call: &Call,
    id: &str,
    change: impl Fn(&Profile) -> Result<Profile, Problem>,
) -> Result<Device, Problem> {
    for _ in 0..ATTEMPTS {
        let before = find(api, call, id).await?;
        let mut profile = change(&before.profile)?;
        admit(api, call, &mut profile, Some(&before.profile)).await?;
        let after = Device { profile: profile.clone(), ..before.clone() };
        let amendment = Amendment { before, profile };
        if api.store.amend(call.caller.app(), vec![amendment], api.clock.now()).await?.contains(&true) {
            return Ok(after);
        }
    }
    Err(too_many_at_once())
}

/// Whoever changes a device now would be undone by others, or undo them.
pub(crate) fn too_many_at_once() -> Problem {
    store::Error::Unavailable("too many change this device at once".into()).into()
}

/// Registers a device.
async fn register(api: &Api, call: &Call, id: DeviceId, profile: Profile) -> Result<(Device, bool), Problem> {
    let registration = Registration { id, env: call.caller.env(), profile: Some(profile) };
    let registered = api.store.register(call.caller.app(), vec![registration], api.clock.now()).await?.pop();
    registered.ok_or_else(|| Problem::new(Code::Internal, "the store registered nothing"))
}

/// What is known about a device.
#[utoipa::path(
    get, path = "/v1/devices/{id}", operation_id = "get_device",
    responses((status = 200, body = DeviceView), (status = 404)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn get(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let device = find(&api, &call, &id).await?;
    Ok(Json(DeviceView::from(&device)).into_response())
}

/// Removes a device.
///
/// Its session ends, whatever its token says.
#[utoipa::path(
    delete, path = "/v1/devices/{id}", operation_id = "remove_device",
    responses((status = 204), (status = 404)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn remove(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let device = find(&api, &call, &id).await?;
    let app = call.caller.app();
    if api.store.remove(app, &device.id).await?.is_some() {
        let bell = Bell::Revoked { app: app.clone(), device: device.ordinal, generation: u32::MAX };
        api.ring(Lane::Unicast, &bell);
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Devices, oldest first.
#[utoipa::path(
    get, path = "/v1/devices", operation_id = "list_devices",
    params(Paging, ("filter" = Option<String>, Query, description = "Only those that satisfy this expression.")),
    responses((status = 200, body = Page<DeviceView>, headers(("Link")))),
    security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    let mut query = call.query()?;
    let (limit, after) = (query.limit(), query.cursor::<u32>().map(Ordinal));
    let filter = query.take("filter").map(Written::in_query);
    query.finish()?;
    let (devices, last) = match filter {
        Some(filter) => selected(&api, &call, &filter, after, limit).await?,
        None => {
            let devices = api.store.list(call.caller.app(), call.caller.env(), after, limit).await?;
            let last = devices.last().filter(|_| devices.len() == limit).map(|device| device.ordinal);
            (devices, last)
        }
    };
    let last = last.map(|device| device.0.to_string());
    let views: Vec<_> = devices.iter().map(DeviceView::from).collect();
    query::page(&call.uri, &views, last)
}

/// A page of the devices that satisfy an expression, and the one to go on after. One that is removed meanwhile is not
/// on it.
async fn selected(
    api: &Api,
    call: &Call,
    filter: &Written,
    after: Option<Ordinal>,
    limit: usize,
) -> Result<(Vec<Device>, Option<Ordinal>), Problem> {
    let (app, env, store) = (call.caller.app(), call.caller.env(), &api.store);
    let no_filter = || Problem::new(Code::FilterUnavailable, send::NO_FILTER);
    let select = api.select.as_ref().ok_or_else(no_filter)?;
    let expr = filter.compile(store, app, env).await?;
    let selected = select.select(app, env, &expr.to_string(), api.clock.now()).await?;
    let page: Vec<Ordinal> = selected.iter_after(after).take(limit).collect();
    let names: Vec<DeviceId> = store.names(app, &page).await?.into_iter().flatten().collect();
    let devices = store.devices(app, &names).await?.into_iter().flatten().collect();
    Ok((devices, page.last().copied().filter(|_| page.len() == limit)))
}

/// The devices of a user.
#[utoipa::path(
    get, path = "/v1/users/{id}/devices", operation_id = "list_devices_of_user",
    params(Paging), responses((status = 200, body = Page<DeviceView>, headers(("Link"))), (status = 404)),
    security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn of_user(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    let mut query = call.query()?;
    let (limit, after) = (query.limit(), query.cursor::<u32>().map(Ordinal));
    query.finish()?;
    let user: UserId = id.parse().map_err(|_| Problem::not_found("user"))?;
    let app = call.caller.app();
    let of_user = api.store.devices_of(app, call.caller.env(), &[user]).await?.pop().unwrap_or_default();
    let ordinals: Vec<_> = of_user.iter_after(after).take(limit).collect();
    let last = ordinals.last().filter(|_| ordinals.len() == limit).map(|device| device.0.to_string());
    let names: Vec<_> = api.store.names(app, &ordinals).await?.into_iter().flatten().collect();
    let devices = api.store.devices(app, &names).await?;
    let views: Vec<_> = devices.iter().flatten().map(DeviceView::from).collect();
    query::page(&call.uri, &views, last)
}

/// Takes every field of a profile.
pub(crate) fn profile(fields: &mut Fields<'_>) -> Profile {
    let user_id = fields.parsed("user_id");
    let mut built_in = BTreeMap::new();
    for name in BuiltIn::TOLD.map(BuiltIn::as_str) {
        let Some(text) = fields.get::<String>(name, "a string") else { continue };
        within(fields, name, limits::text(&text));
        built_in.insert(name.to_owned(), text);
    }
    let tags: BTreeSet<String> = fields.get("tags", "a list of strings").unwrap_or_default();
    within(fields, "tags", limits::tags(&tags));
    let attributes = attributes(fields);
    Profile { user_id, built_in, tags, attributes, seen: None }
}

/// The app's own attributes, each kept as the JSON it was given as.
fn attributes(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let given: BTreeMap<String, Box<RawValue>> = fields.get("attributes", "an object").unwrap_or_default();
    within(fields, "attributes", limits::attributes(given.len()));
    for (name, value) in &given {
        let place = format!("attributes/{}", name.replace('~', "~0").replace('/', "~1"));
        let value = serde_json::from_str(value.get()).unwrap_or_default();
        within(fields, &place, limits::attribute(name, &value));
    }
    given.into_iter().map(|(name, value)| (name, value.get().to_owned())).collect()
}

/// Notes a mistake when something is beyond what a profile may hold.
fn within(fields: &mut Fields<'_>, place: &str, limit: Result<(), Beyond>) {
    if let Err(Beyond { code, reason }) = limit {
        fields.fault(place, code, reason);
    }
}
