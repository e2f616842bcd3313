//! What is pending reaches the device, once, in order, and only while it should.

use std::{sync::Arc, time::Duration};

use broker::contract::Flaky;
use model::{Bell, Cursor, Funnel, Lane, Ordinal, Seq};
use mqtt::{Packet, Reason, Version, packet::Connect};

use crate::{
    bench::{Bench, config, eventually},
    client::{Client, connect, number, seq, stated},
};

/// Long enough to be sent within, short enough to be waited out.
const BRIEF: Duration = Duration::from_millis(300);

fn funnel(bench: &Bench, tally: &model::Tally) -> Funnel {
    tally.funnel(bench.now() + Duration::from_secs(3_600), bench.now())
}

#[tokio::test]
async fn a_message_arrives_without_subscribing_in_both_versions_and_is_counted() {
    let bench = Bench::start(config()).await;
    for (device, version) in [("new", Version::V5), ("old", Version::V311)] {
        let ordinal = bench.register(device).await;
        let mut client = Client::open_with(bench.address, connect(&bench, device, version)).await;
        let id = bench.unicast(ordinal, 7).await;
        let message = client.take().await;
        assert_eq!((message.topic.as_str(), number(&message)), ("push/demo/msg/order", 7));
        assert_eq!((message.qos, message.dup), (1, false));
        if version == Version::V5 {
            assert_eq!(message.property("id"), Some(id.to_string().as_str()));
            assert!(message.expiry_s.is_some_and(|left| (3_500..=3_600).contains(&left)));
        }
        bench.caught_up(ordinal).await;
        let funnel = funnel(&bench, &bench.tally(id).await);
        assert!(funnel.balances());
        assert_eq!((funnel.targeted, funnel.sent, funnel.acked), (1, 1, 1));
    }
}

#[tokio::test]
async fn a_device_that_was_away_gets_exactly_what_it_missed() {
    let bench = Bench::start(config()).await;
    let (one, other) = (bench.register("one").await, bench.register("other").await);
    let mut client = Client::open(&bench, "one").await;
    bench.unicast(one, 1).await;
    assert_eq!(number(&client.take().await), 1);
    bench.caught_up(one).await;
    drop(client);
    for n in 2..6 {
        bench.unicast(one, n).await;
    }
    bench.unicast(other, 99).await;
    bench.broadcast(&[one, other], 10..13).await;
    bench.broadcast(&[other], 90..95).await;
    let mut client = Client::open(&bench, "one").await;
    let mut missed = Vec::new();
    for _ in 0..7 {
        missed.push(number(&client.take().await));
    }
    assert_eq!(missed, [2, 3, 4, 5, 10, 11, 12]);
    client.hears_nothing().await;
    drop(client);
    Client::open(&bench, "one").await.hears_nothing().await;
}

#[tokio::test]
async fn a_lost_puback_repeats_one_message_with_dup_and_the_same_seq() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    for n in 0..20 {
        bench.unicast(device, n).await;
    }
    let mut unacked = None;
    for n in 0..20 {
        let message = client.message().await;
        match n {
            7 => unacked = Some(message),
            _ => client.ack(&message).await,
        }
    }
    let unacked = unacked.unwrap();
    eventually(Duration::from_secs(5), async || {
        bench.store.cursor(&bench.app, device).await.unwrap().inbox.beyond.len() == 12
    })
    .await;
    drop(client);
    let mut client = Client::open(&bench, "dev").await;
    let again = client.take().await;
    assert!(again.dup && !unacked.dup);
    assert_eq!((again.property("seq"), again.property("id")), (unacked.property("seq"), unacked.property("id")));
    client.hears_nothing().await;
    assert_eq!(bench.metric("fanfare_retransmit_total"), 1.0);
}

#[tokio::test]
async fn a_missing_ack_closes_the_link_and_is_never_sent_twice_on_it() {
    let bench = Bench::start(access_point::Config { ack_timeout: Duration::from_millis(400), ..config() }).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    bench.unicast(device, 1).await;
    client.message().await;
    assert_eq!(client.dismissed().await, Some(Reason::KEEP_ALIVE_TIMEOUT));
    let again = Client::open(&bench, "dev").await.take().await;
    assert!(again.dup);
}

#[tokio::test]
async fn who_is_waited_for_gets_as_long_again_as_the_access_point_stood_still() {
    let bench = Bench::start(access_point::Config { ack_timeout: Duration::from_secs(1), ..config() }).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    bench.unicast(device, 1).await;
    let message = client.message().await;
    // The access point runs on this very thread.
    std::thread::sleep(Duration::from_secs(2));
    // What was lost meanwhile is sent again a little later.
    tokio::time::sleep(Duration::from_millis(500)).await;
    client.ack(&message).await;
    bench.unicast(device, 2).await;
    assert_eq!(number(&client.message().await), 2);
    assert_eq!(client.dismissed().await, Some(Reason::KEEP_ALIVE_TIMEOUT), "and no longer than that");
}

#[tokio::test]
async fn what_the_device_says_it_has_is_acked_without_being_sent() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let ids = [bench.unicast(device, 0).await, bench.unicast(device, 1).await, bench.unicast(device, 2).await];
    let entries = bench.store.inbox_after(&bench.app, device, Seq::ZERO, 10).await.unwrap();
    let after = stated(entries[1].seq, Seq::ZERO);
    let username = Some(format!("demo?after={after}"));
    let mut client =
        Client::open_with(bench.address, Connect { username, ..connect(&bench, "dev", Version::V5) }).await;
    assert_eq!(number(&client.take().await), 2);
    client.hears_nothing().await;
    for id in ids {
        let funnel = funnel(&bench, &bench.tally(id).await);
        assert_eq!((funnel.acked, funnel.pending), (1, 0));
    }
}

#[tokio::test]
async fn sync_moves_the_position_of_an_open_session() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    let id = bench.unicast(device, 0).await;
    let message = client.message().await;
    let sync = format!(r#"{{"after":"{}"}}"#, stated(seq(&message), Seq::ZERO));
    assert_eq!(client.publish("push/demo/sync", sync).await, Reason::SUCCESS);
    bench.caught_up(device).await;
    assert_eq!(funnel(&bench, &bench.tally(id).await).acked, 1);
    assert_eq!(client.publish("push/demo/sync", "{}").await, Reason::BAD_PAYLOAD);
}

#[tokio::test]
async fn a_position_ahead_of_the_store_is_told_and_nothing_is_rewound() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    bench.unicast(device, 0).await;
    let username = Some(format!("demo?after={}", stated(Seq(u64::MAX >> 11), Seq(5))));
    let mut client =
        Client::open_with(bench.address, Connect { username, ..connect(&bench, "dev", Version::V5) }).await;
    let told = client.message().await;
    assert_eq!((told.topic.as_str(), told.qos), ("push/demo/ctl", 0));
    assert!(String::from_utf8_lossy(&told.payload).contains(r#""op":"resync""#));
    client.hears_nothing().await;
    bench.unicast(device, 1).await;
    assert_eq!(number(&client.take().await), 1);
    assert_eq!(bench.metric("fanfare_resyncs_total"), 1.0);
}

#[tokio::test]
async fn nothing_cancelled_is_sent() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let cancelled = [bench.unicast(device, 1).await, bench.broadcast(&[device], 2..3).await[0]];
    let kept = bench.broadcast(&[device], 3..4).await[0];
    for id in cancelled {
        bench.store.cancel(&bench.app, id, bench.now()).await.unwrap();
    }
    let mut client = Client::open(&bench, "dev").await;
    assert_eq!(client.take().await.property("id"), Some(kept.to_string().as_str()));
    client.hears_nothing().await;
}

#[tokio::test]
async fn nothing_expired_is_sent_to_a_device_that_comes_too_late() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    bench.send_brief(device, BRIEF).await;
    let kept = bench.unicast(device, 3).await;
    tokio::time::sleep(BRIEF).await;
    let mut client = Client::open(&bench, "dev").await;
    assert_eq!(client.take().await.property("id"), Some(kept.to_string().as_str()));
    client.hears_nothing().await;
}

#[tokio::test]
async fn nothing_that_expires_while_it_waits_for_room_in_the_window_is_sent() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let narrow = Connect { receive_maximum: 1, ..connect(&bench, "dev", Version::V5) };
    let mut client = Client::open_with(bench.address, narrow).await;
    bench.unicast(device, 0).await;
    let first = client.message().await;
    bench.send_brief(device, BRIEF).await;
    tokio::time::sleep(BRIEF).await;
    client.ack(&first).await;
    client.hears_nothing().await;
}

#[tokio::test]
async fn a_cancel_stops_what_waits_for_room_in_the_window() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let narrow = Connect { receive_maximum: 1, ..connect(&bench, "dev", Version::V5) };
    let mut client = Client::open_with(bench.address, narrow).await;
    let ids = bench.broadcast(&[device], 0..3).await;
    let first = client.message().await;
    bench.store.cancel(&bench.app, ids[1], bench.now()).await.unwrap();
    bench.ring(&Bell::Cancelled { app: bench.app.clone(), message: ids[1] });
    // Bells of a lane are heard in order: when the next one has done its work, so has the cancel's.
    let mut other = Client::open(&bench, "other").await;
    bench.unicast(bench.register("other").await, 9).await;
    assert_eq!(number(&other.take().await), 9);
    client.ack(&first).await;
    assert_eq!(number(&client.take().await), 2);
}

#[tokio::test]
async fn who_was_sent_it_before_the_cancel_gets_it_until_it_is_acked() {
    let mut bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    let id = bench.broadcast(&[device, Ordinal(999)], 0..1).await[0];
    client.message().await;
    eventually(Duration::from_secs(5), async || bench.tally(id).await.sent.contains(device)).await;
    bench.store.cancel(&bench.app, id, bench.now()).await.unwrap();
    bench.ring(&Bell::Cancelled { app: bench.app.clone(), message: id });
    let mut other = Client::open(&bench, "other").await;
    bench.unicast(bench.register("other").await, 9).await;
    other.take().await;
    drop(client);
    assert_eq!(Client::open(&bench, "dev").await.message().await.property("id"), Some(id.to_string().as_str()));
    bench.restart().await;
    assert_eq!(Client::open(&bench, "dev").await.take().await.property("id"), Some(id.to_string().as_str()));
    bench.caught_up(device).await;
    let funnel = funnel(&bench, &bench.tally(id).await);
    assert_eq!((funnel.acked, funnel.cancelled, funnel.pending), (1, 1, 0));
}

#[tokio::test]
async fn a_cancel_whose_bell_is_lost_is_found_by_the_sweep() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let narrow = Connect { receive_maximum: 1, ..connect(&bench, "dev", Version::V5) };
    let mut client = Client::open_with(bench.address, narrow).await;
    let ids = bench.broadcast(&[device], 0..2).await;
    let first = client.message().await;
    bench.store.cancel(&bench.app, ids[1], bench.now()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(800)).await;
    client.ack(&first).await;
    client.hears_nothing().await;
}

#[tokio::test]
async fn five_thousand_timeline_entries_come_in_order_and_memory_stays_bounded() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    bench.broadcast(&[device], 0..5_000).await;
    for version in [Version::V5, Version::V311] {
        let (name, skip) = if version == Version::V5 { ("dev", 0) } else { ("late", 5_000) };
        let mut client = Client::open_with(bench.address, connect(&bench, name, version)).await;
        for n in skip..5_000 {
            assert_eq!(number(&client.take().await), n);
        }
        client.hears_nothing().await;
    }
    assert_eq!(bench.metric("fanfare_inflight"), 0.0);
}

#[tokio::test]
async fn a_full_timeline_does_not_delay_a_unicast() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    bench.broadcast(&[device], 0..100).await;
    let mut window = Vec::new();
    for _ in 0..24 {
        window.push(client.message().await);
    }
    client.hears_nothing().await;
    bench.unicast(device, 1_000).await;
    assert_eq!(number(&client.message().await), 1_000);
    for message in &window {
        client.ack(message).await;
    }
    assert_eq!(number(&client.take().await), 24);
}

#[tokio::test]
async fn a_message_too_large_for_the_device_is_rejected_and_the_next_one_comes() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let small = Connect { maximum_packet_size: Some(1_000), ..connect(&bench, "dev", Version::V5) };
    let mut client = Client::open_with(bench.address, small).await;
    let large = model::Message { payload: vec![b'x'; 2_000].into(), ..bench.message(Lane::Unicast, 0) };
    let large = bench.send_unicast(device, large).await;
    bench.unicast(device, 1).await;
    assert_eq!(number(&client.take().await), 1);
    bench.caught_up(device).await;
    assert_eq!(funnel(&bench, &bench.tally(large).await).rejected, 1);
}

#[tokio::test]
async fn a_refusal_of_the_device_is_counted_and_final() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    let id = bench.unicast(device, 0).await;
    let message = client.message().await;
    client.ack_with(&message, Reason::QUOTA_EXCEEDED).await;
    bench.caught_up(device).await;
    assert_eq!(funnel(&bench, &bench.tally(id).await).rejected, 1);
    drop(client);
    Client::open(&bench, "dev").await.hears_nothing().await;
}

/// A store that was replaced goes on answering for a while, and has not heard of what is rung.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_rung_before_the_store_knows_of_it_is_not_passed_over() {
    let bench = Bench::start(access_point::Config { sweep: Duration::from_secs(3_600), ..config() }).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    let head = Seq::ZERO.next(bench.now() + Duration::from_secs(1));
    bench.ring(&Bell::Timeline { app: bench.app.clone(), head });
    eventually(Duration::from_secs(5), async || bench.metric("fanfare_access_point_store_failures_total") > 0.0).await;
    bench.broadcast(&[device], 1..2).await;
    assert_eq!(number(&client.take().await), 1);
    // Nobody rings for the next one: it is looked for because more was rung.
    tokio::time::sleep(Duration::from_secs(1)).await;
    bench.broadcast_unrung(&[device], 2..3).await;
    assert_eq!(number(&client.take().await), 2);
    bench.stop().await;
}

#[tokio::test]
async fn a_bell_that_is_lost_costs_no_more_than_a_sweep() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    let silent = |message| store::InboxAppend {
        message: Arc::new(message),
        devices: [device].into_iter().collect::<model::Ordinals>(),
    };
    let append = silent(bench.message(Lane::Unicast, 5));
    bench.store.append_inbox(vec![append], bench.now()).await.unwrap();
    assert_eq!(number(&client.take().await), 5);
    let append = store::TimelineAppend {
        message: Arc::new(bench.message(Lane::Broadcast, 6)),
        audience: [device].into_iter().collect(),
    };
    bench.store.append_timeline(vec![append], bench.now()).await.unwrap();
    assert_eq!(number(&client.take().await), 6);
}

#[tokio::test]
async fn what_was_rung_before_bells_were_heard_is_found_as_soon_as_they_are() {
    let without_sweeps = access_point::Config { sweep: Duration::from_secs(3_600), ..config() };
    let bench = Bench::start_on(without_sweeps, |broker| Arc::new(Flaky::new(broker, 2))).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    // One lane is listened to only when it has been tried again.
    let append = store::InboxAppend {
        message: Arc::new(bench.message(Lane::Unicast, 5)),
        devices: [device].into_iter().collect::<model::Ordinals>(),
    };
    bench.store.append_inbox(vec![append], bench.now()).await.unwrap();
    assert_eq!(number(&client.take().await), 5);
}

#[tokio::test]
async fn a_stop_says_goodbye_and_loses_no_ack() {
    let mut bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    bench.unicast(device, 0).await;
    client.take().await;
    client.send(&Packet::PingReq).await;
    assert_eq!(client.next().await, Some(Packet::PingResp));
    bench.stop().await;
    assert_eq!(client.dismissed().await, Some(Reason::SHUTTING_DOWN));
    bench.restart().await;
    Client::open(&bench, "dev").await.hears_nothing().await;
}

#[tokio::test]
async fn entries_for_others_are_passed_and_cost_no_packet() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    bench.broadcast(&[Ordinal(999)], 0..50).await;
    bench.broadcast(&[device], 50..51).await;
    assert_eq!(number(&client.take().await), 50);
    client.hears_nothing().await;
}

#[tokio::test]
async fn receipts_that_the_broker_does_not_take_at_once_are_told_in_the_end() {
    let bench = Bench::start_on(config(), |broker| Arc::new(Flaky::new(broker, 2))).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    let mut ids = Vec::new();
    for n in 0..6 {
        ids.push(bench.unicast(device, n).await);
        client.take().await;
        bench.caught_up(device).await;
    }
    for id in ids {
        let funnel = funnel(&bench, &bench.tally(id).await);
        assert_eq!((funnel.acked, funnel.pending), (1, 0));
    }
}

/// The other way round a crash between the two would leave acks that no receipt tells of: a funnel that never closes.
#[tokio::test]
async fn no_cursor_is_kept_before_its_receipts_are_confirmed() {
    let bench = Bench::start_on(config(), |broker| Arc::new(Flaky::new(broker, 1))).await;
    let device = bench.register("dev").await;
    bench.unicast(device, 0).await;
    Client::open(&bench, "dev").await.take().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bench.store.cursor(&bench.app, device).await.unwrap(), Cursor::default());
}
