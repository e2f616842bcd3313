//! Groups: lists of devices that products keep here to send to, or keep themselves.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
    response::IntoResponse,
};
use model::{DeviceId, Group, GroupId, Ordinal, Scope, group::Source};
use serde::Serialize;
use store::{Patience, devices::ordinals};
use utoipa::ToSchema;

use crate::{
    Callbacks,
    api::Api,
    callback::{self, Asked},
    edition::{self, IfMatch},
    fields::{self, Fields},
    gate::{self, Answer, Call},
    openapi::shape::{self, Shape, body},
    problem::Problem,
    query::{self, Page, Paging},
    view::{GroupView, Warning},
};

/// How long an answer of a product counts when nobody says, and at most.
const CACHE_DEFAULT_S: u64 = 60;
const CACHE_MAX_S: u64 = 3_600;

/// Members that may be added or removed at once.
const CHANGE_MAX: usize = 5_000;

async fn find(api: &Api, call: &Call, id: &str) -> Result<Group, Problem> {
    let missing = || Problem::not_found("group");
    let id: GroupId = id.parse().map_err(|_| missing())?;
    let found = api.store.group(call.caller.app(), id).await?;
    found.filter(|group| group.env == call.caller.env()).ok_or_else(missing)
}

#[derive(Serialize, ToSchema)]
struct MembersChanged {
    members: u64,
    warnings: Vec<Warning>,
}

body! {
    /// A group: its members are kept here, or the product is asked for them.
    GroupBody {
        required { "name": fields::name_shape() }
        optional { "source": source_shape() }
        example { "name": "Club", "source": { "type": "callback", "url": "https://example.com/members", "cache_s": 60 } }
    }
}

fn source_shape() -> Shape {
    let kept_here = shape::object(Vec::new(), vec![("type", shape::one_of(["static"]))]);
    let required = vec![("type", shape::one_of(["callback"])), ("url", shape::format("uri"))];
    let cache = shape::usually(shape::number(0..=CACHE_MAX_S), CACHE_DEFAULT_S);
    shape::either([kept_here.into(), shape::object(required, vec![("cache_s", cache)]).into()])
}

body! {
    /// What is to be another.
    GroupPatch {
        required { "name": fields::name_shape() }
        optional {}
        example { "name": "Old club" }
    }
}

body! {
    /// Who is to be a member, and who is not.
    MembersBody {
        required {}
        optional {
            "add": shape::list(shape::of::<DeviceId>(), 0..=CHANGE_MAX),
            "remove": shape::list(shape::of::<DeviceId>(), 0..=CHANGE_MAX),
        }
        example { "add": ["dev-1", "dev-2"], "remove": ["dev-9"] }
    }
}

/// Creates a group: an empty one, or one that the product keeps.
#[utoipa::path(
    post, path = "/v1/groups", operation_id = "create_group",
    request_body = GroupBody, responses((status = 201, body = GroupView, headers(("Location")))),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn create(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    let name = fields.name();
    let source = fields.object("source").map(|mut inner| {
        let source = source(&mut inner, &api.config.callbacks);
        fields.absorb(inner);
        source
    });
    fields.finish()?;
    let (now, env) = (api.clock.now(), call.caller.env());
    let id = GroupId::new(now, rand::random());
    let group = Group { id, name, env, created_at: now, source: source.unwrap_or_default() };
    api.store.put_group(call.caller.app(), group.clone()).await?;
    gate::located(StatusCode::CREATED, format!("/v1/groups/{}", group.id), GroupView::from(group))
}

/// Where the members of a new group are.
fn source(fields: &mut Fields<'_>, policy: &Callbacks) -> Source {
    let kind = fields.text("type", "`static` or `callback`", |kind| kind == "static" || kind == "callback");
    if kind.as_deref() != Some("callback") {
        return Source::Static;
    }
    if fields.lacks("url") {
        fields.fault("url", "missing", "say where to ask for the members");
    }
    let url: String = fields.get("url", "a string").unwrap_or_default();
    if fields.is_right()
        && let Err(refused) = Asked::read(&url).and_then(|asked| asked.check(policy).map(|()| asked))
    {
        fields.fault("url", "invalid_format", refused);
    }
    Source::Callback { url, cache_s: fields.number("cache_s", 0, CACHE_MAX_S).unwrap_or(CACHE_DEFAULT_S) }
}

/// Groups, oldest first.
///
/// A page may be short where the other environment's groups lie between.
#[utoipa::path(
    get, path = "/v1/groups", operation_id = "list_groups",
    params(Paging), responses((status = 200, body = Page<GroupView>, headers(("Link")))),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    let mut query = call.query()?;
    let (limit, after) = (query.limit(), query.cursor::<GroupId>());
    query.finish()?;
    let groups = api.store.groups(call.caller.app(), after, limit).await?;
    let last = groups.last().filter(|_| groups.len() == limit).map(|group| group.id.to_string());
    let ours = groups.into_iter().filter(|group| group.env == call.caller.env());
    let views: Vec<_> = ours.map(GroupView::from).collect();
    query::page(&call.uri, &views, last)
}

/// One group.
#[utoipa::path(
    get, path = "/v1/groups/{id}", operation_id = "get_group",
    responses((status = 200, body = GroupView, headers(("ETag"))), (status = 404)),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn get(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let group = find(&api, &call, &id).await?;
    Ok(edition::answer(StatusCode::OK, &group, GroupView::from(group.clone())))
}

/// Another name.
#[utoipa::path(
    patch, path = "/v1/groups/{id}", operation_id = "rename_group",
    params(IfMatch), request_body = GroupPatch,
    responses((status = 200, body = GroupView, headers(("ETag"))), (status = 404), (status = 412)),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn rename(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    let name = fields.name();
    fields.finish()?;
    let mut patience = Patience::begin();
    loop {
        let group = find(&api, &call, &id).await?;
        if !edition::matches(&call.headers, &group) {
            return Err(edition::changed());
        }
        let renamed = Group { name: name.clone(), ..group.clone() };
        if api.store.replace_group(call.caller.app(), &group, renamed.clone()).await? {
            return Ok(edition::answer(StatusCode::OK, &renamed, GroupView::from(renamed.clone())));
        }
        patience.again().await?;
    }
}

/// Removes a group.
#[utoipa::path(
    delete, path = "/v1/groups/{id}", operation_id = "remove_group",
    responses((status = 204), (status = 404)), security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn remove(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let group = find(&api, &call, &id).await?;
    api.store.remove_group(call.caller.app(), group.id).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Adds members and removes others, in one step.
///
/// Ids that are unknown become a warning.
#[utoipa::path(
    post, path = "/v1/groups/{id}/members", operation_id = "change_members",
    request_body = Option<MembersBody>, responses((status = 200, body = MembersChanged), (status = 404)),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn change_members(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    call.query()?.finish()?;
    let group = find(&api, &call, &id).await?;
    if !group.source.is_static() {
        return Err(Problem::fault(
            "#",
            "contradiction",
            "the product keeps the members of this group, and is asked for them",
        ));
    }
    let mut fields = Fields::read(&call.body)?;
    let add: Vec<DeviceId> = fields.list("add", CHANGE_MAX).unwrap_or_default();
    let remove: Vec<DeviceId> = fields.list("remove", CHANGE_MAX).unwrap_or_default();
    fields.finish()?;
    let (app, env, store) = (call.caller.app(), call.caller.env(), &*api.store);
    let (add, mut unknown) = ordinals(store, app, env, &add).await?;
    let (remove, more) = ordinals(store, app, env, &remove).await?;
    unknown.extend(more);
    let changed = api.store.change_members(call.caller.app(), group.id, add, remove).await?;
    let members = changed.ok_or_else(|| Problem::not_found("group"))?;
    Ok(Json(MembersChanged { members, warnings: Warning::unknown(&unknown).into_iter().collect() }).into_response())
}

/// The members of a group.
#[utoipa::path(
    get, path = "/v1/groups/{id}/members", operation_id = "list_members",
    params(Paging), responses((status = 200, body = Page<DeviceId>, headers(("Link"))), (status = 404)),
    security(("key" = [Scope::Audiences.as_str()])),
)]
pub(crate) async fn members(State(api): State<Arc<Api>>, Path(id): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Audiences)?;
    let mut query = call.query()?;
    let (limit, after) = (query.limit(), query.cursor::<u32>().map(Ordinal));
    query.finish()?;
    let group = find(&api, &call, &id).await?;
    let members = match &group.source {
        Source::Static => api.store.members(call.caller.app(), group.id).await?.unwrap_or_default(),
        Source::Callback { .. } => callback::members(&api, &call.caller, &group).await?.0,
    };
    let page: Vec<_> = members.iter_after(after).take(limit).collect();
    let last = page.last().filter(|_| page.len() == limit).map(|device| device.0.to_string());
    let names: Vec<_> = api.store.names(call.caller.app(), &page).await?.into_iter().flatten().collect();
    query::page(&call.uri, &names, last)
}
