//! Compares layouts for ADR-0001, with the real schema and without the rest of the store: groups of messages are admitted
//! by one thread and settled some thousand messages later, every group durable, each event in the outbox.
//!
//! ```text
//! cargo run --release -p store --example layouts -- [GROUP] [MESSAGES] [SIZE] [DIR]
//! ```
#![allow(clippy::unwrap_used, reason = "a measurement may panic")]

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use mail::Clock;
use nix::sys::resource::{UsageWho, getrusage};
use rusqlite::{Connection, params};

/// Messages between an admission and its settlement.
const LAG: u64 = 5_000;

#[derive(Clone, Copy, Debug)]
enum Layout {
    /// Bodies are in a table of the database.
    AllInSqlite,
    /// Bodies are in a segment file; each delivery is indexed by its due time from the start.
    SegmentsAllDue,
    /// Bodies are in a segment file; a delivery is indexed once it is deferred.
    Segments,
}

fn main() {
    let mut args = std::env::args().skip(1);
    let mut number = |default: u64| args.next().map_or(default, |a| a.parse().unwrap());
    let (group, messages, size) = (number(20), number(40_000), number(4096));
    let base = std::env::args().nth(4).map_or_else(std::env::temp_dir, Into::into);
    println!("groups of {group}, {messages} messages of {size} octets");
    println!("{:16} {:>8} {:>10} {:>16}", "layout", "msg/s", "CPU us/msg", "written per octet");
    for layout in [Layout::AllInSqlite, Layout::SegmentsAllDue, Layout::Segments] {
        let dir = base.join("posthouse-layouts");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        measure(layout, &dir, group, messages, size);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}

fn measure(layout: Layout, dir: &Path, group: u64, messages: u64, size: u64) {
    let conn = Connection::open(dir.join("queue.db")).unwrap();
    conn.set_prepared_statement_cache_capacity(64);
    conn.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA wal_autocheckpoint = 4096; PRAGMA cache_size = -8192;",
    )
    .unwrap();
    conn.execute_batch(include_str!("../migrations/0001.sql")).unwrap();
    conn.execute_batch("CREATE TABLE body (message INTEGER PRIMARY KEY, content BLOB NOT NULL)").unwrap();
    let mut segment = OpenOptions::new().append(true).create(true).open(dir.join("segment")).unwrap();
    let content: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
    let clock = Clock::system();
    let (cpu, written, start) = (cpu(), written(), clock.mono());
    let lag = LAG.min(messages / 2);
    let mut first = 0;
    while first < messages + lag {
        let of = |at: u64| at.min(messages)..(at + group).min(messages);
        let old = if first >= lag { of(first - lag) } else { 0..0 };
        commit(layout, &conn, &mut segment, &content, of(first), old);
        first += group;
    }
    let took = clock.mono().since(start);
    let per = |total: f64| total / messages as f64;
    println!(
        "{:16} {:8.0} {:10.1} {:16.2}",
        format!("{layout:?}"),
        messages as f64 / took.as_secs_f64(),
        per((self::cpu() - cpu).as_secs_f64() * 1e6),
        per((self::written() - written) as f64) / size as f64
    );
}

/// One group: these are admitted, those of the last group settled.
fn commit(
    layout: Layout,
    conn: &Connection,
    segment: &mut File,
    content: &[u8],
    new: std::ops::Range<u64>,
    old: std::ops::Range<u64>,
) {
    let event = [7u8; 220];
    if !matches!(layout, Layout::AllInSqlite) && !new.is_empty() {
        segment.write_all(&content.repeat(usize::try_from(new.end - new.start).unwrap())).unwrap();
        segment.sync_data().unwrap();
    }
    let due = matches!(layout, Layout::SegmentsAllDue).then_some(1_795_500_000_000i64);
    let tx = conn.unchecked_transaction().unwrap();
    let run = |sql: &str, params: &[&dyn rusqlite::ToSql]| {
        tx.prepare_cached(sql).unwrap().execute(params).unwrap();
    };
    for n in new {
        // As far apart as real ids.
        let id = (n << 22).cast_signed();
        run(
            "INSERT INTO message VALUES (?1, 1795500000000, 'sender@origin.example', 1, ?1, 4096, 77, ?2)",
            params![id, &event[..180]],
        );
        run(
            "INSERT INTO delivery (message, idx, queue, state, due) VALUES (?1, 0, 1, 0, ?2)",
            params![id, due],
        );
        run(
            "INSERT INTO recipient (message, delivery, n, address) VALUES (?1, 0, 0, 'someone@destination.example')",
            params![id],
        );
        run("INSERT INTO outbox VALUES (?1, ?2)", params![n.cast_signed() * 2, &event[..]]);
        if matches!(layout, Layout::AllInSqlite) {
            run("INSERT INTO body VALUES (?1, ?2)", params![id, content]);
        }
    }
    for n in old {
        let id = (n << 22).cast_signed();
        run("DELETE FROM delivery WHERE message = ?1 AND idx = 0", params![id]);
        run("DELETE FROM recipient WHERE message = ?1 AND delivery = 0", params![id]);
        run(
            "DELETE FROM message WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM delivery WHERE message = ?1)",
            params![id],
        );
        if matches!(layout, Layout::AllInSqlite) {
            run("DELETE FROM body WHERE message = ?1", params![id]);
        }
        run("INSERT INTO outbox VALUES (?1, ?2)", params![n.cast_signed() * 2 + 1, &event[..]]);
        run("DELETE FROM outbox WHERE seq < ?1", params![n.cast_signed() * 2 - 200]);
    }
    tx.commit().unwrap();
}

/// CPU time of this process.
fn cpu() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let of =
        |t: nix::sys::time::TimeVal| Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()) as u64);
    of(usage.user_time()) + of(usage.system_time())
}

/// Octets that this process had written to disk.
fn written() -> u64 {
    let io = std::fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("write_bytes: ")).unwrap().parse().unwrap()
}
