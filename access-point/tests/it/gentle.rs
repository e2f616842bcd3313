//! Gentle to batteries: what can wait goes out when the device is awake anyway, and it is woken no more often than its
//! network demands.

use std::time::{Duration, Instant};

use model::{Lane, Message, Ordinal};
use mqtt::{Packet, Reason, Version, packet::Connect};

use crate::{
    bench::{Bench, config},
    client::{Client, connect, number},
};

/// How long a device is awake after it was heard, and a little more.
const AWAKE: Duration = Duration::from_millis(3_200);

/// A message that may wait for so long.
fn patient(bench: &Bench, n: usize, delay: Duration) -> Message {
    let message = bench.message(Lane::Unicast, n);
    Message { due_at: Some(message.created_at + delay), ..message }
}

async fn asleep(bench: &Bench) -> (Ordinal, Client) {
    let device = bench.register("dev").await;
    let client = Client::open(bench, "dev").await;
    tokio::time::sleep(AWAKE).await;
    (device, client)
}

#[tokio::test]
async fn what_can_wait_goes_out_with_the_answer_to_the_next_ping() {
    let bench = Bench::start(config()).await;
    let (device, mut client) = asleep(&bench).await;
    for n in 0..3 {
        bench.send_unicast(device, patient(&bench, n, Duration::from_secs(600))).await;
    }
    client.hears_nothing().await;
    client.send(&Packet::PingReq).await;
    for n in 0..3 {
        assert_eq!(number(&client.take().await), n);
    }
    assert_eq!(client.next().await, Some(Packet::PingResp));
    bench.send_unicast(device, patient(&bench, 3, Duration::from_secs(600))).await;
    assert_eq!(number(&client.take().await), 3, "the device is still awake");
}

#[tokio::test]
async fn what_cannot_wait_takes_the_others_along_in_order() {
    let bench = Bench::start(config()).await;
    let (device, mut client) = asleep(&bench).await;
    bench.send_unicast(device, patient(&bench, 1, Duration::from_secs(600))).await;
    client.hears_nothing().await;
    bench.unicast(device, 2).await;
    assert_eq!(number(&client.take().await), 1);
    assert_eq!(number(&client.take().await), 2);
}

#[tokio::test]
async fn nothing_waits_longer_than_it_may() {
    let bench = Bench::start(config()).await;
    let (device, mut client) = asleep(&bench).await;
    let sent = Instant::now();
    bench.send_unicast(device, patient(&bench, 1, Duration::from_secs(2))).await;
    assert_eq!(number(&client.take().await), 1);
    assert!((1_900..4_000).contains(&sent.elapsed().as_millis()), "{:?}", sent.elapsed());
}

#[tokio::test]
async fn a_device_that_leaves_its_keep_alive_to_us_is_told_one() {
    let bench = Bench::start(config()).await;
    let of = |version| Connect { username: Some("demo?net=4g".into()), ..connect(&bench, "dev", version) };
    let ack = Client::dial(bench.address, of(Version::V5)).await.connack().await;
    assert_eq!(ack.server_keep_alive_s, Some(270));
    let mut older = Client::open_with(bench.address, of(Version::V311)).await;
    assert_eq!(older.publish("push/demo/hb", "270").await, Reason::SUCCESS);
    let publish = mqtt::packet::Publish::new("push/demo/hb", r#"{"keepalive_s":60,"screen":"on"}"#);
    older.send(&Packet::Publish(Box::new(publish))).await;
    let told = older.message().await;
    assert_eq!(told.topic, "push/demo/ctl");
    assert_eq!(&told.payload[..], br#"{"op":"keepalive","keepalive_s":270}"#);
}
