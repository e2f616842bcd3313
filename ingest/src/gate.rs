//! What every request passes: a name for the journey, a place among those under way, a key, a whole body, a deadline.

use std::{sync::Arc, time::Duration};

use axum::{
    Json,
    body::{Body, HttpBody as _},
    extract::{FromRequestParts, MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use model::{AppId, MessageId, TraceParent, id::RequestId};
use serde::Serialize;
use tokio::time::Instant;

use crate::{
    api::Api,
    auth::Caller,
    limit,
    places::Place,
    problem::{Code, Problem},
    query::Query,
};

/// A body must be here this long after its head.
const BODY_TIMEOUT: Duration = Duration::from_secs(15);
/// A key must be checked in this time.
const AUTH_TIMEOUT: Duration = Duration::from_secs(3);
/// A request that is here must be answered in this time.
const DEADLINE: Duration = Duration::from_secs(8);
/// An upload that is read line by line must end in this time: it holds a place.
const UPLOAD_DEADLINE: Duration = Duration::from_hours(1);
/// Largest body of a batch: 500 messages of 2 KiB.
const BATCH_MAX_BYTES: usize = 1024 * 1024;
/// Longest `X-Request-Id` that is repeated.
const REQUEST_ID_MAX: usize = 128;

/// What a handler answers.
pub(crate) type Answer = Result<Response, Problem>;

/// Answers with what lies at `place` from now on.
///
/// # Errors
/// When the place cannot be written down.
pub(crate) fn located(status: StatusCode, place: String, view: impl Serialize) -> Answer {
    let place = HeaderValue::try_from(place).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    Ok((status, [(header::LOCATION, place)], Json(view)).into_response())
}

/// What names a request in answers and logs.
#[derive(Clone)]
pub(crate) struct Journey {
    /// The id that problems carry.
    pub(crate) request_id: Arc<str>,
    /// The trace it belongs to, with our step as parent.
    pub(crate) trace: TraceParent,
}

/// A request that has passed the gate.
#[derive(Clone)]
pub(crate) struct Call {
    /// Who asks.
    pub(crate) caller: Caller,
    /// How it is named.
    pub(crate) journey: Journey,
    /// Its head.
    pub(crate) headers: HeaderMap,
    /// Where it is addressed to.
    pub(crate) uri: Uri,
    /// Its whole body.
    pub(crate) body: Bytes,
}

impl Call {
    /// Its parameters.
    ///
    /// # Errors
    /// When they are not form-encoded.
    pub(crate) fn query(&self) -> Result<Query, Problem> {
        Query::read(&self.uri)
    }
}

impl<S: Sync> FromRequestParts<S> for Call {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.remove().ok_or_else(|| Problem::new(Code::Internal, "this route has no gate"))
    }
}

/// Noted by a handler for the request's log line.
#[derive(Clone, Copy)]
pub(crate) struct Concerns(pub(crate) MessageId);

/// The outermost step: names the request, turns problems into bodies, writes one log line.
pub(crate) async fn journey(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let journey = begin(&api, request.headers());
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", MatchedPath::as_str).to_owned();
    request.extensions_mut().insert(journey.clone());
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Problem>().or_else(|| foreign_refusal(&response));
    if let Some(problem) = &problem {
        let bare = std::mem::replace(&mut response, problem.answer(&journey.request_id));
        keep(bare, &mut response);
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&journey.request_id) {
        headers.insert("x-request-id", id);
    }
    if let Ok(trace) = HeaderValue::from_str(&journey.trace.to_string()) {
        headers.insert("traceparent", trace);
    }
    let took = started.elapsed();
    api.metrics.answered(&route, response.status().as_u16(), took);
    let extensions = response.extensions();
    tracing::info!(
        %method,
        route,
        status = response.status().as_u16(),
        code = problem.as_ref().map(|problem| problem.code().as_str()),
        app = extensions.get::<AppId>().map(AppId::as_str),
        message.id = extensions.get::<Concerns>().map(|concerns| tracing::field::display(concerns.0)),
        trace.id = journey.trace.id(),
        request.id = &*journey.request_id,
        took_ms = took.as_millis(),
        "request answered"
    );
    response
}

fn begin(api: &Api, headers: &HeaderMap) -> Journey {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let legal = |id: &&str| (1..=REQUEST_ID_MAX).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_graphic());
    let request_id = text("x-request-id")
        .filter(legal)
        .map_or_else(|| RequestId::new(api.clock.now(), rand::random()).to_string().into(), Arc::from);
    let theirs = text("traceparent").and_then(|value| value.parse::<TraceParent>().ok());
    let ours = TraceParent::start(rand::random(), rand::random());
    let trace = theirs.map_or(ours, |theirs| TraceParent { parent_id: ours.parent_id, ..theirs });
    Journey { request_id, trace }
}

/// A refusal that axum wrote as plain text, in our words.
fn foreign_refusal(response: &Response) -> Option<Problem> {
    let status = response.status();
    let typed = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if !(status.is_client_error() || status.is_server_error()) || typed.is_some_and(|t| !t.starts_with("text/plain")) {
        return None;
    }
    let code = match status.as_u16() {
        404 => Code::NotFound,
        405 => Code::MethodNotAllowed,
        413 => Code::PayloadTooLarge,
        400..500 => Code::InvalidRequest,
        _ => Code::Internal,
    };
    Some(Problem::new(code, format!("{} {}", status.as_u16(), status.canonical_reason().unwrap_or_default())))
}

/// What a bare refusal carried besides its body.
fn keep(bare: Response, response: &mut Response) {
    let (parts, _) = bare.into_parts();
    for (name, value) in parts.headers {
        if let Some(name) = name.filter(|name| !response.headers().contains_key(name) && name != header::CONTENT_LENGTH)
        {
            response.headers_mut().insert(name, value);
        }
    }
    *response.extensions_mut() = parts.extensions;
}

/// A place among the requests under way, and who asks.
async fn enter(api: &Api, headers: &HeaderMap) -> Result<(Place, Caller), Problem> {
    let full = || Problem::new(Code::Overloaded, "more requests are under way than this node takes");
    let own = || Problem::new(Code::TooManyRequests, "this app has more requests under way than it leaves places free");
    let place = api.places.enter().ok_or_else(full)?;
    let authenticated = api.keys.caller(headers, &api.store, &*api.clock);
    let caller = match tokio::time::timeout(AUTH_TIMEOUT, authenticated).await {
        Ok(caller) => caller?,
        Err(_) => return Err(Problem::new(Code::StoreUnavailable, "the key could not be checked in time")),
    };
    let place = place.held_by(caller.app()).ok_or_else(own)?;
    Ok((place, caller))
}

/// The step before every handler of the API: a place, a key, a body, a deadline.
pub(crate) async fn gate(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (_place, caller) = match enter(&api, request.headers()).await {
        Ok(entered) => entered,
        Err(problem) => return problem.into_response(),
    };
    let app = caller.app().clone();
    let limits = caller.app.limits;
    let mut response = match admit(&api, caller, request).await {
        Ok(request) => match tokio::time::timeout(DEADLINE, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::new(Code::DeadlineExceeded, "whether it was done is unknown").into_response(),
        },
        Err(problem) => problem.into_response(),
    };
    if response.extensions().get::<Problem>().is_some_and(|problem| problem.code() == Code::QuotaExceeded) {
        limit::tell_spent(limits, response.headers_mut());
    }
    response.extensions_mut().insert(app);
    response
}

/// The same step before handlers that read their body themselves, line by line: as long as lines come, they may.
pub(crate) async fn upload_gate(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let (_place, caller) = match enter(&api, request.headers()).await {
        Ok(entered) => entered,
        Err(problem) => return problem.into_response(),
    };
    let encoding = request.headers().get(header::CONTENT_ENCODING);
    if encoding.is_some_and(|encoding| encoding != "identity") {
        return Problem::new(Code::UnsupportedMediaType, "send it uncompressed").into_response();
    }
    let app = caller.app().clone();
    let (mut parts, body) = request.into_parts();
    let mut response = match pass(&mut parts, caller, Bytes::new()) {
        Ok(()) => match tokio::time::timeout(UPLOAD_DEADLINE, next.run(Request::from_parts(parts, body))).await {
            Ok(response) => response,
            Err(_) => Problem::new(Code::DeadlineExceeded, "divide the upload").into_response(),
        },
        Err(problem) => problem.into_response(),
    };
    response.extensions_mut().insert(app);
    response
}

/// Reads the body, now that it is known who sends it.
async fn admit(api: &Api, caller: Caller, request: Request) -> Result<Request, Problem> {
    let (mut parts, body) = request.into_parts();
    let batch = parts.uri.path().ends_with("/batch");
    let max = if batch { BATCH_MAX_BYTES } else { api.config.body_max_bytes };
    let body = whole(body, &parts.headers, max).await?;
    pass(&mut parts, caller, body)?;
    Ok(Request::from_parts(parts, Body::empty()))
}

/// Notes for the handler who asks for what.
fn pass(parts: &mut Parts, caller: Caller, body: Bytes) -> Result<(), Problem> {
    let journey = parts.extensions.get::<Journey>().cloned();
    let journey = journey.ok_or_else(|| Problem::new(Code::Internal, "this route has no journey"))?;
    let (headers, uri) = (parts.headers.clone(), parts.uri.clone());
    parts.extensions.insert(Call { caller, journey, headers, uri, body });
    Ok(())
}

async fn whole(body: Body, headers: &HeaderMap, max: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::PayloadTooLarge, format!("the body may have {max} bytes"));
    if body.size_hint().lower() > max as u64 {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max).collect());
    let body = match collected.await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => return Err(too_large()),
        Ok(Err(_)) => return Err(Problem::new(Code::MalformedJson, "the body broke off")),
        Err(_) => {
            let detail = format!("the whole body must be here after {} s", BODY_TIMEOUT.as_secs());
            return Err(Problem::new(Code::RequestTimeout, detail));
        }
    };
    if !body.is_empty() && !is_plain_json(headers) {
        return Err(Problem::new(Code::UnsupportedMediaType, "say `Content-Type: application/json`, uncompressed"));
    }
    Ok(body)
}

/// JSON, or silence about it; not compressed, so that a small body cannot grow.
fn is_plain_json(headers: &HeaderMap) -> bool {
    let named = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim().to_ascii_lowercase());
    let plain = named(header::CONTENT_ENCODING).is_none_or(|encoding| encoding == "identity");
    let kind = named(header::CONTENT_TYPE);
    let kind = kind.as_deref().map(|kind| kind.split(';').next().unwrap_or_default().trim_end());
    plain && kind.is_none_or(|kind| kind == "application/json" || kind.ends_with("+json"))
}
