//! How things look in answers: explicit shapes, so that nothing is shown that nobody meant to show.

use std::collections::{BTreeMap, BTreeSet};

use audience::attribute;
use jiff::Timestamp as Moment;
use model::{Device, Env, Exclusion, Group, Lane, MessageId, Ordinals, Scope, Timestamp, UserId, group::Source};
use serde::Serialize;
use serde_json::value::RawValue;

/// RFC 3339 in UTC, with milliseconds.
pub(crate) fn time(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    Moment::from_millisecond(millis).map_or_else(|_| "9999-12-31T23:59:59.999Z".to_owned(), |at| format!("{at:.3}"))
}

/// Something that is right enough to go on, but worth knowing.
#[derive(Clone, Debug, Serialize)]
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
#[derive(Serialize)]
pub(crate) struct SentView<'a> {
    pub(crate) id: MessageId,
    pub(crate) mode: Lane,
    pub(crate) status: &'static str,
    pub(crate) created_at: String,
    pub(crate) warnings: &'a [Warning],
}

/// A device.
#[derive(Serialize)]
pub(crate) struct DeviceView<'a> {
    id: &'a str,
    env: Env,
    user_id: Option<&'a UserId>,
    #[serde(flatten)]
    built_in: &'a BTreeMap<String, String>,
    tags: &'a BTreeSet<String>,
    attributes: BTreeMap<&'a str, Option<Box<RawValue>>>,
    first_seen: String,
    /// When its latest session ended, or began if it lasts, as far as is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_seen: Option<String>,
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
            id: device.id.as_str(),
            env: device.env,
            user_id: profile.user_id.as_ref(),
            built_in: &profile.built_in,
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
#[derive(Serialize)]
pub(crate) struct GroupView {
    id: String,
    name: String,
    env: Env,
    source: SourceView,
    created_at: String,
}

#[derive(Serialize)]
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
            id: group.id.to_string(),
            name: group.name,
            env: group.env,
            source: group.source.into(),
            created_at: time(group.created_at),
        }
    }
}

/// A new key: the only time its secret is shown.
#[derive(Serialize)]
pub(crate) struct KeyView {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) scopes: Vec<Scope>,
    pub(crate) created_at: String,
    pub(crate) expires_at: Option<String>,
}
