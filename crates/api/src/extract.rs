//! What handlers take out of a request, with problems instead of axum's plain texts.

use axum::body::Body;
use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::problem::{Kind, Problem};

/// Who calls: put into the request by whoever serves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor(pub mail::Actor);

impl Actor {
    /// The user with this uid: `root (uid 0)`.
    pub fn of_uid(uid: u32) -> Self {
        let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
        Self(match user {
            Some(user) => format!("{} (uid {uid})", user.name),
            None => format!("uid {uid}"),
        })
    }

    /// The user who runs this program.
    pub fn ourselves() -> Self {
        Self::of_uid(nix::unistd::geteuid().as_raw())
    }
}

impl<S: Sync> FromRequestParts<S> for Actor {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let actor = parts.extensions.get::<Actor>().cloned();
        actor.ok_or_else(|| Problem::new(Kind::Forbidden, "the caller is not known"))
    }
}

/// A JSON body.
pub(crate) struct Json<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Problem> {
        match axum::Json::<T>::from_request(request, state).await {
            Ok(axum::Json(value)) => Ok(Self(value)),
            Err(JsonRejection::BytesRejection(error)) => Err(Problem::new(Kind::TooLarge, error.body_text())),
            Err(error) => Err(Problem::invalid(error.body_text())),
        }
    }
}

/// The query of the URL.
pub(crate) struct Query<T>(pub(crate) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query: Result<_, QueryRejection> =
            axum::extract::Query::<T>::from_request_parts(parts, state).await;
        query.map(|q| Self(q.0)).map_err(|e| Problem::invalid(e.body_text()))
    }
}

/// A name in the path.
pub(crate) struct Name(pub(crate) String);

/// Longest name in a path.
const NAME_MAX: usize = 320;

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let name = path.map_err(|e| Problem::invalid(e.body_text()))?.0;
        if name.is_empty() || name.len() > NAME_MAX || name.chars().any(char::is_control) {
            return Err(Problem::invalid(format!(
                "a name in a path is 1 to {NAME_MAX} printable characters"
            )));
        }
        Ok(Self(name))
    }
}
