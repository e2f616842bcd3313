//! A server that freezes, is cut off, forgets, or is not set up to remember.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool_redis::redis::cmd;
use futures_util::future::join_all;
use model::{Clock as _, Env, Node, NodeId, Ordinal, Receipt, ReceiptBatch, Route, Seq, SystemClock, Tier};
use store::{
    Appended, Claim, Cursors as _, Entry, Error, Inbox as _, Messages as _, Nodes as _, Receipts as _, Routes as _,
    Store, Timeline as _, Uplinks as _,
    contract::private::Private,
    nodes::{ALL_HEARD, BEAT_EVERY},
    redis::{Config, Durability, Lost, Redis},
};

use super::{place::Server, private, proxy::Proxy};
use crate::make::{NOW, app, later, message, set, to_inboxes, to_timeline, uplink};

/// Every call has an answer by then, whatever the server does.
const CALL_MAX: Duration = Duration::from_secs(1);

/// A store is itself again by then.
const RECOVERY_MAX: Duration = Duration::from_secs(5);

async fn through(proxy: &Proxy, server: &Server) -> Arc<Redis> {
    Redis::connect(Config { url: proxy.url(), ..server.config() }).await.unwrap()
}

/// What a store says when it is not merely slow: beside other tests a flush may take longer than an answer may.
async fn said<T>(ask: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 0..9 {
        match ask().await {
            Err(Error::Unavailable(why)) if why.contains("no answer in time") => {}
            said => return said,
        }
    }
    ask().await
}

async fn eventually_works(store: &Redis) {
    let deadline = Instant::now() + RECOVERY_MAX;
    while let Err(error) = store.cursor(&app(), Ordinal(1)).await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What comes of a call when the replica has time: on a busy machine it may be late.
async fn in_time<T>(call: impl AsyncFn() -> Result<T, Error>) -> Result<T, Error> {
    let deadline = Instant::now() + RECOVERY_MAX;
    loop {
        match call().await {
            Err(Error::Unavailable(why)) if why.contains("0 of 1") && Instant::now() < deadline => {}
            done => return done,
        }
    }
}

/// One call of many kinds, by number.
async fn some_call(store: &Redis, n: u32) -> Result<(), Error> {
    match n % 5 {
        0 => store.append_inbox(vec![to_inboxes(message(n), set([n]))], NOW).await.map(drop),
        1 => store.inbox_after(&app(), Ordinal(n), Seq::ZERO, 9).await.map(drop),
        2 => store.claim(&app(), Ordinal(n), &"node-1".parse().unwrap(), NOW).await.map(drop),
        3 => store.append_timeline(vec![to_timeline(message(n), set([n]))], NOW).await.map(drop),
        _ => (store as &dyn Store).expire(NOW).await.map(drop),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_server_fails_every_call_within_a_second() {
    const CALLS: u32 = 2_000;
    let Some(server) = Server::new() else { return };
    let proxy = Proxy::new(&server.config().url).await;
    let store = through(&proxy, &server).await;
    eventually_works(&store).await;
    proxy.hold();
    for _ in 0..2 {
        let calls: Vec<_> = (0..CALLS)
            .map(|n| {
                let store = Arc::clone(&store);
                tokio::spawn(async move {
                    let start = Instant::now();
                    (some_call(&store, n).await, start.elapsed())
                })
            })
            .collect();
        for call in calls {
            let (outcome, took) = call.await.unwrap();
            assert!(matches!(outcome, Err(Error::Unavailable(_))), "{outcome:?}");
            assert!(took < CALL_MAX, "{took:?}");
        }
    }
    proxy.let_go();
    eventually_works(&store).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_in_mid_flight_repeats_nothing_and_loses_nothing() {
    const WRITERS: u32 = 16;
    const EACH: u32 = 100;
    let Some(server) = Server::new() else { return };
    let proxy = Arc::new(Proxy::new(&server.config().url).await);
    let store = through(&proxy, &server).await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let (store, proxy) = (Arc::clone(&store), Arc::clone(&proxy));
            tokio::spawn(async move {
                for n in 0..EACH {
                    let append = to_inboxes(message(writer * EACH + n), set([writer]));
                    if writer == 0 && n % 20 == 10 {
                        proxy.cut();
                    }
                    let deadline = Instant::now() + RECOVERY_MAX;
                    while let Err(error) = store.append_inbox(vec![append.clone()], NOW).await {
                        assert!(matches!(error, Error::Unavailable(_)) && Instant::now() < deadline, "{error}");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    for writer in 0..WRITERS {
        let entries = store.inbox_after(&app(), Ordinal(writer), Seq::ZERO, 200).await.unwrap();
        let ids: Vec<_> = entries.iter().map(|entry| entry.message.id).collect();
        let expected: Vec<_> = (0..EACH).map(|n| message(writer * EACH + n).id).collect();
        assert_eq!(ids, expected);
    }
}

#[tokio::test]
async fn forgotten_scripts_are_told_again() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    for n in 0..3 {
        cmd("SCRIPT").arg("FLUSH").exec(&mut server.plain()).unwrap();
        let append = |n| to_inboxes(message(n), set([1]));
        let appended = store.append_inbox(vec![append(n), append(n + 10)], NOW).await.unwrap();
        assert_eq!(appended, [Appended::New; 2]);
    }
    assert_eq!(store.inbox_after(&app(), Ordinal(1), Seq::ZERO, 9).await.unwrap().len(), 6);
}

#[tokio::test]
async fn a_clock_that_is_off_appends_nothing() {
    let Some(server) = Server::new() else { return };
    let config = Config { skew_max: Some(Duration::from_millis(250)), ..server.config() };
    let store = Redis::connect(config).await.unwrap();
    let off = store.append_inbox(vec![to_inboxes(message(1), set([1]))], NOW).await;
    assert!(matches!(&off, Err(Error::Unavailable(why)) if why.contains("clock_skew")), "{off:?}");
    let off = store.append_timeline(vec![to_timeline(message(1), set([1]))], NOW).await;
    assert!(matches!(off, Err(Error::Unavailable(_))));
    let now = SystemClock.now();
    let appended = store.append_inbox(vec![to_inboxes(message(1), set([1]))], now).await.unwrap();
    assert_eq!(appended, [Appended::New]);
}

#[tokio::test]
async fn a_server_that_is_slow_is_not_taken_for_a_clock_that_is_off() {
    let Some(server) = Server::new() else { return };
    let proxy = Proxy::new(&server.config().url).await;
    let config = Config { url: proxy.url(), skew_max: Some(Duration::from_millis(100)), ..server.config() };
    let store = Redis::connect(config).await.unwrap();
    let slowly = async || {
        proxy.hold();
        let goes_on = async {
            tokio::time::sleep(Duration::from_millis(250)).await;
            proxy.let_go();
        };
        tokio::join!(store.append_inbox(vec![to_inboxes(message(1), set([1]))], SystemClock.now()), goes_on).0
    };
    said(slowly).await.unwrap();
    let behind = said(async || {
        let now = SystemClock.now() - Duration::from_secs(1);
        store.append_inbox(vec![to_inboxes(message(2), set([1]))], now).await
    });
    assert!(matches!(behind.await, Err(Error::Unavailable(why)) if why.contains("clock_skew")));
}

#[tokio::test]
async fn a_server_that_lost_writes_is_noticed() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    let node: NodeId = "node-1".parse().unwrap();
    for _ in 0..5 {
        assert_eq!(store.sign_of_life(&node).await.unwrap(), None);
    }
    let canary = format!("{}{{*}}canary", server.config().prefix);
    cmd("HSET").arg(&canary).arg("node-1").arg(3).exec(&mut server.plain()).unwrap();
    assert_eq!(store.sign_of_life(&node).await.unwrap(), Some(Lost { signs: 2 }));
    assert_eq!(store.sign_of_life(&node).await.unwrap(), None, "it is told once");
    cmd("DEL").arg(&canary).exec(&mut server.plain()).unwrap();
    assert_eq!(store.sign_of_life(&node).await.unwrap(), Some(Lost { signs: 5 }));
}

#[tokio::test]
async fn lost_routes_are_noticed_and_told_again() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    let (old, new): (NodeId, NodeId) = ("node-1".parse().unwrap(), "node-2".parse().unwrap());
    let generation = store.generation(1).await.unwrap();
    assert_eq!(store.generation(2).await.unwrap(), generation);
    let mut routes = Vec::new();
    for device in (0..1_000).map(Ordinal) {
        let Claim { epoch, .. } = store.claim(&app(), device, &old, NOW).await.unwrap();
        routes.push((device, epoch));
    }
    server.clear();
    assert_ne!(store.generation(3).await.unwrap(), generation);
    let taken = store.claim(&app(), Ordinal(7), &new, NOW).await.unwrap();
    let mut there = store.restore(&app(), &old, &routes).await.unwrap();
    assert_eq!(store.restore(&app(), &old, &routes).await.unwrap(), there, "telling again changes nothing");
    let found = store.routes(&app(), &[Ordinal(7), Ordinal(8)]).await.unwrap();
    let later = taken.epoch > routes[7].1;
    let of_7 =
        if later { Route { node: new, epoch: taken.epoch } } else { Route { node: old.clone(), epoch: routes[7].1 } };
    assert_eq!(found, [Some(of_7), Some(Route { node: old, epoch: routes[8].1 })]);
    assert_eq!(there.remove(7), !later);
    assert!(there.iter().all(|is| *is));
}

/// A server that did not answer has forgotten nothing: what it has is older than what nobody could tell it.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_came_while_routes_were_away_takes_its_route_when_it_is_told() {
    let Some(server) = Server::new() else { return };
    let volatile = private::start(&[]);
    let store = Redis::connect(Config { routes_url: Some(volatile.url()), ..server.config() }).await.unwrap();
    let (old, new): (NodeId, NodeId) = ("node-1".parse().unwrap(), "node-2".parse().unwrap());
    let before = store.claim(&app(), Ordinal(1), &old, NOW).await.unwrap();
    assert!(before.routed);
    volatile.freeze();
    // After this there is no connection on which the claim would lie until the server goes on.
    assert!(store.routes(&app(), &[Ordinal(1)]).await.is_err());
    let Claim { epoch, previous, routed } = store.claim(&app(), Ordinal(1), &new, later(1)).await.unwrap();
    assert!(epoch > before.epoch);
    assert_eq!((previous, routed), (None, false));
    volatile.thaw();
    let deadline = Instant::now() + RECOVERY_MAX;
    let there = loop {
        match store.restore(&app(), &new, &[(Ordinal(1), epoch)]).await {
            Err(Error::Unavailable(_)) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            there => break there.unwrap(),
        }
    };
    assert_eq!(there, [true]);
    assert_eq!(store.restore(&app(), &old, &[(Ordinal(1), before.epoch)]).await.unwrap(), [false]);
    assert_eq!(store.routes(&app(), &[Ordinal(1)]).await.unwrap(), [Some(Route { node: new, epoch })]);
}

#[tokio::test]
async fn runs_that_were_forgotten_are_unknown_until_every_node_has_had_time_to_be_heard() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    let beat = async |id: &str, seen_at| {
        let (id, tiers, version) = (id.parse().unwrap(), vec![Tier::AccessPoint], String::new());
        let node = Node { id, boot: NOW, tiers, endpoint: None, filter: None, version, seen_at, drain: None };
        assert!(store.beat(node).await.unwrap());
    };
    for at in [NOW, NOW + ALL_HEARD] {
        beat("ap-1", at).await;
        beat("ap-2", at).await;
    }
    let (lost, back) = (NOW + ALL_HEARD, NOW + ALL_HEARD + BEAT_EVERY);
    assert_eq!(store.runs(lost).await.unwrap().len(), 2);
    server.clear();
    assert!(matches!(store.runs(lost).await, Err(Error::Unavailable(_))));
    beat("ap-1", lost).await;
    assert!(matches!(store.runs(lost).await, Err(Error::Unavailable(_))), "the other one has yet to say so");
    beat("ap-2", back).await;
    assert_eq!(store.runs(lost + ALL_HEARD).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_write_that_no_replica_has_is_not_durable() {
    let Some(server) = Server::new() else { return };
    let store = Redis::connect(Config { replicas: 1, ..server.config() }).await.unwrap();
    let alone = said(async || store.append_inbox(vec![to_inboxes(message(1), set([1]))], NOW).await).await;
    assert!(matches!(&alone, Err(Error::Unavailable(why)) if why.contains("0 of 1")), "{alone:?}");
    let store = server.connect().await;
    let again = said(async || store.append_inbox(vec![to_inboxes(message(1), set([1]))], NOW).await).await.unwrap();
    assert_eq!(again, [Appended::Again], "it was written, and the repetition says so");
}

/// While a primary is replaced, one connection may lead to the old one still, and the next to the new one.
#[tokio::test(flavor = "multi_thread")]
async fn what_another_primary_has_on_a_replica_is_not_what_was_written() {
    let Some(server) = Server::new() else { return };
    let (old, new) = (private::start(&[]), private::start(&[]));
    let _replica = private::replica_of(&new);
    let proxy = Proxy::new(&old.url()).await;
    let store = Redis::connect(Config { url: proxy.url(), replicas: 1, ..server.config() }).await.unwrap();
    proxy.lead_to(&new.url());
    let append = |n| store.append_inbox(vec![to_inboxes(message(n), set([n]))], NOW);
    for n in 1..=2 {
        let written = in_time(async || append(n).await).await;
        assert!(matches!(&written, Err(Error::Unavailable(why)) if why.contains("another")), "{written:?}");
    }
    let accepted = in_time(async || store.accept(&app(), Entry::from(&message(3)), None).await).await;
    assert!(matches!(&accepted, Err(Error::Unavailable(why)) if why.contains("another")), "{accepted:?}");
    let kept = in_time(async || store.keep_uplinks(vec![uplink(4)]).await).await;
    assert!(matches!(&kept, Err(Error::Unavailable(why)) if why.contains("another")), "{kept:?}");
    let inbox = async || store.inbox_after(&app(), Ordinal(1), Seq::ZERO, 9).await;
    let timeline = async || store.timeline_after(&app(), Seq::ZERO, 9).await;
    let uplinks = async || store.uplinks_after(&app(), Env::Live, None, None, 9).await;
    for read in [in_time(inbox).await.map(drop), in_time(timeline).await.map(drop), in_time(uplinks).await.map(drop)] {
        assert!(matches!(&read, Err(Error::Unavailable(why)) if why.contains("another")), "nobody sees it: {read:?}");
    }
    proxy.cut();
    eventually_works(&store).await;
    assert_eq!(in_time(inbox).await.unwrap(), [], "there it is new");
    in_time(async || append(1).await).await.unwrap();
    assert_eq!(in_time(inbox).await.unwrap().len(), 1);
}

/// In a cluster each node has replicas of its own, and a failover of which nobody hears.
#[tokio::test]
async fn in_a_cluster_what_no_replica_of_its_node_has_is_not_durable_and_seen_by_nobody() {
    let Some(server) = Server::new() else { return };
    let (node, replica) = private::cluster();
    let url = format!("redis+cluster://127.0.0.1:{}", node.port());
    let store = Redis::connect(Config { url, replicas: 1, ..server.config() }).await.unwrap();
    let append = |n| store.append_inbox(vec![to_inboxes(message(n), set([n]))], NOW);
    assert_eq!(append(1).await.unwrap(), [Appended::New]);
    replica.freeze();
    let asked = Instant::now();
    let written = append(2).await;
    assert!(matches!(&written, Err(Error::Unavailable(why)) if why.contains("NOREPLICAS")), "{written:?}");
    let accepted = store.accept(&app(), Entry::from(&message(3)), None).await;
    assert!(matches!(&accepted, Err(Error::Unavailable(_))), "{accepted:?}");
    let read = store.inbox_after(&app(), Ordinal(2), Seq::ZERO, 9).await.map(drop);
    assert!(matches!(&read, Err(Error::Unavailable(_))), "{read:?}");
    assert!(asked.elapsed() < 3 * CALL_MAX, "{:?}", asked.elapsed());
    store.cursor(&app(), Ordinal(1)).await.expect("whoever waits for no replica is not held up");
    replica.thaw();
    let deadline = Instant::now() + RECOVERY_MAX;
    while !append(2).await.is_ok_and(|again| again == [Appended::Again]) {
        assert!(Instant::now() < deadline, "the replica is back");
    }
    assert_eq!(store.inbox_after(&app(), Ordinal(2), Seq::ZERO, 9).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_server_that_does_not_say_who_it_is_serves_whoever_waits_for_no_replica() {
    let Some(server) = Server::new() else { return };
    let private = private::start(&[]);
    let _replica = private::replica_of(&private);
    cmd("ACL").arg("SETUSER").arg("default").arg("-info").exec(&mut private::plain(&private)).unwrap();
    let config = Config { url: private.url(), ..server.config() };
    let append = || vec![to_inboxes(message(1), set([1]))];
    Redis::connect(config.clone()).await.unwrap().append_inbox(append(), NOW).await.unwrap();
    let waits = Redis::connect(Config { replicas: 1, ..config }).await.unwrap();
    let refused = in_time(async || waits.append_inbox(append(), NOW).await).await;
    assert!(matches!(&refused, Err(Error::Unavailable(why)) if why.contains("allow INFO")), "{refused:?}");
}

#[tokio::test]
async fn the_receipts_of_a_broadcast_stay_as_small_as_what_they_say() {
    const DEVICES: u32 = 20_000;
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    store.append_timeline(vec![to_timeline(message(1), set(0..DEVICES))], NOW).await.unwrap();
    for part in (0..DEVICES).collect::<Vec<_>>().chunks(10) {
        let part = set(part.iter().copied());
        let receipt = Receipt { acked: part.clone(), sent: part, ..Receipt::new(message(1).id) };
        store.add_receipts(vec![ReceiptBatch { app: app(), receipts: vec![receipt] }]).await.unwrap();
    }
    let tally = store.tally(&app(), message(1).id).await.unwrap().unwrap();
    assert_eq!((tally.targeted.len(), tally.acked.len(), tally.sent.len()), (20_000, 20_000, 20_000));
    assert_eq!(store.timeline_after(&app(), Seq::ZERO, 9).await.unwrap()[0].audience.len(), 20_000);
    let (bytes, _) = server.memory();
    assert!(bytes < 20_000, "{bytes} bytes");
}

/// Nobody may have kept receipts for a while.
#[tokio::test]
async fn receipts_that_have_gathered_are_added_a_part_at_a_time() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    store.append_inbox(vec![to_inboxes(message(0), set([1]))], NOW).await.unwrap();
    let receipt = |n| Receipt { acked: set([1]), ..Receipt::new(message(n).id) };
    let batch = |n: u32| ReceiptBatch { app: app(), receipts: (n * 2_000..(n + 1) * 2_000).map(receipt).collect() };
    store.add_receipts((0..200).map(batch).collect()).await.unwrap();
    assert_eq!(store.tally(&app(), message(0).id).await.unwrap().unwrap().acked, set([1]));
}

/// The first of the Sentinels lies on a machine that is gone: nothing refuses a connection, and nothing answers.
#[tokio::test]
async fn one_sentinel_that_answers_is_enough() {
    let Some(server) = Server::new() else { return };
    let primary = private::start(&[]);
    let sentinel = Private::sentinel_of(&primary).unwrap();
    let silent = Proxy::new(&sentinel.url()).await;
    silent.hold();
    let [silent, sentinel] = [silent.url(), sentinel.url()].map(|url| url.replace("redis://", ""));
    let url = format!("redis+sentinel://{silent},{sentinel}/main");
    let store = Redis::connect(Config { url, ..server.config() }).await.unwrap();
    store.append_inbox(vec![to_inboxes(message(1), set([1]))], NOW).await.unwrap();
}

/// The same of a cluster.
#[tokio::test]
async fn one_node_of_a_cluster_that_answers_is_enough() {
    let Some(server) = Server::new() else { return };
    let (node, _replica) = private::cluster();
    let silent = Proxy::new(&node.url()).await;
    silent.hold();
    let [silent, node] = [silent.url(), node.url()].map(|url| url.replace("redis://", ""));
    let url = format!("redis+cluster://{silent},{node}");
    let store = Redis::connect(Config { url, ..server.config() }).await.unwrap();
    store.append_inbox(vec![to_inboxes(message(1), set([1]))], NOW).await.unwrap();
}

/// As long as no replica has them they are told again and again.
#[tokio::test]
async fn receipts_that_are_told_again_for_long_take_no_more_room() {
    let Some(server) = Server::new() else { return };
    let store = server.connect().await;
    store.append_timeline(vec![to_timeline(message(1), set(0..20_000))], NOW).await.unwrap();
    let half = set((0..20_000).step_by(2));
    let receipt = Receipt { acked: half.clone(), sent: half, ..Receipt::new(message(1).id) };
    let batch = ReceiptBatch { app: app(), receipts: vec![receipt] };
    let alone = Redis::connect(Config { replicas: 1, ..server.config() }).await.unwrap();
    for told in join_all((0..50).map(|_| alone.add_receipts(vec![batch.clone()]))).await {
        assert!(matches!(&told, Err(Error::Unavailable(_))), "{told:?}");
    }
    assert_eq!(store.tally(&app(), message(1).id).await.unwrap().unwrap().acked.len(), 10_000);
    let (bytes, _) = server.memory();
    assert!(bytes < 50_000, "{bytes} bytes");
}

#[tokio::test]
async fn a_server_that_would_forget_is_refused() {
    let Some(server) = Server::new() else { return };
    let private = private::start(&["--appendonly", "no"]);
    let config = Config { url: private.url(), durability: Durability::Checked, ..server.config() };
    let refused = Redis::connect(config.clone()).await.map(drop);
    assert!(matches!(&refused, Err(Error::Rejected(why)) if why.contains("appendonly")), "{refused:?}");
    let mut plain = private::plain(&private);
    let mut set =
        |setting: &str, value: &str| cmd("CONFIG").arg("SET").arg(setting).arg(value).exec(&mut plain).unwrap();
    set("appendonly", "yes");
    assert_eq!(Redis::connect(config.clone()).await.unwrap().warnings().len(), 1, "once a second is not always");
    set("appendfsync", "always");
    assert!(Redis::connect(config.clone()).await.unwrap().warnings().is_empty());
    set("maxmemory-policy", "allkeys-lru");
    assert!(matches!(Redis::connect(config.clone()).await.map(drop), Err(Error::Rejected(_))));
    drop(private);
    assert!(matches!(Redis::connect(config).await.map(drop), Err(Error::Unavailable(_))));
}
