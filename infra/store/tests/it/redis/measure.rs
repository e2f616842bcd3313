//! How fast it is and what things take in memory, on a server with `appendfsync always`:
//! `cargo test --release -p store --test it -- --ignored --nocapture --test-threads=1 redis::measure::`.

use std::sync::Arc;

use model::{Cursor, Env, Epoch, Ordinal, Position, Receipt, ReceiptBatch, Seq};
use store::{
    CursorWrite, Cursors as _, Devices as _, Entry, Inbox as _, Messages as _, PAGE_MAX, Receipts as _, Registration,
    Retention as _, Routes as _, Timeline as _, redis::Redis,
};

use super::place::Server;
use crate::{
    make::{NOW, app, later, message, set, to_inboxes, to_timeline},
    measure::measure_on,
};

/// How often a second `call` is done by many callers, and what each thing costs the server.
async fn measure<F>(
    server: &Server,
    store: &Arc<Redis>,
    what: &str,
    calls: u32,
    each: u32,
    call: impl Fn(Arc<Redis>, u32) -> F + Copy + Send + 'static,
) where
    F: Future<Output = ()> + Send,
{
    let before = server.cpu();
    measure_on(Arc::clone(store), what, calls, each, call).await;
    println!("    {:.1} us of the server's processor each", (server.cpu() - before) * 1e6 / f64::from(calls * each));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn steps_of_a_unicast() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    measure(&server, &store, "accepts", 100_000, 1, |store, n| async move {
        drop(store.accept(&app(), Entry::from(&message(n)), None).await.unwrap());
    })
    .await;
    measure(&server, &store, "unicasts to 10,000 devices, one append a call", 100_000, 1, |store, n| async move {
        let append = to_inboxes(message(n), set([n % 10_000]));
        drop(store.append_inbox(vec![append], NOW).await.unwrap());
    })
    .await;
    measure(&server, &store, "unicasts to 10,000 devices, 64 appends a call", 3_000, 64, |store, n| async move {
        let append = |n| to_inboxes(message(1_000_000 + n), set([n % 10_000]));
        drop(store.append_inbox((n * 64..(n + 1) * 64).map(append).collect(), NOW).await.unwrap());
    })
    .await;
    measure(&server, &store, "reads of an inbox of about 30", 100_000, 1, |store, n| async move {
        drop(store.inbox_after(&app(), Ordinal(n % 10_000), Seq::ZERO, 1).await.unwrap());
    })
    .await;
    measure(&server, &store, "receipts, one a message, 100 a call", 1_000, 100, |store, n| async move {
        let told = |n| Receipt { sent: set([n % 10_000]), acked: set([n % 10_000]), ..Receipt::new(message(n).id) };
        let receipts = (n * 100..(n + 1) * 100).map(told).collect();
        store.add_receipts(vec![ReceiptBatch { app: app(), receipts }]).await.unwrap();
    })
    .await;
    measure(&server, &store, "cursors, 100 a call", 2_000, 100, |store, n| async move {
        let cursor = Cursor::at(Position { inbox: Seq(n.into()), timeline: Seq(n.into()) });
        let write =
            |device| CursorWrite { app: app(), device: Ordinal(device), epoch: Epoch(1), cursor: cursor.clone() };
        let writes = (n * 100..(n + 1) * 100).map(|device| write(device % 10_000)).collect();
        drop(store.save_cursors(writes).await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn steps_of_a_session_and_a_broadcast() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    let register = |n| Registration { id: format!("device-{n}").parse().unwrap(), env: Env::Live, profile: None };
    measure(&server, &store, "registrations, one a call", 50_000, 1, move |store, n| async move {
        drop(store.register(&app(), vec![register(n)], NOW).await.unwrap());
    })
    .await;
    measure(&server, &store, "claims", 100_000, 1, |store, n| async move {
        drop(store.claim(&app(), Ordinal(n), &"node-1".parse().unwrap(), NOW).await.unwrap());
    })
    .await;
    measure(&server, &store, "routes, 100 a call", 2_000, 100, |store, n| async move {
        let devices: Vec<_> = (n * 50..n * 50 + 100).map(Ordinal).collect();
        drop(store.routes(&app(), &devices).await.unwrap());
    })
    .await;
    measure(&server, &store, "multicasts to 1,000 devices each", 500, 1_000, |store, n| async move {
        let append = to_inboxes(message(n), set(n % 10 * 1_000..(n % 10 + 1) * 1_000));
        drop(store.append_inbox(vec![append], NOW).await.unwrap());
    })
    .await;
    measure(&server, &store, "timeline appends for 1,000,000 devices each", 15_000, 1, |store, n| async move {
        let append = to_timeline(message(100_000 + n), set(0..1_000_000));
        drop(store.append_timeline(vec![append], NOW).await.unwrap());
    })
    .await;
}

/// Prints what one of `count` things took since `before`.
fn each(server: &Server, what: &str, count: u64, before: &mut (u64, u64)) {
    let now = server.memory();
    let (bytes, keys) = (now.0 as i64 - before.0 as i64, now.1 as i64 - before.1 as i64);
    println!("{what}: {:.0} bytes and {:.2} keys each", bytes as f64 / count as f64, keys as f64 / count as f64);
    *before = now;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn memory() {
    const DEVICES: u32 = 200_000;
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    let mut before = (0, 0);
    for page in (0..DEVICES).collect::<Vec<_>>().chunks(PAGE_MAX) {
        let id = |n: &u32| format!("0190f3a4-7c1d-7e52-9b7a-{n:012}").parse().unwrap();
        let register = |n| Registration { id: id(n), env: Env::Live, profile: None };
        store.register(&app(), page.iter().map(register).collect(), NOW).await.unwrap();
    }
    each(&server, "a device with a name of 36 bytes", DEVICES.into(), &mut before);
    for page in (0..DEVICES).collect::<Vec<_>>().chunks(10_000) {
        let routes: Vec<_> = page.iter().map(|n| (Ordinal(*n), Epoch(0).next(NOW))).collect();
        store.restore(&app(), &"node-1".parse().unwrap(), &routes).await.unwrap();
    }
    each(&server, "a route", DEVICES.into(), &mut before);
    memory_of_messages(&server, &store, &mut before).await;
    store.append_timeline(vec![to_timeline(message(9_999_999), set(0..DEVICES))], NOW).await.unwrap();
    each(&server, "a broadcast to all", 1, &mut before);
    for (what, told) in
        [("one after another", set(0..15_000)), ("all over", set((0..DEVICES).step_by(13).take(15_000)))]
    {
        for part in told.iter().collect::<Vec<_>>().chunks(100) {
            let part: model::Ordinals = part.iter().copied().collect();
            let receipt = Receipt { acked: part.clone(), sent: part, ..Receipt::new(message(9_999_999).id) };
            store.add_receipts(vec![ReceiptBatch { app: app(), receipts: vec![receipt] }]).await.unwrap();
        }
        each(&server, &format!("receipts of 15,000 devices {what}, told by 100"), 1, &mut before);
    }
}

async fn memory_of_messages(server: &Server, store: &Redis, before: &mut (u64, u64)) {
    const MESSAGES: u32 = 20_000;
    const EACH: u32 = 10;
    for page in (0..MESSAGES).collect::<Vec<_>>().chunks(500) {
        let appends = page.iter().map(|n| to_inboxes(message(*n), set([n / EACH]))).collect();
        store.append_inbox(appends, NOW).await.unwrap();
    }
    each(server, "a unicast of 200 bytes, waiting, ten a device", MESSAGES.into(), before);
    let told = |n: u32| Receipt { sent: set([n / EACH]), acked: set([n / EACH]), ..Receipt::new(message(n).id) };
    for page in (0..MESSAGES).collect::<Vec<_>>().chunks(PAGE_MAX) {
        let receipts = page.iter().copied().map(told).collect();
        store.add_receipts(vec![ReceiptBatch { app: app(), receipts }]).await.unwrap();
    }
    each(server, "its receipts", MESSAGES.into(), before);
    for n in 0..10 {
        store.append_inbox(vec![to_inboxes(message(MESSAGES + n), set(100_000..101_000))], NOW).await.unwrap();
    }
    each(server, "an inbox entry of multicasts to 1,000, ten a device", 10_000, before);
    store.expire(later(3_600_000)).await.unwrap();
    while store.expire(later(3_600_000)).await.unwrap() > 0 {}
    println!("(all have expired)");
    each(server, "what is left of messages", 1, before);
}
