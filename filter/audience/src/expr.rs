//! An expression as a tree, and how it is written down. What it means is in [`evaluate`](crate::evaluate).

use std::{collections::BTreeSet, fmt, ops};

use model::{AudienceId, GroupId};

use crate::{Field, Literal, literal::quoted};

/// Deepest nesting of groups of `&&` and `||` in each other.
pub const DEPTH_MAX: usize = 8;
/// Most predicates in one expression.
pub const LEAVES_MAX: usize = 200;
/// Most values in one list.
pub const VALUES_MAX: usize = 1_000;

/// Most that the questions of one expression may cost together: see [`Leaf::cost`].
pub const COST_MAX: usize = 4_096;

/// An expression over what is known about one device.
///
/// Built with `&`, `|` and `!`, which keep the tree in its one form: a group has two parts or more, none of them a
/// group of its own kind, and nothing is negated twice. Its [`Display`](fmt::Display) is text that parses to the same
/// tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// Holds where every part does.
    All(Vec<Self>),
    /// Holds where any part does.
    Any(Vec<Self>),
    /// Holds where the part does not: the complement, so also where what it asks about is missing.
    Not(Box<Self>),
    /// Asks one question.
    Leaf(Leaf),
}

/// One question about a device. Each but [`Has`](Leaf::Has) is answered *no* where what it asks about is missing.
#[derive(Clone, Debug, PartialEq)]
pub enum Leaf {
    /// `field == literal` and its like.
    Compare {
        /// What is compared.
        field: Field,
        /// How.
        comparison: Comparison,
        /// With what.
        with: Literal,
    },
    /// `field in […]` or `field not in […]`.
    In {
        /// What is looked for.
        field: Field,
        /// Whether it must be absent from the list.
        negated: bool,
        /// The list; one or more, of one type.
        values: Vec<Literal>,
    },
    /// `between(field, from, to)`: both ends are inside.
    Between {
        /// What is compared.
        field: Field,
        /// The least it may be.
        from: Literal,
        /// The most it may be.
        to: Literal,
    },
    /// `has(field)`; `missing(field)` is its negation.
    Has(Field),
    /// `starts_with(field, prefix)`.
    StartsWith {
        /// What is looked at.
        field: Field,
        /// What it begins with.
        prefix: String,
    },
    /// `contains(field, value)`, `contains_any(field, …)` or `contains_all(field, …)`.
    Contains {
        /// A list of texts.
        field: Field,
        /// How many of them.
        quantity: Quantity,
        /// What it holds; one or more.
        values: Vec<String>,
    },
    /// `tag(tag)`, `tag_any(…)` or `tag_all(…)`.
    Tags {
        /// How many of them.
        quantity: Quantity,
        /// The tags; one or more.
        tags: Vec<String>,
    },
    /// `sample(percent, salt)`: a stable share of all devices, another one for each salt.
    Sample {
        /// The share, in hundredths of a percent: 1 to 10,000.
        hundredths: u16,
        /// What tells this sample from others.
        salt: String,
    },
    /// `group(id)` or `audience(id)`.
    Saved(Saved),
}

/// A set of devices that is kept elsewhere, by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Saved {
    /// The members of a group.
    Group(GroupId),
    /// Whom a saved audience means.
    Audience(AudienceId),
}

impl fmt::Display for Saved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Group(id) => write!(f, "group(\"{id}\")"),
            Self::Audience(id) => write!(f, "audience(\"{id}\")"),
        }
    }
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    Greater,
    /// `>=`
    AtLeast,
}

impl Comparison {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Equal, Self::NotEqual, Self::Less, Self::AtMost, Self::Greater, Self::AtLeast];

    /// The operator.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Greater => ">",
            Self::AtLeast => ">=",
        }
    }

    /// Whether it asks for order, not only for equality.
    pub const fn is_ordered(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }
}

/// How many of several values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantity {
    /// At least one. A single value is always asked for so.
    Any,
    /// Each.
    All,
}

impl Expr {
    /// How deep groups nest in each other; 0 without any.
    pub fn depth(&self) -> usize {
        match self {
            Self::All(parts) | Self::Any(parts) => 1 + parts.iter().map(Self::depth).max().unwrap_or(0),
            Self::Not(part) => part.depth(),
            Self::Leaf(_) => 0,
        }
    }

    /// Every question it asks, in order.
    pub fn leaves(&self) -> Vec<&Leaf> {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().flat_map(Self::leaves).collect(),
            Self::Not(part) => part.leaves(),
            Self::Leaf(leaf) => vec![leaf],
        }
    }

    /// The fields it asks about, each once.
    pub fn fields(&self) -> BTreeSet<&Field> {
        self.leaves().into_iter().filter_map(Leaf::field).collect()
    }

    /// The groups and audiences it names, each once.
    pub fn saved(&self) -> BTreeSet<Saved> {
        let saved = |leaf: &Leaf| if let Leaf::Saved(saved) = leaf { Some(*saved) } else { None };
        self.leaves().into_iter().filter_map(saved).collect()
    }

    /// Writes it as an operand: in parentheses unless it is a call.
    fn fmt_operand(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Leaf(leaf) if !leaf.is_infix() => write!(f, "{leaf}"),
            _ => write!(f, "({self})"),
        }
    }
}

impl From<Leaf> for Expr {
    fn from(leaf: Leaf) -> Self {
        Self::Leaf(leaf)
    }
}

impl ops::Not for Expr {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::Not(part) => *part,
            part => Self::Not(Box::new(part)),
        }
    }
}

impl ops::BitAnd for Expr {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        let parts = |part| if let Self::All(parts) = part { parts } else { vec![part] };
        let mut all = parts(self);
        all.extend(parts(other));
        Self::All(all)
    }
}

impl ops::BitOr for Expr {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        let parts = |part| if let Self::Any(parts) = part { parts } else { vec![part] };
        let mut any = parts(self);
        any.extend(parts(other));
        Self::Any(any)
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(parts) => write_joined(f, parts, " && ", |f, part| match part {
                Self::Any(_) => write!(f, "({part})"),
                _ => part.fmt(f),
            }),
            Self::Any(parts) => write_joined(f, parts, " || ", |f, part| part.fmt(f)),
            Self::Not(part) => {
                f.write_str("!")?;
                part.fmt_operand(f)
            }
            Self::Leaf(leaf) => leaf.fmt(f),
        }
    }
}

impl Leaf {
    /// The field it asks about, if it is about one.
    pub const fn field(&self) -> Option<&Field> {
        match self {
            Self::Compare { field, .. }
            | Self::In { field, .. }
            | Self::Between { field, .. }
            | Self::Has(field)
            | Self::StartsWith { field, .. }
            | Self::Contains { field, .. } => Some(field),
            Self::Tags { .. } | Self::Sample { .. } | Self::Saved(_) => None,
        }
    }

    /// What it costs to answer, in lookups of one value; about, whatever devices there are.
    pub fn cost(&self) -> usize {
        /// A range of texts is as many as there are in it.
        const RANGE: usize = 16;
        /// A sample looks at the name of each device that is left.
        const NAMES: usize = 64;
        /// What is kept elsewhere is read first.
        const SAVED: usize = 64;
        match self {
            Self::Compare { with: Literal::Text(_), comparison, .. } if comparison.is_ordered() => RANGE,
            Self::Compare { .. } | Self::Has(_) => 1,
            Self::In { values, .. } => values.len(),
            Self::Between { .. } => 2,
            Self::StartsWith { .. } => RANGE,
            Self::Contains { values, .. } => values.len(),
            Self::Tags { tags, .. } => tags.len(),
            Self::Sample { .. } => NAMES,
            Self::Saved(_) => SAVED,
        }
    }

    /// Whether it is written around an operator, so that a `!` before it would mislead the eye.
    const fn is_infix(&self) -> bool {
        matches!(self, Self::Compare { .. } | Self::In { .. })
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare { field, comparison, with } => write!(f, "{field} {} {with}", comparison.as_str()),
            Self::In { field, negated, values } => {
                write!(f, "{field} {}in [", if *negated { "not " } else { "" })?;
                write_joined(f, values, ", ", |f, value| value.fmt(f))?;
                f.write_str("]")
            }
            Self::Between { field, from, to } => write!(f, "between({field}, {from}, {to})"),
            Self::Has(field) => write!(f, "has({field})"),
            Self::StartsWith { field, prefix } => write!(f, "starts_with({field}, {})", quoted(prefix)),
            Self::Contains { field, quantity, values } => {
                write!(f, "contains{}({field}, ", quantity.suffix(values))?;
                write_texts(f, values)
            }
            Self::Tags { quantity, tags } => {
                write!(f, "tag{}(", quantity.suffix(tags))?;
                write_texts(f, tags)
            }
            Self::Sample { hundredths, salt } => {
                write!(f, "sample({}, {})", f64::from(*hundredths) / 100.0, quoted(salt))
            }
            Self::Saved(saved) => saved.fmt(f),
        }
    }
}

impl Quantity {
    /// What a function's name ends with to ask for so many of `values`.
    const fn suffix(self, values: &[String]) -> &'static str {
        match self {
            Self::Any if values.len() == 1 => "",
            Self::Any => "_any",
            Self::All => "_all",
        }
    }
}

fn write_texts(f: &mut fmt::Formatter<'_>, texts: &[String]) -> fmt::Result {
    write_joined(f, texts, ", ", |f, text| write!(f, "{}", quoted(text)))?;
    f.write_str(")")
}

fn write_joined<T>(
    f: &mut fmt::Formatter<'_>,
    parts: &[T],
    separator: &str,
    write: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            f.write_str(separator)?;
        }
        write(f, part)?;
    }
    Ok(())
}
