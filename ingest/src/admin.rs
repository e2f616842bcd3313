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
use store::Patience;
use utoipa::ToSchema;

use crate::{
    api::Api,
    fields::Fields,
    gate::{Answer, Call},
    openapi::shape::{self, Shape, body},
    problem::{Code, Problem},
    send,
    view::{self, KeyView, Time},
};

/// Keys an app may have: two to rotate, for each of its environments and a few backends.
const KEYS_MAX: usize = 32;
/// Types that an app may name.
const TYPES_MAX: usize = 256;
/// Longest life of a key that ends: ten years.
const KEY_LIFE_MAX_S: u64 = 10 * 365 * 86_400;

#[derive(Serialize, ToSchema)]
#[schema(as = App)]
struct AppView {
    id: AppId,
    created_at: Time,
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

body! {
    /// An app, and what it may do at most.
    AppBody {
        required { "id": shape::of::<AppId>() }
        optional { "limits": limits_shape(), "uplink": uplink_shape() }
        example { "id": "shop", "limits": { "recipients_per_s": 1_000 } }
    }
}

fn limits_shape() -> Shape {
    let names = ["recipients_per_s", "recipients_burst"];
    shape::object(Vec::new(), names.map(|name| (name, limit_shape())).into()).into()
}

fn uplink_shape() -> Shape {
    let limits = ["device_per_s", "device_burst", "type_per_s"].map(|name| (name, limit_shape()));
    let rules = [("types", shape::list(send::kind(), 0..=TYPES_MAX)), ("peers", shape::flag())];
    shape::object(Vec::new(), limits.into_iter().chain(rules).collect()).into()
}

fn limit_shape() -> Shape {
    shape::number(1..=u32::MAX.into())
}

body! {
    /// What a key is good for: everything but `admin` when nobody says, for ever.
    KeyBody {
        required {}
        optional {
            "env": shape::usually(shape::of::<Env>(), "live"),
            "scopes": shape::list(shape::of::<Scope>(), 0..=Scope::PRODUCT.len() + 1),
            "expires_in_s": shape::number(1..=KEY_LIFE_MAX_S),
        }
        example { "env": "test", "scopes": ["messages:send", "messages:read"], "expires_in_s": 86_400 }
    }
}

/// Creates an app.
#[utoipa::path(
    post, path = "/v1/apps", operation_id = "create_app",
    request_body = AppBody, responses((status = 201, body = AppView), (status = 409)),
    security(("key" = [Scope::Admin.as_str()])),
)]
pub(crate) async fn create_app(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    if fields.lacks("id") {
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

body! {
    /// What an app may do from now on; what is not named stays as it is.
    AppPatch {
        required {}
        optional { "limits": limits_shape(), "uplink": uplink_shape() }
        example { "uplink": { "types": ["gps", "alert"], "peers": true } }
    }
}

/// An app, and what it may do.
#[utoipa::path(
    get, path = "/v1/apps/{app}", operation_id = "get_app",
    responses((status = 200, body = AppView), (status = 404)), security(("key" = [Scope::Admin.as_str()])),
)]
pub(crate) async fn get_app(State(api): State<Arc<Api>>, Path(app): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    Ok(Json(AppView::from(find(&api, &app).await?)).into_response())
}

/// Changes what an app may do.
#[utoipa::path(
    patch, path = "/v1/apps/{app}", operation_id = "change_app",
    request_body = Option<AppPatch>, responses((status = 200, body = AppView), (status = 404)),
    security(("key" = [Scope::Admin.as_str()])),
)]
pub(crate) async fn change_app(State(api): State<Arc<Api>>, Path(app): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Admin)?;
    call.query()?.finish()?;
    let mut patience = Patience::begin();
    loop {
        let before = find(&api, &app).await?;
        let mut fields = Fields::read(&call.body)?;
        let limits = limits(&mut fields, before.limits);
        let uplink = uplink_rules(&mut fields, before.uplink.clone());
        fields.finish()?;
        let after = App { limits, uplink, ..before.clone() };
        if api.store.replace_app(&before, after.clone()).await? {
            api.ring(Lane::Unicast, &Bell::Apps);
            return Ok(Json(AppView::from(after)).into_response());
        }
        patience.again().await?;
    }
}

/// A number that something may have per second, or at once.
fn limit(inner: &mut Fields<'_>, name: &str, usual: u32) -> u32 {
    let number = inner.number(name, 1, u64::from(u32::MAX)).and_then(|number| u32::try_from(number).ok());
    number.unwrap_or(usual)
}

fn limits(fields: &mut Fields<'_>, usual: Limits) -> Limits {
    let Some(mut inner) = fields.object("limits") else { return usual };
    let limits = Limits {
        recipients_per_s: limit(&mut inner, "recipients_per_s", usual.recipients_per_s),
        recipients_burst: limit(&mut inner, "recipients_burst", usual.recipients_burst),
    };
    fields.absorb(inner);
    limits
}

fn uplink_rules(fields: &mut Fields<'_>, usual: UplinkRules) -> UplinkRules {
    let Some(mut inner) = fields.object("uplink") else { return usual };
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

/// Makes a key of an app; its secret is shown this once.
#[utoipa::path(
    post, path = "/v1/apps/{app}/keys", operation_id = "create_key",
    request_body = Option<KeyBody>, responses((status = 201, body = KeyView), (status = 404), (status = 409)),
    security(("key" = [Scope::Admin.as_str()])),
)]
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
        id: shown.id,
        key: shown.token(),
        scopes,
        created_at: view::time(created_at),
        expires_at: expires_at.map(view::time),
    };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// Removes a key of an app.
///
/// Other nodes believe it a few seconds longer.
#[utoipa::path(
    delete, path = "/v1/apps/{app}/keys/{key}", operation_id = "remove_key",
    responses((status = 204), (status = 404)), security(("key" = [Scope::Admin.as_str()])),
)]
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
