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

impl Home {
    /// Whether a device has at most one term here.
    pub(super) const fn is_single(self) -> bool {
        matches!(self, Self::Column(_, kind) if kind.is_single())
    }
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
    /// These terms, in their order, and who has any of them.
    pub(super) fn posted(terms: Vec<(&str, Set)>, home: Home, present: Set, postings: &mut Postings) -> Self {
        let post = |(term, set): (&str, Set)| {
            let term: Arc<str> = term.into();
            let id = postings.add(Posting { home, term: term.clone(), set });
            (term, id)
        };
        Self { postings: terms.into_iter().map(post).collect(), present }
    }

    pub(super) fn len(&self) -> usize {
        self.postings.len()
    }

    /// In their order, with who has them.
    pub(super) fn iter<'a>(&'a self, postings: &'a Postings) -> impl Iterator<Item = (&'a str, &'a Set)> {
        self.postings.iter().filter_map(|(term, id)| Some((&**term, postings.set(*id)?)))
    }

    /// The same, after a term.
    pub(super) fn after<'a>(
        &'a self,
        after: Option<&str>,
        postings: &'a Postings,
    ) -> impl Iterator<Item = (&'a str, &'a Set)> {
        let from = after.map_or(Unbounded, Excluded);
        let terms = self.postings.range::<str, _>((from, Unbounded));
        terms.filter_map(|(term, id)| Some((&**term, postings.set(*id)?)))
    }

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

    /// The posting of a term among these.
    pub(super) fn find(&self, among: &[PostingId], home: Home, term: &str) -> Option<PostingId> {
        let is = |posting: &Posting| posting.home == home && *posting.term == *term;
        among.iter().copied().find(|id| self.all.get(*id as usize).and_then(Option::as_ref).is_some_and(is))
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

    /// What each device has, as rising numbers.
    pub(super) fn rows(&self) -> Vec<Box<[PostingId]>> {
        let mut lens = vec![0; 1 << u16::BITS];
        self.each(|_, low| lens[usize::from(low)] += 1);
        let mut rows: Vec<Vec<PostingId>> = lens.into_iter().map(Vec::with_capacity).collect();
        self.each(|id, low| rows[usize::from(low)].push(id));
        rows.into_iter().map(Vec::into_boxed_slice).collect()
    }

    /// Every posting with everyone who has it.
    fn each(&self, mut tell: impl FnMut(PostingId, u16)) {
        for (id, posting) in (0..).zip(&self.all) {
            match posting.as_ref().map(|posting| &posting.set) {
                Some(Set::Few(few)) => few.iter().for_each(|low| tell(id, *low)),
                Some(Set::Many(many)) => many.bits().iter().for_each(|low| tell(id, low)),
                None => {}
            }
        }
    }

    /// What they take in memory besides themselves.
    pub(super) fn bytes(&self) -> usize {
        /// What a shared text has before its bytes: two counts.
        const COUNTS: usize = 2 * size_of::<usize>();
        let each = |posting: &Posting| posting.set.bytes() + COUNTS + posting.term.len();
        self.all.capacity() * size_of::<Option<Posting>>() + self.all.iter().flatten().map(each).sum::<usize>()
    }
}
