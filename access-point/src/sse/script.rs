//! MQTT packets of a session, written as server-sent events. It knows no socket and no clock.

use std::{collections::VecDeque, io::Write as _};

use model::{Position, Seq, Stream};
use mqtt::{
    Packet, Reason,
    packet::{ConnAck, Disconnect, PubAck, Publish},
};
use serde::Deserialize;

use super::answer::{ANY_ORIGIN, Answer};

/// How long a browser waits before it connects again, in milliseconds: after a link that broke, after an access point
/// that stops or has no time (somewhere between, so that not all come together), and after another window of the same
/// device (long, or the two would throw each other out all the time).
const RETRY_MS: u32 = 3_000;
const RETRY_LATER_MS: std::ops::Range<u32> = 1_000..10_000;
const RETRY_TAKEN_OVER_MS: std::ops::Range<u32> = 30_000..60_000;

/// What a browser has been told.
pub(super) struct Script {
    /// The last number of each stream, or what the browser said it has.
    position: Position,
    /// Whether what is written counts as received.
    ack_auto: bool,
    /// Messages that were written and not acked: no more than the session's window.
    written: VecDeque<Written>,
    opened: bool,
}

struct Written {
    stream: Stream,
    seq: Seq,
    packet_id: u16,
}

/// What a packet means for the session, besides what was written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Means {
    Nothing,
    /// The browser has received these.
    Acks(Vec<u16>),
    /// Something was written, and a heartbeat should follow soon: what is written before it counts as received.
    BeatSoon,
    /// The session answers what was posted.
    Answer(PubAck),
}

/// What is read of a message: all of it goes into the event.
#[derive(Deserialize)]
struct Envelope<'a> {
    seq: &'a str,
}

#[derive(Deserialize)]
struct Order<'a> {
    op: &'a str,
}

impl Script {
    pub(super) fn new(after: Position, ack_auto: bool) -> Self {
        Self { position: after, ack_auto, written: VecDeque::new(), opened: false }
    }

    /// Writes what a packet says.
    pub(super) fn tell(&mut self, packet: Packet, out: &mut Vec<u8>) -> Means {
        match packet {
            Packet::ConnAck(ack) => self.open(&ack, out),
            Packet::Publish(publish) => return self.publish(&publish, out),
            Packet::PubAck(ack) => return Means::Answer(ack),
            Packet::PingResp => {
                out.extend_from_slice(b": hb\n\n");
                if self.ack_auto {
                    return Means::Acks(self.written.drain(..).map(|written| written.packet_id).collect());
                }
            }
            Packet::Disconnect(goodbye) => farewell(&goodbye, out),
            _ => {}
        }
        Means::Nothing
    }

    /// The messages, by packet id, that a browser has received which says how far it is.
    pub(super) fn received(&mut self, up_to: Position) -> Vec<u16> {
        let is_received = |written: &Written| written.seq <= up_to.get(written.stream);
        let received = self.written.iter().filter(|written| is_received(written)).map(|written| written.packet_id);
        let received = received.collect();
        self.written.retain(|written| !is_received(written));
        received
    }

    /// Writes what is due when the session ends without a word: nothing, or an answer that lets the browser come back. An
    /// error would make it stay away for ever.
    pub(super) fn end(&mut self, out: &mut Vec<u8>) {
        if !self.opened {
            self.head(out);
            retry(rand::random_range(RETRY_LATER_MS), out);
        }
    }

    fn open(&mut self, ack: &ConnAck, out: &mut Vec<u8>) {
        if ack.reason.is_error() {
            self.opened = true;
            let answer = match ack.reason {
                Reason::NOT_AUTHORIZED => Answer::KICKED,
                Reason::BANNED => Answer::FORBIDDEN,
                _ => Answer::UNAUTHENTICATED,
            };
            return out.extend_from_slice(answer.written().as_bytes());
        }
        let latest = ack.user_properties.iter().find(|(name, _)| name == "latest");
        if let Some(latest) = latest.and_then(|(_, latest)| latest.parse::<Position>().ok()) {
            self.position.inbox = self.position.inbox.min(latest.inbox);
            self.position.timeline = self.position.timeline.min(latest.timeline);
        }
        self.head(out);
        retry(RETRY_MS, out);
    }

    fn head(&mut self, out: &mut Vec<u8>) {
        self.opened = true;
        let position = self.position;
        let _ = write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n\
             X-Accel-Buffering: no\r\nLast-Event-ID: {position}\r\n{ANY_ORIGIN}\
             Access-Control-Expose-Headers: last-event-id\r\nConnection: close\r\n\r\n"
        );
    }

    fn publish(&mut self, publish: &Publish, out: &mut Vec<u8>) -> Means {
        match publish.topic.split('/').nth(2) {
            Some("msg") => return self.message(publish, out),
            Some("ctl") => {
                let order = serde_json::from_slice::<Order<'_>>(&publish.payload);
                let is_resync = order.is_ok_and(|order| order.op == "resync");
                event(if is_resync { "resync" } else { "control" }, None, &publish.payload, out);
            }
            Some("recall") => event("recall", None, &publish.payload, out),
            // The rest is for those who can ask in MQTT.
            _ => {}
        }
        if publish.qos > 0 { Means::Acks(vec![publish.packet_id]) } else { Means::Nothing }
    }

    fn message(&mut self, publish: &Publish, out: &mut Vec<u8>) -> Means {
        let envelope = serde_json::from_slice::<Envelope<'_>>(&publish.payload).ok();
        let place = envelope.and_then(|envelope| place(envelope.seq));
        // What nobody can name would never be acked.
        let (stream, seq) = place.unwrap_or((Stream::Inbox, Seq::ZERO));
        let number = match stream {
            Stream::Inbox => &mut self.position.inbox,
            Stream::Timeline => &mut self.position.timeline,
        };
        *number = seq.max(*number);
        event("message", Some(self.position), &publish.payload, out);
        self.written.push_back(Written { stream, seq, packet_id: publish.packet_id });
        if self.ack_auto { Means::BeatSoon } else { Means::Nothing }
    }
}

/// `i7353343181303808` is the inbox and the number.
fn place(seq: &str) -> Option<(Stream, Seq)> {
    let number = seq.get(1..)?.parse().ok()?;
    let stream = [Stream::Inbox, Stream::Timeline].into_iter().find(|stream| seq.starts_with(stream.letter()))?;
    Some((stream, Seq(number)))
}

/// Data may be of several lines: JSON is passed on as it was sent.
fn event(name: &str, id: Option<Position>, data: &[u8], out: &mut Vec<u8>) {
    let _ = writeln!(out, "event: {name}");
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')) {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line);
        out.push(b'\n');
    }
    out.push(b'\n');
}

fn retry(ms: u32, out: &mut Vec<u8>) {
    let _ = write!(out, "retry: {ms}\n\n");
}

/// The last word. Whoever is to come back is told when; whoever is thrown out is told why.
fn farewell(goodbye: &Disconnect, out: &mut Vec<u8>) {
    let kicked = |reason: &str, out: &mut Vec<u8>| {
        event("control", None, format!(r#"{{"op":"kick","reason":"{reason}"}}"#).as_bytes(), out);
    };
    match goodbye.reason {
        Reason::TAKEN_OVER => {
            kicked("taken_over", out);
            retry(rand::random_range(RETRY_TAKEN_OVER_MS), out);
        }
        Reason::ADMINISTRATIVE => kicked("revoked", out),
        Reason::TOKEN_ENDED => kicked("token_ended", out),
        _ => retry(rand::random_range(RETRY_LATER_MS), out),
    }
}
