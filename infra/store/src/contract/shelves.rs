//! What [`Shelves`](crate::Shelves) promises.

use model::{Env, Timestamp, shelved::Shelf};

use super::{NOW, Place, demo, demo_2};
use crate::{Error, shelves};

fn place(app: &model::AppId) -> shelves::Place<'_> {
    shelves::Place { app, env: Env::Live, shelf: Shelf::Attributes }
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// A record is what was put last, on its own shelf only; it is durable.
pub async fn a_record_is_what_was_put_last(at: &mut dyn Place) {
    let store = at.open().await;
    let (app, other) = (demo(), demo_2());
    assert!(store.put_record(place(&app), "city", b"one".to_vec(), None).await.unwrap());
    assert!(store.put_record(place(&app), "city", b"two".to_vec(), None).await.unwrap());
    for elsewhere in [
        place(&other),
        shelves::Place { env: Env::Test, ..place(&app) },
        shelves::Place { shelf: Shelf::Jobs, ..place(&app) },
    ] {
        assert_eq!(store.records(elsewhere, &names(&["city"])).await.unwrap(), [None]);
        assert_eq!(store.list_records(elsewhere, None, 9).await.unwrap(), []);
    }
    drop(store);
    let store = at.open().await;
    let found = store.records(place(&app), &names(&["nothing", "city"])).await.unwrap();
    assert_eq!(found, [None, Some(b"two".to_vec())]);
    assert_eq!(store.records(place(&app), &[]).await.unwrap(), [] as [Option<Vec<u8>>; 0]);
}

/// Pages go by the bytes of names, and follow the last one seen, also when it is gone.
pub async fn records_come_in_the_order_of_their_names(at: &mut dyn Place) {
    let store = at.open().await;
    let app = demo();
    for name in ["b", "aa", "z", "ab"] {
        store.put_record(place(&app), name, name.into(), None).await.unwrap();
    }
    let row = |name: &str| (name.to_owned(), name.as_bytes().to_vec());
    assert_eq!(store.list_records(place(&app), None, 2).await.unwrap(), [row("aa"), row("ab")]);
    assert!(store.remove_record(place(&app), "ab").await.unwrap());
    assert!(!store.remove_record(place(&app), "ab").await.unwrap());
    assert_eq!(store.list_records(place(&app), Some("ab"), 9).await.unwrap(), [row("b"), row("z")]);
}

/// A record is written under an edition only while nobody has changed the shelf since.
pub async fn a_change_that_came_second_writes_nothing(at: &mut dyn Place) {
    let store = at.open().await;
    let app = demo();
    assert_eq!(store.edition(place(&app)).await.unwrap(), 0);
    assert!(store.put_record(place(&app), "a", b"1".to_vec(), Some(0)).await.unwrap());
    assert!(!store.put_record(place(&app), "a", b"2".to_vec(), Some(0)).await.unwrap());
    let seen = store.edition(place(&app)).await.unwrap();
    store.remove_record(place(&app), "a").await.unwrap();
    assert!(store.edition(place(&app)).await.unwrap() > seen);
    assert!(!store.put_record(place(&app), "a", b"3".to_vec(), Some(seen)).await.unwrap());
    assert_eq!(store.records(place(&app), &names(&["a"])).await.unwrap(), [None]);
}

/// A note is found by its name and in no list, and stays for its time.
pub async fn a_note_is_kept_for_its_time(at: &mut dyn Place) {
    let store = at.open().await;
    let app = demo();
    let hour = |hours: u64| Timestamp::from_millis(NOW.as_millis() + hours * 3_600_000);
    store.note(place(&app), "n", b"first".to_vec(), hour(1)).await.unwrap();
    store.note(place(&app), "n", b"second".to_vec(), hour(3)).await.unwrap();
    store.expire(hour(2)).await.unwrap();
    assert_eq!(store.records(place(&app), &names(&["n"])).await.unwrap(), [Some(b"second".to_vec())]);
    assert_eq!(store.list_records(place(&app), None, 9).await.unwrap(), []);
    assert_eq!(store.edition(place(&app)).await.unwrap(), 0);
}

/// Of notes that are made once, the first stays, for its own time.
pub async fn the_first_note_stays(at: &mut dyn Place) {
    let store = at.open().await;
    let app = demo();
    let hour = |hours: u64| Timestamp::from_millis(NOW.as_millis() + hours * 3_600_000);
    for (name, later) in [("n", b"second"), ("m", b"fourth")] {
        let first = store.note_once(place(&app), name, b"first".to_vec(), hour(1)).await.unwrap();
        assert_eq!(first, b"first");
        assert_eq!(store.note_once(place(&app), name, later.to_vec(), hour(3)).await.unwrap(), b"first");
    }
    drop(store);
    let store = at.open().await;
    let found = store.records(place(&app), &names(&["n", "m"])).await.unwrap();
    assert_eq!(found, [Some(b"first".to_vec()), Some(b"first".to_vec())]);
}

/// What no key could hold is refused.
pub async fn a_name_that_is_too_long_is_rejected(at: &mut dyn Place) {
    let store = at.open().await;
    let put = store.put_record(place(&demo()), &"x".repeat(256), Vec::new(), None).await;
    assert!(matches!(put, Err(Error::Rejected(_))), "{put:?}");
}
