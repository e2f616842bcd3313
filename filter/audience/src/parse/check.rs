//! Which values a field takes, and what can be done with them.

use super::invalid;
use crate::{
    Invalid,
    field::{Field, Kind},
    literal::Literal,
    value::moment,
};

/// What a value is called in messages.
fn name(literal: &Literal) -> &'static str {
    match literal {
        Literal::Text(_) => "a text",
        Literal::Number(_) => "a number",
        Literal::Bool(_) => "true or false",
        Literal::Version(_) => "a version",
        Literal::Time(_) | Literal::Relative(_) => "a time",
    }
}

/// What a field of this kind is called in messages, with an example of what it takes.
fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "a text, as in \"ios\"",
        Kind::Version => "a version, as in \"2.10.0\"",
        Kind::Time => "a time, as in \"2026-11-21T08:30:00Z\" or -7d",
        Kind::Number => "a number",
        Kind::Bool => "true or false",
        Kind::List => "a list: ask what it contains",
        Kind::Undeclared => "a text, a number, true or false, a time, as in -7d",
    }
}

fn mismatch(column: usize, reason: String) -> Invalid {
    invalid(column, "type_mismatch", reason)
}

/// The literal as `field` understands it.
pub(super) fn typed(column: usize, field: &Field, kind: Kind, literal: Literal) -> Result<Literal, Invalid> {
    let understood = match (kind, literal) {
        (Kind::Version, Literal::Text(text)) => text.parse().map(Literal::Version).map_err(|_| format!("{text:?}")),
        (Kind::Time, Literal::Text(text)) => moment(&text).map(Literal::Time).ok_or_else(|| format!("{text:?}")),
        (Kind::Time | Kind::Undeclared, span @ Literal::Relative(_)) => Ok(span),
        (Kind::Text | Kind::Undeclared, text @ Literal::Text(_)) => Ok(text),
        (Kind::Number | Kind::Undeclared, number @ Literal::Number(_)) => Ok(number),
        (Kind::Bool | Kind::Undeclared, bool @ Literal::Bool(_)) => Ok(bool),
        (_, literal) => Err(literal.to_string()),
    };
    understood.map_err(|found| mismatch(column, format!("{field} is {}; {found} is not", kind_name(kind))))
}

/// Refuses values that have no order and no ranges.
pub(super) fn ordered(column: usize, literal: &Literal) -> Result<(), Invalid> {
    if matches!(literal, Literal::Bool(_)) {
        return Err(mismatch(column, "true and false are compared with `==` and `!=` only".into()));
    }
    Ok(())
}

/// Refuses a list of several types: no device could have all of them.
pub(super) fn same_type(values: &[(usize, Literal)]) -> Result<(), Invalid> {
    let Some((_, first)) = values.first() else { return Ok(()) };
    match values.iter().find(|(_, value)| name(value) != name(first)) {
        Some((column, other)) => Err(mismatch(
            *column,
            format!("a list of one type: {first} is {}, {other} is {}", name(first), name(other)),
        )),
        None => Ok(()),
    }
}

/// Refuses the ends of a range where there are none. A text about an undeclared attribute may be a version or a moment.
pub(super) fn range(column: usize, kind: Kind, literal: &Literal) -> Result<(), Invalid> {
    if matches!(literal, Literal::Text(_)) && kind != Kind::Undeclared {
        return Err(mismatch(column, "between takes numbers, versions and times, not texts".into()));
    }
    ordered(column, literal)
}

/// Refuses fields that are never text.
pub(super) fn text_field(column: usize, field: &Field, kind: Kind) -> Result<(), Invalid> {
    match kind {
        Kind::Text | Kind::Undeclared => Ok(()),
        kind => Err(mismatch(column, format!("starts_with looks at texts; {field} is {}", kind_name(kind)))),
    }
}

/// Refuses fields that are never lists.
pub(super) fn list_field(column: usize, field: &Field, kind: Kind) -> Result<(), Invalid> {
    match kind {
        Kind::List | Kind::Undeclared => Ok(()),
        kind => Err(mismatch(column, format!("contains looks into lists; {field} is {}", kind_name(kind)))),
    }
}
