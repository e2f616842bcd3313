//! What travels on the broker's lane queues: a message and whom it is for.
//!
//! Golden files of every version lie in `infra/model/golden/`; the test below reads them all.

use serde::{Deserialize, Serialize};

use crate::{Audience, Message, record::Record};

/// A message on its way from ingest to a dispatcher.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The message.
    pub message: Message,
    /// Whom it is for.
    pub audience: Audience,
}

impl Record for Envelope {
    const VERSION: u8 = 1;
}
