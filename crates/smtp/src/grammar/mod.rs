//! The grammar of commands (RFC 5321 section 4.1, and the extensions we offer). Strict: what two servers could read
//! differently is refused, with words that say what is expected.

mod params;
mod path;
mod xclient;
pub mod xtext;

use mail::{AddressError, EnhancedStatus, Recipient, Reply};

pub use params::{Mail, Rcpt};
pub use path::ForwardPath;
pub use xclient::XClient;

/// Longest command line with its line end, in octets. RFC 5321 asks for 512 and the extensions for a few hundred more.
pub const LINE_MAX: usize = 2048;
/// Longest line in an AUTH exchange with its line end, in octets (RFC 4954 section 4).
pub const AUTH_LINE_MAX: usize = 12_290;

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// HELO with the client's name.
    Helo(&'a str),
    /// EHLO with the client's name or address literal.
    Ehlo(&'a str),
    /// MAIL FROM
    Mail(Mail),
    /// RCPT TO
    Rcpt(Rcpt),
    /// DATA
    Data,
    /// BDAT (RFC 3030)
    Bdat {
        /// How many octets follow.
        size: u64,
        /// Whether they are the last ones.
        last: bool,
    },
    /// RSET
    Rset,
    /// NOOP
    Noop,
    /// QUIT
    Quit,
    /// VRFY
    Vrfy,
    /// EXPN
    Expn,
    /// HELP
    Help,
    /// STARTTLS (RFC 3207)
    StartTls,
    /// AUTH (RFC 4954)
    Auth {
        /// The mechanism's name as written.
        mechanism: &'a str,
        /// The initial response in base 64.
        initial: Option<&'a str>,
    },
    /// XCLIENT (Postfix's XCLIENT_README)
    XClient(XClient),
}

/// A line that is no valid command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SyntaxError {
    /// Not text: control characters or invalid UTF-8.
    #[error("control characters or invalid UTF-8 in a command")]
    NotText,
    /// No command of ours.
    #[error("unknown command")]
    Unknown,
    /// The first line of an HTTP request: a browser was made to talk to us.
    #[error("HTTP")]
    Http,
    /// Wrong arguments, and what is expected.
    #[error("{0}")]
    Arguments(&'static str),
    /// The size in BDAT cannot be read, so where the next command begins is unknown.
    #[error("BDAT needs a size in octets and may end with LAST")]
    BdatSize,
    /// The sender is no address.
    #[error("sender: {0}")]
    Sender(AddressError),
    /// The recipient is no address.
    #[error("recipient: {0}")]
    Recipient(AddressError),
    /// A parameter that we did not offer.
    #[error("unknown parameter {0}")]
    Parameter(String),
}

impl SyntaxError {
    /// The reply to it.
    pub fn reply(&self) -> Reply {
        let reply = |code, subject, detail, text: String| {
            Reply::new(code, EnhancedStatus::new(5, subject, detail), text)
        };
        match self {
            SyntaxError::NotText => {
                reply(500, 5, 2, "Commands are text without control characters, ended by CR LF".into())
            }
            SyntaxError::Unknown => reply(500, 5, 1, "Unknown command; HELP lists the known ones".into()),
            SyntaxError::Http => {
                let text = "This is a mail server; it does not speak HTTP";
                Reply::new(421, EnhancedStatus::new(4, 7, 0), text)
            }
            SyntaxError::Arguments(expected) => reply(501, 5, 4, (*expected).into()),
            SyntaxError::BdatSize => reply(501, 5, 4, self.to_string()),
            SyntaxError::Sender(error) => address_reply(*error, 7, "sender"),
            SyntaxError::Recipient(error) => address_reply(*error, 3, "recipient"),
            SyntaxError::Parameter(name) => reply(
                555,
                5,
                4,
                format!("The parameter {name} is not known here; EHLO lists what is offered"),
            ),
        }
    }
}

fn address_reply(error: AddressError, detail: u16, whose: &str) -> Reply {
    let code = if matches!(error, AddressError::Literal | AddressError::Route) { 553 } else { 501 };
    Reply::new(code, EnhancedStatus::new(5, 1, detail), format!("Bad {whose} address: {error}"))
}

/// Reads one command line, without its line end.
///
/// # Errors
/// [`SyntaxError`] says what is wrong; its [`SyntaxError::reply`] is what the client is told.
pub fn parse(line: &[u8]) -> Result<Command<'_>, SyntaxError> {
    let text = std::str::from_utf8(line).map_err(|_| SyntaxError::NotText)?;
    if text.bytes().any(|b| b.is_ascii_control()) {
        return Err(SyntaxError::NotText);
    }
    let text = text.trim_end_matches(' ');
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim_start_matches(' ');
    let mut upper = [0; 8];
    let upper = match upper.get_mut(..verb.len()) {
        Some(slot) => {
            slot.copy_from_slice(verb.as_bytes());
            slot.make_ascii_uppercase();
            &*slot
        }
        None => b"",
    };
    match upper {
        b"MAIL" => params::mail(rest).map(Command::Mail),
        b"RCPT" => params::rcpt(rest).map(Command::Rcpt),
        b"EHLO" => helo(rest).map(Command::Ehlo),
        b"HELO" => helo(rest).map(Command::Helo),
        b"DATA" => bare(rest, Command::Data, "DATA stands alone"),
        b"BDAT" => bdat(rest),
        b"RSET" => bare(rest, Command::Rset, "RSET stands alone"),
        b"QUIT" => bare(rest, Command::Quit, "QUIT stands alone"),
        b"STARTTLS" => bare(rest, Command::StartTls, "STARTTLS stands alone"),
        b"NOOP" => Ok(Command::Noop),
        b"HELP" => Ok(Command::Help),
        b"VRFY" => needs(rest, Command::Vrfy, "VRFY needs an address"),
        b"EXPN" => needs(rest, Command::Expn, "EXPN needs the name of a list"),
        b"AUTH" => auth(rest),
        b"XCLIENT" => xclient::parse(rest).map(Command::XClient),
        _ if is_http(text) => Err(SyntaxError::Http),
        _ => Err(SyntaxError::Unknown),
    }
}

fn bare<'a>(rest: &str, command: Command<'a>, expected: &'static str) -> Result<Command<'a>, SyntaxError> {
    if rest.is_empty() { Ok(command) } else { Err(SyntaxError::Arguments(expected)) }
}

fn needs<'a>(rest: &str, command: Command<'a>, expected: &'static str) -> Result<Command<'a>, SyntaxError> {
    if rest.is_empty() { Err(SyntaxError::Arguments(expected)) } else { Ok(command) }
}

/// A domain or an address literal. Machines call themselves many things, so any printable word will do.
fn helo(name: &str) -> Result<&str, SyntaxError> {
    let fits = !name.is_empty()
        && name.len() <= 255
        && name.bytes().all(|b| b.is_ascii_graphic() && !b"<>()\"\\,;".contains(&b));
    if fits { Ok(name) } else { Err(SyntaxError::Arguments("Give your host name: EHLO host.example.com")) }
}

fn bdat(rest: &str) -> Result<Command<'_>, SyntaxError> {
    let mut words = rest.split(' ').filter(|w| !w.is_empty());
    let size = words.next().filter(|w| w.bytes().all(|b| b.is_ascii_digit()));
    let size = size.and_then(|w| w.parse().ok()).ok_or(SyntaxError::BdatSize)?;
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return Err(SyntaxError::BdatSize),
    };
    if words.next().is_some() { Err(SyntaxError::BdatSize) } else { Ok(Command::Bdat { size, last }) }
}

fn auth(rest: &str) -> Result<Command<'_>, SyntaxError> {
    let mut words = rest.split(' ');
    let (mechanism, initial) = (words.next().unwrap_or_default(), words.next());
    if mechanism.is_empty() || words.next().is_some() || initial == Some("") {
        return Err(SyntaxError::Arguments("AUTH needs a mechanism and at most one initial response"));
    }
    Ok(Command::Auth { mechanism, initial })
}

/// A browser, or what makes a browser talk to us (cross-protocol attacks).
fn is_http(text: &str) -> bool {
    let verb = text.split(' ').next().unwrap_or_default();
    let verbs = ["GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "CONNECT", "TRACE", "PATCH", "PRI"];
    verbs.contains(&verb) || text.contains(" HTTP/") || text.starts_with("Host:")
}

/// The recipient a forward path means; `<Postmaster>` alone is ours (RFC 5321 section 4.5.1).
///
/// # Errors
/// [`SyntaxError::Recipient`] when our own name makes no address.
pub fn recipient(rcpt: Rcpt, hostname: &str) -> Result<Recipient, SyntaxError> {
    let address = match rcpt.path {
        ForwardPath::Mailbox(address) => address,
        ForwardPath::Postmaster => {
            format!("postmaster@{hostname}").parse().map_err(SyntaxError::Recipient)?
        }
    };
    Ok(Recipient { address, notify: rcpt.notify, orcpt: rcpt.orcpt })
}

#[cfg(test)]
mod tests;
