//! What cannot be trusted is said to be damaged; it is never taken for something else, or for nothing.

use engine::Keyspace;
use model::{Env, Ordinal, Seq};
use store::{
    Appended, Cursors as _, Devices as _, Error, Inbox as _, Messages as _, Receipts as _, Registration,
    Retention as _, Timeline as _, embedded::Embedded,
};

use crate::{
    make::{NOW, app, later, message, set, to_inboxes, to_timeline},
    place::Directory,
};

/// What is left of a value.
type Damage = fn(&[u8]) -> Vec<u8>;

const DAMAGES: [Damage; 4] = [
    |_| Vec::new(),
    |value| value[..value.len() - 1].to_vec(),
    |value| [&[0xff], &value[1..]].concat(),
    |value| [&value[..1], b"\xc1garbage"].concat(),
];

/// Writes a store, lets `damage` have every record of a keyspace, and opens it again.
async fn damaged(place: &Directory, space: &str, damage: Damage) -> std::sync::Arc<Embedded> {
    let engine = place.engine();
    let store = Embedded::open(engine.clone()).unwrap();
    let device = Registration { id: "a".parse().unwrap(), env: Env::Live, profile: None };
    store.register(&app(), vec![device], NOW).await.unwrap();
    store.append_inbox(vec![to_inboxes(message(1), set([0]))], NOW).await.unwrap();
    store.append_timeline(vec![to_timeline(message(2), set([0]))], NOW).await.unwrap();
    let space: Keyspace = engine.keyspace(space).unwrap();
    let rows: Vec<_> = space.range::<&[u8]>(..).map(Result::unwrap).collect();
    assert!(!rows.is_empty());
    let write = move |tx: &mut engine::Tx<'_>| {
        for (key, value) in rows {
            tx.insert(&space, key, damage(&value));
        }
    };
    engine.write(write).await.unwrap();
    store
}

fn assert_corrupt<T: std::fmt::Debug>(result: Result<T, Error>) {
    assert!(matches!(result, Err(Error::Corrupt(_))), "{result:?}");
}

#[tokio::test]
async fn a_damaged_stream_is_said_to_be() {
    for damage in DAMAGES {
        let place = Directory::new();
        let store = damaged(&place, "store-streams", damage).await;
        assert_corrupt(store.inbox_after(&app(), Ordinal(0), Seq::ZERO, 9).await);
        assert_corrupt(store.inbox_heads(&app(), &[Ordinal(0)]).await);
        assert_corrupt(store.timeline_after(&app(), Seq::ZERO, 9).await);
        assert_corrupt(store.timeline_head(&app()).await);
        assert_corrupt(store.cursor(&app(), Ordinal(0)).await);
        assert_corrupt(store.expire(later(10_000_000)).await);
    }
}

#[tokio::test]
async fn a_damaged_message_is_said_to_be() {
    for damage in DAMAGES {
        let place = Directory::new();
        let store = damaged(&place, "store-messages", damage).await;
        assert_corrupt(store.entry(&app(), message(1).id).await);
        assert_corrupt(store.entries(&app(), None, 9).await);
        assert_corrupt(store.tally(&app(), message(1).id).await);
        assert_corrupt(store.cancel(&app(), message(1).id, NOW).await);
        assert_corrupt(store.inbox_after(&app(), Ordinal(0), Seq::ZERO, 9).await);
        assert_corrupt(store.timeline_after(&app(), Seq::ZERO, 9).await);
    }
}

#[tokio::test]
async fn a_damaged_registry_is_said_to_be() {
    for damage in DAMAGES {
        let place = Directory::new();
        let store = damaged(&place, "store-registry", damage).await;
        assert_corrupt(store.devices(&app(), &["a".parse().unwrap()]).await);
        assert_corrupt(store.names(&app(), &[Ordinal(0)]).await);
        assert_corrupt(store.registered(&app(), Env::Live).await);
        assert_corrupt(store.count(&app()).await);
        assert_corrupt(store.list(&app(), Env::Live, None, 9).await);
    }
}

#[tokio::test]
async fn a_missing_body_is_damage_and_not_silence() {
    let place = Directory::new();
    let engine = place.engine();
    let store = Embedded::open(engine.clone()).unwrap();
    store.append_inbox(vec![to_inboxes(message(1), set([0]))], NOW).await.unwrap();
    let messages = engine.keyspace("store-messages").unwrap();
    let keys: Vec<_> = messages.range::<&[u8]>(..).map(|row| row.unwrap().0).collect();
    engine.write(move |tx| keys.into_iter().for_each(|key| tx.remove(&messages, key))).await.unwrap();
    assert_corrupt(store.inbox_after(&app(), Ordinal(0), Seq::ZERO, 9).await);
}

#[tokio::test]
async fn a_step_that_meets_damage_leaves_nothing_of_itself() {
    let place = Directory::new();
    let store = damaged(&place, "store-streams", DAMAGES[1]).await;
    let appends = vec![to_inboxes(message(3), set([1])), to_inboxes(message(4), set([0, 2]))];
    assert_corrupt(store.append_inbox(appends, NOW).await);
    assert_eq!(
        store.tally(&app(), message(4).id).await.unwrap(),
        None,
        "the message that met damage is not dispatched"
    );
    assert_eq!(store.inbox_heads(&app(), &[Ordinal(2)]).await.unwrap(), [Seq::ZERO]);
    let next = store.append_inbox(vec![to_inboxes(message(5), set([1]))], NOW).await.unwrap();
    assert_eq!(next, [Appended::New], "what is whole goes on");
}
