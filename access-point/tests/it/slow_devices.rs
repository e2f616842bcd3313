//! A device that does not read costs a bounded amount of memory and delays nobody.

use std::time::{Duration, Instant};

use access_point::Config;
use model::{Lane, Message, Ordinal};
use tokio::time::timeout;

use crate::{
    bench::{Bench, config, eventually},
    client::{Client, number},
};

/// What one device may hold: a write's worth and a message, however many messages are pending.
const MEMORY_MAX: f64 = 32.0 * 1_024.0 + 201_000.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_never_read_are_cut_off_and_delay_nobody() {
    let bench = Bench::start(Config { write_timeout: Duration::from_secs(2), ..config() }).await;
    let reader = bench.register("reader").await;
    let mut audience = vec![reader];
    let mut deaf = Vec::new();
    for n in 0..20 {
        let name = format!("deaf-{n}");
        audience.push(bench.register(&name).await);
        deaf.push(Client::open(&bench, &name).await);
    }
    let mut client = Client::open(&bench, "reader").await;
    fill(&bench, &audience).await;
    let (started, mut slowest) = (Instant::now(), Duration::ZERO);
    for _ in 0..200 {
        let asked = Instant::now();
        let message = timeout(Duration::from_secs(5), client.message()).await.unwrap();
        slowest = slowest.max(asked.elapsed());
        client.ack(&message).await;
    }
    let waiting = bench.metric("fanfare_unsent_bytes");
    assert!(waiting > 0.0 && waiting <= 21.0 * MEMORY_MAX, "{waiting} bytes wait for 20 devices");
    assert!(slowest < Duration::from_secs(2), "one message took {slowest:?}, all {:?}", started.elapsed());
    eventually(Duration::from_secs(20), async || {
        let gone = |reason| bench.metric(&format!("fanfare_disconnects_total{{reason=\"{reason}\"}}"));
        gone("stalled") + gone("ack_timeout") >= 20.0
    })
    .await;
    bench.unicast(reader, 1_000).await;
    assert_eq!(number(&client.take().await), 1_000);
}

/// Large messages: 24 of them are more than the sockets in between take.
async fn fill(bench: &Bench, audience: &[Ordinal]) {
    let audience: model::Ordinals = audience.iter().copied().collect();
    let payload = serde_json::to_vec(&serde_json::json!({ "n": 0, "x": "y".repeat(200_000) })).unwrap();
    let append = |_| store::TimelineAppend {
        message: std::sync::Arc::new(Message { payload: payload.clone().into(), ..bench.message(Lane::Broadcast, 0) }),
        audience: audience.clone(),
    };
    bench.store.append_timeline((0..200).map(append).collect(), bench.now()).await.unwrap();
    let head = bench.store.timeline_head(&bench.app).await.unwrap();
    bench.ring(&model::Bell::Timeline { app: bench.app.clone(), head });
}
