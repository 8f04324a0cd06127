//! Takes dots off: what comes in by DATA, and the same checks for what comes in by BDAT.
//!
//! Strict: a line ends with CR LF and with nothing else, the content ends with CR LF `.` CR LF and with nothing else.
//! A bare CR, a bare LF or a NUL is a fault of the whole content, since the next hop might read it as a line end
//! (SMTP smuggling). The decoder goes on to the real end all the same: what follows a false end must never be taken
//! for commands.

use memchr::memchr3;

/// What was found at the start of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Octets of the content, as they are.
    Content(&'a [u8]),
    /// A bare LF that is to be read as CR LF.
    NewLine,
    /// The end of the content; what follows is no part of it.
    End,
    /// Nothing can be said before there is more input.
    More,
}

/// Why content cannot be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// LF without CR before it.
    BareLf,
    /// CR without LF behind it.
    BareCr,
    /// An octet 0.
    Nul,
}

impl Fault {
    /// What it is, in words.
    pub fn name(self) -> &'static str {
        match self {
            Fault::BareLf => "a line feed without a carriage return before it",
            Fault::BareCr => "a carriage return without a line feed behind it",
            Fault::Nul => "a NUL",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    LineStart,
    /// A dot at the start of a line; held back.
    Dot,
    /// A dot at the start of a line and a CR; held back.
    DotCr,
    Text,
    /// A CR, handed out already.
    Cr,
}

/// Reads content piece by piece, wherever the input is cut.
#[derive(Clone, Debug)]
pub struct Decoder {
    state: State,
    /// Whether dots are stuffed and a dot ends the content (DATA).
    dots: bool,
    /// Whether a bare LF is read as CR LF.
    normalise: bool,
    fault: Option<(Fault, u64)>,
    line: u64,
}

impl Decoder {
    /// For DATA. `normalise` reads every bare LF as CR LF before anything else looks at it.
    pub fn data(normalise: bool) -> Self {
        Self { state: State::LineStart, dots: true, normalise, fault: None, line: 1 }
    }

    /// For BDAT: the length is known from elsewhere, dots mean nothing.
    pub fn bdat(normalise: bool) -> Self {
        Self { dots: false, ..Self::data(normalise) }
    }

    /// The first fault, and in which line (from 1).
    pub fn fault(&self) -> Option<(Fault, u64)> {
        self.fault
    }

    /// Whether everything so far ended with a line end.
    pub fn at_line_start(&self) -> bool {
        self.state == State::LineStart
    }

    /// There is no more input (BDAT): a CR at the very end is a fault.
    pub fn finish(&mut self) {
        if self.state == State::Cr {
            self.note(Fault::BareCr);
        }
    }

    /// Looks at `input`; tells how much of it was used and what it is. What is left is to be given again.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> (usize, Piece<'a>) {
        let mut at = 0;
        // What is held back at the start of a line, or is not handed out as it is.
        while let Some(&octet) = input.get(at) {
            match (self.state, octet) {
                (State::LineStart, b'.') if self.dots => self.state = State::Dot,
                (State::Dot, b'\r') => self.state = State::DotCr,
                (State::DotCr, b'\n') => return (at + 1, Piece::End),
                (State::Dot, b'\n') if self.normalise => return (at + 1, Piece::End),
                (State::LineStart | State::Text, b'\n') if self.normalise => {
                    self.end_line();
                    return (at + 1, Piece::NewLine);
                }
                (State::DotCr, _) => {
                    self.note(Fault::BareCr);
                    self.state = State::Text;
                    break;
                }
                (State::Dot, _) => {
                    self.state = State::Text;
                    break;
                }
                _ => break,
            }
            at += 1;
        }
        let length = self.scan(&input[at..]);
        match &input[at..at + length] {
            [] => (at, Piece::More),
            content => (at + length, Piece::Content(content)),
        }
    }

    /// How many octets can be handed out as they are.
    fn scan(&mut self, input: &[u8]) -> usize {
        let mut at = 0;
        while at < input.len() {
            match (self.state, input[at]) {
                (State::Cr, b'\n') => {
                    self.end_line();
                    at += 1;
                }
                (State::Cr, _) => {
                    self.note(Fault::BareCr);
                    self.state = State::Text;
                }
                (State::LineStart, b'.') if self.dots => return at,
                _ => {
                    self.state = State::Text;
                    let Some(found) = memchr3(b'\r', b'\n', 0, &input[at..]) else { return input.len() };
                    at += found;
                    match input[at] {
                        b'\r' => self.state = State::Cr,
                        b'\n' if self.normalise => return at,
                        b'\n' => self.note(Fault::BareLf),
                        _ => self.note(Fault::Nul),
                    }
                    at += 1;
                }
            }
        }
        at
    }

    fn end_line(&mut self) {
        self.state = State::LineStart;
        self.line += 1;
    }

    fn note(&mut self, fault: Fault) {
        self.fault.get_or_insert((fault, self.line));
    }
}

#[cfg(test)]
mod tests;
