//! What [`Apps`](crate::Apps) promises.

use model::{App, Env, Key, KeyId, Limits, Scope, UplinkRules};

use super::{NOW, Place, demo, demo_2, later, name};
use crate::Error;

fn app(id: &str) -> App {
    App {
        id: name(id),
        created_at: NOW,
        device_secret: format!("secret of {id}"),
        limits: Limits::default(),
        uplink: UplinkRules::default(),
    }
}

fn key(n: u32, app: &str) -> Key {
    let id = KeyId::new(Env::Test, later(n.into()), n.into());
    Key { id, app: name(app), digest: [7; 32], scopes: vec![Scope::Send], created_at: NOW, expires_at: None }
}

/// A second creation of the same name changes nothing.
pub async fn an_app_is_created_once(place: &mut dyn Place) {
    let store = place.open().await;
    assert!(store.create_app(app("demo")).await.unwrap());
    assert!(!store.create_app(App { device_secret: "other".into(), ..app("demo") }).await.unwrap());
    assert_eq!(store.app(&demo()).await.unwrap(), Some(app("demo")));
    assert_eq!(store.app(&demo_2()).await.unwrap(), None);
    assert!(store.create_app(app("demo-2")).await.unwrap());
    let mut all = store.apps().await.unwrap();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    assert_eq!(all, [app("demo"), app("demo-2")]);
}

/// Of an app that is not there nothing is made, and of two who change what they both have read the second changes
/// nothing.
pub async fn an_app_is_replaced_where_it_is(place: &mut dyn Place) {
    let store = place.open().await;
    let rules = UplinkRules { types: Some(["gps".to_owned()].into()), ..UplinkRules::default() };
    let other = App { uplink: rules, ..app("demo") };
    assert!(!store.replace_app(&app("demo"), other.clone()).await.unwrap());
    assert_eq!(store.app(&demo()).await.unwrap(), None);
    store.create_app(app("demo")).await.unwrap();
    assert!(store.replace_app(&app("demo"), other.clone()).await.unwrap());
    let second = App { device_secret: "another".into(), ..app("demo") };
    assert!(!store.replace_app(&app("demo"), second).await.unwrap());
    drop(store);
    let store = place.open().await;
    assert_eq!(store.apps().await.unwrap(), [other]);
}

/// A key of an app that is not there is rejected.
pub async fn a_key_needs_its_app(place: &mut dyn Place) {
    let store = place.open().await;
    assert!(matches!(store.put_key(key(1, "demo")).await, Err(Error::Rejected(_))));
    assert_eq!(store.key(&key(1, "demo").id).await.unwrap(), None);
    store.create_app(app("demo")).await.unwrap();
    store.put_key(key(1, "demo")).await.unwrap();
    assert_eq!(store.key(&key(1, "demo").id).await.unwrap(), Some(key(1, "demo")));
    let replaced = Key { scopes: vec![Scope::Read], ..key(1, "demo") };
    store.put_key(replaced.clone()).await.unwrap();
    assert_eq!(store.keys(&demo()).await.unwrap(), [replaced]);
}

/// An app lists its own keys and no others; a removed one is gone everywhere.
pub async fn keys_are_listed_by_app_until_removed(place: &mut dyn Place) {
    let store = place.open().await;
    for id in ["demo", "demo-2"] {
        store.create_app(app(id)).await.unwrap();
    }
    for (n, id) in [(1, "demo"), (2, "demo-2"), (3, "demo")] {
        store.put_key(key(n, id)).await.unwrap();
    }
    let mut of_demo = store.keys(&demo()).await.unwrap();
    of_demo.sort_by_key(|key| key.id);
    assert_eq!(of_demo, [key(1, "demo"), key(3, "demo")]);
    assert!(store.remove_key(&key(1, "demo").id).await.unwrap());
    assert!(!store.remove_key(&key(1, "demo").id).await.unwrap());
    assert_eq!(store.key(&key(1, "demo").id).await.unwrap(), None);
    assert_eq!(store.keys(&demo()).await.unwrap(), [key(3, "demo")]);
    assert_eq!(store.keys(&demo_2()).await.unwrap(), [key(2, "demo-2")]);
}

/// They are durable when the call returns.
pub async fn apps_and_keys_outlive_a_restart(place: &mut dyn Place) {
    let store = place.open().await;
    store.create_app(app("demo")).await.unwrap();
    store.put_key(key(1, "demo")).await.unwrap();
    drop(store);
    let store = place.open().await;
    assert_eq!(store.app(&demo()).await.unwrap(), Some(app("demo")));
    assert_eq!(store.keys(&demo()).await.unwrap(), [key(1, "demo")]);
}
