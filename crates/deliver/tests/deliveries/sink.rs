//! Postfix's smtp-sink, with its failure modes.

use std::fs;
use std::net::SocketAddr;

use tempfile::TempDir;

use crate::support::{Neighbour, Rig, attempt, free_address, outcomes, smtp};

/// A sink that dumps what it takes, and its directory.
async fn sink(arguments: &[&str]) -> (Neighbour, SocketAddr, TempDir) {
    let dir = TempDir::new().unwrap();
    let at = free_address();
    let listen = at.to_string();
    // Started by root, it wants to be told whom to become.
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).unwrap().unwrap().name;
    let mut all = arguments.to_vec();
    all.extend(["-u", &user, &listen, "100"]);
    let child = Neighbour::start("/usr/sbin/smtp-sink", "postfix", dir.path(), &all).listening(at).await;
    (child, at, dir)
}

#[tokio::test]
async fn takes_mail_with_and_without_pipelining() {
    for arguments in
        [vec!["-d", "m."], vec!["-p", "-d", "m."], vec!["-e", "-d", "m."], vec!["-8", "-N", "-d", "m."]]
    {
        let (_sink, at, dir) = sink(&arguments).await;
        let rig = Rig::new();
        let mut link = rig.link(&smtp(at));
        let content = b"Subject: x\r\n\r\n.dot\r\n..\r\nend\r\n".repeat(50);
        for _ in 0..5 {
            let job = rig.job(&["a@example.net", "b@example.net"], &content, |_| {}).await;
            let attempt = attempt(&mut link, &job).await;
            assert_eq!(outcomes(&attempt), "+250 +250", "{arguments:?}: {:?}", attempt.transcript);
            assert!(link.is_open());
        }
        link.close().await;
        let dumps: Vec<String> = fs::read_dir(dir.path())
            .unwrap()
            .map(|e| e.unwrap().path())
            .filter(|p| p.extension().is_some_and(|e| e != "log"))
            .map(|p| fs::read_to_string(p).unwrap())
            .collect();
        assert_eq!(dumps.len(), 5, "{arguments:?}");
        // The sink writes line feeds alone, and header fields of its own in front.
        let expected = String::from_utf8(content).unwrap().replace("\r\n", "\n");
        assert!(dumps.iter().all(|d| d.contains(&expected)), "{:?}", dumps[0]);
    }
}

#[tokio::test]
async fn refuses_defers_hangs_up_and_says_goodbye_at_every_command() {
    // Hard, soft, without a word, with 421.
    for (mode, outcome) in [("-f", "-500"), ("-r", "~450"), ("-q", "~4.4.2"), ("-Q", "~421")] {
        for command in ["CONNECT", "EHLO,HELO", "MAIL", "RCPT", "DATA", "."] {
            let (_sink, at, _dir) = sink(&[mode, command]).await;
            let rig = Rig::new();
            let mut link = rig.link(&smtp(at));
            let attempt = attempt(&mut link, &rig.letter(&["a@example.net"]).await).await;
            let got = outcomes(&attempt);
            // What a host that the operator named does before there is mail bounces nothing.
            let before_mail = matches!(command, "CONNECT" | "EHLO,HELO");
            let expected = if mode == "-f" && before_mail { "~500" } else { outcome };
            assert_eq!(got, expected, "{mode} {command}: {:?}", attempt.transcript);
        }
    }
}

#[tokio::test]
async fn aborts_after_data() {
    let (_sink, at, _dir) = sink(&["-A", "0"]).await;
    let rig = Rig::new();
    let mut link = rig.link(&smtp(at));
    let job = rig.job(&["a@example.net"], &b"0123456789\r\n".repeat(1 << 18), |_| {}).await;
    let attempt = attempt(&mut link, &job).await;
    // Its 550 arrives, or is lost in the reset of the connection.
    assert!(["-550", "~4.4.2"].contains(&outcomes(&attempt).as_str()), "{:?}", attempt.transcript);
}

#[tokio::test]
async fn lmtp() {
    let (_sink, at, _dir) = sink(&["-L"]).await;
    let rig = Rig::new();
    let mut link = rig.link(&mail::Destination::Lmtp(crate::support::host_port(at)));
    for _ in 0..3 {
        let job = rig.letter(&["a@example.net", "b@example.net", "c@example.net"]).await;
        assert_eq!(outcomes(&attempt(&mut link, &job).await), "+250 +250 +250");
    }
}
