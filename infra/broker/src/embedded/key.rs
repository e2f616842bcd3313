//! Every key and value that the embedded broker keeps, in one place. All numbers are big-endian, so that keys order
//! as what they name.
//!
//! | keyspace          | key                        | value                                                        |
//! |-------------------|----------------------------|--------------------------------------------------------------|
//! | `broker.messages` | queue `u16`, seq `u64`     | when it was published in ms `u64`, body                      |
//! | `broker.queues`   | queue `u16`                | [`Ledger`]: head, mark, messages, bytes, `u64` each          |
//! | `broker.attempts` | queue `u16`, seq `u64`     | times handed out `u32`; absent means none, or one that died  |
//! | `broker.dead`     | number `u64`               | [`DeadLetter`](crate::DeadLetter) as a `model` record        |
//!
//! A record that was damaged on disk is found by the engine, whose journal and tables carry checksums; here only
//! lengths are checked.

use bytes::Bytes;
use engine::{Engine, Keyspace};
use model::{Lane, Queue, Timestamp};

use crate::Error;

/// The keyspaces.
#[derive(Clone)]
pub(super) struct Spaces {
    pub(super) messages: Keyspace,
    pub(super) queues: Keyspace,
    pub(super) attempts: Keyspace,
    pub(super) dead: Keyspace,
}

impl Spaces {
    pub(super) fn open(engine: &Engine) -> Result<Self, Error> {
        Ok(Self {
            messages: engine.keyspace("broker.messages")?,
            queues: engine.keyspace("broker.queues")?,
            attempts: engine.keyspace("broker.attempts")?,
            dead: engine.keyspace("broker.dead")?,
        })
    }
}

/// The number of a queue: its kind, then its shard. It is on disk, so it never changes.
pub(super) fn number(queue: Queue) -> u16 {
    let (kind, shard) = match queue {
        Queue::Push(Lane::Unicast, shard) => (1, shard.number()),
        Queue::Push(Lane::Multicast, shard) => (2, shard.number()),
        Queue::Push(Lane::Broadcast, shard) => (3, shard.number()),
        Queue::Receipts => (4, 0),
        Queue::Uplink => (5, 0),
        Queue::Reports => (6, 0),
    };
    u16::from_be_bytes([kind, shard])
}

/// The key of a queue's ledger.
pub(super) fn queue(queue: Queue) -> [u8; 2] {
    number(queue).to_be_bytes()
}

/// The key of a message, and of its attempts.
pub(super) fn message(queue: Queue, seq: u64) -> [u8; 10] {
    let mut key = [0; 10];
    key[..2].copy_from_slice(&number(queue).to_be_bytes());
    key[2..].copy_from_slice(&seq.to_be_bytes());
    key
}

/// The seq in the key of a message.
pub(super) fn seq(key: &[u8]) -> Result<u64, Error> {
    match key.split_at_checked(2) {
        Some((_, seq)) => Ok(u64::from_be_bytes(fixed(seq, "the key of a message")?)),
        None => Err(damaged("the key of a message")),
    }
}

/// The bytes of a message.
pub(super) fn encode_message(at: Timestamp, body: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(8 + body.len());
    value.extend_from_slice(&at.as_millis().to_be_bytes());
    value.extend_from_slice(body);
    value
}

/// When a message was published, and its body.
pub(super) fn decode_message(value: &[u8]) -> Result<(Timestamp, Bytes), Error> {
    let (at, body) = value.split_first_chunk().ok_or_else(|| damaged("a message"))?;
    Ok((Timestamp::from_millis(u64::from_be_bytes(*at)), Bytes::copy_from_slice(body)))
}

/// What is known of a queue without looking at its messages; written with every change of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ledger {
    /// No message before this seq is left. Scans start here, never at the tombstones before it.
    pub(super) head: u64,
    /// No message after this seq was ever handed out. After a crash those up to it are suspects.
    pub(super) mark: u64,
    /// Messages in the queue.
    pub(super) messages: u64,
    /// Bytes of their bodies.
    pub(super) bytes: u64,
}

impl Ledger {
    pub(super) fn encode(self) -> Vec<u8> {
        [self.head, self.mark, self.messages, self.bytes].map(u64::to_be_bytes).concat()
    }

    pub(super) fn decode(value: &[u8]) -> Result<Self, Error> {
        let value: [u8; 32] = fixed(value, "the ledger of a queue")?;
        let (fields, _) = value.as_chunks();
        let field = |i: usize| u64::from_be_bytes(fields[i]);
        Ok(Self { head: field(0), mark: field(1), messages: field(2), bytes: field(3) })
    }
}

/// The value of a message's attempts.
pub(super) fn encode_attempts(attempts: u32) -> [u8; 4] {
    attempts.to_be_bytes()
}

/// How often a message was handed out.
pub(super) fn decode_attempts(value: &[u8]) -> Result<u32, Error> {
    Ok(u32::from_be_bytes(fixed(value, "the attempts of a message")?))
}

/// The key of a dead letter.
pub(super) fn dead(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// The number in the key of a dead letter.
pub(super) fn dead_number(key: &[u8]) -> Result<u64, Error> {
    Ok(u64::from_be_bytes(fixed(key, "the key of a dead letter")?))
}

fn fixed<const N: usize>(bytes: &[u8], what: &str) -> Result<[u8; N], Error> {
    bytes.try_into().map_err(|_| damaged(what))
}

fn damaged(what: &str) -> Error {
    Error::Corrupt(format!("{what} has the wrong length"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_queues_never_change() {
        let numbers: Vec<String> = Queue::all().map(|queue| format!("{queue} {:#06x}", number(queue))).collect();
        let expected = "push.unicast.0 0x0100, push.unicast.1 0x0101, push.unicast.2 0x0102, push.unicast.3 0x0103, \
             push.multicast.0 0x0200, push.multicast.1 0x0201, push.multicast.2 0x0202, push.multicast.3 0x0203, \
             push.broadcast.0 0x0300, push.broadcast.1 0x0301, push.broadcast.2 0x0302, push.broadcast.3 0x0303, \
             receipts 0x0400, uplink 0x0500, reports 0x0600";
        assert_eq!(numbers.join(", "), expected);
    }

    #[test]
    fn keys_come_back_and_order_by_queue_then_seq() {
        let seqs = [0, 1, 255, 256, 1 << 40, u64::MAX];
        let keys: Vec<_> = Queue::all().flat_map(|queue| seqs.map(|seq| (message(queue, seq), seq))).collect();
        assert!(keys.is_sorted_by(|(one, _), (two, _)| one < two));
        for (key, expected) in keys {
            assert_eq!(seq(&key).unwrap(), expected);
        }
        for expected in seqs {
            assert_eq!(dead_number(&dead(expected)).unwrap(), expected);
        }
    }

    #[test]
    fn values_come_back_and_a_wrong_length_is_damage() {
        let at = Timestamp::from_millis(1_763_700_000_123);
        for body in [&b""[..], b"hello", &[0; 70_000]] {
            assert_eq!(decode_message(&encode_message(at, body)).unwrap(), (at, Bytes::copy_from_slice(body)));
        }
        let ledger = Ledger { head: 1, mark: u64::MAX, messages: 3, bytes: 1 << 33 };
        assert_eq!(Ledger::decode(&ledger.encode()).unwrap(), ledger);
        assert_eq!(decode_attempts(&encode_attempts(7)).unwrap(), 7);
        for damaged in [&b""[..], b"1234567"] {
            assert!(matches!(decode_message(damaged), Err(Error::Corrupt(_))));
            assert!(matches!(Ledger::decode(damaged), Err(Error::Corrupt(_))));
            assert!(matches!(decode_attempts(damaged), Err(Error::Corrupt(_))));
            assert!(matches!(seq(damaged), Err(Error::Corrupt(_))));
            assert!(matches!(dead_number(damaged), Err(Error::Corrupt(_))));
        }
    }
}
