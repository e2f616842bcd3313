//! Faults in a cluster of processes: shell commands that break and mend it one after the other, under load, and the
//! judgement over everything that happened. It knows nothing of what the commands do.

use std::{fmt, process::Stdio, time::Duration};

use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use super::traffic::{Scene, Traffic};
use crate::{Error, Kind, Op, Record, Verdict, answers::Summary, check};

/// How long a step's command may take: starting a RabbitMQ node again takes a while on a busy machine.
const COMMAND_PATIENCE: Duration = Duration::from_secs(120);
/// Load before the first step, so that there is something to break.
const WARM_UP: Duration = Duration::from_secs(2);

/// One thing that is done to the cluster.
#[derive(Clone, Debug)]
pub struct Step {
    /// What it is, for people.
    pub name: String,
    /// How, for `/bin/sh`; anything but success ends the run.
    pub command: String,
    /// How long nothing else is done then.
    pub then: Duration,
    /// If set: whatever is asked for in that time is answered so soon, and who is put off is told until when.
    pub answered_within: Option<Duration>,
}

impl Step {
    /// The same under another name.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: name.to_owned(), ..self }
    }

    /// The same, and whatever is asked for in the pause after it is answered so soon.
    #[must_use]
    pub fn answered_within(self, limit: Duration) -> Self {
        Self { answered_within: Some(limit), ..self }
    }
}

/// The scenario.
#[derive(Clone, Debug)]
pub struct ClusterFaults {
    /// What is played, on a cluster that is up.
    pub scene: Scene,
    /// Variables added to the environment of every command.
    pub environment: Vec<(String, String)>,
    /// What is done under load, in order; in the end everything must be up again.
    pub steps: Vec<Step>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct ClusterReport {
    /// The judgement.
    pub verdict: Verdict,
    /// The longest time in which no send was accepted.
    pub outage: Duration,
    /// How long the steps took, the pauses after them included.
    pub steps: Duration,
    /// How long it took from the last step until everything was at rest.
    pub recovery: Duration,
    /// What was answered after each step.
    pub answers: Vec<StepAnswers>,
}

/// What was answered in the pause after a step.
#[derive(Clone, Debug)]
pub struct StepAnswers {
    /// The step's name.
    pub name: String,
    /// The answers.
    pub summary: Summary,
    /// Whether they were as the step wanted them.
    pub in_time: bool,
}

impl ClusterReport {
    /// Whether every promise was kept, and every answer came as its step wanted it.
    pub fn holds(&self) -> bool {
        self.verdict.holds() && self.answers.iter().all(|step| step.in_time)
    }
}

impl fmt::Display for ClusterReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [steps, recovery, outage] = [self.steps, self.recovery, self.outage].map(|time| time.as_secs_f64());
        writeln!(f, "faults for {steps:.1} s, at rest {recovery:.1} s later; {outage:.1} s without an accepted send")?;
        for StepAnswers { name, summary, in_time } in &self.answers {
            writeln!(f, "{} {name}: {summary}", if *in_time { "after " } else { "BROKEN after" })?;
        }
        self.verdict.fmt(f)
    }
}

/// Takes every step under load, lets everything come to rest, and judges.
///
/// # Errors
/// [`Error::Corrupt`] when a step's command fails or the platform breaks the contract, [`Error::Unavailable`] when it
/// does not come back; a broken promise is not an error but in the verdict.
pub async fn cluster_faults(scenario: &ClusterFaults) -> Result<ClusterReport, Error> {
    let traffic = Traffic::begin(&scenario.scene).await?;
    let answers = traffic.answers();
    sleep(WARM_UP).await;
    let begun = Instant::now();
    let mut pauses = Vec::new();
    for step in &scenario.steps {
        tracing::info!(step = step.name, "taken");
        take(step, &scenario.environment).await?;
        let taken = Instant::now();
        sleep(step.then).await;
        pauses.push((step, taken, Instant::now()));
    }
    let steps = begun.elapsed();
    let records = traffic.end(&scenario.scene).await?;
    let recovery = begun.elapsed().saturating_sub(steps);
    // Only now: what was asked for last in a pause is answered after it.
    let answers = pauses.into_iter().map(|(step, begin, end)| judged(step, answers.between(begin, end))).collect();
    Ok(ClusterReport { verdict: check(&records), outage: longest_outage(&records), steps, recovery, answers })
}

fn judged(step: &Step, summary: Summary) -> StepAnswers {
    let in_time = step.answered_within.is_none_or(|limit| summary.slowest <= limit && summary.bad == 0);
    StepAnswers { name: step.name.clone(), summary, in_time }
}

async fn take(step: &Step, environment: &[(String, String)]) -> Result<(), Error> {
    let mut command = Command::new("/bin/sh");
    command.args(["-euc", &step.command]).envs(environment.iter().cloned());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let failed = |why: String| Error::Corrupt(format!("{}: {why}", step.name));
    let output = timeout(COMMAND_PATIENCE, output).await;
    let output = output.map_err(|_| failed(format!("not done after {COMMAND_PATIENCE:?}")))??;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(failed(format!("{}; it said: {}", output.status, String::from_utf8_lossy(&said))))
}

fn longest_outage(records: &[Record]) -> Duration {
    let accepted = |record: &&Record| record.kind == Kind::Ok && matches!(record.op, Op::Send { .. });
    let at: Vec<_> = records.iter().filter(accepted).map(|record| record.t).collect();
    at.windows(2).map(|pair| pair[1].since(pair[0])).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(command: &str) -> Step {
        Step { name: "a step".into(), command: command.into(), then: Duration::ZERO, answered_within: None }
    }

    #[tokio::test]
    async fn a_step_has_the_environment_and_says_why_it_failed() {
        let environment = [("WORD".to_owned(), "hello".to_owned())];
        take(&step("test $WORD = hello"), &environment).await.unwrap();
        let failed = take(&step("echo $WORD >&2; exit 3"), &environment).await.unwrap_err().to_string();
        assert!(failed.contains("a step") && failed.contains("hello"), "{failed}");
    }

    #[test]
    fn a_step_that_wants_answers_in_time_gets_none_late_and_none_without_a_word() {
        let step = step("").answered_within(Duration::from_secs(1));
        let good = Summary { asked: 9, well: 4, later: 5, slowest: Duration::from_millis(900), ..Summary::default() };
        assert!(judged(&step, good).in_time);
        assert!(!judged(&step, Summary { slowest: Duration::from_millis(1_100), ..good }).in_time);
        assert!(!judged(&step, Summary { bad: 1, ..good }).in_time);
        assert!(judged(&Step { answered_within: None, ..step }, Summary { bad: 1, ..good }).in_time);
    }

    #[test]
    fn an_outage_lies_between_two_accepted_sends() {
        let send = |t, kind| Record {
            t: model::Timestamp::from_millis(t),
            proc: 0,
            kind,
            op: Op::Send { msg: String::new(), audience: crate::Audience::All, ttl_s: 1, id: None },
        };
        let ok = |t| send(t, Kind::Ok);
        let records = [ok(1_000), ok(1_100), send(1_500, Kind::Info), ok(3_100), ok(3_200)];
        assert_eq!(longest_outage(&records), Duration::from_secs(2));
        assert_eq!(longest_outage(&[]), Duration::ZERO);
    }
}
