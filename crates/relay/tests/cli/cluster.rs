//! `posthouse cluster` and `check` on a real PostgreSQL: beside a relay that does not run, and at one that does.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use cluster::{Beats, Ended, Member, NodeConfig, Takeover, Token};
use mail::Clock;
use postgres::test::Server;
use postgres::{Config, Pool};
use serde_json::Value;

use crate::common::*;

/// Where a node of this name keeps its mail in this database.
fn node(database: &Config, name: &str, more: &str) -> Place {
    Place::with(&format!(
        "route = [{{ to = \"sandbox\" }}]\nstore = {{ engine = \"postgres\", url = \"{}\", durability = \"provider\", connections = 4 }}\n\
         cluster = {{ node = \"{name}\", address = \"{name}.example:8080\" }}\n{more}",
        database.url
    ))
}

fn of<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["nodes"].as_array().unwrap().iter().find(|n| n["name"] == name).unwrap_or(&Value::Null)
}

fn status(place: &Place) -> Value {
    place.run(&["cluster", "status", "--json"]).ok().json()
}

/// Asks until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let clock = Clock::system();
    let begun = clock.mono();
    while !is_so() {
        assert!(clock.mono().since(begun) < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

struct Nothing;

impl Takeover for Nothing {
    async fn take_over(&self, _: Token) -> Result<(), String> {
        Ok(())
    }
}

/// A node without a relay: it only beats.
struct Bare {
    runtime: tokio::runtime::Runtime,
    member: Member,
    beats: tokio::task::JoinHandle<Ended>,
}

impl Bare {
    fn join(database: &Config, name: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (member, beats): (Member, Beats) = runtime.block_on(async {
            let pool = Pool::connect(database.clone()).await.unwrap();
            let config = NodeConfig { name: name.into(), address: "there:1".into(), version: "0.0.1".into() };
            Member::join(&pool, config, Clock::system()).await.unwrap()
        });
        let beats = runtime.spawn(beats.run(Nothing));
        Self { runtime, member, beats }
    }

    fn leave(self) {
        self.runtime.block_on(async {
            self.member.leave().await.unwrap();
            self.beats.await.unwrap();
        });
    }
}

#[test]
fn a_relay_alone_says_that_there_is_no_cluster() {
    let place = Place::new();
    let words = "there is no cluster: this relay keeps its queue in data_dir";
    for arguments in
        [&["status"][..], &["drain"], &["resume", "a"], &["remove", "a"], &["drain", "--wait", "1s"]]
    {
        let stopped = place.run(&[&["cluster"], arguments].concat()).failed(1);
        assert!(stopped.err.contains(words), "{stopped:?}");
    }
    assert!(!place.path("posthouse-data").exists());
    let running = place.serve();
    let done = place.run(&["cluster", "status"]).failed(1);
    assert!(done.err.contains(words), "{done:?}");
    running.stop();
}

#[test]
fn nodes_are_seen_drained_and_removed_beside_a_relay_that_does_not_run() {
    let database = Server::shared().database();
    let place = node(&database, "here", "");
    // Nothing is made by looking.
    let empty = place.run(&["cluster", "status"]).ok().out;
    assert!(empty.contains("no node has joined yet") && empty.contains("database: PostgreSQL"), "{empty}");
    let bare = Bare::join(&database, "other one");
    let up = status(&place);
    let other = of(&up, "other one");
    assert_eq!(
        (&other["state"], &other["version"], &other["address"]),
        (&"up".into(), &"0.0.1".into(), &"there:1".into())
    );
    assert_eq!((&up["node"], &up["database"]["durability"]), (&"here".into(), &"provider".into()));

    let drained = place.run(&["cluster", "drain", "other one", "--wait", "20s"]).ok();
    assert_eq!(drained.out, "other one is drained: it has nothing in hand\n");
    assert!(bare.member.lease().is_draining(), "`--wait` waits for its next beat");
    assert_eq!(of(&status(&place), "other one")["state"], "draining");
    let refused = place.run(&["cluster", "remove", "other one"]).failed(1);
    assert!(refused.err.contains("is up: stop it first"), "{refused:?}");
    place.run(&["cluster", "resume", "other one"]).ok();
    until("it takes up its work again", || !bare.member.lease().is_draining());
    let missing = place.run(&["cluster", "drain", "nobody"]).failed(1);
    assert!(missing.err.contains("there is no node \"nobody\""), "{missing:?}");

    bare.leave();
    let gone = status(&place);
    assert_eq!(
        (&of(&gone, "other one")["state"], &of(&gone, "other one")["owed"]),
        (&"left".into(), &true.into())
    );
    let down = place.run(&["cluster", "drain", "other one"]).failed(1);
    assert!(down.err.contains("is not up"), "{down:?}");
    let owed = place.run(&["cluster", "remove", "other one"]).failed(1);
    assert!(owed.err.contains("has not been given back yet"), "{owed:?}");
    // Another node sees to that.
    let heir = Bare::join(&database, "heir");
    until("what it left is given back", || of(&status(&place), "other one")["owed"] == false);
    place.run(&["cluster", "remove", "other one"]).ok();
    assert_eq!(*of(&status(&place), "other one"), Value::Null);
    heir.leave();
    // All of it is on record, with where it was done.
    let record = place.run(&["audit", "list", "--what", "node", "--json"]).ok().json();
    let record: Vec<_> =
        record.as_array().unwrap().iter().map(|e| (e["action"].clone(), e["by"].clone())).collect();
    let actions: Vec<_> = record.iter().map(|(action, _)| action.as_str().unwrap()).collect();
    assert_eq!(actions, ["remove", "resume", "drain"]);
    assert!(record.iter().all(|(_, by)| by.as_str().unwrap().ends_with(" at here")), "{record:?}");
}

/// Has the node serve HTTP at a port that nobody had a moment ago.
fn listen(place: &Place) -> SocketAddr {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let text = std::fs::read_to_string(place.path("posthouse.toml")).unwrap();
    place.write("posthouse.toml", &text.replace("listen = []", &format!("listen = [\"{address}\"]")));
    address
}

/// Asks over HTTP: the status line and the body.
fn http(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// The value of a metric, by its name and labels as they are written.
fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
}

#[test]
fn a_running_node_answers_for_all_and_obeys() {
    let database = Server::shared().database();
    let place = node(&database, "one", "");
    let address = listen(&place);
    let running = place.serve();
    let bare = Bare::join(&database, "two");
    until("it sees itself and the other", || {
        let now = status(&place);
        of(&now, "one")["state"] == "up" && of(&now, "two")["state"] == "up"
    });
    until("somebody keeps house", || {
        let role = status(&place)["roles"][0].clone();
        role["role"] == "housekeeping" && role["node"] == "one"
    });
    // Its name stands on record, and without a name this node is meant.
    place.run(&["org", "add", "acme"]).ok();
    place.run(&["cluster", "drain", "--wait", "20s"]).ok();
    let top = place.run(&["top", "--json"]).ok().json();
    assert!(top["status"]["not_ready"].as_str().unwrap().contains("this node drains"), "{top}");
    let ready = http(address, "/readyz");
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("this node drains"), "{ready}");
    let text = http(address, "/metrics");
    assert_eq!(metric(&text, "posthouse_cluster_draining"), 1.0);
    assert_eq!(metric(&text, "posthouse_cluster_nodes{state=\"draining\"}"), 1.0);
    assert_eq!(metric(&text, "posthouse_cluster_nodes{state=\"up\"}"), 1.0);
    assert!(metric(&text, "posthouse_cluster_lease_age_seconds") < 6.0);
    assert!(metric(&text, "posthouse_cluster_epoch") >= 1.0);
    assert!(metric(&text, "posthouse_postgres_commits") > 0.0, "its own name was noted, and an organisation");
    assert_eq!(metric(&text, "posthouse_postgres_unknown_commits"), 0.0);
    let commits = metric(&text, "posthouse_postgres_commit_seconds_count");
    assert_eq!(metric(&text, "posthouse_postgres_commit_seconds_bucket{le=\"+Inf\"}"), commits);
    place.run(&["cluster", "resume"]).ok();
    until("it accepts mail again", || {
        place.run(&["top", "--json"]).ok().json()["status"]["not_ready"].is_null()
    });
    let record = place.run(&["audit", "list", "--json"]).ok().json();
    let by = record.as_array().unwrap().iter().map(|e| e["by"].as_str().unwrap().to_owned());
    assert!(by.filter(|by| by.ends_with(" at one")).count() >= 3, "{record}");
    // What is kept in PostgreSQL is neither backed up nor restored here.
    let backup = place.run(&["backup", "elsewhere"]).failed(1);
    assert!(backup.err.contains("pg_basebackup"), "{backup:?}");
    let restore = place.run(&["restore", "elsewhere"]).failed(1);
    assert!(restore.err.contains("this is a node of a cluster"), "{restore:?}");
    bare.leave();
    running.stop();
    assert_eq!(of(&status(&place), "one")["state"], "left");
}

/// On a server of its own, which goes and comes back.
#[test]
fn a_node_without_its_database_says_so_and_recovers_by_itself() {
    let server = Server::start(&[]);
    let place = node(&server.database(), "one", "");
    let address = listen(&place);
    let running = place.serve();
    until("it is ready", || http(address, "/readyz").starts_with("HTTP/1.1 200"));
    server.down();
    until("its last beat is too old", || {
        let ready = http(address, "/readyz");
        ready.starts_with("HTTP/1.1 503")
            && ready.contains("the database has not taken a beat of this node for ")
    });
    assert!(metric(&http(address, "/metrics"), "posthouse_cluster_lease_age_seconds") >= 6.0);
    // Temporary: the same command may succeed later.
    let asked = place.run(&["cluster", "status"]).failed(75);
    assert!(!asked.err.is_empty(), "{asked:?}");
    server.up();
    until("it is ready again", || http(address, "/readyz").starts_with("HTTP/1.1 200"));
    assert_eq!(of(&status(&place), "one")["state"], "up");
    running.stop();
}

fn findings(done: &Done, about: &str) -> Vec<(String, String)> {
    let all: Vec<Value> = done.json().as_array().unwrap().clone();
    let words = |f: &Value| (f["level"].as_str().unwrap().to_owned(), f["text"].as_str().unwrap().to_owned());
    all.iter().filter(|f| f["about"] == about).map(words).collect()
}

fn has(found: &[(String, String)], level: &str, words: &str) {
    assert!(found.iter().any(|(l, text)| l == level && text.contains(words)), "{level} {words}: {found:#?}");
}

#[test]
fn check_says_what_is_unsafe_about_the_database() {
    let database = Server::shared().database();
    let place = node(&database, "here", "");
    let good = place.run(&["check", "--offline", "--json"]).ok();
    has(&findings(&good, "database"), "ok", "takes writes; that commits are kept is the provider's word");
    has(&findings(&good, "database"), "ok", "a round trip takes");
    has(&findings(&good, "cluster"), "ok", "this is node \"here\"; 0 others are up");
    // A check makes nothing.
    let made = Server::shared().sql_in(
        database.url.rsplit('/').next().unwrap(),
        "SELECT count(*) FROM pg_namespace WHERE nspname IN ('directory', 'store', 'cluster')",
    );
    assert_eq!(made.trim(), "0");
    // It is the same server without a standby for commits to wait for.
    let checked = std::fs::read_to_string(place.path("posthouse.toml")).unwrap();
    place.write("posthouse.toml", &checked.replace("\"provider\"", "\"checked\""));
    let bad = place.run(&["check", "--offline", "--json"]).failed(1);
    has(
        &findings(&bad, "database"),
        "fail",
        "synchronous_standby_names is \"\"; commits wait for no standby",
    );
    // Somebody has our name.
    place.write("posthouse.toml", &checked);
    let bare = Bare::join(&database, "here");
    let taken = place.run(&["check", "--offline", "--json"]).failed(1);
    has(&findings(&taken, "cluster"), "fail", "a node named \"here\" is up already, at there:1");
    bare.leave();
    // Nobody there, and a login that is not let in.
    place.write(
        "posthouse.toml",
        &checked.replace(&database.url, "postgres://posthouse@127.0.0.1:1/posthouse"),
    );
    let none = place.run(&["check", "--offline", "--json"]).failed(1);
    has(&findings(&none, "database"), "fail", "no connection to PostgreSQL");
    let missing = format!("{}_missing", database.url);
    place.write("posthouse.toml", &checked.replace(&database.url, &missing));
    let refused = place.run(&["check", "--offline", "--json"]).failed(1);
    has(&findings(&refused, "database"), "fail", "PostgreSQL refuses the login");
}
