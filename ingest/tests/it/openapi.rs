//! The document of the API, by itself and against keys.

use std::collections::BTreeSet;

use model::{Env, Scope};
use serde_json::Value;

use crate::{contract::CONTRACT, sandbox::Sandbox};

/// Every operation, with its method and path.
fn operations() -> impl Iterator<Item = (String, &'static str, &'static Value)> {
    let paths = CONTRACT.document["paths"].as_object().unwrap();
    let of_path = |(path, item): (&'static String, &'static Value)| {
        let operations = item.as_object().unwrap().iter();
        operations.map(move |(method, operation)| (method.to_uppercase(), path.as_str(), operation))
    };
    paths.iter().flat_map(of_path)
}

/// The scopes of keys that may do this, in the order of their ways.
fn scopes(operation: &Value) -> Vec<Scope> {
    let ways = operation["security"].as_array().into_iter().flatten();
    let scopes = ways.flat_map(|way| way["key"].as_array().into_iter().flatten());
    scopes.map(|scope| scope.as_str().unwrap().parse().unwrap()).collect()
}

/// The path with something in place of its parameters.
fn some(path: &str) -> String {
    path.split('/').map(|word| if word.starts_with('{') { "x" } else { word }).collect::<Vec<_>>().join("/")
}

/// Every value under this word, anywhere.
fn everywhere<'a>(value: &'a Value, word: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(word));
            fields.values().for_each(|value| everywhere(value, word, found));
        }
        Value::Array(items) => items.iter().for_each(|value| everywhere(value, word, found)),
        _ => {}
    }
}

#[tokio::test]
async fn the_document_is_served_to_everybody() {
    let sandbox = Sandbox::start().await;
    let served = sandbox.ask("GET", "/v1/openapi.json", "", &[], "").await;
    assert_eq!((served.status.as_u16(), &served.body), (200, &CONTRACT.document));
    assert_eq!(served.body["openapi"], "3.1.0");
}

#[tokio::test]
async fn every_operation_asks_for_what_the_document_says_it_does() {
    let sandbox = Sandbox::start().await;
    let powerless = sandbox.add_key("demo", Env::Test, &[]).await;
    for (method, path, operation) in operations() {
        let asked = scopes(operation);
        let Some(first) = asked.first() else { continue };
        sandbox.ask(&method, &some(path), "", &[], "").await.assert_problem(401, "unauthenticated");
        let body = CONTRACT.example(operation).map_or_else(String::new, Value::to_string);
        let refused = sandbox.ask(&method, &some(path), &powerless, &[], &body).await;
        if path != "/v1/messages/batch" {
            refused.assert_problem(403, "forbidden");
            assert!(refused.text("detail").ends_with(first.as_str()), "{method} {path}: {refused:?}");
        }
        assert_eq!(refused.status, 403, "{method} {path}: {refused:?}");
    }
}

#[test]
fn every_reference_leads_somewhere_and_every_name_is_given_once() {
    let mut references = Vec::new();
    everywhere(&CONTRACT.document, "$ref", &mut references);
    for reference in &references {
        CONTRACT.resolve(&serde_json::json!({ "$ref": reference }));
    }
    assert!(references.len() > 100);
    let ids: Vec<_> = operations().map(|(_, _, operation)| operation["operationId"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    for (method, path, operation) in operations() {
        assert!(!operation["summary"].as_str().unwrap().is_empty(), "{method} {path}");
    }
}

#[test]
fn every_example_is_what_it_is_an_example_of() {
    let mut bodies = 0;
    for (method, path, operation) in operations() {
        for content in operation["requestBody"]["content"].as_object().into_iter().flat_map(|content| content.values())
        {
            let Some(example) = CONTRACT.example(operation) else { continue };
            CONTRACT.validate(&format!("{method} {path} example"), &content["schema"], example);
            bodies += 1;
        }
    }
    assert!(bodies > 20, "{bodies} examples");
}

#[test]
fn whatever_an_operation_has_is_there() {
    for (method, path, operation) in operations() {
        let parts = operation.as_object().unwrap();
        let null = parts.iter().find(|(_, part)| part.is_null());
        assert_eq!(null, None, "{method} {path}");
        assert!(parts.get("requestBody").is_none_or(|body| body["content"].is_object()), "{method} {path}");
    }
}
