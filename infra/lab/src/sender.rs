//! A product's backend in a recorded run: what it sends is in the history, whatever becomes of it.

use std::sync::Arc;

use model::MessageId;

use crate::{Api, Error, History, Kind, Op, api::Send};

/// A message that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The sender's name for it.
    pub msg: String,
    /// The platform's.
    pub id: MessageId,
}

/// One sender among several.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The platform.
    pub api: Api,
    /// The run.
    pub history: Arc<History>,
    /// Its number in the run: `proc` in the history.
    pub number: u32,
    /// Tries of a message whose outcome is unknown, with the same key.
    pub tries: u32,
}

impl Sender {
    /// Sends a message; `None` when the platform refused it or never said what became of it.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the answer is not what the contract says.
    pub async fn send(&self, send: &Send) -> Result<Option<Sent>, Error> {
        let op = |id| Op::Send { msg: send.key.clone(), audience: send.to.clone(), ttl_s: send.ttl_s, id };
        self.history.record(self.number, Kind::Invoke, op(None));
        let outcome = self.api.send_until_known(send, self.tries).await;
        let (kind, id) = match &outcome {
            Ok(accepted) => (Kind::Ok, Some(accepted.id)),
            Err(Error::Rejected(_)) => (Kind::Fail, None),
            Err(Error::Unavailable(_) | Error::Corrupt(_)) => (Kind::Info, None),
        };
        self.history.record(self.number, kind, op(id));
        match outcome {
            Ok(accepted) => Ok(Some(Sent { msg: send.key.clone(), id: accepted.id })),
            Err(Error::Corrupt(what)) => Err(Error::Corrupt(what)),
            Err(problem) => {
                tracing::warn!(message.key = send.key, %problem, "not accepted");
                Ok(None)
            }
        }
    }

    /// Calls a message back, and asks again while the outcome is unknown. It may be over already: then nothing happens.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when the answer is not what the contract says.
    pub async fn cancel(&self, sent: &Sent) -> Result<(), Error> {
        let op = || Op::Cancel { msg: sent.msg.clone() };
        self.history.record(self.number, Kind::Invoke, op());
        let outcome = self.api.cancel_until_known(sent.id, self.tries).await;
        let kind = match &outcome {
            Ok(()) => Kind::Ok,
            Err(Error::Rejected(_)) => Kind::Fail,
            Err(Error::Unavailable(_) | Error::Corrupt(_)) => Kind::Info,
        };
        self.history.record(self.number, kind, op());
        match outcome {
            Err(Error::Corrupt(what)) => Err(Error::Corrupt(what)),
            _ => Ok(()),
        }
    }
}
