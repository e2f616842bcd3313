//! What is wrong with a request, as RFC 9457 says it. The only place that turns errors into HTTP.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

/// Problem types are names under this address; nothing has to be served there.
const TYPE_BASE: &str = "https://push.example/problems/";
const QUOTA_TYPE: &str = "https://iana.org/assignments/http-problem-types#quota-exceeded";
const CAPACITY_TYPE: &str = "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity";
/// Seconds after which a refusal for want of capacity may be tried again; the sender adds jitter.
const RETRY_AFTER_S: u64 = 2;

/// Mistakes that one answer names; a body full of them must not make a larger answer.
pub(crate) const FAULTS_MAX: usize = 64;

/// Every kind of problem there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    MalformedJson,
    IdempotencyKeyInvalid,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RequestTimeout,
    IdempotencyInProgress,
    AlreadyCompleted,
    AlreadyExists,
    EnvironmentConflict,
    TypeConflict,
    NotResolved,
    PreconditionFailed,
    PayloadTooLarge,
    UnsupportedMediaType,
    InvalidRequest,
    IdempotencyKeyReused,
    AudienceEmpty,
    QuotaExceeded,
    TooManyRequests,
    Internal,
    BrokerUnavailable,
    StoreUnavailable,
    FilterUnavailable,
    GroupUnavailable,
    DeadlineExceeded,
    Overloaded,
}

impl Code {
    /// Every kind, by status.
    pub(crate) const ALL: [Self; 28] = [
        Self::MalformedJson,
        Self::IdempotencyKeyInvalid,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RequestTimeout,
        Self::IdempotencyInProgress,
        Self::AlreadyCompleted,
        Self::AlreadyExists,
        Self::EnvironmentConflict,
        Self::TypeConflict,
        Self::NotResolved,
        Self::PreconditionFailed,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::InvalidRequest,
        Self::IdempotencyKeyReused,
        Self::AudienceEmpty,
        Self::QuotaExceeded,
        Self::TooManyRequests,
        Self::Internal,
        Self::BrokerUnavailable,
        Self::StoreUnavailable,
        Self::FilterUnavailable,
        Self::GroupUnavailable,
        Self::DeadlineExceeded,
        Self::Overloaded,
    ];

    /// Status, stable name and title.
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::MalformedJson => (S::BAD_REQUEST, "malformed_json", "Body is not JSON"),
            Self::IdempotencyKeyInvalid => (S::BAD_REQUEST, "idempotency_key_invalid", "Idempotency key is not usable"),
            Self::Unauthenticated => (S::UNAUTHORIZED, "unauthenticated", "No valid API key"),
            Self::Forbidden => (S::FORBIDDEN, "forbidden", "The API key does not allow this"),
            Self::NotFound => (S::NOT_FOUND, "not_found", "There is no such thing here"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "method_not_allowed", "This cannot be done here"),
            Self::RequestTimeout => (S::REQUEST_TIMEOUT, "request_timeout", "The body did not arrive in time"),
            Self::IdempotencyInProgress => {
                (S::CONFLICT, "idempotency_in_progress", "The first request is still running")
            }
            Self::AlreadyCompleted => (S::CONFLICT, "already_completed", "It is already over"),
            Self::AlreadyExists => (S::CONFLICT, "already_exists", "There is one of this name"),
            Self::EnvironmentConflict => (S::CONFLICT, "environment_conflict", "It belongs to the other environment"),
            Self::TypeConflict => (S::CONFLICT, "type_conflict", "An attribute has one type"),
            Self::NotResolved => (S::CONFLICT, "not_resolved", "Its audience is not resolved"),
            Self::PreconditionFailed => (S::PRECONDITION_FAILED, "precondition_failed", "It was changed meanwhile"),
            Self::PayloadTooLarge => (S::PAYLOAD_TOO_LARGE, "payload_too_large", "Too much"),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "The body must be plain JSON")
            }
            Self::InvalidRequest => (S::UNPROCESSABLE_ENTITY, "invalid_request", "Request has invalid fields"),
            Self::IdempotencyKeyReused => {
                (S::UNPROCESSABLE_ENTITY, "idempotency_key_reused", "Idempotency key was used for another request")
            }
            Self::AudienceEmpty => (S::UNPROCESSABLE_ENTITY, "audience_empty", "Nobody would get it"),
            Self::QuotaExceeded => (S::TOO_MANY_REQUESTS, "quota_exceeded", "Too many recipients for now"),
            Self::TooManyRequests => (S::TOO_MANY_REQUESTS, "too_many_requests", "Too many requests of this app"),
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "internal", "Something is broken here"),
            Self::BrokerUnavailable => (S::SERVICE_UNAVAILABLE, "broker_unavailable", "The broker cannot promise now"),
            Self::StoreUnavailable => (S::SERVICE_UNAVAILABLE, "store_unavailable", "The store cannot promise now"),
            Self::FilterUnavailable => (S::SERVICE_UNAVAILABLE, "filter_unavailable", "Filters cannot be read now"),
            Self::GroupUnavailable => {
                (S::SERVICE_UNAVAILABLE, "group_unavailable", "The product does not tell the members of the group now")
            }
            Self::DeadlineExceeded => (S::SERVICE_UNAVAILABLE, "deadline_exceeded", "It took too long"),
            Self::Overloaded => (S::SERVICE_UNAVAILABLE, "overloaded", "Too many requests at once"),
        }
    }

    /// The stable name.
    pub(crate) const fn as_str(self) -> &'static str {
        self.parts().1
    }

    /// The status it is answered with.
    pub(crate) const fn status(self) -> StatusCode {
        self.parts().0
    }

    /// What it means, in a few words.
    pub(crate) const fn title(self) -> &'static str {
        self.parts().2
    }

    fn type_uri(self) -> String {
        match self.parts() {
            (StatusCode::TOO_MANY_REQUESTS, ..) => QUOTA_TYPE.to_owned(),
            (StatusCode::SERVICE_UNAVAILABLE, ..) => CAPACITY_TYPE.to_owned(),
            (_, name, _) => format!("{TYPE_BASE}{name}"),
        }
    }
}

/// One mistake in a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Fault {
    /// Where: a JSON pointer into the body (`#/ttl_s`), or `?name` in the query.
    pub(crate) pointer: String,
    /// What kind of mistake, for programs.
    pub(crate) code: &'static str,
    /// What would be right, for people.
    pub(crate) detail: String,
}

/// Why a request is not answered as asked.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    code: Code,
    detail: String,
    faults: Vec<Fault>,
    retry_after_s: Option<u64>,
}

impl Problem {
    /// A problem with a sentence for people.
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        let retry_after_s = match code.status() {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some(RETRY_AFTER_S),
            StatusCode::CONFLICT if matches!(code, Code::IdempotencyInProgress | Code::NotResolved) => Some(1),
            _ => None,
        };
        Self { code, detail: detail.into(), faults: Vec::new(), retry_after_s }
    }

    /// Everything that is wrong with the fields of a request.
    pub(crate) fn invalid(mut faults: Vec<Fault>) -> Self {
        faults.truncate(FAULTS_MAX);
        let detail = match faults.len() {
            1 => "1 field is invalid".to_owned(),
            FAULTS_MAX => format!("{FAULTS_MAX} fields or more are invalid"),
            count => format!("{count} fields are invalid"),
        };
        Self { faults, ..Self::new(Code::InvalidRequest, detail) }
    }

    /// One mistake at one place.
    pub(crate) fn fault(pointer: impl Into<String>, code: &'static str, detail: impl Into<String>) -> Self {
        Self::invalid(vec![Fault { pointer: pointer.into(), code, detail: detail.into() }])
    }

    /// No such thing, or not the caller's: the two look the same.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no such {what}"))
    }

    /// The same, not to be tried again before this many seconds.
    pub(crate) fn retry_after(mut self, secs: u64) -> Self {
        self.retry_after_s = Some(secs.max(1));
        self
    }

    /// What is wrong first, in one line.
    pub(crate) fn in_short(&self) -> String {
        self.faults.first().map_or_else(|| self.detail.clone(), |fault| format!("{}: {}", fault.pointer, fault.detail))
    }

    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        self.code.status()
    }

    /// Its kind.
    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// The body, for a request of this id.
    pub(crate) fn body<'a>(&'a self, request_id: &'a str) -> Body<'a> {
        let (status, code, title) = self.code.parts();
        Body {
            r#type: self.code.type_uri(),
            title,
            status: status.as_u16(),
            code,
            detail: &self.detail,
            request_id,
            errors: &self.faults,
            violated_policies: match self.code {
                Code::QuotaExceeded => &["send"],
                Code::TooManyRequests => &["requests"],
                _ => &[],
            },
        }
    }

    /// The whole answer, for a request of this id.
    pub(crate) fn answer(&self, request_id: &str) -> Response {
        let mut response = (self.status(), Json(self.body(request_id))).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(secs) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.code == Code::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer, Basic realm=\"fanfare\""));
        }
        response
    }
}

/// RFC 9457 with our extensions.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(crate) struct Body<'a> {
    /// A name for the kind of problem.
    #[schema(format = "uri")]
    r#type: String,
    /// The kind of problem, for people.
    title: &'static str,
    /// The status of the answer.
    status: u16,
    /// The kind of problem, for programs.
    code: &'static str,
    /// What is wrong this time.
    detail: &'a str,
    /// Names the request in logs.
    request_id: &'a str,
    /// Every mistake that was found.
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
    /// Which limits were exceeded.
    #[serde(rename = "violated-policies", skip_serializing_if = "<[&str]>::is_empty")]
    violated_policies: &'static [&'static str],
}

impl IntoResponse for Problem {
    /// Leaves the body to [`journey`](crate::gate::journey), which knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Tells operators what a caller is not told.
fn withheld(code: Code, cause: &dyn std::error::Error) -> Problem {
    tracing::warn!(error = %cause, code = code.as_str(), "request cannot be served");
    Problem::new(code, "nothing is lost: try again with the same idempotency key")
}

impl From<store::Error> for Problem {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Unavailable(_) => withheld(Code::StoreUnavailable, &error),
            store::Error::Rejected(reason) => Self::new(Code::InvalidRequest, reason),
            store::Error::Corrupt(_) => withheld(Code::Internal, &error),
        }
    }
}

impl From<broker::Error> for Problem {
    fn from(error: broker::Error) -> Self {
        match error {
            broker::Error::Unavailable(_) | broker::Error::Full(_) => withheld(Code::BrokerUnavailable, &error),
            broker::Error::Corrupt(_) => withheld(Code::Internal, &error),
        }
    }
}

impl From<audience::SelectError> for Problem {
    fn from(error: audience::SelectError) -> Self {
        match error {
            audience::SelectError::Unavailable(_) => withheld(Code::FilterUnavailable, &error),
            audience::SelectError::Invalid(invalid) => Self::fault("#/to/filter", invalid.code, invalid.to_string()),
        }
    }
}
