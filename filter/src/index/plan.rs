//! How an expression is answered for one block: its questions looked up, the cheapest and narrowest first.

use std::{mem, ops::RangeInclusive, ptr};

use audience::{BuiltIn, Comparison, Expr, Field, Leaf, Literal, Lots, Quantity, Value, Version};
use model::{Env, Timestamp, ordinal::BLOCK_WORDS};

use super::{
    bits::Bits,
    block::{Block, Names},
    column::{self, Column, Kind, Scale},
    cut::{self, Cut},
    set::Set,
    slices::Keys,
};

/// Devices of a block.
const DEVICES: usize = BLOCK_WORDS * u64::BITS as usize;

/// When a question is asked, of whom, and what runs then.
pub(super) struct Moment<'a> {
    pub(super) env: Env,
    pub(super) now: Timestamp,
    /// The runs of nodes whose sessions count.
    pub(super) running: &'a [String],
}

/// How candidates are told from others.
pub(super) enum Plan<'a> {
    /// Nobody stays.
    Nobody,
    /// Those in any of these sets stay.
    Sets(Vec<&'a Set>),
    /// Those with a key in this range stay.
    Range(&'a Keys, RangeInclusive<u64>),
    /// Those whose lot of this salt is below this stay.
    Sample { names: &'a Names, salt: &'a str, below: u64 },
    /// Those who would not stay do.
    Not(Box<Self>),
    /// Those whom all let stay do: the cheapest is first.
    All(Vec<Self>),
    /// Those whom any lets stay do.
    Any(Vec<Self>),
}

impl<'a> Plan<'a> {
    /// The plan for this block.
    pub(super) fn of(expr: &'a Expr, block: &'a Block, moment: &Moment<'_>) -> Self {
        match expr {
            Expr::All(parts) => Self::all(parts.iter().map(|part| Self::of(part, block, moment))),
            Expr::Any(parts) => Self::any(parts.iter().map(|part| Self::of(part, block, moment))),
            Expr::Not(part) => Self::not(Self::of(part, block, moment)),
            Expr::Leaf(leaf) => Lookup { block, moment, now: moment.now }.leaf(leaf),
        }
    }

    /// Leaves only those among the candidates who satisfy what was planned for.
    pub(super) fn narrow(&self, candidates: &mut Bits) {
        match self {
            Self::Nobody => *candidates = Bits::default(),
            Self::Sets(sets) => match &sets[..] {
                [set] => set.narrow(candidates),
                sets => {
                    let mut all = Bits::default();
                    sets.iter().for_each(|set| set.add_to(&mut all));
                    candidates.keep(&all);
                }
            },
            Self::Range(keys, range) => keys.narrow(range, candidates),
            Self::Sample { names, salt, below } => {
                let (mut lots, mut drawn) = (Lots::of(salt), Bits::default());
                let mine = candidates.iter().filter(|low| lots.of_device(names.get(*low)) < *below);
                mine.for_each(|low| _ = drawn.insert(low));
                *candidates = drawn;
            }
            Self::Not(part) => match &**part {
                Self::Sets(sets) => sets.iter().for_each(|set| set.exclude(candidates)),
                part => {
                    let mut out = candidates.clone();
                    part.narrow(&mut out);
                    candidates.subtract(&out);
                }
            },
            Self::All(parts) => {
                for part in parts {
                    part.narrow(candidates);
                    if candidates.is_empty() {
                        break;
                    }
                }
            }
            Self::Any(parts) => {
                let mut rest = candidates.clone();
                for part in parts {
                    let mut more = rest.clone();
                    part.narrow(&mut more);
                    rest.subtract(&more);
                }
                candidates.subtract(&rest);
            }
        }
    }

    fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        let mut all = Vec::<Self>::new();
        for part in parts {
            match part {
                Self::Nobody => return Self::Nobody,
                Self::All(parts) => all.extend(parts),
                part => all.push(part),
            }
        }
        let mut narrowed = Vec::<Self>::with_capacity(all.len());
        for part in all {
            if !narrowed.iter_mut().any(|known| known.meet(&part)) {
                narrowed.push(part);
            }
        }
        narrowed.sort_by_key(Self::cost);
        Self::All(narrowed)
    }

    /// Two ranges of the same keys are one.
    fn meet(&mut self, other: &Self) -> bool {
        let (Self::Range(keys, range), Self::Range(others, other)) = (self, other) else { return false };
        let same = ptr::eq(*keys, *others);
        if same {
            *range = *range.start().max(other.start())..=*range.end().min(other.end());
        }
        same
    }

    fn any(parts: impl IntoIterator<Item = Self>) -> Self {
        let (mut sets, mut any) = (Vec::new(), Vec::new());
        for part in parts {
            match part {
                Self::Nobody => {}
                Self::Sets(more) => sets.extend(more),
                Self::Any(parts) => any.extend(parts),
                part => any.push(part),
            }
        }
        any.extend((!sets.is_empty()).then_some(Self::Sets(sets)));
        match (any.pop(), any.is_empty()) {
            (None, _) => Self::Nobody,
            (Some(only), true) => only,
            (Some(last), false) => {
                any.push(last);
                any.sort_by_key(Self::cost);
                Self::Any(any)
            }
        }
    }

    fn not(part: Self) -> Self {
        match part {
            Self::Nobody => Self::All(Vec::new()),
            part => Self::Not(Box::new(part)),
        }
    }

    fn set(set: Option<&'a Set>) -> Self {
        Self::sets(set.into_iter().collect())
    }

    fn sets(sets: Vec<&'a Set>) -> Self {
        if sets.iter().all(|set| set.is_empty()) { Self::Nobody } else { Self::Sets(sets) }
    }

    fn range(keys: &'a Keys, range: Option<RangeInclusive<u64>>) -> Self {
        match range {
            Some(range) if keys.len() > 0 => Self::Range(keys, range),
            _ => Self::Nobody,
        }
    }

    /// What it takes to narrow by this, then how many stay at most.
    fn cost(&self) -> (Effort, usize) {
        let of_parts = |parts: &[Self]| parts.iter().map(|part| part.cost().0).max().unwrap_or(Effort::Sets);
        match self {
            Self::Nobody => (Effort::Sets, 0),
            Self::Sets(sets) => (Effort::Sets, sets.iter().map(|set| set.len()).sum()),
            Self::Range(keys, _) => (Effort::Keys, keys.len()),
            Self::Sample { .. } => (Effort::Names, DEVICES),
            Self::Not(part) => (part.cost().0, DEVICES),
            Self::All(parts) => (of_parts(parts), parts.iter().map(|part| part.cost().1).min().unwrap_or(DEVICES)),
            Self::Any(parts) => (of_parts(parts), parts.iter().map(|part| part.cost().1).sum()),
        }
    }
}

/// What is looked at to narrow the candidates; less comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Effort {
    /// A few bitmaps.
    Sets,
    /// Slices, as long as there are candidates.
    Keys,
    /// The name of each candidate.
    Names,
}

/// Finds what answers a question.
struct Lookup<'a, 'm> {
    block: &'a Block,
    moment: &'m Moment<'m>,
    now: Timestamp,
}

impl<'a> Lookup<'a, '_> {
    fn leaf(&self, leaf: &'a Leaf) -> Plan<'a> {
        match leaf.field() {
            Some(Field::BuiltIn(BuiltIn::Env)) => self.everybody_if(leaf, &Value::Text(self.moment.env.to_string())),
            Some(Field::BuiltIn(BuiltIn::Online)) => {
                let [yes, no] = [true, false].map(|online| self.everybody_if(leaf, &Value::Bool(online)));
                Plan::any([Plan::all([yes, self.online()]), Plan::all([no, Plan::not(self.online())])])
            }
            Some(Field::BuiltIn(BuiltIn::LastSeen)) => {
                let now = i64::try_from(self.now.as_millis()).unwrap_or(i64::MAX);
                let there = Plan::all([self.everybody_if(leaf, &Value::Time(now)), self.online()]);
                Plan::any([there, Plan::all([self.of_kept(leaf), Plan::not(self.online())])])
            }
            _ => self.of_kept(leaf),
        }
    }

    /// Who is connected to an access point that runs.
    fn online(&self) -> Plan<'a> {
        self.in_column(&Field::BuiltIn(BuiltIn::Online), |column| {
            Plan::any(self.moment.running.iter().map(|run| self.term(column, Kind::Text, run)))
        })
    }

    /// The answer where everybody has the same value.
    fn everybody_if(&self, leaf: &Leaf, value: &Value) -> Plan<'a> {
        if leaf.accepts(value, self.now) { Plan::not(Plan::Nobody) } else { Plan::Nobody }
    }

    /// The answer from what is kept of each device.
    fn of_kept(&self, leaf: &'a Leaf) -> Plan<'a> {
        match leaf {
            Leaf::Compare { field, comparison, with } => self.compare(field, *comparison, with),
            Leaf::In { field, negated: false, values } => {
                Plan::any(values.iter().map(|value| self.compare(field, Comparison::Equal, value)))
            }
            Leaf::In { field, negated: true, values } => self.none_of(field, values),
            Leaf::Between { field, from, to } => {
                let from = self.compare(field, Comparison::AtLeast, from);
                Plan::all([from, self.compare(field, Comparison::AtMost, to)])
            }
            Leaf::Has(field) => self.has(field),
            Leaf::StartsWith { field, prefix } => self.in_column(field, |column| {
                Plan::sets(column.terms(Kind::Text).starting_with(prefix, self.block.postings()))
            }),
            Leaf::Contains { field, quantity, values } => self.in_column(field, |column| {
                let list = Plan::set(column.terms(Kind::List).of("", self.block.postings()));
                let items = values.iter().map(|value| self.term(column, Kind::Item, value));
                match quantity {
                    Quantity::Any => Plan::any(items),
                    Quantity::All => Plan::all(items.chain([list])),
                }
            }),
            Leaf::Tags { quantity, tags } => {
                let tags = tags.iter().map(|tag| Plan::set(self.block.tags().of(tag, self.block.postings())));
                match quantity {
                    Quantity::Any => Plan::any(tags),
                    Quantity::All => Plan::all(tags),
                }
            }
            // Whoever asks looks these up, and joins them with what is answered here.
            Leaf::Saved(_) => Plan::Nobody,
            Leaf::Sample { hundredths, salt } => {
                Plan::Sample { names: self.block.names(), salt, below: u64::from(*hundredths) }
            }
        }
    }

    fn in_column(&self, field: &Field, find: impl FnOnce(&'a Column) -> Plan<'a>) -> Plan<'a> {
        self.block.column(field).map_or(Plan::Nobody, find)
    }

    fn term(&self, column: &'a Column, kind: Kind, term: &str) -> Plan<'a> {
        Plan::set(column.terms(kind).of(term, self.block.postings()))
    }

    fn has(&self, field: &Field) -> Plan<'a> {
        self.in_column(field, |column| {
            let keys = Scale::ALL.into_iter().map(|scale| Plan::range(column.keys(scale), Some(0..=u64::MAX)));
            Plan::any(keys.chain([Plan::sets(column.present().collect())]))
        })
    }

    /// Who has a value of a type that compares with each of these, and is none of them.
    fn none_of(&self, field: &Field, values: &[Literal]) -> Plan<'a> {
        let mut comparable: Vec<Plan<'a>> = Vec::new();
        let mut types = Vec::new();
        for meanings in values.iter().map(|value| value.as_of(self.now).meanings()) {
            let of: Vec<_> = meanings.iter().map(mem::discriminant).collect();
            if !types.contains(&of) {
                types.push(of);
                comparable.push(self.in_column(field, |column| {
                    Plan::any(meanings.iter().map(|meaning| self.of_type(column, meaning)))
                }));
            }
        }
        let any = Plan::any(values.iter().map(|value| self.compare(field, Comparison::Equal, value)));
        Plan::all(comparable.into_iter().chain([Plan::not(any)]))
    }

    /// Who has a value that compares with this one.
    fn of_type(&self, column: &'a Column, value: &Value) -> Plan<'a> {
        let present = |kind| Plan::sets(vec![&column.terms(kind).present]);
        let keys = |scale| Plan::range(column.keys(scale), Some(0..=u64::MAX));
        match value {
            Value::Text(_) => present(Kind::Text),
            Value::Bool(_) => present(Kind::Bool),
            Value::Number(_) => Plan::any([keys(Scale::Whole), keys(Scale::Number)]),
            Value::Version(_) => Plan::any([keys(Scale::Version), present(Kind::Version)]),
            Value::Time(_) => keys(Scale::Time),
            Value::List(_) => Plan::Nobody,
        }
    }

    fn compare(&self, field: &Field, comparison: Comparison, with: &Literal) -> Plan<'a> {
        if comparison == Comparison::NotEqual {
            return self.none_of(field, std::slice::from_ref(with));
        }
        self.in_column(field, |column| {
            let meanings = with.as_of(self.now).meanings();
            Plan::any(meanings.iter().map(|meaning| self.compare_in(column, comparison, meaning)))
        })
    }

    /// Who has a value of the type of `with` that compares so with it.
    fn compare_in(&self, column: &'a Column, comparison: Comparison, with: &Value) -> Plan<'a> {
        match with {
            Value::Text(text) if comparison == Comparison::Equal => self.term(column, Kind::Text, text),
            Value::Text(text) => Plan::sets(column.terms(Kind::Text).ordered(comparison, text, self.block.postings())),
            Value::Bool(with) => {
                let accepted = [false, true].into_iter().filter(|bool| comparison.accepts(bool.cmp(with)));
                Plan::any(accepted.map(|bool| self.term(column, Kind::Bool, column::truth(bool))))
            }
            Value::Number(number) => {
                let wholes = Cut::among_wholes(*number).range(comparison);
                let others = Cut::at(cut::number(*number)).range(comparison);
                let wholes = Plan::range(column.keys(Scale::Whole), wholes);
                Plan::any([wholes, Plan::range(column.keys(Scale::Number), others)])
            }
            Value::Version(version) => self.compare_version(column, comparison, version),
            Value::Time(millis) => Plan::range(column.keys(Scale::Time), Cut::at(cut::time(*millis)).range(comparison)),
            Value::List(_) => Plan::Nobody,
        }
    }

    fn compare_version(&self, column: &'a Column, comparison: Comparison, with: &Version) -> Plan<'a> {
        let keyed = Plan::range(column.keys(Scale::Version), Cut::among_versions(with).range(comparison));
        let accepts = |term: &str| term.parse::<Version>().is_ok_and(|version| comparison.accepts(version.cmp(with)));
        let others = column.terms(Kind::Version).accepted(accepts, self.block.postings());
        Plan::any([keyed, Plan::sets(others)])
    }
}
