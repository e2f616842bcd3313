//! Hours of the day in which devices are left in peace, each where it is.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    record::Record,
    shelved::{Shelf, Shelved},
};

/// The name on the shelf of what holds for every type that has no hours of its own; no type is called so.
pub const EVERY_TYPE: &str = "*";

/// A minute of the day, from midnight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimeOfDay(u16);

impl TimeOfDay {
    /// The minute of this hour.
    pub const fn new(hour: u16, minute: u16) -> Self {
        Self(hour % 24 * 60 + minute % 60)
    }
}

impl FromStr for TimeOfDay {
    /// What it should be.
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const RULE: &str = "must be hours and minutes, as in 22:00";
        let (hour, minute) = text.split_once(':').ok_or(RULE)?;
        let number = |text: &str, max: u16| match text.bytes().all(|b| b.is_ascii_digit()) && text.len() == 2 {
            true => text.parse().ok().filter(|number| *number < max),
            false => None,
        };
        Ok(Self::new(number(hour, 24).ok_or(RULE)?, number(minute, 60).ok_or(RULE)?))
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.0 / 60, self.0 % 60)
    }
}

/// When messages of a type, or of any type, reach nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quiet {
    /// Never, whatever holds for other types.
    Never,
    /// In these hours.
    Hours(QuietHours),
}

/// Hours of the day; over midnight when they end before they begin.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct QuietHours {
    /// The first minute.
    pub from: TimeOfDay,
    /// The minute after the last.
    pub to: TimeOfDay,
    /// The time zone of devices that name none, or none that is known.
    pub tz: String,
}

impl QuietHours {
    /// Whether it is quiet where it is this time.
    pub fn contain(&self, time: TimeOfDay) -> bool {
        if self.from <= self.to { self.from <= time && time < self.to } else { self.from <= time || time < self.to }
    }
}

impl Record for Quiet {
    const VERSION: u8 = 1;
}

impl Shelved for Quiet {
    const SHELF: Shelf = Shelf::Quiet;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_go_over_midnight() {
        let at = |text: &str| text.parse::<TimeOfDay>().unwrap();
        let hours = |from, to| QuietHours { from: at(from), to: at(to), tz: "UTC".into() };
        for (time, night, noon) in [
            ("21:59", false, false),
            ("22:00", true, false),
            ("00:00", true, false),
            ("07:59", true, false),
            ("08:00", false, false),
            ("12:00", false, true),
            ("13:00", false, false),
        ] {
            assert_eq!(hours("22:00", "08:00").contain(at(time)), night, "{time}");
            assert_eq!(hours("12:00", "13:00").contain(at(time)), noon, "{time}");
        }
    }

    #[test]
    fn a_time_of_day_is_hours_and_minutes() {
        assert_eq!("07:05".parse::<TimeOfDay>().unwrap().to_string(), "07:05");
        for text in ["", "7:05", "24:00", "12:60", "12", "12:5", "+1:00", "12:00:00"] {
            assert!(text.parse::<TimeOfDay>().is_err(), "{text}");
        }
    }
}
