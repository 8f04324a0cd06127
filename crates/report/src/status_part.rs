//! The part for programs: message/delivery-status (RFC 3464), or message/global-delivery-status (RFC 6533) where an address
//! or an answer goes beyond ASCII and the sender is known to understand it.

use mail::{Address, EnhancedStatus, Outcome, Remote};

use crate::compose::{DsnRequest, Ending, Reported};
use crate::encode::{self, field};
use crate::returned::Part;

/// A peer's words are cut after so many characters.
const DIAGNOSTIC_MAX: usize = 1000;

/// Makes the part.
pub(crate) fn status_part(request: &DsnRequest<'_>, about: &[&Reported<'_>], hostname: &str) -> Part {
    let global = request.message.smtputf8;
    let mut text = field("Reporting-MTA", &format!("dns; {hostname}"));
    if let Some(envid) = &request.message.envid {
        text.push_str(&field("Original-Envelope-Id", &safe(&decoded(envid), global)));
    }
    text.push_str(&field("Arrival-Date", &request.message.received_at.rfc5322()));
    for recipient in about {
        text.push_str("\r\n");
        text.push_str(&recipient_fields(recipient, request, global));
    }
    let description = "Content-Description: Delivery report\r\n";
    if text.is_ascii() {
        let header = format!("{description}Content-Type: message/delivery-status\r\n");
        Part::seven_bit(header, text.into_bytes())
    } else {
        let header = format!("{description}Content-Type: message/global-delivery-status\r\n");
        Part::quoted_text(&header, &text)
    }
}

fn recipient_fields(about: &Reported<'_>, request: &DsnRequest<'_>, global: bool) -> String {
    let mut text = String::new();
    if let Some(orcpt) = &about.recipient.orcpt {
        text.push_str(&field("Original-Recipient", &original_recipient(orcpt, global)));
    }
    text.push_str(&field("Final-Recipient", &final_recipient(&about.recipient.address, global)));
    text.push_str(&field("Action", action(about.ending)));
    text.push_str(&field("Status", &status(about).to_string()));
    if let Some(name) = about.remote.and_then(remote_name) {
        text.push_str(&field("Remote-MTA", &format!("dns; {name}")));
    }
    text.push_str(&field("Diagnostic-Code", &diagnostic(about.outcome, global)));
    text.push_str(&field("Last-Attempt-Date", &about.attempted_at.rfc5322()));
    text.push_str(&field("Final-Log-ID", &request.message.id.to_string()));
    if let Ending::Delayed { retry_until } = about.ending {
        text.push_str(&field("Will-Retry-Until", &retry_until.rfc5322()));
    }
    text
}

fn action(ending: Ending) -> &'static str {
    match ending {
        Ending::Failed | Ending::Expired => "failed",
        Ending::Delayed { .. } => "delayed",
        Ending::Delivered => "delivered",
        Ending::Relayed => "relayed",
        Ending::Expanded => "expanded",
    }
}

/// The status code, in the class that its action calls for. Given up is 4.4.7, "delivery time expired" (RFC 3463 section
/// 3.5), whatever the last answer was; that one is in the diagnostic code.
pub(crate) fn status(about: &Reported<'_>) -> EnhancedStatus {
    match about.ending {
        Ending::Failed => about.outcome.status.with_class(5),
        Ending::Expired => EnhancedStatus::new(4, 4, 7),
        Ending::Delayed { .. } => about.outcome.status.with_class(4),
        Ending::Delivered | Ending::Relayed | Ending::Expanded => about.outcome.status.with_class(2),
    }
}

/// `smtp; 550 5.1.1 no such user` with the peer's own words, or our own under a type of our own.
fn diagnostic(outcome: &Outcome, global: bool) -> String {
    let text = safe(&encode::one_line(&outcome.text, DIAGNOSTIC_MAX), global);
    match outcome.code {
        Some(code) if has_own_status(outcome) => format!("smtp; {code} {} {text}", outcome.status),
        Some(code) => format!("smtp; {code} {text}"),
        None => format!("x-posthouse; {text}"),
    }
}

/// Whether the peer gave a status code of its own: x.0.0 is what we put in where it gave none.
pub(crate) fn has_own_status(outcome: &Outcome) -> bool {
    outcome.status.subject != 0 || outcome.status.detail != 0
}

/// The name of a host that was connected to; sockets and mailboxes have none.
fn remote_name(remote: &Remote) -> Option<String> {
    let address = remote.address?;
    if let Some(name) = mail::domain_to_ascii(&remote.name) {
        return Some(name);
    }
    Some(match address.ip() {
        std::net::IpAddr::V4(ip) => format!("[{ip}]"),
        std::net::IpAddr::V6(ip) => format!("[IPv6:{ip}]"),
    })
}

fn final_recipient(address: &Address, global: bool) -> String {
    match (address.is_ascii(), global) {
        (true, _) => format!("rfc822; {}", encode::one_line(address.as_str(), 900)),
        (false, true) => format!("utf-8; {address}"),
        (false, false) => format!("utf-8; {}", encode::utf8_addr_xtext(address.as_str())),
    }
}

/// ORCPT as it was given, with its xtext decoded (RFC 3461 section 6.3, RFC 6533 section 3).
fn original_recipient(orcpt: &str, global: bool) -> String {
    let (kind, address) = orcpt.split_once(';').unwrap_or(("rfc822", orcpt));
    let decoded = decoded(address);
    let address = match (decoded.is_ascii(), global) {
        (true, _) | (_, true) => decoded,
        (false, false) => encode::utf8_addr_xtext(&decoded),
    };
    let kind = safe(kind, false).replace(' ', "");
    format!("{kind}; {}", safe(&address, global))
}

/// xtext decoded where that gives text that can be shown, else as it is.
fn decoded(xtext: &str) -> String {
    encode::xtext_decode(xtext)
        .filter(|text| !text.chars().any(char::is_control))
        .unwrap_or_else(|| xtext.to_owned())
}

fn safe(text: &str, global: bool) -> String {
    let line = encode::one_line(text, DIAGNOSTIC_MAX);
    if global { line } else { encode::ascii(&line) }
}
