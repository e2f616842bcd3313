//! What becomes of what devices report.

use std::time::Duration;

use audience::SelectError;
use broker::Publication;
use model::{
    Attribute, AttributeType, Clock as _, Device, Env, Epoch, Node, Owner, Queue, Reported, Run, Seen, Sighting,
    Sightings, SystemClock, Tier, Timestamp, record::Record as _,
};
use serde_json::json;
use store::{
    nodes::{ALL_HEARD, NODE_LEASE},
    shelves,
};

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
async fn times_and_versions_that_devices_report_are_compared_as_such() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let (one, two) = (bench.device("one").await, bench.device("two").await);
    let declared = Attribute { kind: AttributeType::Version, owner: None, declared: true };
    shelves::put(&*bench.store, &bench.app, Env::Live, "firmware", &declared).await.unwrap();
    let running = bench.run();
    let started = "2026-11-21T08:30:00+08:00";
    bench.report(&[(&one, json!({"attributes": {"firmware": "2.10.0", "started": started}}))]).await;
    bench.report(&[(&two, json!({"attributes": {"firmware": "2.9.9", "started": "2001-01-01T00:00:00Z"}}))]).await;
    let refused = json!({"attributes": {"firmware": "newest", "started": "today"}});
    bench.report(&[(&one, refused)]).await;
    bench.settled().await;
    let attributes = bench.profile(&one).await.attributes;
    assert_eq!(attributes["firmware"], r#"{"version":"2.10.0"}"#);
    assert_eq!(attributes["started"], json!({ "time": started }).to_string());
    assert_eq!(bench.selected(r#"attr.firmware > "2.9.9""#).await.unwrap(), ["one"]);
    assert_eq!(bench.selected(r#"attr.firmware < "2.10" && attr.started < -7d"#).await.unwrap(), ["two"]);
    assert_eq!(bench.selected(r#"attr.started == "2026-11-21T00:30:00Z""#).await.unwrap(), ["one"]);
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
    // More than one of them takes at a time.
    for round in 0..10 {
        let reports: Vec<_> = (0..400).map(|n| (&device, json!({"attributes": {"n": 1_000 * round + n}}))).collect();
        bench.report(&reports).await;
        bench.settled().await;
        assert_eq!(bench.profile(&device).await.attributes["n"], (1_000 * round + 399).to_string());
    }
    let [one, two] = nodes;
    one.stop().await;
    bench.report(&[(&device, json!({"attributes": {"n": 7}}))]).await;
    bench.settled().await;
    assert_eq!(bench.profile(&device).await.attributes["n"], "7");
    two.stop().await;
}

fn run(boot: u64) -> Run {
    Run { node: "ap-1".parse().unwrap(), boot: Timestamp::from_millis(boot) }
}

/// Says that this run goes on.
async fn beat(bench: &Bench, Run { node: id, boot }: Run, seen_at: Timestamp) {
    let (tiers, version) = (vec![Tier::AccessPoint], "0".into());
    let node = Node { id, boot, tiers, endpoint: None, filter: None, version, seen_at, drain: None };
    assert!(bench.store.beat(node).await.unwrap());
}

/// Tells of sessions: by their numbers, since when or until when, and the run that has them.
async fn sight(bench: &Bench, sightings: &[(&Device, u64, Timestamp, Option<Run>)]) {
    let sighting = |(device, epoch, at, run): &(&Device, u64, Timestamp, Option<Run>)| Sighting {
        device: device.id.clone(),
        ordinal: device.ordinal,
        seen: Seen {
            epoch: Epoch(*epoch),
            at: *at,
            run: run.clone(),
            transport: "tcp".into(),
            ip_prefix: "203.0.113.0/24".into(),
        },
    };
    let devices = sightings.iter().map(sighting).collect();
    let body = Reported::Seen(Sightings { app: bench.app.clone(), devices }).encode().into();
    bench.broker.publish(vec![Publication { queue: Queue::Reports, body }]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_connected_is_known_and_ends_with_the_run_that_has_him() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let (one, two, three) = (bench.device("one").await, bench.device("two").await, bench.device("three").await);
    let now = SystemClock.now();
    beat(&bench, run(1), now - ALL_HEARD).await;
    beat(&bench, run(1), now).await;
    let long_ago = Timestamp::from_millis(now.as_millis() - 30 * 86_400_000);
    let running = bench.run();
    sight(&bench, &[(&one, 5, long_ago, Some(run(1))), (&two, 5, long_ago, Some(run(0))), (&two, 5, long_ago, None)])
        .await;
    bench.settled().await;
    for (expression, expected) in [
        ("online == true", vec!["one"]),
        ("online == false", vec!["two", "three"]),
        ("last_seen > -1s", vec!["one"]),
        ("last_seen < -29d", vec!["two"]),
        ("missing(last_seen)", vec!["three"]),
        (r#"transport == "tcp" && starts_with(ip_prefix, "203.0.113.")"#, vec!["one", "two"]),
        (r#"env == "live" && !(env == "test")"#, vec!["one", "two", "three"]),
        (r#"env in ["test"]"#, vec![]),
    ] {
        assert_eq!(bench.selected(expression).await.unwrap(), expected, "{expression}");
    }
    // What comes late or again says nothing new.
    sight(&bench, &[(&one, 4, now, None), (&two, 5, now, Some(run(1)))]).await;
    bench.settled().await;
    assert_eq!(bench.selected("online == true").await.unwrap(), ["one"]);
    beat(&bench, run(2), SystemClock.now()).await;
    assert!(bench.selected("online == true").await.unwrap().is_empty(), "its access point was started anew");
    sight(&bench, &[(&three, 6, now, Some(run(2)))]).await;
    bench.settled().await;
    assert_eq!(bench.selected("online == true").await.unwrap(), ["three"]);
    assert_eq!(bench.selected("last_seen < -29d").await.unwrap(), ["one", "two"]);
    running.stop().await;
}

/// The store was away, or has forgotten who runs: nobody would be online, and what is sent to whoever is would be lost.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_online_is_unknown_until_every_node_has_had_time_to_say_that_it_runs() {
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let (one, now) = (bench.device("one").await, SystemClock.now());
    let running = bench.run();
    sight(&bench, &[(&one, 1, now, Some(run(1)))]).await;
    bench.settled().await;
    running.stop().await;
    let asked = async |expression: &str, at: Timestamp| {
        bench.select.count(&bench.app, Env::Live, expression, at).await.map_err(|refused| match refused {
            SelectError::Unavailable(_) => "unavailable",
            SelectError::Invalid(_) => "invalid",
        })
    };
    beat(&bench, run(1), now - 2 * NODE_LEASE).await;
    let first = Run { node: "ap-2".parse().unwrap(), boot: now };
    for (say, millis) in [(None, 0), (Some(first), 0), (Some(run(1)), 2_000), (None, 4_999)] {
        let at = now + Duration::from_millis(millis);
        if let Some(run) = say {
            beat(&bench, run, at).await;
        }
        for expression in ["online == true", "online == false", "last_seen > -1s"] {
            assert_eq!(asked(expression, at).await, Err("unavailable"), "{expression} after {millis} ms");
        }
        assert_eq!(asked("missing(attr.x)", at).await, Ok(1), "who asks for nobody's session is answered");
    }
    assert_eq!(asked("online == true", now + ALL_HEARD).await, Ok(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_and_a_change_of_the_backend_in_the_same_moment_both_stay() {
    const CHANGES: usize = 100;
    let dir = tempfile::tempdir().unwrap();
    let bench = Bench::open(dir.path()).await;
    let device = bench.device("one").await;
    let running = bench.run();
    let backend = async {
        for at in 0..CHANGES {
            loop {
                let found = bench.store.devices(&bench.app, std::slice::from_ref(&device.id)).await.unwrap();
                let before = found.into_iter().next().flatten().unwrap();
                let mut profile = before.profile.clone();
                profile.tags.insert(format!("t{at}"));
                let amendment = store::Amendment { before, profile };
                if bench.store.amend(&bench.app, vec![amendment], SystemClock.now()).await.unwrap() == [true] {
                    break;
                }
            }
        }
    };
    let reports = async {
        for at in 0..CHANGES {
            bench.report(&[(&device, json!({"attributes": {format!("a{}", at % 50): at}}))]).await;
        }
    };
    tokio::join!(backend, reports);
    bench.settled().await;
    let profile = bench.profile(&device).await;
    assert_eq!((profile.tags.len(), profile.attributes.len()), (CHANGES, 50));
    running.stop().await;
}
