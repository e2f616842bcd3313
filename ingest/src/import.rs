//! Devices by the million: one JSON object a line, registered page by page as they come.
//!
//! The job is what its upload has come to: rows count once they are durable, and an upload that broke off is simply
//! sent again, since registering again changes nothing.

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use model::{Device, DeviceId, Job, JobId, JobState, Profile, Scope, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;
use store::{Amendment, PAGE_MAX, Registration, shelves};
use utoipa::ToSchema;

use crate::{
    api::Api,
    attributes::Catalogue,
    devices::{self, ATTEMPTS},
    fields::Fields,
    gate::{self, Answer, Call},
    problem::Problem,
    upload::{self, Upload},
    view::{self, Time},
};

/// How long a job can be asked for after it was last heard of: a week.
const KEPT: Duration = Duration::from_hours(7 * 24);
/// A job that runs is heard of more often than this: longer than a page may take to come and to be kept, with all the
/// patience of an upload.
const SILENT_MAX: Duration = Duration::from_secs(60);
/// Mistakes that a job names.
const FAULTS_MAX: usize = 100;

#[derive(Serialize, ToSchema)]
#[schema(as = Job)]
struct JobView {
    id: JobId,
    state: JobState,
    rows: u64,
    created: u64,
    updated: u64,
    failed: u64,
    faults: Vec<FaultView>,
    created_at: Time,
    updated_at: Time,
}

#[derive(Serialize, ToSchema)]
#[schema(as = FailedRow)]
struct FaultView {
    row: u64,
    detail: String,
}

impl JobView {
    /// A job of which nothing is heard any more ended with the process that ran it.
    fn new(job: &Job, now: Timestamp) -> Self {
        let silent = job.state == JobState::Running && now.since(job.updated_at) > SILENT_MAX;
        Self {
            id: job.id,
            state: if silent { JobState::Interrupted } else { job.state },
            rows: job.rows,
            created: job.created,
            updated: job.updated,
            failed: job.failed,
            faults: job.faults.iter().map(|(row, detail)| FaultView { row: *row, detail: detail.clone() }).collect(),
            created_at: view::time(job.created_at),
            updated_at: view::time(job.updated_at),
        }
    }
}

/// How far an import has come.
#[utoipa::path(
    get, path = "/v1/jobs/{id}", operation_id = "get_job",
    responses((status = 200, body = JobView), (status = 404)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn job(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let found = shelves::find::<Job>(&*api.store, call.caller.app(), call.caller.env(), &id).await?;
    let job = found.ok_or_else(|| Problem::not_found("job"))?;
    Ok(Json(JobView::new(&job, api.clock.now())).into_response())
}

/// Registers a device a line: `{"device_id":…}` with the fields of a `PUT`.
///
/// Who gives the job an id of its own can watch it meanwhile.
#[utoipa::path(
    post, path = "/v1/devices/import", operation_id = "import_devices",
    params(("job" = Option<JobId>, Query, description = "The id of the job.")),
    request_body(content = String, content_type = "application/x-ndjson"),
    responses((status = 202, body = JobView, headers(("Location")))), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn devices(State(api): State<Arc<Api>>, upload: Upload) -> Answer {
    let Upload { call, mut lines } = upload;
    call.caller.require(Scope::Devices)?;
    let mut query = call.query()?;
    let given = query.parsed::<JobId>("job");
    query.finish()?;
    let now = api.clock.now();
    let mut job = Job {
        id: given.unwrap_or_else(|| JobId::new(now, rand::random())),
        state: JobState::Running,
        rows: 0,
        created: 0,
        updated: 0,
        failed: 0,
        faults: Vec::new(),
        created_at: now,
        updated_at: now,
    };
    note(&api, &call, &mut job).await?;
    let outcome = loop {
        let page = match lines.page(PAGE_MAX).await {
            Ok(page) if page.is_empty() => break Ok(()),
            Ok(page) => page,
            Err(broken) => break Err(broken),
        };
        match upload::patiently(|| register(&api, &call, &page, &job)).await {
            Ok(further) => job = further,
            Err(problem) => break Err(problem),
        }
        note(&api, &call, &mut job).await?;
    };
    job.state = if outcome.is_ok() { JobState::Completed } else { JobState::Interrupted };
    note(&api, &call, &mut job).await?;
    outcome?;
    gate::located(StatusCode::ACCEPTED, format!("/v1/jobs/{}", job.id), JobView::new(&job, api.clock.now()))
}

async fn note(api: &Api, call: &Call, job: &mut Job) -> Result<(), Problem> {
    job.updated_at = api.clock.now();
    let job = &*job;
    let (of, id, until) = ((call.caller.app(), call.caller.env()), job.id.to_string(), job.updated_at + KEPT);
    upload::patiently(|| async { Ok(shelves::note(&*api.store, of, &id, job, until).await?) }).await
}

/// One line as a device.
fn read(line: &str) -> Result<(DeviceId, Profile), Problem> {
    let raw: &RawValue =
        serde_json::from_str(line).map_err(|error| Problem::fault("#", "malformed_json", error.to_string()))?;
    let mut fields = Fields::of(raw, "#");
    let id: Option<DeviceId> = fields.parsed("device_id");
    if id.is_none() && fields.is_right() {
        fields.fault("device_id", "missing", "say which device");
    }
    let profile = devices::profile(&mut fields);
    fields.finish()?;
    id.map(|id| (id, profile)).ok_or_else(|| Problem::fault("#/device_id", "missing", "say which device"))
}

/// Registers a page; returns how far the job is then. Rows that cannot be taken are counted, the others are kept: as updated,
/// when an attempt that was not answered had registered them.
async fn register(api: &Api, call: &Call, page: &[(u64, String)], before: &Job) -> Result<Job, Problem> {
    let mut job = before.clone();
    let (app, env) = (call.caller.app(), call.caller.env());
    let mut catalogue = Catalogue::read(&api.store, app, env).await?;
    job.rows += page.len() as u64;
    let mut rows = Vec::with_capacity(page.len());
    for (number, line) in page {
        match read(line) {
            Ok((id, profile)) => rows.push((*number, id, profile)),
            Err(problem) => fail(&mut job, *number, problem.in_short()),
        }
    }
    for _ in 0..ATTEMPTS {
        rows = register_once(api, call, &mut catalogue, rows, &mut job).await?;
        if rows.is_empty() {
            return Ok(job);
        }
    }
    Err(devices::too_many_at_once())
}

/// A row that can be read: its number, its device, and what is to be known about that.
type Row = (u64, DeviceId, Profile);

/// Registers rows, or puts them in place of what is known now; returns those whose devices others changed meanwhile. A
/// row that a later one of the same device replaces counts as updated.
async fn register_once(
    api: &Api,
    call: &Call,
    catalogue: &mut Catalogue<'_>,
    rows: Vec<Row>,
    job: &mut Job,
) -> Result<Vec<Row>, Problem> {
    let (app, env) = (call.caller.app(), call.caller.env());
    let admitted = admit(api, call, catalogue, rows, job).await?;
    let count = admitted.len();
    let rows = last_of_each(admitted);
    job.updated += (count - rows.len()) as u64;
    let (mut registrations, mut amendments, mut amended) = (Vec::new(), Vec::new(), Vec::new());
    for ((number, id, profile), before) in rows {
        match before {
            None => registrations.push(Registration { id, env, profile: Some(profile) }),
            Some(before) => {
                amended.push((number, id, profile.clone()));
                let seen = before.profile.seen.clone();
                amendments.push(Amendment { before, profile: Profile { seen, ..profile } });
            }
        }
    }
    if !registrations.is_empty() {
        let registered = api.store.register(app, registrations, api.clock.now()).await?;
        let created = registered.iter().filter(|(_, new)| *new).count() as u64;
        job.created += created;
        job.updated += registered.len() as u64 - created;
    }
    if amendments.is_empty() {
        return Ok(Vec::new());
    }
    let done = api.store.amend(app, amendments, api.clock.now()).await?;
    job.updated += done.iter().filter(|done| **done).count() as u64;
    Ok(amended.into_iter().zip(done).filter_map(|(row, done)| (!done).then_some(row)).collect())
}

/// The rows that can be taken, each with its device as it is known now; the others are counted.
async fn admit(
    api: &Api,
    call: &Call,
    catalogue: &mut Catalogue<'_>,
    rows: Vec<Row>,
    job: &mut Job,
) -> Result<Vec<(Row, Option<Device>)>, Problem> {
    let ids: Vec<DeviceId> = rows.iter().map(|(_, id, _)| id.clone()).collect();
    let found = api.store.devices(call.caller.app(), &ids).await?;
    let mut admitted = Vec::with_capacity(rows.len());
    for ((number, id, mut profile), before) in rows.into_iter().zip(found) {
        if before.as_ref().is_some_and(|device| device.env != call.caller.env()) {
            fail(job, number, "#/device_id: registered in the other environment".to_owned());
            continue;
        }
        match catalogue.admit(&mut profile, before.as_ref().map(|device| &device.profile)).await {
            Err(problem) if problem.status().is_server_error() => return Err(problem),
            Err(problem) => fail(job, number, problem.in_short()),
            Ok(()) => admitted.push(((number, id, profile), before)),
        }
    }
    Ok(admitted)
}

/// Of several rows of one device the last, which replaces what the others say. All of them change the device as it was
/// read once, and of such changes the store takes one.
fn last_of_each(mut rows: Vec<(Row, Option<Device>)>) -> Vec<(Row, Option<Device>)> {
    let mut seen = HashSet::new();
    rows.reverse();
    rows.retain(|((_, id, _), _)| seen.insert(id.clone()));
    rows.reverse();
    rows
}

fn fail(job: &mut Job, row: u64, detail: String) {
    job.failed += 1;
    if job.faults.len() < FAULTS_MAX {
        job.faults.push((row, detail));
    }
}
