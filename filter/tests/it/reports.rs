//! What becomes of what devices report.

use broker::Publication;
use model::{Attribute, AttributeType, Env, Owner, Queue};
use serde_json::json;
use store::shelves;

use crate::bench::Bench;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_reports_decides_who_is_selected() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let (one, two) = (bench.device("one").await, bench.device("two").await);
    let running = bench.run();
    bench.report(&[(&one, json!({"platform": "ios", "tags": ["vip"], "attributes": {"level": 7}}))]).await;
    bench.report(&[(&two, json!({"platform": "ios", "attributes": {"level": 4}}))]).await;
    bench.settled().await;
    assert_eq!(bench.selected(r#"platform == "ios" && attr.level >= 5"#).await.unwrap(), ["one"]);
    bench.report(&[(&one, json!({"attributes": {"level": null}})), (&two, json!({"attributes": {"level": 5}}))]).await;
    bench.settled().await;
    assert_eq!(bench.selected(r#"platform == "ios" && attr.level >= 5"#).await.unwrap(), ["two"]);
    assert_eq!(bench.selected(r#"tag("vip") && missing(attr.level)"#).await.unwrap(), ["one"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_of_one_device_in_one_batch_are_merged_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let device = bench.device("one").await;
    let reports: Vec<_> =
        (0..300).map(|at| (&device, json!({"attributes": {"last": at, format!("a{}", at % 50): at}}))).collect();
    bench.report(&reports).await;
    let running = bench.run();
    bench.settled().await;
    let attributes = bench.profile(&device).await.attributes;
    assert_eq!((attributes["last"].as_str(), attributes["a7"].as_str(), attributes.len()), ("299", "257", 51));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_report_is_dropped_whole_and_takes_no_neighbour_along() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let (one, two) = (bench.device("one").await, bench.device("two").await);
    let before = bench.profile(&one).await;
    let running = bench.run();
    let reports = [
        (&one, json!({"platform": "ios", "attributes": {"Level": 7}})),
        (&one, json!("not an object")),
        (&one, json!({"platform": "ios", "user_id": "somebody-else"})),
        (&one, json!({"platform": "ios", "tags": ["x".repeat(70_000)]})),
        (&two, json!({"platform": "ios"})),
    ];
    bench.report(&reports).await;
    bench.settled().await;
    assert_eq!(bench.profile(&one).await, before);
    assert_eq!(bench.selected(r#"platform == "ios""#).await.unwrap(), ["two"]);
    assert!(bench.broker.dead_letters(10).await.unwrap().is_empty());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_device_must_not_write_of_attributes_stays_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let device = bench.device("one").await;
    let declared = Attribute { kind: AttributeType::Number, owner: Some(Owner::Server), declared: true };
    shelves::put(&*bench.store, &bench.app, Env::Live, "level", &declared).await.unwrap();
    let running = bench.run();
    bench.report(&[(&device, json!({"attributes": {"level": 9, "steps": 5, "city": "x"}}))]).await;
    bench.report(&[(&device, json!({"attributes": {"steps": "many", "city": null}}))]).await;
    bench.settled().await;
    let attributes = bench.profile(&device).await.attributes;
    assert_eq!(attributes, [("steps".to_owned(), "5".to_owned())].into());
    let known = shelves::find(&*bench.store, &bench.app, Env::Live, "steps").await.unwrap();
    assert_eq!(known, Some(Attribute { kind: AttributeType::Number, owner: None, declared: false }));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_not_about_the_device_that_took_the_name_over() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let (gone, replaced) = (bench.device("gone").await, bench.device("replaced").await);
    for device in [&gone, &replaced] {
        bench.store.remove(&bench.app, &device.id).await.unwrap();
    }
    let replacement = bench.device("replaced").await;
    let running = bench.run();
    bench.report(&[(&gone, json!({"platform": "ios"})), (&replaced, json!({"platform": "ios"}))]).await;
    bench.settled().await;
    assert_eq!(bench.store.devices(&bench.app, std::slice::from_ref(&gone.id)).await.unwrap(), [None]);
    assert_eq!(bench.profile(&replacement).await, replacement.profile);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_can_read_is_set_aside_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let device = bench.device("one").await;
    let running = bench.run();
    bench.broker.publish(vec![Publication { queue: Queue::Reports, body: "\u{7f}?".into() }]).await.unwrap();
    bench.report(&[(&device, json!({"platform": "ios"}))]).await;
    bench.settled().await;
    assert_eq!(bench.selected(r#"platform == "ios""#).await.unwrap(), ["one"]);
    let [set_aside] = bench.broker.dead_letters(10).await.unwrap().try_into().unwrap();
    assert_eq!((set_aside.queue, set_aside.body), (Queue::Reports, "\u{7f}?".into()));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_while_no_filter_ran_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let device = bench.device("one").await;
    bench.report(&[(&device, json!({"platform": "ios"}))]).await;
    drop(bench);
    let bench = Bench::open(dir.path()).await;
    let running = bench.run();
    bench.settled().await;
    running.stop().await;
    drop(bench);
    let bench = Bench::open(dir.path()).await;
    assert_eq!(bench.selected(r#"platform == "ios""#).await.unwrap(), ["one"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_filter_nodes_one_keeps_reports_and_their_order_and_the_other_follows_it() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let device = bench.device("one").await;
    let nodes = [bench.run_as("filter1"), bench.run_as("filter2")];
    for n in 0..300 {
        bench.report(&[(&device, json!({"attributes": {"n": n}}))]).await;
    }
    bench.settled().await;
    assert_eq!(bench.profile(&device).await.attributes["n"], "299");
    let [one, two] = nodes;
    one.stop().await;
    bench.report(&[(&device, json!({"attributes": {"n": 300}}))]).await;
    bench.settled().await;
    assert_eq!(bench.profile(&device).await.attributes["n"], "300");
    two.stop().await;
}
