//! Every error as the client sees it: `application/problem+json` (RFC 9457) with a stable `code`.

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::error;

use crate::delta::error::DeltaError;
use crate::http::members::Mistake;
use crate::reconcile::strategy::BadStrategy;
use crate::replica::command::Refusal;
use crate::replica::staging::StagingError;
use crate::runtime::jobs::JobError;
use crate::runtime::peering::PeeringError;
use crate::runtime::pins::PinError;
use crate::runtime::queue::SubmitError;
use crate::runtime::replica::NamespaceError;
use crate::runtime::sync_error::SyncError;
use crate::store::error::StoreError;
use crate::types::cursor::BadCursor;
use crate::types::hash::BadHash;
use crate::types::id::{BadId, Namespace};
use crate::types::limits::WHOLE_STATE_MAX;
use crate::types::ttl::BadTtl;
use crate::types::version::BadVersion;

/// An error answer.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: u64,
    more: Map<String, Value>,
}

impl Problem {
    /// A problem with a stable code and a detail that says what to do.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            code,
            detail: detail.into(),
            retry_after: 1,
            more: Map::new(),
        }
    }

    /// Adds a member for programs.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }

    /// When to try again, in seconds; only told with a 429 or 503.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = seconds;
        self
    }

    /// A request that cannot be understood.
    pub fn bad_request(code: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, detail)
    }

    /// A query parameter that is unknown or malformed.
    pub fn bad_query(detail: impl Into<String>) -> Self {
        Self::bad_request("bad_query", detail)
    }

    /// A header that is malformed.
    pub fn bad_header(detail: impl Into<String>) -> Self {
        Self::bad_request("bad_header", detail)
    }

    /// A JSON body that is malformed.
    pub fn bad_json(mistake: &Mistake) -> Self {
        let told = mistake.told("member", "this request");
        let detail = format!("the body is not the expected JSON: {told}");
        Self::bad_request("bad_json", detail)
    }

    /// A body that broke off.
    pub fn incomplete_body() -> Self {
        let detail = "the body ended early; nothing was stored, send it again";
        Self::bad_request("incomplete_body", detail)
    }

    /// A body that does not arrive.
    pub fn slow_body() -> Self {
        let detail = "the body came too slowly; nothing was stored, send it again";
        Self::new(StatusCode::REQUEST_TIMEOUT, "upload_timeout", detail)
    }

    /// A state over the limit.
    pub fn state_too_large(limit: u64) -> Self {
        let detail = format!(
            "a state may have at most {limit} bytes here; raise max_state_bytes on all replicas \
             or split the state"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "state_too_large", detail).with("limit", limit)
    }

    /// A state over the limit of requests that have it in memory as a whole.
    pub fn whole_state_too_large(limit: u64) -> Self {
        if limit < WHOLE_STATE_MAX {
            return Self::state_too_large(limit);
        }
        let detail = format!(
            "this request takes states of at most {limit} bytes, whatever max_state_bytes is; send \
             larger ones by PUT, each by itself, which stores them while they arrive"
        );
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "state_too_large", detail).with("limit", limit)
    }

    /// Any other body over its limit.
    pub fn body_too_large(limit: u64) -> Self {
        let detail = format!("the body of this request may have at most {limit} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail).with("limit", limit)
    }

    /// No state of that id, or none of that version.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", detail)
    }

    /// A namespace that does not exist.
    pub fn no_namespace(name: &Namespace) -> Self {
        let detail = format!("there is no namespace {name}; create it with PUT /v1/ns/{name}");
        Self::new(StatusCode::NOT_FOUND, "namespace_not_found", detail)
    }

    /// More than the replica can take at the moment.
    pub fn overloaded() -> Self {
        let detail = "the replica has more requests than memory for them; try again in a moment";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", detail)
    }

    /// The replica stops.
    pub fn shutting_down() -> Self {
        let detail = "the replica is shutting down; try another one, or this one later";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", detail).retry_after(5)
    }

    fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", detail)
    }

    /// A defect of ours.
    pub fn unexpected() -> Self {
        Self::internal("the replica failed unexpectedly; its log says more")
    }
}

#[derive(Serialize)]
struct ProblemBody<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    code: &'a str,
    detail: &'a str,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if self.status == StatusCode::INTERNAL_SERVER_ERROR {
            error!(code = self.code, detail = self.detail, "request failed");
        }
        let body = ProblemBody {
            // The code names the problem; there is no page behind it.
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            more: &self.more,
        };
        let mut response = (self.status, Json(body)).into_response();
        let media_type = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(CONTENT_TYPE, media_type);
        if matches!(self.status.as_u16(), 429 | 503) {
            let seconds = HeaderValue::from(self.retry_after);
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        response
    }
}

impl From<BadId> for Problem {
    fn from(error: BadId) -> Self {
        let code = match error {
            BadId::Namespace => "bad_namespace",
            _ => "bad_id",
        };
        Self::bad_request(code, error.to_string())
    }
}

impl From<BadHash> for Problem {
    fn from(error: BadHash) -> Self {
        Self::bad_request(
            "bad_version",
            format!("a version is named by its content hash: {error}"),
        )
    }
}

impl From<BadVersion> for Problem {
    fn from(error: BadVersion) -> Self {
        Self::bad_request("bad_content_type", error.to_string())
    }
}

impl From<BadTtl> for Problem {
    fn from(error: BadTtl) -> Self {
        Self::bad_request("bad_ttl", error.to_string())
    }
}

impl From<BadCursor> for Problem {
    fn from(error: BadCursor) -> Self {
        Self::bad_request("bad_cursor", error.to_string())
    }
}

impl From<BadStrategy> for Problem {
    fn from(error: BadStrategy) -> Self {
        Self::bad_request("bad_strategy", format!("{error}, or auto"))
    }
}

impl From<DeltaError> for Problem {
    fn from(error: DeltaError) -> Self {
        match error {
            DeltaError::TooLarge { limit } => Self::state_too_large(limit as u64),
            other => {
                let detail = format!("the body does not decompress: {other}");
                Self::bad_request("bad_content_encoding", detail)
            }
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            Refusal::PreconditionFailed { id, current } => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "precondition_failed",
                detail,
            )
            .with("id", id.as_str())
            .with("etag", current),
            Refusal::NotFound { id } => Self::not_found(detail).with("id", id.as_str()),
            Refusal::MissingBody { .. } => Self::new(StatusCode::CONFLICT, "missing_body", detail),
            Refusal::Damaged { .. } => {
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "damaged", detail)
            }
            Refusal::TooManyWriters { .. } => {
                Self::new(StatusCode::CONFLICT, "too_many_writers", detail)
            }
            Refusal::ForeignHistory { .. } => {
                Self::new(StatusCode::CONFLICT, "foreign_history", detail)
            }
            Refusal::TooManyVersions { .. } => {
                Self::new(StatusCode::CONFLICT, "too_many_versions", detail)
            }
        }
    }
}

impl From<&StoreError> for Problem {
    fn from(error: &StoreError) -> Self {
        let (status, code) = match error {
            StoreError::Full => (StatusCode::INSUFFICIENT_STORAGE, "storage_full"),
            StoreError::Damaged(_) => (StatusCode::INTERNAL_SERVER_ERROR, "damaged"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "storage_failed"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::from(&error)
    }
}

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::QueueFull => Self::overloaded(),
            SubmitError::ShuttingDown => Self::shutting_down(),
            SubmitError::Refused(refused) => refused.refusal.into(),
            SubmitError::RenewedLately => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "renewing",
                error.to_string(),
            ),
            SubmitError::Storage(error) => Self::from(&*error),
        }
    }
}

impl From<NamespaceError> for Problem {
    fn from(error: NamespaceError) -> Self {
        let detail = error.to_string();
        match error {
            NamespaceError::TooMany(_) => {
                Self::new(StatusCode::CONFLICT, "too_many_namespaces", detail)
            }
            NamespaceError::Default => Self::new(StatusCode::CONFLICT, "default_namespace", detail),
            NamespaceError::Unknown(name) => Self::no_namespace(&name),
            NamespaceError::Store(error) => error.into(),
        }
    }
}

impl From<PeeringError> for Problem {
    fn from(error: PeeringError) -> Self {
        let detail = error.to_string();
        match error {
            PeeringError::UnknownPeer(_) => {
                Self::new(StatusCode::NOT_FOUND, "peer_not_found", detail)
            }
            PeeringError::BadName => Self::bad_request("bad_peer_name", detail),
            PeeringError::BadUrl(_) => Self::bad_request("bad_peer_url", detail),
            PeeringError::TooManyPeers => Self::new(StatusCode::CONFLICT, "too_many_peers", detail),
            PeeringError::UnknownNamespace(name) => Self::no_namespace(&name),
            PeeringError::Busy => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sessions", detail)
            }
            PeeringError::Banned(seconds) => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "peer_banned", detail)
                    .retry_after(seconds.max(1))
            }
            PeeringError::Failed(_) => Self::new(StatusCode::BAD_GATEWAY, "peer_failed", detail),
            PeeringError::Unexpected => Self::internal(detail),
            PeeringError::ShuttingDown => Self::shutting_down(),
        }
    }
}

impl From<StagingError> for Problem {
    fn from(error: StagingError) -> Self {
        let detail = error.to_string();
        let unavailable = |code| Self::new(StatusCode::SERVICE_UNAVAILABLE, code, detail.clone());
        match error {
            StagingError::Store(error) => (&*error).into(),
            StagingError::Unavailable(_) => unavailable("overloaded"),
            StagingError::Full => unavailable("staging_full").retry_after(60),
            StagingError::Disturbed => Self::new(StatusCode::CONFLICT, "disturbed", detail),
        }
    }
}

impl From<JobError> for Problem {
    fn from(error: JobError) -> Self {
        let detail = error.to_string();
        match error {
            JobError::Running(job) => {
                Self::new(StatusCode::CONFLICT, "job_running", detail).with("job", job)
            }
            JobError::ShuttingDown => Self::shutting_down(),
            JobError::NoThread(_) => Self::internal(detail),
        }
    }
}

impl From<SyncError> for Problem {
    fn from(error: SyncError) -> Self {
        let detail = error.to_string();
        match error {
            SyncError::Pin(PinError::TooManySessions) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_sessions", detail)
            }
            SyncError::Pin(PinError::UnknownSession) => {
                Self::new(StatusCode::NOT_FOUND, "unknown_session", detail)
            }
            SyncError::Pin(PinError::NoRandomNumbers) => Self::internal(detail),
            SyncError::BadMessage(_) => Self::bad_request("bad_message", detail),
            SyncError::HashMismatch(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "hash_mismatch", detail)
            }
            SyncError::Renewing => Self::new(StatusCode::SERVICE_UNAVAILABLE, "renewing", detail),
            SyncError::Submit(error) => error.into(),
            SyncError::Staging(error) => error.into(),
            SyncError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::sync::Arc;

    use super::*;
    use crate::types::hash::ContentHash;
    use crate::types::id::GameId;

    fn told(error: impl Into<Problem>) -> (u16, &'static str) {
        let problem = error.into();
        let (status, code) = (problem.status.as_u16(), problem.code);
        let response = problem.into_response();
        let waits = response.headers().contains_key(RETRY_AFTER);
        assert_eq!(waits, matches!(status, 429 | 503), "{code}");
        (status, code)
    }

    #[test]
    fn storage_errors_tell_a_full_disk_from_damage_and_the_rest() {
        let unusable = || StoreError::Unusable {
            path: PathBuf::from("d"),
            source: io::ErrorKind::PermissionDenied.into(),
        };
        assert_eq!(told(StoreError::Full), (507, "storage_full"));
        assert_eq!(told(StoreError::damaged("x")), (500, "damaged"));
        assert_eq!(told(unusable()), (500, "storage_failed"));
        let full = SubmitError::Storage(Arc::new(StoreError::Full));
        assert_eq!(told(full), (507, "storage_full"));
        assert_eq!(
            told(NamespaceError::Store(unusable())),
            (500, "storage_failed")
        );
        assert_eq!(
            told(SyncError::Store(StoreError::Full)),
            (507, "storage_full")
        );
    }

    #[test]
    fn what_the_writer_and_sessions_refuse_keeps_its_code() {
        let id = GameId::new("a").unwrap();
        let missing = Refusal::MissingBody {
            id: id.clone(),
            hash: ContentHash::NONE,
        };
        assert_eq!(told(SubmitError::QueueFull), (503, "overloaded"));
        assert_eq!(told(SubmitError::ShuttingDown), (503, "shutting_down"));
        assert_eq!(told(missing), (409, "missing_body"));
        assert_eq!(
            told(Refusal::TooManyVersions { id }),
            (409, "too_many_versions")
        );
        let pin = |error| told(SyncError::Pin(error));
        assert_eq!(pin(PinError::UnknownSession), (404, "unknown_session"));
        assert_eq!(pin(PinError::NoRandomNumbers), (500, "internal"));
        assert_eq!(
            told(SyncError::HashMismatch("x".into())),
            (422, "hash_mismatch")
        );
        assert_eq!(
            told(SyncError::Submit(SubmitError::QueueFull)),
            (503, "overloaded")
        );
    }
}
