//! A block as bytes, for snapshots. What can be made from the rest is not written: rows, who is present, numbers of
//! postings.

use audience::BuiltIn;
use model::ordinal::BLOCK_WORDS;

use super::{
    bits::Bits,
    block::{Block, Names},
    column::{Column, Kind, Scale},
    set::{FEW_MAX, Set},
    slices::{Keys, LINES, Slices},
    terms::{Home, Postings, Terms},
};

/// Instead of a length: the numbers are sliced.
const SLICED: usize = u32::MAX as usize;

/// Bytes that are read from the front, as long as they are what was written.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*number)
    }

    fn u32(&mut self) -> Option<u32> {
        self.number().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.number().map(u64::from_le_bytes)
    }

    /// A length and as much.
    fn counted(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn words<const N: usize>(&mut self) -> Option<[u64; N]> {
        let bytes = self.take(N * 8)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Some(words)
    }

    fn bits(&mut self) -> Option<Bits> {
        self.words::<BLOCK_WORDS>().map(Bits::of)
    }
}

fn put_u32(to: &mut Vec<u8>, number: usize) {
    to.extend_from_slice(&(number as u32).to_le_bytes());
}

fn put_counted(to: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(to, bytes.len());
    to.extend_from_slice(bytes);
}

fn put_words(to: &mut Vec<u8>, words: &[u64]) {
    words.iter().for_each(|word| to.extend_from_slice(&word.to_le_bytes()));
}

impl Block {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(self.bytes() / 2);
        put_words(&mut to, self.live.words());
        put_words(&mut to, self.test.words());
        put_counted(&mut to, &self.names.bytes);
        put_u32(&mut to, self.names.places.len());
        self.names.places.iter().for_each(|place| put_u32(&mut to, *place as usize));
        put_terms(&mut to, &self.tags, &self.postings);
        let mut attributes: Vec<_> = self.attributes.iter().collect();
        attributes.sort_unstable_by_key(|(_, at)| **at);
        put_u32(&mut to, attributes.len());
        attributes.iter().for_each(|(name, _)| put_counted(&mut to, name.as_bytes()));
        for column in &self.columns {
            Kind::ALL.into_iter().for_each(|kind| put_terms(&mut to, column.terms(kind), &self.postings));
            Scale::ALL.into_iter().for_each(|scale| put_keys(&mut to, column.keys(scale)));
        }
        to
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut from = Bytes(bytes);
        let (live, test) = (from.bits()?, from.bits()?);
        let names = from.counted()?.to_vec();
        let places = from.u32()? as usize;
        let places = from.take(places.checked_mul(4)?)?.as_chunks().0.iter().map(|place| u32::from_le_bytes(*place));
        let names = Names { bytes: names, places: places.collect() };
        let mut block = Self { live, test, names, columns: Vec::new(), ..Self::default() };
        block.tags = take_terms(&mut from, Home::Tags, &mut block.postings)?;
        let attributes = from.u32()?;
        for at in 0..attributes {
            let name = str::from_utf8(from.counted()?).ok()?;
            block.attributes.insert(name.to_owned(), BuiltIn::ALL.len() as u32 + at);
        }
        for at in 0..BuiltIn::ALL.len() as u32 + attributes {
            let mut column = Column::default();
            for kind in Kind::ALL {
                *column.terms_mut(kind) = take_terms(&mut from, Home::Column(at, kind), &mut block.postings)?;
            }
            for scale in Scale::ALL {
                *column.keys_mut(scale) = take_keys(&mut from)?;
            }
            block.columns.push(column);
        }
        block.rows = block.postings.rows();
        block.row_ids = block.rows.iter().map(|row| row.len()).sum();
        from.0.is_empty().then_some(block)
    }
}

fn put_terms(to: &mut Vec<u8>, terms: &Terms, postings: &Postings) {
    put_u32(to, terms.len());
    for (term, set) in terms.iter(postings) {
        put_counted(to, term.as_bytes());
        put_set(to, set);
    }
}

fn take_terms(from: &mut Bytes<'_>, home: Home, postings: &mut Postings) -> Option<Terms> {
    let (mut terms, mut present) = (Vec::new(), Bits::default());
    for _ in 0..from.u32()? {
        let term = str::from_utf8(from.counted()?).ok()?;
        let set = take_set(from)?;
        if home.is_single() {
            set.add_to(&mut present);
        }
        terms.push((term, set));
    }
    Some(Terms::posted(terms, home, Set::from(present), postings))
}

fn put_set(to: &mut Vec<u8>, set: &Set) {
    put_u32(to, set.len());
    match set.listed() {
        Some(few) => few.for_each(|low| to.extend_from_slice(&low.to_le_bytes())),
        None => {
            let mut all = Bits::default();
            set.add_to(&mut all);
            put_words(to, all.words());
        }
    }
}

fn take_set(from: &mut Bytes<'_>) -> Option<Set> {
    let len = from.u32()? as usize;
    let set = if len > FEW_MAX {
        Set::from(from.bits()?)
    } else {
        let few: Vec<u16> = from.take(len * 2)?.as_chunks().0.iter().map(|low| u16::from_le_bytes(*low)).collect();
        Set::Few(few)
    };
    (set.len() == len).then_some(set)
}

fn put_keys(to: &mut Vec<u8>, keys: &Keys) {
    match keys {
        Keys::Few(few) => {
            put_u32(to, few.len());
            for (low, key) in few {
                to.extend_from_slice(&low.to_le_bytes());
                to.extend_from_slice(&key.to_le_bytes());
            }
        }
        Keys::Many(slices) => {
            put_u32(to, SLICED);
            put_words(to, slices.present.words());
            put_words(to, &[slices.base, slices.mask]);
            put_words(to, slices.lines.as_flattened());
        }
    }
}

fn take_keys(from: &mut Bytes<'_>) -> Option<Keys> {
    let len = from.u32()? as usize;
    if len != SLICED {
        let mut key = || Some((from.number().map(u16::from_le_bytes)?, from.u64()?));
        return (0..len).map(|_| key()).collect::<Option<_>>().map(Keys::Few);
    }
    let present = from.bits()?;
    let (base, mask) = (from.u64()?, from.u64()?);
    let lines = (0..LINES * mask.count_ones() as usize).map(|_| from.words()).collect::<Option<_>>()?;
    let len = present.len() as usize;
    Some(Keys::Many(Box::new(Slices { present, len, base, mask, lines })))
}
