//! Devices by the million, as a product's backend uploads them: one upload, and a job that tells meanwhile how far it is.

use std::{fmt, pin::pin, time::Duration};

use bytes::Bytes;
use futures_util::stream;
use model::{Clock as _, JobId, JobState, SystemClock};
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::{Api, Error, api::Import};

/// Rows that are written at a time.
const ROWS_AT_ONCE: u64 = 500;
/// How often the job is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// What an import took.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Imported {
    /// Devices that are registered now.
    pub devices: u64,
    /// Of those, the ones that count as updated: the store had kept them, and its answer was lost.
    pub again: u64,
    /// From the first row to the answer.
    pub took: Duration,
    /// How often the job told another number of rows before the last.
    pub told: u32,
}

impl fmt::Display for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { devices, took, told, .. } = self;
        let per_s = *devices as f64 / took.as_secs_f64().max(1e-9);
        write!(f, "import     {devices} devices in {:.1} s: {per_s:.0}/s; ", took.as_secs_f64())?;
        write!(f, "its job told {told} times how far it was")
    }
}

/// Uploads `rows` new devices, each as `row` writes it: a JSON object without a line break. `progress` hears what the job
/// tells.
///
/// # Errors
/// [`Error::Corrupt`] when a row was not taken as a new device, or the job tells of fewer rows than before; whatever a
/// request says.
pub async fn import(
    api: &Api,
    rows: u64,
    row: impl Fn(u64) -> String + Send + 'static,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<Imported, Error> {
    let job = JobId::new(SystemClock.now(), rand::random());
    let (begun, mut known, mut told) = (Instant::now(), 0, 0);
    let chunks = (0..rows).step_by(ROWS_AT_ONCE as usize).map(move |from| {
        let lines = (from..rows.min(from + ROWS_AT_ONCE)).map(|n| row(n) + "\n");
        Bytes::from(lines.collect::<String>())
    });
    let mut upload = pin!(api.import(job, stream::iter(chunks)));
    let done = loop {
        tokio::select! {
            done = &mut upload => break done?,
            () = sleep(ASK_EVERY) => {}
        }
        let so_far = match api.job(job).await {
            Ok(Import { state: JobState::Running, rows, .. }) => rows,
            // Not begun yet, or just ended.
            Ok(_) | Err(Error::Rejected(_)) => continue,
            Err(error) => return Err(error),
        };
        if so_far < known {
            return Err(Error::Corrupt(format!("{job} told of {known} rows, and then of {so_far}")));
        }
        told += u32::from(so_far > known && so_far < rows);
        known = so_far;
        progress(usize::try_from(so_far).unwrap_or(usize::MAX));
    };
    if (done.state, done.rows, done.created + done.updated) != (JobState::Completed, rows, rows) {
        return Err(Error::Corrupt(format!("{rows} rows were uploaded, and their job came to {done:?}")));
    }
    Ok(Imported { devices: rows, again: done.updated, took: begun.elapsed(), told })
}
