//! The measured unicasts: a thread with a runtime of its own that sends them and receives them.

use std::{sync::Arc, thread, time::Duration};

use model::DeviceId;
use parking_lot::Mutex;
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
    time::{Instant, sleep},
};

use crate::{
    Api, Arrival, Audience, Error, Fleet, History, Latency, Load, Observer, Orders,
    device::{Identity, Line},
    load::open_loop,
};

/// How long the probes may take to connect.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// How long the last unicast of a run may take to arrive.
const ARRIVAL_PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether all have arrived.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// What a run measured.
pub(super) struct Measured {
    /// From the request to the answer.
    pub(super) accepted: Load,
    /// From the request to the device.
    pub(super) arrived: Latency,
}

/// The unicasts of a run.
#[derive(Clone, Copy, Debug)]
pub struct Unicasts {
    /// How many a second.
    pub per_s: u32,
    /// For how long.
    pub lasting: Duration,
    /// Whether each has an idempotency key: then the platform looks for an earlier one before it queues it.
    pub keyed: bool,
}

impl Unicasts {
    /// So many a second for so long, without keys.
    pub fn unkeyed(per_s: u32, lasting: Duration) -> Self {
        Self { per_s, lasting, keyed: false }
    }
}

struct Run {
    unicasts: Unicasts,
    reply: oneshot::Sender<Result<Measured, Error>>,
}

/// The thread; it ends when the last of these is dropped.
#[derive(Clone)]
pub(super) struct Probe {
    runs: mpsc::Sender<Run>,
}

impl Probe {
    /// Starts it; the history hears of everything that the probes receive but for the measured unicasts.
    pub(super) fn start(
        api: Api,
        run: &str,
        identities: Vec<Identity>,
        line: Line,
        history: Option<Arc<History>>,
    ) -> Result<Self, Error> {
        let (runs, mut asked) = mpsc::channel::<Run>(1);
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let sheet = Arc::new(Sheet { run: run.to_owned(), marks: Mutex::default(), history });
        thread::Builder::new().name("probe".to_owned()).spawn(move || {
            runtime.block_on(async {
                let devices: Vec<DeviceId> = identities.iter().map(|identity| identity.id.clone()).collect();
                let fleet = Fleet::new(identities, line, sheet.clone());
                fleet.order(0..fleet.len(), Orders::ONLINE);
                while let Some(run) = asked.recv().await {
                    let connected = fleet.wait_connected(fleet.len(), CONNECT_PATIENCE).await;
                    let measured = match connected {
                        Ok(()) => measure(&api, &sheet, &devices, run.unicasts).await,
                        Err(error) => Err(error),
                    };
                    drop(run.reply.send(measured)); // nobody waits for it any more
                }
            });
        })?;
        Ok(Self { runs })
    }

    pub(super) async fn run(&self, unicasts: Unicasts) -> Result<Measured, Error> {
        let gone = || Error::Corrupt("the probe's thread is gone".to_owned());
        let (reply, measured) = oneshot::channel();
        self.runs.send(Run { unicasts, reply }).await.map_err(|_| gone())?;
        measured.await.map_err(|_| gone())?
    }
}

/// When each unicast of the present run was sent, and how long those took that arrived.
struct Sheet {
    run: String,
    marks: Mutex<Marks>,
    history: Option<Arc<History>>,
}

#[derive(Default)]
struct Marks {
    /// Unicasts of the runs before, whose stragglers no longer count.
    before: usize,
    sent: Vec<Instant>,
    arrived: Latency,
}

impl Sheet {
    /// Notes a unicast that is sent now and gives its number.
    fn sent(&self, at: Instant) -> u64 {
        let mut marks = self.marks.lock();
        marks.sent.push(at);
        (marks.before + marks.sent.len() - 1) as u64
    }

    fn clear(&self) {
        let mut marks = self.marks.lock();
        marks.before += marks.sent.len();
        marks.sent.clear();
        marks.arrived = Latency::default();
    }
}

impl Observer for Sheet {
    fn arrived(&self, arrival: &Arrival<'_>) {
        let now = Instant::now();
        let Some(number) = super::number_in(arrival.payload, &self.run, 'u') else {
            return self.history.iter().for_each(|history| history.arrived(arrival));
        };
        if !arrival.app {
            return;
        }
        let mut marks = self.marks.lock();
        let sent = number.checked_sub(marks.before).and_then(|index| marks.sent.get(index)).copied();
        if let Some(sent) = sent {
            marks.arrived.record(now.duration_since(sent));
        }
    }
}

async fn measure(api: &Api, sheet: &Arc<Sheet>, devices: &[DeviceId], unicasts: Unicasts) -> Result<Measured, Error> {
    let Unicasts { per_s, lasting, keyed } = unicasts;
    sheet.clear();
    let accepted = open_loop(per_s, lasting, |n, from| {
        let number = sheet.sent(from);
        let device = &devices[usize::try_from(n).unwrap_or(0) % devices.len()];
        let send = super::message(&sheet.run, 'u', number, Audience::device(device));
        let api = api.clone();
        async move { if keyed { api.send(&send).await } else { api.send_unkeyed(&send).await }.map(drop) }
    })
    .await;
    if let Some(failure) = &accepted.first_failure {
        let (failed, ok) = (accepted.failed, accepted.ok());
        return Err(Error::Corrupt(format!("{failed} of {} unicasts failed, first: {failure}", failed + ok)));
    }
    let deadline = Instant::now() + ARRIVAL_PATIENCE;
    let arrived = || sheet.marks.lock().arrived.count();
    while arrived() < accepted.ok() {
        if Instant::now() > deadline {
            return Err(Error::Corrupt(format!("{} of {} unicasts arrived", arrived(), accepted.ok())));
        }
        sleep(LOOK_EVERY).await;
    }
    let arrived = sheet.marks.lock().arrived.clone();
    Ok(Measured { accepted, arrived })
}
