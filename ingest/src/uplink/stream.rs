//! `GET /v1/uplink/stream`: what devices send up as it comes, as server-sent events, from where one left off.

use std::{convert::Infallible, io::Write as _, pin::pin, sync::Arc, time::Duration};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderName, header},
    response::IntoResponse,
};
use bytes::Bytes;
use futures_util::stream::unfold;
use model::{AppId, Env, Scope, Uplink, UplinkId};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{Filter, UplinkView};
use crate::{
    api::Api,
    gate::{Answer, Call},
    listen::Pace,
    places::Place,
    problem::{Code, Problem},
};

/// Streams at the same time: each asks the store now and then.
pub(crate) const STREAMS_MAX: usize = 256;
/// Uplinks that are written together.
const PAGE_MAX: usize = 100;
/// What another node has kept is found this late at most; what this one has kept is told at once.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often a comment is written while there is nothing to tell: proxies close what is silent, and so does this node.
const BEAT_EVERY: Duration = Duration::from_secs(15);
/// A stream ends after this time, to begin again where it was, maybe at a node that came since.
const LIFE: Duration = Duration::from_mins(10);
/// How long clients wait before they begin again.
const RETRY: &str = "retry: 1000\n\n";

/// Somebody who is told what comes.
struct Follower {
    api: Arc<Api>,
    pace: Pace,
    /// Of the request, with the key that it showed.
    headers: HeaderMap,
    of: (AppId, Env),
    kept: Arc<Notify>,
    kind: Option<String>,
    after: Option<UplinkId>,
    ends_at: Instant,
    beat_at: Instant,
    begun: bool,
    _place: Place,
}

/// What devices send up as it comes, as server-sent events.
///
/// The data of an event is an `Uplink`, its id is the uplink's. It ends now and then, to begin again where it was.
#[utoipa::path(
    get, path = "/v1/uplink/stream", operation_id = "follow_uplinks",
    params(Filter, ("Last-Event-ID" = Option<UplinkId>, Header, description = "The same as `after`, and counts before it.")),
    responses((status = 200, body = String, content_type = "text/event-stream",
               headers(("Cache-Control"), ("X-Accel-Buffering")))),
    security(("key" = [Scope::Uplink.as_str()])),
)]
pub(crate) async fn follow(State(api): State<Arc<Api>>, Extension(pace): Extension<Pace>, call: Call) -> Answer {
    call.caller.require(Scope::Uplink)?;
    let mut query = call.query()?;
    let (kind, after) = (query.take("type"), query.parsed::<UplinkId>("after"));
    query.finish()?;
    let last = call.headers.get("last-event-id").and_then(|last| last.to_str().ok()?.parse().ok());
    let full = || Problem::new(Code::Overloaded, "more streams are open than this node keeps");
    let own = || Problem::new(Code::TooManyRequests, "this app has more streams open than it leaves to others");
    let place = api.followers.enter().ok_or_else(full)?.held_by(call.caller.app()).ok_or_else(own)?;
    let (now, of) = (Instant::now(), (call.caller.app().clone(), call.caller.env()));
    let follower = Follower {
        kept: api.kept.of(&of),
        api,
        pace,
        headers: call.headers,
        of,
        kind,
        after: last.or(after),
        ends_at: now + LIFE,
        beat_at: now + BEAT_EVERY,
        begun: false,
        _place: place,
    };
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::from_stream(unfold(follower, Follower::next))).into_response())
}

impl Follower {
    /// What there is to tell next; nothing when the stream ends.
    async fn next(mut self) -> Option<(Result<Bytes, Infallible>, Self)> {
        if !std::mem::replace(&mut self.begun, true) {
            return Some((Ok(Bytes::from_static(RETRY.as_bytes())), self));
        }
        loop {
            if Instant::now() >= self.ends_at || self.api.stopping.is_cancelled() || !self.may_go_on().await {
                return None;
            }
            let (api, kept) = (Arc::clone(&self.api), Arc::clone(&self.kept));
            let mut kept = pin!(kept.notified());
            kept.as_mut().enable();
            let found = self.look().await;
            self.pace.go_on();
            if let Some(last) = found.last() {
                self.after = Some(last.id);
                self.beat_at = Instant::now() + BEAT_EVERY;
                return Some((Ok(written(&found)), self));
            }
            if Instant::now() >= self.beat_at {
                self.beat_at = Instant::now() + BEAT_EVERY;
                return Some((Ok(Bytes::from_static(b": hb\n\n")), self));
            }
            tokio::select! {
                () = kept => {}
                () = sleep(LOOK_EVERY) => {}
                () = api.stopping.cancelled() => {}
            }
        }
    }

    /// Whether the key is still one for this; while nobody can say, it is.
    async fn may_go_on(&self) -> bool {
        let Self { api, headers, .. } = self;
        let caller = api.keys.caller(headers, &api.store, &*api.clock).await;
        match caller.and_then(|caller| caller.require(Scope::Uplink)) {
            Ok(()) => true,
            Err(problem) => problem.status().is_server_error(),
        }
    }

    async fn look(&self) -> Vec<Uplink> {
        let Self { api, of: (app, env), kind, after, .. } = self;
        let found = api.store.uplinks_after(app, *env, kind.as_deref(), *after, PAGE_MAX).await;
        found.unwrap_or_else(|error| {
            tracing::debug!(%app, %error, "uplinks cannot be read; later");
            Vec::new()
        })
    }
}

fn written(uplinks: &[Uplink]) -> Bytes {
    let mut out = Vec::new();
    for uplink in uplinks {
        let Ok(mut data) = serde_json::to_string(&UplinkView::from(uplink)) else { continue };
        // A device's JSON is passed on as it was written, and may have lines.
        data.retain(|letter| !matches!(letter, '\n' | '\r'));
        let _ = write!(out, "event: uplink\nid: {}\ndata: {data}\n\n", uplink.id);
    }
    out.into()
}
