//! What backends and devices report outlives `kill -9` of whoever keeps it: once it was answered it is known, and filters
//! answer by it.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use lab::{
    Api, Error, Plan,
    api::Profile,
    device::{Identity, reporter::Reporter},
    enrol,
    fault::{Launch, Server, steady_address},
};
use model::DeviceId;
use mqtt::Version;
use serde_json::{Value, json};
use tokio::{sync::Mutex, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::sandbox::{On, Sandbox};

/// Devices that report about themselves, and as many that a backend reports about.
const EACH: u32 = 8;
/// How often the process is killed while reports come.
const KILLS: u32 = 8;
/// Each report is kept apart from this many before it, so that one that was lost is not made up for by the next.
const SLOTS: u64 = 60;
/// How long reports come before.
const ALIVE_MS: std::ops::Range<u64> = 300..1_500;
/// Pause before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long everything may take to come to rest in the end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Every so-many-th change is asked for at once.
const ASKED_EVERY: u64 = 5;

/// The greatest number that was acked for each device.
type Acked = BTreeMap<DeviceId, u64>;

fn slot(n: u64) -> String {
    format!("slot_{}", n % SLOTS)
}

fn patch(n: u64) -> Value {
    json!({ "attributes": { "n": n, slot(n): n } })
}

/// A tier in a process of its own.
fn alone(sandbox: &Sandbox, tier: &str) -> Launch {
    let mut launch = Launch { arguments: vec![tier.to_owned()], ..sandbox.launch() };
    let set = |name: &str, value: String| (format!("FANFARE__{name}"), value);
    launch.environment.extend([
        set("NODE", tier.to_owned()),
        set("DATA_DIR", sandbox.dir.path().join(tier).display().to_string()),
        set("METRICS__LISTEN", steady_address().unwrap().to_string()),
    ]);
    launch
}

/// Counts up from what was acked, as fast as acks come, and tries a number until it is acked; the last that was.
async fn count_up<F: Future<Output = Result<(), Error>>>(
    mut acked: u64,
    stop: CancellationToken,
    mut tell: impl FnMut(u64) -> F,
) -> u64 {
    while !stop.is_cancelled() {
        match tell(acked + 1).await {
            Ok(()) => acked += 1,
            Err(Error::Unavailable(_)) => sleep(AGAIN).await,
            Err(error) => panic!("{error}"),
        }
    }
    acked
}

/// Reports by a device.
async fn by_itself(identity: Identity, mqtt: SocketAddr, acked: u64, stop: CancellationToken) -> (DeviceId, u64) {
    let connection = Mutex::new(None);
    let tell = async |n: u64| {
        let mut connection = connection.lock().await;
        let mut reporter = match connection.take() {
            Some(reporter) => reporter,
            None => Reporter::connect(&identity, mqtt).await?,
        };
        reporter.report(&patch(n)).await?;
        *connection = Some(reporter);
        Ok(())
    };
    (identity.id.clone(), count_up(acked, stop, tell).await)
}

/// Reports by a backend, which then asks now and again: whatever answer there is has the change.
async fn by_backend(id: DeviceId, api: Api, acked: u64, stop: CancellationToken) -> (DeviceId, u64) {
    let tell = async |n: u64| {
        api.amend(&id, &patch(n)).await?;
        if n.is_multiple_of(ASKED_EVERY) {
            let known = count(&api, &format!("attr.name == \"{id}\" && attr.n == {n}")).await;
            assert!(known.is_err() || known.as_ref().is_ok_and(|count| *count == 1), "{id}, {n}: {known:?}");
        }
        Ok(())
    };
    (id.clone(), count_up(acked, stop, tell).await)
}

/// Lets everybody report until the process is killed; what was acked by then.
async fn reports(sandbox: &Sandbox, identities: &[Identity], known: &Acked, victim: Server) -> Acked {
    let (stop, mut reporting) = (CancellationToken::new(), JoinSet::new());
    for (at, identity) in (0..).zip(identities.iter().cloned()) {
        let acked = known.get(&identity.id).copied().unwrap_or_default();
        match at {
            0..EACH => reporting.spawn(by_itself(identity, sandbox.mqtt, acked, stop.clone())),
            _ => reporting.spawn(by_backend(identity.id, sandbox.api(), acked, stop.clone())),
        };
    }
    sleep(Duration::from_millis(rand::random_range(ALIVE_MS))).await;
    victim.kill().await.unwrap();
    stop.cancel();
    reporting.join_all().await.into_iter().collect()
}

async fn count(api: &Api, filter: &str) -> Result<u64, Error> {
    let preview = api.post("/v1/audiences/preview", &json!({ "to": { "filter": filter } })).await?;
    preview["count"].as_u64().ok_or_else(|| Error::Corrupt(preview.to_string()))
}

/// Asks until everything that was acked is known, and says what is known then.
async fn known(api: &Api, acked: &Acked) -> Acked {
    let deadline = Instant::now() + PATIENCE;
    let mut known = BTreeMap::new();
    for (id, acked) in acked {
        let attributes = loop {
            let device = api.device(id).await;
            match &device {
                Ok(device) if device["attributes"]["n"].as_u64() >= Some(*acked) => break device["attributes"].clone(),
                _ => assert!(Instant::now() < deadline, "{id} was acked {acked}, and is known by {device:?}"),
            }
            sleep(AGAIN).await;
        };
        let n = attributes["n"].as_u64().unwrap_or_default();
        assert!(n <= acked + 1, "{id} was acked {acked}, and {n} is known");
        for kept in (acked + 1).saturating_sub(SLOTS).max(1)..=*acked {
            let is = attributes[&slot(kept)].as_u64();
            // One more was known before the kill, and what was acked before it may be told again just now.
            let one_more = is == Some(acked + 1) && kept + SLOTS == acked + 1;
            assert!(is == Some(kept) || one_more, "{id} was acked {acked}: {kept} is lost of {attributes}");
        }
        known.insert(id.clone(), n);
    }
    known
}

/// Asks until there is an answer.
async fn counted(api: &Api, filter: &str) -> u64 {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match count(api, filter).await {
            Err(Error::Unavailable(_)) if Instant::now() < deadline => sleep(AGAIN).await,
            counted => return counted.unwrap(),
        }
    }
}

async fn reports_outlive_kills(back_ends: On) {
    let Some(sandbox) = Sandbox::on(back_ends) else { return };
    let api = sandbox.api();
    // Where processes can meet, the filter node alone dies; else everything does.
    let (others, victim) = match back_ends {
        On::Embedded => (Vec::new(), sandbox.launch()),
        On::Servers => (vec!["ingest", "access-point"], alone(&sandbox, "filter")),
    };
    let mut running = Vec::new();
    for tier in others {
        running.push(Server::start(&alone(&sandbox, tier), &api).await.unwrap());
    }
    let mut server = Server::start(&victim, &api).await.unwrap();
    let plan = |n: u32| Plan {
        id: format!("dev-{n}").parse().unwrap(),
        profile: Profile::default(),
        version: Version::V5,
        states_after: false,
    };
    let identities = enrol(&api, (0..2 * EACH).map(plan).collect(), None, &|_| ()).await.unwrap();
    for Identity { id, .. } in &identities {
        api.amend(id, &json!({ "attributes": { "name": id, "n": 0 } })).await.unwrap();
    }
    let mut is_known = Acked::new();
    for _ in 0..KILLS {
        let acked = reports(&sandbox, &identities, &is_known, server).await;
        assert!(acked.iter().all(|(id, n)| *n > is_known.get(id).copied().unwrap_or_default()), "{acked:?}");
        server = Server::start(&victim, &api).await.unwrap();
        is_known = known(&api, &acked).await;
        // One more may have been taken whose ack the kill cut off, and be known a moment later.
        for (id, n) in &is_known {
            assert_eq!(counted(&api, &format!("attr.name == \"{id}\" && attr.n >= {n}")).await, 1, "{id}: {n}");
        }
    }
    println!("known: {is_known:?}");
    server.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_outlives_kills_of_the_whole_process() {
    reports_outlive_kills(On::Embedded).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_reported_outlives_kills_of_the_filter_node_on_rabbitmq_and_redis() {
    reports_outlive_kills(On::Servers).await;
}
