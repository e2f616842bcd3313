//! What is true of every expression.

use audience::{Expr, Facts, Leaf, Schema, expr::DEPTH_MAX, holds, may_hold_for_unknown};
use model::{Device, Env, Ordinal, Profile};
use proptest::prelude::*;

use crate::generate::{NOW, device, expr, is_online, opposites};

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same_tree(expr in expr()) {
        prop_assume!(expr.depth() <= DEPTH_MAX);
        let text = expr.to_string();
        prop_assert_eq!(text.parse::<Expr>().map_err(|invalid| format!("{invalid} in {text}")), Ok(expr));
    }

    #[test]
    fn the_tree_of_an_expression_is_read_as_the_same_expression(expr in expr()) {
        prop_assume!(expr.depth() <= DEPTH_MAX);
        let tree = expr.to_tree();
        let read = Expr::from_tree(&tree, &Schema::open()).map_err(|invalid| format!("{invalid} in {tree}"));
        prop_assert_eq!(read, Ok(expr));
    }

    #[test]
    fn what_may_not_hold_for_the_unknown_does_not(expr in expr(), number in 0_u32..100) {
        let device = Device {
            id: format!("dev-{number}").parse().unwrap(),
            ordinal: Ordinal(number),
            env: Env::Live,
            generation: 0,
            first_seen: NOW,
            profile: Profile::default(),
        };
        let held = holds(&expr, &Facts { device: &device, now: NOW, online: false });
        prop_assert!(may_hold_for_unknown(&expr) || !held);
    }

    #[test]
    fn any_text_is_read_or_refused_within_itself(text in r#"([a-z_.]{1,8}|[0-9]{1,3}|"[^"]{0,3}"|==|&&|\|\||[!()\[\], <>'\\é-]){0,20}"#) {
        if let Err(invalid) = text.parse::<Expr>() {
            prop_assert!((1..=text.chars().count() + 1).contains(&invalid.column), "{invalid} in {text:?}");
        }
    }

    #[test]
    fn not_and_or_obey_de_morgan(a in expr(), b in expr(), device in device()) {
        let holds = |expr: &Expr| holds(expr, &Facts { device: &device, now: NOW, online: is_online(&device) });
        prop_assert_eq!(holds(&!(a.clone() & b.clone())), holds(&(!a.clone() | !b.clone())));
        prop_assert_eq!(holds(&!(a.clone() | b.clone())), holds(&(!a.clone() & !b.clone())));
    }

    #[test]
    fn groups_mean_what_their_parts_mean(a in expr(), b in expr(), device in device()) {
        let holds = |expr: &Expr| holds(expr, &Facts { device: &device, now: NOW, online: is_online(&device) });
        prop_assert_eq!(holds(&(a.clone() & b.clone())), holds(&a) && holds(&b));
        prop_assert_eq!(holds(&(a.clone() | b.clone())), holds(&a) || holds(&b));
        prop_assert_eq!(holds(&!a.clone()), !holds(&a));
    }

    #[test]
    fn a_question_and_its_opposite_never_both_hold_and_one_does_only_where_the_field_is(
        (field, leaf, opposite) in opposites(),
        device in device(),
    ) {
        let holds = |leaf: Leaf| holds(&leaf.into(), &Facts { device: &device, now: NOW, online: is_online(&device) });
        let (leaf, opposite) = (holds(leaf), holds(opposite));
        prop_assert!(!(leaf && opposite));
        prop_assert!(!(leaf || opposite) || holds(Leaf::Has(field)));
    }
}
