//! Filters over the network: a process with indexes answers those that have none.
//!
//! What is asked and answered is one record each, over HTTP, between nodes that share a secret. An answer comes whole or
//! not at all: whatever fails on the way is [`SelectError::Unavailable`], never a smaller set.

mod ask;
mod serve;
mod whom;

use std::time::Duration;

use audience::{Invalid, SelectError};
use model::{AppId, Env, Ordinals, Timestamp, record::Record};
use serde::{Deserialize, Serialize};

pub use ask::Remote;
pub(crate) use serve::serve;

/// Longest time from a question to its answer: that of an index that is being made, and some for the way.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(7);
/// When a node says that it takes too long: before whoever asked takes the node for dead.
const WORK_TIMEOUT: Duration = Duration::from_secs(6);
/// Largest question: an expression, and a set of a hundred million devices to count among.
const QUESTION_MAX_BYTES: usize = 16 << 20;
/// Largest answer: a set of half a billion devices, however they are spread.
const ANSWER_MAX_BYTES: usize = 64 << 20;
/// Connections nobody uses are closed by who asks, so that no question meets one that is just being closed.
const IDLE_ASKING: Duration = Duration::from_secs(15);
/// And later by who answers.
const IDLE_ANSWERING: Duration = Duration::from_secs(30);

/// What is asked of a filter node.
#[derive(Serialize, Deserialize)]
struct Question {
    app: AppId,
    env: Env,
    now: Timestamp,
    ask: Ask,
}

/// See [`audience::Select`] for what each means.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ask {
    Select(String),
    Count(String),
    Counts { expressions: Vec<String>, among: Ordinals },
    Tags { after: Option<String>, limit: usize },
}

/// What a filter node answers.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Selected(Ordinals),
    Counted(u64),
    Counts(Vec<u64>),
    Tagged(Vec<(String, u64)>),
    Invalid { column: usize, reason: String, code: String },
    Unavailable(String),
}

impl Record for Question {
    const VERSION: u8 = 1;
}

impl Record for Answer {
    const VERSION: u8 = 1;
}

impl From<SelectError> for Answer {
    fn from(error: SelectError) -> Self {
        match error {
            SelectError::Unavailable(why) => Self::Unavailable(why),
            SelectError::Invalid(Invalid { column, reason, code }) => {
                Self::Invalid { column, reason, code: code.to_owned() }
            }
        }
    }
}

/// Mistakes that only show where groups and saved audiences are looked up; whatever is wrong with a text itself is found
/// before it travels.
const CODES: [&str; 3] = ["unknown_group", "unknown_audience", "filter_too_complex"];

/// A mistake as it travelled.
fn invalid(column: usize, reason: String, code: &str) -> SelectError {
    let code = CODES.into_iter().find(|known| *known == code).unwrap_or("malformed_filter");
    Invalid { column, reason, code }.into()
}
