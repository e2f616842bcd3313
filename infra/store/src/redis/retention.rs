//! What must go when its time is over, found by sorted sets of what is due and when, one of each kind an app; and
//! messages, whose own order is that in which they go.
//!
//! A sweep reads what is due and then removes it; between the two nothing is held. Every removal is one that may be
//! done twice, and what names a thing as due goes last, so a sweep that is cut short is finished by the next. What cannot
//! be read is taken off its list and told of once: nothing else waits for it.

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, cmd};
use model::{AppId, MessageId, Ordinal, Timestamp};

use super::{
    Redis,
    inbox::DEVICES_A_STEP,
    key::{AppKeys, Key},
    link::Repeat,
    messages::message_id,
    script::{Call, Step},
    take, uplinks,
};
use crate::{Error, PAGE_MAX, Retention};

/// Messages that one script forgets before others get their turn.
const MESSAGES_A_STEP: usize = 128;

#[async_trait]
impl Retention for Redis {
    async fn expire(&self, now: Timestamp) -> Result<usize, Error> {
        let mut list = cmd("SMEMBERS");
        list.arg(self.keys.seen());
        let apps: Vec<String> = take::value(self.ask_one(list).await?)?;
        let now = self.not_early(now).await?;
        let (mut swept, mut failed) = (Swept::default(), Ok(()));
        for app in apps {
            let expired = match app.parse::<AppId>() {
                Ok(app) => self.expire_app(&self.of(&app), now, &mut swept).await,
                Err(error) => Err(take::corrupt("an app", &error)),
            };
            // What is wrong with one app does not hold up the others.
            failed = failed.and(expired);
        }
        let Swept { entries, messages, promises, uplinks, damage } = swept;
        match (damage, entries + messages + promises + uplinks) {
            // No other sweep meets it.
            (Some(damage), _) => Err(damage),
            (None, 0) => failed.map(|()| 0),
            // There may be more: what is wrong with one app is told when nothing is left of the others.
            (None, removed) => Ok(removed),
        }
    }
}

/// How much a sweep has removed of each kind, and the first that it could not read.
#[derive(Default)]
struct Swept {
    entries: usize,
    messages: usize,
    promises: usize,
    uplinks: usize,
    damage: Option<Error>,
}

impl Redis {
    async fn expire_app(&self, of: &AppKeys, now: Timestamp, swept: &mut Swept) -> Result<(), Error> {
        self.expire_messages(of, now, swept).await?;
        self.forget_messages(of, now, swept).await?;
        self.forget_promises(of, now, swept).await?;
        self.forget_uplinks(of, now, swept).await
    }

    /// Not later than the server's clock says, where clocks are compared: what a clock removes that is ahead is lost to
    /// everybody.
    async fn not_early(&self, now: Timestamp) -> Result<Timestamp, Error> {
        if self.skew_max.is_none() {
            return Ok(now);
        }
        let (seconds, micros): (u64, u64) = take::value(self.ask_one(cmd("TIME")).await?)?;
        Ok(now.min(Timestamp::from_millis(seconds * 1_000 + micros / 1_000)))
    }

    /// What is due by now, at most `limit`.
    async fn due(&self, list: Key, now: Timestamp, limit: usize) -> Result<Vec<Vec<u8>>, Error> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let mut read = cmd("ZRANGEBYSCORE");
        read.arg(list).arg("-inf").arg(now.as_millis()).arg("LIMIT").arg(0).arg(limit);
        take::value(self.ask_one(read).await?)
    }

    /// What members of a list say. One that says nothing leaves the list: it would hold up the others for ever.
    async fn readable<T>(
        &self,
        list: Key,
        members: &[Vec<u8>],
        swept: &mut Swept,
        read: impl Fn(&[u8]) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let (mut said, mut remove) = (Vec::with_capacity(members.len()), cmd("ZREM"));
        remove.arg(list);
        for member in members {
            match read(member) {
                Ok(what) => said.push(what),
                Err(damage) => {
                    swept.damage.get_or_insert(damage);
                    remove.arg(member);
                }
            }
        }
        if said.len() < members.len() {
            self.write_one(remove, Repeat::Once).await?;
        }
        Ok(said)
    }

    /// Takes entries of expired messages out of their streams, then their bodies away.
    async fn expire_messages(&self, of: &AppKeys, now: Timestamp, swept: &mut Swept) -> Result<(), Error> {
        let due = self.due(of.due_expiry(), now, PAGE_MAX - swept.entries).await?;
        let ids = self.readable(of.due_expiry(), &due, swept, message_id).await?;
        let streams = self.streams(of, &ids).await?;
        let (mut steps, mut touched, mut removed) = (Vec::new(), 0, 0);
        for (id, stream) in ids.into_iter().zip(streams) {
            if touched >= PAGE_MAX {
                break;
            }
            match stream {
                0 => steps.extend(out_of_inboxes(of, &[], id)),
                1 => {
                    let devices = self.targeted(of, id, swept).await?;
                    touched += devices.len();
                    steps.extend(out_of_inboxes(of, &devices, id));
                }
                seq => {
                    touched += 1;
                    steps.push(out_of_timeline(of, seq, id));
                }
            }
            removed += 1;
        }
        self.write(steps, Repeat::Once).await?;
        swept.entries += removed;
        Ok(())
    }

    /// In whose inboxes a message is; in nobody's, as far as is known, when its tally cannot be read. What stays there has
    /// no body, so nobody gets it, and goes when the inbox is full.
    async fn targeted(&self, of: &AppKeys, id: MessageId, swept: &mut Swept) -> Result<Vec<Ordinal>, Error> {
        match self.read_tally(of, id).await {
            Err(damage @ Error::Corrupt(_)) => {
                swept.damage.get_or_insert(damage);
                Ok(Vec::new())
            }
            tally => Ok(tally?.unwrap_or_default().targeted.iter().collect()),
        }
    }

    /// Forgets messages whose time is over. No list says when: every message is kept for the same time, so those that
    /// are over lie among the oldest; the sweep goes on while it finds some.
    async fn forget_messages(&self, of: &AppKeys, now: Timestamp, swept: &mut Swept) -> Result<(), Error> {
        let mut from = b"-".to_vec();
        while swept.messages + MESSAGES_A_STEP <= PAGE_MAX {
            let mut list = cmd("ZRANGEBYLEX");
            list.arg(of.messages()).arg(from).arg("+").arg("LIMIT").arg(0).arg(MESSAGES_A_STEP);
            let oldest: Vec<Vec<u8>> = take::value(self.ask_one(list).await?)?;
            let Some(last) = oldest.last() else { break };
            from = [b"(".as_slice(), last].concat();
            let mut forget = Call::new(Step::Forget);
            forget.key(of.due_expiry()).key(of.messages()).arg(now.as_millis());
            for id in self.readable(of.messages(), &oldest, swept, message_id).await? {
                forget.key(of.message(id)).key(of.failed(id)).key(of.tally(id)).arg(&id.to_bytes()[..]);
            }
            let gone: usize = take::value(self.write_one(forget.cmd(), Repeat::Once).await?)?;
            if gone == 0 {
                break;
            }
            swept.messages += gone;
        }
        Ok(())
    }

    async fn forget_promises(&self, of: &AppKeys, now: Timestamp, swept: &mut Swept) -> Result<(), Error> {
        let due = self.due(of.due_once(), now, PAGE_MAX - swept.promises).await?;
        let named = |due: &[u8]| {
            let text = due.get(8..).ok_or_else(|| take::corrupt("what is due", &"not an idempotency key"))?;
            Ok::<_, Error>((of.once(text), due.to_vec()))
        };
        let due = self.readable(of.due_once(), &due, swept, named).await?;
        if due.is_empty() {
            return Ok(());
        }
        let mut forget = Call::new(Step::ForgetOnce);
        forget.key(of.due_once());
        due.iter().for_each(|(key, promise)| _ = forget.key(key).arg(promise));
        self.write_one(forget.cmd(), Repeat::Once).await?;
        swept.promises += due.len();
        Ok(())
    }

    async fn forget_uplinks(&self, of: &AppKeys, now: Timestamp, swept: &mut Swept) -> Result<(), Error> {
        let due = self.due(of.due_uplink(), now, PAGE_MAX - swept.uplinks).await?;
        let steps = self.readable(of.due_uplink(), &due, swept, |due| uplinks::forget(of, due)).await?;
        swept.uplinks += self.write(steps, Repeat::Once).await?.len();
        Ok(())
    }
}

fn out_of_inboxes(of: &AppKeys, devices: &[Ordinal], id: MessageId) -> Vec<Cmd> {
    let pages = devices.len().div_ceil(DEVICES_A_STEP).max(1);
    let step = |page: usize| {
        let mut out = Call::new(Step::ExpireInboxes);
        out.key(of.due_expiry()).key(of.body(id));
        devices
            .iter()
            .skip(page * DEVICES_A_STEP)
            .take(DEVICES_A_STEP)
            .for_each(|device| _ = out.key(of.inbox(*device)));
        out.arg(&id.to_bytes()[..]).arg(u8::from(page + 1 == pages)).cmd()
    };
    (0..pages).map(step).collect()
}

fn out_of_timeline(of: &AppKeys, seq: u64, id: MessageId) -> Cmd {
    let mut out = Call::new(Step::ExpireTimeline);
    out.key(of.due_expiry()).key(of.body(id)).key(of.timeline());
    out.arg(&id.to_bytes()[..]).arg(seq).cmd()
}
