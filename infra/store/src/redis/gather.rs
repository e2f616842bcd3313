//! Calls of one step that many make at the same time, made together: what arrives while others are under way goes in
//! the next script. Beginning, ending and logging a script costs the server more than what most of them do.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use deadpool_redis::redis::Value;
use model::AppId;
use tokio::{
    sync::{mpsc, oneshot},
    task::{JoinHandle, yield_now},
    time::timeout,
};

use super::{
    link::{Link, Repeat},
    script::Call,
    take,
};
use crate::Error;

/// Callers that may wait for the next turn.
const WAITING_MAX: usize = 4_096;

/// Parts that one script does before others get their turn: about a millisecond.
const PARTS_A_STEP: usize = 128;

/// What one caller wants: a call for one or more parts, of which each has one answer.
struct Job {
    app: AppId,
    call: Call,
    parts: usize,
    done: oneshot::Sender<Result<Vec<Value>, Error>>,
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
    pub(super) fn new(link: Arc<Link>) -> Self {
        let (queue, waiting) = mpsc::channel(WAITING_MAX);
        let patience = link.call_max();
        Self { queue, keeper: tokio::spawn(keep(link, waiting)), patience }
    }

    /// The answers to the parts of this call, of which there are so many.
    ///
    /// # Errors
    /// As those of [`Link::ask`], in the same time.
    pub(super) async fn ask(&self, app: &AppId, call: Call, parts: usize) -> Result<Vec<Value>, Error> {
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

async fn keep(link: Arc<Link>, mut waiting: mpsc::Receiver<Job>) {
    let mut jobs = Vec::new();
    while waiting.recv_many(&mut jobs, WAITING_MAX).await > 0 {
        // Those who were woken together with the first have not all asked yet.
        yield_now().await;
        while jobs.len() < WAITING_MAX
            && let Ok(job) = waiting.try_recv()
        {
            jobs.push(job);
        }
        jobs.retain(|job| !job.done.is_closed());
        let steps = join(jobs.drain(..));
        let (calls, callers): (Vec<_>, Vec<_>) = steps.into_iter().unzip();
        let answers = link.ask(calls.iter().map(Call::cmd).collect(), Repeat::Once).await;
        tell(callers, answers);
    }
}

/// Those who take part in one script, and how many of its answers are theirs.
type Callers = Vec<(usize, oneshot::Sender<Result<Vec<Value>, Error>>)>;

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
fn tell(steps: Vec<Callers>, answers: Result<Vec<Value>, Error>) {
    let answers = match answers {
        Ok(answers) => answers,
        Err(error) => {
            let callers = steps.into_iter().flatten();
            return callers.for_each(|(_, done)| drop(done.send(Err(error.clone()))));
        }
    };
    for (callers, answer) in steps.into_iter().zip(answers) {
        match take::value::<Vec<Value>>(answer) {
            Ok(answers) => {
                let mut left = answers.into_iter();
                callers.into_iter().for_each(|(parts, done)| drop(done.send(Ok(left.by_ref().take(parts).collect()))));
            }
            Err(error) => callers.into_iter().for_each(|(_, done)| drop(done.send(Err(error.clone())))),
        }
    }
}
