//! What the predicates mean, by example.

use audience::{Expr, Facts, holds};
use model::{Device, Env, Epoch, Ordinal, Profile, Seen, Timestamp};

use crate::generate::NOW;

fn device() -> Device {
    let pairs = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
    Device {
        id: "dev-1".parse().unwrap(),
        ordinal: Ordinal(0),
        env: Env::Live,
        generation: 0,
        first_seen: Timestamp::from_millis(NOW.as_millis() - 3 * 86_400_000),
        profile: Profile {
            user_id: Some("u-77".parse().unwrap()),
            built_in: pairs(&[
                ("platform", "android"),
                ("app_version", "2.10.0"),
                ("os_version", "Q"),
                ("lang", "zh-CN"),
            ]),
            tags: ["vip", "beta"].map(str::to_owned).into(),
            attributes: pairs(&[
                ("level", "7"),
                ("city", "\"深圳\""),
                ("paid", "true"),
                ("langs", r#"["zh","en"]"#),
                ("renewed", r#"{"time":"2026-11-20T10:00:00+08:00"}"#),
                ("firmware", r#"{"version":"2.10.0-rc.1"}"#),
            ]),
            seen: Some(Seen {
                epoch: Epoch(7),
                at: Timestamp::from_millis(NOW.as_millis() - 30 * 86_400_000),
                run: None,
                transport: "tcp".into(),
                ip_prefix: "203.0.113.0/24".into(),
            }),
        },
    }
}

fn all(device: &Device, expected: bool, texts: &[&str]) {
    for text in texts {
        let expr: Expr = text.parse().unwrap();
        assert_eq!(holds(&expr, &Facts { device, now: NOW, online: true }), expected, "{text}");
    }
}

#[test]
fn each_predicate_holds_where_it_should() {
    let true_of_it = [
        r#"platform == "android" && platform != "ios" && platform in ["ios", "android"] && platform not in ["ios"]"#,
        r#"app_version > "2.9.9" && app_version == "2.10" && app_version > "2.10.0-rc.1" && app_version < "2.10.1""#,
        r#"app_version in ["2.10"] && between(app_version, "2.9", "2.10")"#,
        r#"user("u-77") && user_id in ["u-1", "u-77"] && has(user_id)"#,
        r#"tag("vip") && tag_any("x", "beta") && tag_all("vip", "beta") && !tag_all("vip", "x")"#,
        "attr.level == 7 && attr.level > 6.5 && attr.level in [1, 7] && between(attr.level, 7, 7)",
        r#"attr.city == "深圳" && starts_with(attr.city, "深") && attr.city > "a""#,
        r#"attr.paid == true && attr.paid != false"#,
        r#"attr.renewed > -7d && attr.renewed < -1h && attr.renewed == "2026-11-20T02:00:00Z" && attr.renewed != -1d"#,
        r#"attr.renewed > "2026-11-20" && between(attr.renewed, "2026-11-20", "2026-11-21") && attr.renewed < "2026-11-21""#,
        r#"attr.firmware > "2.9.9" && attr.firmware < "2.10" && attr.firmware in ["2.10.0-rc.1"]"#,
        r#"between(attr.firmware, "2.9", "2.10") && attr.firmware not in ["2.10", "2.9"] && attr.firmware != "2.10""#,
        r#"contains(attr.langs, "zh") && contains_any(attr.langs, "fr", "en") && contains_all(attr.langs, "en", "zh")"#,
        r#"starts_with(lang, "zh") && missing(tz) && missing(attr.x)"#,
        r#"first_seen > -7d && first_seen < -2d && first_seen < 1s && between(first_seen, -3d, "2026-12-01T00:00:00Z")"#,
        r#"transport == "tcp" && starts_with(ip_prefix, "203.0.113.") && env == "live" && env != "test" && has(env)"#,
        "online == true && online != false && last_seen == 0s && last_seen > -1s && has(online) && has(last_seen)",
        r#"sample(100, "x")"#,
    ];
    all(&device(), true, &true_of_it);
}

#[test]
fn who_is_connected_was_seen_now_and_who_is_not_when_he_was() {
    let device = device();
    let away = |text: &str| holds(&text.parse().unwrap(), &Facts { device: &device, now: NOW, online: false });
    for text in ["online == false", "!(online == true)", "last_seen < -29d", "between(last_seen, -31d, -29d)"] {
        assert!(away(text), "{text}");
    }
    assert!(!away("last_seen > -7d"));
    let profile = Profile { seen: None, ..device.profile.clone() };
    let never = Device { profile, ..device.clone() };
    let never = |text: &str| holds(&text.parse().unwrap(), &Facts { device: &never, now: NOW, online: false });
    for text in
        ["online == false", "missing(last_seen)", "!(last_seen < 0s)", "missing(transport)", "missing(ip_prefix)"]
    {
        assert!(never(text), "{text}");
    }
}

#[test]
fn a_question_about_what_is_missing_is_answered_no_and_its_complement_yes() {
    let about_nothing = [
        r#"country == "CN""#,
        r#"country != "CN""#,
        r#"country not in ["CN"]"#,
        "attr.x != 5",
        "between(attr.x, 0, 9)",
        r#"contains(attr.x, "a")"#,
        "has(attr.x)",
    ];
    all(&device(), false, &about_nothing);
    all(&device(), true, &about_nothing.map(|text| format!("!({text})")).each_ref().map(String::as_str));
}

#[test]
fn a_question_about_another_type_is_answered_as_if_the_value_were_missing() {
    let about_another_type = [
        r#"attr.level == "7""#,
        r#"attr.level != "7""#,
        r#"attr.level not in ["7"]"#,
        "attr.city != 5",
        "attr.paid == 1",
        r#"attr.langs == "zh""#,
        r#"contains(attr.city, "深圳")"#,
        r#"os_version != "15""#,
        r#"attr.firmware != "not a version""#,
        r#"attr.firmware not in ["2.9", "not a version"]"#,
        "attr.renewed != 5",
        r#"starts_with(attr.firmware, "2")"#,
        "attr.level > -7d",
    ];
    all(&device(), false, &about_another_type);
    all(&device(), true, &["has(os_version)", "has(attr.langs)"]);
}

#[test]
fn a_sample_is_stable_near_its_share_grows_with_it_and_differs_by_salt() {
    let sampled = |text: &str| -> Vec<u32> {
        let expr: Expr = text.parse().unwrap();
        let named = |number| Device { id: format!("dev-{number}").parse().unwrap(), ..device() };
        (0..10_000).filter(|number| holds(&expr, &Facts { device: &named(*number), now: NOW, online: false })).collect()
    };
    let tenth = sampled(r#"sample(10, "a")"#);
    assert_eq!(tenth, sampled(r#"sample(10, "a")"#));
    assert!((900..1_100).contains(&tenth.len()), "{}", tenth.len());
    let fifth = sampled(r#"sample(20, "a")"#);
    assert!(tenth.iter().all(|number| fifth.contains(number)));
    let other = sampled(r#"sample(10, "b")"#);
    let both = tenth.iter().filter(|number| other.contains(number)).count();
    assert!((50..200).contains(&both), "{both}");
}

#[test]
fn a_sample_is_the_one_that_was_always_drawn() {
    let half: Expr = r#"sample(50, "exp-1")"#.parse().unwrap();
    let drawn: String = (0..16)
        .map(|number| Device { id: format!("dev-{number}").parse().unwrap(), ..device() })
        .map(|device| if holds(&half, &Facts { device: &device, now: NOW, online: false }) { '1' } else { '0' })
        .collect();
    assert_eq!(drawn, "0111011110010011");
}
