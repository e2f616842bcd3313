//! What holds for many operations: keys, headers, problems, the parameters in paths.

use audience::limits::TAG_MAX_BYTES;
use model::{AppId, AudienceId, DeviceId, GroupId, JobId, KeyId, MessageId, NodeId, Scope, UserId};
use serde_json::{Map, Value, json};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::shape;
use crate::{
    devices,
    filter::Written,
    problem::{Body, Code, Fault},
    send::{self, To},
};

/// Headers of every answer.
const EVERYWHERE: [&str; 2] = ["X-Request-Id", "traceparent"];

pub(super) fn info() -> Value {
    json!({
        "title": "Fanfare",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "Puts a message on every terminal of an audience, each once. Fields and parameters that are not \
                        described here are refused. Retry 429, 5xx and timeouts with the same idempotency key, after \
                        `Retry-After` or with growing pauses; never another 4xx.",
        "license": { "name": env!("CARGO_PKG_LICENSE"), "identifier": env!("CARGO_PKG_LICENSE") },
    })
}

/// What the parts of the API are about, by the first word of their paths.
const TAGS: [(&str, &str); 17] = [
    ("messages", "Sending, and what became of it"),
    ("devices", "The registry of terminals"),
    ("tags", "Tags of devices"),
    ("attributes", "What the app knows of its devices, by name and type"),
    ("users", "The devices of a user"),
    ("jobs", "Work that takes longer than a request"),
    ("audiences", "Saved filters and uploaded lists"),
    ("groups", "Lists of devices, kept here or by the product"),
    ("suppressions", "Who gets nothing"),
    ("frequency-caps", "How often a device may get messages of a type"),
    ("quiet-hours", "When messages reach nobody"),
    ("uplink", "What devices sent up"),
    ("endpoints", "Where devices connect"),
    ("ping", "How full an access point is"),
    ("nodes", "The processes of the platform"),
    ("apps", "Apps and their keys"),
    ("service", "This node, and this document"),
];

pub(super) fn tags() -> Value {
    TAGS.iter().map(|(name, about)| json!({ "name": name, "description": about })).collect()
}

pub(super) fn tag(path: &str) -> &'static str {
    let first = path.trim_start_matches("/v1/").split('/').next();
    TAGS.iter().map(|(name, _)| *name).find(|name| Some(*name) == first).unwrap_or("service")
}

/// What stands for what in paths, by the word before it. What does not look like it is not found.
pub(super) fn path_parameters(path: &str) -> Vec<Value> {
    let words: Vec<&str> = path.split('/').collect();
    let named =
        |pair: &[&str]| pair[1].strip_prefix('{')?.strip_suffix('}').map(|name| (pair[0].to_owned(), name.to_owned()));
    let parameter = |(before, name): (String, String)| {
        let shape = match before.as_str() {
            "apps" => AppId::schema(),
            "audiences" => AudienceId::schema(),
            "devices" | "receipts" => DeviceId::schema(),
            "groups" => GroupId::schema(),
            "jobs" => JobId::schema(),
            "keys" => KeyId::schema(),
            "messages" => MessageId::schema(),
            "nodes" => NodeId::schema(),
            "users" => UserId::schema(),
            "tags" => shape::text(1..=TAG_MAX_BYTES),
            "attributes" => devices::attribute_name(),
            _ => send::kind(),
        };
        json!({ "name": name, "in": "path", "required": true, "schema": shape })
    };
    words.windows(2).filter_map(named).map(parameter).collect()
}

/// The two ways to say who asks.
pub(super) fn security() -> Value {
    let scopes: Vec<_> =
        Scope::PRODUCT.into_iter().chain([Scope::Admin]).map(|scope| format!("`{}`", scope.as_str())).collect();
    let bearer = format!(
        "A key of an app, as `fanfare app create` printed it; what it is good for is said by its scopes: {}. Its two halves \
         may also be user and password (`curl -u`).",
        scopes.join(", ")
    );
    json!({
        "key": { "type": "http", "scheme": "bearer", "description": bearer },
        "device": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "The token of a device." },
    })
}

/// Every header of an answer, with what it says.
const HEADERS: [(&str, &str); 15] = [
    ("X-Request-Id", "Names the request: as it was sent, or made here."),
    ("traceparent", "The trace (W3C) that the request belongs to, with our step as parent."),
    ("Location", "Where it can be read from now on."),
    ("ETag", "The edition, for `If-Match`."),
    ("Link", "The next page, as `rel=\"next\"`, if there may be one."),
    ("Idempotency-Replayed", "`true`: this is the answer to an earlier request with this key."),
    ("RateLimit-Policy", "What the app may send to: `q` recipients in `w` seconds."),
    ("RateLimit", "What is left: `r` recipients; all again in `t` seconds."),
    ("Retry-After", "Seconds to wait before trying again."),
    ("WWW-Authenticate", "How to say who asks."),
    ("Access-Control-Allow-Origin", "Pages of any origin may ask."),
    ("Access-Control-Allow-Headers", "What they may send."),
    ("Access-Control-Max-Age", "Seconds for which that holds."),
    ("X-Accel-Buffering", "`no`: proxies pass on what comes as it comes."),
    ("Cache-Control", "How long it may be kept."),
];

pub(super) fn headers() -> Value {
    let header = |(name, says): &(&str, &str)| {
        ((*name).to_owned(), json!({ "description": says, "schema": { "type": "string" } }))
    };
    Value::Object(HEADERS.iter().map(header).collect())
}

/// These headers, and those that every answer has.
pub(super) fn header_references<'a>(names: impl Iterator<Item = &'a str>) -> Value {
    let reference = |name: &str| (name.to_owned(), json!({ "$ref": format!("#/components/headers/{name}") }));
    Value::Object(EVERYWHERE.into_iter().chain(names).map(reference).collect())
}

/// What many others consist of: problems, and whom messages are for.
pub(super) fn schemas() -> Map<String, Value> {
    let mut problem = json!(Body::schema());
    problem["properties"]["code"]["enum"] = Code::ALL.map(Code::as_str).to_vec().into();
    let schemas = [
        (Body::name(), problem),
        (Fault::name(), json!(Fault::schema())),
        (To::name(), json!(To::schema())),
        (Written::name(), json!(Written::schema())),
    ];
    schemas.into_iter().map(|(name, schema)| (name.into_owned(), schema)).collect()
}

/// The problems of a status.
pub(super) fn problem_content(status: &str) -> Value {
    let codes: Vec<_> = with_status(status).map(Code::as_str).collect();
    let narrowed =
        json!({ "properties": { "status": { "const": status.parse::<u16>().ok() }, "code": { "enum": codes } } });
    json!({ "schema": { "allOf": [{ "$ref": format!("#/components/schemas/{}", Body::name()) }, narrowed] } })
}

/// Problems by status, each with what it can be.
pub(super) fn problems() -> Value {
    let mut responses = Map::new();
    for status in Code::ALL.map(|code| code.status().as_str().to_owned()) {
        let can_be: Vec<_> =
            with_status(&status).map(|code| format!("`{}`: {}.", code.as_str(), code.title())).collect();
        let headers: &[&str] = match status.as_str() {
            "401" => &["WWW-Authenticate", "Access-Control-Allow-Origin"],
            "409" => &["Retry-After"],
            "500" => &["Access-Control-Allow-Origin"],
            "503" => &["Retry-After", "Access-Control-Allow-Origin"],
            "429" => &["Retry-After", "RateLimit", "RateLimit-Policy"],
            _ => &[],
        };
        let response = json!({
            "description": can_be.join(" "),
            "headers": header_references(headers.iter().copied()),
            "content": { "application/problem+json": problem_content(&status) },
        });
        responses.insert(format!("Problem{status}"), response);
    }
    responses.into()
}

fn with_status(status: &str) -> impl Iterator<Item = Code> {
    Code::ALL.into_iter().filter(move |code| code.status().as_str() == status)
}
