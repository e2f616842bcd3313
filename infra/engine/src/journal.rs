//! A look at the journals before the database replays them. It would take any batch that it cannot read for the torn
//! end, and drop it with all that follows, or refuse to start for an end that is really torn. Here the two are told
//! apart: each group is flushed before the next is written, so only the last batch of the last journal can be torn.
//! What is unreadable with a readable batch after it is damage.
//!
//! The layout is that of the database's version 3, little-endian: a batch is `1`, items `u32`, seqno `u64`; each item
//! `2`, type `u8`, compression `u8`, keyspace `u64`, lengths of key `u16`, value `u32` and stored value `u32`, key,
//! stored value, or `4`, keyspace `u64`; at the end `3`, xxh3 of the items `u64`, and a magic word.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    path::{Path, PathBuf},
};

use xxhash_rust::xxh3::xxh3_64;

use crate::Error;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
const MAGIC: [u8; 4] = *b"FJL\x03";

/// Cuts a torn end from the newest journal in `dir`, if there is one.
///
/// # Errors
/// [`Error::Corrupt`] when a journal is damaged elsewhere, [`Error::Locked`] when another process is writing it.
pub(crate) fn examine(dir: &Path) -> Result<(), Error> {
    let unavailable = |error: io::Error| Error::Unavailable(format!("cannot read {}: {error}", dir.display()));
    let _lock = lock(dir)?;
    let journals = journals(dir).map_err(unavailable)?;
    let mut last_seqno = None;
    for (at, (_, path)) in journals.iter().enumerate() {
        let bytes = fs::read(path).map_err(unavailable)?;
        let readable = readable(&bytes, &mut last_seqno);
        let rest = written(&bytes[readable..]);
        if rest.is_empty() {
            continue;
        }
        let newest = at + 1 == journals.len();
        if !newest || (0..rest.len()).any(|at| batch(&rest[at..]).is_some()) {
            return Err(Error::Corrupt(format!("{} is unreadable at byte {readable}, before its end", path.display())));
        }
        tracing::warn!(journal = %path.display(), at_bytes = readable, "cut a group that was never completed");
        let file = OpenOptions::new().write(true).open(path).map_err(unavailable)?;
        file.set_len(readable as u64).and_then(|()| file.sync_all()).map_err(unavailable)?;
    }
    Ok(())
}

/// The database's lock, for as long as the journals are looked at.
fn lock(dir: &Path) -> Result<Option<File>, Error> {
    let unavailable = |error: io::Error| Error::Unavailable(format!("cannot lock {}: {error}", dir.display()));
    let file = match OpenOptions::new().read(true).write(true).open(dir.join("lock")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(unavailable)?,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(dir.display().to_string())),
        Err(TryLockError::Error(error)) => Err(unavailable(error)),
    }
}

/// The journals, oldest first.
fn journals(dir: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), Some("jnl")) = (number, path.extension().and_then(|extension| extension.to_str())) {
            journals.push((number, path));
        }
    }
    journals.sort_unstable();
    Ok(journals)
}

/// How many bytes from the start are whole batches in ascending order.
fn readable(bytes: &[u8], last_seqno: &mut Option<u64>) -> usize {
    let mut at = 0;
    while let Some((len, seqno)) = batch(&bytes[at..]).filter(|(_, seqno)| Some(*seqno) > *last_seqno) {
        *last_seqno = Some(seqno);
        at += len;
    }
    at
}

/// The bytes without space at the end that was only reserved.
fn written(bytes: &[u8]) -> &[u8] {
    const BLANK: [u8; 4_096] = [0; 4_096];
    let blank: usize =
        bytes.rchunks(BLANK.len()).take_while(|chunk| **chunk == BLANK[..chunk.len()]).map(<[u8]>::len).sum();
    &bytes[..bytes.len() - blank]
}

/// The length and the seqno of the batch that begins here, if all of it is as it was written.
fn batch(bytes: &[u8]) -> Option<(usize, u64)> {
    let mut rest = bytes;
    if take(&mut rest)? != [START] {
        return None;
    }
    let count = u32::from_le_bytes(take(&mut rest)?);
    let seqno = u64::from_le_bytes(take(&mut rest)?);
    let items = rest;
    for _ in 0..count {
        item(&mut rest)?;
    }
    let items = &items[..items.len() - rest.len()];
    let end = take(&mut rest)? == [END];
    let sum = u64::from_le_bytes(take(&mut rest)?);
    let whole = end && take(&mut rest)? == MAGIC && sum == xxh3_64(items);
    whole.then_some((bytes.len() - rest.len(), seqno))
}

/// Passes over one item.
fn item(rest: &mut &[u8]) -> Option<()> {
    match take(rest)? {
        [ITEM] => {
            let [_type, _compression] = take(rest)?;
            let _keyspace: [u8; 8] = take(rest)?;
            let key = u16::from_le_bytes(take(rest)?);
            let _value: [u8; 4] = take(rest)?;
            let stored = u32::from_le_bytes(take(rest)?);
            *rest = rest.get(usize::from(key) + stored as usize..)?;
        }
        [CLEAR] => {
            let _keyspace: [u8; 8] = take(rest)?;
        }
        _ => return None,
    }
    Some(())
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Engine;

    /// A journal of 20 groups as the database writes it, and where the last of them begins.
    async fn journal() -> (Vec<u8>, usize) {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::open(dir.path()).unwrap();
        let space = engine.keyspace("space").unwrap();
        for group in 0..20_u8 {
            let space = space.clone();
            let value = if group == 7 { vec![b'x'; 5_000] } else { vec![group; 20] };
            engine.write(move |tx| tx.insert(&space, [group], value)).await.unwrap();
        }
        let path = dir.path().join("0.jnl");
        let bytes = written(&fs::read(path).unwrap()).to_vec();
        let end = readable(&bytes, &mut None);
        assert!(written(&bytes[end..]).is_empty());
        let last = (0..end).rfind(|at| batch(&bytes[*at..]).is_some()).unwrap();
        (bytes[..end].to_vec(), last)
    }

    /// What is left of a journal of these bytes; nothing when it is refused.
    fn examined(bytes: &[u8]) -> Option<Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.jnl");
        fs::write(&path, bytes).unwrap();
        match examine(dir.path()) {
            Ok(()) => Some(fs::read(path).unwrap()),
            Err(Error::Corrupt(_)) => None,
            Err(error) => panic!("{error}"),
        }
    }

    #[tokio::test]
    async fn a_flipped_bit_is_refused_unless_it_is_in_the_last_group_or_harmless() {
        let (bytes, last) = journal().await;
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            match examined(&flipped) {
                None => {}
                Some(left) if left.len() == bytes.len() => {
                    let seqno = |bytes: &[u8]| readable(bytes, &mut None) == bytes.len();
                    assert!(seqno(&flipped), "a flip at {at} of {} went unnoticed", bytes.len());
                }
                Some(left) => {
                    assert!(at >= last, "a flip at {at} cut what follows");
                    assert_eq!(left.len(), last);
                }
            }
        }
    }

    #[tokio::test]
    async fn a_torn_end_is_cut_wherever_it_is_torn() {
        let (bytes, last) = journal().await;
        for end in last..bytes.len() {
            let mut torn = bytes[..end].to_vec();
            assert_eq!(examined(&torn).unwrap().len(), last);
            torn.resize(bytes.len() + 100_000, 0);
            let left = examined(&torn).unwrap();
            assert_eq!(readable(&left, &mut None), last);
            assert!(written(&left[last..]).is_empty());
        }
        let mut hole = bytes.clone();
        hole[last + 40..last + 50].fill(0);
        assert_eq!(examined(&hole).unwrap().len(), last, "a page that did not reach the disk is a torn end");
    }

    #[tokio::test]
    async fn an_older_journal_has_no_torn_end() {
        let (bytes, last) = journal().await;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("3.jnl"), &bytes[..last - 1]).unwrap();
        fs::write(dir.path().join("10.jnl"), b"").unwrap();
        assert!(matches!(examine(dir.path()), Err(Error::Corrupt(_))));
    }
}
