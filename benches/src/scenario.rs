//! The scenarios: what load is put on, and in what surroundings.

use std::collections::BTreeMap;

use crate::load::{Generator, Size};

/// What load is put on.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) what: &'static str,
    pub(crate) generator: Generator,
    pub(crate) sessions: usize,
    pub(crate) size: Size,
    /// Messages for Postfix and for Posthouse: enough for some seconds each. None: Postfix does not take part.
    pub(crate) messages: (u64, u64),
    pub(crate) surroundings: Surroundings,
}

/// Where the mail goes, and what is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Surroundings {
    /// One sink for all.
    Plain,
    /// One sink that offers STARTTLS, to both relays alike.
    TlsBeyond,
    /// So many recipient domains, each with a mail exchanger of its own in the DNS: a Knot server, port 25 and a network of
    /// the bench's own.
    Domains(u64),
    /// Of ten messages one goes to a host that takes a second for each, and one to a host that puts everything off.
    Bad,
    /// So many messages wait already, for ten other destinations, none of them due.
    Queued(u64),
}

const PLAIN: Scenario = Scenario {
    name: "",
    what: "",
    generator: Generator::NewConnections,
    sessions: 20,
    size: Size::Of(4096),
    messages: (6_000, 30_000),
    surroundings: Surroundings::Plain,
};

pub(crate) const ALL: [Scenario; 12] = [
    Scenario {
        name: "new-connections",
        what: "4 KiB, 20 sessions, a new connection for each message",
        ..PLAIN
    },
    Scenario {
        name: "reused-connections",
        what: "4 KiB, 20 sessions, connections reused",
        generator: Generator::ReusedConnections,
        messages: (6_000, 40_000),
        ..PLAIN
    },
    Scenario {
        name: "one-client",
        what: "4 KiB, one client alone, a new connection for each message",
        sessions: 1,
        messages: (1_000, 3_000),
        ..PLAIN
    },
    Scenario {
        name: "large",
        what: "100 KiB, 20 sessions, a new connection for each message",
        size: Size::Of(102_400),
        messages: (2_000, 6_000),
        ..PLAIN
    },
    Scenario {
        name: "latency",
        what: "4 KiB, 20 sessions, a new connection for each message, our client",
        generator: Generator::Timed,
        ..PLAIN
    },
    Scenario {
        name: "auth-tls",
        what: "4 KiB, 20 sessions, STARTTLS and AUTH PLAIN on every connection, no resumption, our client",
        generator: Generator::TlsAndAuth,
        messages: (2_000, 8_000),
        ..PLAIN
    },
    Scenario {
        name: "mixed-sizes",
        what: "2 to 100 KiB (28 KiB on average), 20 sessions, a new connection for each message, our client",
        generator: Generator::Timed,
        size: Size::Mixed,
        messages: (3_000, 12_000),
        ..PLAIN
    },
    Scenario {
        name: "tls-both-sides",
        what: "4 KiB, 20 sessions, STARTTLS and AUTH PLAIN on every connection in, STARTTLS to the sink (ours), our client",
        generator: Generator::TlsAndAuth,
        messages: (2_000, 8_000),
        surroundings: Surroundings::TlsBeyond,
        ..PLAIN
    },
    Scenario {
        name: "one-domain",
        what: "4 KiB, 20 sessions, a new connection for each message, our client, one recipient domain by MX",
        generator: Generator::Timed,
        surroundings: Surroundings::Domains(1),
        ..PLAIN
    },
    Scenario {
        name: "thousand-domains",
        what: "the same, 1,000 recipient domains in turn, each with a mail exchanger of its own",
        generator: Generator::Timed,
        surroundings: Surroundings::Domains(1000),
        ..PLAIN
    },
    Scenario {
        name: "bad-neighbours",
        what: "4 KiB, 20 sessions, our client; one in ten goes to a host that takes a second for each, one in ten to one that \
               puts everything off; end to end is what arrives at the good one",
        generator: Generator::Timed,
        messages: (6_000, 20_000),
        surroundings: Surroundings::Bad,
        ..PLAIN
    },
    Scenario {
        name: "million-queued",
        what: "as new-connections, with a million messages of 4 KiB waiting for ten other destinations",
        messages: (0, 30_000),
        surroundings: Surroundings::Queued(1_000_000),
        ..PLAIN
    },
];

/// What was measured in one go. Rates are messages a second.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) accepted: f64,
    pub(crate) end_to_end: f64,
    pub(crate) cpu_us: f64,
    pub(crate) memory_mb: f64,
    pub(crate) megabytes: f64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
    pub(crate) syncs: Option<f64>,
    /// From the start of the program to its banner, where that is asked.
    pub(crate) banner_ms: Option<f64>,
}

/// The medians of a scenario, for each contender.
pub(crate) struct Outcome {
    pub(crate) scenario: &'static Scenario,
    pub(crate) of: BTreeMap<&'static str, Measured>,
    /// The same load straight into the sink, messages a second: what the tools themselves can do here.
    pub(crate) tools: f64,
}

/// All that a run found.
pub(crate) struct Results {
    pub(crate) outcomes: Vec<Outcome>,
    /// MB/s of a plain sequential write with an fdatasync every 4 MB.
    pub(crate) disk: f64,
    pub(crate) rounds: usize,
    pub(crate) quick: bool,
}
