//! Content by DATA and by BDAT (RFC 3030).

use std::fmt::Write;

use bytes::{Buf, BytesMut};
use mail::{EnhancedStatus, Reply};

use super::envelope::Content;
use super::{Chunk, Next, Question, Session, State};
use crate::stuffing::decode::{Decoder, Fault, Piece};

fn refusal(code: u16, subject: u16, detail: u16, text: impl Into<String>) -> Reply {
    let class = if code / 100 == 4 { 4 } else { 5 };
    Reply::new(code, EnhancedStatus::new(class, subject, detail), text)
}

fn fault_reply((fault, line): (Fault, u64)) -> Reply {
    let text = format!(
        "The message has {} in line {line}; lines must end with CR LF and nothing else",
        fault.name()
    );
    refusal(554, 6, 0, text)
}

impl Session {
    /// Content in lines, up to the final dot.
    pub(super) fn data(&mut self, buffer: &mut BytesMut) -> Option<Next> {
        let State::Data(content) = &mut self.state else { return None };
        let (used, piece) = content.decoder.decode(buffer);
        let size = match piece {
            Piece::Content(octets) => octets.len(),
            Piece::NewLine => 2,
            Piece::More => 0,
            Piece::End => {
                buffer.advance(used);
                return self.data_end();
            }
        };
        let more = matches!(piece, Piece::More);
        let new_line = matches!(piece, Piece::NewLine);
        let next = self.take(used, size, new_line);
        if next.is_none() {
            buffer.advance(used);
        }
        if more { next.or(Some(Next::Read)) } else { next }
    }

    /// Hands `size` octets out that end at `used`, unless the content is refused.
    fn take(&mut self, used: usize, size: usize, new_line: bool) -> Option<Next> {
        let max = self.config.settings.message_size_max;
        let (State::Data(content) | State::Chunk(_, content)) = &mut self.state else { return None };
        content.octets = content.octets.saturating_add(size as u64);
        if let Some(fault) = content.decoder.fault() {
            content.refuse(fault_reply(fault));
        }
        if content.octets > max {
            content.refuse(too_big(max));
        }
        if let Some(reply) = &content.refused {
            if std::mem::replace(&mut content.told, true) {
                return None;
            }
            self.consumed = used;
            return Some(Next::Abandoned(reply.clone()));
        }
        if size == 0 {
            return None;
        }
        self.consumed = used;
        Some(if new_line { Next::NewLine } else { Next::Content(used - size..used) })
    }

    fn data_end(&mut self) -> Option<Next> {
        let State::Data(content) = std::mem::replace(&mut self.state, State::Command) else { return None };
        self.content_end(content)
    }

    /// The content is complete: asks the driver, or refuses.
    fn content_end(&mut self, mut content: Content) -> Option<Next> {
        if let Some(fault) = content.decoder.fault() {
            content.refuse(fault_reply(fault));
        }
        let transaction = self.transaction.take();
        match (transaction, content.refused) {
            (Some(transaction), None) => {
                self.state = State::Asked(Question::End);
                Some(Next::End(transaction.envelope))
            }
            (transaction, refused) => {
                // Put back while the reply is written: it decides whether UTF-8 may stand in it.
                self.transaction = transaction;
                let refused = refused.unwrap_or_else(|| refusal(503, 5, 1, "Say MAIL and RCPT first"));
                self.fail(&refused);
                self.transaction = None;
                (!content.told).then_some(Next::Abandoned(refused))
            }
        }
    }

    /// BDAT: whatever is said of it, its octets are consumed.
    pub(super) fn bdat(&mut self, chunk: Chunk) -> Option<Next> {
        let max = self.config.settings.message_size_max;
        if chunk.size > max.saturating_mul(2).saturating_add(1 << 20) {
            self.write(&too_big(max));
            self.hang_up_with("Such a chunk is not worth reading; closing");
            return None;
        }
        let refused = match &mut self.transaction {
            None => Some(refusal(503, 5, 1, "Say MAIL and RCPT first")),
            Some(t) if t.envelope.recipients.is_empty() => {
                Some(refusal(554, 5, 1, "No recipient was accepted, so there is nobody to send this to"))
            }
            Some(t) => match t.chunks.take() {
                Some(content) => {
                    self.state = State::Chunk(chunk, content);
                    return None;
                }
                None if chunk.size > max => Some(too_big(max)),
                None => None,
            },
        };
        match refused {
            Some(reply) => {
                self.state = State::Chunk(chunk, Content::thrown_away(reply));
                None
            }
            None => {
                self.state = State::Asked(Question::Chunk(chunk));
                Some(Next::Begin)
            }
        }
    }

    /// Octets of a chunk.
    pub(super) fn chunk(&mut self, buffer: &mut BytesMut) -> Option<Next> {
        let State::Chunk(chunk, content) = &mut self.state else { return None };
        if chunk.left == 0 {
            return self.chunk_end();
        }
        if buffer.is_empty() {
            return Some(Next::Read);
        }
        let window = usize::try_from(chunk.left).unwrap_or(usize::MAX).min(buffer.len());
        let (used, size, new_line) = if content.told {
            (window, window, false)
        } else {
            match content.decoder.decode(&buffer[..window]) {
                (used, Piece::NewLine) => (used, 2, true),
                (used, Piece::Content(octets)) => (used, octets.len(), false),
                (used, Piece::More | Piece::End) => (used, 0, false),
            }
        };
        chunk.left -= used as u64;
        let next = self.take(used, size, new_line);
        if next.is_none() {
            buffer.advance(used);
        }
        next
    }

    fn chunk_end(&mut self) -> Option<Next> {
        let State::Chunk(chunk, mut content) = std::mem::replace(&mut self.state, State::Command) else {
            return None;
        };
        if chunk.last {
            if content.refused.is_none() {
                content.decoder.finish();
                if content.octets > 0 && content.decoder.fault().is_none() && !content.decoder.at_line_start()
                {
                    // By DATA it could not go on without a line end, and signatures are made as if it had one.
                    content.decoder.decode(b"\r\n");
                    self.state = State::Chunk(chunk, content);
                    return Some(Next::NewLine);
                }
            }
            return self.content_end(content);
        }
        match content.refused.take() {
            None => {
                // Writing into memory cannot fail.
                let _ = write!(self.out, "250 2.0.0 {} octets received\r\n", chunk.size);
            }
            Some(reply) => {
                self.fail(&reply);
                content.refused =
                    Some(refusal(503, 5, 1, "An earlier chunk of this message was refused; send RSET"));
            }
        }
        if let Some(transaction) = &mut self.transaction
            && !transaction.envelope.recipients.is_empty()
        {
            transaction.chunks = Some(content);
        }
        None
    }

    pub(super) fn decoder(&self, bdat: bool) -> Decoder {
        if bdat { Decoder::bdat(self.normalises()) } else { Decoder::data(self.normalises()) }
    }
}

fn too_big(max: u64) -> Reply {
    refusal(552, 3, 4, format!("The message is too big; at most {max} octets are accepted"))
}
