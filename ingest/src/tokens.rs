//! What a device shows when it connects.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use model::{AppId, Bell, DeviceId, Lane, Scope, sign::DeviceToken};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::Api,
    devices,
    fields::Fields,
    gate::{Answer, Call},
    openapi::shape::{self, body},
    problem::Problem,
    view::{self, Time},
};

/// Shortest life of a token: time enough to connect.
const TTL_MIN_S: u64 = 60;
/// Life of a token when nobody says: a day.
const TTL_DEFAULT_S: u64 = 86_400;
/// Longest life of a token: a year; what is longer should be renewed.
const TTL_MAX_S: u64 = 365 * 86_400;

#[derive(Serialize, ToSchema)]
#[schema(as = DeviceToken)]
struct TokenView {
    token: String,
    expires_at: Time,
    client_id: DeviceId,
    username: AppId,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Revocation)]
struct RevokedView {
    generation: u32,
}

body! {
    /// How long a token is good for.
    TokenBody {
        required {}
        optional { "ttl_s": shape::usually(shape::number(TTL_MIN_S..=TTL_MAX_S), TTL_DEFAULT_S) }
        example { "ttl_s": 3_600 }
    }
}

/// What a device gives as client id, user name and password.
#[utoipa::path(
    post, path = "/v1/devices/{id}/tokens", operation_id = "mint_token",
    request_body = Option<TokenBody>, responses((status = 201, body = TokenView), (status = 404)),
    security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn mint(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    let ttl_s = fields.number("ttl_s", TTL_MIN_S, TTL_MAX_S).unwrap_or(TTL_DEFAULT_S);
    fields.finish()?;
    let device = devices::find(&api, &call, &id).await?;
    let app = &call.caller.app;
    let expires_at = api.clock.now() + Duration::from_secs(ttl_s);
    let claims = DeviceToken {
        sub: device.id.clone(),
        app: app.id.clone(),
        generation: device.generation,
        exp: expires_at.as_millis() / 1_000,
        env: Some(device.env),
    };
    let view = TokenView {
        token: claims.sign(&app.device_secret),
        expires_at: view::time(expires_at),
        client_id: device.id,
        username: app.id.clone(),
    };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// No token made so far is good any more, and a session opened with one ends.
#[utoipa::path(
    delete, path = "/v1/devices/{id}/tokens", operation_id = "revoke_tokens",
    responses((status = 200, body = RevokedView), (status = 404)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn revoke(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let device = devices::find(&api, &call, &id).await?;
    let app = call.caller.app();
    let generation = api.store.revoke(app, &device.id).await?.ok_or_else(|| Problem::not_found("device"))?;
    api.ring(Lane::Unicast, &Bell::Revoked { app: app.clone(), device: device.ordinal, generation });
    Ok(Json(RevokedView { generation }).into_response())
}
