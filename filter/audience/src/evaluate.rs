//! What an expression means, for one device at a time: plain and slow, what every faster way is tested against.
//!
//! Two values, no third: a question about something that is missing is answered *no*, `!=` and `not in` included, and
//! `!` is the complement. An attribute that nobody declared has the type that its device gave it; for a question about
//! another type it is as if missing. (A declaration turns such a question into a refusal of the expression.)

use std::cmp::Ordering;

use model::{Device, Timestamp};
use xxhash_rust::xxh3::Xxh3;

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
    let compared = |field, with| facts.value(field)?.compare(&facts.resolve(with));
    match leaf {
        Leaf::Saved(_) => false,
        Leaf::Compare { field, comparison, with } => {
            compared(field, with).is_some_and(|order| comparison.accepts(order))
        }
        Leaf::In { field, negated: false, values } => {
            values.iter().any(|value| compared(field, value) == Some(Ordering::Equal))
        }
        Leaf::In { field, negated: true, values } => {
            values.iter().all(|value| compared(field, value).is_some_and(Ordering::is_ne))
        }
        Leaf::Between { field, from, to } => {
            compared(field, from).is_some_and(Ordering::is_ge) && compared(field, to).is_some_and(Ordering::is_le)
        }
        Leaf::Has(field) => facts.value(field).is_some(),
        Leaf::StartsWith { field, prefix } => {
            matches!(facts.value(field), Some(Value::Text(text)) if text.starts_with(prefix))
        }
        Leaf::Contains { field, quantity, values } => match facts.value(field) {
            Some(Value::List(list)) => quantity.of(values, |value| list.contains(value)),
            _ => false,
        },
        Leaf::Tags { quantity, tags } => quantity.of(tags, |tag| facts.device.profile.tags.contains(tag)),
        Leaf::Sample { hundredths, salt } => facts.lot(salt) < u64::from(*hundredths),
    }
}

impl Facts<'_> {
    /// What is known under this name. A version that is none is still there, as a text.
    fn value(&self, field: &Field) -> Option<Value> {
        let profile = &self.device.profile;
        match field {
            Field::Attribute(name) => Value::from_json(serde_json::from_str(profile.attributes.get(name)?).ok()?),
            Field::BuiltIn(BuiltIn::UserId) => profile.user_id.as_ref().map(|user| Value::Text(user.to_string())),
            Field::BuiltIn(BuiltIn::FirstSeen) => Some(Value::Time(millis(self.device.first_seen))),
            Field::BuiltIn(version @ (BuiltIn::AppVersion | BuiltIn::OsVersion)) => {
                let text = profile.built_in.get(version.as_str())?;
                Some(text.parse().map_or_else(|_| Value::Text(text.clone()), Value::Version))
            }
            Field::BuiltIn(text) => profile.built_in.get(text.as_str()).cloned().map(Value::Text),
        }
    }

    fn resolve(&self, literal: &Literal) -> Value {
        match literal {
            Literal::Text(text) => Value::Text(text.clone()),
            Literal::Number(number) => Value::Number(*number),
            Literal::Bool(bool) => Value::Bool(*bool),
            Literal::Version(version) => Value::Version(version.clone()),
            Literal::Time(time) => Value::Time(time.as_millisecond()),
            Literal::Relative(span) => Value::Time(span.as_of(self.now)),
        }
    }

    /// The device's place in the sample of this salt: below 10,000, and the same for ever.
    fn lot(&self, salt: &str) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(salt.as_bytes());
        hash.update(self.device.id.as_str().as_bytes());
        hash.digest() % WHOLE
    }
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.as_millis()).unwrap_or(i64::MAX)
}

impl Comparison {
    const fn accepts(self, order: Ordering) -> bool {
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
