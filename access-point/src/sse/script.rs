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
            Some("msg" | "res") => return self.message(publish, out),
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

/// Data may be of several lines: JSON is passed on as it was sent. Lines without anything mean nothing there.
fn event(name: &str, id: Option<Position>, data: &[u8], out: &mut Vec<u8>) {
    let _ = writeln!(out, "event: {name}");
    if let Some(id) = id {
        let _ = writeln!(out, "id: {id}");
    }
    for line in data.split(|byte| matches!(byte, b'\n' | b'\r')).filter(|line| !line.is_empty()) {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn script(ack_auto: bool) -> Script {
        Script::new(Position::default(), ack_auto)
    }

    fn told(script: &mut Script, packet: Packet) -> (String, Means) {
        let mut out = Vec::new();
        let means = script.tell(packet, &mut out);
        (String::from_utf8(out).unwrap(), means)
    }

    fn publish(topic: &str, packet_id: u16, payload: &str) -> Packet {
        let publish = Publish { qos: 1, packet_id, ..Publish::new(topic, payload.to_owned()) };
        Packet::Publish(Box::new(publish))
    }

    #[test]
    fn a_message_moves_the_number_of_its_stream() {
        let mut script = script(false);
        let (text, means) = told(&mut script, publish("push/demo/msg/order", 7, "{\"seq\":\"t5\",\r\n\"payload\":1}"));
        assert_eq!(text, "event: message\nid: i0.t5\ndata: {\"seq\":\"t5\",\ndata: \"payload\":1}\n\n");
        assert_eq!(means, Means::Nothing);
        assert!(told(&mut script, publish("push/demo/msg/order", 8, r#"{"seq":"i9"}"#)).0.contains("id: i9.t5\n"));
    }

    #[test]
    fn a_position_acks_what_lies_before_it_in_each_stream() {
        let mut script = script(false);
        for (packet_id, seq) in [(1, "i5"), (2, "t5"), (3, "i6"), (4, "t9")] {
            told(&mut script, publish("push/demo/msg/order", packet_id, &format!(r#"{{"seq":"{seq}"}}"#)));
        }
        assert_eq!(script.received("i5.t5".parse().unwrap()), [1, 2]);
        assert_eq!(script.received("i5.t9".parse().unwrap()), [4]);
        assert_eq!(script.received("i9.t9".parse().unwrap()), [3]);
    }

    #[test]
    fn what_is_no_message_is_acked_at_once() {
        let recall = publish("push/demo/recall", 3, r#"{"ids":["msg_1"]}"#);
        let (text, means) = told(&mut script(false), recall);
        assert_eq!(text, "event: recall\ndata: {\"ids\":[\"msg_1\"]}\n\n");
        assert_eq!(means, Means::Acks(vec![3]));
        let (text, means) = told(&mut script(false), publish("push/demo/notify", 4, "{}"));
        assert_eq!((text.as_str(), means), ("", Means::Acks(vec![4])));
    }

    #[test]
    fn only_with_ack_auto_a_heartbeat_acks() {
        for (ack_auto, acks) in [(true, Means::Acks(vec![1])), (false, Means::Nothing)] {
            let mut script = script(ack_auto);
            told(&mut script, publish("push/demo/msg/order", 1, r#"{"seq":"i5"}"#));
            assert_eq!(told(&mut script, Packet::PingResp), (": hb\n\n".into(), acks));
        }
    }

    #[test]
    fn whoever_is_not_let_in_for_now_may_come_back_and_others_not() {
        let mut out = Vec::new();
        script(false).end(&mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.contains("\r\n\r\nretry: "), "{text}");
        for (reason, status) in [(Reason::NOT_AUTHORIZED, 204), (Reason::BANNED, 403), (Reason::BAD_CREDENTIALS, 401)] {
            let mut script = script(false);
            let refusal = ConnAck { reason, ..ConnAck::default() };
            let (text, _) = told(&mut script, Packet::ConnAck(Box::new(refusal)));
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
            let mut more = Vec::new();
            script.end(&mut more);
            assert!(more.is_empty());
        }
    }
}
