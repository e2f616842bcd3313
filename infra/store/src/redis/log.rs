//! The tally of a message as a log of what was told, in the order it was told.
//!
//! Telling is appending: one command, no reading, whatever the size, and telling twice is or-ing twice. One device
//! takes five bytes, a set what its bitmap takes. What a script cannot compute, because it would have to read bitmaps,
//! it says in one byte: "whoever is open here is truncated", which means the same to every reader, since the order
//! stays. When a log has grown to twice what it says, whoever made it grow writes its beginning anew.
//!
//! Head: the length at which to write it anew and the number of this writing, 4 bytes each. Then records: a letter,
//! in lower case before a set (its length in 4 bytes, its bitmap), in upper case before one ordinal. The first says
//! whom the message is for, and stays the first.

use model::{Ordinal, Ordinals, Receipt, Tally};

use crate::receipts::open;

/// A log shorter than this is not worth writing anew.
const SHORT_BYTES: usize = 4_096;

/// Bytes before the first record.
pub(super) const HEAD_BYTES: usize = 8;

/// Where the bitmap of the audience begins when it is kept as a set.
pub(super) const AUDIENCE_AT: usize = HEAD_BYTES + 5;

const TARGETED: u8 = b'g';
const SENT: u8 = b's';
const ACKED: u8 = b'a';
const REJECTED: u8 = b'r';
const CANCELLED: u8 = b'c';
const TRUNCATED: u8 = b't';
/// Whoever is open here is truncated.
const REST_TRUNCATED: u8 = b'x';
/// Whoever is open here and was not sent it is cancelled.
const REST_CANCELLED: u8 = b'y';

/// A log that says only whom the message is for.
pub(super) fn begin(audience: &Ordinals) -> Vec<u8> {
    with_head(0, |log| write(log, TARGETED, audience))
}

/// The same, with the audience always as a set, at [`AUDIENCE_AT`].
pub(super) fn begin_with(audience: &[u8]) -> Vec<u8> {
    with_head(0, |log| write_set(log, TARGETED, audience))
}

fn with_head(writing: u32, records: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut log = vec![0; HEAD_BYTES];
    records(&mut log);
    let limit = u32::try_from((log.len() * 2).max(SHORT_BYTES)).unwrap_or(u32::MAX);
    log[..4].copy_from_slice(&limit.to_be_bytes());
    log[4..HEAD_BYTES].copy_from_slice(&writing.to_be_bytes());
    log
}

fn write(log: &mut Vec<u8>, kind: u8, set: &Ordinals) {
    let mut few = set.iter();
    match (few.next(), few.next()) {
        (None, _) if kind != TARGETED => {}
        (Some(Ordinal(only)), None) => {
            log.push(kind.to_ascii_uppercase());
            log.extend_from_slice(&only.to_be_bytes());
        }
        _ => write_set(log, kind, &set.clone().compact().to_bytes()),
    }
}

fn write_set(log: &mut Vec<u8>, kind: u8, bitmap: &[u8]) {
    log.push(kind);
    log.extend_from_slice(&(bitmap.len() as u32).to_be_bytes());
    log.extend_from_slice(bitmap);
}

/// What a receipt adds.
pub(super) fn records(receipt: &Receipt) -> Vec<u8> {
    let mut log = Vec::new();
    write(&mut log, SENT, &receipt.sent);
    write(&mut log, ACKED, &receipt.acked);
    write(&mut log, REJECTED, &receipt.rejected);
    log
}

/// What a log says; `None` when it is damaged.
pub(super) fn read(log: &[u8]) -> Option<Tally> {
    let mut tally = Tally::default();
    let mut rest = log.get(HEAD_BYTES..)?;
    while let Some((&kind, after)) = rest.split_first() {
        rest = after;
        match kind {
            REST_TRUNCATED => tally.truncated |= &open(&tally),
            REST_CANCELLED => {
                let mut stopped = open(&tally);
                stopped -= &tally.sent;
                tally.cancelled |= &stopped;
            }
            _ => {
                let (field, after) = rest.split_first_chunk::<4>()?;
                rest = after;
                let place = place(&mut tally, kind.to_ascii_lowercase())?;
                let number = u32::from_be_bytes(*field);
                if kind.is_ascii_uppercase() {
                    place.insert(Ordinal(number));
                } else {
                    let (bitmap, after) = rest.split_at_checked(usize::try_from(number).ok()?)?;
                    *place |= &Ordinals::from_bytes(bitmap)?;
                    rest = after;
                }
            }
        }
    }
    Some(tally)
}

fn place(tally: &mut Tally, kind: u8) -> Option<&mut Ordinals> {
    Some(match kind {
        TARGETED => &mut tally.targeted,
        SENT => &mut tally.sent,
        ACKED => &mut tally.acked,
        REJECTED => &mut tally.rejected,
        CANCELLED => &mut tally.cancelled,
        TRUNCATED => &mut tally.truncated,
        _ => return None,
    })
}

/// A log that says the same in as few bytes as can be; `None` when it is damaged.
pub(super) fn merge(log: &[u8]) -> Option<Vec<u8>> {
    let tally = read(log)?;
    let writing = u32::from_be_bytes(log.get(4..HEAD_BYTES)?.try_into().ok()?);
    let audience_is_set = log.get(HEAD_BYTES) == Some(&TARGETED);
    Some(with_head(writing.wrapping_add(1), |merged| {
        if audience_is_set {
            // To the byte as it was: entries of the timeline say how long it is.
            let len =
                log.get(HEAD_BYTES + 1..AUDIENCE_AT).and_then(|len| len.try_into().ok()).map_or(0, u32::from_be_bytes);
            merged.extend_from_slice(&log[HEAD_BYTES..AUDIENCE_AT + len as usize]);
        } else {
            write(merged, TARGETED, &tally.targeted);
        }
        write(merged, SENT, &tally.sent);
        write(merged, ACKED, &tally.acked);
        write(merged, REJECTED, &tally.rejected);
        write(merged, CANCELLED, &tally.cancelled);
        write(merged, TRUNCATED, &tally.truncated);
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ordinals: impl IntoIterator<Item = u32>) -> Ordinals {
        ordinals.into_iter().map(Ordinal).collect()
    }

    fn told(sent: Ordinals, acked: Ordinals) -> Vec<u8> {
        let message = model::MessageId::from_bytes([7; 16]);
        records(&Receipt { sent, acked, ..Receipt::new(message) })
    }

    #[test]
    fn one_device_takes_a_few_bytes() {
        let mut log = begin(&set([7]));
        log.extend(told(set([7]), set([7])));
        assert_eq!(log.len(), HEAD_BYTES + 3 * 5);
        let expected = Tally { targeted: set([7]), sent: set([7]), acked: set([7]), ..Tally::default() };
        assert_eq!(read(&log), Some(expected));
    }

    #[test]
    fn the_rest_is_who_was_open_there_and_not_later() {
        let mut log = begin(&set(0..6));
        log.extend(told(set([0, 1]), set([0])));
        log.push(REST_CANCELLED);
        log.extend(told(set([2]), set([])));
        log.push(REST_TRUNCATED);
        let tally = read(&log).unwrap();
        assert_eq!((&tally.cancelled, &tally.truncated), (&set(2..6), &set([1])));
        assert_eq!(read(&merge(&log).unwrap()), Some(tally), "written anew it says the same");
    }

    #[test]
    fn an_audience_stays_where_it_is() {
        let audience = set((0..9_000).filter(|n| n % 7 != 0)).compact().to_bytes();
        let mut log = begin_with(&audience);
        log.extend(told(set(0..50), set(0..9)));
        for _ in 0..2 {
            log = merge(&log).unwrap();
            assert_eq!(&log[AUDIENCE_AT..AUDIENCE_AT + audience.len()], audience);
        }
        assert_eq!(u32::from_be_bytes(log[4..8].try_into().unwrap()), 2, "each writing has its number");
    }

    #[test]
    fn damage_is_found() {
        let log = begin(&set(0..3));
        for cut in HEAD_BYTES + 1..log.len() {
            assert_eq!(read(&log[..cut]), None, "cut at {cut}");
        }
        assert_eq!(read(&[log, vec![b'?']].concat()), None);
    }
}
