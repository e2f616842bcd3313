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

use crate::{
    api::Api,
    devices,
    fields::Fields,
    gate::{Answer, Call},
    problem::Problem,
    view,
};

/// Shortest life of a token: time enough to connect.
const TTL_MIN_S: u64 = 60;
/// Life of a token when nobody says: a day.
const TTL_DEFAULT_S: u64 = 86_400;
/// Longest life of a token: a year; what is longer should be renewed.
const TTL_MAX_S: u64 = 365 * 86_400;

#[derive(Serialize)]
struct TokenView {
    token: String,
    expires_at: String,
    client_id: DeviceId,
    username: AppId,
}

#[derive(Serialize)]
struct RevokedView {
    generation: u32,
}

/// `POST /v1/devices/{id}/tokens`: what the device gives as client id, user name and password.
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

/// `DELETE /v1/devices/{id}/tokens`: none made so far is good any more, and a session opened with one ends.
pub(crate) async fn revoke(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let device = devices::find(&api, &call, &id).await?;
    let app = call.caller.app();
    let generation = api.store.revoke(app, &device.id).await?.ok_or_else(|| Problem::not_found("device"))?;
    api.ring(Lane::Unicast, &Bell::Revoked { app: app.clone(), device: device.ordinal, generation });
    Ok(Json(RevokedView { generation }).into_response())
}
