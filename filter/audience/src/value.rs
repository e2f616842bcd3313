//! Values as devices have them: attributes in JSON, and everything else that expressions compare.

use std::cmp::Ordering;

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde_json::Value as Json;

use crate::{
    Version,
    attribute::{TIME, VERSION},
};

/// Bytes of a date without a time of day.
const DATE_BYTES: usize = "2026-11-21".len();

/// The moment that a text means: RFC 3339, or a date, which begins at midnight UTC.
pub(crate) fn moment(text: &str) -> Option<Timestamp> {
    if text.len() == DATE_BYTES {
        return text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|midnight| midnight.timestamp());
    }
    text.parse().ok()
}

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
    /// The value of an attribute, its type taken from the JSON as it is kept (see [`attribute`](crate::attribute));
    /// `None` for what no attribute can be: null, other objects, and lists of anything but texts.
    pub fn from_json(json: Json) -> Option<Self> {
        match json {
            Json::String(text) => Some(Self::Text(text)),
            Json::Number(number) => number.as_f64().map(Self::Number),
            Json::Bool(bool) => Some(Self::Bool(bool)),
            Json::Array(items) => {
                let text = |item| if let Json::String(text) = item { Some(text) } else { None };
                items.into_iter().map(text).collect::<Option<_>>().map(Self::List)
            }
            Json::Object(object) => match object.iter().next() {
                Some((mark, Json::String(text))) if mark == TIME => Some(Self::Time(moment(text)?.as_millisecond())),
                Some((mark, Json::String(text))) if mark == VERSION => text.parse().ok().map(Self::Version),
                _ => None,
            },
            Json::Null => None,
        }
    }

    /// What a value in an expression can mean, one for each type: a text also means the version or the moment that it
    /// reads as, for an attribute may be kept as one.
    pub fn meanings(self) -> Vec<Self> {
        let Self::Text(text) = self else { return vec![self] };
        let version = text.parse().ok().map(Self::Version);
        let time = moment(&text).map(|at| Self::Time(at.as_millisecond()));
        [Self::Text(text)].into_iter().chain(version).chain(time).collect()
    }

    /// How it compares with what `other` means; not at all when that is of no type that it has, or they are lists.
    pub fn compare_with(&self, other: Self) -> Option<Ordering> {
        other.meanings().iter().find_map(|meaning| self.compare(meaning))
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
