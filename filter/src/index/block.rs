//! All that is known about 65,536 devices.

use std::{collections::HashMap, mem};

use audience::{BuiltIn, Field, known};
use model::{Device, Env};

use super::{
    bits::Bits,
    column::{Column, Place, Scale},
    terms::{Home, PostingId, Postings, Terms},
};

/// What is known about the devices of a block.
#[derive(Clone)]
pub(super) struct Block {
    /// Who is registered, by environment.
    pub(super) live: Bits,
    pub(super) test: Bits,
    pub(super) names: Names,
    /// What each device has, as rising numbers of postings.
    pub(super) rows: Vec<Box<[PostingId]>>,
    /// Numbers in all of these together.
    pub(super) row_ids: usize,
    pub(super) postings: Postings,
    pub(super) tags: Terms,
    /// The built-ins in their order, then attributes as they came up.
    pub(super) columns: Vec<Column>,
    pub(super) attributes: HashMap<String, u32>,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            live: Bits::default(),
            test: Bits::default(),
            names: Names::default(),
            rows: Vec::new(),
            row_ids: 0,
            postings: Postings::default(),
            tags: Terms::default(),
            columns: vec![Column::default(); BuiltIn::ALL.len()],
            attributes: HashMap::new(),
        }
    }
}

impl Block {
    /// Notes what is known about a device now.
    pub(super) fn put(&mut self, low: u16, device: &Device) {
        let (own, other) = match device.env {
            Env::Live => (&mut self.live, &mut self.test),
            Env::Test => (&mut self.test, &mut self.live),
        };
        own.insert(low);
        other.remove(low);
        self.names.put(low, device.id.as_str().as_bytes());
        let (mut row, mut keys) = (Vec::new(), Vec::new());
        // Most of what is known stays, and is quickly found among what is there.
        let before = self.rows.get_mut(usize::from(low)).map(mem::take).unwrap_or_default();
        for tag in &device.profile.tags {
            let kept = self.postings.find(&before, Home::Tags, tag);
            row.push(kept.unwrap_or_else(|| self.tags.posting(tag, Home::Tags, &mut self.postings)));
        }
        for (field, value) in known(device) {
            let at = self.column_to_put(field);
            match Place::of(value) {
                Place::Key(scale, key) => keys.push((at, scale, key)),
                Place::Terms(terms) => row.extend(terms.iter().map(|(kind, term)| {
                    let home = Home::Column(at, *kind);
                    let terms = self.columns[at as usize].terms_mut(*kind);
                    let kept = self.postings.find(&before, home, term);
                    kept.unwrap_or_else(|| terms.posting(term, home, &mut self.postings))
                })),
            }
        }
        row.sort_unstable();
        row.dedup();
        self.set_row(low, before, row);
        self.set_keys(low, &keys);
    }

    /// Forgets a device.
    pub(super) fn remove(&mut self, low: u16) {
        self.live.remove(low);
        self.test.remove(low);
        let before = self.rows.get_mut(usize::from(low)).map(mem::take).unwrap_or_default();
        self.set_row(low, before, Vec::new());
        self.set_keys(low, &[]);
    }

    /// Gives a device that had the postings `before` these; only what differs is touched.
    fn set_row(&mut self, low: u16, before: Box<[PostingId]>, row: Vec<PostingId>) {
        let at = usize::from(low);
        if self.rows.len() <= at {
            self.rows.resize_with(at + 1, Box::default);
        }
        let missing = |of: &[PostingId], id: &PostingId| of.binary_search(id).is_err();
        self.row_ids = self.row_ids + row.len() - before.len();
        // In this order, or one who had another term of a kind would not count as having any.
        before.iter().filter(|id| missing(&row, id)).for_each(|id| self.take_out(low, *id));
        row.iter().filter(|id| missing(&before, id)).for_each(|id| self.add(low, *id));
        self.rows[at] = row.into();
    }

    fn add(&mut self, low: u16, id: PostingId) {
        let Some(posting) = self.postings.get_mut(id) else { return };
        posting.set.insert(low);
        if let Home::Column(at, kind) = posting.home
            && kind.is_single()
        {
            self.columns[at as usize].terms_mut(kind).present.insert(low);
        }
    }

    fn take_out(&mut self, low: u16, id: PostingId) {
        let Some(posting) = self.postings.get_mut(id) else { return };
        posting.set.remove(low);
        let (home, given_up) = (posting.home, posting.set.is_empty());
        let terms = match home {
            Home::Tags => &mut self.tags,
            Home::Column(at, kind) => self.columns[at as usize].terms_mut(kind),
        };
        if home.is_single() {
            terms.present.remove(low);
        }
        if given_up && let Some(posting) = self.postings.remove(id) {
            terms.forget(&posting.term);
        }
    }

    /// Gives a device these keys, and no others.
    fn set_keys(&mut self, low: u16, keys: &[(u32, Scale, u64)]) {
        for (at, column) in (0..).zip(&mut self.columns) {
            for scale in Scale::ALL {
                match keys.iter().find(|key| (key.0, key.1) == (at, scale)) {
                    Some((.., key)) => column.keys_mut(scale).set(low, *key),
                    None => column.keys_mut(scale).remove(low),
                }
            }
        }
    }

    fn column_to_put(&mut self, field: Field) -> u32 {
        match field {
            Field::BuiltIn(built_in) => built_in as u32,
            Field::Attribute(name) => *self.attributes.entry(name).or_insert_with(|| {
                self.columns.push(Column::default());
                (self.columns.len() - 1) as u32
            }),
        }
    }

    pub(super) fn registered(&self, env: Env) -> &Bits {
        match env {
            Env::Live => &self.live,
            Env::Test => &self.test,
        }
    }

    pub(super) fn column(&self, field: &Field) -> Option<&Column> {
        match field {
            Field::BuiltIn(built_in) => self.columns.get(*built_in as usize),
            Field::Attribute(name) => self.columns.get(*self.attributes.get(name)? as usize),
        }
    }

    pub(super) fn tags(&self) -> &Terms {
        &self.tags
    }

    pub(super) fn postings(&self) -> &Postings {
        &self.postings
    }

    pub(super) fn names(&self) -> &Names {
        &self.names
    }

    pub(super) fn len(&self) -> u64 {
        self.live.len() + self.test.len()
    }

    /// What it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let rows = self.row_ids * size_of::<PostingId>() + self.rows.capacity() * size_of::<Box<[PostingId]>>();
        let columns = self.columns.iter().map(|column| size_of::<Column>() + column.bytes()).sum::<usize>();
        let known = self.names.bytes() + self.postings.bytes() + self.tags.bytes();
        size_of::<Self>() + rows + columns + known
    }
}

/// The names of the devices of a block. What an ordinal was given to never changes, so none is ever overwritten.
#[derive(Clone, Default)]
pub(super) struct Names {
    /// Each behind its length.
    pub(super) bytes: Vec<u8>,
    /// By device: where its name begins, from 1; 0 for none.
    pub(super) places: Vec<u32>,
}

impl Names {
    fn put(&mut self, low: u16, name: &[u8]) {
        let at = usize::from(low);
        if self.places.len() <= at {
            self.places.resize(at + 1, 0);
        }
        if self.places[at] == 0 {
            self.bytes.push(name.len() as u8);
            self.places[at] = self.bytes.len() as u32;
            self.bytes.extend_from_slice(name);
        }
    }

    pub(super) fn get(&self, low: u16) -> &[u8] {
        let name = || {
            let place = *self.places.get(usize::from(low)).filter(|place| **place > 0)? as usize;
            let len = *self.bytes.get(place - 1)?;
            self.bytes.get(place..place + usize::from(len))
        };
        name().unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        self.bytes.capacity() + self.places.capacity() * size_of::<u32>()
    }
}
