//! Whether an expression means devices that nothing is known about, told from its form alone.

use crate::{
    evaluate::WHOLE,
    expr::{Expr, Leaf},
    field::{BuiltIn, Field},
};

/// Whether it may hold for a device nothing is known about but when it came: a negation of everything, a tautology.
/// Such an expression means nearly everybody, whatever its author had in mind. May say so of one that never holds,
/// never the other way round.
pub fn may_hold_for_unknown(expr: &Expr) -> bool {
    unknown(expr).0
}

/// Whether it may hold, and whether it may not, for a device nothing is known about.
fn unknown(expr: &Expr) -> (bool, bool) {
    match expr {
        Expr::All(parts) => {
            parts.iter().map(unknown).fold((true, false), |all, part| (all.0 && part.0, all.1 || part.1))
        }
        Expr::Any(parts) => {
            parts.iter().map(unknown).fold((false, true), |any, part| (any.0 || part.0, any.1 && part.1))
        }
        Expr::Not(part) => {
            let (may, may_not) = unknown(part);
            (may_not, may)
        }
        Expr::Leaf(Leaf::Has(Field::BuiltIn(BuiltIn::FirstSeen))) => (true, false),
        Expr::Leaf(Leaf::Sample { hundredths, .. }) => (true, u64::from(*hundredths) < WHOLE),
        Expr::Leaf(Leaf::Has(Field::BuiltIn(BuiltIn::Online | BuiltIn::Env))) => (true, false),
        Expr::Leaf(leaf) => (leaf.field().is_some_and(is_ever_there), true),
    }
}

/// Whether every device has it, whatever else is known.
fn is_ever_there(field: &Field) -> bool {
    matches!(field, Field::BuiltIn(BuiltIn::FirstSeen | BuiltIn::Online | BuiltIn::Env))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(text: &str) -> bool {
        may_hold_for_unknown(&text.parse().unwrap())
    }

    #[test]
    fn pure_negations_and_tautologies_mean_the_unknown() {
        for text in [
            r#"!tag("staff")"#,
            r#"missing(attr.city) && !(platform == "ios")"#,
            "attr.a == 1 || !(attr.a == 1)",
            r#"!group("grp_01JD7Q2Z4M8V6T3K5N9R0WXYEC")"#,
            "has(first_seen)",
            "first_seen > -7d",
            "online == false",
            r#"env == "live""#,
            r#"sample(10, "x")"#,
        ] {
            assert!(may(text), "{text}");
        }
    }

    #[test]
    fn a_question_that_must_be_answered_yes_keeps_the_unknown_out() {
        for text in [
            r#"platform == "ios""#,
            "attr.a != 1",
            r#"tag("vip") && !tag("staff")"#,
            r#"(platform == "ios" || tag("b")) && missing(attr.city)"#,
            r#"audience("aud_01JD7Q2Z4M8V6T3K5N9R0WXYEC")"#,
            "!has(first_seen)",
            "last_seen < -7d",
            "missing(online)",
            r#"!sample(100, "x")"#,
        ] {
            assert!(!may(text), "{text}");
        }
    }
}
