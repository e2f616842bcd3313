//! Takes JSON objects apart field by field, so that one answer names every mistake with its place.

use std::{collections::HashSet, fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use crate::{
    openapi::shape::{self, Shape},
    problem::{Code, FAULTS_MAX, Fault, Problem},
};

/// Characters of an unknown field's name that are repeated to its sender.
const NAME_ECHO_CHARS: usize = 64;

/// Longest name that people give something, in bytes.
const NAME_MAX_BYTES: usize = 128;

/// A name that people give something.
pub(crate) fn name_shape() -> Shape {
    shape::text(1..=NAME_MAX_BYTES)
}

/// The fields of one JSON object, and the mistakes found so far. A field is known once it was taken.
pub(crate) struct Fields<'a> {
    members: Vec<(String, &'a RawValue)>,
    at: String,
    faults: Vec<Fault>,
}

impl<'a> Fields<'a> {
    /// Reads a whole body; an empty one is an empty object.
    ///
    /// # Errors
    /// `malformed_json` with line and column, or that the body is no object.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Problem> {
        if body.is_empty() {
            return Ok(Self::nothing());
        }
        let members: Members<'a> = serde_json::from_slice(body).map_err(|error| match error.classify() {
            Category::Data => Problem::fault("#", "invalid_type", "must be an object"),
            _ => Problem::new(Code::MalformedJson, error.to_string()),
        })?;
        Ok(Self::new(members.0, "#".to_owned()))
    }

    /// Reads an object that is a part of a body; what is no object is a mistake with no fields.
    pub(crate) fn of(raw: &'a RawValue, at: impl Into<String>) -> Self {
        let at = at.into();
        match serde_json::from_str::<Members<'a>>(raw.get()) {
            Ok(members) => Self::new(members.0, at),
            Err(_) => {
                let mut none = Self::new(Vec::new(), at.clone());
                none.faults.push(Fault { pointer: at, code: "invalid_type", detail: "must be an object".to_owned() });
                none
            }
        }
    }

    /// No fields and no mistakes.
    pub(crate) fn nothing() -> Self {
        Self::new(Vec::new(), "#".to_owned())
    }

    fn new(members: Vec<(String, &'a RawValue)>, at: String) -> Self {
        let mut fields = Self { members: Vec::with_capacity(members.len()), at, faults: Vec::new() };
        let mut seen = HashSet::with_capacity(members.len());
        for (name, raw) in members {
            if seen.insert(name.clone()) {
                fields.members.push((name, raw));
            } else {
                fields.fault(&name, "duplicate_field", "stands here twice");
            }
        }
        fields
    }

    /// Whether the field is there and was not taken.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(known, _)| known == name)
    }

    /// Whether the field is absent, which `null` counts as.
    pub(crate) fn lacks(&self, name: &str) -> bool {
        !self.members.iter().any(|(known, raw)| known == name && raw.get() != "null")
    }

    /// The field as it was written.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a RawValue> {
        let index = self.members.iter().position(|(known, _)| known == name)?;
        Some(self.members.swap_remove(index).1)
    }

    /// The field as an object of its own; `null` counts as absent.
    pub(crate) fn object(&mut self, name: &str) -> Option<Self> {
        let raw = self.take(name).filter(|raw| raw.get() != "null")?;
        Some(Self::of(raw, self.pointer(name)))
    }

    /// The field as a value of this type; `null` counts as absent.
    pub(crate) fn get<T: DeserializeOwned>(&mut self, name: &str, expected: &str) -> Option<T> {
        let raw = self.take(name).filter(|raw| raw.get() != "null")?;
        let value = serde_json::from_str(raw.get()).ok();
        if value.is_none() {
            self.fault(name, "invalid_type", format!("must be {expected}"));
        }
        value
    }

    /// The field as a text that means a `T`.
    pub(crate) fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text: String = self.get(name, "a string")?;
        text.parse().map_err(|error: T::Err| self.fault(name, "invalid_format", error.to_string())).ok()
    }

    /// The field as a list of texts, at most `max` of them, that each mean a `T`.
    pub(crate) fn list<T: FromStr<Err: fmt::Display>>(&mut self, name: &str, max: usize) -> Option<Vec<T>> {
        let texts: Vec<String> = self.get(name, "a list of strings")?;
        if texts.len() > max {
            self.fault(name, "too_many", format!("at most {max}, not {}", texts.len()));
            return None;
        }
        let faults_before = self.faults.len();
        let mut values = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            match text.parse::<T>() {
                Ok(value) => values.push(value),
                Err(error) => self.fault(&format!("{name}/{index}"), "invalid_format", error.to_string()),
            }
        }
        (self.faults.len() == faults_before).then_some(values)
    }

    /// The same for a field that must be there, with at least one thing in it.
    pub(crate) fn required_list<T: FromStr<Err: fmt::Display>>(&mut self, name: &str, max: usize) -> Vec<T> {
        let right_before = self.faults.len();
        let values = self.list(name, max).unwrap_or_default();
        if values.is_empty() && self.faults.len() == right_before {
            self.fault(name, "missing", format!("must be a list of 1..{max}"));
        }
        values
    }

    /// The field as a number within these bounds.
    pub(crate) fn number(&mut self, name: &str, min: u64, max: u64) -> Option<u64> {
        let number: u64 = self.get(name, "a whole number, not below zero")?;
        if (min..=max).contains(&number) {
            return Some(number);
        }
        self.fault(name, "out_of_range", format!("{min}..{max}"));
        None
    }

    /// The `name` that people give something, which must be there.
    pub(crate) fn name(&mut self) -> String {
        if self.lacks("name") {
            self.fault("name", "missing", "give it a name");
        }
        self.new_name().unwrap_or_default()
    }

    /// The `name`, where it may stay as it is.
    pub(crate) fn new_name(&mut self) -> Option<String> {
        let fits = |text: &str| (1..=NAME_MAX_BYTES).contains(&text.len());
        self.text("name", &format!("must be 1..{NAME_MAX_BYTES} bytes"), fits)
    }

    /// The field as a text that satisfies `legal`, else a mistake that says `rule`.
    pub(crate) fn text(&mut self, name: &str, rule: &str, legal: impl Fn(&str) -> bool) -> Option<String> {
        let text: String = self.get(name, "a string")?;
        if legal(&text) {
            return Some(text);
        }
        self.fault(name, "invalid_format", rule);
        None
    }

    /// Refuses a field that the contract knows and this build does not do: saying so beats ignoring it.
    pub(crate) fn not_yet(&mut self, names: &[&str]) {
        for name in names {
            if self.take(name).is_some() {
                self.fault(name, "not_supported", format!("`{name}` is not supported yet"));
            }
        }
    }

    /// Whether no mistake was found so far.
    pub(crate) fn is_right(&self) -> bool {
        self.faults.is_empty()
    }

    /// Notes a mistake in a field (or below it: `name/0`).
    pub(crate) fn fault(&mut self, name: &str, code: &'static str, detail: impl Into<String>) {
        if self.faults.len() == FAULTS_MAX {
            return;
        }
        let pointer = if name.is_empty() { self.at.clone() } else { format!("{}/{name}", self.at) };
        self.faults.push(Fault { pointer, code, detail: detail.into() });
    }

    /// Adds the mistakes of an object inside this one.
    pub(crate) fn absorb(&mut self, inner: Fields<'_>) {
        self.faults.extend(inner.into_faults());
    }

    /// Where this object stands in the body.
    pub(crate) fn pointer(&self, name: &str) -> String {
        format!("{}/{name}", self.at)
    }

    /// Whether nothing is wrong and nothing is left over.
    ///
    /// # Errors
    /// `invalid_request` with every mistake; a field that nobody took is one.
    pub(crate) fn finish(self) -> Result<(), Problem> {
        let faults = self.into_faults();
        if faults.is_empty() { Ok(()) } else { Err(Problem::invalid(faults)) }
    }

    fn into_faults(mut self) -> Vec<Fault> {
        for (name, _) in std::mem::take(&mut self.members).into_iter().take(FAULTS_MAX) {
            let shown: String = name.chars().take(NAME_ECHO_CHARS).collect();
            let pointer_part = shown.replace('~', "~0").replace('/', "~1");
            self.fault(&pointer_part, "unknown_field", format!("`{shown}` is not a field here"));
        }
        self.faults
    }
}

/// An object's members in order, duplicates included: which of two a reader takes must not be a matter of luck.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry::<String, &'de RawValue>()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(fields: Fields<'_>) -> Vec<(String, &'static str)> {
        fields.into_faults().into_iter().map(|fault| (fault.pointer, fault.code)).collect()
    }

    #[test]
    fn one_answer_names_every_mistake_with_its_place() {
        let body = br#"{"a":1,"a":2,"ttl_s":9000000,"ids":["x","y z"],"in":{"x/y":1},"kind":7}"#;
        let mut fields = Fields::read(body).unwrap();
        fields.number("a", 0, 5);
        fields.number("ttl_s", 0, 10);
        assert!(fields.list::<model::DeviceId>("ids", 5).is_none());
        let inner = Fields::of(fields.take("in").unwrap(), "#/in");
        fields.absorb(inner);
        fields.text("kind", "a word", |_| true);
        let expected = [
            ("#/a", "duplicate_field"),
            ("#/ttl_s", "out_of_range"),
            ("#/ids/1", "invalid_format"),
            ("#/in/x~1y", "unknown_field"),
            ("#/kind", "invalid_type"),
        ];
        assert_eq!(faults(fields), expected.map(|(pointer, code)| (pointer.to_owned(), code)));
    }

    #[test]
    fn what_is_no_json_is_told_apart_from_what_is_no_object() {
        assert_eq!(Fields::read(b"{\"a\":}").err().unwrap().code(), Code::MalformedJson);
        assert_eq!(Fields::read(b"{\"a\":\"\xff\"}").err().unwrap().code(), Code::MalformedJson);
        assert_eq!(Fields::read(b"{} x").err().unwrap().code(), Code::MalformedJson);
        assert_eq!(Fields::read(b"[1]").err().unwrap().code(), Code::InvalidRequest);
    }
}
