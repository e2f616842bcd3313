//! The id that a message carries through every hop: W3C Trace Context.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A `traceparent` of version 00: <https://www.w3.org/TR/trace-context/#traceparent-header>.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The whole journey.
    pub trace_id: u128,
    /// The caller's step in it.
    pub parent_id: u64,
    /// 1 when the caller records.
    pub flags: u8,
}

impl TraceParent {
    /// A journey that starts here; both numbers must be fresh and random.
    pub fn start(trace_id: u128, parent_id: u64) -> Self {
        Self { trace_id: trace_id.max(1), parent_id: parent_id.max(1), flags: 1 }
    }

    /// The part that log lines carry as `trace.id`.
    pub fn id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// Shows it as text. It is written at every hop of every message, so without what formats anything.
    fn with_text<T>(&self, show: impl FnOnce(&str) -> T) -> T {
        let mut text = *b"00-................................-................-..";
        let parts = [
            (3..35, &self.trace_id.to_be_bytes()[..]),
            (36..52, &self.parent_id.to_be_bytes()[..]),
            (53..55, &[self.flags][..]),
        ];
        for (place, bytes) in parts {
            let _ = hex::encode_to_slice(bytes, &mut text[place]); // two digits a byte
        }
        show(str::from_utf8(&text).unwrap_or_default())
    }
}

/// `part` when it is this many lower-case hex digits.
fn hex(part: &str, digits: usize) -> Option<&str> {
    let legal = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (part.len() == digits && part.bytes().all(legal)).then_some(part)
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for TraceParent {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let mut parts = text.split('-');
            let version = hex(parts.next()?, 2)?;
            let trace_id = u128::from_str_radix(hex(parts.next()?, 32)?, 16).ok()?;
            let parent_id = u64::from_str_radix(hex(parts.next()?, 16)?, 16).ok()?;
            let flags = u8::from_str_radix(hex(parts.next()?, 2)?, 16).ok()?;
            let whole = version == "00" && parts.next().is_none() && trace_id != 0 && parent_id != 0;
            whole.then_some(Self { trace_id, parent_id, flags })
        };
        parse().ok_or("a traceparent looks like 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")
    }
}

impl Serialize for TraceParent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for TraceParent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_standard_parses_and_prints() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(text.parse::<TraceParent>().unwrap().to_string(), text);
        for bad in ["", "00-0-0-00", &text.replace("4b", "4B"), &format!("{text}-"), &text.replace("00-4", "01-4")] {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad:?}");
        }
    }
}
