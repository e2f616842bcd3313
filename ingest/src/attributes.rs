//! The attributes of an app: declared by its backend, or known since their first value. Each has one type, and one owner
//! at most.

use std::{collections::BTreeMap, sync::Arc};

use audience::attribute::{inferred, kept};
use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse,
};
use model::{AppId, Attribute, AttributeType, Env, Owner, Profile, Scope};
use serde::Serialize;
use store::{SharedStore, shelves};
use utoipa::ToSchema;

use crate::{
    api::Api,
    fields::Fields,
    gate::{Answer, Call},
    openapi::shape::{self, body},
    problem::{Code, Fault, Problem},
    query::Page,
};

/// What an attribute can be.
const TYPES: &str = "`string`, `number`, `bool`, `time`, `version` or `string_list`";

/// Attributes that an environment of an app may have: every expression is checked against all of them.
const ATTRIBUTES_MAX: usize = 1_000;

#[derive(Serialize, ToSchema)]
#[schema(as = Attribute)]
struct AttributeView<'a> {
    name: &'a str,
    r#type: AttributeType,
    owner: Option<Owner>,
    declared: bool,
}

impl<'a> AttributeView<'a> {
    fn new(name: &'a str, attribute: &Attribute) -> Self {
        let Attribute { kind, owner, declared } = *attribute;
        Self { name, r#type: kind, owner, declared }
    }
}

/// Every attribute, by name.
///
/// # Errors
/// Whatever the store says.
pub(crate) async fn all(store: &SharedStore, app: &AppId, env: Env) -> Result<BTreeMap<String, Attribute>, Problem> {
    Ok(shelves::list(&**store, (app, env), None, ATTRIBUTES_MAX).await?.into_iter().collect())
}

body! {
    /// What values an attribute has, and who writes them: both sides, when nobody says.
    AttributeBody {
        required { "type": shape::of::<AttributeType>() }
        optional { "owner": shape::of::<Owner>() }
        example { "type": "number", "owner": "server" }
    }
}

/// The attributes of the app, by name.
#[utoipa::path(
    get, path = "/v1/attributes", operation_id = "list_attributes",
    responses((status = 200, body = Page<AttributeView>)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn list(State(api): State<Arc<Api>>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let all = all(&api.store, call.caller.app(), call.caller.env()).await?;
    let views: Vec<_> = all.iter().map(|(name, attribute)| AttributeView::new(name, attribute)).collect();
    Ok(Json(serde_json::json!({ "data": views, "next_cursor": null })).into_response())
}

/// One attribute.
#[utoipa::path(
    get, path = "/v1/attributes/{name}", operation_id = "get_attribute",
    responses((status = 200, body = AttributeView), (status = 404)), security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn get(State(api): State<Arc<Api>>, Path(name): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let found = shelves::find(&*api.store, call.caller.app(), call.caller.env(), &name).await;
    let attribute = found?.ok_or_else(|| Problem::not_found("attribute"))?;
    Ok(Json(AttributeView::new(&name, &attribute)).into_response())
}

/// Declares the type and the owner of an attribute.
///
/// The type of an attribute that has values never changes.
#[utoipa::path(
    put, path = "/v1/attributes/{name}", operation_id = "declare_attribute",
    request_body = AttributeBody, responses((status = 200, body = AttributeView), (status = 409)),
    security(("key" = [Scope::Devices.as_str()])),
)]
pub(crate) async fn declare(State(api): State<Arc<Api>>, Path(name): Path<String>, call: Call) -> Answer {
    call.caller.require(Scope::Devices)?;
    call.query()?.finish()?;
    let mut fields = Fields::read(&call.body)?;
    if !audience::field::is_attribute_name(&name) {
        fields.fault("", "invalid_format", "a name must be [a-z][a-z0-9_]{0,31}");
    }
    let kind: Option<AttributeType> = fields.get("type", TYPES);
    let owner: Option<Owner> = fields.get("owner", "`server` or `device`");
    if kind.is_none() && fields.is_right() {
        fields.fault("type", "missing", format!("say {TYPES}"));
    }
    fields.finish()?;
    let kind = kind.ok_or_else(|| Problem::fault("#/type", "missing", "an attribute has a type"))?;
    let (app, env) = (call.caller.app(), call.caller.env());
    let known = all(&api.store, app, env).await?;
    if let Some(before) = known.get(&name).filter(|before| before.kind != kind) {
        return Err(conflict(&name, before.kind, kind));
    }
    if known.len() >= ATTRIBUTES_MAX && !known.contains_key(&name) {
        return Err(Problem::fault("#", "too_many", format!("an app has at most {ATTRIBUTES_MAX} attributes")));
    }
    let attribute = Attribute { kind, owner, declared: true };
    shelves::put(&*api.store, app, env, &name, &attribute).await?;
    Ok(Json(AttributeView::new(&name, &attribute)).into_response())
}

fn conflict(name: &str, is: AttributeType, given: AttributeType) -> Problem {
    let detail = format!("attr.{name} is a {}, not a {}: the type of an attribute stays", is.as_str(), given.as_str());
    Problem::new(Code::TypeConflict, detail)
}

/// The attributes of an environment of an app as they were when it was read, and those that came since.
pub(crate) struct Catalogue<'a> {
    store: &'a SharedStore,
    app: &'a AppId,
    env: Env,
    known: BTreeMap<String, Attribute>,
}

impl<'a> Catalogue<'a> {
    /// Reads it.
    ///
    /// # Errors
    /// Whatever the store says.
    pub(crate) async fn read(store: &'a SharedStore, app: &'a AppId, env: Env) -> Result<Self, Problem> {
        Ok(Self { store, app, env, known: all(store, app, env).await? })
    }

    /// Checks what a backend writes into a profile, puts it down as it is kept, and takes note of attributes that are
    /// new.
    ///
    /// # Errors
    /// `type_conflict` for a value of another type, `invalid_request` for an attribute that is the device's own;
    /// whatever the store says.
    pub(crate) async fn admit(&mut self, profile: &mut Profile, before: Option<&Profile>) -> Result<(), Problem> {
        let stays = |name: &str, json: &String| before.is_some_and(|before| before.attributes.get(name) == Some(json));
        let mut faults = Vec::new();
        let mut fault = |name: &str, code, detail| {
            faults.push(Fault { pointer: format!("#/attributes/{name}"), code, detail });
        };
        for (name, json) in profile.attributes.iter_mut().filter(|(name, json)| !stays(name, json)) {
            let Some(given) = inferred(json) else { continue };
            let attribute = match self.known.get(name) {
                Some(attribute) => *attribute,
                None if self.known.len() >= ATTRIBUTES_MAX => {
                    fault(name, "too_many", format!("an app has at most {ATTRIBUTES_MAX} attributes"));
                    continue;
                }
                None => self.note(name, given).await?,
            };
            *json = kept(json, attribute.kind).ok_or_else(|| conflict(name, attribute.kind, given))?;
            if attribute.owner == Some(Owner::Device) && !stays(name, json) {
                fault(name, "owner_conflict", format!("attr.{name} is written by devices only"));
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(Problem::invalid(faults)) }
    }

    /// An attribute has its first value; somebody else may have given it one at the same time.
    async fn note(&mut self, name: &str, kind: AttributeType) -> Result<Attribute, Problem> {
        let first = Attribute { kind, owner: None, declared: false };
        let put = |there: Option<Attribute>| if there.is_some() { None } else { Some(first) };
        let is = shelves::change(&**self.store, (self.app, self.env), name, put).await?.unwrap_or(first);
        self.known.insert(name.to_owned(), is);
        Ok(is)
    }
}
