//! `queue suspend` and `queue resume` with `--dry-run` and by destination, and what the audit log says of every change.

use serde_json::{Value, json};

use crate::common::*;

const MAIL: &str = "From: ann@example.com\nTo: bob@example.org\nSubject: hello\n\nbody\n";

/// Mail waits: the hosts that routes lead to refuse connections.
const ROUTES: &str = "route = [\n\
    { domains = [\"partner.example\"], to = \"smarthost:up\" },\n\
    { to = \"smtp://127.0.0.1:1\" },\n]\n\
    [smarthost.up]\nhosts = [\"127.0.0.1:1\"]\ntls = \"none\"\n[queue]\nretry = [\"1h\"]\n";

fn send(place: &Place, to: &str) {
    place.run_with(&["sendmail", "-i", "-f", "ann@example.com", to], MAIL).ok();
}

fn suspensions(place: &Place) -> usize {
    place.run(&["queue", "suspensions", "--json"]).ok().json().as_array().unwrap().len()
}

#[test]
fn a_dry_run_of_suspend_says_how_much_and_changes_nothing() {
    let place = Place::with(ROUTES);
    let _running = place.serve();
    send(&place, "a@partner.example");
    send(&place, "b@partner.example");
    send(&place, "c@example.org");
    let dry = |filter: &[&str]| {
        let done = place.run(&[&["queue", "suspend", "--dry-run"], filter].concat()).ok();
        (done.out.trim().to_owned(), done.err)
    };
    let (said, note) = dry(&["--destination", "smarthost:up"]);
    assert_eq!((said.as_str(), note.as_str()), ("2 deliveries in 1 queue would be suspended", ""));
    assert_eq!(dry(&["--destination", "smtp://127.0.0.1:1"]).0, "1 delivery in 1 queue would be suspended");
    assert_eq!(dry(&["--all"]).0, "3 deliveries in 2 queues would be suspended");
    assert_eq!(dry(&["--stream", "bulk"]).0, "0 deliveries in 0 queues would be suspended");
    // A domain is its mail exchangers; where a route takes its mail, that is told with what to write instead.
    let (said, note) = dry(&["--domain", "partner.example"]);
    assert_eq!(said, "0 deliveries in 0 queues would be suspended");
    assert!(
        note.contains("mail for partner.example that a route sends elsewhere is not concerned"),
        "{note}"
    );
    assert!(note.contains("--destination smarthost:up") && !note.contains("127.0.0.1:1"), "{note}");
    // A source that is not the only one: its mail goes on by the other.
    place.run(&["source", "add", "second", "--ipv4", "127.0.0.1"]).ok();
    assert_eq!(dry(&["--source", "default"]).0, "3 deliveries in 2 queues would be suspended");
    place.run(&["pool", "add", "default", "--source", "default", "--source", "second"]).ok();
    let (said, note) = dry(&["--source", "default"]);
    assert_eq!(said, "0 deliveries in 0 queues would be suspended");
    assert!(note.contains("3 deliveries may leave by another source"), "{note}");
    let json = place.run(&["queue", "suspend", "--all", "--dry-run", "--json"]).ok().json();
    assert_eq!(json, json!({ "reach": { "queues": 2, "deliveries": 3, "dry_run": true } }));
    // What could not be done is told, too.
    let refused = place.run(&["queue", "suspend", "--destination", "smarthost:none", "--dry-run"]).failed(1);
    assert!(refused.err.contains("there is no smart host \"none\""), "{}", refused.err);
    place.run(&["queue", "suspend", "--dry-run"]).failed(2);
    place
        .run(&["queue", "suspend", "--domain", "a.example", "--destination", "smarthost:up", "--dry-run"])
        .failed(2);
    assert_eq!(suspensions(&place), 0);
    assert_eq!(place.run(&["audit", "list", "--what", "suspension", "--json"]).ok().json(), json!([]));
}

#[test]
fn a_destination_is_suspended_and_a_dry_run_of_resume_says_what_would_go_on() {
    let place = Place::with(ROUTES);
    let running = place.serve();
    place.run(&["queue", "suspend", "--destination", "smarthost:up", "--why", "they asked for it"]).ok();
    send(&place, "a@partner.example");
    send(&place, "c@example.org");
    let waiting = place.run(&["queue", "list", "--json", "--destination", "smarthost:up"]).ok().json();
    let shown = place.run(&["queue", "show", waiting[0]["id"].as_str().unwrap()]).ok().out;
    assert!(shown.contains("they asked for it"), "{shown}");
    let said = place.run(&["queue", "suspend", "--all"]).ok();
    assert!(said.err.contains("it stops 2 deliveries in 2 queues now"), "{}", said.err);

    let dry = place.run(&["queue", "resume", "--destination", "smarthost:up", "--dry-run"]).ok();
    assert!(dry.out.contains(" would be resumed: destination smarthost:up\n"), "{}", dry.out);
    assert!(dry.out.ends_with("0 deliveries in 0 queues would go on\n"), "{}", dry.out);
    assert!(dry.err.contains("1 delivery stays suspended by another one"), "{}", dry.err);
    let dry = place.run(&["queue", "resume", "--all", "--dry-run", "--json"]).ok().json();
    assert_eq!(dry["reach"], json!({ "queues": 2, "deliveries": 2, "still_suspended": 0 }));
    let scopes: Vec<&Value> =
        dry["suspensions"].as_array().unwrap().iter().map(|s| &s["destination"]).collect();
    assert_eq!(scopes, [&json!("smarthost:up"), &Value::Null]);
    place.run(&["queue", "resume", "--destination", "smarthost:down", "--dry-run"]).failed(1);
    place.run(&["queue", "resume", "9999", "--dry-run"]).failed(1);
    assert_eq!(suspensions(&place), 2);
    running.stop();
    // The same on a stopped relay, whose deliveries all wait on disk.
    let dry = place.run(&["queue", "resume", "--all", "--dry-run", "--json"]).ok().json();
    assert_eq!(dry["reach"]["deliveries"], 2);
    place.run(&["queue", "resume", "--destination", "smarthost:up"]).ok();
    assert_eq!(suspensions(&place), 1);
    let dry = place.run(&["queue", "resume", "--all", "--dry-run"]).ok();
    assert!(dry.out.ends_with("2 deliveries in 2 queues would go on\n"), "{}", dry.out);
}

#[test]
fn mail_to_a_destination_leaves_by_the_pool_of_its_egress_rule() {
    let place = Place::with(&format!(
        "relay = {{ networks = [\"127.0.0.0/8\"] }}\n{ROUTES}[source.fast]\nipv4 = \"127.0.0.2\"\n\
         [pool.routed]\nsources = {{ fast = 1 }}\n[[egress]]\ndestinations = [\"smarthost:up\"]\npool = \"routed\"\n"
    ));
    let pool = |to: &str| {
        let said = place.run(&["explain", "--from", "a@example.com", "--to", to, "--json"]).ok().json();
        said["recipients"][0]["pool"].as_str().unwrap().to_owned()
    };
    assert_eq!(pool("b@partner.example"), "routed (egress rule config-1)");
    assert_eq!(pool("b@example.org"), "default (no egress rule matches)");
    let add = ["egress", "add", "--pool", "routed", "--destination", "smtp://127.0.0.1:1"];
    place.run(&add).ok();
    assert!(pool("b@example.org").starts_with("routed (egress rule "));
    let listed = place.run(&["egress", "list"]).ok().out;
    assert!(listed.contains("smarthost:up") && listed.contains("smtp://127.0.0.1:1"), "{listed}");
    place.run(&["egress", "add", "--pool", "routed", "--destination", "smarthost:none"]).failed(1);
    place.run(&["egress", "add", "--pool", "routed", "--destination", "mx:example.org"]).failed(1);
    // The driver goes by it as well: the connection comes from there.
    let _running = place.serve();
    send(&place, "b@partner.example");
    let id = place.run(&["queue", "list", "--json"]).ok().json()[0]["id"].as_str().unwrap().to_owned();
    let shown = place.run(&["queue", "show", &id]).ok().out;
    assert!(shown.contains("pool         routed (fast)"), "{shown}");
}

/// One of each kind of thing, added, changed and removed.
const CHANGES: &[&[&str]] = &[
    &["org", "add", "acme"],
    &["org", "set", "acme", "--state", "suspended"],
    &["domain", "add", "acme.example", "--org", "acme"],
    &["domain", "remove", "acme.example"],
    &["credential", "add", "printer", "--org", "acme"],
    &["credential", "set", "printer", "--new-password"],
    &["credential", "set", "printer", "--network", "192.0.2.0/24"],
    &["credential", "remove", "printer"],
    &["key", "add", "web"],
    &["key", "set", "web", "--enabled", "false"],
    &["key", "remove", "web"],
    &["smarthost", "add", "up", "--host", "a.example:587", "--username", "u", "--password-file", "secret"],
    &["smarthost", "set", "up", "--host", "a.example:587", "--username", "u", "--password-file", "other"],
    &["route", "add", "--domain", "b.example", "--to", "smarthost:up"],
    &["source", "add", "fast", "--ipv4", "192.0.2.1"],
    &["source", "add", "plain"],
    &["source", "set", "fast", "--ipv4", "192.0.2.2"],
    &["pool", "add", "news", "--source", "fast=3"],
    &["egress", "add", "--pool", "news", "--destination", "smarthost:up"],
    &["shape", "add", "--site", "gmail", "--connections", "5"],
    &["ceiling", "add", "--org", "acme", "--rate", "10/1h"],
    &["tls-policy", "add", "--domain", "c.example", "--level", "encrypt"],
    &["alias", "add", "sales@acme.example", "--to", "ann@acme.example"],
    &["alias", "remove", "sales@acme.example"],
    &["rewrite", "add", "^x@y$", "z@y.example", "--of", "recipient"],
    &["queue", "suspend", "--org", "acme", "--until", "2100-01-01T00:00:00Z", "--why", "a stolen password"],
    &["queue", "resume", "--org", "acme"],
    &["suppression", "add", "bob@example.org", "--why", "asked for it"],
    &["suppression", "remove", "bob@example.org"],
];

#[test]
fn every_change_says_something_useful_in_the_audit_log() {
    let place = Place::with("route = [{ to = \"sandbox\" }]\n");
    place.write("secret", "hunter2\n");
    place.write("other", "hunter3\n");
    let running = place.serve();
    for change in CHANGES {
        place.run(change).ok();
    }
    for who in ["a@example.org", "b@example.org"] {
        send(&place, who);
    }
    place.run(&["queue", "reroute", "--to", "a@example.org", "--via", "discard"]).ok();
    place.run(&["queue", "remove", "--to", "b@example.org"]).ok();
    running.stop();
    let text = place.run(&["audit", "list"]).ok().out;
    let head = text.lines().next().unwrap();
    let detail = head.find("DETAIL").unwrap();
    let lines: Vec<(&str, &str)> =
        text.lines().skip(1).map(|line| (line, &line[detail.min(line.len())..])).collect();
    assert_eq!(lines.len(), CHANGES.len() + 2, "{text}");
    for (line, said) in &lines {
        assert!(said.len() > 3 && !said.contains("said as it was"), "{line:?} says {said:?}\n{text}");
    }
    assert!(!text.contains("hunter"), "{text}");
    for words in [
        "organisation acme, until 2100-01-01T00:00:00.000Z: a stolen password",
        "state: active → suspended",
        "org: acme",
        "replaced: password",
        "networks: - → 192.0.2.0/24",
        "enabled: true → false",
        "replaced: secrets",
        "domains: b.example, to: smarthost:up",
        "ipv4: 192.0.2.1 → 192.0.2.2",
        "all as by default",
        "sources: fast=3",
        "destinations: smarthost:up, pool: news",
        "org: default, class: recipient, reason: asked for it, source: manual",
        "1 delivery to discard",
    ] {
        assert!(lines.iter().any(|(_, said)| said.contains(words)), "{words}:\n{text}");
    }
    // When it is lifted, the record still says what was lifted.
    let json = place.run(&["audit", "list", "--what", "suspension", "--json"]).ok().json();
    assert_eq!(json[0]["before"]["reason"], "a stolen password");
}
