use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use forward::{Keys, Srs};
use mail::{Address, Clock};
use tempfile::TempDir;

const DOMAIN: &str = "ours.example";

/// A running postsrsd with the keys of a file.
struct Postsrsd {
    child: Child,
    forward: u16,
    reverse: u16,
    _dir: TempDir,
}

impl Postsrsd {
    fn start(keys: &Keys, options: &[&str]) -> Self {
        let program = Path::new("/usr/sbin/postsrsd");
        assert!(program.exists(), "postsrsd is missing: install the Debian package postsrsd");
        let dir = TempDir::with_prefix("postsrsd-").unwrap();
        let secrets = dir.path().join("secrets");
        // It takes every line for a secret, comments too.
        let text: String =
            keys.to_text().lines().filter(|l| !l.starts_with('#')).map(|l| format!("{l}\n")).collect();
        std::fs::write(&secrets, text).unwrap();
        // Two ports that are free now; it can't choose them itself.
        let ports = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [forward, reverse] = ports.map(|listener| listener.local_addr().unwrap().port());
        let child = Command::new(program)
            .args(["-4", "-l", "127.0.0.1", "-d", DOMAIN, "-s"])
            .arg(&secrets)
            .args(["-f", &forward.to_string(), "-r", &reverse.to_string()])
            .args(options)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child, forward, reverse, _dir: dir }
    }

    /// Asks as Postfix's tcp table does (tcp_table(5)): the answer, or the error text.
    fn ask(&self, port: u16, address: &Address) -> Result<Address, String> {
        let mut tries = 0;
        let mut stream = loop {
            match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
                Ok(stream) => break stream,
                Err(error) => {
                    tries += 1;
                    assert!(tries < 200, "postsrsd does not listen: {error}");
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        writeln!(stream, "get {address}").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        match line.trim_end().split_once(' ').unwrap() {
            ("200", found) => Ok(Address::parse(found).unwrap()),
            (code, text) => Err(format!("{code} {text}")),
        }
    }

    fn forward(&self, address: &Address) -> Result<Address, String> {
        self.ask(self.forward, address)
    }

    fn reverse(&self, address: &Address) -> Result<Address, String> {
        self.ask(self.reverse, address)
    }
}

impl Drop for Postsrsd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

const SENDERS: [&str; 6] = [
    "Alice.Bob@example.com",
    "x+y=z-1@sub.example.org",
    "SRS0=abCD=JN=first.example=carol@first.example",
    "SRS0+abCD=JN=first.example=carol@first.example",
    "SRS1=wxyz=first.example==abCD=JN=a.example=dave@second.example",
    "srs1=wxyz=first.example=-abCD=JN=a.example=dave@second.example",
];

#[test]
fn each_turns_back_what_the_other_made() {
    let keys = Keys::make().unwrap();
    let ours = Srs::new(DOMAIN, keys.clone()).unwrap();
    let now = || Clock::system().now();
    // Hashes as long as ours.
    let theirs = Postsrsd::start(&keys, &["-n8", "-N8"]);
    for sender in SENDERS.map(address) {
        let made = ours.forward(&sender, now()).unwrap();
        let back = theirs.reverse(&made).unwrap();
        assert_eq!(ours.reverse(&made, now()), Ok(back.clone()), "{sender} was {made}");
        if sender.local().to_ascii_uppercase().starts_with("SRS") {
            assert_eq!(back.domain(), "first.example", "the first forwarder");
        } else {
            assert_eq!(back, sender);
        }
        let from_them = theirs.forward(&sender).unwrap();
        assert_eq!(ours.reverse(&from_them, now()), Ok(back), "{sender} was {from_them}");
        let folded = address(&made.as_str().to_lowercase());
        assert!(theirs.reverse(&folded).is_ok() && ours.reverse(&folded, now()).is_ok(), "{folded}");
    }
}

#[test]
fn neither_believes_a_forged_one() {
    let keys = Keys::make().unwrap();
    let ours = Srs::new(DOMAIN, keys.clone()).unwrap();
    let theirs = Postsrsd::start(&keys, &[]);
    let made = ours.forward(&address("alice@example.com"), Clock::system().now()).unwrap();
    let forged = address(&made.as_str().replace("alice", "mallory"));
    assert!(theirs.reverse(&made).is_ok());
    assert!(theirs.reverse(&forged).unwrap_err().starts_with('5'), "{forged}");
    assert!(ours.reverse(&forged, Clock::system().now()).is_err());
}

#[test]
fn who_changes_over_keeps_the_key_and_the_addresses_on_their_way() {
    let keys = Keys::make().unwrap().rotated(1).unwrap();
    let theirs = Postsrsd::start(&keys, &[]);
    let sender = address("alice@example.com");
    let made = theirs.forward(&sender).unwrap();
    let ours = Srs::new(DOMAIN, keys.rotated(2).unwrap()).unwrap();
    let now = Clock::system().now();
    assert!(ours.reverse(&made, now).is_err(), "four characters are not believed");
    assert_eq!(ours.accepting_short_hashes().reverse(&made, now), Ok(sender));
}
