//! The dispatcher on the embedded back ends: what becomes of envelopes.
#![expect(clippy::unwrap_used, reason = "a test may end at the first surprise")]

mod bench;

use std::time::Duration;

use broker::Publication;
use model::{
    Audience, Bell, Cap, Carried, Class, Clock as _, Env, Envelope, Except, Excluded, Exclusion, Lane, Message, OptOut,
    Ordinal, Ordinals, Placed, Priority, Queue, Quiet, QuietHours, Seq, Shard, Suppressed, Suppression, SystemClock,
    Terms,
    quiet::{EVERY_TYPE, TimeOfDay},
    record::Record as _,
};
use store::{
    redis::{Config, Durability, Redis},
    shelves,
};

use bench::{Bench, SLOW, eventually};

fn set(ordinals: &[u32]) -> Ordinals {
    ordinals.iter().copied().map(Ordinal).collect()
}

#[tokio::test]
async fn a_unicast_reaches_the_inbox_and_rings_the_access_point() {
    let bench = Bench::start(3).await;
    let mut bells = bench.broker.listen(&"ap-1".parse().unwrap(), Lane::Unicast).await.unwrap();
    let message = bench.send(Lane::Unicast, Audience::One(Ordinal(1))).await;
    let bell = Bell::decode(&bells.heard().await.unwrap()).unwrap();
    assert_eq!(bell, Bell::Inbox { app: bench.app.clone(), devices: set(&[1]) });
    let inbox = bench.store.inbox_after(&bench.app, Ordinal(1), Seq::ZERO, 10).await.unwrap();
    assert_eq!(inbox.iter().map(|entry| entry.message.id).collect::<Vec<_>>(), [message]);
    assert!(bench.store.inbox_after(&bench.app, Ordinal(0), Seq::ZERO, 10).await.unwrap().is_empty());
    bench.drained(Lane::Unicast).await;
}

#[tokio::test]
async fn the_access_point_that_holds_a_device_is_told_what_was_appended() {
    let bench = Bench::start(2).await;
    let (node, now) = ("ap-1".parse().unwrap(), SystemClock.now());
    bench.store.claim(&bench.app, Ordinal(1), &node, now).await.unwrap();
    let mut bells = bench.broker.listen(&node, Lane::Unicast).await.unwrap();
    let mut before = Seq::ZERO;
    for _ in 0..2 {
        let message = bench.send(Lane::Unicast, Audience::One(Ordinal(1))).await;
        let bell = Bell::decode(&bells.heard().await.unwrap()).unwrap();
        let Bell::Entries { entries, .. } = bell else { panic!("{bell:?}") };
        let kept = bench.store.inbox_after(&bench.app, Ordinal(1), before, 10).await.unwrap();
        let place = Placed { device: Ordinal(1), before, seq: kept[0].seq };
        assert_eq!(kept[0].message.id, message);
        assert_eq!(entries, [Carried { message: Message::clone(&kept[0].message), places: vec![place] }]);
        before = place.seq;
    }
}

#[tokio::test]
async fn a_broadcast_is_frozen_to_those_registered_when_it_was_accepted() {
    let bench = Bench::start(3).await;
    bench.register("late").await;
    let message = bench.send(Lane::Broadcast, Audience::All { below: 3 }).await;
    bench.drained(Lane::Broadcast).await;
    let timeline = bench.store.timeline_after(&bench.app, Seq::ZERO, 10).await.unwrap();
    assert_eq!(timeline.len(), 1);
    assert_eq!((timeline[0].message.id, &*timeline[0].audience), (message, &set(&[0, 1, 2])));
    assert_eq!(bench.tally(message).await.targeted, set(&[0, 1, 2]));
}

#[tokio::test]
async fn a_list_goes_to_inboxes_and_a_long_one_to_the_timeline() {
    let bench = Bench::start(1).await;
    bench.send(Lane::Multicast, Audience::Devices((0..1_000).map(Ordinal).collect())).await;
    bench.send(Lane::Multicast, Audience::Devices((0..1_001).map(Ordinal).collect())).await;
    bench.drained(Lane::Multicast).await;
    assert_eq!(bench.store.inbox_after(&bench.app, Ordinal(999), Seq::ZERO, 10).await.unwrap().len(), 1);
    assert_eq!(bench.store.timeline_after(&bench.app, Seq::ZERO, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_group_means_its_registered_members_and_a_deleted_one_fails_the_message() {
    let bench = Bench::start(3).await;
    let group = bench.group(set(&[0, 2, 77])).await;
    let message = bench.send(Lane::Multicast, Audience::Group(group)).await;
    bench.drained(Lane::Multicast).await;
    assert_eq!(bench.tally(message).await.targeted, set(&[0, 2]));
    bench.store.remove_group(&bench.app, group).await.unwrap();
    let orphan = bench.accept_and_send(Lane::Multicast, Audience::Group(group)).await;
    bench.drained(Lane::Multicast).await;
    let entry = bench.store.entry(&bench.app, orphan).await.unwrap().unwrap();
    assert!(entry.failed.is_some_and(|reason| reason.contains("deleted")));
}

#[tokio::test]
async fn whoever_is_excluded_is_taken_out_last_and_the_reason_is_noted() {
    let bench = Bench::start(5).await;
    let (app, env, store) = (&bench.app, Env::Live, &*bench.store);
    let suppress = async |id: &str, expires_at| {
        let who = Suppressed::Device(id.parse().unwrap());
        let suppression = Suppression { who, created_at: bench.now(), expires_at };
        shelves::put(store, app, env, &suppression.who.name(), &suppression).await.unwrap();
    };
    suppress("dev-1", None).await;
    suppress("dev-0", None).await;
    suppress("dev-4", Some(bench.now())).await;
    shelves::put(store, app, env, "order", &OptOut(set(&[2]))).await.unwrap();
    let plain = bench.envelope(Lane::Broadcast, Audience::All { below: 5 });
    let except = vec![Except { why: Exclusion::Devices, who: Excluded::Listed(set(&[0, 77])) }];
    let envelope = Envelope { terms: Terms { only: None, except }, ..plain };
    bench.publish(&envelope).await;
    bench.drained(Lane::Broadcast).await;
    let message = envelope.message.id;
    assert_eq!(bench.tally(message).await.targeted, set(&[3, 4]));
    let excluded = [Exclusion::Devices, Exclusion::Suppressions, Exclusion::OptOuts].into_iter().zip([0, 1, 2]);
    let excluded: Vec<_> = excluded.map(|(why, device)| (why, set(&[device]))).collect();
    let aim = bench.aim(message).await.unwrap();
    assert_eq!((aim.wanted, aim.excluded), (None, excluded));

    let unicast = bench.send(Lane::Unicast, Audience::One(Ordinal(1))).await;
    bench.drained(Lane::Unicast).await;
    assert_eq!(bench.tally(unicast).await.targeted, set(&[]));
    assert!(bench.store.inbox_after(app, Ordinal(1), Seq::ZERO, 10).await.unwrap().is_empty());
    let other = bench.send(Lane::Unicast, Audience::One(Ordinal(3))).await;
    bench.drained(Lane::Unicast).await;
    assert_eq!((bench.tally(other).await.targeted, bench.aim(other).await), (set(&[3]), None));
}

#[tokio::test]
async fn a_device_gets_no_more_of_a_capped_type_than_it_may() {
    let bench = Bench::start(3).await;
    let cap = Cap { max: 1, per_s: 30 * 86_400 };
    shelves::put(&*bench.store, &bench.app, Env::Live, "order", &cap).await.unwrap();
    let first = bench.send(Lane::Unicast, Audience::One(Ordinal(1))).await;
    bench.drained(Lane::Unicast).await;
    let envelope = bench.envelope(Lane::Broadcast, Audience::All { below: 3 });
    for _ in 0..2 {
        bench.publish(&envelope).await;
        bench.drained(Lane::Broadcast).await;
    }
    let second = envelope.message.id;
    assert_eq!(bench.tally(first).await.targeted, set(&[1]));
    assert_eq!(bench.tally(second).await.targeted, set(&[0, 2]));
    assert_eq!(bench.aim(second).await.unwrap().excluded, [(Exclusion::FrequencyCap, set(&[1]))]);
}

#[tokio::test]
async fn nobody_is_woken_in_quiet_hours_but_by_what_is_urgent() {
    let bench = Bench::start(0).await;
    for (device, tz) in [("here", Some("UTC")), ("there", Some("Etc/GMT+12")), ("somewhere", None)] {
        bench.register_in(device, tz).await;
    }
    let hour = (bench.now().as_millis() / 3_600_000 % 24) as u16;
    let (from, to) = (TimeOfDay::new(hour + 23, 0), TimeOfDay::new(hour + 2, 0));
    let quiet = Quiet::Hours(QuietHours { from, to, tz: "UTC".into() });
    shelves::put(&*bench.store, &bench.app, Env::Live, EVERY_TYPE, &quiet).await.unwrap();
    let envelope = bench.envelope(Lane::Broadcast, Audience::All { below: 3 });
    bench.publish(&envelope).await;
    bench.drained(Lane::Broadcast).await;
    let message = envelope.message.id;
    assert_eq!(bench.tally(message).await.targeted, set(&[1]));
    assert_eq!(bench.aim(message).await.unwrap().excluded, [(Exclusion::QuietHours, set(&[0, 2]))]);
    let mut urgent = bench.envelope(Lane::Broadcast, Audience::All { below: 3 });
    urgent.message.priority = Priority::High;
    bench.publish(&urgent).await;
    bench.drained(Lane::Broadcast).await;
    assert_eq!(bench.tally(urgent.message.id).await.targeted, set(&[0, 1, 2]));
    for class in [Class::Command { device: "here".parse().unwrap() }, Class::Peer { from: "there".parse().unwrap() }] {
        let mut wanted = bench.envelope(Lane::Unicast, Audience::One(Ordinal(0)));
        wanted.message.class = class;
        bench.publish(&wanted).await;
        bench.drained(Lane::Unicast).await;
        assert_eq!(bench.tally(wanted.message.id).await.targeted, set(&[0]), "it is no news");
    }
}

#[tokio::test]
async fn a_message_that_comes_again_keeps_the_note_of_what_was_decided() {
    let bench = Bench::start(2).await;
    let plain = bench.envelope(Lane::Multicast, Audience::Devices(set(&[0, 1])));
    let except = vec![Except { why: Exclusion::Devices, who: Excluded::Listed(set(&[0])) }];
    let envelope = Envelope { terms: Terms { only: None, except }, ..plain };
    bench.accept(&envelope).await;
    bench.publish(&envelope).await;
    bench.drained(Lane::Multicast).await;
    let noted = bench.aim(envelope.message.id).await.unwrap();
    let all = Except { why: Exclusion::Users, who: Excluded::Listed(set(&[0, 1])) };
    bench.publish(&Envelope { terms: Terms { only: None, except: vec![all] }, ..envelope.clone() }).await;
    bench.drained(Lane::Multicast).await;
    assert_eq!(bench.aim(envelope.message.id).await.unwrap(), noted);
    assert_eq!(bench.tally(envelope.message.id).await.targeted, set(&[1]));
}

#[tokio::test]
async fn an_envelope_that_comes_twice_is_appended_once() {
    let bench = Bench::start(2).await;
    let envelope = bench.envelope(Lane::Unicast, Audience::One(Ordinal(0)));
    for _ in 0..3 {
        bench.publish(&envelope).await;
    }
    bench.drained(Lane::Unicast).await;
    assert_eq!(bench.store.inbox_after(&bench.app, Ordinal(0), Seq::ZERO, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_nobody_can_read_is_set_aside_and_its_neighbours_are_delivered() {
    let bench = Bench::start(1).await;
    let queue = Queue::Push(Lane::Unicast, Shard::of_device(&bench.app, Ordinal(0), 1));
    let good = bench.envelope(Lane::Unicast, Audience::One(Ordinal(0)));
    let mut newer = good.encode();
    newer[0] = 9;
    let bodies = [b"garbage".to_vec(), good.encode(), newer];
    let batch = bodies.map(|body| Publication { queue, body: body.into() }).to_vec();
    bench.broker.publish(batch).await.unwrap();
    bench.drained(Lane::Unicast).await;
    assert_eq!(bench.store.inbox_after(&bench.app, Ordinal(0), Seq::ZERO, 10).await.unwrap().len(), 1);
    let dead = bench.broker.dead_letters(10).await.unwrap();
    assert_eq!(dead.len(), 2);
    assert!(dead.iter().any(|letter| letter.reason.contains("version 9")), "{dead:?}");
}

#[tokio::test]
async fn a_cancelled_message_is_not_appended() {
    let bench = Bench::start(1).await;
    let envelope = bench.envelope(Lane::Unicast, Audience::One(Ordinal(0)));
    bench.accept(&envelope).await;
    bench.store.cancel(&bench.app, envelope.message.id, bench.now()).await.unwrap().unwrap();
    bench.publish(&envelope).await;
    bench.drained(Lane::Unicast).await;
    assert!(bench.store.inbox_after(&bench.app, Ordinal(0), Seq::ZERO, 10).await.unwrap().is_empty());
}

/// A filter that the filter tier cannot answer now, whatever it is asked.
const UNANSWERED: &str = r#"tag("vip")"#;

#[tokio::test]
async fn a_filter_that_does_not_answer_holds_its_message_and_no_other_lane() {
    let mut bench = Bench::start(1).await;
    bench.send(Lane::Broadcast, Audience::Filter(UNANSWERED.into())).await;
    bench.send(Lane::Unicast, Audience::One(Ordinal(0))).await;
    bench.drained(Lane::Unicast).await;
    let waiting = bench.depth(Lane::Broadcast).await;
    assert_eq!(waiting, 1, "the filtered message is still on the broker");
    bench.stop().await;
    eventually(Duration::from_secs(5), async || bench.depth(Lane::Broadcast).await == 1).await;
}

#[tokio::test]
async fn a_message_whose_audience_cannot_be_found_now_holds_up_no_other() {
    let mut bench = Bench::start(3).await;
    let first = bench.send(Lane::Broadcast, Audience::Filter(UNANSWERED.into())).await;
    let second = bench.send(Lane::Broadcast, Audience::All { below: 3 }).await;
    eventually(Duration::from_secs(10), async || bench.store.timeline_head(&bench.app).await.unwrap() > Seq::ZERO)
        .await;
    let timeline = bench.store.timeline_after(&bench.app, Seq::ZERO, 10).await.unwrap();
    assert_eq!(timeline.iter().map(|entry| entry.message.id).collect::<Vec<_>>(), [second]);
    eventually(Duration::from_secs(10), async || bench.depth(Lane::Broadcast).await == 1).await;
    bench.stop().await;
    assert_eq!(bench.depth(Lane::Broadcast).await, 1, "{first} is still to be dispatched");
}

#[tokio::test]
async fn a_message_whose_audience_is_not_found_in_time_is_let_go() {
    let bench = Bench::start(3).await;
    let mut envelope = bench.envelope(Lane::Broadcast, Audience::Filter(UNANSWERED.into()));
    envelope.message.expires_at = bench.now() + Duration::from_millis(500);
    bench.publish(&envelope).await;
    eventually(Duration::from_secs(10), async || bench.depth(Lane::Broadcast).await == 1).await;
    bench.drained(Lane::Broadcast).await;
    assert!(bench.store.timeline_after(&bench.app, Seq::ZERO, 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn who_waits_for_its_audience_is_neither_in_the_way_nor_dead_after_restarts() {
    let mut bench = Bench::start(3).await;
    for _ in 0..2 {
        bench.send(Lane::Broadcast, Audience::Filter(UNANSWERED.into())).await;
    }
    for round in 1..=5 {
        let before = bench.store.timeline_head(&bench.app).await.unwrap();
        bench.send(Lane::Broadcast, Audience::All { below: 3 }).await;
        eventually(Duration::from_secs(10), async || bench.store.timeline_head(&bench.app).await.unwrap() > before)
            .await;
        eventually(Duration::from_secs(10), async || bench.depth(Lane::Broadcast).await == 2).await;
        assert!(bench.broker.dead_letters(10).await.unwrap().is_empty(), "after {round} restarts");
        bench.stop().await;
        bench.begin();
    }
}

#[tokio::test]
async fn what_waits_for_a_store_that_takes_nothing_is_not_dead_after_restarts() {
    let Some(config) = redis() else { return };
    let store = Redis::connect(config.clone()).await.unwrap();
    let mut bench = Bench::start_on(Some(store), 1).await;
    bench.stop().await;
    // It answers, and has no replica to keep anything.
    let alone = Redis::connect(Config { replicas: 1, ..config }).await.unwrap();
    let message = bench.send(Lane::Unicast, Audience::One(Ordinal(0))).await;
    for round in 1..=5 {
        bench.begin_on(alone.clone());
        eventually(Duration::from_secs(10), async || bench.unacked(Lane::Unicast).await == 1).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(bench.broker.dead_letters(10).await.unwrap().is_empty(), "after {round} restarts");
        bench.stop().await;
    }
    bench.begin();
    bench.drained(Lane::Unicast).await;
    let inbox = bench.store.inbox_after(&bench.app, Ordinal(0), Seq::ZERO, 10).await.unwrap();
    assert_eq!(inbox.iter().map(|entry| entry.message.id).collect::<Vec<_>>(), [message]);
}

/// A part of Redis of its own; `None` when nobody says where one is.
#[expect(clippy::disallowed_methods, reason = "tests are told by the environment where their servers are")]
fn redis() -> Option<Config> {
    let url = std::env::var("TEST_REDIS_URL").ok();
    assert!(url.is_some() || std::env::var("TEST_REQUIRE_SERVERS").is_err(), "TEST_REDIS_URL is not set");
    let prefix = format!("test-{:016x}", rand::random::<u64>());
    url.map(|url| Config { prefix, durability: Durability::Trusted, ..Config::new(url) })
}

#[tokio::test]
async fn a_filter_that_takes_long_holds_up_no_other_message() {
    let mut bench = Bench::start(3).await;
    let slow = (0..20).map(|_| bench.envelope(Lane::Broadcast, Audience::Filter(SLOW.into())));
    let all = bench.envelope(Lane::Broadcast, Audience::All { below: 3 });
    let queue = Queue::Push(Lane::Broadcast, Shard::of_app(&bench.app));
    let batch = slow.chain([all]).map(|envelope| Publication { queue, body: envelope.encode().into() }).collect();
    bench.broker.publish(batch).await.unwrap();
    eventually(Duration::from_secs(3), async || bench.store.timeline_head(&bench.app).await.unwrap() > Seq::ZERO).await;
    tokio::time::timeout(Duration::from_secs(3), bench.stop()).await.unwrap();
}

#[tokio::test]
async fn what_nobody_gets_any_more_counts_for_no_cap() {
    let bench = Bench::start(1).await;
    let cap = Cap { max: 1, per_s: 30 * 86_400 };
    shelves::put(&*bench.store, &bench.app, Env::Live, "order", &cap).await.unwrap();
    let mut expired = bench.envelope(Lane::Unicast, Audience::One(Ordinal(0)));
    expired.message.expires_at = bench.now();
    let cancelled = bench.envelope(Lane::Unicast, Audience::One(Ordinal(0)));
    bench.accept(&cancelled).await;
    bench.store.cancel(&bench.app, cancelled.message.id, bench.now()).await.unwrap().unwrap();
    for dead in [expired, cancelled] {
        bench.publish(&dead).await;
        bench.drained(Lane::Unicast).await;
    }
    let live = bench.send(Lane::Unicast, Audience::One(Ordinal(0))).await;
    bench.drained(Lane::Unicast).await;
    assert_eq!(bench.tally(live).await.targeted, set(&[0]));
}

#[tokio::test]
async fn a_message_that_comes_again_is_not_capped_by_itself_however_many_came_since() {
    let bench = Bench::start(100).await;
    let cap = Cap { max: 1, per_s: 30 * 86_400 };
    shelves::put(&*bench.store, &bench.app, Env::Live, "order", &cap).await.unwrap();
    let envelopes: Vec<_> =
        (0..100).map(|device| bench.envelope(Lane::Unicast, Audience::One(Ordinal(device)))).collect();
    for envelope in &envelopes {
        bench.publish(envelope).await;
    }
    bench.drained(Lane::Unicast).await;
    let first = &envelopes[0];
    assert_eq!(bench.tally(first.message.id).await.targeted, set(&[0]));
    let aim = bench.aim(first.message.id).await.unwrap();
    assert_eq!(aim.excluded, [], "it is known that it was counted, and for whom");
    // As when its dispatcher died after it was counted and before it was appended.
    let again = bench.envelope(Lane::Unicast, Audience::One(Ordinal(0)));
    shelves::put(&*bench.store, &bench.app, Env::Live, &again.message.id.to_string(), &aim).await.unwrap();
    bench.publish(&again).await;
    bench.drained(Lane::Unicast).await;
    assert_eq!(bench.tally(again.message.id).await.targeted, set(&[0]));
}
