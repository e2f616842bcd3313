//! Idempotency keys: how they are written, what they stand for, and which are in use in this process. What became of
//! a used key is in the store, not here.

use std::{collections::HashSet, sync::Arc};

use axum::http::HeaderMap;
use model::{AppId, sign};
use parking_lot::Mutex;
use serde_json::Value;
use utoipa::{
    IntoParams,
    openapi::path::{Parameter, ParameterIn},
};

use crate::{
    auth::Caller,
    openapi::shape::{self, Shape},
    problem::{Code, Problem},
};

/// Longest key, in characters.
const KEY_MAX_CHARS: usize = 128;

/// The key in `Idempotency-Key`, as a structured-field string (`"order-1"`) or bare.
///
/// # Errors
/// `idempotency_key_invalid`.
pub(crate) fn in_header(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key("idempotency-key") { Err(invalid()) } else { Ok(None) };
    };
    let text = value.to_str().map_err(|_| invalid())?.trim();
    let key = match text.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').ok_or_else(invalid)?,
        None => text,
    };
    if is_legal(key) { Ok(Some(key.to_owned())) } else { Err(invalid()) }
}

/// The header.
pub(crate) enum InHeader {}

impl IntoParams for InHeader {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let says =
            "The same request with the same key is carried out once, and answered alike for a day. Bare, or in quotes.";
        vec![shape::parameter(ParameterIn::Header, "Idempotency-Key", shape::text(1..=KEY_MAX_CHARS + 2), says)]
    }
}

/// A key.
pub(crate) fn key() -> Shape {
    shape::pattern(format!("^[ !#-\\[\\]-~]{{1,{KEY_MAX_CHARS}}}$"))
}

/// What a key may be: [`KEY_RULE`] for people.
pub(crate) fn is_legal(key: &str) -> bool {
    let legal = |b: u8| matches!(b, b' '..=b'~') && b != b'"' && b != b'\\';
    (1..=KEY_MAX_CHARS).contains(&key.len()) && key.bytes().all(legal)
}

/// What a key may be, for people.
pub(crate) const KEY_RULE: &str = "1 to 128 visible ASCII characters, without \" and \\";

fn invalid() -> Problem {
    Problem::new(Code::IdempotencyKeyInvalid, format!("Idempotency-Key must be {KEY_RULE}, once"))
}

/// The key as it is kept: the two environments of an app do not share keys.
pub(crate) fn kept(caller: &Caller, key: &str) -> String {
    format!("{}:{key}", caller.env())
}

/// SHA-256 of what a body means: neither the order of its fields nor its spaces count, nor where the key stood.
pub(crate) fn fingerprint(body: &[u8]) -> [u8; 32] {
    let meaning = serde_json::from_slice::<Value>(body).map(|mut value| {
        if let Some(object) = value.as_object_mut() {
            object.remove("idempotency_key");
        }
        value.to_string()
    });
    sign::digest(&meaning.unwrap_or_else(|_| String::from_utf8_lossy(body).into_owned()))
}

/// The keys whose first request is still running here. Bounded by the requests under way.
#[derive(Clone, Default)]
pub(crate) struct Running(Arc<Mutex<HashSet<(AppId, String)>>>);

impl Running {
    /// Enters a key until the returned guard is dropped.
    ///
    /// # Errors
    /// `idempotency_in_progress`.
    pub(crate) fn enter(&self, app: &AppId, key: &str) -> Result<Entered, Problem> {
        let entry = (app.clone(), key.to_owned());
        if self.0.lock().insert(entry.clone()) {
            return Ok(Entered { running: self.clone(), entry });
        }
        Err(Problem::new(Code::IdempotencyInProgress, "a request with this idempotency key is still running"))
    }
}

/// A key that is in use until this is dropped.
pub(crate) struct Entered {
    running: Running,
    entry: (AppId, String),
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.running.0.lock().remove(&self.entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_taken_quoted_or_bare() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", value.parse().unwrap());
            in_header(&headers)
        };
        assert_eq!(read("\"order 8812\"").unwrap().unwrap(), "order 8812");
        assert_eq!(read("order-8812").unwrap().unwrap(), "order-8812");
        for bad in ["", "\"\"", "\"open", "a\"b", &"x".repeat(129)] {
            assert_eq!(read(bad).unwrap_err().code(), Code::IdempotencyKeyInvalid, "{bad:?}");
        }
    }

    #[test]
    fn a_fingerprint_is_of_the_meaning() {
        let first = fingerprint(br#"{"to":"all","payload":{"a":1,"b":[1,2]}}"#);
        assert_eq!(first, fingerprint(br#"{ "payload":{"b":[1, 2],"a":1}, "to":"all","idempotency_key":"k"}"#));
        assert_ne!(first, fingerprint(br#"{"to":"all","payload":{"a":1,"b":[2,1]}}"#));
    }
}
