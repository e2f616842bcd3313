//! Work that takes longer than a request should, as it is seen from outside.

use serde::{Deserialize, Serialize};

use crate::{
    JobId, Timestamp,
    record::Record,
    shelved::{Shelf, Shelved},
};

/// How an import goes. Rows count once they are durable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Where it is.
    pub state: JobState,
    /// Rows read so far.
    pub rows: u64,
    /// Of them: devices that were new.
    pub created: u64,
    /// Of them: devices that were there.
    pub updated: u64,
    /// Of them: not taken.
    pub failed: u64,
    /// What was wrong with the first of these: the row, from 1, and why.
    pub faults: Vec<(u64, String)>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it was last heard of.
    pub updated_at: Timestamp,
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Under way.
    Running,
    /// Every row was read.
    Completed,
    /// The rows broke off; those that count are kept.
    Interrupted,
}

impl Record for Job {
    const VERSION: u8 = 1;
}

impl Shelved for Job {
    const SHELF: Shelf = Shelf::Jobs;
}
