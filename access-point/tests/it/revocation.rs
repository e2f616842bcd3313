//! A revoked token or a removed device ends its session though nobody rings.

use mqtt::{Reason, Version};

use crate::{
    bench::{Bench, config},
    client::{Client, connect},
};

/// A session that goes and one that stays.
async fn sessions(bench: &Bench) -> (Client, Client) {
    (Client::open(bench, "goes").await, Client::open(bench, "stays").await)
}

async fn revoke(bench: &Bench) {
    bench.store.revoke(&bench.app, &"goes".parse().unwrap()).await.unwrap().unwrap();
}

async fn remove(bench: &Bench) {
    bench.store.remove(&bench.app, &"goes".parse().unwrap()).await.unwrap().unwrap();
}

/// Longer than a sweep.
async fn swept(client: &mut Client) {
    client.hears_nothing().await;
    client.hears_nothing().await;
}

#[tokio::test]
async fn a_token_revoked_without_a_bell_ends_its_session_within_a_sweep() {
    let bench = Bench::start(config()).await;
    let (mut goes, mut stays) = sessions(&bench).await;
    swept(&mut stays).await;
    revoke(&bench).await;
    assert_eq!(goes.dismissed().await, Some(Reason::ADMINISTRATIVE));
    swept(&mut stays).await;
    let mut again = Client::dial(bench.address, connect(&bench, "goes", Version::V5)).await;
    assert_eq!(again.connack().await.reason, Reason::NOT_AUTHORIZED);
}

#[tokio::test]
async fn a_device_removed_without_a_bell_loses_its_session_within_a_sweep() {
    let bench = Bench::start(config()).await;
    let (mut goes, mut stays) = sessions(&bench).await;
    swept(&mut stays).await;
    remove(&bench).await;
    assert_eq!(goes.dismissed().await, Some(Reason::ADMINISTRATIVE));
    swept(&mut stays).await;
}

#[tokio::test]
async fn also_what_changes_before_the_first_sweep_is_found() {
    for removes in [false, true] {
        let bench = Bench::start(config()).await;
        let (mut goes, mut stays) = sessions(&bench).await;
        if removes {
            remove(&bench).await;
        } else {
            revoke(&bench).await;
        }
        assert_eq!(goes.dismissed().await, Some(Reason::ADMINISTRATIVE));
        swept(&mut stays).await;
    }
}

#[tokio::test]
async fn a_device_that_was_removed_and_is_there_again_keeps_its_new_session() {
    let bench = Bench::start(config()).await;
    let (mut goes, _stays) = sessions(&bench).await;
    remove(&bench).await;
    assert_eq!(goes.dismissed().await, Some(Reason::ADMINISTRATIVE));
    let mut new = Client::open(&bench, "goes").await;
    swept(&mut new).await;
}
