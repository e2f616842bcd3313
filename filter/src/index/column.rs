//! What is known under one name: a column for each type that devices of the block gave it.

use audience::Value;

use super::{cut, set::Set, slices::Keys, terms::Terms};

/// What a term says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The value is this text.
    Text,
    /// The value is [`TRUE`] or [`FALSE`].
    Bool,
    /// The value is this version, which has no key.
    Version,
    /// The value is a list; the term is empty.
    List,
    /// The value is a list, and this is in it.
    Item,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Text, Self::Bool, Self::Version, Self::List, Self::Item];

    /// Whether a device has at most one term of this kind in a column.
    pub(super) const fn is_single(self) -> bool {
        !matches!(self, Self::Item)
    }
}

/// What a key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// The value is this whole number, of those that are told apart.
    Whole,
    /// The value is this number, another.
    Number,
    /// The value is this moment.
    Time,
    /// The value is this version.
    Version,
}

impl Scale {
    pub(super) const ALL: [Self; 4] = [Self::Whole, Self::Number, Self::Time, Self::Version];
}

/// The term of what is true.
pub(super) const TRUE: &str = "true";
/// The term of what is false.
pub(super) const FALSE: &str = "false";

/// The term of a truth.
pub(super) const fn truth(bool: bool) -> &'static str {
    if bool { TRUE } else { FALSE }
}

/// What devices of the block have under one name.
#[derive(Clone, Default)]
pub(super) struct Column {
    terms: [Terms; Kind::ALL.len()],
    keys: [Keys; Scale::ALL.len()],
}

/// How a value is kept.
pub(super) enum Place {
    /// As terms, of which there may be several.
    Terms(Vec<(Kind, String)>),
    /// As a key.
    Key(Scale, u64),
}

impl Place {
    pub(super) fn of(value: Value) -> Self {
        match value {
            Value::Text(text) => Self::Terms(vec![(Kind::Text, text)]),
            Value::Bool(bool) => Self::Terms(vec![(Kind::Bool, truth(bool).to_owned())]),
            Value::List(items) => {
                let list = (Kind::List, String::new());
                Self::Terms(items.into_iter().map(|item| (Kind::Item, item)).chain([list]).collect())
            }
            Value::Number(number) => match cut::whole(number) {
                Some(key) => Self::Key(Scale::Whole, key),
                None => Self::Key(Scale::Number, cut::number(number)),
            },
            Value::Time(millis) => Self::Key(Scale::Time, cut::time(millis)),
            Value::Version(version) => match version.key() {
                Some(key) => Self::Key(Scale::Version, key),
                None => Self::Terms(vec![(Kind::Version, version.to_string())]),
            },
        }
    }
}

impl Column {
    pub(super) fn terms(&self, kind: Kind) -> &Terms {
        &self.terms[kind as usize]
    }

    pub(super) fn terms_mut(&mut self, kind: Kind) -> &mut Terms {
        &mut self.terms[kind as usize]
    }

    pub(super) fn keys(&self, scale: Scale) -> &Keys {
        &self.keys[scale as usize]
    }

    pub(super) fn keys_mut(&mut self, scale: Scale) -> &mut Keys {
        &mut self.keys[scale as usize]
    }

    /// Who has a value that is kept as a term, by type.
    pub(super) fn present(&self) -> impl Iterator<Item = &Set> {
        Kind::ALL.into_iter().filter(|kind| kind.is_single()).map(|kind| &self.terms(kind).present)
    }

    /// What it takes in memory besides itself.
    pub(super) fn bytes(&self) -> usize {
        self.terms.iter().map(Terms::bytes).sum::<usize>() + self.keys.iter().map(Keys::bytes).sum::<usize>()
    }
}
