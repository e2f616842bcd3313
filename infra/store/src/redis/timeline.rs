//! The stream of one app: a sorted set of entries; bodies and audiences lie with their messages.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, cmd};
use model::{AppId, Message, MessageId, Ordinals, Seq, Timestamp};

use super::{
    Redis,
    inbox::MESSAGES_A_STEP,
    link::Repeat,
    log,
    messages::{self, message_id},
    script::{Call, Step},
    take,
};
use crate::{Appended, Error, Timeline, TimelineAppend, TimelineEntry, timeline::TIMELINE_MAX};

/// Bodies and audiences that are read at once: an audience may be a megabyte.
const ENTRIES_A_READ: usize = 64;

/// An entry as it lies in the timeline: id, expiry (8 bytes), mark of a cancel, bytes of its audience (4 bytes).
struct Listed {
    id: MessageId,
    cancelled: bool,
    audience_bytes: usize,
}

impl Listed {
    fn read(member: &[u8]) -> Result<Self, Error> {
        let parts = || {
            let (id, rest) = member.split_first_chunk::<16>()?;
            let (_expires_at, rest) = rest.split_first_chunk::<8>()?;
            let (cancelled, rest) = rest.split_first()?;
            let bytes = u32::from_be_bytes(rest.try_into().ok()?);
            Some(Self { id: message_id(id).ok()?, cancelled: *cancelled == 1, audience_bytes: bytes as usize })
        };
        parts().ok_or_else(|| take::corrupt("a timeline", &"not an entry"))
    }
}

#[async_trait]
impl Timeline for Redis {
    async fn append_timeline(&self, appends: Vec<TimelineAppend>, now: Timestamp) -> Result<Vec<Appended>, Error> {
        let mut of_app = BTreeMap::<AppId, Vec<usize>>::new();
        for (place, append) in appends.iter().enumerate() {
            of_app.entry(append.message.app.clone()).or_default().push(place);
        }
        let mut steps = Vec::new();
        for (app, places) in of_app {
            self.see(&app).await?;
            steps.extend(places.chunks(MESSAGES_A_STEP).map(<[usize]>::to_vec));
        }
        let calls = steps.iter().map(|step| self.append_to_timeline(step.iter().map(|place| &appends[*place]), now));
        let answers = self.write(calls.collect(), Repeat::Once).await?;
        let mut done = vec![Appended::Cancelled; appends.len()];
        for (step, outcomes) in steps.iter().zip(answers) {
            for (place, outcome) in step.iter().zip(take::value::<Vec<u64>>(outcomes)?) {
                done[*place] = messages::appended(outcome)?;
            }
        }
        Ok(done)
    }

    async fn timeline_after(&self, app: &AppId, after: Seq, limit: usize) -> Result<Vec<TimelineEntry>, Error> {
        let (mut from, mut entries) = (after, Vec::new());
        loop {
            let wanted = limit - entries.len();
            let listed = self.list_timeline(app, from, wanted).await?;
            for page in listed.chunks(ENTRIES_A_READ) {
                self.read_entries(app, page, &mut entries).await?;
            }
            // In place of what was swept meanwhile others are read: few entries say that there are no more.
            match listed.last() {
                Some((_, last)) if listed.len() == wanted && entries.len() < limit => from = Seq(*last),
                _ => return Ok(entries),
            }
        }
    }

    async fn timeline_cancelled(&self, app: &AppId, after: Seq) -> Result<Vec<MessageId>, Error> {
        let listed = self.list_timeline(app, after, TIMELINE_MAX).await?;
        let listed = listed.iter().map(|(member, _)| Listed::read(member));
        listed.filter_map(|entry| entry.map(|entry| entry.cancelled.then_some(entry.id)).transpose()).collect()
    }

    async fn timeline_head(&self, app: &AppId) -> Result<Seq, Error> {
        let mut get = cmd("GET");
        get.arg(self.of(app).timeline_head());
        Ok(Seq(take::value::<Option<u64>>(self.ask_one(get).await?)?.unwrap_or_default()))
    }
}

impl Redis {
    /// What stands in the timeline after `after`, with its numbers, once replicas have it.
    async fn list_timeline(&self, app: &AppId, after: Seq, limit: usize) -> Result<Vec<(Vec<u8>, u64)>, Error> {
        let mut list = cmd("ZRANGEBYSCORE");
        list.arg(self.of(app).timeline()).arg(format!("({}", after.0)).arg("+inf").arg("WITHSCORES");
        list.arg("LIMIT").arg(0).arg(limit);
        take::value(self.ask_settled(list).await?)
    }

    fn append_to_timeline<'a>(&self, appends: impl Iterator<Item = &'a TimelineAppend>, now: Timestamp) -> Cmd {
        let mut step = Call::new(Step::AppendTimeline);
        self.time(now).into_iter().for_each(|part| _ = step.arg(part));
        step.arg(TIMELINE_MAX);
        for TimelineAppend { message, audience } in appends {
            step.key(self.of(&message.app).message(message.id));
            let audience = audience.clone().compact().to_bytes();
            messages::dispatch(&mut step, message, log::begin_with(&audience));
            step.arg(audience.len());
        }
        step.cmd()
    }

    async fn read_entries(
        &self,
        app: &AppId,
        page: &[(Vec<u8>, u64)],
        entries: &mut Vec<TimelineEntry>,
    ) -> Result<(), Error> {
        let of = self.of(app);
        let listed = page.iter().map(|(member, _)| Listed::read(member)).collect::<Result<Vec<_>, _>>()?;
        let mut asked = Vec::with_capacity(page.len() * 2);
        for Listed { id, audience_bytes, .. } in &listed {
            let (mut body, mut audience) = (cmd("GET"), cmd("GETRANGE"));
            body.arg(of.body(*id));
            audience.arg(of.tally(*id)).arg(log::AUDIENCE_AT).arg(log::AUDIENCE_AT + audience_bytes - 1);
            asked.extend([body, audience]);
        }
        let mut answers = self.ask(asked).await?.into_iter();
        for ((_, seq), Listed { id, cancelled, .. }) in page.iter().zip(listed) {
            let (body, audience) = (answers.next().unwrap_or_default(), answers.next().unwrap_or_default());
            // Swept between the two reads, or long expired and never swept.
            let Some(message) = take::maybe::<Message>(body, "the body of a message")? else { continue };
            let mut audience = Ordinals::from_bytes(&take::value::<Vec<u8>>(audience)?)
                .ok_or_else(|| take::corrupt("the audience of a message", &id))?;
            if cancelled {
                audience -= &self.read_tally(&of, id).await?.unwrap_or_default().cancelled;
            }
            let (message, audience) = (Arc::new(message), Arc::new(audience));
            entries.push(TimelineEntry { seq: Seq(*seq), message, audience, cancelled });
        }
        Ok(())
    }
}
