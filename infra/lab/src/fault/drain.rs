//! Devices are moved from one access point to another while messages go on, and the judgement over what they received.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use model::{DeviceId, DrainState, NodeId, SystemClock};
use mqtt::Version;
use rand::seq::IndexedRandom;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    task::JoinHandle,
    time::{Instant, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::server::{Launch, Server};
use crate::{
    Api, Audience, Error, Faults, Fleet, History, Orders, Verdict,
    api::{Profile, Send},
    check,
    device::Line,
    enrol::{Plan, enrol},
    history,
    rest::rest,
    sender::{Sender, Sent},
};

/// How long a message may take.
const TTL_S: u64 = 3_600;
/// Tries of a message.
const TRIES: u32 = 20;
/// Between two unicasts.
const UNICAST_EVERY: Duration = Duration::from_millis(10);
/// So many unicasts go by for each broadcast.
const BROADCAST_EVERY: u64 = 100;
/// How long the second access point may take to be known to the first.
const KNOWN_PATIENCE: Duration = Duration::from_secs(20);
/// How long devices may take to connect, for each 1,000 of them.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
/// How soon access points tell of a change: a little longer than between two of their signs of life.
const TOLD_WITHIN: Duration = Duration::from_millis(2_500);
/// How often it is looked how far things are.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The keep alive of devices, in seconds.
const KEEP_ALIVE_S: u16 = 60;
/// One of so many devices acks late, so that there is always something to hand over.
const LATE_EVERY: usize = 3;
/// How.
const LATE: Faults = Faults { ack_late: Some(Duration::from_millis(500)), ..Orders::ONLINE.faults };

/// The scenario.
#[derive(Clone, Debug)]
pub struct Drain {
    /// The API of a running server, with an administrator's key of an app that has no devices yet.
    pub api: Api,
    /// The access point that devices leave: its name and its listener.
    pub from: (NodeId, SocketAddr),
    /// How the access point that they go to is started, its name and its listener.
    pub to: (Launch, NodeId, SocketAddr),
    /// Devices.
    pub devices: u32,
    /// Devices told to go, a second.
    pub rate_per_s: u32,
    /// The part of the devices that goes; the others stay where they are.
    pub target_fraction: f64,
    /// How long everything may take to come to rest in the end.
    pub patience: Duration,
    /// Where the history is kept for people, whatever the verdict.
    pub history: Option<PathBuf>,
}

/// What the access point tells of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Told {
    /// How far it is.
    pub state: DrainState,
    /// Devices told to go.
    pub evicted: u64,
    /// Devices that came to another access point.
    pub moved: u64,
    /// Messages that had not been acked.
    pub unacked: u64,
    /// Of these, messages that are missing.
    pub lost: u64,
    /// The longest that a device was nowhere, in milliseconds.
    pub longest_gap_ms: u64,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct DrainReport {
    /// Devices.
    pub devices: usize,
    /// Of them, how many were to move.
    pub moving: usize,
    /// From the order until every one of those was connected elsewhere.
    pub took: Duration,
    /// Connections in the end, at the access point that they left and at the one that they went to.
    pub connections: [u64; 2],
    /// What the access point told.
    pub told: Told,
    /// The judgement.
    pub verdict: Verdict,
}

impl DrainReport {
    /// Whether every promise was kept, and the access point told the same.
    pub fn holds(&self) -> bool {
        let expected = [(self.devices - self.moving) as u64, self.moving as u64];
        self.verdict.holds() && self.told.lost == 0 && self.told.moved == expected[1] && self.connections == expected
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, moving, took, connections: [here, there], told, verdict } = self;
        writeln!(f, "drain       {moving} of {devices} devices elsewhere after {:.1} s", took.as_secs_f64())?;
        writeln!(f, "in the end  {here} connections here, {there} there")?;
        let Told { evicted, moved, unacked, lost, longest_gap_ms, .. } = told;
        write!(f, "told        {evicted} told to go, {moved} moved, {unacked} messages unacked, {lost} lost; ")?;
        writeln!(f, "longest gap {longest_gap_ms} ms")?;
        verdict.fmt(f)
    }
}

/// Connects devices, starts the second access point, moves them there while messages are sent, and judges.
///
/// # Errors
/// [`Error::Unavailable`] when devices or access points do not come, or do not go; [`Error::Corrupt`] when the server
/// breaks the contract. A broken promise is not an error but in the verdict.
pub async fn drain(scenario: &Drain) -> Result<DrainReport, Error> {
    let Drain { api, from: (node, listener), to: (launch, other, elsewhere), devices, .. } = scenario;
    let history = Arc::new(History::new(Arc::new(SystemClock)));
    let plans = (0..*devices).map(plan).collect::<Result<Vec<_>, _>>()?;
    let identities = enrol(api, plans, Some(&history), &|_| ()).await?;
    let ids: Vec<_> = identities.iter().map(|identity| identity.id.clone()).collect();
    let line = Line::to([*listener, *elsewhere], KEEP_ALIVE_S);
    let fleet = Fleet::new(identities, line, history.clone());
    fleet.order(0..fleet.len(), Orders::ONLINE);
    for n in (0..fleet.len()).step_by(LATE_EVERY) {
        fleet.order(n..n + 1, Orders { faults: LATE, ..Orders::ONLINE });
    }
    fleet.wait_connected(fleet.len(), CONNECT_PATIENCE * (devices / 1_000 + 1)).await?;
    let second = Server::start(launch, api).await?;
    wait_known(api, other, *elsewhere).await?;

    let stop = CancellationToken::new();
    let sending = send(api.clone(), history.clone(), ids.clone(), stop.clone());
    let begun = Instant::now();
    let order = json!({ "rate_per_s": scenario.rate_per_s, "target_fraction": scenario.target_fraction });
    api.post(&format!("/v1/nodes/{node}/drain"), &order).await?;
    let moving = (scenario.target_fraction * ids.len() as f64).ceil() as usize;
    let (told, took) = follow(api, node, (&fleet, moving), begun, scenario.patience).await?;
    stop.cancel();
    let sent = sending.await.map_err(|panic| Error::Corrupt(panic.to_string()))??;
    rest(api, &history, &sent, &ids, scenario.patience, &|_| ()).await?;
    let connections = [connections(api, node).await?, connections(api, other).await?];
    let records = history.take()?;
    if let Some(path) = &scenario.history {
        history::save(&records, path)?;
    }
    fleet.close().await;
    second.kill().await?;
    Ok(DrainReport { devices: ids.len(), moving, took, connections, told, verdict: check(&records) })
}

fn plan(n: u32) -> Result<Plan, Error> {
    let id = format!("drain-{n}").parse().map_err(|error| Error::Corrupt(format!("{error}")))?;
    let version = if n.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    Ok(Plan { id, profile: Profile::default(), version, states_after: false })
}

/// What an access point tells of itself.
#[derive(Deserialize)]
struct Endpoint {
    address: String,
    connections: u64,
}

impl Endpoint {
    async fn of(api: &Api, node: &NodeId) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct View {
            endpoint: Endpoint,
        }
        let view = api.get(&format!("/v1/nodes/{node}")).await?;
        let View { endpoint } = serde_json::from_value(view).map_err(|error| Error::Corrupt(error.to_string()))?;
        Ok(endpoint)
    }
}

/// Waits until an access point is known to run, and so devices can be sent there. An earlier one of its name, whose lease
/// has not ended yet, was elsewhere.
async fn wait_known(api: &Api, node: &NodeId, listener: SocketAddr) -> Result<(), Error> {
    let deadline = Instant::now() + KNOWN_PATIENCE;
    loop {
        let known = Endpoint::of(api, node).await;
        if known.as_ref().is_ok_and(|endpoint| endpoint.address == listener.to_string()) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let other =
                |endpoint: Endpoint| Error::unavailable("not_known", format!("{node} is at {}", endpoint.address));
            return Err(known.map_or_else(|error| error, other));
        }
        sleep(LOOK_EVERY).await;
    }
}

/// How many connections an access point tells of, once it has had time to tell of the last change.
async fn connections(api: &Api, node: &NodeId) -> Result<u64, Error> {
    sleep(TOLD_WITHIN).await;
    Ok(Endpoint::of(api, node).await?.connections)
}

/// Waits until the drain is over and every device is connected; says what is told of it, and when the last device was.
async fn follow(
    api: &Api,
    node: &NodeId,
    (fleet, moving): (&Fleet, usize),
    begun: Instant,
    patience: Duration,
) -> Result<(Told, Duration), Error> {
    #[derive(Deserialize)]
    struct View {
        drain: Told,
    }
    let mut took = None;
    while begun.elapsed() < patience {
        let view = api.get(&format!("/v1/nodes/{node}")).await?;
        let View { drain: told } = serde_json::from_value(view).map_err(|error| Error::Corrupt(error.to_string()))?;
        if told.evicted == moving as u64 && fleet.connected() == fleet.len() {
            took.get_or_insert_with(|| begun.elapsed());
        }
        if let Some(took) = took.filter(|_| told.state == DrainState::Done) {
            return Ok((told, took));
        }
        sleep(LOOK_EVERY).await;
    }
    let connected = fleet.connected();
    Err(Error::unavailable("not_drained", format!("{connected} of {} devices after {patience:?}", fleet.len())))
}

/// Sends unicasts to devices at random, and now and then something to all, until `stop`.
fn send(
    api: Api,
    history: Arc<History>,
    ids: Vec<DeviceId>,
    stop: CancellationToken,
) -> JoinHandle<Result<Vec<Sent>, Error>> {
    tokio::spawn(async move {
        let sender = Sender { api, history, number: 0, tries: TRIES };
        let (mut accepted, mut turns) = (Vec::new(), interval(UNICAST_EVERY));
        for n in 0_u64.. {
            turns.tick().await;
            if stop.is_cancelled() {
                break;
            }
            let to = match ids.choose(&mut rand::rng()) {
                Some(id) if n % BROADCAST_EVERY != 0 => Audience::device(id),
                _ => Audience::All,
            };
            accepted.extend(sender.send(&Send::named(format!("drain-{n}"), to, TTL_S)).await?);
        }
        Ok(accepted)
    })
}
