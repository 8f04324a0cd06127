//! Why deliveries wait, as a value and in plain words.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use mail::{OrgId, Outcome, Site, SourceName, Timestamp};

use crate::effect::Path;
use crate::traffic::Rate;

/// Why the deliveries of a queue wait, or one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// What they wait for.
    pub waits: Waits,
    /// When that is over, as far as it can be told.
    pub next: Option<Timestamp>,
    /// Deliveries of the queue in memory.
    pub in_memory: usize,
    /// How many the queue may have there at the moment.
    pub window: usize,
    /// Whether more of the queue that is due waits on disk.
    pub backlog: bool,
    /// The turns at the site, where there are others.
    pub turns: Option<Turns>,
}

/// Whose turn it is at a site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turns {
    /// The site.
    pub site: Site,
    /// Organisations that have mail of this stream ready there.
    pub orgs: usize,
    /// How many of them come before this queue's organisation.
    pub before: usize,
    /// The one whose turn is next.
    pub next: Option<OrgId>,
}

/// What deliveries wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    /// Nothing is there that waits.
    Nothing,
    /// They are being delivered, or read from disk to be.
    Working,
    /// For the time of their next attempt.
    Due,
    /// More waits on disk than the window has room for.
    Window,
    /// For DNS to say which site serves the domain.
    Site,
    /// An operator suspended them.
    Suspended {
        /// The suspension's number.
        id: i64,
        /// The operator's words.
        reason: String,
        /// Until when; none: until it is lifted.
        until: Option<Timestamp>,
    },
    /// For a connection: the site has as many as it may.
    Connections {
        /// The path with the most.
        path: Path,
        /// How many it has.
        taken: usize,
        /// How many it may have at the moment.
        window: usize,
        /// How many it may have at best.
        limit: usize,
    },
    /// For a connection: the relay has as many as it may.
    Relay {
        /// How many.
        limit: usize,
    },
    /// The site can't be reached, or has turned us away: tried again at the next time.
    Down {
        /// The path that is tried next.
        path: Path,
        /// What was met last.
        failure: Option<Arc<Outcome>>,
    },
    /// The site told us to slow down: the path rests until the next time.
    Slowed(Path),
    /// The path may have so many messages.
    Rate(Path, Rate),
    /// The path may have so many new connections.
    ConnectionRate(Path, Rate),
    /// The warm-up plan of the source lets so many go to the site today; 0 before its first day.
    Warmup {
        /// The source.
        source: SourceName,
        /// Messages that day.
        limit: u32,
    },
    /// The organisation, the credential or the route has as many deliveries under way as it may.
    Ceiling {
        /// Whose.
        of: Owner,
        /// How many.
        limit: u32,
    },
    /// The organisation, the credential or the route is over its rate.
    OverRate {
        /// Whose.
        of: Owner,
        /// The rate.
        rate: Rate,
    },
    /// For a limit that all nodes share: the others have the rest of it, or the database has not answered.
    Shared {
        /// What is limited, and whose.
        of: Arc<str>,
        /// How much this node has.
        lent: u64,
        /// How much there is for all.
        limit: u64,
    },
    /// For its turn: others are before it.
    Turn,
}

/// Whose ceiling it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The organisation.
    Org,
    /// The credential or key.
    Credential,
    /// The destination.
    Route,
}

impl Owner {
    fn as_str(self) -> &'static str {
        match self {
            Owner::Org => "organisation",
            Owner::Credential => "credential",
            Owner::Route => "route",
        }
    }
}

impl Why {
    /// In plain words, one line.
    pub fn text(&self, now: Timestamp) -> String {
        let mut text = self.waits.text();
        if let Some(next) = self.next.filter(|&at| at > now) {
            let _ = write!(text, "; next at {next} (in {})", rough(next.since(now)));
        }
        if let Some(turns) = self.turns.as_ref().filter(|turns| turns.orgs > 1) {
            let next = turns.next.map_or_else(String::new, |org| format!(", next is organisation {}", org.0));
            let _ = write!(
                text,
                "; {} organisations take turns at {}, {} before this one{next}",
                turns.orgs, turns.site, turns.before
            );
        }
        if self.in_memory > 0 || self.backlog {
            let more = if self.backlog { ", more wait on disk" } else { "" };
            let _ =
                write!(text, "; {} of its queue in memory (at most {}){more}", self.in_memory, self.window);
        }
        text
    }
}

impl Waits {
    fn text(&self) -> String {
        match self {
            Waits::Nothing => "nothing waits".into(),
            Waits::Working => "being delivered".into(),
            Waits::Due => "waits for its next attempt".into(),
            Waits::Window => "due, waits on disk for room in its queue's window".into(),
            Waits::Site => "waits for DNS to name the mail exchangers".into(),
            Waits::Suspended { id, reason, until } => {
                let until = until.map_or_else(|| "until it is resumed".into(), |at| format!("until {at}"));
                format!("suspended by an operator (suspension {id}) {until}: {reason}")
            }
            Waits::Connections { path, taken, window, limit } if window < limit => format!(
                "all {taken} connections from {path} are taken: at most {limit}, at the moment {window}, as the site's answers allow"
            ),
            Waits::Connections { path, taken, limit, .. } => {
                format!("all {taken} connections from {path} are taken (at most {limit})")
            }
            Waits::Relay { limit } => format!("all {limit} connections of the relay are taken"),
            Waits::Down { path, failure } => match failure {
                Some(failure) => format!("no mail from {path} at the moment: {}", failure.text),
                None => format!("a connection from {path} is being tried"),
            },
            Waits::Slowed(path) => format!("{} told us to slow down; {} rests", path.site, path.source),
            Waits::Rate(path, rate) => format!("the rate from {path} is {rate} messages"),
            Waits::ConnectionRate(path, rate) => format!("the rate from {path} is {rate} new connections"),
            Waits::Warmup { source, limit: 0 } => {
                format!("source {source} sends nothing before the first day of its warm-up plan")
            }
            Waits::Warmup { source, limit } => {
                format!(
                    "source {source} has sent the {limit} messages that its warm-up plan allows to this site today"
                )
            }
            Waits::Ceiling { of, limit } => {
                format!("its {} has all of its {limit} deliveries under way", of.as_str())
            }
            Waits::OverRate { of, rate } => format!("its {} is at its rate of {rate}", of.as_str()),
            Waits::Shared { of, lent, limit } => {
                format!("this node has {lent} of the {limit} that all nodes share: {of}")
            }
            Waits::Turn => "ready, waits for its turn".into(),
        }
    }
}

fn rough(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        0 => format!("{} ms", d.as_millis()),
        1..120 => format!("{s} s"),
        120..7200 => format!("{} min", s / 60),
        _ => format!("{} h", s / 3600),
    }
}

#[cfg(test)]
mod tests {
    use mail::default_source;

    use super::*;

    #[test]
    fn plain_words() {
        let now = Timestamp(1_795_503_600_000);
        let path = Path { source: default_source(), site: Site::Provider("gmail".into()) };
        let why = Why {
            waits: Waits::Rate(path, "100/1m".parse().unwrap()),
            next: Some(now.plus(Duration::from_secs(90))),
            in_memory: 7,
            window: 200,
            backlog: true,
            turns: Some(Turns {
                site: Site::Provider("gmail".into()),
                orgs: 3,
                before: 1,
                next: Some(OrgId(4)),
            }),
        };
        assert_eq!(
            why.text(now),
            "the rate from default to provider:gmail is 100/1m messages; next at 2026-11-24T07:01:30.000Z (in 90 s); \
             3 organisations take turns at provider:gmail, 1 before this one, next is organisation 4; 7 of its queue in memory \
             (at most 200), more wait on disk"
        );
    }
}
