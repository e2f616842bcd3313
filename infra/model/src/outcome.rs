//! What devices say came of commands.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    Timestamp, UplinkId,
    record::Record,
    shelved::{Shelf, Shelved},
};

/// Longest account of an outcome, in bytes: as much as a message may have when nobody says otherwise.
pub const OUTCOME_MAX_BYTES: usize = 4_096;

/// How a command ended, as its device says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It was carried out.
    Succeeded,
    /// It was begun, and did not come to its end.
    Failed,
    /// It was not begun.
    Rejected,
}

/// What a device says came of a command: its first word is its last.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How it ended.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: Option<String>,
    /// What it gave, as JSON.
    pub result: Option<String>,
    /// In which the device said so.
    pub uplink: UplinkId,
    /// When it said so.
    pub at: Timestamp,
}

impl Record for Outcome {
    const VERSION: u8 = 1;
}

impl Shelved for Outcome {
    const SHELF: Shelf = Shelf::Outcomes;
}

/// How a device writes an outcome down.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Told<'a> {
    status: Verdict,
    reason: Option<String>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
}

impl Outcome {
    /// Reads what a device has sent up: a JSON object with `status`, and perhaps `reason` and `result`. `None` when it
    /// is nothing of the kind, or too long.
    pub fn read(payload: &[u8], uplink: UplinkId, at: Timestamp) -> Option<Self> {
        let sized = payload.len() <= OUTCOME_MAX_BYTES;
        let told: Told<'_> = sized.then(|| serde_json::from_slice(payload).ok()).flatten()?;
        let Told { status: verdict, reason, result } = told;
        Some(Self { verdict, reason, result: result.map(|result| result.get().to_owned()), uplink, at })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(payload: &str) -> Option<Outcome> {
        Outcome::read(payload.as_bytes(), UplinkId::from_bytes([0; 16]), Timestamp::from_millis(7))
    }

    #[test]
    fn an_outcome_is_a_verdict_with_what_there_is_to_say_about_it() {
        let told = read(r#"{"status":"failed","reason":"no power","result":{"volts": 2.5}}"#).unwrap();
        assert_eq!((told.verdict, told.reason.as_deref()), (Verdict::Failed, Some("no power")));
        assert_eq!(told.result.as_deref(), Some(r#"{"volts": 2.5}"#), "as it was written");
        assert_eq!(Outcome::decode(&told.encode()).unwrap(), told);
        assert_eq!(read(r#"{"status":"succeeded"}"#).unwrap().result, None);
    }

    #[test]
    fn anything_else_is_none() {
        let long = format!(r#"{{"status":"failed","reason":"{}"}}"#, "x".repeat(OUTCOME_MAX_BYTES));
        for bad in ["", "{}", "[]", r#"{"status":"done"}"#, r#"{"status":"failed","x":1}"#, &long] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
