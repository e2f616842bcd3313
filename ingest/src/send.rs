//! `POST /v1/messages`: from a request to a message that the broker and the store both keep.

mod class;
mod commit;
mod request;
mod target;
mod terms;

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    body::Body,
    extract::State,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use model::{App, Envelope, Lane, Message, MessageId, Priority, Queue, Scope, Status, Terms, Timestamp};
use serde::Serialize;
use serde_json::{Value, value::RawValue};
use store::{Entry, Once};
use utoipa::{
    IntoParams, ToSchema,
    openapi::path::{Parameter, ParameterIn},
};

use self::{
    commit::{Outcome, commit, open, promised},
    request::{Request, SendBody},
};
pub(crate) use self::{
    request::{To, is_kind, kind, to},
    target::Target,
};
use crate::{
    api::Api,
    auth::Caller,
    fields::Fields,
    gate::{Answer, Call, Concerns},
    limit::Budget,
    once::{self, Entered},
    openapi::shape::{self, body},
    problem::{self, Code, Problem},
    view::{self, SentView},
};

/// Messages in a batch.
const BATCH_MAX: usize = 500;

/// Why something that needs an expression is refused.
pub(crate) const NO_FILTER: &str = "this installation has no filter tier";

/// A message that lacks only its confirmations.
struct Prepared {
    app: Arc<App>,
    queue: Queue,
    /// `None` when nobody is to get it.
    envelope: Option<Envelope>,
    entry: Entry,
    once: Option<Once>,
    answer: String,
    /// `None` when the first request with its key has spent it.
    budget: Option<Budget>,
    /// Keeps the same idempotency key out until this send is answered.
    _entered: Option<Entered>,
}

/// What is left to do for a request.
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large kind, and none is kept")]
enum Next {
    Commit(Prepared),
    /// Nothing but to say again what came of the first request with its key.
    Answer(Outcome),
}

/// Whether it is only to be estimated whom a message would be for.
pub(crate) enum DryRun {}

impl IntoParams for DryRun {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let flag = shape::usually(shape::flag(), false);
        vec![shape::parameter(ParameterIn::Query, "dry_run", flag, "Answer whom it would be for, and send nothing.")]
    }
}

body! {
    /// Messages, each for itself: with an `idempotency_key` of its own.
    BatchBody {
        required { "messages": shape::list(shape::of::<SendBody>(), 1..=BATCH_MAX) }
        optional {}
        example { "messages": [{ "to": { "devices": ["dev-1"] }, "payload": { "title": "Shipped" }, "idempotency_key": "order-8812" }] }
    }
}

/// Sends one message.
///
/// 202 means that the broker and the store keep it durably. What is sent to all, by a filter or to a saved filter
/// takes the scope `messages:send:broadcast`, and `messages:send:high` for high priority; everything else `messages:send`.
#[utoipa::path(
    post, path = "/v1/messages", operation_id = "send_message",
    params(DryRun, once::InHeader), request_body = SendBody,
    responses((status = 202, body = SentView, headers(("Location"), ("Idempotency-Replayed"), ("RateLimit"), ("RateLimit-Policy"))),
        (status = 200, description = "What was asked for is an estimate.", body = Estimated), (status = 409), (status = 429)),
    security(("key" = [Scope::Send.as_str()]), ("key" = [Scope::SendBroadcast.as_str()])),
)]
pub(crate) async fn one(State(api): State<Arc<Api>>, call: Call) -> Answer {
    let mut query = call.query()?;
    let dry_run = query.parsed("dry_run").unwrap_or(false);
    query.finish()?;
    let key = once::in_header(&call.headers)?;
    let request = read(&api, Fields::read(&call.body)?, key)?;
    if dry_run {
        return estimate(&api, &call, &request).await;
    }
    let prepared = match prepare(&api, &call, request, &call.body).await? {
        Next::Commit(prepared) => prepared,
        Next::Answer(outcome) => return accepted(&outcome),
    };
    let budget = prepared.budget;
    let mut outcomes = commit(&api, vec![prepared]).await;
    let outcome = outcomes.pop().unwrap_or_else(|| Err(Problem::new(Code::Internal, "a send without outcome")))?;
    let mut response = accepted(&outcome)?;
    if let Some(budget) = budget {
        budget.tell(response.headers_mut());
    }
    Ok(response)
}

/// Sends many messages, each for itself.
///
/// 202 when any was accepted; else the status of all refusals, or 422 when they differ.
#[utoipa::path(
    post, path = "/v1/messages/batch", operation_id = "send_messages",
    request_body = BatchBody,
    responses((status = 202, body = BatchView, headers(("RateLimit"), ("RateLimit-Policy"))),
        (status = 403, body = BatchView), (status = 409, body = BatchView), (status = 413, body = BatchView), (status = 422, body = BatchView),
        (status = 429, body = BatchView), (status = 500, body = BatchView), (status = 503, body = BatchView)),
    security(("key" = [Scope::Send.as_str()]), ("key" = [Scope::SendBroadcast.as_str()])),
)]
pub(crate) async fn batch(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.query()?.finish()?;
    if once::in_header(&call.headers)?.is_some() {
        let detail = "a batch has no key of its own: give each message an `idempotency_key`";
        return Err(Problem::new(Code::IdempotencyKeyInvalid, detail));
    }
    let mut fields = Fields::read(&call.body)?;
    let messages: Vec<&RawValue> = match fields.take("messages").map(|raw| serde_json::from_str(raw.get())) {
        Some(Ok(messages)) => messages,
        _ => Vec::new(),
    };
    if messages.is_empty() || messages.len() > BATCH_MAX {
        fields.fault("messages", "out_of_range", format!("must be a list of 1..{BATCH_MAX} messages"));
    }
    fields.finish()?;
    // Together: the store answers what is asked at the same time in a few round trips.
    let prepared = join_all(messages.into_iter().enumerate().map(async |(index, raw)| {
        let request = read(&api, Fields::of(raw, format!("#/messages/{index}")), None)?;
        prepare(&api, &call, request, raw.get().as_bytes()).await
    }));
    let mut outcomes: Vec<Result<Outcome, Problem>> = Vec::new();
    let (mut ready, mut places) = (Vec::new(), Vec::new());
    for (index, prepared) in prepared.await.into_iter().enumerate() {
        match prepared {
            Ok(Next::Commit(prepared)) => {
                ready.push(prepared);
                places.push(index);
                outcomes.push(Err(Problem::new(Code::Internal, "a send without outcome")));
            }
            Ok(Next::Answer(outcome)) => outcomes.push(Ok(outcome)),
            Err(problem) => outcomes.push(Err(problem)),
        }
    }
    let budget = ready.iter().rev().find_map(|prepared| prepared.budget);
    for (index, outcome) in places.into_iter().zip(commit(&api, ready).await) {
        outcomes[index] = outcome;
    }
    let mut response = batch_answer(&outcomes, &call.journey.request_id)?;
    if let Some(budget) = budget {
        budget.tell(response.headers_mut());
    }
    Ok(response)
}

/// Reads one message, with the key that its header gave.
fn read(api: &Api, mut fields: Fields<'_>, key_in_header: Option<String>) -> Result<Request, Problem> {
    let mut request = Request::read(&mut fields, api.config.payload_max_bytes)?;
    if let Some(key) = key_in_header {
        if request.once.as_ref().is_some_and(|other| *other != key) {
            fields.fault("idempotency_key", "contradiction", "differs from the header Idempotency-Key");
        }
        request.once = Some(key);
    }
    if api.select.is_none() {
        match request.to {
            To::Filter(_) => fields.fault("to/filter", "not_supported", NO_FILTER),
            To::Audience(_) => fields.fault("to/audience", "not_supported", NO_FILTER),
            _ if request.narrowing.asks() => fields.fault("to", "not_supported", NO_FILTER),
            _ => {}
        }
    }
    fields.finish()?;
    Ok(request)
}

/// Passes when the caller may send this, as far as is known before anything is looked up.
fn permit(call: &Call, request: &Request) -> Result<(), Problem> {
    match request.to {
        To::All | To::Filter(_) => permit_lane(call, request, Lane::Broadcast),
        // What a saved audience is must be looked up.
        To::Audience(_) => call.caller.require(Scope::Send).or_else(|_| call.caller.require(Scope::SendBroadcast)),
        To::Devices(_) | To::Users(_) | To::Group(_) => permit_lane(call, request, Lane::Multicast),
    }
}

fn permit_lane(call: &Call, request: &Request, lane: Lane) -> Result<(), Problem> {
    match lane {
        Lane::Broadcast => {
            call.caller.require(Scope::SendBroadcast)?;
            if request.priority == Priority::High { call.caller.require(Scope::SendHigh) } else { Ok(()) }
        }
        Lane::Unicast | Lane::Multicast => call.caller.require(Scope::Send),
    }
}

/// Looks up whom it is for.
async fn find(api: &Api, call: &Call, request: &Request) -> Result<(Target, Terms), Problem> {
    permit(call, request)?;
    let target = Target::find(api, &call.caller, &request.to).await?;
    permit_lane(call, request, target.lane)?;
    Ok((target, request.narrowing.resolve(api, &call.caller).await?))
}

#[derive(Serialize, ToSchema)]
#[schema(as = DryRun)]
struct Estimated<'a> {
    mode: Lane,
    estimate: Estimate,
    warnings: &'a [view::Warning],
}

#[derive(Serialize, ToSchema)]
struct Estimate {
    targeted: u64,
    excluded: u64,
    excluded_by: BTreeMap<&'static str, u64>,
}

/// Answers whom a message would go to; nothing is counted, kept or sent.
async fn estimate(api: &Api, call: &Call, request: &Request) -> Answer {
    let (target, terms) = find(api, call, request).await?;
    let kind = request.class.is_message().then_some((request.kind.as_str(), request.priority));
    let frozen = target.now(api, &call.caller, &terms, kind).await?;
    let (excluded, excluded_by) = view::excluded(&frozen.excluded);
    let estimate = Estimate { targeted: frozen.targets.len(), excluded, excluded_by };
    Ok(Json(Estimated { mode: target.lane, estimate, warnings: &target.warnings }).into_response())
}

/// Spends a message's share of the budget, when it has as many recipients as it needs.
async fn spend(api: &Api, caller: &Caller, request: &Request, target: &Target) -> Result<Budget, Problem> {
    let recipients = target.recipients(api, caller).await;
    if request.require_targets && recipients == 0 {
        return Err(Problem::new(Code::AudienceEmpty, "no registered device is in this audience"));
    }
    api.budgets.spend(&caller.app, recipients)
}

/// Everything that can refuse a message without having touched anything; then its share of the budget is spent.
///
/// What was accepted before is not judged again: whom it was for may be gone by now, and it was paid for. Once
/// something has come of it, its first answer is all there is to say; until then it is published again.
async fn prepare(api: &Api, call: &Call, request: Request, body: &[u8]) -> Result<Next, Problem> {
    let caller = &call.caller;
    permit(call, &request)?;
    let key = request.once.as_ref().map(|key| (once::kept(caller, key), once::fingerprint(body)));
    let entered = key.as_ref().map(|(key, _)| api.running.enter(caller.app(), key)).transpose()?;
    let before = match &key {
        Some((key, fingerprint)) => promised(api, caller.app(), key, fingerprint).await?,
        None => None,
    };
    let is_new = before.is_none();
    if let Some(first) = before
        && open(api, caller.app(), first.message).await?.is_none()
    {
        return Ok(Next::Answer(Outcome::replay(first.message, first.answer)));
    }
    if api.broker.refuses() {
        // It would be kept for nothing.
        return Err(Problem::new(Code::BrokerUnavailable, "the broker takes nothing at present"));
    }
    let (target, terms) = find(api, call, &request).await?;
    let budget = if is_new { Some(spend(api, caller, &request, &target).await?) } else { None };
    let now = api.clock.now();
    let message = message(call, request, &target, now);
    // A message for nobody is dispatched from the start: its funnel is complete with no targets.
    let dispatched_at = target.audience.is_none().then_some(now);
    let entry = Entry { dispatched_at, ..Entry::from(&message) };
    let sent = SentView {
        id: message.id,
        mode: message.lane,
        status: Status::Queued,
        created_at: view::time(now),
        warnings: &target.warnings,
    };
    let answer = serde_json::to_string(&sent).map_err(|error| Problem::new(Code::Internal, error.to_string()))?;
    let once = key.map(|(key, fingerprint)| Once { key, fingerprint, answer: answer.clone() });
    Ok(Next::Commit(Prepared {
        app: Arc::clone(&caller.app),
        queue: target.queue,
        envelope: target.audience.map(|audience| Envelope { message, audience, terms }),
        entry,
        once,
        answer,
        budget,
        _entered: entered,
    }))
}

fn message(call: &Call, request: Request, target: &Target, now: Timestamp) -> Message {
    Message {
        id: MessageId::new(now, rand::random()),
        app: call.caller.app().clone(),
        env: call.caller.env(),
        lane: target.lane,
        kind: request.kind,
        class: request.class,
        payload: request.payload,
        content_type: request.content_type,
        created_at: now,
        expires_at: now + request.ttl,
        due_at: request.max_delay.map(|delay| now + delay),
        priority: request.priority,
        collapse_key: request.collapse_key,
        metadata: request.metadata,
        trace: call.journey.trace,
    }
}

fn accepted(outcome: &Outcome) -> Answer {
    let mut response = (StatusCode::ACCEPTED, Body::from(outcome.answer.clone())).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let location = HeaderValue::try_from(format!("/v1/messages/{}", outcome.id));
    headers.insert(header::LOCATION, location.map_err(|error| Problem::new(Code::Internal, error.to_string()))?);
    if outcome.replayed {
        headers.insert(HeaderName::from_static("idempotency-replayed"), HeaderValue::from_static("true"));
    }
    response.extensions_mut().insert(Concerns(outcome.id));
    Ok(response)
}

#[derive(Serialize, ToSchema)]
#[schema(as = BatchResults)]
struct BatchView {
    accepted: usize,
    rejected: usize,
    results: Vec<Item>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BatchItem)]
struct Item {
    index: usize,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<MessageId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<problem::Body>)]
    problem: Option<Value>,
}

/// 202 when any message was accepted; else the status of all refusals, or 422 when they differ.
fn batch_answer(outcomes: &[Result<Outcome, Problem>], request_id: &str) -> Result<Response, Problem> {
    let item = |(index, outcome): (usize, &Result<Outcome, Problem>)| match outcome {
        Ok(outcome) => Item { index, status: StatusCode::ACCEPTED.as_u16(), id: Some(outcome.id), problem: None },
        Err(problem) => {
            let body = serde_json::to_value(problem.body(request_id)).ok();
            Item { index, status: problem.status().as_u16(), id: None, problem: body }
        }
    };
    let results: Vec<Item> = outcomes.iter().enumerate().map(item).collect();
    let accepted = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    let rejected = outcomes.len() - accepted;
    let mut refusals = outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).map(Problem::status);
    let status = match refusals.next() {
        _ if accepted > 0 => StatusCode::ACCEPTED,
        Some(first) if refusals.all(|other| other == first) => first,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    };
    Ok((status, Json(BatchView { accepted, rejected, results })).into_response())
}
