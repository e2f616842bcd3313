//! Values as they are written in an expression.

use std::{fmt, str::FromStr};

use jiff::Timestamp;

use crate::Version;

/// Farthest a relative time may reach, in seconds: a hundred years.
const SPAN_MAX_S: u64 = 100 * 366 * 86_400;

/// What is wrong with most texts that should have been spans.
const NO_SPAN: &str = "a duration is a whole number and one of s m h d w";

/// A value in an expression.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    /// `"vip"`
    Text(String),
    /// `5`, `-0.5`, `1e9`: finite.
    Number(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `"2.10.0"`, where a version is compared.
    Version(Version),
    /// `"2026-11-21T08:30:00Z"`, where a time is compared.
    Time(Timestamp),
    /// `-7d`: a moment as seen from the one of evaluation.
    Relative(Span),
}

impl fmt::Display for Literal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => quoted(text).fmt(f),
            Self::Number(number) => {
                let (plain, scientific) = (number.to_string(), format!("{number:e}"));
                f.write_str(if plain.len() <= scientific.len() { &plain } else { &scientific })
            }
            Self::Bool(bool) => bool.fmt(f),
            Self::Version(version) => write!(f, "\"{version}\""),
            Self::Time(time) => write!(f, "\"{time}\""),
            Self::Relative(span) => span.fmt(f),
        }
    }
}

/// `text` as an expression holds it: in quotes, escaped.
pub(crate) fn quoted(text: &str) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        f.write_str("\"")?;
        for c in text.chars() {
            match c {
                '"' | '\\' => write!(f, "\\{c}")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    })
}

/// How far from now, and in which direction, as it was written: `-7d` is a week ago.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    past: bool,
    count: u64,
    unit: Unit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Seconds,
    Minutes,
    Hours,
    Days,
    Weeks,
}

impl Unit {
    const ALL: [Self; 5] = [Self::Seconds, Self::Minutes, Self::Hours, Self::Days, Self::Weeks];

    const fn letter(self) -> char {
        match self {
            Self::Seconds => 's',
            Self::Minutes => 'm',
            Self::Hours => 'h',
            Self::Days => 'd',
            Self::Weeks => 'w',
        }
    }

    const fn seconds(self) -> u64 {
        match self {
            Self::Seconds => 1,
            Self::Minutes => 60,
            Self::Hours => 3_600,
            Self::Days => 86_400,
            Self::Weeks => 7 * 86_400,
        }
    }
}

impl Span {
    /// The moment this far from `now`, in milliseconds since the epoch.
    pub fn as_of(self, now: model::Timestamp) -> i64 {
        let millis = i64::try_from(self.count * self.unit.seconds() * 1_000).unwrap_or(i64::MAX);
        let now = i64::try_from(now.as_millis()).unwrap_or(i64::MAX);
        if self.past { now.saturating_sub(millis) } else { now.saturating_add(millis) }
    }
}

impl FromStr for Span {
    /// What is wrong with it.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (past, text) = text.strip_prefix('-').map_or((false, text), |text| (true, text));
        let unit = Unit::ALL.into_iter().find_map(|unit| Some((text.strip_suffix(unit.letter())?, unit)));
        let (count, unit) = unit.ok_or(NO_SPAN)?;
        let count: u64 = count.parse().map_err(|_| NO_SPAN)?;
        let near = count.checked_mul(unit.seconds()).is_some_and(|seconds| seconds <= SPAN_MAX_S);
        if near { Ok(Self { past, count, unit }) } else { Err("a duration is at most a hundred years") }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", if self.past { "-" } else { "" }, self.count, self.unit.letter())
    }
}
