//! A connection that is kept: found again when it is lost, bounded in time and in what is in flight.
//!
//! Every call goes over one multiplexed socket, so what arrives while a round trip is under way travels together, and
//! the server writes its log once for all of it. A call has one deadline, whatever happens on the way: waiting for its
//! turn, connecting, the answer, the one repetition. Nothing above this layer repeats, and nothing below.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use deadpool_redis::redis::{
    Arg, AsyncConnectionConfig, Cmd, InfoDict, Pipeline, RedisError, ServerErrorKind, Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    cluster_async::ClusterConnection,
    cmd, from_redis_value, parse_redis_value,
    sentinel::SentinelClient,
};
use futures_util::future::{select_ok, try_join_all};
use parking_lot::RwLock;
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{fence, script, target::Target};
use crate::Error;

/// Work under way at once, in units of [`ARGS_A_UNIT`]: about a thousand unicasts, what a server does in some 30 ms.
/// Beyond that a call waits here for its turn, not at the server, where its time would run out while others are
/// served; and a frozen server piles up no more than this.
const IN_FLIGHT_MAX: u32 = 2_048;

/// Arguments of commands that count as one unit of work.
const ARGS_A_UNIT: usize = 16;

/// How long a primary whose replicas are gone is believed to be the primary, before Sentinel is asked again.
const BELIEVED: Duration = Duration::from_secs(1);

/// Time between two attempts to connect: a server that is down is asked ten times a second, whoever calls.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Repetitions that may be spent at once, when a connection with much in flight is cut.
const REPEATS_MAX: i64 = 512;

/// Answered calls that earn one repetition: repeating never adds more than a tenth to the load.
const CALLS_A_REPEAT: i64 = 10;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Until a connection stands.
    pub(super) connect: Duration,
    /// Until the server answers.
    pub(super) response: Duration,
}

impl Limits {
    /// All of a call. A repetition follows only a cut connection, which is noticed at once, so there is time for both.
    fn call(self) -> Duration {
        self.response * 9 / 5
    }
}

/// Whether a call may be sent a second time when nobody knows what became of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Doing it twice is doing it once.
    Once,
    /// The answer would be another one: the caller decides.
    Never,
}

/// The name that a server gives itself when it starts; the servers of a cluster are not told apart.
pub(super) type ServerName = Option<Arc<str>>;

/// What was answered, and by which server.
pub(super) struct Done {
    pub(super) answers: Vec<Value>,
    pub(super) by: ServerName,
}

/// A connection to a server, or to the servers of a cluster.
#[derive(Clone)]
enum Wire {
    One(MultiplexedConnection),
    /// With the replicas that must have what is done.
    Cluster(ClusterConnection, u32),
}

impl Wire {
    async fn send(&mut self, cmds: &Pipeline) -> Result<Vec<Value>, RedisError> {
        match self {
            Self::One(wire) => wire.req_packed_commands(cmds, 0, cmds.len()).await,
            Self::Cluster(wire, replicas) => send_by_tag(wire, cmds, *replicas).await,
        }
    }

    async fn send_one(&mut self, cmd: &Cmd) -> Result<Value, RedisError> {
        match self {
            Self::One(wire) => wire.req_packed_command(cmd).await,
            Self::Cluster(wire, _) => wire.req_packed_command(cmd).await,
        }
    }

    /// Which server this leads to; nothing where it may not be asked.
    async fn server_name(&mut self) -> Result<ServerName, RedisError> {
        if let Self::Cluster(..) = self {
            return Ok(None);
        }
        match self.send_one(cmd("INFO").arg("server")).await? {
            Value::ServerError(_) => Ok(None),
            info => Ok(from_redis_value::<InfoDict>(info)?.get::<String>("run_id").map(Arc::from)),
        }
    }

    /// Makes the scripts known to the server, or to every server of the cluster.
    async fn teach(&self) -> Result<(), RedisError> {
        let load = |source| {
            let mut wire = self.clone();
            async move { wire.send_one(cmd("SCRIPT").arg("LOAD").arg(source)).await }
        };
        // Together: a server that writes its log all the time takes a while for each round trip.
        try_join_all(script::sources().map(load)).await.map(drop)
    }
}

/// An open connection and its number, so that only the connection that failed is given up.
#[derive(Clone)]
struct Open {
    number: u64,
    since: Instant,
    server: ServerName,
    wire: Wire,
}

/// The kept connection.
pub(super) struct Link {
    target: Target,
    limits: Limits,
    /// Replicas that must have what is done here; in a cluster only.
    replicas: u32,
    open: RwLock<Option<Open>>,
    /// Held by who connects; when that last failed.
    connecting: Mutex<Option<Instant>>,
    connections: AtomicU64,
    in_flight: Semaphore,
    /// What may be spent on repetitions, in calls.
    repeats: AtomicI64,
}

impl Link {
    /// A link to `target`, not yet connected.
    pub(super) fn new(target: Target, limits: Limits) -> Self {
        Self::settling(target, limits, 0)
    }

    /// A link to a cluster, where a call is done when so many replicas of the node that did it have it. It waits on the
    /// connection to that node, so what is asked there meanwhile waits as well.
    pub(super) fn settling(target: Target, limits: Limits, replicas: u32) -> Self {
        Self {
            target,
            limits,
            replicas,
            open: RwLock::new(None),
            connecting: Mutex::new(None),
            connections: AtomicU64::new(0),
            in_flight: Semaphore::new(IN_FLIGHT_MAX as usize),
            repeats: AtomicI64::new(REPEATS_MAX * CALLS_A_REPEAT),
        }
    }

    /// The longest that a call may take.
    pub(super) fn call_max(&self) -> Duration {
        self.limits.call()
    }

    /// Sends commands together; their answers come in the same order, the first error instead of all.
    ///
    /// # Errors
    /// Unavailable within the time of a call, whatever the server does; what a script rejects, as it says it.
    pub(super) async fn ask(&self, cmds: Vec<Cmd>, repeat: Repeat) -> Result<Vec<Value>, Error> {
        self.carry_out(cmds, repeat).await.map(|done| done.answers)
    }

    /// The same, and says which server has done all of them.
    pub(super) async fn carry_out(&self, cmds: Vec<Cmd>, repeat: Repeat) -> Result<Done, Error> {
        if cmds.is_empty() {
            return Ok(Done { answers: Vec::new(), by: None });
        }
        let deadline = Instant::now() + self.limits.call();
        let mut left = pipeline(cmds);
        let turn = timeout_at(deadline, self.in_flight.acquire_many(work(&left))).await;
        let Ok(Ok(_turn)) = turn else { return Err(Error::Unavailable("too much is waiting for Redis".into())) };
        let mut answers: Vec<Option<Value>> = vec![None; left.len()];
        let mut places: Vec<usize> = (0..left.len()).collect();
        let mut repeated = repeat == Repeat::Never;
        let mut asked: Option<ServerName> = None;
        // Once more for a cut connection, once more for forgotten scripts: more never helps.
        for _ in 0..3 {
            let open = self.connection(deadline).await?;
            let (number, by) = (open.number, open.server.clone());
            match self.send(open, &left, deadline).await {
                Ok(values) => {
                    if asked.replace(by.clone()).is_some_and(|before| before != by) {
                        return Err(Error::Unavailable("Redis: another server answered half of it".into()));
                    }
                    let unknown = sort_out(values, &places, &mut answers);
                    if unknown.is_empty() {
                        self.earn();
                        let answers = answers.into_iter().map(|answer| self.answer(answer, number));
                        return Ok(Done { answers: answers.collect::<Result<_, _>>()?, by });
                    }
                    let again = left.cmd_iter().zip(&places).filter(|(_, place)| unknown.contains(place));
                    left = pipeline(again.map(|(cmd, _)| cmd.clone()).collect());
                    places = unknown;
                    self.teach(number, deadline).await?;
                }
                Err(error) => {
                    self.give_up(number);
                    let cut = !error.is_timeout();
                    if repeated || !cut || !self.spend() {
                        return Err(Error::Unavailable(format!("Redis: {error}")));
                    }
                    repeated = true;
                }
            }
        }
        Err(Error::Unavailable("Redis keeps forgetting the scripts".into()))
    }

    async fn send(&self, mut open: Open, cmds: &Pipeline, deadline: Instant) -> Result<Vec<Value>, RedisError> {
        let until = deadline.min(Instant::now() + self.limits.response);
        match timeout_at(until, open.wire.send(cmds)).await {
            Ok(sent) => sent,
            Err(_) => Err(timed_out("no answer in time")),
        }
    }

    /// The open connection; opens one when there is none.
    async fn connection(&self, deadline: Instant) -> Result<Open, Error> {
        if let Some(open) = self.open.read().clone() {
            return Ok(open);
        }
        let turn = timeout_at(deadline, self.connecting.lock()).await;
        let Ok(mut failed) = turn else { return Err(Error::Unavailable("no connection to Redis in time".into())) };
        if let Some(open) = self.open.read().clone() {
            return Ok(open);
        }
        if failed.is_some_and(|at| at.elapsed() < CONNECT_PAUSE) {
            return Err(Error::Unavailable("no connection to Redis".into()));
        }
        // Noted beforehand: whoever connects may be dropped half-way, at its own deadline.
        *failed = Some(Instant::now());
        let until = deadline.min(Instant::now() + self.limits.connect);
        let opened = match timeout_at(until, self.dial()).await {
            Ok(opened) => opened,
            Err(_) => Err(timed_out("not connected in time")),
        };
        *failed = opened.is_err().then(Instant::now);
        let (wire, server) = opened.map_err(|error| Error::Unavailable(format!("connecting to Redis: {error}")))?;
        let number = self.connections.fetch_add(1, Ordering::Relaxed);
        let open = Open { number, since: Instant::now(), server, wire };
        *self.open.write() = Some(open.clone());
        Ok(open)
    }

    async fn dial(&self) -> Result<(Wire, ServerName), RedisError> {
        // Timing is this module's: two clocks for one call would only disagree.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let mut wire = match &self.target {
            Target::One(client) => Wire::One(client.get_multiplexed_async_connection_with_config(&config).await?),
            Target::Sentinel(clients) => {
                let ask = async |client: &Mutex<SentinelClient>| {
                    client.lock().await.get_async_connection_with_config(&config).await
                };
                Wire::One(select_ok(clients.iter().map(|client| Box::pin(ask(client)))).await?.0)
            }
            Target::Cluster(client) => Wire::Cluster(client.get_async_connection().await?, self.replicas),
        };
        wire.teach().await?;
        let server = wire.server_name().await?;
        Ok((wire, server))
    }

    /// Tells a server that forgot the scripts (a failover, a flush) what they are.
    async fn teach(&self, number: u64, deadline: Instant) -> Result<(), Error> {
        let open = self.connection(deadline).await?;
        match timeout_at(deadline, open.wire.teach()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                self.give_up(number);
                Err(Error::Unavailable(format!("Redis: {error}")))
            }
            Err(_) => Err(Error::Unavailable("Redis: scripts not loaded in time".into())),
        }
    }

    /// Lets go of a connection that failed; calls under way on it end as they may.
    fn give_up(&self, number: u64) {
        let mut open = self.open.write();
        if open.as_ref().is_some_and(|open| open.number == number) {
            *open = None;
        }
    }

    fn answer(&self, answer: Option<Value>, number: u64) -> Result<Value, Error> {
        let Some(Value::ServerError(error)) = answer else {
            return answer.ok_or_else(|| Error::Unavailable("Redis: an answer is missing".into()));
        };
        let text = error.details().unwrap_or_default().to_owned();
        let moved = [ServerErrorKind::ReadOnly, ServerErrorKind::MasterDown, ServerErrorKind::ClusterDown];
        if error.kind().is_some_and(|kind| moved.contains(&kind)) {
            // Another server is the master now: this connection will never be right again.
            self.give_up(number);
        }
        if error.code() == "NOREPLICAS" && matches!(self.target, Target::Sentinel(_)) && self.is_older(number) {
            // It may be cut off, and another the primary by now: as long as it is there, it does not say so.
            self.give_up(number);
        }
        Err(match error.code() {
            "REJECTED" => Error::Rejected(text),
            "CORRUPT" | "WRONGTYPE" => Error::Corrupt(text),
            code => Error::Unavailable(format!("Redis: {code} {text}")),
        })
    }

    /// Whether this is the open connection, and has been for longer than a primary is believed.
    fn is_older(&self, number: u64) -> bool {
        self.open.read().as_ref().is_some_and(|open| open.number == number && open.since.elapsed() > BELIEVED)
    }

    fn earn(&self) {
        if self.repeats.load(Ordering::Relaxed) < REPEATS_MAX * CALLS_A_REPEAT {
            self.repeats.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn spend(&self) -> bool {
        let spend = |left: i64| (left >= CALLS_A_REPEAT).then_some(left - CALLS_A_REPEAT);
        self.repeats.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend).is_ok()
    }
}

fn pipeline(cmds: Vec<Cmd>) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(cmds.len());
    cmds.into_iter().for_each(|cmd| _ = pipeline.add_command(cmd));
    pipeline
}

/// A cluster takes commands together only when they are about one slot: those of one tag keep their order, the others
/// go beside them. Those of which too few `replicas` have heard are answered by that.
async fn send_by_tag(wire: &ClusterConnection, cmds: &Pipeline, replicas: u32) -> Result<Vec<Value>, RedisError> {
    let mut by_tag = BTreeMap::<_, (Vec<usize>, Vec<Cmd>)>::new();
    for (place, cmd) in cmds.cmd_iter().enumerate() {
        let (places, of_tag) = by_tag.entry(tag(cmd)).or_default();
        places.push(place);
        of_tag.push(cmd.clone());
    }
    let mut sending = JoinSet::new();
    for (tag, (places, mut of_tag)) in by_tag {
        let waits = tag.filter(|_| replicas > 0);
        of_tag.extend(waits.iter().flat_map(|tag| fence::wait([tag, b"W".as_slice()].concat(), replicas)));
        let (mut wire, of_tag, waits) = (wire.clone(), pipeline(of_tag), waits.is_some());
        sending.spawn(async move {
            let done = wire.req_packed_commands(&of_tag, 0, of_tag.len()).await;
            (places, if waits { done.and_then(|values| settled(values, replicas)) } else { done })
        });
    }
    let mut answers = vec![Value::Nil; cmds.len()];
    while let Some(sent) = sending.join_next().await {
        let (places, values) = sent.map_err(|_| timed_out("given up"))?;
        places.into_iter().zip(values?).for_each(|(place, value)| answers[place] = value);
    }
    Ok(answers)
}

/// Answers that end with those of [`fence::wait`]: without these, or too few replicas instead of each.
fn settled(mut answers: Vec<Value>, replicas: u32) -> Result<Vec<Value>, RedisError> {
    let reached = answers.pop().unwrap_or_default();
    answers.pop();
    if matches!(reached, Value::Int(reached) if reached >= i64::from(replicas)) {
        return Ok(answers);
    }
    let few = parse_redis_value(b"-NOREPLICAS too few replicas have it\r\n")?;
    Ok(vec![few; answers.len()])
}

/// What the first key of a command begins with, up to the end of its tag.
fn tag(cmd: &Cmd) -> Option<&[u8]> {
    cmd.args_iter().find_map(|arg| {
        let Arg::Simple(bytes) = arg else { return None };
        let open = bytes.iter().position(|byte| *byte == b'{')?;
        let close = bytes[open..].iter().position(|byte| *byte == b'}')?;
        Some(&bytes[..=open + close])
    })
}

/// How much of what may be in flight these commands take; a call larger than all goes alone.
fn work(cmds: &Pipeline) -> u32 {
    let args: usize = cmds.cmd_iter().map(|cmd| cmd.args_iter().len()).sum();
    u32::try_from(args.div_ceil(ARGS_A_UNIT)).unwrap_or(u32::MAX).clamp(1, IN_FLIGHT_MAX)
}

/// Puts answers where they belong; gives the places of what was not done because the server does not know its script.
fn sort_out(values: Vec<Value>, places: &[usize], answers: &mut [Option<Value>]) -> Vec<usize> {
    let mut unknown = Vec::new();
    for (value, &place) in values.into_iter().zip(places) {
        match value {
            Value::ServerError(error) if error.kind() == Some(ServerErrorKind::NoScript) => unknown.push(place),
            value => answers[place] = Some(value),
        }
    }
    unknown
}

fn timed_out(what: &'static str) -> RedisError {
    std::io::Error::new(std::io::ErrorKind::TimedOut, what).into()
}
