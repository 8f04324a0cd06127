//! Dialogue files. Each line is
//!
//! - `# comment`
//! - `! word…`: what is different from the usual settings, at the head of the file
//! - `C: line` to send with CR LF, `c: octets` to send as they are; both know `\r \n \t \0 \\ \xNN`. Lines that follow
//!   each other are sent in one piece
//! - `S: line` that must come; `…` at its end stands for anything
//! - `S* code`: a reply of any number of lines with this code
//! - `M: octets`: the content of the next accepted message; `R: address`: a recipient of it
//! - `TLS`: the handshake happens; `CLOSED`: the session is over
//!
//! At the end nothing may be left unsaid and no message unmentioned.

use std::fs;
use std::path::Path;

use smtp::sasl::{BindingKind, ChannelBinding};
use smtp::server::{BareNewline, Connection, Settings};

use crate::driver::{Driver, Now, settings};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Whole,
    EveryOctet,
}

struct Setup {
    settings: Settings,
    connection: Connection,
    /// Where the input is cut makes a difference by design.
    whole_only: bool,
}

fn setup(text: &str) -> Setup {
    let mut setup = Setup { settings: settings(), connection: Connection::default(), whole_only: false };
    for word in text.lines().filter_map(|l| l.strip_prefix("! ")).flat_map(str::split_whitespace) {
        match word {
            "tls" => setup.connection.tls = true,
            "no-tls" => setup.settings.tls = false,
            "no-auth" => setup.settings.auth = false,
            "no-scram" => setup.settings.scram = false,
            "auth-in-clear" => setup.connection.auth_in_clear = true,
            "xclient" => setup.connection.xclient = true,
            "normalise" => setup.settings.bare_newline = BareNewline::Normalise,
            "whole" => setup.whole_only = true,
            "binding" => {
                let data = b"the channel".to_vec();
                setup.connection.bindings.push(ChannelBinding { kind: BindingKind::Exporter, data });
            }
            other => panic!("unknown setting {other}"),
        }
    }
    setup
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'\\' {
            octets.push(*first);
            continue;
        }
        let (escape, tail) = tail.split_first().expect("an escape has a letter");
        rest = tail;
        octets.push(match escape {
            b'r' => b'\r',
            b'n' => b'\n',
            b't' => b'\t',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let (digits, tail) = tail.split_at(2);
                rest = tail;
                u8::from_str_radix(&String::from_utf8_lossy(digits), 16).expect("two hexadecimal digits")
            }
            other => panic!("unknown escape \\{}", char::from(*other)),
        });
    }
    octets
}

struct Replay {
    driver: Driver,
    cut: Cut,
    pending: Vec<u8>,
    said: String,
    message: usize,
    recipient: usize,
    at: String,
}

impl Replay {
    /// Sends what is pending.
    fn send(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        match self.cut {
            Cut::Whole => self.driver.feed(&pending),
            Cut::EveryOctet => pending.iter().for_each(|&octet| self.driver.feed(&[octet])),
        }
        self.said.push_str(&self.driver.said());
    }

    fn next_line(&mut self) -> String {
        self.send();
        let end = self.said.find("\r\n").unwrap_or_else(|| panic!("{}: nothing said", self.at));
        let line = self.said[..end].to_owned();
        self.said.drain(..end + 2);
        line
    }

    fn line(&mut self, line: &str) {
        if let Some(text) = line.strip_prefix("C: ") {
            self.pending.extend(unescape(text));
            self.pending.extend_from_slice(b"\r\n");
        } else if line == "C:" {
            self.pending.extend_from_slice(b"\r\n");
        } else if let Some(text) = line.strip_prefix("c: ") {
            self.pending.extend(unescape(text));
        } else if let Some(expected) = line.strip_prefix("S: ") {
            let said = self.next_line();
            match expected.strip_suffix('…') {
                Some(start) => assert!(said.starts_with(start), "{}: said {said}", self.at),
                None => assert_eq!(said, expected, "{}", self.at),
            }
        } else if let Some(code) = line.strip_prefix("S* ") {
            loop {
                let said = self.next_line();
                assert!(said.starts_with(code), "{}: said {said}", self.at);
                if said.as_bytes().get(3) == Some(&b' ') {
                    break;
                }
            }
        } else if let Some(content) = line.strip_prefix("M: ") {
            self.send();
            let message = self.driver.accepted.get(self.message);
            let message = message.unwrap_or_else(|| panic!("{}: no message", self.at));
            let (got, expected) = (message.content.escape_ascii(), unescape(content));
            assert_eq!(got.to_string(), expected.escape_ascii().to_string(), "{}", self.at);
            (self.message, self.recipient) = (self.message + 1, 0);
        } else if let Some(address) = line.strip_prefix("R: ") {
            let message = &self.driver.accepted[self.message - 1];
            let recipient = message.envelope.recipients[self.recipient].address.as_str();
            assert_eq!(recipient, address, "{}", self.at);
            self.recipient += 1;
        } else if line == "TLS" {
            self.send();
            assert_eq!(self.driver.now, Now::StartTls, "{}", self.at);
            self.driver.now = Now::Reading;
            self.driver.buffer.clear();
            self.driver.session.tls_started(Connection { tls: true, ..Connection::default() });
        } else if line == "CLOSED" {
            self.send();
            assert_eq!((self.driver.now, self.said.as_str()), (Now::Closed, ""), "{}", self.at);
        } else {
            panic!("{}: what is {line}?", self.at);
        }
    }
}

fn replay(path: &Path, text: &str, cut: Cut) {
    let Setup { settings, connection, .. } = setup(text);
    let mut replay = Replay {
        driver: Driver::new(settings, connection),
        cut,
        pending: Vec::new(),
        said: String::new(),
        message: 0,
        recipient: 0,
        at: String::new(),
    };
    for (number, line) in text.lines().enumerate() {
        replay.at = format!("{}:{} ({cut:?}): {line}", path.display(), number + 1);
        if !line.is_empty() && !line.starts_with('#') && !line.starts_with('!') {
            replay.line(line);
        }
    }
    replay.send();
    assert_eq!(replay.said, "", "{}: more was said ({cut:?})", path.display());
    assert_eq!(replay.driver.accepted.len(), replay.message, "{}: more was accepted", path.display());
}

#[test]
fn every_dialogue_goes_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        replay(&path, &text, Cut::Whole);
        if !setup(&text).whole_only {
            replay(&path, &text, Cut::EveryOctet);
        }
        count += 1;
    }
    assert!(count >= 15, "{count} dialogues in {}", folder.display());
}
