//! How a connection to a mail exchanger must be protected, and why: DANE (RFC 7672), MTA-STS (RFC 8461), the operator's
//! rules, REQUIRETLS and `TLS-Required: No` (RFC 8689); and what becomes of it, counted for TLS reports (RFC 8460).
//!
//! ```text
//!  recipient domain, MX answer, MX host, flags of the message
//!        │
//!  an operator's rule? ── yes ──► that rule
//!        │ no
//!  TLSA records of the host? ──► dane
//!        │ none
//!  an MTA-STS policy of the domain? ──► mta-sts (enforce)
//!        │ none, or testing
//!  opportunistic
//! ```
//!
//! A policy belongs to the recipient's domain, not to the host: a connection that is open is used for another domain only
//! when it [satisfies](Requirement::satisfied_by) what that one asks for.

mod decide;
mod expected;
mod observe;
mod requirement;
mod results;
mod rules;

pub(crate) use decide::{Asked, Flags, named, requirement};
pub(crate) use observe::Observed;
pub(crate) use requirement::{Lacking, Negotiated, Requirement, Session, Starttls};
pub use results::{
    FailureDetail, FailureSeen, OTHER, PolicySeen, PolicyType, ResultType, TlsResult, TlsResults,
};
pub use rules::{TlsOverride, TlsRules};
