//! What is swept while others read, and by whose clock.

use std::time::Duration;

use deadpool_redis::redis::cmd;
use model::{Clock as _, MessageId, Ordinal, Seq, SystemClock};
use store::{
    Error, Inbox as _, Retention as _, Timeline as _,
    redis::{Config, Redis},
};

use super::place::Server;
use crate::make::{NOW, app, message, set, to_inboxes, to_timeline};

/// The key that ends like this.
fn key_of(server: &Server, end: &[u8]) -> Vec<u8> {
    let pattern = format!("{}{{*", server.config().prefix);
    let keys: Vec<Vec<u8>> = cmd("KEYS").arg(pattern).query(&mut server.plain()).unwrap();
    keys.into_iter().find(|key| key.ends_with(end)).unwrap()
}

/// The key of this kind of a message.
fn key_of_message(server: &Server, kind: &[u8], id: MessageId) -> Vec<u8> {
    key_of(server, &[kind, &id.to_bytes()].concat())
}

/// Takes the body of a message away, as a sweep does between the two reads of a page.
fn take_body(server: &Server, id: MessageId) {
    cmd("UNLINK").arg(key_of_message(server, b"b", id)).exec(&mut server.plain()).unwrap();
}

#[tokio::test]
async fn a_page_is_full_though_some_of_it_was_swept_and_more_follows() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    let appends = (0..6).map(|n| to_timeline(message(n), set([1]))).collect();
    store.append_timeline(appends, NOW).await.unwrap();
    for n in [1, 2] {
        take_body(&server, message(n).id);
    }
    for (limit, expected) in [(1, &[0][..]), (2, &[0, 3]), (3, &[0, 3, 4]), (9, &[0, 3, 4, 5])] {
        let page = store.timeline_after(&app(), Seq::ZERO, limit).await.unwrap();
        let ids: Vec<_> = page.iter().map(|entry| entry.message.id).collect();
        assert_eq!(ids, expected.iter().map(|n| message(*n).id).collect::<Vec<_>>(), "of {limit}");
    }
}

/// A page that is shorter than asked is taken for the end, and what follows would be passed over.
#[tokio::test]
async fn a_page_of_an_inbox_is_full_though_bodies_are_gone_and_more_follows() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    store.append_inbox((0..12).map(|n| to_inboxes(message(n), set([1]))).collect(), NOW).await.unwrap();
    let page = async |limit| {
        let page = store.inbox_after(&app(), Ordinal(1), Seq::ZERO, limit).await.unwrap();
        page.iter().map(|entry| entry.message.id).collect::<Vec<_>>()
    };
    let ids = |numbers: &[u32]| numbers.iter().map(|n| message(*n).id).collect::<Vec<_>>();
    take_body(&server, message(0).id);
    assert_eq!(page(10).await, ids(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]));
    (1..10).for_each(|n| take_body(&server, message(n).id));
    assert_eq!((page(1).await, page(10).await), (ids(&[10]), ids(&[10, 11])), "also past pages without any");
}

#[tokio::test]
async fn nothing_is_swept_before_the_server_has_its_time() {
    let Some(server) = Server::new() else { return };
    // So far off a clock may be which appends.
    let skew_max = Some(Duration::from_mins(1));
    let store = Redis::connect(Config { skew_max, ..server.config() }).await.unwrap();
    let now = SystemClock.now();
    let brief = model::Message { expires_at: now + Duration::from_mins(5), ..message(1) };
    store.append_timeline(vec![to_timeline(brief, set([1]))], now).await.unwrap();
    assert_eq!(store.expire(now + Duration::from_mins(10)).await.unwrap(), 0);
    assert_eq!(store.timeline_after(&app(), Seq::ZERO, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_read_is_told_once_and_holds_up_nothing() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    store.append_inbox((0..3).map(|n| to_inboxes(message(n), set([1]))).collect(), NOW).await.unwrap();
    store.append_timeline((3..6).map(|n| to_timeline(message(n), set([1]))).collect(), NOW).await.unwrap();
    let mut plain = server.plain();
    let tally = key_of_message(&server, b"t", message(1).id);
    cmd("SET").arg(tally).arg("not a log").exec(&mut plain).unwrap();
    // Behind its head: an entry of a version that nobody knows.
    let entry = key_of_message(&server, b"m", message(4).id);
    cmd("SETRANGE").arg(entry).arg(40).arg(&[0xff_u8][..]).exec(&mut plain).unwrap();
    cmd("ZADD").arg(key_of(&server, b"}X")).arg(0).arg("no id").exec(&mut plain).unwrap();
    let (timeline, over) = (key_of(&server, b"}T"), message(0).expires_at);
    let told = store.expire(over).await;
    assert!(matches!(told, Err(Error::Corrupt(_))), "{told:?}");
    assert_eq!(store.expire(over).await.unwrap(), 0, "all the rest went with it");
    assert_eq!(store.inbox_after(&app(), Ordinal(1), Seq::ZERO, 9).await.unwrap(), []);
    assert_eq!(store.timeline_after(&app(), Seq::ZERO, 9).await.unwrap(), []);
    let left: bool = cmd("EXISTS").arg(timeline).query(&mut plain).unwrap();
    assert!(!left, "what cannot be read is out of the timeline too");
}
