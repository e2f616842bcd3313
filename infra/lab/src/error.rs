//! Why something the lab tried did not work, sorted by what the caller can do about it.

use std::fmt;

use serde::Deserialize;
use thiserror::Error;

/// Longest part of an answer's body that is kept to show: enough for any problem document.
const BODY_SHOWN_BYTES: usize = 2_000;

/// What went wrong.
#[derive(Debug, Error)]
pub enum Error {
    /// No answer, or one that says "later": whether it happened is unknown. Retry with the same idempotency key.
    #[error("unavailable: {0}")]
    Unavailable(Problem),
    /// Refused, and nothing happened. Do not retry.
    #[error("rejected: {0}")]
    Rejected(Problem),
    /// Somebody broke the contract or the measurement is not valid: stop.
    #[error("corrupt: {0}")]
    Corrupt(String),
}

impl Error {
    /// Something could not be reached or did not happen in time.
    pub fn unavailable(code: &str, detail: impl fmt::Display) -> Self {
        Self::Unavailable(Problem { status: None, code: code.to_owned(), body: detail.to_string() })
    }

    /// Sorts an answer outside 2xx.
    pub(crate) fn of_answer(status: u16, body: &[u8]) -> Self {
        let problem = Problem::parse(status, body);
        let later = status >= 500 || status == 429 || problem.code == "idempotency_in_progress";
        if later { Self::Unavailable(problem) } else { Self::Rejected(problem) }
    }

    /// The status and code, when there was an answer that was one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Unavailable(problem) | Self::Rejected(problem) => Some(problem),
            Self::Corrupt(_) => None,
        }
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::unavailable("io", error)
    }
}

/// What an answer outside 2xx said (RFC 9457), or why there was none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status; `None` when no answer came.
    pub status: Option<u16>,
    /// The stable `code` of the problem document; empty when the body was none.
    pub code: String,
    /// The body as it came, cut to a length that can be shown.
    pub body: String,
}

impl Problem {
    fn parse(status: u16, body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Document {
            code: String,
        }
        let code = serde_json::from_slice::<Document>(body).map(|document| document.code).unwrap_or_default();
        let shown = &body[..body.len().min(BODY_SHOWN_BYTES)];
        Self { status: Some(status), code, body: String::from_utf8_lossy(shown).into_owned() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(status) = self.status {
            write!(f, "{status} ")?;
        }
        write!(f, "{}: {}", self.code, self.body)
    }
}
