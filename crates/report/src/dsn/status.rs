//! The part for programs: message/delivery-status (RFC 3464) and message/global-delivery-status (RFC 6533).

use std::sync::Arc;

use mail::headers;

use super::mime::{Message, Part};
use super::{InboundReport, REPORT_RECIPIENTS_MAX, ReportAction, ReportFormat, address, one_line, original};
use crate::encode::xtext_decode;

/// Reads every such part; nothing when there is none.
pub(super) fn read(message: &Message<'_>) -> Vec<InboundReport> {
    let is_status = |part: &&Part<'_>| {
        matches!(&*part.media, "message/delivery-status" | "message/global-delivery-status")
    };
    let brought_back = original_of(message);
    let mut reports = Vec::new();
    for part in message.parts.iter().filter(is_status) {
        groups(&part.content, &brought_back, &mut reports);
    }
    reports
}

/// The header section of the message that came back.
fn original_of(message: &Message<'_>) -> Arc<[u8]> {
    const BACK: [&str; 4] =
        ["message/rfc822", "text/rfc822-headers", "message/global", "message/global-headers"];
    let part = message
        .parts
        .iter()
        .find(|part| BACK.contains(&&*part.media) || part.media == "message/rfc822-headers");
    part.map_or_else(|| Arc::from(&[][..]), |part| original(&part.content))
}

/// The groups of fields: one for the message, then one for each recipient. A program that forgets the empty line between
/// them is understood as well.
fn groups(content: &[u8], original: &Arc<[u8]>, reports: &mut Vec<InboundReport>) {
    let mut reporter = None;
    let mut envelope_id = None;
    let mut current: Option<InboundReport> = None;
    let mut rest = content;
    while !rest.is_empty() && reports.len() < REPORT_RECIPIENTS_MAX {
        for header in headers(rest) {
            let value = header.text();
            if header.is("Reporting-MTA") {
                reporter = host(&value);
            } else if header.is("Original-Envelope-Id") {
                envelope_id = Some(one_line(&xtext_decode(&value).unwrap_or(value)));
            } else {
                field(&header, &value, &mut current, original, reports);
            }
        }
        reports.extend(finish(current.take(), &reporter, &envelope_id));
        let end = headers(rest).end();
        let skip = if end.body > 0 {
            end.body
        } else {
            rest.iter().position(|&b| b == b'\n').map_or(rest.len(), |i| i + 1)
        };
        rest = &rest[skip..];
    }
}

/// A field about a recipient; one that is there already begins the next recipient.
fn field(
    header: &mail::Header<'_>,
    value: &str,
    current: &mut Option<InboundReport>,
    original: &Arc<[u8]>,
    reports: &mut Vec<InboundReport>,
) {
    let is_recipient = header.is("Final-Recipient") || header.is("Original-Recipient");
    let names = ["Action", "Status", "Remote-MTA", "Diagnostic-Code"];
    if !is_recipient && !names.iter().any(|name| header.is(name)) {
        return;
    }
    let begins_another = |report: &InboundReport| {
        (header.is("Final-Recipient") && report.final_recipient.is_some())
            || (header.is("Original-Recipient") && report.original_recipient.is_some())
    };
    if current.as_ref().is_some_and(begins_another) {
        reports.extend(finish(current.take(), &None, &None));
    }
    let report = current.get_or_insert_with(|| InboundReport::new(ReportFormat::Standard, original));
    if header.is("Final-Recipient") {
        report.final_recipient = typed_address(value);
    } else if header.is("Original-Recipient") {
        report.original_recipient = typed_address(value);
    } else if header.is("Action") {
        report.action = action(value).unwrap_or(report.action);
    } else if header.is("Status") {
        // "5.1.1 (bad destination mailbox address)"
        report.status = value.split([' ', '(', ';']).next().and_then(|word| word.parse().ok());
    } else if header.is("Remote-MTA") {
        report.remote = host(value);
    } else {
        report.say(value.split_once(';').map_or(value, |(_, text)| text));
    }
}

/// Only what names a recipient, or at least a status, is of use.
fn finish(
    report: Option<InboundReport>,
    reporter: &Option<String>,
    envelope_id: &Option<String>,
) -> Option<InboundReport> {
    let mut report = report?;
    if report.final_recipient.is_none() && report.original_recipient.is_none() && report.status.is_none() {
        return None;
    }
    report.reporter.clone_from(reporter);
    report.envelope_id.clone_from(envelope_id);
    Some(report)
}

fn action(value: &str) -> Option<ReportAction> {
    // "failed (unable to relay)"
    let word = value.split([' ', '(', ';']).next().unwrap_or_default().to_ascii_lowercase();
    match word.as_str() {
        "failed" | "failure" => Some(ReportAction::Failed),
        "delayed" => Some(ReportAction::Delayed),
        "delivered" => Some(ReportAction::Delivered),
        "relayed" => Some(ReportAction::Relayed),
        "expanded" => Some(ReportAction::Expanded),
        _ => None,
    }
}

/// `rfc822; a@example.com`, `utf-8; d\x{1B0}@example.com` (RFC 6533 section 3).
fn typed_address(value: &str) -> Option<String> {
    match value.split_once(';') {
        Some((kind, text)) if kind.trim().eq_ignore_ascii_case("utf-8") => address(&unicode(text)),
        Some((_, text)) => address(text),
        None => address(value),
    }
}

/// `\x{1B0}` undone.
fn unicode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("\\x{") {
        out.push_str(&rest[..at]);
        let inner = &rest[at + 3..];
        let end = inner.find('}').unwrap_or(inner.len());
        let c = u32::from_str_radix(&inner[..end], 16).ok().and_then(char::from_u32);
        match c.filter(|_| end <= 6) {
            Some(c) => out.push(c),
            None => out.push_str(&rest[at..at + 3 + end]),
        }
        rest = inner.get(end + 1..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// `dns; mx.example.com`.
fn host(value: &str) -> Option<String> {
    let text = value.split_once(';').map_or(value, |(_, text)| text);
    let word = text.split_whitespace().next()?;
    Some(one_line(word)).filter(|word| word.len() <= 255)
}
