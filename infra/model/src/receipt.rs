//! What access points tell about deliveries. Sets of devices, so telling twice changes nothing.

use serde::{Deserialize, Serialize};

use crate::{AppId, MessageId, Ordinals, record::Record};

/// What has happened to one message at one access point since it last told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// The message.
    pub message: MessageId,
    /// Written to these devices.
    pub sent: Ordinals,
    /// Acked by these.
    pub acked: Ordinals,
    /// Refused by these.
    pub rejected: Ordinals,
}

impl Receipt {
    /// Nothing has happened yet.
    pub fn new(message: MessageId) -> Self {
        Self { message, sent: Ordinals::new(), acked: Ordinals::new(), rejected: Ordinals::new() }
    }
}

/// Receipts of one app, as they travel on the broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReceiptBatch {
    /// The app.
    pub app: AppId,
    /// One for each message.
    pub receipts: Vec<Receipt>,
}

impl Record for ReceiptBatch {
    const VERSION: u8 = 1;
}
