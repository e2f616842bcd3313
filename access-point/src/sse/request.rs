//! What a browser asks for. The token is shown in the query, where `EventSource` can put it, or as a bearer.

use mqtt::Up;

use super::Answer;

/// Where streams are.
const PATH: &str = "/v1/stream";

/// Room for headers: browsers send 15 to 25.
const HEADERS_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// A browser asks whether its page may ask.
    Preflight,
    Stream,
    Ack,
    /// To send something up: by the topic that ends like this behind the app.
    Up(String),
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) asked: Asked,
    pub(super) token: Option<String>,
    /// What the browser says it has: the last event before a reconnection is newer than what the page asked for.
    pub(super) after: Option<String>,
    pub(super) ack_auto: bool,
    pub(super) content_type: Option<String>,
    pub(super) head_bytes: usize,
    pub(super) body_bytes: usize,
}

impl Request {
    /// Reads a request whose head is complete.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Answer> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(head_bytes)) = request.parse(bytes) else { return Err(Answer::BAD_REQUEST) };
        let (path, query) = request.path.map_or(("", ""), |target| target.split_once('?').unwrap_or((target, "")));
        let asked = asked(request.method.unwrap_or_default(), path).ok_or(Answer::NOT_FOUND)?;
        let header = |name: &str| {
            let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
            std::str::from_utf8(found.value).ok().map(str::trim)
        };
        // Neither tokens nor positions have characters that must be escaped there.
        let option = |name: &str| query.split('&').find_map(|option| option.strip_prefix(name)?.strip_prefix('='));
        let body_bytes = match header("content-length") {
            None => 0,
            Some(length) => length.parse().map_err(|_| Answer::BAD_REQUEST)?,
        };
        Ok(Self {
            asked,
            token: header("authorization").and_then(bearer).or_else(|| option("token")).map(Into::into),
            after: header("last-event-id").filter(|id| !id.is_empty()).or_else(|| option("after")).map(Into::into),
            ack_auto: option("ack") == Some("auto"),
            content_type: header("content-type").map(Into::into),
            head_bytes,
            body_bytes,
        })
    }
}

fn asked(method: &str, path: &str) -> Option<Asked> {
    let rest = path.strip_prefix(PATH)?;
    match (method, rest) {
        ("OPTIONS", _) => Some(Asked::Preflight),
        ("GET", "") => Some(Asked::Stream),
        ("POST", "/ack") => Some(Asked::Ack),
        ("POST", _) => {
            let rest = rest.strip_prefix('/')?;
            let is_post = matches!(Up::within_app(rest)?, Up::Uplink(..) | Up::Outcome(_) | Up::Peer(..));
            is_post.then(|| Asked::Up(rest.into()))
        }
        _ => None,
    }
}

fn bearer(authorization: &str) -> Option<&str> {
    let (scheme, token) = authorization.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Request, Answer> {
        Request::parse(text.as_bytes())
    }

    #[test]
    fn a_stream_is_asked_for_with_what_event_source_can_say() {
        let asked = "GET /v1/stream?token=a.b.c&after=i1.t2&ack=auto HTTP/1.1\r\nHost: x\r\n\r\n";
        let request = parse(asked).unwrap();
        assert_eq!((request.asked, request.ack_auto, request.head_bytes), (Asked::Stream, true, asked.len()));
        assert_eq!((request.token.as_deref(), request.after.as_deref()), (Some("a.b.c"), Some("i1.t2")));
    }

    #[test]
    fn what_came_last_counts_more_than_what_the_page_once_asked_for() {
        let again = "GET /v1/stream?after=i1.t2 HTTP/1.1\r\nlast-event-id: i3.t4\r\nAuthorization: Bearer x\r\n\r\n";
        let request = parse(again).unwrap();
        assert_eq!((request.token.as_deref(), request.after.as_deref()), (Some("x"), Some("i3.t4")));
    }

    #[test]
    fn posts_have_bodies_and_pages_ask_first() {
        let request = parse("POST /v1/stream/up/gps?token=x HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}").unwrap();
        assert_eq!((request.asked, request.body_bytes), (Asked::Up("up/gps".into()), 2));
        assert_eq!(parse("POST /v1/stream/ack HTTP/1.1\r\n\r\n").unwrap().asked, Asked::Ack);
        assert_eq!(parse("OPTIONS /v1/stream/ack HTTP/1.1\r\n\r\n").unwrap().asked, Asked::Preflight);
    }

    #[test]
    fn nothing_else_is_there() {
        for (line, answer) in [
            ("GET /", Answer::NOT_FOUND),
            ("POST /v1/stream", Answer::NOT_FOUND),
            ("GET /v1/stream/ack", Answer::NOT_FOUND),
            ("POST /v1/stream/up/A%20B", Answer::NOT_FOUND),
            ("POST /v1/stream/sync", Answer::NOT_FOUND),
        ] {
            assert_eq!(parse(&format!("{line} HTTP/1.1\r\n\r\n")).unwrap_err(), answer, "{line}");
        }
        assert_eq!(parse("GET /v1/stream HTTP/1.1\r\nContent-Length: x\r\n\r\n").unwrap_err(), Answer::BAD_REQUEST);
    }
}
