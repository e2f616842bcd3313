//! A message as a device finds it in a PUBLISH of either version.

use model::{DeviceId, MessageId};
use mqtt::{Version, packet::Publish};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::received::Place;

/// A message that came off the wire, as shown to an [`Observer`](super::Observer).
#[derive(Debug)]
pub struct Arrival<'a> {
    /// The device's number in the run.
    pub number: u32,
    /// The device.
    pub device: &'a DeviceId,
    /// On the device's so-many-th connection.
    pub link: u32,
    /// The platform's name for the message.
    pub id: MessageId,
    /// Where it stands.
    pub place: Place,
    /// Its body.
    pub payload: &'a [u8],
    /// Whether it carried the DUP flag.
    pub dup: bool,
    /// Whether the application gets it: the client rule has not seen it before.
    pub app: bool,
    /// Whether the device answers with a PUBACK.
    pub acked: bool,
}

/// What the contract promises of every message.
pub(super) struct Message<'a> {
    pub(super) id: MessageId,
    pub(super) place: Place,
    pub(super) payload: &'a [u8],
}

#[derive(Deserialize)]
struct Envelope<'a> {
    id: MessageId,
    seq: Place,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl<'a> Message<'a> {
    /// Reads a message as a client of this version finds it when it asks for no other format; `None` when it is not
    /// what the contract promises.
    pub(super) fn of(publish: &'a Publish, version: Version) -> Option<Self> {
        match version {
            Version::V5 => Some(Self {
                id: publish.property("id")?.parse().ok()?,
                place: publish.property("seq")?.parse().ok()?,
                payload: &publish.payload,
            }),
            Version::V311 => {
                let envelope: Envelope<'a> = serde_json::from_slice(&publish.payload).ok()?;
                let payload = envelope.payload.map_or(&[][..], |payload| payload.get().as_bytes());
                Some(Self { id: envelope.id, place: envelope.seq, payload })
            }
        }
    }
}
