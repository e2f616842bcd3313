//! Messages as their senders see them again: how far they have come.

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse,
};
use model::{Aim, Env, Funnel, Lane, MessageId, Scope, Status, Tally, Timestamp};
use serde::Serialize;
use store::{Entry, shelves};
use utoipa::ToSchema;

use crate::{
    api::Api,
    command::CommandView,
    gate::{Answer, Call},
    problem::Problem,
    query::{self, Page, Paging},
    view::{self, Time},
};

/// A message with what is known of its deliveries.
pub(crate) struct Known {
    pub(crate) entry: Entry,
    /// `None` while its audience is not resolved.
    pub(crate) tally: Option<Tally>,
}

impl Known {
    /// The message `id` of the caller's app and environment.
    ///
    /// # Errors
    /// `not_found`, also for what is no id at all.
    pub(crate) async fn find(api: &Api, call: &Call, id: &str) -> Result<Self, Problem> {
        let missing = || Problem::not_found("message");
        let id: MessageId = id.parse().map_err(|_| missing())?;
        let app = call.caller.app();
        let entry = api.store.entry(app, id).await?.filter(|entry| entry.env == call.caller.env());
        let entry = entry.ok_or_else(missing)?;
        Ok(Self { tally: api.store.tally(app, id).await?, entry })
    }

    /// What was decided when its audience was frozen; `None` when nothing had to be.
    pub(crate) async fn aim(&self, api: &Api, call: &Call) -> Result<Option<Aim>, Problem> {
        let (app, env) = (call.caller.app(), call.caller.env());
        Ok(shelves::find(&*api.store, app, env, &self.entry.id.to_string()).await?)
    }

    /// How far it has come.
    fn standing(&self, now: Timestamp) -> Standing {
        Standing { status: self.status(now), funnel: self.funnel(now), is_dispatched: self.is_dispatched() }
    }

    /// Where its targets are.
    pub(crate) fn funnel(&self, now: Timestamp) -> Funnel {
        self.tally.as_ref().map(|tally| tally.funnel(self.entry.expires_at, now)).unwrap_or_default()
    }

    /// How far it has come as a whole.
    pub(crate) fn status(&self, now: Timestamp) -> Status {
        let entry = &self.entry;
        match () {
            () if entry.failed.is_some() => Status::Failed,
            () if entry.cancelled_at.is_some() => Status::Cancelled,
            () if self.is_dispatched() && self.funnel(now).pending == 0 => Status::Completed,
            () if self.is_dispatched() => Status::Delivering,
            () if now >= entry.expires_at => Status::Expired,
            () => Status::Queued,
        }
    }

    fn is_dispatched(&self) -> bool {
        self.entry.dispatched_at.is_some() || self.tally.is_some()
    }
}

/// How far a message has come at some time: what is told of its tally, which itself can be large.
#[derive(Clone, Copy)]
struct Standing {
    status: Status,
    funnel: Funnel,
    is_dispatched: bool,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
struct MessageView<'a> {
    id: MessageId,
    mode: Lane,
    env: Env,
    status: Status,
    r#type: &'a str,
    class: &'static str,
    created_at: Time,
    started_at: Option<Time>,
    cancelled_at: Option<Time>,
    expires_at: Time,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
    trace_id: String,
    stats: Stats,
    progress: Progress,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<CommandView<'a>>,
}

/// The funnel, and who was taken out before it begins.
#[derive(Serialize, ToSchema)]
#[schema(as = MessageStats)]
struct Stats {
    #[serde(flatten)]
    funnel: Funnel,
    #[serde(skip_serializing_if = "Option::is_none")]
    excluded: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    excluded_by: Option<BTreeMap<&'static str, u64>>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = MessageProgress)]
struct Progress {
    resolved: bool,
    fanout_done: bool,
}

impl<'a> MessageView<'a> {
    /// In lists nobody looks up who was excluded, or what came of commands.
    fn new(entry: &'a Entry, standing: Standing, aim: Option<&Aim>) -> Self {
        let Standing { status, funnel, is_dispatched } = standing;
        let (excluded, excluded_by) = aim.map(|aim| view::excluded(&aim.excluded)).unzip();
        Self {
            id: entry.id,
            mode: entry.lane,
            env: entry.env,
            status,
            r#type: &entry.kind,
            class: entry.class.as_str(),
            created_at: view::time(entry.created_at),
            started_at: entry.dispatched_at.map(view::time),
            cancelled_at: entry.cancelled_at.map(view::time),
            expires_at: view::time(entry.expires_at),
            failed: entry.failed.as_deref(),
            metadata: &entry.metadata,
            trace_id: entry.trace.id(),
            stats: Stats { funnel, excluded, excluded_by },
            progress: Progress { resolved: is_dispatched, fanout_done: is_dispatched },
            command: None,
        }
    }
}

/// How far a message has come.
#[utoipa::path(
    get, path = "/v1/messages/{id}", operation_id = "get_message",
    responses((status = 200, body = MessageView), (status = 404)), security(("key" = [Scope::Read.as_str()])),
)]
pub(crate) async fn get(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Read)?;
    call.query()?.finish()?;
    let known = Known::find(&api, &call, &id).await?;
    let aim = known.aim(&api, &call).await?.unwrap_or_default();
    let command = CommandView::of(&api, &call, &known).await?;
    let standing = known.standing(api.clock.now());
    let view = MessageView { command, ..MessageView::new(&known.entry, standing, Some(&aim)) };
    Ok(Json(view).into_response())
}

/// Messages, newest first.
///
/// A page may be short where the other environment's messages lie between.
#[utoipa::path(
    get, path = "/v1/messages", operation_id = "list_messages",
    params(Paging), responses((status = 200, body = Page<MessageView>, headers(("Link")))),
    security(("key" = [Scope::Read.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Read)?;
    let mut query = call.query()?;
    let (limit, before) = (query.limit(), query.cursor::<MessageId>());
    query.finish()?;
    let app = call.caller.app();
    let entries = api.store.entries(app, before, limit).await?;
    let last = entries.last().filter(|_| entries.len() == limit).map(|entry| entry.id.to_string());
    let mut page = Vec::with_capacity(entries.len());
    for entry in entries.into_iter().filter(|entry| entry.env == call.caller.env()) {
        // The tally of a broadcast is large: it goes before the next one is read.
        let known = Known { tally: api.store.tally(app, entry.id).await?, entry };
        page.push((known.standing(api.clock.now()), known.entry));
    }
    let views: Vec<_> = page.iter().map(|(standing, entry)| MessageView::new(entry, *standing, None)).collect();
    query::page(&call.uri, &views, last)
}
