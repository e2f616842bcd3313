//! Messages as their senders see them: the entry and its head, the idempotency key.
//!
//! What happens to a message is written into the head of its entry, five numbers of 8 bytes, so that scripts change it
//! in place: when it was dispatched, when it was cancelled (0: not), where it was appended (0: nowhere, 1: to inboxes,
//! else its seq in the timeline), when it expires, until when it is kept. The entry behind it is what its sender gave.

use std::collections::BTreeMap;

use async_trait::async_trait;
use deadpool_redis::redis::{Cmd, Value, cmd};
use model::{AppId, Class, Env, Lane, Message, MessageId, Ordinals, Tally, Timestamp, TraceParent, record::Record};
use serde::{Deserialize, Serialize};

use super::{
    BELT, Redis,
    key::{AppKeys, Key},
    link::Repeat,
    log,
    script::{Call, Step},
    take,
};
use crate::{
    Accepted, Appended, Cancelled, Entry, Error, Messages, Once, PAGE_MAX, Promise,
    messages::{KEPT, ONCE_KEPT},
};

/// Bytes before the entry.
const HEAD_BYTES: usize = 40;

/// Longest idempotency key: the same in every store.
const ONCE_MAX_BYTES: usize = 255;

/// An entry as its sender gave it, without the names of its fields: there are many, and they stay long.
#[derive(Debug, Serialize, Deserialize)]
struct Given(
    Lane,
    Env,
    String,
    Timestamp,
    Timestamp,
    BTreeMap<String, String>,
    (u128, u64, u8),
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<Class>,
    #[serde(default, skip_serializing_if = "Option::is_none")] Option<Timestamp>,
);

impl Record for Given {
    const VERSION: u8 = 1;
}

fn pack(entry: &Entry) -> Vec<u8> {
    let TraceParent { trace_id, parent_id, flags } = entry.trace;
    let trace = (trace_id, parent_id, flags);
    let (kind, metadata) = (entry.kind.clone(), entry.metadata.clone());
    // Fields have their places: one is left out only with all that follow.
    let class = Some(entry.class.clone()).filter(|class| !class.is_message() || entry.due_at.is_some());
    let (created_at, expires_at, due_at) = (entry.created_at, entry.expires_at, entry.due_at);
    Given(entry.lane, entry.env, kind, created_at, expires_at, metadata, trace, class, due_at).encode()
}

/// Where in the head it stands where the message was appended.
const STREAM_AT: usize = 16;

fn unpack(id: MessageId, kept: &[u8], failed: Option<String>) -> Result<Entry, Error> {
    let (head, given) = kept.split_at_checked(HEAD_BYTES).ok_or_else(|| take::corrupt("a message", &"too short"))?;
    let given = take::record(given, "a message")?;
    let Given(lane, env, kind, created_at, expires_at, metadata, trace, class, due_at) = given;
    let when = |at| Some(number(head, at)).filter(|millis| *millis > 0).map(Timestamp::from_millis);
    let (trace_id, parent_id, flags) = trace;
    let dispatched_at = when(0);
    Ok(Entry {
        id,
        lane,
        env,
        kind,
        class: class.unwrap_or_default(),
        created_at,
        expires_at,
        due_at,
        metadata,
        trace: TraceParent { trace_id, parent_id, flags },
        dispatched_at,
        cancelled_at: when(8),
        failed: failed.filter(|_| dispatched_at.is_none()),
    })
}

/// The number of 8 bytes at this place; zero where there are none.
pub(super) fn number(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes)
}

/// The head of a message that is not in a stream yet: what has happened to it, and its times.
fn head(entry: &Entry) -> Vec<u8> {
    let dispatched_at = entry.dispatched_at.map_or(0, Timestamp::as_millis);
    [&dispatched_at.to_be_bytes()[..], &[0; 16], &times(entry)].concat()
}

/// The last two numbers of a head: when a message expires, until when it is kept.
fn times(entry: &Entry) -> Vec<u8> {
    let until = (entry.created_at + KEPT).max(entry.expires_at);
    [entry.expires_at, until].iter().flat_map(|at| at.as_millis().to_be_bytes()).collect()
}

/// Where it lies what an idempotency key was used for.
fn once_key(of: &AppKeys, text: &str) -> Result<Key, Error> {
    if text.len() > ONCE_MAX_BYTES {
        return Err(Error::Rejected(format!("an idempotency key takes at most {ONCE_MAX_BYTES} bytes")));
    }
    Ok(of.once(text.as_bytes()))
}

/// What an idempotency key was used for, as `accept_once` wrote it.
fn promise(kept: &[u8]) -> Option<Promise> {
    let (until, rest) = kept.split_first_chunk()?;
    let (message, rest) = rest.split_first_chunk()?;
    let (fingerprint, answer) = rest.split_first_chunk()?;
    Some(Promise {
        message: MessageId::from_bytes(*message),
        fingerprint: *fingerprint,
        answer: String::from_utf8(answer.to_vec()).ok()?,
        until: Timestamp::from_millis(u64::from_be_bytes(*until)),
    })
}

/// What `dispatch` in the scripts takes of a message that is to be appended.
pub(super) fn dispatch(call: &mut Call, message: &Message, tally: Vec<u8>) {
    let entry = Entry::from(message);
    call.arg([times(&entry), pack(&entry)].concat()).arg(message.encode()).arg(tally);
}

/// What `dispatch` in the scripts says of a message.
pub(super) fn appended(outcome: u64) -> Result<Appended, Error> {
    match outcome {
        0 => Ok(Appended::New),
        1 => Ok(Appended::Again),
        2 => Ok(Appended::Cancelled),
        other => Err(take::corrupt("an append", &other)),
    }
}

#[async_trait]
impl Messages for Redis {
    async fn accept(&self, app: &AppId, entry: Entry, once: Option<Once>) -> Result<Accepted, Error> {
        self.see(app).await?;
        let (of, id) = (self.of(app), entry.id);
        let mut accept = Call::new(if once.is_some() { Step::AcceptOnce } else { Step::Accept });
        accept.key(of.message(id));
        accept.arg(&id.to_bytes()[..]).arg([head(&entry), pack(&entry)].concat());
        let Some(once) = once else {
            let done = self.accept.carry_out(app, accept, 1).await?;
            return self.fenced(done).await.map(|_| Accepted::New);
        };
        accept.key(of.messages()).key(once_key(&of, &once.key)?).key(of.due_once());
        accept.arg(once.key).arg(&once.fingerprint[..]).arg(once.answer).arg(entry.created_at.as_millis());
        accept.arg((entry.created_at + ONCE_KEPT).as_millis()).arg((ONCE_KEPT + BELT).as_millis().to_string());
        // Accepting the same message twice is accepting it once: the script knows it by its id.
        let said: Vec<Value> = take::value(self.write_one(accept.cmd(), Repeat::Once).await?)?;
        let mut said = said.into_iter();
        match (said.next(), said.next(), said.next()) {
            (Some(Value::Int(0)), ..) => Ok(Accepted::New),
            (Some(Value::Int(1)), Some(first), Some(answer)) => {
                Ok(Accepted::Before(message_id(&take::value::<Vec<u8>>(first)?)?, take::value(answer)?))
            }
            (Some(Value::Int(2)), ..) => Ok(Accepted::Reused),
            _ => Err(take::corrupt("an accept", &"an unknown outcome")),
        }
    }

    async fn promised(&self, app: &AppId, key: &str, now: Timestamp) -> Result<Option<Promise>, Error> {
        let mut get = cmd("GET");
        get.arg(once_key(&self.of(app), key)?);
        let Some(kept) = self.find_settled(get).await? else { return Ok(None) };
        let kept: Vec<u8> = take::value(kept)?;
        let promise = promise(&kept).ok_or_else(|| take::corrupt("an idempotency key", &"not a promise"))?;
        Ok(Some(promise).filter(|promise| promise.counts(now)))
    }

    async fn entry(&self, app: &AppId, id: MessageId) -> Result<Option<Entry>, Error> {
        Ok(self.kept(app, &[id]).await?.pop().flatten())
    }

    async fn entries(&self, app: &AppId, before: Option<MessageId>, limit: usize) -> Result<Vec<Entry>, Error> {
        let from = before.map_or_else(|| b"+".to_vec(), |id| [b"(".as_slice(), &id.to_bytes()].concat());
        let mut list = cmd("ZREVRANGEBYLEX");
        list.arg(self.of(app).messages()).arg(from).arg("-").arg("LIMIT").arg(0).arg(limit);
        let ids: Vec<Vec<u8>> = take::value(self.ask_one(list).await?)?;
        let ids = ids.iter().map(|id| message_id(id)).collect::<Result<Vec<_>, _>>()?;
        let mut entries = Vec::with_capacity(ids.len());
        for page in ids.chunks(PAGE_MAX) {
            entries.extend(self.kept(app, page).await?.into_iter().flatten());
        }
        Ok(entries)
    }

    async fn cancel(&self, app: &AppId, id: MessageId, now: Timestamp) -> Result<Option<Cancelled>, Error> {
        let of = self.of(app);
        let mut cancel = Call::new(Step::Cancel);
        cancel.key(of.message(id)).key(of.tally(id)).key(of.timeline()).arg(now.as_millis());
        // From here on nobody new is counted as waiting for it; that it leaves the inboxes may take a second call.
        let done: Option<u8> = take::value(self.write_one(cancel.cmd(), Repeat::Once).await?)?;
        let Some(in_inboxes) = done else { return Ok(None) };
        let Some(entry) = self.entry(app, id).await? else { return Ok(None) };
        let tally = self.read_tally(&of, id).await?.unwrap_or_default();
        if in_inboxes == 1 {
            self.take_out(&of, &tally.cancelled, id).await?;
        }
        let stopped = tally.funnel(entry.expires_at, now).cancelled;
        Ok(Some(Cancelled { stopped, entry, tally }))
    }

    async fn fail(&self, app: &AppId, id: MessageId, reason: String) -> Result<(), Error> {
        let (of, mut fail) = (self.of(app), Call::new(Step::Fail));
        fail.key(of.message(id)).key(of.failed(id)).arg(reason).arg((KEPT + BELT).as_millis().to_string());
        self.write_one(fail.cmd(), Repeat::Once).await.map(drop)
    }
}

impl Redis {
    /// The entries of these messages, in the order given.
    async fn kept(&self, app: &AppId, ids: &[MessageId]) -> Result<Vec<Option<Entry>>, Error> {
        let of = self.of(app);
        let get = |id: &MessageId| {
            let mut get = cmd("MGET");
            get.arg(of.message(*id)).arg(of.failed(*id));
            get
        };
        let answers = self.ask(ids.iter().map(get).collect()).await?;
        let read = |(id, answer): (&MessageId, Value)| {
            let (kept, failed): (Option<Vec<u8>>, Option<String>) = take::value(answer)?;
            kept.map(|kept| unpack(*id, &kept, failed)).transpose()
        };
        ids.iter().zip(answers).map(read).collect()
    }

    /// Where these messages were appended, as their heads say it, in the order given; nowhere, where there is no head. What
    /// else is kept of them need not be readable.
    pub(super) async fn streams(&self, of: &AppKeys, ids: &[MessageId]) -> Result<Vec<u64>, Error> {
        let get = |id: &MessageId| {
            let mut get = cmd("GETRANGE");
            get.arg(of.message(*id)).arg(STREAM_AT).arg(STREAM_AT + 7);
            get
        };
        let answers = self.ask(ids.iter().map(get).collect()).await?;
        answers.into_iter().map(|answer| Ok(number(&take::value::<Vec<u8>>(answer)?, 0))).collect()
    }

    /// The tally of a message, from its log.
    pub(super) async fn read_tally(&self, of: &AppKeys, id: MessageId) -> Result<Option<Tally>, Error> {
        let mut get = cmd("GET");
        get.arg(of.tally(id));
        let Some(kept) = take::value::<Option<Vec<u8>>>(self.ask_one(get).await?)? else { return Ok(None) };
        log::read(&kept).map(Some).ok_or_else(|| take::corrupt("a tally", &id))
    }

    /// Removes the entries of a message from these inboxes; their numbers stay given.
    async fn take_out(&self, of: &AppKeys, devices: &Ordinals, id: MessageId) -> Result<(), Error> {
        let devices: Vec<_> = devices.iter().collect();
        let out = |page: &[_]| -> Cmd {
            let mut out = Call::new(Step::TakeOut);
            page.iter().for_each(|device| _ = out.key(of.inbox(*device)));
            out.arg(&id.to_bytes()[..]).cmd()
        };
        self.write(devices.chunks(super::inbox::DEVICES_A_STEP).map(out).collect(), Repeat::Once).await.map(drop)
    }
}

/// An id from its bytes.
pub(super) fn message_id(bytes: &[u8]) -> Result<MessageId, Error> {
    bytes.try_into().map(MessageId::from_bytes).map_err(|_| take::corrupt("the id of a message", &"not 16 bytes"))
}
