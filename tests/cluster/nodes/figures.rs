//! What a cluster carries on this machine: figures to print, nothing that is judged. Engines, relays, load and next hop share its
//! processors, so beside each rate stands what every part of it has cost.

mod claims;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use mail::Clock;
use posthouse_tests::neighbours::program;
use posthouse_tests::process::{Daemon, run};
use posthouse_tests::wait::until_listening;

use super::world::{Nodes, Setup, cluster};

/// Octets of each message.
const SIZE: usize = 4096;
/// Connections that bring mail.
const SESSIONS: usize = 64;
/// Messages in one measurement.
const MESSAGES: usize = 30_000;
/// Where the next hop listens that only counts.
const SINK: &str = "10.77.0.1:2526";

#[test]
fn accept_and_deliver() {
    cluster!("smtp-source", "smtp-sink");
    let route = |to: &str| format!("[[route]]\ndomains = [\"{to}\"]\nto = \"smtp://{SINK}\"\n");
    let routes = route("stored.example") + &route("carried.example");
    let mut nodes = Setup::relays(2).with(|builder| builder.toml(&routes).log_file()).start();
    let _sink = smtp_sink();
    nodes.relays[0].relay.cli(&["queue", "suspend", "--domain", "stored.example", "--why", "a measurement"]);
    std::thread::sleep(Duration::from_secs(2));
    for (name, relays) in [("one relay", &[0][..]), ("two relays", &[0, 1])] {
        let warm = MESSAGES / 10;
        load(&nodes, relays, warm, "stored.example");
        let (took, cost) = measured(&nodes, || load(&nodes, relays, MESSAGES, "stored.example"));
        tell(&format!("{name}, accepted, {SESSIONS} sessions"), MESSAGES, took, &cost);
        nodes.relays[0].relay.cli(&["queue", "remove", "--domain", "stored.example"]);
    }
    for (name, relays) in [("two relays", &[0, 1][..]), ("one relay", &[0])] {
        if relays.len() == 1 {
            assert!(nodes.relays[1].relay.stop().success());
        }
        let (took, cost) = measured(&nodes, || {
            load(&nodes, relays, MESSAGES, "carried.example");
            nodes.relays[0].relay.wait_empty(Duration::from_secs(600));
        });
        tell(&format!("{name}, accepted and delivered"), MESSAGES, took, &cost);
    }
}

/// A next hop of Postfix's that throws away what it is given.
fn smtp_sink() -> Daemon {
    let mut sink = Command::new(program("smtp-sink").unwrap());
    sink.args(["-m", "10000", "-u", "postfix", SINK, "1024"]);
    let sink = Daemon::start("smtp-sink", sink);
    until_listening("smtp-sink", SINK.parse().unwrap());
    sink
}

/// Sends so many messages to some of the relays at once, in connections that are kept.
fn load(nodes: &Nodes, relays: &[usize], messages: usize, domain: &str) {
    std::thread::scope(|scope| {
        for n in relays {
            let to = format!("{}:25", nodes.address(*n));
            let (sessions, messages) = (SESSIONS / relays.len(), messages / relays.len());
            let mut source = Command::new(program("smtp-source").unwrap());
            source.args(["-d", "-s", &sessions.to_string(), "-m", &messages.to_string()]);
            source.args(["-l", &SIZE.to_string(), "-f", "sender@client.example"]);
            source.args(["-t", &format!("someone@{domain}"), &to]);
            // The thread is on the network of the one that starts it, and so is what it starts.
            scope.spawn(move || run("smtp-source", source, Duration::from_secs(600)));
        }
    });
}

/// What a part of the cluster has cost.
struct Cost {
    part: String,
    cpu: Duration,
}

fn costs(nodes: &Nodes) -> Vec<Cost> {
    let relays = nodes
        .running()
        .into_iter()
        .map(|n| Cost { part: nodes.name(n).to_owned(), cpu: cpu(nodes.relays[n].relay.pid()) });
    let engines = (0..nodes.patroni.len()).map(|n| Cost {
        part: format!("pg{}", n + 1),
        cpu: nodes.patroni.engine_pids(n).into_iter().map(cpu).sum(),
    });
    relays.chain(engines).collect()
}

fn measured(nodes: &Nodes, work: impl FnOnce()) -> (Duration, Vec<Cost>) {
    let (before, clock) = (costs(nodes), Clock::system());
    work();
    let took = clock.mono().0;
    let after = costs(nodes).into_iter().zip(before);
    (took, after.map(|(a, b)| Cost { part: a.part, cpu: a.cpu.saturating_sub(b.cpu) }).collect())
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
fn tell(what: &str, messages: usize, took: Duration, cost: &[Cost]) {
    let per_message = |cpu: Duration| cpu.as_secs_f64() * 1e6 / messages as f64;
    let parts: Vec<_> = cost.iter().map(|c| format!("{} {:.0}", c.part, per_message(c.cpu))).collect();
    println!(
        "MEASURED {what}: {:.0} messages/s; CPU in µs for each message: {}",
        messages as f64 / took.as_secs_f64(),
        parts.join(", ")
    );
}

/// CPU time of a process so far, and of its children that it has waited for.
fn cpu(pid: i32) -> Duration {
    let stat =
        std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    // pid (comm) state ppid …; utime is the 14th field of all
    let Some((_, fields)) = stat.rsplit_once(") ") else { return Duration::ZERO };
    let ticks: u64 = fields.split(' ').skip(11).take(4).filter_map(|f| f.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 10)
}
