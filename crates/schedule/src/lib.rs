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
mod dispatch;
mod effect;
mod limits;
mod providers;
mod queue;
mod scheduler;
mod signal;
mod site;
mod snapshot;
mod traffic;
mod window;

pub use clock::{ClockWatch, Jump, Now};
pub use decide::{Decision, Facts, Fate, decide};
pub use effect::{Effect, Link, Next, Removed, Reservation, Rest};
pub use limits::{Limits, Retry};
pub use providers::{Provider, ProviderView, Providers, ProvidersError, ReplyView};
pub use scheduler::Scheduler;
pub use signal::{Advice, Judgement, Signal};
pub use site::site_of;
pub use snapshot::{QueueView, SiteView, Snapshot, Totals, Why};
pub use traffic::{Rate, RateError, Traffic};
