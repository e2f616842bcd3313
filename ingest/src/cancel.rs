//! `POST /v1/messages/{id}/cancel`: whoever has not been sent the message will not get it.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use model::{Bell, Lane, MessageId, Scope, Status};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    api::Api,
    fields::Fields,
    gate::{Answer, Call, Concerns},
    messages::Known,
    openapi::shape::{self, body},
    problem::{Code, Problem},
};

#[derive(Serialize, ToSchema)]
#[schema(as = Cancelled)]
struct CancelView {
    id: MessageId,
    status: Status,
    stopped: u64,
}

body! {
    /// Nothing but `false` is supported yet.
    CancelBody {
        required {}
        optional { "recall": shape::usually(shape::flag(), false) }
        example { "recall": false }
    }
}

/// Keeps a message from whoever was not sent it yet.
///
/// A broadcast takes the scope `messages:send:broadcast` too.
#[utoipa::path(
    post, path = "/v1/messages/{id}/cancel", operation_id = "cancel_message",
    request_body = Option<CancelBody>, responses((status = 200, body = CancelView), (status = 404), (status = 409)),
    security(("key" = [Scope::Send.as_str()])),
)]
pub(crate) async fn cancel(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Send)?;
    let mut fields = Fields::read(&call.body)?;
    if fields.get("recall", "true or false").unwrap_or(false) {
        fields.fault("recall", "not_supported", "`recall` is not supported yet");
    }
    fields.finish()?;
    let known = Known::find(&api, &call, &id).await?;
    if known.entry.lane == Lane::Broadcast {
        call.caller.require(Scope::SendBroadcast)?;
    }
    match known.status(api.clock.now()) {
        Status::Completed | Status::Expired | Status::Failed => {
            Err(Problem::new(Code::AlreadyCompleted, "nobody is left from whom it could be kept"))
        }
        Status::Queued | Status::Delivering | Status::Cancelled => stop(&api, &call, known.entry.id).await,
    }
}

async fn stop(api: &Arc<Api>, call: &Call, message: MessageId) -> Answer {
    let app = call.caller.app();
    let cancelled = api.store.cancel(app, message, api.clock.now()).await?;
    let cancelled = cancelled.ok_or_else(|| Problem::not_found("message"))?;
    // In every lane: a bell of one may be late behind the many of a burst.
    let bell = Bell::Cancelled { app: app.clone(), message };
    Lane::ALL.into_iter().for_each(|lane| api.ring(lane, &bell));
    let view = CancelView { id: message, status: Status::Cancelled, stopped: cancelled.stopped };
    let mut response: Response = Json(view).into_response();
    response.extensions_mut().insert(Concerns(message));
    Ok(response)
}
