//! What to deliver next. Pure: events and `now` in, effects out; no I/O, no runtime, no clock reads.
//!
//! The driver in `relay` owns a [`Scheduler`], tells it what happened and carries out the [`Effect`]s it answers
//! with.
//!
//! - A *queue* is (organisation, stream, destination): mail that waits together.
//! - A *site* is where destinations really end: a set of mail exchangers, a provider, or one destination alone. A queue belongs to a site as
//!   soon as DNS has said which ([`Effect::Locate`], [`Scheduler::located`]); it moves when the answer changes.
//! - A *source* is an outgoing address, a *pool* some of them with weights, a *[`Path`]* a source at a site: what has connections,
//!   a window, rates, health, and a place in a warm-up plan.
//!
//! One delivery walks through it like this:
//!
//! 1. Before admission [`Scheduler::reserve`] says whether the queue's window has room. *Active*: the delivery goes
//!    to memory, and [`Scheduler::admitted`] follows once it is on disk. *Parked*: it is stored as due at the time that is said,
//!    and [`Scheduler::parked`] follows. A reservation that comes to nothing is given back by [`Scheduler::cancel`].
//! 2. When the window has room and rows wait on disk, [`Effect::Page`] asks for them; [`Scheduler::paged`] brings
//!    them, and says which of them it took. Which queues have rows at all is asked by [`Effect::Horizon`]: at the start, and
//!    whenever what is known comes to its end.
//! 3. [`Effect::Deliver`] starts a delivery on a path: on a new connection, or on an idle one. When the attempt is over,
//!    [`Scheduler::attempted`] says what became of the connection and what the replies tell ([`Report`]). A worker that keeps it
//!    asks [`Scheduler::next_for`] for more. One connection belongs to one path; the deliveries it gets may be of any
//!    domain of the site.
//! 4. [`decide()`] says what the outcomes mean for each recipient. When the settlement is committed, and no sooner,
//!    [`Scheduler::finished`] lets go of the delivery: until then a page could still show its old row, and it
//!    would be delivered twice.
//!
//! Whose turn it is at a site: transactional mail before bulk, which gets one of five turns; then organisations by deficit round
//! robin ([`Item::cost`]); then the organisation's queues one after the other; then age. Ceilings of an organisation or a route
//! take it out of the line until they let it go on. A delivery whose credential is over its ceiling steps aside, or gets a time
//! of its own on disk ([`Effect::PutBack`]). Whatever has to wait for a moment has a timer for that moment, and nothing polls.
//!
//! A path to which no connection can be made is closed: one delivery at growing intervals is the probe that
//! finds out whether it is back. Other sources of the pool take over meanwhile. Where none can, every delivery whose turn comes is
//! answered at once with the last failure ([`Effect::Answer`]). Each counts its attempt, gets its warning and expires as if it
//! had been tried, and a hundred thousand messages for a dead smart host cost one connection per interval, not one each. A path
//! that was only told to slow down rests, and its mail waits.
//!
//! In a cluster the limits of paths, organisations, credentials, routes and warm-up plans hold for all nodes together
//! ([`Scheduler::set_sharing`]). Each node borrows places of them for some seconds: [`Scheduler::wishes`] says what it would like,
//! [`Scheduler::granted`] what it got. What was not lent is not used, and what has run out is closed.
//!
//! At the start: [`Scheduler::new`], [`Scheduler::restore`] with what [`Scheduler::state`] said last, [`Scheduler::tick`].

mod attempt;
mod borrow;
mod ceilings;
mod clock;
mod decide;
mod dispatch;
mod effect;
mod explain;
mod flow;
mod health;
mod horizon;
mod ids;
mod limits;
mod meter;
mod pace;
mod path;
mod place;
mod policy;
mod providers;
mod queue;
mod restore;
mod rules;
mod saved;
mod scheduler;
mod share;
mod signal;
mod site;
mod snapshot;
mod timer;
mod traffic;
mod turns;
mod uses;
mod why;
mod window;

pub use clock::{ClockWatch, Jump, Now};
pub use decide::{Decision, Facts, Fate, decide};
pub use effect::{Effect, Item, Link, Next, Path, Removed, Report, Reservation, Rest};
pub use limits::{Limits, Retry};
pub use policy::{
    Ceiling, DEFAULT_POOL, DomainPattern, Egress, Policy, Pool, Scope, Shape, Source, Suspension, Warmup,
    site_named,
};
pub use providers::{Provider, ProviderView, Providers, ProvidersError, ReplyView};
pub use saved::{SavedCause, SavedClock, SavedPath, SavedState};
pub use scheduler::Scheduler;
pub use share::{Borrowed, Granted, Wish};
pub use signal::{Advice, Judgement, Signal};
pub use snapshot::{PathView, QueueView, SiteView, Snapshot, Totals, WarmupView};
pub use traffic::{Rate, RateError, Traffic};
pub use why::{Owner, Turns, Waits, Why};
