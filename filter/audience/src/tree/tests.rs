//! What trees are read, as what, and what is refused, where and why.

use super::*;

fn read(tree: &Json) -> Result<Expr, InvalidTree> {
    Expr::from_tree(tree, &Schema::of([("level".to_owned(), Kind::Number), ("city".to_owned(), Kind::Text)]))
}

#[test]
fn a_tree_and_its_text_are_one_expression() {
    let pairs = [
        (
            json!({"all": [{"field": "platform", "op": "in", "values": ["ios", "android"]}, {"not": {"tag": "staff"}}]}),
            r#"platform in ["ios", "android"] && !tag("staff")"#,
        ),
        (
            json!({"any": [{"field": "attr.level", "op": "gte", "value": 5}, {"missing": "attr.city"}]}),
            "attr.level >= 5 || missing(attr.city)",
        ),
        (json!({"field": "attr.city", "op": "ne", "value": "北京"}), r#"attr.city != "北京""#),
        (
            json!({"field": "attr.city", "op": "ne", "value": "x", "missing": true}),
            r#"attr.city != "x" || missing(attr.city)"#,
        ),
        (json!({"field": "attr.city", "op": "eq", "value": "-7d"}), r#"attr.city == "-7d""#),
        (json!({"field": "first_seen", "op": "gt", "value": "-7d"}), "first_seen > -7d"),
        (
            json!({"field": "app_version", "op": "between", "values": ["2.9", "2.10"]}),
            r#"between(app_version, "2.9", "2.10")"#,
        ),
        (json!({"field": "lang", "op": "starts_with", "value": "zh"}), r#"starts_with(lang, "zh")"#),
        (json!({"tag_all": ["a", "b"]}), r#"tag_all("a", "b")"#),
        (json!({"users": ["u-1", "u-2"]}), r#"user("u-1", "u-2")"#),
        (json!({"group": "grp_01JD7Q2Z4M8V6T3K5N9R0WXYEC"}), r#"group("grp_01JD7Q2Z4M8V6T3K5N9R0WXYEC")"#),
        (json!({"all": [{"all": [{"tag": "a"}]}, {"tag": "b"}]}), r#"tag("a") && tag("b")"#),
        (json!({"sample": {"percent": 12.5, "salt": "x"}}), r#"sample(12.5, "x")"#),
        (json!({"sample": {"from": 10, "to": 20, "salt": "x"}}), r#"sample(20, "x") && !sample(10, "x")"#),
    ];
    for (tree, text) in pairs {
        assert_eq!(read(&tree), Ok(text.parse().unwrap()), "{tree}");
    }
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let mistakes = [
        (json!([]), "", "malformed_filter", "a node is an object"),
        (json!({"all": []}), "/all", "malformed_filter", "needs at least one node"),
        (json!({"all": [{"tag": "a"}], "any": []}), "", "malformed_filter", "`all` stands alone in its node"),
        (
            json!({"all": [{"tag": "a"}, {"not": {"tags": "b"}}]}),
            "/all/1/not",
            "malformed_filter",
            "`tags` is no node; did you mean tag?",
        ),
        (
            json!({"field": "attr.levle", "op": "eq", "value": 1}),
            "",
            "unknown_attribute",
            "attr.levle is not declared; did you mean attr.level?",
        ),
        (
            json!({"any": [{"field": "attr.level", "op": "eq", "value": "5"}]}),
            "/any/0",
            "type_mismatch",
            r#"attr.level is a number; "5" is not"#,
        ),
        (
            json!({"field": "attr.level", "op": "equals", "value": 5}),
            "",
            "malformed_filter",
            "`equals` is no operator; did you mean eq?",
        ),
        (json!({"field": "attr.level", "op": "eq", "values": [5]}), "", "malformed_filter", "`value` is missing"),
        (
            json!({"field": "attr.level", "op": "eq", "value": 5, "x": 1}),
            "",
            "malformed_filter",
            "`x` has no meaning with `eq`",
        ),
        (
            json!({"field": "tag(\"a\") || lang", "op": "eq", "value": "x"}),
            "",
            "malformed_filter",
            "a field is a name, as in \"platform\" or \"attr.city\"",
        ),
        (
            json!({"sample": {"percent": 101, "salt": "x"}}),
            "",
            "out_of_range",
            "a sample is 0.01 to 100 percent, in steps of 0.01",
        ),
    ];
    for (tree, pointer, code, reason) in mistakes {
        let expected = InvalidTree { pointer: pointer.into(), reason: reason.into(), code };
        assert_eq!(read(&tree), Err(expected), "{tree}");
    }
}

#[test]
fn what_costs_too_much_is_refused_before_it_costs() {
    let nested = |depth: usize| {
        (1..depth).fold(
            json!({"tag": "a"}),
            |inner, at| json!({ if at % 2 == 0 { "all" } else { "any" }: [inner, {"tag": "b"}] }),
        )
    };
    let leaves = |count: usize| json!({"any": vec![json!({"tag": "a"}); count]});
    let nots = |count: usize| (0..count).fold(json!({"tag": "a"}), |inner, _| json!({ "not": inner }));
    assert!(read(&nested(9)).is_ok() && read(&leaves(200)).is_ok() && read(&nots(16)).is_ok());
    for tree in [nested(10), nested(100), leaves(201), nots(17)] {
        assert_eq!(read(&tree).unwrap_err().code, "filter_too_complex");
    }
}
