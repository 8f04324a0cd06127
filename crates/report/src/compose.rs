//! Puts a report together: header, a part for people, a part for programs, and what the original was.

use std::fmt::Write as _;

use mail::{
    Address, Body, Destination, Message, MessageId, Outcome, Recipient, Remote, ReportKind, Timestamp,
};

use crate::encode;
use crate::returned::{self, Part};
use crate::status_part;
use crate::words::{self, ENGLISH};

/// What a report is made of.
#[derive(Clone, Debug)]
pub struct DsnRequest<'a> {
    /// Which report.
    pub kind: ReportKind,
    /// Our own name: the reporting MTA.
    pub hostname: &'a str,
    /// The report's own id; makes its Message-ID.
    pub report: MessageId,
    /// The report's date.
    pub now: Timestamp,
    /// The message it is about.
    pub message: &'a Message,
    /// That message's content, or the beginning of it.
    pub original: Original<'a>,
    /// The recipients it speaks of. Those whose NOTIFY does not ask for this kind are left out.
    pub recipients: &'a [Reported<'a>],
}

/// What there is of the original's content. [`crate::returned()`] says how much of it is of use.
#[derive(Clone, Copy, Debug)]
pub enum Original<'a> {
    /// All of it.
    Full(&'a [u8]),
    /// The beginning of it, with the header section.
    Start(&'a [u8]),
    /// Nothing: it could not be read.
    Lost,
}

/// One recipient of the original, and what became of it.
#[derive(Clone, Debug)]
pub struct Reported<'a> {
    /// Address, NOTIFY and ORCPT.
    pub recipient: &'a Recipient,
    /// What became of it.
    pub ending: Ending,
    /// The last outcome.
    pub outcome: &'a Outcome,
    /// Who answered, if anyone did.
    pub remote: Option<&'a Remote>,
    /// When the last attempt began.
    pub attempted_at: Timestamp,
}

/// What is reported of a recipient: the Action field of RFC 3464 section 2.3.3, and a little more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Refused for good.
    Failed,
    /// Given up after `queue.lifetime`.
    Expired,
    /// Late; tried further until then.
    Delayed {
        /// When it will be given up.
        retry_until: Timestamp,
    },
    /// It is in the mailbox, or with a host that reports nothing further on a success.
    Delivered,
    /// It is with a host that can't report; nothing more will be heard (RFC 3461 section 6.2.2).
    Relayed,
    /// It was an alias for several addresses, and the message is on its way to them. No success of theirs will be reported
    /// (RFC 3461 section 5.2.7).
    Expanded,
}

impl Ending {
    /// How a success is reported: a host that offers DSN does it itself; one that does not leaves us to say that nothing
    /// more will be heard; into a mailbox is delivered (RFC 3461 section 6.2). Mail that is caught or thrown away
    /// reaches nobody, and nobody is told that it did.
    pub fn of_success(destination: &Destination, next_hop_has_dsn: bool) -> Option<Self> {
        match destination {
            Destination::Sandbox | Destination::Discard | Destination::Bounces => None,
            _ if next_hop_has_dsn => None,
            Destination::Lmtp(_) | Destination::LmtpUnix(_) | Destination::Maildir(_) => {
                Some(Ending::Delivered)
            }
            Destination::Mx(_) | Destination::SmartHost(_) | Destination::Smtp(_) => Some(Ending::Relayed),
        }
    }
}

/// A finished report; its reverse path is the null sender.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dsn {
    /// Whom it goes to: the original's reverse path.
    pub to: Address,
    /// Header and body.
    pub content: Vec<u8>,
    /// Whether it has octets over 127.
    pub body: Body,
    /// Whether its envelope and header need SMTPUTF8.
    pub smtputf8: bool,
    /// Its Message-ID, without angle brackets.
    pub header_message_id: String,
    /// How many of the recipients it speaks of.
    pub recipients: usize,
}

/// Whether this recipient's NOTIFY asks for a report of this kind on this message. Never for a null sender: a report on a
/// report would have nowhere to go (RFC 5321 section 6.1).
pub fn wanted(kind: ReportKind, message: &Message, recipient: &Recipient) -> bool {
    message.reverse_path.is_some()
        && match kind {
            ReportKind::Failure => recipient.notify.wants_failure(),
            ReportKind::Delay => recipient.notify.wants_delay(),
            ReportKind::Success => recipient.notify.wants_success(),
        }
}

/// Makes the report; none when nobody asked for it.
pub fn dsn(request: &DsnRequest<'_>) -> Option<Dsn> {
    let to = request.message.reverse_path.clone()?;
    let about: Vec<&Reported<'_>> =
        request.recipients.iter().filter(|r| wanted(request.kind, request.message, r.recipient)).collect();
    if about.is_empty() {
        return None;
    }
    let hostname = &encode::host(request.hostname);
    let parts = [
        human_part(&words::human(&ENGLISH, request, &about, hostname)),
        status_part::status_part(request, &about, hostname),
        returned::part(request),
    ];
    let body = if parts.iter().any(|p| p.eight_bit) { Body::EightBitMime } else { Body::SevenBit };
    let boundary = boundary(request.report, &parts);
    let header_message_id = format!("{}.report@{hostname}", request.report);
    let smtputf8 = !to.is_ascii();
    let mut content = header(request, &to, hostname, &header_message_id, &boundary).into_bytes();
    content.extend_from_slice(b"This is a report on the delivery of a message, in MIME format.\r\n");
    for part in &parts {
        content.extend_from_slice(format!("\r\n--{boundary}\r\n").as_bytes());
        content.extend_from_slice(part.header.as_bytes());
        content.extend_from_slice(b"\r\n");
        content.extend_from_slice(&part.content);
    }
    content.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Some(Dsn {
        to,
        content,
        body: if smtputf8 { Body::EightBitMime } else { body },
        smtputf8,
        header_message_id,
        recipients: about.len(),
    })
}

fn header(request: &DsnRequest<'_>, to: &Address, hostname: &str, id: &str, boundary: &str) -> String {
    let mut header = format!(
        "From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\n\
         To: <{to}>\r\n\
         Subject: {}\r\n\
         Date: {}\r\n\
         Message-ID: <{id}>\r\n",
        words::subject(&ENGLISH, request.kind),
        request.now.rfc5322(),
    );
    let original_id = request.message.header_message_id.as_deref().filter(|id| is_message_id(id));
    if let Some(original_id) = original_id {
        let _ = write!(header, "In-Reply-To: <{original_id}>\r\nReferences: <{original_id}>\r\n");
    }
    let _ = write!(
        header,
        "Auto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\r\n",
    );
    header
}

/// Whether it can stand in our header as it is: the sender chose it.
fn is_message_id(id: &str) -> bool {
    id.len() <= 500
        && id.contains('@')
        && id.bytes().all(|b| b.is_ascii_graphic() && !b"<>()\"\\".contains(&b))
}

fn human_part(text: &str) -> Part {
    let description = "Content-Description: Notification\r\n";
    if text.is_ascii() && encode::fits_lines(text.as_bytes()) {
        Part::seven_bit(
            format!("{description}Content-Type: text/plain; charset=us-ascii\r\n"),
            text.as_bytes().to_vec(),
        )
    } else {
        let header = format!("{description}Content-Type: text/plain; charset=utf-8\r\n");
        Part::quoted_text(&header, text)
    }
}

/// A boundary that no part contains.
fn boundary(report: MessageId, parts: &[Part]) -> String {
    let mut n = 0u32;
    loop {
        let boundary = format!("=_{report}.{n}");
        let is_used =
            |part: &Part| part.content.windows(boundary.len()).any(|window| window == boundary.as_bytes());
        if !parts.iter().any(is_used) {
            return boundary;
        }
        n += 1;
    }
}
