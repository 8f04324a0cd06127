//! The least SMTP client that can hand a message to a relay on this machine: for `posthouse sendmail` where the
//! management socket is not open to the user.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ::smtp::client::ReplyParser;
use ::smtp::stuffing::encode::{DotEncoder, Forbidden};
use bytes::BytesMut;
use mail::{EnhancedStatus, Reply};

use super::context::CliError;

/// How long the relay may take for anything.
const TIMEOUT: Duration = Duration::from_secs(300);

struct Dialogue {
    stream: TcpStream,
    replies: ReplyParser,
    input: BytesMut,
}

/// Sends a message with CRLF line ends to the first of these recipients, as many as the relay takes at a time; says what
/// it was answered, and how many that are. The relay decides whether this client may.
pub(super) fn send(
    server: SocketAddr,
    from: &str,
    to: &[String],
    content: &[u8],
) -> Result<(String, usize), CliError> {
    let lost = |e: &dyn std::fmt::Display| CliError::Temporary(format!("the relay at {server}: {e}"));
    let mut wire = Vec::with_capacity(content.len() + content.len() / 64 + 8);
    let mut encoder = DotEncoder::default();
    let forbidden = |e: Forbidden| CliError::Failed(e.to_string());
    encoder.encode(content, &mut wire).map_err(forbidden)?;
    encoder.finish(&mut wire).map_err(forbidden)?;
    let stream = TcpStream::connect_timeout(&server, Duration::from_secs(10)).map_err(|e| lost(&e))?;
    let timed = stream.set_read_timeout(Some(TIMEOUT)).and_then(|()| stream.set_write_timeout(Some(TIMEOUT)));
    timed.map_err(|e| lost(&e))?;
    let mut dialogue = Dialogue { stream, replies: ReplyParser::default(), input: BytesMut::new() };
    let utf8 = !from.is_ascii() || to.iter().any(|t| !t.is_ascii());
    let eight = if content.is_ascii() { "" } else { " BODY=8BITMIME" };
    let smtputf8 = if utf8 { " SMTPUTF8" } else { "" };
    dialogue.expect(&[]).map_err(|e| lost(&e))?.yes("greeting")?;
    dialogue.say("EHLO localhost").map_err(|e| lost(&e))?.yes("EHLO")?;
    dialogue.say(&format!("MAIL FROM:<{from}>{eight}{smtputf8}")).map_err(|e| lost(&e))?.yes(from)?;
    let mut taken = 0;
    for recipient in to {
        let reply = dialogue.say(&format!("RCPT TO:<{recipient}>")).map_err(|e| lost(&e))?;
        if taken > 0 && is_enough(&reply) {
            break;
        }
        reply.yes(recipient)?;
        taken += 1;
    }
    dialogue.say("DATA").map_err(|e| lost(&e))?.yes("DATA")?;
    let reply = dialogue.expect(&wire).map_err(|e| lost(&e))?;
    reply.yes("the message")?;
    // It is accepted: whatever happens to QUIT does not matter.
    let _ = dialogue.say("QUIT");
    Ok((reply.text, taken))
}

/// No more recipients in this transaction (RFC 5321 section 4.5.3.1.10): those before are to be sent to, then the others.
fn is_enough(reply: &Reply) -> bool {
    let many = EnhancedStatus::new(4, 5, 3);
    reply.code == 452 && reply.enhanced.is_none_or(|status| status == many)
}

impl Dialogue {
    fn say(&mut self, line: &str) -> io::Result<Reply> {
        self.expect(format!("{line}\r\n").as_bytes())
    }

    /// Writes, and waits for one reply.
    fn expect(&mut self, bytes: &[u8]) -> io::Result<Reply> {
        self.stream.write_all(bytes)?;
        let mut chunk = [0; 4096];
        loop {
            let reply = self.replies.next(&mut self.input).map_err(|e| io::Error::other(e.to_string()))?;
            if let Some(reply) = reply {
                return Ok(reply);
            }
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
                read => self.input.extend_from_slice(&chunk[..read]),
            }
        }
    }
}

trait Yes {
    fn yes(&self, about: &str) -> Result<(), CliError>;
}

impl Yes for Reply {
    /// 2xx and 3xx; else an error that says how final it is.
    fn yes(&self, about: &str) -> Result<(), CliError> {
        match self.code / 100 {
            2 | 3 => Ok(()),
            4 => Err(CliError::Temporary(format!("{about}: {self}"))),
            _ => Err(CliError::Failed(format!("{about}: {self}"))),
        }
    }
}
