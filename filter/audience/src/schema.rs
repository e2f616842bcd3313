//! Which attributes an app has, and of which type: what an expression is checked against.

use std::collections::BTreeMap;

use crate::{
    Invalid,
    field::{ATTRIBUTE, Field, Kind, closest},
};

/// The attributes that an expression may ask about.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// `None` when nothing is known of them: then each may be there, of any type.
    attributes: Option<BTreeMap<String, Kind>>,
}

impl Schema {
    /// Takes every attribute, of any type.
    pub fn open() -> Self {
        Self::default()
    }

    /// Takes these attributes only.
    pub fn of(attributes: impl IntoIterator<Item = (String, Kind)>) -> Self {
        Self { attributes: Some(attributes.into_iter().collect()) }
    }

    /// What values a field takes.
    pub fn kind(&self, field: &Field) -> Kind {
        match (field, &self.attributes) {
            (Field::Attribute(name), Some(known)) => known.get(name).copied().unwrap_or(Kind::Undeclared),
            _ => field.kind(),
        }
    }

    /// Passes when the field is known.
    pub(crate) fn find(&self, column: usize, field: &Field) -> Result<(), Invalid> {
        let (Field::Attribute(name), Some(known)) = (field, &self.attributes) else { return Ok(()) };
        if known.contains_key(name) {
            return Ok(());
        }
        let meant = closest(name, known.keys().map(String::as_str));
        let hint = meant.map(|name| format!("; did you mean {ATTRIBUTE}{name}?")).unwrap_or_default();
        Err(Invalid { column, reason: format!("{field} is not declared{hint}"), code: "unknown_attribute" })
    }
}
