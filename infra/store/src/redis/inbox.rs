//! The stream of one device: a sorted set of what is pending, and beside it the last number given.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, Value, cmd};
use model::{AppId, Message, Ordinal, Ordinals, Placed, Seq, Timestamp};

use super::{
    Redis, key,
    link::Repeat,
    log,
    messages::{self, number},
    script::{Call, Step},
    take,
};
use crate::{Appended, Error, Inbox, InboxAppend, InboxAppended, InboxEntry, inbox::INBOX_MAX};

/// Inboxes that one script touches before others get their turn, a message's own aside: about a millisecond.
pub(super) const DEVICES_A_STEP: usize = 256;

/// Messages that one script appends before others get their turn.
pub(super) const MESSAGES_A_STEP: usize = 64;

#[async_trait]
impl Inbox for Redis {
    async fn append_inbox(&self, appends: Vec<InboxAppend>, now: Timestamp) -> Result<Vec<InboxAppended>, Error> {
        let mut of_app = BTreeMap::<AppId, Vec<usize>>::new();
        for (place, append) in appends.iter().enumerate() {
            of_app.entry(append.message.app.clone()).or_default().push(place);
        }
        let mut steps = Vec::new();
        for (app, places) in of_app {
            self.see(&app).await?;
            steps.extend(split(&places, &appends));
        }
        let calls = steps.iter().map(|step| self.append_step(step.iter().map(|place| &appends[*place]), now));
        let answers = self.write(calls.collect(), Repeat::Once).await?;
        let mut done = vec![InboxAppended { outcome: Appended::Cancelled, places: Vec::new() }; appends.len()];
        for (step, answers) in steps.iter().zip(answers) {
            for (place, answer) in step.iter().zip(take::value::<Vec<Vec<u64>>>(answers)?) {
                done[*place] = appended(&answer, &appends[*place].devices)?;
            }
        }
        Ok(done)
    }

    async fn inbox_after(
        &self,
        app: &AppId,
        device: Ordinal,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<InboxEntry>, Error> {
        let (mut from, mut entries) = (after, Vec::new());
        loop {
            let wanted = limit - entries.len();
            let listed = self.list_inbox(app, device, from, wanted).await?;
            let (found, last) = (listed.len(), listed.last().map(|(seq, _)| *seq));
            entries.extend(listed.into_iter().filter_map(|(seq, message)| Some(InboxEntry { seq, message: message? })));
            // In place of what has no body others are read: few entries say that there are no more.
            match last {
                Some(last) if found == wanted && entries.len() < limit => from = last,
                _ => return Ok(entries),
            }
        }
    }

    async fn inbox_heads(&self, app: &AppId, devices: &[Ordinal]) -> Result<Vec<Seq>, Error> {
        let of = self.of(app);
        let get = |device: &Ordinal| {
            let mut get = cmd("HGET");
            get.arg(of.places(*device)).arg(format!("h{}", key::slot(*device)));
            get
        };
        let answers = self.ask(devices.iter().map(get).collect()).await?;
        let head =
            |answer| take::value::<Option<Vec<u8>>>(answer).map(|head| Seq(number(&head.unwrap_or_default(), 0)));
        answers.into_iter().map(head).collect()
    }
}

/// What the script says of one message: its outcome, then for each device the last number before and its own.
fn appended(answer: &[u64], devices: &Ordinals) -> Result<InboxAppended, Error> {
    let (outcome, numbers) = answer.split_first().ok_or_else(|| take::corrupt("an append", &"no outcome"))?;
    let place = |(device, numbers): (Ordinal, &[u64])| Placed { device, before: Seq(numbers[0]), seq: Seq(numbers[1]) };
    let places = devices.iter().zip(numbers.chunks_exact(2)).map(place).collect();
    Ok(InboxAppended { outcome: messages::appended(*outcome)?, places })
}

/// Splits the appends at these places into steps, in their order.
fn split(places: &[usize], appends: &[InboxAppend]) -> Vec<Vec<usize>> {
    let mut steps: Vec<Vec<usize>> = Vec::new();
    let mut devices = 0;
    for &place in places {
        let more = appends[place].devices.len();
        match steps.last_mut() {
            Some(step) if step.len() < MESSAGES_A_STEP && devices + more <= DEVICES_A_STEP as u64 => step.push(place),
            _ => {
                steps.push(vec![place]);
                devices = 0;
            }
        }
        devices += more;
    }
    steps
}

impl Redis {
    /// What stands in an inbox after `after`, once replicas have it. A body is not there when it has long expired and nobody
    /// swept, or when a sweep could not tell whose inboxes the message was in.
    async fn list_inbox(
        &self,
        app: &AppId,
        device: Ordinal,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<(Seq, Option<Arc<Message>>)>, Error> {
        let mut read = Call::new(Step::InboxAfter);
        read.key(self.of(app).inbox(device)).arg(after.0).arg(limit);
        let done = self.inbox_after.carry_out(app, read, 1).await?;
        let found: Vec<Value> = take::value(take::only(self.fenced(done).await?)?)?;
        let mut listed = Vec::with_capacity(found.len() / 2);
        let mut found = found.into_iter();
        while let (Some(seq), Some(body)) = (found.next(), found.next()) {
            let message = take::maybe::<Message>(body, "the body of a message")?;
            listed.push((Seq(take::value(seq)?), message.map(Arc::new)));
        }
        Ok(listed)
    }

    fn append_step<'a>(&self, appends: impl Iterator<Item = &'a InboxAppend>, now: Timestamp) -> Cmd {
        let mut step = Call::new(Step::AppendInbox);
        self.time(now).into_iter().for_each(|part| _ = step.arg(part));
        step.arg(INBOX_MAX);
        for InboxAppend { message, devices } in appends {
            step.key(self.of(&message.app).message(message.id));
            messages::dispatch(&mut step, message, log::begin(devices));
            let devices: Vec<u8> = devices.iter().flat_map(|device| device.0.to_be_bytes()).collect();
            step.arg(message.collapse_key.as_deref().unwrap_or_default()).arg(devices);
        }
        step.cmd()
    }
}
