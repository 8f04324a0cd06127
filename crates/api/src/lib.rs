//! The management API and the endpoints for health checks and metrics.
//!
//! The API is one axum router, generic over [`Control`]: what the program lends it. It is served on a Unix socket
//! whose peers are checked by uid ([`serve_socket`]), or called in process by the command line while no relay runs.
//! Errors are problems (RFC 9457), every listing is paged by key. Health and metrics are another router, for TCP
//! ([`public`]), which manages nothing.

mod accounts;
mod change;
mod cluster;
mod control;
mod extract;
mod operate;
mod problem;
mod public;
mod queue;
mod reach;
mod router;
mod routing;
mod rules;
mod serve;
mod stops;
mod submit;
pub mod types;
mod view;
mod wanted;

pub use control::Control;
pub use extract::Actor;
pub use problem::{Kind, Problem};
pub use public::public;
pub use router::router;
pub use serve::{ServeError, bind_socket, serve_socket, serve_tcp};
pub use submit::{Upload, UploadError};
