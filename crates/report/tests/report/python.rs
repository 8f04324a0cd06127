//! Python's email package reads a report as we meant it.

use std::io::Write as _;
use std::process::{Command, Stdio};

use mail::{Notify, ReportKind};
use report::{Ending, Original};

use crate::sample::{ORIGINAL, make, message, recipient, refused, remote, reported};

const READER: &str = r#"
import email, email.policy, json, sys
report = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)
def defects(part):
    found = [str(d) for d in part.defects]
    for value in part.values():
        found += [str(d) for d in getattr(value, "defects", [])]
    if part.is_multipart():
        for child in part.iter_parts() if part.get_content_maintype() == "multipart" else part.get_payload():
            found += defects(child)
    return found
text, status, original = report.iter_parts()
print(json.dumps({
    "type": report.get_content_type(),
    "report_type": report["Content-Type"].params["report-type"],
    "from": report["From"].addresses[0].addr_spec,
    "to": report["To"].addresses[0].addr_spec,
    "date": report["Date"].datetime.isoformat(),
    "text": text.get_content(),
    "groups": [dict(group.items()) for group in status.get_payload()],
    "original": original.get_payload()[0]["Subject"],
    "original_body": original.get_payload()[0].get_content(),
    "defects": defects(report),
}))
"#;

#[test]
fn python_reads_it_the_same() {
    let bob = recipient("bob@example.com", Notify::Unset, Some("rfc822;bob+2Bx@example.com"));
    let outcome = refused(
        "Người dùng không có ở đây\nand a second line of the answer that is long enough to be folded",
    );
    let remote = remote();
    let about = [reported(&bob, Ending::Failed, &outcome, Some(&remote))];
    let dsn = make(ReportKind::Failure, &message(), Original::Full(ORIGINAL), &about).unwrap();

    let mut python = Command::new("python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 is needed to cross-check reports: install it");
    python.stdin.take().unwrap().write_all(&dsn.content).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success());
    let read: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();

    assert_eq!(read["defects"], serde_json::json!([]));
    assert_eq!(read["type"], "multipart/report");
    assert_eq!(read["report_type"], "delivery-status");
    assert_eq!(read["from"], "MAILER-DAEMON@relay.example.net");
    assert_eq!(read["to"], "anna@example.net");
    assert_eq!(read["date"], "2026-11-24T07:00:00+00:00");
    assert!(read["text"].as_str().unwrap().contains("Người dùng không có ở đây"), "{}", read["text"]);
    let groups = read["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2);
    assert_eq!(groups[0]["Reporting-MTA"], "dns; relay.example.net");
    assert_eq!(groups[1]["Original-Recipient"], "rfc822; bob+x@example.com");
    assert_eq!(groups[1]["Final-Recipient"], "rfc822; bob@example.com");
    assert_eq!(groups[1]["Action"], "failed");
    assert_eq!(groups[1]["Status"], "5.1.1");
    assert_eq!(groups[1]["Remote-MTA"], "dns; mx1.example.com");
    let code = groups[1]["Diagnostic-Code"].as_str().unwrap();
    assert!(code.starts_with("smtp; 550 5.1.1 Ng??i d?ng"), "{code}");
    assert_eq!(read["original"].as_str().unwrap().trim(), "two  spaces");
    assert!(read["original_body"].as_str().unwrap().contains("--not a boundary"));
}
