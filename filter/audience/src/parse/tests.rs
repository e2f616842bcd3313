//! What is read, as what, and what is refused, where and why.

use crate::{EXPRESSION_MAX_BYTES, Expr, Invalid, Schema, field::Kind};

fn refused(text: &str) -> Invalid {
    text.parse::<Expr>().expect_err(text)
}

#[test]
fn what_is_written_plainly_is_printed_as_it_was_written() {
    let texts = [
        r#"platform == "ios""#,
        r#"platform in ["ios", "android"] && app_version >= "2.10.0" && (tag("vip") || attr.level >= 5)"#,
        r#"platform not in ["ios"]"#,
        r#"!(attr.city == "北京")"#,
        r#"!(platform in ["ios"])"#,
        "has(attr.city) && !has(user_id)",
        r#"!tag("staff") && !tag_any("a", "b") && tag_all("c", "d")"#,
        r#"!(tag("a") && tag("b"))"#,
        r#"tag("a") || tag("b") && !(tag("c") || tag("d"))"#,
        "between(attr.level, -0.5, 1e21)",
        r#"between(app_version, "2.9", "2.10.0-rc.1")"#,
        "first_seen > -7d && first_seen <= 0s",
        r#"first_seen < "2026-11-21T08:30:00Z""#,
        r#"online == true || last_seen > -7d && transport == "tcp""#,
        r#"starts_with(ip_prefix, "203.0.") && env == "live""#,
        r#"starts_with(lang, "zh")"#,
        r#"contains(attr.langs, "zh") || contains_any(attr.langs, "en", "fr") || contains_all(attr.langs, "x", "y")"#,
        "attr.paid == true || attr.paid != false",
        r#"sample(12.5, "exp-1")"#,
        r#"attr.note == "a \"quote\", a \\, a\nline\tand it's over""#,
        r#"user_id in ["u-1", "u-2"]"#,
        r#"group("grp_01JD7Q2Z4M8V6T3K5N9R0WXYEC") && !audience("aud_01JD7Q2Z4M8V6T3K5N9R0WXYEC")"#,
    ];
    for text in texts {
        assert_eq!(text.parse::<Expr>().unwrap().to_string(), text);
    }
}

#[test]
fn other_ways_of_writing_come_to_the_same_tree() {
    let pairs = [
        (r#"platform=="ios"&&(sdk=='x')"#, r#"platform == "ios" && sdk == "x""#),
        (r#"((tag("a")) && (tag("b") && tag("c")))"#, r#"tag("a") && tag("b") && tag("c")"#),
        (r#"(tag("a") || tag("b")) || tag("c")"#, r#"tag("a") || tag("b") || tag("c")"#),
        (r#"!!!tag("a")"#, r#"!tag("a")"#),
        (r#"!(!(tag("a")))"#, r#"tag("a")"#),
        (r#"!attr.city == "x""#, r#"!(attr.city == "x")"#),
        ("missing(attr.city)", "!has(attr.city)"),
        (r#"user("u-1")"#, r#"user_id == "u-1""#),
        (r#"user("u-1", "u-2")"#, r#"user_id in ["u-1", "u-2"]"#),
        (r#"tag_all("a") && tag_any("a")"#, r#"tag("a") && tag("a")"#),
        (r#"attr.a == 5.0 || attr.a == 5e0 || attr.a == 5e-1"#, "attr.a == 5 || attr.a == 5 || attr.a == 0.5"),
        (r#"app_version == "2.10.0+7""#, r#"app_version == "2.10.0""#),
        ("first_seen > '2026-11-21T16:30:00+08:00'", r#"first_seen > "2026-11-21T08:30:00Z""#),
        ("\n sample( 10 ,\t'x' ) ", r#"sample(10, "x")"#),
    ];
    for (written, canonical) in pairs {
        assert_eq!(written.parse::<Expr>().expect(written), canonical.parse::<Expr>().unwrap(), "{written}");
        assert_eq!(written.parse::<Expr>().unwrap().to_string(), canonical);
    }
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let mistakes = [
        ("", 1, "expected a field or a function, found the end"),
        (r#"platform = "ios""#, 10, "`=` is written twice"),
        (r#"platform == ios"#, 13, "expected a value, found `ios`; a text stands in quotes"),
        (r#"platform == "ios"#, 13, "this text has no closing quote"),
        (r#"tag("北京") and tag("b")"#, 11, "expected `&&`, `||` or the end, found `and`; and is written `&&`"),
        (r#"tag("a") tag("b")"#, 10, "expected `&&`, `||` or the end, found `tag`"),
        (r#"(tag("a")"#, 10, "expected `)`, found the end"),
        (r#"tag("a"))"#, 9, "expected `&&`, `||` or the end, found `)`"),
        (r#"tag("a") &&"#, 12, "expected a field or a function, found the end"),
        (r#"tag("a") & tag("b")"#, 10, "`&` is written twice"),
        ("platform", 9, "expected a comparison, `in` or `not in`, found the end"),
        (r#"platform not ["ios"]"#, 14, "expected `in`, found `[`"),
        ("platform in []", 14, "expected a value, found `]`"),
        (r#"attr.a == "\x""#, 11, r#"in a text, `\` stands only before `"`, `'`, `\`, n, r and t"#),
        ("attr.a == 1e999", 11, "1e999 is not a number"),
        ("attr.a == -x", 11, "-x is not a number"),
        ("first_seen > -7days", 14, "a duration is a whole number and one of s m h d w"),
        ("first_seen > -9999w", 14, "a duration is at most a hundred years"),
        ("tag(vip)", 5, "expected a text in quotes, found `vip`"),
        ("platform ~ 1", 10, "'~' means nothing here"),
    ];
    for (text, column, reason) in mistakes {
        assert_eq!(refused(text), Invalid { column, reason: reason.into(), code: "malformed_filter" }, "{text}");
    }
}

#[test]
fn unknown_names_come_with_the_known_ones() {
    let mistakes = [
        (r#"tag("a") && platfrom == "ios""#, 13, "unknown_attribute", "platfrom is no field; did you mean platform?"),
        ("appversion > 1", 1, "unknown_attribute", "appversion is no field; did you mean app_version?"),
        ("city > 1", 1, "unknown_attribute", "city is no field; an attribute of your own is written attr.city"),
        (
            "attr.City == 1",
            1,
            "unknown_attribute",
            "attr.City is no attribute: a name is a-z, then at most 31 of a-z 0-9 _",
        ),
        ("hasnt(lang)", 1, "unknown_function", "hasnt is no function; did you mean has?"),
        (r#"regex(lang, "z")"#, 1, "unknown_function", "regex is no function"),
        ("lastseen > -7d", 1, "unknown_attribute", "lastseen is no field; did you mean last_seen?"),
        (r#"group("grp_1")"#, 7, "invalid_id", "a group id must be `grp_` and 26 characters of a ULID"),
        (r#"!audience("x")"#, 11, "invalid_id", "an audience id must be `aud_` and 26 characters of a ULID"),
    ];
    for (text, column, code, reason) in mistakes {
        assert_eq!(refused(text), Invalid { column, reason: reason.into(), code }, "{text}");
    }
}

#[test]
fn values_must_be_what_their_field_takes() {
    let mistakes = [
        ("platform == 5", 13, r#"platform is a text, as in "ios"; 5 is not"#),
        (r#"app_version > "two""#, 15, r#"app_version is a version, as in "2.10.0"; "two" is not"#),
        ("app_version > 2.10", 15, r#"app_version is a version, as in "2.10.0"; 2.1 is not"#),
        (
            r#"first_seen > "yesterday""#,
            14,
            r#"first_seen is a time, as in "2026-11-21T08:30:00Z" or -7d; "yesterday" is not"#,
        ),
        ("attr.paid > true", 13, "true and false are compared with `==` and `!=` only"),
        ("attr.paid in [true]", 15, "true and false are compared with `==` and `!=` only"),
        (r#"attr.a in [1, "b"]"#, 15, r#"a list of one type: 1 is a number, "b" is a text"#),
        (r#"online == "yes""#, 11, r#"online is true or false; "yes" is not"#),
        ("online > false", 10, "true and false are compared with `==` and `!=` only"),
        ("last_seen > 7", 13, r#"last_seen is a time, as in "2026-11-21T08:30:00Z" or -7d; 7 is not"#),
        ("env == 1", 8, r#"env is a text, as in "ios"; 1 is not"#),
        (r#"between(lang, "a", "b")"#, 15, "between takes numbers, versions and times, not texts"),
        (
            "starts_with(app_version, '2')",
            13,
            r#"starts_with looks at texts; app_version is a version, as in "2.10.0""#,
        ),
        ("contains(platform, 'ios')", 10, r#"contains looks into lists; platform is a text, as in "ios""#),
    ];
    for (text, column, reason) in mistakes {
        assert_eq!(refused(text), Invalid { column, reason: reason.into(), code: "type_mismatch" }, "{text}");
    }
    for percent in ["0", "-1", "100.01", "0.001", "1e9"] {
        assert_eq!(refused(&format!("sample({percent}, 'x')")).code, "out_of_range");
    }
}

#[test]
fn what_costs_too_much_is_refused_before_it_costs() {
    let nested = |depth: usize| {
        let groups = (1..depth).fold(r#"tag("a") && tag("b")"#.to_owned(), |inner, at| {
            format!(r#"({inner}) {} tag("c")"#, if at % 2 == 0 { "&&" } else { "||" })
        });
        groups.parse::<Expr>()
    };
    let leaves = |count| vec![r#"tag("a")"#; count].join("&&").parse::<Expr>();
    let values = |count| format!("attr.a in [{}]", vec!["1"; count].join(",")).parse::<Expr>();
    let parentheses = |count| format!(r#"{}tag("a"){}"#, "(".repeat(count), ")".repeat(count)).parse::<Expr>();
    let bytes = |count| format!(r#"tag("{}")"#, "a".repeat(count - 7)).parse::<Expr>();
    assert!(nested(8).is_ok() && leaves(200).is_ok() && values(1_000).is_ok() && parentheses(16).is_ok());
    assert!(bytes(EXPRESSION_MAX_BYTES).is_ok());
    let samples = |count| vec!["sample(1, 'x')"; count].join("||").parse::<Expr>();
    let prefixes = |count| vec!["starts_with(lang, 'z')"; count].join("||").parse::<Expr>();
    assert!(samples(64).is_ok() && prefixes(200).is_ok());
    assert!(samples(65).unwrap_err().reason.starts_with("it would cost 4160, more than 4096"));
    let too_much = [
        nested(9),
        samples(65),
        leaves(201),
        values(1_001),
        parentheses(17),
        parentheses(4_000),
        bytes(EXPRESSION_MAX_BYTES + 1),
    ];
    for result in too_much {
        assert_eq!(result.unwrap_err().code, "filter_too_complex");
    }
    assert_eq!(leaves(201).unwrap_err().column, 200 * 10 + 1);
}

#[test]
fn what_is_declared_is_all_there_is_and_has_one_type() {
    let declared = [
        ("level", Kind::Number),
        ("city", Kind::Text),
        ("paid", Kind::Bool),
        ("langs", Kind::List),
        ("renewed", Kind::Time),
        ("firmware", Kind::Version),
    ];
    let schema = Schema::of(declared.map(|(name, kind)| (name.to_owned(), kind)));
    let right = r#"attr.level >= 5 && starts_with(attr.city, "x") && attr.paid == true && contains(attr.langs, "zh")"#;
    assert_eq!(Expr::parse(right, &schema), right.parse::<Expr>());
    let mistakes = [
        (
            r#"tag("a") && attr.levle > 5"#,
            13,
            "unknown_attribute",
            "attr.levle is not declared; did you mean attr.level?",
        ),
        ("has(attr.x)", 5, "unknown_attribute", "attr.x is not declared"),
        (r#"attr.level > "5""#, 14, "type_mismatch", r#"attr.level is a number; "5" is not"#),
        ("attr.firmware >= 2.10", 18, "type_mismatch", r#"attr.firmware is a version, as in "2.10.0"; 2.1 is not"#),
        (
            r#"tag("a") && attr.firmware >= "v2""#,
            30,
            "type_mismatch",
            r#"attr.firmware is a version, as in "2.10.0"; "v2" is not"#,
        ),
        (
            r#"attr.renewed > "last week""#,
            16,
            "type_mismatch",
            r#"attr.renewed is a time, as in "2026-11-21T08:30:00Z" or -7d; "last week" is not"#,
        ),
        (
            "starts_with(attr.firmware, '2')",
            13,
            "type_mismatch",
            r#"starts_with looks at texts; attr.firmware is a version, as in "2.10.0""#,
        ),
        ("attr.level > -7d", 14, "type_mismatch", "attr.level is a number; -7d is not"),
        ("attr.city == 5", 14, "type_mismatch", r#"attr.city is a text, as in "ios"; 5 is not"#),
        ("attr.langs == 'zh'", 15, "type_mismatch", r#"attr.langs is a list: ask what it contains; "zh" is not"#),
        (
            "contains(attr.city, 'x')",
            10,
            "type_mismatch",
            r#"contains looks into lists; attr.city is a text, as in "ios""#,
        ),
        ("starts_with(attr.level, 'x')", 13, "type_mismatch", "starts_with looks at texts; attr.level is a number"),
    ];
    for (text, column, code, reason) in mistakes {
        let invalid = Expr::parse(text, &schema).expect_err(text);
        assert_eq!(invalid, Invalid { column, reason: reason.into(), code }, "{text}");
    }
}

#[test]
fn times_and_versions_of_attributes_are_read_as_those_of_every_device_and_printed_plainly() {
    let declared = [("renewed", Kind::Time), ("firmware", Kind::Version)];
    let schema = Schema::of(declared.map(|(name, kind)| (name.to_owned(), kind)));
    let pairs = [
        ("attr.renewed > -7d && attr.renewed <= 0s", "attr.renewed > -7d && attr.renewed <= 0s"),
        (r#"attr.renewed < "1990-05-01""#, r#"attr.renewed < "1990-05-01T00:00:00Z""#),
        (r#"attr.renewed in ["2026-11-21T16:30:00+08:00"]"#, r#"attr.renewed in ["2026-11-21T08:30:00Z"]"#),
        (r#"attr.firmware >= "2.10.0+7""#, r#"attr.firmware >= "2.10.0""#),
        (r#"between(attr.firmware, "2.9", "2.10.0-rc.1")"#, r#"between(attr.firmware, "2.9", "2.10.0-rc.1")"#),
    ];
    for (written, canonical) in pairs {
        let read = Expr::parse(written, &schema).expect(written);
        assert_eq!(read.to_string(), canonical);
        assert_eq!(Expr::parse(canonical, &schema), Ok(read.clone()), "{written}");
        assert_eq!(Expr::from_tree(&read.to_tree(), &schema), Ok(read), "{written}");
        assert_eq!(canonical.parse::<Expr>().unwrap().to_string(), canonical, "as it is read again, without a schema");
    }
}
