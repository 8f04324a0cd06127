//! Maildir and discard.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use mail::Destination;

use crate::support::{LETTER, Rig, attempt, outcomes, text};

fn maildir(rig: &Rig, template: &str) -> Destination {
    Destination::Maildir(format!("{}/{template}", rig.dir.path().display()).into())
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries.map(|e| e.unwrap().path()).collect()
}

#[tokio::test]
async fn one_copy_for_each_recipient_with_its_own_header_fields() {
    let rig = Rig::new();
    let mut link = rig.link(&maildir(&rig, "mail/{domain}/{user}"));
    let attempt = attempt(&mut link, &rig.letter(&["Ann@example.net", "bob@example.org"]).await).await;
    assert_eq!(outcomes(&attempt), "+2.0.0 +2.0.0");
    for (place, who) in [("example.net/ann", "Ann@example.net"), ("example.org/bob", "bob@example.org")] {
        let mailbox = rig.dir.path().join("mail").join(place);
        let new = files(&mailbox.join("new"));
        assert_eq!(new.len(), 1);
        assert!(files(&mailbox.join("tmp")).is_empty() && mailbox.join("cur").is_dir());
        let fields = format!("Return-Path: <sender@example.com>\r\nDelivered-To: {who}\r\n");
        assert_eq!(fs::read(&new[0]).unwrap(), [fields.as_bytes(), LETTER].concat());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&new[0]), mode(&mailbox), mode(&mailbox.join("new"))), (0o600, 0o700, 0o700));
    }
}

#[tokio::test]
async fn large_content_and_the_null_sender() {
    let rig = Rig::new();
    let content = b".0123456789 line\r\n".repeat(100_000);
    let job = rig.job(&["a@example.net"], &content, |m| m.reverse_path = None).await;
    let mut link = rig.link(&maildir(&rig, "{user}"));
    assert_eq!(outcomes(&attempt(&mut link, &job).await), "+2.0.0");
    let written = fs::read(&files(&rig.dir.path().join("a/new"))[0]).unwrap();
    let fields = b"Return-Path: <>\r\nDelivered-To: a@example.net\r\n";
    assert!(written.strip_prefix(&fields[..]) == Some(&content[..]));
}

/// After a crash between the rename and our record of it, the delivery is repeated: over the same file.
#[tokio::test]
async fn a_repeated_delivery_replaces_its_own_file() {
    let rig = Rig::new();
    let job = rig.letter(&["a@example.net"]).await;
    let destination = maildir(&rig, "{domain}/{user}");
    for _ in 0..2 {
        assert_eq!(outcomes(&attempt(&mut rig.link(&destination), &job).await), "+2.0.0");
    }
    let new = rig.dir.path().join("example.net/a/new");
    assert_eq!(files(&new).len(), 1);
    let other = rig.letter(&["a@example.net"]).await;
    assert_eq!(outcomes(&attempt(&mut rig.link(&destination), &other).await), "+2.0.0");
    assert_eq!(files(&new).len(), 2);
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_refused() {
    let rig = Rig::new();
    let mut link = rig.link(&maildir(&rig, "mail/{domain}/{user}"));
    let bad = [
        "\"..\"@example.net",
        "\"../../x\"@example.net",
        "\"a/b\"@example.net",
        "\".hidden\"@example.net",
        "\"a..b\"@example.net",
        "a/b@example.net",
    ];
    let attempt = attempt(&mut link, &rig.letter(&bad).await).await;
    assert!(outcomes(&attempt).split(' ').all(|o| o == "-5.1.3"), "{}", outcomes(&attempt));
    assert!(!rig.dir.path().join("mail").exists());
}

#[tokio::test]
async fn braces_in_an_address_are_not_filled_in() {
    let rig = Rig::new();
    let mut link = rig.link(&maildir(&rig, "{user}"));
    let attempt =
        attempt(&mut link, &rig.letter(&["{domain}@example.net", "\"x\\y\"@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "+2.0.0 +2.0.0");
    assert_eq!(files(&rig.dir.path().join("{domain}/new")).len(), 1);
    assert_eq!(files(&rig.dir.path().join("xy/new")).len(), 1);
}

#[tokio::test]
async fn a_message_that_was_delivered_there_before_goes_round() {
    let rig = Rig::new();
    let content = [b"Delivered-To: A@example.net\r\nReceived: x\r\n", LETTER].concat();
    let job = rig.job(&["a@example.net", "b@example.net"], &content, |_| {}).await;
    let attempt = attempt(&mut rig.link(&maildir(&rig, "{user}")), &job).await;
    assert_eq!(outcomes(&attempt), "-5.4.6 +2.0.0");
    assert!(text(&attempt).contains("mail loop"));
}

#[tokio::test]
async fn what_the_disk_refuses_is_tried_again() {
    let rig = Rig::new();
    fs::write(rig.dir.path().join("file"), "").unwrap();
    let attempt =
        attempt(&mut rig.link(&maildir(&rig, "file/{user}")), &rig.letter(&["a@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "~4.3.0");
    assert!(text(&attempt).contains("cannot write to"), "{}", text(&attempt));
}

/// What a crash left in `tmp/` is no obstacle, and a link that somebody put there is not followed.
#[tokio::test]
async fn leftovers_in_tmp() {
    let rig = Rig::new();
    let job = rig.letter(&["a@example.net"]).await;
    let destination = maildir(&rig, "{user}");
    assert_eq!(outcomes(&attempt(&mut rig.link(&destination), &job).await), "+2.0.0");
    let name = files(&rig.dir.path().join("a/new"))[0].file_name().unwrap().to_owned();
    let victim = rig.dir.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, rig.dir.path().join("a/tmp").join(&name)).unwrap();
    assert_eq!(outcomes(&attempt(&mut rig.link(&destination), &job).await), "+2.0.0");
    assert_eq!(fs::read(&victim).unwrap(), b"precious");
    assert_eq!(files(&rig.dir.path().join("a/new")).len(), 1);
}

#[tokio::test]
async fn discard_is_success_on_record() {
    let rig = Rig::new();
    let mut job = rig.letter(&["a@example.net", "b@example.net"]).await;
    job.full_transcript = true;
    let attempt = attempt(&mut rig.link(&Destination::Discard), &job).await;
    assert_eq!(outcomes(&attempt), "+2.0.0 +2.0.0");
    assert!(attempt.transcript.is_some_and(|t| t.contains("thrown away")));
}

#[tokio::test]
async fn the_sandbox_never_sends() {
    let rig = Rig::new();
    let attempt = attempt(&mut rig.link(&Destination::Sandbox), &rig.letter(&["a@example.net"]).await).await;
    assert_eq!(outcomes(&attempt), "~4.3.5");
}

/// What the system calls say: the file is on stable storage before it is renamed, its new name after, and only then it
/// counts as delivered.
#[test]
fn a_copy_is_on_stable_storage_before_it_counts() {
    let dir = tempfile::TempDir::new().unwrap();
    let log = dir.path().join("trace");
    let traced = Command::new("strace")
        .args(["-f", "-y", "-e", "trace=fsync,fdatasync,rename,renameat,renameat2", "-o"])
        .arg(&log)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "files::large_content_and_the_null_sender"])
        .output()
        .expect("strace is missing; install it: apt-get install strace");
    assert!(traced.status.success(), "{}", String::from_utf8_lossy(&traced.stdout));
    let calls = fs::read_to_string(&log).unwrap();
    let place =
        |what: &dyn Fn(&str) -> bool| calls.lines().position(what).unwrap_or_else(|| panic!("{calls}"));
    let is_sync = |line: &str| line.contains("sync(") && line.contains("= 0");
    let written = place(&|line| is_sync(line) && line.contains("/a/tmp/"));
    let renamed = place(&|line| line.contains("rename") && line.contains("/a/new/"));
    let named = place(&|line| is_sync(line) && line.contains("/a/new>"));
    let made = place(&|line| is_sync(line) && line.contains("/a>"));
    assert!(written < renamed && renamed < named && made < named, "{calls}");
}
