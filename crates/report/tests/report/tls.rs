//! TLS reports: the example of RFC 8460 comes out as it stands there; the mail is read back by a reader of its own and by
//! Python's.

use std::io::Read as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use mail::{Address, Timestamp};
use report::{
    TlsFailure, TlsPolicy, TlsPolicyResults, TlsPolicyType, TlsReportInput, TlsResultType, tls_report,
};
use serde_json::Value;

use crate::mime;

/// RFC 8460 appendix B, with `mx-host` as the array that section 4.4 says it is.
const EXAMPLE: &str = r#"{
    "organization-name": "Company-X",
    "date-range": {
        "start-datetime": "2016-04-01T00:00:00Z",
        "end-datetime": "2016-04-01T23:59:59Z"
    },
    "contact-info": "sts-reporting@company-x.example",
    "report-id": "5065427c-23d3-47ca-b6e0-946ea0e8c4be",
    "policies": [{
        "policy": {
            "policy-type": "sts",
            "policy-string": ["version: STSv1", "mode: testing", "mx: *.mail.company-y.example", "max_age: 86400"],
            "policy-domain": "company-y.example",
            "mx-host": ["*.mail.company-y.example"]
        },
        "summary": { "total-successful-session-count": 5326, "total-failure-session-count": 303 },
        "failure-details": [{
            "result-type": "certificate-expired",
            "sending-mta-ip": "2001:db8:abcd:12::1",
            "receiving-mx-hostname": "mx1.mail.company-y.example",
            "failed-session-count": 100
        }, {
            "result-type": "starttls-not-supported",
            "sending-mta-ip": "2001:db8:abcd:13::1",
            "receiving-mx-hostname": "mx2.mail.company-y.example",
            "receiving-ip": "203.0.113.56",
            "failed-session-count": 200,
            "additional-information": "https://reports.company-x.example/report_info?id=5065427c-23d3#StarttlsNotSupported"
        }, {
            "result-type": "validation-failure",
            "sending-mta-ip": "198.51.100.62",
            "receiving-ip": "203.0.113.58",
            "receiving-mx-hostname": "mx-backup.mail.company-y.example",
            "failed-session-count": 3,
            "failure-reason-code": "X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED"
        }]
    }]
}"#;

fn failure(result: TlsResultType, from: &str, host: &str, ip: Option<&str>, count: u64) -> TlsFailure {
    TlsFailure {
        result,
        sending_ip: Some(from.parse().unwrap()),
        receiving_host: Some(host.to_owned()),
        receiving_helo: None,
        receiving_ip: ip.map(|ip| ip.parse().unwrap()),
        count,
        additional: None,
        reason: None,
    }
}

fn input() -> TlsReportInput {
    let mut second = failure(
        TlsResultType::StarttlsNotSupported,
        "2001:db8:abcd:13::1",
        "mx2.mail.company-y.example",
        Some("203.0.113.56"),
        200,
    );
    second.additional = Some(
        "https://reports.company-x.example/report_info?id=5065427c-23d3#StarttlsNotSupported".to_owned(),
    );
    let mut third = failure(
        TlsResultType::ValidationFailure,
        "198.51.100.62",
        "mx-backup.mail.company-y.example",
        Some("203.0.113.58"),
        3,
    );
    third.reason = Some("X509_V_ERR_PROXY_PATH_LENGTH_EXCEEDED".to_owned());
    let first = failure(
        TlsResultType::CertificateExpired,
        "2001:db8:abcd:12::1",
        "mx1.mail.company-y.example",
        None,
        100,
    );
    TlsReportInput {
        organization: "Company-X".to_owned(),
        submitter: "mail.company-x.example".to_owned(),
        contact: Address::parse("sts-reporting@company-x.example").unwrap(),
        report_id: "5065427c-23d3-47ca-b6e0-946ea0e8c4be".to_owned(),
        domain: "company-y.example".to_owned(),
        start: Timestamp(1_459_468_800_000),
        end: Timestamp(1_459_555_199_000),
        policies: vec![TlsPolicyResults {
            policy: TlsPolicy {
                kind: TlsPolicyType::Sts,
                strings: [
                    "version: STSv1",
                    "mode: testing",
                    "mx: *.mail.company-y.example",
                    "max_age: 86400",
                ]
                .map(str::to_owned)
                .to_vec(),
                domain: "company-y.example".to_owned(),
                mx_hosts: vec!["*.mail.company-y.example".to_owned()],
            },
            successful: 5326,
            failed: 303,
            failures: vec![first, second, third],
        }],
    }
}

fn mail_of(input: &TlsReportInput) -> Vec<u8> {
    tls_report(input).mail(&Address::parse("tlsrpt@company-y.example").unwrap(), Timestamp(1_459_560_000_000))
}

#[test]
fn the_example_of_the_rfc() {
    let report = tls_report(&input());
    let made: Value = serde_json::from_slice(&report.json).unwrap();
    assert_eq!(made, serde_json::from_str::<Value>(EXAMPLE).unwrap());
    assert_eq!(
        report.filename,
        "mail.company-x.example!company-y.example!1459468800!1459555199!5065427c23d347cab6e0946ea0e8c4be.json.gz"
    );
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&report.gz[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, report.json);
    assert_eq!(tls_report(&input()), report, "the same input makes the same bytes");
}

#[test]
fn a_domain_without_a_policy_has_no_lines_and_no_details() {
    let mut input = input();
    input.policies[0].policy = TlsPolicy {
        kind: TlsPolicyType::NoPolicyFound,
        strings: vec![],
        domain: "company-y.example".to_owned(),
        mx_hosts: vec![],
    };
    input.policies[0].failures.clear();
    input.policies[0].failed = 0;
    let made: Value = serde_json::from_slice(&tls_report(&input).json).unwrap();
    let policy = &made["policies"][0];
    assert_eq!(
        policy["policy"],
        serde_json::json!({ "policy-type": "no-policy-found", "policy-domain": "company-y.example" })
    );
    assert_eq!(policy["summary"]["total-failure-session-count"], 0);
    assert_eq!(policy.get("failure-details"), None);
}

#[test]
fn result_types_have_the_names_of_the_rfc() {
    let names: Vec<String> = TlsResultType::ALL
        .iter()
        .map(|result| serde_json::to_value(result).unwrap().as_str().unwrap().to_owned())
        .collect();
    assert_eq!(
        names,
        [
            "starttls-not-supported",
            "certificate-host-mismatch",
            "certificate-expired",
            "certificate-not-trusted",
            "validation-failure",
            "tlsa-invalid",
            "dnssec-invalid",
            "dane-required",
            "sts-policy-fetch-error",
            "sts-policy-invalid",
            "sts-webpki-invalid",
        ]
    );
}

#[test]
fn the_input_survives_being_stored() {
    let text = serde_json::to_string(&input()).unwrap();
    assert_eq!(serde_json::from_str::<TlsReportInput>(&text).unwrap(), input());
}

#[test]
fn the_mail_is_in_order() {
    let mail = mail_of(&input());
    assert!(mail.is_ascii());
    for line in mail.split(|&b| b == b'\n') {
        assert!(line.len() <= 999, "{}", String::from_utf8_lossy(line));
    }
    let field = |name: &str| mime::field(&mail, name).unwrap();
    assert_eq!(field("TLS-Report-Domain"), "company-y.example");
    assert_eq!(field("TLS-Report-Submitter"), "mail.company-x.example");
    assert_eq!(field("TLS-Required"), "No");
    assert_eq!(field("To"), "<tlsrpt@company-y.example>");
    assert_eq!(
        field("Subject"),
        "Report Domain: company-y.example\tSubmitter: mail.company-x.example\tReport-ID: \
         <5065427c23d347cab6e0946ea0e8c4be.tlsrpt@mail.company-x.example>"
    );
    assert!(field("Content-Type").starts_with("multipart/report; report-type=\"tlsrpt\";"));
    let text = String::from_utf8(mail).unwrap();
    let attached = text.split("\r\n\r\n").nth(5).unwrap().split("--").next().unwrap();
    let packed = base64::engine::general_purpose::STANDARD.decode(attached.replace("\r\n", "")).unwrap();
    assert_eq!(packed, tls_report(&input()).gz);
}

#[test]
fn nothing_in_the_input_breaks_out_of_the_header() {
    let mut input = input();
    input.submitter = "evil.example\r\nBcc: x@example.net".to_owned();
    input.domain = "\r\n\r\nbody".to_owned();
    input.report_id = "id\r\nX: y@\u{0}".to_owned();
    let mail = mail_of(&input);
    let names: Vec<String> =
        mail::headers(&mail).map(|h| String::from_utf8_lossy(h.name).into_owned()).collect();
    assert_eq!(
        names,
        [
            "From",
            "To",
            "Date",
            "Subject",
            "Message-ID",
            "TLS-Report-Domain",
            "TLS-Report-Submitter",
            "TLS-Required",
            "Auto-Submitted",
            "MIME-Version",
            "Content-Type",
        ]
    );
}

#[test]
fn python_reads_the_mail() {
    let script = "import sys, json, gzip, email, email.policy\n\
        m = email.message_from_bytes(sys.stdin.buffer.read(), policy=email.policy.default)\n\
        text, report = list(m.iter_parts())\n\
        assert m.get_content_type() == 'multipart/report' and m.get_param('report-type') == 'tlsrpt'\n\
        assert report.get_content_type() == 'application/tlsrpt+gzip'\n\
        assert 'sessions were protected' in text.get_content().replace('\\r\\n', ' ')\n\
        print(report.get_filename())\n\
        print(json.dumps(json.loads(gzip.decompress(report.get_payload(decode=True)))))\n";
    let child =
        Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = child.expect("python3 is one of the neighbours that the tests need");
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), &mail_of(&input())).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let (name, json) = text.split_once('\n').unwrap();
    assert_eq!(name, tls_report(&input()).filename);
    let read: Value = serde_json::from_str(json).unwrap();
    assert_eq!(read, serde_json::from_str::<Value>(EXAMPLE).unwrap());
}
