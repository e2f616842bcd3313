//! The document of the API, as OpenAPI 3.1: what each handler says of itself, and what holds for many of them, said
//! once. Paths, methods and handlers come from the router, so the document has exactly its routes.

pub(crate) mod shape;
mod shared;

use std::sync::LazyLock;

use axum::{
    http::header,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

use crate::api;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| format!("{:#}", complete(json!(api::described()))));

/// Statuses of whatever passes the gate, besides its own.
const BEHIND_THE_GATE: [&str; 9] = ["400", "401", "403", "408", "413", "415", "422", "500", "503"];
/// Statuses of whatever is asked with a device's token.
const FOR_DEVICES: [&str; 3] = ["401", "500", "503"];

/// The document, as JSON.
pub fn document() -> &'static str {
    &DOCUMENT
}

/// This document.
#[utoipa::path(get, path = "/v1/openapi.json", operation_id = "get_openapi", responses((status = 200, body = Value)))]
pub(crate) async fn serve() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document()).into_response()
}

/// Adds what is said once: to the document as a whole, and to each of its operations.
fn complete(mut document: Value) -> Value {
    document["info"] = shared::info();
    document["tags"] = shared::tags();
    document["components"]["securitySchemes"] = shared::security();
    document["components"]["headers"] = shared::headers();
    document["components"]["responses"] = shared::problems();
    if let Some(schemas) = document["components"]["schemas"].as_object_mut() {
        schemas.extend(shared::schemas());
    }
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        for operation in item.as_object_mut().into_iter().flat_map(Map::values_mut) {
            complete_operation(path, operation);
        }
    }
    document
}

fn complete_operation(path: &str, operation: &mut Value) {
    operation["tags"] = json!([shared::tag(path)]);
    let in_path = shared::path_parameters(path);
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.extend(in_path),
        None if !in_path.is_empty() => operation["parameters"] = in_path.into(),
        None => {}
    }
    let asked_with = |scheme: &str| {
        let ways = operation["security"].as_array().into_iter().flatten();
        ways.into_iter().any(|way| way.get(scheme).is_some())
    };
    let with_key = asked_with("key");
    let refusals: &[&str] = match () {
        () if with_key => &BEHIND_THE_GATE,
        () if asked_with("device") => &FOR_DEVICES,
        () => &[],
    };
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for status in refusals {
        responses.entry(*status).or_insert_with(|| json!({}));
    }
    for (status, response) in responses {
        complete_response(status, response, with_key);
    }
}

/// A refusal that says nothing of itself is a problem; one that does may be a problem of the gate.
fn complete_response(status: &str, response: &mut Value, with_key: bool) {
    if status >= "400" && response.get("content").is_none() {
        *response = json!({ "$ref": format!("#/components/responses/Problem{status}") });
        return;
    }
    let names: Vec<String> = response["headers"].as_object().into_iter().flat_map(Map::keys).cloned().collect();
    response["headers"] = shared::header_references(names.iter().map(String::as_str));
    if status >= "400" && with_key {
        response["content"]["application/problem+json"] = shared::problem_content(status);
    }
}
