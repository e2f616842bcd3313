//! Texts of devices of a block: for each text the devices that have it, in order of the texts.
//!
//! Every term of a block has a small number, its *posting*; what a device has is a row of those numbers, so that a
//! change finds what the device had before and touches only what differs.

use std::{
    collections::BTreeMap,
    mem,
    ops::Bound::{Excluded, Included, Unbounded},
    sync::Arc,
};

use audience::Comparison;

use super::{column::Kind, set::Set};

/// The number of a posting in its block.
pub(super) type PostingId = u32;

/// Where a posting's term is found again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Home {
    /// Among the tags.
    Tags,
    /// In the column of this number, among its terms of this kind.
    Column(u32, Kind),
}

/// The terms of one kind in one column.
#[derive(Clone, Default)]
pub(super) struct Terms {
    postings: BTreeMap<Arc<str>, PostingId>,
    /// Who has any; kept where a device has one at most.
    pub(super) present: Set,
}

/// A term and who has it.
#[derive(Clone)]
pub(super) struct Posting {
    pub(super) home: Home,
    pub(super) term: Arc<str>,
    pub(super) set: Set,
}

/// The postings of a block, by number.
#[derive(Clone, Default)]
pub(super) struct Postings {
    /// `None` where one was given up.
    all: Vec<Option<Posting>>,
    free: Vec<PostingId>,
}

impl Terms {
    /// The posting of a term, a new one when there is none.
    pub(super) fn posting(&mut self, term: &str, home: Home, postings: &mut Postings) -> PostingId {
        if let Some(id) = self.postings.get(term) {
            return *id;
        }
        let term: Arc<str> = term.into();
        let id = postings.add(Posting { home, term: term.clone(), set: Set::default() });
        self.postings.insert(term, id);
        id
    }

    pub(super) fn forget(&mut self, term: &str) {
        self.postings.remove(term);
    }

    /// Who has this term.
    pub(super) fn of<'a>(&self, term: &str, postings: &'a Postings) -> Option<&'a Set> {
        self.postings.get(term).and_then(|id| postings.set(*id))
    }

    /// Who has a term that begins with `prefix`, term by term.
    pub(super) fn starting_with<'a>(&'a self, prefix: &'a str, postings: &'a Postings) -> Vec<&'a Set> {
        let from = self.postings.range::<str, _>((Included(prefix), Unbounded));
        from.take_while(|(term, _)| term.starts_with(prefix)).filter_map(|(_, id)| postings.set(*id)).collect()
    }

    /// Who has a term that compares so with `with`, term by term. For equality ask for the term.
    pub(super) fn ordered<'a>(&self, comparison: Comparison, with: &str, postings: &'a Postings) -> Vec<&'a Set> {
        let (from, to) = match comparison {
            Comparison::Equal | Comparison::NotEqual => (Included(with), Included(with)),
            Comparison::Less => (Unbounded, Excluded(with)),
            Comparison::AtMost => (Unbounded, Included(with)),
            Comparison::Greater => (Excluded(with), Unbounded),
            Comparison::AtLeast => (Included(with), Unbounded),
        };
        self.postings.range::<str, _>((from, to)).filter_map(|(_, id)| postings.set(*id)).collect()
    }

    /// Who has a term that `accepts` takes, term by term.
    pub(super) fn accepted<'a>(&self, accepts: impl Fn(&str) -> bool, postings: &'a Postings) -> Vec<&'a Set> {
        self.postings.iter().filter(|(term, _)| accepts(term)).filter_map(|(_, id)| postings.set(*id)).collect()
    }

    /// What it takes in memory besides itself; the terms are counted where they are posted.
    pub(super) fn bytes(&self) -> usize {
        // A node of the tree has room for eleven, and is two thirds full.
        self.present.bytes() + self.postings.len() * size_of::<(Arc<str>, PostingId)>() * 3 / 2
    }
}

impl Postings {
    fn add(&mut self, posting: Posting) -> PostingId {
        match self.free.pop() {
            Some(id) => {
                self.all[id as usize] = Some(posting);
                id
            }
            None => {
                self.all.push(Some(posting));
                (self.all.len() - 1) as PostingId
            }
        }
    }

    pub(super) fn get_mut(&mut self, id: PostingId) -> Option<&mut Posting> {
        self.all.get_mut(id as usize)?.as_mut()
    }

    /// Gives a posting up; its number is given again.
    pub(super) fn remove(&mut self, id: PostingId) -> Option<Posting> {
        let removed = mem::take(self.all.get_mut(id as usize)?);
        self.free.extend(removed.is_some().then_some(id));
        removed
    }

    fn set(&self, id: PostingId) -> Option<&Set> {
        self.all.get(id as usize)?.as_ref().map(|posting| &posting.set)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Posting> {
        self.all.iter().flatten()
    }

    /// What they take in memory besides themselves.
    pub(super) fn bytes(&self) -> usize {
        /// What a shared text has before its bytes: two counts.
        const COUNTS: usize = 2 * size_of::<usize>();
        let each = |posting: &Posting| posting.set.bytes() + COUNTS + posting.term.len();
        self.all.capacity() * size_of::<Option<Posting>>() + self.iter().map(each).sum::<usize>()
    }
}
