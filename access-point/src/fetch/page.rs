//! A page of messages for a device that has asked: envelopes in one packet, which is acked as a whole.

use bytes::Bytes;
use model::{AppId, Position, Seq};
use mqtt::{Coding, Packet, Reason, packet::Publish, publish::CONTENT_ENCODING, topic};
use serde::Deserialize;

/// Messages of a page when the device does not say how many, and at most.
const LIMIT_DEFAULT: usize = 50;
const LIMIT_MAX: usize = 100;

/// Bytes of a page, beyond which only a single message goes: a page waits in memory until it is complete.
const BODY_MAX_BYTES: usize = 32 * 1024;

/// What stands around the messages in the packet: topic, correlation data, position.
const FRAME_MAX_BYTES: usize = 512;

/// The longest topic and the longest correlation data that an answer repeats, in bytes.
const TOPIC_MAX_BYTES: usize = 128;
const CORRELATION_MAX_BYTES: usize = 128;

/// The name of an answer to a device that gives none.
const UNNAMED: &str = "sync";

const JSON: &str = "application/json";

/// The payload of `sync`.
#[derive(Deserialize)]
pub(crate) struct Sync {
    pub(crate) after: String,
    #[serde(default)]
    limit: Option<usize>,
    /// Names the answer where there is no response topic.
    #[serde(default)]
    req: Option<String>,
}

/// A page that a device asks for, and where it wants it.
#[derive(Debug)]
pub(crate) struct Asked {
    topic: String,
    correlation: Option<Vec<u8>>,
    limit: usize,
}

impl Asked {
    /// What is asked for by a message to `sync`.
    ///
    /// # Errors
    /// Where the answer cannot go.
    pub(crate) fn of(app: &AppId, sync: &Sync, publish: &Publish) -> Result<Self, Reason> {
        let topic = match (&publish.response_topic, sync.req.as_deref().unwrap_or(UNNAMED)) {
            (Some(topic), _) if is_plain(topic) && topic::is_inside(topic, app) => topic.clone(),
            (None, request) if topic::is_kind(request) => topic::answer(app, request),
            _ => return Err(Reason::TOPIC_INVALID),
        };
        let correlation = publish.correlation_data.clone();
        if correlation.as_ref().is_some_and(|data| data.len() > CORRELATION_MAX_BYTES) {
            return Err(Reason::BAD_PAYLOAD);
        }
        Ok(Self { topic, correlation, limit: sync.limit.unwrap_or(LIMIT_DEFAULT).clamp(1, LIMIT_MAX) })
    }
}

fn is_plain(topic: &str) -> bool {
    topic.len() <= TOPIC_MAX_BYTES && !topic.contains(['+', '#', '\0'])
}

/// A page that is being put together.
#[derive(Debug)]
pub(crate) struct Page {
    asked: Asked,
    /// Envelopes behind each other, with commas between.
    body: Vec<u8>,
    count: usize,
    full: bool,
    body_max_bytes: usize,
    /// The packet that all of them go out in.
    packet_id: Option<u16>,
}

impl Page {
    /// An empty page for a device that takes packets of this size.
    pub(crate) fn new(asked: Asked, packet_max_bytes: usize) -> Self {
        let body_max_bytes = packet_max_bytes.saturating_sub(FRAME_MAX_BYTES).min(BODY_MAX_BYTES);
        Self { asked, body: Vec::new(), count: 0, full: false, body_max_bytes, packet_id: None }
    }

    /// Whether another message may go.
    pub(crate) fn has_room(&self) -> bool {
        !self.full && self.count < self.asked.limit
    }

    /// Whether a message of this size does; when it does not, none may.
    pub(crate) fn takes(&mut self, envelope_bytes: usize) -> bool {
        let fits = self.is_empty() || self.body.len() + envelope_bytes < self.body_max_bytes;
        self.full |= !fits;
        self.has_room()
    }

    /// Bytes of the packet if it had nothing but this message.
    pub(crate) fn bytes_with(envelope_bytes: usize) -> usize {
        envelope_bytes + FRAME_MAX_BYTES
    }

    /// Messages that may still go.
    pub(crate) fn left(&self) -> usize {
        self.asked.limit - self.count
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The packet that its messages go out in, once it has one.
    pub(crate) fn packet_id(&self) -> Option<u16> {
        self.packet_id
    }

    pub(crate) fn add(&mut self, packet_id: u16, envelope: &Bytes) {
        if !self.is_empty() {
            self.body.push(b',');
        }
        self.body.extend_from_slice(envelope);
        self.count += 1;
        self.packet_id = Some(packet_id);
    }

    /// The whole page; `position` is what the device has when it has this, `more` whether it should ask again. Without
    /// messages there is nothing to ack. It is made for one device, so it is packed for it.
    pub(crate) fn packet(self, [inbox, timeline]: [Seq; 2], more: bool, coding: Option<Coding>) -> Packet {
        let position = Position { inbox, timeline };
        let mut body = br#"{"messages":["#.to_vec();
        body.extend_from_slice(&self.body);
        body.extend_from_slice(format!(r#"],"position":"{position}","more":{more}}}"#).as_bytes());
        let Asked { topic, correlation, .. } = self.asked;
        let packed = coding.and_then(|coding| Some((coding, coding.pack(&body)?)));
        let (user_properties, body) = match packed {
            Some((coding, packed)) => (vec![(CONTENT_ENCODING.into(), coding.as_str().into())], packed),
            None => (Vec::new(), body.into()),
        };
        Packet::Publish(Box::new(Publish {
            qos: u8::from(self.packet_id.is_some()),
            packet_id: self.packet_id.unwrap_or_default(),
            content_type: Some(JSON.into()),
            correlation_data: correlation,
            user_properties,
            ..Publish::new(topic, body)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(payload: &str, publish: &Publish) -> Result<Asked, Reason> {
        let sync: Sync = serde_json::from_str(payload).unwrap();
        Asked::of(&"demo".parse().unwrap(), &sync, publish)
    }

    #[test]
    fn an_answer_goes_where_it_was_asked_for_inside_the_app() {
        let plain = Publish::new("push/demo/sync", "");
        let of = |topic: &str| Publish { response_topic: Some(topic.into()), ..plain.clone() };
        assert_eq!(asked(r#"{"after":"i0.t0"}"#, &plain).unwrap().topic, "push/demo/res/sync");
        assert_eq!(asked(r#"{"after":"i0.t0","req":"a7"}"#, &plain).unwrap().topic, "push/demo/res/a7");
        assert_eq!(asked(r#"{"after":"i0.t0"}"#, &of("push/demo/mine/1")).unwrap().topic, "push/demo/mine/1");
        for bad in ["push/other/x", "push/demo/+", "push/demo/#", &format!("push/demo/{}", "x".repeat(128))] {
            assert_eq!(asked(r#"{"after":"i0.t0"}"#, &of(bad)).unwrap_err(), Reason::TOPIC_INVALID, "{bad}");
        }
        assert_eq!(asked(r#"{"after":"i0.t0","req":"a/b"}"#, &plain).unwrap_err(), Reason::TOPIC_INVALID);
        let long = Publish { correlation_data: Some(vec![0; CORRELATION_MAX_BYTES + 1]), ..plain };
        assert_eq!(asked(r#"{"after":"i0.t0"}"#, &long).unwrap_err(), Reason::BAD_PAYLOAD);
    }

    #[test]
    fn a_page_has_bounds_and_always_takes_one_message() {
        let plain = Publish::new("push/demo/sync", "");
        let page = |limit: usize, packet_max| {
            Page::new(asked(&format!(r#"{{"after":"i0.t0","limit":{limit}}}"#), &plain).unwrap(), packet_max)
        };
        assert_eq!((page(0, usize::MAX).left(), page(1_000, usize::MAX).left()), (1, LIMIT_MAX));
        let mut small = page(10, FRAME_MAX_BYTES + 100);
        assert!(small.takes(1_000));
        small.add(1, &Bytes::from_static(b"{}"));
        assert!(small.takes(50) && !small.takes(100) && !small.has_room());
        let mut one = page(1, usize::MAX);
        one.add(1, &Bytes::from_static(b"{}"));
        assert!(!one.has_room() && !one.takes(1));
    }

    #[test]
    fn an_empty_page_needs_no_ack() {
        let page = Page::new(asked(r#"{"after":"i0.t0"}"#, &Publish::new("x", "")).unwrap(), usize::MAX);
        let Packet::Publish(publish) = page.packet([Seq(3), Seq(0)], false, None) else { panic!() };
        assert_eq!((publish.qos, publish.packet_id), (0, 0));
        assert_eq!(&publish.payload[..], br#"{"messages":[],"position":"i3.t0","more":false}"#);
    }
}
