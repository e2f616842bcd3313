//! Commands: what came of them is taken from their devices once, and told to whoever asks.

use std::{str::FromStr, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse,
};
use futures_util::future::try_join_all;
use model::{Class, DeviceId, MessageId, Outcome, Scope, Stage, Timestamp, Uplink, Verdict};
use serde::Serialize;
use serde_json::value::RawValue;
use store::{Entry, messages::KEPT, shelves};
use tokio::time::{Instant, sleep};
use utoipa::{
    IntoParams, ToSchema,
    openapi::path::{Parameter, ParameterIn},
};

use crate::{
    api::Api,
    gate::{Answer, Call},
    messages::Known,
    openapi::shape,
    problem::Problem,
    view::{self, Time},
};

/// How long an answer may wait for the outcome: requests must be answered within eight seconds.
const WAIT_MAX_S: u64 = 5;
/// Answers that may wait at the same time: each looks into the store again and again. Others do not wait.
pub(crate) const WAITING_MAX: usize = 128;
/// Pauses between two looks, the first and the longest: most devices answer soon or late, few in between.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(320);

/// How far a command is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = CommandState)]
#[serde(rename_all = "snake_case")]
enum Progress {
    /// Waits for the device.
    Queued,
    /// Was written to the device.
    Sent,
    /// The device has it, and has not said what came of it.
    Acked,
    Succeeded,
    Failed,
    Rejected,
    Cancelled,
    /// Nothing came of it until the deadline; it is not delivered any more.
    TimedOut,
}

impl Progress {
    fn is_over(self) -> bool {
        !matches!(self, Self::Queued | Self::Sent | Self::Acked)
    }
}

/// A command as its sender sees it.
#[derive(Serialize, ToSchema)]
#[schema(as = Command)]
pub(crate) struct CommandView<'a> {
    device_id: &'a DeviceId,
    state: Progress,
    deadline: Time,
    reason: Option<String>,
    #[schema(value_type = Value)]
    result: Option<Box<RawValue>>,
    reported_at: Option<Time>,
    /// Whether the device said so after the deadline.
    late: bool,
}

impl<'a> CommandView<'a> {
    /// What is known of a command; `None` for a message that is none.
    ///
    /// # Errors
    /// Whatever the store says.
    pub(crate) async fn of(api: &Api, call: &Call, known: &'a Known) -> Result<Option<Self>, Problem> {
        let entry = &known.entry;
        let Class::Command { device } = &entry.class else { return Ok(None) };
        let of = (call.caller.app(), call.caller.env());
        let outcome: Option<Outcome> = shelves::find(&*api.store, of.0, of.1, &entry.id.to_string()).await?;
        let (state, reason) = match &outcome {
            Some(outcome) => (told(outcome.verdict), outcome.reason.clone()),
            None => progress(known, api.clock.now()),
        };
        Ok(Some(Self {
            device_id: device,
            state,
            deadline: view::time(entry.expires_at),
            reason,
            reported_at: outcome.as_ref().map(|outcome| view::time(outcome.at)),
            late: outcome.as_ref().is_some_and(|outcome| outcome.at > entry.expires_at),
            result: outcome.and_then(|outcome| RawValue::from_string(outcome.result?).ok()),
        }))
    }
}

const fn told(verdict: Verdict) -> Progress {
    match verdict {
        Verdict::Succeeded => Progress::Succeeded,
        Verdict::Failed => Progress::Failed,
        Verdict::Rejected => Progress::Rejected,
    }
}

/// How far a command is of which its device has said nothing, and why no farther.
fn progress(known: &Known, now: Timestamp) -> (Progress, Option<String>) {
    let Entry { expires_at, cancelled_at, failed, .. } = &known.entry;
    if failed.is_some() {
        return (Progress::Failed, failed.clone());
    }
    let because = |reason: &str| Some(reason.to_owned());
    let stage = known.tally.as_ref().map(|tally| {
        let target = tally.targeted.iter().next();
        target.map_or(Stage::NotTargeted, |device| tally.stage(device, *expires_at, now))
    });
    match stage {
        None if cancelled_at.is_some() => (Progress::Cancelled, None),
        Some(Stage::Cancelled) => (Progress::Cancelled, None),
        Some(Stage::Rejected) => (Progress::Rejected, because("the device refused it, or could not have taken it")),
        Some(Stage::Truncated) => (Progress::Failed, because("newer messages pushed it off the stream")),
        Some(Stage::NotTargeted) => (Progress::Failed, because("the device is suppressed")),
        _ if now >= *expires_at => (Progress::TimedOut, None),
        Some(Stage::Acked) => (Progress::Acked, None),
        Some(Stage::Sent) => (Progress::Sent, None),
        _ => (Progress::Queued, None),
    }
}

/// Seconds to wait.
struct Wait(u64);

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let secs = text.parse().ok().filter(|secs| *secs <= WAIT_MAX_S);
        secs.map(Self).ok_or_else(|| format!("must be 0..{WAIT_MAX_S}"))
    }
}

impl IntoParams for Wait {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let wait = shape::usually(shape::number(0..=WAIT_MAX_S), 0);
        vec![shape::parameter(ParameterIn::Query, "wait_s", wait, "How long the answer may wait for the outcome.")]
    }
}

/// What came of a command, or how far it is.
#[utoipa::path(
    get, path = "/v1/messages/{id}/result", operation_id = "get_result",
    params(Wait), responses((status = 200, body = CommandView), (status = 404)),
    security(("key" = [Scope::Read.as_str()])),
)]
pub(crate) async fn result(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Read)?;
    let mut query = call.query()?;
    let Wait(wait_s) = query.parsed("wait_s").unwrap_or(Wait(0));
    query.finish()?;
    let turn = api.waiting.try_acquire();
    let until = Instant::now() + Duration::from_secs(if turn.is_ok() { wait_s } else { 0 });
    let mut pause = PAUSE_MIN;
    loop {
        let known = Known::find(&api, &call, &id).await?;
        let command = CommandView::of(&api, &call, &known).await?.ok_or_else(|| Problem::not_found("command"))?;
        if command.state.is_over() || Instant::now() + pause > until {
            return Ok(Json(command).into_response());
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Keeps the outcomes that are among these uplinks, and gives back what products are to see: all but outcomes that are
/// no answer to a command of that device, or not the first one.
///
/// # Errors
/// Whatever the store says; then all of it may be done again.
pub(crate) async fn take(api: &Api, uplinks: Vec<Uplink>) -> Result<Vec<Uplink>, store::Error> {
    if uplinks.iter().all(|uplink| uplink.answers.is_none()) {
        return Ok(uplinks);
    }
    let taken = try_join_all(uplinks.iter().map(|uplink| async move {
        match uplink.answers {
            Some(command) => take_one(api, uplink, command).await,
            None => Ok(true),
        }
    }));
    let mut taken = taken.await?.into_iter();
    Ok(uplinks.into_iter().filter(|_| taken.next().unwrap_or(true)).collect())
}

/// Whether this is what came of the command.
async fn take_one(api: &Api, uplink: &Uplink, command: MessageId) -> Result<bool, store::Error> {
    let Uplink { id, app, env, device, received_at, .. } = uplink;
    let entry = api.store.entry(app, command).await?;
    let is_theirs = |entry: &Entry| entry.env == *env && entry.class == (Class::Command { device: device.clone() });
    let outcome = Outcome::read(&uplink.payload, *id, *received_at);
    let Some((entry, outcome)) = entry.filter(is_theirs).zip(outcome) else {
        tracing::debug!(%app, device.id = %device, message.id = %command, "no command of this device; not taken");
        return Ok(false);
    };
    let until = (entry.created_at + KEPT).max(entry.expires_at);
    let kept = shelves::note_once(&*api.store, (app, *env), &command.to_string(), &outcome, until).await?;
    Ok(kept.uplink == *id)
}
