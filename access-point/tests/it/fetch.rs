//! Devices that are told and fetch for themselves: few packets whatever comes, each message once and in order.

use std::time::Duration;

use access_point::Config;
use model::{Lane, Message, Ordinal};
use mqtt::{Packet, Reason, Version, packet::Connect, packet::Publish};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    bench::{Bench, config},
    client::{Client, connect},
};

const NOTICE: &str = "push/demo/notify";

#[derive(Deserialize)]
struct Page {
    messages: Vec<Value>,
    position: String,
    more: bool,
}

impl Page {
    fn numbers(&self) -> Vec<u64> {
        self.messages.iter().map(|message| message["payload"]["n"].as_u64().unwrap()).collect()
    }
}

async fn fetcher(bench: &Bench, version: Version) -> (Ordinal, Client) {
    let device = bench.register("dev").await;
    let connect = Connect { username: Some("demo?mode=notify".into()), ..connect(bench, "dev", version) };
    (device, Client::open_with(bench.address, connect).await)
}

/// The next message is a notice; which number it names.
async fn notice(client: &mut Client) -> String {
    let notice = client.message().await;
    assert_eq!((notice.topic.as_str(), notice.qos), (NOTICE, 0));
    let notice: Value = serde_json::from_slice(&notice.payload).unwrap();
    notice["latest"].as_str().unwrap().to_owned()
}

/// Fetches what comes after a position, and acks the page.
async fn fetch(client: &mut Client, after: &str, limit: usize) -> Page {
    let page = asked(client, after, limit).await;
    if page.qos > 0 {
        client.ack(&page).await;
    }
    serde_json::from_slice(&page.payload).unwrap()
}

async fn asked(client: &mut Client, after: &str, limit: usize) -> Publish {
    let sync = format!(r#"{{"after":"{after}","limit":{limit},"req":"r1"}}"#);
    let sync = Publish { qos: 1, packet_id: 9, ..Publish::new("push/demo/sync", sync) };
    client.send(&Packet::Publish(Box::new(sync))).await;
    loop {
        match client.next().await.unwrap() {
            Packet::PubAck(ack) => assert_eq!((ack.packet_id, ack.reason), (9, Reason::SUCCESS)),
            Packet::Publish(notice) if notice.topic == NOTICE => {}
            Packet::Publish(page) => {
                assert_eq!(page.topic, "push/demo/res/r1");
                return *page;
            }
            other => panic!("instead of a page: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_device_is_told_once_and_fetches_everything_in_order_in_both_versions() {
    for version in [Version::V5, Version::V311] {
        let bench = Bench::start(config()).await;
        let (device, mut client) = fetcher(&bench, version).await;
        let first = bench.unicast(device, 0).await;
        assert!(notice(&mut client).await.starts_with('i'));
        for n in 1..5 {
            bench.unicast(device, n).await;
        }
        client.hears_nothing().await;
        let page = fetch(&mut client, "i0.t0", 3).await;
        assert_eq!((page.numbers(), page.more), (vec![0, 1, 2], true));
        let page = fetch(&mut client, &page.position, 3).await;
        assert_eq!((page.numbers(), page.more), (vec![3, 4], false));
        assert_eq!(page.messages[0]["type"], "order");
        let page = fetch(&mut client, &page.position, 3).await;
        assert_eq!((page.messages.len(), page.more), (0, false));
        bench.caught_up(device).await;
        let tally = bench.tally(first).await;
        let funnel = tally.funnel(bench.now() + Duration::from_secs(3_600), bench.now());
        assert!(funnel.balances());
        assert_eq!((funnel.targeted, funnel.sent, funnel.acked), (1, 1, 1));
    }
}

#[tokio::test]
async fn a_storm_of_a_thousand_messages_makes_few_notices_and_no_message_is_missing() {
    let bench = Bench::start(config()).await;
    let (device, mut client) = fetcher(&bench, Version::V5).await;
    // An inbox keeps two hundred.
    for n in 0..200 {
        bench.unicast(device, n).await;
    }
    bench.broadcast(&[device], 200..1_000).await;
    notice(&mut client).await;
    let (mut numbers, mut after, mut pages) = (Vec::new(), "i0.t0".to_owned(), 0);
    loop {
        let page = fetch(&mut client, &after, 100).await;
        numbers.extend(page.numbers());
        (after, pages) = (page.position, pages + 1);
        if !page.more {
            break;
        }
    }
    // Inbox and timeline are two streams: what matters is the order within each.
    let of =
        |range: std::ops::Range<u64>| -> Vec<u64> { numbers.iter().copied().filter(|n| range.contains(n)).collect() };
    assert_eq!(of(0..200), (0..200).collect::<Vec<_>>());
    assert_eq!(of(200..1_000), (200..1_000).collect::<Vec<_>>());
    assert_eq!(numbers.len(), 1_000);
    assert!(pages <= 12, "{pages} pages");
    let notices = bench.metric("fanfare_notices_total");
    assert!(notices <= 4.0, "{notices} notices");
}

#[tokio::test]
async fn a_response_topic_and_its_correlation_data_are_answered() {
    let bench = Bench::start(config()).await;
    let (device, mut client) = fetcher(&bench, Version::V5).await;
    bench.unicast(device, 7).await;
    notice(&mut client).await;
    let sync = Publish {
        response_topic: Some("push/demo/mine/4".into()),
        correlation_data: Some(b"c-4".to_vec()),
        ..Publish::new("push/demo/sync", r#"{"after":"i0.t0"}"#)
    };
    client.send(&Packet::Publish(Box::new(sync))).await;
    let page = client.message().await;
    assert_eq!((page.topic.as_str(), page.correlation_data.as_deref()), ("push/demo/mine/4", Some(&b"c-4"[..])));
    assert_eq!(page.content_type.as_deref(), Some("application/json"));
    let elsewhere = Publish {
        qos: 1,
        packet_id: 3,
        response_topic: Some("push/other/mine".into()),
        ..Publish::new("push/demo/sync", r#"{"after":"i0.t0"}"#)
    };
    client.send(&Packet::Publish(Box::new(elsewhere))).await;
    assert!(matches!(client.next().await, Some(Packet::PubAck(ack)) if ack.reason == Reason::TOPIC_INVALID));
}

#[tokio::test]
async fn a_page_that_was_not_acked_comes_again_and_the_next_fetch_acks_it_too() {
    let bench = Bench::start(config()).await;
    let (device, mut client) = fetcher(&bench, Version::V311).await;
    bench.unicast(device, 1).await;
    notice(&mut client).await;
    let lost: Page = serde_json::from_slice(&asked(&mut client, "i0.t0", 10).await.payload).unwrap();
    assert_eq!(lost.numbers(), [1]);
    drop(client);
    let (_, mut client) = fetcher(&bench, Version::V311).await;
    notice(&mut client).await;
    let page = asked(&mut client, "i0.t0", 10).await;
    let page: Page = serde_json::from_slice(&page.payload).unwrap();
    assert_eq!((page.numbers(), &page.position), (vec![1], &lost.position));
    assert!(fetch(&mut client, &page.position, 10).await.messages.is_empty());
    bench.caught_up(device).await;
    drop(client);
    fetcher(&bench, Version::V311).await.1.hears_nothing().await;
}

#[tokio::test]
async fn what_expires_before_it_is_fetched_is_neither_told_nor_given() {
    let bench = Bench::start(config()).await;
    let (device, mut client) = fetcher(&bench, Version::V5).await;
    bench.send_brief(device, Duration::from_millis(300)).await;
    notice(&mut client).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    let page = fetch(&mut client, "i0.t0", 10).await;
    assert_eq!((page.messages.len(), page.more), (0, false));
    drop(client);
    let (_, mut client) = fetcher(&bench, Version::V5).await;
    client.hears_nothing().await;
}

#[tokio::test]
async fn what_is_for_others_is_not_told() {
    let bench = Bench::start(config()).await;
    let (device, mut client) = fetcher(&bench, Version::V5).await;
    bench.broadcast(&[Ordinal(999)], 0..50).await;
    client.hears_nothing().await;
    bench.broadcast(&[device], 50..51).await;
    assert!(notice(&mut client).await.starts_with('t'));
    assert_eq!(fetch(&mut client, "i0.t0", 10).await.numbers(), [50]);
}

#[tokio::test]
async fn a_notice_that_was_not_followed_is_repeated_with_the_answer_to_a_ping() {
    let bench = Bench::start(Config { sweep: Duration::from_millis(100), ..config() }).await;
    let (device, mut client) = fetcher(&bench, Version::V5).await;
    bench.unicast(device, 1).await;
    let told = notice(&mut client).await;
    client.hears_nothing().await;
    // A ping makes a session look at its streams once in five seconds.
    tokio::time::sleep(Duration::from_secs(5)).await;
    client.send(&Packet::PingReq).await;
    let mut heard = vec![client.next().await.unwrap(), client.next().await.unwrap()];
    heard.retain(|packet| *packet != Packet::PingResp);
    assert!(matches!(&heard[..], [Packet::Publish(again)] if again.payload == format!(r#"{{"latest":"{told}"}}"#)));
}

#[tokio::test]
async fn a_notice_of_what_can_wait_waits_until_the_device_is_awake() {
    let bench = Bench::start(config()).await;
    let (device, mut client) = fetcher(&bench, Version::V5).await;
    tokio::time::sleep(Duration::from_millis(3_200)).await;
    let message = bench.message(Lane::Unicast, 1);
    let patient = Message { due_at: Some(message.created_at + Duration::from_secs(600)), ..message };
    bench.send_unicast(device, patient).await;
    client.hears_nothing().await;
    client.send(&Packet::PingReq).await;
    notice(&mut client).await;
    assert_eq!(client.next().await, Some(Packet::PingResp));
}

#[tokio::test]
async fn a_page_stays_within_what_the_device_takes() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let username = Some("demo?mode=notify".into());
    let small = Connect { username, maximum_packet_size: Some(2_000), ..connect(&bench, "dev", Version::V5) };
    let mut client = Client::open_with(bench.address, small).await;
    let large = |n| Message {
        payload: format!("{{\"n\":{n},\"x\":\"{}\"}}", "x".repeat(900)).into(),
        ..bench.message(Lane::Unicast, n)
    };
    for n in 0..3 {
        bench.send_unicast(device, large(n)).await;
    }
    let huge = Message { payload: "x".repeat(3_000).into(), ..bench.message(Lane::Unicast, 3) };
    let huge = bench.send_unicast(device, huge).await;
    let (mut numbers, mut after) = (Vec::new(), "i0.t0".to_owned());
    for _ in 0..6 {
        let page = fetch(&mut client, &after, 100).await;
        numbers.extend(page.numbers());
        after = page.position;
    }
    assert_eq!(numbers, [0, 1, 2]);
    bench.caught_up(device).await;
    assert_eq!(bench.tally(huge).await.rejected.len(), 1);
}
