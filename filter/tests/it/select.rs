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
async fn a_wrong_expression_is_refused_with_its_place_before_and_at_selection() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let wrong = r#"tag("a") && platfrom == "ios""#;
    let invalid = bench.select.check(&bench.app, wrong).unwrap_err();
    assert_eq!(invalid.to_string(), "column 13: platfrom is no field; did you mean platform?");
    assert_eq!(bench.selected(wrong).await, Err(SelectError::Invalid(invalid)));
    assert_eq!(bench.select.check(&bench.app, r#"platform == "ios""#), Ok(()));
}
