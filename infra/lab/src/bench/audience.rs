//! A filtered send in an app of many devices, few of them connected: exactly the audience receives it, once, whoever is
//! connected and whoever comes later; as one entry of the timeline, and for as many messages on the broker as there are
//! access points.

use std::{collections::BTreeSet, fmt, net::SocketAddr, sync::Arc, time::Duration};

use model::{DeviceId, Funnel, MessageId, SystemClock};
use mqtt::Version;
use serde::Serialize;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{CONNECT_PATIENCE, KEEP_ALIVE_S, Progress, name_of_run, report::ms};
use crate::{
    Api, Audience, Error, Fleet, History, Kind, Op, Orders, Record, Verdict,
    api::{Profile, Send},
    check,
    device::Line,
    enrol::{Plan, mint},
    import::{Imported, import},
    metrics,
    rest::wait_for_silence,
    sender::Sender,
};

/// One of so many devices is meant.
const MEANT_EVERY: u32 = 100;
/// What those carry.
const TAG: &str = "vip";
/// How long the message lives, in seconds.
const TTL_S: u64 = 3_600;
/// Tries of the send.
const TRIES: u32 = 20;
/// How long a stage may take, whatever its size.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the devices are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How often the platform is asked about the message.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// How large it is, and where.
#[derive(Clone, Debug)]
pub struct AudienceOptions {
    /// Devices to register; one of a hundred is meant.
    pub registered: u32,
    /// Of those, how many are connected when the message is sent: half of the meant ones among them. Half of the other
    /// meant ones come later, and the rest stays away.
    pub online: u32,
    /// The MQTT listeners, one an access point.
    pub mqtt: Vec<SocketAddr>,
    /// Where every process tells its metrics.
    pub metrics: Vec<SocketAddr>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct AudienceReport {
    /// The judgement.
    pub verdict: Verdict,
    /// The registration of all devices.
    pub import: Imported,
    /// From the first question about the audience to its answer: until then its index is made.
    pub asked: Duration,
    /// What the platform says in the end.
    pub funnel: Funnel,
    /// Connected devices when the message was sent.
    pub online: usize,
    /// Meant devices that were connected, and that came later.
    pub reached: (usize, usize),
    /// From the request to its answer.
    pub answered: Duration,
    /// From the request to the last of the connected.
    pub first: Duration,
    /// From the order to come to the last of those who came later.
    pub later: Duration,
    /// Places at which the message stood in the streams of devices: the same one for all.
    pub places: usize,
    /// Access points.
    pub access_points: usize,
    /// Messages on the broker: envelopes, bells, batches of receipts.
    pub on_broker: [f64; 3],
}

impl AudienceReport {
    /// Whether every promise was kept, the message was one entry, and the broker's share depended on access points alone.
    pub fn holds(&self) -> bool {
        let [envelopes, bells, _] = self.on_broker;
        let (first, later) = self.reached;
        let away = self.funnel.targeted.saturating_sub((first + later) as u64);
        let reached = self.funnel.acked == (first + later) as u64 && self.funnel.pending == away;
        self.verdict.holds()
            && reached
            && self.places == 1
            && (envelopes, bells) == (1.0, self.access_points as f64)
            && self.verdict.delivered == (first + later) as u64
    }
}

impl fmt::Display for AudienceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { import, funnel, online, reached: (first, later), places, access_points, .. } = self;
        let [envelopes, bells, receipts] = self.on_broker;
        writeln!(f, "{import}")?;
        writeln!(f, "audience   {} of {} devices; {online} are connected", funnel.targeted, import.devices)?;
        writeln!(f, "  asked      first answered after {:.1} s", self.asked.as_secs_f64())?;
        writeln!(f, "  answered   after {:.1} ms", ms(self.answered))?;
        writeln!(f, "  connected  {first} of them have it after {:.1} ms", ms(self.first))?;
        writeln!(f, "  later      {later} come, connect and have it within {:.1} ms", ms(self.later))?;
        writeln!(f, "  away       {} stay away: pending", funnel.pending)?;
        writeln!(f, "  entries    {places} in the timeline")?;
        write!(f, "  broker     {envelopes} envelope, {bells} bells for {access_points} access points, ")?;
        writeln!(f, "{receipts} batches of receipts for {} acks", funnel.acked)?;
        writeln!(f, "{}", self.verdict)?;
        write!(f, "audience   {}", if self.holds() { "holds" } else { "BROKEN" })
    }
}

/// Everybody who takes part.
struct Cast {
    run: String,
    history: Arc<History>,
    /// Connected from the start: the meant ones first.
    fleet: Fleet,
    online: usize,
    /// Meant devices connected from the start, and later.
    reached: (usize, usize),
    ids: Vec<DeviceId>,
}

/// Registers the devices, sends one message to a hundredth of them, and lets some come late.
///
/// # Errors
/// When the platform cannot be used at all; a broken promise is not an error but in the report.
pub async fn audience(api: &Api, options: &AudienceOptions, progress: Progress<'_>) -> Result<AudienceReport, Error> {
    let history = Arc::new(History::new(Arc::new(SystemClock)));
    let run = name_of_run();
    let import = register(api, &run, options.registered, &history, progress).await?;
    let asked = ask(api).await?;
    let cast = gather(api, run, options, history, progress).await?;
    let Cast { fleet, online, reached: (first, later), history, .. } = &cast;
    connect(fleet, *online).await?;
    progress("connected", *online, *online);

    let before = on_broker(&options.metrics).await?;
    let sender = Sender { api: api.clone(), history: history.clone(), number: 0, tries: TRIES };
    let begun = Instant::now();
    let send = Send::named(format!("{}-audience", cast.run), Audience::Tag(TAG.to_owned()), TTL_S);
    let sent = sender.send(&send).await?;
    let sent = sent.ok_or_else(|| Error::Corrupt("the send was refused".into()))?;
    let answered = begun.elapsed();
    let first_took = reach(history, *first, begun).await;
    progress("reached", *first, *first);
    let coming = Instant::now();
    connect(fleet, online + later).await?;
    let later_took = reach(history, first + later, coming).await;
    progress("reached", first + later, first + later);

    let funnel = settle(api, history, sent.id, (first + later) as u64).await?;
    let after = on_broker(&options.metrics).await?;
    note_end(&cast, &send.key, funnel);
    let records = cast.history.take()?;
    let report = AudienceReport {
        verdict: check(&records),
        import,
        asked,
        funnel,
        online: cast.online,
        reached: cast.reached,
        answered,
        first: first_took,
        later: later_took,
        places: places(&records),
        access_points: options.mqtt.len(),
        on_broker: std::array::from_fn(|at| after[at] - before[at]),
    };
    cast.fleet.close().await;
    Ok(report)
}

fn id(run: &str, n: u32) -> Result<DeviceId, Error> {
    format!("aud-{run}-{n}").parse().map_err(|error| Error::Corrupt(format!("{error}")))
}

fn tags(n: u32) -> BTreeSet<String> {
    let meant = n.is_multiple_of(MEANT_EVERY).then(|| TAG.to_owned());
    meant.into_iter().chain([format!("tag-{}", n % 7)]).collect()
}

/// Imports all devices, and writes down who they are.
async fn register(
    api: &Api,
    run: &str,
    registered: u32,
    history: &History,
    progress: Progress<'_>,
) -> Result<Imported, Error> {
    let ids = (0..registered).map(|n| id(run, n)).collect::<Result<Vec<_>, _>>()?;
    let note = |kind| {
        for (n, dev) in (0..).zip(&ids) {
            history.record(n, kind, Op::Register { dev: dev.clone(), user: None, tags: tags(n) });
        }
    };
    note(Kind::Invoke);
    let of = run.to_owned();
    let told = |done| progress("registering", done, registered as usize);
    let imported = import(api, registered.into(), move |n| device_row(&of, n), &told).await?;
    note(Kind::Ok);
    progress("registering", registered as usize, registered as usize);
    Ok(imported)
}

/// Asks who it would be, as people do before they send; how long it took until there was an answer.
async fn ask(api: &Api) -> Result<Duration, Error> {
    let (begun, question) = (Instant::now(), json!({ "to": Audience::Tag(TAG.to_owned()) }));
    loop {
        match api.post("/v1/audiences/preview", &question).await {
            Ok(_) => return Ok(begun.elapsed()),
            Err(Error::Unavailable(_)) if begun.elapsed() < PATIENCE => sleep(ASK_EVERY).await,
            Err(error) => return Err(error),
        }
    }
}

/// The `n`th device of a run as a backend uploads it.
pub fn device_row(run: &str, n: u64) -> String {
    let number = u32::try_from(n).unwrap_or(u32::MAX);
    let platform = if number.is_multiple_of(3) { "ios" } else { "android" };
    json!({
        "device_id": format!("aud-{run}-{n}"),
        "platform": platform,
        "app_version": format!("2.{}.0", n % 20),
        "tags": tags(number),
        "attributes": { "city": format!("city-{}", n % 340), "level": n % 100 },
    })
    .to_string()
}

/// Gives those that will ever connect their tokens.
async fn gather(
    api: &Api,
    run: String,
    options: &AudienceOptions,
    history: Arc<History>,
    progress: Progress<'_>,
) -> Result<Cast, Error> {
    let meant: Vec<u32> = (0..options.registered).step_by(MEANT_EVERY as usize).collect();
    let (first, later) = (meant.len() / 2, meant.len() / 4);
    let others = (0..options.registered).filter(|n| !n.is_multiple_of(MEANT_EVERY));
    let others = others.take((options.online as usize).saturating_sub(first));
    let mut numbers = meant[..first].to_vec();
    numbers.extend(others);
    let online = numbers.len();
    numbers.extend(&meant[first..first + later]);
    let plans = numbers.iter().map(|n| plan(&run, *n)).collect::<Result<Vec<_>, _>>()?;
    let ids = plans.iter().map(|plan| plan.id.clone()).collect();
    let total = plans.len();
    let identities = mint(api, plans, &|done| progress("tokens", done, total)).await?;
    let line = Line::to(options.mqtt.clone(), KEEP_ALIVE_S);
    let fleet = Fleet::new(identities, line, history.clone());
    Ok(Cast { run, history, fleet, online, reached: (first, later), ids })
}

fn plan(run: &str, n: u32) -> Result<Plan, Error> {
    let version = if n.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    Ok(Plan { id: id(run, n)?, profile: Profile::default(), version, states_after: n.is_multiple_of(3) })
}

async fn connect(fleet: &Fleet, count: usize) -> Result<(), Error> {
    fleet.order(0..count, Orders::ONLINE);
    let thousands = u32::try_from(count / 1_000).unwrap_or(u32::MAX);
    fleet.wait_connected(count, CONNECT_PATIENCE * (thousands + 1)).await
}

/// Until so many deliveries were seen, or for as long as patience lasts: what is missing then, the judge will say.
async fn reach(history: &History, deliveries: usize, begun: Instant) -> Duration {
    while history.delivered() < deliveries && begun.elapsed() < PATIENCE {
        sleep(LOOK_EVERY).await;
    }
    begun.elapsed()
}

/// Waits until the platform knows of every ack, and nothing happens any more.
async fn settle(api: &Api, history: &History, message: MessageId, acks: u64) -> Result<Funnel, Error> {
    let deadline = Instant::now() + PATIENCE;
    while api.message(message).await?.stats.acked < acks && Instant::now() < deadline {
        sleep(ASK_EVERY).await;
    }
    wait_for_silence(history, deadline).await;
    Ok(api.message(message).await?.stats)
}

fn note_end(cast: &Cast, msg: &str, funnel: Funnel) {
    for dev in &cast.ids {
        cast.history.record(0, Kind::Ok, Op::Synced { dev: dev.clone() });
    }
    cast.history.record(0, Kind::Ok, Op::Funnel { msg: msg.to_owned(), funnel });
}

fn places(records: &[Record]) -> usize {
    let place = |record: &Record| match &record.op {
        Op::Receive { seq, .. } => Some(*seq),
        _ => None,
    };
    records.iter().filter_map(place).collect::<BTreeSet<_>>().len()
}

async fn on_broker(processes: &[SocketAddr]) -> Result<[f64; 3], Error> {
    Ok([
        metrics::sum(processes, "fanfare_dispatched_total", "").await?,
        metrics::sum(processes, "fanfare_bells_total", "").await?,
        metrics::sum(processes, "fanfare_receipt_batches_total", "").await?,
    ])
}
