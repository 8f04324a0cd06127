//! Reports that come in: delivery status notifications (RFC 3464, RFC 6533), and the bounces of programs that write
//! theirs in another way.
//!
//! What stands in them is what strangers wrote. Nothing here is to be believed but when the mail came to one of our own
//! signed return paths; and then it speaks of the recipient that the path was signed for, whatever address it names.
//! Everything is bounded, whatever the bytes.

mod mime;
mod plain;
mod reply;
mod status;

use std::sync::Arc;

use mail::{Disposition, EnhancedStatus, Outcome, headers};

/// How much of a message is looked at, in octets: reports stand before the original.
pub const REPORT_READ_MAX: usize = 1024 * 1024;

/// How many recipients of one report are told.
pub const REPORT_RECIPIENTS_MAX: usize = 1000;

/// How much of the original's header section is kept, in octets.
const ORIGINAL_MAX: usize = 64 * 1024;

/// A text in a report is cut after so many characters.
const TEXT_MAX: usize = 1000;

/// What a report says of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundReport {
    /// How it is written.
    pub format: ReportFormat,
    /// The address that the sender wrote to, as far as the report knows it.
    pub original_recipient: Option<String>,
    /// The address that it is about.
    pub final_recipient: Option<String>,
    /// What became of the message.
    pub action: ReportAction,
    /// The enhanced status code.
    pub status: Option<EnhancedStatus>,
    /// The reply code of the host that refused, if it is told.
    pub code: Option<u16>,
    /// What that host said, or the reporting one, on one line, without codes.
    pub diagnostic: Option<String>,
    /// The host that refused.
    pub remote: Option<String>,
    /// The host that reports.
    pub reporter: Option<String>,
    /// The ENVID that the message was sent with, xtext undone.
    pub envelope_id: Option<String>,
    /// The original's header section, byte for byte but for line ends; empty when it did not come back.
    pub original: Arc<[u8]>,
}

/// The Action field of RFC 3464 section 2.3.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReportAction {
    /// It will not be delivered.
    Failed,
    /// It is late; nothing is to be done.
    Delayed,
    /// It is in the mailbox.
    Delivered,
    /// It is with a host that does not report.
    Relayed,
    /// It went on to several addresses.
    Expanded,
}

/// How a report is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReportFormat {
    /// With a part of the type message/delivery-status (RFC 3464), or its like of RFC 6533.
    Standard,
    /// As text by Exim, with X-Failed-Recipients.
    Exim,
    /// As text by qmail and its heirs: the qmail-send bounce message format.
    Qmail,
    /// As text by Postfix.
    Postfix,
    /// As text by Sendmail.
    Sendmail,
    /// As text by Exchange.
    Exchange,
    /// As text by Google.
    Google,
}

/// Reads a report; none when the message is none.
pub fn read(content: &[u8]) -> Option<Vec<InboundReport>> {
    let content = mime::crlf(&content[..content.len().min(REPORT_READ_MAX)]);
    let message = mime::Message::of(&content);
    let mut reports = status::read(&message);
    if reports.is_empty() {
        reports = plain::read(&message);
    }
    reports.truncate(REPORT_RECIPIENTS_MAX);
    (!reports.is_empty()).then_some(reports)
}

impl InboundReport {
    /// A recipient of whom nothing is known yet.
    fn new(format: ReportFormat, original: &Arc<[u8]>) -> Self {
        Self {
            format,
            original_recipient: None,
            final_recipient: None,
            action: ReportAction::Failed,
            status: None,
            code: None,
            diagnostic: None,
            remote: None,
            reporter: None,
            envelope_id: None,
            original: original.clone(),
        }
    }

    /// Takes code, status and words out of what a program wrote about a failure.
    fn say(&mut self, text: &str) {
        let said = reply::Said::of(text);
        self.code = self.code.or(said.code);
        self.status = self.status.or(said.status);
        if !said.text.is_empty() {
            self.diagnostic = Some(said.text);
        }
    }

    /// The report as an outcome, to be classified and shown as if the host that refused had told us itself.
    pub fn outcome(&self) -> Outcome {
        let (disposition, class) = match self.action {
            ReportAction::Failed => (Disposition::Refused, 5),
            ReportAction::Delayed => (Disposition::Deferred, 4),
            ReportAction::Delivered | ReportAction::Relayed | ReportAction::Expanded => {
                (Disposition::Delivered, 2)
            }
        };
        let status = self.status.unwrap_or(EnhancedStatus::new(class, 0, 0));
        // What a peer did not say in a code it still said: this is no outcome of our own.
        let code = self.code.unwrap_or(u16::from(status.class) * 100 + 50);
        let text = self.diagnostic.clone().unwrap_or_default();
        Outcome { disposition, status, code: Some(code), text }
    }

    /// A field of the original's header, the first of that name.
    pub fn original_field(&self, name: &str) -> Option<String> {
        headers(&self.original).find(|header| header.is(name)).map(|header| header.text())
    }

    /// The original's Message-ID, without angle brackets.
    pub fn original_message_id(&self) -> Option<String> {
        let text = self.original_field("Message-ID")?;
        let id = text.strip_prefix('<').and_then(|t| t.strip_suffix('>')).unwrap_or(&text);
        Some(id.to_owned()).filter(|id| !id.is_empty())
    }
}

/// The header section at the start of `content`, as many whole fields as are kept.
fn original(content: &[u8]) -> Arc<[u8]> {
    let mut length = 0;
    for header in headers(content) {
        if length + header.raw.len() > ORIGINAL_MAX {
            break;
        }
        length += header.raw.len();
    }
    content[..length].into()
}

/// An address as it stands in a report: `<a@example.com>`, `rfc822; a@example.com`; none when there is none in it.
fn address(text: &str) -> Option<String> {
    let text = text.trim();
    let text = match text.find('<') {
        Some(at) => text[at + 1..].split('>').next().unwrap_or_default(),
        None => text.split_whitespace().next().unwrap_or_default(),
    };
    let text = text.trim_matches(|c: char| matches!(c, '"' | '\'' | ',' | ';' | ':' | '(' | ')'));
    let fits = text.len() <= 400 && !text.contains(|c: char| c.is_control());
    (fits && text.contains('@') && !text.starts_with('@') && !text.ends_with('@')).then(|| text.to_owned())
}

/// Text on one line, cut.
fn one_line(text: &str) -> String {
    crate::encode::one_line(text, TEXT_MAX)
}
