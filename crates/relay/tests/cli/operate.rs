//! Queue, trace, explain, reload, backup and restore, on mail that was really sent.

use std::fs;

use crate::common::*;

const MAIL: &str = "From: ann@example.com\nTo: bob@example.org\nSubject: hello\n\nbody\n";

fn send(place: &Place, to: &str) {
    place.run_with(&["sendmail", "-i", "-f", "ann@example.com", to], MAIL).ok();
}

fn ids(place: &Place, filter: &[&str]) -> Vec<String> {
    let line = [&["queue", "list", "--json", "--limit", "0"], filter].concat();
    let all = place.run(&line).ok().json();
    all.as_array().unwrap().iter().map(|d| d["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn mail_is_listed_shown_held_released_rerouted_and_removed() {
    let place = Place::with("route = [{ to = \"smtp://127.0.0.1:1\" }]\n[queue]\nretry = [\"1h\"]\n");
    let running = place.serve();
    for n in 0..3 {
        send(&place, &format!("bob{n}@example.org"));
    }
    let all = ids(&place, &[]);
    assert_eq!(all.len(), 3);
    assert_eq!(ids(&place, &["--to", "bob1@example.org"]), [all[1].clone()]);
    assert_eq!(ids(&place, &["--from", "nobody@example.com"]).len(), 0);
    assert_eq!(ids(&place, &["--older-than", "1h"]).len(), 0);
    let raw = place.run(&["queue", "show", &all[0], "--raw"]).ok().out;
    assert!(raw.starts_with("Received: ") && raw.ends_with("\r\n\r\nbody\r\n"), "{raw}");

    let dry = place.run(&["queue", "remove", "--all", "--dry-run"]).ok();
    assert!(dry.out.starts_with("3 deliveries would be changed"), "{}", dry.out);
    let held = place.run(&["queue", "hold", &all[0], "--why", "odd", "--json"]).ok().json();
    assert_eq!(held["changed"], 1);
    // The hop refuses connections, so an attempt may be under way: held stands.
    assert_eq!(ids(&place, &["--state", "held"]), [all[0].clone()]);
    assert!(place.run(&["queue", "show", &all[0]]).ok().out.contains("odd"));
    // The stopped relay does the same by itself.
    running.stop();
    assert_eq!(place.run(&["queue", "release", "--reason", "odd", "--json"]).ok().json()["changed"], 1);
    assert_eq!(
        place.run(&["queue", "reroute", &all[1], "--via", "discard", "--json"]).ok().json()["changed"],
        1
    );
    assert_eq!(place.run(&["queue", "remove", &all[2], "--json"]).ok().json()["changed"], 1);
    assert_eq!(ids(&place, &[]), all[..2]);
    let trace = place.run(&["trace", &all[2], "--json"]).ok().json();
    assert_eq!(trace[0]["recipients"][0]["end"], "removed", "{trace:#}");
    let steps = trace[0]["steps"].as_array().unwrap();
    assert!(
        steps.iter().any(|s| s["what"] == "removed" && s["by"].as_str().unwrap().contains("uid")),
        "{trace:#}"
    );
    let text = place.run(&["trace", "bob0@example.org"]).ok().out;
    assert!(text.contains("held by") && text.contains("released by"), "{text}");
}

#[test]
fn a_trace_shows_what_was_just_sent() {
    let place = Place::new();
    let _running = place.serve();
    for n in 0..5 {
        let to = format!("bob{n}@example.org");
        send(&place, &to);
        let trace = place.run(&["trace", &to, "--json"]).ok().json();
        assert_eq!(trace[0]["recipients"][0]["end"], "caught", "{trace:#}");
        assert_eq!(trace[0]["protocol"], "sendmail");
    }
}

#[test]
fn explain_says_what_would_happen() {
    let place = Place::with(
        "relay = { local_domains = [\"example.org\"], recipients = \"any\" }\nroute = [{ to = \"sandbox\" }]\n",
    );
    let yes = place
        .run(&["explain", "--from", "a@example.com", "--to", "bob@example.org", "--client", "192.0.2.1"])
        .ok();
    assert!(yes.out.contains("sandbox"), "{}", yes.out);
    let no =
        ["explain", "--from", "a@example.com", "--to", "bob@example.com", "--client", "192.0.2.1", "--json"];
    let no = place.run(&no).failed(1).json();
    assert_eq!(no["recipients"][0]["verdict"]["accepted"], false, "{no:#}");
    assert!(no["recipients"][0]["verdict"]["reply"].as_str().unwrap().starts_with("550 5.7.1"), "{no:#}");
}

#[test]
fn a_reload_takes_what_is_right_and_leaves_what_is_wrong() {
    let place = Place::new();
    place.run(&["reload"]).failed(1);
    let _running = place.serve();
    assert!(place.run(&["reload"]).ok().out.contains("nothing changed"));
    let good = fs::read_to_string(place.path("posthouse.toml")).unwrap();
    place.write("posthouse.toml", &good.replace("to = \"sandbox\"", "to = \"discard\""));
    assert!(place.run(&["reload"]).ok().out.contains("route"), "told what changed");
    place.write("posthouse.toml", "hostnam = 1\n");
    // The command itself reads the file to find the socket; ask for the reload as the system would.
    let socket = place.path("posthouse-data/posthouse.sock");
    let answer = post(&socket, "/api/reload");
    assert!(answer.contains("400") && answer.contains("did you mean `hostname`?"), "{answer}");
    place.write("posthouse.toml", &good);
    send(&place, "bob@example.org");
    // The route that was good last is in force: it is discarded, sooner or later.
    let mut patience = 200;
    while !ids(&place, &[]).is_empty() {
        patience -= 1;
        assert!(patience > 0, "{:#?}", place.run(&["queue", "list"]));
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn post(socket: &std::path::Path, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    write!(stream, "POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn a_backup_of_a_running_relay_comes_back() {
    let place = Place::new();
    let running = place.serve();
    let password = place.run(&["credential", "add", "printer"]).ok();
    send(&place, "bob@example.org");
    place.run(&["backup", "saved"]).ok();
    place.run(&["backup", "saved"]).failed(1);
    send(&place, "late@example.org");
    place.run(&["restore", "saved"]).failed(1);
    running.stop();
    place.run(&["restore", "saved"]).failed(1);
    fs::rename(place.path("posthouse-data"), place.path("broken")).unwrap();
    place.run(&["restore", "saved"]).ok();
    let _running = place.serve();
    assert_eq!(ids(&place, &[]).len(), 1);
    assert!(place.run(&["trace", "bob@example.org"]).ok().out.contains("caught"));
    place.run(&["credential", "show", "printer"]).ok();
    assert!(!password.last_line().is_empty());
    assert!(place.run(&["verify"]).ok().out.contains("all is well"));
    send(&place, "again@example.org");
    assert!(place.run(&["trace", "again@example.org"]).ok().out.contains("caught"));
}

#[test]
fn a_wrong_directory_is_told_and_not_filled() {
    let place = Place::new();
    for command in
        [&["queue", "list"][..], &["trace", "bob@example.org"], &["top"], &["verify"], &["backup", "saved"]]
    {
        let done = place.run(command).failed(1);
        assert!(done.err.contains("--config FILE"), "{command:?}: {}", done.err);
    }
    assert!(!place.path("posthouse-data").exists());
}

#[test]
fn a_second_relay_on_the_same_data_is_refused() {
    let place = Place::new();
    let _running = place.serve();
    let second = place.run(&["serve"]).failed(75);
    assert!(second.err.contains("in use by"), "{}", second.err);
}
