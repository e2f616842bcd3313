//! Values as devices have them: attributes in JSON, and everything else that expressions compare.

use std::cmp::Ordering;

use serde_json::Value as Json;

use crate::Version;

/// What is known under one name about one device.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number; whole numbers are exact below 2^53.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// Texts.
    List(Vec<String>),
    /// A version.
    Version(Version),
    /// Milliseconds since the epoch.
    Time(i64),
}

impl Value {
    /// The value of an attribute, its type taken from the JSON; `None` for what no attribute can be: null, objects, and
    /// lists of anything but texts.
    pub fn from_json(json: Json) -> Option<Self> {
        match json {
            Json::String(text) => Some(Self::Text(text)),
            Json::Number(number) => number.as_f64().map(Self::Number),
            Json::Bool(bool) => Some(Self::Bool(bool)),
            Json::Array(items) => {
                let text = |item| if let Json::String(text) = item { Some(text) } else { None };
                items.into_iter().map(text).collect::<Option<_>>().map(Self::List)
            }
            Json::Null | Json::Object(_) => None,
        }
    }

    /// How it compares with `other`; not at all when their types differ, or they are lists.
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Text(ours), Self::Text(theirs)) => Some(ours.cmp(theirs)),
            (Self::Number(ours), Self::Number(theirs)) => ours.partial_cmp(theirs),
            (Self::Bool(ours), Self::Bool(theirs)) => Some(ours.cmp(theirs)),
            (Self::Version(ours), Self::Version(theirs)) => Some(ours.cmp(theirs)),
            (Self::Time(ours), Self::Time(theirs)) => Some(ours.cmp(theirs)),
            _ => None,
        }
    }
}
