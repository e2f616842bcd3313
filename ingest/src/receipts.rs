//! How far a message has come for each device.

mod why;

use std::{str::FromStr, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse,
};
use model::{DeviceId, Ordinal, Scope, Stage, Tally, Timestamp};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use self::why::Why;
use crate::{
    api::Api,
    devices,
    fields::Fields,
    gate::{Answer, Call},
    messages::Known,
    openapi::shape::{self, body},
    problem::{Code, Problem},
    query::{self, Page, Paging},
};

/// Devices that may be asked for at once.
const ASKED_MAX: usize = 1_000;
/// Targets looked at for one page: of ten million, those in a rare state must not hold up a worker.
const SCAN_MAX: usize = 100_000;
/// The same where the store has to be asked who is connected, in one question a step.
const CONNECTED_SCAN_MAX: usize = 10_000;
const SCAN_STEP: usize = 1_000;

#[derive(Serialize, ToSchema)]
#[schema(as = Receipt)]
struct ReceiptView {
    device_id: Option<DeviceId>,
    state: Stage,
}

/// What a message's receipts say, at one moment.
struct Receipts {
    known: Known,
    tally: Tally,
    now: Timestamp,
}

impl Receipts {
    /// The receipts of the message `id`, once its audience is resolved.
    async fn find(api: &Api, call: &Call, id: &str) -> Result<Self, Problem> {
        call.caller.require(Scope::Read)?;
        let known = Known::find(api, call, id).await?;
        let none = known.entry.dispatched_at.map(|_| Tally::default());
        let tally = known.tally.clone().or(none);
        let unresolved = || Problem::new(Code::NotResolved, "whom it is for is known once it is dispatched");
        Ok(Self { tally: tally.ok_or_else(unresolved)?, known, now: api.clock.now() })
    }

    /// Until when the message can wait for devices to be awake, if that is not over.
    fn due_at(&self) -> Option<Timestamp> {
        self.known.entry.due_at.filter(|due| self.now < *due)
    }

    /// How far it has come for these devices. No access point tells what it holds back: that follows from what is known
    /// anyway, a message that can wait and a device that is connected and was not written to.
    async fn stages(&self, api: &Api, call: &Call, devices: &[Ordinal]) -> Vec<Stage> {
        let stage = |device: &Ordinal| self.tally.stage(*device, self.known.entry.expires_at, self.now);
        let mut stages: Vec<_> = devices.iter().map(stage).collect();
        if self.due_at().is_none() {
            return stages;
        }
        let is_queued = |(stage, _): &(&mut Stage, _)| **stage == Stage::Queued;
        let (queued, ordinals): (Vec<_>, Vec<Ordinal>) = stages.iter_mut().zip(devices).filter(is_queued).unzip();
        // While routes are away nobody is known to be connected.
        let routes = api.store.routes(call.caller.app(), &ordinals).await.unwrap_or_default();
        for (stage, _) in queued.into_iter().zip(routes).filter(|(_, route)| route.is_some()) {
            *stage = Stage::HeldOnWake;
        }
        stages
    }

    /// The first of its targets after this one, at most `limit`, that are in the state `wanted`, and the last that was
    /// looked at, if more follow.
    async fn page(
        &self,
        api: &Api,
        call: &Call,
        (limit, after): (usize, Option<Ordinal>),
        wanted: Option<Stage>,
    ) -> (Vec<(Ordinal, Stage)>, Option<Ordinal>) {
        let scan_max = if self.due_at().is_some() { CONNECTED_SCAN_MAX } else { SCAN_MAX };
        let (mut found, mut last) = (Vec::with_capacity(limit), after);
        for _ in 0..scan_max / SCAN_STEP {
            let step: Vec<_> = self.tally.targeted.iter_after(last).take(SCAN_STEP).collect();
            for (device, stage) in step.iter().zip(self.stages(api, call, &step).await) {
                if found.len() == limit {
                    return (found, last);
                }
                last = Some(*device);
                if wanted.is_none_or(|wanted| wanted == stage) {
                    found.push((*device, stage));
                }
            }
            if step.len() < SCAN_STEP {
                return (found, None);
            }
        }
        let more = self.tally.targeted.iter_after(last).next().is_some();
        (found, last.filter(|_| more))
    }

    /// The states of these devices by name.
    async fn of(&self, api: &Api, call: &Call, ids: Vec<DeviceId>) -> Result<Vec<ReceiptView>, Problem> {
        let found = api.store.devices(call.caller.app(), &ids).await?;
        let env = call.caller.env();
        let ordinal = |device: Option<model::Device>| Some(device.filter(|device| device.env == env)?.ordinal);
        let ordinals: Vec<_> = found.into_iter().map(ordinal).collect();
        let known: Vec<_> = ordinals.iter().copied().flatten().collect();
        let mut stages = self.stages(api, call, &known).await.into_iter();
        let mut stage = |known: Option<Ordinal>| known.and_then(|_| stages.next()).unwrap_or(Stage::UnknownDevice);
        let views = ids.into_iter().zip(ordinals);
        Ok(views.map(|(id, known)| ReceiptView { device_id: Some(id), state: stage(known) }).collect())
    }
}

/// The name of a stage in `?state=`.
struct Wanted(Stage);

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let stage = serde_json::from_value(Value::String(text.to_owned()));
        stage.map(Self).map_err(|_| format!("{:?} is not a state", text.chars().take(32).collect::<String>()))
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Receipts)]
struct Receipted {
    data: Vec<ReceiptView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = ExplainedReceipt)]
struct Explained {
    #[serde(flatten)]
    receipt: ReceiptView,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Why>,
}

body! {
    /// Which devices.
    QueryBody {
        required { "device_ids": shape::list(shape::of::<DeviceId>(), 1..=ASKED_MAX) }
        optional {}
        example { "device_ids": ["dev-1", "dev-2"] }
    }
}

/// How far a message has come for each of its targets.
///
/// A page may be short, even empty, while `next_cursor` says that more follow. Who is `held_on_wake` is found out now: a
/// message with `delivery: on_wake` was not written yet to a device that is connected, as far as is known. In the funnel
/// it is among `pending_offline`, which counts whom it was not written to.
#[utoipa::path(
    get, path = "/v1/messages/{id}/receipts", operation_id = "list_receipts",
    params(Paging, ("state" = Option<Stage>, Query, description = "Only those in this state.")),
    responses((status = 200, body = Page<ReceiptView>, headers(("Link"))), (status = 404), (status = 409)),
    security(("key" = [Scope::Read.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    let receipts = Receipts::find(&api, &call, &id).await?;
    let mut query = call.query()?;
    let (limit, after) = (query.limit(), query.cursor::<u32>().map(Ordinal));
    let wanted = query.parsed::<Wanted>("state").map(|state| state.0);
    query.finish()?;
    let (found, more) = receipts.page(&api, &call, (limit, after), wanted).await;
    let ordinals: Vec<_> = found.iter().map(|(device, _)| *device).collect();
    let names = api.store.names(call.caller.app(), &ordinals).await?;
    let view =
        |((_, state), device_id): (&(Ordinal, Stage), Option<DeviceId>)| ReceiptView { device_id, state: *state };
    let views: Vec<_> = found.iter().zip(names).map(view).collect();
    query::page(&call.uri, &views, more.map(|device| device.0.to_string()))
}

/// How far a message has come for these devices.
#[utoipa::path(
    post, path = "/v1/messages/{id}/receipts/query", operation_id = "query_receipts",
    request_body = QueryBody, responses((status = 200, body = Receipted), (status = 404), (status = 409)),
    security(("key" = [Scope::Read.as_str()])),
)]
pub(crate) async fn query(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    let receipts = Receipts::find(&api, &call, &id).await?;
    let mut fields = Fields::read(&call.body)?;
    let ids = fields.required_list("device_ids", ASKED_MAX);
    fields.finish()?;
    let data = receipts.of(&api, &call, ids).await?;
    Ok(Json(Receipted { data }).into_response())
}

/// How far a message has come for one device, and why no farther.
#[utoipa::path(
    get, path = "/v1/messages/{id}/receipts/{device}", operation_id = "explain_receipt",
    responses((status = 200, body = Explained), (status = 404), (status = 409)),
    security(("key" = [Scope::Read.as_str()])),
)]
pub(crate) async fn one(State(api): State<Arc<Api>>, Path((id, device)): Path<(String, String)>, call: Call) -> Answer {
    let receipts = Receipts::find(&api, &call, &id).await?;
    call.query()?.finish()?;
    let device = devices::find(&api, &call, &device).await?;
    let state = receipts.stages(&api, &call, &[device.ordinal]).await.pop().unwrap_or(Stage::UnknownDevice);
    let why = why::explain(&api, &call, &receipts, (&device, state)).await?;
    let receipt = ReceiptView { device_id: Some(device.id), state };
    Ok(Json(Explained { receipt, why }).into_response())
}
