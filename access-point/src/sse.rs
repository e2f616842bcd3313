//! Plain browsers: `GET /v1/stream` is a stream of server-sent events, `POST /v1/stream/ack` says how far the browser is,
//! `POST /v1/stream/up/{type}` sends something up, as `…/result/{id}` and `…/peer/{device}/{type}` do. Behind a stream is
//! a session like any other, which believes that it speaks MQTT: [`Events`] writes its packets as events. What a browser
//! posts comes over a connection of its own, and goes the same way as if a device had published it.
//!
//! One request a connection: streams never end, and posts are few.

mod answer;
mod events;
mod inlet;
mod request;
mod script;

use std::{io, time::Duration};

use bytes::Bytes;
use model::{Position, sign::DeviceToken};
use mqtt::{Format, Login, Reason, login::Mode, packet::Publish, topic};
use serde::Deserialize;
use tokio::time::timeout;

use self::{
    answer::Answer,
    request::{Asked, Request},
};
pub(crate) use self::{events::Events, inlet::Inlets};
use crate::{
    Site,
    auth::Refused,
    transport::{Stream, Transport},
};

/// The largest body of a post, in bytes.
const BODY_MAX_BYTES: usize = 32 * 1024;

/// How long a session may take to deal with what was posted: as long as the broker may, and a little.
const POST_MAX: Duration = Duration::from_secs(5);

/// The body of `POST /v1/stream/ack`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Ack {
    up_to: String,
}

/// Serves a request that has been read up to its head, and perhaps beyond. `None` when it was answered and is over; else
/// a session can be opened on what comes back.
///
/// # Errors
/// When the connection is broken.
pub(crate) async fn serve(site: &Site, mut stream: Stream, bytes: Vec<u8>) -> io::Result<Option<Transport>> {
    let outcome = match Request::parse(&bytes) {
        Ok(request) => respond(site, &mut stream, &bytes, request).await?,
        Err(answer) => Err(answer),
    };
    match outcome {
        Ok(opening) => Ok(Some(Transport::of_events(stream, Events::new(opening)))),
        Err(answer) => {
            stream.write_all(answer.written().as_bytes()).await?;
            Transport::from(stream).close().await;
            Ok(None)
        }
    }
}

/// A stream that may be opened.
pub(crate) struct Opening {
    login: Login,
    inlet: inlet::Place,
    /// Whether what is written counts as received.
    ack_auto: bool,
}

async fn respond(
    site: &Site,
    stream: &mut Stream,
    bytes: &[u8],
    request: Request,
) -> io::Result<Result<Opening, Answer>> {
    if request.asked == Asked::Preflight {
        return Ok(Err(Answer::PREFLIGHT));
    }
    let login = match check(site, &request).await {
        Ok(login) => login,
        Err(answer) => return Ok(Err(answer)),
    };
    if request.asked == Asked::Stream {
        let inlet = site.inlets.place(&login.app, &login.device);
        return Ok(Ok(Opening { login, inlet, ack_auto: request.ack_auto }));
    }
    let mut body = bytes[request.head_bytes..].to_vec();
    if request.body_bytes > BODY_MAX_BYTES {
        return Ok(Err(Answer::TOO_LARGE));
    }
    while body.len() < request.body_bytes {
        stream.read_more(&mut body).await?;
    }
    body.truncate(request.body_bytes);
    Ok(Err(post(site, &login, request, body).await))
}

/// Who asks, by the token.
async fn check(site: &Site, request: &Request) -> Result<Login, Answer> {
    let token = request.token.clone().unwrap_or_default();
    let (app, device) = DeviceToken::claimed(&token).ok_or(Answer::UNAUTHENTICATED)?;
    let after = request.after.as_deref().map_or(Ok(Position::default()), str::parse);
    let after = after.map_err(|_| Answer::BAD_POSITION)?;
    let login =
        Login { device, app, token, after, format: Format::Envelope, coding: None, network: None, mode: Mode::Push };
    match site.apps.check(&login, site.deps.clock.as_ref()).await {
        Ok(_) => Ok(login),
        Err(Refused::ForGood(..)) => Err(Answer::UNAUTHENTICATED),
        Err(Refused::ForNow(_) | Refused::Superseded) => Err(Answer::LATER),
    }
}

/// Brings what was posted to the session of the browser's stream.
async fn post(site: &Site, login: &Login, request: Request, body: Vec<u8>) -> Answer {
    let Some(inlet) = site.inlets.get(&login.app, &login.device) else { return Answer::NO_STREAM };
    let Asked::Up(rest) = request.asked else {
        let ack = serde_json::from_slice::<Ack>(&body).ok();
        let Some(up_to) = ack.and_then(|ack| ack.up_to.parse().ok()) else { return Answer::BAD_BODY };
        inlet.acknowledge(up_to);
        return Answer::DONE;
    };
    let publish = Publish {
        qos: 1,
        content_type: request.content_type,
        ..Publish::new(topic::within(&login.app, &rest), Bytes::from(body))
    };
    let Some(answered) = inlet.publish(publish) else { return Answer::TOO_MANY };
    match timeout(POST_MAX, answered).await {
        Ok(Ok(Reason::QUOTA_EXCEEDED)) => Answer::TOO_MANY,
        Ok(Ok(Reason::NOT_AUTHORIZED)) => Answer::FORBIDDEN,
        Ok(Ok(Reason::BAD_PAYLOAD)) => Answer::BAD_BODY,
        Ok(Ok(reason)) if !reason.is_error() => Answer::DONE,
        _ => Answer::LATER,
    }
}
