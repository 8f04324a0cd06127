//! The surroundings of a scenario: sinks, a name server, a queue that is long already.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mail::{Clock, Timestamp};
use nix::sched::{CloneFlags, unshare};
use posthouse_tests::fill::{Fill, To};
use posthouse_tests::neighbours::dns::Dns;
use posthouse_tests::neighbours::namespace::own_network;
use posthouse_tests::process;
use posthouse_tests::sink::{self, Act, Stage};
use posthouse_tests::tls::Certificate;
use tempfile::TempDir;

use crate::scenario::Surroundings;
use crate::sink::Sink;

/// Where the mail exchangers of [`Surroundings::Domains`] are, in a network of their own. Public-looking, as relays think
/// little of mail exchangers on loopback.
const EXCHANGER: Ipv4Addr = Ipv4Addr::new(185, 199, 108, 1);
/// The port of the DNS, which Postfix knows no other of.
const DNS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53);
/// Octets of a message that waits already.
const QUEUED_SIZE: usize = 4096;

/// What stands around the contenders for all rounds of a scenario.
pub(crate) struct Place {
    surroundings: Surroundings,
    dir: TempDir,
    /// The name server of a network of its own.
    dns: Option<Dns>,
    /// A slow host and one that puts everything off.
    bad: Option<[sink::Sink; 2]>,
    certificate: Option<Certificate>,
}

/// What a contender has to know of its surroundings.
pub(crate) struct Setup {
    /// Where everything goes that has no other way.
    pub(crate) sink: SocketAddr,
    /// Mail goes by MX, found by asking here.
    pub(crate) dns: Option<SocketAddr>,
    /// Where the mail for `slow.example` and for `busy.example` goes.
    pub(crate) bad: Option<[SocketAddr; 2]>,
    /// STARTTLS is to be used where it is offered.
    pub(crate) tls_beyond: bool,
    /// The data directory, filled before.
    pub(crate) data: Option<PathBuf>,
}

impl Place {
    /// Prepares it: with [`Surroundings::Domains`] this thread is in a network of its own from then on.
    pub(crate) fn make(surroundings: Surroundings, scale: u64) -> Self {
        let dir = TempDir::with_prefix("bench-place-").unwrap();
        let mut place = Self { surroundings, dir, dns: None, bad: None, certificate: None };
        match surroundings {
            Surroundings::Plain => {}
            Surroundings::TlsBeyond => {
                place.certificate = Some(Certificate::make(place.dir.path(), &["sink.test"]));
            }
            Surroundings::Domains(n) => {
                own_network(&[EXCHANGER.into()]);
                place.own_resolver();
                place.dns = Some(Dns::serve_at(DNS, &[("bench.example", &zone(n))]));
            }
            Surroundings::Bad => place.bad = Some([slow(), busy()]),
            Surroundings::Queued(n) => {
                eprintln!("  filling the queue…");
                // Not within the hour, nor so late that the relay would think the clock had been set.
                let due = Timestamp(Clock::system().now().0 + 6 * 3_600_000);
                let fill = Fill { messages: n / scale, size: QUEUED_SIZE, to: To::Domains(10), due };
                fill.run(&place.data());
            }
        }
        place
    }

    /// A sink for one go.
    pub(crate) fn sink(&self) -> Sink {
        match self.surroundings {
            Surroundings::Domains(_) => Sink::on(SocketAddr::new(EXCHANGER.into(), 25)),
            Surroundings::TlsBeyond => Sink::ours(self.certificate.clone().unwrap()),
            _ => Sink::start(),
        }
    }

    pub(crate) fn setup(&self, sink: &Sink) -> Setup {
        Setup {
            sink: sink.addr(),
            dns: self.dns.as_ref().map(Dns::addr),
            bad: self.bad.as_ref().map(|bad| [bad[0].addr(), bad[1].addr()]),
            tls_beyond: self.surroundings == Surroundings::TlsBeyond,
            data: matches!(self.surroundings, Surroundings::Queued(_)).then(|| self.data()),
        }
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// Has this thread and what it starts ask the name server here: a file of their own in the place of `resolv.conf`.
    fn own_resolver(&self) {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace of its own");
        let file = self.dir.path().join("resolv.conf");
        fs::write(&file, format!("nameserver {}\n", DNS.ip())).unwrap();
        let script = format!("mount --make-rprivate / && mount --bind '{}' /etc/resolv.conf", file.display());
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        process::run("mount", command, Duration::from_secs(10));
    }
}

/// `n` domains below bench.example, each with a mail exchanger of its own name, all at one address.
fn zone(n: u64) -> String {
    (0..n).map(|i| format!("d{i} MX 10 mx.d{i}\nmx.d{i} A {EXCHANGER}\n")).collect()
}

/// Takes a second for each message.
fn slow() -> sink::Sink {
    let options = sink::Options { keep_content: false, ..sink::Options::default() };
    sink::Sink::with(options.script(|stage| match stage {
        Stage::Message(_) => Act::Wait(Duration::from_secs(1)),
        _ => Act::Usual,
    }))
}

/// Puts everything off.
fn busy() -> sink::Sink {
    let options = sink::Options { keep_content: false, ..sink::Options::default() };
    sink::Sink::with(options.script(|stage| match stage {
        Stage::Rcpt(_) => sink::reply("450 4.2.1 busy"),
        _ => Act::Usual,
    }))
}
