//! Bounces that are written for people alone: by qmail, Exim, Postfix, Sendmail, Exchange and Google, each in its way.

use std::collections::HashMap;
use std::sync::Arc;

use super::mime::Message;
use super::{InboundReport, REPORT_RECIPIENTS_MAX, ReportAction, ReportFormat, address, original};

/// Lines of a text that are looked at.
const LINES_MAX: usize = 20_000;

/// Replies of a transcript that are looked at.
const TRANSCRIPT_MAX: usize = 1000;

/// Reads such a bounce; nothing when the message is none. But for qmail's and Exim's, whose marks are plain, it has to
/// come from somebody who sends bounces.
pub(super) fn read(message: &Message<'_>) -> Vec<InboundReport> {
    let Some(text) = message.text() else { return Vec::new() };
    let lines: Vec<&str> = text.lines().take(LINES_MAX).collect();
    let first = lines.iter().find(|line| !line.trim().is_empty()).map_or("", |line| line.trim());
    let exim = failed_recipients(message);
    if !exim.is_empty() {
        return self::exim(&lines, exim);
    }
    if first.starts_with("Hi. This is the") {
        return paragraphs(&lines, ReportFormat::Qmail);
    }
    if !from_a_mail_system(message) {
        return Vec::new();
    }
    if lines
        .iter()
        .take(5)
        .any(|l| l.starts_with("This is the mail system at") || l.starts_with("This is the Postfix program"))
    {
        return paragraphs(&lines, ReportFormat::Postfix);
    }
    let readers = [sendmail, exchange, exchange_old, google];
    readers.iter().map(|read| read(&lines)).find(|reports| !reports.is_empty()).unwrap_or_default()
}

/// Whether it was sent as bounces are: with the null sender, or by a daemon.
fn from_a_mail_system(message: &Message<'_>) -> bool {
    let field = |name: &str| message.field(name).unwrap_or_default().to_ascii_lowercase();
    field("Return-Path") == "<>"
        || ["mailer-daemon", "postmaster", "mail delivery", "microsoftexchange"]
            .iter()
            .any(|who| field("From").contains(who))
}

/// The lines behind a line that matches, up to the first that matches `to`.
fn behind<'t>(lines: &'t [&'t str], from: impl Fn(&str) -> bool) -> Option<&'t [&'t str]> {
    let at = lines.iter().position(|line| from(line))?;
    Some(&lines[at + 1..])
}

/// The header section that begins at the first line that is not empty.
fn header_of(lines: &[&str]) -> Arc<[u8]> {
    let begin = lines.iter().position(|line| !line.trim().is_empty()).unwrap_or(lines.len());
    original(format!("{}\r\n", lines[begin..].join("\r\n")).as_bytes())
}

/// qmail (https://cr.yp.to/proto/qsbmf.txt) and Postfix: paragraphs that begin with `<address>:`, and after a line of
/// hyphens the original.
fn paragraphs(lines: &[&str], format: ReportFormat) -> Vec<InboundReport> {
    let end = lines.iter().position(|line| line.starts_with("---")).unwrap_or(lines.len());
    let brought_back = header_of(lines.get(end + 1..).unwrap_or_default());
    let delayed = lines[..end].iter().any(|line| line.contains("THIS IS A WARNING ONLY"));
    // "Hi. This is the qmail-send program at mx.example.com.", "This is the mail system at host mx.example.com."
    let reporter = lines.iter().take(5).find(|line| line.contains("This is the")).and_then(|line| {
        let host = line.trim().trim_end_matches('.').rsplit(' ').next()?;
        Some(host.to_owned()).filter(|host| host.contains('.') && host.len() <= 255)
    });
    let mut reports: Vec<InboundReport> = Vec::new();
    let mut words = String::new();
    let mut open = false;
    let close = |reports: &mut Vec<InboundReport>, words: &mut String, open: &mut bool| {
        if let (true, Some(report)) = (*open, reports.last_mut()) {
            report.say(words);
        }
        words.clear();
        *open = false;
    };
    for line in &lines[..end] {
        let named = line.strip_prefix('<').and_then(|rest| rest.split_once(">:"));
        if let Some(found) = named.and_then(|(name, text)| Some((address(&format!("<{name}>"))?, text))) {
            close(&mut reports, &mut words, &mut open);
            if reports.len() >= REPORT_RECIPIENTS_MAX {
                break;
            }
            let mut report = InboundReport::new(format, &brought_back);
            report.final_recipient = Some(found.0);
            report.action = if delayed { ReportAction::Delayed } else { ReportAction::Failed };
            report.reporter.clone_from(&reporter);
            reports.push(report);
            words.push_str(found.1);
            open = true;
        } else if line.trim().is_empty() {
            close(&mut reports, &mut words, &mut open);
        } else if open {
            words.push(' ');
            words.push_str(line);
        }
    }
    close(&mut reports, &mut words, &mut open);
    reports
}

/// The addresses in X-Failed-Recipients fields.
fn failed_recipients(message: &Message<'_>) -> Vec<String> {
    mail::headers(message.content)
        .filter(|header| header.is("X-Failed-Recipients"))
        .flat_map(|header| header.text().split(',').filter_map(address).collect::<Vec<_>>())
        .take(REPORT_RECIPIENTS_MAX)
        .collect()
}

/// Exim: the addresses stand in a field; in the text each has two spaces before it, and what happened, four.
fn exim(lines: &[&str], addresses: Vec<String>) -> Vec<InboundReport> {
    let copy = lines.iter().position(|line| line.starts_with("------") && line.contains("This is a copy of"));
    let brought_back = header_of(copy.and_then(|at| lines.get(at + 1..)).unwrap_or_default());
    let text = &lines[..copy.unwrap_or(lines.len())];
    let delayed = text
        .iter()
        .any(|line| line.contains("has not yet been delivered") || line.contains("address(es) deferred"));
    let mut places: HashMap<String, usize> = HashMap::new();
    for (at, line) in text.iter().enumerate().filter(|(_, line)| line.starts_with("  ")) {
        if let Some(found) = address(line) {
            places.entry(found).or_insert(at);
        }
    }
    let report = |recipient: String| {
        let mut report = InboundReport::new(ReportFormat::Exim, &brought_back);
        report.action = if delayed { ReportAction::Delayed } else { ReportAction::Failed };
        if let Some(&at) = places.get(&recipient) {
            let words: Vec<&str> = text[at + 1..]
                .iter()
                .take_while(|line| line.starts_with("   "))
                .map(|line| line.trim())
                .collect();
            report.say(&words.join(" "));
            report.remote = remote_of(&words);
        }
        report.final_recipient = Some(recipient);
        report
    };
    addresses.into_iter().map(report).collect()
}

/// `host mx.example.com [192.0.2.1]` in Exim's words.
fn remote_of(words: &[&str]) -> Option<String> {
    let line = words.iter().find(|line| line.starts_with("host "))?;
    line.split_whitespace().nth(1).map(|host| host.trim_end_matches([':', ',']).to_owned())
}

/// Sendmail: a list of addresses, each with its reason in parentheses or in the transcript.
fn sendmail(lines: &[&str]) -> Vec<InboundReport> {
    let is_list = |line: &str| {
        line.contains("----- The following addresses had") || line.contains("----- The following address had")
    };
    let Some(list) = behind(lines, is_list) else { return Vec::new() };
    let delayed = lines.iter().any(|line| is_list(line) && line.contains("transient"));
    let none = Arc::from(&[][..]);
    let brought_back = behind(lines, |line| {
        line.contains("----- Original message follows") || line.contains("----- Message header follows")
    })
    .map_or(none, header_of);
    let mut reports: Vec<InboundReport> = Vec::new();
    for line in list.iter().take_while(|line| !line.trim().is_empty()) {
        if let Some(reason) = line.trim().strip_prefix("(reason: ") {
            if let Some(report) = reports.last_mut() {
                report.say(reason.trim_end_matches(')'));
            }
        } else if let Some(found) = address(line).filter(|_| reports.len() < REPORT_RECIPIENTS_MAX) {
            let mut report = InboundReport::new(ReportFormat::Sendmail, &brought_back);
            report.final_recipient = Some(found);
            report.action = if delayed { ReportAction::Delayed } else { ReportAction::Failed };
            reports.push(report);
        }
    }
    let transcript: Vec<&str> = behind(lines, |line| line.contains("----- Transcript of session follows"))
        .unwrap_or_default()
        .iter()
        .filter_map(|line| line.strip_prefix("<<< "))
        .take(TRANSCRIPT_MAX)
        .collect();
    for report in reports.iter_mut().filter(|report| report.code.is_none() && report.diagnostic.is_none()) {
        let about = report.final_recipient.clone().unwrap_or_default();
        if let Some(line) = transcript.iter().find(|line| line.contains(&about)).or(transcript.last()) {
            report.say(line);
        }
    }
    reports
}

/// Exchange: `Diagnostic information for administrators`, with an address and `#550 5.1.1 …#` for each recipient.
fn exchange(lines: &[&str]) -> Vec<InboundReport> {
    let is_part = |line: &str| line.trim().starts_with("Diagnostic information for administrators");
    let Some(list) = behind(lines, is_part) else { return Vec::new() };
    let is_original = |line: &str| line.trim().starts_with("Original message headers");
    let none = Arc::from(&[][..]);
    let brought_back = behind(list, is_original).map_or(none, header_of);
    let mut reports: Vec<InboundReport> = Vec::new();
    let mut reporter = None;
    for line in list.iter().map(|line| line.trim()).take_while(|line| !is_original(line)) {
        if let Some(host) = line.strip_prefix("Generating server:") {
            reporter = host.split_whitespace().next().map(str::to_owned);
        } else if line.contains('#') {
            if let Some(report) = reports.last_mut().filter(|report| report.diagnostic.is_none()) {
                report.remote = line
                    .split('#')
                    .next()
                    .map(|host| host.trim().to_owned())
                    .filter(|host| host.contains('.'));
                report.say(line);
            }
        } else if let Some(found) = address(line)
            .filter(|a| *a == line.trim_matches(['<', '>']) && reports.len() < REPORT_RECIPIENTS_MAX)
        {
            let mut report = InboundReport::new(ReportFormat::Exchange, &brought_back);
            report.final_recipient = Some(found);
            report.reporter.clone_from(&reporter);
            reports.push(report);
        }
    }
    reports
}

/// Exchange before 2007: `could not be reached`, then `address on date`, then what happened and `<host #5.1.1 …>`.
fn exchange_old(lines: &[&str]) -> Vec<InboundReport> {
    let is_list = |line: &str| line.trim().starts_with("The following recipient(s) could not be reached");
    let Some(list) = behind(lines, is_list) else { return Vec::new() };
    let none = Arc::from(&[][..]);
    let mut reports: Vec<InboundReport> = Vec::new();
    for line in list.iter().map(|line| line.trim()) {
        let words = line.split_once(" on ").map_or(line, |(name, _)| name);
        let named = address(words).filter(|found| words.trim_matches(['<', '>', '\'']) == found);
        if let Some(found) = named.filter(|_| reports.len() < REPORT_RECIPIENTS_MAX) {
            let mut report = InboundReport::new(ReportFormat::Exchange, &none);
            report.final_recipient = Some(found);
            reports.push(report);
        } else if let Some(report) = reports.last_mut().filter(|_| !line.is_empty()) {
            let before = report.diagnostic.take().unwrap_or_default();
            report.say(&format!("{before} {line}"));
        }
    }
    reports
}

/// Google, before it wrote reports as the standard has them.
fn google(lines: &[&str]) -> Vec<InboundReport> {
    let is_list =
        |line: &str| line.starts_with("Delivery to the following recipient") && line.contains("failed");
    let Some(list) = behind(lines, is_list) else { return Vec::new() };
    let back = lines.iter().position(|line| line.starts_with("----- Original message -----"));
    let brought_back = header_of(back.and_then(|at| lines.get(at + 1..)).unwrap_or_default());
    let details: Vec<&str> = behind(list, |line| line.starts_with("Technical details of"))
        .unwrap_or_default()
        .iter()
        .map(|line| line.trim())
        .take_while(|line| !line.starts_with("-----"))
        .collect();
    list.iter()
        .skip_while(|line| line.trim().is_empty())
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| address(line))
        .take(REPORT_RECIPIENTS_MAX)
        .map(|recipient| {
            let mut report = InboundReport::new(ReportFormat::Google, &brought_back);
            report.final_recipient = Some(recipient);
            report.say(&details.join(" "));
            report
        })
        .collect()
}
