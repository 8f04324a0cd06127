//! How mail leaves, as an operator sets and sees it: sources, pools, rules, suspensions, suppressions, the audit log.

use serde_json::{Value, json};

use crate::common::*;

const MAIL: &str = "From: ann@example.com\nTo: bob@example.org\nSubject: hello\n\nbody\n";

/// Nothing is delivered: the one host refuses connections.
const NOWHERE: &str = "route = [{ to = \"smtp://127.0.0.1:1\" }]\n[queue]\nretry = [\"1h\"]\n";

fn column<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    list.as_array().unwrap().iter().map(|it| it[key].as_str().unwrap_or_default()).collect()
}

/// Asks until it is so; each time takes as long as the command that is run.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    assert!((0..500).any(|_| is_so()), "{what}");
}

#[test]
fn sources_pools_and_rules_are_kept_whether_the_relay_runs_or_not() {
    let place = Place::with(
        "route = [{ to = \"sandbox\" }]\n[source.of-file]\nipv4 = \"127.0.0.9\"\n[[egress]]\ndomains = [\"file.example\"]\n\
         pool = \"default\"\n",
    );
    let fast = ["source", "add", "fast", "--ipv4", "127.0.0.2", "--ehlo", "fast.example.net", "--json"];
    assert_eq!(place.run(&fast).ok().json()["id"], "fast");
    let running = place.serve();
    place.run(&["pool", "add", "news", "--source", "fast=3", "--source", "of-file"]).ok();
    let first = place.run(&["egress", "add", "--pool", "news", "--stream", "bulk", "--json"]).ok().json();
    let id = first["id"].as_str().unwrap();
    place.run(&["egress", "add", "--pool", "default", "--org", "default", "--before", id]).ok();
    place.run(&["shape", "add", "--site", "gmail", "--connections", "5", "--rate", "100/1m"]).ok();
    place.run(&["ceiling", "add", "--org", "default", "--rate", "10000/1h"]).ok();
    place.run(&["tls-policy", "add", "--domain", "partner.example", "--level", "encrypt"]).ok();
    running.stop();

    let egress = place.run(&["egress", "list", "--json"]).ok().json();
    assert_eq!(column(&egress, "kept"), ["config", "directory", "directory"]);
    assert_eq!(column(&egress, "pool"), ["default", "default", "news"]);
    let text = place.run(&["source", "list"]).ok().out;
    assert!(text.contains("of-file") && text.contains("from config") && text.contains("127.0.0.2"), "{text}");
    assert!(place.run(&["pool", "show", "news"]).ok().out.contains("fast=3 of-file=1"));
    assert!(place.run(&["shape", "list"]).ok().out.contains("100/1m"));
    assert!(place.run(&["ceiling", "list"]).ok().out.contains("organisation default"));
    assert!(place.run(&["tls-policy", "list"]).ok().out.contains("encrypt"));
    // What does not fit is told, and changes nothing.
    let refused = place.run(&["source", "remove", "of-file"]).failed(1);
    assert!(refused.err.contains("comes from the config file"), "{}", refused.err);
    let refused = place.run(&["source", "remove", "fast"]).failed(1);
    assert!(refused.err.contains("the pool news names the source fast"), "{}", refused.err);
    let refused = place.run(&["egress", "add", "--pool", "none"]).failed(1);
    assert!(refused.err.contains("there is no pool \"none\""), "{}", refused.err);
    place.run(&["ceiling", "add", "--rate", "1/1s"]).failed(2);
    place.run(&["pool", "set", "news", "--source", "fast"]).ok();
    assert!(place.run(&["pool", "show", "news"]).ok().out.contains("fast=1"));
    let audit = place.run(&["audit", "list", "--what", "pool", "--json"]).ok().json();
    assert_eq!(column(&audit, "action"), ["set", "add"]);
    assert!(place.run(&["audit", "list", "--what", "pool"]).ok().out.contains("sources: "));
}

#[test]
fn explain_tells_pool_source_and_what_bounds_the_mail() {
    let place = Place::with(
        "relay = { networks = [\"127.0.0.0/8\"] }\nroute = [{ to = \"smtp://127.0.0.1:1\" }]\n[source.fast]\n\
         ipv4 = \"127.0.0.2\"\nehlo = \"fast.example.net\"\n[pool.news]\nsources = { fast = 1 }\n[[ceiling]]\n\
         org = \"default\"\nrate = \"10/1s\"\n",
    );
    place.run(&["credential", "add", "news", "--stream", "bulk"]).ok();
    place.run(&["egress", "add", "--pool", "news", "--stream", "bulk"]).ok();
    place.run(&["queue", "suspend", "--source", "fast", "--why", "to be moved"]).ok();
    let ask = ["explain", "--from", "a@example.com", "--to", "b@example.org", "--json"];
    let plain = place.run(&ask).ok().json();
    let who = &plain["recipients"][0];
    assert_eq!(who["pool"], "default (no egress rule matches)");
    assert_eq!(who["site"], "smtp://127.0.0.1:1");
    let bulk = place.run(&[&ask[..], &["--credential", "news"]].concat()).ok().json();
    let who = &bulk["recipients"][0];
    assert!(who["pool"].as_str().unwrap().starts_with("news (egress rule "), "{bulk:#}");
    assert_eq!(who["sources"], json!(["fast: 127.0.0.2, as fast.example.net"]));
    let bounds = who["bounds"].to_string();
    assert!(bounds.contains("ceiling config-1 for organisation default: rate 10/1s"), "{bounds}");
    assert!(bounds.contains("to be moved"), "{bounds}");
    let text = place.run(&[&ask[..5], &["--credential", "news"]].concat()).ok().out;
    assert!(text.contains("    source: fast: 127.0.0.2"), "{text}");
}

#[test]
fn suspended_mail_waits_and_goes_on() {
    let place = Place::with("route = [{ to = \"discard\" }]\n");
    place.run(&["queue", "list"]).failed(1);
    let _running = place.serve();
    place.run(&["queue", "suspend"]).failed(2);
    let made =
        place.run(&["queue", "suspend", "--org", "default", "--until", "2h", "--why", "odd", "--json"]).ok();
    let id = made.json()["id"].as_str().unwrap().to_owned();
    let text = place.run(&["queue", "suspensions"]).ok().out;
    assert!(text.contains("organisation default") && text.contains("odd"), "{text}");
    place.run_with(&["sendmail", "-i", "-f", "ann@example.com", "bob@example.org"], MAIL).ok();
    let queued = place.run(&["queue", "list", "--json"]).ok().json();
    assert_eq!(queued.as_array().unwrap().len(), 1);
    let why = place.run(&["queue", "show", queued[0]["id"].as_str().unwrap()]).ok().out;
    assert!(why.contains("odd"), "{why}");
    place.run(&["queue", "resume", "--org", "acme"]).failed(1);
    let resumed = place.run(&["queue", "resume", "--org", "default"]).ok().out;
    assert!(resumed.contains(&format!("{id} resumed: organisation default")), "{resumed}");
    wait_until("it goes on when it is resumed", || {
        place.run(&["queue", "list", "--json"]).ok().json() == json!([])
    });
    let audit = place.run(&["audit", "list", "--what", "suspension", "--json"]).ok().json();
    assert_eq!(column(&audit, "action"), ["remove", "add"]);
}

#[test]
fn the_queue_is_changed_by_stream_and_site_and_that_is_on_record() {
    let place = Place::with(NOWHERE);
    let running = place.serve();
    for n in 0..3 {
        let to = format!("bob{n}@example.org");
        place.run_with(&["sendmail", "-i", "-f", "ann@example.com", &to], MAIL).ok();
    }
    let shown =
        place.run(&["queue", "list", "--site", "smtp://127.0.0.1:1", "--stream", "transactional", "--json"]);
    let queued = shown.ok().json();
    assert_eq!(queued.as_array().unwrap().len(), 3);
    assert_eq!(place.run(&["queue", "list", "--stream", "bulk", "--json"]).ok().json(), json!([]));
    let hold = [
        "queue",
        "hold",
        "--site",
        "smtp://127.0.0.1:1",
        "--source",
        "default",
        "--why",
        "looking",
        "--json",
    ];
    let dry = place.run(&[&hold[..], &["--dry-run"]].concat()).ok().json();
    assert_eq!((&dry["changed"], &dry["dry_run"]), (&json!(3), &json!(true)));
    assert_eq!(place.run(&hold).ok().json()["changed"], 3);
    let id = queued[0]["id"].as_str().unwrap();
    let detail = place.run(&["queue", "show", id]).ok().out;
    assert!(detail.contains("pool         default (default)"), "{detail}");
    running.stop();
    // A stopped relay does not know who serves a domain, and says so.
    let refused = place.run(&["queue", "list", "--site", "gmail"]).failed(1);
    assert!(refused.err.contains("only while the relay runs"), "{}", refused.err);
    place.run(&["queue", "remove", "--stream", "transactional"]).ok();
    let audit = place.run(&["audit", "list", "--what", "queue", "--json"]).ok().json();
    assert_eq!(column(&audit, "action"), ["remove", "hold"]);
    assert_eq!(audit[1]["name"], "site smtp://127.0.0.1:1, source default");
    assert_eq!(audit[1]["after"]["changed"], 3);
    assert!(place.run(&["audit", "list", "--by", "uid", "--since", "1h"]).ok().out.contains("3 deliveries"));
}

#[test]
fn a_suppressed_recipient_is_refused_with_what_to_do() {
    let place = Place::with("relay = { networks = [\"127.0.0.0/8\"] }\nroute = [{ to = \"sandbox\" }]\n");
    let _running = place.serve();
    place.run(&["suppression", "add", "Bob@Example.org", "--why", "asked for it"]).ok();
    let ask = ["explain", "--from", "a@example.com", "--to", "bob@example.org", "--json"];
    let refused = place.run(&ask).failed(1).json();
    let verdict = &refused["recipients"][0]["verdict"];
    let reply = verdict["reply"].as_str().unwrap();
    assert!(reply.starts_with("550 5.1.1") && reply.contains("asked for it"), "{reply}");
    assert!(reply.contains("posthouse suppression remove bob@example.org --org default"), "{reply}");
    let sent = place.run_with(&["sendmail", "-i", "-f", "a@example.com", "bob@example.org"], MAIL);
    assert!(sent.code != 0 && sent.err.contains("asked for it"), "{sent:#?}");
    let listed = place.run(&["suppression", "list", "bob", "--json"]).ok().json();
    assert_eq!(column(&listed, "address"), ["bob@example.org"]);
    assert!(place.run(&["suppression", "show", "bob@example.org"]).ok().out.contains("manual"));
    place.run(&["suppression", "remove", "bob@example.org", "--org", "default"]).ok();
    place.run(&ask).ok();
    place.run(&["suppression", "remove", "bob@example.org"]).failed(1);
}

#[test]
fn aliases_are_known_by_their_address() {
    let place = Place::with("relay = { networks = [\"127.0.0.0/8\"] }\nroute = [{ to = \"sandbox\" }]\n");
    place
        .run(&["alias", "add", "sales@example.net", "--to", "ann@example.net", "--to", "bob@example.org"])
        .ok();
    place.run(&["alias", "add", "@old.example", "--to", "@new.example"]).ok();
    let refused = place.run(&["alias", "add", "Sales@example.net", "--to", "x@example.net"]).failed(1);
    assert!(refused.err.contains("already"), "{}", refused.err);
    place.run(&["alias", "set", "sales@example.net", "--to", "carl@example.net"]).ok();
    let shown = place.run(&["alias", "show", "sales@example.net", "--json"]).ok().json();
    assert_eq!(shown["to"], json!(["carl@example.net"]));
    place.run(&["alias", "remove", "@old.example"]).ok();
    assert_eq!(place.run(&["alias", "list", "--json"]).ok().json().as_array().unwrap().len(), 1);
    place
        .run(&[
            "rewrite",
            "add",
            r"^(.+)@old\.example$",
            "$1@new.example",
            "--of",
            "recipient",
            "--of",
            "sender",
        ])
        .ok();
    let rewrites = place.run(&["rewrite", "list", "--json"]).ok().json();
    assert_eq!(rewrites[0]["of"], json!(["recipient", "sender"]));
    let ask = [
        "explain",
        "--from",
        "a@example.com",
        "--to",
        "sales@example.net",
        "--client",
        "127.0.0.1",
        "--json",
    ];
    let said = place.run(&ask).ok().json();
    assert_eq!(said["recipients"][0]["becomes"], json!(["carl@example.net"]));
}

#[test]
fn providers_and_paths_are_shown() {
    let place = Place::with(NOWHERE);
    let providers = place.run(&["provider", "list", "--json"]).ok().json();
    assert!(column(&providers, "name").contains(&"gmail"), "{providers:#}");
    let one = place.run(&["provider", "show", "gmail"]).ok().out;
    assert!(one.contains("where the values come from"), "{one}");
    place.run(&["provider", "show", "none"]).failed(1);
    let running = place.serve();
    place.run_with(&["sendmail", "-i", "-f", "ann@example.com", "bob@example.org"], MAIL).ok();
    wait_until("the path is known, and that nobody answers", || {
        let paths = place.run(&["queue", "sites", "--json"]).ok().json();
        let path = paths.as_array().unwrap().iter().find(|p| p["site"] == "smtp://127.0.0.1:1").cloned();
        path.is_some_and(|p| p["health"] != "ok" && p["source"] == "default")
    });
    running.stop();
    let stopped = place.run(&["queue", "sites"]).failed(1);
    assert!(stopped.err.contains("run"), "{}", stopped.err);
}

#[test]
fn a_smart_host_is_shown_with_logins_and_weights() {
    let place = Place::with("route = [{ to = \"sandbox\" }]\n");
    place.write("brand.password", "hunter2\n");
    let login = format!(
        "username=brand senders=*@brand.example password_file={}",
        place.path("brand.password").display()
    );
    let add = [
        "smarthost",
        "add",
        "up",
        "--host",
        "a.example:587=3",
        "--host",
        "b.example:587",
        "--order",
        "weighted",
    ];
    place.run(&[&add[..], &["--login", &login]].concat()).ok();
    let shown = place.run(&["smarthost", "show", "up"]).ok().out;
    assert!(shown.contains("a.example:587=3 b.example:587=1"), "{shown}");
    assert!(shown.contains("login brand for mail from brand.example to anyone"), "{shown}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let shown = place.run(&["smarthost", "show", "up", "--json"]).ok().json();
    assert_eq!((&shown["order"], &shown["weights"]), (&json!("weighted"), &json!([3, 1])));
    let login = "username=brand senders=*@brand.example oauth_token_url=https://login.example/token oauth_client_id=id \
                 oauth_refresh_token_file=/var/lib/brand.token oauth_scope=mail";
    place.run(&["smarthost", "add", "tokens", "--host", "a.example:587", "--login", login]).ok();
    let shown = place.run(&["smarthost", "show", "tokens"]).ok().out;
    let words =
        "login brand for mail from brand.example to anyone, access tokens from https://login.example/token";
    assert!(shown.contains(words), "{shown}");
    let wrong = "username=brand oauth_token=x";
    place.run(&["smarthost", "add", "x", "--host", "a.example:587", "--login", wrong]).failed(2);
    place.run(&["smarthost", "add", "x", "--host", "a.example:587", "--login", "username=x"]).failed(1);
    place.run(&["smarthost", "add", "x", "--host", "a.example:587", "--login", "user=x"]).failed(2);
}
