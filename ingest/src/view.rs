//! How things look in answers: explicit shapes, so that nothing is shown that nobody meant to show.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use audience::{attribute, field, limits::TEXT_MAX_BYTES};
use jiff::Timestamp as Moment;
use model::{
    Device, DeviceId, Env, Exclusion, Group, GroupId, KeyId, Lane, MessageId, Ordinals, Scope, Status, Timestamp,
    UserId, group::Source,
};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::{PartialSchema, ToSchema, openapi::ObjectBuilder};

use crate::openapi::shape::{self, Shape};

/// RFC 3339 in UTC, with milliseconds.
#[derive(Serialize, ToSchema)]
#[schema(format = DateTime, examples("2026-11-21T08:30:00.123Z"))]
pub(crate) struct Time(String);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// This moment as people read it.
pub(crate) fn time(at: Timestamp) -> Time {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    let moment = Moment::from_millisecond(millis);
    Time(moment.map_or_else(|_| "9999-12-31T23:59:59.999Z".to_owned(), |at| format!("{at:.3}")))
}

/// Something that is right enough to go on, but worth knowing.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Warning {
    pub(crate) code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<usize>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) sample: Vec<String>,
}

/// Names that are repeated in a warning.
const SAMPLE_MAX: usize = 10;

impl Warning {
    /// Ids that were sent to and are not registered; `None` when there are none.
    pub(crate) fn unknown(ids: &[impl ToString]) -> Option<Self> {
        let sample = ids.iter().take(SAMPLE_MAX).map(ToString::to_string).collect();
        (!ids.is_empty()).then_some(Self { code: "unknown_recipients", detail: None, count: Some(ids.len()), sample })
    }

    /// The filter holds where nothing is known.
    pub(crate) const fn means_unknown() -> Self {
        let detail = "this filter also means devices about which nothing is known: nearly everybody, perhaps";
        Self { code: "matches_unknown", detail: Some(detail), count: None, sample: Vec::new() }
    }
}

/// How many were taken out of an audience: in all, and by reason.
pub(crate) fn excluded(by_reason: &[(Exclusion, Ordinals)]) -> (u64, BTreeMap<&'static str, u64>) {
    let by: BTreeMap<_, _> = by_reason.iter().map(|(why, devices)| (why.as_str(), devices.len())).collect();
    (by.values().sum(), by)
}

/// What a send is answered with.
#[derive(Serialize, ToSchema)]
#[schema(as = Sent)]
pub(crate) struct SentView<'a> {
    pub(crate) id: MessageId,
    pub(crate) mode: Lane,
    pub(crate) status: Status,
    pub(crate) created_at: Time,
    pub(crate) warnings: &'a [Warning],
}

/// What products, and the device itself, say of it under names that the platform knows.
#[derive(Serialize)]
#[serde(transparent)]
struct BuiltIn<'a>(&'a BTreeMap<String, String>);

impl PartialSchema for BuiltIn<'_> {
    fn schema() -> Shape {
        let text = || shape::text(1..=TEXT_MAX_BYTES);
        field::BuiltIn::TOLD
            .into_iter()
            .fold(ObjectBuilder::new(), |object, told| object.property(told.as_str(), text()))
            .into()
    }
}

impl ToSchema for BuiltIn<'_> {}

/// A device.
#[derive(Serialize, ToSchema)]
#[schema(as = Device)]
pub(crate) struct DeviceView<'a> {
    id: &'a DeviceId,
    env: Env,
    user_id: Option<&'a UserId>,
    #[serde(flatten)]
    built_in: BuiltIn<'a>,
    tags: &'a BTreeSet<String>,
    #[schema(value_type = BTreeMap<String, Value>)]
    attributes: BTreeMap<&'a str, Option<Box<RawValue>>>,
    first_seen: Time,
    /// When its latest session ended, or began if it lasts, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_prefix: Option<&'a str>,
}

impl<'a> From<&'a Device> for DeviceView<'a> {
    fn from(device: &'a Device) -> Self {
        let profile = &device.profile;
        let attribute = |(name, kept): (&'a String, &'a String)| {
            (name.as_str(), RawValue::from_string(attribute::written(kept).into_owned()).ok())
        };
        Self {
            id: &device.id,
            env: device.env,
            user_id: profile.user_id.as_ref(),
            built_in: BuiltIn(&profile.built_in),
            tags: &profile.tags,
            attributes: profile.attributes.iter().map(attribute).collect(),
            first_seen: time(device.first_seen),
            last_seen: profile.seen.as_ref().map(|seen| time(seen.at)),
            transport: profile.seen.as_ref().map(|seen| seen.transport.as_str()),
            ip_prefix: profile.seen.as_ref().map(|seen| seen.ip_prefix.as_str()),
        }
    }
}

/// A group.
#[derive(Serialize, ToSchema)]
#[schema(as = Group)]
pub(crate) struct GroupView {
    id: GroupId,
    name: String,
    env: Env,
    source: SourceView,
    created_at: Time,
}

#[derive(Serialize, ToSchema)]
#[schema(as = GroupSource)]
struct SourceView {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_s: Option<u64>,
}

impl From<Source> for SourceView {
    fn from(source: Source) -> Self {
        match source {
            Source::Static => Self { r#type: "static", url: None, cache_s: None },
            Source::Callback { url, cache_s } => Self { r#type: "callback", url: Some(url), cache_s: Some(cache_s) },
        }
    }
}

impl From<Group> for GroupView {
    fn from(group: Group) -> Self {
        Self {
            id: group.id,
            name: group.name,
            env: group.env,
            source: group.source.into(),
            created_at: time(group.created_at),
        }
    }
}

/// A new key: the only time its secret is shown.
#[derive(Serialize, ToSchema)]
#[schema(as = Key)]
pub(crate) struct KeyView {
    pub(crate) id: KeyId,
    pub(crate) key: String,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) created_at: Time,
    pub(crate) expires_at: Option<Time>,
}
