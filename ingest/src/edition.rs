//! Which edition of a record somebody has seen: `ETag` in answers, and `If-Match` from whoever changes what he saw.

use axum::{
    Json,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use model::record::Record;
use serde::Serialize;
use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    openapi::shape,
    problem::{Code, Problem},
};

/// The header that says which edition is to be changed.
pub(crate) enum IfMatch {}

impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let tags = shape::pattern("^[ -~]+$");
        vec![shape::parameter(
            ParameterIn::Header,
            "If-Match",
            tags,
            "Only while it is what was read: its `ETag` then.",
        )]
    }
}

/// The name of a record as it is: another one after every change.
fn etag(record: &impl Record) -> String {
    format!("\"{:016x}\"", xxh3_64(&record.encode()))
}

/// An answer that shows a record, and says which edition of it.
pub(crate) fn answer(status: StatusCode, record: &impl Record, view: impl Serialize) -> Response {
    (status, [(header::ETAG, etag(record))], Json(view)).into_response()
}

/// Whether a request is about this edition, or about any.
pub(crate) fn matches(headers: &HeaderMap, record: &impl Record) -> bool {
    let mut wanted = headers.get_all(header::IF_MATCH).iter().peekable();
    let current = etag(record);
    let is_it = |tag: &str| tag.trim() == "*" || tag.trim() == current;
    wanted.peek().is_none() || wanted.any(|tags| tags.to_str().is_ok_and(|tags| tags.split(',').any(is_it)))
}

/// The answer to whoever has seen another edition.
pub(crate) fn changed() -> Problem {
    Problem::new(Code::PreconditionFailed, "it was changed since you read it: read it again, and change that")
}
