//! Errors as answers: problems (RFC 9457), each with what to do in plain words.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// What went wrong, as a word that programs can tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What was sent makes no sense.
    Invalid,
    /// The caller may not.
    Forbidden,
    /// There is no such thing.
    NotFound,
    /// The method does not exist there.
    MethodNotAllowed,
    /// It is there already, or in use, or read-only.
    Conflict,
    /// The request is too large.
    TooLarge,
    /// The message was refused; the detail is the SMTP reply.
    Refused,
    /// Not at the moment; the same request may succeed later.
    Unavailable,
    /// The relay has to run for this.
    NotRunning,
    /// Our own fault.
    Internal,
}

impl Kind {
    fn status(self) -> StatusCode {
        match self {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Forbidden => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Kind::Conflict | Kind::NotRunning => StatusCode::CONFLICT,
            Kind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::Refused => StatusCode::UNPROCESSABLE_ENTITY,
            Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn title(self) -> &'static str {
        match self {
            Kind::Invalid => "The request makes no sense",
            Kind::Forbidden => "Not allowed",
            Kind::NotFound => "Not found",
            Kind::MethodNotAllowed => "No such method here",
            Kind::Conflict => "In conflict with what is there",
            Kind::TooLarge => "Too large",
            Kind::Refused => "The message was refused",
            Kind::Unavailable => "Not at the moment",
            Kind::NotRunning => "The relay is not running",
            Kind::Internal => "A fault in Posthouse",
        }
    }
}

/// A problem (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    /// `urn:posthouse:problem:` and the kind.
    #[serde(rename = "type")]
    pub uri: String,
    /// The kind, in words.
    pub title: String,
    /// The HTTP status code.
    pub status: u16,
    /// What went wrong here, and what to do.
    pub detail: String,
    /// What went wrong, as a word.
    pub kind: Kind,
}

impl Problem {
    /// A problem.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let word =
            serde_json::to_value(kind).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
        Self {
            uri: format!("urn:posthouse:problem:{word}"),
            title: kind.title().to_owned(),
            status: kind.status().as_u16(),
            detail: detail.into(),
            kind,
        }
    }

    /// What was sent makes no sense.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, detail)
    }

    /// There is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        self.kind == Kind::Unavailable
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(status = self.status, detail = %self.detail, "API request failed");
        }
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        (status, [(header::CONTENT_TYPE, kind)], body).into_response()
    }
}

impl From<store::StoreError> for Problem {
    fn from(error: store::StoreError) -> Self {
        use store::StoreError as E;
        let kind = match &error {
            E::NotEmpty(_) => Kind::Conflict,
            E::BadBackup { .. } | E::Invalid(_) => Kind::Invalid,
            e if e.is_transient() => Kind::Unavailable,
            _ => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<history::HistoryError> for Problem {
    fn from(error: history::HistoryError) -> Self {
        use history::HistoryError as E;
        let kind = match &error {
            E::Query(_) | E::Engine(_) => Kind::Invalid,
            E::Closed | E::Postgres(_) | E::Unknown(_) => Kind::Unavailable,
            _ => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<directory::DirectoryError> for Problem {
    fn from(error: directory::DirectoryError) -> Self {
        use directory::DirectoryError as E;
        let kind = match &error {
            E::Invalid(_) => Kind::Invalid,
            E::NotFound { .. } => Kind::NotFound,
            E::Exists { .. } | E::InUse(_) | E::ReadOnly { .. } => Kind::Conflict,
            E::Closed | E::Disk(_) | E::Commit(_) | E::Unknown(_) | E::Postgres(_) => Kind::Unavailable,
            _ => Kind::Internal,
        };
        Self::new(kind, error.to_string())
    }
}
