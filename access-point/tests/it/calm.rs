//! A storm of devices: newcomers wait, nobody is refused for what will pass, and those who are in do not notice.

use std::{
    num::{NonZeroU32, NonZeroUsize},
    time::{Duration, Instant},
};

use access_point::Config;
use mqtt::{Reason, Version};

use crate::{
    bench::{Bench, config, eventually},
    client::{Client, connect},
};

async fn dial(bench: &Bench, device: usize) -> Client {
    Client::dial(bench.address, connect(bench, &format!("dev-{device}"), Version::V5)).await
}

async fn dial_all(bench: &Bench, devices: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for device in 0..devices {
        clients.push(dial(bench, device).await);
    }
    clients
}

#[tokio::test]
async fn newcomers_get_turns_at_a_rate() {
    let bench = Bench::start(Config { connects_per_s: NonZeroU32::new(20), ..config() }).await;
    let begun = Instant::now();
    let mut clients = dial_all(&bench, 25).await;
    for client in &mut clients {
        assert_eq!(client.connack().await.reason, Reason::SUCCESS);
    }
    assert!((900..3_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn whoever_finds_the_line_too_long_is_closed_without_a_word() {
    let bench = Bench::start(Config { connects_per_s: NonZeroU32::new(1), ..config() }).await;
    let mut clients = dial_all(&bench, 30).await;
    let closed = || bench.metric("fanfare_connects_total{result=\"paced\"}");
    eventually(Duration::from_secs(5), async || closed() >= 8.0).await;
    assert!(bench.metric("fanfare_in_line") >= 15.0, "the others stay");
    assert_eq!(clients.last_mut().unwrap().next().await, None);
    assert_eq!(clients[1].connack().await.reason, Reason::SUCCESS, "the first ones are let in");
}

#[tokio::test]
async fn whoever_hangs_up_in_line_takes_no_turn() {
    let bench = Bench::start(Config { connects_per_s: NonZeroU32::new(2), ..config() }).await;
    let impatient = dial_all(&bench, 30).await;
    eventually(Duration::from_secs(5), async || bench.metric("fanfare_in_line") >= 28.0).await;
    let mut patient = dial(&bench, 30).await;
    let begun = Instant::now();
    drop(impatient);
    assert_eq!(patient.connack().await.reason, Reason::SUCCESS);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(bench.metric("fanfare_in_line"), 0.0);
}

#[tokio::test]
async fn the_fuller_it_is_the_later_devices_are_answered() {
    let bench = Bench::start(Config { connections_max: 10, ..config() }).await;
    let mut open = Vec::new();
    for device in 0..9 {
        open.push(Client::open(&bench, &format!("dev-{device}")).await);
    }
    let begun = Instant::now();
    let _last = Client::open(&bench, "last").await;
    assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn one_address_does_not_take_every_place() {
    let most = NonZeroUsize::new(1);
    let bench = Bench::start(Config { connections_per_address_max: most, ..config() }).await;
    let first = Client::open(&bench, "one").await;
    assert_eq!(dial(&bench, 2).await.next().await, None);
    let mut elsewhere = Client::dial_from([127, 0, 0, 2], bench.address, connect(&bench, "three", Version::V5)).await;
    assert_eq!(elsewhere.connack().await.reason, Reason::SUCCESS);
    drop(first);
    eventually(Duration::from_secs(5), async || dial(&bench, 2).await.next().await.is_some()).await;
}

#[tokio::test]
async fn two_terminals_with_one_id_are_slowed_down_and_told_of() {
    let bench = Bench::start(config()).await;
    let mut last = Duration::ZERO;
    let mut clients = Vec::new();
    for turn in 0..5 {
        let begun = Instant::now();
        let source = [127, 0, 0, 1 + turn % 2];
        let mut client = Client::dial_from(source, bench.address, connect(&bench, "dev", Version::V5)).await;
        assert_eq!(client.connack().await.reason, Reason::SUCCESS);
        last = begun.elapsed();
        assert!(turn >= 4 || last < Duration::from_millis(900), "{turn}: {last:?}");
        clients.push(client);
    }
    assert!((1_000..3_000).contains(&last.as_millis()), "{last:?}");
    assert_eq!(bench.metric("fanfare_device_id_conflicts_total"), 1.0);
    assert_eq!(bench.metric("fanfare_takeovers_total"), 4.0);
}
