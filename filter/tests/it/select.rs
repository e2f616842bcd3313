//! Who satisfies an expression.

use audience::SelectError;
use model::{Env, Profile};
use store::PAGE_MAX;

use crate::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn an_expression_selects_over_every_page_of_one_app_and_environment() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let vip = Some(Profile { tags: ["vip".to_owned()].into(), ..Profile::default() });
    let names = |prefix: &str, count| (0..count).map(|at| format!("{prefix}-{at}")).collect::<Vec<_>>();
    let other = "other".parse().unwrap();
    bench.register(&other, Env::Live, &names("other", 3), vip.clone()).await;
    bench.register(&bench.app, Env::Test, &names("test", 3), vip.clone()).await;
    bench.register(&bench.app, Env::Live, &names("plain", 2 * PAGE_MAX), None).await;
    bench.register(&bench.app, Env::Live, &names("vip", PAGE_MAX + 1), vip).await;
    assert_eq!(bench.selected(r#"tag("vip")"#).await.unwrap(), names("vip", PAGE_MAX + 1));
    assert_eq!(bench.selected(r#"!tag("vip")"#).await.unwrap(), names("plain", 2 * PAGE_MAX));
    assert_eq!(bench.selected(r#"tag("staff")"#).await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_removed_device_is_in_no_audience() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let (gone, _stays) = (bench.device("gone").await, bench.device("stays").await);
    bench.store.remove(&bench.app, &gone.id).await.unwrap();
    assert_eq!(bench.selected("missing(attr.x)").await.unwrap(), ["stays"]);
}

#[tokio::test]
async fn what_any_node_told_the_store_is_in_the_next_answer() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let device = bench.device("one").await;
    let tagged = |tag: &str| Some(Profile { tags: [tag.to_owned()].into(), ..Profile::default() });
    for round in 0..20 {
        let tag = format!("t{round}");
        bench.register(&bench.app, Env::Live, &["one".to_owned()], tagged(&tag)).await;
        assert_eq!(bench.selected(&format!("tag(\"{tag}\")")).await.unwrap(), ["one"]);
        assert_eq!(bench.count(&format!("!tag(\"{tag}\")")).await, Ok(0));
    }
    bench.store.remove(&bench.app, &device.id).await.unwrap();
    assert_eq!(bench.count("missing(attr.x)").await, Ok(0));
}

#[tokio::test]
async fn beyond_its_memory_an_app_has_no_answer_instead_of_a_wrong_one() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::with_memory(dir.path(), 1_000).await;
    bench.device("one").await;
    for _ in 0..2 {
        let refused = bench.selected("missing(attr.x)").await;
        assert!(matches!(&refused, Err(SelectError::Unavailable(why)) if why.contains("1000 bytes")), "{refused:?}");
    }
}

#[tokio::test]
async fn a_wrong_expression_is_refused_with_its_place_before_and_at_selection() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let wrong = r#"tag("a") && platfrom == "ios""#;
    let invalid = bench.select.check(&bench.app, wrong).unwrap_err();
    assert_eq!(invalid.to_string(), "column 13: platfrom is no field; did you mean platform?");
    assert_eq!(bench.selected(wrong).await, Err(SelectError::Invalid(invalid)));
    assert_eq!(bench.select.check(&bench.app, r#"platform == "ios""#), Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn tags_are_listed_in_pages_with_how_many_have_them() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let tagged = |tags: &[&str]| {
        Some(Profile { tags: tags.iter().map(|tag| (*tag).to_owned()).collect(), ..Profile::default() })
    };
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    bench.register(&bench.app, Env::Live, &named(&["a", "b"]), tagged(&["vip", "beta"])).await;
    bench.register(&bench.app, Env::Live, &named(&["c"]), tagged(&["vip"])).await;
    bench.register(&bench.app, Env::Test, &named(&["d"]), tagged(&["vip", "alpha"])).await;
    let tags = async |env, after, limit| bench.select.tags(&bench.app, env, after, limit).await.unwrap();
    let expected =
        |pairs: &[(&str, u64)]| pairs.iter().map(|(tag, count)| ((*tag).to_owned(), *count)).collect::<Vec<_>>();
    assert_eq!(tags(Env::Live, None, 9).await, expected(&[("beta", 2), ("vip", 3)]));
    assert_eq!(tags(Env::Live, None, 1).await, expected(&[("beta", 2)]));
    assert_eq!(tags(Env::Live, Some("beta"), 9).await, expected(&[("vip", 3)]));
    assert_eq!(tags(Env::Test, None, 9).await, expected(&[("alpha", 1), ("vip", 1)]));
}
