//! What to deliver next. Pure: events and `now` in, effects out; no I/O, no runtime, no clock reads.
//!
//! The driver in `relay` owns a [`Scheduler`], tells it what happened and carries out the [`Effect`]s it answers
//! with. One delivery walks through it like this:
//!
//! 1. Before admission [`Scheduler::reserve`] says whether the queue's window has room. *Active*: the delivery goes
//!    to memory, and [`Scheduler::admitted`] follows once it is on disk. *Parked*: it is stored as due now, and
//!    [`Scheduler::parked`] follows. A reservation that comes to nothing is given back by [`Scheduler::cancel`].
//! 2. When the window has room and rows wait on disk, [`Effect::Page`] asks for them; [`Scheduler::paged`] brings
//!    them, and says which of them it took.
//! 3. [`Effect::Deliver`] starts a delivery: on a new connection, or on an idle one. When the attempt is over,
//!    [`Scheduler::attempted`] says what became of the connection. A worker that keeps it asks
//!    [`Scheduler::next_for`] for more.
//! 4. [`decide()`] says what the outcomes mean for each recipient. When the settlement is committed, and no sooner,
//!    [`Scheduler::finished`] lets go of the delivery: until then a page could still show its old row, and it
//!    would be delivered twice.
//!
//! A site to which no connection can be made is suspended: one delivery at growing intervals is the probe that
//! finds out whether it is back; every other one whose turn comes meanwhile is answered at once with the site's
//! last failure ([`Effect::Answer`]). Each counts its attempt, gets its warning and expires as if it had been tried, and
//! a hundred thousand messages for a dead smart host cost one connection per interval, not one each.

mod clock;
mod decide;
mod effect;
mod limits;
mod policy;
mod providers;
mod saved;
mod scheduler;
mod signal;
mod snapshot;
mod traffic;
mod why;

pub use clock::{ClockWatch, Jump, Now};
pub use decide::{Decision, Facts, Fate, decide};
pub use effect::{Effect, Item, Link, Next, Path, Removed, Report, Reservation, Rest};
pub use limits::{Limits, Retry};
pub use policy::{
    Ceiling, DEFAULT_POOL, DomainPattern, Egress, Policy, Pool, Scope, Shape, Source, Suspension, Warmup, site_named,
};
pub use providers::{Provider, ProviderView, Providers, ProvidersError, ReplyView};
pub use saved::{SavedClock, SavedPath, SavedState};
pub use scheduler::Scheduler;
pub use signal::{Advice, Judgement, Signal};
pub use snapshot::{PathView, QueueView, SiteView, Snapshot, Totals, WarmupView};
pub use traffic::{Rate, RateError, Traffic};
pub use why::{Owner, Turns, Waits, Why};
