//! What backends and devices report outlives `kill -9` of whoever keeps it: once it was answered it is known, and filters
//! answer by it.

use std::{
    collections::BTreeMap,
    sync::Arc,
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
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::sandbox::{On, Sandbox};

/// Devices that report about themselves, and as many that a backend reports about.
const EACH: u32 = 8;
/// How often the process is killed, at random moments.
const KILLS: u32 = 8;
/// How long it lives each time.
const ALIVE_MS: std::ops::Range<u64> = 300..1_500;
/// Pause before what failed is tried again.
const AGAIN: Duration = Duration::from_millis(50);
/// How long everything may take to come to rest in the end.
const PATIENCE: Duration = Duration::from_secs(30);
/// Every so-many-th change is asked for at once.
const ASKED_EVERY: u64 = 5;

/// The greatest number that was acked for each device.
type Acked = BTreeMap<DeviceId, u64>;

fn patch(n: u64) -> Value {
    json!({ "attributes": { "n": n } })
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

/// Counts up as fast as acks come, and tries a number until it is acked; the last that was.
async fn count_up<F: Future<Output = Result<(), Error>>>(
    stop: CancellationToken,
    mut tell: impl FnMut(u64) -> F,
) -> u64 {
    let mut acked = 0;
    while !stop.is_cancelled() {
        match tell(acked + 1).await {
            Ok(()) => acked += 1,
            Err(Error::Unavailable(_)) => sleep(AGAIN).await,
            Err(error) => panic!("{error}"),
        }
    }
    acked
}

/// Reports by a device. Its connection ends with the process.
async fn by_itself(identity: Identity, sandbox: Arc<Sandbox>, stop: CancellationToken) -> (DeviceId, u64) {
    let (id, connection) = (identity.id.clone(), tokio::sync::Mutex::new(None));
    let tell = async |n: u64| {
        let mut connection = connection.lock().await;
        let mut reporter = match connection.take() {
            Some(reporter) => reporter,
            None => Reporter::connect(&identity, sandbox.mqtt).await?,
        };
        reporter.report(&patch(n)).await?;
        *connection = Some(reporter);
        Ok(())
    };
    (id, count_up(stop, tell).await)
}

/// Reports by a backend, which then asks now and again: whatever answer there is has the change.
async fn by_backend(id: DeviceId, api: Api, stop: CancellationToken) -> (DeviceId, u64) {
    let tell = async |n: u64| {
        api.amend(&id, &patch(n)).await?;
        if n.is_multiple_of(ASKED_EVERY) {
            let known = count(&api, &format!("attr.name == \"{id}\" && attr.n == {n}")).await;
            assert!(known.is_err() || known.as_ref().is_ok_and(|count| *count == 1), "{id}, {n}: {known:?}");
        }
        Ok(())
    };
    (id.clone(), count_up(stop, tell).await)
}

async fn count(api: &Api, filter: &str) -> Result<u64, Error> {
    let preview = api.post("/v1/audiences/preview", &json!({ "to": { "filter": filter } })).await?;
    preview["count"].as_u64().ok_or_else(|| Error::Corrupt(preview.to_string()))
}

/// Asks until everything that was acked is known, and says what is known then.
async fn known(api: &Api, acked: &Acked) -> BTreeMap<DeviceId, u64> {
    let deadline = Instant::now() + PATIENCE;
    let mut known = BTreeMap::new();
    for (id, acked) in acked {
        let n = loop {
            let n = api.device(id).await.unwrap()["attributes"]["n"].as_u64().unwrap_or_default();
            if n >= *acked {
                break n;
            }
            assert!(Instant::now() < deadline, "{id} was acked {acked}, and {n} is known");
            sleep(AGAIN).await;
        };
        assert!(n <= acked + 1, "{id} was acked {acked}, and {n} is known");
        known.insert(id.clone(), n);
    }
    known
}

async fn reports_outlive_kills(back_ends: On) {
    let Some(sandbox) = Sandbox::on(back_ends).map(Arc::new) else { return };
    let api = sandbox.api();
    // Where processes can meet, the filter node alone dies; else everything does.
    let (mut others, victim) = match back_ends {
        On::Embedded => (Vec::new(), sandbox.launch()),
        On::Servers => (vec!["ingest", "access-point"], alone(&sandbox, "filter")),
    };
    let mut running = Vec::new();
    for tier in others.drain(..) {
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
    let (stop, mut telling) = (CancellationToken::new(), JoinSet::new());
    for (at, identity) in (0..).zip(identities) {
        let named = json!({ "attributes": { "name": identity.id, "n": 0 } });
        api.amend(&identity.id, &named).await.unwrap();
        match at {
            0..EACH => telling.spawn(by_itself(identity, sandbox.clone(), stop.clone())),
            _ => telling.spawn(by_backend(identity.id, api.clone(), stop.clone())),
        };
    }
    for _ in 0..KILLS {
        sleep(Duration::from_millis(rand::random_range(ALIVE_MS))).await;
        server.kill().await.unwrap();
        server = Server::start(&victim, &api).await.unwrap();
    }
    stop.cancel();
    let acked: Acked = telling.join_all().await.into_iter().collect();
    println!("acked: {acked:?}");
    assert!(acked.values().all(|acked| *acked > u64::from(KILLS)), "too little was acked to mean anything: {acked:?}");
    for (id, n) in known(&api, &acked).await {
        let filter = format!("attr.name == \"{id}\" && attr.n == {n}");
        let deadline = Instant::now() + PATIENCE;
        let counted = loop {
            match count(&api, &filter).await {
                Err(Error::Unavailable(_)) if Instant::now() < deadline => sleep(AGAIN).await,
                counted => break counted.unwrap(),
            }
        };
        assert_eq!(counted, 1, "{filter}");
    }
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
