//! What goes on while things break: devices that misbehave, senders in every lane, and how it all comes to rest.

use std::{net::SocketAddr, num::NonZeroU32, path::PathBuf, sync::Arc, time::Duration};

use model::{DeviceId, GroupId, SystemClock, UserId};
use mqtt::Version;
use rand::seq::{IndexedRandom, SliceRandom};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    Api, Audience, Error, Faults, Fleet, History, Orders, Record,
    answers::Answers,
    api::{Profile, Send},
    device::Line,
    enrol::{Plan, enrol, gather},
    history,
    rest::rest,
    sender::{Sender, Sent},
};

/// How long a message may take: much longer than the run.
const TTL_S: u64 = 3_600;
/// Tries of a message: enough to outlast any restart.
const TRIES: u32 = 100;
/// How long devices may take to be connected in the end.
const CONNECT_PATIENCE: Duration = Duration::from_secs(60);
/// The keep alive of devices, in seconds.
const KEEP_ALIVE_S: u16 = 30;
/// Average life of a connection that is cut at random.
const CUT_AFTER: Duration = Duration::from_secs(2);
/// Devices of a list at most.
const LIST_MAX: usize = 30;

/// Every so-many-th device carries the tag that filtered messages ask for.
const VIP_EVERY: u32 = 4;
/// The tag.
const VIP: &str = "vip";

/// Every so-many-th message of a sender is called back as soon as it is accepted.
const CANCEL_EVERY: u64 = 20;

/// Senders by lane: how many there are, and the pause of each between two messages.
const UNICAST: (u32, Duration) = (4, Duration::from_millis(10));
const MULTICAST: (u32, Duration) = (2, Duration::from_millis(40));
const BROADCAST: (u32, Duration) = (1, Duration::from_millis(100));

/// How devices behave while things break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// Of ten devices one stays away, three are cut at random, one loses acks, one acks late, and four behave.
    Mixed,
    /// Every device comes again after this time, on average, at the next access point, and leaves its connection there
    /// as it is: the same device is connected twice, in turn. One of ten stays away.
    Moving(Duration),
}

/// What a fault scenario is played on.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The API, with a product's key of an app that has no devices yet.
    pub api: Api,
    /// The MQTT listeners, which devices take in turn.
    pub mqtt: Vec<SocketAddr>,
    /// Devices; a tenth of them stays offline until the end.
    pub devices: u32,
    /// How they behave.
    pub habit: Habit,
    /// How long everything may take to come to rest in the end.
    pub patience: Duration,
    /// Where the history is kept for people, whatever the verdict.
    pub history: Option<PathBuf>,
}

/// Everybody who takes part.
struct Cast {
    api: Api,
    answers: Arc<Answers>,
    history: Arc<History>,
    ids: Vec<DeviceId>,
    users: Vec<UserId>,
    group: GroupId,
}

/// A load that is under way; it breaks off when dropped.
pub(super) struct Traffic {
    cast: Arc<Cast>,
    fleet: Fleet,
    senders: Senders,
    stop: CancellationToken,
}

impl Traffic {
    /// Registers devices and a group, and lets devices connect and senders send.
    pub(super) async fn begin(scene: &Scene) -> Result<Self, Error> {
        let history = Arc::new(History::new(Arc::new(SystemClock)));
        let plans = (0..scene.devices).map(plan).collect::<Result<Vec<_>, _>>()?;
        let users = (0..scene.devices.div_ceil(2)).map(user).collect::<Result<Vec<_>, _>>()?;
        let identities = enrol(&scene.api, plans, Some(&history), &|_| ()).await?;
        let ids: Vec<_> = identities.iter().map(|identity| identity.id.clone()).collect();
        let group = gather(&scene.api, "third", &ids[..ids.len() / 3], &history).await?;
        let line = Line::to(scene.mqtt.clone(), KEEP_ALIVE_S);
        let fleet = Fleet::new(identities, line, history.clone());
        disturb(&fleet, scene.habit);
        let answers = Arc::new(Answers::default());
        let cast = Arc::new(Cast { api: scene.api.noting(answers.clone()), answers, history, ids, users, group });
        let stop = CancellationToken::new();
        let senders = send_in_every_lane(&cast, &stop);
        Ok(Self { cast, fleet, senders, stop })
    }

    /// The answers that the senders get.
    pub(super) fn answers(&self) -> Arc<Answers> {
        self.cast.answers.clone()
    }

    /// Stops the senders, connects every device, waits for rest, and gives back what happened.
    pub(super) async fn end(self, scene: &Scene) -> Result<Vec<Record>, Error> {
        let Self { cast, fleet, senders, stop } = self;
        stop.cancel();
        let sent = collect(senders).await?;
        // All connect anew: on a link that stays open, an ack that was lost is missed only after the ack timeout.
        fleet.order(0..fleet.len(), Orders::default());
        fleet.wait_connected(0, CONNECT_PATIENCE).await?;
        fleet.order(0..fleet.len(), Orders::ONLINE);
        fleet.wait_connected(fleet.len(), CONNECT_PATIENCE).await?;
        rest(&scene.api, &cast.history, &sent, &cast.ids, scene.patience, &|_| ()).await?;
        let records = cast.history.take()?;
        if let Some(path) = &scene.history {
            history::save(&records, path)?;
        }
        fleet.close().await;
        Ok(records)
    }
}

fn plan(n: u32) -> Result<Plan, Error> {
    let id = format!("dev-{n}").parse().map_err(|error| Error::Corrupt(format!("{error}")))?;
    let tags = if n.is_multiple_of(VIP_EVERY) { [VIP.to_owned()].into() } else { [].into() };
    let profile = Profile { user_id: Some(user(n / 2)?), tags };
    let version = if n.is_multiple_of(2) { Version::V5 } else { Version::V311 };
    Ok(Plan { id, profile, version, states_after: n.is_multiple_of(3) })
}

fn user(n: u32) -> Result<UserId, Error> {
    format!("user-{n}").parse().map_err(|error| Error::Corrupt(format!("{error}")))
}

/// Gives every device its habits.
fn disturb(fleet: &Fleet, habit: Habit) {
    for n in 0..fleet.len() {
        let faults = match (habit, n % 10) {
            (_, 0) => continue,
            (Habit::Moving(every), _) => Faults { cut_after: Some(every), lingers: true, ..Faults::default() },
            (Habit::Mixed, 1..=3) => Faults { cut_after: Some(CUT_AFTER), ..Faults::default() },
            (Habit::Mixed, 4) => {
                Faults { lose_ack_every: NonZeroU32::new(20), cut_after: Some(CUT_AFTER), ..Faults::default() }
            }
            (Habit::Mixed, 5) => Faults { ack_late: Some(Duration::from_millis(300)), ..Faults::default() },
            (Habit::Mixed, _) => Faults::default(),
        };
        fleet.order(n..n + 1, Orders { faults, ..Orders::ONLINE });
    }
}

type Senders = JoinSet<Result<Vec<Sent>, Error>>;

fn send_in_every_lane(cast: &Arc<Cast>, stop: &CancellationToken) -> Senders {
    let mut senders = JoinSet::new();
    let mut number = 0;
    let mut start = |(count, pause): (u32, Duration), audience: fn(&Cast) -> Audience| {
        for _ in 0..count {
            senders.spawn(keep_sending(cast.clone(), number, pause, audience, stop.clone()));
            number += 1;
        }
    };
    start(UNICAST, one);
    start(MULTICAST, several);
    start(BROADCAST, |_| Audience::All);
    senders
}

async fn keep_sending(
    cast: Arc<Cast>,
    number: u32,
    pause: Duration,
    audience: fn(&Cast) -> Audience,
    stop: CancellationToken,
) -> Result<Vec<Sent>, Error> {
    let sender = Sender { api: cast.api.clone(), history: cast.history.clone(), number, tries: TRIES };
    let mut accepted = Vec::new();
    for n in 0_u64.. {
        if stop.is_cancelled() {
            break;
        }
        let send = Send::named(format!("{number}-{n}"), audience(&cast), TTL_S);
        if let Some(sent) = sender.send(&send).await? {
            if n % CANCEL_EVERY == CANCEL_EVERY - 1 {
                sender.cancel(&sent).await?;
            }
            accepted.push(sent);
        }
        sleep(pause).await;
    }
    Ok(accepted)
}

fn one(cast: &Cast) -> Audience {
    Audience::Devices(cast.ids.choose(&mut rand::rng()).into_iter().cloned().collect())
}

/// A list, a user's devices, whoever carries the tag, or the group.
fn several(cast: &Cast) -> Audience {
    match rand::random_range(0..4) {
        0 => {
            let mut ids = cast.ids.clone();
            ids.shuffle(&mut rand::rng());
            ids.truncate(rand::random_range(2..=LIST_MAX));
            Audience::Devices(ids)
        }
        1 => Audience::Users(cast.users.choose(&mut rand::rng()).into_iter().cloned().collect()),
        2 => Audience::Tag(VIP.to_owned()),
        _ => Audience::Group(cast.group),
    }
}

async fn collect(mut senders: Senders) -> Result<Vec<Sent>, Error> {
    let mut sent = Vec::new();
    while let Some(accepted) = senders.join_next().await {
        sent.extend(accepted.map_err(|panic| Error::Corrupt(panic.to_string()))??);
    }
    Ok(sent)
}
