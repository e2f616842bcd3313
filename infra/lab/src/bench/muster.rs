//! What the benches of many devices share: a herd in processes of its own, probes in this one, messages to all of them,
//! and in the end the checker's judgement over what every one of them received.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use model::{DeviceId, SystemClock};

use super::{
    CONNECT_PATIENCE, Options, Progress, TTL_S, Target,
    generator::Command,
    herd::{Herd, HerdOptions},
    name_of_run, plan,
    probe::Probe,
};
use crate::{
    Audience, Error, History, Record, Verdict,
    api::Send,
    check,
    device::Line,
    enrol::enrol,
    rest::rest,
    sender::{Sender, Sent},
};

/// Messages being sent at a time.
const UNDER_WAY: usize = 64;
/// Tries of a message.
const TRIES: u32 = 20;
/// How long devices may take to be registered, for each 1,000 of them: two requests each.
const ENROL_PATIENCE: Duration = Duration::from_secs(10);
/// How long everything may take to come to rest in the end.
const REST_PATIENCE: Duration = Duration::from_secs(120);

/// Everybody who takes part.
pub(super) struct Muster {
    pub(super) herd: Herd,
    pub(super) probe: Probe,
    target: Target,
    run: String,
    history: Arc<History>,
    sender: Sender,
    ids: Vec<DeviceId>,
    devices: usize,
    sent: Vec<Sent>,
    /// Messages that the applications of the herd see once each has all that was sent.
    pub(super) due: usize,
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) verdict: Verdict,
    pub(super) records: Vec<Record>,
}

impl Muster {
    /// Registers all devices and starts the probes; the herd is offline. `shape` fills in what is special about it.
    pub(super) async fn begin(
        target: &Target,
        generator: &[String],
        size: Options,
        shape: impl FnOnce(HerdOptions) -> HerdOptions,
        progress: Progress<'_>,
    ) -> Result<Self, Error> {
        let (run, devices) = (name_of_run(), size.devices);
        let history = Arc::new(History::new(Arc::new(SystemClock)));
        let plans = (devices..devices + size.probes).map(|n| plan(&run, n)).collect::<Result<Vec<_>, _>>()?;
        let probes = enrol(&target.api, plans, Some(&history), &|_| ()).await?;
        let line = Line::to([target.mqtt], super::KEEP_ALIVE_S);
        let probe = Probe::start(target.api.apart(), &run, probes, line, Some(history.clone()))?;
        let options = shape(HerdOptions {
            generator: generator.to_vec(),
            run: run.clone(),
            devices,
            servers: vec![target.mqtt],
            keep_alive_s: super::KEEP_ALIVE_S,
            receive_buffer_bytes: None,
            source: None,
        });
        let herd = Herd::start(&target.api, &options, patience(ENROL_PATIENCE, devices)).await?;
        progress("registered", devices as usize, devices as usize);
        let ids = (0..devices + size.probes).map(|n| Ok(plan(&run, n)?.id)).collect::<Result<_, Error>>()?;
        let sender = Sender { api: target.api.clone(), history: history.clone(), number: 0, tries: TRIES };
        let (target, devices) = (target.clone(), devices as usize);
        Ok(Self { herd, probe, target, run, history, sender, ids, devices, sent: Vec::new(), due: 0 })
    }

    /// Connects the herd, waits until it has what it missed, and lets it rest.
    pub(super) async fn connect(&mut self) -> Result<(), Error> {
        let (all, due) = (self.devices, self.due);
        self.herd.order(Command::Connect).await?;
        let limit = patience(CONNECT_PATIENCE, u32::try_from(all).unwrap_or(u32::MAX));
        self.herd.wait("connected", limit, |count| count.connected == all && count.delivered >= due).await?;
        self.target.rest().await
    }

    /// Sends a message to everybody, with a body of about so many bytes.
    pub(super) async fn broadcast(&mut self, bytes: usize) -> Result<Sent, Error> {
        let mut send = Send::named(format!("{}-b{}", self.run, self.sent.len()), Audience::All, TTL_S);
        send.payload["pad"] = "x".repeat(bytes.saturating_sub(send.key.len())).into();
        let sent = accepted(&self.sender, &send).await?;
        self.sent.push(sent.clone());
        self.due += self.devices;
        Ok(sent)
    }

    /// Sends every device of the herd a message of its own.
    pub(super) async fn unicast_to_each(&mut self) -> Result<(), Error> {
        let (run, first) = (&self.run, self.sent.len());
        let sends = self.ids[..self.devices]
            .iter()
            .enumerate()
            .map(|(n, id)| Send::named(format!("{run}-b{}", first + n), Audience::device(id), TTL_S));
        let sending = stream::iter(sends).map(async |send| accepted(&self.sender, &send).await);
        let sent: Vec<Sent> = sending.buffered(UNDER_WAY).try_collect().await?;
        self.sent.extend(sent);
        self.due += self.devices;
        Ok(())
    }

    /// Waits until every message is acked everywhere, ends everything, and judges.
    pub(super) async fn end(self) -> Result<Outcome, Error> {
        let Self { herd, probe, target, history, ids, sent, .. } = self;
        rest(&target.api, &history, &sent, &ids, REST_PATIENCE, &|_| ()).await?;
        let theirs = herd.end().await?;
        drop(probe);
        let mut records = history.take()?;
        records.extend(theirs);
        // Their clocks are one. Of one process the order stays; and nobody receives what he was registered for at once.
        records.sort_by_key(|record| record.t);
        Ok(Outcome { verdict: check(&records), records })
    }
}

async fn accepted(sender: &Sender, send: &Send) -> Result<Sent, Error> {
    let refused = || Error::Corrupt(format!("{} was not accepted", send.key));
    sender.send(send).await?.ok_or_else(refused)
}

/// How long so many devices may take, at so long for each 1,000 of them.
fn patience(of_thousand: Duration, devices: u32) -> Duration {
    of_thousand * (devices / 1_000 + 1)
}
