//! How fast it is: `cargo test --release -p store --test it -- --ignored --nocapture measure::`.

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use model::{Cursor, Env, Epoch, Ordinal, Ordinals, Position, Seq};
use store::{
    CursorWrite, Cursors as _, Devices as _, Inbox as _, PAGE_MAX, Registration, Timeline as _, embedded::Embedded,
};

use crate::{
    make::{NOW, app, message, set, to_inboxes, to_timeline},
    place::Directory,
};

const CALLERS: u32 = 64;

/// An audience of a million.
static EVERYBODY: LazyLock<Ordinals> = LazyLock::new(|| set(0..1_000_000).compact());

/// How often a second `call` is done on an embedded store by `CALLERS` at a time.
async fn measure<F>(what: &str, calls: u32, each: u32, call: impl Fn(Arc<Embedded>, u32) -> F + Copy + Send + 'static)
where
    F: Future<Output = ()> + Send,
{
    let place = Directory::new();
    measure_on(Embedded::open(place.engine()).unwrap(), what, calls, each, call).await;
}

/// How often a second `call` is done on `store` by `CALLERS` at a time; each call gets a number of its own and does
/// `each` things.
pub(crate) async fn measure_on<S, F>(
    store: Arc<S>,
    what: &str,
    calls: u32,
    each: u32,
    call: impl Fn(Arc<S>, u32) -> F + Copy + Send + 'static,
) where
    S: Send + Sync + 'static,
    F: Future<Output = ()> + Send,
{
    let start = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let store = Arc::clone(&store);
            tokio::spawn(async move {
                let mut took = Vec::new();
                for n in (caller..calls).step_by(CALLERS as usize) {
                    let start = Instant::now();
                    call(Arc::clone(&store), n).await;
                    took.push(start.elapsed());
                }
                took
            })
        })
        .collect();
    let mut took: Vec<Duration> = Vec::new();
    for caller in callers {
        took.extend(caller.await.unwrap());
    }
    let rate = f64::from(calls * each) / start.elapsed().as_secs_f64();
    took.sort_unstable();
    let (p50, p99) = (took[took.len() / 2], took[took.len() * 99 / 100]);
    println!("{what}: {rate:.0}/s, a call p50 {p50:.2?} p99 {p99:.2?}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn inbox_appends() {
    measure("unicasts to 10,000 devices, one append a call", 200_000, 1, |store, n| async move {
        let append = to_inboxes(message(n), set([n % 10_000]));
        drop(store.append_inbox(vec![append], NOW).await.unwrap());
    })
    .await;
    measure("unicasts to 10,000 devices, 64 appends a call", 6_000, 64, |store, n| async move {
        let append = |n| to_inboxes(message(n), set([n % 10_000]));
        drop(store.append_inbox((n * 64..(n + 1) * 64).map(append).collect(), NOW).await.unwrap());
    })
    .await;
    measure("unicasts to 200 full inboxes, one append a call", 100_000, 1, |store, n| async move {
        let append = to_inboxes(message(n), set([n % 200]));
        drop(store.append_inbox(vec![append], NOW).await.unwrap());
    })
    .await;
    measure("multicasts to 1,000 devices each", 1_000, 1_000, |store, n| async move {
        let append = to_inboxes(message(n), set(n % 10 * 1_000..(n % 10 + 1) * 1_000));
        drop(store.append_inbox(vec![append], NOW).await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn timeline_appends() {
    measure("timeline appends for 1,000,000 devices each", 50_000, 1, |store, n| async move {
        let append = to_timeline(message(n), EVERYBODY.clone());
        drop(store.append_timeline(vec![append], NOW).await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn cursor_saves() {
    measure("cursors, 100 a call", 4_000, 100, |store, n| async move {
        let cursor = Cursor::at(Position { inbox: Seq(n.into()), timeline: Seq(n.into()) });
        let write =
            |device| CursorWrite { app: app(), device: Ordinal(device), epoch: Epoch(1), cursor: cursor.clone() };
        let writes = (n * 100..(n + 1) * 100).map(|device| write(device % 20_000)).collect();
        drop(store.save_cursors(writes).await.unwrap());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn registrations() {
    let register = |n| Registration { id: format!("device-{n}").parse().unwrap(), env: Env::Live, profile: None };
    measure("registrations, one a call", 50_000, 1, move |store, n| async move {
        drop(store.register(&app(), vec![register(n)], NOW).await.unwrap());
    })
    .await;
    measure("registrations, 1,000 a call", 1_000, PAGE_MAX as u32, move |store, n| async move {
        let page = (n * PAGE_MAX as u32..).take(PAGE_MAX).map(register).collect();
        drop(store.register(&app(), page, NOW).await.unwrap());
    })
    .await;
}
