//! Values of an app's own attributes: as they are written, and as they are kept.
//!
//! JSON has texts for moments and versions. They are kept as what they are, `{"time": …}` and `{"version": …}`, which
//! nobody can write: whoever reads a profile then needs to know nothing of its app's attributes.

use std::borrow::Cow;

use model::AttributeType;
use serde_json::{Value as Json, json};

use crate::{Version, value::moment};

/// What a kept moment and a kept version are marked by.
pub(crate) const TIME: &str = "time";
pub(crate) const VERSION: &str = "version";

/// The type that an attribute has by its first value: of texts only a whole RFC 3339 moment is told apart, for too much
/// looks like a version. `None` for what no attribute can be.
pub fn inferred(json: &str) -> Option<AttributeType> {
    match serde_json::from_str(json).ok()? {
        Json::String(text) if text.parse::<jiff::Timestamp>().is_ok() => Some(AttributeType::Time),
        Json::String(_) => Some(AttributeType::String),
        Json::Number(_) => Some(AttributeType::Number),
        Json::Bool(_) => Some(AttributeType::Bool),
        Json::Array(_) => Some(AttributeType::StringList),
        Json::Object(_) if marked(json, TIME).is_some() => Some(AttributeType::Time),
        Json::Object(_) if marked(json, VERSION).is_some() => Some(AttributeType::Version),
        Json::Object(_) | Json::Null => None,
    }
}

/// A value of this type as it is kept, given as it was written or as it is kept; `None` when it is of another type.
pub fn kept(json: &str, kind: AttributeType) -> Option<String> {
    let text = |mark| match serde_json::from_str(json).ok()? {
        Json::String(text) => Some(text),
        _ => marked(json, mark),
    };
    match kind {
        AttributeType::Time => text(TIME).filter(|text| moment(text).is_some()).map(|text| mark(TIME, &text)),
        AttributeType::Version => {
            text(VERSION).filter(|text| text.parse::<Version>().is_ok()).map(|text| mark(VERSION, &text))
        }
        AttributeType::String => serde_json::from_str::<String>(json).is_ok().then(|| json.to_owned()),
        kind => (inferred(json) == Some(kind)).then(|| json.to_owned()),
    }
}

/// A kept value as it was written.
pub fn written(json: &str) -> Cow<'_, str> {
    match marked(json, TIME).or_else(|| marked(json, VERSION)) {
        Some(text) => Cow::Owned(Json::String(text).to_string()),
        None => Cow::Borrowed(json),
    }
}

fn mark(mark: &str, text: &str) -> String {
    json!({ mark: text }).to_string()
}

fn marked(json: &str, mark: &str) -> Option<String> {
    // Most values are no objects, and need not be read for it.
    let Json::Object(mut object) = json.starts_with('{').then(|| serde_json::from_str(json).ok()).flatten()? else {
        return None;
    };
    match object.remove(mark) {
        Some(Json::String(text)) if object.is_empty() => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_value_says_its_type_as_far_as_json_can() {
        for (json, kind) in [
            (r#""x""#, Some(AttributeType::String)),
            (r#""2.10.0""#, Some(AttributeType::String)),
            (r#""1990-05-01""#, Some(AttributeType::String)),
            (r#""2026-11-21T08:30:00+08:00""#, Some(AttributeType::Time)),
            ("7", Some(AttributeType::Number)),
            ("true", Some(AttributeType::Bool)),
            (r#"["a"]"#, Some(AttributeType::StringList)),
            ("null", None),
            (r#"{"a":1}"#, None),
        ] {
            assert_eq!(inferred(json), kind, "{json}");
        }
    }

    #[test]
    fn what_is_kept_is_read_back_as_it_was_written_and_kept_again_as_it_is() {
        for (json, kind) in [
            (r#""2026-11-21T08:30:00+08:00""#, AttributeType::Time),
            (r#""1990-05-01""#, AttributeType::Time),
            (r#""2.10.0-rc.1""#, AttributeType::Version),
            (r#""2026-11-21T08:30:00Z""#, AttributeType::String),
            ("7", AttributeType::Number),
            (r#"["a"]"#, AttributeType::StringList),
        ] {
            let once = kept(json, kind).expect(json);
            assert_eq!(written(&once), json);
            assert_eq!(kept(&once, kind).as_ref(), Some(&once), "{json}");
        }
    }

    #[test]
    fn a_value_of_another_type_is_not_kept() {
        for (json, kind) in [
            (r#""yesterday""#, AttributeType::Time),
            (r#""2026-13-01""#, AttributeType::Time),
            (r#""1990-05-01T10:00""#, AttributeType::Time),
            ("1795249800", AttributeType::Time),
            (r#""two""#, AttributeType::Version),
            ("2.10", AttributeType::Version),
            ("7", AttributeType::String),
            (r#"{"version":"1.0"}"#, AttributeType::Time),
            (r#"{"version":"1.0"}"#, AttributeType::String),
            (r#""a""#, AttributeType::StringList),
        ] {
            assert_eq!(kept(json, kind), None, "{json} as {kind:?}");
        }
    }
}
