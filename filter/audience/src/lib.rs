//! Audiences by expression: the language, and what a tier that targets devices needs of the tier that knows them.
//!
//! A text or a JSON tree parses to an [`Expr`], which prints as either again; [`holds`] says what it means for one device, and [`patch`]
//! what may be known about it. No IO here: [`Select`] is a promise that the filter tier keeps, in process or over HTTP.

pub mod attribute;
pub mod evaluate;
pub mod expr;
pub mod field;
pub mod freeze;
pub mod limits;
pub mod literal;
mod parse;
pub mod patch;
pub mod quiet;
pub mod schema;
pub mod tree;
pub mod unknown;
pub mod value;
pub mod version;

use async_trait::async_trait;
use model::{AppId, Env, Ordinals, Timestamp};
use thiserror::Error;

pub use evaluate::{Facts, Lots, holds, holds_among, known};
pub use expr::{Comparison, Expr, Leaf, Quantity, Saved};
pub use field::{BuiltIn, Field};
pub use freeze::{Frozen, freeze};
pub use literal::{Literal, Span};
pub use quiet::{Resting, resting};
pub use schema::Schema;
pub use tree::InvalidTree;
pub use unknown::may_hold_for_unknown;
pub use value::Value;
pub use version::Version;

/// Longest expression that is read, in bytes.
pub const EXPRESSION_MAX_BYTES: usize = 8 * 1024;

/// Why an expression cannot be taken; the text is for the person who wrote it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("column {column}: {reason}")]
pub struct Invalid {
    /// Where in the expression, in characters from 1.
    pub column: usize,
    /// What is wrong there, and what would be right.
    pub reason: String,
    /// The stable name of this kind of mistake, `snake_case`.
    pub code: &'static str,
}

/// Why nothing was selected, by what the caller can do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum SelectError {
    /// Not now. Try again.
    #[error("filter unavailable: {0}")]
    Unavailable(String),
    /// Not this expression.
    #[error("invalid filter: {0}")]
    Invalid(#[from] Invalid),
}

/// Turns an expression into the devices that satisfy it.
#[async_trait]
pub trait Select: Send + Sync {
    /// The devices of an app and environment that satisfy the expression at this moment: a frozen set, which never
    /// names a device of another app or environment.
    ///
    /// # Errors
    /// [`SelectError::Unavailable`]: nothing was evaluated. [`SelectError::Invalid`]: nothing ever will be.
    async fn select(&self, app: &AppId, env: Env, expression: &str, now: Timestamp) -> Result<Ordinals, SelectError>;

    /// How many devices [`select`](Self::select) would name.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    async fn count(&self, app: &AppId, env: Env, expression: &str, now: Timestamp) -> Result<u64, SelectError> {
        Ok(self.select(app, env, expression, now).await?.len())
    }

    /// How many of the devices in `among` each expression selects, in the order of the expressions: for showing what a
    /// set consists of.
    ///
    /// # Errors
    /// As [`select`](Self::select), of any of them.
    async fn counts(
        &self,
        app: &AppId,
        env: Env,
        expressions: &[String],
        among: &Ordinals,
        now: Timestamp,
    ) -> Result<Vec<u64>, SelectError> {
        let mut counts = Vec::with_capacity(expressions.len());
        for expression in expressions {
            counts.push(self.select(app, env, expression, now).await?.common(among));
        }
        Ok(counts)
    }

    /// At most `limit` tags after the one named `after`, in order of their bytes, each with how many devices of the app
    /// and environment have it at this moment.
    ///
    /// # Errors
    /// [`SelectError::Unavailable`]: nobody counted; also from whoever cannot.
    async fn tags(
        &self,
        app: &AppId,
        env: Env,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, u64)>, SelectError> {
        let _ = (app, env, after, limit);
        Err(SelectError::Unavailable("this filter does not list tags".into()))
    }

    /// Whether the expression can be selected by, without evaluating it.
    ///
    /// # Errors
    /// Where and why it is [`Invalid`].
    fn check(&self, app: &AppId, expression: &str) -> Result<(), Invalid>;
}
