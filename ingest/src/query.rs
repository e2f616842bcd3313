//! What stands behind the `?`, and pages of lists.

use std::{fmt, str::FromStr};

use axum::{
    Json,
    http::{HeaderValue, Uri, header},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use model::shelved::Shelved;
use serde::Serialize;
use store::shelves;
use utoipa::{
    IntoParams, ToSchema,
    openapi::path::{Parameter, ParameterIn},
};

use crate::{
    api::Api,
    gate::Call,
    openapi::shape,
    problem::{Code, Fault, Problem},
};

/// Things on a page when nobody says how many.
const PAGE_DEFAULT: usize = 50;
/// Most things on a page.
const PAGE_MAX: usize = 500;

/// How many things a page may hold.
pub(crate) enum Limit {}

impl IntoParams for Limit {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let limit = shape::usually(shape::number(1..=PAGE_MAX as u64), PAGE_DEFAULT);
        vec![shape::parameter(ParameterIn::Query, "limit", limit, "How many things the page may hold.")]
    }
}

/// Which page of a list.
pub(crate) enum Paging {}

impl IntoParams for Paging {
    fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let cursor = shape::pattern("^[A-Za-z0-9_-]+$");
        let cursor = shape::parameter(ParameterIn::Query, "cursor", cursor, "The `next_cursor` of the page before.");
        [Limit::into_params(place), vec![cursor]].concat()
    }
}

/// The parameters of a request, and the mistakes found so far. A parameter is known once it was taken.
pub(crate) struct Query {
    pairs: Vec<(String, String)>,
    faults: Vec<Fault>,
}

impl Query {
    /// Reads the parameters.
    ///
    /// # Errors
    /// When they are not form-encoded.
    pub(crate) fn read(uri: &Uri) -> Result<Self, Problem> {
        let axum::extract::Query(pairs) = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Problem::fault("?", "invalid_format", "parameters must be form-encoded"))?;
        Ok(Self { pairs, faults: Vec::new() })
    }

    /// The parameter as it was written.
    pub(crate) fn take(&mut self, name: &str) -> Option<String> {
        let index = self.pairs.iter().position(|(known, _)| known == name)?;
        Some(self.pairs.remove(index).1)
    }

    /// The parameter as a `T`.
    pub(crate) fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.take(name)?;
        text.parse().map_err(|error: T::Err| self.fault(name, "invalid_format", error.to_string())).ok()
    }

    /// How many things the page may hold.
    pub(crate) fn limit(&mut self) -> usize {
        match self.parsed::<usize>("limit") {
            Some(limit) if !(1..=PAGE_MAX).contains(&limit) => {
                self.fault("limit", "out_of_range", format!("1..{PAGE_MAX}"));
                PAGE_DEFAULT
            }
            limit => limit.unwrap_or(PAGE_DEFAULT),
        }
    }

    /// The last thing of the page before.
    pub(crate) fn cursor<T: FromStr>(&mut self) -> Option<T> {
        let text = self.take("cursor")?;
        let decoded = URL_SAFE_NO_PAD.decode(text).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let last = decoded.and_then(|text| text.parse().ok());
        if last.is_none() {
            self.fault("cursor", "invalid_format", "must be the `next_cursor` of the page before");
        }
        last
    }

    fn fault(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        self.faults.push(Fault { pointer: format!("?{name}"), code, detail: detail.into() });
    }

    /// Whether nothing is wrong and nothing is left over.
    ///
    /// # Errors
    /// `invalid_request` with every mistake; a parameter that nobody took is one.
    pub(crate) fn finish(mut self) -> Result<(), Problem> {
        for (name, _) in std::mem::take(&mut self.pairs) {
            let shown: String = name.chars().take(PAGE_DEFAULT).collect();
            self.fault(&shown, "unknown_parameter", "is not a parameter here");
        }
        if self.faults.is_empty() { Ok(()) } else { Err(Problem::invalid(self.faults)) }
    }
}

/// The records of a shelf on the page that the call asks for, and the name of the last one, if there may be more.
///
/// # Errors
/// `invalid_request` for wrong parameters; whatever the store says.
pub(crate) async fn shelf<T: Shelved>(api: &Api, call: &Call) -> Result<(Vec<T>, Option<String>), Problem> {
    let mut query = call.query()?;
    let (limit, after) = (query.limit(), query.cursor::<String>());
    query.finish()?;
    let of = (call.caller.app(), call.caller.env());
    let page = shelves::list::<T>(&*api.store, of, after.as_deref(), limit).await?;
    let last = page.last().filter(|_| page.len() == limit).map(|(name, _)| name.clone());
    Ok((page.into_iter().map(|(_, record)| record).collect(), last))
}

/// A page of a list.
#[derive(Serialize, ToSchema)]
pub(crate) struct Page<'a, T> {
    data: &'a [T],
    /// The `cursor` of the next page, if there may be one.
    next_cursor: Option<&'a str>,
}

/// Answers one page of `uri`; `last` is the thing to go on after, if there may be more.
pub(crate) fn page<T: Serialize>(uri: &Uri, data: &[T], last: Option<String>) -> Result<Response, Problem> {
    let cursor = last.map(|last| URL_SAFE_NO_PAD.encode(last));
    let mut response = Json(Page { data, next_cursor: cursor.as_deref() }).into_response();
    if let Some(cursor) = &cursor {
        let others = uri.query().unwrap_or_default().split('&');
        let kept: Vec<_> = others.filter(|pair| !pair.is_empty() && !pair.starts_with("cursor=")).collect();
        let query = [kept.as_slice(), &[&format!("cursor={cursor}")]].concat().join("&");
        let link = HeaderValue::from_str(&format!("<{}?{query}>; rel=\"next\"", uri.path()))
            .map_err(|_| Problem::new(Code::Internal, "this page has no next one that can be written down"))?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}
