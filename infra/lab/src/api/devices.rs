//! Devices by the million in one request, and what is known about one.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{Method, body::Frame, header};
use model::{DeviceId, JobId, JobState};
use serde::Deserialize;
use serde_json::Value;

use super::{Api, parse};
use crate::Error;

/// Longest upload: ten million devices at a slow store's pace.
const UPLOAD_TIMEOUT: Duration = Duration::from_hours(2);

/// How far an import has come.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Import {
    /// As a whole.
    pub state: JobState,
    /// Rows that were read.
    pub rows: u64,
    /// Of those, devices that were registered.
    pub created: u64,
    /// Of those, devices that had been registered before.
    pub updated: u64,
}

impl Api {
    /// Uploads devices, an NDJSON row each, as the job of this name; the answer comes when the last is durable.
    ///
    /// # Errors
    /// As every call; rows count that were taken before.
    pub async fn import(&self, job: JobId, rows: impl Stream<Item = Bytes> + Send + 'static) -> Result<Import, Error> {
        let body = StreamBody::new(rows.map(|bytes| Ok(Frame::data(bytes)))).boxed_unsync();
        let path = format!("/v1/devices/import?job={job}");
        let request = self.request(Method::POST, &path).header(header::CONTENT_TYPE, "application/x-ndjson");
        let mut heard = None;
        let uploaded = tokio::time::timeout(UPLOAD_TIMEOUT, self.answer(request, body, &mut heard));
        let late = |_| Error::unavailable("no_answer", format!("none within {UPLOAD_TIMEOUT:?}"));
        parse(&uploaded.await.map_err(late)??)
    }

    /// How far an import has come.
    ///
    /// # Errors
    /// As every call.
    pub async fn job(&self, id: JobId) -> Result<Import, Error> {
        parse(&self.call(Method::GET, &format!("/v1/jobs/{id}"), None, None).await?)
    }

    /// Changes what is known about a device by a JSON merge patch.
    ///
    /// # Errors
    /// As every call. After [`Error::Unavailable`] it may have changed all the same.
    pub async fn amend(&self, device: &DeviceId, patch: &Value) -> Result<(), Error> {
        self.call(Method::PATCH, &format!("/v1/devices/{device}"), Some(patch), None).await.map(drop)
    }

    /// What is known about a device.
    ///
    /// # Errors
    /// As every call.
    pub async fn device(&self, device: &DeviceId) -> Result<Value, Error> {
        parse(&self.call(Method::GET, &format!("/v1/devices/{device}"), None, None).await?)
    }
}
