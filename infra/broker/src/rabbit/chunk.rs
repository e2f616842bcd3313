//! What travels in one AMQP message: one or more messages of one queue, and how they are packed. No IO.
//!
//! The broker's cost is by AMQP message. So what meets an idle queue travels message by message, each settled on its
//! own; what has gathered while a confirm was awaited travels packed.

use std::ops::Range;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use model::Timestamp;

use crate::Error;

/// Messages packed into one AMQP message: a 64th of the broker's work, and what a crash may have handed out again
/// stays well below a thousand.
pub(super) const PARTS_MAX: usize = 64;

/// Bytes packed into one AMQP message, unless one message alone has more: two frames.
const BYTES_MAX: usize = 256 * 1024;

/// Messages of one batch that travel one by one to an idle queue.
const APART_MAX: usize = 32;

/// The first byte of every AMQP message of ours, so that a later form can be told apart.
const FORM: u8 = 1;

/// Bytes before the first part: form, attempts, time.
const HEAD_BYTES: usize = 1 + 4 + 8;

/// One AMQP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// How often its parts had been handed out when it was published.
    pub(super) attempts: u32,
    /// When its parts were first published.
    pub(super) at: Timestamp,
    /// The messages, in order.
    pub(super) parts: Vec<Bytes>,
}

impl Chunk {
    pub(super) fn encode(&self) -> Bytes {
        let size: usize = self.parts.iter().map(|part| 4 + part.len()).sum();
        let mut bytes = BytesMut::with_capacity(HEAD_BYTES + size);
        bytes.put_u8(FORM);
        bytes.put_u32(self.attempts);
        bytes.put_u64(self.at.as_millis());
        for part in &self.parts {
            put(&mut bytes, part);
        }
        bytes.freeze()
    }

    /// # Errors
    /// [`Error::Corrupt`] when somebody else has published this.
    pub(super) fn decode(mut bytes: Bytes) -> Result<Self, Error> {
        if bytes.len() < HEAD_BYTES || bytes.get_u8() != FORM {
            return Err(Error::Corrupt("an AMQP message is not of this form".into()));
        }
        let (attempts, at) = (bytes.get_u32(), Timestamp::from_millis(bytes.get_u64()));
        Ok(Self { attempts, at, parts: unpack(bytes)? })
    }

    fn is_full_for(&self, part: &Bytes) -> bool {
        let held: usize = self.parts.iter().map(Bytes::len).sum();
        self.parts.len() >= PARTS_MAX || (!self.parts.is_empty() && held + part.len() > BYTES_MAX)
    }
}

/// How many AMQP messages these are at least when they travel alone.
pub(super) fn count(parts: &[Bytes]) -> u64 {
    let few = parts.len() <= APART_MAX;
    if few { parts.len() as u64 } else { parts.len().div_ceil(PARTS_MAX) as u64 }
}

/// Adds one length-prefixed body.
pub(super) fn put(bytes: &mut BytesMut, body: &Bytes) {
    #[expect(clippy::cast_possible_truncation, reason = "a body of 4 GiB does not fit any limit of the broker")]
    bytes.put_u32(body.len() as u32);
    bytes.put_slice(body);
}

/// Takes length-prefixed bodies apart, without copying them.
///
/// # Errors
/// [`Error::Corrupt`] when they do not fill the bytes.
pub(super) fn unpack(mut bytes: Bytes) -> Result<Vec<Bytes>, Error> {
    let mut bodies = Vec::new();
    while bytes.has_remaining() {
        let length = bytes.try_get_u32().ok().and_then(|length| usize::try_from(length).ok());
        let length = length.filter(|length| *length <= bytes.len());
        let length = length.ok_or_else(|| Error::Corrupt("an AMQP message is cut short".into()))?;
        bodies.push(bytes.split_to(length));
    }
    Ok(bodies)
}

/// What one caller publishes to one queue.
#[derive(Clone, Debug)]
pub(super) struct Load {
    /// How often these were handed out before.
    pub(super) attempts: u32,
    /// When they were first published.
    pub(super) at: Timestamp,
    /// The messages, in order.
    pub(super) parts: Vec<Bytes>,
}

/// How loads are made chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    /// Each message travels alone, always.
    Apart,
    /// Each travels alone when there are few.
    Idle,
    /// As few chunks as can be.
    Tight,
}

/// Makes loads chunks, in order, and says which chunks each load is in.
pub(super) fn pack(loads: &[Load], packing: Packing) -> (Vec<Chunk>, Vec<Range<usize>>) {
    let total: usize = loads.iter().map(|load| load.parts.len()).sum();
    let apart = packing == Packing::Apart || (packing == Packing::Idle && total <= APART_MAX);
    let mut chunks: Vec<Chunk> = Vec::new();
    let mut places = Vec::with_capacity(loads.len());
    for load in loads {
        let mut first = None;
        for part in &load.parts {
            if apart || chunks.last().is_none_or(|chunk| chunk.is_full_for(part)) {
                chunks.push(Chunk { attempts: load.attempts, at: load.at, parts: Vec::new() });
            }
            let place = chunks.len() - 1;
            first.get_or_insert(place);
            chunks[place].parts.push(part.clone());
        }
        places.push(first.unwrap_or(chunks.len())..chunks.len());
    }
    (chunks, places)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(parts: usize, bytes: usize) -> Load {
        let parts = (0..parts).map(|_| Bytes::from(vec![7; bytes])).collect();
        Load { attempts: 0, at: Timestamp::from_millis(5), parts }
    }

    fn sizes(chunks: &[Chunk]) -> Vec<usize> {
        chunks.iter().map(|chunk| chunk.parts.len()).collect()
    }

    #[test]
    fn a_chunk_comes_back_as_it_was() {
        let parts = vec![Bytes::new(), Bytes::from_static(b"two"), Bytes::from(vec![1; 70_000])];
        let chunk = Chunk { attempts: 3, at: Timestamp::from_millis(77), parts };
        assert_eq!(Chunk::decode(chunk.encode()).unwrap(), chunk);
    }

    #[test]
    fn what_is_not_ours_or_cut_short_is_refused() {
        let bytes = Chunk { attempts: 0, at: Timestamp::default(), parts: vec![Bytes::from_static(b"abc")] }.encode();
        for length in (1..bytes.len()).filter(|length| *length != HEAD_BYTES) {
            assert!(Chunk::decode(bytes.slice(..length)).is_err(), "{length} bytes");
        }
        assert!(Chunk::decode(Bytes::from_static(b"{\"not\": \"ours, but long\"}")).is_err());
    }

    #[test]
    fn few_travel_apart_when_idle_and_together_when_not() {
        let loads = [load(20, 10), load(1, 10)];
        assert_eq!(sizes(&pack(&loads, Packing::Idle).0), [1; 21]);
        assert_eq!(sizes(&pack(&loads, Packing::Tight).0), [21]);
        assert_eq!(sizes(&pack(&[load(100, 10)], Packing::Idle).0), [64, 36]);
        assert_eq!(sizes(&pack(&loads, Packing::Apart).0), [1; 21]);
    }

    #[test]
    fn each_load_knows_its_chunks() {
        let (chunks, places) = pack(&[load(60, 1), load(0, 1), load(70, 1), load(1, 1)], Packing::Tight);
        assert_eq!(sizes(&chunks), [64, 64, 3]);
        assert_eq!(places, [0..1, 1..1, 0..3, 2..3]);
    }

    #[test]
    fn bytes_are_bounded_but_one_message_always_fits() {
        let (chunks, _) = pack(&[load(3, BYTES_MAX - 1), load(1, BYTES_MAX * 2)], Packing::Tight);
        assert_eq!(sizes(&chunks), [1; 4]);
    }
}
