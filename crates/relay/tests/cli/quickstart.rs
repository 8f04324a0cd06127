//! `posthouse quickstart`: each line that it prints works as it is, and nothing leaves the machine.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Command, Stdio};

use crate::common::*;

#[test]
fn what_it_prints_works_and_is_caught() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    // A route of the file is left out: it could lead out of the machine.
    let place = Place::bare(&format!(
        "hostname = \"relay.example.net\"\napi = {{ listen = [] }}\nroute = [{{ to = \"discard\" }}]\n\
         listener = [{{ mode = \"submission\", address = [\"127.0.0.1:{port}\"] }}]\n"
    ));
    let mut child = Command::new(env!("CARGO_BIN_EXE_posthouse"))
        .args(["quickstart", "--config", "posthouse.toml"])
        .current_dir(place.dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
    let told: Vec<String> = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .take_while(|line| !line.starts_with("Stop it"))
        .collect();
    let _running = Running::of(child);
    assert!(log.by_ref().map(Result::unwrap).any(|line| line.contains(" ready ")), "it starts");
    std::thread::spawn(move || log.for_each(drop));

    let shell = |line: &str| {
        let done = Command::new("sh").args(["-c", line]).current_dir(place.dir.path()).output().unwrap();
        assert!(done.status.success(), "{line}\n{done:#?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let mut sent = 0;
    for program in ["swaks ", "printf ", "python3 "] {
        let line = told.iter().map(|l| l.trim()).find(|l| l.starts_with(program)).unwrap();
        shell(line);
        sent += 1;
        let list = place.run(&["queue", "list", "--json"]).ok().json();
        assert_eq!(list.as_array().unwrap().len(), sent, "{line}");
        assert_eq!(list[sent - 1]["state"], "sandboxed");
    }
    let looks: Vec<_> = told.iter().map(|l| l.trim()).filter(|l| l.contains("posthouse.toml")).collect();
    assert_eq!(looks.len(), 3, "{told:#?}");
    let trace = shell(looks[0]);
    assert!(trace.contains("as demo") && trace.contains("caught"), "{trace}");
    let id = place.run(&["queue", "list", "--json"]).ok().json()[1]["id"].as_str().unwrap().to_owned();
    let raw = shell(&looks[2].replace("ID", &id));
    assert!(raw.contains("Subject: Hello\r\n") && raw.ends_with("\r\n\r\nHello.\r\n"), "{raw}");
    // Once more: it says that it runs already, and leaves it alone.
    let again = place.run(&["quickstart"]).failed(1);
    assert!(again.err.contains("running"), "{}", again.err);
}
