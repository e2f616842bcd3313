//! An index on disk: what a restart begins with instead of the whole registry.
//!
//! The file is written beside its place and moved there when it is durable, so there is a whole one or none. It says
//! up to where it contains the changes of the registry; what came later is read from the store. A file that cannot
//! be trusted, or that another version wrote, is told and not used: the store has everything.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use model::AppId;
use store::ChangeId;
use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::Index;

/// What every file begins with; the last byte is the version of all that follows.
const MAGIC: [u8; 16] = *b"fanfare-index\0\0\x02";
/// Longest part that is read: more than any block of 65,536 devices takes with all that a device may have, and less than
/// what a damaged length could ask for.
const PART_MAX_BYTES: u64 = 1 << 32;
/// The buffer between parts and the disk.
const BUFFER_BYTES: usize = 1 << 20;

/// Why a snapshot is not used.
#[derive(Debug, Error)]
pub enum Unusable {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is not what was written.
    #[error("damaged: {0}")]
    Damaged(&'static str),
    /// It was written by another version.
    #[error("written by another version")]
    Version,
}

fn place(dir: &Path, app: &AppId) -> PathBuf {
    dir.join(format!("{app}.index"))
}

/// Writes the index of an app, which contains at least the changes up to `upto`.
///
/// # Errors
/// When the disk does not take it; then the file from before is still there.
pub fn write(dir: &Path, app: &AppId, index: &Index, upto: ChangeId) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let (place, beside) = (place(dir, app), dir.join(format!("{app}.index.new")));
    let mut file = BufWriter::with_capacity(BUFFER_BYTES, File::create(&beside)?);
    file.write_all(&MAGIC)?;
    let parts = index.parts();
    let head = [&upto.0.to_le_bytes()[..], &(parts.len() as u32).to_le_bytes(), app.as_str().as_bytes()].concat();
    write_part(&mut file, &head)?;
    for part in parts {
        write_part(&mut file, &part.to_bytes())?;
    }
    file.into_inner()?.sync_all()?;
    fs::rename(&beside, &place)?;
    File::open(dir)?.sync_all()
}

fn write_part(file: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    file.write_all(&(bytes.len() as u64).to_le_bytes())?;
    file.write_all(&xxh3_64(bytes).to_le_bytes())?;
    file.write_all(bytes)
}

/// Reads the index of an app, and up to where it contains the changes; `None` when there is no file.
///
/// # Errors
/// When the file cannot be used.
pub fn read(dir: &Path, app: &AppId) -> Result<Option<(Index, ChangeId)>, Unusable> {
    let file = match File::open(place(dir, app)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let mut magic = [0; MAGIC.len()];
    file.read_exact(&mut magic)?;
    if magic != MAGIC {
        return Err(Unusable::Version);
    }
    let mut bytes = Vec::new();
    read_part(&mut file, &mut bytes)?;
    let head = || {
        let (upto, rest) = bytes.split_first_chunk()?;
        let (parts, name) = rest.split_first_chunk()?;
        (name == app.as_str().as_bytes()).then(|| (ChangeId(u128::from_le_bytes(*upto)), u32::from_le_bytes(*parts)))
    };
    let (upto, parts) = head().ok_or(Unusable::Damaged("the head is not this app's"))?;
    let index = Index::default();
    for _ in 0..parts {
        read_part(&mut file, &mut bytes)?;
        index.push(&bytes).ok_or(Unusable::Damaged("a part is none"))?;
    }
    Ok(Some((index, upto)))
}

fn read_part(file: &mut impl Read, bytes: &mut Vec<u8>) -> Result<(), Unusable> {
    let mut number = [0; 8];
    file.read_exact(&mut number)?;
    let len = u64::from_le_bytes(number);
    if len > PART_MAX_BYTES {
        return Err(Unusable::Damaged("a length"));
    }
    file.read_exact(&mut number)?;
    bytes.clear();
    if file.take(len).read_to_end(bytes)? as u64 != len {
        return Err(Unusable::Damaged("cut short"));
    }
    if xxh3_64(bytes) != u64::from_le_bytes(number) {
        return Err(Unusable::Damaged("a checksum"));
    }
    Ok(())
}
