//! The language as a whole: texts and trees, and what they mean.

#![expect(clippy::unwrap_used, reason = "what a test cannot set up ends it")]

mod generate;
mod laws;
mod meaning;
