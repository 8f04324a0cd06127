//! Reports: what the sender is told about a message that failed, is late, or arrived (RFC 3461, RFC 3464, RFC 6522; RFC
//! 6533 for addresses and text beyond ASCII), what others tell us ([`mod@dsn`]), what a failure was about
//! ([`Classifier`]), and reports on TLS ([`tls_report`], RFC 8460).
//!
//! [`dsn()`] makes a whole report as bytes; who asked for which report ([`wanted`]) is decided here too. Storing and
//! sending it is the driver's part: it goes into the settle transaction of what it reports on.

mod cause;
mod classify;
mod compose;
pub mod dsn;
mod encode;
mod returned;
mod status_part;
mod tls;
mod words;

pub use classify::{Classifier, ClassifierError};
pub use compose::{Dsn, DsnRequest, Ending, Original, Reported, dsn, wanted};
pub use returned::{HEADERS_MAX, RETURN_MAX, RETURN_MAX_UNASKED, Returned, returned};
pub use tls::{
    TLS_REPORT_GZIP, TlsFailure, TlsPolicy, TlsPolicyResults, TlsPolicyType, TlsReport, TlsReportInput,
    TlsResultType, tls_report,
};
