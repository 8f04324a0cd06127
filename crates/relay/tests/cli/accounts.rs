//! Organisations, credentials, keys, domains, routes, smart hosts: the same on a stopped relay and on a running one.

use serde_json::json;

use crate::common::*;

#[test]
fn everything_can_be_set_up_before_the_first_start_and_while_it_runs() {
    let place = Place::new();
    set_up(&place, "stopped");
    let running = place.serve();
    set_up(&place, "running");
    // What was set up before is there.
    let names: Vec<_> = place.run(&["credential", "list", "--json"]).ok().json().as_array().unwrap().clone();
    assert_eq!(
        names.iter().map(|c| c["name"].clone()).collect::<Vec<_>>(),
        ["printer-running", "printer-stopped"]
    );
    running.stop();
    assert!(place.run(&["org", "list"]).ok().out.contains("shop-running"));
}

fn set_up(place: &Place, when: &str) {
    let (org, login) = (format!("shop-{when}"), format!("printer-{when}"));
    place.run(&["org", "add", &org]).ok();
    place.run(&["domain", "add", &format!("{when}.example"), "--org", &org]).ok();
    let made =
        place.run(&["credential", "add", &login, "--org", &org, "--from-domain", &format!("{when}.example")]);
    let made = made.ok();
    let password = made.last_line();
    assert!(password.len() >= 22 && password.bytes().all(|b| b.is_ascii_alphanumeric()), "{made:?}");
    assert!(!made.err.contains(password));
    let key = place.run(&["key", "add", &format!("web-{when}"), "--scope", "read"]).ok();
    assert!(key.last_line().starts_with("ph_"), "{key:?}");
    let shown = place.run(&["--json", "credential", "show", &login]).ok();
    assert_eq!(shown.json()["org"], org);
    assert!(!shown.out.contains(password), "shown once");

    let changed =
        place.run(&["credential", "set", &login, "--any-from-domain", "--network", "192.0.2.0/24", "--json"]);
    let changed = changed.ok().json();
    assert_eq!(changed["credential"]["from_domains"], json!([]));
    assert_eq!(changed["credential"]["networks"], json!(["192.0.2.0/24"]));
    let chosen = place
        .run_with(&["credential", "set", &login, "--password-stdin"], "a chosen one, long enough\n")
        .ok();
    assert!(!chosen.out.contains("a chosen one"), "{chosen:?}");

    place.write("password", "hunter2\n");
    let host = format!("up-{when}");
    place
        .run(&[
            "smarthost",
            "add",
            &host,
            "--host",
            "smtp.example:587",
            "--username",
            "u",
            "--password-file",
            "password",
        ])
        .ok();
    let route = place.run(&[
        "route",
        "add",
        "--domain",
        "*.example.org",
        "--to",
        &format!("smarthost:{host}"),
        "--json",
    ]);
    let id = route.ok().json()["id"].as_str().unwrap().to_owned();
    let routes = place.run(&["route", "list"]).ok();
    assert!(routes.out.lines().nth(1).unwrap().contains("from config"), "{}", routes.out);
    assert!(!place.run(&["smarthost", "list", "--json"]).ok().out.contains("hunter2"));
    place.run(&["route", "remove", "config-1"]).failed(1);
    place.run(&["smarthost", "remove", &host]).failed(1);
    place.run(&["route", "remove", &id]).ok();
    place.run(&["smarthost", "remove", &host]).ok();
    place.run(&["org", "remove", &org]).failed(1);
}

#[test]
fn mistakes_are_told_with_the_right_exit_code() {
    let place = Place::new();
    place.run(&["org", "list"]).ok();
    for (line, code, words) in [
        (vec!["credential", "add"], 2, "required"),
        (vec!["credential", "show", "nobody"], 1, "there is no credential"),
        (vec!["credential", "add", "a b"], 1, "printable ASCII"),
        (vec!["credential", "add", "x", "--org", "nobody"], 1, "there is no organisation"),
        (vec!["queue", "remove"], 2, "--all"),
        (vec!["queue", "list", "--older-than", "soon"], 2, "is no duration"),
        (vec!["queue", "list", "--state", "sent"], 1, "states are"),
        (vec!["queue", "show", "../../etc/passwd"], 1, "not a message id"),
        (vec!["route", "add", "--to", "nowhere"], 1, "is no destination"),
        (vec!["trace", "--since", "yesterday"], 2, "is no time"),
        (vec!["trace", "nobody@example.com"], 1, "nothing is known"),
        (vec!["frobnicate"], 2, "frobnicate"),
    ] {
        let done = place.run(&line).failed(code);
        assert!(done.err.contains(words), "{line:?}: {}", done.err);
        assert!(done.out.is_empty(), "{line:?}: {}", done.out);
    }
    let empty = place.run_with(&["credential", "add", "x", "--password-stdin"], "").failed(2);
    assert!(empty.err.contains("one line"), "{}", empty.err);
}
