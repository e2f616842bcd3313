//! A change of what is known about a device: a JSON merge patch (RFC 7396) of its profile, within [`limits`].
//!
//! ```json
//! {"platform": "ios", "country": null, "tags": ["vip"], "attributes": {"level": 7, "city": null}}
//! ```
//! `null` forgets, attributes are merged one by one, and tags are replaced as a whole. An attribute takes the type of
//! its latest value as long as nobody declares one.

use std::collections::{BTreeMap, BTreeSet};

use model::{Profile, UserId};
use serde_json::{Map, Value as Json};
use thiserror::Error;

use crate::{
    field::{BuiltIn, did_you_mean, is_attribute_name},
    limits::{self, Beyond},
};

/// Characters of an unknown name that are repeated to its sender.
const NAME_ECHO_CHARS: usize = 64;

/// Why a patch cannot be applied; nothing of it was.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("#{pointer}: {reason}")]
pub struct InvalidPatch {
    /// The place in the patch, as a JSON pointer (RFC 6901); names longer than any that is taken are cut.
    pub pointer: String,
    /// The stable name of this kind of mistake, `snake_case`.
    pub code: &'static str,
    /// What is wrong there, and what would be right.
    pub reason: String,
}

/// The profile after a patch; applying it once more changes nothing.
///
/// # Errors
/// The first mistake in the patch, or the limit that the profile would exceed.
pub fn merge(profile: &Profile, patch: &[u8]) -> Result<Profile, InvalidPatch> {
    let patch: Map<String, Json> =
        serde_json::from_slice(patch).map_err(|error| mistake("", mistyped(format!("a JSON object: {error}"))))?;
    let mut profile = profile.clone();
    for (name, json) in patch {
        let place = pointer("", &name);
        match name.as_str() {
            "user_id" => profile.user_id = user(json).map_err(|reason| mistake(&place, reason))?,
            "tags" => profile.tags = tags(json).map_err(|reason| mistake(&place, reason))?,
            "attributes" => merge_attributes(&mut profile.attributes, json)?,
            told if BuiltIn::TOLD.iter().any(|built_in| built_in.as_str() == told) => {
                match text(json).map_err(|reason| mistake(&place, reason))? {
                    Some(text) => profile.built_in.insert(name, text),
                    None => profile.built_in.remove(&name),
                };
            }
            unknown => {
                let names = BuiltIn::TOLD.map(BuiltIn::as_str).into_iter().chain(["user_id", "tags", "attributes"]);
                let reason = format!("not a field of a device{}", did_you_mean(unknown, names).unwrap_or_default());
                return Err(mistake(&place, Beyond { code: "unknown_field", reason }));
            }
        }
    }
    Ok(profile)
}

fn mistake(pointer: &str, Beyond { code, reason }: Beyond) -> InvalidPatch {
    InvalidPatch { pointer: pointer.to_owned(), code, reason }
}

fn mistyped(expected: impl std::fmt::Display) -> Beyond {
    Beyond { code: "invalid_type", reason: format!("must be {expected}") }
}

fn pointer(parent: &str, name: &str) -> String {
    let name: String = name.chars().take(NAME_ECHO_CHARS).collect();
    format!("{parent}/{}", name.replace('~', "~0").replace('/', "~1"))
}

fn user(json: Json) -> Result<Option<UserId>, Beyond> {
    let invalid = |error: model::id::InvalidId| Beyond { code: "invalid_format", reason: error.to_string() };
    match json {
        Json::Null => Ok(None),
        Json::String(user) => user.parse().map(Some).map_err(invalid),
        _ => Err(mistyped("a string")),
    }
}

fn text(json: Json) -> Result<Option<String>, Beyond> {
    match json {
        Json::Null => Ok(None),
        Json::String(text) => limits::text(&text).map(|()| Some(text)),
        _ => Err(mistyped("a string")),
    }
}

fn tags(json: Json) -> Result<BTreeSet<String>, Beyond> {
    let tags = match json {
        Json::Null => BTreeSet::new(),
        json => serde_json::from_value(json).map_err(|_| mistyped("a list of strings"))?,
    };
    limits::tags(&tags).map(|()| tags)
}

fn merge_attributes(attributes: &mut BTreeMap<String, String>, patch: Json) -> Result<(), InvalidPatch> {
    const PLACE: &str = "/attributes";
    let patch = match patch {
        Json::Null => Map::from_iter(attributes.keys().map(|name| (name.clone(), Json::Null))),
        Json::Object(patch) => patch,
        _ => return Err(mistake(PLACE, mistyped("an object"))),
    };
    for (name, json) in patch {
        if json.is_null() && is_attribute_name(&name) {
            attributes.remove(&name);
            continue;
        }
        limits::attribute(&name, &json).map_err(|beyond| mistake(&pointer(PLACE, &name), beyond))?;
        attributes.insert(name, json.to_string());
    }
    limits::attributes(attributes.len()).map_err(|beyond| mistake(PLACE, beyond))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(patches: &[&str]) -> Profile {
        patches.iter().fold(Profile::default(), |profile, patch| merge(&profile, patch.as_bytes()).unwrap())
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_forgets() {
        let profile = merged(&[
            r#"{"platform":"ios","lang":"zh-CN","user_id":"u-1","tags":["a","b"],"attributes":{"level":7,"city":"深圳"}}"#,
            r#"{"lang":null,"user_id":null,"tags":["c"],"attributes":{"city":null,"langs":["zh"],"paid":true}}"#,
        ]);
        let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let attributes = pairs(&[("langs", r#"["zh"]"#), ("level", "7"), ("paid", "true")]);
        let built_in = pairs(&[("platform", "ios")]);
        assert_eq!(profile, Profile { built_in, tags: ["c".to_owned()].into(), attributes, ..Profile::default() });
        let forget = r#"{"platform":null,"tags":null,"attributes":null}"#;
        assert_eq!(merge(&profile, forget.as_bytes()), Ok(Profile::default()));
        assert_eq!(merge(&profile, b"{}"), Ok(profile));
    }

    #[test]
    fn what_cannot_be_taken_is_refused_where_it_stands() {
        let long = "x".repeat(257);
        let refused = [
            ("7".to_owned(), ""),
            ("{".to_owned(), ""),
            (r#"{"platfrom":"ios"}"#.to_owned(), "/platfrom"),
            (r#"{"first_seen":"ios"}"#.to_owned(), "/first_seen"),
            (r#"{"a/b~":1}"#.to_owned(), "/a~1b~0"),
            (r#"{"platform":5}"#.to_owned(), "/platform"),
            (r#"{"tz":""}"#.to_owned(), "/tz"),
            (format!(r#"{{"platform":"{long}"}}"#), "/platform"),
            (r#"{"user_id":"a/b"}"#.to_owned(), "/user_id"),
            (r#"{"tags":"vip"}"#.to_owned(), "/tags"),
            (r#"{"tags":[""]}"#.to_owned(), "/tags"),
            (format!(r#"{{"tags":["{}"]}}"#, "x".repeat(65)), "/tags"),
            (serde_json::json!({"tags": (0..1_001).map(|n| n.to_string()).collect::<Vec<_>>()}).to_string(), "/tags"),
            (r#"{"attributes":[]}"#.to_owned(), "/attributes"),
            (r#"{"attributes":{"Level":1}}"#.to_owned(), "/attributes/Level"),
            (r#"{"attributes":{"a":{"b":1}}}"#.to_owned(), "/attributes/a"),
            (r#"{"attributes":{"a":[1]}}"#.to_owned(), "/attributes/a"),
            (format!(r#"{{"attributes":{{"a":"{long}"}}}}"#), "/attributes/a"),
            (format!(r#"{{"attributes":{{"a":["{long}"]}}}}"#), "/attributes/a"),
            (serde_json::json!({"attributes": {"a": vec!["x"; 65]}}).to_string(), "/attributes/a"),
        ];
        for (patch, pointer) in refused {
            assert_eq!(merge(&Profile::default(), patch.as_bytes()).expect_err(&patch).pointer, pointer, "{patch}");
        }
    }

    #[test]
    fn attributes_are_limited_over_all_patches() {
        let patch = |range: std::ops::Range<usize>| {
            let attributes: Map<String, Json> = range.map(|n| (format!("a{n}"), n.into())).collect();
            serde_json::json!({ "attributes": attributes }).to_string()
        };
        let full = merged(&[&patch(0..60), &patch(60..100)]);
        assert!(merge(&full, patch(0..10).as_bytes()).is_ok());
        assert_eq!(merge(&full, patch(100..101).as_bytes()).unwrap_err().pointer, "/attributes");
    }
}
