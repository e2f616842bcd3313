//! Messages as PUBLISH packets, encoded once for all devices that get the same one. Between two devices only the
//! packet id, the DUP flag and the remaining time to live differ: they are patched into a copy of the short head, and
//! the body is shared.

use std::str::FromStr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use model::{Class, Message, Reply, Seq, Stream, Timestamp};
use serde::Serialize;
use serde_json::value::RawValue;

use crate::{coding::Coding, topic, wire::Error, wire::Version};

/// First byte of a PUBLISH of QoS 1.
const PUBLISH_QOS1: u8 = 0x32;
/// Set in the first byte of what was sent before.
const DUP: u8 = 0x08;

/// Largest remaining length that four bytes can say.
const REMAINING_MAX: usize = 268_435_455;

const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
const CONTENT_TYPE: u8 = 0x03;
const RESPONSE_TOPIC: u8 = 0x08;
const CORRELATION_DATA: u8 = 0x09;
const USER_PROPERTY: u8 = 0x26;

const JSON: &str = "application/json";

/// The user property that names how a body is packed.
pub const CONTENT_ENCODING: &str = "content-encoding";

/// How a device wants messages written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// The payload is the body; what else there is to say stands in MQTT 5 properties.
    Raw,
    /// A JSON object holds everything: for MQTT 3.1.1, which has no properties.
    Envelope,
}

impl FromStr for Format {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "raw" => Ok(Self::Raw),
            "envelope" => Ok(Self::Envelope),
            _ => Err(()),
        }
    }
}

/// A message as a PUBLISH of QoS 1, ready to be copied out for any number of devices.
#[derive(Clone, Debug)]
pub struct Encoded {
    head: Box<[u8]>,
    packet_id_at: usize,
    expiry_at: Option<usize>,
    expires_at: Timestamp,
    body: Bytes,
}

#[derive(Serialize)]
struct Envelope<'a> {
    id: String,
    seq: String,
    #[serde(rename = "type")]
    kind: &'a str,
    ts: String,
    traceparent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    class: Option<String>,
    /// A command is not begun later.
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline: Option<String>,
    /// The device that sent it.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// The device's request that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl Encoded {
    /// Encodes what stands at `seq` of `stream`.
    ///
    /// # Errors
    /// [`Error::Unwritable`] when the protocol has no bytes for it.
    pub fn new(message: &Message, stream: Stream, seq: Seq, version: Version, format: Format) -> Result<Self, Error> {
        let body = match format {
            Format::Raw => message.payload.clone(),
            Format::Envelope => envelope(message, stream, seq)?,
        };
        let properties = match version {
            Version::V311 => None,
            Version::V5 => Some(properties(message, stream, seq, format)?),
        };
        Self::assemble(message, properties.as_deref(), body)
    }

    /// The same for MQTT 5, with `body` in the place of the message's own, which was packed like this.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn packed(message: &Message, stream: Stream, seq: Seq, coding: Coding, body: Bytes) -> Result<Self, Error> {
        let mut properties = properties(message, stream, seq, Format::Raw)?;
        pair(&mut properties, CONTENT_ENCODING, coding.as_str())?;
        Self::assemble(message, Some(&properties), body)
    }

    fn assemble(message: &Message, properties: Option<&[u8]>, body: Bytes) -> Result<Self, Error> {
        let mut variable = Vec::with_capacity(256);
        let topic = match &message.class {
            Class::Answer(reply) => topic::answer(&message.app, &reply.to),
            _ => topic::message(&message.app, &message.kind),
        };
        text(&mut variable, &topic)?;
        let packet_id = variable.len();
        variable.extend_from_slice(&[0, 0]);
        let mut expiry = None;
        if let Some(properties) = properties {
            length(&mut variable, properties.len());
            expiry = Some(variable.len() + 1);
            variable.extend_from_slice(properties);
        }
        let remaining = variable.len() + body.len();
        if remaining > REMAINING_MAX {
            return Err(Error::Unwritable(format!("a message of {remaining} bytes")));
        }
        let mut head = vec![PUBLISH_QOS1];
        length(&mut head, remaining);
        let fixed = head.len();
        head.extend_from_slice(&variable);
        Ok(Self {
            head: head.into(),
            packet_id_at: fixed + packet_id,
            expiry_at: expiry.map(|at| fixed + at),
            expires_at: message.expires_at,
            body,
        })
    }

    /// Bytes of the whole packet.
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Appends the head for one device; [`body`](Self::body) must follow it on the wire.
    pub fn write_head(&self, packet_id: u16, dup: bool, now: Timestamp, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.head);
        let head = &mut out[start..];
        if dup {
            head[0] |= DUP;
        }
        head[self.packet_id_at..][..2].copy_from_slice(&packet_id.to_be_bytes());
        if let Some(at) = self.expiry_at {
            head[at..][..4].copy_from_slice(&seconds_left(self.expires_at, now).to_be_bytes());
        }
    }

    /// The body, the same for every device.
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

/// Rounded up: a message that may still be delivered has a second left.
fn seconds_left(expires_at: Timestamp, now: Timestamp) -> u32 {
    let millis = u64::try_from(expires_at.since(now).as_millis()).unwrap_or(u64::MAX);
    u32::try_from(millis.div_ceil(1_000)).unwrap_or(u32::MAX)
}

fn properties(message: &Message, stream: Stream, seq: Seq, format: Format) -> Result<Vec<u8>, Error> {
    let mut out = vec![MESSAGE_EXPIRY_INTERVAL, 0, 0, 0, 0];
    match &message.class {
        Class::Command { .. } => {
            out.push(RESPONSE_TOPIC);
            text(&mut out, &topic::outcome(&message.app, message.id))?;
            out.push(CORRELATION_DATA);
            text(&mut out, &message.id.to_string())?;
        }
        Class::Answer(Reply { correlation: Some(correlation), .. }) => {
            out.push(CORRELATION_DATA);
            bytes(&mut out, correlation)?;
        }
        Class::Answer(_) | Class::Message | Class::Peer { .. } => {}
    }
    out.push(CONTENT_TYPE);
    if format == Format::Envelope {
        text(&mut out, JSON)?;
        return Ok(out);
    }
    text(&mut out, &message.content_type)?;
    let pairs = [
        ("id", message.id.to_string()),
        ("seq", seq.in_stream(stream).to_string()),
        ("type", message.kind.clone()),
        ("ts", written(message.created_at)),
        ("traceparent", message.trace.to_string()),
    ];
    let more = more(message).into_iter().filter_map(|(name, value)| Some((name, value?)));
    for (name, value) in pairs.into_iter().chain(more) {
        pair(&mut out, name, &value)?;
    }
    Ok(out)
}

/// What there is to say of some messages only, by name: that it is a command, and when it must have begun; which device
/// it is from.
fn more(message: &Message) -> [(&'static str, Option<String>); 3] {
    let (class, deadline, from) = match &message.class {
        class @ Class::Command { .. } => (Some(class.as_str().to_owned()), Some(written(message.expires_at)), None),
        Class::Peer { from } => (None, None, Some(from.to_string())),
        Class::Message | Class::Answer(_) => (None, None, None),
    };
    [("class", class), ("deadline", deadline), ("from", from)]
}

fn pair(out: &mut Vec<u8>, name: &str, value: &str) -> Result<(), Error> {
    out.push(USER_PROPERTY);
    text(out, name)?;
    text(out, value)
}

fn envelope(message: &Message, stream: Stream, seq: Seq) -> Result<Bytes, Error> {
    let json = (message.content_type == JSON).then(|| serde_json::from_slice::<&RawValue>(&message.payload).ok());
    let payload = json.flatten();
    let [(_, class), (_, deadline), (_, from)] = more(message);
    let envelope = Envelope {
        id: message.id.to_string(),
        seq: seq.in_stream(stream).to_string(),
        kind: &message.kind,
        ts: written(message.created_at),
        traceparent: message.trace.to_string(),
        class,
        deadline,
        from,
        request: match &message.class {
            Class::Answer(reply) => Some(reply.to.as_str()),
            _ => None,
        },
        payload,
        payload_base64: payload.is_none().then(|| STANDARD.encode(&message.payload)),
    };
    serde_json::to_vec(&envelope).map(Bytes::from).map_err(|error| Error::Unwritable(error.to_string()))
}

/// A time as devices are told it: RFC 3339; the raw number for one that no calendar has.
pub fn written(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).ok();
    let time = millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    time.map_or_else(|| at.as_millis().to_string(), |time| format!("{time:.3}"))
}

/// Appends a text behind its length.
fn text(out: &mut Vec<u8>, text: &str) -> Result<(), Error> {
    bytes(out, text.as_bytes())
}

/// Appends bytes behind their length.
fn bytes(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Error> {
    let len = u16::try_from(bytes.len()).map_err(|_| Error::Unwritable("a text over 64 KiB".into()))?;
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(bytes);
    Ok(())
}

/// Appends a variable byte integer.
fn length(out: &mut Vec<u8>, mut value: usize) {
    loop {
        #[expect(clippy::cast_possible_truncation, reason = "seven bits fit a byte")]
        let low = (value & 0x7F) as u8;
        value >>= 7;
        if value == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

#[cfg(test)]
mod tests;
