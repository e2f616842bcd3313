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

/// Entries whose bodies and audiences are read at once.
const ENTRIES_A_READ: usize = 64;

/// Bytes of audiences that are read at once, unless one alone has more: one may be a megabyte, and an answer must have come
/// in time.
const BYTES_A_READ: usize = 4 * 1024 * 1024;

/// An entry as it lies in the timeline: id, expiry (8 bytes), mark of a cancel, bytes of its audience (4 bytes).
struct Listed {
    seq: u64,
    id: MessageId,
    cancelled: bool,
    audience_bytes: usize,
}

impl Listed {
    fn read(member: &[u8], seq: u64) -> Result<Self, Error> {
        let parts = || {
            let (id, rest) = member.split_first_chunk::<16>()?;
            let (_expires_at, rest) = rest.split_first_chunk::<8>()?;
            let (cancelled, rest) = rest.split_first()?;
            let bytes = u32::from_be_bytes(rest.try_into().ok()?);
            Some(Self { seq, id: message_id(id).ok()?, cancelled: *cancelled == 1, audience_bytes: bytes as usize })
        };
        parts().ok_or_else(|| take::corrupt("a timeline", &"not an entry"))
    }
}

/// What of these is read at once, part by part.
fn reads(listed: &[Listed]) -> impl Iterator<Item = &[Listed]> {
    let (mut count, mut bytes) = (0, 0);
    listed.chunk_by(move |one, next| {
        (count, bytes) = (count + 1, bytes + one.audience_bytes);
        let fits = count < ENTRIES_A_READ && bytes + next.audience_bytes <= BYTES_A_READ;
        if !fits {
            (count, bytes) = (0, 0);
        }
        fits
    })
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
            for some in reads(&listed) {
                self.read_entries(app, some, &mut entries).await?;
            }
            // In place of what was swept meanwhile others are read: few entries say that there are no more.
            match listed.last() {
                Some(last) if listed.len() == wanted && entries.len() < limit => from = Seq(last.seq),
                _ => return Ok(entries),
            }
        }
    }

    async fn timeline_cancelled(&self, app: &AppId, after: Seq) -> Result<Vec<MessageId>, Error> {
        let listed = self.list_timeline(app, after, TIMELINE_MAX).await?;
        Ok(listed.into_iter().filter(|entry| entry.cancelled).map(|entry| entry.id).collect())
    }

    async fn timeline_head(&self, app: &AppId) -> Result<Seq, Error> {
        let mut get = cmd("GET");
        get.arg(self.of(app).timeline_head());
        Ok(Seq(take::value::<Option<u64>>(self.ask_one(get).await?)?.unwrap_or_default()))
    }
}

impl Redis {
    /// What stands in the timeline after `after`, with its numbers, once replicas have it.
    async fn list_timeline(&self, app: &AppId, after: Seq, limit: usize) -> Result<Vec<Listed>, Error> {
        let mut list = cmd("ZRANGEBYSCORE");
        list.arg(self.of(app).timeline()).arg(format!("({}", after.0)).arg("+inf").arg("WITHSCORES");
        list.arg("LIMIT").arg(0).arg(limit);
        let members: Vec<(Vec<u8>, u64)> = take::value(self.ask_settled(list).await?)?;
        members.iter().map(|(member, seq)| Listed::read(member, *seq)).collect()
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
        listed: &[Listed],
        entries: &mut Vec<TimelineEntry>,
    ) -> Result<(), Error> {
        let of = self.of(app);
        let mut asked = Vec::with_capacity(listed.len() * 2);
        for Listed { id, audience_bytes, .. } in listed {
            let (mut body, mut audience) = (cmd("GET"), cmd("GETRANGE"));
            body.arg(of.body(*id));
            audience.arg(of.tally(*id)).arg(log::AUDIENCE_AT).arg(log::AUDIENCE_AT + audience_bytes - 1);
            asked.extend([body, audience]);
        }
        let mut answers = self.ask(asked).await?.into_iter();
        for &Listed { seq, id, cancelled, .. } in listed {
            let (body, audience) = (answers.next().unwrap_or_default(), answers.next().unwrap_or_default());
            // Swept between the two reads, or long expired and never swept.
            let Some(message) = take::maybe::<Message>(body, "the body of a message")? else { continue };
            let mut audience = Ordinals::from_bytes(&take::value::<Vec<u8>>(audience)?)
                .ok_or_else(|| take::corrupt("the audience of a message", &id))?;
            if cancelled {
                audience -= &self.read_tally(&of, id).await?.unwrap_or_default().cancelled;
            }
            let (message, audience) = (Arc::new(message), Arc::new(audience));
            entries.push(TimelineEntry { seq: Seq(seq), message, audience, cancelled });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(audience_bytes: usize) -> Listed {
        Listed { seq: 0, id: MessageId::new(Timestamp::default(), 0), cancelled: false, audience_bytes }
    }

    #[test]
    fn what_is_read_at_once_is_bounded_by_number_and_by_bytes() {
        let parts = |bytes: &[usize]| {
            let listed: Vec<_> = bytes.iter().map(|bytes| listed(*bytes)).collect();
            reads(&listed).map(<[Listed]>::len).collect::<Vec<_>>()
        };
        assert_eq!(parts(&[1; 130]), [64, 64, 2]);
        assert_eq!(parts(&[BYTES_A_READ / 2; 5]), [2, 2, 1]);
        assert_eq!(parts(&[1, BYTES_A_READ * 2, 1]), [1, 1, 1]);
        assert_eq!(parts(&[]), [0; 0]);
    }
}
