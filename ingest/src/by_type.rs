//! What an environment of an app keeps for each type of message: a few records of one shelf, under the types' names.

use axum::{http::StatusCode, response::IntoResponse};
use model::shelved::Shelved;
use store::shelves;

use crate::{
    api::Api,
    gate::{Answer, Call},
    problem::Problem,
    send,
};

/// Types for which an environment keeps a record of one kind.
const TYPES_MAX: usize = 200;

/// Refuses a path that names no type.
pub(crate) fn check(kind: &str) -> Result<(), Problem> {
    if send::is_kind(kind) { Ok(()) } else { Err(Problem::fault("", "invalid_format", "a type is [a-z0-9_-]{1,32}")) }
}

/// The records of all types that have one.
pub(crate) async fn list<T: Shelved>(api: &Api, call: &Call) -> Result<Vec<(String, T)>, Problem> {
    Ok(shelves::list(&*api.store, (call.caller.app(), call.caller.env()), None, TYPES_MAX).await?)
}

/// Refuses a record that would be one too many; `what` says what types have.
pub(crate) async fn check_room<T: Shelved>(api: &Api, call: &Call, kind: &str, what: &str) -> Result<(), Problem> {
    let all = list::<T>(api, call).await?;
    if all.len() < TYPES_MAX || all.iter().any(|(known, _)| known == kind) {
        return Ok(());
    }
    Err(Problem::fault("#", "too_many", format!("at most {TYPES_MAX} types have {what}")))
}

/// Puts the record of a type in place of what is there.
pub(crate) async fn put<T: Shelved>(api: &Api, call: &Call, kind: &str, record: &T, what: &str) -> Result<(), Problem> {
    check_room::<T>(api, call, kind, what).await?;
    Ok(shelves::put(&*api.store, call.caller.app(), call.caller.env(), kind, record).await?)
}

/// Removes the record of a type, which is called `what`.
pub(crate) async fn remove<T: Shelved>(api: &Api, call: &Call, kind: &str, what: &str) -> Answer {
    let removed = shelves::remove::<T>(&*api.store, call.caller.app(), call.caller.env(), kind).await?;
    if removed { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(Problem::not_found(what)) }
}
