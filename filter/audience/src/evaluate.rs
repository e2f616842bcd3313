//! What an expression means, for one device at a time: plain and slow, what every faster way is tested against.
//!
//! Two values, no third: a question about something that is missing is answered *no*, `!=` and `not in` included, and
//! `!` is the complement. An attribute that nobody declared has the type that its device gave it; for a question about
//! another type it is as if missing, but that a text also means the version or the moment that it reads as. (A
//! declaration turns a question about another type into a refusal of the expression.)

use std::cmp::Ordering;

use model::{Device, DeviceId, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Value,
    expr::{Comparison, Expr, Leaf, Quantity, Saved},
    field::{BuiltIn, Field},
    literal::Literal,
};

/// Hundredths of a percent in the whole.
pub(crate) const WHOLE: u64 = 10_000;

/// What is known about one device at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The device.
    pub device: &'a Device,
    /// The moment, for relative times.
    pub now: Timestamp,
    /// Whether the device is connected at that moment.
    pub online: bool,
}

/// Whether the expression holds for this device. Groups and audiences are kept elsewhere: as far as is known here, the
/// device is in none.
pub fn holds(expr: &Expr, facts: &Facts<'_>) -> bool {
    holds_among(expr, facts, &|_| false)
}

/// The same, where `among` says which groups and audiences the device is in.
pub fn holds_among(expr: &Expr, facts: &Facts<'_>, among: &dyn Fn(Saved) -> bool) -> bool {
    match expr {
        Expr::All(parts) => parts.iter().all(|part| holds_among(part, facts, among)),
        Expr::Any(parts) => parts.iter().any(|part| holds_among(part, facts, among)),
        Expr::Not(part) => !holds_among(part, facts, among),
        Expr::Leaf(Leaf::Saved(saved)) => among(*saved),
        Expr::Leaf(leaf) => answer(leaf, facts),
    }
}

fn answer(leaf: &Leaf, facts: &Facts<'_>) -> bool {
    match leaf {
        Leaf::Saved(_) => false,
        Leaf::Tags { quantity, tags } => quantity.of(tags, |tag| facts.device.profile.tags.contains(tag)),
        Leaf::Sample { hundredths, salt } => lot(salt, &facts.device.id) < u64::from(*hundredths),
        leaf => leaf.field().and_then(|field| facts.value(field)).is_some_and(|value| leaf.accepts(&value, facts.now)),
    }
}

impl Leaf {
    /// The answer to this question, which is about a field, where the field has this value.
    pub fn accepts(&self, value: &Value, now: Timestamp) -> bool {
        let compared = |with: &Literal| value.compare_with(with.as_of(now));
        match self {
            Self::Compare { comparison, with, .. } => compared(with).is_some_and(|order| comparison.accepts(order)),
            Self::In { negated: false, values, .. } => {
                values.iter().any(|with| compared(with).is_some_and(Ordering::is_eq))
            }
            Self::In { negated: true, values, .. } => {
                values.iter().all(|with| compared(with).is_some_and(Ordering::is_ne))
            }
            Self::Between { from, to, .. } => {
                compared(from).is_some_and(Ordering::is_ge) && compared(to).is_some_and(Ordering::is_le)
            }
            Self::Has(_) => true,
            Self::StartsWith { prefix, .. } => matches!(value, Value::Text(text) if text.starts_with(prefix)),
            Self::Contains { quantity, values, .. } => match value {
                Value::List(list) => quantity.of(values, |value| list.contains(value)),
                _ => false,
            },
            Self::Tags { .. } | Self::Sample { .. } | Self::Saved(_) => false,
        }
    }
}

impl Facts<'_> {
    fn value(&self, field: &Field) -> Option<Value> {
        match field {
            Field::BuiltIn(BuiltIn::Online) => Some(Value::Bool(self.online)),
            Field::BuiltIn(BuiltIn::LastSeen) if self.online => Some(Value::Time(millis(self.now))),
            Field::BuiltIn(BuiltIn::Env) => Some(Value::Text(self.device.env.to_string())),
            field => field.of(self.device),
        }
    }
}

/// Everything that is known about a device and that a field names; tags are not. For `online` that is which run of an
/// access point has the device, for `last_seen` when it was told of last, and for `env` nothing.
pub fn known(device: &Device) -> impl Iterator<Item = (Field, Value)> {
    let attributes = device.profile.attributes.keys().cloned().map(Field::Attribute);
    let fields = BuiltIn::ALL.into_iter().map(Field::BuiltIn).chain(attributes);
    fields.filter_map(|field| field.of(device).map(|value| (field, value)))
}

impl Field {
    /// What is known under this name. A version that is none is still there, as a text.
    fn of(&self, device: &Device) -> Option<Value> {
        let profile = &device.profile;
        match self {
            Self::Attribute(name) => Value::from_json(serde_json::from_str(profile.attributes.get(name)?).ok()?),
            Self::BuiltIn(BuiltIn::UserId) => profile.user_id.as_ref().map(|user| Value::Text(user.to_string())),
            Self::BuiltIn(BuiltIn::FirstSeen) => Some(Value::Time(millis(device.first_seen))),
            Self::BuiltIn(BuiltIn::LastSeen) => Some(Value::Time(millis(profile.seen.as_ref()?.at))),
            Self::BuiltIn(BuiltIn::Online) => Some(Value::Text(profile.seen.as_ref()?.run.as_ref()?.to_string())),
            Self::BuiltIn(BuiltIn::Transport) => Some(Value::Text(profile.seen.as_ref()?.transport.clone())),
            Self::BuiltIn(BuiltIn::IpPrefix) => Some(Value::Text(profile.seen.as_ref()?.ip_prefix.clone())),
            Self::BuiltIn(BuiltIn::Env) => None,
            Self::BuiltIn(version @ (BuiltIn::AppVersion | BuiltIn::OsVersion)) => {
                let text = profile.built_in.get(version.as_str())?;
                Some(text.parse().map_or_else(|_| Value::Text(text.clone()), Value::Version))
            }
            Self::BuiltIn(text) => profile.built_in.get(text.as_str()).cloned().map(Value::Text),
        }
    }
}

impl Literal {
    /// The value that it means at this moment.
    pub fn as_of(&self, now: Timestamp) -> Value {
        match self {
            Self::Text(text) => Value::Text(text.clone()),
            Self::Number(number) => Value::Number(*number),
            Self::Bool(bool) => Value::Bool(*bool),
            Self::Version(version) => Value::Version(version.clone()),
            Self::Time(time) => Value::Time(time.as_millisecond()),
            Self::Relative(span) => Value::Time(span.as_of(now)),
        }
    }
}

/// The lots of one salt: each device has one, which stays the same for ever.
pub struct Lots {
    /// The salt, then the device that is asked about.
    text: Vec<u8>,
    salt: usize,
}

impl Lots {
    /// The lots of this salt.
    pub fn of(salt: &str) -> Self {
        Self { text: salt.into(), salt: salt.len() }
    }

    /// A device's lot, evenly spread below 10,000.
    pub fn of_device(&mut self, device: &[u8]) -> u64 {
        self.text.truncate(self.salt);
        self.text.extend_from_slice(device);
        xxh3_64(&self.text) % WHOLE
    }
}

fn lot(salt: &str, device: &DeviceId) -> u64 {
    Lots::of(salt).of_device(device.as_str().as_bytes())
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

impl Comparison {
    /// Whether it holds between values in this order.
    pub const fn accepts(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

impl Quantity {
    fn of(self, values: &[String], holds: impl Fn(&String) -> bool) -> bool {
        match self {
            Self::Any => values.iter().any(holds),
            Self::All => values.iter().all(holds),
        }
    }
}
