//! The client's end of a connection, one reply at a time.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::BytesMut;
use mail::Clock;
use net::{ClientTls, ClientTlsConfig, Stream, Trust};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Wire {
    pub(crate) stream: Stream,
    buffer: BytesMut,
}

impl Wire {
    /// Connects and says nothing.
    pub(crate) async fn silent(address: SocketAddr) -> Self {
        let tcp = TcpStream::connect(address).await.unwrap();
        Self { stream: Stream::Tcp(tcp), buffer: BytesMut::new() }
    }

    /// Connects, reads the greeting, says EHLO.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let mut wire = Self::silent(address).await;
        wire.expect("220").await;
        wire.say("EHLO client.example\r\n", "250").await;
        wire
    }

    pub(crate) async fn start_tls(self) -> Self {
        assert!(self.buffer.is_empty());
        let tls = ClientTls::new(&ClientTlsConfig::default(), Clock::system()).unwrap();
        let stream = tls.connect(self.stream, "relay.example", Trust::Opportunistic, PATIENCE).await.unwrap();
        Self { stream, buffer: BytesMut::new() }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// Sends and reads one reply, which must begin with `code`.
    pub(crate) async fn say(&mut self, text: &str, code: &str) -> String {
        self.send(text).await;
        self.expect(code).await
    }

    /// One reply, all its lines.
    pub(crate) async fn expect(&mut self, code: &str) -> String {
        let mut reply = String::new();
        loop {
            let line = self.line().await.unwrap_or_else(|| panic!("closed instead of {code}: {reply}"));
            reply.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
        assert!(reply.starts_with(code), "expected {code}: {reply}");
        reply
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.iter().position(|&b| b == b'\n') {
                return Some(String::from_utf8(self.buffer.split_to(at + 1).to_vec()).unwrap());
            }
            let read =
                timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("a reply in time");
            if read.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// The connection is closed and nothing more was said.
    pub(crate) async fn closed(mut self) {
        assert_eq!(self.line().await, None);
        assert!(self.buffer.is_empty());
    }

    /// A whole transaction; the reply to the final dot.
    pub(crate) async fn deliver(&mut self, from: &str, to: &[&str], content: &str, code: &str) -> String {
        self.say(&format!("MAIL FROM:<{from}>\r\n"), "250").await;
        for recipient in to {
            self.say(&format!("RCPT TO:<{recipient}>\r\n"), "250").await;
        }
        self.say("DATA\r\n", "354").await;
        self.say(&format!("{content}.\r\n"), code).await
    }
}
