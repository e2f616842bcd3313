//! An expression as a JSON tree, the form that other programs build.
//!
//! ```json
//! {"all": [{"field": "platform", "op": "in", "values": ["ios"]}, {"not": {"tag": "staff"}}]}
//! ```
//! A leaf is put into words and read as text: the two forms cannot come to differ in what they take. `"missing": true` in a
//! leaf with a field also means devices without it; a `sample` with `from` and `to` is the part of the lots between.

use serde_json::{Map, Value as Json, json};
use thiserror::Error;

use crate::{
    Invalid, Schema,
    expr::{Comparison, Expr, LEAVES_MAX, Leaf, Quantity, Saved},
    field::{Field, Kind, did_you_mean},
    literal::{Literal, Span, quoted},
    parse::{PARENTHESES_MAX, affordable},
};

/// Why a tree cannot be taken; the text is for the person who wrote it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{reason}")]
pub struct InvalidTree {
    /// Where in the tree, as a JSON pointer (RFC 6901); empty for its root.
    pub pointer: String,
    /// What is wrong there, and what would be right.
    pub reason: String,
    /// The stable name of this kind of mistake, `snake_case`.
    pub code: &'static str,
}

/// What a node of a tree is told by.
const NODES: [&str; 14] = [
    "all", "any", "not", "field", "tag", "tag_any", "tag_all", "group", "audience", "user", "users", "has", "missing",
    "sample",
];

/// Operators of leaves with one value, and how they are written between field and value.
const INFIX: [(&str, Comparison); 6] = [
    ("eq", Comparison::Equal),
    ("ne", Comparison::NotEqual),
    ("lt", Comparison::Less),
    ("lte", Comparison::AtMost),
    ("gt", Comparison::Greater),
    ("gte", Comparison::AtLeast),
];

/// The other operators.
const OTHER: [&str; 9] =
    ["in", "not_in", "between", "starts_with", "contains", "contains_any", "contains_all", "has", "missing"];

impl Expr {
    /// Reads a tree about devices whose attributes are these.
    ///
    /// # Errors
    /// The first mistake, with its place.
    pub fn from_tree(tree: &Json, schema: &Schema) -> Result<Self, InvalidTree> {
        let expr = Reader { schema, leaves: 0 }.node(tree, "", 0)?;
        affordable(&expr).map_err(|invalid| at("", invalid))?;
        Ok(expr)
    }

    /// The tree, which reads as the same expression.
    pub fn to_tree(&self) -> Json {
        let all = |parts: &[Self]| parts.iter().map(Self::to_tree).collect::<Vec<_>>();
        match self {
            Self::All(parts) => json!({ "all": all(parts) }),
            Self::Any(parts) => json!({ "any": all(parts) }),
            Self::Not(part) => match &**part {
                Self::Leaf(Leaf::Has(field)) => json!({ "missing": field.to_string() }),
                part => json!({ "not": part.to_tree() }),
            },
            Self::Leaf(leaf) => leaf.to_tree(),
        }
    }
}

impl Leaf {
    fn to_tree(&self) -> Json {
        let leaf =
            |field: &Field, op: &str| Map::from_iter([("field", field.to_string()), ("op", op.to_owned())].map(own));
        let with = |field, op, name: &str, value| {
            let mut leaf = leaf(field, op);
            leaf.insert(name.to_owned(), value);
            Json::Object(leaf)
        };
        match self {
            Self::Compare { field, comparison, with: literal } => {
                let op = INFIX.iter().find(|(_, known)| known == comparison).map_or("eq", |(op, _)| op);
                with(field, op, "value", value(literal))
            }
            Self::In { field, negated, values } => {
                let op = if *negated { "not_in" } else { "in" };
                with(field, op, "values", values.iter().map(value).collect())
            }
            Self::Between { field, from, to } => with(field, "between", "values", json!([value(from), value(to)])),
            Self::Has(field) => json!({ "has": field.to_string() }),
            Self::StartsWith { field, prefix } => with(field, "starts_with", "value", prefix.as_str().into()),
            Self::Contains { field, quantity: Quantity::Any, values } => match &values[..] {
                [only] => with(field, "contains", "value", only.as_str().into()),
                _ => with(field, "contains_any", "values", json!(values)),
            },
            Self::Contains { field, quantity: Quantity::All, values } => {
                with(field, "contains_all", "values", json!(values))
            }
            Self::Tags { quantity: Quantity::Any, tags } => match &tags[..] {
                [only] => json!({ "tag": only }),
                _ => json!({ "tag_any": tags }),
            },
            Self::Tags { quantity: Quantity::All, tags } => json!({ "tag_all": tags }),
            Self::Sample { hundredths, salt } => {
                json!({ "sample": { "percent": number(f64::from(*hundredths) / 100.0), "salt": salt } })
            }
            Self::Saved(Saved::Group(id)) => json!({ "group": id }),
            Self::Saved(Saved::Audience(id)) => json!({ "audience": id }),
        }
    }
}

fn own((name, value): (&str, String)) -> (String, Json) {
    (name.to_owned(), value.into())
}

/// A literal as a tree has it: times and versions are texts.
fn value(literal: &Literal) -> Json {
    match literal {
        Literal::Text(text) => text.as_str().into(),
        Literal::Number(float) => number(*float),
        Literal::Bool(bool) => (*bool).into(),
        Literal::Version(version) => version.to_string().into(),
        Literal::Time(time) => time.to_string().into(),
        Literal::Relative(span) => span.to_string().into(),
    }
}

/// A whole number without a decimal point, as people write it.
fn number(float: f64) -> Json {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
    if float.fract() == 0.0 && float.abs() < EXACT { (float as i64).into() } else { float.into() }
}

/// What is wrong with a leaf's words, said of the leaf.
fn at(pointer: &str, invalid: Invalid) -> InvalidTree {
    InvalidTree { pointer: pointer.to_owned(), reason: invalid.reason, code: invalid.code }
}

fn malformed(pointer: &str, reason: impl Into<String>) -> InvalidTree {
    InvalidTree { pointer: pointer.to_owned(), reason: reason.into(), code: "malformed_filter" }
}

fn too_complex(pointer: &str, reason: String) -> InvalidTree {
    InvalidTree { pointer: pointer.to_owned(), reason, code: "filter_too_complex" }
}

struct Reader<'a> {
    schema: &'a Schema,
    leaves: usize,
}

impl Reader<'_> {
    fn node(&mut self, json: &Json, place: &str, deep: usize) -> Result<Expr, InvalidTree> {
        let Json::Object(node) = json else { return Err(malformed(place, "a node is an object")) };
        if deep > PARENTHESES_MAX {
            return Err(too_complex(place, format!("more than {PARENTHESES_MAX} nodes in each other")));
        }
        let told_by = if node.contains_key("field") { Some("field") } else { node.keys().map(String::as_str).next() };
        match told_by {
            Some(name @ ("all" | "any")) => self.group(node, name, place, deep),
            Some("not") => {
                only(node, &["not"], place)?;
                Ok(!self.node(&node["not"], &format!("{place}/not"), deep + 1)?)
            }
            Some(_) => self.leaf(node, place),
            None => Err(malformed(place, format!("a node has one of {}", NODES.join(", ")))),
        }
    }

    fn group(&mut self, node: &Map<String, Json>, name: &str, place: &str, deep: usize) -> Result<Expr, InvalidTree> {
        only(node, &[name], place)?;
        let place = format!("{place}/{name}");
        let Json::Array(parts) = &node[name] else { return Err(malformed(&place, "must be a list of nodes")) };
        let mut parts = parts.iter().enumerate();
        let Some((_, first)) = parts.next() else { return Err(malformed(&place, "needs at least one node")) };
        let mut group = self.node(first, &format!("{place}/0"), deep + 1)?;
        for (index, part) in parts {
            let part = self.node(part, &format!("{place}/{index}"), deep + 1)?;
            group = if name == "all" { group & part } else { group | part };
        }
        Ok(group)
    }

    fn leaf(&mut self, node: &Map<String, Json>, place: &str) -> Result<Expr, InvalidTree> {
        self.leaves += 1;
        if self.leaves > LEAVES_MAX {
            return Err(too_complex(place, format!("more than {LEAVES_MAX} predicates")));
        }
        let words = self.words(node).map_err(|reason| malformed(place, reason))?;
        Expr::parse(&words, self.schema).map_err(|invalid| at(place, invalid))
    }

    /// A leaf as text.
    fn words(&self, node: &Map<String, Json>) -> Result<String, String> {
        if node.contains_key("field") {
            return self.about_field(node);
        }
        let (Some((name, json)), 1) = (node.iter().next(), node.len()) else {
            return Err("a leaf has one member, or `field` and `op`".to_owned());
        };
        match name.as_str() {
            "tag" | "group" | "audience" | "user" => Ok(format!("{name}({})", text(json)?)),
            "tag_any" | "tag_all" => Ok(format!("{name}({})", texts(json)?)),
            "users" => Ok(format!("user({})", texts(json)?)),
            "has" | "missing" => Ok(format!("{name}({})", word(json)?)),
            "sample" => sample(json),
            unknown => {
                let hint = did_you_mean(unknown, NODES).unwrap_or_default();
                Err(format!("`{}` is no node{hint}", unknown.chars().take(64).collect::<String>()))
            }
        }
    }

    fn about_field(&self, node: &Map<String, Json>) -> Result<String, String> {
        let get = |name: &str| node.get(name).ok_or_else(|| format!("`{name}` is missing"));
        let field = word(get("field")?)?;
        let Json::String(op) = get("op")? else { return Err("`op` is a string".into()) };
        let literal = |json: &Json| self.literal(field, json);
        let values = || match get("values")? {
            Json::Array(values) => values.iter().map(literal).collect::<Result<Vec<_>, _>>(),
            _ => Err("`values` is a list".to_owned()),
        };
        let (uses, words) = match op.as_str() {
            "in" | "not_in" => {
                ("values", format!("{field} {} [{}]", op.replace("not_in", "not in"), values()?.join(", ")))
            }
            "between" | "contains_any" | "contains_all" => {
                ("values", format!("{op}({field}, {})", values()?.join(", ")))
            }
            "starts_with" | "contains" => ("value", format!("{op}({field}, {})", literal(get("value")?)?)),
            "has" | "missing" => ("op", format!("{op}({field})")),
            op => match INFIX.into_iter().find(|(name, _)| *name == op) {
                Some((_, sign)) => ("value", format!("{field} {} {}", sign.as_str(), literal(get("value")?)?)),
                None => {
                    let names = INFIX.iter().map(|(name, _)| *name).chain(OTHER);
                    let hint = did_you_mean(op, names).unwrap_or_default();
                    return Err(format!("`{}` is no operator{hint}", op.chars().take(64).collect::<String>()));
                }
            },
        };
        if let Some(other) = node.keys().find(|name| !["field", "op", "missing", uses].contains(&name.as_str())) {
            return Err(format!("`{}` has no meaning with `{op}`", other.chars().take(64).collect::<String>()));
        }
        match node.get("missing") {
            None | Some(Json::Bool(false)) => Ok(words),
            Some(Json::Bool(true)) => Ok(format!("{words} || missing({field})")),
            Some(_) => Err("`missing` is true or false".to_owned()),
        }
    }

    /// A value of `field`. Text that is a duration is one only where a time may be meant.
    fn literal(&self, field: &str, json: &Json) -> Result<String, String> {
        let may_be_time = |kind| matches!(kind, Kind::Time | Kind::Undeclared);
        let is_time = || Field::named(field).is_some_and(|field| may_be_time(self.schema.kind(&field)));
        match json {
            Json::String(span) if is_time() && span.parse::<Span>().is_ok() => Ok(span.clone()),
            Json::String(text) => Ok(quoted(text).to_string()),
            Json::Number(_) | Json::Bool(_) => Ok(json.to_string()),
            _ => Err("a value is a string, a number, true or false".to_owned()),
        }
    }
}

fn only(node: &Map<String, Json>, names: &[&str], place: &str) -> Result<(), InvalidTree> {
    match node.keys().find(|name| !names.contains(&name.as_str())) {
        Some(_) => Err(malformed(place, format!("`{}` stands alone in its node", names.join("`, `")))),
        None => Ok(()),
    }
}

/// A name, safe to stand in a text.
fn word(json: &Json) -> Result<&str, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    match json {
        Json::String(name) if name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.chars().all(legal) => {
            Ok(name)
        }
        _ => Err("a field is a name, as in \"platform\" or \"attr.city\"".to_owned()),
    }
}

fn text(json: &Json) -> Result<String, String> {
    json.as_str().map(|text| quoted(text).to_string()).ok_or_else(|| "must be a string".to_owned())
}

fn texts(json: &Json) -> Result<String, String> {
    let items = json.as_array().ok_or("must be a list of strings")?;
    Ok(items.iter().map(text).collect::<Result<Vec<_>, _>>()?.join(", "))
}

/// `percent` of all lots from the first, or those from `from` to `to`: the smaller sample is taken out of the greater.
fn sample(json: &Json) -> Result<String, String> {
    const RULE: &str = "a sample has `salt`, and `percent` or `from` and `to`";
    let salt = text(json.get("salt").ok_or(RULE)?)?;
    let names = json.as_object().map_or(0, Map::len);
    let percent = |name: &str| json.get(name).filter(|percent| percent.is_number());
    match (percent("percent"), percent("from"), percent("to")) {
        (Some(percent), None, None) if names == 2 => Ok(format!("sample({percent}, {salt})")),
        (None, Some(from), Some(to)) if names == 3 && from.as_f64() == Some(0.0) => Ok(format!("sample({to}, {salt})")),
        (None, Some(from), Some(to)) if names == 3 => Ok(format!("sample({to}, {salt}) && !sample({from}, {salt})")),
        _ => Err(RULE.to_owned()),
    }
}

#[cfg(test)]
mod tests;
