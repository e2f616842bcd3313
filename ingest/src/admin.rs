//! Apps and their keys, for whoever runs the platform. Secrets are shown once, in the answer that made them.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use model::{App, AppId, Bell, Env, Key, KeyId, Lane, Limits, Scope, sign, sign::ApiKey};
use serde::Serialize;

use crate::{
    api::Api,
    fields::Fields,
    gate::{Answer, Call},
    problem::{Code, Problem},
    view::{self, KeyView},
};

/// Keys an app may have: two to rotate, for each of its environments and a few backends.
const KEYS_MAX: usize = 32;
/// Longest life of a key that ends: ten years.
const KEY_LIFE_MAX_S: u64 = 10 * 365 * 86_400;

#[derive(Serialize)]
struct AppView {
    id: AppId,
    created_at: String,
    limits: Limits,
    device_secret: String,
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
    let limits = limits(&mut fields);
    fields.finish()?;
    let id = id.ok_or_else(|| Problem::fault("#/id", "missing", "give the app a name"))?;
    let created_at = api.clock.now();
    let app = App { id: id.clone(), created_at, device_secret: sign::secret(rand::random()), limits };
    if !api.store.create_app(app.clone()).await? {
        return Err(Problem::new(Code::AlreadyExists, "there is an app of this name"));
    }
    api.ring(Lane::Unicast, &Bell::Apps);
    let view = AppView { id, created_at: view::time(created_at), limits, device_secret: app.device_secret };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

fn limits(fields: &mut Fields<'_>) -> Limits {
    let usual = Limits::default();
    let Some(raw) = fields.take("limits") else { return usual };
    let mut inner = Fields::of(raw, "#/limits");
    let mut limit = |name, usual| {
        let number = inner.number(name, 1, u64::from(u32::MAX)).and_then(|number| u32::try_from(number).ok());
        number.unwrap_or(usual)
    };
    let limits = Limits {
        recipients_per_s: limit("recipients_per_s", usual.recipients_per_s),
        recipients_burst: limit("recipients_burst", usual.recipients_burst),
    };
    fields.absorb(inner);
    limits
}

/// `POST /v1/apps/{app}/keys`.
pub(crate) async fn create_key(State(api): State<Arc<Api>>, Path(app): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    let app = find(&api, &app).await?;
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
    let app = find(&api, &app).await?;
    let id: KeyId = key.parse().map_err(|_| missing())?;
    api.store.key(&id).await?.filter(|key| key.app == app).ok_or_else(missing)?;
    api.store.remove_key(&id).await?;
    api.keys.forget(&id);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn find(api: &Api, id: &str) -> Result<AppId, Problem> {
    let missing = || Problem::not_found("app");
    let id: AppId = id.parse().map_err(|_| missing())?;
    api.store.app(&id).await?.map(|app| app.id).ok_or_else(missing)
}
