//! What a send asks for, as values. Knows the fields of the contract, not who asks or who exists.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use model::{AudienceId, Class, DeviceId, GroupId, Priority, UserId};
use utoipa::{PartialSchema, ToSchema};

use super::{class, terms::Narrowing};
use crate::{
    fields::Fields,
    filter::Written,
    once,
    openapi::shape::{self, Shape, body},
    problem::{Code, Problem},
};

/// Devices or users that one message may name.
pub(crate) const RECIPIENTS_MAX: usize = 1_000;
/// How long a message is good for when nobody says: a day.
const TTL_DEFAULT_S: u64 = 86_400;
/// Longest time a message is good for: ten days.
const TTL_MAX_S: u64 = 864_000;
/// `ttl_s: 0` means "only if online now"; devices that are get it within this time, even through a reconnect.
const ONLINE_NOW: Duration = Duration::from_secs(10);
/// Longest time that a command may have: what is to be done is of no use hours later.
const DEADLINE_MAX_S: u64 = 3_600;
/// How long a message waits for its device to be awake when nobody says.
const DELAY_DEFAULT_S: u64 = 600;
/// The type of messages when nobody says.
const TYPE_DEFAULT: &str = "default";
const KIND_MAX: usize = 32;
const COLLAPSE_KEY_MAX_BYTES: usize = 64;
const CONTENT_TYPE_MAX: usize = 128;
const METADATA_MAX: usize = 10;
const METADATA_NAME_MAX_BYTES: usize = 64;
const METADATA_VALUE_MAX_BYTES: usize = 256;

/// In the contract, but not built: refused, so that nobody relies on what would be ignored.
const NOT_YET: [&str; 8] =
    ["app", "notification", "replaces", "pace", "send_at", "local_time", "receipts", "attachment_id"];

/// Whom a message is for, as its sender says it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum To {
    All,
    /// Each once, in the order given.
    Devices(Vec<DeviceId>),
    Users(Vec<UserId>),
    Group(GroupId),
    /// A saved one.
    Audience(AudienceId),
    Filter(Written),
}

impl PartialSchema for To {
    /// Everybody, or exactly one of the others, narrowed or not.
    fn schema() -> Shape {
        let some = |name, whom| shape::object(vec![(name, whom)], Narrowing::shapes()).into();
        shape::either([
            shape::one_of(["all"]),
            some("devices", shape::list(shape::of::<DeviceId>(), 1..=RECIPIENTS_MAX)),
            some("users", shape::list(shape::of::<UserId>(), 1..=RECIPIENTS_MAX)),
            some("group", shape::of::<GroupId>()),
            some("audience", shape::of::<AudienceId>()),
            some("filter", shape::of::<Written>()),
        ])
    }
}

impl ToSchema for To {}

/// What a send asks for.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) to: To,
    pub(super) narrowing: Narrowing,
    pub(super) kind: String,
    pub(super) class: Class,
    pub(super) payload: Bytes,
    pub(super) content_type: String,
    pub(super) ttl: Duration,
    /// How long it may wait for its device to be awake; absent: it goes at once.
    pub(super) max_delay: Option<Duration>,
    pub(super) priority: Priority,
    pub(super) collapse_key: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    /// The idempotency key.
    pub(super) once: Option<String>,
    pub(super) require_targets: bool,
}

impl Request {
    /// Takes every field; mistakes stay in `fields`.
    ///
    /// # Errors
    /// `payload_too_large`; `invalid_request` at once when nothing can be made of `to` or the payload.
    pub(super) fn read(fields: &mut Fields<'_>, payload_max: usize) -> Result<Self, Problem> {
        let to = to(fields);
        let body = payload(fields, payload_max)?;
        let kind = fields.text("type", "must be [a-z0-9_-]{1,32}", is_kind);
        let class = class::take(fields, to.as_ref());
        let is_command = matches!(class, Class::Command { .. });
        let ttl = ttl(fields, is_command);
        let max_delay = max_delay(fields, ttl);
        if max_delay.is_some() && is_command {
            fields.fault("delivery", "contradiction", "a command does not wait");
        }
        let usual = if is_command { Priority::High } else { Priority::Normal };
        let priority = fields.get("priority", "`high`, `normal` or `low`").unwrap_or(usual);
        let collapse_rule = format!("must be 1..{COLLAPSE_KEY_MAX_BYTES} bytes");
        let short = |text: &str| (1..=COLLAPSE_KEY_MAX_BYTES).contains(&text.len());
        let collapse_key = fields.text("collapse_key", &collapse_rule, short);
        let metadata = metadata(fields);
        let once = fields.text("idempotency_key", once::KEY_RULE, once::is_legal);
        let require_targets = fields.get("require_targets", "true or false").unwrap_or(!class.is_message());
        fields.not_yet(&NOT_YET);
        let (Some((to, narrowing)), Some((payload, content_type))) = (to, body) else {
            // Both leave their mistake behind, so this is never empty.
            let fields = std::mem::replace(fields, Fields::nothing());
            fields.finish()?;
            return Err(Problem::new(Code::Internal, "a message without audience or payload, and no reason why"));
        };
        Ok(Self {
            to,
            narrowing,
            kind: kind.unwrap_or_else(|| TYPE_DEFAULT.to_owned()),
            class,
            payload,
            content_type,
            ttl,
            max_delay,
            priority,
            collapse_key,
            metadata,
            once,
            require_targets,
        })
    }
}

/// Takes `ttl_s`, which a command must have: its deadline.
fn ttl(fields: &mut Fields<'_>, is_command: bool) -> Duration {
    if !is_command {
        let secs = fields.number("ttl_s", 0, TTL_MAX_S).unwrap_or(TTL_DEFAULT_S);
        return if secs == 0 { ONLINE_NOW } else { Duration::from_secs(secs) };
    }
    if fields.lacks("ttl_s") {
        fields.fault("ttl_s", "missing", format!("a command has a deadline: 1..{DEADLINE_MAX_S}"));
    }
    Duration::from_secs(fields.number("ttl_s", 1, DEADLINE_MAX_S).unwrap_or(DEADLINE_MAX_S))
}

body! {
    /// A message, and whom it is for: with either `payload` or `payload_base64`.
    SendBody {
        required { "to": shape::of::<To>() }
        optional {
            "type": shape::usually(kind(), TYPE_DEFAULT),
            "payload": shape::described(shape::any(), "Any JSON; devices get it byte for byte."),
            "payload_base64": shape::described(shape::any_text(), "Anything else, as base64 with padding."),
            "content_type": shape::described(shape::text(3..=CONTENT_TYPE_MAX), "What `payload_base64` is."),
            "class": shape::usually(shape::one_of(["message", "command"]), "message"),
            "reply": shape::described(class::reply_shape(), "Of the uplink that this is the answer to."),
            "ttl_s": shape::described(shape::number(0..=TTL_MAX_S), &ttl_rule()),
            "delivery": shape::usually(shape::one_of(["immediate", "on_wake"]), "immediate"),
            "max_delay_s": shape::number(1..=TTL_MAX_S - 1),
            "priority": Priority::schema(),
            "collapse_key": shape::text(1..=COLLAPSE_KEY_MAX_BYTES),
            "metadata": metadata_shape(),
            "idempotency_key": once::key(),
            "require_targets": shape::usually(shape::flag(), false),
        }
        example {
            "to": { "devices": ["dev-1"] }, "type": "order", "payload": { "title": "Shipped", "order_id": 8812 },
            "ttl_s": 86_400, "priority": "high", "collapse_key": "order-8812", "metadata": { "campaign": "ops" }
        }
    }
}

fn ttl_rule() -> String {
    format!(
        "How long it is good for; 0: only for who is online now. {TTL_DEFAULT_S} when nobody says. A command must say, and \
         {DEADLINE_MAX_S} at most."
    )
}

fn metadata_shape() -> Shape {
    let (name, value) = (shape::text(1..=METADATA_NAME_MAX_BYTES), shape::text(0..=METADATA_VALUE_MAX_BYTES));
    shape::map(name, value, METADATA_MAX)
}

/// A type of messages.
pub(crate) fn kind() -> Shape {
    shape::pattern(format!("^[a-z0-9_-]{{1,{KIND_MAX}}}$"))
}

/// Takes `delivery` and `max_delay_s`: a message that waits must be worth something afterwards.
fn max_delay(fields: &mut Fields<'_>, ttl: Duration) -> Option<Duration> {
    let on_wake = match fields.get::<String>("delivery", "a string").as_deref() {
        None | Some("immediate") => false,
        Some("on_wake") => true,
        Some(_) => {
            fields.fault("delivery", "invalid_format", "must be `immediate` or `on_wake`");
            false
        }
    };
    let asked = fields.number("max_delay_s", 1, (ttl.as_secs() - 1).max(1));
    if !on_wake && asked.is_some() {
        fields.fault("max_delay_s", "contradiction", "only with `delivery: on_wake`");
    }
    let usual = Duration::from_secs(DELAY_DEFAULT_S).min(ttl / 2);
    on_wake.then(|| asked.map_or(usual, Duration::from_secs))
}

/// Whether a message may be of this type.
pub(crate) fn is_kind(text: &str) -> bool {
    let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    (1..=KIND_MAX).contains(&text.len()) && text.bytes().all(legal)
}

/// Takes `to`.
pub(crate) fn to(fields: &mut Fields<'_>) -> Option<(To, Narrowing)> {
    const RULE: &str = "must be \"all\" or exactly one of devices, users, group, audience, filter";
    let Some(raw) = fields.take("to") else {
        fields.fault("to", "missing", RULE);
        return None;
    };
    if raw.get() == "\"all\"" {
        return Some((To::All, Narrowing::default()));
    }
    if !raw.get().starts_with('{') {
        fields.fault("to", "invalid_format", RULE);
        return None;
    }
    let mut inner = Fields::of(raw, fields.pointer("to"));
    let named = ["devices", "users", "group", "audience", "filter"].iter().filter(|name| inner.has(name)).count();
    if named > 1 {
        inner.fault("", "contradiction", RULE);
    }
    let narrowing = Narrowing::take(&mut inner);
    let devices = inner.list("devices", RECIPIENTS_MAX).map(|ids| nonempty(&mut inner, "devices", ids, To::Devices));
    let users = inner.list("users", RECIPIENTS_MAX).map(|ids| nonempty(&mut inner, "users", ids, To::Users));
    let group = inner.parsed("group").map(To::Group);
    let audience = inner.parsed("audience").map(To::Audience);
    let filter = Written::take(&mut inner, "filter").map(To::Filter);
    let found = devices.flatten().or(users.flatten()).or(group).or(audience).or(filter);
    if found.is_none() && inner.is_right() {
        inner.fault("", "missing", RULE);
    }
    fields.absorb(inner);
    found.map(|found| (found, narrowing))
}

/// Each id once; an empty list is more likely a mistake than a wish.
fn nonempty<T: Ord + Clone>(
    inner: &mut Fields<'_>,
    name: &str,
    mut ids: Vec<T>,
    to: impl FnOnce(Vec<T>) -> To,
) -> Option<To> {
    if ids.is_empty() {
        inner.fault(name, "out_of_range", format!("must be 1..{RECIPIENTS_MAX} ids"));
        return None;
    }
    let mut seen = std::collections::BTreeSet::new();
    ids.retain(|id| seen.insert(id.clone()));
    Some(to(ids))
}

/// The body as devices get it, and its type: JSON byte for byte as it was sent, or what the base64 stands for.
fn payload(fields: &mut Fields<'_>, max: usize) -> Result<Option<(Bytes, String)>, Problem> {
    let json = fields.take("payload").map(|raw| Bytes::copy_from_slice(raw.get().as_bytes()));
    let encoded: Option<String> = fields.get("payload_base64", "a string");
    let is_type = |text: &str| {
        text.len() <= CONTENT_TYPE_MAX && text.contains('/') && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
    };
    let content_type = fields.text("content_type", "must be a MIME type", is_type);
    let (bytes, content_type) = match (json, encoded) {
        (Some(json), None) => {
            if content_type.is_some() {
                fields.fault("content_type", "contradiction", "only with payload_base64: `payload` is JSON");
            }
            (json, "application/json".to_owned())
        }
        (None, Some(encoded)) => match STANDARD.decode(encoded) {
            Ok(bytes) => (bytes.into(), content_type.unwrap_or_else(|| "application/octet-stream".to_owned())),
            Err(_) => {
                fields.fault("payload_base64", "invalid_format", "must be base64 with padding");
                return Ok(None);
            }
        },
        (Some(_), Some(_)) => {
            fields.fault("payload_base64", "contradiction", "give either payload or payload_base64");
            return Ok(None);
        }
        (None, None) => {
            if !fields.has("attachment_id") {
                fields.fault("payload", "missing", "give payload or payload_base64");
            }
            return Ok(None);
        }
    };
    if bytes.len() > max {
        let detail = format!("the payload has {} bytes of at most {max}: send a link to what is larger", bytes.len());
        return Err(Problem::new(Code::PayloadTooLarge, detail));
    }
    Ok(Some((bytes, content_type)))
}

fn metadata(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let Some(metadata) = fields.get::<BTreeMap<String, String>>("metadata", "an object of strings") else {
        return BTreeMap::new();
    };
    let fits = |(name, value): (&String, &String)| {
        (1..=METADATA_NAME_MAX_BYTES).contains(&name.len()) && value.len() <= METADATA_VALUE_MAX_BYTES
    };
    if metadata.len() > METADATA_MAX || !metadata.iter().all(fits) {
        let rule = format!(
            "at most {METADATA_MAX} pairs, names of 1..{METADATA_NAME_MAX_BYTES} and values of at most \
             {METADATA_VALUE_MAX_BYTES} bytes"
        );
        fields.fault("metadata", "too_many", rule);
    }
    metadata
}
