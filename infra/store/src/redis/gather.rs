//! Calls of one step that many make at the same time, made together: what arrives while others are under way goes in
//! the next script. Beginning, ending and logging a script costs the server more than what most of them do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use deadpool_redis::redis::Value;
use futures_util::future::join_all;
use model::AppId;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, yield_now},
    time::{Instant, timeout, timeout_at},
};

use super::{
    link::{Done, Link, Repeat},
    script::Call,
    take,
};
use crate::Error;

/// Callers that may wait for the next turn.
const WAITING_MAX: usize = 4_096;

/// Parts that one script does before others get their turn: about a millisecond.
const PARTS_A_STEP: usize = 128;

/// Writers of a turn from which on the next waits for those who still come: writing the log and flushing it costs the
/// server more than what is written.
const BUSY: usize = 16;

/// How many it waits for at most; how long for the next of them, and how long for all.
const CROWD: usize = 64;
const NEXT: Duration = Duration::from_millis(1);
const CROWDED: Duration = Duration::from_millis(3);

/// What is worth waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// Reads: whoever asks at the same time.
    Swift,
    /// Writes: when many ask, also whoever comes a little later.
    Roomy,
}

/// What one caller wants: a call for one or more parts, of which each has one answer.
struct Job {
    app: AppId,
    call: Call,
    parts: usize,
    done: oneshot::Sender<Result<Done, Error>>,
}

/// Where the calls of one step gather. The script takes the keys and arguments of many parts one after the other,
/// gives an answer for each, and may be done twice.
pub(super) struct Gather {
    queue: mpsc::Sender<Job>,
    keeper: JoinHandle<()>,
    patience: Duration,
}

impl Gather {
    /// A place to gather for calls on `link`.
    pub(super) fn new(link: Arc<Link>, pace: Pace) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let patience = link.call_max();
        Self { queue, keeper: tokio::spawn(keep(link, pace, waiting)), patience }
    }

    /// The answers to the parts of this call, of which there are so many.
    ///
    /// # Errors
    /// As those of [`Link::ask`], in the same time.
    pub(super) async fn ask(&self, app: &AppId, call: Call, parts: usize) -> Result<Vec<Value>, Error> {
        self.carry_out(app, call, parts).await.map(|done| done.answers)
    }

    /// The same, and which server has done it.
    pub(super) async fn carry_out(&self, app: &AppId, call: Call, parts: usize) -> Result<Done, Error> {
        let (done, answers) = oneshot::channel();
        let job = Job { app: app.clone(), call, parts, done };
        let asked = async {
            self.queue.send(job).await.ok()?;
            answers.await.ok()
        };
        let answers = timeout(self.patience, asked).await.ok().flatten();
        answers.unwrap_or_else(|| Err(Error::Unavailable("Redis: no answer in time".into())))
    }
}

impl Drop for Gather {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

async fn keep(link: Arc<Link>, pace: Pace, mut waiting: mpsc::Receiver<Job>) {
    let (mut jobs, mut last) = (Vec::new(), 0);
    while waiting.recv_many(&mut jobs, WAITING_MAX).await > 0 {
        // Those who were woken together with the first have not all asked yet.
        yield_now().await;
        while jobs.len() < WAITING_MAX
            && let Ok(job) = waiting.try_recv()
        {
            jobs.push(job);
        }
        if pace == Pace::Roomy && last >= BUSY {
            crowd(&mut waiting, &mut jobs).await;
        }
        last = jobs.len();
        jobs.retain(|job| !job.done.is_closed());
        // Each app for itself: in a cluster what is wrong with the node of one is nothing to the others.
        let steps = join(jobs.drain(..)).into_iter().map(async |(call, callers)| {
            tell(callers, link.carry_out(vec![call.cmd()], Repeat::Once).await);
        });
        join_all(steps).await;
    }
}

/// Waits for more callers, as long as they keep coming.
async fn crowd(waiting: &mut mpsc::Receiver<Job>, jobs: &mut Vec<Job>) {
    let latest = Instant::now() + CROWDED;
    while jobs.len() < CROWD {
        let until = latest.min(Instant::now() + NEXT);
        match timeout_at(until, waiting.recv_many(jobs, WAITING_MAX - jobs.len())).await {
            Ok(1..) => {}
            Ok(0) | Err(_) => return,
        }
    }
}

/// Those who take part in one script, and how many of its answers are theirs.
type Callers = Vec<(usize, oneshot::Sender<Result<Done, Error>>)>;

/// Makes one call of those of each app, as long as it does not become too long.
fn join(jobs: impl Iterator<Item = Job>) -> Vec<(Call, Callers)> {
    let mut open = BTreeMap::<AppId, usize>::new();
    let mut steps: Vec<(Call, Callers)> = Vec::new();
    for Job { app, call, parts, done } in jobs {
        let step = open.get(&app).copied().filter(|step| {
            let taken: usize = steps[*step].1.iter().map(|(parts, _)| parts).sum();
            taken + parts <= PARTS_A_STEP
        });
        match step {
            Some(step) => {
                steps[step].0.join(&call);
                steps[step].1.push((parts, done));
            }
            None => {
                open.insert(app, steps.len());
                steps.push((call, vec![(parts, done)]));
            }
        }
    }
    steps
}

/// Gives each caller its answers. Whoever gave up does not hear them.
fn tell(callers: Callers, done: Result<Done, Error>) {
    let read = |Done { answers, by }| Ok((take::value::<Vec<Value>>(take::only(answers)?)?.into_iter(), by));
    match done.and_then(read) {
        Ok((mut left, by)) => callers.into_iter().for_each(|(parts, done)| {
            let answers = left.by_ref().take(parts).collect();
            drop(done.send(Ok(Done { answers, by: by.clone() })));
        }),
        Err(error) => callers.into_iter().for_each(|(_, done)| drop(done.send(Err(error.clone())))),
    }
}
