//! Bells that are lost without anybody saying so: nodes that ring have a pulse, and who does not hear it looks.

use std::{cell::Cell, time::Duration};

use access_point::Config;
use model::{Bell, bell::PULSE_EVERY};
use mqtt::{Version, packet::Connect};
use tokio::time::sleep;

use crate::{
    bench::{Bench, config, eventually},
    client::{Client, connect, number},
};

/// An access point that does not sweep for as long as a test takes, unless it has a reason.
async fn bench() -> Bench {
    Bench::start(Config { sweep: Duration::from_mins(10), ..config() }).await
}

/// Does something while a node rings that it rings, and has dropped so many bells.
async fn heard<T>(bench: &Bench, dropped: &Cell<u64>, meanwhile: impl Future<Output = T>) -> T {
    let pulse = async {
        loop {
            bench.ring(&Bell::Pulse { node: "dispatcher-1".parse().unwrap(), dropped: dropped.get() });
            sleep(PULSE_EVERY / 5).await;
        }
    };
    tokio::select! {
        done = meanwhile => done,
        () = pulse => unreachable!(),
    }
}

async fn unheard_nodes(bench: &Bench, nodes: f64) {
    eventually(Duration::from_secs(5), async || bench.metric("fanfare_unheard_nodes") == nodes).await;
}

#[tokio::test]
async fn what_a_node_rings_that_is_not_heard_is_found_within_two_seconds() {
    let bench = bench().await;
    bench.dispatches("dispatcher-1").await;
    let device = bench.register("dev").await;
    let narrow = Connect { receive_maximum: 1, ..connect(&bench, "dev", Version::V5) };
    let mut client = Client::open_with(bench.address, narrow).await;
    let ids = bench.broadcast(&[device], 0..3).await;
    let first = client.message().await;
    unheard_nodes(&bench, 1.0).await;
    bench.store.cancel(&bench.app, ids[1], bench.now()).await.unwrap();
    sleep(Duration::from_secs(2)).await;
    client.ack(&first).await;
    assert_eq!(number(&client.take().await), 2, "the one that was called back is passed over");
    bench.broadcast_unrung(&[device], 3..4).await;
    assert_eq!(number(&client.take().await), 3);
    heard(&bench, &Cell::default(), unheard_nodes(&bench, 0.0)).await;
}

#[tokio::test]
async fn bells_that_could_not_be_rung_are_made_up_for_at_the_next_pulse() {
    let bench = bench().await;
    bench.dispatches("dispatcher-1").await;
    let device = bench.register("dev").await;
    let mut client = Client::open(&bench, "dev").await;
    let dropped = Cell::new(0);
    let rest = async {
        unheard_nodes(&bench, 0.0).await;
        sleep(Duration::from_secs(2)).await;
        bench.broadcast_unrung(&[device], 0..1).await;
        client.hears_nothing().await;
        dropped.set(1);
        assert_eq!(number(&client.take().await), 0);
    };
    heard(&bench, &dropped, rest).await;
}
