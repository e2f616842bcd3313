//! What a profile may hold, whoever tells it: limits, and what is said of what is beyond them.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::field::is_attribute_name;

/// Most attributes of one device.
pub const ATTRIBUTES_MAX: usize = 100;
/// Longest text, in a list or alone, in bytes.
pub const TEXT_MAX_BYTES: usize = 256;
/// Most texts in one list.
pub const LIST_MAX: usize = 64;
/// Most tags of one device.
pub const TAGS_MAX: usize = 1_000;
/// Longest tag, in bytes.
pub const TAG_MAX_BYTES: usize = 64;

/// Why something may not be known about a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// The stable name of this kind of mistake, `snake_case`.
    pub code: &'static str,
    /// What would be right.
    pub reason: String,
}

fn unless(is_right: bool, code: &'static str, reason: impl FnOnce() -> String) -> Result<(), Beyond> {
    if is_right { Ok(()) } else { Err(Beyond { code, reason: reason() }) }
}

/// Passes for what a built-in field may be.
///
/// # Errors
/// Its length.
pub fn text(text: &str) -> Result<(), Beyond> {
    let is_right = (1..=TEXT_MAX_BYTES).contains(&text.len());
    unless(is_right, "invalid_format", || format!("must be 1..{TEXT_MAX_BYTES} bytes"))
}

/// Passes for what a tag may be.
///
/// # Errors
/// Its length.
pub fn tag(tag: &str) -> Result<(), Beyond> {
    let is_right = (1..=TAG_MAX_BYTES).contains(&tag.len());
    unless(is_right, "invalid_format", || format!("a tag has 1..{TAG_MAX_BYTES} bytes"))
}

/// Passes for all tags of a device together.
///
/// # Errors
/// One that is none, or that they are too many.
pub fn tags(tags: &BTreeSet<String>) -> Result<(), Beyond> {
    tags.iter().try_for_each(|one| tag(one))?;
    unless(tags.len() <= TAGS_MAX, "too_many", || format!("a device has at most {TAGS_MAX} tags"))
}

/// Passes for the name and the value of an attribute.
///
/// # Errors
/// What is wrong with either.
pub fn attribute(name: &str, value: &Json) -> Result<(), Beyond> {
    unless(is_attribute_name(name), "invalid_format", || "a name must be [a-z][a-z0-9_]{0,31}".to_owned())?;
    let is_text = |value: &Json| value.as_str().is_some_and(|text| text.len() <= TEXT_MAX_BYTES);
    let is_right = match value {
        Json::Bool(_) | Json::Number(_) => true,
        Json::Array(items) => items.len() <= LIST_MAX && items.iter().all(is_text),
        value => is_text(value),
    };
    unless(is_right, "invalid_type", || {
        format!(
            "must be a number, true or false, a string of at most {TEXT_MAX_BYTES} bytes, or a list of at most {LIST_MAX} \
             such strings"
        )
    })
}

/// Passes for so many attributes of one device.
///
/// # Errors
/// That they are too many.
pub fn attributes(count: usize) -> Result<(), Beyond> {
    unless(count <= ATTRIBUTES_MAX, "too_many", || format!("a device has at most {ATTRIBUTES_MAX} attributes"))
}
