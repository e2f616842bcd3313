//! What goes through at most: clients that post unicasts one request after the other, and devices that ack them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::try_join_all;
use model::DeviceId;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    sync::Mutex,
    time::{Instant, sleep},
};

use super::{
    CONNECT_PATIENCE, IntakeReport, KEEP_ALIVE_S, Progress, TTL_S, Target, client::Client, cpu, name_of_run, plan,
};
use crate::{
    Arrival, Audience, Error, Fleet, Observer, Orders, Usage,
    api::Send,
    device::Line,
    enrol::{Plan, enrol},
    load::closed_loop,
};

/// How long nothing may arrive before the rest counts as missing.
const SILENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether all have arrived.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How much is sent, and by how many to how many.
#[derive(Clone, Copy, Debug)]
pub struct IntakeOptions {
    /// Clients, each with one request under way on a connection that stays open.
    pub clients: u32,
    /// Connected devices, among which the unicasts go round.
    pub devices: u32,
    /// How long new requests begin.
    pub lasting: Duration,
    /// Messages of a request: one is a send, more are a batch.
    pub batch: u32,
}

/// Sends for a while as fast as the answers come, and waits until the devices have all that was accepted.
///
/// # Errors
/// [`Error::Corrupt`] when a request fails or accepted messages never arrive: then there is nothing to report.
/// [`Error::Unavailable`] or [`Error::Rejected`] when the devices do not get as far as being connected.
pub async fn intake(target: &Target, options: IntakeOptions, progress: Progress<'_>) -> Result<IntakeReport, Error> {
    let run = name_of_run();
    let plans: Vec<Plan> = (0..options.devices).map(|n| plan(&run, n)).collect::<Result<_, _>>()?;
    let total = plans.len();
    let identities = enrol(&target.api, plans, None, &|done| progress("registering", done, total)).await?;
    let requests = Requests::new(&run, identities.iter().map(|identity| &identity.id), options.batch);
    let tally = Arc::new(Tally::new(&run));
    let line = Line::to([target.mqtt], KEEP_ALIVE_S);
    let fleet = Fleet::new(identities, line, tally.clone());
    fleet.order(0..fleet.len(), Orders::ONLINE);
    fleet.wait_connected(fleet.len(), CONNECT_PATIENCE * (options.devices / 1_000 + 1)).await?;
    target.rest().await?;
    let report = measure(target, options, Arc::new(requests), &tally).await;
    fleet.close().await;
    report
}

async fn measure(
    target: &Target,
    options: IntakeOptions,
    requests: Arc<Requests>,
    tally: &Tally,
) -> Result<IntakeReport, Error> {
    let clients = try_join_all((0..options.clients).map(|_| Client::connect(&target.api))).await?;
    let clients: Arc<[_]> = clients.into_iter().map(Mutex::new).collect();
    let before = Spent::now(target)?;
    let begun = Instant::now();
    let accepted = Arc::new(AtomicU64::new(0));
    let (counted, count) = (accepted.clone(), options.clients);
    let answered = closed_loop(count, options.lasting, move |client, n| {
        let (path, body) = requests.request(n * u64::from(count) + u64::from(client));
        let (clients, counted, batch) = (clients.clone(), counted.clone(), options.batch);
        async move {
            let answer = clients[client as usize].lock().await.post(path, &body).await?;
            counted.fetch_add(if batch == 1 { 1 } else { taken(&answer)? }, Relaxed);
            Ok(())
        }
    })
    .await;
    let accepting = begun.elapsed();
    if let Some(failure) = &answered.first_failure {
        let (failed, all) = (answered.failed, answered.failed + answered.ok());
        return Err(Error::Corrupt(format!("{failed} of {all} requests failed, first: {failure}")));
    }
    let accepted = accepted.load(Relaxed);
    tally.reach(accepted).await?;
    let delivering = tally.last().duration_since(begun);
    let spent = Spent::now(target)?.since(&before);
    Ok(IntakeReport {
        clients: options.clients,
        batch: options.batch,
        accepted,
        answered,
        accepting,
        delivering,
        spent,
    })
}

/// How many messages of a batch were taken.
fn taken(answer: &[u8]) -> Result<u64, Error> {
    #[derive(Deserialize)]
    struct Answer {
        accepted: u64,
    }
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| Error::Corrupt(error.to_string()))?;
    Ok(answer.accepted)
}

/// The CPU that each process has used so far, by name.
struct Spent(Vec<(&'static str, Usage)>);

impl Spent {
    fn now(target: &Target) -> Result<Self, Error> {
        let server = target.pid.map(|pid| ("server", pid));
        let all = server.into_iter().chain(target.behind.iter().copied()).chain([("this bench", std::process::id())]);
        all.map(|(name, pid)| Ok((name, Usage::of(pid)?))).collect::<Result<_, _>>().map(Self)
    }

    fn since(self, before: &Self) -> Vec<(&'static str, Duration)> {
        let pairs = self.0.into_iter().zip(&before.0);
        pairs.filter_map(|((name, after), (_, before))| Some((name, cpu(Some(*before), Some(after))?))).collect()
    }
}

/// Requests whose bodies are written once but for the numbers in them, so that the clients cost little.
struct Requests {
    /// A message to each device, up to the number in its payload.
    heads: Vec<String>,
    batch: u32,
}

impl Requests {
    fn new<'a>(run: &str, devices: impl Iterator<Item = &'a DeviceId>, batch: u32) -> Self {
        let head = |device| {
            let to = json!(Audience::device(device));
            format!("{{\"to\":{to},\"ttl_s\":{TTL_S},\"payload\":{{\"msg\":\"{run}-i")
        };
        Self { heads: devices.map(head).collect(), batch }
    }

    /// The request with this number.
    fn request(&self, number: u64) -> (&'static str, String) {
        let first = number * u64::from(self.batch);
        if self.batch == 1 {
            let mut body = String::new();
            self.write(first, &mut body);
            return ("/v1/messages", body);
        }
        let mut body = String::from("{\"messages\":[");
        for message in first..first + u64::from(self.batch) {
            if message > first {
                body.push(',');
            }
            self.write(message, &mut body);
        }
        body.push_str("]}");
        ("/v1/messages/batch", body)
    }

    fn write(&self, message: u64, body: &mut String) {
        let devices = self.heads.len() as u64;
        let head = &self.heads[usize::try_from(message % devices).unwrap_or(0)];
        body.extend([head.as_str(), message.to_string().as_str(), "\"}}"]);
    }
}

/// Counts what reaches the devices' applications: each message once, by the client rule.
struct Tally {
    begun: Instant,
    prefix: String,
    arrived: AtomicU64,
    /// When the latest came, in nanoseconds since the beginning.
    last_ns: AtomicU64,
}

impl Tally {
    fn new(run: &str) -> Self {
        let (arrived, last_ns) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { begun: Instant::now(), prefix: format!("{run}-i"), arrived, last_ns }
    }

    /// Waits until as many have arrived.
    async fn reach(&self, accepted: u64) -> Result<(), Error> {
        let begun = Instant::now();
        while self.arrived.load(Relaxed) < accepted {
            if begun.max(self.last()).elapsed() > SILENCE {
                let arrived = self.arrived.load(Relaxed);
                return Err(Error::Corrupt(format!(
                    "{} of {accepted} unicasts are missing",
                    accepted.saturating_sub(arrived)
                )));
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn last(&self) -> Instant {
        self.begun + Duration::from_nanos(self.last_ns.load(Relaxed))
    }
}

impl Observer for Tally {
    fn arrived(&self, arrival: &Arrival<'_>) {
        let ours = Send::name_in(arrival.payload).is_some_and(|name| name.starts_with(&self.prefix));
        if ours && arrival.app && arrival.acked {
            let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.last_ns.fetch_max(now, Relaxed);
            self.arrived.fetch_add(1, Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn requests_are_what_the_api_takes_and_go_round() {
        let devices: Vec<DeviceId> = ["a", "b"].map(|id| id.parse().unwrap()).into();
        let message = |device: &str, number: u64| {
            let payload = json!({ "msg": format!("r-i{number}") });
            json!({ "to": { "devices": [device] }, "ttl_s": TTL_S, "payload": payload })
        };
        let body = |batch, number| -> (&str, Value) {
            let (path, body) = Requests::new("r", devices.iter(), batch).request(number);
            (path, serde_json::from_str(&body).unwrap())
        };
        assert_eq!(body(1, 5), ("/v1/messages", message("b", 5)));
        let both = json!({ "messages": [message("a", 4), message("b", 5)] });
        assert_eq!(body(2, 2), ("/v1/messages/batch", both));
    }
}
