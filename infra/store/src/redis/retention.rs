//! What must go when its time is over, found by sorted sets of what is due and when, one of each kind an app; and
//! messages, whose own order is that in which they go.
//!
//! A sweep reads what is due and then removes it; between the two nothing is held. Every removal is one that may be
//! done twice, and what names a thing as due goes last, so a sweep that is cut short is finished by the next.

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
        let (mut removed, mut failed) = (Removed::default(), Ok(()));
        for app in apps {
            let app: AppId = app.parse().map_err(|error| take::corrupt("an app", &error))?;
            // What is wrong with one app does not hold up the others.
            failed = failed.and(self.expire_app(&app, now, &mut removed).await);
        }
        let Removed { entries, messages, promises, uplinks } = removed;
        match entries + messages + promises + uplinks {
            0 => failed.map(|()| 0),
            // There may be more: what is wrong with one app is told when nothing is left of the others.
            removed => Ok(removed),
        }
    }
}

/// How much a sweep has removed of each kind.
#[derive(Default)]
struct Removed {
    entries: usize,
    messages: usize,
    promises: usize,
    uplinks: usize,
}

impl Redis {
    async fn expire_app(&self, app: &AppId, now: Timestamp, removed: &mut Removed) -> Result<(), Error> {
        let of = self.of(app);
        removed.entries += self.expire_messages(app, now, PAGE_MAX - removed.entries).await?;
        removed.messages += self.forget_messages(&of, now, PAGE_MAX - removed.messages).await?;
        removed.promises += self.forget_promises(&of, now, PAGE_MAX - removed.promises).await?;
        removed.uplinks += self.forget_uplinks(&of, now, PAGE_MAX - removed.uplinks).await?;
        Ok(())
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

    /// Takes entries of expired messages out of their streams, then their bodies away.
    async fn expire_messages(&self, app: &AppId, now: Timestamp, limit: usize) -> Result<usize, Error> {
        let of = self.of(app);
        let ids = self.due(of.due_expiry(), now, limit).await?;
        let ids = ids.iter().map(|id| message_id(id)).collect::<Result<Vec<_>, _>>()?;
        let kept = self.kept(app, &ids).await?;
        let (mut steps, mut touched, mut removed) = (Vec::new(), 0, 0);
        for (id, kept) in ids.into_iter().zip(kept) {
            if touched >= PAGE_MAX {
                break;
            }
            match kept.map(|kept| kept.stream) {
                Some(1) => {
                    let devices: Vec<_> = self.read_tally(&of, id).await?.unwrap_or_default().targeted.iter().collect();
                    touched += devices.len();
                    steps.extend(out_of_inboxes(&of, &devices, id));
                }
                Some(seq) if seq > 1 => {
                    touched += 1;
                    steps.push(out_of_timeline(&of, seq, id));
                }
                _ => steps.extend(out_of_inboxes(&of, &[], id)),
            }
            removed += 1;
        }
        self.write(steps, Repeat::Once).await?;
        Ok(removed)
    }

    /// Forgets messages whose time is over. No list says when: every message is kept for the same time, so those that
    /// are over lie among the oldest; the sweep goes on while it finds some.
    async fn forget_messages(&self, of: &AppKeys, now: Timestamp, limit: usize) -> Result<usize, Error> {
        let (mut from, mut removed) = (b"-".to_vec(), 0);
        while removed + MESSAGES_A_STEP <= limit {
            let mut list = cmd("ZRANGEBYLEX");
            list.arg(of.messages()).arg(from).arg("+").arg("LIMIT").arg(0).arg(MESSAGES_A_STEP);
            let ids: Vec<Vec<u8>> = take::value(self.ask_one(list).await?)?;
            let Some(last) = ids.last() else { break };
            from = [b"(".as_slice(), last].concat();
            let mut forget = Call::new(Step::Forget);
            forget.key(of.due_expiry()).key(of.messages()).arg(now.as_millis());
            for bytes in &ids {
                let id = message_id(bytes)?;
                forget.key(of.message(id)).key(of.failed(id)).key(of.tally(id)).arg(bytes);
            }
            let gone: usize = take::value(self.write_one(forget.cmd(), Repeat::Once).await?)?;
            if gone == 0 {
                break;
            }
            removed += gone;
        }
        Ok(removed)
    }

    async fn forget_promises(&self, of: &AppKeys, now: Timestamp, limit: usize) -> Result<usize, Error> {
        let due = self.due(of.due_once(), now, limit).await?;
        if due.is_empty() {
            return Ok(0);
        }
        let mut forget = Call::new(Step::ForgetOnce);
        forget.key(of.due_once());
        for promise in &due {
            let text = promise.get(8..).ok_or_else(|| take::corrupt("what is due", &"not an idempotency key"))?;
            forget.key(of.once(text)).arg(promise);
        }
        self.write_one(forget.cmd(), Repeat::Once).await?;
        Ok(due.len())
    }

    async fn forget_uplinks(&self, of: &AppKeys, now: Timestamp, limit: usize) -> Result<usize, Error> {
        let due = self.due(of.due_uplink(), now, limit).await?;
        let steps = due.iter().map(|due| uplinks::forget(of, due)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.write(steps, Repeat::Once).await?.len())
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
