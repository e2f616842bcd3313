//! The simulated part of `fanfare demo`: a thousand devices, every lane, a crowd that comes back, and a judgement.

mod report;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{StreamExt, TryStreamExt, stream};
use model::{Clock, DeviceId, Funnel, GroupId, UserId};
use mqtt::Version;
use tokio::time::{Instant, sleep};

pub use report::{DemoReport, LaneReport};

use crate::{
    Api, Audience, Error, Fleet, History, Orders,
    api::{Profile, Send},
    check,
    device::Line,
    enrol::{Plan, enrol, gather},
    rest::rest,
    sender::{Sender, Sent},
};

/// Requests under way at a time.
const UNDER_WAY: usize = 16;
/// Tries of each request.
const TRIES: u32 = 20;
/// How long a message may take.
const TTL_S: u64 = 3_600;
/// Every so-many-th device is in the group, those that are away too.
const GROUP_EVERY: usize = 5;
/// Every so-many-th device carries the tag that the filtered sends ask for.
const VIP_EVERY: u32 = 10;
/// The tag.
const VIP: &str = "vip";
/// How long devices may take to connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// How long the devices that are online may take to have everything, before the others come back.
const ONLINE_PATIENCE: Duration = Duration::from_secs(30);
/// How often progress is told while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What the names of messages begin with, by kind of audience.
const KINDS: [&str; 6] = ["unicast", "list", "user", "group", "filter", "broadcast"];

/// What to do.
#[derive(Clone, Debug)]
pub struct Demo {
    /// The server's API, with a product's key of an app that has no devices yet.
    pub api: Api,
    /// Its MQTT listener.
    pub mqtt: SocketAddr,
    /// Devices.
    pub devices: u32,
    /// How many of them are away at first.
    pub away: u32,
    /// Whether the server takes filtered sends.
    pub filtered: bool,
    /// How long everything may take to come to rest in the end.
    pub patience: Duration,
}

/// How far the demo has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Devices are being registered.
    Registering,
    /// The first devices are connecting.
    Connecting,
    /// Messages are being sent.
    Sending,
    /// Devices that are online are receiving.
    Delivering,
    /// The devices that were away are connecting.
    ComingBack,
    /// Messages are coming to rest.
    Settling,
    /// The history is being judged.
    Judging,
}

/// What hears of progress: the stage, how much of it is done, and of how much.
pub type Progress<'a> = &'a (dyn Fn(Stage, usize, usize) + Sync);

/// Runs the demo.
///
/// # Errors
/// When the platform cannot be used at all; a broken promise is not an error but in the report.
pub async fn demo(options: &Demo, clock: Arc<dyn Clock>, progress: Progress<'_>) -> Result<DemoReport, Error> {
    let begun = Instant::now();
    let history = Arc::new(History::new(clock));
    let total = options.devices as usize;
    let plans = (0..options.devices).map(plan).collect::<Result<Vec<_>, _>>()?;
    let told = |done| progress(Stage::Registering, done, total);
    let identities = enrol(&options.api, plans, Some(&history), &told).await?;
    let ids: Vec<_> = identities.iter().map(|identity| identity.id.clone()).collect();
    let members: Vec<_> = ids.iter().step_by(GROUP_EVERY).cloned().collect();
    let group = gather(&options.api, "demo", &members, &history).await?;

    let line = Line::to([options.mqtt], 60);
    let fleet = Fleet::new(identities, line, history.clone());
    let online = total - options.away as usize;
    come(&fleet, online, Stage::Connecting, progress).await?;

    let sender = Sender { api: options.api.clone(), history: history.clone(), number: 0, tries: TRIES };
    let messages = messages(&ids, group, options.filtered)?;
    let sent = send_all(&sender, &messages, progress).await?;
    let first = deliver_online(&history, &messages, &ids[..online], progress).await;

    come(&fleet, total, Stage::ComingBack, progress).await?;
    let told = |done| progress(Stage::Settling, done, sent.len());
    let funnels = rest(&options.api, &history, &sent, &ids, options.patience, &told).await?;
    progress(Stage::Judging, 0, 1);
    let verdict = check(&history.take()?);
    progress(Stage::Judging, 1, 1);
    fleet.close().await;
    Ok(DemoReport {
        devices: total,
        away: options.away as usize,
        first,
        lanes: lanes(&funnels),
        verdict,
        took: begun.elapsed(),
    })
}

fn plan(n: u32) -> Result<Plan, Error> {
    let id = format!("demo-{n:04}").parse().map_err(|error| Error::Corrupt(format!("{error}")))?;
    let tags = if n.is_multiple_of(VIP_EVERY) { [VIP.to_owned()].into() } else { [].into() };
    let profile = Profile { user_id: Some(user(n / 2)?), tags };
    let version = if n.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    Ok(Plan { id, profile, version, states_after: n.is_multiple_of(3) })
}

/// Two devices each.
fn user(n: u32) -> Result<UserId, Error> {
    format!("user-{n:03}").parse().map_err(|error| Error::Corrupt(format!("{error}")))
}

async fn come(fleet: &Fleet, count: usize, stage: Stage, progress: Progress<'_>) -> Result<(), Error> {
    fleet.order(0..count, Orders::ONLINE);
    let told = async {
        loop {
            progress(stage, fleet.connected(), count);
            sleep(LOOK_EVERY).await;
        }
    };
    let connected = tokio::select! {
        connected = fleet.wait_connected(count, CONNECT_PATIENCE) => connected,
        () = told => Ok(()),
    };
    progress(stage, fleet.connected(), count);
    connected
}

/// Every lane and every kind of audience, broadcasts among the rest.
fn messages(ids: &[DeviceId], group: GroupId, filtered: bool) -> Result<Vec<Send>, Error> {
    let run = rand::random::<u32>();
    let mut messages = Vec::new();
    let mut add = |kind: &str, audience| {
        let n = messages.len();
        messages.push(Send::named(format!("{kind}-{run:08x}-{n}"), audience, TTL_S));
    };
    for (n, id) in ids.iter().enumerate().step_by(2) {
        add("unicast", Audience::device(id));
        match n % 100 {
            0 => add("broadcast", Audience::All),
            20 => add("list", Audience::Devices(ids.iter().skip(n % 7).step_by(20).cloned().collect())),
            40 => add("group", Audience::Group(group)),
            60 if filtered => add("filter", Audience::Tag(VIP.to_owned())),
            80 => add("user", Audience::Users(vec![user(u32::try_from(n / 4).unwrap_or(0))?])),
            _ => {}
        }
    }
    Ok(messages)
}

async fn send_all(sender: &Sender, messages: &[Send], progress: Progress<'_>) -> Result<Vec<Sent>, Error> {
    let mut done = 0;
    let sends = stream::iter(messages).map(|message| sender.send(message)).buffered(UNDER_WAY);
    let sent: Vec<_> = sends
        .inspect_ok(|_| {
            done += 1;
            progress(Stage::Sending, done, messages.len());
        })
        .try_collect()
        .await?;
    Ok(sent.into_iter().flatten().collect())
}

/// Waits until the devices that are online have what they are to have, and says how many deliveries that were.
async fn deliver_online(history: &History, messages: &[Send], online: &[DeviceId], progress: Progress<'_>) -> usize {
    let expected = messages.iter().map(|message| targets(&message.to, online)).sum();
    let deadline = Instant::now() + ONLINE_PATIENCE;
    loop {
        let delivered = history.delivered();
        progress(Stage::Delivering, delivered, expected);
        if delivered >= expected || Instant::now() >= deadline {
            return delivered;
        }
        sleep(LOOK_EVERY).await;
    }
}

/// How many of the first devices an audience of this demo has.
fn targets(audience: &Audience, online: &[DeviceId]) -> usize {
    match audience {
        Audience::All => online.len(),
        Audience::Devices(devices) => devices.iter().filter(|device| online.contains(device)).count(),
        Audience::Users(users) => {
            let owners = (0..online.len()).map(|n| user(u32::try_from(n / 2).unwrap_or(u32::MAX)));
            owners.filter(|owner| owner.as_ref().is_ok_and(|owner| users.contains(owner))).count()
        }
        Audience::Group(_) => online.len().div_ceil(GROUP_EVERY),
        Audience::Tag(_) => online.len().div_ceil(VIP_EVERY as usize),
    }
}

/// The funnels of all messages, added up by kind of audience.
fn lanes(funnels: &[(Sent, Funnel)]) -> Vec<LaneReport> {
    let of = |kind: &&'static str| {
        let mut lane = LaneReport { kind, messages: 0, unbalanced: 0, funnel: Funnel::default() };
        for (_, funnel) in funnels.iter().filter(|(sent, _)| sent.msg.starts_with(kind)) {
            lane.add(funnel);
        }
        lane
    };
    KINDS.iter().map(of).filter(|lane| lane.messages > 0).collect()
}

#[cfg(test)]
mod tests {
    use model::Timestamp;

    use super::*;

    #[test]
    fn every_kind_of_audience_is_sent_to_and_its_online_targets_are_known() {
        let ids: Vec<_> = (0..1_000).map(|n| plan(n).unwrap().id).collect();
        let group = GroupId::new(Timestamp::from_millis(1), 1);
        let messages = messages(&ids, group, true).unwrap();
        for kind in KINDS {
            assert!(messages.iter().any(|message| message.key.starts_with(kind)), "{kind}");
        }
        assert_eq!(targets(&Audience::All, &ids[..700]), 700);
        assert_eq!(targets(&Audience::Users(vec![user(0).unwrap(), user(350).unwrap()]), &ids[..700]), 2);
        assert_eq!(targets(&Audience::Group(group), &ids[..700]), 140);
        assert_eq!(targets(&Audience::Tag(VIP.into()), &ids[..701]), 71);
        assert_eq!(targets(&Audience::Devices(ids[699..702].to_vec()), &ids[..700]), 1);
    }

    #[test]
    fn a_demo_with_a_pending_or_unsent_message_is_not_ok() {
        let lane = LaneReport { kind: "user", messages: 1, unbalanced: 0, funnel: Funnel::default() };
        let verdict = crate::Verdict { attempt: 1, ok: 1, ..crate::Verdict::default() };
        let took = Duration::ZERO;
        let good = DemoReport { devices: 1, away: 0, first: 1, lanes: vec![lane], verdict, took };
        assert!(good.ok());
        let mut pending = good.clone();
        pending.lanes[0].add(&Funnel { targeted: 1, pending: 1, pending_offline: 1, ..Funnel::default() });
        assert!(!pending.ok());
        let mut unsent = good;
        unsent.verdict.ok = 0;
        assert!(!unsent.ok());
    }
}
