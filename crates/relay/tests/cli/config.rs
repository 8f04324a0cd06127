//! `posthouse config`, and what a wrong configuration does.

use crate::common::*;

#[test]
fn a_wrong_file_is_shown_with_its_place() {
    let place = Place::bare("[queue]\nretyr = [\"1m\"]\n");
    for command in [&["check"][..], &["serve"], &["queue", "list"], &["config", "show"]] {
        let done = place.run(command).failed(1);
        assert!(
            done.err.contains("posthouse.toml:2:1") && done.err.contains("did you mean `retry`?"),
            "{}",
            done.err
        );
    }
    assert!(!place.path("posthouse-data").exists(), "nothing was touched");
}

#[test]
fn what_is_in_force_is_shown_without_secrets() {
    let text = "[smarthost.up]\nhosts = [\"smtp.example:587\"]\nusername = \"u\"\npassword = \"hunter2\"\n";
    let place = Place::bare(text);
    let shown = place.run(&["config", "show"]).ok();
    assert!(shown.out.contains("username = \"u\"") && !shown.out.contains("hunter2"), "{}", shown.out);
    assert!(!place.run(&["config", "show", "--json"]).ok().out.contains("hunter2"));
    let schema = place.run(&["config", "schema"]).ok().json();
    assert!(schema["properties"]["listener"].is_object());
    assert!(place.run(&["config", "reference"]).ok().out.starts_with("# Configuration reference"));
}

#[test]
fn no_file_is_a_relay_on_loopback() {
    let place = Place::bare("");
    let shown = place.run(&["config", "show"]).ok();
    for address in ["127.0.0.1:2525", "127.0.0.1:2587", "127.0.0.1:2465", "127.0.0.1:8080"] {
        assert!(shown.out.contains(address), "{}", shown.out);
    }
}
