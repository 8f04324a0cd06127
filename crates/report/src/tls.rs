//! Reports on TLS to the domains that ask for them (RFC 8460): what became of our sessions with their hosts, as JSON, and
//! as the mail that carries it.

use std::io::Write as _;
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, GzBuilder};
use mail::{Address, Timestamp};
pub use mail::{TlsPolicyType, TlsResultType};
use serde::{Deserialize, Serialize};

use crate::encode;

/// The media type of a report in gzip, for mail and for HTTPS (RFC 8460 section 6.5).
pub const TLS_REPORT_GZIP: &str = "application/tlsrpt+gzip";

/// No part of the mail can contain it: neither base64 nor quoted-printable has "=_".
const BOUNDARY: &str = "=_tlsrpt";

/// What a report is made of: one policy domain, one period.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsReportInput {
    /// Who reports, for people: `organization-name`.
    pub organization: String,
    /// Our own domain: whose report it is (TLS-Report-Submitter), and part of its file's name.
    pub submitter: String,
    /// Whom to write to about the report: `contact-info`; the mail comes from there.
    pub contact: Address,
    /// The report's id; unlike all others of ours.
    pub report_id: String,
    /// The domain that it is about and that asked for it.
    pub domain: String,
    /// The period's first moment.
    pub start: Timestamp,
    /// The period's last moment.
    pub end: Timestamp,
    /// The results under every policy that the domain had in the period.
    pub policies: Vec<TlsPolicyResults>,
}

/// What became of the sessions under one policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsPolicyResults {
    /// The policy.
    pub policy: TlsPolicy,
    /// Sessions with the protection that the policy asks for.
    pub successful: u64,
    /// Sessions without.
    pub failed: u64,
    /// How they failed, by kind and place.
    pub failures: Vec<TlsFailure>,
}

/// A policy as it was applied (RFC 8460 section 4.4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TlsPolicy {
    /// Where it comes from.
    #[serde(rename = "policy-type")]
    pub kind: TlsPolicyType,
    /// Its lines: those of the MTA-STS policy, or the TLSA records' data.
    #[serde(rename = "policy-string", default, skip_serializing_if = "Vec::is_empty")]
    pub strings: Vec<String>,
    /// The domain that has it: that of the recipients for MTA-STS, a host's for TLSA.
    #[serde(rename = "policy-domain")]
    pub domain: String,
    /// The patterns of mail exchangers in it; empty but for MTA-STS.
    #[serde(rename = "mx-host", default, skip_serializing_if = "Vec::is_empty")]
    pub mx_hosts: Vec<String>,
}

/// A kind of failure, and where it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TlsFailure {
    /// What failed.
    #[serde(rename = "result-type")]
    pub result: TlsResultType,
    /// Our address.
    #[serde(rename = "sending-mta-ip", default, skip_serializing_if = "Option::is_none")]
    pub sending_ip: Option<IpAddr>,
    /// The mail exchanger's name.
    #[serde(rename = "receiving-mx-hostname", default, skip_serializing_if = "Option::is_none")]
    pub receiving_host: Option<String>,
    /// The name in its greeting.
    #[serde(rename = "receiving-mx-helo", default, skip_serializing_if = "Option::is_none")]
    pub receiving_helo: Option<String>,
    /// Its address.
    #[serde(rename = "receiving-ip", default, skip_serializing_if = "Option::is_none")]
    pub receiving_ip: Option<IpAddr>,
    /// How many sessions.
    #[serde(rename = "failed-session-count")]
    pub count: u64,
    /// Where there is more to be read about it: a URI.
    #[serde(rename = "additional-information", default, skip_serializing_if = "Option::is_none")]
    pub additional: Option<String>,
    /// What went wrong, in a code or in words.
    #[serde(rename = "failure-reason-code", default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A finished report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsReport {
    /// The report (RFC 8460 section 4.4).
    pub json: Vec<u8>,
    /// The same in gzip: what is sent, by HTTPS as [`TLS_REPORT_GZIP`].
    pub gz: Vec<u8>,
    /// What its file is called (RFC 8460 section 5.1).
    pub filename: String,
    domain: String,
    submitter: String,
    contact: Address,
    /// Without angle brackets.
    message_id: String,
    summary: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Json<'a> {
    organization_name: &'a str,
    date_range: DateRange,
    contact_info: &'a str,
    report_id: &'a str,
    policies: Vec<Policy<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct DateRange {
    start_datetime: String,
    end_datetime: String,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Policy<'a> {
    policy: &'a TlsPolicy,
    summary: Summary,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    failure_details: &'a [TlsFailure],
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    total_successful_session_count: u64,
    total_failure_session_count: u64,
}

/// Makes the report.
pub fn tls_report(input: &TlsReportInput) -> TlsReport {
    let json = json(input);
    let (domain, submitter) = (encode::host(&input.domain), encode::host(&input.submitter));
    let unique: String = input.report_id.chars().filter(char::is_ascii_alphanumeric).take(64).collect();
    let filename = format!(
        "{submitter}!{domain}!{}!{}{}{unique}.json.gz",
        input.start.millis().div_euclid(1000),
        input.end.millis().div_euclid(1000),
        if unique.is_empty() { "" } else { "!" },
    );
    let total = |count: fn(&TlsPolicyResults) -> u64| input.policies.iter().map(count).sum::<u64>();
    let summary = format!(
        "This is a report on TLS (RFC 8460) from {submitter}: what became of its connections to the mail exchangers of \
         {domain} from {} to {}. {} sessions were protected as the domain's policies ask, {} were not. The attachment has \
         the details.",
        datetime(input.start),
        datetime(input.end),
        total(|p| p.successful),
        total(|p| p.failed),
    );
    let gz = gzip(&json);
    let message_id = format!("{}.tlsrpt@{submitter}", if unique.is_empty() { "0" } else { &unique });
    TlsReport { json, gz, filename, domain, submitter, contact: input.contact.clone(), message_id, summary }
}

fn json(input: &TlsReportInput) -> Vec<u8> {
    let policies = input.policies.iter().map(|results| Policy {
        policy: &results.policy,
        summary: Summary {
            total_successful_session_count: results.successful,
            total_failure_session_count: results.failed,
        },
        failure_details: &results.failures,
    });
    let report = Json {
        organization_name: &input.organization,
        date_range: DateRange { start_datetime: datetime(input.start), end_datetime: datetime(input.end) },
        contact_info: input.contact.as_str(),
        report_id: &input.report_id,
        policies: policies.collect(),
    };
    serde_json::to_vec_pretty(&report).expect("texts and numbers in structs always serialise")
}

/// `2016-04-01T00:00:00Z` (RFC 3339 section 5.6).
fn datetime(at: Timestamp) -> String {
    let seconds = at.millis().div_euclid(1000);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    // Without name and time, the same report is the same bytes.
    let mut writer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let written = writer.write_all(bytes).and_then(|()| writer.finish());
    written.expect("writing to memory does not fail")
}

impl TlsReport {
    /// The mail that brings the report to an address of the domain's record (RFC 8460 section 5.3). The header asks that
    /// it be delivered whatever TLS says (RFC 8689 section 5), as RFC 8460 section 5.3 demands; give it `tls_optional`.
    pub fn mail(&self, to: &Address, now: Timestamp) -> Vec<u8> {
        let Self { domain, submitter, contact, message_id, .. } = self;
        let mut mail = format!(
            "From: TLS reports <{contact}>\r\n\
             To: <{to}>\r\n\
             Date: {}\r\n\
             Subject: Report Domain: {domain}\r\n\tSubmitter: {submitter}\r\n\tReport-ID: <{message_id}>\r\n\
             Message-ID: <{message_id}>\r\n\
             TLS-Report-Domain: {domain}\r\n\
             TLS-Report-Submitter: {submitter}\r\n\
             TLS-Required: No\r\n\
             Auto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: multipart/report; report-type=\"tlsrpt\";\r\n\tboundary=\"{BOUNDARY}\"\r\n\
             \r\n\
             This is a report on TLS, in MIME format.\r\n\
             \r\n--{BOUNDARY}\r\n\
             Content-Type: text/plain; charset=us-ascii\r\n\
             Content-Transfer-Encoding: 7bit\r\n\
             \r\n\
             {}\
             \r\n--{BOUNDARY}\r\n\
             Content-Type: {TLS_REPORT_GZIP}\r\n\
             Content-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment;\r\n\tfilename=\"{}\"\r\n\
             \r\n",
            now.rfc5322(),
            encode::fill(&self.summary, ""),
            self.filename,
        );
        let text = STANDARD.encode(&self.gz);
        for line in text.as_bytes().chunks(76) {
            mail.push_str(std::str::from_utf8(line).unwrap_or_default());
            mail.push_str("\r\n");
        }
        mail.push_str(&format!("\r\n--{BOUNDARY}--\r\n"));
        mail.into_bytes()
    }

    /// The mail's Message-ID, without angle brackets.
    pub fn message_id(&self) -> &str {
        &self.message_id
    }
}
