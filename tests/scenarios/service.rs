//! As a service: what systemd is told, privileges given up, refusals of a configuration that cannot work.

use std::os::unix::net::UnixDatagram;

use posthouse_tests::client::send_one;
use posthouse_tests::needs;
use posthouse_tests::prelude::*;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn systemd_hears_of_ready_reloading_and_stopping() {
    let dir = tempfile::tempdir().unwrap();
    let socket = UnixDatagram::bind(dir.path().join("notify")).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let wait_for = |word: &str| {
        let mut buffer = [0; 1024];
        loop {
            let n = socket.recv(&mut buffer).unwrap_or_else(|e| panic!("systemd never heard {word}: {e}"));
            if String::from_utf8_lossy(&buffer[..n]).lines().any(|l| l == word) {
                return;
            }
        }
    };
    let mut relay = Relay::builder().env("NOTIFY_SOCKET", dir.path().join("notify")).start();
    wait_for("READY=1");
    kill(Pid::from_raw(relay.pid()), Signal::SIGHUP).unwrap();
    wait_for("RELOADING=1");
    wait_for("READY=1");
    assert!(relay.stop().success());
    wait_for("STOPPING=1");
}

#[test]
fn started_by_root_it_runs_as_the_user_of_the_file_and_can_still_be_ruled() {
    needs!("root");
    let sink = Sink::start();
    let relay = Relay::builder().route(&[], &sink.url()).prepare();
    // The directory above must be passable for nobody.
    std::process::Command::new("chmod").arg("755").arg(relay.scratch()).status().unwrap();
    relay.reconfigure(|old| format!("user = \"nobody\"\n{old}"));
    let mut relay = relay;
    relay.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.pid())).unwrap();
    let ids =
        status.lines().find_map(|l| l.strip_prefix("Uid:")).unwrap().split_whitespace().collect::<Vec<_>>();
    assert!(ids.iter().all(|id| *id == "65534"), "{ids:?}");
    send_one(relay.smtp(), "me@client.example", &["ann@dest.example"], &Letter::new("nobody", 500).bytes)
        .expect(250);
    sink.wait_one();
    relay.credential("office", &[]);
    relay.restart();
    assert!(relay.cli(&["credential", "list"]).contains("office"));
}

#[test]
fn a_configuration_that_cannot_work_is_refused_with_the_place_and_the_reason() {
    for (wrong, wanted) in [
        ("[queue]\nlifetme = \"5d\"", &["lifetme", "lifetime", ":"][..]),
        ("[queue]\nlifetime = 5", &["lifetime"]),
        ("[limits]\nmemory = \"lots\"", &["memory", "lots"]),
        ("[[route]]\nto = \"smarthost:nobody\"", &["nobody"]),
        ("[relay]\nlocal_domains = [\"local.example\"]", &["local.example"]),
    ] {
        let relay = Relay::builder().prepare();
        std::fs::write(relay.config(), format!("data_dir = \"{}\"\n{wrong}\n", relay.data().display()))
            .unwrap();
        let (status, output) = relay.try_cli(&["check"]);
        assert!(!status.success(), "{wrong}:\n{output}");
        for word in wanted {
            assert!(output.contains(word), "{wrong}: no {word:?} in\n{output}");
        }
    }
}

#[test]
fn a_newer_schema_is_refused() {
    let mut relay = Relay::builder().start();
    assert!(relay.stop().success());
    let mut python = std::process::Command::new("python3");
    let script = "import sqlite3,sys\nc=sqlite3.connect(sys.argv[1])\n\
                  t=[r[0] for r in c.execute(\"select name from sqlite_master where type='table'\")]\n\
                  v=[x for x in t if 'version' in x or 'schema' in x or 'meta' in x]\n\
                  n=c.execute('pragma user_version').fetchone()[0]\n\
                  c.execute('pragma user_version=%d'%(n+1000))\n\
                  for x in v:\n\
                  \x20for col in [r[1] for r in c.execute('pragma table_info(%s)'%x)]:\n\
                  \x20 if 'version' in col: c.execute('update %s set %s=%s+1000'%(x,col,col))\n\
                  c.commit()\nc.close()\n";
    python.args(["-c", script]).arg(relay.data().join("queue.db"));
    posthouse_tests::process::run("python3", python, Duration::from_secs(10));
    let (status, output) = relay.try_cli(&["serve"]);
    assert!(!status.success());
    assert!(output.contains("newer") || output.contains("version"), "{output}");
}
