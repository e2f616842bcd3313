//! What is swept while others read, and by whose clock.

use std::time::Duration;

use deadpool_redis::redis::cmd;
use model::{Clock as _, MessageId, Seq, SystemClock};
use store::{
    Retention as _, Timeline as _,
    redis::{Config, Redis},
};

use super::place::Server;
use crate::make::{NOW, app, message, set, to_timeline};

/// Takes the body of a message away, as a sweep does between the two reads of a page.
fn take_body(server: &Server, id: MessageId) {
    let mut plain = server.plain();
    let pattern = format!("{}{{*", server.config().prefix);
    let keys: Vec<Vec<u8>> = cmd("KEYS").arg(pattern).query(&mut plain).unwrap();
    let body = [b"b".as_slice(), &id.to_bytes()].concat();
    let key = keys.into_iter().find(|key| key.ends_with(&body)).unwrap();
    cmd("UNLINK").arg(key).exec(&mut plain).unwrap();
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
