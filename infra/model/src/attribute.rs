//! What an app's own attributes are: of which type, and who may write them.

use serde::{Deserialize, Serialize};

use crate::{
    record::Record,
    shelved::{Shelf, Shelved},
};

/// What values an attribute has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AttributeType {
    /// Text.
    String,
    /// A number.
    Number,
    /// True or false.
    Bool,
    /// A moment: a text in JSON, as RFC 3339 or as a date.
    Time,
    /// A version: a text in JSON, dotted numbers with an optional pre-release.
    Version,
    /// Texts.
    StringList,
}

impl AttributeType {
    /// The name in requests and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Bool => "bool",
            Self::Time => "time",
            Self::Version => "version",
            Self::StringList => "string_list",
        }
    }
}

/// Who writes an attribute. One side only, or the two would overwrite each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// The app's backend.
    Server,
    /// The device itself.
    Device,
}

/// An attribute of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Its type: declared, or that of its first value.
    #[serde(rename = "type")]
    pub kind: AttributeType,
    /// Who may write it; anybody when nobody said.
    pub owner: Option<Owner>,
    /// Whether somebody declared it.
    pub declared: bool,
}

impl Record for Attribute {
    const VERSION: u8 = 1;
}

impl Shelved for Attribute {
    const SHELF: Shelf = Shelf::Attributes;
}
