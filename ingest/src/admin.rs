//! Apps and their keys, for whoever runs the platform. Secrets are shown once, in the answer that made them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use model::{App, AppId, Bell, Env, Key, KeyId, Lane, Limits, Scope, UplinkRules, sign, sign::ApiKey};
use serde::Serialize;

use crate::{
    api::Api,
    fields::Fields,
    gate::{Answer, Call},
    problem::{Code, Problem},
    send,
    view::{self, KeyView},
};

/// Keys an app may have: two to rotate, for each of its environments and a few backends.
const KEYS_MAX: usize = 32;
/// Types that an app may name.
const TYPES_MAX: usize = 256;
/// Longest life of a key that ends: ten years.
const KEY_LIFE_MAX_S: u64 = 10 * 365 * 86_400;

#[derive(Serialize)]
struct AppView {
    id: AppId,
    created_at: String,
    limits: Limits,
    uplink: UplinkRules,
    /// Shown once, to whoever has made the app.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_secret: Option<String>,
}

impl From<App> for AppView {
    fn from(app: App) -> Self {
        let App { id, created_at, limits, uplink, device_secret: _ } = app;
        Self { id, created_at: view::time(created_at), limits, uplink, device_secret: None }
    }
}

/// `POST /v1/apps`.
pub(crate) async fn create_app(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    if !fields.has("id") {
        fields.fault("id", "missing", "give the app a name");
    }
    let id: Option<AppId> = fields.parsed("id");
    let limits = limits(&mut fields, Limits::default());
    let uplink = uplink_rules(&mut fields, UplinkRules::default());
    fields.finish()?;
    let id = id.ok_or_else(|| Problem::fault("#/id", "missing", "give the app a name"))?;
    let created_at = api.clock.now();
    let app = App { id, created_at, device_secret: sign::secret(rand::random()), limits, uplink };
    if !api.store.create_app(app.clone()).await? {
        return Err(Problem::new(Code::AlreadyExists, "there is an app of this name"));
    }
    api.ring(Lane::Unicast, &Bell::Apps);
    let device_secret = Some(app.device_secret.clone());
    let view = AppView { device_secret, ..AppView::from(app) };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// `GET /v1/apps/{app}`.
pub(crate) async fn get_app(State(api): State<Arc<Api>>, Path(app): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    Ok(Json(AppView::from(find(&api, &app).await?)).into_response())
}

/// `PATCH /v1/apps/{app}`: what is not named stays as it is.
pub(crate) async fn change_app(State(api): State<Arc<Api>>, Path(app): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    let mut app = find(&api, &app).await?;
    let mut fields = Fields::read(&call.body)?;
    app.limits = limits(&mut fields, app.limits);
    app.uplink = uplink_rules(&mut fields, app.uplink);
    fields.finish()?;
    api.store.replace_app(app.clone()).await?;
    api.ring(Lane::Unicast, &Bell::Apps);
    Ok(Json(AppView::from(app)).into_response())
}

/// A number that something may have per second, or at once.
fn limit(inner: &mut Fields<'_>, name: &str, usual: u32) -> u32 {
    let number = inner.number(name, 1, u64::from(u32::MAX)).and_then(|number| u32::try_from(number).ok());
    number.unwrap_or(usual)
}

fn limits(fields: &mut Fields<'_>, usual: Limits) -> Limits {
    let Some(raw) = fields.take("limits") else { return usual };
    let mut inner = Fields::of(raw, "#/limits");
    let limits = Limits {
        recipients_per_s: limit(&mut inner, "recipients_per_s", usual.recipients_per_s),
        recipients_burst: limit(&mut inner, "recipients_burst", usual.recipients_burst),
    };
    fields.absorb(inner);
    limits
}

fn uplink_rules(fields: &mut Fields<'_>, usual: UplinkRules) -> UplinkRules {
    let Some(raw) = fields.take("uplink") else { return usual };
    let mut inner = Fields::of(raw, "#/uplink");
    let rules = UplinkRules {
        types: types(&mut inner, usual.types),
        device_per_s: limit(&mut inner, "device_per_s", usual.device_per_s),
        device_burst: limit(&mut inner, "device_burst", usual.device_burst),
        type_per_s: limit(&mut inner, "type_per_s", usual.type_per_s),
        peers: inner.get("peers", "true or false").unwrap_or(usual.peers),
    };
    fields.absorb(inner);
    rules
}

/// The types that devices may send; `null` for any.
fn types(inner: &mut Fields<'_>, usual: Option<BTreeSet<String>>) -> Option<BTreeSet<String>> {
    if !inner.has("types") {
        return usual;
    }
    let types: Vec<String> = inner.list("types", TYPES_MAX)?;
    if let Some(at) = types.iter().position(|kind| !send::is_kind(kind)) {
        inner.fault(&format!("types/{at}"), "invalid_format", "must be [a-z0-9_-]{1,32}");
    }
    Some(types.into_iter().collect())
}

/// `POST /v1/apps/{app}/keys`.
pub(crate) async fn create_key(State(api): State<Arc<Api>>, Path(app): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    let app = find(&api, &app).await?.id;
    let mut fields = Fields::read(&call.body)?;
    let env: Env = fields.parsed("env").unwrap_or(Env::Live);
    let scopes: Vec<Scope> = fields.list("scopes", Scope::PRODUCT.len() + 1).unwrap_or_else(|| Scope::PRODUCT.to_vec());
    let life_s = fields.number("expires_in_s", 1, KEY_LIFE_MAX_S);
    fields.finish()?;
    if api.store.keys(&app).await?.len() >= KEYS_MAX {
        return Err(Problem::new(Code::AlreadyExists, format!("an app may have {KEYS_MAX} keys: remove one first")));
    }
    let created_at = api.clock.now();
    let expires_at = life_s.map(|secs| created_at + Duration::from_secs(secs));
    let shown = ApiKey { id: KeyId::new(env, created_at, rand::random()), secret: sign::secret(rand::random()) };
    let digest = sign::digest(&shown.secret);
    let key = Key { id: shown.id, app, digest, scopes: scopes.clone(), created_at, expires_at };
    api.store.put_key(key).await?;
    let view = KeyView {
        id: shown.id.to_string(),
        key: shown.token(),
        scopes,
        created_at: view::time(created_at),
        expires_at: expires_at.map(view::time),
    };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// `DELETE /v1/apps/{app}/keys/{key}`: other nodes believe the key a few seconds longer.
pub(crate) async fn remove_key(
    State(api): State<Arc<Api>>,
    Path((app, key)): Path<(String, String)>,
    call: Call,
) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    let missing = || Problem::not_found("key");
    let app = find(&api, &app).await?.id;
    let id: KeyId = key.parse().map_err(|_| missing())?;
    api.store.key(&id).await?.filter(|key| key.app == app).ok_or_else(missing)?;
    api.store.remove_key(&id).await?;
    api.keys.forget(&id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn find(api: &Api, id: &str) -> Result<App, Problem> {
    let missing = || Problem::not_found("app");
    let id: AppId = id.parse().map_err(|_| missing())?;
    api.store.app(&id).await?.ok_or_else(missing)
}
