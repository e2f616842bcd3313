//! One live session of a device, wherever the next one opens.

use std::{sync::Arc, time::Duration};

use broker::contract::Flaky;
use model::{Bell, Epoch};
use mqtt::{Packet, Reason, Version};

use crate::{
    bench::{Bench, config, eventually},
    client::{Client, connect, number},
};

#[tokio::test]
async fn the_newer_session_wins_and_the_older_one_is_told() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut old = Client::open(&bench, "dev").await;
    bench.unicast(device, 1).await;
    assert_eq!(number(&old.take().await), 1);
    old.send(&Packet::PingReq).await;
    assert_eq!(old.next().await, Some(Packet::PingResp));
    let mut new = Client::open(&bench, "dev").await;
    assert_eq!(old.dismissed().await, Some(Reason::TAKEN_OVER));
    new.hears_nothing().await;
    bench.unicast(device, 2).await;
    assert_eq!(number(&new.take().await), 2);
    assert_eq!(bench.metric("fanfare_takeovers_total"), 1.0);
}

#[tokio::test]
async fn an_older_version_is_told_on_its_control_topic() {
    let bench = Bench::start(config()).await;
    let mut old = Client::open_with(bench.address, connect(&bench, "dev", Version::V311)).await;
    let _new = Client::open(&bench, "dev").await;
    let told = old.message().await;
    assert_eq!(told.topic, "push/demo/ctl");
    assert!(String::from_utf8_lossy(&told.payload).contains(r#""op":"kick""#));
    assert_eq!(old.next().await, None);
}

#[tokio::test]
async fn a_session_at_another_access_point_gives_way() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let there = bench.beside("ap-2").await;
    let mut old = Client::open(&bench, "dev").await;
    let mut new = Client::open_with(there, connect(&bench, "dev", Version::V5)).await;
    assert_eq!(old.dismissed().await, Some(Reason::TAKEN_OVER));
    bench.unicast(device, 3).await;
    assert_eq!(number(&new.take().await), 3);
}

#[tokio::test]
async fn a_late_bell_about_an_older_session_does_not_end_the_newer_one() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    bench.ring(&Bell::Superseded { app: bench.app.clone(), device, epoch: Epoch(1) });
    client.hears_nothing().await;
}

#[tokio::test]
async fn a_revoked_token_ends_its_session_and_opens_no_other() {
    let bench = Bench::start(config()).await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    let generation = bench.store.revoke(&bench.app, &"dev".parse().unwrap()).await.unwrap().unwrap();
    bench.ring(&Bell::Revoked { app: bench.app.clone(), device, generation });
    assert_eq!(client.dismissed().await, Some(Reason::ADMINISTRATIVE));
    let mut again = Client::dial(bench.address, connect(&bench, "dev", Version::V5)).await;
    assert_eq!(again.connack().await.reason, Reason::NOT_AUTHORIZED);
}

#[tokio::test]
async fn what_was_acked_elsewhere_is_not_sent_again_where_an_older_cursor_still_waits() {
    // What is told here is never confirmed, so no cursor leaves.
    let bench = Bench::start_on(config(), |broker| Arc::new(Flaky::new(broker, 1))).await;
    let there = bench.beside_on("ap-2", bench.broker.clone()).await;
    let device = bench.register("dev").await;
    bench.broadcast(&[device], 1..2).await;
    let mut here = Client::open(&bench, "dev").await;
    assert_eq!(number(&here.take().await), 1);
    here.send(&Packet::PingReq).await;
    assert_eq!(here.next().await, Some(Packet::PingResp));
    drop(here);
    let mut elsewhere = Client::open_with(there, connect(&bench, "dev", Version::V5)).await;
    assert_eq!(number(&elsewhere.take().await), 1, "nobody else knows that it was acked");
    bench.broadcast(&[device], 2..3).await;
    assert_eq!(number(&elsewhere.take().await), 2);
    let head = bench.store.timeline_head(&bench.app).await.unwrap();
    eventually(Duration::from_secs(10), async || {
        bench.store.cursor(&bench.app, device).await.unwrap().timeline.prefix >= head
    })
    .await;
    drop(elsewhere);
    let mut here = Client::open(&bench, "dev").await;
    bench.broadcast(&[device], 3..4).await;
    assert_eq!(number(&here.take().await), 3);
}
