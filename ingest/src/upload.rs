//! Bodies that are read line by line as they come, however many: lists of ids, devices by the million. What was read
//! is worked off before more is read, so a slow store slows its sender down.

use std::time::Duration;

use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use http_body_util::BodyExt as _;
use tokio::time::{Instant, sleep};

use crate::{
    gate::Call,
    listen::Pace,
    problem::{Code, Problem},
};

/// Longest line, in bytes: a device with every attribute and tag at its usual length.
const LINE_MAX_BYTES: usize = 64 * 1024;
/// A page ends when its lines have so many bytes together: of each upload that much is in memory, and goes to the store
/// in one call, however long its lines are.
const PAGE_MAX_BYTES: usize = 1024 * 1024;
/// Most lines of one upload.
const LINES_MAX: u64 = 10_000_000;
/// More must come within this time.
const MORE_TIMEOUT: Duration = Duration::from_secs(15);

/// For how long a store may not answer before an upload breaks off, and the pause before it is asked again.
const STORE_PATIENCE: Duration = Duration::from_secs(30);
const STORE_PAUSE: Duration = Duration::from_millis(200);

/// What the store says, asked again while it does not answer: an upload of an hour is not to break off for a moment's
/// silence. To ask twice must be to ask once.
pub(crate) async fn patiently<T, F: Future<Output = Result<T, Problem>>>(ask: impl Fn() -> F) -> Result<T, Problem> {
    let begun = Instant::now();
    loop {
        match ask().await {
            Err(problem) if problem.code() == Code::StoreUnavailable && begun.elapsed() < STORE_PATIENCE => {
                sleep(STORE_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// A request whose body is yet to be read.
pub(crate) struct Upload {
    /// Who asks.
    pub(crate) call: Call,
    /// What comes.
    pub(crate) lines: Lines,
}

impl<S: Sync> FromRequest<S> for Upload {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (mut parts, body) = request.into_parts();
        let no_gate = || Problem::new(Code::Internal, "this route has no gate");
        let call = parts.extensions.remove().ok_or_else(no_gate)?;
        let pace = parts.extensions.remove();
        Ok(Self { call, lines: Lines::new(body, pace) })
    }
}

/// The lines of a body.
pub(crate) struct Lines {
    body: Body,
    pace: Option<Pace>,
    rest: Vec<u8>,
    ended: bool,
    read: u64,
}

/// Lines that are worked off together.
struct Page {
    lines: Vec<(u64, String)>,
    lines_max: usize,
    bytes: usize,
}

impl Page {
    fn push(&mut self, number: u64, line: &str) {
        self.bytes += line.len();
        self.lines.push((number, line.to_owned()));
    }

    fn is_full(&self) -> bool {
        self.lines.len() >= self.lines_max || self.bytes >= PAGE_MAX_BYTES
    }
}

impl Lines {
    fn new(body: Body, pace: Option<Pace>) -> Self {
        Self { body, pace, rest: Vec::new(), ended: false, read: 0 }
    }

    /// The next lines with their numbers from 1, at most `max` of them, and fewer when they are long or the last; none
    /// when all were read. Empty lines are passed over.
    ///
    /// # Errors
    /// When the body breaks off, or is no text in lines of sensible length.
    pub(crate) async fn page(&mut self, max: usize) -> Result<Vec<(u64, String)>, Problem> {
        let mut page = Page { lines: Vec::with_capacity(max), lines_max: max, bytes: 0 };
        loop {
            self.split(&mut page)?;
            if page.is_full() || self.ended {
                return Ok(page.lines);
            }
            self.more().await?;
        }
    }

    fn split(&mut self, page: &mut Page) -> Result<(), Problem> {
        let mut from = 0;
        while !page.is_full() {
            let line = match self.rest[from..].iter().position(|byte| *byte == b'\n') {
                Some(length) => &self.rest[from..from + length],
                None if self.ended && from < self.rest.len() => &self.rest[from..],
                None => break,
            };
            from = (from + line.len() + 1).min(self.rest.len());
            self.read += 1;
            let text = str::from_utf8(line).map_err(|_| at(self.read, "not UTF-8"))?.trim();
            if !text.is_empty() {
                page.push(self.read, text);
            }
        }
        self.rest.drain(..from);
        if self.rest.len() > LINE_MAX_BYTES && !self.rest.contains(&b'\n') {
            return Err(at(self.read + 1, &format!("longer than {LINE_MAX_BYTES} bytes")));
        }
        if self.read > LINES_MAX {
            return Err(Problem::new(Code::PayloadTooLarge, format!("more than {LINES_MAX} lines: divide the upload")));
        }
        Ok(())
    }

    async fn more(&mut self) -> Result<(), Problem> {
        let Ok(frame) = tokio::time::timeout(MORE_TIMEOUT, self.body.frame()).await else {
            let detail = format!("nothing came for {} s", MORE_TIMEOUT.as_secs());
            return Err(Problem::new(Code::RequestTimeout, detail));
        };
        if let Some(pace) = &self.pace {
            pace.go_on();
        }
        match frame {
            None => self.ended = true,
            Some(Ok(frame)) => self.rest.extend(frame.into_data().into_iter().flatten()),
            Some(Err(_)) => return Err(Problem::new(Code::MalformedJson, "the body broke off")),
        }
        Ok(())
    }
}

fn at(line: u64, what: &str) -> Problem {
    Problem::fault(format!("#{line}"), "invalid_format", format!("line {line} is {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many lines are on each page.
    async fn pages(text: String, max: usize) -> Vec<usize> {
        let (mut lines, mut pages) = (Lines::new(Body::from(text), None), Vec::new());
        loop {
            let page = lines.page(max).await.unwrap();
            if page.is_empty() {
                return pages;
            }
            pages.push(page.len());
        }
    }

    #[tokio::test]
    async fn a_page_ends_with_so_many_lines_or_so_many_bytes() {
        assert_eq!(pages("one\n\ntwo\nthree\nfour\nfive".into(), 2).await, [2, 2, 1]);
        let long = "x".repeat(LINE_MAX_BYTES) + "\n";
        assert_eq!(pages(long.repeat(40), 1_000).await, [16, 16, 8]);
    }
}
