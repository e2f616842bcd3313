//! The judge of a history. It works out for itself who must and who may have each message, from what senders asked for
//! and who was registered then; of the server's answers it believes only which send was accepted, and under which id.

mod cut;
mod deliveries;
mod roll;
mod sends;

use std::{collections::HashMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::history::{Kind, Op, Record};
use cut::may_be_cut;
use deliveries::Deliveries;
use roll::Roll;
use sends::{Outcome, Sends};

/// A message may arrive this long after it has expired, and a first delivery this long after its cancellation was
/// answered: the contract's second.
const GRACE: Duration = Duration::from_secs(1);

/// Offences that are described; the rest is only counted.
const OFFENCES_SHOWN: usize = 20;

/// What a history shows. The first block counts messages, the second pairs of message and device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Messages sent.
    pub attempt: u64,
    /// Messages that were accepted.
    pub ok: u64,
    /// Messages that were refused.
    pub fail: u64,
    /// Messages whose outcome the sender never learned.
    pub info: u64,
    /// Of those, messages that somebody received.
    pub recovered: u64,

    /// Deliveries that had to be: of accepted messages to devices that synced in time.
    pub expected: u64,
    /// Of those, deliveries that were.
    pub delivered: u64,
    /// Of those, deliveries that were not, though nothing excuses it.
    pub lost: u64,
    /// Of those, deliveries that were not because an inbox was full: allowed.
    pub truncated: u64,
    /// Messages that came to a device they were not for, were refused or called back before, or that nobody sent.
    pub unexpected: u64,
    /// Messages that an application saw again.
    pub app_duplicates: u64,
    /// Messages that came off the wire again: allowed.
    pub wire_duplicates: u64,
    /// Of those, messages that came under another number.
    pub renumbered: u64,
    /// Messages behind a greater number of their stream: on one connection, or for the application.
    pub out_of_order: u64,
    /// Messages that came after they had expired.
    pub late: u64,

    /// Funnels that do not say what the devices saw.
    pub funnel_mismatch: u64,
    /// The first offences, for people.
    pub offences: Vec<String>,
}

impl Verdict {
    /// Whether every promise was kept.
    pub fn holds(&self) -> bool {
        let broken = [
            self.lost,
            self.unexpected,
            self.app_duplicates,
            self.renumbered,
            self.out_of_order,
            self.late,
            self.funnel_mismatch,
        ];
        broken.iter().all(|&count| count == 0)
    }

    fn note(&mut self, offence: impl FnOnce() -> String) {
        if self.offences.len() < OFFENCES_SHOWN {
            self.offences.push(offence());
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempt, ok, fail, info, recovered, .. } = self;
        writeln!(f, "messages    {attempt} sent: {ok} ok, {fail} fail, {info} info ({recovered} recovered)")?;
        let Self { expected, delivered, lost, truncated, unexpected, .. } = self;
        write!(f, "deliveries  {delivered} of {expected} expected, {lost} lost, {truncated} truncated, ")?;
        writeln!(f, "{unexpected} unexpected")?;
        let Self { app_duplicates, wire_duplicates, renumbered, out_of_order, late, .. } = self;
        writeln!(
            f,
            "repeats     {app_duplicates} seen by an application, {wire_duplicates} on the wire ({renumbered} renumbered)"
        )?;
        writeln!(f, "order       {out_of_order} out of order, {late} late")?;
        writeln!(f, "funnels     {} do not match", self.funnel_mismatch)?;
        for offence in &self.offences {
            writeln!(f, "  {offence}")?;
        }
        write!(f, "verdict     {}", if self.holds() { "holds" } else { "BROKEN" })
    }
}

/// Judges a history.
pub fn check(records: &[Record]) -> Verdict {
    let roll = Roll::of(records);
    let sends = Sends::of(records, &roll);
    let mut verdict = Verdict::default();
    let mut deliveries = Deliveries::new(&roll, &sends);
    for (at, record) in records.iter().enumerate() {
        match &record.op {
            Op::Receive { .. } => deliveries.receive(at, record, &mut verdict),
            Op::State { dev, after } => deliveries.state(dev, *after),
            _ => {}
        }
    }
    count_messages(&sends, &deliveries, &mut verdict);
    count_expected(&roll, &sends, &deliveries, &mut verdict);
    count_funnels(records, &roll, &sends, &deliveries, &mut verdict);
    verdict
}

fn count_messages(sends: &Sends<'_>, deliveries: &Deliveries<'_>, verdict: &mut Verdict) {
    for (message, send) in sends.iter() {
        verdict.attempt += 1;
        match send.outcome {
            Outcome::Ok => verdict.ok += 1,
            Outcome::Fail => verdict.fail += 1,
            Outcome::Info => {
                verdict.info += 1;
                verdict.recovered += u64::from(!deliveries.seen(message).is_empty());
            }
        }
    }
}

/// G1: an accepted message reaches every device of its audience that syncs before it expires, unless its inbox is full.
fn count_expected(roll: &Roll<'_>, sends: &Sends<'_>, deliveries: &Deliveries<'_>, verdict: &mut Verdict) {
    for (message, send) in sends.iter().filter(|(_, send)| send.outcome == Outcome::Ok && send.cancelled.is_none()) {
        for device in &roll.must(send) {
            if !roll.synced_within(device, send.answered_at, send.expires_from) {
                continue;
            }
            verdict.expected += 1;
            if deliveries.seen(message).contains(device) {
                verdict.delivered += 1;
            } else if may_be_cut(device, message, roll, sends, deliveries) {
                verdict.truncated += 1;
            } else {
                verdict.lost += 1;
                verdict.note(|| format!("lost: {} never came to {}", send.msg, roll.name(device)));
            }
        }
    }
}

/// G7: at rest a funnel balances, targets the audience, and has as acked exactly those that acked.
fn count_funnels(
    records: &[Record],
    roll: &Roll<'_>,
    sends: &Sends<'_>,
    deliveries: &Deliveries<'_>,
    verdict: &mut Verdict,
) {
    let said = |record: &'_ Record| match (&record.op, record.kind) {
        (Op::Funnel { msg, funnel }, Kind::Ok) => Some((msg.clone(), *funnel)),
        _ => None,
    };
    let last: HashMap<_, _> = records.iter().filter_map(said).collect();
    let mut last: Vec<_> = last.into_iter().collect();
    last.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (msg, funnel) in last {
        let Some((message, send)) = sends.named(&msg) else { continue };
        let must = roll.must(send);
        let may = roll.may(send, records.len());
        let acked = deliveries.acked(message).len();
        // Whoever has not synced since may still lack it.
        let away = may.iter().filter(|&device| !roll.synced_after(device, send.answered_at)).count() as u64;
        let targets = must.len()..=may.len();
        // Called back, it may never have had targets, and an ack that a crash swallowed is not asked for again.
        let right = match send.cancelled {
            None => funnel.acked == acked && targets.contains(&funnel.targeted),
            Some(_) => funnel.acked <= acked && (funnel.targeted == 0 || targets.contains(&funnel.targeted)),
        };
        if !(right && funnel.pending <= away && funnel.balances()) {
            verdict.funnel_mismatch += 1;
            verdict.note(|| format!("funnel of {msg}: {funnel:?}, but {targets:?} targets, {away} away, {acked} acks"));
        }
    }
}

#[cfg(test)]
mod tests;
