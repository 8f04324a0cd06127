//! The vocabulary of Posthouse: what the stages say to each other.
//!
//! No I/O and no runtime here. A type belongs in this crate when more than one stage speaks of it.

mod address;
mod attempt;
mod bounce;
mod clock;
mod event;
pub mod form1;
mod header;
mod id;
mod message;
mod pattern;
mod queue;
mod rate;
mod site;
mod smarthost;
mod status;
mod tls_level;
mod tls_result;

pub use address::{Address, AddressError, ReversePath, domain_to_ascii};
pub use attempt::{Attempt, Disposition, Outcome, RecipientOutcome, Remote, Security};
pub use bounce::{BounceClass, BounceClassError};
pub use clock::{Clock, ManualClock, Mono, Timestamp};
pub use event::{Accepted, Actor, Event, EventKind, ReportKind};
pub use header::{Header, HeaderEnd, HeaderScan, Headers, headers};
pub use id::{DeliveryId, IdError, IdGenerator, MessageId, OrgId};
pub use message::{Body, Message, Notify, Origin, Protocol, Recipient, Ret, TlsInfo};
pub use pattern::{Pattern, PatternError};
pub use queue::{Destination, DestinationError, HostPort, QueueKey, RecipientStatus, State, Stream};
pub use rate::{Rate, RateError};
pub use site::{Site, SourceName, default_source};
pub use smarthost::{HostOrder, HostOrderError, SmartHostTls, SmartHostTlsError};
pub use status::{EnhancedStatus, Reply, StatusError};
pub use tls_level::{TlsLevel, TlsLevelError};
pub use tls_result::{TlsPolicyType, TlsResultType};
