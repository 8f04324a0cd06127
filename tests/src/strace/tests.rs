use super::*;

/// What a relay that keeps its promise does: content and its directory, log and its directory, then the reply.
const GOOD: &str = r#"
10 openat(AT_FDCWD</>, "/d/queue.db-wal", O_RDWR|O_CREAT|O_CLOEXEC, 0644) = 7</d/queue.db-wal>
10 openat(AT_FDCWD</>, "/d/content/1", O_WRONLY|O_CREAT|O_EXCL, 0600) = 8</d/content/1>
10 fsync(9</d/content>) = 0
12 write(20<TCP:[127.0.0.1:25->127.0.0.1:40000]>, "354 go\r\n", 8) = 8
10 pwritev(8</d/content/1>, [{iov_base="Received: by r (Posthouse) with ESMTP id 0ammm00000001;\r\nX-Proof-Id: m1\r\n\r\nbody\r\n", iov_len=40}], 1, 0) = 40
10 fdatasync(8</d/content/1> <unfinished ...>
12 write(21<TCP:[127.0.0.1:25->127.0.0.1:40001]>, "220 hello\r\n", 11) = 11
10 <... fdatasync resumed>)  = 0
10 pwrite64(7</d/queue.db-wal>, "frame m1@client.example", 4120, 32) = 4120
10 fdatasync(7</d/queue.db-wal>) = 0
10 fsync(11</d>) = 0
12 write(20<TCP:[127.0.0.1:25->127.0.0.1:40000]>, "250 2.0.0 queued as 0ammm00000001\r\n", 35) = 35
"#;

fn prove(trace: &str) -> Result<Found, String> {
    let calls = parse(trace);
    Proof { calls: &calls, data: Path::new("/d") }.of("m1")
}

#[test]
fn a_good_trace_is_proved() {
    let found = prove(GOOD).unwrap();
    assert_eq!(found.directory_syncs.len(), 2);
    assert!(found.content_sync < found.wal_sync && found.wal_sync < found.acknowledged);
}

#[test]
fn without_any_one_sync_it_fails() {
    for (gone, complaint) in [
        ("10 fsync(9</d/content>) = 0\n", "/d/content/1 was made, but its directory"),
        ("10 fsync(11</d>) = 0\n", "/d/queue.db-wal was made, but its directory"),
        ("10 fdatasync(7</d/queue.db-wal>) = 0\n", "queue.db-wal was not synced"),
    ] {
        let doctored = GOOD.replace(gone, "");
        assert_ne!(doctored, GOOD);
        let said = prove(&doctored).unwrap_err();
        assert!(said.contains(complaint), "{said}");
    }
    let unsynced: String = GOOD
        .lines()
        .filter(|l| !l.contains("fdatasync(8") && !l.contains("fdatasync resumed"))
        .map(|l| format!("{l}\n"))
        .collect();
    assert!(prove(&unsynced).unwrap_err().contains("content/1 was not synced"));
}

#[test]
fn a_sync_that_failed_or_came_too_early_or_too_late_does_not_count() {
    let failed = GOOD.replace(
        "fdatasync(7</d/queue.db-wal>) = 0",
        "fdatasync(7</d/queue.db-wal>) = -1 EIO (Input/output error) (INJECTED)",
    );
    assert!(prove(&failed).unwrap_err().contains("queue.db-wal was not synced"));
    let swap = |a: &str, b: &str| {
        let mut lines: Vec<&str> = GOOD.lines().collect();
        let (i, j) = (
            lines.iter().position(|l| l.contains(a)).unwrap(),
            lines.iter().position(|l| l.contains(b)).unwrap(),
        );
        lines.swap(i, j);
        lines.join("\n")
    };
    assert!(prove(&swap("pwrite64(7", "fdatasync(7")).is_err(), "synced before it was written");
    assert!(prove(&swap("fdatasync(7", "250 2.0.0")).is_err(), "synced after the reply");
    assert!(prove(&swap("pwritev(8", "fdatasync(8")).is_err(), "content synced before it was written");
}

#[test]
fn the_reply_to_another_message_is_not_taken_for_its_own() {
    let other = r#"12 write(21<TCP:[127.0.0.1:25->127.0.0.1:40001]>, "250 2.0.0 queued as 0ammm00000000\r\n", 35) = 35"#;
    let between = "10 fdatasync(8</d/content/1> <unfinished ...>\n";
    let both = GOOD.replace(between, &format!("{other}\n{between}"));
    assert_ne!(both, GOOD);
    assert!(prove(&both).is_ok());
}

#[test]
fn a_reply_that_begins_before_a_sync_ends_does_not_count() {
    let early = GOOD.replace(
        "10 fdatasync(7</d/queue.db-wal>) = 0\n",
        "10 fdatasync(7</d/queue.db-wal> <unfinished ...>\n",
    );
    let early = format!("{}10 <... fdatasync resumed>) = 0\n", early);
    assert!(prove(&early).is_err());
}
