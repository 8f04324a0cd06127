//! The first five minutes: `posthouse quickstart` prints lines that work, and catches what they send.

use std::process::Command;

use posthouse_tests::needs;
use posthouse_tests::prelude::*;

#[test]
fn what_quickstart_prints_can_be_typed_and_its_mail_is_caught() {
    needs!("swaks", "curl", "python3");
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("posthouse.toml");
    let text = format!(
        "data_dir = \"{}\"\n[[listener]]\nname = \"smtp\"\nmode = \"smtp\"\naddress = [\"127.0.0.1:{}\"]\n\
         [[listener]]\nname = \"submission\"\nmode = \"submission\"\naddress = [\"127.0.0.1:{}\"]\n[api]\nlisten = [\"127.0.0.1:{}\"]\n",
        dir.path().join("data").display(),
        free_port(),
        free_port(),
        free_port()
    );
    std::fs::write(&config, text).unwrap();
    let posthouse = || {
        let mut command = Command::new(posthouse_tests::relay::binary());
        command.arg("--config").arg(&config).env("NO_COLOR", "1").current_dir(dir.path());
        command
    };
    let mut quickstart = posthouse();
    quickstart.arg("quickstart");
    let mut daemon = Daemon::start("quickstart", quickstart);
    let ready = |l: &str| (l.contains("ready") && l.contains("hostname")).then_some(());
    daemon.wait_line("that it is ready", Duration::from_secs(30), 0, ready);
    let printed = daemon.output();
    let mut sent = 0;
    for program in ["swaks", "curl", "python3"] {
        let lines: Vec<&str> = printed.lines().map(str::trim).collect();
        let at = lines.iter().position(|l| l.starts_with(program) || l.contains(&format!("| {program}")));
        let at = at.unwrap_or_else(|| panic!("no line for {program} in\n{printed}"));
        let mut line = String::new();
        for part in &lines[at..] {
            line.push_str(part.trim_end_matches('\\'));
            if !part.ends_with('\\') {
                break;
            }
        }
        let mut shell = Command::new("bash");
        shell.args(["-c", &line]).current_dir(dir.path());
        posthouse_tests::process::run(program, shell, Duration::from_secs(30));
        sent += 1;
    }
    let mut list = posthouse();
    list.args(["queue", "list", "--json"]);
    let listed = posthouse_tests::process::run("queue list", list, Duration::from_secs(20));
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert!(listed.to_string().matches("sandbox").count() >= sent, "caught and shown: {listed}");
}
