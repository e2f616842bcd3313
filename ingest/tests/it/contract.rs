//! The API against its own description: every request that was accepted and every answer that came, whatever test
//! asked, must be as the document says.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, LazyLock},
};

use hyper::{HeaderMap, StatusCode};
use jsonschema::Validator;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};

/// Headers that any server may send.
const TRANSPORT: [&str; 4] = ["content-type", "content-length", "date", "connection"];

pub(crate) static CONTRACT: LazyLock<Contract> = LazyLock::new(|| {
    let document: Value = serde_json::from_str(ingest::document()).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let closed = schemas.iter().map(|(name, schema)| (name.clone(), closed_inside(schema))).collect();
    Contract { closed: Value::Object(closed), document, validators: Mutex::default() }
});

/// What was asked, and what came of it.
pub(crate) struct Exchange<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) sent: &'a HeaderMap,
    pub(crate) body: &'a [u8],
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) answer: &'a [u8],
}

pub(crate) struct Contract {
    pub(crate) document: Value,
    /// The schemas of its components, for answers.
    closed: Value,
    validators: Mutex<HashMap<String, Arc<Validator>>>,
}

impl Contract {
    /// Panics where the two differ.
    #[track_caller]
    pub(crate) fn check(&self, exchange: &Exchange<'_>) {
        let (path, query) = exchange.path.split_once('?').unwrap_or((exchange.path, ""));
        let method = exchange.method.to_lowercase();
        let status = exchange.status.as_u16();
        let Some((template, item)) = self.item(path) else {
            assert_eq!(status, 404, "{path} is in no document");
            return;
        };
        let Some(operation) = item.get(&method) else {
            assert_eq!(status, 405, "{method} {path} is in no document");
            return;
        };
        let place = format!("{method} {template}");
        self.check_answer(&place, operation, exchange);
        // In a batch that was accepted there may be messages that were not.
        let rejected = answer_of(exchange).is_some_and(|answer| answer["rejected"].as_u64() > Some(0));
        if exchange.status.is_success() && !rejected {
            self.check_query(&place, operation, query);
            self.check_body(&place, operation, exchange);
        }
    }

    /// The path of the document that a request is for: of two that fit, the one with fewer parameters.
    fn item(&self, path: &str) -> Option<(&str, &Value)> {
        let fits = |template: &str| {
            let (words, given) = (template.split('/'), path.split('/'));
            words.clone().count() == given.clone().count()
                && words.zip(given).all(|(word, given)| word.starts_with('{') && !given.is_empty() || word == given)
        };
        let paths = self.document["paths"].as_object().unwrap();
        let found = paths.iter().filter(|(template, _)| fits(template));
        found
            .min_by_key(|(template, _)| template.matches('{').count())
            .map(|(template, item)| (template.as_str(), item))
    }

    #[track_caller]
    fn check_answer(&self, place: &str, operation: &Value, exchange: &Exchange<'_>) {
        let status = exchange.status.as_str();
        let response = operation["responses"].get(status);
        let response = self.resolve(response.unwrap_or_else(|| panic!("{place} is not said to answer {status}")));
        for name in exchange.headers.keys().map(hyper::header::HeaderName::as_str) {
            let documented = response["headers"].as_object().into_iter().flat_map(Map::keys);
            let known = TRANSPORT.into_iter().chain(documented.map(String::as_str));
            assert!(known.into_iter().any(|known| known.eq_ignore_ascii_case(name)), "{place} {status} has no {name}");
        }
        let kind = media_type(exchange.headers);
        match response["content"].get(kind) {
            None => assert!(exchange.answer.is_empty(), "{place} {status} is not said to be {kind:?}"),
            Some(content) if kind.ends_with("json") => {
                let answer = answer_of(exchange).unwrap();
                self.check_json(
                    &format!("{place} {status} {kind}"),
                    &closed(&content["schema"]),
                    &self.closed,
                    &answer,
                );
            }
            Some(_) => {}
        }
    }

    #[track_caller]
    fn check_query(&self, place: &str, operation: &Value, query: &str) {
        for (name, text) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let mut parameters = operation["parameters"].as_array().into_iter().flatten();
            let parameter = parameters.find(|parameter| parameter["in"] == "query" && parameter["name"] == name);
            let parameter = parameter.unwrap_or_else(|| panic!("{place} has no parameter {name}"));
            let said = self.resolve(&parameter["schema"]);
            let is_text = said["type"] == "string" || said["type"] == json!(["string", "null"]);
            let value = serde_json::from_str(text).ok().filter(|_| !is_text).unwrap_or_else(|| Value::from(text));
            self.validate(&format!("{place} ?{name}"), &parameter["schema"], &value);
        }
    }

    #[track_caller]
    fn check_body(&self, place: &str, operation: &Value, exchange: &Exchange<'_>) {
        if exchange.body.is_empty() {
            let schema = self.resolve(&operation["requestBody"]["content"]["application/json"]["schema"]);
            assert!(schema.get("required").is_none(), "{place} takes no body, against its document");
            return;
        }
        let content = operation["requestBody"]["content"].as_object();
        let content = content.unwrap_or_else(|| panic!("{place} takes a body, against its document"));
        let kind = media_type(exchange.sent);
        let Some(content) = content.get(kind).or_else(|| content.values().next()) else { return };
        if let Ok(body) = serde_json::from_slice(exchange.body) {
            self.validate(&format!("{place} body"), &content["schema"], &body);
        }
    }

    /// An example of a request's body.
    pub(crate) fn example<'a>(&'a self, operation: &'a Value) -> Option<&'a Value> {
        let content = operation["requestBody"]["content"].as_object()?.values().next()?;
        self.resolve(&content["schema"])["examples"].get(0)
    }

    /// What a reference leads to.
    pub(crate) fn resolve<'a>(&'a self, value: &'a Value) -> &'a Value {
        let Some(reference) = value.get("$ref").and_then(Value::as_str) else { return value };
        let found = self.document.pointer(reference.trim_start_matches('#'));
        found.unwrap_or_else(|| panic!("{reference} leads nowhere"))
    }

    /// Panics when a value that is sent to the API is not as the schema says.
    #[track_caller]
    pub(crate) fn validate(&self, place: &str, schema: &Value, value: &Value) {
        self.check_json(place, schema, &self.document["components"]["schemas"], value);
    }

    #[track_caller]
    fn check_json(&self, place: &str, schema: &Value, schemas: &Value, value: &Value) {
        let validator = self.validator(place, schema, schemas);
        let errors: BTreeSet<_> =
            validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{place} is not as the document says: {errors:#?} in {value:#}");
    }

    fn validator(&self, place: &str, schema: &Value, schemas: &Value) -> Arc<Validator> {
        let mut validators = self.validators.lock();
        let validator = validators.entry(place.to_owned()).or_insert_with(|| {
            let dialect = "https://json-schema.org/draft/2020-12/schema";
            let root = json!({ "$schema": dialect, "allOf": [schema], "components": { "schemas": schemas } });
            Arc::new(jsonschema::options().should_validate_formats(true).build(&root).unwrap())
        });
        Arc::clone(validator)
    }
}

fn answer_of(exchange: &Exchange<'_>) -> Option<Value> {
    serde_json::from_slice(exchange.answer).ok()
}

fn media_type(headers: &HeaderMap) -> &str {
    let kind = headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
    kind.split(';').next().unwrap_or_default()
}

/// A schema that takes no field that it does not name, at any depth: clients must live with more, but none is sent.
fn closed(schema: &Value) -> Value {
    let mut closed = closed_inside(schema);
    let names_fields = ["properties", "$ref", "allOf", "oneOf", "anyOf"].iter().any(|word| schema.get(word).is_some());
    if names_fields {
        closed["unevaluatedProperties"] = false.into();
    }
    closed
}

/// The same where it is a part of another, which closes it.
fn closed_inside(schema: &Value) -> Value {
    let Some(words) = schema.as_object() else { return schema.clone() };
    let close = |(word, value): (&String, &Value)| {
        let value = match (word.as_str(), value) {
            ("properties", Value::Object(fields)) => {
                Value::Object(fields.iter().map(|(name, field)| (name.clone(), closed(field))).collect())
            }
            ("items" | "additionalProperties", inner) => closed(inner),
            ("allOf" | "oneOf" | "anyOf", Value::Array(parts)) => parts.iter().map(closed_inside).collect(),
            (_, other) => other.clone(),
        };
        (word.clone(), value)
    };
    Value::Object(words.iter().map(close).collect())
}
