//! Answers that are no streams: the end of a connection. Pages of any origin may ask, since a token is shown, no cookie.

use std::fmt::Write as _;

/// Browsers remember what a preflight allowed for a day.
const PREFLIGHT: &str = "Access-Control-Allow-Methods: GET, POST\r\n\
                         Access-Control-Allow-Headers: authorization, content-type, last-event-id\r\n\
                         Access-Control-Max-Age: 86400\r\n";

const RETRY_SOON: &str = "Retry-After: 1\r\n";

/// For every answer.
pub(super) const ANY_ORIGIN: &str = "Access-Control-Allow-Origin: *\r\n";

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    status: &'static str,
    headers: &'static str,
    /// For programs; `None` when nothing is wrong.
    code: Option<&'static str>,
}

impl Answer {
    pub(super) const PREFLIGHT: Self = Self { headers: PREFLIGHT, ..Self::DONE };
    pub(super) const DONE: Self = Self { status: "204 No Content", headers: "", code: None };
    /// It makes an `EventSource` stop; so does every answer but 200, but this one means it.
    pub(super) const KICKED: Self = Self::DONE;
    pub(super) const BAD_REQUEST: Self = Self::problem("400 Bad Request", "malformed_request");
    pub(super) const BAD_POSITION: Self = Self::problem("400 Bad Request", "invalid_position");
    pub(super) const UNAUTHENTICATED: Self = Self::problem("401 Unauthorized", "unauthenticated");
    pub(super) const FORBIDDEN: Self = Self::problem("403 Forbidden", "forbidden");
    pub(super) const NOT_FOUND: Self = Self::problem("404 Not Found", "not_found");
    /// What is posted needs an open stream, at this access point.
    pub(super) const NO_STREAM: Self = Self::problem("409 Conflict", "no_stream");
    pub(super) const TOO_LARGE: Self = Self::problem("413 Content Too Large", "body_too_large");
    pub(super) const BAD_BODY: Self = Self::problem("422 Unprocessable Content", "invalid_body");
    pub(super) const TOO_MANY: Self =
        Self { headers: RETRY_SOON, ..Self::problem("429 Too Many Requests", "too_many_requests") };
    pub(super) const LATER: Self =
        Self { headers: RETRY_SOON, ..Self::problem("503 Service Unavailable", "overloaded") };

    const fn problem(status: &'static str, code: &'static str) -> Self {
        Self { status, headers: "", code: Some(code) }
    }

    /// As it goes over the wire.
    pub(super) fn written(self) -> String {
        let Self { status, headers, code } = self;
        let mut text = format!("HTTP/1.1 {status}\r\n{headers}{ANY_ORIGIN}Connection: close\r\n");
        match code {
            Some(code) => {
                let (number, title) = status.split_once(' ').unwrap_or((status, ""));
                let body = format!(r#"{{"type":"about:blank","title":"{title}","status":{number},"code":"{code}"}}"#);
                let length = body.len();
                let _ =
                    write!(text, "Content-Type: application/problem+json\r\nContent-Length: {length}\r\n\r\n{body}");
            }
            None => text.push_str("\r\n"),
        }
        text
    }
}
