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
const BEHIND_THE_GATE: [&str; 10] = ["400", "401", "403", "408", "413", "415", "422", "429", "500", "503"];
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
    match operation.get_mut("parameters").and_then(Value::as_array_mut) {
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
    let contents = operation.pointer_mut("/requestBody/content").and_then(Value::as_object_mut);
    for content in contents.into_iter().flat_map(Map::values_mut) {
        leave_out_null(&mut content["schema"]);
    }
    let Some(responses) = operation["responses"].as_object_mut() else { return };
    for status in refusals {
        responses.entry(*status).or_insert_with(|| json!({}));
    }
    let of_success = responses.values().next().map(|response| response["headers"].clone()).unwrap_or_default();
    for (status, response) in responses {
        complete_response(status, response, with_key.then_some(&of_success));
    }
}

/// A body that may be left out is still not `null`.
fn leave_out_null(schema: &mut Value) {
    let ways = schema["oneOf"].as_array().into_iter().flatten();
    if let Some(way) = ways.into_iter().find(|way| way.get("$ref").is_some()).cloned() {
        *schema = way;
    }
}

/// A refusal that says nothing of itself is a problem. One that does, behind the gate, may be one too, and has the
/// headers of a success.
fn complete_response(status: &str, response: &mut Value, gated: Option<&Value>) {
    let is_refusal = status >= "400";
    if is_refusal && response.get("content").is_none() {
        *response = json!({ "$ref": format!("#/components/responses/Problem{status}") });
        return;
    }
    let mut headers: Vec<&str> =
        response["headers"].as_object().into_iter().flat_map(Map::keys).map(String::as_str).collect();
    if let Some(of_success) = gated.filter(|_| is_refusal) {
        headers.extend(of_success.as_object().into_iter().flat_map(Map::keys).map(String::as_str));
        headers.push("Retry-After");
    }
    response["headers"] = shared::header_references(headers.into_iter());
    if gated.is_some() && is_refusal {
        response["content"]["application/problem+json"] = shared::problem_content(status);
    }
}
